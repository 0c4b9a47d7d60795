//! Bodies in the audit: of which requests, how much of them, and what happens without room.

use std::sync::Arc;

use serde_json::{Value, json};
use tollgate::base::{Clock, TenantId};
use tollgate::store::{AuditFilter, Page, Store, StoreSettings};

use crate::support::postgres::{Durability, Postgres};
use crate::support::{Builder, Caller, Era, Gateway, Reply, Request, Upstream, eventually};

fn open(settings: StoreSettings) -> Store {
    Store::open(settings, Clock::default(), Arc::new(|_| None)).unwrap()
}

fn embedded(gateway: &Gateway) -> Store {
    open(StoreSettings::embedded(&gateway.data_dir()))
}

/// All events of calls, the oldest first, with what was recorded of their bodies.
async fn calls(store: &Store) -> Vec<Value> {
    let tenant = TenantId::default();
    let scope = store.tenant(&tenant);
    let Ok(page) = scope.audit_search(&AuditFilter::default(), None, Page::of(1000)).await else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for listed in page.iter().rev() {
        assert!(!listed.payload.as_ref().unwrap().contains("_body"), "a list has no bodies");
        let event = scope.audit_event(listed.class(), listed.writer(), listed.sequence()).await;
        let payload = event.unwrap().unwrap().payload.unwrap();
        let event: Value = serde_json::from_str(&payload).unwrap();
        let there = |name: &str| event[name].is_string();
        assert_eq!(
            (listed.has_request_body, listed.has_response_body),
            (there("request_body"), there("response_body"))
        );
        found.push(event);
    }
    found.retain(|e| e["method"] == "tools/call");
    found
}

async fn after(store: &Store, count: usize) -> Vec<Value> {
    eventually(&format!("{count} calls in the store"), async || {
        let found = calls(store).await;
        (found.len() >= count).then_some(found)
    })
    .await
}

fn with_policy(up: &Upstream, rules: &str) -> Builder {
    Gateway::relay(&[up])
        .route("policy: p")
        .more(&format!("policies:\n  - {{ name: p, default: deny, rules: [ {rules} ] }}"))
}

fn tool(caller: &Caller, name: &str, arguments: Value) -> Request {
    caller.modern("tools/call", json!({ "name": name, "arguments": arguments }))
}

