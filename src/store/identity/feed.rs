//! The feed itself.

use sqlx::FromRow;

use crate::store::tx::q;
use crate::store::{Channel, Platform, StoreError, Time, Tx};

/// What an entry of the feed is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IdentityKind {
    /// An API key.
    Key,
    /// A revoked credential.
    Revocation,
    /// A role that somebody has whatever their token says.
    Role,
    /// A user.
    User,
}

impl IdentityKind {
    const ALL: [Self; 4] = [Self::Key, Self::Revocation, Self::Role, Self::User];

    /// Its name in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Revocation => "revocation",
            Self::Role => "role",
            Self::User => "user",
        }
    }

    /// Reads what [`IdentityKind::as_str`] gives.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// One entry of the feed.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct IdentityChange {
    /// Its number; of an entry of a snapshot that of the whole snapshot.
    pub seq: i64,
    /// Whose.
    pub tenant: String,
    /// What: see [`IdentityKind`]. A kind that is not known is of a later version.
    pub kind: String,
    /// Which.
    pub id: String,
    /// What it is now; none: it is gone.
    pub body: Option<String>,
}

/// Everything as of one number of the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentitySnapshot {
    /// The number.
    pub seq: i64,
    /// What there is.
    pub entries: Vec<IdentityChange>,
}

const EVERYTHING: &str = "
    SELECT $1 AS seq, tenant, 'key' AS kind, id, record AS body FROM api_keys
    UNION ALL SELECT $1, tenant, 'revocation', id, record FROM revocations
    UNION ALL SELECT $1, tenant, 'role', role || ':' || subject, role || ':' || subject FROM role_bindings
    UNION ALL SELECT $1, tenant, 'user', id, CASE WHEN disabled THEN 'disabled' ELSE 'active' END FROM users";

impl Tx {
    /// Appends to the feed; [`Channel::Identity`] hears of it when this commits.
    pub(in crate::store) async fn tell(
        &mut self,
        tenant: &str,
        kind: IdentityKind,
        id: &str,
        body: Option<&str>,
    ) -> Result<(), StoreError> {
        let now = self.now();
        // On PostgreSQL a trigger does it, because a tenant's role has no right to the counter.
        q!(self, execute, pg "SELECT 1", lite "UPDATE identity_head SET seq = seq + 1")?;
        q!(
            self, execute,
            pg "INSERT INTO identity_changes (tenant, kind, id, body, changed_at) VALUES ($1, $2, $3, $4, $5)",
            lite "INSERT INTO identity_changes (seq, tenant, kind, id, body, changed_at)
                  VALUES ((SELECT seq FROM identity_head), $1, $2, $3, $4, $5)",
            tenant,
            kind.as_str(),
            id,
            body,
            now
        )?;
        self.notify(Channel::Identity, tenant).await
    }
}

impl Platform<'_> {
    /// The number of the last change; 0 if there was none.
    ///
    /// # Errors
    /// The database.
    pub async fn identity_head(&self) -> Result<i64, StoreError> {
        let mut tx = self.read().await?;
        q!(tx, scalar as i64, "SELECT seq FROM identity_head")
    }

    /// Changes after number `after`, at most `limit`, in their order.
    ///
    /// # Errors
    /// The database.
    pub async fn identity_changes(&self, after: i64, limit: i64) -> Result<Vec<IdentityChange>, StoreError> {
        let mut tx = self.read().await?;
        q!(
            tx,
            all as IdentityChange,
            "SELECT seq, tenant, kind, id, body FROM identity_changes WHERE seq > $1 ORDER BY seq LIMIT $2",
            after,
            limit
        )
    }

    /// Everything there is, and the number it is of.
    ///
    /// # Errors
    /// The database.
    pub async fn identity_snapshot(&self) -> Result<IdentitySnapshot, StoreError> {
        let mut tx = self.read().await?;
        let seq = q!(tx, scalar as i64, "SELECT seq FROM identity_head")?;
        let entries = q!(tx, all as IdentityChange, EVERYTHING, seq)?;
        Ok(IdentitySnapshot { seq, entries })
    }

    /// Forgets changes that were made before `before`, but none that a process has not read that was heard of lately: rows of
    /// processes stay for an hour. Returns how many went.
    ///
    /// # Errors
    /// The database.
    pub async fn prune_identity_changes(&self, before: Time) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let gone = q!(
            tx,
            execute,
            "DELETE FROM identity_changes WHERE changed_at < $1
                AND seq <= coalesce((SELECT min(identity_seq) FROM replicas), (SELECT seq FROM identity_head))",
            before
        )?;
        tx.commit().await?;
        Ok(gone)
    }
}
