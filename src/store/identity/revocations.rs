//! Credentials that are refused whatever their signature says.

use sqlx::FromRow;
use uuid::Uuid;

use super::feed::IdentityKind;
use crate::store::tx::q;
use crate::store::{Page, StoreError, TenantScope, Time};

/// A revocation as the store has it.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct RevocationEntry {
    /// Its own id.
    pub id: String,
    /// One JSON object of the form of a revocation file's lines.
    pub record: String,
    /// Who revoked.
    pub author: String,
    /// When.
    pub created_at: Time,
}

impl TenantScope<'_> {
    /// Revokes. `record` is one JSON object of the form of a revocation file's lines. Replicas refuse what it says.
    ///
    /// # Errors
    /// The database.
    pub async fn revoke(&self, record: &str, author: &str) -> Result<RevocationEntry, StoreError> {
        let tenant = self.tenant().as_str();
        let id = Uuid::now_v7().to_string();
        let mut tx = self.begin().await?;
        let now = tx.now();
        let row = q!(
            tx,
            one as RevocationEntry,
            "INSERT INTO revocations (tenant, id, record, author, created_at) VALUES ($1, $2, $3, $4, $5)
             RETURNING id, record, author, created_at",
            tenant,
            &id,
            record,
            author,
            now
        )?;
        tx.tell(tenant, IdentityKind::Revocation, &id, Some(record)).await?;
        tx.commit().await?;
        Ok(row)
    }

    /// Takes a revocation back.
    ///
    /// # Errors
    /// [`StoreError::Missing`]; the database.
    pub async fn unrevoke(&self, id: &str) -> Result<(), StoreError> {
        let tenant = self.tenant().as_str();
        let mut tx = self.begin().await?;
        let gone = q!(tx, execute, "DELETE FROM revocations WHERE tenant = $1 AND id = $2", tenant, id)?;
        if gone == 0 {
            return Err(StoreError::Missing(format!("revocation `{id}`")));
        }
        tx.tell(tenant, IdentityKind::Revocation, id, None).await?;
        tx.commit().await
    }

    /// One revocation.
    ///
    /// # Errors
    /// The database.
    pub async fn revocation(&self, id: &str) -> Result<Option<RevocationEntry>, StoreError> {
        let mut tx = self.read().await?;
        q!(
            tx,
            optional as RevocationEntry,
            "SELECT id, record, author, created_at FROM revocations WHERE tenant = $1 AND id = $2",
            self.tenant().as_str(),
            id
        )
    }

    /// Revocations in the order in which they were made, those after `after`.
    ///
    /// # Errors
    /// The database.
    pub async fn revocations(
        &self,
        after: Option<&str>,
        page: Page,
    ) -> Result<Vec<RevocationEntry>, StoreError> {
        let mut tx = self.read().await?;
        q!(
            tx,
            all as RevocationEntry,
            "SELECT id, record, author, created_at FROM revocations
              WHERE tenant = $1 AND id > $2 ORDER BY id LIMIT $3",
            self.tenant().as_str(),
            after.unwrap_or(""),
            page.limit()
        )
    }
}
