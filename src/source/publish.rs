//! Publishes documents: nothing gets into the store that does not compile here, and nobody overwrites what they have not
//! seen.
//!
//! A publication brings the document into canonical form, compiles it (without putting it in force), and appends a
//! revision with a compare-and-swap on the head of its scope, all before anything is visible; the commit notifies the
//! replicas. A document with the bytes of the head is no new revision. A rollback is a publication of an old revision's
//! bytes: history only grows.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::base::{Scope, TenantId};
use crate::config::{Canonical, Diagnostics, canonical};
use crate::snapshot::Snapshot;
use crate::source::database::secret_values;
use crate::source::replica::{Convergence, LIVE, convergence};
use crate::source::stored::{Refusal, SecretValues, Serve};
use crate::store::{Head, NewRevision, Page, Revision, RevisionSummary, Store, StoreError, Tx};

/// Version of the document format.
pub(super) const SCHEMA_VERSION: i32 = 1;
/// How often the store is asked how far replicas are.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often somebody who does not care what they replace may be overtaken.
const ATTEMPTS: u32 = 8;
/// The longest reason, in characters.
pub const MAX_REASON: usize = 1_000;

/// What is to be published.
#[derive(Clone, Debug)]
pub struct Change {
    /// Whose document.
    pub scope: Scope,
    /// The document, in any form that reads as one.
    pub content: Vec<u8>,
    /// Who publishes.
    pub author: String,
    /// Why, in their words.
    pub reason: String,
    /// The revision they have seen (0: none); `None`: whatever there is.
    pub if_revision: Option<i64>,
}

/// What was published, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Whose document.
    pub scope: Scope,
    /// The head now. Of a dry run: the head as it is.
    pub revision: i64,
    /// The head before.
    pub parent: i64,
    /// Whether there is a new revision, or would be.
    pub changed: bool,
    /// What differs, one line per change.
    pub changes: Vec<String>,
    /// What is right but looks wrong.
    pub warnings: Vec<String>,
    /// SHA-256 of the canonical bytes, in hexadecimal.
    pub hash: String,
}

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Somebody else was faster.
    #[error("revision {expected} was expected, but the head is {found}")]
    Conflict {
        /// What was expected.
        expected: i64,
        /// What there is.
        found: i64,
    },
    /// It cannot even be read as a document.
    #[error("{0}")]
    Malformed(Box<Diagnostics>),
    /// There is no such revision.
    #[error("{scope} has no revision {revision}")]
    Missing {
        /// Whose.
        scope: Scope,
        /// Which.
        revision: i64,
    },
    /// The reason is too long.
    #[error("a reason has at most {MAX_REASON} characters")]
    Reason,
    /// It does not compile.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store.
    #[error(transparent)]
    Store(StoreError),
    /// The thread that compiled it ended early.
    #[error("the document could not be checked")]
    Unchecked,
}

impl From<StoreError> for PublishError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict { expected, found } => Self::Conflict { expected, found },
            other => Self::Store(other),
        }
    }
}

/// Publishes. Cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    store: Store,
    serve: Arc<dyn Serve>,
}

/// A document that may be published.
struct Checked {
    canonical: Canonical,
    head: Option<Revision>,
    changes: Vec<String>,
    warnings: Vec<String>,
}

impl Checked {
    fn parent(&self) -> i64 {
        self.head.as_ref().map_or(0, |head| head.summary.revision)
    }

    fn changed(&self) -> bool {
        self.head.as_ref().is_none_or(|head| head.content != self.canonical.as_bytes())
    }

    fn published(self, scope: Scope, revision: i64) -> Published {
        Published {
            scope,
            revision,
            parent: self.parent(),
            changed: self.changed(),
            hash: self.canonical.hash_hex(),
            changes: self.changes,
            warnings: self.warnings,
        }
    }
}

impl Publisher {
    /// A publisher whose documents are compiled by `serve`.
    pub fn new(store: Store, serve: Arc<dyn Serve>) -> Self {
        Self { store, serve }
    }

