//! API keys: their hashes and what they may do.

use sqlx::FromRow;

use super::feed::IdentityKind;
use crate::store::tx::q;
use crate::store::{Page, StoreError, TenantScope, TenantTx, Time};

/// A key as the store has it.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct ApiKey {
    /// Its public id.
    pub id: String,
    /// Who it stands for.
    pub principal: String,
    /// One JSON object of the form of a key file's lines, hash included.
    pub record: String,
    /// Who made it.
    pub author: String,
    /// Whether it is refused for now.
    pub disabled: bool,
    /// When it was made.
    pub created_at: Time,
    /// When it was last changed.
    pub updated_at: Time,
    /// From when on it is refused.
    pub expires_at: Option<Time>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Time>,
}

/// A key to be written, in place of the one with its id if there is one.
#[derive(Clone, Copy, Debug)]
pub struct NewApiKey<'a> {
    /// Its public id.
    pub id: &'a str,
    /// Who it stands for.
    pub principal: &'a str,
    /// See [`ApiKey::record`]. It must say the same as the other fields.
    pub record: &'a str,
    /// Who makes it.
    pub author: &'a str,
    /// Whether it is refused for now.
    pub disabled: bool,
    /// From when on it is refused.
    pub expires_at: Option<Time>,
}

const LIST: &str = "
    SELECT id, principal, record, author, disabled, created_at, updated_at, expires_at, last_used_at
      FROM api_keys WHERE tenant = $1 AND id > $2 ORDER BY id LIMIT $3";
const FIND: &str = "
    SELECT id, principal, record, author, disabled, created_at, updated_at, expires_at, last_used_at
      FROM api_keys WHERE tenant = $1 AND id = $2";
const LOCKED: &str = "
    SELECT id, principal, record, author, disabled, created_at, updated_at, expires_at, last_used_at
      FROM api_keys WHERE tenant = $1 AND id = $2 FOR UPDATE";
const OF: &str = "
    SELECT id, principal, record, author, disabled, created_at, updated_at, expires_at, last_used_at
      FROM api_keys WHERE tenant = $1 AND principal = $2 ORDER BY id LIMIT $3";

impl TenantTx {
    async fn write_api_key(&mut self, key: NewApiKey<'_>) -> Result<ApiKey, StoreError> {
        let (tenant, now) = (self.tenant().clone(), self.now());
        let row = q!(
            self,
            one as ApiKey,
            "INSERT INTO api_keys
                (tenant, id, principal, record, author, disabled, created_at, updated_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8)
             ON CONFLICT (tenant, id) DO UPDATE
                SET principal = excluded.principal, record = excluded.record, disabled = excluded.disabled,
                    updated_at = excluded.updated_at, expires_at = excluded.expires_at
             RETURNING id, principal, record, author, disabled, created_at, updated_at, expires_at, last_used_at",
            tenant.as_str(),
            key.id,
            key.principal,
            key.record,
            key.author,
            key.disabled,
            now,
            key.expires_at
        )?;
        self.tell(tenant.as_str(), IdentityKind::Key, key.id, Some(key.record)).await?;
        Ok(row)
    }
}

