//! Event streams: nothing is held back, nothing is cut, nothing is added but comments between events.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{AT_ONCE, Call, Era, Gateway, Piece, Reply, Session, Upstream, eventually};

/// Streams every `tools/call`.
async fn streaming(era: Era) -> Upstream {
    Upstream::scripted(era, |call| (call.method() == "tools/call").then(Reply::stream)).await
}

async fn legacy_session(up: &Upstream) -> (Gateway, Session) {
    let gateway = Gateway::relay(&[up]).server("era: legacy").start().await;
    let session = gateway.caller().initialize().await;
    (gateway, session)
}

#[tokio::test]
async fn a_small_event_arrives_within_milliseconds() {
    let up = streaming(Era::Modern).await;
    let gateway = Gateway::relay(&[&up]).server("era: modern").start().await;
    let caller = gateway.caller();
    // The header comes before there is any event.
    let (mut client, head) = caller.stream(&caller.tool("stream")).await;
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    assert_eq!(head.header("x-accel-buffering"), Some("no"));
    let call = up.call("tools/call").await;
    let mut best = Duration::MAX;
    for n in 0..20 {
        let sent = Instant::now();
        call.event(&json!({ "jsonrpc": "2.0", "method": "n", "params": { "n": n } }));
        assert_eq!(client.message().await["params"]["n"], n);
        let took = sent.elapsed();
        assert!(took < AT_ONCE, "event {n} took {took:?}");
        best = best.min(took);
    }
    assert!(best < Duration::from_millis(20), "the fastest event took {best:?}");
}

