//! Documents and their history: append-only revisions, and one head per scope that moves by compare-and-swap.
//!
//! A publication inserts a revision and moves the head in one transaction, and notifies when it commits. Each move takes
//! the next number of one generation counter, in the order of commits, so that "what changed since" is one index scan
//! however many tenants there are.

use sqlx::FromRow;

use super::tenants::counts;
use super::tx::q;
use super::{Channel, Platform, StoreError, TenantScope, Time, Tx};
use crate::base::Scope;

/// How many rows at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page(i64);

impl Page {
    /// The largest page.
    pub const MAX: u32 = 1_000;

    /// At most `limit` rows, at least one and no more than [`Page::MAX`].
    pub fn of(limit: u32) -> Self {
        Self(i64::from(limit.clamp(1, Self::MAX)))
    }

    pub(super) fn limit(self) -> i64 {
        self.0
    }
}

/// The revision that a scope is at.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Head {
    /// The scope, as [`Scope::as_str`] spells it.
    #[sqlx(rename = "tenant")]
    pub scope: String,
    /// Its revision.
    pub revision: i64,
    /// SHA-256 of the revision's bytes.
    pub hash: Vec<u8>,
    /// Grows with every publication of any scope.
    pub generation: i64,
    /// When it moved here.
    pub updated_at: Time,
}

/// A revision without its bytes.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct RevisionSummary {
    /// The scope, as [`Scope::as_str`] spells it.
    #[sqlx(rename = "tenant")]
    pub scope: String,
    /// Counted from one in each scope.
    pub revision: i64,
    /// The revision it replaced; 0 for the first.
    pub parent: i64,
    /// Version of the document format.
    pub schema_version: i32,
    /// SHA-256 of the bytes.
    pub hash: Vec<u8>,
    /// Length of the bytes.
    pub size: i64,
    /// Who published it.
    pub author: String,
    /// Why, in their words.
    pub reason: String,
    /// When.
    pub created_at: Time,
}

/// A revision.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Revision {
    /// Everything but the bytes.
    #[sqlx(flatten)]
    pub summary: RevisionSummary,
    /// The canonical document.
    pub content: Vec<u8>,
}

/// What is to be published.
#[derive(Clone, Copy, Debug)]
pub struct NewRevision<'a> {
    /// The canonical document.
    pub content: &'a [u8],
    /// Version of the document format.
    pub schema_version: i32,
    /// Who publishes it.
    pub author: &'a str,
    /// Why.
    pub reason: &'a str,
    /// The revision that the head must be at (0: none yet); `None`: whatever it is at.
    pub if_revision: Option<i64>,
}

const SUMMARY: &str = "
    SELECT tenant, revision, parent, schema_version, hash, size, author, reason, created_at
      FROM config_revisions WHERE tenant = $1 AND revision < $2 ORDER BY revision DESC LIMIT $3";

const FETCH: &str = "
    SELECT tenant, revision, parent, schema_version, hash, size, author, reason, created_at, content
      FROM config_revisions WHERE tenant = $1 AND revision = $2";

const HEAD: &str =
    "SELECT tenant, revision, hash, generation, updated_at FROM config_heads WHERE tenant = $1";

impl Tx {
    /// Appends a revision and moves the head of its scope; [`Channel::Config`] hears of it when this commits.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the head is not at `if_revision`; [`StoreError::Unresolved`] if it is a tenant's and refers
    /// to a secret that is not there; the database.
    pub async fn publish(&mut self, scope: &Scope, new: NewRevision<'_>) -> Result<Head, StoreError> {
        let now = self.now();
        let name = scope.as_str();
        let found = self.lock_head(scope).await?;
        if let Some(expected) = new.if_revision
            && expected != found
        {
            return Err(StoreError::Conflict { expected, found });
        }
        self.hold_secrets(scope, new.content).await?;
        let (revision, hash) = self.append_revision(scope, found, new).await?;
        // On PostgreSQL a trigger does it, because a tenant's role has no right to the counter.
        q!(
            self, execute,
            pg "SELECT 1",
            lite "UPDATE config_generation SET generation = generation + 1"
        )?;
        let head = q!(
            self, one as Head,
            pg "UPDATE config_heads SET revision = $2, hash = $3, updated_at = $4 WHERE tenant = $1
                RETURNING tenant, revision, hash, generation, updated_at",
            lite "UPDATE config_heads SET revision = $2, hash = $3, updated_at = $4,
                         generation = (SELECT generation FROM config_generation)
                   WHERE tenant = $1 RETURNING tenant, revision, hash, generation, updated_at",
            name,
            revision,
            &hash,
            now
        )?;
        self.notify(Channel::Config, name).await?;
        Ok(head)
    }

