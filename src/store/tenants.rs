//! Tenants as the platform knows them. What they are granted is in the platform document.

use sqlx::FromRow;

use super::tx::q;
use super::{Page, Platform, StoreError, Time, Tx};
use crate::base::{Scope, TenantId};

/// A condition on the scope in a column: it is the platform's or a tenant's that is there. Before there is a platform's
/// document nobody says who is.
macro_rules! counts {
    ($column:literal) => {
        concat!(
            "(",
            $column,
            " IN ('@platform', 'default') OR EXISTS (SELECT 1 FROM tenants t WHERE t.tenant = ",
            $column,
            ") OR NOT EXISTS (SELECT 1 FROM config_heads p WHERE p.tenant = '@platform'))"
        )
    };
}
pub(super) use counts;

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct Tenant {
    /// Its name: part of URLs, metrics and logs; never changes.
    pub tenant: String,
    /// What people call it.
    pub display_name: String,
    /// When it was made.
    pub created_at: Time,
    /// When it was last changed.
    pub updated_at: Time,
}

impl Tx {
    /// Makes rows for tenants that have none, and takes those of others away.
    pub(super) async fn keep_tenants(&mut self, there: &[String], gone: &[String]) -> Result<(), StoreError> {
        let now = self.now();
        q!(
            self, execute,
            pg "DELETE FROM tenants WHERE tenant IN (SELECT jsonb_array_elements_text($1))",
            lite "DELETE FROM tenants WHERE tenant IN (SELECT value FROM json_each($1))",
            sqlx::types::Json(gone)
        )?;
        q!(
            self, execute,
            pg "INSERT INTO tenants (tenant, display_name, created_at, updated_at)
                SELECT t, t, $2, $2 FROM jsonb_array_elements_text($1) AS t ON CONFLICT (tenant) DO NOTHING",
            lite "INSERT INTO tenants (tenant, display_name, created_at, updated_at)
                  SELECT value, value, $2, $2 FROM json_each($1) WHERE true ON CONFLICT (tenant) DO NOTHING",
            sqlx::types::Json(there),
            now
        )?;
        Ok(())
    }
}

impl Platform<'_> {
    /// Makes a tenant, or renames it for people.
    ///
    /// # Errors
    /// The database.
    pub async fn put_tenant(&self, tenant: &TenantId, display_name: &str) -> Result<Tenant, StoreError> {
        let mut tx = self.begin().await?;
        let now = tx.now();
        let row = q!(
            tx,
            one as Tenant,
            "INSERT INTO tenants (tenant, display_name, created_at, updated_at) VALUES ($1, $2, $3, $3)
             ON CONFLICT (tenant) DO UPDATE SET display_name = excluded.display_name, updated_at = excluded.updated_at
             RETURNING tenant, display_name, created_at, updated_at",
            tenant.as_str(),
            display_name,
            now
        )?;
        tx.commit().await?;
        Ok(row)
    }

    /// One tenant.
    ///
    /// # Errors
    /// The database.
    pub async fn find_tenant(&self, tenant: &TenantId) -> Result<Option<Tenant>, StoreError> {
        let mut tx = self.read().await?;
        q!(
            tx,
            optional as Tenant,
            "SELECT tenant, display_name, created_at, updated_at FROM tenants WHERE tenant = $1",
            tenant.as_str()
        )
    }

    /// Whether a tenant is there: `default` always is, and before there is a platform document nobody says who else.
    ///
    /// # Errors
    /// The database.
    pub async fn knows_tenant(&self, tenant: &TenantId) -> Result<bool, StoreError> {
        if *tenant == TenantId::default() {
            return Ok(true);
        }
        let mut tx = self.read().await?;
        if tx.head(&Scope::Platform).await?.is_none() {
            return Ok(true);
        }
        let there = q!(
            tx,
            scalar_optional as String,
            "SELECT tenant FROM tenants WHERE tenant = $1",
            tenant.as_str()
        )?;
        Ok(there.is_some())
    }

    /// Whether a tenant is there, or something is left of one: its history, its log, or what was made in it.
    ///
    /// # Errors
    /// The database.
    pub async fn has_traces(&self, tenant: &TenantId) -> Result<bool, StoreError> {
        if *tenant == TenantId::default() {
            return Ok(true);
        }
        let mut tx = self.read().await?;
        // Where each chain of the log is stays for some time when its events are too old to be kept.
        let found = q!(
            tx,
            scalar_optional as i64,
            "SELECT CAST(1 AS bigint)
              WHERE EXISTS (SELECT 1 FROM tenants WHERE tenant = $1)
                 OR EXISTS (SELECT 1 FROM audit_heads WHERE tenant = $1)
                 OR EXISTS (SELECT 1 FROM config_heads WHERE tenant = $1)
                 OR EXISTS (SELECT 1 FROM users WHERE tenant = $1)
                 OR EXISTS (SELECT 1 FROM api_keys WHERE tenant = $1)
                 OR EXISTS (SELECT 1 FROM role_bindings WHERE tenant = $1)
                 OR EXISTS (SELECT 1 FROM revocations WHERE tenant = $1)
                 OR EXISTS (SELECT 1 FROM custom_roles WHERE tenant = $1)
                 OR EXISTS (SELECT 1 FROM secrets WHERE tenant = $1)
                 OR EXISTS (SELECT 1 FROM usage_day WHERE tenant = $1)",
            tenant.as_str()
        )?;
        Ok(found.is_some())
    }

    /// Tenants by name, those after `after`.
    ///
    /// # Errors
    /// The database.
    pub async fn tenants(&self, after: Option<&str>, page: Page) -> Result<Vec<Tenant>, StoreError> {
        let mut tx = self.read().await?;
        q!(
            tx,
            all as Tenant,
            "SELECT tenant, display_name, created_at, updated_at FROM tenants WHERE tenant > $1 ORDER BY tenant LIMIT $2",
            after.unwrap_or(""),
            page.limit()
        )
    }
}