fn sent(request: &Request) -> String {
    let bytes = request.bytes();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    text.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[tokio::test]
async fn bodies_are_recorded_where_the_rule_that_decides_says_so_and_nowhere_else() {
    let up = Upstream::modern().await;
    let gateway = with_policy(
        &up,
        "{ allow: { tools: [quiet] } }, { allow: { tools: [a] }, record: {} }, \
         { allow: { tools: [asked] }, record: { response: false } }, \
         { name: no, deny: { tools: [forbidden] }, record: {} }",
    )
    .start()
    .await;
    let caller = gateway.caller();
    let mut said = Vec::new();
    for name in ["quiet", "a", "asked", "forbidden", "unknown"] {
        let request = tool(&caller, name, json!({ "text": "grüße" }));
        let answer = caller.ask(&request).await;
        said.push((sent(&request), answer.text()));
    }
    let found = after(&embedded(&gateway), 5).await;
    let bodies = |i: usize| (&found[i]["request_body"], &found[i]["response_body"]);
    let wanted = |i: usize| (Value::from(said[i].0.as_str()), Value::from(said[i].1.as_str()));
    assert_eq!(bodies(0), (&Value::Null, &Value::Null), "no rule says so");
    let (request, response) = wanted(1);
    assert_eq!(bodies(1), (&request, &response), "byte for byte as the client sent and got them");
    assert!(found[1].get("request_cut").is_none() && found[1].get("response_cut").is_none());
    assert_eq!(bodies(2), (&wanted(2).0, &Value::Null));
    let (request, response) = wanted(3);
    assert_eq!((bodies(3), &found[3]["decision"]), ((&request, &response), &json!("deny")));
    assert!(response.as_str().unwrap().contains("Unknown tool"), "what the client was told");
    assert_eq!(bodies(4), (&Value::Null, &Value::Null), "the default decided");
}

#[tokio::test]
async fn what_is_longer_is_cut_and_what_is_secret_left_out() {
    let up = Upstream::scripted(Era::Modern, |call| {
        (call.method() == "tools/call").then(|| {
            let inner = json!({ "pin": "s3cret", "n": 1 }).to_string();
            let content = json!([{ "type": "text", "text": inner }]);
            Reply::result(call, &json!({ "content": content, "structuredContent": { "PIN": "s3cret" } }))
        })
    })
    .await;
    let gateway = with_policy(
        &up,
        "{ allow: { tools: [short] }, record: { max: 40B } }, \
         { allow: { tools: [pay] }, record: { redact: [pin] } }",
    )
    .start()
    .await;
    let caller = gateway.caller();
    let short = tool(&caller, "short", json!({ "x": "y".repeat(100_000) }));
    let answer = caller.ask(&short).await.text();
    let pay = tool(&caller, "pay", json!({ "pin": 1234, "to": "ann" }));
    assert!(caller.ask(&pay).await.text().contains("s3cret"), "the client gets it all");
    let found = after(&embedded(&gateway), 2).await;
    let whole = sent(&short);
    assert_eq!(found[0]["request_body"], whole[..40]);
    assert_eq!(found[0]["request_cut"], whole.len() - 40);
    assert_eq!(
        (&found[0]["response_body"], &found[0]["response_cut"]),
        (&json!(answer[..40]), &json!(answer.len() - 40))
    );
    let request: Value = serde_json::from_str(found[1]["request_body"].as_str().unwrap()).unwrap();
    assert_eq!(request["params"]["arguments"], json!({ "pin": "[redacted]", "to": "ann" }));
    let response = found[1]["response_body"].as_str().unwrap();
    assert!(response.contains("[redacted]") && !response.contains("s3cret"), "{response}");
    assert!(found[1].get("response_cut").is_none(), "nothing is missing but what was redacted");
}

#[tokio::test]
async fn a_mask_and_a_bound_of_the_operator_win_over_a_policy() {
    let up = Upstream::modern().await;
    let rules = "{ allow: {}, record: { max: 64KiB } }";
    let masked = with_policy(&up, rules).more("audit: { mask: [request_body] }").start().await;
    let caller = masked.caller();
    let answer = caller.ask(&tool(&caller, "a", json!({}))).await.text();
    let found = after(&embedded(&masked), 1).await;
    assert!(found[0].get("request_body").is_none() && found[0].get("request_cut").is_none(), "{}", found[0]);
    assert_eq!(found[0]["response_body"], answer);
    let bounded = with_policy(&up, rules).more("audit: { max_body: 10B }").start().await;
    let caller = bounded.caller();
    let request = tool(&caller, "a", json!({}));
    caller.ask(&request).await;
    let found = after(&embedded(&bounded), 1).await;
    assert_eq!(found[0]["request_body"], sent(&request)[..10]);
    assert_eq!(found[0]["response_body"].as_str().unwrap().len(), 10);
}

#[tokio::test]
async fn of_a_stream_the_message_that_ends_the_call_is_recorded_before_the_client_has_it() {
    let up =
        Upstream::scripted(Era::Modern, |call| (call.method() == "tools/call").then(Reply::stream)).await;
    let builder = with_policy(&up, "{ allow: {}, record: {} }");
    let gateway = builder.clone().start().await;
    let caller = gateway.caller();
    let request = tool(&caller, "slow", json!({}));
    let (mut client, head) = caller.stream(&request).await;
    assert_eq!(head.status, 200);
    let call = up.call("tools/call").await;
    // Speaks of a result, and is none.
    call.event(&json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "result": 1, "error": 2 } }));
    client.event().await.unwrap();
    let answer = json!({ "jsonrpc": "2.0", "id": call.message()["id"], "result": { "content": [{ "type": "text", "text": "x".repeat(3000) }] } });
    let event = format!("event: message\ndata: {answer}\n\n");
    let (first, second) = event.split_at(1000);
    call.send(first);
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    call.send(second);
    let got = client.event().await.unwrap();
    assert!(got.contains(&answer.to_string()));
    // The stream is still open, and this is as by kill -9: what the client has is recorded.
    let gateway = gateway.crash(&builder).await;
    let found = after(&embedded(&gateway), 1).await;
    assert_eq!((found.len(), &found[0]["outcome"]), (1, &json!("ok")));
    assert_eq!(found[0]["request_body"], sent(&request));
    assert_eq!(found[0]["response_body"], answer.to_string());
    assert!(found[0].get("response_cut").is_none(), "{}", found[0]);
}

