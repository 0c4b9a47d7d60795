//! Minutes on their way into the store: usage and metrics of a batch of events, added to what is there.
//!
//! Latencies are merged here, not by the database, and so read before they are written. Only the writer's own drainer
//! writes its rows, so nothing changes them in between. PostgreSQL gets one statement for all rows of a batch: a round
//! trip for each would make many callers slower than they call.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use sqlx::types::Uuid;

use super::audit::signed;
use super::tx::{Conn, q, within};
use super::usage::HOUR;
use super::{StoreError, Time, Tx};
use crate::audit::Latency;
use crate::audit::usage::{Cell, Key, Metric, MetricKey, Sketch};

impl Tx {
    /// Adds to minutes of usage, and notes their hours as dirty.
    pub(super) async fn write_usage(
        &mut self,
        writer: Uuid,
        usage: &[(Key, Cell)],
    ) -> Result<(), StoreError> {
        let Some(span) = span(usage.iter().map(|(key, _)| key.minute_us)) else { return Ok(()) };
        let before = self.usage_sketches(writer, usage, span).await?;
        let sketches = together(usage, &before, |(_, cell)| &cell.sketch, Sketch::merge, Sketch::to_bytes);
        self.put_usage(writer, usage, &sketches).await?;
        let hours: BTreeSet<(&str, Time)> = usage
            .iter()
            .map(|(key, _)| (&*key.tenant, Time::from_micros(signed(key.minute_us)).floor(HOUR)))
            .collect();
        for (tenant, hour) in hours {
            // An update, to hold the row: a roll-up must not take the note away before these minutes can be seen.
            q!(
                self,
                execute,
                "INSERT INTO usage_dirty (tenant, hour) VALUES ($1, $2) ON CONFLICT (tenant, hour) DO UPDATE SET hour = excluded.hour",
                tenant,
                hour
            )?;
        }
        Ok(())
    }

    /// Sketches of the same minutes that are there, by the number of the row.
    async fn usage_sketches(
        &mut self,
        writer: Uuid,
        usage: &[(Key, Cell)],
        (from, to): (Time, Time),
    ) -> Result<HashMap<usize, Sketch>, StoreError> {
        let mut found = Vec::new();
        let (started, patience) = (Instant::now(), self.patience());
        if let Conn::Postgres(conn) = self.conn() {
            let column = |f: fn(&Key) -> &str| usage.iter().map(|(key, _)| f(key)).collect::<Vec<&str>>();
            let rows = sqlx::query_as::<_, (i64, Vec<u8>)>(READ_USAGE)
                .bind(writer)
                .bind(from)
                .bind(to)
                .bind(column(|k| &k.tenant))
                .bind(usage.iter().map(|(key, _)| at(key.minute_us)).collect::<Vec<Time>>())
                .bind(column(|k| &k.principal))
                .bind(column(|k| &k.route))
                .bind(column(|k| &k.server))
                .bind(column(|k| &k.tool));
            let rows = within(patience, rows.fetch_all(&mut **conn)).await;
            self.timed(READ_USAGE, started.elapsed(), rows.is_ok());
            found.extend(rows?.into_iter().map(|(n, bytes)| (place(n), bytes)));
        } else {
            for (n, (key, _)) in usage.iter().enumerate() {
                let stored = q!(
                    self,
                    scalar_optional as Vec<u8>,
                    "SELECT sketch FROM usage_minute WHERE tenant = $1 AND at = $2 AND principal = $3 AND route = $4
                        AND server = $5 AND tool = $6 AND writer = $7",
                    &*key.tenant,
                    at(key.minute_us),
                    &*key.principal,
                    &*key.route,
                    &*key.server,
                    &*key.tool,
                    writer
                )?;
                found.extend(stored.map(|bytes| (n, bytes)));
            }
        }
        // A damaged sketch loses latencies, never counts.
        Ok(found.into_iter().filter_map(|(n, bytes)| Some((n, Sketch::from_bytes(&bytes)?))).collect())
    }

