//! HTTP/1.1 towards servers over plain TCP, without a byte of memory more than is in flight.
//!
//! Pingora's client connection holds a 64 KiB read buffer and, while a body is being read, a 64 KiB body buffer: for the
//! whole life of an event stream. It writes head and body apart, and each return to its pool spawns a task. Most of the
//! gateway's traffic goes to servers on the same network over plain HTTP, so that path has its own client:
//! - head and body leave in one vectored write;
//! - reads go through a buffer on the stack of the poll; what is kept is what was received, and an idle stream keeps
//!   nothing;
//! - an idle connection in the pool is a socket in a list; whether the server has closed it is looked at when it is
//!   taken out, and [`Pool::sweep`] ends those that waited too long.
//!
//! TLS and HTTP/2 go through Pingora's connector (see [`super::exchange`]).
//!
//! **Framing** follows RFC 9112 §6 strictly: `Transfer-Encoding` other than `chunked`, several different lengths, folded
//! or oversized headers and malformed chunks are errors; a response with both lengths is read as chunked and its
//! connection not used again.

mod body;
mod head;
mod pool;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

pub(crate) use pool::Pool;

use body::Body;

/// Read at most this much at once; lives on the stack.
const READ_SIZE: usize = 16 * 1024;

/// What went wrong on the wire.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// The connection ended in the middle of a response, or before it.
    #[error("the connection closed before the end of the response")]
    Closed,
    /// The bytes are not an HTTP/1.1 response.
    #[error("not a valid HTTP/1.1 response: {0}")]
    Invalid(&'static str),
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A connection with a request on it.
#[derive(Debug)]
pub(crate) struct Wire<S> {
    stream: S,
    /// Received and not yet consumed; unallocated when empty.
    received: BytesMut,
    body: Body,
    reusable: bool,
}

/// A response's first part.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, received: BytesMut::new(), body: Body::Done, reusable: false }
    }

    /// Sends a whole request: `head` with its final empty line, and a body whose length the head declares.
    pub(crate) async fn send(&mut self, head: Vec<u8>, body: Bytes) -> Result<(), WireError> {
        let mut request = Bytes::from(head).chain(body);
        self.stream.write_all_buf(&mut request).await?;
        self.stream.flush().await?;
        Ok(())
    }

    /// Reads the response header; interim responses (1xx) are skipped.
    pub(crate) async fn head(&mut self) -> Result<Head, WireError> {
        loop {
            if let Some((head, framing)) = head::parse(&mut self.received)? {
                if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
                    continue;
                }
                self.body = framing.body;
                self.reusable = framing.keep_alive;
                return Ok(head);
            }
            if self.fill().await? == 0 {
                return Err(WireError::Closed);
            }
        }
    }

    /// The next piece of the body; `None` at its end. May be dropped while pending and called again.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, WireError> {
        loop {
            if let Some(piece) = self.body.take(&mut self.received)? {
                self.forget_empty();
                return Ok(Some(piece));
            }
            if self.body.is_done() {
                self.forget_empty();
                return Ok(None);
            }
            if self.fill().await? == 0 {
                return match self.body {
                    Body::UntilClose => {
                        self.body = Body::Done;
                        self.reusable = false;
                        Ok(None)
                    }
                    _ => Err(WireError::Closed),
                };
            }
        }
    }

    /// The stream, if another request may be sent on it.
    pub(crate) fn into_reusable(self) -> Option<S> {
        (self.reusable && self.body.is_done() && self.received.is_empty()).then_some(self.stream)
    }

    /// An empty buffer that still owns its memory would hold it for as long as the stream is silent.
    fn forget_empty(&mut self) {
        if self.received.is_empty() {
            self.received = BytesMut::new();
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        std::future::poll_fn(|cx| poll_fill(Pin::new(&mut self.stream), &mut self.received, cx)).await
    }
}

/// Appends what can be read to `received`, through the stack.
fn poll_fill<S: AsyncRead>(
    stream: Pin<&mut S>,
    received: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let mut scratch = [std::mem::MaybeUninit::<u8>::uninit(); READ_SIZE];
    let mut buffer = ReadBuf::uninit(&mut scratch);
    std::task::ready!(stream.poll_read(cx, &mut buffer))?;
    received.extend_from_slice(buffer.filled());
    Poll::Ready(Ok(buffer.filled().len()))
}

