//! Follows a stream that is passed on as it is, to know when something may be put in between.

use memchr::memchr2;

use super::BOM;

/// Answers whether a stream stands between two events, so that a comment with a blank line ([`super::PING`]) may be
/// injected without ending or splitting one.
///
/// That is so at the start, after a blank line, and after a comment line that follows one. It is not so after a complete
/// `data:` line: the blank line of the comment would dispatch half an event.
///
/// After a CR that ends a blank line the answer is yes although its LF may be missing yet. Parsers take the late LF for one
/// more blank line, which does nothing; waiting for it would silence streams that use CR alone.
///
/// The usual chunk ends with a blank line and costs a look at its last three bytes; any other is searched for line ends.
///
/// A byte order mark counts as the beginning of a line. That is the safe side: no comment until the next blank line. See
/// [`without_bom`] for streams that had a comment before their first byte.
#[derive(Clone, Copy, Debug, Default)]
pub struct Boundary {
    /// A line of the current block has begun that is not a comment.
    dirty: bool,
    /// The last byte belongs to a line that has not ended.
    in_line: bool,
    /// The last byte was a CR: an LF now belongs to it.
    after_cr: bool,
}

impl Boundary {
    /// The state before the first byte, which is a boundary.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether an injected comment would come between two events now.
    pub fn at_event(&self) -> bool {
        !self.dirty && !self.in_line
    }

    /// Takes note of bytes that are passed on.
    pub fn feed(&mut self, chunk: &[u8]) {
        if ends_with_blank_line(chunk) {
            *self = Self { dirty: false, in_line: false, after_cr: chunk.last() == Some(&b'\r') };
        } else {
            self.search(chunk);
        }
    }

    fn search(&mut self, chunk: &[u8]) {
        let mut rest = match chunk {
            [] => return,
            [b'\n', rest @ ..] if self.after_cr => rest,
            _ => chunk,
        };
        self.after_cr = false;
        while let Some(&first) = rest.first() {
            if !self.in_line {
                match first {
                    b'\n' | b'\r' => self.dirty = false,
                    b':' => {}
                    _ => self.dirty = true,
                }
            }
            let Some(end) = memchr2(b'\n', b'\r', rest) else {
                (self.in_line, self.after_cr) = (true, false);
                return;
            };
            self.in_line = false;
            let crlf = rest[end..].starts_with(b"\r\n");
            self.after_cr = rest[end] == b'\r' && !crlf;
            rest = &rest[end + 1 + usize::from(crlf)..];
        }
    }
}

/// Whether the chunk by itself shows that its last line is blank: it ends with a line end, and so does what is before.
fn ends_with_blank_line(chunk: &[u8]) -> bool {
    let before = match chunk {
        [before @ .., b'\r', b'\n'] => before,
        [before @ .., b'\n' | b'\r'] => before,
        _ => return false,
    };
    matches!(before.last(), Some(b'\n' | b'\r'))
}

/// The first chunk of a stream without a byte order mark. A gateway that may have sent a ping before the first chunk takes
/// the mark off: it means nothing at the start, and would spoil the first line anywhere else.
pub fn without_bom(first_chunk: &[u8]) -> &[u8] {
    first_chunk.strip_prefix(BOM).unwrap_or(first_chunk)
}