    async fn put_usage(
        &mut self,
        writer: Uuid,
        usage: &[(Key, Cell)],
        sketches: &[Vec<u8>],
    ) -> Result<(), StoreError> {
        let (started, patience) = (Instant::now(), self.patience());
        if let Conn::Postgres(conn) = self.conn() {
            let column = |f: fn(&Key) -> &str| usage.iter().map(|(key, _)| f(key)).collect::<Vec<&str>>();
            let count =
                |f: fn(&Cell) -> u64| usage.iter().map(|(_, cell)| signed(f(cell))).collect::<Vec<i64>>();
            let rows = sqlx::query(WRITE_USAGE)
                .bind(writer)
                .bind(column(|k| &k.tenant))
                .bind(usage.iter().map(|(key, _)| at(key.minute_us)).collect::<Vec<Time>>())
                .bind(column(|k| &k.principal))
                .bind(column(|k| &k.route))
                .bind(column(|k| &k.server))
                .bind(column(|k| &k.tool))
                .bind(count(|c| c.calls))
                .bind(count(|c| c.errors))
                .bind(count(|c| c.bytes_in))
                .bind(count(|c| c.bytes_out))
                .bind(sketches);
            let done = within(patience, rows.execute(&mut **conn)).await;
            self.timed(WRITE_USAGE, started.elapsed(), done.is_ok());
            done?;
            return Ok(());
        }
        for ((key, cell), sketch) in usage.iter().zip(sketches) {
            q!(
                self,
                execute,
                "INSERT INTO usage_minute AS u
                        (tenant, at, principal, route, server, tool, writer, calls, errors, bytes_in, bytes_out, sketch)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
                 ON CONFLICT (tenant, at, principal, route, server, tool, writer) DO UPDATE
                    SET calls = u.calls + excluded.calls, errors = u.errors + excluded.errors,
                        bytes_in = u.bytes_in + excluded.bytes_in, bytes_out = u.bytes_out + excluded.bytes_out,
                        sketch = excluded.sketch",
                &*key.tenant,
                at(key.minute_us),
                &*key.principal,
                &*key.route,
                &*key.server,
                &*key.tool,
                writer,
                signed(cell.calls),
                signed(cell.errors),
                signed(cell.bytes_in),
                signed(cell.bytes_out),
                &sketch[..]
            )?;
        }
        Ok(())
    }

    /// Adds to minutes of metrics. Whoever calls notes their hours as dirty.
    pub(super) async fn write_metrics(
        &mut self,
        writer: Uuid,
        metrics: &[(MetricKey, Metric)],
    ) -> Result<(), StoreError> {
        let Some(span) = span(metrics.iter().map(|(key, _)| key.minute_us)) else { return Ok(()) };
        let before = self.metric_latencies(writer, metrics, span).await?;
        let latencies =
            together(metrics, &before, |(_, metric)| &metric.latency, Latency::merge, Latency::to_json);
        self.put_metrics(writer, metrics, &latencies).await
    }

    /// Latencies of the same minutes that are there, by the number of the row.
    async fn metric_latencies(
        &mut self,
        writer: Uuid,
        metrics: &[(MetricKey, Metric)],
        (from, to): (Time, Time),
    ) -> Result<HashMap<usize, Latency>, StoreError> {
        let mut found = Vec::new();
        let (started, patience) = (Instant::now(), self.patience());
        if let Conn::Postgres(conn) = self.conn() {
            let column =
                |f: fn(&MetricKey) -> &str| metrics.iter().map(|(key, _)| f(key)).collect::<Vec<&str>>();
            let rows = sqlx::query_as::<_, (i64, String)>(READ_METRICS)
                .bind(writer)
                .bind(from)
                .bind(to)
                .bind(column(|k| &k.tenant))
                .bind(metrics.iter().map(|(key, _)| at(key.minute_us)).collect::<Vec<Time>>())
                .bind(column(|k| &k.route))
                .bind(column(|k| &k.server));
            let rows = within(patience, rows.fetch_all(&mut **conn)).await;
            self.timed(READ_METRICS, started.elapsed(), rows.is_ok());
            found.extend(rows?.into_iter().map(|(n, text)| (place(n), text)));
        } else {
            for (n, (key, _)) in metrics.iter().enumerate() {
                let stored = q!(
                    self,
                    scalar_optional as String,
                    "SELECT latency FROM metric_minute
                      WHERE tenant = $1 AND at = $2 AND route = $3 AND server = $4 AND writer = $5",
                    &*key.tenant,
                    at(key.minute_us),
                    &*key.route,
                    &*key.server,
                    writer
                )?;
                found.extend(stored.map(|text| (n, text)));
            }
        }
        Ok(found.into_iter().filter_map(|(n, text)| Some((n, Latency::from_json(&text)?))).collect())
    }