    /// Locks the head of a scope until the transaction ends; gives the revision it is at, 0 for none.
    async fn lock_head(&mut self, scope: &Scope) -> Result<i64, StoreError> {
        let now = self.now();
        // There must be a row to lock, or two first publications would race.
        q!(
            self,
            execute,
            "INSERT INTO config_heads (tenant, revision, hash, generation, updated_at) VALUES ($1, 0, $2, 0, $3)
             ON CONFLICT (tenant) DO NOTHING",
            scope.as_str(),
            &[][..] as &[u8],
            now
        )?;
        q!(
            self, scalar as i64,
            pg "SELECT revision FROM config_heads WHERE tenant = $1 FOR UPDATE",
            lite "SELECT revision FROM config_heads WHERE tenant = $1",
            scope.as_str()
        )
    }

    /// Appends a revision without moving the head, whose row the caller has locked. Numbers are those after the newest
    /// revision: one that was tried as a canary is in the history without having been the head.
    pub(super) async fn append_revision(
        &mut self,
        scope: &Scope,
        parent: i64,
        new: NewRevision<'_>,
    ) -> Result<(i64, Vec<u8>), StoreError> {
        use sha2::Digest as _;
        let now = self.now();
        let newest = q!(
            self,
            scalar as i64,
            "SELECT coalesce(max(revision), 0) FROM config_revisions WHERE tenant = $1",
            scope.as_str()
        )?;
        let revision = newest + 1;
        let hash = sha2::Sha256::digest(new.content).to_vec();
        let size = i64::try_from(new.content.len()).unwrap_or(i64::MAX);
        q!(
            self,
            execute,
            "INSERT INTO config_revisions
                (tenant, revision, parent, schema_version, hash, size, content, author, reason, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            scope.as_str(),
            revision,
            parent,
            new.schema_version,
            &hash,
            size,
            new.content,
            new.author,
            new.reason,
            now
        )?;
        Ok((revision, hash))
    }

    /// The head of a scope; `None` if nothing was published.
    ///
    /// # Errors
    /// The database.
    pub async fn head(&mut self, scope: &Scope) -> Result<Option<Head>, StoreError> {
        q!(self, optional as Head, HEAD, scope.as_str())
    }

    /// One revision with its bytes.
    ///
    /// # Errors
    /// The database.
    pub async fn revision(&mut self, scope: &Scope, revision: i64) -> Result<Option<Revision>, StoreError> {
        q!(self, optional as Revision, FETCH, scope.as_str(), revision)
    }

    /// Revisions of a scope, the newest first, those before `before`.
    ///
    /// # Errors
    /// The database.
    pub async fn history(
        &mut self,
        scope: &Scope,
        before: Option<i64>,
        page: Page,
    ) -> Result<Vec<RevisionSummary>, StoreError> {
        q!(self, all as RevisionSummary, SUMMARY, scope.as_str(), before.unwrap_or(i64::MAX), page.limit())
    }
}

impl TenantScope<'_> {
    fn scope(&self) -> Scope {
        Scope::Tenant(self.tenant().clone())
    }

    /// Publishes a revision of the tenant's document.
    ///
    /// # Errors
    /// As [`Tx::publish`].
    pub async fn publish(&self, new: NewRevision<'_>) -> Result<Head, StoreError> {
        let mut tx = self.begin().await?;
        let head = tx.publish(&self.scope(), new).await?;
        tx.commit().await?;
        Ok(head)
    }

    /// The tenant's head.
    ///
    /// # Errors
    /// The database.
    pub async fn head(&self) -> Result<Option<Head>, StoreError> {
        self.read().await?.head(&self.scope()).await
    }

    /// One of the tenant's revisions.
    ///
    /// # Errors
    /// The database.
    pub async fn revision(&self, revision: i64) -> Result<Option<Revision>, StoreError> {
        self.read().await?.revision(&self.scope(), revision).await
    }

    /// The tenant's revisions, the newest first, those before `before`.
    ///
    /// # Errors
    /// The database.
    pub async fn history(&self, before: Option<i64>, page: Page) -> Result<Vec<RevisionSummary>, StoreError> {
        self.read().await?.history(&self.scope(), before, page).await
    }
}

