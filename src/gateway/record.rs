//! Bodies on their way into the audit, where a rule of the policy asks for them.
//!
//! A [`Recording`] is made when the first rule does, and so nothing is kept or copied for requests of which none does. The
//! request's body is in memory anyway; of the answer an [`Answer`] keeps the beginning as it passes. Room for both is
//! promised before a server is asked, like that for the rest of the event.

mod follow;

use std::sync::Arc;

use bytes::Bytes;

use crate::audit::{redact, whole_characters};
use crate::policy::Record;
use follow::Follow;

/// What is to be recorded of a request's bodies.
pub(crate) struct Recording {
    body: Bytes,
    /// Most bytes of the request's; zero: it is not recorded.
    request: usize,
    /// The same for the response's.
    response: usize,
    /// What is left out of both.
    redact: Vec<Arc<[Box<str>]>>,
    answer: Option<Answer>,
    /// There was no room.
    lost: bool,
}

/// What is recorded.
#[derive(Default)]
pub(crate) struct Recorded {
    pub(crate) request: Option<Bytes>,
    pub(crate) request_cut: Option<u64>,
    pub(crate) response: Option<Bytes>,
    pub(crate) response_cut: Option<u64>,
}

impl Recording {
    pub(crate) fn new(body: &Bytes) -> Self {
        Self { body: body.clone(), request: 0, response: 0, redact: Vec::new(), answer: None, lost: false }
    }

    /// Another rule asks, too, because it decides a message of the same batch: what any of them wants is recorded, without
    /// what any of them leaves out.
    pub(crate) fn widen(&mut self, request: usize, response: usize, record: &Record) {
        self.request = self.request.max(request);
        self.response = self.response.max(response);
        let known = |names: &Arc<[Box<str>]>| self.redact.iter().any(|other| Arc::ptr_eq(other, names));
        if !record.redact.is_empty() && !known(&record.redact) {
            self.redact.push(record.redact.clone());
        }
    }

    /// Bytes that the event needs for bodies.
    pub(crate) fn room(&self) -> usize {
        // What is put in place of a value may be longer.
        let growth = if self.redact.is_empty() { 1 } else { 12 };
        self.body.len().saturating_mul(growth).min(self.request) + self.response
    }

    /// There is no room: the event says what is missing.
    pub(crate) fn lose(&mut self) {
        self.lost = true;
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost
    }

    /// What will look at the answer as it passes, if it is recorded.
    pub(crate) fn follow(&self, is_stream: bool) -> Option<Answer> {
        (self.response > 0 && !self.lost).then(|| Answer::new(self.response, is_stream))
    }

    /// The answer, or as much of it as there was.
    pub(crate) fn answered(&mut self, answer: Answer) {
        self.answer = Some(answer);
    }

    /// An answer of our own.
    pub(crate) fn answered_with(&mut self, body: &[u8]) {
        if let Some(mut answer) = self.follow(false) {
            answer.pass(body);
            self.answer = Some(answer);
        }
    }

    /// What the event holds of it.
    pub(crate) fn finish(mut self) -> Recorded {
        let mut recorded = Recorded::default();
        let length = self.body.len() as u64;
        if self.lost {
            recorded.request_cut = (self.request > 0).then_some(length);
            return recorded;
        }
        if self.request > 0 {
            (recorded.request, recorded.request_cut) = self.keep(&self.body, length, self.request);
        }
        if let Some(Answer { kept, total, .. }) = self.answer.take() {
            let kept = Bytes::from(kept);
            (recorded.response, recorded.response_cut) = self.keep(&kept, total, self.response);
        }
        recorded
    }

    /// What is kept of a body that has `total` bytes, of which `body` are there; and how many are missing.
    fn keep(&self, body: &Bytes, total: u64, max: usize) -> (Option<Bytes>, Option<u64>) {
        let head = &body[..body.len().min(max)];
        let (kept, stands_for) = if self.redact.is_empty() {
            let head = if head.len() as u64 == total { head } else { whole_characters(head) };
            (body.slice_ref(head), head.len())
        } else {
            let names: Vec<&str> = self.redact.iter().flat_map(|names| names.iter().map(|n| &**n)).collect();
            let (kept, stands_for) = redact(head, &names, max);
            (Bytes::from(kept), stands_for)
        };
        let cut = total.saturating_sub(stands_for as u64);
        (Some(kept), (cut > 0).then_some(cut))
    }
}

