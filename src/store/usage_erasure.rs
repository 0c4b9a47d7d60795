//! Takes a principal's name out of usage: their calls become those of [`ERASED`], and every other sum stays what it was.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::FromRow;
use sqlx::types::Uuid;

use super::tx::q;
use super::{StoreError, Time, Tx};
use crate::audit::usage::Sketch;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// Whose calls those of erased principals are.
pub const ERASED: &str = "[erased]";

/// A row that was taken away because there is one of [`ERASED`] that it belongs to.
#[derive(FromRow)]
struct Taken {
    at: Time,
    route: String,
    server: String,
    tool: String,
    /// Hours and days are of all writers.
    #[sqlx(default)]
    writer: Uuid,
    calls: i64,
    errors: i64,
    bytes_in: i64,
    bytes_out: i64,
    sketch: Vec<u8>,
}

impl Taken {
    fn merged(&self, with: Option<&[u8]>) -> Vec<u8> {
        // A damaged sketch loses latencies, never counts.
        let mut all = Sketch::from_bytes(&self.sketch).unwrap_or_default();
        if let Some(with) = with.and_then(Sketch::from_bytes) {
            all.merge(&with);
        }
        all.to_bytes()
    }
}

/// Gives the rows of a principal before a time to nobody, in one table; how many there were. A table whose rows are of one
/// writer each names that column, and what else tells two rows apart.
macro_rules! give_away {
    ($tx:ident, $table:literal, [$($writer:ident)?], $returned:literal, $alike:literal, $this:literal,
     $that:literal, $tenant:ident, $principal:ident, $before:ident) => {{
        let taken = q!(
            $tx,
            all as Taken,
            concat!(
                "DELETE FROM ", $table, " AS x WHERE x.tenant = $1 AND x.principal = $2 AND x.at < $3
                    AND EXISTS (SELECT 1 FROM ", $table, " e
                                 WHERE e.tenant = x.tenant AND e.at = x.at AND e.principal = $4 AND e.route = x.route
                                   AND e.server = x.server AND e.tool = x.tool", $alike, ")
                 RETURNING at, route, server, tool, calls, errors, bytes_in, bytes_out, sketch", $returned
            ),
            $tenant,
            $principal,
            $before,
            ERASED
        )?;
        let met = taken.len() as u64;
        for row in taken {
            let with = q!(
                $tx,
                scalar_optional as Vec<u8>,
                concat!(
                    "SELECT sketch FROM ", $table, " WHERE tenant = $1 AND principal = $2 AND at = $3 AND route = $4
                        AND server = $5 AND tool = $6", $this
                ),
                $tenant,
                ERASED,
                row.at,
                &row.route,
                &row.server,
                &row.tool
                $(, row.$writer)?
            )?;
            q!(
                $tx,
                execute,
                concat!(
                    "UPDATE ", $table, " SET calls = calls + $7, errors = errors + $8, bytes_in = bytes_in + $9,
                            bytes_out = bytes_out + $10, sketch = $11
                      WHERE tenant = $1 AND principal = $2 AND at = $3 AND route = $4 AND server = $5 AND tool = $6",
                    $that
                ),
                $tenant,
                ERASED,
                row.at,
                &row.route,
                &row.server,
                &row.tool,
                row.calls,
                row.errors,
                row.bytes_in,
                row.bytes_out,
                row.merged(with.as_deref())
                $(, row.$writer)?
            )?;
        }
        let renamed = q!(
            $tx,
            execute,
            concat!("UPDATE ", $table, " SET principal = $4 WHERE tenant = $1 AND principal = $2 AND at < $3"),
            $tenant,
            $principal,
            $before,
            ERASED
        )?;
        met + renamed
    }};
}

impl Tx {
    /// Takes a principal's name out of the minutes before a time, and out of hours and days: `whole` says of all before it,
    /// also those that it lies in. Whoever calls this holds the lock on erasures. Returns how many rows.
    ///
    /// Hours that have minutes of theirs are made anew of them: a roll-up that goes on at the same time may have read the
    /// name already. Minutes first and notes after them, as drainers do.
    pub(super) async fn erase_usage(
        &mut self,
        tenant: &str,
        principal: &str,
        before: Time,
        whole: bool,
    ) -> Result<u64, StoreError> {
        let minutes = q!(
            self,
            scalar_all as Time,
            "SELECT DISTINCT at FROM usage_minute WHERE tenant = $1 AND principal = $2 AND at < $3",
            tenant,
            principal,
            before
        )?;
        let mut rows = give_away!(
            self,
            "usage_minute",
            [writer],
            ", writer",
            " AND e.writer = x.writer",
            " AND writer = $7",
            " AND writer = $12",
            tenant,
            principal,
            before
        );
        let hours: BTreeSet<Time> = minutes.into_iter().map(|at| at.floor(HOUR)).collect();
        for hour in hours {
            q!(
                self,
                execute,
                "INSERT INTO usage_dirty (tenant, hour) VALUES ($1, $2)
                 ON CONFLICT (tenant, hour) DO UPDATE SET hour = excluded.hour",
                tenant,
                hour
            )?;
        }
        // What was said of the hour and the day in which the time lies may be from after it; it is made anew of minutes.
        let (hour, day) = if whole { (before, before) } else { (before.floor(HOUR), before.floor(DAY)) };
        rows += give_away!(self, "usage_hour", [], "", "", "", "", tenant, principal, hour);
        rows += give_away!(self, "usage_day", [], "", "", "", "", tenant, principal, day);
        Ok(rows)
    }
}