    async fn put_metrics(
        &mut self,
        writer: Uuid,
        metrics: &[(MetricKey, Metric)],
        latencies: &[String],
    ) -> Result<(), StoreError> {
        let (started, patience) = (Instant::now(), self.patience());
        if let Conn::Postgres(conn) = self.conn() {
            let column =
                |f: fn(&MetricKey) -> &str| metrics.iter().map(|(key, _)| f(key)).collect::<Vec<&str>>();
            let count =
                |f: fn(&Metric) -> u64| metrics.iter().map(|(_, m)| signed(f(m))).collect::<Vec<i64>>();
            let rows = sqlx::query(WRITE_METRICS)
                .bind(writer)
                .bind(column(|k| &k.tenant))
                .bind(metrics.iter().map(|(key, _)| at(key.minute_us)).collect::<Vec<Time>>())
                .bind(column(|k| &k.route))
                .bind(column(|k| &k.server))
                .bind(count(|m| m.calls))
                .bind(count(|m| m.errors))
                .bind(count(|m| m.failures))
                .bind(count(|m| m.busy_us))
                .bind(latencies);
            let done = within(patience, rows.execute(&mut **conn)).await;
            self.timed(WRITE_METRICS, started.elapsed(), done.is_ok());
            done?;
            return Ok(());
        }
        for ((key, metric), latency) in metrics.iter().zip(latencies) {
            q!(
                self,
                execute,
                "INSERT INTO metric_minute AS m (tenant, at, route, server, writer, calls, errors, failures, busy_us, latency)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
                 ON CONFLICT (tenant, at, route, server, writer) DO UPDATE
                    SET calls = m.calls + excluded.calls, errors = m.errors + excluded.errors,
                        failures = m.failures + excluded.failures, busy_us = m.busy_us + excluded.busy_us,
                        latency = excluded.latency",
                &*key.tenant,
                at(key.minute_us),
                &*key.route,
                &*key.server,
                writer,
                signed(metric.calls),
                signed(metric.errors),
                signed(metric.failures),
                signed(metric.busy_us),
                &**latency
            )?;
        }
        Ok(())
    }
}

/// The time is asked for as a range, too, so that only the partitions of the batch are looked at.
const READ_USAGE: &str = "SELECT k.n, m.sketch
      FROM UNNEST($4::text[], $5::timestamptz[], $6::text[], $7::text[], $8::text[], $9::text[])
           WITH ORDINALITY AS k(tenant, at, principal, route, server, tool, n)
      JOIN usage_minute m USING (tenant, at, principal, route, server, tool)
     WHERE m.writer = $1 AND m.at BETWEEN $2 AND $3";

const WRITE_USAGE: &str = "INSERT INTO usage_minute AS u
           (tenant, at, principal, route, server, tool, writer, calls, errors, bytes_in, bytes_out, sketch)
    SELECT k.tenant, k.at, k.principal, k.route, k.server, k.tool, $1, k.calls, k.errors, k.bytes_in, k.bytes_out,
           k.sketch
      FROM UNNEST($2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[],
                  $9::bigint[], $10::bigint[], $11::bigint[], $12::bytea[])
           AS k(tenant, at, principal, route, server, tool, calls, errors, bytes_in, bytes_out, sketch)
        ON CONFLICT (tenant, at, principal, route, server, tool, writer) DO UPDATE
       SET calls = u.calls + excluded.calls, errors = u.errors + excluded.errors,
           bytes_in = u.bytes_in + excluded.bytes_in, bytes_out = u.bytes_out + excluded.bytes_out,
           sketch = excluded.sketch";

const READ_METRICS: &str = "SELECT k.n, m.latency
      FROM UNNEST($4::text[], $5::timestamptz[], $6::text[], $7::text[])
           WITH ORDINALITY AS k(tenant, at, route, server, n)
      JOIN metric_minute m USING (tenant, at, route, server)
     WHERE m.writer = $1 AND m.at BETWEEN $2 AND $3";

const WRITE_METRICS: &str = "INSERT INTO metric_minute AS m
           (tenant, at, route, server, writer, calls, errors, failures, busy_us, latency)
    SELECT k.tenant, k.at, k.route, k.server, $1, k.calls, k.errors, k.failures, k.busy_us, k.latency
      FROM UNNEST($2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::bigint[],
                  $9::bigint[], $10::text[])
           AS k(tenant, at, route, server, calls, errors, failures, busy_us, latency)
        ON CONFLICT (tenant, at, route, server, writer) DO UPDATE
       SET calls = m.calls + excluded.calls, errors = m.errors + excluded.errors,
           failures = m.failures + excluded.failures, busy_us = m.busy_us + excluded.busy_us,
           latency = excluded.latency";

/// The stored form of each row's latencies, with those that are there already.
fn together<R, L: Clone, S>(
    rows: &[R],
    before: &HashMap<usize, L>,
    own: impl Fn(&R) -> &L,
    merge: impl Fn(&mut L, &L),
    stored: impl Fn(&L) -> S,
) -> Vec<S> {
    let row = |(n, row): (usize, &R)| match before.get(&n) {
        Some(before) => {
            let mut all = own(row).clone();
            merge(&mut all, before);
            stored(&all)
        }
        None => stored(own(row)),
    };
    rows.iter().enumerate().map(row).collect()
}

fn at(minute_us: u64) -> Time {
    Time::from_micros(signed(minute_us))
}

/// From the first minute to the last; `None` if there is none.
fn span(minutes: impl Iterator<Item = u64> + Clone) -> Option<(Time, Time)> {
    Some((at(minutes.clone().min()?), at(minutes.max()?)))
}

/// A row's number, which the database counts from one.
fn place(n: i64) -> usize {
    usize::try_from(n - 1).unwrap_or(usize::MAX)
}
