//! What the control API keeps for itself: answers to requests that may be repeated, and tokens of the installation.

use std::time::Duration;

use super::tenants::counts;
use super::tx::q;
use super::{Channel, Platform, SecretInfo, ServedRevision, StoreError, TenantScope};

/// A first request that was not answered after this time has died with its replica; another may take its place.
const DEAD_AFTER: Duration = Duration::from_secs(120);

/// What is notified when a token of the installation was replaced.
pub const ADMIN_TOKEN_REPLACED: &str = "admin-token";

/// What is known of a request with an `Idempotency-Key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Idempotency {
    /// Answered before.
    Answered {
        /// The status.
        status: u16,
        /// The answer, as it was sealed.
        sealed: Vec<u8>,
    },
    /// Never seen; it is now marked as running.
    Fresh,
    /// The key was used for another request.
    Mismatch,
    /// The first request is still running.
    Running,
}

#[derive(sqlx::FromRow)]
struct Row {
    request_hash: Vec<u8>,
    status: Option<i32>,
    sealed: Option<Vec<u8>>,
}

impl TenantScope<'_> {
    /// Looks a key up and, if it is fresh, marks its request as running.
    ///
    /// # Errors
    /// The database.
    pub async fn begin_idempotent(
        &self,
        key: &[u8; 32],
        request: &[u8; 32],
        keep: Duration,
    ) -> Result<Idempotency, StoreError> {
        let tenant = self.tenant().as_str();
        let mut tx = self.begin().await?;
        let now = tx.now();
        let dead = now.minus(DEAD_AFTER);
        q!(
            tx,
            execute,
            "DELETE FROM idempotency_keys
              WHERE tenant = $1 AND key_hash = $2 AND (expires_at <= $3 OR (status IS NULL AND created_at <= $4))",
            tenant,
            &key[..],
            now,
            dead
        )?;
        let inserted = q!(
            tx,
            execute,
            "INSERT INTO idempotency_keys (tenant, key_hash, request_hash, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (tenant, key_hash) DO NOTHING",
            tenant,
            &key[..],
            &request[..],
            now,
            now.plus(keep)
        )?;
        let known = if inserted == 1 {
            Idempotency::Fresh
        } else {
            let row = q!(
                tx,
                optional as Row,
                "SELECT request_hash, status, sealed FROM idempotency_keys
                  WHERE tenant = $1 AND key_hash = $2",
                tenant,
                &key[..]
            )?;
            // Forgotten since: whoever had it is done, and the caller may come again.
            row.map_or(Idempotency::Running, |row| row.known(request))
        };
        tx.commit().await?;
        Ok(known)
    }

    /// Keeps the answer to a request that was marked as running.
    ///
    /// # Errors
    /// The database.
    pub async fn finish_idempotent(
        &self,
        key: &[u8; 32],
        status: u16,
        sealed: &[u8],
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        q!(
            tx,
            execute,
            "UPDATE idempotency_keys SET status = $3, sealed = $4
              WHERE tenant = $1 AND key_hash = $2 AND status IS NULL",
            self.tenant().as_str(),
            &key[..],
            i32::from(status),
            sealed
        )?;
        tx.commit().await
    }

    /// Forgets a key whose request did nothing.
    ///
    /// # Errors
    /// The database.
    pub async fn forget_idempotent(&self, key: &[u8; 32]) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        q!(
            tx,
            execute,
            "DELETE FROM idempotency_keys WHERE tenant = $1 AND key_hash = $2 AND status IS NULL",
            self.tenant().as_str(),
            &key[..]
        )?;
        tx.commit().await
    }
}

impl Row {
    fn known(self, request: &[u8; 32]) -> Idempotency {
        if self.request_hash != request {
            return Idempotency::Mismatch;
        }
        match (self.status.and_then(|s| u16::try_from(s).ok()), self.sealed) {
            (Some(status), Some(sealed)) => Idempotency::Answered { status, sealed },
            _ => Idempotency::Running,
        }
    }
}

/// A key with its owner.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct OwnedApiKey {
    /// Whose.
    pub tenant: String,
    /// As in [`super::ApiKey::record`].
    pub record: String,
}

/// What the store says of a principal besides their credential.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredStanding {
    /// Whether every credential of theirs is refused.
    pub disabled: bool,
    /// Names of the roles that were given to them, `auditor` among them.
    pub roles: Vec<String>,
    /// For each of the tenant's own roles that was given to them, the names of its permissions, joined by spaces.
    pub custom: Vec<String>,
    /// Everything that is revoked in the tenant and may be about them, as records.
    pub revocations: Vec<String>,
}

/// The add-on that stands beside the roles.
const AUDITOR: &str = "auditor";

