//! Errors of our own: the request's id, a code outside what the specification reserves, and the right one to blame.

use serde_json::{Value, json};

use crate::support::{Era, Gateway, Reply, Request, Upstream};

/// A request with this id in its body.
fn with_id(request: Request, id: &Value) -> Request {
    let mut body: Value = serde_json::from_slice(&request.body).unwrap();
    body["id"] = id.clone();
    let body = body.to_string();
    request.body(body)
}

#[tokio::test]
async fn errors_of_our_own_carry_the_id_and_a_code_that_nobody_reserved() {
    let up = Upstream::scripted(Era::Modern, |call| match call.message()["params"]["name"].as_str() {
        Some("refuse") => Some(Reply::status(401)),
        Some("reset") => Some(Reply::reset()),
        Some("silent") => Some(Reply::later()),
        Some("nonsense") => Some(Reply::raw("SSH-2.0-OpenSSH_9.9\r\n\r\n")),
        _ => None,
    })
    .await;
    let gateway = Gateway::relay(&[&up])
        .server("era: modern, timeouts: { first_byte: 300ms }, breaker: { failures: 0 }")
        .server("outlier: { consecutive_failures: 0, error_ratio: 0% }")
        .route("limits: [tiny]")
        .more(
            "limits:\n  - { name: tiny, key: principal, rate: 1/h, burst: { tokens: 1 }, cost: { default: 0, tools: \
             { limited: 1 } } }",
        )
        .start()
        .await;
    let caller = gateway.caller();
    assert_eq!(caller.ask(&caller.tool("limited")).await.status(), 200);
    let ids = [json!(1), json!("text \" \\ é"), json!(9_007_199_254_740_993_i64), json!(-5)];
    for (tool, status) in
        [("refuse", 503), ("reset", 502), ("silent", 504), ("nonsense", 502), ("limited", 429)]
    {
        for id in &ids {
            let response = caller.ask(&with_id(caller.tool(tool), id)).await;
            assert_eq!(response.status(), status, "{tool}: {}", response.text());
            let body = response.json();
            assert_eq!(body["id"], *id, "{tool}");
            assert_eq!(body["jsonrpc"], "2.0");
            let code = body["error"]["code"].as_i64().unwrap();
            assert!(!(-32768..=-32000).contains(&code), "{tool}: {code} is reserved");
            assert!(!body["error"]["message"].as_str().unwrap().is_empty());
            assert!(response.header("x-request-id").is_some());
            assert_eq!(response.header("content-type"), Some("application/json"));
        }
    }
}

#[tokio::test]
async fn errors_say_nothing_about_where_the_server_is() {
    // With a second attempt the answer is that nobody is left, without one that nobody was there.
    for (attempts, status) in [(2, 503), (1, 502)] {
        let up = Upstream::modern().await;
        let gateway = Gateway::relay(&[&up])
            .server(&format!("era: modern, retry: {{ attempts: {attempts} }}"))
            .start()
            .await;
        up.kill().await;
        let caller = gateway.caller();
        let response = caller.ask(&caller.tool("get_time")).await;
        assert_eq!(response.status(), status, "{}", response.text());
        assert!(!response.text().contains(&up.address.to_string()), "{}", response.text());
        assert!(!response.text().contains("onnection refused"), "{}", response.text());
    }
}

#[tokio::test]
async fn a_401_of_the_server_is_our_503_and_challenges_nobody() {
    let challenge = "Bearer resource_metadata=\"https://backstage.example/.well-known/x\"";
    let up = Upstream::scripted(Era::Modern, move |call| {
        Some(match call.message()["params"]["name"].as_str()? {
            "unauthorized" => {
                Reply::error(401, call, -1, "who are you").header("WWW-Authenticate", challenge)
            }
            "challenged" => Reply::error(403, call, -1, "more scope").header("WWW-Authenticate", challenge),
            "forbidden" => Reply::error(403, call, -1, "not this"),
            _ => return None,
        })
    })
    .await;
    let gateway = Gateway::relay(&[&up]).server("era: modern").start().await;
    let caller = gateway.caller();
    for tool in ["unauthorized", "challenged"] {
        let response = caller.ask(&caller.tool(tool)).await;
        assert_eq!(response.status(), 503, "{tool}");
        assert_eq!(response.header("www-authenticate"), None, "the client cannot help it");
        assert!(!response.text().contains("backstage"), "{}", response.text());
    }
    let response = caller.ask(&caller.tool("forbidden")).await;
    assert_eq!(response.status(), 403, "a plain refusal is about the call, and passes");
    assert_eq!(gateway.metric("tollgate_upstream_errors_total", &["kind=\"credential\""]).await, 2.0);
}

