//! Every decision leaves an event, before its answer ends, whatever happens afterwards.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tollgate::base::{Clock, TenantId};
use tollgate::store::{AuditFilter, Page, Store, StoreSettings};

use crate::support::postgres::{Database, Durability, Postgres};
use crate::support::{Builder, Folder, Gateway, Upstream, eventually};

fn open(settings: StoreSettings) -> Store {
    Store::open(settings, Clock::default(), Arc::new(|_| None)).unwrap()
}

/// The store of a gateway with the embedded default.
fn embedded(gateway: &Gateway) -> Store {
    open(StoreSettings::embedded(&gateway.data_dir()))
}

async fn payloads(store: &Store) -> Vec<Value> {
    let mut all = Vec::new();
    let mut before = None;
    let tenant = TenantId::default();
    loop {
        let Ok(page) =
            store.tenant(&tenant).audit_search(&AuditFilter::default(), before, Page::of(1000)).await
        else {
            return all;
        };
        let Some(last) = page.last() else { return all };
        before = Some(last.place());
        all.extend(page.iter().map(|e| serde_json::from_str(e.payload.as_deref().unwrap()).unwrap()));
    }
}

fn calls<'a>(events: &'a [Value], outcome: &str) -> Vec<&'a Value> {
    events.iter().filter(|e| e["method"] == "tools/call" && e["outcome"] == outcome).collect()
}

async fn with_calls(store: &Store, count: usize) -> Vec<Value> {
    eventually(&format!("{count} calls in the store"), async || {
        let events = payloads(store).await;
        (calls(&events, "ok").len() >= count).then_some(events)
    })
    .await
}

#[tokio::test]
async fn every_decision_leaves_one_event() {
    let up = Upstream::modern().await;
    let gateway = Gateway::relay(&[&up])
        .server("era: modern")
        .route("policy: p, limits: [two]")
        .more("policies:\n  - { name: p, default: allow, rules: [ { name: no_b, deny: { tools: [b] } } ] }")
        .more("limits:\n  - { name: two, key: principal, rate: 2/h }")
        .start()
        .await;
    let caller = gateway.caller();
    assert_eq!(caller.ask(&caller.tool("a")).await.status(), 200);
    caller.ask(&caller.tool("b")).await;
    assert_eq!(caller.ask(&caller.tool("a")).await.status(), 429);
    let store = embedded(&gateway);
    let events = eventually("three events", async || {
        let events: Vec<Value> =
            payloads(&store).await.into_iter().filter(|e| e["method"] == "tools/call").collect();
        (events.len() == 3).then_some(events)
    })
    .await;
    let by = |decision: &str| events.iter().find(|e| e["decision"] == decision).unwrap();
    let allowed = by("allow");
    assert_eq!(
        (&allowed["name"], &allowed["route"], &allowed["server"]),
        (&"a".into(), &"s".into(), &"s".into())
    );
    assert_eq!((&allowed["status"], &allowed["outcome"]), (&200.into(), &"ok".into()));
    assert_eq!((&allowed["kind"], &allowed["role"]), (&"anonymous".into(), &"developer".into()));
    assert!(allowed["bytes_out"].as_u64().unwrap() > 0 && allowed["client_ip"] == "127.0.0.1", "{allowed}");
    assert!(allowed["revision"].as_str().unwrap().starts_with("default@"), "{allowed}");
    assert!(!allowed["target"].as_str().unwrap().is_empty(), "{allowed}");
    assert_eq!((&by("deny")["rule"], &by("deny")["name"]), (&"no_b".into(), &"b".into()));
    assert_eq!((&by("limit")["limit"], &by("limit")["status"]), (&"two".into(), &429.into()));
    assert!(by("limit").get("server").is_none(), "no server was asked");
}

