//! One event as it was sent.

use std::borrow::Cow;

use bytes::Bytes;
use memchr::memchr2;

use super::BOM;
use super::encode::put_data;

/// One block of a stream: lines up to and including a blank one. Cloning shares the bytes.
///
/// Not every block is an event in the sense of the specification: one of comments only, or a lone blank line, has no
/// [`Event::data`] and is passed on as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    raw: Bytes,
    /// Bytes before the first line.
    head: u8,
    /// Length of the blank line at the end.
    blank: u8,
}

impl Event {
    pub(super) fn new(raw: Bytes, head: usize, blank: usize) -> Self {
        debug_assert!(head <= 3 && (1..=2).contains(&blank) && head + blank <= raw.len());
        Self { raw, head: head as u8, blank: blank as u8 }
    }

    /// The bytes as they came.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// [`Event::raw`], owned.
    pub fn into_raw(self) -> Bytes {
        self.raw
    }

    /// The values of the `data` lines, joined by LF; `None` if there is no such line, so that nothing is dispatched.
    pub fn data(&self) -> Option<Cow<'_, [u8]>> {
        let mut lines = self.fields(b"data");
        let first = lines.next()?;
        let Some(second) = lines.next() else { return Some(Cow::Borrowed(first)) };
        let mut all = Vec::with_capacity(self.raw.len());
        all.extend_from_slice(first);
        for line in std::iter::once(second).chain(lines) {
            all.push(b'\n');
            all.extend_from_slice(line);
        }
        Some(Cow::Owned(all))
    }

    /// The event's id: the last one without a NUL.
    pub fn id(&self) -> Option<&[u8]> {
        self.fields(b"id").filter(|id| !id.contains(&0)).last()
    }

    /// The event's name; `None` means `message`.
    pub fn event(&self) -> Option<&[u8]> {
        self.fields(b"event").last().filter(|name| !name.is_empty())
    }

    /// The wait before a reconnection, in milliseconds.
    pub fn retry(&self) -> Option<u64> {
        let valid = |value: &[u8]| {
            let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
            std::str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()
        };
        self.fields(b"retry").filter_map(valid).last()
    }

    /// The event with other data. Everything else stays as it is, byte by byte: other fields, comments, line ends.
    ///
    /// SSE has no way to write a CR, so line breaks of any kind in `data` arrive as LF; in JSON they are mere space.
    pub fn with_data(&self, data: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(self.raw.len() + data.len() + 16);
        let (before, blank) = self.raw.split_at(self.raw.len() - usize::from(self.blank));
        out.extend_from_slice(&before[..usize::from(self.head)]);
        // The new lines take the place of the last one replaced, and its line end. So the line before the blank one
        // still ends as it did: a CR never meets the LF of the blank line.
        let place = self.lines().filter(|l| l.field() == b"data").count();
        let mut seen = 0;
        let mut last_end: &[u8] = blank;
        for line in self.lines() {
            last_end = line.end;
            if line.field() != b"data" {
                // Something that looks like a byte order mark must not become the start of the stream.
                if seen > 0 && out.len() == usize::from(self.head) && line.content.starts_with(BOM) {
                    out.push(b':');
                    out.extend_from_slice(line.end);
                }
                out.extend_from_slice(line.content);
                out.extend_from_slice(line.end);
                continue;
            }
            seen += 1;
            if seen == place {
                put_data(&mut out, data, line.content.starts_with(b"data: "), line.end);
            }
        }
        if place == 0 {
            put_data(&mut out, data, true, last_end);
        }
        out.extend_from_slice(blank);
        out.into()
    }

    fn fields<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.lines().filter(move |line| line.field() == name).map(|line| line.value())
    }

    fn lines(&self) -> Lines<'_> {
        Lines { rest: &self.raw[usize::from(self.head)..self.raw.len() - usize::from(self.blank)] }
    }
}

struct Line<'a> {
    content: &'a [u8],
    end: &'a [u8],
}

impl<'a> Line<'a> {
    /// The field's name; empty for comments.
    fn field(&self) -> &'a [u8] {
        memchr::memchr(b':', self.content).map_or(self.content, |colon| &self.content[..colon])
    }

    fn value(&self) -> &'a [u8] {
        let Some(colon) = memchr::memchr(b':', self.content) else { return b"" };
        let value = &self.content[colon + 1..];
        value.strip_prefix(b" ").unwrap_or(value)
    }
}

struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        let end = memchr2(b'\n', b'\r', self.rest)?;
        let crlf = self.rest[end..].starts_with(b"\r\n");
        let (line, rest) = self.rest.split_at(end + 1 + usize::from(crlf));
        self.rest = rest;
        let (content, end) = line.split_at(end);
        Some(Line { content, end })
    }
}
