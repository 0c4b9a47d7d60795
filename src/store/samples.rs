//! Recorded requests, for what-if: a bounded sample of each minute and route, as JSON lines.

use std::time::Duration;

use sqlx::types::Uuid;

use super::tx::q;
use super::{Platform, Store, StoreError, TenantScope, Time};
use crate::base::TenantId;
use crate::telemetry::SampleBatch;

/// Rows that one question reads at most; each is a minute of a route on one process.
const MAX_ROWS: i64 = 20_000;

impl Platform<'_> {
    /// Keeps finished minutes of one process. A minute that is there already stays as it is.
    ///
    /// # Errors
    /// The database.
    pub async fn put_samples(&self, writer: Uuid, batches: &[SampleBatch]) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        for batch in batches {
            let lines: Vec<String> =
                batch.samples.iter().filter_map(|sample| serde_json::to_string(sample).ok()).collect();
            let at = Time::from_micros(i64::try_from(batch.minute_ms * 1000).unwrap_or(i64::MAX));
            q!(
                tx,
                execute,
                "INSERT INTO request_samples (tenant, at, route, writer, requests, samples, lines)
                 VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
                &*batch.tenant,
                at,
                &*batch.route,
                writer,
                i64::try_from(batch.requests).unwrap_or(i64::MAX),
                i64::try_from(lines.len()).unwrap_or(i64::MAX),
                lines.join("\n")
            )?;
        }
        tx.commit().await
    }

    /// Forgets minutes before a time. Returns how many rows.
    ///
    /// # Errors
    /// The database.
    pub async fn forget_samples(&self, before: Time) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let gone = q!(tx, execute, "DELETE FROM request_samples WHERE at < $1", before)?;
        tx.commit().await?;
        Ok(gone)
    }
}

impl TenantScope<'_> {
    /// The tenant's samples since a time, oldest first, as JSON lines; at most the newest 20,000 minutes of routes.
    ///
    /// # Errors
    /// The database.
    pub async fn samples(&self, since: Time) -> Result<String, StoreError> {
        Ok(self.latest_samples(since, MAX_ROWS).await?.0)
    }

    /// The same of at most `rows` minutes of routes, the newest; whether there are more.
    ///
    /// # Errors
    /// The database.
    async fn latest_samples(&self, since: Time, most: i64) -> Result<(String, bool), StoreError> {
        let tenant = self.tenant().as_str();
        let mut tx = self.read().await?;
        let mut rows = q!(
            tx,
            scalar_all as String,
            "SELECT lines FROM request_samples WHERE tenant = $1 AND at >= $2 ORDER BY at DESC, route, writer LIMIT $3",
            tenant,
            since,
            most.saturating_add(1)
        )?;
        let cut = i64::try_from(rows.len()).is_ok_and(|found| found > most);
        rows.truncate(usize::try_from(most).unwrap_or(usize::MAX));
        rows.reverse();
        Ok((rows.join("\n"), cut))
    }
}

impl Store {
    /// What [`TenantScope::samples`] says of the last `hours`.
    ///
    /// # Errors
    /// The database.
    pub async fn recent_samples(&self, tenant: &TenantId, hours: u32) -> Result<String, StoreError> {
        let since = self.now().minus(Duration::from_secs(u64::from(hours) * 3600));
        self.tenant(tenant).samples(since).await
    }

    /// The same of at most `rows` minutes of routes, the newest; whether there are more.
    ///
    /// # Errors
    /// The database.
    pub async fn latest_samples(
        &self,
        tenant: &TenantId,
        hours: u32,
        rows: u32,
    ) -> Result<(String, bool), StoreError> {
        let since = self.now().minus(Duration::from_secs(u64::from(hours) * 3600));
        self.tenant(tenant).latest_samples(since, i64::from(rows)).await
    }
}
