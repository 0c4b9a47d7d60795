//! Secrets of tenants, encrypted: `${secret:name}` in their documents.
//!
//! Values are sealed for their tenant and name ([`crate::base::envelope`]), so a row that is copied to another tenant does
//! not open. Nothing here gives a value to anybody but [`TenantScope::secret`].

use std::collections::{BTreeMap, BTreeSet};

use sqlx::FromRow;

use super::expect::{ATTEMPTS, Put, contended};
use super::keys::envelope;
use super::tx::q;
use super::{Channel, Page, Platform, StoreError, TenantScope, TenantTx, Time, Tx};
use crate::base::envelope::{MasterKeys, key_id};
use crate::base::{Scope, Secret};
use crate::config::{canonical, secrets_named, uses_of_secret};

/// The largest secret, in bytes.
pub const MAX_SECRET: usize = 64 << 10;
/// Secrets that are looked at to know which master keys the store needs.
const FIRST: i64 = 1_000;
/// Secrets that are moved to another master key in one transaction.
const BATCH: i64 = 200;
/// Places of one document in which a secret is said to be in use.
const MAX_PLACES: usize = 20;

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

/// A place in which a document that is served, or tried, refers to a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretUse {
    /// The revision of the document.
    pub revision: i64,
    /// Whether it is the candidate of the canary that runs, and not the head.
    pub tried: bool,
    /// Where in it: `servers[0].credential.bearer`.
    pub place: String,
}

fn place<'a>(tenant: &'a str, name: &'a str) -> [&'a str; 3] {
    ["secrets", tenant, name]
}

/// A secret's name and its value.
pub type OpenSecret = (String, Secret<Vec<u8>>);

impl TenantScope<'_> {
    /// Sets a secret if what there is, is as expected. Replicas compile the tenant's document again.
    ///
    /// # Errors
    /// It is too long; no master key; what `expect` says; the database.
    pub async fn put_secret<E: From<StoreError>>(
        &self,
        name: &str,
        value: &Secret<Vec<u8>>,
        author: &str,
        mut expect: impl FnMut(Option<&SecretInfo>) -> Result<(), E>,
    ) -> Result<Put<SecretInfo>, E> {
        if value.expose().len() > MAX_SECRET {
            return Err(StoreError::Refused("a secret has at most 64 KiB".to_owned()).into());
        }
        let tenant = self.tenant().as_str();
        let sealed = self.store().seal(&place(tenant, name), value.expose())?;
        let key = key_id(&sealed).map_err(|e| envelope(name, e))?.to_owned();
        let mut tx = self.begin().await?;
        let now = tx.now();
        for _ in 0..ATTEMPTS {
            let found = locked(&mut tx, name).await?;
            expect(found.as_ref())?;
            let written = if found.is_some() {
                q!(
                    tx,
                    optional as SecretInfo,
                    "UPDATE secrets SET version = version + 1, key_id = $3, sealed = $4, author = $5, updated_at = $6
                      WHERE tenant = $1 AND name = $2
                     RETURNING name, version, key_id, author, created_at, updated_at",
                    tenant,
                    name,
                    &key,
                    &sealed,
                    author,
                    now
                )?
                .map(Put::Replaced)
            } else {
                q!(
                    tx,
                    optional as SecretInfo,
                    "INSERT INTO secrets (tenant, name, version, key_id, sealed, author, created_at, updated_at)
                     VALUES ($1, $2, 1, $3, $4, $5, $6, $6) ON CONFLICT (tenant, name) DO NOTHING
                     RETURNING name, version, key_id, author, created_at, updated_at",
                    tenant,
                    name,
                    &key,
                    &sealed,
                    author,
                    now
                )?
                .map(Put::Created)
            };
            // Somebody else set it after we had looked.
            let Some(put) = written else { continue };
            tx.notify(Channel::Config, &format!("secret {tenant}")).await?;
            tx.commit().await?;
            return Ok(put);
        }
        Err(contended("the secret").into())
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

    /// Forgets a secret if it, and where the tenant's head and the candidate of its canary refer to it, are as expected. Until
    /// it is gone nothing that refers to it becomes one of these ([`Tx::hold_secrets`]).
    ///
    /// # Errors
    /// [`StoreError::Missing`]; what `expect` says; the database.
    pub async fn remove_secret<E: From<StoreError>>(
        &self,
        name: &str,
        expect: impl FnOnce(&SecretInfo, &[SecretUse]) -> Result<(), E>,
    ) -> Result<(), E> {
        let tenant = self.tenant().as_str();
        let mut tx = self.begin().await?;
        let found = locked(&mut tx, name).await?;
        let found = found.ok_or_else(|| StoreError::Missing(format!("secret `{name}`")))?;
        let uses = uses(&mut tx, name).await?;
        expect(&found, &uses)?;
        q!(tx, execute, "DELETE FROM secrets WHERE tenant = $1 AND name = $2", tenant, name)?;
        tx.notify(Channel::Config, &format!("secret {tenant}")).await?;
        Ok(tx.commit().await?)
    }
}

