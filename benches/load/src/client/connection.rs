//! One HTTP/1.1 connection, blocking.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::Result;
use crate::http::{self, Chunks, Framing, ResponseHead};

/// Longest wait for the next bytes of an answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);

/// An answer's head; its body is in [`Connection::body`].
pub type Answer = ResponseHead;

/// A connection that carries one request at a time and opens again when its server closed it.
#[derive(Debug)]
pub struct Connection {
    address: SocketAddr,
    stream: Option<TcpStream>,
    received: Vec<u8>,
    body: Vec<u8>,
    /// The last answer's head, as it came.
    head: Vec<u8>,
    /// Connections made.
    opened: u64,
}

impl Connection {
    /// Connects with the first request.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            stream: None,
            received: Vec::with_capacity(4096),
            body: Vec::with_capacity(4096),
            head: Vec::with_capacity(1024),
            opened: 0,
        }
    }

    /// The last answer's body, without its framing.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// A field of the last answer's head; the first of its name.
    pub fn header(&self, name: &str) -> Option<&str> {
        http::field(&self.head, name)
    }

    /// Connections made so far: one, unless the server closed some.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// Closes it; the next request opens another.
    pub fn close(&mut self) {
        self.stream = None;
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// The connection broke, or the answer is not HTTP. The next request starts afresh.
    pub fn exchange(&mut self, request: &[u8]) -> Result<Answer> {
        let result = self.try_exchange(request);
        if result.as_ref().map_or(true, |answer| answer.close) {
            self.stream = None;
        }
        result
    }

    /// Notices that the server closed an idle connection, as any client with a pool does before it uses one.
    pub fn drop_if_closed(&mut self) {
        let Some(stream) = &self.stream else { return };
        let open = stream.set_nonblocking(true).is_ok()
            && matches!(stream.peek(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
            && stream.set_nonblocking(false).is_ok();
        if !open {
            self.stream = None;
        }
    }

    fn try_exchange(&mut self, request: &[u8]) -> Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                self.opened += 1;
                let stream = TcpStream::connect_timeout(&self.address, CONNECT)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream
            }
        };
        stream.write_all(request)?;
        self.received.clear();
        self.body.clear();
        let (head, mut at) = loop {
            fill(&mut stream, &mut self.received)?;
            if let Some(found) = http::response(&self.received)? {
                break found;
            }
        };
        self.head.clear();
        self.head.extend_from_slice(&self.received[..at]);
        match head.framing {
            Framing::Length(length) => {
                while self.received.len() < at + length {
                    fill(&mut stream, &mut self.received)?;
                }
                self.body.extend_from_slice(&self.received[at..at + length]);
                at += length;
            }
            Framing::Chunked => {
                let mut chunks = Chunks::default();
                loop {
                    at += chunks.feed(&self.received[at..], &mut self.body)?;
                    if chunks.done() {
                        break;
                    }
                    self.received.clear();
                    at = 0;
                    fill(&mut stream, &mut self.received)?;
                }
            }
        }
        if at != self.received.len() {
            return Err("bytes after the answer".into());
        }
        self.stream = Some(stream);
        Ok(head)
    }
}

fn fill(stream: &mut TcpStream, received: &mut Vec<u8>) -> Result<()> {
    let mut scratch = [0u8; 8192];
    match stream.read(&mut scratch)? {
        0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        n => {
            received.extend_from_slice(&scratch[..n]);
            Ok(())
        }
    }
}
