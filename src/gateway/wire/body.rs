//! Takes a response body apart, from what has been received.

use bytes::{Buf, Bytes, BytesMut};

use super::WireError;

/// Bytes of a chunk's size line.
const MAX_SIZE_LINE: usize = 256;
/// Bytes of all trailers.
const MAX_TRAILERS: usize = 16 * 1024;

/// How much of the body is to come.
#[derive(Debug)]
pub(super) enum Body {
    Chunked(Chunk),
    Done,
    Length(u64),
    UntilClose,
}

/// Where in a chunked body we are.
#[derive(Debug)]
pub(super) enum Chunk {
    /// Before a size line.
    Size,
    /// Inside the data of a chunk.
    Data(u64),
    /// Before the line end after the data.
    End,
    /// After the last chunk; the bytes of trailers seen.
    Trailer(usize),
}

impl Body {
    pub(super) fn chunked() -> Self {
        Body::Chunked(Chunk::Size)
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self, Body::Done)
    }

    /// The next piece that `received` holds; `None` = more is needed, or the body is done.
    pub(super) fn take(&mut self, received: &mut BytesMut) -> Result<Option<Bytes>, WireError> {
        match self {
            Body::Done => Ok(None),
            Body::UntilClose => Ok((!received.is_empty()).then(|| received.split().freeze())),
            Body::Length(left) => {
                let piece = take_up_to(received, *left);
                *left -= piece.as_ref().map_or(0, |p| p.len() as u64);
                if *left == 0 {
                    *self = Body::Done;
                }
                Ok(piece)
            }
            Body::Chunked(chunk) => {
                let (piece, done) = chunk.take(received)?;
                if done {
                    *self = Body::Done;
                }
                Ok(piece)
            }
        }
    }
}

impl Chunk {
    fn take(&mut self, received: &mut BytesMut) -> Result<(Option<Bytes>, bool), WireError> {
        loop {
            match self {
                Chunk::Size => {
                    let Some(line) = take_line(received, MAX_SIZE_LINE)? else { return Ok((None, false)) };
                    *self = match chunk_size(&line)? {
                        0 => Chunk::Trailer(0),
                        size => Chunk::Data(size),
                    };
                }
                Chunk::Data(left) => {
                    let Some(piece) = take_up_to(received, *left) else { return Ok((None, false)) };
                    *left -= piece.len() as u64;
                    if *left == 0 {
                        *self = Chunk::End;
                        // The line end usually came along; taking it now frees the buffer of an idle stream.
                        if received.starts_with(b"\r\n") {
                            received.advance(2);
                            *self = Chunk::Size;
                        }
                    }
                    return Ok((Some(piece), false));
                }
                Chunk::End => match received.get(..2) {
                    Some(b"\r\n") => {
                        received.advance(2);
                        *self = Chunk::Size;
                    }
                    Some(_) => return Err(WireError::Invalid("chunk without its end")),
                    None => return Ok((None, false)),
                },
                Chunk::Trailer(seen) => {
                    let Some(line) = take_line(received, MAX_TRAILERS)? else { return Ok((None, false)) };
                    if line.is_empty() {
                        return Ok((None, true));
                    }
                    *seen += line.len();
                    if *seen > MAX_TRAILERS {
                        return Err(WireError::Invalid("trailers too long"));
                    }
                }
            }
        }
    }
}

fn take_up_to(received: &mut BytesMut, most: u64) -> Option<Bytes> {
    if received.is_empty() || most == 0 {
        return None;
    }
    let length = usize::try_from(most).unwrap_or(usize::MAX).min(received.len());
    Some(received.split_to(length).freeze())
}

/// A line without its end, which must be CRLF: a bare LF is where smuggling begins.
fn take_line(received: &mut BytesMut, limit: usize) -> Result<Option<BytesMut>, WireError> {
    match memchr::memchr(b'\n', received) {
        Some(at) if at <= limit => {
            let mut line = received.split_to(at + 1);
            if at == 0 || line[at - 1] != b'\r' {
                return Err(WireError::Invalid("line end in a chunked body"));
            }
            line.truncate(at - 1);
            Ok(Some(line))
        }
        None if received.len() <= limit => Ok(None),
        _ => Err(WireError::Invalid("line too long in a chunked body")),
    }
}

fn chunk_size(line: &[u8]) -> Result<u64, WireError> {
    let digits = line.split(|b| *b == b';').next().unwrap_or_default().trim_ascii_end();
    if digits.is_empty() || digits.len() > 15 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(WireError::Invalid("chunk size"));
    }
    let digits = std::str::from_utf8(digits).map_err(|_| WireError::Invalid("chunk size"))?;
    u64::from_str_radix(digits, 16).map_err(|_| WireError::Invalid("chunk size"))
}
