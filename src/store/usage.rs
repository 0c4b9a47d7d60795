//! Usage in the store: series and the most active.
//!
//! A minute has a row for each writer, and only that writer's drainer writes it (`minutes`), so replicas never wait for
//! each other. An hour whose minutes changed is noted as dirty in the same transaction; `usage_roll` makes hours and days.

use std::time::Duration;

use sqlx::FromRow;

use super::tx::q;
use super::{StoreError, TenantScope, Time};
use crate::audit::Merged;
use crate::audit::usage::Sketch;

const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// Rows whose latencies are put together at most.
const MAX_SKETCHES: i64 = 10_000;

/// Length of an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grain {
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A day, in UTC.
    Day,
}

impl Grain {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// How long it is.
    pub fn length(self) -> Duration {
        match self {
            Self::Minute => MINUTE,
            Self::Hour => HOUR,
            Self::Day => DAY,
        }
    }
}

/// What usage is added up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageBy {
    /// The caller.
    Principal,
    /// The route.
    Route,
    /// The server.
    Server,
    /// The tool.
    Tool,
}

/// Whose usage is asked for. Fields that are `None` let everything through.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UsageFilter {
    /// The caller.
    pub principal: Option<String>,
    /// The route.
    pub route: Option<String>,
    /// The server.
    pub server: Option<String>,
    /// The tool.
    pub tool: Option<String>,
}

/// Usage of one interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct UsagePoint {
    /// When the interval begins.
    pub at: Time,
    /// Requests.
    pub calls: i64,
    /// Requests that did not end well.
    pub errors: i64,
    /// Bytes of request bodies.
    pub bytes_in: i64,
    /// Bytes of response bodies.
    pub bytes_out: i64,
}

/// Usage of one caller, route, server or tool.
#[derive(Clone, Debug, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct UsageTop {
    /// Its name; empty if there was none.
    pub name: String,
    /// Requests.
    pub calls: i64,
    /// Requests that did not end well.
    pub errors: i64,
    /// Bytes of request bodies.
    pub bytes_in: i64,
    /// Bytes of response bodies.
    pub bytes_out: i64,
}

macro_rules! series {
    ($tx:ident, $table:literal, $($bind:expr),*) => {
        q!(
            $tx,
            all as UsagePoint,
            concat!(
                "SELECT at, CAST(sum(calls) AS BIGINT) AS calls, CAST(sum(errors) AS BIGINT) AS errors,
                        CAST(sum(bytes_in) AS BIGINT) AS bytes_in, CAST(sum(bytes_out) AS BIGINT) AS bytes_out
                   FROM ", $table,
                " WHERE tenant = $1 AND at >= $2 AND at < $3 AND ($4 IS NULL OR principal = $4)
                    AND ($5 IS NULL OR route = $5) AND ($6 IS NULL OR server = $6) AND ($7 IS NULL OR tool = $7)
                  GROUP BY at ORDER BY at"
            ),
            $($bind),*
        )
    };
}

macro_rules! sketches {
    ($tx:ident, $table:literal, $($bind:expr),*) => {
        q!(
            $tx,
            scalar_all as Vec<u8>,
            concat!(
                "SELECT sketch FROM ", $table,
                " WHERE tenant = $1 AND at >= $2 AND at < $3 AND ($4 IS NULL OR principal = $4)
                    AND ($5 IS NULL OR route = $5) AND ($6 IS NULL OR server = $6) AND ($7 IS NULL OR tool = $7)
                  LIMIT $8"
            ),
            $($bind),*
        )
    };
}

macro_rules! top {
    ($tx:ident, $table:literal, $column:literal, $($bind:expr),*) => {
        q!(
            $tx,
            all as UsageTop,
            concat!(
                "SELECT ", $column, " AS name, CAST(sum(calls) AS BIGINT) AS calls, CAST(sum(errors) AS BIGINT) AS errors,
                        CAST(sum(bytes_in) AS BIGINT) AS bytes_in, CAST(sum(bytes_out) AS BIGINT) AS bytes_out
                   FROM ", $table,
                " WHERE tenant = $1 AND at >= $2 AND at < $3
                  GROUP BY ", $column, " ORDER BY 2 DESC, 1 LIMIT $4"
            ),
            $($bind),*
        )
    };
}

