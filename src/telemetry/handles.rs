//! Counters resolved ahead of the request: what a snapshot holds for each route, server and target.
//!
//! The registry in `metrics` owns these objects and hands out `Arc`s; the same labels give the same object, so a new
//! snapshot goes on counting where the old one stopped. Observing a request takes no lock: array indexing, atomic
//! adds, and for a tool one read of a map that is replaced as a whole when it grows.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::Histogram;

use super::family::{Counter, Family, Gauge, LabelMap};
use super::label::{AuthFailure, CanaryOutcome, CanarySide, Method, Outcome, UpstreamError};

/// What a finished request adds to the metrics.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// Position of the server in the list given to [`Metrics::route`](super::Metrics::route); `None` when the
    /// gateway answered by itself.
    pub server: Option<usize>,
    /// What was asked for.
    pub method: Method,
    /// How it ended.
    pub outcome: Outcome,
    /// From the head of the request to the end of the response.
    pub total: Duration,
    /// How much of that the gateway waited for upstreams.
    pub upstream: Duration,
    /// The server's own name of the tool, for `tools/call`.
    pub tool: Option<&'a str>,
}

/// The metrics of one route in one snapshot. Built when the snapshot is compiled.
#[derive(Debug)]
pub struct RouteMetrics {
    pub(super) shared: Arc<RouteShared>,
    pub(super) gateway: Arc<RouteServer>,
    pub(super) servers: Box<[(Arc<RouteServer>, Arc<ServerMetrics>)]>,
}

impl RouteMetrics {
    /// Counts a finished request. Call it exactly once for each, also for refused ones.
    pub fn observe(&self, sample: &Sample<'_>) {
        let known = sample.server.and_then(|i| self.servers.get(i));
        let by_server = known.map_or(&self.gateway, |(route_server, _)| route_server);
        by_server.requests.get(sample.method, sample.outcome).inc();
        if sample.method.stays_open() {
            return;
        }
        by_server.seconds.observe(sample.total.as_secs_f64());
        self.shared.gateway_seconds.observe(sample.total.saturating_sub(sample.upstream).as_secs_f64());
        if let (Some((_, server)), Some(tool)) = (known, sample.tool)
            && !sample.upstream.is_zero()
        {
            let seconds = sample.upstream.as_secs_f64();
            server.tools.with(tool, sample.outcome.proves_tool(), |h| h.observe(seconds));
        }
    }

    /// Counts a request for which the shared limit of this name did without its server.
    pub fn limit_fell_back(&self, limit: &str) {
        self.shared.limit_fallbacks.with(limit, true, Counter::inc);
    }

    /// Counts a refusal by the limit of this name.
    pub fn limit_refused(&self, limit: &str) {
        self.shared.limit_refusals.with(limit, true, Counter::inc);
    }

    /// Counts a refusal by policy.
    pub fn policy_denied(&self) {
        self.shared.policy_denials.inc();
    }

    /// Counts an open stream until the guard is dropped.
    pub fn stream(&self) -> StreamHeld {
        self.shared.streams.add(1);
        StreamHeld(self.shared.clone())
    }

    /// Open streams of the route now.
    pub fn streams(&self) -> i64 {
        self.shared.streams.get()
    }

    /// The metrics of the server at this position.
    pub fn server(&self, position: usize) -> Option<&Arc<ServerMetrics>> {
        self.servers.get(position).map(|(_, server)| server)
    }
}

/// One open stream; no longer counted once dropped. It keeps the route's series alive if the route is removed.
#[derive(Debug)]
#[must_use = "the stream is no longer counted when this is dropped"]
pub struct StreamHeld(Arc<RouteShared>);

impl Drop for StreamHeld {
    fn drop(&mut self) {
        self.0.streams.add(-1);
    }
}

/// What all snapshots of a route share.
#[derive(Debug)]
pub(super) struct RouteShared {
    pub(super) gateway_seconds: Histogram,
    pub(super) streams: Gauge,
    pub(super) policy_denials: Counter,
    pub(super) limit_fallbacks: LabelMap<Counter>,
    pub(super) limit_refusals: LabelMap<Counter>,
}

/// A server as seen through one route.
#[derive(Debug)]
pub(super) struct RouteServer {
    pub(super) requests: Grid,
    pub(super) seconds: Histogram,
}

/// Counters by method and outcome. Rows are made when a method is first seen, cells when an outcome is: most routes
/// see a handful of the 600 combinations, and an unseen one must not become a series.
#[derive(Debug)]
pub(super) struct Grid {
    rows: [OnceLock<Row>; Method::COUNT],
    family: Arc<Family<Counter>>,
    labels: [Box<str>; 3],
}

