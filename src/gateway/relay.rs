//! Passes an upstream response on to the client, piece by piece.
//!
//! - A JSON answer with nothing to rewrite streams through with its length. One that has to be rewritten (a list to
//!   filter, a handle to seal) is collected first, within a bound.
//! - An SSE answer is passed on chunk by chunk, each flushed at once; with something to rewrite, event by event.
//! - Every SSE stream gets a comment after [`PING_EVERY`] of silence, only at an event boundary, and ends when its
//!   server has been silent for the stream's idle time.
//! - A client that goes away ends the exchange in the modern era, where that means "cancel" (MCP 2026-07-28 streamable
//!   HTTP §Cancellation). In the legacy era it does not (2025-11-25 transports §Sending 6): a stream whose events have ids
//!   can be resumed, so we leave it, too, and the server keeps what the client will ask for; any other answer is read to
//!   its end and dropped, because to the server our leaving would be the client's.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use pingora::protocols::http::ServerSession;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::audit::Full;
use crate::gateway::acknowledge::{AnswerSeen, Settle, UNRECORDED};
use crate::gateway::exchange::{Exchange, Whole};
use crate::gateway::record::Answer;
use crate::gateway::respond::Failure;
use crate::gateway::send::{Race, race};
use crate::gateway::{Phase, Stop, headers};
use crate::mcp::session::{OpenStream, Record};
use crate::mcp::sse::{Boundary, Events, Outgoing};

/// Silence on a client's stream after which a comment is sent.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(15);
/// The comment.
const PING: Bytes = Bytes::from_static(b":\n\n");

/// Looks at each JSON-RPC message on its way to the client.
pub(crate) trait Rewrite: Send {
    /// The message to send instead, or `None` for the message as it is.
    ///
    /// # Errors
    /// The message must not be passed on: what it holds could not be checked.
    fn message(&mut self, json: &[u8]) -> Result<Option<Vec<u8>>, String>;

    /// Whether a message too large to look at may pass unseen.
    fn may_skip(&self) -> bool;
}

/// How a response is to be treated.
pub(crate) struct Plan<'a> {
    /// Disconnect cancels (modern) or not (legacy).
    pub(crate) cancel_on_disconnect: bool,
    /// A stream that outlives its request: GET, `subscriptions/listen`.
    pub(crate) long_lived: bool,
    /// Ends the stream when the server has sent nothing for this long.
    pub(crate) idle: Duration,
    /// The raw id of the request, for an error in place of a broken stream's answer.
    pub(crate) id: Option<&'a str>,
    pub(crate) rewrite: Option<&'a mut dyn Rewrite>,
    /// The last words of a long-lived stream at shutdown.
    pub(crate) farewell: Option<Vec<u8>>,
    /// When the caller's credential ends; a long-lived stream ends then.
    pub(crate) expires: Option<Instant>,
    /// The session a stream belongs to; it ends with it.
    pub(crate) ended: Option<Arc<Record>>,
    /// The stream in the operators' list; it ends if one of them says so.
    pub(crate) closing: Option<Arc<OpenStream>>,
    /// What has been read of the answer already.
    pub(crate) prefix: Bytes,
    /// Bound for a collected JSON answer and for one event.
    pub(crate) message_limit: usize,
    pub(crate) phase: watch::Receiver<Phase>,
    /// Records the event: with the bytes of the answer, and with what broke it, if something did.
    pub(crate) settle: Settle<'a>,
    /// Keeps the answer for the event, if it is recorded; until then.
    pub(crate) answer: Option<Answer>,
}

impl Plan<'_> {
    /// Takes note of bytes that go to the client. Returns whether they end the message that answers a call in a stream.
    fn pass(&mut self, bytes: &[u8]) -> bool {
        self.answer.as_mut().is_some_and(|answer| answer.pass(bytes))
    }

    /// Records the event, and waits for the disk if that is what counts.
    async fn settled(&mut self, bytes_out: u64, broken: Option<&str>) -> Result<(), Full> {
        match (self.settle)(bytes_out, broken, self.answer.take())? {
            Some(receipt) => receipt.durable().await,
            None => Ok(()),
        }
    }
}

/// What happened.
#[derive(Debug, Default)]
pub(crate) struct Relayed {
    pub(crate) bytes_out: u64,
    pub(crate) client_gone: bool,
    /// The server broke off, with what the log shall say.
    pub(crate) broken: Option<String>,
    /// The response to the client has its proper end.
    pub(crate) ended: bool,
    /// Time waited for the server after its header.
    pub(crate) waited: Duration,
}

