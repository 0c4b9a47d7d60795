//! One request to one target, up to its response header, and the body after it.
//!
//! Servers over plain HTTP/1.1 are spoken to by [`super::wire`]; TLS and HTTP/2 go through Pingora's connector. What
//! failed, and whether the server may have seen the request, is part of the error: only the caller knows whether
//! repeating it is safe.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use pingora::ErrorType;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;
use tokio::net::TcpStream;

use crate::gateway::wire::{self, Head, Pool, Wire, WireError};
use crate::upstream::Lease;

/// For the server to take in a whole request.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// A request to a server, ready to be sent more than once.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    /// Without framing and `Host`, which belong to the target.
    pub(crate) fields: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Bytes,
}

/// The two ways to servers.
pub(crate) struct Clients {
    pub(crate) connector: Connector,
    pub(crate) pool: Pool,
}

/// An upstream request whose response header has been read.
pub(crate) struct Exchange {
    link: Link,
    /// Read ahead, and to be read again.
    ahead: Bytes,
}

enum Link {
    Pingora { session: Box<HttpSession>, done: bool },
    Plain { wire: Wire<TcpStream>, head: Head },
}

/// Why there is no response.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// No connection: the server has seen nothing.
    Connect(String),
    /// The connection broke before a response. `reused`: it came from the pool and may have been closed already.
    Broken { reused: bool, detail: String },
    /// No response header in time.
    FirstByte,
    /// The server's answer is not HTTP we understand.
    Invalid(String),
}

impl OpenError {
    /// Whether the server certainly has not run the request.
    pub(crate) fn unseen(&self) -> bool {
        matches!(self, OpenError::Connect(_))
    }

    /// What the log says.
    pub(crate) fn detail(&self) -> &str {
        match self {
            OpenError::Connect(detail) | OpenError::Broken { detail, .. } | OpenError::Invalid(detail) => {
                detail
            }
            OpenError::FirstByte => "no response header in time",
        }
    }
}

/// Times of an exchange.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(crate) connect: Duration,
    /// From the last byte of the request to the response header.
    pub(crate) first_byte: Duration,
}

/// Sends the request and waits for the response header. Dropping the future closes the connection.
pub(crate) async fn open(
    clients: &Clients,
    lease: &Lease,
    request: &Outgoing,
    patience: Patience,
) -> Result<Exchange, OpenError> {
    let link = match lease.plain_address() {
        Some(address) => plain(clients, lease, address, request, patience).await?,
        // Boxed: its future, with a TLS handshake inside, would be part of every request's, and be held by every stream.
        None => Box::pin(through_pingora(clients, lease, request, patience)).await?,
    };
    let exchange = Exchange { link, ahead: Bytes::new() };
    if exchange.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(OpenError::Invalid("the server wants to switch protocols".to_owned()));
    }
    Ok(exchange)
}

async fn plain(
    clients: &Clients,
    lease: &Lease,
    address: std::net::SocketAddr,
    request: &Outgoing,
    patience: Patience,
) -> Result<Link, OpenError> {
    let (stream, reused) = match clients.pool.take(address) {
        Some(stream) => (stream, true),
        None => {
            let made = wire::connect(address, patience.connect).await;
            (made.map_err(|e| OpenError::Connect(e.to_string()))?, false)
        }
    };
    let failed = |e: WireError| match e {
        WireError::Invalid(what) => OpenError::Invalid(what.to_owned()),
        e => OpenError::Broken { reused, detail: e.to_string() },
    };
    let mut wire = Wire::new(stream);
    let send = wire.send(wire_head(request, lease), request.body.clone());
    match tokio::time::timeout(SEND_TIMEOUT, send).await {
        Ok(sent) => sent.map_err(failed)?,
        Err(_) => {
            return Err(OpenError::Broken {
                reused: false,
                detail: "it stopped reading the request".to_owned(),
            });
        }
    }
    match tokio::time::timeout(patience.first_byte, wire.head()).await {
        Ok(Ok(head)) => Ok(Link::Plain { wire, head }),
        Ok(Err(e)) => Err(failed(e)),
        Err(_) => Err(OpenError::FirstByte),
    }
}

