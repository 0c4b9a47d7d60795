//! Splits a stream into events, whatever way it was cut into chunks.

use bytes::{Bytes, BytesMut};
use memchr::memchr2;

use super::{BOM, Event};

/// An event is longer than the parser was told to hold. The sender's fault; the stream cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {limit} bytes")]
pub struct TooLarge {
    /// The bound, in bytes.
    pub limit: usize,
}

/// What is left when the stream ended.
#[derive(Clone, Debug, Default)]
pub struct Tail {
    /// A last event whose end was in doubt: its blank line was a CR, and an LF might have followed.
    pub event: Option<Event>,
    /// An event that was not finished. Clients drop it; a relay passes it on.
    pub rest: Bytes,
}

/// Splits a stream into its events.
///
/// **Invariants.** The raw bytes of all events, and the tail, are the input, byte by byte: comments, blank lines, a byte
/// order mark. How the input was cut into chunks changes nothing. An event is given out as soon as its blank line is
/// complete; only where CRLF is in use, and the chunk ends between CR and LF, it waits for the LF.
///
/// **Bounds.** Holds one unfinished event of at most `limit` bytes, and the chunk last fed.
#[derive(Debug)]
pub struct Events {
    buf: BytesMut,
    limit: usize,
    /// Where to go on searching for a line end; everything before was searched.
    pos: usize,
    /// Where the current line starts.
    line: usize,
    /// Bytes at the start of the block that belong to no line of it.
    head: usize,
    last: LineEnd,
    start: Start,
    too_large: bool,
}

/// How the latest line ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineEnd {
    Cr,
    CrLf,
    Lf,
    None,
}

/// What may come before the first line of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// The LF of a CR that ended the block before.
    Lf,
    /// A byte order mark: the stream begins.
    Mark,
    Nothing,
}

impl Events {
    /// A parser for one stream, refusing events over `limit` bytes with everything that belongs to them.
    pub fn new(limit: usize) -> Self {
        Self {
            buf: BytesMut::new(),
            limit,
            pos: 0,
            line: 0,
            head: 0,
            last: LineEnd::None,
            start: Start::Mark,
            too_large: false,
        }
    }

    /// Takes the next bytes of the stream. Call [`Events::next`] until it has no more before feeding again: that keeps
    /// the buffer within its bound.
    pub fn feed(&mut self, chunk: &[u8]) {
        self.buf.extend_from_slice(chunk);
    }

    /// The next complete event; `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`TooLarge`], from then on always: what is left is in [`Events::finish`].
    #[allow(clippy::should_implement_trait, reason = "it is an iterator only until the next feed")]
    pub fn next(&mut self) -> Result<Option<Event>, TooLarge> {
        if self.too_large {
            return Err(TooLarge { limit: self.limit });
        }
        let block = self.find_block();
        let len = block.map_or(self.buf.len(), |(len, _)| len);
        if len > self.limit {
            self.too_large = true;
            return Err(TooLarge { limit: self.limit });
        }
        Ok(block.map(|(len, blank)| self.take(len, blank)))
    }

    /// The stream has ended.
    pub fn finish(mut self) -> Tail {
        let mut event = None;
        // An undecided CR at the very end: no LF came.
        if !self.too_large && self.pos == self.line && self.pos > 0 && self.buf[self.pos..] == *b"\r" {
            event = Some(self.take(self.buf.len(), 1));
        }
        Tail { event, rest: self.buf.freeze() }
    }

    fn take(&mut self, len: usize, blank: usize) -> Event {
        let raw = self.buf.split_to(len).freeze();
        let event = Event::new(raw, self.head, blank);
        (self.pos, self.line, self.head) = (0, 0, 0);
        event
    }

    /// The length of the block at the front and of its blank line, once that is complete.
    fn find_block(&mut self) -> Option<(usize, usize)> {
        if !self.skip_start() {
            return None;
        }
        loop {
            let Some(found) = memchr2(b'\n', b'\r', &self.buf[self.pos..]) else {
                self.pos = self.buf.len();
                return None;
            };
            let at = self.pos + found;
            let blank = at == self.line;
            let end = if self.buf[at] == b'\n' {
                self.last = LineEnd::Lf;
                at + 1
            } else if blank && self.last == LineEnd::Cr {
                // Lines end with CR alone here. Should an LF follow after all, it is put before the next block: deciding
                // by a byte that may never come would hold the event back.
                self.start = Start::Lf;
                at + 1
            } else {
                match self.buf.get(at + 1) {
                    None => {
                        self.pos = at;
                        return None;
                    }
                    Some(b'\n') => {
                        self.last = LineEnd::CrLf;
                        at + 2
                    }
                    Some(_) => {
                        self.last = LineEnd::Cr;
                        at + 1
                    }
                }
            };
            (self.pos, self.line) = (end, end);
            if blank {
                return Some((end, end - at));
            }
        }
    }

    /// Passes over what is before the first line. `false`: it takes more bytes to know.
    fn skip_start(&mut self) -> bool {
        let skipped = match self.start {
            Start::Nothing => return true,
            Start::Lf => match self.buf.first() {
                None => return false,
                Some(b'\n') => 1,
                Some(_) => 0,
            },
            Start::Mark => {
                if self.buf.starts_with(BOM) {
                    BOM.len()
                } else if BOM.starts_with(&self.buf) {
                    return false;
                } else {
                    0
                }
            }
        };
        self.start = Start::Nothing;
        (self.pos, self.line, self.head) = (skipped, skipped, skipped);
        true
    }
}
