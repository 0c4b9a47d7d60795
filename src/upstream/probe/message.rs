//! Finding one JSON-RPC reply in a JSON body or an event stream.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// Most characters of a server's error text that are kept.
const MAX_ERROR_TEXT: usize = 200;

/// The reply to one request.
#[derive(Debug, PartialEq)]
pub(crate) enum Reply {
    Error {
        code: i64,
        message: String,
    },
    /// The JSON of `result`, byte for byte.
    Result(Bytes),
}

/// Collects an answer chunk by chunk. The caller bounds how much is pushed.
pub(crate) struct Collector {
    want: u64,
    stream: bool,
    /// Everything of a JSON body; the unfinished line of a stream.
    pending: Vec<u8>,
    /// The `data:` lines of the unfinished event.
    data: Vec<u8>,
    /// The last byte ended a line with CR: an LF that follows belongs to it.
    after_cr: bool,
    started: bool,
}

#[derive(Deserialize)]
struct Wire<'a> {
    id: Option<Value>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    error: Option<WireError>,
}

#[derive(Deserialize)]
struct WireError {
    code: i64,
    #[serde(default)]
    message: String,
}

impl Collector {
    pub(crate) fn new(want: u64, stream: bool) -> Self {
        Self { want, stream, pending: Vec::new(), data: Vec::new(), after_cr: false, started: false }
    }

    /// Takes a chunk; returns the reply if a stream has just delivered it.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> Option<Reply> {
        if !self.stream {
            self.pending.extend_from_slice(chunk);
            return None;
        }
        for byte in chunk {
            let after_cr = std::mem::replace(&mut self.after_cr, *byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => {
                    if let Some(reply) = self.line() {
                        return Some(reply);
                    }
                }
                _ => self.pending.push(*byte),
            }
        }
        None
    }

    /// The answer is complete.
    pub(crate) fn finish(self) -> Option<Reply> {
        // An event that no blank line ended is not delivered (HTML, server-sent events, §9.2.6).
        if self.stream { None } else { parse(&self.pending, self.want) }
    }

    fn line(&mut self) -> Option<Reply> {
        let mut line = std::mem::take(&mut self.pending);
        if !std::mem::replace(&mut self.started, true) && line.starts_with(b"\xef\xbb\xbf") {
            line.drain(..3);
        }
        if line.is_empty() {
            let data = std::mem::take(&mut self.data);
            return parse(&data, self.want);
        }
        if let Some(value) = line.strip_prefix(b"data:") {
            if !self.data.is_empty() {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
        }
        None
    }
}

/// The reply in a text, if it is one and has the id we sent. An error without an id answers the only request there is.
fn parse(text: &[u8], want: u64) -> Option<Reply> {
    let wire: Wire<'_> = serde_json::from_slice(text).ok()?;
    let ours = wire.id.as_ref().and_then(Value::as_u64) == Some(want);
    match (wire.result, wire.error) {
        (Some(result), None) if ours => Some(Reply::Result(Bytes::copy_from_slice(result.get().as_bytes()))),
        (None, Some(error)) if ours || wire.id.is_none() => {
            let message = error.message.chars().filter(|c| !c.is_control()).take(MAX_ERROR_TEXT).collect();
            Some(Reply::Error { code: error.code, message })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn result(json: &str) -> Reply {
        Reply::Result(Bytes::copy_from_slice(json.as_bytes()))
    }

    fn stream(parts: &[&str]) -> Option<Reply> {
        let mut c = Collector::new(7, true);
        parts.iter().find_map(|p| c.push(p.as_bytes()))
    }

    #[test]
    fn keeps_the_result_byte_for_byte() {
        let mut c = Collector::new(7, false);
        assert_eq!(c.push(br#"{"result":{"b": 1.0,"#), None);
        assert_eq!(c.push(br#" "a":[ ]},"jsonrpc":"2.0","id":7}"#), None);
        assert_eq!(c.finish(), Some(result(r#"{"b": 1.0, "a":[ ]}"#)));
    }

    #[test]
    fn skips_comments_notifications_and_other_ids() {
        let text = ": ping\n\nid: 1\ndata:\n\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"x\"}\n\n\
                    data: {\"jsonrpc\":\"2.0\",\"id\":8,\"result\":{}}\n\n\
                    event: message\ndata: {\"jsonrpc\":\"2.0\",\ndata: \"id\":7,\"result\":{\"ok\":true}}\n\n";
        assert_eq!(stream(&[text]), Some(result(r#"{"ok":true}"#)));
    }

    #[test]
    fn errors_without_an_id_count_and_are_cut_to_size() {
        let long = "x".repeat(1000);
        let mut c = Collector::new(7, false);
        c.push(
            format!(r#"{{"jsonrpc":"2.0","id":null,"error":{{"code":-32000,"message":"{long}"}}}}"#)
                .as_bytes(),
        );
        let Some(Reply::Error { code: -32000, message }) = c.finish() else { panic!("an error") };
        assert_eq!(message.len(), MAX_ERROR_TEXT);
    }

    #[test]
    fn what_is_not_a_reply_is_nothing() {
        for text in ["", "<html>", "[]", "{}", r#"{"id":7}"#, r#"{"id":7,"result":1,"error":{"code":1}}"#] {
            let mut c = Collector::new(7, false);
            c.push(text.as_bytes());
            assert_eq!(c.finish(), None, "{text}");
        }
        assert_eq!(stream(&["data: {\"id\":7,\"result\":1}\n"]), None, "an unfinished event");
    }

    proptest! {
        #[test]
        fn chunks_and_line_ends_do_not_matter(cuts in prop::collection::vec(1usize..9, 0..40), end in 0usize..3) {
            let nl = ["\n", "\r\n", "\r"][end];
            let text = format!("\u{feff}: hi{nl}{nl}event: message{nl}data: {{\"id\":7,{nl}data:\"result\":[1]}}{nl}{nl}");
            let mut c = Collector::new(7, true);
            let (mut rest, mut found) = (text.as_bytes(), None);
            for cut in cuts.into_iter().chain(std::iter::repeat(5)) {
                if rest.is_empty() || found.is_some() { break; }
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                found = c.push(head);
                rest = tail;
            }
            prop_assert_eq!(found, Some(result("[1]")));
        }
    }
}
