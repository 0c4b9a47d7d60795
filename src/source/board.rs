//! What this replica does with each scope's document: which revision it serves, and which it refused and why.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;

use crate::base::{Scope, TenantId};
use crate::source::stored::{SecretValues, Serve, Stored};

/// The longest reason that is kept of a refusal, in characters.
const MAX_REASON: usize = 2_000;

/// What is done with one scope's document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Whose.
    pub scope: Scope,
    /// The revision in force; 0 for none.
    pub revision: i64,
    /// The last one that was refused: a later one, or the one in force (or that was), which would not compile any more.
    pub refused: Option<i64>,
    /// Why.
    pub reason: Option<String>,
}

/// How a document was taken.
#[derive(Debug)]
pub(super) enum Taken {
    /// It is in force. The documents of these tenants mean something else now.
    InForce(Vec<TenantId>),
    /// It was in force before.
    Known,
    /// The last good one is still in force.
    Refused,
}

#[derive(Debug, Default)]
struct Entry {
    serving: Option<Stored>,
    /// It is not served after all, because the platform gives less than it needs: it waits for that to change.
    withdrawn: bool,
    refused: Option<(Stored, String)>,
}

/// All scopes. One writer at a time; readers never wait for a compilation.
#[derive(Debug, Default)]
pub(super) struct Board {
    entries: Mutex<BTreeMap<Scope, Entry>>,
    /// Documents of tenants that the platform's document does not name, or not yet.
    aside: Mutex<BTreeMap<Scope, Stored>>,
    /// Scopes whose state the store has not been told of.
    unreported: Mutex<BTreeSet<Scope>>,
}

impl Board {
    /// Takes a document: newer ones only, so that what is served never goes back. Blocks.
    pub(super) fn take(&self, serve: &dyn Serve, document: Stored, secrets: &SecretValues) -> Taken {
        let known = |d: &Stored| d.revision >= document.revision;
        if self.entries.lock().get(&document.scope).and_then(|e| e.serving.as_ref()).is_some_and(known) {
            return Taken::Known;
        }
        self.put(serve, document, secrets)
    }

    /// Takes a document although its revision may be in force: what it names has changed.
    pub(super) fn put(&self, serve: &dyn Serve, document: Stored, secrets: &SecretValues) -> Taken {
        let scope = document.scope.clone();
        let outcome = serve.serve(&document, secrets);
        let mut entries = self.entries.lock();
        let entry = entries.entry(scope.clone()).or_default();
        let taken = match outcome {
            Ok(again) => {
                tracing::info!(event = "revision_served", scope = %scope, revision = document.revision);
                // Neither an earlier one in its place nor the same once more says anything of one that was refused.
                let before = entry.serving.as_ref().map(|d| d.revision);
                let refused = entry.refused.take().filter(|(refused, _)| {
                    let same = before == Some(document.revision) && refused.revision != document.revision;
                    same || refused.revision > document.revision
                });
                *entry = Entry { serving: Some(document), withdrawn: false, refused };
                Taken::InForce(again)
            }
            Err(refusal) => {
                let refusal = refusal.hiding(secrets);
                let reason: String = refusal.to_string().chars().take(MAX_REASON).collect();
                entry.withdrawn = entry.serving.as_ref().is_some_and(|serving| !serve.is_in_force(serving));
                let serving = entry.revision();
                // It is tried again whenever it may have become right.
                let is_new =
                    |(known, why): &(Stored, String)| (known.revision, why) != (document.revision, &reason);
                if entry.refused.as_ref().is_none_or(is_new) {
                    tracing::error!(
                        event = "revision_refused",
                        scope = %scope,
                        revision = document.revision,
                        serving,
                        error = %reason,
                    );
                } else {
                    tracing::debug!(
                        event = "revision_refused_again",
                        scope = %scope,
                        revision = document.revision,
                        serving,
                    );
                }
                entry.refused = Some((document, reason));
                Taken::Refused
            }
        };
        drop(entries);
        self.unreported.lock().insert(scope);
        taken
    }

    /// The documents of tenants to compile again, of each the one in force and then the one that was refused last: what
    /// they mean may have changed for both.
    pub(super) fn again(&self, wanted: impl Fn(&Stored) -> bool) -> Vec<Stored> {
        let entries = self.entries.lock();
        let both = |e: &Entry| {
            let serving = e.serving.clone();
            let newer = |d: &&Stored| serving.as_ref().is_none_or(|s| s.revision != d.revision);
            let refused = e.refused.as_ref().map(|(d, _)| d).filter(newer).cloned();
            [serving, refused]
        };
        entries.values().flat_map(both).flatten().filter(|d| wanted(d)).collect()
    }