type Row = Box<[OnceLock<Counter>; Outcome::COUNT]>;

impl Grid {
    pub(super) fn new(family: Arc<Family<Counter>>, tenant: &str, route: &str, server: &str) -> Self {
        Self {
            rows: [const { OnceLock::new() }; Method::COUNT],
            family,
            labels: [tenant.into(), route.into(), server.into()],
        }
    }

    fn get(&self, method: Method, outcome: Outcome) -> &Counter {
        let row =
            self.rows[method as usize].get_or_init(|| Box::new([const { OnceLock::new() }; Outcome::COUNT]));
        row[outcome as usize].get_or_init(|| {
            let [tenant, route, server] = &self.labels;
            self.family.child(&[tenant, route, server, method.as_str(), outcome.as_str()])
        })
    }

    /// Requests since the start, and those that did not end well.
    pub(super) fn totals(&self) -> (u64, u64) {
        let mut totals = (0, 0);
        for row in self.rows.iter().filter_map(OnceLock::get) {
            for (outcome, counter) in Outcome::ALL.iter().zip(row.iter()) {
                let count = counter.get().map_or(0, Counter::get);
                totals.0 += count;
                totals.1 += if outcome.is_error() { count } else { 0 };
            }
        }
        totals
    }
}

/// The metrics of one server, whatever routes lead to it.
#[derive(Debug)]
pub struct ServerMetrics {
    pub(super) tools: LabelMap<Histogram>,
    pub(super) retries: Counter,
    pub(super) errors: [OnceLock<Counter>; UpstreamError::COUNT],
    pub(super) error_family: Arc<Family<Counter>>,
    pub(super) labels: [Box<str>; 2],
}

impl ServerMetrics {
    /// Counts an attempt after the first.
    pub fn retried(&self) {
        self.retries.inc();
    }

    /// Counts a failed exchange, also one that a retry then repaired.
    pub fn failed(&self, kind: UpstreamError) {
        let [tenant, server] = &self.labels;
        self.errors[kind as usize]
            .get_or_init(|| self.error_family.child(&[tenant, server, kind.as_str()]))
            .inc();
    }
}

/// The metrics of one target.
#[derive(Debug)]
pub struct TargetMetrics {
    pub(super) healthy: Gauge,
    pub(super) in_flight: Gauge,
    pub(super) ejections: Counter,
}

impl TargetMetrics {
    /// Says that the target takes traffic.
    pub fn set_healthy(&self) {
        self.healthy.set(1);
    }

    /// Says that the target takes no traffic.
    pub fn set_unhealthy(&self) {
        self.healthy.set(0);
    }

    /// Counts ejections.
    pub fn ejected(&self, times: u64) {
        self.ejections.add(times);
    }

    /// Says how many exchanges are not finished.
    pub fn set_in_flight(&self, exchanges: u64) {
        self.in_flight.set(i64::try_from(exchanges).unwrap_or(i64::MAX));
    }

    /// Counts an exchange until the guard is dropped.
    pub fn exchange(self: &Arc<Self>) -> ExchangeHeld {
        self.in_flight.add(1);
        ExchangeHeld(self.clone())
    }
}

/// One unfinished exchange with a target; no longer counted once dropped.
#[derive(Debug)]
#[must_use = "the exchange is no longer counted when this is dropped"]
pub struct ExchangeHeld(Arc<TargetMetrics>);

impl Drop for ExchangeHeld {
    fn drop(&mut self) {
        self.0.in_flight.add(-1);
    }
}

/// The metrics of one tenant.
#[derive(Debug)]
pub struct TenantMetrics {
    pub(super) failures: [OnceLock<Counter>; AuthFailure::COUNT],
    pub(super) family: Arc<Family<Counter>>,
    pub(super) canary: [[OnceLock<Counter>; CanaryOutcome::COUNT]; CanarySide::COUNT],
    pub(super) canary_family: Arc<Family<Counter>>,
    pub(super) label: Box<str>,
}

impl TenantMetrics {
    /// Counts a refused credential.
    pub fn auth_failed(&self, reason: AuthFailure) {
        self.failures[reason as usize]
            .get_or_init(|| self.family.child(&[&self.label, reason.as_str()]))
            .inc();
    }
    /// Counts a call while a canary runs.
    pub fn canary_called(&self, side: CanarySide, outcome: CanaryOutcome) {
        self.canary[side as usize][outcome as usize]
            .get_or_init(|| self.canary_family.child(&[&self.label, side.as_str(), outcome.as_str()]))
            .inc();
    }
}