impl TenantScope<'_> {
    /// What is said of a principal and of one credential of theirs.
    ///
    /// # Errors
    /// The database.
    pub async fn standing(&self, principal: &str, credential: &str) -> Result<StoredStanding, StoreError> {
        let tenant = self.tenant().as_str();
        let mut tx = self.read().await?;
        let disabled = q!(
            tx,
            scalar_optional as bool,
            "SELECT disabled FROM users WHERE tenant = $1 AND id = $2",
            tenant,
            principal
        )?;
        let roles = q!(
            tx,
            scalar_all as String,
            "SELECT role FROM role_bindings WHERE tenant = $1 AND subject = $2",
            tenant,
            principal
        )?;
        let custom = q!(
            tx,
            scalar_all as String,
            "SELECT c.permissions FROM role_bindings b JOIN custom_roles c ON c.tenant = b.tenant AND c.name = b.role
              WHERE b.tenant = $1 AND b.subject = $2",
            tenant,
            principal
        )?;
        // A text search finds more than it should, never less; the reader looks again.
        let revocations = q!(
            tx,
            scalar_all as String,
            pg "SELECT record FROM revocations
                 WHERE tenant = $1 AND (strpos(record, $2) > 0 OR strpos(record, $3) > 0)",
            lite "SELECT record FROM revocations
                   WHERE tenant = $1 AND (instr(record, $2) > 0 OR instr(record, $3) > 0)",
            tenant,
            json_text(principal),
            json_text(credential)
        )?;
        Ok(StoredStanding { disabled: disabled.unwrap_or(false), roles, custom, revocations })
    }

    /// Makes somebody an auditor. It is in the feed as the roles are; data planes give nobody anything for it.
    ///
    /// # Errors
    /// The database.
    pub async fn bind_auditor(&self, subject: &str, author: &str) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        tx.bind(subject, AUDITOR, author).await?;
        tx.commit().await
    }

    /// Takes that back.
    ///
    /// # Errors
    /// [`StoreError::Missing`]; the database.
    pub async fn unbind_auditor(&self, subject: &str) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        tx.unbind(subject, AUDITOR).await?;
        tx.commit().await
    }

    /// One secret without its value.
    ///
    /// # Errors
    /// The database.
    pub async fn secret_info(&self, name: &str) -> Result<Option<SecretInfo>, StoreError> {
        let mut tx = self.read().await?;
        q!(
            tx,
            optional as SecretInfo,
            "SELECT name, version, key_id, author, created_at, updated_at FROM secrets
              WHERE tenant = $1 AND name = $2",
            self.tenant().as_str(),
            name
        )
    }
}

/// A text as it stands inside of a JSON text.
fn json_text(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

impl Platform<'_> {
    /// Keys with this id: ids are random, so one at most in practice, but each tenant has its own.
    ///
    /// # Errors
    /// The database.
    pub async fn api_keys_with_id(&self, id: &str) -> Result<Vec<OwnedApiKey>, StoreError> {
        let mut tx = self.read().await?;
        q!(tx, all as OwnedApiKey, "SELECT tenant, record FROM api_keys WHERE id = $1 LIMIT 8", id)
    }

    /// What every process does with every scope that is there.
    ///
    /// # Errors
    /// The database.
    pub async fn all_served_revisions(&self) -> Result<Vec<ServedRevision>, StoreError> {
        let mut tx = self.read().await?;
        q!(
            tx,
            all as ServedRevision,
            concat!(
                "SELECT r.boot, r.tenant, r.served, r.refused, r.refusal, r.reported_at FROM replica_revisions r
                  WHERE ", counts!("r.tenant"), " ORDER BY r.boot, r.tenant"
            )
        )
    }

    /// Forgets answers that have expired.
    ///
    /// # Errors
    /// The database.
    pub async fn expire_idempotency(&self) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let now = tx.now();
        let removed = q!(tx, execute, "DELETE FROM idempotency_keys WHERE expires_at <= $1", now)?;
        tx.commit().await?;
        Ok(removed)
    }

    /// The SHA-256 of a token of the installation.
    ///
    /// # Errors
    /// The database.
    pub async fn admin_token(&self, name: &str) -> Result<Option<[u8; 32]>, StoreError> {
        let mut tx = self.read().await?;
        let hash = q!(tx, scalar_optional as Vec<u8>, "SELECT hash FROM admin_tokens WHERE name = $1", name)?;
        Ok(hash.and_then(|hash| hash.try_into().ok()))
    }

    /// Keeps a token unless there is one of this name. `false`: there is.
    ///
    /// # Errors
    /// The database.
    pub async fn add_admin_token(&self, name: &str, hash: &[u8; 32]) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let now = tx.now();
        let added = q!(
            tx,
            execute,
            "INSERT INTO admin_tokens (name, hash, created_at) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING",
            name,
            &hash[..],
            now
        )?;
        tx.commit().await?;
        Ok(added == 1)
    }

    /// Puts a token in place of the one of this name.
    ///
    /// # Errors
    /// The database.
    pub async fn replace_admin_token(&self, name: &str, hash: &[u8; 32]) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let now = tx.now();
        q!(
            tx,
            execute,
            "INSERT INTO admin_tokens (name, hash, created_at) VALUES ($1, $2, $3)
             ON CONFLICT (name) DO UPDATE SET hash = excluded.hash, created_at = excluded.created_at",
            name,
            &hash[..],
            now
        )?;
        tx.notify(Channel::Identity, ADMIN_TOKEN_REPLACED).await?;
        tx.commit().await
    }
}