    /// Publishes.
    ///
    /// # Errors
    /// [`PublishError`]; nothing was published, except if a commit's outcome is unknown, which the error says.
    pub async fn publish(&self, change: Change) -> Result<Published, PublishError> {
        if change.reason.chars().count() > MAX_REASON {
            return Err(PublishError::Reason);
        }
        let mut attempts = 1;
        loop {
            match self.attempt(&change).await {
                // Whoever does not care what they replace is compared with what came between, and tries again.
                Err(PublishError::Conflict { .. }) if change.if_revision.is_none() && attempts < ATTEMPTS => {
                    attempts += 1;
                }
                outcome => return outcome,
            }
        }
    }

    async fn attempt(&self, change: &Change) -> Result<Published, PublishError> {
        let checked = self.check(&change.scope, &change.content).await?;
        let parent = checked.parent();
        if let Some(expected) = change.if_revision
            && expected != parent
        {
            return Err(PublishError::Conflict { expected, found: parent });
        }
        if !checked.changed() {
            return Ok(checked.published(change.scope.clone(), parent));
        }
        let new = NewRevision {
            content: checked.canonical.as_bytes(),
            schema_version: SCHEMA_VERSION,
            author: &change.author,
            reason: &change.reason,
            // What was compared is what is replaced.
            if_revision: Some(parent),
        };
        // With no more rights than the scope needs, here and below.
        let head = match &change.scope {
            Scope::Platform => self.store.platform().publish(&change.scope, new).await?,
            Scope::Tenant(tenant) => self.store.tenant(tenant).publish(new).await?,
        };
        tracing::info!(
            event = "revision_published",
            scope = %change.scope,
            revision = head.revision,
            author = change.author,
            reason = change.reason,
        );
        Ok(checked.published(change.scope.clone(), head.revision))
    }

    /// What [`Publisher::publish`] would do.
    ///
    /// # Errors
    /// As it.
    pub async fn dry_run(&self, change: &Change) -> Result<Published, PublishError> {
        let checked = self.check(&change.scope, &change.content).await?;
        let parent = checked.parent();
        match change.if_revision {
            Some(expected) if expected != parent => Err(PublishError::Conflict { expected, found: parent }),
            _ => Ok(checked.published(change.scope.clone(), parent)),
        }
    }

    /// As [`Publisher::dry_run`], with the canonical document.
    pub(super) async fn compare(&self, change: &Change) -> Result<(Canonical, Published), PublishError> {
        let checked = self.check(&change.scope, &change.content).await?;
        let parent = checked.parent();
        match change.if_revision {
            Some(expected) if expected != parent => Err(PublishError::Conflict { expected, found: parent }),
            _ => Ok((checked.canonical.clone(), checked.published(change.scope.clone(), parent))),
        }
    }

