//! Token buckets on the request path.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate::base::Clock;

use crate::support::{Builder, Gateway, Issuer, Upstream};

fn limited(up: &Upstream, era: &str, route: &str, limits: &str) -> Builder {
    Gateway::relay(&[up])
        .server(&format!("era: {era}"))
        .route(&format!("limits: [{route}]"))
        .more(&format!("limits:\n{limits}"))
}

#[tokio::test]
async fn a_refusal_says_when_to_come_back_and_whom_it_answers() {
    let up = Upstream::modern().await;
    let clock = Clock::manual(1_800_000_000);
    let gateway = limited(&up, "modern", "two", "  - { name: two, key: principal, rate: 2/m }")
        .clock(&clock)
        .start()
        .await;
    let caller = gateway.caller();
    let first = caller.ask(&caller.tool("get_time")).await;
    assert_eq!(first.header("ratelimit-policy"), Some("\"two\";q=2;w=60"));
    assert_eq!(first.header("ratelimit"), Some("\"two\";r=1;t=30"));
    let second = caller.ask(&caller.tool("get_time")).await;
    assert_eq!((second.status(), second.header("ratelimit")), (200, Some("\"two\";r=0;t=60")));
    let request = caller.tool("get_time");
    let refused = caller.ask(&request).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.header("retry-after"), Some("30"));
    assert_eq!(refused.header("ratelimit"), Some("\"two\";r=0;t=60"));
    let body = refused.json();
    assert_eq!(body["id"], serde_json::from_slice::<Value>(&request.body).unwrap()["id"]);
    assert_eq!(body["error"]["data"]["retryAfterMs"], 30_000);
    assert_eq!(up.count("tools/call"), 2, "the refused one reached no server");
    clock.advance(Duration::from_secs(29));
    assert_eq!(caller.ask(&caller.tool("get_time")).await.status(), 429, "a second early");
    clock.advance(Duration::from_secs(1));
    assert_eq!(caller.ask(&caller.tool("get_time")).await.status(), 200, "when it said");
    assert_eq!(gateway.metric("tollgate_limit_refusals_total", &["limit=\"two\""]).await, 2.0);
}

#[tokio::test]
async fn a_request_takes_from_all_limits_or_from_none() {
    let up = Upstream::modern().await;
    let gateway = limited(
        &up,
        "modern",
        "all, each",
        "  - { name: all, key: principal, rate: 2/h }\n  - { name: each, key: [principal, tool], rate: 1/h }",
    )
    .start()
    .await;
    let caller = gateway.caller();
    let status = async |tool: &str| caller.ask(&caller.tool(tool)).await.status();
    assert_eq!(status("a").await, 200);
    for _ in 0..3 {
        assert_eq!(status("a").await, 429, "`each` refuses");
    }
    assert_eq!(status("b").await, 200, "and `all` has lost nothing to it");
    assert_eq!(status("c").await, 429, "now `all` refuses");
}

#[tokio::test]
async fn what_would_break_clients_is_never_refused() {
    let up = Upstream::legacy().await;
    let gateway = limited(&up, "legacy", "few", "  - { name: few, key: principal, rate: 2/h }").start().await;
    let session = gateway.caller().initialize().await;
    assert_eq!(session.ask(&session.tool("get_time")).await.status(), 200);
    assert_eq!(session.ask(&session.tool("get_time")).await.status(), 429, "nothing is left");
    for _ in 0..3 {
        assert_eq!(session.ask(&session.call("ping", json!({}))).await.status(), 200, "ping");
        let note =
            json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } });
        assert_eq!(session.ask(&session.post(&note)).await.status(), 202, "a notification");
        let answer = json!({ "jsonrpc": "2.0", "id": 1, "result": {} });
        assert_eq!(session.ask(&session.post(&answer)).await.status(), 202, "an answer");
    }
    let mask = json!({ "jsonrpc": "2.0", "id": 2, "method": "notifications/cancelled" });
    assert_eq!(
        session.ask(&session.post(&mask)).await.status(),
        429,
        "a request in the guise of a notification"
    );
    assert_eq!(session.ask(&session.delete()).await.status(), 204, "the end of a session");
}

#[tokio::test]
async fn each_caller_has_a_bucket_whatever_the_token() {
    let up = Upstream::modern().await;
    let issuer = Issuer::new("corp");
    let gateway = limited(&up, "modern", "one", "  - { name: one, key: principal, rate: 1/h }")
        .identity(&format!("issuers: [{}]", issuer.yaml()))
        .start()
        .await;
    let mut claims = issuer.claims("alice", &gateway.url());
    let alice = gateway.caller().bearer(&issuer.sign(&claims));
    claims["jti"] = json!("another");
    let alice_again = gateway.caller().bearer(&issuer.sign(&claims));
    let bob = gateway.caller().bearer(&issuer.token("bob", &gateway.url()));
    assert_eq!(alice.ask(&alice.tool("get_time")).await.status(), 200);
    assert_eq!(alice_again.ask(&alice_again.tool("get_time")).await.status(), 429);
    assert_eq!(bob.ask(&bob.tool("get_time")).await.status(), 200);
}

#[tokio::test]
async fn rates_follow_the_role() {
    let up = Upstream::modern().await;
    let issuer = Issuer::new("corp");
    let gateway = limited(
        &up,
        "modern",
        "by_role",
        "  - { name: by_role, key: principal, per_role: { developer: 3/h, viewer: 1/h } }",
    )
    .identity(&format!("issuers: [{}]", issuer.yaml()))
    .start()
    .await;
    for (role, expected) in [("viewer", 1), ("developer", 3), ("admin", 3)] {
        let mut claims = issuer.claims(role, &gateway.url());
        claims["role"] = json!(role);
        let caller = gateway.caller().bearer(&issuer.sign(&claims));
        let mut granted = 0;
        while caller.ask(&caller.tool("get_time")).await.status() == 200 {
            granted += 1;
            assert!(granted < 10, "{role}");
        }
        assert_eq!(granted, expected, "{role}");
    }
}

#[tokio::test]
async fn tools_cost_what_they_are_said_to() {
    let up = Upstream::modern().await;
    let gateway = limited(
        &up,
        "modern",
        "costs",
        "  - { name: costs, key: principal, rate: 10/h, cost: { default: 0, methods: { tools/call: 1 }, tools: { \
         \"search_*\": 5 } } }",
    )
    .start()
    .await;
    let caller = gateway.caller();
    let left = async |request| {
        let response = caller.ask(&request).await;
        response
            .header("ratelimit")
            .and_then(|v| v.split("r=").nth(1)?.split(';').next()?.parse::<u64>().ok())
    };
    assert_eq!(
        left(caller.modern("tools/list", json!({}))).await,
        None,
        "it costs nothing: the limit is not in play"
    );
    assert_eq!(left(caller.tool("get_time")).await, Some(9));
    assert_eq!(left(caller.tool("search_web")).await, Some(4));
    assert_eq!(caller.ask(&caller.tool("search_web")).await.status(), 429);
    assert_eq!(left(caller.tool("get_time")).await, Some(3));
}

#[tokio::test]
async fn routes_are_limited_by_role_unless_they_say_otherwise() {
    let up = Upstream::modern().await;
    let gateway = limited(&up, "modern", "default", "  []").identity("anonymous: {}").start().await;
    let caller = gateway.caller();
    // 20 a minute, and half as much again at once.
    let mut client = gateway.connect().await;
    for n in 0..30 {
        assert_eq!(client.ask(&caller.tool("get_time")).await.status(), 200, "call {n}");
    }
    assert_eq!(client.ask(&caller.tool("get_time")).await.status(), 429);
}
