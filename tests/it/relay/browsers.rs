//! DNS rebinding and CORS. Servers see our `Host` and no `Origin`, so the defence is ours alone.

use serde_json::json;

use crate::support::{Caller, Gateway, Issuer, Request, Upstream};

async fn relay(listener: &str) -> (Upstream, Gateway, Caller) {
    let up = Upstream::modern().await;
    let builder = Gateway::relay(&[&up]).server("era: modern");
    let builder = if listener.is_empty() { builder } else { builder.listener(listener) };
    let gateway = builder.start().await;
    let caller = gateway.caller();
    (up, gateway, caller)
}

#[tokio::test]
async fn a_foreign_origin_is_refused_with_a_good_host() {
    let (up, _gateway, caller) = relay("").await;
    for origin in
        ["https://evil.example", "null", "http://localhost.evil.example", "http://127.0.0.1.evil.example"]
    {
        for request in [
            caller.tool("get_time"),
            caller.request("GET"),
            caller.request("DELETE"),
            caller.request("OPTIONS"),
        ] {
            let response = caller.ask(&request.with("Origin", origin)).await;
            assert_eq!(response.status(), 403, "{origin}");
            assert_eq!(response.header("access-control-allow-origin"), None);
        }
    }
    let twice =
        caller.tool("get_time").with("Origin", "http://localhost:1").with("Origin", "https://evil.example");
    assert_eq!(caller.ask(&twice).await.status(), 403, "one good and one bad");
    assert_eq!(up.calls().len(), 0);
}

#[tokio::test]
async fn a_foreign_host_is_refused_without_any_origin() {
    let (up, gateway, caller) = relay("").await;
    let port = gateway.mcp.port();
    for host in
        ["evil.example".to_owned(), format!("evil.example:{port}"), format!("127.0.0.1.evil.example:{port}")]
    {
        let response = caller.ask(&caller.tool("get_time").set("Host", &host)).await;
        assert_eq!(response.status(), 403, "{host}");
    }
    assert_eq!(up.calls().len(), 0);
    assert_eq!(
        caller.ask(&caller.tool("get_time").set("Host", &format!("localhost:{port}"))).await.status(),
        200
    );
}

#[tokio::test]
async fn requests_without_an_origin_come_from_no_page_and_pass() {
    let (_up, _gateway, caller) = relay("").await;
    let response = caller.ask(&caller.tool("get_time")).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.header("access-control-allow-origin"), None);
}

fn preflight(caller: &Caller, origin: &str, headers: &str) -> Request {
    caller
        .request("OPTIONS")
        .with("Origin", origin)
        .with("Access-Control-Request-Method", "POST")
        .with("Access-Control-Request-Headers", headers)
}

#[tokio::test]
async fn a_preflight_needs_no_identity_and_allows_what_mcp_needs() {
    let up = Upstream::modern().await;
    let issuer = Issuer::new("corp");
    let gateway = Gateway::relay(&[&up])
        .server("era: modern")
        .identity(&format!("issuers: [{}]", issuer.yaml()))
        .listener("cors: { origins: [\"https://app.example\"] }")
        .start()
        .await;
    let caller = gateway.caller();
    let request =
        preflight(&caller, "https://app.example", "authorization,mcp-param-region,content-type,x-evil");
    let response = caller.ask(&request).await;
    assert_eq!(response.status(), 204, "{}", response.text());
    assert_eq!(response.header("access-control-allow-origin"), Some("https://app.example"));
    assert!(response.head.joined("vary").to_ascii_lowercase().contains("origin"));
    let methods = response.head.joined("access-control-allow-methods");
    assert!(["GET", "POST", "DELETE"].iter().all(|m| methods.contains(m)), "{methods}");
    let allowed = response.head.joined("access-control-allow-headers").to_ascii_lowercase();
    for name in [
        "authorization",
        "content-type",
        "mcp-protocol-version",
        "mcp-method",
        "mcp-name",
        "mcp-session-id",
        "last-event-id",
        "mcp-param-region",
    ] {
        assert!(allowed.contains(name), "{name} in {allowed}");
    }
    assert!(!allowed.contains("x-evil"), "{allowed}");
    assert_eq!(up.calls().len(), 0);
}

#[tokio::test]
async fn a_page_can_read_what_it_needs_also_of_a_401() {
    let up = Upstream::modern().await;
    let issuer = Issuer::new("corp");
    let gateway = Gateway::relay(&[&up])
        .server("era: modern")
        .identity(&format!("issuers: [{}]", issuer.yaml()))
        .listener("cors: { origins: [\"https://app.example\"] }")
        .start()
        .await;
    let caller = gateway.caller();
    let refused = caller.ask(&caller.tool("get_time").with("Origin", "https://app.example")).await;
    let caller = caller.bearer(&issuer.token("alice", &gateway.url()));
    let granted = caller.ask(&caller.tool("get_time").with("Origin", "https://app.example")).await;
    assert_eq!((refused.status(), granted.status()), (401, 200));
    for response in [refused, granted] {
        assert_eq!(response.header("access-control-allow-origin"), Some("https://app.example"));
        let exposed = response.head.joined("access-control-expose-headers").to_ascii_lowercase();
        for name in ["mcp-session-id", "www-authenticate", "retry-after", "ratelimit"] {
            assert!(exposed.contains(name), "{name} in {exposed}");
        }
    }
}

#[tokio::test]
async fn an_allowed_page_elsewhere_does_not_open_the_door_to_others() {
    let (_up, _gateway, caller) = relay("cors: { origins: [\"https://app.example\"] }").await;
    for origin in ["https://app.example.evil.example", "http://app.example", "https://app.example:444"] {
        let response = caller.ask(&preflight(&caller, origin, "content-type")).await;
        assert_eq!(response.status(), 403, "{origin}");
    }
}

#[tokio::test]
async fn a_local_page_can_use_a_local_gateway() {
    let (_up, _gateway, caller) = relay("").await;
    let request = caller.modern("tools/list", json!({})).with("Origin", "http://localhost:6274");
    let response = caller.ask(&request).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.header("access-control-allow-origin"), Some("http://localhost:6274"));
}
