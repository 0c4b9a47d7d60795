//! Editing documents: read the head, change it, publish the result, and say what that did.
//!
//! Every edit is a compare-and-swap on the head that it was made from. A caller who named a revision learns of a lost
//! race (412); for one who did not (`If-Match: *`, `If-None-Match: *`) the edit is made again on the new head, for a while.
//!
//! Changes of one document take turns in a process: those that lose a race have compiled for nothing. Between processes
//! they wait a little before the next try, longer each time and never equally long.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::http::header::{HeaderValue, RETRY_AFTER};
use serde::Serialize;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::Instant;
use utoipa::ToSchema;

use super::actor::Actor;
use super::api::Api;
use super::etag::{self, Precondition};
use super::problem::{FieldError, Problem};
use super::trail::note;
use crate::base::Scope;
use crate::config::{Canonical, Diagnostics, Severity};
use crate::source::{Change, PublishError, Publisher};

/// How long a change waits for its turn, and how long it is made again because somebody else was faster.
const PATIENCE: Duration = Duration::from_secs(8);
/// The longest pause before the second try; each further one may be twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// The longest of all.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// When to come again, in seconds.
const AGAIN: u64 = 1;

/// Whose turn it is to change a document. Each has turns of its own: nobody waits for another tenant.
#[derive(Default)]
pub(super) struct Turns(parking_lot::Mutex<HashMap<Scope, Weak<Mutex<()>>>>);

impl Turns {
    /// Waits for one's turn, in the order of who came.
    ///
    /// # Errors
    ///
    /// 503 if that takes too long.
    pub(super) async fn of(&self, scope: &Scope) -> Result<OwnedMutexGuard<()>, Problem> {
        tokio::time::timeout(PATIENCE, self.line(scope).lock_owned()).await.map_err(|_| contended())
    }

    fn line(&self, scope: &Scope) -> Arc<Mutex<()>> {
        let mut lines = self.0.lock();
        if let Some(line) = lines.get(scope).and_then(Weak::upgrade) {
            return line;
        }
        // Those in which nobody is go, so that there are never more than requests.
        lines.retain(|_, line| line.strong_count() > 0);
        let line = Arc::default();
        lines.insert(scope.clone(), Arc::downgrade(&line));
        line
    }
}

/// 503: nobody else's change is in the way of this one, only too many at once.
pub(super) fn contended() -> Problem {
    Problem::unavailable("contended", "many change this document at once; nothing was changed, try again")
        .with_header(RETRY_AFTER, HeaderValue::from(AGAIN))
}

/// For how long, and after which pauses, what lost a race is done again.
pub(super) struct Tries {
    began: Instant,
    longest: Duration,
}

impl Tries {
    pub(super) fn begin() -> Self {
        Self { began: Instant::now(), longest: FIRST_PAUSE }
    }

    /// Waits before the next one.
    ///
    /// # Errors
    ///
    /// 503 if there were enough.
    pub(super) async fn again(&mut self) -> Result<(), Problem> {
        if self.began.elapsed() >= PATIENCE {
            return Err(contended());
        }
        tokio::time::sleep(rand::random_range(Duration::ZERO..self.longest)).await;
        self.longest = (self.longest * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}

/// The head of a scope.
#[derive(Clone, Debug)]
pub(super) struct Current {
    /// Its number; 0 if nothing was published yet.
    pub(super) revision: u64,
    /// The document.
    pub(super) document: Canonical,
}

impl Current {
    /// The tag of everything in it.
    pub(super) fn tag(&self) -> String {
        etag::of_revision(self.revision)
    }
}

/// The head of a scope.
pub(super) async fn current(api: &Api, scope: &Scope) -> Result<Current, Problem> {
    let store = api.store()?;
    let mut tx = match scope {
        Scope::Platform => return platform(api).await,
        Scope::Tenant(tenant) => store.tenant(tenant).read().await?,
    };
    let Some(head) = tx.head(scope).await? else { return Ok(nothing()) };
    let found = tx.revision(scope, head.revision).await?;
    found.map_or_else(|| Ok(nothing()), |found| read(head.revision, &found.content))
}

async fn platform(api: &Api) -> Result<Current, Problem> {
    let mut tx = api.store()?.platform().read().await?;
    let Some(head) = tx.head(&Scope::Platform).await? else { return Ok(nothing()) };
    let found = tx.revision(&Scope::Platform, head.revision).await?;
    found.map_or_else(|| Ok(nothing()), |found| read(head.revision, &found.content))
}

fn nothing() -> Current {
    Current { revision: 0, document: Canonical::empty() }
}

fn read(revision: i64, content: &[u8]) -> Result<Current, Problem> {
    let document = crate::config::canonical(content).map_err(Problem::internal)?;
    Ok(Current { revision: u64::try_from(revision).unwrap_or(0), document })
}

/// Who edits, why, and on which condition.
pub(super) struct Edit<'a> {
    pub(super) api: &'a Api,
    pub(super) actor: Arc<Actor>,
    pub(super) scope: Scope,
    pub(super) reason: Option<String>,
    pub(super) precondition: Precondition,
    pub(super) dry_run: bool,
}

/// What an edit did, or would do.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Edited {
    /// Whose document: a tenant, or `@platform`.
    pub(super) scope: String,
    /// The revision that is the head now. Of a dry run: the one that it was made from.
    pub(super) revision: u64,
    /// What changed, in words. Empty if nothing did; then there is no new revision.
    pub(super) changes: Vec<String>,
    /// What probably does not mean what it says.
    pub(super) warnings: Vec<String>,
    /// Whether this was only tried.
    pub(super) dry_run: bool,
}