    /// Lays a tenant's document aside: nobody names the tenant, so it is neither served nor refused.
    pub(super) fn lay_aside(&self, document: Stored) {
        let scope = document.scope.clone();
        tracing::info!(event = "document_laid_aside", scope = %scope, revision = document.revision);
        self.entries.lock().remove(&scope);
        self.unreported.lock().remove(&scope);
        let mut aside = self.aside.lock();
        if aside.get(&scope).is_none_or(|known| known.revision < document.revision) {
            aside.insert(scope, document);
        }
    }

    /// Lays aside what is known of tenants that are not there any more.
    pub(super) fn lay_aside_unless(&self, there: impl Fn(&TenantId) -> bool) {
        let gone = |scope: &Scope| matches!(scope, Scope::Tenant(tenant) if !there(tenant));
        let mut latest = Vec::new();
        self.entries.lock().retain(|scope, entry| {
            let keep = !gone(scope);
            if !keep {
                let refused = entry.refused.take().map(|(document, _)| document);
                latest.extend(refused.into_iter().chain(entry.serving.take()).max_by_key(|d| d.revision));
            }
            keep
        });
        latest.into_iter().for_each(|document| self.lay_aside(document));
    }

    /// Gives back a document that was laid aside.
    pub(super) fn take_up(&self, scope: &Scope) -> Option<Stored> {
        self.aside.lock().remove(scope)
    }

    /// Whether the last document of a scope was refused.
    pub(super) fn refuses(&self, scope: &Scope) -> bool {
        self.entries.lock().get(scope).is_some_and(|entry| entry.refused.is_some())
    }

    /// The document that was taken last. If the platform gives less than it needs now, it is not served.
    pub(super) fn serving(&self, scope: &Scope) -> Option<Stored> {
        self.entries.lock().get(scope)?.serving.clone()
    }

    /// Scopes that are known.
    pub(super) fn scopes(&self) -> Vec<Scope> {
        self.entries.lock().keys().cloned().collect()
    }

    /// All scopes, the platform first.
    pub(super) fn list(&self) -> Vec<Served> {
        self.entries.lock().iter().map(|(scope, entry)| entry.describe(scope)).collect()
    }

    /// What the store has not been told of. Give back with [`Board::unreport`] what it could not be told.
    pub(super) fn take_unreported(&self) -> Vec<Served> {
        let scopes = std::mem::take(&mut *self.unreported.lock());
        let entries = self.entries.lock();
        scopes.iter().filter_map(|scope| Some(entries.get(scope)?.describe(scope))).collect()
    }

    pub(super) fn unreport(&self, served: Vec<Served>) {
        self.unreported.lock().extend(served.into_iter().map(|s| s.scope));
    }

    /// The store has forgotten what it was told.
    pub(super) fn unreport_all(&self) {
        let scopes = self.scopes();
        self.unreported.lock().extend(scopes);
    }
}

impl Entry {
    /// The revision in force; 0 for none.
    fn revision(&self) -> i64 {
        self.serving.as_ref().filter(|_| !self.withdrawn).map_or(0, |d| d.revision)
    }

