//! Metrics in the store: requests by route and server, by minute from the drainer and by hour, and what a time was like.
//!
//! Minutes are written in the drainer's transaction, beside usage, and exactly once like the events they count. Hours are
//! made anew with those of usage, whenever a minute of theirs changed.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::FromRow;

use super::audit::signed;
use super::tx::q;
use super::{Engine, Grain, StoreError, TenantScope, Time, Tx};
use crate::audit::Latency;
use crate::audit::usage::Metric;

const HOUR: Duration = Duration::from_secs(3600);

/// What a route and server were like in a time.
#[derive(Clone, Debug, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct Performance {
    /// The route; empty if there was none.
    pub route: String,
    /// The server; empty if none was asked.
    pub server: String,
    /// Requests.
    pub calls: i64,
    /// Requests that did not end well.
    pub errors: i64,
    /// Those of them for which the server is to blame.
    pub failures: i64,
    /// How long one took on average, in microseconds.
    pub mean_us: i64,
    /// Half of them took no longer.
    pub p50_us: Option<i64>,
    /// 95 of 100 took no longer.
    pub p95_us: Option<i64>,
    /// 99 of 100 took no longer.
    pub p99_us: Option<i64>,
}

#[derive(FromRow)]
struct Row {
    route: String,
    server: String,
    calls: i64,
    errors: i64,
    failures: i64,
    busy_us: i64,
    latency: String,
}

impl Row {
    fn into_metric(self) -> ((String, String), Metric) {
        let count = |n: i64| u64::try_from(n).unwrap_or(0);
        let metric = Metric {
            calls: count(self.calls),
            errors: count(self.errors),
            failures: count(self.failures),
            busy_us: count(self.busy_us),
            // Damage loses durations, never counts.
            latency: Latency::from_json(&self.latency).unwrap_or_default(),
        };
        ((self.route, self.server), metric)
    }
}

fn merged(rows: Vec<Row>) -> BTreeMap<(String, String), Metric> {
    let mut all: BTreeMap<_, Metric> = BTreeMap::new();
    for (name, metric) in rows.into_iter().map(Row::into_metric) {
        all.entry(name).or_default().merge(&metric);
    }
    all
}

impl Tx {
    /// Makes an hour anew of its minutes.
    pub(super) async fn roll_metrics(&mut self, tenant: &str, hour: Time) -> Result<(), StoreError> {
        let minutes = q!(
            self,
            all as Row,
            "SELECT route, server, calls, errors, failures, busy_us, latency FROM metric_minute
              WHERE tenant = $1 AND at >= $2 AND at < $3",
            tenant,
            hour,
            hour.plus(HOUR)
        )?;
        self.put_metric_hour(tenant, hour, merged(minutes)).await
    }

    /// Adds minutes that came late to their hour, and takes them away; see `usage_roll`.
    pub(super) async fn add_late_metrics(&mut self, tenant: &str, hour: Time) -> Result<(), StoreError> {
        let mut rows = q!(
            self,
            all as Row,
            "DELETE FROM metric_minute WHERE tenant = $1 AND at >= $2 AND at < $3
             RETURNING route, server, calls, errors, failures, busy_us, latency",
            tenant,
            hour,
            hour.plus(HOUR)
        )?;
        rows.extend(q!(
            self,
            all as Row,
            "SELECT route, server, calls, errors, failures, busy_us, latency FROM metric_hour
              WHERE tenant = $1 AND at = $2",
            tenant,
            hour
        )?);
        self.put_metric_hour(tenant, hour, merged(rows)).await
    }

    async fn put_metric_hour(
        &mut self,
        tenant: &str,
        hour: Time,
        metrics: BTreeMap<(String, String), Metric>,
    ) -> Result<(), StoreError> {
        q!(self, execute, "DELETE FROM metric_hour WHERE tenant = $1 AND at = $2", tenant, hour)?;
        for ((route, server), metric) in metrics {
            q!(
                self,
                execute,
                "INSERT INTO metric_hour (tenant, at, route, server, calls, errors, failures, busy_us, latency)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
                tenant,
                hour,
                &*route,
                &*server,
                signed(metric.calls),
                signed(metric.errors),
                signed(metric.failures),
                signed(metric.busy_us),
                metric.latency.to_json()
            )?;
        }
        Ok(())
    }
}

impl TenantScope<'_> {
    /// What each route and server were like in a time, those with the most requests first.
    ///
    /// # Errors
    /// The database; there are no metrics by day.
    pub async fn request_performance_summary(
        &self,
        grain: Grain,
        from: Time,
        to: Time,
    ) -> Result<Vec<Performance>, StoreError> {
        let mut tx = self.read().await?;
        let tenant = self.tenant().as_str();
        if tx.store().engine() == Engine::Postgres {
            return q!(
                tx, all as Performance,
                pg "SELECT route, server, calls, errors, failures, mean_us, p50_us, p95_us, p99_us
                      FROM request_performance_summary($1, $2, $3, $4)",
                lite "SELECT $1, $2, $3, $4",
                tenant,
                from,
                to,
                grain.as_str()
            );
        }
        let rows = match grain {
            Grain::Minute => q!(
                tx,
                all as Row,
                "SELECT route, server, calls, errors, failures, busy_us, latency FROM metric_minute
                  WHERE tenant = $1 AND at >= $2 AND at < $3",
                tenant,
                from,
                to
            )?,
            Grain::Hour => q!(
                tx,
                all as Row,
                "SELECT route, server, calls, errors, failures, busy_us, latency FROM metric_hour
                  WHERE tenant = $1 AND at >= $2 AND at < $3",
                tenant,
                from,
                to
            )?,
            Grain::Day => Vec::new(),
        };
        let all = merged(rows).into_iter().map(|((route, server), m)| Performance {
            route,
            server,
            calls: signed(m.calls),
            errors: signed(m.errors),
            failures: signed(m.failures),
            mean_us: signed(m.busy_us / m.calls.max(1)),
            p50_us: m.latency.quantile_us(50),
            p95_us: m.latency.quantile_us(95),
            p99_us: m.latency.quantile_us(99),
        });
        let mut all: Vec<Performance> = all.collect();
        all.sort_by(|a, b| {
            b.calls.cmp(&a.calls).then_with(|| (&a.route, &a.server).cmp(&(&b.route, &b.server)))
        });
        Ok(all)
    }
}
