//! Headers that mirror the body must say what it says (2026-07-28 streamable HTTP §Server Validation).

use serde_json::json;

use crate::support::{Caller, Era, Gateway, LEGACY, MODERN, Reply, Request, Response, Upstream};

async fn relay() -> (Upstream, Gateway, Caller) {
    let up = Upstream::modern().await;
    let gateway = Gateway::relay(&[&up]).server("era: modern").start().await;
    let caller = gateway.caller();
    (up, gateway, caller)
}

fn id_of(request: &Request) -> serde_json::Value {
    serde_json::from_slice::<serde_json::Value>(&request.body).unwrap()["id"].clone()
}

async fn refused(caller: &Caller, request: &Request) -> Response {
    let response = caller.ask(request).await;
    assert_eq!(response.status(), 400, "{}", response.text());
    assert_eq!(response.json()["id"], id_of(request), "the request's own id");
    response
}

#[tokio::test]
async fn headers_that_say_other_than_the_body_are_refused_and_reach_no_server() {
    let (up, _gateway, caller) = relay().await;
    let tool = || caller.tool("get_time");
    let wrong = [
        ("another name", tool().set("Mcp-Name", "delete_all")),
        ("another case", tool().set("Mcp-Name", "GET_TIME")),
        ("no name", tool().without("Mcp-Name")),
        ("two names", tool().with("Mcp-Name", "get_time")),
        ("another method", tool().set("Mcp-Method", "tools/list")),
        ("no method", tool().without("Mcp-Method")),
        ("two methods", tool().with("Mcp-Method", "tools/call")),
        ("two versions", tool().with("MCP-Protocol-Version", MODERN)),
        ("no version", tool().without("MCP-Protocol-Version")),
        ("base64 of another name", tool().set("Mcp-Name", "=?base64?ZGVsZXRlX2FsbA==?=")),
        ("base64 that is none", tool().set("Mcp-Name", "=?base64?!!?=")),
        (
            "another resource",
            caller.modern("resources/read", json!({ "uri": "a://b" })).set("Mcp-Name", "a://c"),
        ),
        ("another prompt", caller.modern("prompts/get", json!({ "name": "a" })).set("Mcp-Name", "b")),
        ("another task", caller.modern("tasks/get", json!({ "taskId": "a" })).set("Mcp-Name", "b")),
    ];
    for (why, request) in wrong {
        let response = refused(&caller, &request).await;
        assert_eq!(response.code(), -32020, "{why}: {}", response.text());
    }
    assert_eq!(up.calls().len(), 0);
}

#[tokio::test]
async fn names_in_base64_are_read_before_they_are_compared() {
    let (up, _gateway, caller) = relay().await;
    let name = "погода ☀";
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, name);
    let request = caller.tool(name).set("Mcp-Name", &format!("=?base64?{encoded}?="));
    let response = caller.ask(&request).await;
    assert_eq!(response.status(), 200, "{}", response.text());
    let call = up.call("tools/call").await;
    assert_eq!(call.header("mcp-name"), Some(format!("=?base64?{encoded}?=").as_str()), "as it came");
    assert_eq!(call.message()["params"]["name"], name);
}

#[tokio::test]
async fn methods_without_a_name_need_no_name_header() {
    let (_up, _gateway, caller) = relay().await;
    for method in ["tools/list", "prompts/list", "completion/complete"] {
        let response = caller.ask(&caller.modern(method, json!({}))).await;
        assert_eq!(response.status(), 200, "{method}: {}", response.text());
    }
}

#[tokio::test]
async fn the_version_must_be_one_that_is_served() {
    let (_up, _gateway, caller) = relay().await;
    let mut body = crate::support::modern_body("tools/list", json!({}));
    body["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2027-01-01");
    let request = caller
        .modern("tools/list", json!({}))
        .set("MCP-Protocol-Version", "2027-01-01")
        .body(body.to_string());
    let response = refused(&caller, &request).await;
    assert_eq!(response.code(), -32022);
    assert_eq!(response.json()["error"]["data"], json!({ "supported": [MODERN], "requested": "2027-01-01" }));
}

#[tokio::test]
async fn what_meta_requires_is_asked_for() {
    let (_up, _gateway, caller) = relay().await;
    for missing in ["protocolVersion", "clientCapabilities"] {
        let mut body = crate::support::modern_body("tools/list", json!({}));
        let meta = body["params"]["_meta"].as_object_mut().unwrap();
        meta.remove(&format!("io.modelcontextprotocol/{missing}"));
        let request = caller.modern("tools/list", json!({})).body(body.to_string());
        let response = refused(&caller, &request).await;
        assert_eq!(response.code(), -32602, "{missing}: {}", response.text());
    }
}