impl Edited {
    /// Has the record of the request say so.
    fn noted(&self, before: u64) {
        note(|notes| {
            notes.dry_run = self.dry_run;
            notes.revision = (!self.dry_run && self.revision != before).then_some(self.revision);
            notes.changes.extend_from_slice(&self.changes);
        });
    }
}

impl Edit<'_> {
    /// Makes the edit. `change` gets the head's document and gives the new one; `exists` says whether what the
    /// precondition is about is in a document.
    ///
    /// # Errors
    /// What `change` says; 412 if the condition does not hold; 422 with every finding if the document is not good; 503 if
    /// others were faster all the time.
    pub(super) async fn run(
        self,
        exists: impl Fn(&Canonical) -> bool,
        change: impl Fn(&Canonical) -> Result<Canonical, Problem>,
    ) -> Result<Edited, Problem> {
        let _turn = self.turn().await?;
        let mut tries = Tries::begin();
        loop {
            let current = self.begin(&exists).await?;
            let next = change(&current.document)?;
            match self.publish(&current, next).await {
                Err(error) if self.may_try_again(&error) => tries.again().await?,
                Err(error) => return Err(error.into()),
                Ok(edited) => return Ok(edited),
            }
        }
    }

    /// Waits until nobody else here changes the document.
    ///
    /// # Errors
    /// 503.
    pub(super) async fn turn(&self) -> Result<OwnedMutexGuard<()>, Problem> {
        self.api.publisher()?;
        self.api.turns().of(&self.scope).await
    }

    /// The head, if the condition holds.
    ///
    /// # Errors
    /// 412; the store.
    pub(super) async fn begin(&self, exists: &impl Fn(&Canonical) -> bool) -> Result<Current, Problem> {
        let named = self.precondition.revision()?;
        let current = current(self.api, &self.scope).await?;
        let tag = current.tag();
        let there = named.is_some() || exists(&current.document);
        self.precondition.check(there.then_some(tag.as_str()))?;
        Ok(current)
    }

    /// Whether somebody else was faster, and the caller does not care who that was.
    pub(super) fn may_try_again(&self, error: &PublishError) -> bool {
        matches!(error, PublishError::Conflict { .. }) && !matches!(self.precondition, Precondition::Match(_))
    }

    /// Whether a document could be published.
    ///
    /// # Errors
    /// As [`Publisher::publish`](crate::source::Publisher::publish).
    pub(super) async fn try_out(
        &self,
        publisher: &Publisher,
        current: &Current,
        next: &Canonical,
    ) -> Result<(), PublishError> {
        publisher.dry_run(&self.change(current, next)).await.map(drop)
    }

    fn change(&self, current: &Current, next: &Canonical) -> Change {
        Change {
            scope: self.scope.clone(),
            content: next.as_bytes().to_vec(),
            author: self.actor.id.to_string(),
            reason: self.reason.clone().unwrap_or_default(),
            if_revision: Some(i64::try_from(current.revision).unwrap_or(i64::MAX)),
        }
    }

    /// Publishes, or tries to, and has the record of the request say so.
    ///
    /// # Errors
    /// As [`Publisher::publish`](crate::source::Publisher::publish).
    pub(super) async fn publish(&self, current: &Current, next: Canonical) -> Result<Edited, PublishError> {
        let publisher = self.api.publisher().map_err(|_| PublishError::Unchecked)?;
        let scope = self.scope.as_str().to_owned();
        let change = self.change(current, &next);
        let unchanged = next == current.document && current.revision > 0;
        let edited = if self.dry_run || unchanged {
            let tried = publisher.dry_run(&change).await?;
            Edited {
                scope,
                revision: current.revision,
                changes: tried.changes,
                warnings: tried.warnings,
                dry_run: self.dry_run,
            }
        } else {
            let published = publisher.publish(change).await?;
            Edited {
                scope,
                revision: u64::try_from(published.revision).unwrap_or(0),
                changes: published.changes,
                warnings: published.warnings,
                dry_run: false,
            }
        };
        edited.noted(current.revision);
        Ok(edited)
    }
}