#[tokio::test]
async fn the_bytes_of_a_stream_pass_unchanged() {
    let up = streaming(Era::Legacy).await;
    let (_gateway, session) = legacy_session(&up).await;
    let mut client = session.caller.open(&session.tool("stream")).await;
    let call = up.call("tools/call").await;
    let id = call.message()["id"].clone();
    let pieces = [
        ": hello\n\n".to_owned(),
        "id: 7-1\r\nretry: 1500\r\ndata:\r\n\r\n".to_owned(),
        "data: {\"jsonrpc\":\"2.0\",\"method\":\"n\"}\n\n".to_owned(),
        "event: message\ndata: {\"jsonrpc\":\"2.0\",\n".to_owned(),
        "data:  \"id\":".to_owned(),
        format!("{id}, \"result\":{{ \"content\" : [] }}}}\nx-own: kept\n\n"),
    ];
    for piece in &pieces {
        call.send(piece);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    call.end();
    let response = client.response().await;
    assert!(response.whole);
    assert_eq!(response.text(), pieces.concat());
}

/// Silence on a stream after which there is a comment, and the shortest that can be configured as too long.
const PING: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_silent_stream_lives_and_gets_comments_between_events_only() {
    let up = streaming(Era::Dual).await;
    let gateway = Gateway::relay(&[&up]).start().await;
    gateway.settled().await;
    let caller = gateway.caller();
    let session = caller.initialize().await;
    let given_up = streaming(Era::Modern).await;
    let impatient =
        Gateway::relay(&[&given_up]).server("era: modern, timeouts: { stream_idle: 15s }").start().await;
    let began = Instant::now();

    let silent = async {
        let (mut client, _) = session.caller.stream(&session.get()).await;
        let call = up.call("GET").await;
        let comment = client.next_event().await.expect("a comment");
        let waited = began.elapsed();
        assert!(comment.starts_with(':'), "{comment:?}");
        assert!(
            waited > PING - Duration::from_secs(1) && waited < PING + Duration::from_secs(3),
            "{waited:?}"
        );
        assert!(call.gone_at().is_none());
        call.event(&json!({ "jsonrpc": "2.0", "method": "late" }));
        assert_eq!(client.message().await["method"], "late");
    };
    let half = async |in_session: bool| {
        let request = if in_session { session.tool("half") } else { caller.tool("half") };
        let mut client = caller.open(&request).await;
        let call = call_of(&up, in_session).await;
        let id = call.message()["id"].clone();
        // A legacy answer passes as it comes, half an event too; a modern one is looked into, event by event.
        let parts = [
            format!("data: {{\"jsonrpc\":\"2.0\",\"id\":{id},"),
            "\"result\":{\"content\":[]}}\n\n".to_owned(),
        ];
        call.send(&parts[0]);
        tokio::time::sleep(PING + Duration::from_secs(2)).await;
        call.send(&parts[1]);
        call.end();
        let text = client.response().await.text();
        let text = if in_session { text } else { text.trim_start_matches(":\n\n").to_owned() };
        assert_eq!(text, parts.concat(), "nothing stands inside the event");
    };
    let listener = async {
        let request = caller.modern("subscriptions/listen", json!({ "notifications": {} }));
        let (mut client, _) = caller.stream(&request).await;
        let comment = client.next_event().await.expect("a comment");
        assert!(comment.starts_with(':'), "{comment:?}");
    };
    let too_silent = async {
        let caller = impatient.caller();
        let (mut client, _) = caller.stream(&caller.tool("stream")).await;
        let call = given_up.call("tools/call").await;
        let message = loop {
            let event = client.next_event().await.expect("an error before the end");
            if let Some(data) = event.strip_prefix("data: ") {
                break serde_json::from_str::<serde_json::Value>(data).unwrap();
            }
        };
        assert_eq!(message["id"], call.message()["id"], "the call has an end: {message}");
        assert!(message["error"]["code"].as_i64().unwrap() > 0, "{message}");
        assert!(began.elapsed() < PING + Duration::from_secs(3), "{:?}", began.elapsed());
        assert_eq!(client.event().await, None);
        call.gone().await;
    };
    let all = async {
        tokio::join!(
            Box::pin(silent),
            Box::pin(half(true)),
            Box::pin(half(false)),
            Box::pin(listener),
            Box::pin(too_silent)
        )
    };
    tokio::time::timeout(2 * PING, all).await.expect("all of them well within half a minute");
}

/// The call that came in a session, or the one that did not.
async fn call_of(up: &Upstream, in_session: bool) -> Arc<Call> {
    eventually("the call", async || {
        let is_it =
            |c: &Arc<Call>| c.method() == "tools/call" && c.header("mcp-session-id").is_some() == in_session;
        up.calls().into_iter().find(is_it)
    })
    .await
}

#[tokio::test]
async fn a_server_that_closes_a_stream_to_be_polled_is_not_turned_into_an_error() {
    // 2025-11-25 transports §Sending Messages 6: prime, say when to come back, close.
    let up = streaming(Era::Legacy).await;
    let (_gateway, session) = legacy_session(&up).await;
    let mut client = session.caller.open(&session.tool("stream")).await;
    let call = up.call("tools/call").await;
    call.send("id: e1\ndata:\n\n");
    call.send("retry: 100\n\n");
    call.end();
    let response = client.response().await;
    assert!(response.whole, "the stream has its proper end");
    assert_eq!(response.text(), "id: e1\ndata:\n\nretry: 100\n\n");
    // And the client comes back for the rest.
    let mut client = session.caller.open(&session.get().with("Last-Event-ID", "e1")).await;
    let resumed = up.call("GET").await;
    assert_eq!(resumed.header("last-event-id"), Some("e1"));
    resumed.event(&json!({ "jsonrpc": "2.0", "id": call.message()["id"], "result": {} }));
    client.head().await;
    assert_eq!(client.message().await["id"], call.message()["id"]);
}

#[tokio::test]
async fn a_server_that_breaks_off_between_events_leaves_an_error_with_the_id() {
    let up = streaming(Era::Modern).await;
    let gateway = Gateway::relay(&[&up]).server("era: modern").start().await;
    let caller = gateway.caller();
    let (mut client, _) = caller.stream(&caller.tool("stream")).await;
    let call = up.call("tools/call").await;
    call.event(&json!({ "jsonrpc": "2.0", "method": "n" }));
    assert_eq!(client.message().await["method"], "n");
    call.reset();
    let message = client.message().await;
    assert_eq!(message["id"], call.message()["id"]);
    assert!(message["error"]["code"].as_i64().unwrap() > 0, "{message}");
    assert_eq!(client.event().await, None, "and the stream has its proper end");
}

#[tokio::test]
async fn a_stream_that_breaks_inside_an_event_has_no_proper_end() {
    let up = streaming(Era::Legacy).await;
    let (_gateway, session) = legacy_session(&up).await;
    let mut client = session.caller.open(&session.tool("stream")).await;
    let call = up.call("tools/call").await;
    call.send("data: {\"jsonrpc\"");
    client.head().await;
    assert_eq!(client.piece().await, Piece::Bytes(b"data: {\"jsonrpc\"".to_vec()));
    call.reset();
    assert_eq!(crate::support::within("the end", client.piece()).await, Piece::Cut);
}

#[tokio::test]
async fn a_servers_request_reaches_the_client_and_its_answer_the_same_session() {
    let up = Upstream::legacy().await;
    let (_gateway, session) = legacy_session(&up).await;
    let (mut client, head) = session.caller.stream(&session.get()).await;
    assert_eq!(head.status, 200);
    let stream = up.call("GET").await;
    stream.event(&json!({ "jsonrpc": "2.0", "id": "ask-1", "method": "elicitation/create", "params": {} }));
    assert_eq!(client.message().await["id"], "ask-1");
    let answer = json!({ "jsonrpc": "2.0", "id": "ask-1", "result": { "action": "decline" } });
    let response = session.ask(&session.post(&answer)).await;
    assert_eq!((response.status(), response.body.len()), (202, 0));
    let got = up.calls().into_iter().next_back().unwrap();
    assert_eq!(got.message(), answer);
    assert_eq!(got.header("mcp-session-id"), stream.header("mcp-session-id"));
}

#[tokio::test]
async fn streams_of_one_caller_are_bounded() {
    let up = Upstream::legacy().await;
    let gateway = Gateway::relay(&[&up])
        .server("era: legacy")
        .listener("limits: { max_streams_per_principal: 2 }")
        .start()
        .await;
    let session = gateway.caller().initialize().await;
    let first = session.caller.stream(&session.get()).await;
    let _second = session.caller.stream(&session.get()).await;
    let third = session.ask(&session.get()).await;
    assert_eq!(third.status(), 429);
    assert!(third.header("retry-after").is_some());
    drop(first);
    eventually("a place", async || {
        let (_, head) = session.caller.stream(&session.get()).await;
        (head.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_stream_counts_for_as_long_as_it_is_open() {
    let up = Upstream::legacy().await;
    let (gateway, session) = legacy_session(&up).await;
    let (client, _) = session.caller.stream(&session.get()).await;
    assert_eq!(gateway.metric("tollgate_streams", &["route=\"s\""]).await, 1.0);
    drop(client);
    eventually("no stream", async || {
        (gateway.metric("tollgate_streams", &["route=\"s\""]).await == 0.0).then_some(())
    })
    .await;
}
