//! Finds the message that ends a call in an event stream, without holding anything back.
//!
//! A client has a message only once it has the blank line behind its event. So the call counts as answered with the bytes
//! that hold that line, however the stream is cut, and by then the message has been seen whole.

use memchr::memchr2;

use super::Answer;

const BOM: &[u8] = b"\xef\xbb\xbf";
/// The field that carries messages.
const DATA: &[u8] = b"data";
/// Keys that only a message which ends a call has at its top.
const KEYS: [&[u8]; 2] = [b"result", b"error"];

/// Where in a stream we are.
#[derive(Default)]
pub(super) struct Follow {
    line: Line,
    /// The last byte was a CR: an LF now belongs to it.
    after_cr: bool,
    /// Bytes of a byte order mark that have come by; it can only be at the start.
    bom: usize,
    /// Lines of data of this event.
    lines: usize,
    keys: Keys,
    /// The answer has passed.
    done: bool,
}

/// Where in a line we are.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Line {
    /// Before its first byte.
    #[default]
    Start,
    /// In a name that is so far that of [`DATA`].
    Name(usize),
    /// Behind the colon.
    Colon,
    /// In data.
    Data,
    /// In what is of no interest.
    Other,
}

impl Follow {
    /// Returns whether the event of the answer ends within these bytes.
    pub(super) fn feed(&mut self, bytes: &[u8], answer: &mut Answer) -> bool {
        if self.done {
            return false;
        }
        let mut rest = bytes;
        while let Some(&byte) = rest.first() {
            if self.bom < BOM.len() {
                if byte == BOM[self.bom] {
                    self.bom += 1;
                    rest = &rest[1..];
                    continue;
                }
                self.bom = BOM.len();
            }
            if std::mem::take(&mut self.after_cr) && byte == b'\n' {
                rest = &rest[1..];
                continue;
            }
            if matches!(byte, b'\n' | b'\r') {
                rest = &rest[1..];
                self.after_cr = byte == b'\r';
                if self.end_line(answer) {
                    self.done = true;
                    return true;
                }
                continue;
            }
            let step = match self.line {
                Line::Start | Line::Name(_) => {
                    let at = if let Line::Name(at) = self.line { at } else { 0 };
                    self.line = match DATA.get(at) {
                        Some(wanted) if *wanted == byte => Line::Name(at + 1),
                        None if byte == b':' => {
                            self.begin_data(answer);
                            Line::Colon
                        }
                        _ => Line::Other,
                    };
                    1
                }
                Line::Colon => {
                    self.line = Line::Data;
                    usize::from(byte == b' ')
                }
                Line::Data => {
                    let end = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
                    self.data(&rest[..end], answer);
                    end
                }
                Line::Other => memchr2(b'\n', b'\r', rest).unwrap_or(rest.len()),
            };
            rest = &rest[step..];
        }
        false
    }

    /// Returns whether it was the blank line behind the answer.
    fn end_line(&mut self, answer: &mut Answer) -> bool {
        match std::mem::take(&mut self.line) {
            Line::Start if self.keys.found => return true,
            Line::Start => {
                answer.clear();
                self.lines = 0;
                self.keys = Keys::default();
            }
            Line::Name(at) if at == DATA.len() => self.begin_data(answer),
            _ => {}
        }
        false
    }

    fn begin_data(&mut self, answer: &mut Answer) {
        if self.lines > 0 {
            self.data(b"\n", answer);
        }
        self.lines += 1;
    }

    fn data(&mut self, bytes: &[u8], answer: &mut Answer) {
        answer.take(bytes);
        self.keys.feed(bytes);
    }
}

/// Looks for [`KEYS`] at the top of a message, or of the messages of a batch.
#[derive(Default)]
struct Keys {
    found: bool,
    depth: usize,
    /// How deep keys of messages are; zero before the first bracket.
    top: usize,
    in_text: bool,
    after_backslash: bool,
    /// The text has a backslash: what it says is not looked at, and it may be one of the keys.
    escaped: bool,
    /// The beginning of the last text.
    text: [u8; 8],
    length: usize,
}

impl Keys {
    fn feed(&mut self, bytes: &[u8]) {
        if self.found {
            return;
        }
        for &byte in bytes {
            if self.in_text {
                self.in_text(byte);
                continue;
            }
            match byte {
                b'"' => {
                    self.in_text = true;
                    (self.escaped, self.length) = (false, 0);
                }
                b'{' | b'[' => {
                    if self.top == 0 {
                        self.top = if byte == b'[' { 2 } else { 1 };
                    }
                    self.depth += 1;
                }
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                b':' if self.top > 0 && self.depth == self.top => {
                    self.found |= self.escaped || KEYS.contains(&&self.text[..self.length.min(8)]);
                }
                _ => {}
            }
        }
    }