/// What is wrong with a document, as errors of fields. What only looks wrong is not why it was refused.
pub(super) fn findings(diagnostics: &Diagnostics) -> Vec<FieldError> {
    let place = |n: u32| (n > 0).then_some(n);
    diagnostics
        .iter()
        .filter(|found| found.severity == Severity::Error)
        .map(|found| FieldError {
            pointer: pointer(&found.path),
            line: place(found.line),
            column: place(found.column),
            detail: found.message.clone(),
            expected: found.expected.clone(),
            hint: found.hint.clone(),
        })
        .collect()
}

/// `servers[1].http.targets[0]` as a JSON pointer.
pub(super) fn pointer(path: &str) -> String {
    let mut pointer = String::with_capacity(path.len() + 1);
    for part in path.split('.').filter(|part| !part.is_empty()) {
        for piece in part.split('[') {
            let piece = piece.strip_suffix(']').unwrap_or(piece);
            if !piece.is_empty() {
                pointer.push('/');
                pointer.push_str(&super::extract::escape(piece));
            }
        }
    }
    pointer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tries_end_and_pauses_differ() {
        let began = Instant::now();
        let (mut tries, mut pauses) = (Tries::begin(), Vec::new());
        let refused = loop {
            let before = Instant::now();
            match tries.again().await {
                Ok(()) => pauses.push(before.elapsed()),
                Err(refused) => break refused,
            }
        };
        assert!(began.elapsed() <= PATIENCE + LONGEST_PAUSE && pauses.len() > 20, "{pauses:?}");
        assert!(pauses.iter().all(|pause| *pause <= LONGEST_PAUSE + Duration::from_millis(1)), "{pauses:?}");
        pauses.dedup();
        assert!(pauses.len() > 20, "{pauses:?}");
        assert_eq!((refused.status().as_u16(), refused.code()), (503, "contended"));
    }

    #[tokio::test(start_paused = true)]
    async fn turns_are_waited_for_but_not_for_ever() {
        let turns = Turns::default();
        let scope = Scope::parse("acme");
        let mine = turns.of(&scope).await.expect("free");
        assert_eq!(turns.of(&scope).await.expect_err("taken").code(), "contended");
        drop(mine);
        assert!(turns.of(&scope).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_the_turn_of_another_document_and_turns_do_not_pile_up() {
        let (turns, began) = (Turns::default(), Instant::now());
        let mut held = Vec::new();
        for n in 0..300 {
            held.push(turns.of(&Scope::parse(&format!("t{n}"))).await.expect("free"));
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        drop(held);
        assert!(turns.of(&Scope::Platform).await.is_ok());
        assert_eq!(turns.0.lock().len(), 1);
    }

    #[test]
    fn paths_become_pointers() {
        for (path, expected) in [
            ("", ""),
            ("servers", "/servers"),
            ("servers[1].http.targets[0]", "/servers/1/http/targets/0"),
            ("identity.issuers[0].roles.map.a/b", "/identity/issuers/0/roles/map/a~1b"),
        ] {
            assert_eq!(pointer(path), expected);
        }
    }
}
