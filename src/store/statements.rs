//! How long our own statements take, by statement. Works on any database, without its help.
//!
//! The texts are constants of the program, so there are as many entries as there are statements.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

/// Most statements remembered: far more than the program has.
const MAX_STATEMENTS: usize = 1_024;

/// What is known of one statement since the process started.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Statement {
    /// Its text on one line, with `$1` where values stand.
    pub statement: String,
    /// How often it ran.
    pub count: u64,
    /// How often it failed.
    pub failed: u64,
    /// Time spent in all, in microseconds.
    pub total_us: u64,
    /// The longest it took, in microseconds.
    pub max_us: u64,
}

#[derive(Default)]
struct Entry {
    count: u64,
    failed: u64,
    total: Duration,
    max: Duration,
}

/// The statements of one store.
#[derive(Default)]
pub(super) struct Statements(Mutex<HashMap<&'static str, Entry>>);

impl Statements {
    pub(super) fn record(&self, text: &'static str, took: Duration, ok: bool) {
        let mut entries = self.0.lock();
        if entries.len() >= MAX_STATEMENTS && !entries.contains_key(text) {
            return;
        }
        let entry = entries.entry(text).or_default();
        entry.count += 1;
        entry.failed += u64::from(!ok);
        entry.total += took;
        entry.max = entry.max.max(took);
    }

    /// All of them, the one that cost most time first.
    pub(super) fn list(&self) -> Vec<Statement> {
        let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        let mut list: Vec<Statement> = self
            .0
            .lock()
            .iter()
            .map(|(text, entry)| Statement {
                statement: text.split_whitespace().collect::<Vec<_>>().join(" "),
                count: entry.count,
                failed: entry.failed,
                total_us: micros(entry.total),
                max_us: micros(entry.max),
            })
            .collect();
        list.sort_by(|a, b| b.total_us.cmp(&a.total_us).then_with(|| a.statement.cmp(&b.statement)));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_add_up_and_the_dearest_is_first() {
        let statements = Statements::default();
        statements.record("SELECT\n  1", Duration::from_micros(5), true);
        statements.record("SELECT 2", Duration::from_micros(4), false);
        statements.record("SELECT 2", Duration::from_micros(9), true);
        let list = statements.list();
        assert_eq!((list[0].count, list[0].failed, list[0].total_us, list[0].max_us), (2, 1, 13, 9));
        assert_eq!(list[1].statement, "SELECT 1");
    }
}
