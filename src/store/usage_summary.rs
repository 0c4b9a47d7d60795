//! A tenant's usage of a time in one row: on PostgreSQL by the function `tenant_usage_summary`, on SQLite by the same sums.

use sqlx::FromRow;

use super::tx::q;
use super::{Engine, Grain, StoreError, TenantScope, Time};

/// A tenant's usage over a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct UsageSummary {
    /// Requests.
    pub calls: i64,
    /// Requests that did not end well.
    pub errors: i64,
    /// Bytes of request bodies.
    pub bytes_in: i64,
    /// Bytes of response bodies.
    pub bytes_out: i64,
    /// How many callers.
    pub principals: i64,
    /// How many routes.
    pub routes: i64,
    /// How many servers.
    pub servers: i64,
    /// How many tools.
    pub tools: i64,
}

macro_rules! summary_lite {
    ($tx:ident, $table:literal, $($bind:expr),*) => {
        q!(
            $tx,
            one as UsageSummary,
            concat!(
                "SELECT coalesce(sum(calls), 0) AS calls, coalesce(sum(errors), 0) AS errors,
                        coalesce(sum(bytes_in), 0) AS bytes_in, coalesce(sum(bytes_out), 0) AS bytes_out,
                        count(DISTINCT nullif(principal, '')) AS principals, count(DISTINCT nullif(route, '')) AS routes,
                        count(DISTINCT nullif(server, '')) AS servers, count(DISTINCT nullif(tool, '')) AS tools
                   FROM ", $table,
                " WHERE tenant = $1 AND at >= $2 AND at < $3"
            ),
            $($bind),*
        )
    };
}

impl TenantScope<'_> {
    /// All of the tenant's usage in a time, by day, or by hour for anything finer.
    ///
    /// # Errors
    /// The database.
    pub async fn tenant_usage_summary(
        &self,
        grain: Grain,
        from: Time,
        to: Time,
    ) -> Result<UsageSummary, StoreError> {
        let mut tx = self.read().await?;
        let tenant = self.tenant().as_str();
        let grain = if grain == Grain::Day { Grain::Day } else { Grain::Hour };
        if tx.store().engine() == Engine::Postgres {
            return q!(
                tx, one as UsageSummary,
                pg "SELECT calls, errors, bytes_in, bytes_out, principals, routes, servers, tools
                      FROM tenant_usage_summary($1, $2, $3, $4)",
                lite "SELECT $1, $2, $3, $4",
                tenant,
                from,
                to,
                grain.as_str()
            );
        }
        if grain == Grain::Day {
            summary_lite!(tx, "usage_day", tenant, from, to)
        } else {
            summary_lite!(tx, "usage_hour", tenant, from, to)
        }
    }
}
