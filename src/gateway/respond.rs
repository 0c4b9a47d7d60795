//! The only place in the data plane where a failure becomes HTTP and JSON-RPC.
//!
//! A [`Failure`] says what the client may know (`status`, `code`, `message`, `data`) and, apart from it, what the log
//! shall say (`detail`). Constructors are the rows of the error table in `docs/architecture.md`; nothing else in the
//! gateway chooses a status code.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, TRANSFER_ENCODING, WWW_AUTHENTICATE,
};
use http::response::Parts;
use http::{HeaderName, HeaderValue, StatusCode};
use pingora::protocols::http::ServerSession;

use crate::gateway::headers;
use crate::mcp::classify::{Refusal, Rule};
use crate::mcp::jsonrpc;
use crate::mcp::scan::ScanError;
use crate::telemetry::Outcome;

/// A refused body up to this size is read to its end, so that the connection can serve the next request.
const DRAIN_LIMIT: usize = 64 * 1024;
/// A refused body is read and dropped up to this size before the connection closes.
const LINGER_LIMIT: usize = 16 * 1024 * 1024;
/// How long that may take.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// A request that ends with an error of our own.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    /// JSON-RPC error code.
    pub(crate) code: i32,
    /// What the client reads.
    pub(crate) message: Cow<'static, str>,
    /// JSON text for `error.data`.
    pub(crate) data: Option<String>,
    /// What the log reads, if there is more to say than `message`.
    pub(crate) detail: Option<String>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) outcome: Outcome,
    /// The connection's framing can no longer be trusted.
    pub(crate) close: bool,
}

