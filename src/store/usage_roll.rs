//! Hours and days of usage, and hours of metrics: made by the leader of the minutes that the drainers wrote.
//!
//! An hour whose minutes changed is noted as dirty. It and its day are made anew from what they consist of, so that doing it
//! twice, or half and again, gives the same.
//!
//! Minutes are forgotten long before hours and days are, and some may come later than that: those of a process whose spool
//! found no way to the store for weeks. Made anew, their hour would be what came late and nothing else. So up to when minutes
//! were forgotten is written down in the transaction that does it ([`FORGOTTEN`]), and what comes late is added to its hour
//! and day and taken away in one transaction: once, too.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::FromRow;

use super::audit::signed;
use super::tx::q;
use super::{Engine, Past, Platform, StoreError, Time, Tx};
use crate::audit::usage::{Cell, Sketch};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// Dirty hours that are read at once.
const PAGE: i64 = 64;

/// Up to when minutes were forgotten.
const FORGOTTEN: &str = "SELECT max(before) FROM usage_forgotten";

#[derive(FromRow)]
struct Row {
    principal: String,
    route: String,
    server: String,
    tool: String,
    calls: i64,
    errors: i64,
    bytes_in: i64,
    bytes_out: i64,
    sketch: Vec<u8>,
}

type Name = (String, String, String, String);
type Cells = BTreeMap<Name, Cell>;

impl Row {
    fn into_cell(self) -> (Name, Cell) {
        let count = |n: i64| u64::try_from(n).unwrap_or(0);
        let cell = Cell {
            calls: count(self.calls),
            errors: count(self.errors),
            bytes_in: count(self.bytes_in),
            bytes_out: count(self.bytes_out),
            // A damaged sketch loses latencies, never counts.
            sketch: Sketch::from_bytes(&self.sketch).unwrap_or_default(),
        };
        ((self.principal, self.route, self.server, self.tool), cell)
    }
}

fn add(cells: &mut Cells, rows: Vec<Row>) {
    for (name, cell) in rows.into_iter().map(Row::into_cell) {
        cells.entry(name).or_default().merge(&cell);
    }
}

/// The rows of a tenant and a time.
macro_rules! rows {
    ($tx:expr, $table:literal, $tenant:expr, $from:expr, $to:expr) => {
        q!(
            $tx,
            all as Row,
            concat!(
                "SELECT principal, route, server, tool, calls, errors, bytes_in, bytes_out, sketch FROM ",
                $table,
                " WHERE tenant = $1 AND at >= $2 AND at < $3"
            ),
            $tenant,
            $from,
            $to
        )
    };
}

/// Puts cells in place of what an interval has.
macro_rules! put {
    ($tx:expr, $table:literal, $tenant:expr, $at:expr, $cells:expr) => {{
        q!($tx, execute, concat!("DELETE FROM ", $table, " WHERE tenant = $1 AND at = $2"), $tenant, $at)?;
        for ((principal, route, server, tool), cell) in $cells {
            q!(
                $tx,
                execute,
                concat!(
                    "INSERT INTO ", $table,
                    " (tenant, at, principal, route, server, tool, calls, errors, bytes_in, bytes_out, sketch)
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
                ),
                $tenant,
                $at,
                &**principal,
                &**route,
                &**server,
                &**tool,
                signed(cell.calls),
                signed(cell.errors),
                signed(cell.bytes_in),
                signed(cell.bytes_out),
                cell.sketch.to_bytes()
            )?;
        }
    }};
}

impl Tx {
    /// Makes an hour and its day anew.
    async fn roll_usage(&mut self, tenant: &str, hour: Time) -> Result<(), StoreError> {
        let mut cells = Cells::new();
        add(&mut cells, rows!(self, "usage_minute", tenant, hour, hour.plus(HOUR))?);
        put!(self, "usage_hour", tenant, hour, &cells);
        let day = hour.floor(DAY);
        let mut cells = Cells::new();
        add(&mut cells, rows!(self, "usage_hour", tenant, day, day.plus(DAY))?);
        put!(self, "usage_day", tenant, day, &cells);
        Ok(())
    }

