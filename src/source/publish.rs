//! Publishes documents: nothing gets into the store that does not compile here, and nobody overwrites what they have not
//! seen.
//!
//! A publication brings the document into canonical form, compiles it (without putting it in force), and appends a
//! revision with a compare-and-swap on the head of its scope, all before anything is visible; the commit notifies the
//! replicas. A document with the bytes of the head is no new revision. A rollback is a publication of an old revision's
//! bytes: history only grows. Several documents can be published together, all or none; a tenant's is then compiled on the
//! terms of the platform's document beside it.

use std::sync::Arc;

use crate::base::{Scope, TenantId};
use crate::config::{Canonical, canonical, edit};
use crate::snapshot::Snapshot;
use crate::source::secrets;
use crate::source::stored::{Refusal, SecretValues, Serve};
use crate::store::{NewRevision, Revision, Store, StoreError};

pub use crate::source::change::{Change, Failed, MAX_REASON, PublishError, Published};

/// Version of the document format.
pub(super) const SCHEMA_VERSION: i32 = 1;
/// How often somebody who does not care what they replace may be overtaken, or a secret go while its document is compiled.
const ATTEMPTS: u32 = 8;

/// Publishes, and reads what was. Cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    pub(super) store: Store,
    pub(super) serve: Arc<dyn Serve>,
}

/// A document that may be published.
pub(super) struct Checked {
    pub(super) canonical: Canonical,
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

    /// Of a platform's document: the tenants that it has, and those that it has no more.
    fn tenants(&self) -> (Vec<String>, Vec<String>) {
        let names = |document: &Canonical| -> Vec<String> {
            edit::list(document, edit::Kind::Tenant).into_iter().map(|(name, _)| name).collect()
        };
        let there = names(&self.canonical);
        let before = self.head.as_ref().and_then(|head| canonical(&head.content).ok());
        let mut gone = before.as_ref().map(names).unwrap_or_default();
        gone.retain(|name| !there.contains(name));
        (there, gone)
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
        let done = self.publish_all(std::slice::from_ref(&change)).await;
        done.map_err(|failed| failed.error).and_then(only)
    }

    /// Publishes several documents, of different scopes, all or none. Gives what became of each, in the order of `changes`.
    ///
    /// # Errors
    /// [`Failed`]; as [`Publisher::publish`].
    pub async fn publish_all(&self, changes: &[Change]) -> Result<Vec<Published>, Failed> {
        let mut attempts = 1;
        loop {
            match self.attempt(changes).await {
                // Whoever does not care what they replace is compared with what came between, and tries again.
                Err(Failed { scope, error: PublishError::Conflict { .. } })
                    if attempts < ATTEMPTS && takes_anything(changes, &scope) =>
                {
                    attempts += 1;
                }
                // A secret went while this was compiled. Compiled again it is told where that is named.
                Err(Failed { error: PublishError::Store(StoreError::Unresolved(_)), .. })
                    if attempts < ATTEMPTS =>
                {
                    attempts += 1;
                }
                outcome => return outcome,
            }
        }
    }

    async fn attempt(&self, changes: &[Change]) -> Result<Vec<Published>, Failed> {
        let checked = self.check_all(changes).await?;
        let mut new = Vec::new();
        let mut tenants = None;
        for (change, checked) in changes.iter().zip(&checked).filter(|(_, checked)| checked.changed()) {
            let revision = NewRevision {
                content: checked.canonical.as_bytes(),
                schema_version: SCHEMA_VERSION,
                author: &change.author,
                reason: &change.reason,
                // What was compared is what is replaced.
                if_revision: Some(checked.parent()),
            };
            if change.scope == Scope::Platform {
                tenants = Some(checked.tenants());
            }
            new.push((change.scope.clone(), revision));
        }
        // The platform's first, as it is taken: the order of generations.
        new.sort_by(|a, b| a.0.cmp(&b.0));
        let heads = if new.is_empty() {
            Vec::new()
        } else {
            let tenants = tenants.as_ref().map(|(there, gone)| (&there[..], &gone[..]));
            let done = match &new[..] {
                // With no more rights than the scope needs.
                [(Scope::Tenant(tenant), revision)] => {
                    let done = self.store.tenant(tenant).publish(*revision).await;
                    done.map(|head| vec![head]).map_err(|error| (Some(new[0].0.clone()), error))
                }
                _ => self.store.platform().publish_all(&new, tenants).await,
            };
            done.map_err(|(scope, error)| Failed {
                scope: scope.unwrap_or_else(|| changes[0].scope.clone()),
                error: error.into(),
            })?
        };
        let published = changes.iter().zip(checked).map(|(change, checked)| {
            let head = heads.iter().find(|head| head.scope == change.scope.as_str());
            if let Some(head) = head {
                tracing::info!(
                    event = "revision_published",
                    scope = %change.scope,
                    revision = head.revision,
                    author = change.author,
                    reason = change.reason,
                );
            }
            let revision = head.map_or(checked.parent(), |head| head.revision);
            checked.published(change.scope.clone(), revision)
        });
        Ok(published.collect())
    }

    /// What [`Publisher::publish`] would do.
    ///
    /// # Errors
    /// As it.
    pub async fn dry_run(&self, change: &Change) -> Result<Published, PublishError> {
        let done = self.dry_run_all(std::slice::from_ref(change)).await;
        done.map_err(|failed| failed.error).and_then(only)
    }