impl Platform<'_> {
    /// Publishes a revision of any scope's document.
    ///
    /// # Errors
    /// As [`Tx::publish`].
    pub async fn publish(&self, scope: &Scope, new: NewRevision<'_>) -> Result<Head, StoreError> {
        let mut tx = self.begin().await?;
        let head = tx.publish(scope, new).await?;
        tx.commit().await?;
        Ok(head)
    }

    /// Publishes revisions of several scopes, all or none. With the platform's document go the rows of the tenants that it
    /// has and has no more: `tenants` names those that are to have one, and those that are not.
    ///
    /// # Errors
    /// As [`Tx::publish`]; also which scope it was, if it was one.
    pub async fn publish_all(
        &self,
        new: &[(Scope, NewRevision<'_>)],
        tenants: Option<(&[String], &[String])>,
    ) -> Result<Vec<Head>, (Option<Scope>, StoreError)> {
        let whole = |error| (None::<Scope>, error);
        let mut tx = self.begin().await.map_err(whole)?;
        // Every head before the first one moves, in one order: whoever publishes locks heads and then the counter of
        // generations, and must not wait in a circle for who holds the counter and wants the next head.
        let mut scopes: Vec<&Scope> = new.iter().map(|(scope, _)| scope).collect();
        scopes.sort_unstable();
        for scope in scopes {
            tx.lock_head(scope).await.map_err(whole)?;
        }
        let mut heads = Vec::with_capacity(new.len());
        for (scope, revision) in new {
            let head = tx.publish(scope, *revision).await;
            heads.push(head.map_err(|error| (Some(scope.clone()), error))?);
        }
        if let Some((there, gone)) = tenants {
            tx.keep_tenants(there, gone).await.map_err(whole)?;
        }
        tx.commit().await.map_err(whole)?;
        Ok(heads)
    }

    /// One revision of any scope.
    ///
    /// # Errors
    /// The database.
    pub async fn revision(&self, scope: &Scope, revision: i64) -> Result<Option<Revision>, StoreError> {
        self.read().await?.revision(scope, revision).await
    }

    /// Revisions of any scope, the newest first, those before `before`.
    ///
    /// # Errors
    /// The database.
    pub async fn history(
        &self,
        scope: &Scope,
        before: Option<i64>,
        page: Page,
    ) -> Result<Vec<RevisionSummary>, StoreError> {
        self.read().await?.history(scope, before, page).await
    }

    /// The heads that moved after `generation` (0: all), in the order in which they moved.
    ///
    /// # Errors
    /// The database.
    pub async fn heads(&self, generation: i64) -> Result<Vec<Head>, StoreError> {
        let mut tx = self.read().await?;
        q!(
            tx,
            all as Head,
            "SELECT tenant, revision, hash, generation, updated_at FROM config_heads
              WHERE generation > $1 ORDER BY generation",
            generation
        )
    }

    /// The same without the heads of tenants that are not there (any more): nobody serves those.
    ///
    /// # Errors
    /// The database.
    pub async fn heads_that_count(&self, generation: i64) -> Result<Vec<Head>, StoreError> {
        let mut tx = self.read().await?;
        q!(
            tx,
            all as Head,
            concat!(
                "SELECT h.tenant, h.revision, h.hash, h.generation, h.updated_at FROM config_heads h
                  WHERE h.generation > $1 AND ",
                counts!("h.tenant"),
                " ORDER BY h.generation"
            ),
            generation
        )
    }

    /// The revisions that all heads are at, with their bytes, those of heads that moved after `generation`. For a replica
    /// that starts: one statement instead of one per tenant.
    ///
    /// # Errors
    /// The database.
    pub async fn head_revisions(
        &self,
        generation: i64,
        page: Page,
    ) -> Result<Vec<(Head, Revision)>, StoreError> {
        let mut tx = self.read().await?;
        let heads = q!(
            tx,
            all as Head,
            "SELECT tenant, revision, hash, generation, updated_at FROM config_heads
              WHERE generation > $1 ORDER BY generation LIMIT $2",
            generation,
            page.limit()
        )?;
        let mut revisions = q!(
            tx,
            all as Revision,
            "SELECT r.tenant, r.revision, r.parent, r.schema_version, r.hash, r.size, r.author, r.reason,
                    r.created_at, r.content
               FROM (SELECT tenant, revision, generation FROM config_heads
                      WHERE generation > $1 ORDER BY generation LIMIT $2) h
               JOIN config_revisions r ON r.tenant = h.tenant AND r.revision = h.revision
              ORDER BY h.generation",
            generation,
            page.limit()
        )?
        .into_iter()
        .peekable();
        Ok(heads
            .into_iter()
            .filter_map(|head| {
                let found = revisions.next_if(|r| r.summary.scope == head.scope)?;
                Some((head, found))
            })
            .collect())
    }
}
