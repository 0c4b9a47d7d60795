//! What the gateway says about itself: metrics, access log, traces, and the process log.
//!
//! [`Telemetry`] is the handle that the app layer makes once and passes down; nothing here is global except the
//! process log, which `tracing` and `log` make so.
//!
//! **Nothing waits.** The data plane adds to atomics and copies into bounded queues; threads and tasks behind them do
//! the input and output. What finds no room is lost and counted, in a metric for each kind.
//!
//! **Nothing leaks.** No payload, credential or session id reaches any of the four; what clients choose is bounded,
//! escaped, and cannot grow the number of series.
//!
//! | file | what |
//! |---|---|
//! | `names` | every metric, as one table |
//! | `label` | label values from fixed lists |
//! | `metrics`, `series`, `handles`, `family`, `jwks`, `process` | the registry, and counters resolved ahead of requests |
//! | `access`, `json`, `session` | the access log's record and its line |
//! | `lines` | bounded queue and writer thread for both logs |
//! | `trace` | trace context, spans, OTLP export |
//! | `log` | `tracing` and `log` set-up |

mod access;
mod families;
mod family;
mod handles;
mod json;
mod jwks;
mod label;
mod lines;
pub mod log;
mod metrics;
pub mod names;
mod process;
mod sample;
mod sampler;
mod series;
mod session;
mod single;
pub mod trace;

use std::sync::Arc;

pub use self::access::{
    AccessLog, AccessRecord, DEFAULT_CAPACITY as ACCESS_LOG_CAPACITY, MAX_ERROR, MAX_NAME,
};
pub use self::family::{Counter, Gauge, Held};
pub use self::handles::{
    ExchangeHeld, RouteMetrics, Sample, ServerMetrics, StreamHeld, TargetMetrics, TenantMetrics,
};
pub use self::label::{
    AuthFailure, CanaryEnd, CanaryOutcome, CanarySide, Method, Outcome, ReloadOutcome, UpstreamError,
};
pub use self::lines::{BATCH_DELAY, LineQueue, MAX_LINE, Output, OutputError};
pub use self::metrics::{CONTENT_TYPE as METRICS_CONTENT_TYPE, Caps, Metrics, Traffic};
pub use self::sample::{RequestSample, SampledPrincipal};
pub use self::sampler::{
    Batch as SampleBatch, MAX_ARGUMENTS as MAX_SAMPLED_ARGUMENTS, MAX_BATCHES as MAX_SAMPLE_BATCHES, Sampler,
};
pub use self::session::SessionHash;
pub use self::trace::{RequestTrace, TraceContext, TraceId, Tracer};

/// Everything that a finished request is told to. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// The registry.
    pub metrics: Arc<Metrics>,
    /// The access log.
    pub access: AccessLog,
    /// The tracer.
    pub tracer: Tracer,
}

impl Telemetry {
    /// Metrics only.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, access: AccessLog::disabled(), tracer: Tracer::disabled() }
    }

    /// Tells all three about a finished request. Call it exactly once for each, also for refused ones, with the
    /// [`RouteMetrics`] of the request's snapshot, the server's position in that route, and the trace that
    /// [`Tracer::start`] gave. Never waits.
    pub fn observe(
        &self,
        route: &RouteMetrics,
        server: Option<usize>,
        method: Method,
        trace: &RequestTrace,
        record: &AccessRecord<'_>,
    ) {
        let tool = record.name.filter(|_| method == Method::ToolsCall);
        let AccessRecord { outcome, duration: total, upstream, .. } = *record;
        route.observe(&Sample { server, method, outcome, total, upstream, tool });
        self.tracer.finish(trace, record);
        self.access
            .record(&AccessRecord { trace_id: record.trace_id.or_else(|| trace.trace_id()), ..*record });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::{Clock, RequestId};

    #[test]
    fn a_request_reaches_the_metrics_and_the_log_once() {
        let metrics = Metrics::new(Caps::default(), Clock::manual(0), "1");
        let path = tempfile::NamedTempFile::new().expect("a file");
        let output = Output::File(path.path().to_owned());
        let access = AccessLog::start(output, ACCESS_LOG_CAPACITY, Counter::detached()).expect("starts");
        let telemetry = Telemetry { access, ..Telemetry::new(metrics) };
        let route = telemetry.metrics.route(&"t".into(), &"r".into(), &["s".into()]);
        let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = telemetry.tracer.start(None, Some(header));
        let record = AccessRecord {
            name: Some("echo"),
            duration: Duration::from_millis(2),
            upstream: Duration::from_millis(1),
            ..AccessRecord::new(0, RequestId::fresh(), "POST", Outcome::Ok)
        };
        telemetry.observe(&route, Some(0), Method::ToolsCall, &trace, &record);
        assert!(telemetry.access.shutdown(Duration::from_secs(10)));
        let line = std::fs::read_to_string(path.path()).expect("the log");
        let line: serde_json::Value = serde_json::from_str(&line).expect("one line");
        assert_eq!(line["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
        let text = telemetry.metrics.render();
        assert!(
            text.contains(r#"tollgate_tool_seconds_count{server="s",tenant="t",tool="echo"} 1"#),
            "{text}"
        );
    }
}
