//! Which headers reach whom.

use serde_json::json;

use crate::support::{Era, Gateway, Issuer, Reply, Upstream};

#[tokio::test]
async fn the_clients_token_never_goes_upstream() {
    let up = Upstream::scripted(Era::Dual, |_| None).await;
    let issuer = Issuer::new("corp");
    let gateway = Gateway::relay(&[&up]).identity(&format!("issuers: [{}]", issuer.yaml())).start().await;
    gateway.settled().await;
    let token = issuer.token("alice", &gateway.url());
    let caller = gateway.caller().bearer(&token);
    let session = caller.initialize().await;
    session.ask(&session.tool("get_time")).await;
    let _ = session.caller.stream(&session.get()).await;
    session.ask(&session.delete()).await;
    caller.ask(&caller.tool("get_time")).await;
    assert!(up.calls().len() >= 5);
    for call in up.everything() {
        assert!(call.header("authorization").is_none(), "{}", call.line);
        for (name, value) in &call.headers {
            assert!(!value.contains(&token), "{name}");
        }
    }
}

#[tokio::test]
async fn the_servers_own_credential_goes_upstream_with_every_request() {
    let cases = [
        ("bearer: \"${env:SECRET}\"", "authorization", "Bearer s3cret"),
        ("header: { name: x-api-key, value: \"${env:SECRET}\" }", "x-api-key", "s3cret"),
        ("basic: { username: gate, password: \"${env:SECRET}\" }", "authorization", "Basic Z2F0ZTpzM2NyZXQ="),
    ];
    for (credential, header, value) in cases {
        let up = Upstream::modern().await;
        let gateway = Gateway::relay(&[&up])
            .server(&format!("era: modern, credential: {{ {credential} }}"))
            .env("SECRET", "s3cret")
            .start()
            .await;
        gateway.settled().await;
        let caller = gateway.caller().with("X-Own", "kept");
        assert_eq!(caller.ask(&caller.tool("get_time")).await.status(), 200);
        for call in up.everything() {
            assert_eq!(call.all(header), [value], "{}", call.line);
        }
    }
}

#[tokio::test]
async fn what_a_client_says_about_who_it_is_stays_behind() {
    let up = Upstream::modern().await;
    let gateway = Gateway::relay(&[&up]).server("era: modern").start().await;
    let caller = gateway.caller();
    let dropped = [
        "X-Forwarded-User",
        "X-Tollgate-Principal",
        "X-Auth-Request-Email",
        "X-Consumer-Id",
        "X-User-Id",
        "X-Remote-User",
        "Remote-User",
        "X-Client-Cert",
        "Cookie",
        "Proxy-Authorization",
        "X-Authenticated-Userid",
    ];
    let request = dropped.iter().fold(caller.tool("get_time"), |r, name| r.with(name, "forged"));
    assert_eq!(caller.ask(&request).await.status(), 200);
    let call = up.call("tools/call").await;
    for (name, value) in &call.headers {
        assert!(!value.contains("forged"), "{name}: {value}");
    }
}

