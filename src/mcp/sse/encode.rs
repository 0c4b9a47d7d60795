//! Writes events and comments of our own.

use memchr::memchr2;

/// A comment that keeps connections alive. Send it only where [`super::Boundary::at_event`] allows.
pub const PING: &[u8] = b":\n\n";

/// A value that a field cannot carry: it has a line end or a NUL. A fault of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value of `{field}` has a line end or NUL")]
pub struct BadField {
    /// `id` or `event`.
    pub field: &'static str,
}

/// An event to send.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outgoing<'a> {
    /// `event`; left out if `None`.
    pub event: Option<&'a str>,
    /// `id`; left out if `None`.
    pub id: Option<&'a str>,
    /// `retry`, in milliseconds; left out if `None`.
    pub retry_ms: Option<u64>,
    /// `data`; an empty one is sent as an empty line, which clients dispatch.
    pub data: &'a [u8],
}

impl Outgoing<'_> {
    /// Appends the event with its blank line.
    ///
    /// # Errors
    /// [`BadField`]; nothing is appended.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), BadField> {
        for (field, value) in [("event", self.event), ("id", self.id)] {
            if value.is_some_and(|v| v.contains(['\n', '\r', '\0'])) {
                return Err(BadField { field });
            }
        }
        for (field, value) in [("event: ", self.event), ("id: ", self.id)] {
            if let Some(value) = value {
                out.extend_from_slice(field.as_bytes());
                out.extend_from_slice(value.as_bytes());
                out.push(b'\n');
            }
        }
        if let Some(ms) = self.retry_ms {
            out.extend_from_slice(format!("retry: {ms}\n").as_bytes());
        }
        put_data(out, self.data, true, b"\n");
        out.push(b'\n');
        Ok(())
    }
}

/// Appends a comment and a blank line. Line ends in the text become spaces.
pub fn comment(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b": ");
    out.extend(text.bytes().map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { b }));
    out.extend_from_slice(b"\n\n");
}

/// Writes `data` lines, one for each line of the data.
pub(super) fn put_data(out: &mut Vec<u8>, mut data: &[u8], space: bool, end: &[u8]) {
    loop {
        let line_end = memchr2(b'\n', b'\r', data);
        let line = &data[..line_end.unwrap_or(data.len())];
        out.extend_from_slice(b"data:");
        // The first space is not part of the value, so a value that starts with one needs another.
        if space || line.first() == Some(&b' ') {
            out.push(b' ');
        }
        out.extend_from_slice(line);
        out.extend_from_slice(end);
        let Some(at) = line_end else { return };
        let crlf = data[at..].starts_with(b"\r\n");
        data = &data[at + 1 + usize::from(crlf)..];
    }
}
