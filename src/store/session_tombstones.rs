//! Sessions that have ended: kept until their ids have, so that no replica takes one up again.

use std::time::Duration;

use sqlx::FromRow;

use super::tx::q;
use super::{Channel, Platform, StoreError};

/// Tombstones of one notification: PostgreSQL takes 8,000 bytes.
const NOTIFIED_AT_ONCE: usize = 50;

/// A session that has ended.
#[derive(Clone, Debug, PartialEq, Eq, FromRow, serde::Serialize, serde::Deserialize)]
pub struct SessionTombstone {
    /// Whose tenant.
    pub tenant: String,
    /// Which, in hexadecimal.
    pub serial: String,
    /// When it began, in seconds since the Unix epoch.
    pub issued_at: i64,
}

impl Platform<'_> {
    /// Writes down that sessions have ended, and tells all replicas. What is known already stays as it is.
    ///
    /// # Errors
    /// The database.
    pub async fn bury_sessions(&self, ended: &[SessionTombstone]) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let now = tx.now();
        let rows = serde_json::to_value(ended).unwrap_or_default();
        q!(
            tx, execute,
            pg "INSERT INTO session_tombstones (tenant, serial, issued_at, ended_at)
                SELECT tenant, serial, issued_at, $2
                  FROM jsonb_to_recordset($1) AS r(tenant text, serial text, issued_at bigint)
                ON CONFLICT (tenant, serial) DO NOTHING",
            lite "INSERT INTO session_tombstones (tenant, serial, issued_at, ended_at)
                  SELECT value ->> 'tenant', value ->> 'serial', value ->> 'issued_at', $2
                    FROM json_each($1) WHERE true
                  ON CONFLICT (tenant, serial) DO NOTHING",
            sqlx::types::Json(&rows),
            now
        )?;
        for some in ended.chunks(NOTIFIED_AT_ONCE) {
            let payload = serde_json::to_string(some).unwrap_or_default();
            tx.notify(Channel::Sessions, &payload).await?;
        }
        tx.commit().await
    }

    /// All of them.
    ///
    /// # Errors
    /// The database.
    pub async fn session_tombstones(&self) -> Result<Vec<SessionTombstone>, StoreError> {
        let mut tx = self.read().await?;
        q!(tx, all as SessionTombstone, "SELECT tenant, serial, issued_at FROM session_tombstones")
    }

    /// Forgets those that ended more than `age` ago. Returns how many.
    ///
    /// # Errors
    /// The database.
    pub async fn forget_session_tombstones(&self, age: Duration) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let before = tx.now().minus(age);
        let gone = q!(tx, execute, "DELETE FROM session_tombstones WHERE ended_at < $1", before)?;
        tx.commit().await?;
        Ok(gone)
    }
}
