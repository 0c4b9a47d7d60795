//! Secrets of tenants, encrypted: `${secret:name}` in their documents.
//!
//! Values are sealed for their tenant and name ([`crate::base::envelope`]), so a row that is copied to another tenant does
//! not open. Nothing here gives a value to anybody but [`TenantScope::secret`].

use sqlx::FromRow;

use super::keys::envelope;
use super::tx::q;
use super::{Channel, Page, Platform, StoreError, TenantScope, Time};
use crate::base::Secret;
use crate::base::envelope::key_id;

/// The largest secret, in bytes.
pub const MAX_SECRET: usize = 64 << 10;
/// Secrets that are moved to another master key in one transaction.
const BATCH: i64 = 200;

/// A secret without its value.
#[derive(Clone, Debug, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct SecretInfo {
    /// Its name in the tenant.
    pub name: String,
    /// Counted up with every change.
    pub version: i64,
    /// The master key that it is sealed with.
    pub key_id: String,
    /// Who set it last.
    pub author: String,
    /// When it was first set.
    pub created_at: Time,
    /// When it was last set.
    pub updated_at: Time,
}

fn place<'a>(tenant: &'a str, name: &'a str) -> [&'a str; 3] {
    ["secrets", tenant, name]
}

/// A secret's name and its value.
pub type OpenSecret = (String, Secret<Vec<u8>>);

impl TenantScope<'_> {
    /// Sets a secret. Replicas compile the tenant's document again.
    ///
    /// # Errors
    /// It is too long; no master key; the database.
    pub async fn put_secret(
        &self,
        name: &str,
        value: &Secret<Vec<u8>>,
        author: &str,
    ) -> Result<SecretInfo, StoreError> {
        if value.expose().len() > MAX_SECRET {
            return Err(StoreError::Refused("a secret has at most 64 KiB".to_owned()));
        }
        let tenant = self.tenant().as_str();
        let sealed = self.store().seal(&place(tenant, name), value.expose())?;
        let key = key_id(&sealed).map_err(|e| envelope(name, e))?.to_owned();
        let mut tx = self.begin().await?;
        let now = tx.now();
        let info = q!(
            tx,
            one as SecretInfo,
            "INSERT INTO secrets (tenant, name, version, key_id, sealed, author, created_at, updated_at)
             VALUES ($1, $2, 1, $3, $4, $5, $6, $6)
             ON CONFLICT (tenant, name) DO UPDATE
                SET version = secrets.version + 1, key_id = excluded.key_id, sealed = excluded.sealed,
                    author = excluded.author, updated_at = excluded.updated_at
             RETURNING name, version, key_id, author, created_at, updated_at",
            tenant,
            name,
            &key,
            &sealed,
            author,
            now
        )?;
        tx.notify(Channel::Config, &format!("secret {tenant}")).await?;
        tx.commit().await?;
        Ok(info)
    }

    /// A secret's value.
    ///
    /// # Errors
    /// It does not open; the database.
    pub async fn secret(&self, name: &str) -> Result<Option<Secret<Vec<u8>>>, StoreError> {
        let tenant = self.tenant().as_str();
        let mut tx = self.read().await?;
        let sealed = q!(
            tx,
            scalar_optional as Vec<u8>,
            "SELECT sealed FROM secrets WHERE tenant = $1 AND name = $2",
            tenant,
            name
        )?;
        sealed.map(|sealed| self.store().unseal(&place(tenant, name), &sealed)).transpose()
    }

    /// All of the tenant's secrets with their values, to compile its document with.
    ///
    /// # Errors
    /// One does not open; the database.
    pub async fn secret_values(&self) -> Result<Vec<OpenSecret>, StoreError> {
        self.open_secrets(&self.sealed_secrets().await?)
    }

    /// All of the tenant's secrets as the store has them: sealed for their tenant and name, so that they can be kept
    /// elsewhere.
    ///
    /// # Errors
    /// The database.
    pub async fn sealed_secrets(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let mut tx = self.read().await?;
        q!(
            tx,
            all as (String, Vec<u8>),
            "SELECT name, sealed FROM secrets WHERE tenant = $1 ORDER BY name",
            self.tenant().as_str()
        )
    }

    /// The values of what [`TenantScope::sealed_secrets`] gave. Needs no database, but the master keys.
    ///
    /// # Errors
    /// One does not open.
    pub fn open_secrets(&self, sealed: &[(String, Vec<u8>)]) -> Result<Vec<OpenSecret>, StoreError> {
        let open = |(name, sealed): &(String, Vec<u8>)| {
            Ok((name.clone(), self.store().unseal(&place(self.tenant().as_str(), name), sealed)?))
        };
        sealed.iter().map(open).collect()
    }

    /// The tenant's secrets by name, those after `after`, without values.
    ///
    /// # Errors
    /// The database.
    pub async fn secrets(&self, after: Option<&str>, page: Page) -> Result<Vec<SecretInfo>, StoreError> {
        let mut tx = self.read().await?;
        q!(
            tx,
            all as SecretInfo,
            "SELECT name, version, key_id, author, created_at, updated_at FROM secrets
              WHERE tenant = $1 AND name > $2 ORDER BY name LIMIT $3",
            self.tenant().as_str(),
            after.unwrap_or(""),
            page.limit()
        )
    }

    /// Forgets a secret.
    ///
    /// # Errors
    /// [`StoreError::Missing`]; the database.
    pub async fn remove_secret(&self, name: &str) -> Result<(), StoreError> {
        let tenant = self.tenant().as_str();
        let mut tx = self.begin().await?;
        let removed = q!(tx, execute, "DELETE FROM secrets WHERE tenant = $1 AND name = $2", tenant, name)?;
        if removed == 0 {
            return Err(StoreError::Missing(format!("secret `{name}`")));
        }
        tx.notify(Channel::Config, &format!("secret {tenant}")).await?;
        tx.commit().await
    }
}

impl Platform<'_> {
    /// Moves every sealed value to the master key that seals now. Returns how many were moved; may be called again if it
    /// was interrupted, and by several processes at once.
    ///
    /// # Errors
    /// A value does not open; the database.
    pub async fn rewrap(&self) -> Result<u64, StoreError> {
        let keys = self.0.master_keys()?;
        let mut moved = 0;
        loop {
            let mut tx = self.begin().await?;
            let rows = q!(
                tx,
                all as (String, String, Vec<u8>),
                "SELECT tenant, name, sealed FROM secrets WHERE key_id <> $1 ORDER BY tenant, name LIMIT $2",
                keys.sealing(),
                BATCH
            )?;
            if rows.is_empty() {
                break;
            }
            for (tenant, name, sealed) in rows {
                let wrapped = keys.rewrap(&place(&tenant, &name), &sealed).map_err(|e| envelope(&name, e))?;
                // The old value in the condition: a secret that was set meanwhile is not put back.
                moved += q!(
                    tx,
                    execute,
                    "UPDATE secrets SET sealed = $3, key_id = $4 WHERE tenant = $1 AND name = $2 AND sealed = $5",
                    &tenant,
                    &name,
                    wrapped.as_ref().unwrap_or(&sealed),
                    keys.sealing(),
                    &sealed
                )?;
            }
            tx.commit().await?;
        }
        Ok(moved + self.rewrap_sealing_keys(&keys).await? + self.rewrap_erasures(&keys).await?)
    }
}