/// How long a connection may take to be made.
pub(crate) async fn connect(
    address: std::net::SocketAddr,
    within: Duration,
) -> io::Result<tokio::net::TcpStream> {
    let stream = tokio::time::timeout(within, tokio::net::TcpStream::connect(address))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no connection in time"))??;
    stream.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(45))
        .with_interval(Duration::from_secs(15))
        .with_retries(3);
    socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt;

    use super::*;

    async fn read_all(response: &[u8], split: usize) -> Result<(Head, Vec<u8>, bool), WireError> {
        let (client, mut server) = tokio::io::duplex(1 << 20);
        let response = response.to_vec();
        let feed = async move {
            for piece in response.chunks(split.max(1)) {
                // The reader may have given up already.
                if server.write_all(piece).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
            drop(server);
        };
        let read = async move {
            let mut wire = Wire::new(client);
            let head = wire.head().await?;
            let mut body = Vec::new();
            while let Some(piece) = wire.chunk().await? {
                assert!(!piece.is_empty(), "an empty piece would end a chunked response downstream");
                body.extend_from_slice(&piece);
            }
            Ok((head, body, wire.into_reusable().is_some()))
        };
        tokio::join!(feed, read).1
    }

    #[tokio::test]
    async fn head_and_body_leave_in_order() {
        let (client, mut server) = tokio::io::duplex(4096);
        let mut wire = Wire::new(client);
        wire.send(b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n".to_vec(), Bytes::from_static(b"{}"))
            .await
            .unwrap();
        drop(wire);
        let mut got = Vec::new();
        server.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}");
    }

    #[tokio::test]
    async fn lengths_chunks_and_close_are_read_under_any_split() {
        let cases: [(&[u8], &[u8], bool); 6] = [
            (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", b"hello", true),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nx: y\r\n\r\n", b"hello", true),
            (b"HTTP/1.1 200 OK\r\n\r\nhello", b"hello", false),
            (b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n", b"", true),
            (b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n", b"", false),
            (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", b"x", true),
        ];
        for (response, body, reusable) in cases {
            for split in [1, 2, 7, 4096] {
                let (_, got, again) = read_all(response, split).await.unwrap();
                assert_eq!((got.as_slice(), again), (body, reusable), "{response:?} in pieces of {split}");
            }
        }
    }

    #[tokio::test]
    async fn ambiguous_or_broken_framing_is_refused_or_not_reused() {
        for bad in [
            &b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello"[..],
            b"HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhelXX",
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n",
            b"SSH-2.0-OpenSSH\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nx: y\r\n folded\r\n\r\n",
        ] {
            assert!(read_all(bad, 4096).await.is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
        let both =
            b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
        let (_, body, reusable) = read_all(both, 4096).await.unwrap();
        assert_eq!((body.as_slice(), reusable), (&b"x"[..], false));
    }

    #[tokio::test]
    async fn a_header_without_end_is_bounded() {
        let mut endless = b"HTTP/1.1 200 OK\r\n".to_vec();
        endless.extend(std::iter::repeat_n(b"x: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n", 10_000).flatten());
        assert!(matches!(read_all(&endless, 4096).await, Err(WireError::Invalid(_))));
    }

    #[tokio::test]
    async fn bytes_after_the_response_spoil_the_connection() {
        let (_, _, reusable) =
            read_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nxHTTP/1.1 200", 4096).await.unwrap();
        assert!(!reusable);
    }

    proptest! {
        /// Whatever comes, reading ends without a panic.
        #[test]
        fn any_bytes_end(tail in prop::collection::vec(any::<u8>(), 0..200), chunked in any::<bool>()) {
            let mut response = b"HTTP/1.1 200 OK\r\n".to_vec();
            if chunked { response.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n"); }
            response.extend_from_slice(&tail);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _ = runtime.block_on(read_all(&response, 13));
        }

        /// A chunked body comes out as it went in, however it was cut.
        #[test]
        fn chunks_come_out_whole(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8), split in 1usize..30) {
            let mut response = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
            for piece in &pieces {
                response.extend_from_slice(format!("{:X}\r\n", piece.len()).as_bytes());
                response.extend_from_slice(piece);
                response.extend_from_slice(b"\r\n");
            }
            response.extend_from_slice(b"0\r\n\r\n");
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (_, body, reusable) = runtime.block_on(read_all(&response, split)).unwrap();
            prop_assert_eq!(body, pieces.concat());
            prop_assert!(reusable);
        }
    }
}