/// The client's side of a response.
struct Client<'s> {
    session: &'s mut ServerSession,
    gone: bool,
    ended: bool,
    sent: u64,
}

impl Client<'_> {
    async fn write(&mut self, bytes: Bytes) {
        if self.gone || bytes.is_empty() {
            return;
        }
        self.sent += bytes.len() as u64;
        self.gone = self.session.write_response_body(bytes, false).await.is_err();
    }

    async fn end(&mut self) {
        if !self.gone {
            self.gone = self.session.write_response_body(Bytes::new(), true).await.is_err();
            self.ended = !self.gone;
        }
    }
}

/// Builds the client's response header from the server's.
pub(crate) fn response_header(
    upstream: &HeaderMap,
    status: StatusCode,
    common: &headers::Common<'_>,
) -> Parts {
    let mut header = headers::response(status, upstream.len() + 6);
    let connection = upstream.get(http::header::CONNECTION);
    for (name, value) in upstream {
        if headers::passes_downstream(name, connection) {
            header.headers.append(name.clone(), value.clone());
        }
    }
    common.apply(&mut header);
    header
}

/// Whether the answer is an event stream.
pub(crate) fn is_event_stream(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|v| {
        let v = v.as_bytes();
        v.get(..17).is_some_and(|t| t.eq_ignore_ascii_case(b"text/event-stream"))
    })
}

/// Passes on an answer that is not an event stream.
///
/// # Errors
/// [`Stop`] before the first byte went to the client; after that, trouble is in [`Relayed`].
pub(crate) async fn json(
    session: &mut ServerSession,
    exchange: &mut Exchange,
    mut header: Parts,
    plan: &mut Plan<'_>,
) -> Result<Relayed, Stop> {
    let started = Instant::now();
    let cancels = plan.cancel_on_disconnect;
    if let Some(rewrite) = reborrow(&mut plan.rewrite) {
        let collected = {
            let collecting = pin!(exchange.collect(plan.message_limit, plan.idle));
            left_or(session, cancels, collecting).await?
        };
        let (body, whole) = collected.map_err(Stop::Broken)?;
        let waited = started.elapsed();
        if whole == Whole::Yes {
            let body = match rewrite.message(&body) {
                Ok(Some(changed)) => changed.into(),
                Ok(None) => body,
                Err(reason) => return Err(Stop::Unreadable(reason)),
            };
            let mut relayed = send_whole(session, header, body, plan).await?;
            relayed.waited = waited;
            return Ok(relayed);
        }
        if !rewrite.may_skip() {
            return Err(Stop::Unreadable(format!("answer over {} bytes", plan.message_limit)));
        }
        return Ok(stream_rest(session, exchange, header, body, plan, started).await);
    }
    if !plan.prefix.is_empty() {
        // Collected whole already.
        let prefix = std::mem::take(&mut plan.prefix);
        return send_whole(session, header, prefix, plan).await;
    }
    // A declared length lets the header and the first piece leave together.
    let first = {
        let waiting = pin!(exchange.chunk_within(plan.idle));
        left_or(session, cancels, waiting).await?
    };
    let Some(first) = first.map_err(Stop::Broken)? else {
        let mut relayed = send_whole(session, header, Bytes::new(), plan).await?;
        relayed.waited = started.elapsed();
        return Ok(relayed);
    };
    if let Some(length) = exchange.headers().get(CONTENT_LENGTH).cloned() {
        if length.as_bytes() == itoa(first.len()).as_bytes() {
            let waited = started.elapsed();
            // Reads the end, so that the connection can be kept.
            let _ = exchange.chunk().await;
            let mut relayed = send_whole(session, header, first, plan).await?;
            relayed.waited = waited;
            return Ok(relayed);
        }
        header.headers.insert(CONTENT_LENGTH, length);
    }
    Ok(stream_rest(session, exchange, header, first, plan, started).await)
}

/// Waits for the server; a client that leaves meanwhile ends the wait, where leaving cancels.
async fn left_or<T>(
    session: &mut ServerSession,
    cancels: bool,
    wait: Pin<&mut impl Future<Output = T>>,
) -> Result<T, Stop> {
    match race(session, wait, cancels).await {
        Race::Done(done) => Ok(done),
        Race::Gone(detail) => Err(Stop::Client(detail)),
    }
}

fn itoa(n: usize) -> String {
    n.to_string()
}