    /// What [`Publisher::publish_all`] would do.
    ///
    /// # Errors
    /// As it.
    pub async fn dry_run_all(&self, changes: &[Change]) -> Result<Vec<Published>, Failed> {
        let checked = self.check_all(changes).await?;
        let tried = changes.iter().zip(checked).map(|(change, checked)| {
            let parent = checked.parent();
            checked.published(change.scope.clone(), parent)
        });
        Ok(tried.collect())
    }

    /// As [`Publisher::dry_run`], with the canonical document.
    pub(super) async fn compare(&self, change: &Change) -> Result<(Canonical, Published), PublishError> {
        let checked = self.check_all(std::slice::from_ref(change)).await.map_err(|failed| failed.error)?;
        let checked = checked.into_iter().next().ok_or(PublishError::Unchecked)?;
        let parent = checked.parent();
        Ok((checked.canonical.clone(), checked.published(change.scope.clone(), parent)))
    }

    /// Compiles a document of a tenant apart from everything that is served, for questions about it.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    pub async fn trial(&self, tenant: &TenantId, content: &[u8]) -> Result<Snapshot, PublishError> {
        let canonical = canonical(content).map_err(|d| PublishError::Malformed(Box::new(d)))?;
        let secrets = self.secrets(&Scope::Tenant(tenant.clone())).await?;
        let (serve, tenant, sent) = (self.serve.clone(), tenant.clone(), content.to_vec());
        let work = move || {
            let new = canonical.as_bytes();
            let trial = |text: &[u8]| serve.trial(&tenant, text, &secrets);
            trial(new).map_err(|refusal| refusal.in_terms_of(&sent, new, trial).hiding(&secrets))
        };
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

    pub(super) async fn secrets(&self, scope: &Scope) -> Result<SecretValues, PublishError> {
        match scope {
            Scope::Platform => Ok(SecretValues::new()),
            Scope::Tenant(tenant) => Ok(secrets::of_tenant(&self.store, tenant).await?),
        }
    }

    /// Compiles each, the tenants' on the terms of the platform's document among them, or else of the one in the store.
    pub(super) async fn check_all(&self, changes: &[Change]) -> Result<Vec<Checked>, Failed> {
        let beside = changes.iter().find(|change| change.scope == Scope::Platform);
        let platform = match beside {
            Some(change) => Some(change.content.clone()),
            None => {
                let head = self.head(&Scope::Platform).await;
                let first = changes.first().map_or(Scope::Platform, |change| change.scope.clone());
                head.map_err(|error| Failed { scope: first, error })?.map(|head| head.content)
            }
        };
        let mut order: Vec<usize> = (0..changes.len()).collect();
        // The platform's first: its mistakes are its own.
        order.sort_by(|a, b| changes[*a].scope.cmp(&changes[*b].scope));
        let mut all = Vec::with_capacity(changes.len());
        for at in order {
            let change = &changes[at];
            let checked = self.check(change, platform.as_deref()).await;
            all.push((at, checked.map_err(|error| Failed { scope: change.scope.clone(), error })?));
        }
        all.sort_by_key(|(at, _)| *at);
        Ok(all.into_iter().map(|(_, checked)| checked).collect())
    }

    async fn check(&self, change: &Change, platform: Option<&[u8]>) -> Result<Checked, PublishError> {
        if change.reason.chars().count() > MAX_REASON {
            return Err(PublishError::Reason);
        }
        let canonical = canonical(&change.content).map_err(|d| PublishError::Malformed(Box::new(d)))?;
        let sent = change.content.clone();
        let head = self.head(&change.scope).await?;
        let secrets = self.secrets(&change.scope).await?;
        let old = head.as_ref().map_or_else(|| Canonical::empty().as_bytes().to_vec(), |h| h.content.clone());
        let (serve, scope, new) = (self.serve.clone(), change.scope.clone(), canonical.clone());
        let platform = platform.filter(|_| scope != Scope::Platform).map(<[u8]>::to_vec);
        let work = move || {
            let new = new.as_bytes();
            let check = |text: &[u8]| match &platform {
                Some(platform) => serve.check_under(platform, &scope, text, &secrets),
                None => serve.check(&scope, text, &secrets),
            };
            let warnings = check(new).map_err(|refusal| refusal.in_terms_of(&sent, new, check));
            let mut warnings = warnings.map_err(|refusal| refusal.hiding(&secrets))?;
            let mut changes = match &platform {
                Some(platform) => serve.diff_under(platform, &scope, &old, new, &secrets),
                None => serve.diff(&scope, &old, new, &secrets),
            };
            secrets::hide(&mut warnings, &secrets);
            secrets::hide(&mut changes, &secrets);
            Ok::<_, Refusal>((warnings, changes))
        };
        let (warnings, changes) =
            tokio::task::spawn_blocking(work).await.map_err(|_| PublishError::Unchecked)??;
        let checked = Checked { canonical, head, changes, warnings };
        match change.if_revision {
            Some(expected) if expected != checked.parent() => {
                Err(PublishError::Conflict { expected, found: checked.parent() })
            }
            _ => Ok(checked),
        }
    }
}

/// What became of the only change.
fn only(mut published: Vec<Published>) -> Result<Published, PublishError> {
    published.pop().ok_or(PublishError::Unchecked)
}

fn takes_anything(changes: &[Change], scope: &Scope) -> bool {
    changes.iter().any(|change| change.scope == *scope && change.if_revision.is_none())
}