    /// Compiles a document of a tenant apart from everything that is served, for questions about it.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    pub async fn trial(&self, tenant: &TenantId, content: &[u8]) -> Result<Snapshot, PublishError> {
        let canonical = canonical(content).map_err(|d| PublishError::Malformed(Box::new(d)))?;
        let secrets = self.secrets(&Scope::Tenant(tenant.clone())).await?;
        let (serve, tenant) = (self.serve.clone(), tenant.clone());
        let work = move || serve.trial(&tenant, canonical.as_bytes(), &secrets);
        Ok(tokio::task::spawn_blocking(work).await.map_err(|_| PublishError::Unchecked)??)
    }

    /// Publishes the bytes of an earlier revision again.
    ///
    /// # Errors
    /// As [`Publisher::publish`]: a revision that was right once may not be any more.
    pub async fn rollback(
        &self,
        scope: &Scope,
        to: i64,
        author: &str,
        reason: Option<String>,
        if_revision: Option<i64>,
    ) -> Result<Published, PublishError> {
        let old = self.show(scope, to).await?;
        let change = Change {
            scope: scope.clone(),
            content: old.content,
            author: author.to_owned(),
            reason: reason.unwrap_or_else(|| format!("rollback to revision {to}")),
            if_revision,
        };
        self.publish(change).await
    }

    /// Revisions of a scope, the newest first, those before `before`.
    ///
    /// # Errors
    /// The store.
    pub async fn history(
        &self,
        scope: &Scope,
        before: Option<i64>,
        page: Page,
    ) -> Result<Vec<RevisionSummary>, PublishError> {
        Ok(match scope {
            Scope::Platform => self.store.platform().history(scope, before, page).await?,
            Scope::Tenant(tenant) => self.store.tenant(tenant).history(before, page).await?,
        })
    }

    /// One revision with its bytes.
    ///
    /// # Errors
    /// [`PublishError::Missing`]; the store.
    pub async fn show(&self, scope: &Scope, revision: i64) -> Result<Revision, PublishError> {
        let found = match scope {
            Scope::Platform => self.store.platform().revision(scope, revision).await?,
            Scope::Tenant(tenant) => self.store.tenant(tenant).revision(revision).await?,
        };
        found.ok_or_else(|| PublishError::Missing { scope: scope.clone(), revision })
    }

    /// The head of a scope with its bytes; `None` if nothing was published.
    ///
    /// # Errors
    /// The store.
    pub async fn head(&self, scope: &Scope) -> Result<Option<Revision>, PublishError> {
        Ok(match scope {
            Scope::Platform => whole_head(&mut *self.store.platform().read().await?, scope).await?,
            Scope::Tenant(tenant) => whole_head(&mut *self.store.tenant(tenant).read().await?, scope).await?,
        })
    }

    /// The heads of all scopes, at most `limit`, those that moved first before.
    ///
    /// # Errors
    /// The store.
    pub async fn heads(&self, limit: u32) -> Result<Vec<Head>, PublishError> {
        let mut heads = self.store.platform().heads(0).await?;
        heads.truncate(limit as usize);
        Ok(heads)
    }

    /// What differs between two revisions of a scope; revision 0 is the document that says nothing.
    ///
    /// # Errors
    /// [`PublishError::Missing`]; the store.
    pub async fn diff(&self, scope: &Scope, from: i64, to: i64) -> Result<Vec<String>, PublishError> {
        let content = async |revision| match revision {
            0 => Ok(Canonical::empty().as_bytes().to_vec()),
            _ => self.show(scope, revision).await.map(|r| r.content),
        };
        let (old, new) = (content(from).await?, content(to).await?);
        let secrets = self.secrets(scope).await?;
        let (serve, scope) = (self.serve.clone(), scope.clone());
        let work = move || serve.diff(&scope, &old, &new, &secrets);
        tokio::task::spawn_blocking(work).await.map_err(|_| PublishError::Unchecked)
    }

    /// Waits until every live replica has taken up a revision (or a later one) or refused it, at most `timeout`.
    ///
    /// # Errors
    /// The store.
    pub async fn wait(
        &self,
        scope: &Scope,
        revision: i64,
        timeout: Duration,
    ) -> Result<Convergence, PublishError> {
        let end = Instant::now() + timeout;
        loop {
            let state = convergence(&self.store, scope, revision, LIVE).await?;
            if state.is_settled() || Instant::now() + LOOK_EVERY > end {
                return Ok(state);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn secrets(&self, scope: &Scope) -> Result<SecretValues, PublishError> {
        match scope {
            Scope::Platform => Ok(SecretValues::new()),
            Scope::Tenant(tenant) => Ok(secret_values(&self.store, tenant).await?),
        }
    }

    async fn check(&self, scope: &Scope, content: &[u8]) -> Result<Checked, PublishError> {
        let canonical = canonical(content).map_err(|d| PublishError::Malformed(Box::new(d)))?;
        let head = self.head(scope).await?;
        let secrets = self.secrets(scope).await?;
        let old = head.as_ref().map_or_else(|| Canonical::empty().as_bytes().to_vec(), |h| h.content.clone());
        let (serve, scope, new) = (self.serve.clone(), scope.clone(), canonical.clone());
        let work = move || {
            let warnings = serve.check(&scope, new.as_bytes(), &secrets)?;
            let changes = serve.diff(&scope, &old, new.as_bytes(), &secrets);
            Ok::<_, Refusal>((warnings, changes))
        };
        let (warnings, changes) =
            tokio::task::spawn_blocking(work).await.map_err(|_| PublishError::Unchecked)??;
        Ok(Checked { canonical, head, changes, warnings })
    }
}

async fn whole_head(tx: &mut Tx, scope: &Scope) -> Result<Option<Revision>, StoreError> {
    let Some(head) = tx.head(scope).await? else { return Ok(None) };
    tx.revision(scope, head.revision).await
}