#[tokio::test]
async fn an_unknown_path_is_404_and_reaches_no_server() {
    let up = Upstream::modern().await;
    let gateway = Gateway::relay(&[&up]).server("era: modern").start().await;
    let mut caller = gateway.caller();
    for path in ["/", "/mcp", "/mcp/other", "/mcp/s/deeper", "/mcp/S", "//mcp/s", "/mcp/../mcp/s", "/mcp/%73"]
    {
        caller.path = path.to_owned();
        let response = caller.ask(&caller.tool("get_time")).await;
        assert_eq!(response.status(), 404, "{path}: {}", response.text());
    }
    caller.path = "/mcp/s/".to_owned();
    assert_eq!(caller.ask(&caller.tool("get_time")).await.status(), 200, "with a slash at its end");
    assert_eq!(up.calls().len(), 1);
}

#[tokio::test]
async fn every_request_is_counted_and_logged_once_however_it_ends() {
    let folder = crate::support::Folder::new();
    let log = folder.path().join("access.log");
    let up = Upstream::scripted(Era::Modern, |call| match call.message()["params"]["name"].as_str() {
        Some("reset") => Some(Reply::reset()),
        Some("stream") => Some(Reply::stream()),
        _ => None,
    })
    .await;
    let gateway = Gateway::relay(&[&up]).server("era: modern").access_log(&log).start().await;
    let caller = gateway.caller();
    assert_eq!(caller.ask(&caller.tool("get_time")).await.status(), 200);
    assert_eq!(caller.ask(&caller.tool("reset")).await.status(), 502);
    assert_eq!(caller.ask(&caller.tool("get_time").set("Mcp-Name", "x")).await.status(), 400);
    assert_eq!(caller.ask(&caller.request("GET").with("Origin", "https://evil.example")).await.status(), 403);
    let (client, _) = caller.stream(&caller.tool("stream")).await;
    drop(client);
    let all = crate::support::eventually("five requests", async || {
        let n = gateway.metric("tollgate_requests_total", &[]).await;
        (n >= 5.0).then_some(n)
    })
    .await;
    assert_eq!(all, 5.0);
    gateway.shutdown().await;
    let lines: Vec<Value> = std::fs::read_to_string(&log)
        .unwrap()
        .lines()
        .map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}")))
        .collect();
    assert_eq!(lines.len(), 5, "{lines:#?}");
}

#[tokio::test]
async fn the_log_says_what_happened_and_no_secret() {
    let folder = crate::support::Folder::new();
    let log = folder.path().join("access.log");
    let up = Upstream::modern().await;
    let issuer = crate::support::Issuer::new("corp");
    let gateway = Gateway::relay(&[&up])
        .server("era: modern, credential: { bearer: \"${env:SECRET}\" }")
        .env("SECRET", "backstage-secret")
        .identity(&format!("issuers: [{}]", issuer.yaml()))
        .access_log(&log)
        .start()
        .await;
    let token = issuer.token("alice", &gateway.url());
    let caller = gateway.caller().bearer(&token);
    let request =
        caller.modern("tools/call", json!({ "name": "get_time", "arguments": { "pin": "argument-secret" } }));
    let response = caller.ask(&request).await;
    assert_eq!(response.status(), 200);
    let id = response.header("x-request-id").unwrap().to_owned();
    gateway.shutdown().await;
    let text = std::fs::read_to_string(&log).unwrap();
    for (what, secret) in [
        ("the token", token.as_str()),
        ("its signature", token.rsplit('.').next().unwrap()),
        ("the server's credential", "backstage-secret"),
        ("an argument", "argument-secret"),
    ] {
        assert!(!text.contains(secret), "{what} is in the log: {text}");
    }
    for word in ["tools/call", "get_time", "corp|alice", "\"s\"", &id] {
        assert!(text.contains(word), "{word} is not in the log: {text}");
    }
}

#[tokio::test]
async fn large_answers_pass_whole() {
    let text = "x".repeat(6 << 20);
    let body = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{{\"content\":[\"{text}\"]}}}}");
    for era in [Era::Legacy, Era::Modern] {
        let answer = body.clone();
        let up = Upstream::scripted(era, move |call| {
            (call.method() == "tools/call").then(|| Reply::body(200, "application/json", answer.clone()))
        })
        .await;
        let gateway = Gateway::relay(&[&up]).start().await;
        gateway.settled().await;
        let caller = gateway.caller();
        let request = match era {
            Era::Legacy => caller.initialize().await.tool("large"),
            _ => caller.tool("large"),
        };
        let response = caller.ask(&request).await;
        assert_eq!((response.status(), response.whole), (200, true), "{era:?}");
        assert!(response.body == body.as_bytes(), "{era:?}: {} of {} bytes", response.body.len(), body.len());
    }
}