#[tokio::test]
async fn an_event_is_there_before_the_client_has_the_end_of_its_answer() {
    let up = Upstream::modern().await;
    let builder = Gateway::relay(&[&up]).server("era: modern");
    let gateway = builder.clone().start().await;
    let caller = gateway.caller();
    for _ in 0..50 {
        assert_eq!(caller.ask(&caller.tool("a")).await.status(), 200);
    }
    // As by kill -9: nothing is drained any more, and the next run finds what is in the spool.
    let gateway = gateway.crash(&builder).await;
    let store = embedded(&gateway);
    let events = with_calls(&store, 50).await;
    assert_eq!(calls(&events, "ok").len(), 50, "each exactly once");
    let mut ids: Vec<&str> = events.iter().map(|e| e["request_id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), events.len());
}

#[tokio::test]
async fn masked_fields_are_in_no_event() {
    let up = Upstream::modern().await;
    let gateway =
        Gateway::relay(&[&up]).server("era: modern").more("audit: { mask: [name, client_ip] }").start().await;
    let caller = gateway.caller();
    caller.ask(&caller.tool("secret_name")).await;
    let events = with_calls(&embedded(&gateway), 1).await;
    assert_eq!(
        (&calls(&events, "ok")[0]["name"], &calls(&events, "ok")[0]["client_ip"]),
        (&"[masked]".into(), &"127.0.0.0".into())
    );
}

#[tokio::test]
async fn strict_durability_answers_and_records() {
    let up = Upstream::modern().await;
    let gateway =
        Gateway::relay(&[&up]).server("era: modern").more("audit: { durability: strict }").start().await;
    let caller = gateway.caller();
    for _ in 0..5 {
        assert_eq!(caller.ask(&caller.tool("a")).await.status(), 200);
    }
    assert_eq!(calls(&with_calls(&embedded(&gateway), 5).await, "ok").len(), 5);
}

fn on(database: &Database, up: &Upstream, audit: &str) -> Builder {
    Gateway::relay(&[up])
        .server("era: modern")
        .env("DB", &database.url())
        .more("store: { url: \"${env:DB}\", connect_timeout: 1s }")
        .more(&format!("audit: {{ {audit} }}"))
}

#[tokio::test]
async fn a_database_that_is_away_loses_nothing_and_nothing_twice() {
    let up = Upstream::modern().await;
    let server = Arc::new(Postgres::start(Durability::Full));
    let database = server.database();
    let gateway = on(&database, &up, "on_full: refuse").start().await;
    let caller = gateway.caller();
    let store = open(StoreSettings::at(&database.url(), &gateway.data_dir()));
    for _ in 0..20 {
        assert_eq!(caller.ask(&caller.tool("a")).await.status(), 200);
    }
    with_calls(&store, 20).await;
    server.kill();
    for _ in 0..100 {
        assert_eq!(
            caller.ask(&caller.tool("a")).await.status(),
            200,
            "the data plane does not wait for the store"
        );
    }
    assert!(gateway.metric("tollgate_audit_dropped_total", &[]).await == 0.0);
    server.restart();
    let events = with_calls(&store, 120).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(calls(&payloads(&store).await, "ok").len(), 120, "{}", events.len());
}

#[tokio::test]
async fn a_full_spool_refuses_before_the_server_is_asked_and_recovers() {
    let up = Upstream::modern().await;
    let server = Arc::new(Postgres::start(Durability::Full));
    let database = server.database();
    let gateway = on(&database, &up, "spool: { max_size: 3MiB, segment_size: 1MiB }").start().await;
    let store = open(StoreSettings::at(&database.url(), &gateway.data_dir()));
    let caller = gateway.caller();
    assert_eq!(caller.ask(&caller.tool("a")).await.status(), 200);
    with_calls(&store, 1).await;
    server.kill();
    let name = "n".repeat(200);
    let mut answered = 1;
    let mut client = gateway.connect().await;
    let refused = loop {
        let response = client.ask(&caller.tool(&name)).await;
        match response.status() {
            200 => answered += 1,
            503 => break response,
            other => panic!("{other}"),
        }
        assert!(answered < 20_000, "the bound holds");
    };
    assert!(refused.text().contains("audit"), "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    assert_eq!(up.count("tools/call"), answered, "the refused one reached no server");
    eventually("the metric", async || {
        (gateway.metric("tollgate_audit_refused_total", &[]).await >= 1.0).then_some(())
    })
    .await;
    server.restart();
    eventually("calls again", async || (caller.ask(&caller.tool("b")).await.status() == 200).then_some(()))
        .await;
    answered += 1;
    let events = with_calls(&store, answered).await;
    assert_eq!(calls(&events, "ok").len(), answered, "all that were answered, each once");
}

#[tokio::test]
async fn a_full_spool_may_lose_events_if_that_is_wanted() {
    let up = Upstream::modern().await;
    let server = Arc::new(Postgres::start(Durability::Full));
    let database = server.database();
    let gateway =
        on(&database, &up, "on_full: drop, spool: { max_size: 3MiB, segment_size: 1MiB }").start().await;
    server.kill();
    let name = "n".repeat(200);
    let (caller, mut client) = (gateway.caller(), gateway.connect().await);
    for i in 0..20_000 {
        assert_eq!(client.ask(&caller.tool(&name)).await.status(), 200);
        if i % 500 == 499 && gateway.metric("tollgate_audit_dropped_total", &[]).await > 0.0 {
            return;
        }
    }
    panic!("nothing was dropped");
}

/// Runs the binary as an operator would.
fn tollgate(arguments: &[&str]) -> (bool, String) {
    let done = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate")).args(arguments).output().unwrap();
    (done.status.success(), String::from_utf8(done.stdout).unwrap())
}

#[tokio::test]
async fn the_command_line_exports_what_it_then_proves() {
    let up = Upstream::modern().await;
    let gateway = Gateway::relay(&[&up]).server("era: modern").start().await;
    let caller = gateway.caller();
    for _ in 0..10 {
        assert_eq!(caller.ask(&caller.tool("a")).await.status(), 200);
    }
    with_calls(&embedded(&gateway), 10).await;
    let data = gateway.data_dir();
    let data = data.to_str().unwrap();
    let (ok, key) = tollgate(&["audit", "key", "--data-dir", data]);
    assert!(ok && key.starts_with("ed25519:"), "{key}");
    let key = key.trim();
    let (ok, checkpoint) = tollgate(&["audit", "checkpoint", "--data-dir", data]);
    assert!(ok);
    let (ok, export) = tollgate(&["audit", "export", "--data-dir", data]);
    assert!(ok && export.lines().count() >= 12, "{export}");
    let folder = Folder::new();
    let since = folder.write("point.json", checkpoint);
    let file = folder.write("export.jsonl", &export);
    let check = |file: &std::path::Path| {
        let since = since.to_str().unwrap();
        tollgate(&["audit", "verify", file.to_str().unwrap(), "--key", key, "--since", since])
    };
    let (ok, said) = check(&file);
    assert!(ok && said.starts_with("sound: "), "{said}");
    let changed = folder.write("changed.jsonl", export.replacen("\"allow\"", "\"deny\"", 1));
    let (ok, said) = check(&changed);
    assert!(!ok && said.starts_with("NOT SOUND: "), "{said}");
    let (ok, csv) = tollgate(&["audit", "export", "--data-dir", data, "--format", "csv"]);
    assert!(
        ok && csv.starts_with("time,tenant,class,writer,sequence,") && csv.contains("tools/call"),
        "{csv}"
    );
}

#[tokio::test]
async fn two_processes_that_hand_over_record_each_call_once() {
    let up = Upstream::modern().await;
    let builder = Gateway::relay(&[&up]).server("era: modern");
    let old = builder.clone().start().await;
    let caller = old.caller();
    for _ in 0..10 {
        assert_eq!(caller.ask(&caller.tool("a")).await.status(), 200);
    }
    let new = old.succeed(&builder).await.serving();
    assert!(old.yield_to_successor().await);
    let caller = new.caller();
    for _ in 0..10 {
        assert_eq!(caller.ask(&caller.tool("a")).await.status(), 200);
    }
    let store = embedded(&new);
    let events = with_calls(&store, 20).await;
    assert_eq!(calls(&events, "ok").len(), 20);
    // What the old one left is gone once it is in the store.
    eventually("only the files of the one that runs", async || {
        let files = std::fs::read_dir(new.data_dir().join("spool")).unwrap();
        let writers: std::collections::HashSet<String> =
            files.map(|f| f.unwrap().file_name().to_string_lossy()[..32].to_owned()).collect();
        (writers.len() == 1).then_some(())
    })
    .await;
}
