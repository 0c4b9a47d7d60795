//! Just enough HTTP/1.1 to load and to fake: heads, lengths, chunks. Not for input that is not our own.

use crate::Result;

/// Fields of a head that are looked at.
const MAX_FIELDS: usize = 64;

/// How a message's body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Chunks.
    Chunked,
    /// So many bytes.
    Length(usize),
}

/// What a client needs of a response's head.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// Status code.
    pub status: u16,
    /// The body.
    pub framing: Framing,
    /// Whether the connection ends with this response.
    pub close: bool,
    /// `Mcp-Session-Id`.
    pub session: Option<String>,
    /// Whether the body is an event stream.
    pub events: bool,
}

/// What a server needs of a request's head.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// `POST` and the like.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The body.
    pub framing: Framing,
    /// `Mcp-Session-Id`.
    pub session: Option<String>,
    /// `Mcp-Protocol-Version`.
    pub version: Option<String>,
}

/// Parses a response's head at the front of `bytes`, with its length; `None` = more is needed.
///
/// # Errors
/// These are not the bytes of an HTTP/1.1 response.
pub fn response(bytes: &[u8]) -> Result<Option<(ResponseHead, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = parsed.parse(bytes)? else { return Ok(None) };
    let status = parsed.code.unwrap_or_default();
    let mut head =
        ResponseHead { status, framing: Framing::Length(0), close: false, session: None, events: false };
    for field in parsed.headers.iter() {
        let name = field.name;
        if name.eq_ignore_ascii_case("content-length") {
            head.framing = Framing::Length(text(field.value).parse()?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            head.framing = Framing::Chunked;
        } else if name.eq_ignore_ascii_case("connection") {
            head.close = field.value.eq_ignore_ascii_case(b"close");
        } else if name.eq_ignore_ascii_case("mcp-session-id") {
            head.session = Some(text(field.value).to_owned());
        } else if name.eq_ignore_ascii_case("content-type") {
            head.events = field.value.starts_with(b"text/event-stream");
        }
    }
    if matches!(status, 204 | 304) {
        head.framing = Framing::Length(0);
    }
    Ok(Some((head, length)))
}

/// Parses a request's head at the front of `bytes`, with its length; `None` = more is needed.
///
/// # Errors
/// These are not the bytes of an HTTP/1.1 request.
pub fn request(bytes: &[u8]) -> Result<Option<(RequestHead, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(length) = parsed.parse(bytes)? else { return Ok(None) };
    let mut head = RequestHead {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: parsed.path.unwrap_or_default().to_owned(),
        framing: Framing::Length(0),
        session: None,
        version: None,
    };
    for field in parsed.headers.iter() {
        let name = field.name;
        if name.eq_ignore_ascii_case("content-length") {
            head.framing = Framing::Length(text(field.value).parse()?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            head.framing = Framing::Chunked;
        } else if name.eq_ignore_ascii_case("mcp-session-id") {
            head.session = Some(text(field.value).to_owned());
        } else if name.eq_ignore_ascii_case("mcp-protocol-version") {
            head.version = Some(text(field.value).to_owned());
        }
    }
    Ok(Some((head, length)))
}

/// The value of a field in the bytes of a head; the first of its name.
pub fn field<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    std::str::from_utf8(head).ok()?.split("\r\n").find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn text(value: &[u8]) -> &str {
    std::str::from_utf8(value).unwrap_or_default().trim()
}

/// Takes a chunked body apart, whatever pieces it comes in.
#[derive(Debug, Default)]
pub struct Chunks {
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum State {
    /// In a size line, with what was read of it.
    #[default]
    Start,
    Size(usize),
    /// Past the digits of a size line.
    Extension(usize),
    Data(usize),
    /// In the line end after data.
    End,
    /// After the last chunk; whether the current line is empty so far.
    Trailer(bool),
    Done,
}

impl Chunks {
    /// Whether the last chunk has come.
    pub fn done(&self) -> bool {
        self.state == State::Done
    }

    /// Appends the data in `input` to `out`, and returns how much of `input` belonged to this body.
    ///
    /// # Errors
    /// A size that is no hexadecimal number.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize> {
        let mut at = 0;
        while at < input.len() && !self.done() {
            let byte = input[at];
            self.state = match self.state {
                State::Data(left) => {
                    let take = left.min(input.len() - at);
                    out.extend_from_slice(&input[at..at + take]);
                    at += take;
                    if take == left { State::End } else { State::Data(left - take) }
                }
                state => {
                    at += 1;
                    match (state, byte) {
                        (State::Start, b) => State::Size(digit(b)?),
                        (State::Size(n) | State::Extension(n), b'\n') if n == 0 => State::Trailer(true),
                        (State::Size(n) | State::Extension(n), b'\n') => State::Data(n),
                        (State::Size(n), b'\r' | b';' | b' ') => State::Extension(n),
                        (State::Size(n), b) => State::Size(n * 16 + digit(b)?),
                        (State::End, b'\n') => State::Start,
                        (State::Trailer(true), b'\n') => State::Done,
                        (State::Trailer(_), b'\n') => State::Trailer(true),
                        (State::Trailer(empty), b'\r') => State::Trailer(empty),
                        (State::Trailer(_), _) => State::Trailer(false),
                        (other, _) => other,
                    }
                }
            };
        }
        Ok(at)
    }
}

fn digit(byte: u8) -> Result<usize> {
    match char::from(byte).to_digit(16) {
        Some(digit) => Ok(digit as usize),
        None => Err(format!("byte {byte:#x} in a chunk size").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_come_out_whole_however_they_are_cut() {
        let wire = b"5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nx: y\r\n\r\nHTTP/1.1";
        for size in 1..wire.len() {
            let (mut chunks, mut out, mut used) = (Chunks::default(), Vec::new(), 0);
            for piece in wire.chunks(size) {
                used += chunks.feed(piece, &mut out).unwrap();
            }
            assert!(chunks.done(), "in pieces of {size}");
            assert_eq!((out.as_slice(), used), (&b"hello!"[..], wire.len() - 8), "in pieces of {size}");
        }
        assert!(Chunks::default().feed(b"zz\r\n", &mut Vec::new()).is_err());
    }

    #[test]
    fn heads_are_read_and_half_a_head_is_waited_for() {
        let wire =
            b"HTTP/1.1 200 OK\r\nMcp-Session-Id: a\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc";
        assert!(response(&wire[..30]).unwrap().is_none());
        let (head, length) = response(wire).unwrap().unwrap();
        assert_eq!((head.status, head.framing, head.close), (200, Framing::Length(3), true));
        assert_eq!((head.session.as_deref(), &wire[length..]), (Some("a"), &b"abc"[..]));
        let (head, _) =
            request(b"POST /mcp HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n").unwrap().unwrap();
        assert_eq!(
            (head.method.as_str(), head.path.as_str(), head.framing),
            ("POST", "/mcp", Framing::Chunked)
        );
    }
}
