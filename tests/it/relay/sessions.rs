//! Legacy sessions: sealed ids, 404 for what does not open, and their end (2025-11-25 transports §Session Management).

use std::time::Duration;

use serde_json::json;
use tollgate::base::Clock;

use crate::support::{Call, Era, Gateway, Issuer, Reply, Response, Session, Upstream, eventually};

async fn relay(up: &Upstream) -> Gateway {
    Gateway::relay(&[up]).server("era: legacy").start().await
}

fn with_id(session: &Session, id: &str) -> Session {
    Session { id: id.to_owned(), ..session.clone() }
}

fn assert_unknown(response: &Response) {
    assert_eq!(response.status(), 404, "{}", response.text());
    assert!(response.code() > 0, "a code of our own: {}", response.text());
    assert!(response.text().contains("session"), "{}", response.text());
}

#[tokio::test]
async fn a_client_gets_a_sealed_id_and_the_server_its_own() {
    let up = Upstream::named("secret-name", Era::Legacy).await;
    let gateway = relay(&up).await;
    let session = gateway.caller().initialize().await;
    assert!(session.id.bytes().all(|b| (0x21..=0x7e).contains(&b)), "visible ASCII: {}", session.id);
    assert!(!session.id.contains("secret-name"), "the server's id is not shown: {}", session.id);
    assert_eq!(session.ask(&session.tool("get_time")).await.status(), 200);
    assert_eq!(up.call("tools/call").await.all("mcp-session-id"), ["secret-name-1"]);
    assert!(up.call("initialize").await.header("mcp-session-id").is_none());
}

#[tokio::test]
async fn ids_that_were_never_issued_are_404_and_reach_no_server() {
    let up = Upstream::legacy().await;
    let gateway = relay(&up).await;
    let session = gateway.caller().initialize().await;
    let mut flipped = session.id.clone().into_bytes();
    let middle = flipped.len() / 2;
    flipped[middle] = if flipped[middle] == b'A' { b'B' } else { b'A' };
    let flipped = String::from_utf8(flipped).unwrap();
    let cut = &session.id[..session.id.len() - 1];
    let long = "x".repeat(8000);
    let before = up.calls().len();
    for id in ["up-1", "nonsense", &flipped, cut, &long, "..", "00000000-0000-0000-0000-000000000000"] {
        let forged = with_id(&session, id);
        for request in [forged.tool("get_time"), forged.get(), forged.delete()] {
            assert_unknown(&session.ask(&request).await);
        }
    }
    let twice = session.tool("get_time").with("Mcp-Session-Id", &session.id);
    assert_unknown(&session.ask(&twice).await);
    assert_eq!(up.calls().len(), before, "the server has seen none of it");
}

#[tokio::test]
async fn an_id_opens_on_no_other_route() {
    let up = Upstream::legacy().await;
    let other = "  - { name: other, servers: [s], limits: [] }";
    let gateway = Gateway::relay(&[&up]).server("era: legacy").routes(other).start().await;
    let session = gateway.caller().initialize().await;
    let mut elsewhere = session.clone();
    elsewhere.caller.path = "/mcp/other".to_owned();
    assert_unknown(&elsewhere.ask(&elsewhere.tool("get_time")).await);
    assert_eq!(session.ask(&session.tool("get_time")).await.status(), 200, "and still opens on its own");
}

#[tokio::test]
async fn an_id_opens_for_nobody_else() {
    let up = Upstream::legacy().await;
    let issuer = Issuer::new("corp");
    let gateway = Gateway::relay(&[&up])
        .server("era: legacy")
        .identity(&format!("issuers: [{}]", issuer.yaml()))
        .start()
        .await;
    let url = gateway.url();
    let alice = gateway.caller().bearer(&issuer.token("alice", &url)).initialize().await;
    let mallory =
        Session { caller: gateway.caller().bearer(&issuer.token("mallory", &url)), ..alice.clone() };
    for request in [mallory.tool("get_time"), mallory.get(), mallory.delete()] {
        assert_unknown(&mallory.ask(&request).await);
    }
    // Another token of the same person is the same person.
    let again = Session { caller: gateway.caller().bearer(&issuer.token("alice", &url)), ..alice };
    assert_eq!(again.ask(&again.tool("get_time")).await.status(), 200);
}

#[tokio::test]
async fn an_id_ends_at_its_age() {
    let up = Upstream::legacy().await;
    let clock = Clock::manual(1_800_000_000);
    let gateway = Gateway::relay(&[&up])
        .server("era: legacy")
        .clock(&clock)
        .more("sessions: { max_age: 1h, idle_ttl: 1h }")
        .start()
        .await;
    let session = gateway.caller().initialize().await;
    clock.advance(Duration::from_secs(3590));
    assert_eq!(session.ask(&session.tool("get_time")).await.status(), 200, "young enough");
    clock.advance(Duration::from_secs(20));
    assert_unknown(&session.ask(&session.tool("get_time")).await);
}

