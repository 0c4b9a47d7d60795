use std::time::Duration;

use opentelemetry::Value;
use opentelemetry::trace::{SpanKind, Status};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::base::{RequestId, Secret};
use crate::telemetry::label::Outcome;
use crate::telemetry::session::SessionHash;

const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
const HTTP: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-1111111111111111-01";

fn tracer(ratio: f64, queue: usize) -> (Tracer, mpsc::Receiver<SpanData>, Counter) {
    let (sender, receiver) = mpsc::channel(queue);
    let dropped = Counter::detached();
    (Tracer::recording(sender, dropped.clone(), ratio), receiver, dropped)
}

fn record() -> AccessRecord<'static> {
    AccessRecord {
        rpc_method: Some("tools/call"),
        name: Some("get_forecast"),
        duration: Duration::from_millis(5),
        ..AccessRecord::new(1_700_000_000_123, RequestId::fresh(), "POST", Outcome::Ok)
    }
}

fn attribute<'a>(span: &'a SpanData, key: &str) -> Option<&'a Value> {
    span.attributes.iter().find(|kv| kv.key.as_str() == key).map(|kv| &kv.value)
}

fn finished(record: &AccessRecord<'_>) -> SpanData {
    let (tracer, mut spans, _) = tracer(1.0, 1);
    tracer.finish(&tracer.start(None, None), record);
    spans.try_recv().expect("a span")
}

#[test]
fn without_an_exporter_contexts_pass_untouched_and_none_is_made() {
    let tracer = Tracer::disabled();
    assert_eq!(tracer.start(None, None), RequestTrace::NONE);
    let trace = tracer.start(None, Some(SAMPLED));
    assert_eq!(trace.upstream().map(|c| c.to_traceparent().as_str().to_owned()).as_deref(), Some(SAMPLED));
    assert!(!trace.is_recorded());
    tracer.finish(&trace, &record());
}

#[test]
fn the_span_is_the_child_of_its_caller_and_the_parent_of_the_upstream() {
    let (tracer, mut spans, _) = tracer(0.0, 1);
    let trace = tracer.start(None, Some(SAMPLED));
    tracer.finish(&trace, &record());
    let span = spans.try_recv().expect("a span");
    let upstream = trace.upstream().expect("a context");
    assert_eq!(span.parent_span_id.to_string(), "00f067aa0ba902b7");
    assert_eq!(span.span_context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(span.span_context.span_id().to_string(), upstream.span_id.to_string());
    assert!(upstream.is_sampled());
    assert_eq!(span.end_time.duration_since(span.start_time).expect("in order"), Duration::from_millis(5));
}

#[test]
fn meta_wins_over_the_header_which_becomes_a_link() {
    let (tracer, mut spans, _) = tracer(0.0, 2);
    let trace = tracer.start(Some(SAMPLED), Some(HTTP));
    tracer.finish(&trace, &record());
    let span = spans.try_recv().expect("a span");
    assert_eq!(span.parent_span_id.to_string(), "00f067aa0ba902b7");
    assert_eq!(span.links.links[0].span_context.span_id().to_string(), "1111111111111111");

    tracer.finish(&tracer.start(Some(SAMPLED), Some(SAMPLED)), &record());
    assert!(spans.try_recv().expect("a span").links.links.is_empty(), "the same context is no link");
    assert_eq!(tracer.start(Some("garbage"), Some(HTTP)).parent, TraceContext::parse(HTTP));
}

#[test]
fn an_unsampled_caller_is_followed() {
    let (tracer, mut spans, _) = tracer(1.0, 1);
    let trace = tracer.start(None, Some(UNSAMPLED));
    tracer.finish(&trace, &record());
    assert!(spans.try_recv().is_err());
    assert_eq!(trace.upstream(), TraceContext::parse(UNSAMPLED));
}

#[test]
fn a_share_of_new_traces_is_sampled() {
    for (ratio, range) in [(0.0, 0..=0), (1.0, 1000..=1000), (0.5, 350..=650)] {
        let (tracer, _spans, _) = tracer(ratio, 1);
        let sampled = (0..1000).filter(|_| tracer.start(None, None).is_recorded()).count();
        assert!(range.contains(&sampled), "{sampled} of 1000 at {ratio}");
    }
}

#[test]
fn a_full_queue_counts_what_it_loses() {
    let (tracer, _spans, dropped) = tracer(1.0, 1);
    for _ in 0..3 {
        tracer.finish(&tracer.start(None, None), &record());
    }
    assert_eq!(dropped.get(), 2);
}

#[test]
fn a_tool_call_has_the_attributes_of_the_convention() {
    let span = finished(&AccessRecord {
        protocol: Some("2025-11-25"),
        session: Some(SessionHash::of(b"abc")),
        rpc_id: Some("7"),
        status: 200,
        tenant: "acme",
        ..record()
    });
    assert_eq!(span.name, "tools/call get_forecast");
    assert_eq!(span.span_kind, SpanKind::Server);
    assert_eq!(span.status, Status::Unset);
    for (key, want) in [
        ("mcp.method.name", Value::from("tools/call")),
        ("gen_ai.operation.name", "execute_tool".into()),
        ("gen_ai.tool.name", "get_forecast".into()),
        ("mcp.protocol.version", "2025-11-25".into()),
        ("mcp.session.id", "ba7816bf8f01cfea".into()),
        ("jsonrpc.request.id", "7".into()),
        ("network.transport", "tcp".into()),
        ("http.response.status_code", 200_i64.into()),
        ("tollgate.tenant", "acme".into()),
    ] {
        assert_eq!(attribute(&span, key), Some(&want), "{key}");
    }
    assert_eq!(attribute(&span, "error.type"), None);
}

#[test]
fn errors_have_a_type() {
    let tool = finished(&AccessRecord { outcome: Outcome::ToolError, error: Some("it broke"), ..record() });
    assert_eq!(attribute(&tool, "error.type"), Some(&"tool_error".into()));
    assert_eq!(tool.status, Status::error("it broke"));
    let rpc = finished(&AccessRecord { outcome: Outcome::RpcError, rpc_code: Some(-32602), ..record() });
    assert_eq!(attribute(&rpc, "error.type"), Some(&"-32602".into()));
    assert_eq!(attribute(&rpc, "rpc.response.status_code"), Some(&"-32602".into()));
    let limited = finished(&AccessRecord { outcome: Outcome::Limited, ..record() });
    assert_eq!(attribute(&limited, "error.type"), Some(&"limited".into()));
}

#[test]
fn span_names_are_few() {
    let unknown = finished(&AccessRecord { outcome: Outcome::UnknownItem, ..record() });
    assert_eq!(unknown.name, "tools/call");
    let uri = "postgres://ann:secret@db/x";
    let resource =
        finished(&AccessRecord { rpc_method: Some("resources/read"), name: Some(uri), ..record() });
    assert_eq!(resource.name, "resources/read");
    assert_eq!(attribute(&resource, "mcp.resource.uri"), Some(&"postgres://db/x".into()));
    let made_up = finished(&AccessRecord { rpc_method: Some("x/1234"), name: None, ..record() });
    assert_eq!(made_up.name, "other");
    let stream = finished(&AccessRecord { rpc_method: None, http_method: "GET", ..record() });
    assert_eq!(stream.name, "HTTP GET");
}

/// Reads one HTTP request and answers it with 200.
async fn take_request(listener: &TcpListener) -> Vec<u8> {
    let (mut socket, _) = listener.accept().await.expect("accepts");
    let mut data = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let n = socket.read(&mut chunk).await.expect("reads");
        assert!(n > 0, "closed early");
        data.extend_from_slice(&chunk[..n]);
        let Some(head) = data.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&data[..head]).to_lowercase();
        let length = text.lines().find_map(|l| l.strip_prefix("content-length: ")).expect("a length");
        if data.len() >= head + 4 + length.trim().parse::<usize>().expect("a number") {
            break;
        }
    }
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    socket.write_all(answer).await.expect("writes");
    data
}

