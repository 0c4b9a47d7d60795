//! The demo as a client sees it: whole HTTP exchanges against its router.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{PATH, router};
use crate::base::Clock;

const MODERN: &str = "2026-07-28";

fn demo() -> Router {
    router(CancellationToken::new(), Clock::manual(951_782_400))
}

fn post(body: &Value, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::post(PATH)
        .header("host", "127.0.0.1:1")
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::from(body.to_string())).expect("a valid request")
}

/// The JSON-RPC messages of a response, be it JSON or a stream of events.
async fn messages(response: Response<Body>) -> Vec<Value> {
    let mut bytes = Vec::new();
    let mut stream = response.into_body().into_data_stream();
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk.expect("an unbroken body"));
    }
    let body = String::from_utf8(bytes).expect("text");
    if body.starts_with('{') {
        return vec![serde_json::from_str(&body).expect("JSON")];
    }
    body.lines()
        .filter_map(|line| line.strip_prefix("data:"))
        .filter(|data| !data.trim().is_empty())
        .map(|data| serde_json::from_str(data).expect("JSON"))
        .collect()
}

async fn modern_call(demo: &Router, capabilities: Value, mut params: Value) -> Value {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": capabilities,
    });
    let name = params["name"].as_str().expect("a tool").to_owned();
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    let headers = [("mcp-protocol-version", MODERN), ("mcp-method", "tools/call"), ("mcp-name", &name)];
    let response = demo.clone().oneshot(post(&body, &headers)).await.expect("infallible");
    messages(response).await.pop().expect("a response")
}

#[tokio::test]
async fn a_legacy_client_gets_a_session_and_calls_a_tool() {
    let demo = demo();
    let initialize = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "test", "version": "1" },
    }});
    let response = demo.clone().oneshot(post(&initialize, &[])).await.expect("infallible");
    let session = response.headers()["mcp-session-id"].to_str().expect("ASCII").to_owned();
    let result = messages(response).await.pop().expect("a response");
    assert_eq!(result["result"]["serverInfo"]["name"], "tollgate-demo");
    assert_eq!(result["result"]["capabilities"]["tools"], json!({}), "no list_changed");

    let session_headers = [("mcp-session-id", session.as_str()), ("mcp-protocol-version", "2025-11-25")];
    let call = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {
        "name": "countdown", "arguments": { "from": 2, "step_ms": 10 }, "_meta": { "progressToken": "p" },
    }});
    let response = demo.clone().oneshot(post(&call, &session_headers)).await.expect("infallible");
    let messages = messages(response).await;
    let progress: Vec<_> = messages.iter().filter_map(|m| m["params"]["progress"].as_f64()).collect();
    assert_eq!(progress, [1.0, 2.0]);
    assert_eq!(
        messages.last().expect("a response")["result"]["content"][0]["text"],
        "Counted down from 2 to zero."
    );
}

#[tokio::test]
async fn a_modern_client_calculates_and_gets_errors_it_can_read() {
    let demo = demo();
    let call = |expression: &str| json!({ "name": "calculator", "arguments": { "expression": expression } });
    let sum = modern_call(&demo, json!({}), call("2 * (3 + 4)")).await;
    assert_eq!(sum["result"]["structuredContent"], json!({ "value": 14.0 }));
    let broken = modern_call(&demo, json!({}), call("2 *")).await;
    assert_eq!(broken["result"]["isError"], true);
    assert_eq!(broken["result"]["content"][0]["text"], "expected a number, a name or `(` at position 4");
}

#[tokio::test]
async fn the_time_is_told_at_an_offset() {
    let call = json!({ "name": "time", "arguments": { "offset": "-03:30" } });
    let told = modern_call(&demo(), json!({}), call).await;
    let expected = json!({
        "utc": "2000-02-29T00:00:00Z",
        "local": "2000-02-28T20:30:00-03:30",
        "weekday": "Monday",
        "unix_seconds": 951_782_400,
    });
    assert_eq!(told["result"]["structuredContent"], expected);
}

#[tokio::test]
async fn a_modern_client_is_asked_for_its_order_and_answers_in_a_second_call() {
    let demo = demo();
    let capabilities = json!({ "elicitation": {} });
    let asked = modern_call(&demo, capabilities.clone(), json!({ "name": "order_lunch" })).await;
    assert_eq!(asked["result"]["resultType"], "input_required");
    let form = &asked["result"]["inputRequests"]["order"];
    assert_eq!(form["method"], "elicitation/create");
    assert_eq!(form["params"]["requestedSchema"]["required"], json!(["dish", "portions"]));

    let answer = json!({ "order": { "action": "accept", "content": { "dish": "soup", "portions": 2 } } });
    let ordered =
        modern_call(&demo, capabilities, json!({ "name": "order_lunch", "inputResponses": answer })).await;
    let text = ordered["result"]["content"][0]["text"].as_str().expect("text");
    assert!(text.starts_with("Ordered: 2 × Lentil soup, €13.00"), "{text}");
}

#[tokio::test]
async fn a_client_without_forms_cannot_order() {
    for capabilities in [json!({}), json!({ "elicitation": { "url": {} } })] {
        let refused = modern_call(&demo(), capabilities, json!({ "name": "order_lunch" })).await;
        assert_eq!(refused["error"]["code"], -32021);
    }
}

#[tokio::test]
async fn arguments_out_of_range_are_told_apart_from_unknown_tools() {
    let demo = demo();
    let long =
        modern_call(&demo, json!({}), json!({ "name": "countdown", "arguments": { "from": 61 } })).await;
    assert_eq!(long["result"]["isError"], true);
    let unknown = modern_call(&demo, json!({}), json!({ "name": "rm" })).await;
    assert_eq!(unknown["error"]["code"], -32602);
    let wrong = modern_call(&demo, json!({}), json!({ "name": "echo", "arguments": { "text": 1 } })).await;
    assert_eq!(wrong["error"]["code"], -32602);
}

#[tokio::test]
async fn a_foreign_host_or_origin_is_refused() {
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    let mut foreign_host = post(&ping, &[]);
    foreign_host.headers_mut().insert("host", "evil.example".parse().expect("a value"));
    let foreign_origin = post(&ping, &[("origin", "http://evil.example")]);
    for request in [foreign_host, foreign_origin] {
        let response = demo().oneshot(request).await.expect("infallible");
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
    }
}

#[tokio::test]
async fn an_unknown_session_is_404() {
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    let request = post(&ping, &[("mcp-session-id", "gone"), ("mcp-protocol-version", "2025-11-25")]);
    let response = demo().oneshot(request).await.expect("infallible");
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn shutdown_ends_the_server_even_with_an_open_stream() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let shutdown = CancellationToken::new();
    let server = tokio::spawn(super::serve(listener, shutdown.clone()));
    // A connection that never sends its request is the worst case for a graceful end.
    let idle = tokio::net::TcpStream::connect(address).await.expect("connected");
    shutdown.cancel();
    let ended = tokio::time::timeout(super::DRAIN * 2, server).await.expect("ends in time");
    ended.expect("no panic").expect("no error");
    drop(idle);
}