async fn send_whole(
    session: &mut ServerSession,
    header: Parts,
    body: Bytes,
    plan: &mut Plan<'_>,
) -> Result<Relayed, Stop> {
    let bytes_out = body.len() as u64;
    plan.pass(&body);
    plan.settled(bytes_out, None).await.map_err(|_| Failure::audit_failed())?;
    let client_gone = crate::gateway::respond::send(session, header, body).await.is_err();
    Ok(Relayed { bytes_out, client_gone, ended: !client_gone, ..Relayed::default() })
}

async fn stream_rest(
    session: &mut ServerSession,
    exchange: &mut Exchange,
    mut header: Parts,
    first: Bytes,
    plan: &mut Plan<'_>,
    started: Instant,
) -> Relayed {
    if session.as_http1().is_some() && !header.headers.contains_key(CONTENT_LENGTH) {
        header.headers.insert(http::header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let mut client = Client { session, gone: false, ended: false, sent: 0 };
    // Where a length is declared, the answer is complete with its last byte, before any end of ours.
    let length = exchange.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    client.gone = client.session.write_response_header(Box::new(header.into())).await.is_err();
    let mut relayed = Relayed::default();
    let mut next = Some(first);
    loop {
        if let Some(chunk) = next.take() {
            let sent = client.sent + chunk.len() as u64;
            plan.pass(&chunk);
            if length.is_some_and(|length| sent >= length) && plan.settled(sent, None).await.is_err() {
                relayed.broken = Some(UNRECORDED.to_owned());
                break;
            }
            client.write(chunk).await;
        }
        if client.gone && plan.cancel_on_disconnect {
            break;
        }
        let read = {
            let chunk = std::pin::pin!(exchange.chunk_within(plan.idle));
            race(client.session, chunk, plan.cancel_on_disconnect).await
        };
        let Race::Done(chunk) = read else {
            client.gone = true;
            break;
        };
        match chunk {
            Ok(Some(chunk)) => next = Some(chunk),
            Ok(None) => {
                if !client.gone && plan.settled(client.sent, None).await.is_err() {
                    relayed.broken = Some(UNRECORDED.to_owned());
                    break;
                }
                client.end().await;
                relayed.ended = !client.gone;
                break;
            }
            Err(e) => {
                relayed.broken = Some(e);
                break;
            }
        }
    }
    relayed.client_gone = client.gone;
    relayed.bytes_out = client.sent;
    relayed.waited = started.elapsed();
    relayed
}

/// Passes on an event stream.
pub(crate) async fn events(
    session: &mut ServerSession,
    exchange: &mut Exchange,
    mut header: Parts,
    plan: &mut Plan<'_>,
) -> Relayed {
    // Proxies behind us must not hold events back either.
    header.headers.insert(headers::X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    if !header.headers.contains_key(CACHE_CONTROL) {
        header.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if session.as_http1().is_some() {
        header.headers.insert(http::header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let mut client = Client { session, gone: false, ended: false, sent: 0 };
    client.gone = client.session.write_response_header(Box::new(header.into())).await.is_err();
    let mut relayed = Relayed::default();
    let mut flow = Flow::new(plan.rewrite.is_some(), plan.message_limit);
    let prefix = std::mem::take(&mut plan.prefix);
    let mut answer = AnswerSeen::default();
    if !prefix.is_empty() {
        match flow.pass(prefix.clone(), reborrow(&mut plan.rewrite)) {
            Ok(bytes) => match acknowledge(&mut answer, &bytes, client.sent, plan).await {
                Ok(()) => client.write(bytes).await,
                Err(_) => relayed.broken = Some(UNRECORDED.to_owned()),
            },
            Err(reason) => relayed.broken = Some(reason),
        }
    }
    let mut resumable = has_event_id(&prefix);
    let mut heard = Instant::now();
    let mut wrote = heard;
    // Since when we have been waiting for the server.
    let mut turned = heard;
    let mut first = heard + PING_EVERY.min(plan.idle);
    if let Some(at) = plan.expires.filter(|_| plan.long_lived) {
        first = first.min(at);
    }
    let alarm = sleep_until(first);
    tokio::pin!(alarm);
    loop {
        if relayed.broken.is_some() || (client.gone && (plan.cancel_on_disconnect || resumable)) {
            break;
        }
        tokio::select! {
            biased;
            chunk = exchange.chunk() => match chunk {
                Ok(Some(chunk)) => {
                    heard = Instant::now();
                    relayed.waited += heard - turned;
                    turned = heard;
                    wrote = heard;
                    resumable = resumable || has_event_id(&chunk);
                    match flow.pass(chunk, reborrow(&mut plan.rewrite)) {
                        Ok(bytes) => {
                            if acknowledge(&mut answer, &bytes, client.sent, plan).await.is_err() {
                                relayed.broken = Some(UNRECORDED.to_owned());
                                break;
                            }
                            client.write(bytes).await;
                        }
                        Err(reason) => {
                            relayed.broken = Some(reason);
                            break;
                        }
                    }
                    turned = Instant::now();
                }
                Ok(None) => {
                    relayed.waited += turned.elapsed();
                    turned = Instant::now();
                    let rest = flow.rest();
                    let sent = client.sent + rest.len() as u64;
                    plan.pass(&rest);
                    if !client.gone && plan.settled(sent, None).await.is_err() {
                        relayed.broken = Some(UNRECORDED.to_owned());
                        break;
                    }
                    client.write(rest).await;
                    client.end().await;
                    break;
                }
                Err(e) => {
                    relayed.broken = Some(e);
                    break;
                }
            },
            gone = client.session.read_body_or_idle(true), if !client.gone => {
                // Whatever comes after the request's end is not for us: a client that sends it has given up on this.
                let _ = gone;
                client.gone = true;
            }
            () = &mut alarm => {
                let now = Instant::now();
                if now.duration_since(heard) >= plan.idle {
                    relayed.broken = Some(format!("silent for {:?}", plan.idle));
                    break;
                }
                if plan.long_lived && plan.expires.is_some_and(|at| at <= now) {
                    end_politely(&mut client, &mut flow, plan).await;
                    break;
                }
                if now.duration_since(wrote) >= PING_EVERY && flow.at_boundary() {
                    client.write(PING).await;
                    wrote = now;
                }
                // Inside an event there is no place for a comment: look again in a while.
                let ping = (wrote + PING_EVERY).max(now + Duration::from_secs(1));
                let mut next = ping.min(heard + plan.idle).max(now + Duration::from_millis(10));
                if let Some(at) = plan.expires.filter(|at| plan.long_lived && *at > now) {
                    next = next.min(at);
                }
                alarm.as_mut().reset(next);
            }
            () = session_closed(plan.ended.as_deref()), if plan.long_lived => {
                end_politely(&mut client, &mut flow, plan).await;
                break;
            }
            () = stream_closed(plan.closing.as_deref()), if plan.long_lived => {
                end_politely(&mut client, &mut flow, plan).await;
                break;
            }
            changed = plan.phase.changed() => {
                let phase = *plan.phase.borrow_and_update();
                if changed.is_err() || phase == Phase::Closing || (phase == Phase::Draining && plan.long_lived) {
                    if plan.long_lived {
                        end_politely(&mut client, &mut flow, plan).await;
                    } else {
                        relayed.broken = Some("the gateway is shutting down".to_owned());
                    }
                    break;
                }
            }
        }
    }
    // Whatever ended it came while we waited.
    relayed.waited += turned.elapsed();
    if let Some(reason) = &relayed.broken {
        break_off(&mut client, &flow, plan, reason).await;
    }
    relayed.client_gone = client.gone;
    relayed.ended = client.ended;
    relayed.bytes_out = client.sent;
    relayed
}

/// Records the event before bytes that hold the answer of a call.
async fn acknowledge(
    answer: &mut AnswerSeen,
    bytes: &Bytes,
    sent: u64,
    plan: &mut Plan<'_>,
) -> Result<(), Full> {
    if plan.long_lived {
        return Ok(());
    }
    // Where the answer is kept it has to have passed whole, and it is known when it has.
    let comes = if plan.answer.is_some() { plan.pass(bytes) } else { answer.comes_with(bytes) };
    if !comes {
        return Ok(());
    }
    answer.is_known();
    plan.settled(sent + bytes.len() as u64, None).await
}

/// `Option::as_deref_mut` would tie the borrow to the plan's own lifetime.
fn reborrow<'s>(rewrite: &'s mut Option<&mut dyn Rewrite>) -> Option<&'s mut dyn Rewrite> {
    match rewrite {
        Some(rewrite) => Some(&mut **rewrite),
        None => None,
    }
}

/// Whether an event in these bytes has an id. An id cut in two by a chunk's edge is missed; the next one is not.
fn has_event_id(chunk: &[u8]) -> bool {
    chunk.starts_with(b"id:") || memchr::memmem::find(chunk, b"\nid:").is_some()
}

/// Waits until the session is over; for ever if there is none.
async fn session_closed(record: Option<&Record>) {
    match record {
        Some(record) => record.closed().await,
        None => std::future::pending().await,
    }
}

/// Waits until an operator ends the stream; for ever if it is not in their list.
async fn stream_closed(stream: Option<&OpenStream>) {
    match stream {
        Some(stream) => stream.closed().await,
        None => std::future::pending().await,
    }
}

/// One event with this message.
fn event(message: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(message.len() + 16);
    // Without id and name there is nothing that could be wrong with it.
    let _ = Outgoing { event: None, id: None, retry_ms: None, data: message }.encode(&mut out);
    out.into()
}

async fn end_politely(client: &mut Client<'_>, flow: &mut Flow, plan: &mut Plan<'_>) {
    // A stream that cannot be recorded ends all the same: nothing is withheld by keeping it open.
    let _ = plan.settled(client.sent, None).await;
    let farewell = plan.farewell.take();
    if let Some(message) = farewell.filter(|_| flow.at_boundary()) {
        client.write(event(&message)).await;
    }
    client.end().await;
}

/// The server broke off: a call gets an error in place of its answer, if that can still be told apart from what came
/// before; a long-lived stream just ends, and its client opens another.
async fn break_off(client: &mut Client<'_>, flow: &Flow, plan: &mut Plan<'_>, reason: &str) {
    let error =
        plan.id.filter(|_| flow.at_boundary() && !plan.long_lived && reason != UNRECORDED).map(|id| {
            use crate::mcp::jsonrpc::{UPSTREAM_FAILED, error_body};
            let text = "the server broke off before its answer; the call may have run";
            event(&error_body(Some(id), UPSTREAM_FAILED, text, None))
        });
    if let Some(error) = &error {
        plan.pass(error);
    }
    let recorded = plan.settled(client.sent, Some(reason)).await.is_ok();
    if plan.long_lived {
        client.end().await;
        return;
    }
    if let Some(error) = error.filter(|_| recorded) {
        tracing::debug!(event = "stream_broken", reason);
        client.write(error).await;
        client.end().await;
    }
    // Otherwise the response stays without an end, and the connection closes: no client takes that for an answer.
}

/// Bytes on their way, with or without a look inside.
enum Flow {
    Raw(Boundary),
    Parsed(Box<Events>),
}

impl Flow {
    fn new(parse: bool, event_limit: usize) -> Self {
        if parse { Flow::Parsed(Box::new(Events::new(event_limit))) } else { Flow::Raw(Boundary::new()) }
    }

    fn pass(&mut self, chunk: Bytes, rewrite: Option<&mut dyn Rewrite>) -> Result<Bytes, String> {
        match (self, rewrite) {
            (Flow::Parsed(events), Some(rewrite)) => rewrite_events(events, &chunk, rewrite),
            (Flow::Raw(boundary), _) => {
                boundary.feed(&chunk);
                Ok(chunk)
            }
            (Flow::Parsed(_), None) => Ok(chunk),
        }
    }

    fn at_boundary(&self) -> bool {
        match self {
            Flow::Raw(boundary) => boundary.at_event(),
            // What was passed on ends with an event; what is held back is not seen by the client.
            Flow::Parsed(_) => true,
        }
    }

    /// An unfinished event at the end of the stream, as it came.
    fn rest(&mut self) -> Bytes {
        match self {
            Flow::Raw(_) => Bytes::new(),
            Flow::Parsed(events) => {
                let tail = std::mem::replace(&mut **events, Events::new(0)).finish();
                match tail.event {
                    Some(event) => event.into_raw(),
                    None => tail.rest,
                }
            }
        }
    }
}

fn rewrite_events(events: &mut Events, chunk: &[u8], rewrite: &mut dyn Rewrite) -> Result<Bytes, String> {
    events.feed(chunk);
    let mut out = Vec::new();
    let mut only = None;
    while let Some(event) = events.next().map_err(|e| e.to_string())? {
        let changed = match event.data() {
            Some(data) if !data.is_empty() => rewrite.message(&data)?,
            _ => None,
        };
        let bytes = match changed {
            Some(changed) => event.with_data(&changed),
            None => event.into_raw(),
        };
        // The usual chunk is one event: no copy.
        match (&only, out.is_empty()) {
            (None, true) => only = Some(bytes),
            (Some(first), true) => {
                out.extend_from_slice(first);
                out.extend_from_slice(&bytes);
            }
            _ => out.extend_from_slice(&bytes),
        }
    }
    Ok(if out.is_empty() { only.unwrap_or_default() } else { out.into() })
}
