//! Erasing samples of a principal's requests.
//!
//! They are kept by minute, as lines; each line says itself when it was, and only that counts.

use std::time::Duration;

use sqlx::FromRow;
use sqlx::types::Uuid;

use super::tx::q;
use super::{StoreError, Time, Tx};

/// What samples are kept by.
const MINUTE: Duration = Duration::from_secs(60);
/// Minutes of routes that are in memory at once.
const AT_ONCE: i64 = 100;

#[derive(FromRow)]
struct Sampled {
    at: Time,
    route: String,
    writer: Uuid,
    lines: String,
}

/// When a sample was taken.
#[derive(serde::Deserialize)]
struct When {
    /// In milliseconds since the Unix epoch.
    time: u64,
}

/// Samples that are somebody's and of a time.
struct Theirs<'a> {
    /// How their lines are known.
    sampled: &'a str,
    from: Time,
    before: Time,
}

impl Theirs<'_> {
    fn is(&self, line: &str) -> bool {
        if !line.contains(self.sampled) {
            return false;
        }
        let time = serde_json::from_str::<When>(line).ok().and_then(|when| i64::try_from(when.time).ok());
        // One that does not say when it was goes with its minute.
        let Some(time) = time.and_then(|ms| ms.checked_mul(1000)).map(Time::from_micros) else { return true };
        self.from <= time && time < self.before
    }
}

/// What a sample of somebody's says, as the sampler writes it; inside of any other value the quotes would be escaped.
fn sampled(principal: &str) -> String {
    let name = serde_json::to_string(principal).unwrap_or_default();
    format!("\"principal\":{{\"id\":{name}")
}

/// Walks through the minutes that have samples of somebody's, of any time in them.
struct Minutes<'a> {
    tenant: &'a str,
    theirs: &'a Theirs<'a>,
    /// The one after which to go on.
    after: (Time, String, Uuid),
    done: bool,
}

impl<'a> Minutes<'a> {
    fn new(tenant: &'a str, theirs: &'a Theirs<'a>) -> Self {
        // A minute that began before may reach into the time.
        Self { tenant, theirs, after: (theirs.from.minus(MINUTE), String::new(), Uuid::nil()), done: false }
    }

    /// The next ones; none at the end.
    async fn next(&mut self, tx: &mut Tx) -> Result<Vec<Sampled>, StoreError> {
        if self.done {
            return Ok(Vec::new());
        }
        let (at, route, writer) = &self.after;
        let rows = q!(
            tx, all as Sampled,
            pg "SELECT at, route, writer, lines FROM request_samples
                 WHERE tenant = $1 AND at < $2 AND position($3 IN lines) > 0 AND (at, route, writer) > ($4, $5, $6)
                 ORDER BY at, route, writer LIMIT $7",
            lite "SELECT at, route, writer, lines FROM request_samples
                   WHERE tenant = $1 AND at < $2 AND instr(lines, $3) > 0 AND (at, route, writer) > ($4, $5, $6)
                   ORDER BY at, route, writer LIMIT $7",
            self.tenant,
            self.theirs.before,
            self.theirs.sampled,
            *at,
            route,
            *writer,
            AT_ONCE
        )?;
        self.done = i64::try_from(rows.len()).is_ok_and(|found| found < AT_ONCE);
        if let Some(last) = rows.last() {
            self.after = (last.at, last.route.clone(), last.writer);
        }
        Ok(rows)
    }
}

impl Tx {
    /// Removes samples of a time. The others of the same minute stay as they are.
    pub(super) async fn erase_samples(
        &mut self,
        tenant: &str,
        principal: &str,
        from: Time,
        before: Time,
    ) -> Result<u64, StoreError> {
        let theirs = Theirs { sampled: &sampled(principal), from, before };
        let mut minutes = Minutes::new(tenant, &theirs);
        let mut gone = 0;
        loop {
            let rows = minutes.next(self).await?;
            if rows.is_empty() {
                return Ok(gone);
            }
            for row in rows {
                gone += self.erase_minute(tenant, row, &theirs).await?;
            }
        }
    }

    async fn erase_minute(
        &mut self,
        tenant: &str,
        row: Sampled,
        theirs: &Theirs<'_>,
    ) -> Result<u64, StoreError> {
        let all = row.lines.lines().count();
        let left: Vec<&str> = row.lines.lines().filter(|line| !theirs.is(line)).collect();
        if left.len() == all {
            return Ok(0);
        }
        if left.is_empty() {
            q!(
                self,
                execute,
                "DELETE FROM request_samples WHERE tenant = $1 AND at = $2 AND route = $3 AND writer = $4",
                tenant,
                row.at,
                &row.route,
                row.writer
            )?;
        } else {
            q!(
                self,
                execute,
                "UPDATE request_samples SET samples = $5, lines = $6
                  WHERE tenant = $1 AND at = $2 AND route = $3 AND writer = $4",
                tenant,
                row.at,
                &row.route,
                row.writer,
                i64::try_from(left.len()).unwrap_or(i64::MAX),
                left.join("\n")
            )?;
        }
        Ok((all - left.len()) as u64)
    }

    /// Whether there is a sample of somebody's of a time.
    pub(super) async fn has_samples(
        &mut self,
        tenant: &str,
        principal: &str,
        from: Time,
        before: Time,
    ) -> Result<bool, StoreError> {
        let theirs = Theirs { sampled: &sampled(principal), from, before };
        let mut minutes = Minutes::new(tenant, &theirs);
        loop {
            let rows = minutes.next(self).await?;
            if rows.iter().any(|minute| minute.lines.lines().any(|line| theirs.is(line))) {
                return Ok(true);
            }
            if rows.is_empty() {
                return Ok(false);
            }
        }
    }
}
