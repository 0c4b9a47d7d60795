//! What ends before it is known who asks: it fills no spool, takes nobody's place, and is counted to the last.

use std::sync::Arc;

use serde_json::Value;
use tollgate::base::{Clock, TenantId};
use tollgate::store::{AuditFilter, Grain, Page, Store, StoreSettings, Time, UsageFilter};

use crate::support::postgres::{Durability, Postgres};
use crate::support::{Builder, Caller, Gateway, Request, Upstream, eventually};

/// So that what is told one by one is told from what is not.
const AUDIT: &str = "unidentified: { rate: 20/s, burst: 50 }";
/// Every attempt is looked at.
const OPEN: &str = "failed_attempts: { rate: 1000000/s, burst: 1000000 }, loopback: { role: developer }";

fn open(settings: StoreSettings) -> Store {
    Store::open(settings, Clock::default(), Arc::new(|_| None)).unwrap()
}

/// Events of the log of the operator, of both classes.
async fn events(store: &Store) -> Vec<Value> {
    let mut all = Vec::new();
    let mut before = None;
    let tenant = TenantId::default();
    loop {
        let scope = store.tenant(&tenant);
        let Ok(page) = scope.audit_search(&AuditFilter::default(), before, Page::of(1000)).await else {
            return all;
        };
        let Some(last) = page.last() else { return all };
        before = Some(last.place());
        all.extend(page.iter().map(|e| serde_json::from_str(e.payload.as_deref().unwrap()).unwrap()));
    }
}

/// Requests of nobody known: those with events of their own, and those that others tell of.
fn told(events: &[Value], outcome: &str) -> (u64, u64) {
    let own = events.iter().filter(|e| e["outcome"] == outcome && e["principal"].is_null());
    own.fold((0, 0), |(single, summed), event| match event["count"].as_u64() {
        None => (single + 1, summed),
        Some(count) => (single, summed + count),
    })
}

async fn all_told(store: &Store, outcome: &str, wanted: u64) -> Vec<Value> {
    eventually(&format!("{wanted} times {outcome}"), async || {
        let events = events(store).await;
        let (single, summed) = told(&events, outcome);
        assert!(single + summed <= wanted, "none twice: {single} + {summed} of {wanted}");
        (single + summed == wanted).then_some(events)
    })
    .await
}

fn guarded(up: &Upstream, audit: &str) -> Builder {
    Gateway::relay(&[up]).server("era: modern").identity(OPEN).more(&format!("audit: {{ {AUDIT}{audit} }}"))
}

/// Sends it so many times over a few connections.
async fn flood(gateway: &Gateway, request: &Request, times: u64, status: u16) {
    let one = async |times: u64| {
        let mut client = gateway.connect().await;
        for _ in 0..times {
            assert_eq!(client.ask(request).await.status(), status);
        }
    };
    let each = times / 4;
    tokio::join!(one(each), one(each), one(each), one(times - 3 * each));
}

fn forged(caller: &Caller) -> Request {
    caller.clone().bearer("tg_forged_0123456789").tool("a")
}