    /// Adds minutes that came late to their hour and day, and takes them away.
    async fn add_late_usage(&mut self, tenant: &str, hour: Time) -> Result<(), StoreError> {
        let mut late = Cells::new();
        let taken = q!(
            self,
            all as Row,
            "DELETE FROM usage_minute WHERE tenant = $1 AND at >= $2 AND at < $3
             RETURNING principal, route, server, tool, calls, errors, bytes_in, bytes_out, sketch",
            tenant,
            hour,
            hour.plus(HOUR)
        )?;
        add(&mut late, taken);
        let mut cells = late.clone();
        add(&mut cells, rows!(self, "usage_hour", tenant, hour, hour.plus(HOUR))?);
        put!(self, "usage_hour", tenant, hour, &cells);
        let (day, mut cells) = (hour.floor(DAY), late);
        add(&mut cells, rows!(self, "usage_day", tenant, day, day.plus(DAY))?);
        put!(self, "usage_day", tenant, day, &cells);
        Ok(())
    }
}

impl Platform<'_> {
    /// Makes hours and days whose minutes changed, each at most once, however many change meanwhile. For the leader; several
    /// may do it at once. Returns how many hours.
    ///
    /// # Errors
    /// The database is away. An hour that cannot be made for another reason keeps no other from it; the log has it.
    pub async fn usage_roll_up(&self) -> Result<usize, StoreError> {
        let mut made = 0;
        let mut last = (String::new(), Time::from_micros(0));
        loop {
            let dirty = {
                let mut tx = self.read().await?;
                q!(
                    tx,
                    all as (String, Time),
                    "SELECT tenant, hour FROM usage_dirty WHERE (tenant, hour) > ($1, $2) ORDER BY tenant, hour LIMIT $3",
                    &last.0,
                    last.1,
                    PAGE
                )?
            };
            for (tenant, hour) in &dirty {
                match self.roll(tenant, *hour).await {
                    Ok(done) => made += usize::from(done),
                    Err(error @ (StoreError::CommitUnknown(_) | StoreError::Unavailable(_))) => {
                        return Err(error);
                    }
                    Err(error) => {
                        tracing::error!(event = "usage_hour_not_made", tenant, hour = %hour, %error);
                    }
                }
            }
            match dirty.into_iter().last() {
                Some(place) => last = place,
                None => return Ok(made),
            }
        }
    }

    /// Makes one hour. `false`: another process has.
    async fn roll(&self, tenant: &str, hour: Time) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        // Whoever drains into this hour now waits, or has been seen.
        let noted = q!(tx, execute, "DELETE FROM usage_dirty WHERE tenant = $1 AND hour = $2", tenant, hour)?;
        if noted == 0 {
            return Ok(false);
        }
        let forgotten = q!(tx, scalar as Option<Time>, FORGOTTEN)?;
        if forgotten.is_some_and(|before| hour < before) {
            tx.add_late_usage(tenant, hour).await?;
            tx.add_late_metrics(tenant, hour).await?;
        } else {
            tx.roll_usage(tenant, hour).await?;
            tx.roll_metrics(tenant, hour).await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    /// Forgets minutes of usage and of metrics before a time, but none of an hour that has not been made yet. Returns how
    /// many rows, or on PostgreSQL partitions.
    ///
    /// # Errors
    /// The database.
    pub async fn usage_forget_minutes(&self, before: Time) -> Result<u64, StoreError> {
        // What goes at once: partitions, of all tenants, on one engine.
        let grain = if self.store().engine() == Engine::Postgres { DAY } else { HOUR };
        let wanted = before.floor(grain);
        let mut tx = self.read().await?;
        let done = q!(tx, scalar as Option<Time>, FORGOTTEN)?;
        drop(tx);
        if done.is_some_and(|done| done >= wanted) {
            return Ok(0);
        }
        let mut tx = self.begin().await?;
        // Nobody is in the middle of writing minutes, so that every hour that is to be made is noted. In the order in which
        // drainers write.
        q!(
            tx, execute,
            pg "LOCK TABLE usage_minute, metric_minute IN ACCESS EXCLUSIVE MODE",
            lite "SELECT 1"
        )?;
        let open =
            q!(tx, scalar as Option<Time>, "SELECT min(hour) FROM usage_dirty WHERE hour < $1", wanted)?;
        // The oldest hour that is still to be made keeps what is later, too.
        let before = open.map_or(wanted, |hour| hour.min(wanted)).floor(grain);
        q!(
            tx, execute,
            pg "INSERT INTO usage_forgotten AS f (one, before) VALUES (true, $1)
                ON CONFLICT (one) DO UPDATE SET before = greatest(f.before, excluded.before)",
            lite "INSERT INTO usage_forgotten AS f (one, before) VALUES (1, $1)
                  ON CONFLICT (one) DO UPDATE SET before = max(f.before, excluded.before)",
            before
        )?;
        let mut gone = 0;
        for table in [Past::UsageMinute, Past::MetricMinute] {
            gone += tx.forget_past(table, before).await?;
        }
        tx.commit().await?;
        Ok(gone)
    }
}
