//! Traces: whose trace a request belongs to, what goes upstream, and one span for each sampled request.
//!
//! - **Parent.** MCP carries trace context in `params._meta` (SEP-414), HTTP in a header. The one in `_meta` was
//!   written by who made the MCP call and wins; the header's becomes a link if it names another span.
//! - **Sampling** follows the caller: a request that comes with a context is exported if its flag says so. Requests
//!   without a context start a trace, and a fixed share of those is sampled.
//! - **Upstream** sees the gateway's span as its parent when that span is exported, and else the caller's context
//!   untouched, as W3C Trace Context §3.2 asks of a passer-by: a parent that no collector knows would break the trace.
//! - **Off** means off: without an exporter no id is drawn and no span is built.

mod context;
mod export;
mod span;

pub use context::{SpanId, TraceContext, TraceId, TraceParent, is_tracestate};
pub use export::{DRAIN, Exporter, TraceConfig, TraceError, exporter};

use opentelemetry_sdk::trace::SpanData;
use tokio::sync::mpsc;

use super::access::AccessRecord;
use super::family::Counter;

/// Decides on sampling and hands finished spans to the exporter. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tracer(Option<Recorder>);

#[derive(Clone, Debug)]
struct Recorder {
    spans: mpsc::Sender<SpanData>,
    dropped: Counter,
    /// Traces whose last eight bytes are below this are sampled.
    threshold: u64,
}

impl Tracer {
    /// A tracer that only passes contexts on.
    pub fn disabled() -> Self {
        Self(None)
    }

    fn recording(spans: mpsc::Sender<SpanData>, dropped: Counter, sample_ratio: f64) -> Self {
        // The cast saturates: 1.0 samples all but one trace in 2^64.
        let threshold = (sample_ratio.clamp(0.0, 1.0) * u64::MAX as f64) as u64;
        Self(Some(Recorder { spans, dropped, threshold }))
    }

    /// Begins a request: `meta` is `params._meta.traceparent`, `header` the HTTP header of that name. What does not
    /// parse counts as absent.
    pub fn start(&self, meta: Option<&str>, header: Option<&str>) -> RequestTrace {
        let meta = meta.and_then(TraceContext::parse);
        let header = header.and_then(TraceContext::parse);
        let parent = meta.or(header);
        let link = meta.and(header).filter(|header| Some(*header) != meta);
        let Some(recorder) = &self.0 else {
            return RequestTrace { parent, link: None, own: None };
        };
        let own = match parent {
            Some(parent) => parent.is_sampled().then(|| parent.child()),
            None => {
                let root = TraceContext::root();
                root.trace_id.is_below(recorder.threshold).then(|| root.sampled())
            }
        };
        RequestTrace { parent, link, own }
    }

    /// Ends a request: queues its span if it is sampled. Never waits; a span that finds no room is counted.
    pub fn finish(&self, trace: &RequestTrace, record: &AccessRecord<'_>) {
        if let (Some(recorder), Some(own)) = (&self.0, &trace.own)
            && recorder.spans.try_send(span::build(trace, own, record)).is_err()
        {
            recorder.dropped.inc();
        }
    }
}

/// The place of one request in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestTrace {
    parent: Option<TraceContext>,
    link: Option<TraceContext>,
    /// The gateway's own span, if it will be exported.
    own: Option<TraceContext>,
}

impl RequestTrace {
    /// No trace at all.
    pub const NONE: RequestTrace = RequestTrace { parent: None, link: None, own: None };

    /// What to send upstream, in the header and in `_meta`.
    pub fn upstream(&self) -> Option<TraceContext> {
        self.own.or(self.parent)
    }

    /// The trace, for logs.
    pub fn trace_id(&self) -> Option<TraceId> {
        self.upstream().map(|context| context.trace_id)
    }

    /// Whether a span will be exported.
    pub fn is_recorded(&self) -> bool {
        self.own.is_some()
    }
}

#[cfg(test)]
mod tests;