/// The beginning of an answer, kept as it passes.
pub(crate) struct Answer {
    max: usize,
    kept: Vec<u8>,
    total: u64,
    stream: Option<Follow>,
}

impl Answer {
    fn new(max: usize, is_stream: bool) -> Self {
        Self { max, kept: Vec::new(), total: 0, stream: is_stream.then(Follow::default) }
    }

    /// Takes note of bytes that go to the client. Returns whether these end the message with which the call is answered;
    /// what comes after it is not looked at.
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> bool {
        match self.stream.take() {
            None => {
                self.take(bytes);
                false
            }
            Some(mut stream) => {
                let ended = stream.feed(bytes, self);
                self.stream = Some(stream);
                ended
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let room = self.max - self.kept.len();
        self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn clear(&mut self) {
        self.kept.clear();
        self.total = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(names: &[&str]) -> Record {
        Record {
            request: true,
            response: true,
            max: 10,
            redact: names.iter().map(|name| Box::from(*name)).collect(),
        }
    }

    fn recorded(body: &str, answer: &str, max: usize, names: &[&str]) -> Recorded {
        let mut recording = Recording::new(&Bytes::copy_from_slice(body.as_bytes()));
        recording.widen(max, max, &rule(names));
        assert!(recording.room() <= 2 * max);
        recording.answered_with(answer.as_bytes());
        recording.finish()
    }

    #[test]
    fn bodies_are_cut_between_characters_and_the_cut_is_counted() {
        let kept = recorded("{\"a\":\"ü\"}", "0123456789ü", 7, &[]);
        assert_eq!((kept.request.as_deref(), kept.request_cut), (Some(&b"{\"a\":\""[..]), Some(4)));
        assert_eq!((kept.response.as_deref(), kept.response_cut), (Some(&b"0123456"[..]), Some(5)));
        let kept = recorded("{}", "ü", 2, &[]);
        assert_eq!((kept.request.as_deref(), kept.request_cut), (Some(&b"{}"[..]), None));
        assert_eq!((kept.response.as_deref(), kept.response_cut), (Some("ü".as_bytes()), None));
    }

    #[test]
    fn what_is_redacted_is_in_neither_body_and_a_short_one_may_grow() {
        let kept = recorded("{\"pin\":1}", "{\"pin\":2,\"x\":3}", 100, &["PIN"]);
        assert_eq!(kept.request.as_deref(), Some(&b"{\"pin\":\"[redacted]\"}"[..]));
        assert_eq!(kept.response.as_deref(), Some(&b"{\"pin\":\"[redacted]\",\"x\":3}"[..]));
        assert_eq!((kept.request_cut, kept.response_cut), (None, None));
        let kept = recorded("{\"pin\":1}", "no json", 9, &["pin"]);
        assert_eq!((kept.request.as_deref(), kept.request_cut), (Some(&b"{\"pin\":"[..]), Some(2)));
        assert_eq!((kept.response.as_deref(), kept.response_cut), (Some(&b""[..]), Some(7)));
    }

    #[test]
    fn rules_of_one_batch_add_up() {
        let mut recording = Recording::new(&Bytes::from_static(b"[{\"pin\":1},{\"card\":2}]"));
        recording.widen(5, 0, &rule(&["pin"]));
        recording.widen(100, 0, &rule(&["card"]));
        let kept = recording.finish();
        let wanted = &b"[{\"pin\":\"[redacted]\"},{\"card\":\"[redacted]\"}]"[..];
        assert_eq!((kept.request.as_deref(), kept.response), (Some(wanted), None));
    }

    #[test]
    fn without_room_the_event_says_what_is_missing() {
        let mut recording = Recording::new(&Bytes::from_static(b"{\"a\":1}"));
        recording.widen(100, 100, &rule(&[]));
        recording.lose();
        assert!(recording.follow(true).is_none());
        recording.answered_with(b"x");
        let kept = recording.finish();
        assert_eq!((kept.request, kept.request_cut, kept.response), (None, Some(7), None));
    }
}
