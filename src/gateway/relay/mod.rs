//! Passes an upstream response on to the client, piece by piece.
//!
//! - A JSON answer with nothing to rewrite streams through with its length. One that has to be rewritten (a list to
//!   filter, a handle to seal) is collected first, within a bound.
//! - An SSE answer is passed on chunk by chunk, each flushed at once; with something to rewrite, event by event.
//! - Every SSE stream gets a comment after 15 s of silence, only at an event boundary, and ends when its
//!   server has been silent for the stream's idle time.
//! - A client that goes away ends the exchange in the modern era, where that means "cancel" (MCP 2026-07-28 streamable
//!   HTTP §Cancellation). In the legacy era it does not (2025-11-25 transports §Sending 6): a stream whose events have ids
//!   can be resumed, so we leave it, too, and the server keeps what the client will ask for; any other answer is read to
//!   its end and dropped, because to the server our leaving would be the client's.

mod flow;
mod stream;
mod whole;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::response::Parts;
use http::{HeaderMap, StatusCode};
use pingora::protocols::http::ServerSession;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::audit::Full;
use crate::gateway::acknowledge::Settle;
use crate::gateway::record::Answer;
use crate::gateway::{Phase, headers};
use crate::mcp::session::{OpenStream, Record};

pub(crate) use stream::events;
pub(crate) use whole::json;

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

/// `Option::as_deref_mut` would tie the borrow to the plan's own lifetime.
fn reborrow<'s>(rewrite: &'s mut Option<&mut dyn Rewrite>) -> Option<&'s mut dyn Rewrite> {
    match rewrite {
        Some(rewrite) => Some(&mut **rewrite),
        None => None,
    }
}