/// The header as HTTP/1.1 bytes. Names and values were checked when they became `HeaderName` and `HeaderValue`.
fn wire_head(request: &Outgoing, lease: &Lease) -> Vec<u8> {
    let credentials = lease.credentials();
    let fields: usize =
        request.fields.iter().chain(credentials).map(|(n, v)| n.as_str().len() + v.len() + 4).sum();
    let mut head =
        Vec::with_capacity(fields + lease.path_and_query().as_str().len() + lease.authority().len() + 96);
    head.extend_from_slice(request.method.as_str().as_bytes());
    head.push(b' ');
    head.extend_from_slice(lease.path_and_query().as_str().as_bytes());
    head.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    head.extend_from_slice(lease.authority().as_bytes());
    head.extend_from_slice(b"\r\n");
    for (name, value) in request.fields.iter().chain(credentials) {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    if request.method == Method::POST {
        head.extend_from_slice(b"content-length: ");
        head.extend_from_slice(request.body.len().to_string().as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

async fn through_pingora(
    clients: &Clients,
    lease: &Lease,
    request: &Outgoing,
    patience: Patience,
) -> Result<Link, OpenError> {
    let peer: &HttpPeer = lease.peer();
    let (session, reused) =
        clients.connector.get_http_session(peer).await.map_err(|e| OpenError::Connect(e.to_string()))?;
    let mut session = Box::new(session);
    session.set_read_timeout(None);
    session.set_write_timeout(Some(SEND_TIMEOUT));
    let broken = |e: Box<pingora::Error>| match e.etype() {
        ErrorType::InvalidHTTPHeader | ErrorType::H2Error | ErrorType::InvalidH2 => {
            OpenError::Invalid(e.to_string())
        }
        _ => OpenError::Broken { reused, detail: e.to_string() },
    };
    let header = pingora_head(request, lease, session.as_http2().is_some()).map_err(broken)?;
    session.write_request_header(Box::new(header)).await.map_err(broken)?;
    if !request.body.is_empty() {
        session.write_request_body(request.body.clone(), true).await.map_err(broken)?;
    }
    session.finish_request_body().await.map_err(broken)?;
    let header = async {
        loop {
            session.read_response_header().await?;
            match session.response_header() {
                // HTTP/2 has skipped them already, and must not be asked twice.
                Some(h)
                    if h.status.is_informational()
                        && h.status != StatusCode::SWITCHING_PROTOCOLS
                        && session.as_http2().is_none() => {}
                _ => return Ok::<_, Box<pingora::Error>>(()),
            }
        }
    };
    match tokio::time::timeout(patience.first_byte, header).await {
        Ok(Ok(())) => Ok(Link::Pingora { session, done: false }),
        Ok(Err(e)) => Err(broken(e)),
        Err(_) => {
            session.shutdown().await;
            Err(OpenError::FirstByte)
        }
    }
}

fn pingora_head(request: &Outgoing, lease: &Lease, h2: bool) -> pingora::Result<RequestHeader> {
    let path = lease.path_and_query().as_str();
    let mut header = RequestHeader::build_no_case(
        request.method.clone(),
        path.as_bytes(),
        Some(request.fields.len() + 4),
    )?;
    if h2 {
        // HTTP/2 has `:authority` instead, which Pingora takes from the URI.
        let uri = format!("https://{}{path}", String::from_utf8_lossy(lease.authority().as_bytes()));
        if let Ok(uri) = uri.parse() {
            header.set_uri(uri);
        }
    }
    header.insert_header(http::header::HOST, lease.authority().clone())?;
    for (name, value) in request.fields.iter().chain(lease.credentials()) {
        header.append_header(name.clone(), value.clone())?;
    }
    if request.method == Method::POST {
        header.insert_header(http::header::CONTENT_LENGTH, HeaderValue::from(request.body.len()))?;
    }
    Ok(header)
}

impl Exchange {
    pub(crate) fn status(&self) -> StatusCode {
        match &self.link {
            Link::Pingora { session, .. } => {
                session.response_header().map_or(StatusCode::BAD_GATEWAY, |h| h.status)
            }
            Link::Plain { head, .. } => head.status,
        }
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        match &self.link {
            // `open` returns only once a header has been read.
            Link::Pingora { session, .. } => {
                &session.response_header().expect("an exchange has its response header").headers
            }
            Link::Plain { head, .. } => &head.headers,
        }
    }

    /// The next piece of the body, never empty. May be dropped while pending and called again.
    ///
    /// # Errors
    /// What the log shall say.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, String> {
        if !self.ahead.is_empty() {
            return Ok(Some(std::mem::take(&mut self.ahead)));
        }
        match &mut self.link {
            Link::Plain { wire, .. } => wire.chunk().await.map_err(|e| e.to_string()),
            Link::Pingora { session, done } => loop {
                match session.read_response_body().await.map_err(|e| e.to_string())? {
                    Some(chunk) if chunk.is_empty() => {}
                    chunk => {
                        *done = chunk.is_none();
                        return Ok(chunk);
                    }
                }
            },
        }
    }

    /// Makes `chunk` return these bytes once more.
    pub(crate) fn put_back(&mut self, bytes: Bytes) {
        self.ahead = bytes;
    }

    /// The same, at most `idle` later.
    pub(crate) async fn chunk_within(&mut self, idle: Duration) -> Result<Option<Bytes>, String> {
        match tokio::time::timeout(idle, self.chunk()).await {
            Ok(chunk) => chunk,
            Err(_) => Err(format!("silent for {idle:?} in mid-answer")),
        }
    }

    /// The whole body, if it is within `limit`; otherwise what was read so far, with more to come. Each piece may take
    /// `idle`.
    pub(crate) async fn collect(&mut self, limit: usize, idle: Duration) -> Result<(Bytes, Whole), String> {
        let Some(first) = self.chunk_within(idle).await? else { return Ok((Bytes::new(), Whole::Yes)) };
        if first.len() > limit {
            return Ok((first, Whole::No));
        }
        let Some(second) = self.chunk_within(idle).await? else { return Ok((first, Whole::Yes)) };
        let mut body = BytesMut::from(first);
        let mut next = Some(second);
        while let Some(chunk) = next {
            body.extend_from_slice(&chunk);
            if body.len() > limit {
                return Ok((body.freeze(), Whole::No));
            }
            next = self.chunk_within(idle).await?;
        }
        Ok((body.freeze(), Whole::Yes))
    }

    /// Gives the connection back if the response was read to its end, and closes it otherwise: the server sees that
    /// as a cancellation, or a stream reset in HTTP/2.
    pub(crate) async fn finish(self, clients: &Clients, lease: &Lease) {
        match self.link {
            Link::Plain { wire, .. } => {
                if let (Some(address), Some(stream)) = (lease.plain_address(), wire.into_reusable()) {
                    let (timeout, max) = lease.pool();
                    clients.pool.put(address, stream, timeout, max);
                }
            }
            Link::Pingora { mut session, done } => {
                // Large, and rarer than the other: every request would have the room for it.
                Box::pin(async move {
                    if done || session.response_done() {
                        let peer: &HttpPeer = lease.peer();
                        clients.connector.release_http_session(*session, peer, Some(lease.pool().0)).await;
                    } else {
                        session.shutdown().await;
                    }
                })
                .await;
            }
        }
    }
}

/// Whether a collected body is all there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whole {
    No,
    Yes,
}
