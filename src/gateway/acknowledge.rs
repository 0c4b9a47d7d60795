//! The moment at which a client has its answer: by then the event is recorded.
//!
//! For an answer that is sent whole, and for one with a declared length, that is its last byte. A stream's call is
//! answered when the message with the result has passed, whether or not the stream ends after it.

use bytes::Bytes;

use crate::audit::{Full, Receipt};
use crate::gateway::record::Answer;

/// Records the event of an answer that is about to reach its client: with the bytes of the answer, with what broke it, if
/// something did, and with its body, if that is recorded. Does nothing the second time.
pub(crate) type Settle<'a> =
    &'a mut (dyn FnMut(u64, Option<&str>, Option<Answer>) -> Result<Option<Receipt>, Full> + Send);

/// What the log says when an answer is withheld.
pub(crate) const UNRECORDED: &str = "the answer could not be recorded in the audit";

/// Keys that only a message which ends a call has at its top.
const KEYS: [&[u8]; 2] = [b"\"result\"", b"\"error\""];
/// As much of a key as may lie in the chunk before.
const KEEP: usize = KEYS[0].len() - 1;

/// Whether the answer of a call has come by in its stream. May say so early, never late: a notification that speaks of a
/// result counts as one.
#[derive(Default)]
pub(crate) struct AnswerSeen {
    done: bool,
    /// The end of what has passed: a key may be cut in two.
    tail: Vec<u8>,
}

impl AnswerSeen {
    /// It has come by; nobody has to look any more.
    pub(crate) fn is_known(&mut self) {
        *self = Self { done: true, tail: Vec::new() };
    }

    /// Whether these bytes are the first that may hold the answer.
    pub(crate) fn comes_with(&mut self, bytes: &Bytes) -> bool {
        if self.done || bytes.is_empty() {
            return false;
        }
        self.tail.extend_from_slice(&bytes[..bytes.len().min(KEEP)]);
        let holds = |text: &[u8]| KEYS.iter().any(|key| memchr::memmem::find(text, key).is_some());
        self.done = holds(bytes) || holds(&self.tail);
        if self.done {
            self.tail = Vec::new();
        } else if bytes.len() >= KEEP {
            self.tail.clear();
            self.tail.extend_from_slice(&bytes[bytes.len() - KEEP..]);
        } else {
            self.tail.drain(..self.tail.len().saturating_sub(KEEP));
        }
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_seen_however_it_is_cut() {
        for key in ["result", "error"] {
            let text = format!("event: message\ndata: {{\"jsonrpc\":\"2.0\",\"id\":1,\"{key}\":{{}}}}\n\n");
            for size in 1..text.len() {
                let mut seen = AnswerSeen::default();
                let mut passed = 0;
                let end = text.find(key).expect("the key") + key.len() + 1;
                for chunk in text.as_bytes().chunks(size) {
                    passed += chunk.len();
                    if seen.comes_with(&Bytes::copy_from_slice(chunk)) {
                        break;
                    }
                    assert!(passed < end, "chunks of {size}: the key has passed unseen");
                }
                assert!(seen.done, "chunks of {size}");
                assert!(!seen.comes_with(&Bytes::from_static(b"\"result\"")), "only once");
            }
        }
        let mut none = AnswerSeen::default();
        assert!(!none.comes_with(&Bytes::from_static(b"data: {\"method\":\"notifications/progress\"}\n\n")));
    }
}