/// The same where the stream is passed on as it comes, and the client leaves before the end.
#[tokio::test]
async fn in_a_stream_that_is_not_looked_into_the_answer_is_found_as_well() {
    let up =
        Upstream::scripted(Era::Legacy, |call| (call.method() == "tools/call").then(Reply::stream)).await;
    let gateway = with_policy(&up, "{ allow: {}, record: { max: 100B } }").start().await;
    let gateway_caller = gateway.caller();
    let session = gateway_caller.initialize().await;
    let (mut client, _) = session.caller.stream(&session.tool("slow")).await;
    let call = up.call("tools/call").await;
    let answer =
        json!({ "jsonrpc": "2.0", "id": call.message()["id"], "result": { "text": "x".repeat(3000) } });
    let event = format!(": hello\n\nid: 1\ndata: {answer}\n\n");
    for piece in event.as_bytes().chunks(700) {
        call.send(piece);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    while !client.event().await.unwrap().contains("result") {}
    let found = after(&embedded(&gateway), 1).await;
    let answer = answer.to_string();
    assert_eq!(found[0]["response_body"], answer[..100]);
    assert_eq!(found[0]["response_cut"], answer.len() - 100);
    call.end();
}

#[tokio::test]
async fn an_answer_of_the_gateway_itself_is_what_the_client_got() {
    let up = Upstream::scripted(Era::Modern, |call| match call.message()["params"]["name"].as_str() {
        Some("reset") => Some(Reply::reset()),
        Some("stream") => Some(Reply::stream()),
        _ => None,
    })
    .await;
    let gateway = with_policy(&up, "{ allow: {}, record: {} }").start().await;
    let caller = gateway.caller();
    let failed = caller.ask(&tool(&caller, "reset", json!({}))).await;
    assert_eq!(failed.status(), 502);
    let (mut client, _) = caller.stream(&tool(&caller, "stream", json!({}))).await;
    up.nth("tools/call", 1).await.reset();
    let broken = client.event().await.unwrap();
    let found = after(&embedded(&gateway), 2).await;
    assert_eq!(found[0]["response_body"], failed.text());
    let told = found[1]["response_body"].as_str().unwrap();
    assert!(broken.contains(told) && told.contains("\"error\""), "{told}\n{broken}");
}

#[tokio::test]
async fn notifications_lists_and_long_streams_are_recorded_as_far_as_they_have_bodies() {
    let up = Upstream::legacy().await;
    let gateway = Gateway::relay(&[&up])
        .server("era: legacy")
        .route("policy: p")
        .more("policies: [ { name: p, default: deny, rules: [ { allow: {}, record: {} } ] } ]")
        .start()
        .await;
    let session = gateway.caller().initialize().await;
    let notice = session.post(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
    assert_eq!(session.ask(&notice).await.status(), 202);
    let answer = session.ask(&session.tool("a")).await.text();
    let store = embedded(&gateway);
    let tenant = TenantId::default();
    let events = eventually("three events", async || {
        let scope = store.tenant(&tenant);
        let page = scope.audit_search(&AuditFilter::default(), None, Page::of(100)).await.ok()?;
        let events: Vec<Value> =
            page.iter().map(|e| serde_json::from_str(e.payload.as_ref().unwrap()).unwrap()).collect();
        let data = page.iter().zip(events).filter(|(_, e)| e["method"].is_string());
        let data: Vec<(String, Vec<&str>)> =
            data.map(|(row, e)| (e["method"].as_str().unwrap().to_owned(), row.bodies())).collect();
        (data.len() == 3).then_some(data)
    })
    .await;
    let of = |method: &str| events.iter().find(|(m, _)| m == method).unwrap().1.clone();
    assert_eq!(of("initialize"), ["request", "response"]);
    assert_eq!(of("notifications/initialized"), ["request"]);
    assert_eq!(calls(&store).await[0]["response_body"], answer);
}

/// Nobody escapes the record by sending a call beside others.
#[tokio::test]
async fn a_batch_is_recorded_if_any_of_its_calls_is() {
    let up = Upstream::legacy().await;
    let gateway = with_policy(
        &up,
        "{ allow: { tools: [quiet] } }, { allow: { tools: [pay] }, record: { redact: [pin] } }, \
         { deny: { tools: [no] }, record: { response: false } }",
    )
    .server("era: legacy")
    .start()
    .await;
    let caller = gateway.caller();
    let call = |id: u32, name: &str| {
        let params = json!({ "name": name, "arguments": { "pin": 1234 } });
        json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params })
    };
    let store = embedded(&gateway);
    let tenant = TenantId::default();
    for (before, (names, wanted)) in [
        (["quiet", "quiet"], &[][..]),
        (["quiet", "pay"], &["request", "response"]),
        (["pay", "quiet"], &["request", "response"]),
        (["quiet", "no"], &["request"]),
    ]
    .into_iter()
    .enumerate()
    {
        let batch = json!([call(1, names[0]), call(2, names[1])]);
        caller.ask(&caller.post(&batch).with("MCP-Protocol-Version", "2025-03-26")).await;
        let event = eventually("its event", async || {
            let scope = store.tenant(&tenant);
            let filter = AuditFilter { class: Some("data".to_owned()), ..AuditFilter::default() };
            let page = scope.audit_search(&filter, None, Page::of(10)).await.ok()?;
            let newest = page.first().filter(|_| page.len() == before + 1)?;
            scope.audit_event(newest.class(), newest.writer(), newest.sequence()).await.ok()?
        })
        .await;
        assert_eq!(event.bodies(), wanted, "{names:?}");
        let payload = event.payload.unwrap();
        if names.contains(&"pay") {
            assert!(!payload.contains("1234") && payload.contains("[redacted]"), "{payload}");
        }
    }
}