#[tokio::test]
async fn delete_is_answered_204_and_the_id_is_dead() {
    let up = Upstream::legacy().await;
    let gateway = relay(&up).await;
    let session = gateway.caller().initialize().await;
    let (mut stream, _) = session.caller.stream(&session.get()).await;
    let response = session.ask(&session.delete()).await;
    assert_eq!((response.status(), response.body.len()), (204, 0));
    assert_eq!(up.call("DELETE").await.header("mcp-session-id"), Some("up-1"), "the server's own id");
    assert_eq!(stream.event().await, None, "its stream ends");
    let calls = up.calls().len();
    for request in [session.tool("get_time"), session.get(), session.delete()] {
        assert_unknown(&session.ask(&request).await);
    }
    assert_eq!(up.calls().len(), calls, "the server is not asked again");
}

#[tokio::test]
async fn delete_is_answered_204_whatever_success_the_server_calls_it() {
    for status in [200, 202, 204] {
        let up = Upstream::scripted(Era::Legacy, move |call| {
            (call.verb() == "DELETE").then(|| Reply::status(status))
        })
        .await;
        let gateway = relay(&up).await;
        let session = gateway.caller().initialize().await;
        assert_eq!(session.ask(&session.delete()).await.status(), 204, "the server said {status}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_end_sessions_says_so_to_the_client() {
    let up =
        Upstream::scripted(Era::Legacy, |call| (call.verb() == "DELETE").then(|| Reply::status(405))).await;
    let gateway = relay(&up).await;
    let session = gateway.caller().initialize().await;
    assert_eq!(session.ask(&session.delete()).await.status(), 405);
    assert_eq!(session.ask(&session.tool("get_time")).await.status(), 200, "the session goes on");
}

#[tokio::test]
async fn notifications_and_answers_are_202_without_a_body_whatever_the_server_says() {
    let chatty = |call: &Call| {
        let message = call.message();
        let one_way = message["id"].is_null() || message["method"].is_null();
        (call.verb() == "POST" && one_way).then(|| Reply::json(&json!({})))
    };
    let up = Upstream::scripted(Era::Dual, chatty).await;
    let gateway = Gateway::relay(&[&up]).start().await;
    gateway.settled().await;
    let session = gateway.caller().initialize().await;
    let notification = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    let answer = json!({ "jsonrpc": "2.0", "id": 4, "result": {} });
    let refusal = json!({ "jsonrpc": "2.0", "id": 5, "error": { "code": -1, "message": "no" } });
    for message in [notification, answer, refusal] {
        let response = session.ask(&session.post(&message)).await;
        assert_eq!((response.status(), response.text()), (202, String::new()), "{message}");
        assert_eq!(response.header("content-type"), None);
    }
    let caller = gateway.caller();
    let mut body = crate::support::modern_body("notifications/x", json!({}));
    body.as_object_mut().unwrap().remove("id");
    let response = caller.ask(&caller.modern("notifications/x", json!({})).body(body.to_string())).await;
    assert_eq!((response.status(), response.text()), (202, String::new()));
}

#[tokio::test]
async fn a_server_that_lost_its_sessions_is_404_once_and_a_new_session_works() {
    let up = Upstream::legacy().await;
    let gateway = relay(&up).await;
    let session = gateway.caller().initialize().await;
    up.forget_sessions();
    assert_unknown(&session.ask(&session.tool("get_time")).await);
    let calls = up.calls().len();
    assert_unknown(&session.ask(&session.tool("get_time")).await);
    assert_eq!(up.calls().len(), calls, "what is known to be lost is not asked for again");
    let fresh = gateway.caller().initialize().await;
    assert_eq!(fresh.ask(&fresh.tool("get_time")).await.status(), 200);
}

#[tokio::test]
async fn a_server_that_says_400_for_a_lost_session_is_404_too() {
    let up = Upstream::scripted(Era::Legacy, |call| {
        let lost = call.method() == "tools/call";
        lost.then(|| Reply::error(400, call, -32000, "Bad Request: No valid session ID provided"))
    })
    .await;
    let gateway = relay(&up).await;
    let session = gateway.caller().initialize().await;
    assert_unknown(&session.ask(&session.tool("get_time")).await);
}

#[tokio::test]
async fn other_400s_of_the_server_pass_as_they_are() {
    let up = Upstream::scripted(Era::Legacy, |call| {
        (call.method() == "tools/call").then(|| Reply::error(400, call, -32600, "the arguments do not fit"))
    })
    .await;
    let gateway = relay(&up).await;
    let session = gateway.caller().initialize().await;
    let response = session.ask(&session.tool("get_time")).await;
    assert_eq!((response.status(), response.code()), (400, -32600), "{}", response.text());
    assert_eq!(session.ask(&session.call("ping", json!({}))).await.status(), 200, "the session goes on");
}

#[tokio::test]
async fn a_large_400_of_the_server_passes_whole() {
    let body = "x".repeat(300_000);
    let large = body.clone();
    let up = Upstream::scripted(Era::Legacy, move |call| {
        (call.method() == "tools/call").then(|| Reply::body(400, "text/plain", large.clone()))
    })
    .await;
    let gateway = relay(&up).await;
    let session = gateway.caller().initialize().await;
    let response = session.ask(&session.tool("get_time")).await;
    assert_eq!((response.status(), response.body.len(), response.whole), (400, body.len(), true));
}

#[tokio::test]
async fn a_session_whose_target_is_dead_is_404_and_not_502() {
    let up = Upstream::legacy().await;
    let gateway = relay(&up).await;
    let session = gateway.caller().initialize().await;
    up.kill().await;
    assert_unknown(&session.ask(&session.tool("get_time")).await);
    up.revive().await;
    assert_unknown(&session.ask(&session.tool("get_time")).await);
    let fresh = gateway.caller().initialize().await;
    assert_eq!(fresh.ask(&fresh.tool("get_time")).await.status(), 200);
}

#[tokio::test]
async fn a_session_whose_target_left_the_document_is_404() {
    let (first, second) =
        (Upstream::named("first", Era::Legacy).await, Upstream::named("second", Era::Legacy).await);
    let builder = Gateway::relay(&[&first]).server("era: legacy").watched();
    let gateway = builder.start().await;
    let session = gateway.caller().initialize().await;
    gateway.reload(&Gateway::relay(&[&second]).server("era: legacy").text(), "applied").await;
    assert_unknown(&session.ask(&session.tool("get_time")).await);
    let fresh = gateway.caller().initialize().await;
    assert!(fresh.ask(&fresh.tool("get_time")).await.text().contains("second"));
}

#[tokio::test]
async fn a_server_without_sessions_is_relayed_without_one() {
    let up = Upstream::scripted(Era::Legacy, |call| match call.method().as_str() {
        "initialize" => Some(Reply::result(
            call,
            &json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {} }),
        )),
        "tools/list" => Some(Reply::result(call, &json!({ "tools": [] }))),
        _ => None,
    })
    .await;
    let gateway = relay(&up).await;
    let caller = gateway.caller();
    let response = caller.ask(&caller.initialize_request()).await;
    assert_eq!((response.status(), response.header("mcp-session-id")), (200, None));
    let list = caller.post(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" }));
    assert_eq!(caller.ask(&list.with("MCP-Protocol-Version", "2025-06-18")).await.status(), 200);
}

#[tokio::test]
async fn a_refused_handshake_makes_no_session() {
    let up = Upstream::scripted(Era::Legacy, |call| {
        (call.method() == "initialize").then(|| {
            Reply::error(200, call, -32602, "Unsupported protocol version")
                .header("Mcp-Session-Id", "useless")
        })
    })
    .await;
    let gateway = relay(&up).await;
    let caller = gateway.caller();
    let response = caller.ask(&caller.initialize_request()).await;
    assert_eq!((response.status(), response.code()), (200, -32602));
    assert_eq!(response.header("mcp-session-id"), None);
    assert_eq!(gateway.metric("tollgate_sessions", &[]).await, 0.0);
}

#[tokio::test]
async fn a_handshake_answered_in_a_stream_gets_a_sealed_id_too() {
    let up = Upstream::scripted(Era::Legacy, |call| {
        (call.method() == "initialize").then(|| {
            let result = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {} });
            let message = json!({ "jsonrpc": "2.0", "id": call.message()["id"], "result": result });
            Reply::body(200, "text/event-stream", format!("event: message\ndata: {message}\n\n"))
                .header("Mcp-Session-Id", "plain")
        })
    })
    .await;
    let gateway = relay(&up).await;
    let session = gateway.caller().initialize().await;
    assert_ne!(session.id, "plain");
    eventually("the session is counted", async || {
        (gateway.metric("tollgate_sessions", &[]).await == 1.0).then_some(())
    })
    .await;
    session.ask(&session.tool("get_time")).await;
    assert_eq!(up.call("tools/call").await.header("mcp-session-id"), Some("plain"));
}