impl TenantScope<'_> {
    /// Usage of each interval that has any, in the order of time.
    ///
    /// # Errors
    /// The database.
    pub async fn usage_series(
        &self,
        grain: Grain,
        from: Time,
        to: Time,
        filter: &UsageFilter,
    ) -> Result<Vec<UsagePoint>, StoreError> {
        let mut tx = self.read().await?;
        let tenant = self.tenant().as_str();
        let UsageFilter { principal, route, server, tool } = filter;
        let (principal, route, server, tool) =
            (principal.as_deref(), route.as_deref(), server.as_deref(), tool.as_deref());
        match grain {
            Grain::Minute => series!(tx, "usage_minute", tenant, from, to, principal, route, server, tool),
            Grain::Hour => series!(tx, "usage_hour", tenant, from, to, principal, route, server, tool),
            Grain::Day => series!(tx, "usage_day", tenant, from, to, principal, route, server, tool),
        }
    }

    /// Durations of everything in a time; `None` if they are in more than 10,000 rows, for a part of them would mislead.
    ///
    /// # Errors
    /// The database.
    pub async fn usage_latency(
        &self,
        grain: Grain,
        from: Time,
        to: Time,
        filter: &UsageFilter,
    ) -> Result<Option<Sketch>, StoreError> {
        let mut tx = self.read().await?;
        let tenant = self.tenant().as_str();
        let UsageFilter { principal, route, server, tool } = filter;
        let (principal, route, server, tool) =
            (principal.as_deref(), route.as_deref(), server.as_deref(), tool.as_deref());
        let max = MAX_SKETCHES + 1;
        let rows = match grain {
            Grain::Minute => {
                sketches!(tx, "usage_minute", tenant, from, to, principal, route, server, tool, max)
            }
            Grain::Hour => sketches!(tx, "usage_hour", tenant, from, to, principal, route, server, tool, max),
            Grain::Day => sketches!(tx, "usage_day", tenant, from, to, principal, route, server, tool, max),
        }?;
        if rows.len() as i64 > MAX_SKETCHES {
            return Ok(None);
        }
        let mut all = Merged::default();
        rows.iter().for_each(|bytes| all.add(bytes));
        Ok(Some(all.finish()))
    }

    /// Those with the most calls in a time.
    ///
    /// # Errors
    /// The database.
    pub async fn usage_top(
        &self,
        grain: Grain,
        by: UsageBy,
        from: Time,
        to: Time,
        limit: u32,
    ) -> Result<Vec<UsageTop>, StoreError> {
        let mut tx = self.read().await?;
        let tenant = self.tenant().as_str();
        let n = i64::from(limit);
        match (grain, by) {
            (Grain::Minute, UsageBy::Principal) => top!(tx, "usage_minute", "principal", tenant, from, to, n),
            (Grain::Minute, UsageBy::Route) => top!(tx, "usage_minute", "route", tenant, from, to, n),
            (Grain::Minute, UsageBy::Server) => top!(tx, "usage_minute", "server", tenant, from, to, n),
            (Grain::Minute, UsageBy::Tool) => top!(tx, "usage_minute", "tool", tenant, from, to, n),
            (Grain::Hour, UsageBy::Principal) => top!(tx, "usage_hour", "principal", tenant, from, to, n),
            (Grain::Hour, UsageBy::Route) => top!(tx, "usage_hour", "route", tenant, from, to, n),
            (Grain::Hour, UsageBy::Server) => top!(tx, "usage_hour", "server", tenant, from, to, n),
            (Grain::Hour, UsageBy::Tool) => top!(tx, "usage_hour", "tool", tenant, from, to, n),
            (Grain::Day, UsageBy::Principal) => top!(tx, "usage_day", "principal", tenant, from, to, n),
            (Grain::Day, UsageBy::Route) => top!(tx, "usage_day", "route", tenant, from, to, n),
            (Grain::Day, UsageBy::Server) => top!(tx, "usage_day", "server", tenant, from, to, n),
            (Grain::Day, UsageBy::Tool) => top!(tx, "usage_day", "tool", tenant, from, to, n),
        }
    }
}