/// A database that is away, and a spool that has room for some twenty calls with their bodies.
async fn small(up: &Upstream, on_full: &str) -> (Arc<Postgres>, Gateway, Store) {
    let server = Arc::new(Postgres::start(Durability::Full));
    let url = server.database().url();
    let rules = "{ allow: { tools: [plain] } }, { allow: { tools: [a] }, record: { max: 64KiB } }, \
                 { name: no, deny: { tools: [b] }, record: { max: 64KiB } }";
    let gateway = with_policy(up, rules)
        .env("DB", &url)
        .more("store: { url: \"${env:DB}\", connect_timeout: 1s }")
        .more(&format!("audit: {{ on_full: {on_full}, spool: {{ max_size: 3MiB, segment_size: 1MiB }} }}"))
        .start()
        .await;
    let store = open(StoreSettings::at(&url, &gateway.data_dir()));
    let caller = gateway.caller();
    caller.ask(&tool(&caller, "plain", json!({}))).await;
    after(&store, 1).await;
    server.kill();
    (server, gateway, store)
}

#[tokio::test]
async fn without_room_for_bodies_a_call_that_must_be_recorded_is_refused() {
    let up = Upstream::modern().await;
    let (server, gateway, store) = small(&up, "refuse").await;
    let caller = gateway.caller();
    let long = json!({ "text": "x".repeat(60_000) });
    let mut answered = 0;
    let refused = loop {
        let answer = caller.ask(&tool(&caller, "a", long.clone())).await;
        match answer.status() {
            200 => answered += 1,
            503 => break answer,
            other => panic!("{other}"),
        }
        assert!(answered < 100, "the bound holds");
    };
    assert!(answered > 5 && refused.text().contains("audit"), "{answered} {}", refused.text());
    assert_eq!(up.count("tools/call"), answered + 1, "the refused one reached no server");
    // One of which no body is wanted still finds room, and so does the event of one that is refused anyway.
    assert_eq!(caller.ask(&tool(&caller, "plain", long.clone())).await.status(), 200);
    let denied = tool(&caller, "b", long.clone());
    assert!(caller.ask(&denied).await.text().contains("Unknown tool"));
    server.restart();
    let found = after(&store, answered + 4).await;
    let kept = found.iter().filter(|e| e["name"] == "a" && e["outcome"] == "ok");
    assert_eq!(
        kept.filter(|e| e["request_body"].is_string() && e["response_body"].is_string()).count(),
        answered
    );
    let no = found.iter().find(|e| e["name"] == "b").unwrap();
    assert_eq!((&no["decision"], &no["request_cut"]), (&json!("deny"), &json!(sent(&denied).len())));
    assert!(no.get("request_body").is_none(), "there was no room");
    eventually("calls again", async || {
        (caller.ask(&tool(&caller, "a", long.clone())).await.status() == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn where_events_may_be_lost_bodies_are_lost_first() {
    let up = Upstream::modern().await;
    let (server, gateway, store) = small(&up, "drop").await;
    let caller = gateway.caller();
    let request = tool(&caller, "a", json!({ "text": "x".repeat(60_000) }));
    for _ in 0..60 {
        assert_eq!(caller.ask(&request).await.status(), 200);
    }
    server.restart();
    let found = after(&store, 61).await;
    let (with, without): (Vec<&Value>, Vec<&Value>) =
        found.iter().filter(|e| e["name"] == "a").partition(|e| e["request_body"].is_string());
    assert!(with.len() > 5 && without.len() > 5, "{} {}", with.len(), without.len());
    assert!(without.iter().all(|e| e["request_cut"] == sent(&request).len()), "and the event says so");
    assert_eq!(gateway.metric("tollgate_audit_dropped_total", &[]).await, 0.0);
    eventually("the metric", async || {
        let lost = gateway.metric("tollgate_audit_bodies_lost_total", &[]).await;
        (lost == without.len() as f64).then_some(())
    })
    .await;
}