    fn in_text(&mut self, byte: u8) {
        match byte {
            _ if std::mem::take(&mut self.after_backslash) => {}
            b'\\' => (self.after_backslash, self.escaped) = (true, true),
            b'"' => self.in_text = false,
            _ => {
                if let Some(place) = self.text.get_mut(self.length) {
                    *place = byte;
                }
                self.length += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mcp::sse::Events;

    const ANSWER: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"a":"x\"y","error":1}}"#;
    const NOTICE: &str =
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"result":1,"x":"\"error\":"}}"#;

    /// The message that is taken for the answer, and after how many bytes.
    fn seen(stream: &str, size: usize) -> (String, u64, Option<usize>) {
        let mut answer = Answer::new(1000, true);
        let mut passed = 0;
        let mut at = None;
        for chunk in stream.as_bytes().chunks(size) {
            passed += chunk.len();
            if answer.pass(chunk) {
                assert!(at.is_none(), "only once");
                at = Some(passed);
            }
        }
        (String::from_utf8(answer.kept).unwrap(), answer.total, at)
    }

    #[test]
    fn the_answer_is_found_whole_with_its_last_line_however_it_is_cut() {
        for end in ["\n", "\r\n", "\r"] {
            for (head, data) in [("", "data:"), ("\u{feff}", "data: "), (": hello\n\n", "id: 1\ndata: ")] {
                let stream = format!(
                    "{head}event: message{end}data: {NOTICE}{end}{end}{data}{ANSWER}{end}{end}data: {NOTICE}{end}{end}"
                );
                let last = stream.find(ANSWER).unwrap() + ANSWER.len() + 2 * end.len();
                for size in 1..stream.len() {
                    let (kept, total, at) = seen(&stream, size);
                    assert_eq!((kept.as_str(), total), (ANSWER, ANSWER.len() as u64), "{end:?} {size}");
                    let at = at.unwrap();
                    // The LF of a last CRLF may come late; it does nothing any more.
                    assert!(at + 1 >= last && at < last + size, "{end:?} {size}: {at} {last}");
                }
            }
        }
    }

    #[test]
    fn data_of_several_lines_batches_and_written_out_keys_are_answers_too() {
        let lines = "data: {\"id\":1,\ndata\ndata: \"result\":{}}\n\n";
        assert_eq!(seen(lines, 7).0, "{\"id\":1,\n\n\"result\":{}}");
        for answer in [r#"[{"id":1,"error":{}}]"#, r#"{"id":1,"r\u0065sult":{}}"#] {
            assert_eq!(seen(&format!("data: {answer}\n\n"), 3).2.map(|_| ()), Some(()), "{answer}");
        }
        for other in [NOTICE, r#"[{"method":"x","params":{"error":1}}]"#, r#""result":"#, "dataresult"] {
            assert_eq!(seen(&format!("data: {other}\n\n"), 3), (String::new(), 0, None), "{other}");
        }
    }

    #[test]
    fn a_long_answer_is_counted_whole_and_kept_in_part() {
        let mut answer = Answer::new(4, true);
        assert!(answer.pass(b"data: {\"result\":12345}\n\n"));
        assert_eq!((answer.kept.as_slice(), answer.total), (&b"{\"re"[..], 16));
        assert!(!answer.pass(b"data: {\"result\":6}\n\n"));
        assert_eq!(answer.total, 16);
    }

    proptest! {
        /// Against the parser that rewrites streams: the same event, with the same data.
        #[test]
        fn the_same_event_as_by_the_parser(
            messages in prop::collection::vec((0usize..4, 0usize..3), 1..6), size in 1usize..40,
        ) {
            let ends = ["\n", "\r\n", "\r"];
            let stream: String = messages.iter().map(|(kind, end)| {
                let end = ends[*end];
                match kind {
                    0 => format!("data: {NOTICE}{end}{end}"),
                    1 => format!(": ping{end}{end}"),
                    2 => format!("id: 7{end}data:{NOTICE}{end}event: x{end}{end}"),
                    _ => format!("event: message{end}data: {ANSWER}{end}{end}"),
                }
            }).collect();
            let mut events = Events::new(100_000);
            events.feed(stream.as_bytes());
            let mut wanted = None;
            while let Some(event) = events.next().unwrap() {
                if let Some(data) = event.data().filter(|data| &data[..] == ANSWER.as_bytes()) {
                    wanted.get_or_insert(data.into_owned());
                }
            }
            let (kept, _, at) = seen(&stream, size);
            prop_assert_eq!(at.is_some(), wanted.is_some());
            if let Some(wanted) = wanted {
                prop_assert_eq!(kept.into_bytes(), wanted);
            }
        }
    }
}
