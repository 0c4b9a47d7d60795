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

    /// Forgets those of sessions that began more than `age` ago, whose ids are good for nothing by now, and of each tenant
    /// all but the newest `most` and one. Returns how many.
    ///
    /// The one more is how a replica that starts later finds out: it remembers `most`, so it has to forget some of what it
    /// reads, and takes everything as old as those, and older, for ended. What was forgotten here is older than that.
    ///
    /// # Errors
    /// The database.
    pub async fn forget_session_tombstones(&self, age: Duration, most: usize) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let before = tx.now().minus(age).micros() / 1_000_000;
        let mut gone = q!(tx, execute, "DELETE FROM session_tombstones WHERE issued_at < $1", before)?;
        let kept = i64::try_from(most).unwrap_or(i64::MAX - 1) + 1;
        let full = q!(
            tx,
            scalar_all as String,
            "SELECT tenant FROM session_tombstones GROUP BY tenant HAVING count(*) > $1",
            kept
        )?;
        for tenant in full {
            let over = q!(
                tx,
                execute,
                "DELETE FROM session_tombstones WHERE tenant = $1 AND (issued_at, serial) <
                    (SELECT issued_at, serial FROM session_tombstones WHERE tenant = $1
                      ORDER BY issued_at DESC, serial DESC LIMIT 1 OFFSET $2)",
                &tenant,
                kept - 1
            )?;
            tracing::warn!(event = "session_tombstones_over_bound", tenant, most, forgotten = over);
            gone += over;
        }
        tx.commit().await?;
        Ok(gone)
    }
}
