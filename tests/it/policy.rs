//! Who may do what: what is denied does not exist for who may not use it.

use serde_json::{Value, json};

use crate::support::{Builder, Era, Gateway, Issuer, Reply, Upstream};

fn ruled(up: &Upstream, rules: &str) -> Builder {
    Gateway::relay(&[up]).route("policy: p").more(&format!("policies:\n  - name: p\n{rules}"))
}

const READERS: &str = "    rules:\n      - allow: { tools: [\"get_*\"] }\n";

fn names(list: &Value) -> Vec<&str> {
    list["result"]["tools"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_denied_tool_is_neither_listed_nor_known_in_the_modern_era() {
    let up = Upstream::modern().await;
    let gateway = ruled(&up, READERS).server("era: modern").start().await;
    let caller = gateway.caller();
    let list = caller.ask(&caller.modern("tools/list", json!({}))).await.json();
    assert_eq!(names(&list), ["get_time"]);
    let request = caller.tool("delete_all");
    let response = caller.ask(&request).await;
    assert_eq!((response.status(), response.code()), (200, -32602), "{}", response.text());
    assert_eq!(response.json()["error"]["message"], "Unknown tool: delete_all");
    assert_eq!(response.json()["id"], serde_json::from_slice::<Value>(&request.body).unwrap()["id"]);
    assert_eq!(caller.ask(&caller.tool("get_time")).await.status(), 200);
    assert_eq!(up.count("tools/call"), 1);
    assert_eq!(gateway.metric("tollgate_policy_denials_total", &["route=\"s\""]).await, 1.0);
}

#[tokio::test]
async fn a_denied_tool_is_neither_listed_nor_known_in_the_legacy_era() {
    let up = Upstream::legacy().await;
    let gateway = ruled(&up, READERS).server("era: legacy").start().await;
    let session = gateway.caller().initialize().await;
    let list = session.ask(&session.call("tools/list", json!({}))).await.json();
    assert_eq!(names(&list), ["get_time"]);
    let response = session.ask(&session.tool("delete_all")).await;
    assert_eq!((response.status(), response.code()), (200, -32602), "{}", response.text());
    assert_eq!(session.ask(&session.tool("get_time")).await.json()["error"], Value::Null);
    assert_eq!(up.count("tools/call"), 1);
}

#[tokio::test]
async fn a_list_that_depends_on_the_caller_is_private() {
    let up = Upstream::modern().await;
    let filtered = ruled(&up, READERS).server("era: modern").start().await;
    let open = Gateway::relay(&[&up]).server("era: modern").start().await;
    for (gateway, scope) in [(&filtered, "private"), (&open, "public")] {
        let caller = gateway.caller();
        let list = caller.ask(&caller.modern("tools/list", json!({}))).await.json();
        assert_eq!(list["result"]["cacheScope"], scope);
        assert_eq!(list["result"]["ttlMs"], 5000);
    }
}

#[tokio::test]
async fn a_list_in_an_event_stream_is_filtered_too() {
    let up = Upstream::scripted(Era::Legacy, |call| {
        (call.method() == "tools/list").then(|| {
            let tools = json!([{ "name": "get_time" }, { "name": "delete_all" }]);
            let message =
                json!({ "jsonrpc": "2.0", "id": call.message()["id"], "result": { "tools": tools } });
            Reply::body(
                200,
                "text/event-stream",
                format!(": hello\n\nid: 1\nevent: message\ndata: {message}\n\n"),
            )
        })
    })
    .await;
    let gateway = ruled(&up, READERS).server("era: legacy").start().await;
    let session = gateway.caller().initialize().await;
    let response = session.ask(&session.call("tools/list", json!({}))).await;
    assert_eq!(names(&response.json()), ["get_time"]);
    assert!(response.text().starts_with(": hello\n\nid: 1\n"), "{:?}", response.text());
}

#[tokio::test]
async fn a_list_that_cannot_be_read_does_not_pass() {
    for body in ["<html>delete_all</html>", "{\"result\":{\"tools\":[{\"name\":\"delete_all\"}", "[]x"] {
        let up = Upstream::scripted(Era::Modern, move |call| {
            (call.method() == "tools/list").then(|| Reply::body(200, "application/json", body))
        })
        .await;
        let gateway = ruled(&up, READERS).server("era: modern").start().await;
        let caller = gateway.caller();
        let response = caller.ask(&caller.modern("tools/list", json!({}))).await;
        assert_eq!(response.status(), 502, "{body}: {}", response.text());
        assert!(!response.text().contains("delete_all"), "{}", response.text());
    }
}

#[tokio::test]
async fn a_list_that_is_too_large_to_check_does_not_pass() {
    let tool = json!({ "name": "delete_all", "description": "x".repeat(17 << 20) });
    let body = json!({ "jsonrpc": "2.0", "id": 1, "result": { "tools": [tool] } }).to_string();
    let up = Upstream::scripted(Era::Modern, move |call| {
        (call.method() == "tools/list").then(|| Reply::body(200, "application/json", body.clone()))
    })
    .await;
    let gateway = ruled(&up, READERS).server("era: modern").start().await;
    let caller = gateway.caller();
    let response = caller.ask(&caller.modern("tools/list", json!({}))).await;
    assert_eq!(response.status(), 502, "{} bytes", response.body.len());
    assert!(!response.text().contains("delete_all"));
}

#[tokio::test]
async fn a_stream_that_is_denied_is_not_opened() {
    let up = Upstream::legacy().await;
    let rules = "    default: allow\n    rules:\n      - deny: { methods: [subscriptions/listen] }\n";
    let gateway = ruled(&up, rules).server("era: legacy").start().await;
    let session = gateway.caller().initialize().await;
    assert_eq!(session.ask(&session.get()).await.status(), 403);
    assert!(up.calls().iter().all(|call| call.verb() != "GET"));
    assert_eq!(session.ask(&session.tool("get_time")).await.status(), 200, "calls are not streams");
}

#[tokio::test]
async fn roles_see_what_is_theirs() {
    let up = Upstream::modern().await;
    let issuer = Issuer::new("corp");
    let rules = "    rules:\n      - allow: { roles: [developer], tools: [\"*\"] }\n      - allow: { roles: [viewer], \
                 tools: [\"get_*\"] }\n";
    let gateway = ruled(&up, rules)
        .server("era: modern")
        .identity(&format!("issuers: [{}]", issuer.yaml()))
        .start()
        .await;
    for (role, expected) in [("viewer", 1), ("developer", 3)] {
        let mut claims = issuer.claims(role, &gateway.url());
        claims["role"] = json!(role);
        let caller = gateway.caller().bearer(&issuer.sign(&claims));
        let list = caller.ask(&caller.modern("tools/list", json!({}))).await.json();
        assert_eq!(names(&list).len(), expected, "{role}");
        let unknown = caller.ask(&caller.tool("write_file")).await.code() == -32602;
        assert_eq!(unknown, role == "viewer", "{role}");
    }
}

#[tokio::test]
async fn expressions_read_the_arguments_that_the_server_gets() {
    let up = Upstream::modern().await;
    let rules = "    rules:\n      - deny: { tools: [\"*\"] }\n        when: 'has(arguments.path) && \
                 arguments.path.startsWith(\"/etc\")'\n      - allow: { tools: [\"write_*\", \"get_*\"] }\n";
    let gateway = ruled(&up, rules).server("era: modern").start().await;
    let caller = gateway.caller();
    let call = async |arguments: Value| {
        let request = caller.modern("tools/call", json!({ "name": "write_file", "arguments": arguments }));
        caller.ask(&request).await.code()
    };
    assert_eq!(call(json!({ "path": "/srv/x" })).await, 0);
    assert_eq!(call(json!({})).await, 0);
    assert_eq!(call(json!({ "path": "/etc/passwd" })).await, -32602);
    assert_eq!(call(json!({ "path": 7 })).await, -32602, "an expression that fails denies");
    // The same path in other letters of JSON.
    let body = crate::support::modern_body("tools/call", json!({ "name": "write_file", "arguments": {} }))
        .to_string();
    let escaped = body.replace("\"arguments\":{}", r#""arguments":{"p\u0061th":"\u002fetc/passwd"}"#);
    assert_ne!(body, escaped);
    assert_eq!(caller.ask(&caller.tool("write_file").body(escaped)).await.code(), -32602);
    let list = caller.ask(&caller.modern("tools/list", json!({}))).await.json();
    assert_eq!(names(&list), ["get_time", "write_file"], "some arguments are allowed, so it is listed");
}

#[tokio::test]
async fn a_policy_that_explains_says_which_rule() {
    let up = Upstream::modern().await;
    let rules = "    explain: true\n    default: allow\n    rules:\n      - { name: no-deletes, deny: { tools: \
                 [\"delete_*\"] } }\n";
    let gateway = ruled(&up, rules).server("era: modern").start().await;
    let caller = gateway.caller();
    let response = caller.ask(&caller.tool("delete_all")).await;
    assert_eq!(response.status(), 403);
    let message = response.json()["error"]["message"].to_string();
    assert!(message.contains("no-deletes"), "{message}");
    assert_eq!(caller.ask(&caller.tool("get_time")).await.status(), 200);
}

#[tokio::test]
async fn prompts_and_resources_are_governed_by_their_own_names() {
    let up = Upstream::legacy().await;
    let rules = "    rules:\n      - allow: { prompts: [greet] }\n      - allow: { resources: [\"file:///srv/*\"] }\n";
    let gateway = ruled(&up, rules).server("era: legacy").start().await;
    let session = gateway.caller().initialize().await;
    let list = session.ask(&session.call("prompts/list", json!({}))).await.json();
    assert_eq!(list["result"]["prompts"], json!([{ "name": "greet" }]));
    let denied = [
        session.call("prompts/get", json!({ "name": "secret" })),
        session.call("resources/read", json!({ "uri": "file:///etc/passwd" })),
        session.call("resources/subscribe", json!({ "uri": "file:///etc/passwd" })),
        session.call("completion/complete", json!({ "ref": { "type": "ref/prompt", "name": "secret" } })),
        session.tool("get_time"),
    ];
    let before = up.calls().len();
    for request in denied {
        let response = session.ask(&request).await;
        assert_eq!((response.status(), response.code()), (200, -32602), "{}", response.text());
    }
    assert_eq!(up.calls().len(), before, "no server has seen any of it");
    session.ask(&session.call("prompts/get", json!({ "name": "greet" }))).await;
    session.ask(&session.call("resources/read", json!({ "uri": "file:///srv/x" }))).await;
    assert_eq!(up.calls().len(), before + 2);
}

#[tokio::test]
async fn a_batch_hides_nothing() {
    let up = Upstream::legacy().await;
    let gateway = ruled(&up, READERS).server("era: legacy").start().await;
    let caller = gateway.caller();
    let call =
        |tool: &str| json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": tool } });
    let list = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list" });
    for batch in [json!([call("get_time"), call("delete_all")]), json!([call("get_time"), list])] {
        let response = caller.ask(&caller.post(&batch).with("MCP-Protocol-Version", "2025-03-26")).await;
        assert!(response.code() != 0, "{}", response.text());
    }
    assert_eq!(up.calls().len(), 0);
}

#[tokio::test]
async fn methods_that_a_route_does_not_have_are_unknown() {
    let up = Upstream::scripted(Era::Dual, |_| None).await;
    let gateway = Gateway::relay(&[&up])
        .route("methods: [initialize, \"notifications/*\", \"tools/*\", server/discover]")
        .start()
        .await;
    gateway.settled().await;
    let caller = gateway.caller();
    let response = caller.ask(&caller.modern("prompts/list", json!({}))).await;
    assert_eq!((response.status(), response.code()), (404, -32601), "{}", response.text());
    let session = caller.initialize().await;
    let response = session.ask(&session.call("prompts/list", json!({}))).await;
    assert_eq!((response.status(), response.code()), (200, -32601), "{}", response.text());
    assert_eq!(session.ask(&session.tool("get_time")).await.json()["error"], Value::Null);
    assert_eq!(up.count("prompts/list"), 0);
}

#[tokio::test]
async fn a_default_of_deny_leaves_the_handshake_alone() {
    let up = Upstream::scripted(Era::Dual, |_| None).await;
    let gateway = ruled(&up, "    rules: []\n").start().await;
    gateway.settled().await;
    let caller = gateway.caller();
    assert_eq!(caller.ask(&caller.modern("server/discover", json!({}))).await.status(), 200);
    let session = caller.initialize().await;
    assert_eq!(session.ask(&session.call("ping", json!({}))).await.json()["result"], json!({}));
    let list = session.ask(&session.call("tools/list", json!({}))).await.json();
    assert_eq!(names(&list), [] as [&str; 0]);
    assert_eq!(session.ask(&session.delete()).await.status(), 204);
}
