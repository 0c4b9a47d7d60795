//! From a finished request to a span, in the words of OpenTelemetry's semantic conventions for MCP
//! (`docs/gen-ai/mcp.md`, development status, 2026-10).
//!
//! Never on a span: arguments, results, credentials and session ids. A session appears as its hash.

use std::borrow::Cow;
use std::time::{Duration, UNIX_EPOCH};

use opentelemetry::trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::{RequestTrace, TraceContext};
use crate::telemetry::access::{AccessRecord, safe_name};
use crate::telemetry::label::{Method, Outcome};

/// Most characters of a client's own text in an attribute.
const MAX_TEXT: usize = 256;

pub(super) fn build(trace: &RequestTrace, own: &TraceContext, record: &AccessRecord<'_>) -> SpanData {
    let start_time = UNIX_EPOCH + Duration::from_millis(record.time_ms);
    let mut links = SpanLinks::default();
    links.links.extend(trace.link.map(|link| Link::new(remote(&link), Vec::new(), 0)));
    SpanData {
        span_context: context(own, false),
        parent_span_id: trace.parent.map_or(SpanId::INVALID, |p| SpanId::from_bytes(p.span_id.to_bytes())),
        parent_span_is_remote: trace.parent.is_some(),
        span_kind: SpanKind::Server,
        name: name(record),
        start_time,
        end_time: start_time + record.duration,
        attributes: attributes(record),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links,
        status: status(record),
        instrumentation_scope: InstrumentationScope::builder("tollgate")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    }
}

fn remote(of: &TraceContext) -> SpanContext {
    context(of, true)
}

fn context(of: &TraceContext, is_remote: bool) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(of.trace_id.to_bytes()),
        SpanId::from_bytes(of.span_id.to_bytes()),
        TraceFlags::new(of.flags()),
        is_remote,
        TraceState::NONE,
    )
}

/// `{mcp.method.name} {target}`, and the target only where it is a tool or prompt that exists: span names are few.
fn name(record: &AccessRecord<'_>) -> Cow<'static, str> {
    let Some(method) = record.rpc_method.map(Method::from_rpc) else {
        return Cow::Owned(format!("HTTP {}", safe_name(record.http_method)));
    };
    match record.name {
        Some(target)
            if matches!(method, Method::ToolsCall | Method::PromptsGet) && record.outcome.proves_tool() =>
        {
            Cow::Owned(format!("{method} {}", safe_name(target)))
        }
        _ => Cow::Borrowed(method.as_str()),
    }
}

fn status(record: &AccessRecord<'_>) -> Status {
    match record.outcome.is_error() {
        false => Status::Unset,
        true => Status::error(text(record.error.unwrap_or_default())),
    }
}

fn attributes(record: &AccessRecord<'_>) -> Vec<KeyValue> {
    let mut set = Attributes(Vec::with_capacity(24));
    let method = record.rpc_method.map(Method::from_rpc);
    set.text("mcp.method.name", record.rpc_method);
    match method {
        Some(Method::ToolsCall) => {
            set.add("gen_ai.operation.name", "execute_tool");
            set.name("gen_ai.tool.name", record.name);
        }
        Some(Method::PromptsGet) => set.name("gen_ai.prompt.name", record.name),
        Some(Method::ResourcesRead | Method::ResourcesSubscribe | Method::ResourcesUnsubscribe) => {
            set.name("mcp.resource.uri", record.name);
        }
        _ => {}
    }
    set.text("mcp.protocol.version", record.protocol);
    if let Some(session) = record.session {
        set.add("mcp.session.id", session.to_string());
    }
    set.text("jsonrpc.request.id", record.rpc_id);
    if let Some(code) = record.rpc_code {
        set.add("rpc.response.status_code", code.to_string());
    }
    if record.outcome.is_error() {
        set.add("error.type", error_type(record));
    }
    set.add("network.protocol.name", "http");
    set.add("network.transport", "tcp");
    set.text("http.request.method", Some(record.http_method));
    if record.status != 0 {
        set.add("http.response.status_code", i64::from(record.status));
    }
    if let Some(ip) = record.client_ip {
        set.add("client.address", ip.to_string());
    }
    if let Some(agent) = record.user_agent {
        set.text("user_agent.original", Some(&String::from_utf8_lossy(agent)));
    }
    set.add("tollgate.request_id", record.request_id.to_string());
    set.add("tollgate.outcome", record.outcome.as_str());
    set.text("tollgate.tenant", Some(record.tenant));
    set.text("tollgate.route", record.route);
    set.text("tollgate.server", record.server);
    set.text("tollgate.target", record.target);
    set.text("tollgate.limit", record.limit);
    set.text("tollgate.rule", record.rule);
    // A person's id is personal data; `enduser.pseudo.id` is the convention's place for it.
    set.text("enduser.pseudo.id", record.principal);
    let micros = i64::try_from(record.gateway().as_micros()).unwrap_or(i64::MAX);
    set.add("tollgate.gateway_us", micros);
    set.0
}

/// The JSON-RPC code if one was sent, `tool_error` for a tool's own failure, else how the gateway names the end.
fn error_type(record: &AccessRecord<'_>) -> Value {
    match (record.outcome, record.rpc_code) {
        (Outcome::ToolError, _) => "tool_error".into(),
        (_, Some(code)) => code.to_string().into(),
        (outcome, None) => outcome.as_str().into(),
    }
}

struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn add(&mut self, key: &'static str, value: impl Into<Value>) {
        self.0.push(KeyValue::new(key, value));
    }

    fn text(&mut self, key: &'static str, value: Option<&str>) {
        if let Some(value) = value.filter(|v| !v.is_empty()) {
            self.add(key, text(value));
        }
    }

    fn name(&mut self, key: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.add(key, safe_name(value));
        }
    }
}

fn text(value: &str) -> String {
    value.chars().take(MAX_TEXT).collect()
}
