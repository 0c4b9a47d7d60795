//! Editing documents: read the head, change it, publish the result, and say what that did.
//!
//! Every edit is a compare-and-swap on the head that it was made from. A caller who named a revision learns of a lost
//! race (412); for one who did not (`If-Match: *`, `If-None-Match: *`) the edit is made again on the new head.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use super::actor::Actor;
use super::api::Api;
use super::etag::{self, Precondition};
use super::problem::{FieldError, Problem};
use super::trail::note;
use crate::base::Scope;
use crate::config::{Canonical, Diagnostics};
use crate::source::{Change, PublishError, Publisher};

/// How often an edit is made again because somebody else was faster.
const ATTEMPTS: usize = 5;

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
    /// What `change` says; 412 if the condition does not hold; 422 with every finding if the document is not good.
    pub(super) async fn run(
        self,
        exists: impl Fn(&Canonical) -> bool,
        change: impl Fn(&Canonical) -> Result<Canonical, Problem>,
    ) -> Result<Edited, Problem> {
        let named = self.precondition.revision()?;
        let publisher = self.api.publisher()?;
        let mut attempt = 0;
        loop {
            let current = current(self.api, &self.scope).await?;
            let tag = current.tag();
            match (named, &self.precondition) {
                (Some(_), _) => self.precondition.check(Some(&tag))?,
                (None, condition) => condition.check(exists(&current.document).then_some(tag.as_str()))?,
            }
            let next = change(&current.document)?;
            match self.publish(publisher, &current, next).await {
                Err(PublishError::Conflict { .. }) if named.is_none() && attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error.into()),
                Ok(edited) => {
                    edited.noted(current.revision);
                    return Ok(edited);
                }
            }
        }
    }

    async fn publish(
        &self,
        publisher: &Publisher,
        current: &Current,
        next: Canonical,
    ) -> Result<Edited, PublishError> {
        let scope = self.scope.as_str().to_owned();
        let change = Change {
            scope: self.scope.clone(),
            content: next.as_bytes().to_vec(),
            author: self.actor.id.to_string(),
            reason: self.reason.clone().unwrap_or_default(),
            if_revision: Some(i64::try_from(current.revision).unwrap_or(i64::MAX)),
        };
        let unchanged = next == current.document && current.revision > 0;
        if self.dry_run || unchanged {
            let tried = publisher.dry_run(&change).await?;
            return Ok(Edited {
                scope,
                revision: current.revision,
                changes: tried.changes,
                warnings: tried.warnings,
                dry_run: self.dry_run,
            });
        }
        let published = publisher.publish(change).await?;
        Ok(Edited {
            scope,
            revision: u64::try_from(published.revision).unwrap_or(0),
            changes: published.changes,
            warnings: published.warnings,
            dry_run: false,
        })
    }
}

/// Findings as errors of fields.
pub(super) fn findings(diagnostics: &Diagnostics) -> Vec<FieldError> {
    let place = |n: u32| (n > 0).then_some(n);
    diagnostics
        .iter()
        .map(|found| FieldError {
            pointer: pointer(&found.path),
            line: place(found.line),
            column: place(found.column),
            detail: found.message.clone(),
            expected: found.expected.clone().or_else(|| found.hint.clone()),
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
