//! Event streams: chunk by chunk or event by event, kept alive, and ended for whatever reason there is.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http::header::CACHE_CONTROL;
use http::response::Parts;
use pingora::protocols::http::ServerSession;
use tokio::time::{Instant, sleep_until};

use super::flow::Flow;
use super::{Client, Plan, Relayed, reborrow};
use crate::audit::Full;
use crate::gateway::acknowledge::{AnswerSeen, UNRECORDED};
use crate::gateway::exchange::Exchange;
use crate::gateway::{Phase, headers};
use crate::mcp::session::{OpenStream, Record};
use crate::mcp::sse::Outgoing;

/// Silence on a client's stream after which a comment is sent.
const PING_EVERY: Duration = Duration::from_secs(15);
/// The comment.
const PING: Bytes = Bytes::from_static(b":\n\n");

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
