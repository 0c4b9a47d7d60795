//! What the control plane tells the audit log: every change, every look at what is sensitive, every refusal.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::actor::Actor;
use super::permission::Operation;
use crate::base::{RequestId, TenantId};

/// Longest text of [`Notes::words`], in bytes; what exceeds it is counted.
const MAX_WORDS: usize = 900;

/// What a use of the API did, as far as its handler has come to know. Never a value that may be secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// The id of what was made, changed or removed, where the address does not have it.
    pub object: Option<String>,
    /// The revision that it led to.
    pub revision: Option<u64>,
    /// What changed, one line each.
    pub changes: Vec<String>,
    /// Whether nothing was to change.
    pub dry_run: bool,
    /// Whether it was done before, and only answered again.
    pub replayed: bool,
}

impl Notes {
    /// What changed, in one text.
    pub fn words(&self) -> Option<String> {
        let mut words = String::new();
        if self.replayed {
            words.push_str("answered again; ");
        }
        if self.dry_run {
            words.push_str("tried only; ");
        }
        for (at, change) in self.changes.iter().enumerate() {
            if words.len() + change.len() > MAX_WORDS {
                words.push_str(&format!("and {} more; ", self.changes.len() - at));
                break;
            }
            words.push_str(change);
            words.push_str("; ");
        }
        words.truncate(words.trim_end_matches("; ").len());
        Some(words).filter(|words| !words.is_empty())
    }
}

/// Where the notes of a request are, for it and for its record.
pub(super) type SharedNotes = Arc<Mutex<Notes>>;

tokio::task_local! {
    /// The notes of the request that this task answers.
    static NOTES: SharedNotes;
}

/// Answers a request whose handler writes `notes`.
pub(super) async fn noting<T>(notes: SharedNotes, answer: impl Future<Output = T>) -> T {
    NOTES.scope(notes, answer).await
}

/// Adds to what the record of the request that is being answered will say. It is there also if the request is given up.
pub(super) fn note(add: impl FnOnce(&mut Notes)) {
    // Handlers that are called without a gate have no record.
    let _ = NOTES.try_with(|notes| add(&mut notes.lock()));
}

/// One use of the API, after it was answered.
#[derive(Clone, Debug)]
pub struct Action {
    /// Which operation.
    pub operation: &'static Operation,
    /// Who; nobody if the credential was not good.
    pub actor: Option<Arc<Actor>>,
    /// In whose log it is: the tenant of the address, or the caller's own if that is none of theirs.
    pub tenant: Option<TenantId>,
    /// The address of the request, without its query.
    pub path: String,
    /// Why, as the caller says.
    pub reason: Option<String>,
    /// From where.
    pub address: IpAddr,
    /// The status of the answer; 499 if the request was given up before there was one: its caller went away, or it took too
    /// long. What it did is not known then.
    pub status: u16,
    /// The request.
    pub request: RequestId,
    /// How long it took.
    pub took: Duration,
    /// What it did.
    pub notes: Notes,
}

impl Action {
    /// What those who follow the audit see of it.
    pub fn summary(&self) -> serde_json::Value {
        serde_json::json!({
            "operation": self.operation.id,
            "actor": self.actor.as_ref().map(|a| &*a.id),
            "path": self.path,
            "reason": self.reason,
            "address": self.address,
            "status": self.status,
            "request_id": self.request.to_string(),
            "took_ms": u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
            "credential": self.actor.as_ref().map(|a| &*a.credential),
            "object": self.notes.object,
            "revision": self.notes.revision,
            "detail": self.notes.words(),
            "replayed": self.notes.replayed,
        })
    }

    /// Whether it did what was asked.
    pub fn succeeded(&self) -> bool {
        self.status < 400
    }

    /// Whether the caller was not allowed to.
    pub fn refused(&self) -> bool {
        matches!(self.status, 401 | 403 | 404 | 429)
    }
}

/// Where actions are recorded.
pub trait Ledger: Send + Sync + 'static {
    /// Whether there is room for another record. If not, changes are refused before they happen.
    fn ready(&self) -> bool;

    /// Records an action. Does not block.
    fn record(&self, action: &Action);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_bounded_and_say_how_much_is_missing() {
        assert_eq!(Notes::default().words(), None);
        let changes = vec!["limit a: +".to_owned(), "limit b: -".to_owned()];
        let notes = Notes { changes, dry_run: true, ..Notes::default() };
        assert_eq!(notes.words().as_deref(), Some("tried only; limit a: +; limit b: -"));
        let many = Notes { changes: vec!["x".repeat(100); 50], ..Notes::default() };
        let words = many.words().unwrap();
        assert!(words.len() < MAX_WORDS + 40 && words.ends_with("and 42 more"), "{words}");
        let long = Notes { changes: vec!["x".repeat(5000)], replayed: true, ..Notes::default() };
        assert_eq!(long.words().as_deref(), Some("answered again; and 1 more"));
    }

    #[tokio::test]
    async fn notes_are_those_of_the_request_that_is_being_answered() {
        let (a, b) = (SharedNotes::default(), SharedNotes::default());
        let write = async |n: u64| {
            tokio::task::yield_now().await;
            note(|notes| notes.revision = Some(n));
        };
        tokio::join!(noting(a.clone(), write(1)), noting(b.clone(), write(2)));
        assert_eq!((a.lock().revision, b.lock().revision), (Some(1), Some(2)));
        note(|_| panic!("nobody is answered"));
    }
}