impl Tx {
    /// Sees to it that the secrets that a tenant's document refers to are there when it becomes the head or begins to be
    /// tried: they stay until the transaction has ended, and whoever wants to remove one looks at the documents after that.
    ///
    /// # Errors
    /// [`StoreError::Unresolved`]; the database.
    pub(super) async fn hold_secrets(&mut self, scope: &Scope, content: &[u8]) -> Result<(), StoreError> {
        let Scope::Tenant(tenant) = scope else { return Ok(()) };
        let named = secrets_named(std::str::from_utf8(content).unwrap_or_default());
        if named.is_empty() {
            return Ok(());
        }
        // Whoever has one of them locked waits for nothing that this transaction has.
        let there = q!(
            self, scalar_all as String,
            pg "SELECT name FROM secrets WHERE tenant = $1 AND name IN (SELECT jsonb_array_elements_text($2))
                 ORDER BY name FOR KEY SHARE",
            lite "SELECT name FROM secrets WHERE tenant = $1 AND name IN (SELECT value FROM json_each($2))",
            tenant.as_str(),
            sqlx::types::Json(&named)
        )?;
        let mut gone = named.into_iter().filter(|name| there.iter().all(|known| known != name)).peekable();
        // Read only now: it takes its time.
        if gone.peek().is_some()
            && let Ok(document) = canonical(content)
            && let Some(name) = gone.find(|name| !uses_of_secret(&document, name, 1).is_empty())
        {
            return Err(StoreError::Unresolved(format!("secret `{name}` of tenant `{tenant}`")));
        }
        Ok(())
    }
}

/// Where the tenant's head and the candidate of its canary refer to a secret.
async fn uses(tx: &mut TenantTx, name: &str) -> Result<Vec<SecretUse>, StoreError> {
    let tenant = tx.tenant().clone();
    let head = q!(
        tx,
        optional as (i64, Vec<u8>),
        "SELECT r.revision, r.content FROM config_heads h
           JOIN config_revisions r ON r.tenant = h.tenant AND r.revision = h.revision WHERE h.tenant = $1",
        tenant.as_str()
    )?;
    let candidate = q!(
        tx,
        optional as (i64, Vec<u8>),
        "SELECT r.revision, r.content FROM canaries c
           JOIN config_revisions r ON r.tenant = c.tenant AND r.revision = c.candidate
          WHERE c.tenant = $1 AND c.state = 'running'",
        tenant.as_str()
    )?;
    let mut uses = Vec::new();
    for (tried, found) in [(false, head), (true, candidate)] {
        let Some((revision, content)) = found else { continue };
        let document = canonical(&content)
            .map_err(|e| StoreError::Schema(format!("revision {revision} of `{tenant}`: {e}")))?;
        let places = uses_of_secret(&document, name, MAX_PLACES).into_iter();
        uses.extend(places.map(|place| SecretUse { revision, tried, place }));
    }
    Ok(uses)
}

