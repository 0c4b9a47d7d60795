//! Tables that grow with time: their partitions, made ahead and dropped by retention. SQLite has none; rows go one by one.

use super::tx::q;
use super::{Engine, Platform, StoreError, Time, Tx};

const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);

/// A table of what was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// Changes of targets' states.
    HealthChanges,
    /// Health by hour.
    HealthHour,
    /// Health by minute.
    HealthMinute,
    /// Requests by hour, route and server.
    MetricHour,
    /// Requests by minute, route and server.
    MetricMinute,
    /// Usage by hour.
    UsageHour,
    /// Usage by minute.
    UsageMinute,
}

impl Past {
    /// The table's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HealthChanges => "health_changes",
            Self::HealthHour => "health_hour",
            Self::HealthMinute => "health_minute",
            Self::MetricHour => "metric_hour",
            Self::MetricMinute => "metric_minute",
            Self::UsageHour => "usage_hour",
            Self::UsageMinute => "usage_minute",
        }
    }
}

impl Platform<'_> {
    /// Makes the partitions that a day belongs to, if there are such things here.
    ///
    /// # Errors
    /// The database.
    pub async fn history_day(&self, day: Time) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        tx.without_queue().await?;
        q!(
            tx, execute,
            pg "SELECT tollgate_history_day(($1 AT TIME ZONE 'UTC')::date)",
            lite "SELECT $1",
            day
        )?;
        tx.commit().await
    }

    /// Forgets what a table has of before a time. On PostgreSQL that means whole days or months; what is in no partition
    /// of those goes to the day. Returns how many rows or partitions went.
    ///
    /// # Errors
    /// The database.
    pub async fn forget_past(&self, table: Past, before: Time) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        tx.without_queue().await?;
        let gone = tx.forget_past(table, before).await?;
        tx.commit().await?;
        Ok(gone)
    }
}

impl Tx {
    pub(super) async fn forget_past(&mut self, table: Past, before: Time) -> Result<u64, StoreError> {
        match self.store().engine() {
            Engine::Postgres => {
                let gone = q!(
                    self, scalar as i64,
                    pg "SELECT tollgate_history_drop($1, ($2 AT TIME ZONE 'UTC')::date)",
                    lite "SELECT 0",
                    table.as_str(),
                    before.floor(DAY)
                )?;
                Ok(u64::try_from(gone).unwrap_or(0))
            }
            Engine::Sqlite => match table {
                Past::HealthChanges => q!(self, execute, "DELETE FROM health_changes WHERE at < $1", before),
                Past::HealthHour => q!(self, execute, "DELETE FROM health_hour WHERE at < $1", before),
                Past::HealthMinute => q!(self, execute, "DELETE FROM health_minute WHERE at < $1", before),
                Past::MetricHour => q!(self, execute, "DELETE FROM metric_hour WHERE at < $1", before),
                Past::MetricMinute => q!(self, execute, "DELETE FROM metric_minute WHERE at < $1", before),
                Past::UsageHour => q!(self, execute, "DELETE FROM usage_hour WHERE at < $1", before),
                Past::UsageMinute => q!(self, execute, "DELETE FROM usage_minute WHERE at < $1", before),
            },
        }
    }
}