#[tokio::test]
async fn a_modern_endpoint_takes_posts_only() {
    let (up, gateway, caller) = relay().await;
    gateway.settled().await;
    for method in ["GET", "DELETE"] {
        let response = caller.ask(&caller.request(method).with("Accept", "text/event-stream")).await;
        assert_eq!(response.status(), 405, "{method}");
        assert!(response.header("allow").is_some_and(|allow| allow.contains("POST")), "{:?}", response.head);
    }
    for method in ["PUT", "PATCH", "TRACE"] {
        assert_eq!(caller.ask(&caller.request(method)).await.status(), 405, "{method}");
    }
    assert_eq!(up.calls().len(), 0);
}

#[tokio::test]
async fn session_ids_mean_nothing_in_the_modern_era() {
    let (up, _gateway, caller) = relay().await;
    let response = caller.ask(&caller.tool("get_time").with("Mcp-Session-Id", "whatever")).await;
    assert_eq!(response.status(), 200, "{}", response.text());
    assert_eq!(response.header("mcp-session-id"), None);
    assert_eq!(up.call("tools/call").await.header("mcp-session-id"), None);
}

#[tokio::test]
async fn batches_are_for_the_one_revision_that_has_them() {
    let up = Upstream::scripted(Era::Legacy, |call| {
        call.message().is_array().then(|| Reply::json(&json!([{ "jsonrpc": "2.0", "id": 1, "result": {} }])))
    })
    .await;
    let gateway = Gateway::relay(&[&up]).server("era: legacy").start().await;
    let caller = gateway.caller();
    let batch = json!([{ "jsonrpc": "2.0", "id": 1, "method": "ping" }, { "jsonrpc": "2.0", "method": "n" }]);
    let old = caller.ask(&caller.post(&batch).with("MCP-Protocol-Version", "2025-03-26")).await;
    assert_eq!(old.status(), 200, "{}", old.text());
    for version in ["2025-06-18", LEGACY] {
        let response = caller.ask(&caller.post(&batch).with("MCP-Protocol-Version", version)).await;
        assert_eq!((response.status(), response.code()), (400, -32600), "{version}: {}", response.text());
    }
}

#[tokio::test]
async fn what_is_not_one_clear_message_is_refused() {
    let (up, _gateway, caller) = relay().await;
    let deep = |levels: usize| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{"x":{}{}}}}}"#,
            "[".repeat(levels),
            "]".repeat(levels)
        )
    };
    let cases: [(&str, Vec<u8>, i64); 9] = [
        ("not JSON", b"{".to_vec(), -32700),
        ("empty", Vec::new(), -32700),
        ("invalid UTF-8", b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}".to_vec(), -32700),
        ("a number", b"1".to_vec(), -32600),
        ("no version", br#"{"id":1,"method":"tools/list"}"#.to_vec(), -32600),
        (
            "a key twice",
            br#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/list"}"#.to_vec(),
            -32600,
        ),
        (
            "a key twice, once escaped",
            br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","n\u0061me":"b"}}"#
                .to_vec(),
            -32600,
        ),
        ("too deep", deep(200).into_bytes(), -32600),
        ("far too deep", deep(100_000).into_bytes(), -32600),
    ];
    for (why, body, code) in cases {
        let response = caller.ask(&caller.modern("tools/list", json!({})).body(body)).await;
        assert_eq!((response.status(), response.code()), (400, code), "{why}: {}", response.text());
    }
    assert_eq!(up.calls().len(), 0);
}

#[tokio::test]
async fn a_servers_own_refusals_pass_with_status_and_body() {
    // Clients decide by them whether to fall back: 502 or HTML in their place breaks them.
    for (status, code) in
        [(400, -32020), (400, -32021), (404, -32601), (400, -32602), (409, -1), (500, -32603)]
    {
        let up = Upstream::scripted(Era::Modern, move |call| {
            (call.method() == "tools/call").then(|| Reply::error(status, call, code, "as it is"))
        })
        .await;
        let gateway = Gateway::relay(&[&up]).server("era: modern").start().await;
        let caller = gateway.caller();
        let request = caller.tool("get_time");
        let response = caller.ask(&request).await;
        assert_eq!((response.status(), response.code()), (status, code), "{}", response.text());
        assert_eq!(response.json()["id"], id_of(&request));
        assert_eq!(response.json()["error"]["message"], "as it is");
    }
}