/// A secret that nobody else changes before the transaction has ended.
async fn locked(tx: &mut TenantTx, name: &str) -> Result<Option<SecretInfo>, StoreError> {
    let tenant = tx.tenant().clone();
    q!(
        tx, optional as SecretInfo,
        pg "SELECT name, version, key_id, author, created_at, updated_at FROM secrets
             WHERE tenant = $1 AND name = $2 FOR UPDATE",
        lite "SELECT name, version, key_id, author, created_at, updated_at FROM secrets
               WHERE tenant = $1 AND name = $2",
        tenant.as_str(),
        name
    )
}

/// How many secrets there are, and when the last one was set: moves with every change, but for one that is removed while
/// another is added in the same microsecond.
pub type SecretsMark = (i64, Option<Time>);

impl Platform<'_> {
    /// Ids of the master keys that values of the store are sealed with, as far as shared keys, erasures and the first
    /// secrets say: after each rotation those are of one key.
    ///
    /// # Errors
    /// The database.
    pub async fn sealing_key_ids(&self) -> Result<Vec<String>, StoreError> {
        let mut tx = self.read().await?;
        // In the order of an index, from before the first: without a bound PostgreSQL sorts the whole table.
        let first = q!(
            tx,
            scalar_all as String,
            "SELECT key_id FROM secrets WHERE tenant > $1 ORDER BY tenant, name LIMIT $2",
            "",
            FIRST
        )?;
        let shared = q!(
            tx,
            scalar_all as String,
            "SELECT key_id FROM sealing_keys UNION SELECT key_id FROM audit_erasures"
        )?;
        // At once: who asks at the start may hold up the thread that would do it after the drop.
        tx.commit().await?;
        let ids: BTreeSet<String> = first.into_iter().chain(shared).collect();
        Ok(ids.into_iter().collect())
    }

    /// Whether [`Platform::rewrap`] could move every value to the key of `keys` that seals. Changes nothing.
    ///
    /// # Errors
    /// The first value that does not open; the database.
    pub(super) async fn can_rewrap(&self, keys: &MasterKeys) -> Result<(), StoreError> {
        let mut tx = self.read().await?;
        let mut after = (String::new(), String::new());
        loop {
            let rows = q!(
                tx,
                all as (String, String, Vec<u8>),
                "SELECT tenant, name, sealed FROM secrets WHERE (tenant, name) > ($1, $2) ORDER BY tenant, name LIMIT $3",
                &after.0,
                &after.1,
                BATCH
            )?;
            for (tenant, name, sealed) in &rows {
                let what = format!("secret `{name}` of tenant `{tenant}`");
                keys.rewrap(&place(tenant, name), sealed).map_err(|e| envelope(&what, e))?;
            }
            match rows.into_iter().next_back() {
                Some((tenant, name, _)) => after = (tenant, name),
                None => break,
            }
        }
        let mut others = super::sealing_keys::sealed(&mut tx).await?;
        others.extend(super::erasure::sealed(&mut tx).await?);
        for (at, sealed) in &others {
            let place: Vec<&str> = at.iter().map(String::as_str).collect();
            keys.rewrap(&place, sealed).map_err(|e| envelope(&at.join("/"), e))?;
        }
        Ok(())
    }

    /// Whether any secret was set or removed since.
    ///
    /// # Errors
    /// The database.
    pub async fn secrets_mark(&self) -> Result<SecretsMark, StoreError> {
        let mut tx = self.read().await?;
        q!(tx, one as SecretsMark, "SELECT count(*), max(updated_at) FROM secrets")
    }

    /// The same for each tenant that has any.
    ///
    /// # Errors
    /// The database.
    pub async fn secrets_marks(&self) -> Result<BTreeMap<String, SecretsMark>, StoreError> {
        let mut tx = self.read().await?;
        let rows = q!(
            tx,
            all as (String, i64, Option<Time>),
            "SELECT tenant, count(*), max(updated_at) FROM secrets GROUP BY tenant ORDER BY tenant"
        )?;
        Ok(rows.into_iter().map(|(tenant, count, last)| (tenant, (count, last))).collect())
    }

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