impl Failure {
    pub(crate) fn new(
        status: StatusCode,
        code: i32,
        outcome: Outcome,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            data: None,
            detail: None,
            headers: Vec::new(),
            outcome,
            close: false,
        }
    }

    /// Adds what only the log may say.
    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds a response header.
    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Adds `error.data`, as JSON text.
    pub(crate) fn data(mut self, json: impl Into<String>) -> Self {
        self.data = Some(json.into());
        self
    }

    /// Says when trying again may help.
    pub(crate) fn retry_after(mut self, wait: Duration) -> Self {
        self.headers.retain(|(name, _)| *name != RETRY_AFTER);
        self.header(RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)))
    }

    pub(crate) fn overloaded(detail: impl Into<String>) -> Self {
        let text = "the gateway holds as many sessions as it may; try again later";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, jsonrpc::OVERLOADED, Outcome::Overload, text)
            .detail(detail)
            .header(RETRY_AFTER, HeaderValue::from(5u64))
    }

    /// What cannot be recorded is not done.
    pub(crate) fn audit_full() -> Self {
        let text =
            "the gateway has no room to record this request in its audit, and refuses what it cannot record";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, jsonrpc::OVERLOADED, Outcome::Overload, text)
            .header(RETRY_AFTER, HeaderValue::from(5u64))
    }

    /// The server has answered, and the record of it is not on the disk.
    pub(crate) fn audit_failed() -> Self {
        let text =
            "the gateway could not record the answer in its audit and withholds it; the call may have run";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, jsonrpc::OVERLOADED, Outcome::Internal, text)
    }

    fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    pub(crate) fn bad_host() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            jsonrpc::FORBIDDEN,
            Outcome::BadRequest,
            "this Host is not served here; the gateway's `listeners.mcp.allowed_hosts` names those that are",
        )
    }

    pub(crate) fn bad_origin() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            jsonrpc::FORBIDDEN,
            Outcome::BadRequest,
            "this Origin may not use the gateway; `listeners.mcp.allowed_origins` names those that may",
        )
    }

    pub(crate) fn header_too_large(what: String) -> Self {
        Self::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            jsonrpc::INVALID_REQUEST,
            Outcome::TooLarge,
            what,
        )
        .closing()
    }

    pub(crate) fn internal(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            jsonrpc::GATEWAY_INTERNAL,
            Outcome::Internal,
            "the gateway failed; the log has the details under this request id",
        )
        .detail(detail)
    }

    /// A body that is not a message.
    pub(crate) fn unreadable(error: &ScanError) -> Self {
        let text = error.to_string();
        Self::new(StatusCode::BAD_REQUEST, error.code(), Outcome::BadRequest, text)
    }

    /// A request that breaks a rule of the wire.
    pub(crate) fn refusal(refusal: Refusal) -> Self {
        let outcome = match refusal.rule {
            Rule::HeaderMismatch | Rule::Handshake => Outcome::HeaderMismatch,
            Rule::InvalidVersion | Rule::UnsupportedVersion => Outcome::UnsupportedVersion,
            Rule::Method => Outcome::NotFound,
            _ => Outcome::BadRequest,
        };
        let code = refusal.code.unwrap_or(jsonrpc::INVALID_REQUEST);
        let mut failure = Self::new(refusal.status, code, outcome, refusal.message);
        failure.data = refusal.data.map(|data| data.to_string());
        match refusal.allow {
            Some(allow) => failure.header(ALLOW, HeaderValue::from_static(allow)),
            None => failure,
        }
    }

    /// A method that does not exist here: 404 in the modern era, an ordinary answer before.
    pub(crate) fn unknown_method(modern: bool, method: &str) -> Self {
        let status = if modern { StatusCode::NOT_FOUND } else { StatusCode::OK };
        let text = format!("Method not found: {}", clip(method, 128));
        Self::new(status, jsonrpc::METHOD_NOT_FOUND, Outcome::Denied, text)
    }

    pub(crate) fn no_route() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            jsonrpc::ROUTE_NOT_FOUND,
            Outcome::NotFound,
            "no MCP endpoint at this host and path",
        )
    }

    /// Nothing is at this place because its document cannot be used, which may end at any time.
    pub(crate) fn unusable() -> Self {
        let text = "the configuration of the tenant at this address cannot be used at the moment; \
                    the gateway's operator finds the reason in `tollgate status`";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, jsonrpc::CONFIGURATION_UNUSABLE, Outcome::Internal, text)
            .header(RETRY_AFTER, HeaderValue::from(30u64))
    }

    pub(crate) fn method_not_allowed(allow: &'static str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            jsonrpc::METHOD_NOT_ALLOWED,
            Outcome::NotFound,
            format!("this endpoint takes {allow}"),
        )
        .header(ALLOW, HeaderValue::from_static(allow))
    }

    pub(crate) fn ambiguous_framing() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            jsonrpc::INVALID_REQUEST,
            Outcome::BadRequest,
            "the request's length is ambiguous: Transfer-Encoding must be `chunked`, without Content-Length",
        )
        .closing()
    }

    pub(crate) fn unsupported_media_type() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            jsonrpc::UNSUPPORTED_MEDIA_TYPE,
            Outcome::BadRequest,
            "the body must be application/json in UTF-8, without a content coding",
        )
    }

    pub(crate) fn body_too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            jsonrpc::BODY_TOO_LARGE,
            Outcome::TooLarge,
            format!("the request body is over the limit of {limit} bytes"),
        )
        .closing()
    }

    pub(crate) fn body_too_slow() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            jsonrpc::REQUEST_TIMEOUT,
            Outcome::ClientSlow,
            "the request body did not arrive in time",
        )
        .closing()
    }

    pub(crate) fn unauthenticated(challenge: HeaderValue, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, jsonrpc::UNAUTHENTICATED, Outcome::Unauthenticated, message)
            .header(WWW_AUTHENTICATE, challenge)
    }

    pub(crate) fn malformed_credential(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, jsonrpc::UNAUTHENTICATED, Outcome::Unauthenticated, message)
    }

    pub(crate) fn forbidden(challenge: Option<HeaderValue>, message: impl Into<Cow<'static, str>>) -> Self {
        let failure = Self::new(StatusCode::FORBIDDEN, jsonrpc::FORBIDDEN, Outcome::Forbidden, message);
        match challenge {
            Some(value) => failure.header(WWW_AUTHENTICATE, value),
            None => failure,
        }
    }

    /// Nobody's keys can be had: not the caller's fault.
    pub(crate) fn identity_unavailable(message: impl Into<Cow<'static, str>>) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, jsonrpc::OVERLOADED, Outcome::Unauthenticated, message)
            .header(RETRY_AFTER, HeaderValue::from(5u64))
    }

    /// A denied item answers as one that does not exist.
    pub(crate) fn unknown_item(what: &str, name: &str) -> Self {
        Self::new(
            StatusCode::OK,
            jsonrpc::INVALID_PARAMS,
            Outcome::Denied,
            format!("Unknown {what}: {}", clip(name, 256)),
        )
    }

    pub(crate) fn unknown_session() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            jsonrpc::SESSION_NOT_FOUND,
            Outcome::SessionUnknown,
            "session not found: it has ended, expired or belongs to another caller; initialize again",
        )
    }

    pub(crate) fn bad_handle(what: &'static str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            jsonrpc::INVALID_PARAMS,
            Outcome::BadRequest,
            format!("invalid `{what}`: it was not issued to this caller here, was altered, or has expired"),
        )
    }

    pub(crate) fn scattered_tasks() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            jsonrpc::INVALID_PARAMS,
            Outcome::BadRequest,
            "these tasks run on different targets: listen to each with a request of its own",
        )
    }

    pub(crate) fn refused_batch() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            jsonrpc::INVALID_REQUEST,
            Outcome::BadRequest,
            "lists are filtered here and cannot be asked for in a batch: send them one by one",
        )
    }

    pub(crate) fn limited(limit: &str, retry_after: Duration) -> Self {
        let secs = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            jsonrpc::LIMIT_EXCEEDED,
            Outcome::Limited,
            format!("rate limit `{limit}` reached; retry in {secs} s"),
        )
        .data(format!(r#"{{"retryAfterMs":{}}}"#, retry_after.as_millis()))
        .header(RETRY_AFTER, HeaderValue::from(secs.max(1)))
    }

    pub(crate) fn too_many_streams(limit: u32) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            jsonrpc::LIMIT_EXCEEDED,
            Outcome::Overload,
            format!("this caller already holds {limit} streams"),
        )
        .data(r#"{"retryAfterMs":1000}"#)
        .header(RETRY_AFTER, HeaderValue::from(1u64))
    }

    pub(crate) fn no_target(server: &str) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            jsonrpc::UPSTREAM_UNAVAILABLE,
            Outcome::UpstreamUnavailable,
            format!("server `{server}` has no healthy target"),
        )
        .header(RETRY_AFTER, HeaderValue::from(1u64))
    }

    pub(crate) fn upstream_failed(server: &str, detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_GATEWAY,
            jsonrpc::UPSTREAM_FAILED,
            Outcome::UpstreamError,
            format!("server `{server}` closed the connection or sent something that is not HTTP; the call may have run"),
        )
        .detail(detail)
    }

    pub(crate) fn upstream_unreachable(server: &str, detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_GATEWAY,
            jsonrpc::UPSTREAM_UNAVAILABLE,
            Outcome::UpstreamError,
            format!("server `{server}` could not be reached; the call did not run"),
        )
        .detail(detail)
    }

    pub(crate) fn upstream_response(server: &str, detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_GATEWAY,
            jsonrpc::UPSTREAM_FAILED,
            Outcome::UpstreamError,
            format!("server `{server}` answered with something the gateway cannot pass on"),
        )
        .detail(detail)
    }

    pub(crate) fn upstream_credential(server: &str) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            jsonrpc::UPSTREAM_CREDENTIAL,
            Outcome::UpstreamCredential,
            format!(
                "server `{server}` does not accept the gateway's own credential; this is not about yours"
            ),
        )
    }

    pub(crate) fn deadline(server: &str, what: &'static str) -> Self {
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            jsonrpc::DEADLINE,
            Outcome::Timeout,
            format!("server `{server}` did not answer within `timeouts.{what}`"),
        )
    }
}

