//! The downgrade trap: a 429 or 5xx on `server/discover` makes clients fall back to the legacy era for good, without a
//! word. So it is answered whatever state limits and server are in.

use serde_json::json;

use crate::support::{Era, Gateway, Reply, Upstream};

const ONE_AN_HOUR: &str = "limits:\n  - { name: tiny, key: principal, rate: 1/h, burst: { tokens: 1 } }";

#[tokio::test]
async fn discover_is_answered_although_the_limit_is_exhausted() {
    let up = Upstream::modern().await;
    let gateway = Gateway::relay(&[&up]).route("limits: [tiny]").more(ONE_AN_HOUR).start().await;
    gateway.settled().await;
    let caller = gateway.caller();
    assert_eq!(caller.ask(&caller.tool("get_time")).await.status(), 200);
    assert_eq!(caller.ask(&caller.tool("get_time")).await.status(), 429, "the limit is exhausted");
    for _ in 0..5 {
        let request = caller.modern("server/discover", json!({}));
        let answer = caller.ask(&request).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        assert_eq!(answer.json()["result"]["supportedVersions"], json!(["2026-07-28"]));
    }
}

#[tokio::test]
async fn discover_passes_the_exhausted_limit_also_before_the_catalogue_is_known() {
    // The server says 500 to probes, so there is nothing to answer from, and clients' questions go through.
    let up = Upstream::scripted(Era::Modern, |call| {
        call.header("user-agent")
            .is_some_and(|agent| agent.starts_with("tollgate/"))
            .then(|| Reply::status(500))
    })
    .await;
    let gateway = Gateway::relay(&[&up]).route("limits: [tiny]").more(ONE_AN_HOUR).start().await;
    let caller = gateway.caller();
    assert_eq!(caller.ask(&caller.tool("get_time")).await.status(), 200);
    assert_eq!(caller.ask(&caller.tool("get_time")).await.status(), 429, "the limit is exhausted");
    let answer = caller.ask(&caller.modern("server/discover", json!({}))).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(up.count("server/discover"), 1);
}

#[tokio::test]
async fn discover_is_answered_with_the_request_id_while_the_server_is_down() {
    let up = Upstream::modern().await;
    let gateway = Gateway::relay(&[&up]).start().await;
    gateway.settled().await;
    up.kill().await;
    let caller = gateway.caller();
    assert!(caller.ask(&caller.modern("tools/list", json!({}))).await.status() >= 502, "the server is down");
    let mut body = crate::support::modern_body("server/discover", json!({}));
    body["id"] = json!("a \"quoted\" id");
    let request = caller.modern("server/discover", json!({})).body(body.to_string());
    let answer = caller.ask(&request).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(answer.json()["id"], json!("a \"quoted\" id"));
    assert_eq!(answer.json()["result"]["resultType"], "complete");
}

#[tokio::test]
async fn discover_is_answered_from_the_catalogue_and_not_by_the_server() {
    let up = Upstream::modern().await;
    let gateway = Gateway::relay(&[&up]).start().await;
    gateway.settled().await;
    let caller = gateway.caller();
    for _ in 0..10 {
        assert_eq!(caller.ask(&caller.modern("server/discover", json!({}))).await.status(), 200);
    }
    assert_eq!(up.count("server/discover"), 0);
}

#[tokio::test]
async fn discover_of_a_legacy_server_is_refused_in_words_that_clients_fall_back_on() {
    let up = Upstream::legacy().await;
    let gateway = Gateway::relay(&[&up]).server("era: legacy").start().await;
    let caller = gateway.caller();
    let answer = caller.ask(&caller.modern("server/discover", json!({}))).await;
    assert_eq!((answer.status(), answer.code()), (400, -32022), "{}", answer.text());
    let supported = answer.json()["error"]["data"]["supported"].clone();
    assert!(supported.as_array().unwrap().contains(&json!("2025-11-25")), "{supported}");
    caller.initialize().await;
}