fn contains(data: &[u8], needle: &[u8]) -> bool {
    data.windows(needle.len()).any(|w| w == needle)
}

fn config(listener: &TcpListener) -> TraceConfig {
    // Another test may have been first; any provider will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let address = listener.local_addr().expect("bound");
    TraceConfig {
        delay: Duration::from_millis(10),
        ..TraceConfig::new(format!("http://{address}/v1/traces"))
    }
}

#[tokio::test]
async fn spans_reach_a_collector_as_otlp() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let config = TraceConfig {
        headers: vec![("authorization".to_owned(), Secret::new("Bearer a%20b".to_owned()))],
        instance_id: Some("replica-1".to_owned()),
        ..config(&listener)
    };
    let dropped = Counter::detached();
    let (tracer, exporter) = exporter(&config, dropped.clone()).expect("builds");
    let running = tokio::spawn(exporter.run(std::future::pending()));
    tracer.finish(&tracer.start(Some(SAMPLED), None), &record());
    let request = take_request(&listener).await;
    let head = String::from_utf8_lossy(&request).to_lowercase();
    assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
    assert!(head.contains("content-type: application/x-protobuf"));
    assert!(head.contains("authorization: bearer a%20b\r\n"), "values are sent as they are");
    let trace_id = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes();
    for part in [&trace_id[..], b"tools/call get_forecast", b"gen_ai.tool.name", b"tollgate", b"replica-1"] {
        assert!(contains(&request, part), "{}", String::from_utf8_lossy(part));
    }
    drop(tracer);
    running.await.expect("ends with the last tracer");
    assert_eq!(dropped.get(), 0);
}

#[tokio::test]
async fn shutdown_sends_what_is_queued() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let config = TraceConfig { delay: Duration::from_secs(3600), ..config(&listener) };
    let (tracer, exporter) = exporter(&config, Counter::detached()).expect("builds");
    tracer.finish(&tracer.start(Some(SAMPLED), None), &record());
    let running = tokio::spawn(exporter.run(std::future::ready(())));
    assert!(contains(&take_request(&listener).await, b"get_forecast"));
    running.await.expect("ends");
    tracer.finish(&tracer.start(Some(SAMPLED), None), &record());
}

#[tokio::test]
async fn a_collector_that_is_down_costs_spans_and_nothing_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let config = TraceConfig { timeout: Duration::from_millis(200), ..config(&listener) };
    drop(listener);
    let dropped = Counter::detached();
    let (tracer, exporter) = exporter(&config, dropped.clone()).expect("builds");
    tracer.finish(&tracer.start(Some(SAMPLED), None), &record());
    drop(tracer);
    exporter.run(std::future::pending()).await;
    assert_eq!(dropped.get(), 1);
}

#[tokio::test]
async fn a_bad_header_is_named_and_its_value_is_not() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let config = TraceConfig {
        headers: vec![("x-key".to_owned(), Secret::new("s3cret\n".to_owned()))],
        ..config(&listener)
    };
    let error = exporter(&config, Counter::detached()).expect_err("not a header value").to_string();
    assert!(error.contains("x-key") && !error.contains("s3cret"), "{error}");
}
