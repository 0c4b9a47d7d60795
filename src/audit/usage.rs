//! Usage: calls, errors, bytes and latency of each minute, by tenant, principal, route, server and tool.
//!
//! Counts add up, and so do latency sketches (DDSketch: any quantile within one percent, whatever the distribution), so
//! that minutes make hours and hours days without looking at events again.
//!
//! Beside usage, and from the same events, metrics: requests by route and server alone, whoever called what. They are few,
//! and their latencies are in a form that a database can work with ([`Latency`]).

use std::collections::HashMap;
use std::sync::Arc;

use sketches_ddsketch::{Config, DDSketch};

use super::event::{Class, Event};
use super::latency::Latency;
use super::names::Keys;

/// Microseconds of a minute.
const MINUTE_US: u64 = 60_000_000;

/// What usage is counted by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Whose.
    pub tenant: Arc<str>,
    /// The beginning of the minute, in microseconds since the Unix epoch.
    pub minute_us: u64,
    /// The caller; empty if it was not known.
    pub principal: Arc<str>,
    /// The route; empty if there was none.
    pub route: Arc<str>,
    /// The server; empty if none was asked.
    pub server: Arc<str>,
    /// The tool of a `tools/call`; empty for anything else.
    pub tool: Arc<str>,
}

/// What is counted.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    /// Requests.
    pub calls: u64,
    /// Requests that did not end well.
    pub errors: u64,
    /// Bytes of request bodies.
    pub bytes_in: u64,
    /// Bytes of response bodies.
    pub bytes_out: u64,
    /// Durations.
    pub sketch: Sketch,
}

impl Cell {
    /// Adds another one.
    pub fn merge(&mut self, other: &Cell) {
        self.calls += other.calls;
        self.errors += other.errors;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.sketch.merge(&other.sketch);
    }
}

/// What was counted, by key.
pub type Counted<K, V> = Vec<(K, V)>;

/// A distribution of milliseconds.
#[derive(Clone)]
pub struct Sketch(DDSketch);

impl std::fmt::Debug for Sketch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sketch({})", self.0.count())
    }
}

impl Default for Sketch {
    fn default() -> Self {
        Self::new()
    }
}

impl Sketch {
    /// Of nothing.
    pub fn new() -> Self {
        Self(DDSketch::new(config()))
    }

    /// Adds a duration.
    pub fn add_us(&mut self, micros: u64) {
        self.0.add(micros as f64 / 1000.0);
    }

    /// Adds a duration so many times, at once: strangers choose the number.
    pub fn add_many_us(&mut self, micros: u64, times: u64) {
        self.add_ms(micros as f64 / 1000.0, times);
    }

    pub(super) fn add_ms(&mut self, ms: f64, times: u64) {
        self.0.add_with_count(ms, times);
    }

    /// Adds another one.
    pub fn merge(&mut self, other: &Sketch) {
        // All have the same configuration, which is all that can differ.
        let _ = self.0.merge(&other.0);
    }

    /// The duration in milliseconds below which this share lies.
    pub fn quantile_ms(&self, share: f64) -> Option<f64> {
        self.0.quantile(share).ok().flatten()
    }

    /// How many durations.
    pub fn count(&self) -> usize {
        self.0.count()
    }

    /// For the store.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_java_bytes()
    }

    /// From the store; `None` if the bytes are damaged.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        DDSketch::from_java_bytes(bytes).ok().map(Self)
    }
}

/// One percent of error, and the only configuration that the stored form remembers.
pub(super) fn config() -> Config {
    Config::defaults()
}

/// What metrics are counted by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MetricKey {
    /// Whose.
    pub tenant: Arc<str>,
    /// The beginning of the minute, in microseconds since the Unix epoch.
    pub minute_us: u64,
    /// The route; empty if there was none.
    pub route: Arc<str>,
    /// The server; empty if none was asked.
    pub server: Arc<str>,
}

/// A minute of a route and server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metric {
    /// Requests.
    pub calls: u64,
    /// Requests that did not end well, for whatever reason.
    pub errors: u64,
    /// Those of them for which the server is to blame.
    pub failures: u64,
    /// How long all of them took together, in microseconds.
    pub busy_us: u64,
    /// How long each took.
    pub latency: Latency,
}

impl Metric {
    /// Adds another one.
    pub fn merge(&mut self, other: &Metric) {
        self.calls += other.calls;
        self.errors += other.errors;
        self.failures += other.failures;
        self.busy_us = self.busy_us.saturating_add(other.busy_us);
        self.latency.merge(&other.latency);
    }
}

/// Outcomes for which the server is to blame: it did not answer, not in time, or not as the protocol has it. An answer
/// that says "error" is an answer.
const FAILURES: [&str; 3] = ["timeout", "upstream_error", "upstream_unavailable"];

/// Usage and metrics of a batch of events.
#[derive(Debug, Default)]
pub struct Usage {
    cells: HashMap<Key, Cell, ahash::RandomState>,
    metrics: HashMap<MetricKey, Metric, ahash::RandomState>,
    /// What stands for no tool.
    none: Arc<str>,
}