/// At most `max` bytes of `text`, cut between characters.
pub(crate) fn clip(text: &str, max: usize) -> &str {
    let end = text.len().min(max);
    let end = (0..=end).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    &text[..end]
}

/// The body of the answer. `id` is the raw JSON-RPC id of the request, when it could be read.
pub(crate) fn body(failure: &Failure, id: Option<&str>) -> Vec<u8> {
    jsonrpc::error_body(id, failure.code, &failure.message, failure.data.as_deref())
}

/// Writes the failure with its body.
///
/// # Errors
/// When the client is gone; nothing is left to do then.
pub(crate) async fn write(
    session: &mut ServerSession,
    failure: &Failure,
    body: Vec<u8>,
    common: &headers::Common<'_>,
) -> pingora::Result<()> {
    let mut header = headers::response(failure.status, 8);
    header.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    header.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, value) in &failure.headers {
        header.headers.append(name.clone(), value.clone());
    }
    common.apply(&mut header);
    // Pingora is lenient about the form of chunks: after one that did not make a message, where it ended is a guess.
    let chunked = session.get_header(TRANSFER_ENCODING).is_some();
    if failure.close || chunked || !drained(session).await {
        session.set_keepalive(None);
    }
    send(session, header, body.into()).await
}

/// Writes a whole response with a known length, in one piece.
pub(crate) async fn send(session: &mut ServerSession, mut header: Parts, body: Bytes) -> pingora::Result<()> {
    if body.is_empty() && matches!(header.status.as_u16(), 202 | 204) {
        if header.status == StatusCode::ACCEPTED {
            header.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        session.write_response_header(Box::new(header.into())).await?;
        return session.write_response_body(Bytes::new(), true).await;
    }
    header.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    session.write_response_header(Box::new(header.into())).await?;
    session.write_response_body(body, true).await
}

/// Reads on for a moment after an early answer. A socket that is closed with unread bytes is reset, and a reset can
/// overtake the answer: the client would see a broken connection instead of its 413.
pub(crate) async fn linger(session: &mut ServerSession) {
    let drain = async {
        let mut read = 0;
        while read < LINGER_LIMIT && !session.is_body_done() {
            match session.read_request_body().await {
                Ok(Some(chunk)) => read += chunk.len(),
                _ => break,
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, drain).await;
}

/// Reads what is left of a small request body. `false` = the connection cannot be kept.
async fn drained(session: &mut ServerSession) -> bool {
    if session.is_body_done() {
        return true;
    }
    let declared = session
        .get_header(CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse::<usize>().ok())
        .unwrap_or(usize::MAX);
    if declared > DRAIN_LIMIT {
        return false;
    }
    let drain = async {
        while session.read_request_body().await?.is_some() {}
        Ok::<_, Box<pingora::Error>>(())
    };
    matches!(tokio::time::timeout(DRAIN_TIMEOUT, drain).await, Ok(Ok(())))
}
