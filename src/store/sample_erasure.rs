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

/// Samples of one minute that are somebody's and of a time.
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

impl Tx {
    /// Minutes that have samples of somebody's, of any time in them.
    async fn sampled(
        &mut self,
        tenant: &str,
        sampled: &str,
        from: Time,
        before: Time,
    ) -> Result<Vec<Sampled>, StoreError> {
        q!(
            self, all as Sampled,
            pg "SELECT at, route, writer, lines FROM request_samples
                 WHERE tenant = $1 AND at > $2 AND at < $3 AND position($4 IN lines) > 0",
            lite "SELECT at, route, writer, lines FROM request_samples
                   WHERE tenant = $1 AND at > $2 AND at < $3 AND instr(lines, $4) > 0",
            tenant,
            // A minute that began before may reach into it.
            from.minus(MINUTE),
            before,
            sampled
        )
    }

    /// Removes samples of a time. The others of the same minute stay as they are.
    pub(super) async fn erase_samples(
        &mut self,
        tenant: &str,
        principal: &str,
        from: Time,
        before: Time,
    ) -> Result<u64, StoreError> {
        let sampled = sampled(principal);
        let rows = self.sampled(tenant, &sampled, from, before).await?;
        let theirs = Theirs { sampled: &sampled, from, before };
        let mut gone = 0;
        for row in rows {
            let all = row.lines.lines().count();
            let left: Vec<&str> = row.lines.lines().filter(|line| !theirs.is(line)).collect();
            if left.len() == all {
                continue;
            }
            gone += (all - left.len()) as u64;
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
        }
        Ok(gone)
    }

    /// Whether there is a sample of somebody's of a time.
    pub(super) async fn has_samples(
        &mut self,
        tenant: &str,
        principal: &str,
        from: Time,
        before: Time,
    ) -> Result<bool, StoreError> {
        let sampled = sampled(principal);
        let minutes = self.sampled(tenant, &sampled, from, before).await?;
        let theirs = Theirs { sampled: &sampled, from, before };
        Ok(minutes.iter().any(|minute| minute.lines.lines().any(|line| theirs.is(line))))
    }
}
