//! One bounded request and answer over pingora's client connector.

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, header};
use pingora::RetryType;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession;
use std::time::Duration;

use crate::upstream::probe::message::{Collector, Reply};
use crate::upstream::probe::{ProbeError, USER_AGENT};
use crate::upstream::target::Endpoint;

/// Most bytes of an answer. A catalogue entry carries instructions, but not megabytes of them.
pub(crate) const MAX_ANSWER: usize = 1024 * 1024;
/// After the message in a stream: how long to wait for the stream's end, so that the connection can be kept.
const STREAM_END: Duration = Duration::from_millis(100);

pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) path: &'a PathAndQuery,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Option<Bytes>,
    /// The id of the JSON-RPC reply to look for; without one the body is read and thrown away.
    pub(crate) want: Option<u64>,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) session: Option<HeaderValue>,
    pub(crate) reply: Option<Reply>,
}

/// Sends a request. A kept connection that the server closed meanwhile is replaced once; the caller bounds the time.
pub(crate) async fn send(
    connector: &Connector,
    endpoint: &Endpoint,
    request: Request<'_>,
) -> Result<Answer, ProbeError> {
    let mut retried = false;
    loop {
        let (mut session, reused) = connector
            .get_http_session(&*endpoint.peer)
            .await
            .map_err(|e| ProbeError::Connect(describe(&e)))?;
        match talk(&mut session, endpoint, &request).await {
            Ok((answer, true)) => {
                connector
                    .release_http_session(session, &*endpoint.peer, endpoint.peer.options.idle_timeout)
                    .await;
                return Ok(answer);
            }
            Ok((answer, false)) => {
                session.shutdown().await;
                return Ok(answer);
            }
            Err(Fault::Pingora(e)) if reused && !retried && e.retry == RetryType::ReusedOnly => {
                retried = true
            }
            Err(Fault::Pingora(e)) => return Err(ProbeError::Io(describe(&e))),
            Err(Fault::Probe(e)) => {
                session.shutdown().await;
                return Err(e);
            }
        }
    }
}

enum Fault {
    Pingora(Box<pingora::Error>),
    Probe(ProbeError),
}

impl From<Box<pingora::Error>> for Fault {
    fn from(error: Box<pingora::Error>) -> Self {
        Fault::Pingora(error)
    }
}

/// The exchange itself; the flag says whether the connection may be used again.
async fn talk(
    session: &mut HttpSession,
    endpoint: &Endpoint,
    request: &Request<'_>,
) -> Result<(Answer, bool), Fault> {
    session.write_request_header(Box::new(build(endpoint, request)?)).await?;
    if let Some(body) = &request.body {
        session.write_request_body(body.clone(), true).await?;
    }
    session.finish_request_body().await?;
    loop {
        session.read_response_header().await?;
        let informational = session.response_header().is_some_and(|h| h.status.is_informational());
        // HTTP/2 hides interim answers; a second read there would be a mistake.
        if !informational || session.as_http2().is_some() {
            break;
        }
    }
    let (status, id, stream) = match session.response_header() {
        Some(head) => (
            head.status.as_u16(),
            head.headers.get("mcp-session-id").cloned(),
            head.headers
                .get(header::CONTENT_TYPE)
                .is_some_and(|v| v.as_bytes().starts_with(b"text/event-stream")),
        ),
        None => return Err(Fault::Probe(ProbeError::Io("no response header".to_owned()))),
    };
    let mut answer = Answer { status, session: id, reply: None };
    let Some(want) = request.want else {
        // A stream that nobody asked for may never end.
        let complete = !stream && drain(session).await?;
        return Ok((answer, complete));
    };
    let mut collector = Collector::new(want, stream);
    let mut size = 0;
    while let Some(chunk) = session.read_response_body().await? {
        size += chunk.len();
        if size > MAX_ANSWER {
            return Err(Fault::Probe(ProbeError::TooLarge));
        }
        answer.reply = collector.push(&chunk);
        if answer.reply.is_some() {
            let rest = tokio::time::timeout(STREAM_END, drain(session)).await;
            return Ok((answer, matches!(rest, Ok(Ok(true)))));
        }
    }
    answer.reply = collector.finish();
    Ok((answer, true))
}

/// Reads what is left; `false` if that is too much.
async fn drain(session: &mut HttpSession) -> Result<bool, Box<pingora::Error>> {
    let mut size = 0;
    while let Some(chunk) = session.read_response_body().await? {
        size += chunk.len();
        if size > MAX_ANSWER {
            return Ok(false);
        }
    }
    Ok(true)
}

fn build(endpoint: &Endpoint, request: &Request<'_>) -> Result<RequestHeader, Box<pingora::Error>> {
    let mut head = RequestHeader::build(request.method.clone(), request.path.as_str().as_bytes(), None)?;
    head.insert_header(header::HOST, endpoint.authority.clone())?;
    head.insert_header(header::USER_AGENT, USER_AGENT)?;
    for (name, value) in &endpoint.spec.credentials {
        head.append_header(name.clone(), value.clone())?;
    }
    for (name, value) in &request.headers {
        head.insert_header(name.clone(), value.clone())?;
    }
    if let Some(body) = &request.body {
        head.insert_header(header::CONTENT_TYPE, "application/json")?;
        head.insert_header(header::CONTENT_LENGTH, body.len().to_string())?;
    }
    Ok(head)
}

/// Kind and context of an error, without the peer's dump that pingora's own text carries.
fn describe(error: &pingora::Error) -> String {
    match error.root_cause().to_string() {
        cause if cause.is_empty() || cause.len() > 200 => error.etype().as_str().to_owned(),
        cause => format!("{}: {cause}", error.etype().as_str()),
    }
}