#[tokio::test]
async fn forwarding_headers_are_our_own() {
    let up = Upstream::modern().await;
    let gateway = Gateway::relay(&[&up]).server("era: modern").identity("anonymous: {}").start().await;
    let caller = gateway.caller();
    let request = caller
        .tool("get_time")
        .with("X-Forwarded-For", "6.6.6.6")
        .with("X-Forwarded-Proto", "gopher")
        .with("X-Forwarded-Host", "evil.example")
        .with("X-Real-IP", "6.6.6.6")
        .with("X-Request-Id", "mine")
        .with("Forwarded", "for=6.6.6.6");
    let response = caller.ask(&request).await;
    assert_eq!(response.status(), 200, "{}", response.text());
    let call = up.call("tools/call").await;
    assert_eq!(call.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(call.all("x-forwarded-proto"), ["http"]);
    assert_eq!(call.all("x-forwarded-host"), [gateway.mcp.to_string()]);
    assert_eq!(call.all("forwarded"), [] as [&str; 0]);
    assert_eq!(call.all("x-real-ip"), [] as [&str; 0]);
    assert_eq!(
        call.all("x-request-id"),
        [response.header("x-request-id").unwrap()],
        "one id, ours, for both sides"
    );
    assert_ne!(call.header("x-request-id"), Some("mine"));
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_about_the_client() {
    let up = Upstream::modern().await;
    let gateway = Gateway::relay(&[&up])
        .server("era: modern")
        .identity("anonymous: {}")
        .listener("trusted_proxies: [127.0.0.0/8]")
        .start()
        .await;
    let caller = gateway.caller();
    let request = caller.tool("get_time").with("X-Forwarded-For", "6.6.6.6, 192.0.2.7");
    assert_eq!(caller.ask(&request).await.status(), 200);
    assert_eq!(
        up.call("tools/call").await.all("x-forwarded-for"),
        ["192.0.2.7"],
        "the last one it did not make up"
    );
}

#[tokio::test]
async fn hop_by_hop_headers_end_here() {
    let up = Upstream::scripted(Era::Modern, |call| {
        (call.method() == "tools/call").then(|| {
            Reply::result(call, &json!({ "content": [] }))
                .header("Connection", "keep-alive, X-Backstage")
                .header("X-Backstage", "secret")
                .header("Keep-Alive", "timeout=5")
                .header("Set-Cookie", "a=b")
                .header("Server", "backstage/1")
                .header("WWW-Authenticate", "Basic realm=backstage")
                .header("X-Own", "kept")
                .header("Access-Control-Allow-Origin", "*")
        })
    })
    .await;
    let gateway = Gateway::relay(&[&up]).server("era: modern").start().await;
    let caller = gateway.caller();
    let request = caller
        .tool("get_time")
        .with("Connection", "keep-alive, X-Team")
        .with("X-Team", "red")
        .with("Keep-Alive", "timeout=9")
        .with("TE", "trailers")
        .with("Upgrade", "h2c")
        .with("Proxy-Connection", "keep-alive")
        .with("X-Other-Team", "blue");
    let response = caller.ask(&request).await;
    let call = up.call("tools/call").await;
    for name in
        ["connection", "x-team", "keep-alive", "te", "upgrade", "proxy-connection", "transfer-encoding"]
    {
        assert_eq!(call.header(name), None, "{name}");
    }
    assert_eq!(call.header("x-other-team"), Some("blue"), "what is nobody's business passes");
    for name in [
        "x-backstage",
        "keep-alive",
        "set-cookie",
        "server",
        "www-authenticate",
        "access-control-allow-origin",
    ] {
        assert_eq!(response.header(name), None, "{name}");
    }
    assert_eq!(response.header("x-own"), Some("kept"));
}

#[tokio::test]
async fn the_server_sees_its_own_host_and_both_answer_types() {
    let up = Upstream::modern().await;
    let gateway = Gateway::relay(&[&up]).server("era: modern").start().await;
    let caller = gateway.caller();
    let request = caller
        .tool("get_time")
        .set("Accept", "application/json")
        .set("Host", &format!("localhost:{}", gateway.mcp.port()))
        .with("Origin", "http://localhost:3000");
    assert_eq!(caller.ask(&request).await.status(), 200);
    let call = up.call("tools/call").await;
    assert_eq!(call.line, "POST /mcp HTTP/1.1");
    assert_eq!(call.all("host"), [up.address.to_string()]);
    assert_eq!(call.all("accept"), ["application/json, text/event-stream"]);
    assert_eq!(call.header("origin"), None, "the check was ours");
    assert_eq!(call.all("content-type"), ["application/json"]);
}

#[tokio::test]
async fn mirrored_arguments_and_unknown_headers_pass() {
    let up = Upstream::modern().await;
    let gateway = Gateway::relay(&[&up]).server("era: modern").start().await;
    let caller = gateway.caller();
    let request = caller
        .tool("get_time")
        .with("Mcp-Param-Region", "eu-west-1")
        .with("Mcp-Param-Name", "=?base64?w6k=?=")
        .with("X-Tenant-Hint", "a, b")
        .with("User-Agent", "it/1")
        .with("Last-Event-ID", "9");
    assert_eq!(caller.ask(&request).await.status(), 200);
    let call = up.call("tools/call").await;
    assert_eq!(call.header("mcp-param-region"), Some("eu-west-1"));
    assert_eq!(call.header("mcp-param-name"), Some("=?base64?w6k=?="));
    assert_eq!(call.header("x-tenant-hint"), Some("a, b"));
    assert_eq!(call.header("user-agent"), Some("it/1"));
    assert_eq!(call.header("mcp-protocol-version"), Some("2026-07-28"));
    assert_eq!(call.header("mcp-method"), Some("tools/call"));
    assert_eq!(call.header("mcp-name"), Some("get_time"));
}

#[tokio::test]
async fn bodies_pass_byte_for_byte() {
    let answer = "{ \"result\" : {\"content\":[ ] , \"b\\u00e9\":1.0e2},\n \"id\":7, \"jsonrpc\" :\"2.0\"}\n";
    let up = Upstream::scripted(Era::Legacy, move |call| {
        (call.method() == "tools/call").then(|| Reply::body(200, "application/json", answer))
    })
    .await;
    let gateway = Gateway::relay(&[&up]).server("era: legacy").start().await;
    let session = gateway.caller().initialize().await;
    let sent = "{\"params\":{ \"arguments\":{\"x\":1.10,\"y\":\"\\u0041\"}, \"name\":\"get_time\" },\r\n\t\"method\" : \
                \"tools/call\",\"jsonrpc\":\"2.0\", \"id\":7 }  ";
    let response = session.ask(&session.tool("get_time").body(sent)).await;
    assert_eq!(response.text(), answer);
    assert_eq!(String::from_utf8_lossy(&up.call("tools/call").await.body), sent);
}

#[tokio::test]
async fn routing_headers_of_a_legacy_client_are_neither_believed_nor_passed_on() {
    let up = Upstream::legacy().await;
    let gateway = Gateway::relay(&[&up]).server("era: legacy").start().await;
    let session = gateway.caller().initialize().await;
    let request = session.tool("get_time").with("Mcp-Method", "ping").with("Mcp-Name", "delete_all");
    assert_eq!(session.ask(&request).await.status(), 200);
    let call = up.call("tools/call").await;
    assert_eq!((call.header("mcp-method"), call.header("mcp-name")), (None, None));
}

#[tokio::test]
async fn a_trace_goes_on_at_the_server() {
    let up = Upstream::modern().await;
    let gateway = Gateway::relay(&[&up]).server("era: modern").start().await;
    let caller = gateway.caller();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = caller
        .tool("get_time")
        .with("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01"))
        .with("tracestate", "vendor=1");
    assert_eq!(caller.ask(&request).await.status(), 200);
    let call = up.call("tools/call").await;
    let parent = call.header("traceparent").expect("a traceparent");
    assert!(parent.starts_with(&format!("00-{trace}-")), "{parent}");
    assert_eq!(call.all("traceparent").len(), 1);
    assert_eq!(call.header("tracestate"), Some("vendor=1"));
}
