//! The gateway as an OAuth resource server: RFC 9728 metadata for each route, at the path-inserted location.

use serde_json::json;

use crate::support::{Gateway, Issuer, Request, Upstream};

fn get(gateway: &Gateway, path: &str) -> Request {
    Request::new("GET", path).with("Host", &gateway.mcp.to_string())
}

async fn relay(route: &str, listener: &str) -> (Upstream, Issuer, Gateway) {
    let up = Upstream::modern().await;
    let issuer = Issuer::new("corp");
    let mut builder =
        Gateway::relay(&[&up]).server("era: modern").identity(&format!("issuers: [{}]", issuer.yaml()));
    if !route.is_empty() {
        builder = builder.route(route);
    }
    if !listener.is_empty() {
        builder = builder.listener(listener);
    }
    (up, issuer, builder.start().await)
}

#[tokio::test]
async fn a_401_names_the_metadata_and_that_names_exactly_the_url_that_was_dialled() {
    let (_up, issuer, gateway) = relay("scopes: [\"mcp:tools\"]", "").await;
    let caller = gateway.caller();
    let response = caller.ask(&caller.tool("get_time")).await;
    assert_eq!(response.status(), 401);
    let challenge = response.header("www-authenticate").expect("a challenge");
    assert!(challenge.starts_with("Bearer "), "{challenge}");
    assert!(challenge.contains("scope=\"mcp:tools\""), "{challenge}");
    let origin = format!("http://{}", gateway.mcp);
    let place = format!("{origin}/.well-known/oauth-protected-resource/mcp/s");
    assert!(challenge.contains(&format!("resource_metadata=\"{place}\"")), "{challenge}");

    let metadata = caller.ask(&get(&gateway, place.strip_prefix(&origin).unwrap())).await;
    assert_eq!(metadata.status(), 200, "without identity");
    assert_eq!(metadata.header("content-type"), Some("application/json"));
    let metadata = metadata.json();
    assert_eq!(metadata["resource"], format!("{origin}/mcp/s"), "scheme, port, path, no slash at the end");
    assert_eq!(metadata["authorization_servers"], json!([issuer.url()]));
    assert_eq!(metadata["scopes_supported"], json!(["mcp:tools"]));
    assert_eq!(metadata["bearer_methods_supported"], json!(["header"]));
}

#[tokio::test]
async fn metadata_follow_the_public_url_and_never_the_host_header() {
    let (_up, _issuer, gateway) = relay(
        "",
        "public_url: \"https://mcp.example.com\", allowed_hosts: [mcp.example.com, localhost, evil.example]",
    )
    .await;
    let caller = gateway.caller();
    for host in ["mcp.example.com", "localhost", "evil.example"] {
        let response = caller.ask(&caller.tool("get_time").set("Host", host)).await;
        assert_eq!(response.status(), 401);
        let challenge = response.header("www-authenticate").unwrap().to_owned();
        let place = "https://mcp.example.com/.well-known/oauth-protected-resource/mcp/s";
        assert!(challenge.contains(&format!("\"{place}\"")), "{challenge}");
        let request = get(&gateway, "/.well-known/oauth-protected-resource/mcp/s").set("Host", host);
        let metadata = caller.ask(&request).await.json();
        assert_eq!(metadata["resource"], "https://mcp.example.com/mcp/s");
    }
}

#[tokio::test]
async fn a_token_for_the_public_url_is_accepted() {
    let (_up, issuer, gateway) =
        relay("", "public_url: \"https://mcp.example.com\", allowed_hosts: [mcp.example.com]").await;
    let caller = gateway.caller();
    let call = |audience: &str| {
        let token = issuer.token("alice", audience);
        caller.clone().bearer(&token).tool("get_time").set("Host", "mcp.example.com")
    };
    assert_eq!(caller.ask(&call("https://mcp.example.com/mcp/s")).await.status(), 200);
    for audience in
        ["https://mcp.example.com", "https://mcp.example.com/mcp/s/", "http://mcp.example.com/mcp/s"]
    {
        assert_eq!(caller.ask(&call(audience)).await.status(), 401, "{audience}");
    }
}

#[tokio::test]
async fn the_root_location_answers_only_where_it_is_unambiguous() {
    let (_up, _issuer, gateway) = relay("", "").await;
    let caller = gateway.caller();
    let root = caller.ask(&get(&gateway, "/.well-known/oauth-protected-resource")).await;
    assert_eq!(root.json()["resource"], gateway.url());
    for path in ["/.well-known/oauth-protected-resource/mcp/other", "/.well-known/openid-configuration"] {
        assert_eq!(caller.ask(&get(&gateway, path)).await.status(), 404, "{path}");
    }
    let up = Upstream::modern().await;
    let issuer = Issuer::new("corp");
    let two = Gateway::relay(&[&up])
        .identity(&format!("issuers: [{}]", issuer.yaml()))
        .routes("  - { name: other, servers: [s] }")
        .start()
        .await;
    let caller = two.caller();
    assert_eq!(caller.ask(&get(&two, "/.well-known/oauth-protected-resource")).await.status(), 404);
    let other = caller.ask(&get(&two, "/.well-known/oauth-protected-resource/mcp/other")).await;
    assert_eq!(other.json()["resource"], format!("{}/mcp/other", two.origin()));
}

#[tokio::test]
async fn metadata_can_be_read_by_any_page_and_are_not_rate_limited() {
    let up = Upstream::modern().await;
    let issuer = Issuer::new("corp");
    let gateway = Gateway::relay(&[&up])
        .identity(&format!("issuers: [{}], failed_attempts: {{ rate: 1/h, burst: 1 }}", issuer.yaml()))
        .route("limits: [tiny]")
        .more("limits:\n  - { name: tiny, key: ip, rate: 1/h, burst: { tokens: 1 } }")
        .start()
        .await;
    let caller = gateway.caller();
    for _ in 0..5 {
        caller.ask(&caller.clone().bearer("x.y.z").tool("get_time")).await;
        let response = caller.ask(&get(&gateway, "/.well-known/oauth-protected-resource/mcp/s")).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    }
}

#[tokio::test]
async fn a_token_without_the_scope_is_403_with_all_that_is_needed() {
    let (_up, issuer, gateway) = relay("scopes: [\"mcp:tools\", \"mcp:more\"]", "").await;
    let mut claims = issuer.claims("alice", &gateway.url());
    claims["scope"] = json!("mcp:tools other");
    let caller = gateway.caller().bearer(&issuer.sign(&claims));
    let response = caller.ask(&caller.tool("get_time")).await;
    assert_eq!(response.status(), 403, "{}", response.text());
    let challenge = response.header("www-authenticate").expect("a challenge");
    assert!(challenge.contains("error=\"insufficient_scope\""), "{challenge}");
    assert!(challenge.contains("scope=\"mcp:tools mcp:more\""), "{challenge}");
    assert!(challenge.contains("resource_metadata="), "{challenge}");
    claims["scope"] = json!("mcp:more mcp:tools");
    let caller = gateway.caller().bearer(&issuer.sign(&claims));
    assert_eq!(caller.ask(&caller.tool("get_time")).await.status(), 200);
}
