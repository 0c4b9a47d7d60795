//! What a publisher reads: revisions, what differs between them, and how far replicas are.

use std::time::Duration;

use tokio::time::Instant;

use crate::base::Scope;
use crate::config::Canonical;
use crate::source::change::{Change, PublishError};
use crate::source::publish::Publisher;
use crate::source::replica::{Convergence, LIVE, convergence, convergences};
use crate::source::secrets;
use crate::store::{Page, Revision, RevisionSummary, StoreError, Tx};

/// How often the store is asked how far replicas are.
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl Publisher {
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

    /// How far live replicas are with the heads that moved after `generation`, at most `limit` of them, those that moved
    /// first before; and the generation of each.
    ///
    /// # Errors
    /// The store.
    pub async fn positions(
        &self,
        generation: i64,
        limit: usize,
    ) -> Result<Vec<(i64, Convergence)>, PublishError> {
        let mut heads = self.store.platform().heads_that_count(generation).await?;
        heads.truncate(limit);
        let scopes: Vec<_> = heads.iter().map(|head| (Scope::parse(&head.scope), head.revision)).collect();
        let found = convergences(&self.store, &scopes, LIVE).await?;
        Ok(heads.into_iter().map(|head| head.generation).zip(found).collect())
    }

    /// What differs between two revisions of a scope; revision 0 is the document that says nothing.
    ///
    /// # Errors
    /// [`PublishError::Missing`]; the store.
    pub async fn diff(&self, scope: &Scope, from: i64, to: i64) -> Result<Vec<String>, PublishError> {
        let new = self.content(scope, to).await?;
        self.differences(scope, from, new).await
    }

    /// What differs between a revision of a scope and a document that is not in the store. It has to compile.
    ///
    /// # Errors
    /// [`PublishError::Missing`]; what is wrong with the document; the store.
    pub async fn diff_with(
        &self,
        scope: &Scope,
        from: i64,
        document: &[u8],
    ) -> Result<Vec<String>, PublishError> {
        let change = Change {
            scope: scope.clone(),
            content: document.to_vec(),
            author: String::new(),
            reason: String::new(),
            if_revision: None,
        };
        let checked = self.check_all(std::slice::from_ref(&change)).await.map_err(|failed| failed.error)?;
        let new = checked.into_iter().next().map(|c| c.canonical.as_bytes().to_vec()).unwrap_or_default();
        self.differences(scope, from, new).await
    }

    async fn content(&self, scope: &Scope, revision: i64) -> Result<Vec<u8>, PublishError> {
        match revision {
            0 => Ok(Canonical::empty().as_bytes().to_vec()),
            _ => self.show(scope, revision).await.map(|r| r.content),
        }
    }

    async fn differences(&self, scope: &Scope, from: i64, new: Vec<u8>) -> Result<Vec<String>, PublishError> {
        let old = self.content(scope, from).await?;
        let platform = self.head(&Scope::Platform).await?.map(|head| head.content);
        let secrets = self.secrets(scope).await?;
        let (serve, scope) = (self.serve.clone(), scope.clone());
        let work = move || {
            let mut changes = match &platform {
                Some(platform) => serve.diff_under(platform, &scope, &old, &new, &secrets),
                None => serve.diff(&scope, &old, &new, &secrets),
            };
            secrets::hide(&mut changes, &secrets);
            changes
        };
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
}

async fn whole_head(tx: &mut Tx, scope: &Scope) -> Result<Option<Revision>, StoreError> {
    let Some(head) = tx.head(scope).await? else { return Ok(None) };
    tx.revision(scope, head.revision).await
}