impl Usage {
    /// Counts an event; `time_us` is the time it has in its chain, `keys` are the event's. Actions of operators are no usage.
    /// One that tells of many requests is that many calls, each of which took what they took on average.
    pub fn count(&mut self, time_us: u64, event: &Event<'_>, keys: &Keys) {
        if event.class != Class::Data {
            return;
        }
        let is_call = event.name.is_some() && event.method == Some("tools/call");
        let key = Key {
            tenant: keys.tenant.clone(),
            minute_us: time_us / MINUTE_US * MINUTE_US,
            principal: keys.principal.clone(),
            route: keys.route.clone(),
            server: keys.server.clone(),
            tool: if is_call { keys.name.clone() } else { self.none.clone() },
        };
        let calls = event.count.unwrap_or(1);
        let errors = if event.outcome == Some("ok") { 0 } else { calls };
        let took = event.duration_us.unwrap_or(0);
        let each = took.checked_div(calls).unwrap_or(0);
        let cell = self.cells.entry(key).or_default();
        cell.calls += calls;
        cell.errors += errors;
        cell.bytes_in += event.bytes_in.unwrap_or(0);
        cell.bytes_out += event.bytes_out.unwrap_or(0);
        cell.sketch.add_many_us(each, calls);
        let key = MetricKey {
            tenant: keys.tenant.clone(),
            minute_us: time_us / MINUTE_US * MINUTE_US,
            route: keys.route.clone(),
            server: keys.server.clone(),
        };
        let metric = self.metrics.entry(key).or_default();
        metric.calls += calls;
        metric.errors += errors;
        metric.failures += if event.outcome.is_some_and(|o| FAILURES.contains(&o)) { calls } else { 0 };
        metric.busy_us = metric.busy_us.saturating_add(took);
        metric.latency.add_many_us(each, calls);
    }

    /// What was counted, in the order of the keys: writers that lock rows in one order cannot deadlock.
    pub fn into_parts(self) -> (Counted<Key, Cell>, Counted<MetricKey, Metric>) {
        let mut cells: Vec<_> = self.cells.into_iter().collect();
        cells.sort_by(|a, b| a.0.cmp(&b.0));
        let mut metrics: Vec<_> = self.metrics.into_iter().collect();
        metrics.sort_by(|a, b| a.0.cmp(&b.0));
        (cells, metrics)
    }
}

#[cfg(test)]
mod tests {
    use super::super::names::Names;
    use super::*;

    #[test]
    fn events_add_up_by_minute_and_sketches_survive_the_store() {
        let mut usage = Usage::default();
        for i in 0..1000u64 {
            let event = Event {
                method: Some("tools/call"),
                name: Some("echo"),
                outcome: Some(if i % 10 == 0 { "timeout" } else { "ok" }),
                bytes_in: Some(2),
                duration_us: Some((i + 1) * 1000),
                ..Event::new(0, "t", Class::Data)
            };
            let keys = Keys::of(&event, &mut Names::default());
            usage.count(MINUTE_US * 5 + i, &event, &keys);
            usage.count(MINUTE_US * 6, &event, &keys);
            usage.count(0, &Event::new(0, "t", Class::Control), &keys);
        }
        let (cells, metrics) = usage.into_parts();
        assert_eq!((cells.len(), metrics.len()), (2, 2));
        let metric = &metrics[0].1;
        assert_eq!((metric.calls, metric.errors, metric.failures), (1000, 100, 100));
        assert_eq!((metric.busy_us, metric.latency.count()), (500_500_000, 1000));
        let (key, cell) = &cells[0];
        assert_eq!((key.minute_us, &*key.tool), (MINUTE_US * 5, "echo"));
        assert_eq!((cell.calls, cell.errors, cell.bytes_in), (1000, 100, 2000));
        let back = Sketch::from_bytes(&cell.sketch.to_bytes()).unwrap();
        let mut both = back.clone();
        both.merge(&cells[1].1.sketch);
        assert_eq!(both.count(), 2000);
        let p99 = both.quantile_ms(0.99).unwrap();
        assert!((p99 - 990.0).abs() < 15.0, "{p99}");
        assert!(Sketch::from_bytes(b"nonsense").is_none());
    }

    #[test]
    fn an_event_of_many_requests_counts_as_all_of_them() {
        let one = Event {
            route: Some("r"),
            outcome: Some("unauthenticated"),
            duration_us: Some(2000),
            ..Event::new(0, "t", Class::Data)
        };
        let keys = Keys::of(&one, &mut Names::default());
        let (mut single, mut told) = (Usage::default(), Usage::default());
        (0..1001).for_each(|_| single.count(0, &one, &keys));
        let many = Event { count: Some(1000), since_us: Some(0), duration_us: Some(2_000_000), ..one };
        told.count(0, &one, &keys);
        told.count(0, &many, &keys);
        let ((single, told), (metrics, told_metrics)) = {
            let (single, told) = (single.into_parts(), told.into_parts());
            ((single.0, told.0), (single.1, told.1))
        };
        assert_eq!(metrics, told_metrics);
        let (a, b) = (&single[0].1, &told[0].1);
        assert_eq!((a.calls, a.errors, a.sketch.count()), (b.calls, b.errors, b.sketch.count()));
        assert_eq!((b.calls, b.errors), (1001, 1001));
        assert_eq!(a.sketch.quantile_ms(0.99), b.sketch.quantile_ms(0.99));
        // However many a stranger makes of it.
        let mut sketch = Sketch::new();
        sketch.add_many_us(5, 1 << 40);
        assert_eq!(sketch.count(), 1 << 40);
    }
}