impl TenantScope<'_> {
    /// Writes a key. Replicas take it up.
    ///
    /// # Errors
    /// The database.
    pub async fn put_api_key(&self, key: NewApiKey<'_>) -> Result<ApiKey, StoreError> {
        let mut tx = self.begin().await?;
        let row = tx.write_api_key(key).await?;
        tx.commit().await?;
        Ok(row)
    }

    /// Writes a key and changes the one that it succeeds into `retired`, which has its id, if that one is as `expect` wants it:
    /// both or neither. Gives the new one.
    ///
    /// # Errors
    /// [`StoreError::Missing`]; what `expect` says; the database.
    pub async fn succeed_api_key<E: From<StoreError>>(
        &self,
        retired: NewApiKey<'_>,
        new: NewApiKey<'_>,
        expect: impl FnOnce(&ApiKey) -> Result<(), E>,
    ) -> Result<ApiKey, E> {
        let mut tx = self.begin().await?;
        let found = locked(&mut tx, retired.id).await?;
        expect(&found.ok_or_else(|| StoreError::Missing(format!("API key `{}`", retired.id)))?)?;
        let row = tx.write_api_key(new).await?;
        tx.write_api_key(retired).await?;
        tx.commit().await?;
        Ok(row)
    }

    /// Takes a key away. Replicas refuse it from then on.
    ///
    /// # Errors
    /// [`StoreError::Missing`]; the database.
    pub async fn remove_api_key(&self, id: &str) -> Result<(), StoreError> {
        let tenant = self.tenant().as_str();
        let mut tx = self.begin().await?;
        let gone = q!(tx, execute, "DELETE FROM api_keys WHERE tenant = $1 AND id = $2", tenant, id)?;
        if gone == 0 {
            return Err(StoreError::Missing(format!("API key `{id}`")));
        }
        tx.tell(tenant, IdentityKind::Key, id, None).await?;
        tx.commit().await
    }

    /// One key.
    ///
    /// # Errors
    /// The database.
    pub async fn api_key(&self, id: &str) -> Result<Option<ApiKey>, StoreError> {
        let mut tx = self.read().await?;
        q!(tx, optional as ApiKey, FIND, self.tenant().as_str(), id)
    }

    /// Keys by id, those after `after`.
    ///
    /// # Errors
    /// The database.
    pub async fn api_keys(&self, after: Option<&str>, page: Page) -> Result<Vec<ApiKey>, StoreError> {
        let mut tx = self.read().await?;
        q!(tx, all as ApiKey, LIST, self.tenant().as_str(), after.unwrap_or(""), page.limit())
    }

    /// The keys that stand for a principal, by id, at most so many.
    ///
    /// # Errors
    /// The database.
    pub async fn api_keys_of(&self, principal: &str, page: Page) -> Result<Vec<ApiKey>, StoreError> {
        let mut tx = self.read().await?;
        q!(tx, all as ApiKey, OF, self.tenant().as_str(), principal, page.limit())
    }

    /// Notes when keys were last used; an earlier time than the known one changes nothing. No row of the feed.
    ///
    /// # Errors
    /// The database.
    pub async fn touch_api_keys(&self, uses: &[(String, Time)]) -> Result<u64, StoreError> {
        if uses.is_empty() {
            return Ok(0);
        }
        let rows: Vec<serde_json::Value> =
            uses.iter().map(|(id, at)| serde_json::json!({ "id": id, "at": at.micros() })).collect();
        let mut tx = self.begin().await?;
        let touched = q!(
            tx, execute,
            pg "UPDATE api_keys k SET last_used_at = to_timestamp(u.at / 1000000.0)
                  FROM jsonb_to_recordset($2) AS u(id text, at bigint)
                 WHERE k.tenant = $1 AND k.id = u.id
                   AND (k.last_used_at IS NULL OR k.last_used_at < to_timestamp(u.at / 1000000.0))",
            lite "UPDATE api_keys SET last_used_at = u.at
                    FROM (SELECT value ->> 'id' AS id, value ->> 'at' AS at FROM json_each($2)) AS u
                   WHERE api_keys.tenant = $1 AND api_keys.id = u.id
                     AND (last_used_at IS NULL OR last_used_at < u.at)",
            self.tenant().as_str(),
            sqlx::types::Json(&rows)
        )?;
        tx.commit().await?;
        Ok(touched)
    }
}

/// A key that nobody else changes or takes away before the transaction has ended.
async fn locked(tx: &mut TenantTx, id: &str) -> Result<Option<ApiKey>, StoreError> {
    let tenant = tx.tenant().clone();
    q!(tx, optional as ApiKey, pg LOCKED, lite FIND, tenant.as_str(), id)
}
