//! From the `log` crate to `tracing`, with a hand on Pingora's tap.

use std::collections::HashMap;
use std::time::Duration;

use log::{Level, Log, Metadata, Record, RecordBuilder};
use parking_lot::Mutex;
use tracing_log::LogTracer;

use crate::base::Clock;
use crate::telemetry::family::Counter;

/// Lines that one place in Pingora's code may log in a [`WINDOW`].
pub const BURST: u32 = 10;

/// How long a place that has used up its [`BURST`] is silent, at most.
pub const WINDOW: Duration = Duration::from_secs(10);

/// Places watched at a time. More than Pingora has that log at `warn` or `error` while serving; places past it share
/// one allowance.
const MAX_PLACES: usize = 256;

/// The logger of the process.
pub(super) struct Bridge {
    inner: LogTracer,
    clock: Clock,
    suppressed: Counter,
    places: Mutex<HashMap<Place, Allowance>>,
}

/// A line of code. `None` is all that finds no room in the map.
type Place = Option<(&'static str, u32)>;

struct Allowance {
    window_began: u64,
    used: u32,
    withheld: u64,
}

enum Verdict {
    Withhold,
    /// Print, and say first how many were withheld.
    Pass(u64),
}

impl Bridge {
    pub(super) fn new(suppressed: Counter, clock: Clock) -> Self {
        Self { inner: LogTracer::new(), clock, suppressed, places: Mutex::default() }
    }

    fn judge(&self, record: &Record<'_>) -> Verdict {
        let now = self.clock.mono_ns();
        let mut places = self.places.lock();
        let place = record.module_path_static().zip(record.line());
        let place = place.filter(|_| places.len() < MAX_PLACES || places.contains_key(&place));
        let fresh = Allowance { window_began: now, used: 0, withheld: 0 };
        let allowance = places.entry(place).or_insert(fresh);
        let mut withheld = 0;
        if now.saturating_sub(allowance.window_began) >= WINDOW.as_nanos() as u64 {
            withheld = allowance.withheld;
            *allowance = Allowance { window_began: now, used: 0, withheld: 0 };
        }
        if allowance.used >= BURST {
            allowance.withheld += 1;
            return Verdict::Withhold;
        }
        allowance.used += 1;
        Verdict::Pass(withheld)
    }

    fn pingora(&self, record: &Record<'_>) {
        let level = match record.level() {
            level @ (Level::Error | Level::Warn) if is_clients_doing(&record.args().to_string()) => {
                level.max(Level::Info)
            }
            level => level,
        };
        let demoted = copy(record, level).build();
        if !self.inner.enabled(demoted.metadata()) {
            self.suppressed.inc();
            return;
        }
        match self.judge(record) {
            Verdict::Withhold => self.suppressed.inc(),
            Verdict::Pass(0) => self.inner.log(&demoted),
            Verdict::Pass(withheld) => {
                let args = record.args();
                let args = format_args!("{args} ({withheld} more like this were withheld before)");
                self.inner.log(&copy(record, level).args(args).build());
            }
        }
    }
}

impl Log for Bridge {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.inner.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        // Only other crates use `log`, and their details may not pass, whatever the filter says.
        if record.level() > Level::Info || !self.enabled(record.metadata()) {
            return;
        }
        if record.target().starts_with("pingora") && record.level() <= Level::Warn {
            self.pingora(record);
        } else {
            self.inner.log(record);
        }
    }

    fn flush(&self) {}
}

/// The same record at another level.
fn copy<'a>(record: &Record<'a>, level: Level) -> RecordBuilder<'a> {
    let mut copy = Record::builder();
    copy.args(*record.args())
        .level(level)
        .target(record.target())
        .module_path(record.module_path())
        .file(record.file())
        .line(record.line());
    copy
}

/// Whether a line reports what a client did: went away, sent nonsense, failed its handshake. Pingora's errors name
/// the side at fault first.
fn is_clients_doing(message: &str) -> bool {
    message.contains("Downstream") || message.contains("to downstream")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_clients_from_upstreams() {
        assert!(is_clients_doing("Fail to proxy:  Downstream ReadError context: x, status: 0, tries: 0"));
        assert!(is_clients_doing("Downstream handshake timeout"));
        assert!(is_clients_doing("failed to send error response to downstream: x"));
        assert!(!is_clients_doing("Fail to proxy:  Upstream ConnectRefused context: x"));
    }

    fn record_at<R>(line: u32, then: impl FnOnce(&Record<'_>) -> R) -> R {
        let args = format_args!("x");
        let mut builder = Record::builder();
        builder.level(Level::Error).target("pingora_core").module_path_static(Some("pingora_core::x"));
        then(&builder.line(Some(line)).args(args).build())
    }

    #[test]
    fn a_place_has_its_burst_and_then_says_what_was_withheld() {
        let clock = Clock::manual(0);
        let bridge = Bridge::new(Counter::detached(), clock.clone());
        let passed = |line| record_at(line, |r| matches!(bridge.judge(r), Verdict::Pass(_)));
        assert_eq!((0..50).filter(|_| passed(1)).count(), BURST as usize);
        assert!(passed(2), "another place has its own");
        clock.advance(WINDOW);
        assert!(record_at(1, |r| matches!(bridge.judge(r), Verdict::Pass(40))));
        assert!(record_at(1, |r| matches!(bridge.judge(r), Verdict::Pass(0))));
    }

    #[test]
    fn places_past_the_bound_share_one_allowance() {
        let bridge = Bridge::new(Counter::detached(), Clock::manual(0));
        let passed = |line| record_at(line, |r| matches!(bridge.judge(r), Verdict::Pass(_)));
        let all = (0..1000).filter(|line| passed(*line)).count();
        assert_eq!(all, MAX_PLACES + BURST as usize);
        assert_eq!(bridge.places.lock().len(), MAX_PLACES + 1);
    }
}
