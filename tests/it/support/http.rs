//! HTTP/1.1 byte by byte.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::within;

/// A request as it goes out. The length is added when it is written, unless the framing is given.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn new(method: &str, target: &str) -> Self {
        Self { method: method.to_owned(), target: target.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    /// Adds a header, also if there is one of that name.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Puts a header in place of those of that name.
    pub fn set(self, name: &str, value: &str) -> Self {
        self.without(name).with(name, value)
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The bytes of the header alone, with its empty line.
    pub fn head(&self) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            out.push_str(&format!("{name}: {value}\r\n"));
        }
        let framed =
            |n: &str| n.eq_ignore_ascii_case("content-length") || n.eq_ignore_ascii_case("transfer-encoding");
        if self.method == "POST" && !self.headers.iter().any(|(n, _)| framed(n)) {
            out.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        out.push_str("\r\n");
        out.into_bytes()
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.head();
        out.extend_from_slice(&self.body);
        out
    }
}

/// A response's status line and fields.
#[derive(Clone, Debug)]
pub struct Head {
    pub status: u16,
    pub headers: Vec<(String, String)>,
}

impl Head {
    fn parse(text: &str) -> Self {
        let mut lines = text.split("\r\n");
        let line = lines.next().unwrap_or_default();
        let status = line.split(' ').nth(1).and_then(|s| s.parse().ok());
        let status = status.unwrap_or_else(|| panic!("not a status line: {line:?}"));
        let headers = lines
            .filter(|l| !l.is_empty())
            .map(|l| l.split_once(':').unwrap_or_else(|| panic!("not a header field: {l:?}")))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Self { status, headers }
    }

    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// All values of a header, joined.
    pub fn joined(&self, name: &str) -> String {
        let values =
            self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str());
        values.collect::<Vec<_>>().join(", ")
    }
}

/// A whole response.
#[derive(Clone, Debug)]
pub struct Response {
    pub head: Head,
    pub body: Vec<u8>,
    /// Whether the body came to its proper end.
    pub whole: bool,
}

impl Response {
    pub fn status(&self) -> u16 {
        self.head.status
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The JSON body, or the last message of an event stream.
    pub fn json(&self) -> Value {
        let text = self.text();
        let is_stream = self.header("content-type").is_some_and(|t| t.starts_with("text/event-stream"));
        let json = if is_stream { events(&text).pop().unwrap_or_default() } else { text.clone() };
        serde_json::from_str(&json).unwrap_or_else(|e| panic!("{e}: {} {text:?}", self.head.status))
    }

    /// `error.code`, or 0.
    pub fn code(&self) -> i64 {
        self.json()["error"]["code"].as_i64().unwrap_or_default()
    }
}

/// The data of each event of a stream's text that has some.
fn events(text: &str) -> Vec<String> {
    let text = text.replace("\r\n", "\n");
    text.split("\n\n").map(data).filter(|d| !d.is_empty()).collect()
}

fn data(event: &str) -> String {
    let lines = event.lines().filter_map(|l| l.strip_prefix("data:")).map(str::trim_start);
    lines.collect::<Vec<_>>().join("\n")
}

/// What comes next of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Bytes(Vec<u8>),
    /// The connection ended before the body did.
    Cut,
    /// The proper end.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Chunked,
    Done,
    Length(usize),
    UntilClose,
}

pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// One connection. Dropping it closes it.
pub struct Client {
    io: Box<dyn Io>,
    received: Vec<u8>,
    framing: Framing,
    /// Decoded and not yet taken as an event.
    pending: Vec<u8>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = within("connect", TcpStream::connect(address)).await.expect("the gateway accepts");
        stream.set_nodelay(true).expect("a socket option");
        Self::over(stream)
    }

    pub fn over(io: impl Io + 'static) -> Self {
        Self { io: Box::new(io), received: Vec::new(), framing: Framing::Done, pending: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.expect("the connection takes bytes");
    }

    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        let write = async {
            self.io.write_all(bytes.as_ref()).await?;
            self.io.flush().await
        };
        within("send", write).await
    }

    /// Sends a request and reads the whole response.
    pub async fn ask(&mut self, request: &Request) -> Response {
        self.send(request.bytes()).await;
        self.response().await
    }

    async fn fill(&mut self) -> bool {
        self.received.reserve(16 * 1024);
        matches!(self.io.read_buf(&mut self.received).await, Ok(n) if n > 0)
    }

    /// The next response header; `None` if the connection ends first.
    pub async fn try_head(&mut self) -> Option<Head> {
        let read = async {
            loop {
                if let Some(end) = find(&self.received, b"\r\n\r\n") {
                    let text = String::from_utf8(self.received[..end].to_vec()).expect("a header is ASCII");
                    self.received.drain(..end + 4);
                    let head = Head::parse(&text);
                    if head.status != 100 {
                        return Some(head);
                    }
                    continue;
                }
                if !self.fill().await {
                    return None;
                }
            }
        };
        let head = within("a response header", read).await?;
        self.framing = match (head.header("transfer-encoding"), head.header("content-length")) {
            _ if head.status == 204 => Framing::Done,
            (Some(_), _) => Framing::Chunked,
            (None, Some(length)) => Framing::Length(length.parse().expect("a length")),
            (None, None) => Framing::UntilClose,
        };
        Some(head)
    }

    pub async fn head(&mut self) -> Head {
        self.try_head().await.expect("a response, not the end of the connection")
    }

    /// The next piece of the body, however long it takes.
    pub async fn piece(&mut self) -> Piece {
        loop {
            match self.framing {
                Framing::Done | Framing::Length(0) => {
                    self.framing = Framing::Done;
                    return Piece::End;
                }
                Framing::Length(left) if !self.received.is_empty() => {
                    let take = left.min(self.received.len());
                    self.framing = Framing::Length(left - take);
                    return Piece::Bytes(self.received.drain(..take).collect());
                }
                Framing::UntilClose if !self.received.is_empty() => {
                    return Piece::Bytes(std::mem::take(&mut self.received));
                }
                Framing::Chunked => {
                    if let Some(chunk) = self.take_chunk() {
                        if chunk.is_empty() {
                            self.framing = Framing::Done;
                            return Piece::End;
                        }
                        return Piece::Bytes(chunk);
                    }
                }
                _ => {}
            }
            if !self.fill().await {
                let end = if self.framing == Framing::UntilClose { Piece::End } else { Piece::Cut };
                self.framing = Framing::Done;
                return end;
            }
        }
    }

    fn take_chunk(&mut self) -> Option<Vec<u8>> {
        let line = find(&self.received, b"\r\n")?;
        let size = std::str::from_utf8(&self.received[..line]).expect("a chunk size");
        let size = usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("not a chunk size: {size:?}"));
        let end = line + 2 + size;
        if self.received.len() < end + 2 {
            return None;
        }
        assert_eq!(&self.received[end..end + 2], b"\r\n", "the end of a chunk");
        let chunk = self.received[line + 2..end].to_vec();
        self.received.drain(..end + 2);
        Some(chunk)
    }

    pub async fn response(&mut self) -> Response {
        let head = self.head().await;
        let (body, whole) = self.rest_of_body().await;
        Response { head, body, whole }
    }

    /// The rest of the body, and whether it came to its proper end.
    pub async fn rest_of_body(&mut self) -> (Vec<u8>, bool) {
        let mut body = std::mem::take(&mut self.pending);
        let read = async {
            loop {
                match self.piece().await {
                    Piece::Bytes(bytes) => body.extend_from_slice(&bytes),
                    Piece::Cut => return false,
                    Piece::End => return true,
                }
            }
        };
        let whole = within("the end of a body", read).await;
        (body, whole)
    }

    /// The raw text of the next event or comment of a stream, without its empty line; `None` at the end of the stream.
    pub async fn event(&mut self) -> Option<String> {
        within("an event", self.next_event()).await
    }

    /// The same without a bound on the wait.
    pub async fn next_event(&mut self) -> Option<String> {
        loop {
            for end in [&b"\n\n"[..], b"\r\n\r\n"] {
                if let Some(at) = find(&self.pending, end) {
                    let text = String::from_utf8(self.pending[..at].to_vec()).expect("events are UTF-8");
                    self.pending.drain(..at + end.len());
                    return Some(text);
                }
            }
            match self.piece().await {
                Piece::Bytes(bytes) => self.pending.extend_from_slice(&bytes),
                Piece::Cut | Piece::End => return None,
            }
        }
    }

    /// The next message of a stream; comments are skipped.
    pub async fn message(&mut self) -> Value {
        loop {
            let event = self.event().await.expect("a message, not the end of the stream");
            let data = data(&event);
            if !data.is_empty() {
                return serde_json::from_str(&data).unwrap_or_else(|e| panic!("{e}: {event:?}"));
            }
        }
    }

    /// Everything up to the end of the connection.
    pub async fn until_closed(&mut self) -> Vec<u8> {
        within("the end of the connection", async { while self.fill().await {} }).await;
        std::mem::take(&mut self.received)
    }
}

pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}