    fn describe(&self, scope: &Scope) -> Served {
        Served {
            scope: scope.clone(),
            revision: self.revision(),
            refused: self.refused.as_ref().map(|(d, _)| d.revision),
            reason: self.refused.as_ref().map(|(_, reason)| reason.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::snapshot::Snapshot;
    use crate::source::canary::Beside;
    use crate::source::stored::Refusal;

    /// Refuses documents that say so, and those that need what was taken back.
    #[derive(Default)]
    struct Picky(Mutex<Vec<i64>>, AtomicBool);

    impl Serve for Picky {
        fn serve(&self, document: &Stored, _: &SecretValues) -> Result<Vec<TenantId>, Refusal> {
            if document.content.starts_with(b"bad") || !self.is_in_force(document) {
                return Err(Refusal::Compile(vec![("routes.x".to_owned(), "is bad".to_owned())]));
            }
            self.0.lock().push(document.revision);
            Ok(Vec::new())
        }

        fn is_in_force(&self, document: &Stored) -> bool {
            !(self.1.load(Ordering::Relaxed) && document.content.starts_with(b"greedy"))
        }

        fn check(&self, _: &Scope, _: &[u8], _: &SecretValues) -> Result<Vec<String>, Refusal> {
            Ok(Vec::new())
        }

        fn serve_beside(&self, _: &Beside, _: &SecretValues) -> Result<(), Refusal> {
            Ok(())
        }

        fn end_beside(&self, _: &TenantId, _: uuid::Uuid) {}

        fn trial(&self, _: &TenantId, _: &[u8], _: &SecretValues) -> Result<Snapshot, Refusal> {
            Ok(Snapshot::new([]))
        }

        fn diff(&self, _: &Scope, _: &[u8], _: &[u8], _: &SecretValues) -> Vec<String> {
            Vec::new()
        }
    }

    fn document(revision: i64, text: &str) -> Stored {
        let scope = Scope::Tenant(TenantId::new("acme"));
        Stored { scope, revision, generation: 0, content: Arc::from(text.as_bytes()) }
    }

    #[test]
    fn what_is_served_never_goes_back() {
        let (board, picky, none) = (Board::default(), Picky::default(), SecretValues::new());
        assert!(matches!(board.take(&picky, document(2, "good"), &none), Taken::InForce(_)));
        assert!(matches!(board.take(&picky, document(1, "good"), &none), Taken::Known));
        assert!(matches!(board.take(&picky, document(2, "good"), &none), Taken::Known));
        assert!(matches!(board.take(&picky, document(3, "good"), &none), Taken::InForce(_)));
        assert_eq!(*picky.0.lock(), [2, 3]);
    }

    #[test]
    fn a_refused_one_leaves_the_last_good_one_and_says_why_until_a_later_one_is_good() {
        let (board, picky, none) = (Board::default(), Picky::default(), SecretValues::new());
        board.take(&picky, document(1, "good"), &none);
        assert!(matches!(board.take(&picky, document(2, "bad"), &none), Taken::Refused));
        let served = board.list().remove(0);
        assert_eq!((served.revision, served.refused), (1, Some(2)));
        assert_eq!(served.reason.as_deref(), Some("routes.x: is bad"));
        let both = [document(1, "good"), document(2, "bad")];
        assert_eq!(board.again(|_| true), both, "it may be right the next time");
        board.put(&picky, document(1, "good"), &none);
        board.put(&picky, document(2, "bad"), &none);
        let served = board.list().remove(0);
        assert_eq!((served.revision, served.refused), (1, Some(2)), "as it was");
        board.take(&picky, document(3, "good"), &none);
        let served = board.list().remove(0);
        assert_eq!((served.revision, served.refused, served.reason), (3, None, None));
    }

    #[test]
    fn an_earlier_one_in_its_place_leaves_the_refusal_of_a_later_one_as_it_is() {
        let (board, picky, none) = (Board::default(), Picky::default(), SecretValues::new());
        assert!(matches!(board.take(&picky, document(2, "bad"), &none), Taken::Refused));
        assert!(matches!(board.take(&picky, document(1, "good"), &none), Taken::InForce(_)));
        let served = board.list().remove(0);
        assert_eq!((served.revision, served.refused), (1, Some(2)));
        assert_eq!(served.reason.as_deref(), Some("routes.x: is bad"));
    }

    #[test]
    fn what_was_taken_back_is_not_told_as_served_until_it_is_given_again() {
        let (board, picky, none) = (Board::default(), Picky::default(), SecretValues::new());
        board.take(&picky, document(1, "greedy"), &none);
        board.take_unreported();
        picky.1.store(true, Ordering::Relaxed);
        for document in board.again(|_| true) {
            board.put(&picky, document, &none);
        }
        let served = board.take_unreported().remove(0);
        assert_eq!((served.revision, served.refused), (0, Some(1)));
        picky.1.store(false, Ordering::Relaxed);
        for document in board.again(|_| true) {
            board.put(&picky, document, &none);
        }
        let served = board.list().remove(0);
        assert_eq!((served.revision, served.refused), (1, None));
    }

    #[test]
    fn a_tenant_that_nobody_names_is_laid_aside_and_its_latest_document_taken_up_again() {
        let (board, picky, none) = (Board::default(), Picky::default(), SecretValues::new());
        board.take(&picky, document(1, "good"), &none);
        board.take(&picky, document(2, "bad"), &none);
        board.lay_aside_unless(|_| true);
        assert_eq!(board.list().len(), 1);
        board.lay_aside_unless(|_| false);
        assert!(board.list().is_empty() && board.take_unreported().is_empty(), "nobody is told of it");
        board.unreport_all();
        assert!(board.take_unreported().is_empty());
        board.lay_aside(document(1, "good"));
        let scope = document(0, "").scope;
        assert_eq!(board.take_up(&scope), Some(document(2, "bad")));
        assert_eq!(board.take_up(&scope), None);
    }

    #[test]
    fn what_could_not_be_reported_is_reported_later() {
        let (board, picky, none) = (Board::default(), Picky::default(), SecretValues::new());
        board.take(&picky, document(1, "good"), &none);
        let first = board.take_unreported();
        assert_eq!(first.len(), 1);
        assert_eq!(board.take_unreported(), []);
        board.unreport(first.clone());
        assert_eq!(board.take_unreported(), first);
        board.unreport_all();
        assert_eq!(board.take_unreported(), first);
    }
}
