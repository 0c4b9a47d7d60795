//! A client that goes away: that cancels in the modern era (2026-07-28 streamable HTTP §Cancellation) and must not in the
//! legacy one (2025-11-25 transports §Sending Messages 6).

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{AT_ONCE, Call, Era, Gateway, Reply, Upstream};

/// Puts `tools/call` off, and streams it if the tool's name says so.
async fn slow(era: Era) -> Upstream {
    Upstream::scripted(era, |call| {
        if call.method() != "tools/call" {
            return None;
        }
        Some(match call.message()["params"]["name"].as_str() {
            Some("stream") => Reply::stream(),
            _ => Reply::later(),
        })
    })
    .await
}

fn progress() -> serde_json::Value {
    json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "progressToken": 1, "progress": 1 } })
}

async fn gone_at_once(call: &Call, left: Instant) {
    let took = call.gone().await.saturating_duration_since(left);
    assert!(took < AT_ONCE, "the server learnt it after {took:?}");
}

#[tokio::test]
async fn a_modern_client_that_leaves_before_the_answer_cancels_the_call_at_the_server() {
    let up = slow(Era::Modern).await;
    let gateway = Gateway::relay(&[&up]).server("era: modern").start().await;
    let caller = gateway.caller();
    let client = caller.open(&caller.tool("later")).await;
    let call = up.call("tools/call").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(call.gone_at().is_none(), "nobody has left yet");
    let left = Instant::now();
    drop(client);
    gone_at_once(&call, left).await;
}

#[tokio::test]
async fn a_modern_client_that_leaves_a_stream_cancels_the_call_at_the_server() {
    let up = slow(Era::Modern).await;
    let gateway = Gateway::relay(&[&up]).server("era: modern").start().await;
    let caller = gateway.caller();
    let (mut client, head) = caller.stream(&caller.tool("stream")).await;
    assert_eq!(head.status, 200);
    let call = up.call("tools/call").await;
    call.event(&progress());
    assert_eq!(client.message().await["method"], "notifications/progress");
    assert!(call.gone_at().is_none(), "nobody has left yet");
    let left = Instant::now();
    drop(client);
    gone_at_once(&call, left).await;
}

#[tokio::test]
async fn a_modern_listener_that_leaves_ends_its_subscription_at_the_server() {
    let up = Upstream::modern().await;
    let gateway = Gateway::relay(&[&up]).server("era: modern").start().await;
    let caller = gateway.caller();
    let request =
        caller.modern("subscriptions/listen", json!({ "notifications": { "toolsListChanged": true } }));
    let (client, head) = caller.stream(&request).await;
    assert_eq!(head.status, 200);
    let call = up.call("subscriptions/listen").await;
    let left = Instant::now();
    drop(client);
    gone_at_once(&call, left).await;
}

#[tokio::test]
async fn a_legacy_client_that_leaves_before_the_answer_cancels_nothing() {
    let up = slow(Era::Legacy).await;
    let gateway = Gateway::relay(&[&up]).server("era: legacy").start().await;
    let session = gateway.caller().initialize().await;
    let client = session.caller.open(&session.tool("later")).await;
    let call = up.call("tools/call").await;
    drop(client);
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(call.gone_at().is_none(), "the server works on");
    call.answer(Reply::result(&call, &json!({ "content": [] })));
    // The answer was taken to its end: the same connection carries the next request.
    tokio::time::sleep(Duration::from_millis(100)).await;
    session.ask(&session.call("ping", json!({}))).await;
    assert_eq!(up.call("ping").await.connection, call.connection);
}

#[tokio::test]
async fn a_legacy_client_that_leaves_a_stream_cancels_nothing() {
    let up = slow(Era::Legacy).await;
    let gateway = Gateway::relay(&[&up]).server("era: legacy").start().await;
    let session = gateway.caller().initialize().await;
    let (mut client, _) = session.caller.stream(&session.tool("stream")).await;
    let call = up.call("tools/call").await;
    call.event(&progress());
    client.message().await;
    drop(client);
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        call.event(&progress());
    }
    assert!(call.gone_at().is_none(), "the server works on");
    call.event(&json!({ "jsonrpc": "2.0", "id": call.message()["id"], "result": { "content": [] } }));
    call.end();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(call.gone_at().is_none());
    session.ask(&session.call("ping", json!({}))).await;
    assert_eq!(up.call("ping").await.connection, call.connection, "the stream was read to its end");
}

#[tokio::test]
async fn a_legacy_client_that_leaves_its_own_stream_ends_it_at_the_server() {
    let up = Upstream::legacy().await;
    let gateway = Gateway::relay(&[&up]).server("era: legacy").start().await;
    let session = gateway.caller().initialize().await;
    let (client, _) = session.caller.stream(&session.get()).await;
    let call = up.call("GET").await;
    let left = Instant::now();
    drop(client);
    gone_at_once(&call, left).await;
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_a_json_answer_cancels_it_in_the_modern_era() {
    // The header and half of the body; the rest never comes.
    let up = Upstream::scripted(Era::Modern, |call| {
        (call.method() == "tools/call")
            .then(|| Reply::stream().header("X-Half", "yes").kind("application/json"))
    })
    .await;
    let gateway = Gateway::relay(&[&up]).server("era: modern").start().await;
    let caller = gateway.caller();
    let client = caller.open(&caller.tool("half")).await;
    let call = up.call("tools/call").await;
    call.send(r#"{"jsonrpc":"2.0","#);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let left = Instant::now();
    drop(client);
    gone_at_once(&call, left).await;
}