#[tokio::test]
async fn a_flood_while_the_database_is_away_fills_no_spool_and_stops_no_call() {
    let up = Upstream::modern().await;
    let server = Arc::new(Postgres::start(Durability::Full));
    let database = server.database();
    let gateway = guarded(&up, ", on_full: refuse, spool: { max_size: 3MiB, segment_size: 1MiB }")
        .env("DB", &database.url())
        .more("store: { url: \"${env:DB}\", connect_timeout: 1s }")
        .start()
        .await;
    let store = open(StoreSettings::at(&database.url(), &gateway.data_dir()));
    let caller = gateway.caller();
    assert_eq!(caller.ask(&caller.tool("a")).await.status(), 200);
    eventually("the first call", async || (!events(&store).await.is_empty()).then_some(())).await;
    server.kill();
    let began = std::time::Instant::now();
    // Each an event of its own they would be 5 MB and more: the spool has three, of which calls may take two and a half.
    const FLOOD: u64 = 24_000;
    let bad = forged(&caller);
    let flooding = flood(&gateway, &bad, FLOOD, 401);
    let calling = async {
        let mut client = gateway.connect().await;
        for _ in 0..200 {
            assert_eq!(client.ask(&caller.tool("a")).await.status(), 200, "calls go on");
        }
    };
    tokio::join!(flooding, calling);
    let took = began.elapsed();
    assert_eq!(gateway.metric("tollgate_audit_refused_total", &[]).await, 0.0);
    let backlog = gateway.metric("tollgate_audit_backlog", &[]).await;
    let most = 50.0 + 20.0 * (took.as_secs_f64() + 2.0) + (took.as_secs_f64() + 2.0) + 202.0;
    assert!(backlog <= most, "{backlog} events of at most {most} after {took:?}");
    server.restart();
    let events = all_told(&store, "unauthenticated", FLOOD).await;
    let (single, summed) = told(&events, "unauthenticated");
    assert!(single >= 50 && summed > FLOOD / 2, "{single} and {summed}");
    eventually("the metric", async || {
        let counted = gateway.metric("tollgate_audit_summarised_total", &[]).await;
        (counted == summed as f64).then_some(())
    })
    .await;
    let sum = events.iter().find(|e| !e["count"].is_null()).unwrap();
    assert_eq!((&sum["route"], &sum["status"], &sum["decision"]), (&"s".into(), &401.into(), &"deny".into()));
    assert!(Time::parse(sum["since"].as_str().unwrap()).is_some(), "{sum}");
    assert!(sum["reason"].as_str().unwrap().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{sum}");
    // Usage has them all, and calls as they were.
    let now = store.now();
    let hour = std::time::Duration::from_secs(3600);
    let filter = UsageFilter { route: Some("s".to_owned()), ..UsageFilter::default() };
    let tenant = TenantId::default();
    let scope = store.tenant(&tenant);
    let series = scope.usage_series(Grain::Minute, now.minus(hour), now, &filter).await.unwrap();
    let (calls, errors) = series.iter().fold((0, 0), |(c, e), point| (c + point.calls, e + point.errors));
    assert_eq!((calls, errors), (FLOOD as i64 + 201, FLOOD as i64));
    let latency = scope.usage_latency(Grain::Minute, now.minus(hour), now, &filter).await.unwrap().unwrap();
    assert_eq!(latency.count() as u64, FLOOD + 201);
}

#[tokio::test]
async fn every_end_before_the_caller_is_known_is_counted_alike_and_none_is_lost_when_the_process_ends() {
    for durability in ["process", "strict"] {
        let up = Upstream::modern().await;
        let builder =
            guarded(&up, &format!(", durability: {durability}")).listener("limits: { header_timeout: 2s }");
        let gateway = builder.clone().start().await;
        let caller = gateway.caller();
        const EACH: u64 = 300;
        const MALFORMED: u64 = 40;
        let nowhere = Caller::new(gateway.mcp, "/mcp/nowhere");
        flood(&gateway, &nowhere.tool("a"), EACH, 404).await;
        let host = gateway.mcp.to_string();
        flood(&gateway, &Request::new("PUT", "/mcp/s").with("Host", &host), EACH, 405).await;
        flood(&gateway, &Request::new("GET", "/mcp/s").with("Host", "evil.example"), EACH, 403).await;
        // Nor does anybody know who sends what is no request, or none in time.
        for _ in 0..MALFORMED {
            let mut client = gateway.connect().await;
            client.send("GET /mcp/s HTTP/1.1\r\nHost : x\r\n\r\n").await;
            assert_eq!(client.head().await.status, 400);
        }
        let mut silent = gateway.connect().await;
        silent.send("GET /mcp/s HT").await;
        assert_eq!(silent.head().await.status, 408);
        flood(&gateway, &forged(&caller), EACH, 401).await;
        // Of the control plane as well: whoever has no token there is as unknown.
        for _ in 0..EACH {
            assert_eq!(gateway.admin("/api/v1/tenants").await.status(), 401);
        }
        assert_eq!(caller.ask(&caller.tool("a")).await.status(), 200);
        let gateway = gateway.restart(&builder).await;
        let store = open(StoreSettings::embedded(&gateway.data_dir()));
        let events = all_told(&store, "unauthenticated", EACH).await;
        // 404 and 405 are the same outcome.
        for (outcome, wanted) in
            [("not_found", 2 * EACH), ("bad_request", EACH + MALFORMED), ("refused", EACH)]
        {
            let (single, summed) = told(&events, outcome);
            assert_eq!(single + summed, wanted, "{durability} {outcome}");
            assert!(summed > 0, "{durability} {outcome}: {single} singles");
        }
        let by = |status: u64| {
            told(&events.iter().filter(|e| e["status"] == status).cloned().collect::<Vec<_>>(), "not_found")
        };
        assert_eq!((by(404).0 + by(404).1, by(405).0 + by(405).1), (EACH, EACH));
        let (single, summed) = told(&events, "client_slow");
        assert_eq!(single + summed, 1, "{durability}");
        let unread = events.iter().find(|e| e["status"] == 408).unwrap();
        assert_eq!(
            (&unread["decision"], &unread["http_method"]),
            (&"error".into(), &Value::Null),
            "{unread}"
        );
    }
}
