//! Health, its score, performance and usage of a time, as the API tells them.

use serde_json::{Value, json};
use tollgate::audit::usage::Usage;
use tollgate::audit::{Class, Event, Keys, Names, Position, WriterId};
use tollgate::store::{AuditBatch, HealthChange, HealthSample, Time};

use super::plane::Plane;

const KEY: &str = "tg_a_viewer";
/// 2026-11-30T10:00:00Z.
const START: i64 = 1_796_032_800;
const HOUR: &str = "from=2026-11-30T10:00:00Z&to=2026-11-30T11:00:00Z";

fn at(minute: i64) -> Time {
    Time::from_micros((START + minute * 60) * 1_000_000)
}

fn minute(tenant: &str, server: &str, minute: i64, available: i64) -> HealthSample {
    HealthSample {
        tenant: tenant.to_owned(),
        at: at(minute),
        server: server.to_owned(),
        target: "http://10.0.0.1/mcp".to_owned(),
        replica: "r1".to_owned(),
        observed: 60,
        available,
        probes: 6,
        probes_failed: 0,
        probe_us: 12_000,
        latency_count: 0,
        latency_us: 0,
        in_flight_max: 4,
        ejections: 0,
        changes: 0,
        state: "healthy".to_owned(),
        error: None,
    }
}

/// An hour of `weather`, which was fine, and `files`, which was away half of the time and failed one call in ten.
async fn furnished() -> Plane {
    let plane = Plane::start().await;
    let mut minutes = Vec::new();
    for i in 0..60 {
        minutes.push(minute("a", "weather", i, 60));
        minutes.push(minute("a", "files", i, 30));
        minutes.push(minute("b", "secret", i, 60));
    }
    let change = |tenant: &str, i: i64| HealthChange {
        tenant: tenant.to_owned(),
        at: at(i),
        server: "weather".to_owned(),
        target: "http://10.0.0.1/mcp".to_owned(),
        replica: "r1".to_owned(),
        was: Some("healthy".to_owned()),
        state: "ejected".to_owned(),
        error: None,
    };
    let changes: Vec<HealthChange> = (0..5).map(|i| change("a", i)).chain([change("b", 0)]).collect();
    plane.store.platform().put_health(&minutes, &changes).await.unwrap();
    let mut usage = Usage::default();
    let mut names = Names::default();
    for i in 0..200u64 {
        let time = u64::try_from(START).unwrap() * 1_000_000 + i * 1_000_000;
        for server in ["weather", "files"] {
            let failed = server == "files" && i % 10 == 0;
            let event = Event {
                principal: Some(if i % 2 == 0 { "corp|ann" } else { "corp|bob" }),
                method: Some("tools/call"),
                name: Some("get"),
                route: Some("everything"),
                server: Some(server),
                outcome: Some(if failed { "upstream_error" } else { "ok" }),
                duration_us: Some(10_000),
                bytes_in: Some(1),
                bytes_out: Some(2),
                ..Event::new(time, "a", Class::Data)
            };
            usage.count(time, &event, &Keys::of(&event, &mut names));
        }
    }
    let (usage, metrics) = usage.into_parts();
    let to = Position { segment: 0, offset: 8 };
    let (events, chains) = (Vec::new(), Vec::new());
    let batch = AuditBatch {
        writer: WriterId::fresh(),
        from: Position::default(),
        to,
        events,
        chains,
        usage,
        metrics,
    };
    plane.store.platform().audit_write(&batch).await.unwrap();
    plane.store.platform().usage_roll_up().await.unwrap();
    plane
}

async fn get(plane: &Plane, key: &str, path: &str) -> Value {
    let answer = plane.ask(key, &format!("GET {path}"), &[], None).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.json());
    answer.json()
}

#[tokio::test]
async fn a_score_has_its_components() {
    let plane = furnished().await;
    let page = get(&plane, KEY, &format!("/api/v1/tenants/a/health/summary?{HOUR}")).await;
    let servers = page["items"].as_array().unwrap();
    assert_eq!(
        servers.iter().map(|s| s["server"].as_str().unwrap()).collect::<Vec<_>>(),
        ["files", "weather"]
    );
    let (files, weather) = (&servers[0], &servers[1]);
    assert_eq!((&weather["score"]["score"], &weather["score"]["grade"]), (&json!(100), &json!("good")));
    assert_eq!((&files["score"]["score"], &files["score"]["grade"]), (&json!(50), &json!("poor")));
    assert_eq!(
        (&files["calls"], &files["failures"], &files["available"]),
        (&json!(200), &json!(20), &json!(0.5))
    );
    let parts: Vec<(&str, f64, u64)> = files["score"]["components"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| (c["name"].as_str().unwrap(), c["value"].as_f64().unwrap(), c["weight"].as_u64().unwrap()))
        .collect();
    assert_eq!(
        parts,
        [("availability", 0.5, 50), ("errors", 0.0, 25), ("latency", 1.0, 15), ("stability", 1.0, 10)]
    );
    let one = get(&plane, KEY, &format!("/api/v1/tenants/a/servers/files/health?{HOUR}")).await;
    assert_eq!(one["over"], *files);
    assert_eq!((&one["from"], one.get("now")), (&json!("2026-11-30T10:00:00Z"), None), "no data plane here");
    // By hour it is the same.
    let long = "from=2026-11-30T07:00:00Z&to=2026-11-30T11:00:00Z";
    let hours = get(&plane, KEY, &format!("/api/v1/tenants/a/servers/files/health?{long}")).await;
    assert_eq!(hours["over"], one["over"]);
    let none = plane.ask(KEY, "GET /api/v1/tenants/a/servers/nothing/health", &[], None).await;
    assert_eq!(none.status, 404);
    let empty = get(&plane, KEY, "/api/v1/tenants/a/health/summary").await;
    assert_eq!(empty["items"], json!([]), "the last hour is another one");
}

#[tokio::test]
async fn histories_are_read_page_by_page() {
    let plane = furnished().await;
    for (what, all) in [("history", 60), ("changes", 5)] {
        let path = format!("/api/v1/tenants/a/servers/weather/health/{what}?{HOUR}&limit=7");
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = get(&plane, KEY, &format!("{path}{cursor}")).await;
            seen.extend(
                page["items"].as_array().unwrap().iter().map(|i| i["at"].as_str().unwrap().to_owned()),
            );
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(seen.len(), all, "{what}");
        assert!(seen.is_sorted_by(|a, b| a > b), "{what}: the newest first, none twice");
        // A cursor is good for its list only.
        let other = format!("GET /api/v1/tenants/a/servers/files/health/{what}?{HOUR}&limit=7{cursor}");
        assert_eq!(plane.ask(KEY, &other, &[], None).await.status, if cursor.is_empty() { 200 } else { 400 });
    }
    let hours =
        get(&plane, KEY, &format!("/api/v1/tenants/a/servers/weather/health/history?{HOUR}&grain=hour"))
            .await;
    let hour = &hours["items"][0];
    assert_eq!((hours["items"].as_array().unwrap().len(), &hour["observed"]), (1, &json!(3600)));
    assert_eq!((&hour["probe_us"], hour.get("latency_us")), (&json!(2000), None));
}

#[tokio::test]
async fn performance_and_usage_are_summed_up() {
    let plane = furnished().await;
    let page = get(&plane, KEY, &format!("/api/v1/tenants/a/performance?{HOUR}&sort=-failures")).await;
    let rows = page["items"].as_array().unwrap();
    assert_eq!((rows.len(), &rows[0]["id"]), (2, &json!("everything/files")));
    assert_eq!(
        (&rows[0]["calls"], &rows[0]["errors"], &rows[0]["mean_us"]),
        (&json!(200), &json!(20), &json!(10_000))
    );
    let p95 = rows[0]["p95_us"].as_f64().unwrap();
    assert!((p95 / 10_000.0 - 1.0).abs() < 0.045, "{p95}");
    let sum = get(&plane, KEY, &format!("/api/v1/tenants/a/usage/summary?{HOUR}")).await;
    assert_eq!(
        (&sum["calls"], &sum["principals"], &sum["servers"], &sum["tools"]),
        (&json!(400), &json!(2), &json!(2), &json!(1))
    );
    assert_eq!((&sum["bytes_in"], &sum["bytes_out"], &sum["errors"]), (&json!(400), &json!(800), &json!(20)));
    for (filter, calls) in
        [("", 400), ("&server=files", 200), ("&principal=corp%7Cann&server=files", 100), ("&tool=other", 0)]
    {
        let path = format!("/api/v1/tenants/a/usage/latency?{HOUR}{filter}");
        let latency = get(&plane, KEY, &path).await;
        assert_eq!(latency["calls"], json!(calls), "{path}");
        for quantile in ["p50_ms", "p90_ms", "p95_ms", "p99_ms"] {
            match latency.get(quantile).map(|ms| ms.as_f64().unwrap()) {
                Some(ms) => assert!(calls > 0 && (ms - 10.0).abs() <= 0.1, "{path}: {ms}"),
                None => assert_eq!(calls, 0, "{path}"),
            }
        }
    }
}

#[tokio::test]
async fn latencies_of_too_many_rows_are_refused_and_not_cut() {
    let plane = furnished().await;
    let (mut usage, mut names) = (Usage::default(), Names::default());
    let time = u64::try_from(START).unwrap() * 1_000_000;
    for n in 0..10_001 {
        let principal = format!("corp|{n}");
        let event = Event {
            principal: Some(&principal),
            outcome: Some("ok"),
            duration_us: Some(10_000),
            ..Event::new(time, "a", Class::Data)
        };
        usage.count(time, &event, &Keys::of(&event, &mut names));
    }
    let (usage, metrics) = usage.into_parts();
    let batch = AuditBatch {
        writer: WriterId::fresh(),
        from: Position::default(),
        to: Position { segment: 0, offset: 8 },
        events: Vec::new(),
        chains: Vec::new(),
        usage,
        metrics,
    };
    plane.store.platform().audit_write(&batch).await.unwrap();
    let path = format!("GET /api/v1/tenants/a/usage/latency?{HOUR}&grain=minute");
    let many = plane.ask(KEY, &path, &[], None).await;
    assert_eq!((many.status.as_u16(), &many.json()["errors"][0]["pointer"]), (400, &json!("?from")));
    let one = plane.ask(KEY, &format!("{path}&principal=corp%7C77"), &[], None).await;
    assert_eq!((one.status.as_u16(), &one.json()["calls"]), (200, &json!(1)));
}

#[tokio::test]
async fn times_that_make_no_sense_are_refused_and_other_tenants_stay_unseen() {
    let plane = furnished().await;
    for (path, wrong) in [
        ("health/summary", "from=2026-11-30T10:00:00Z&to=2026-11-30T09:00:00Z"),
        ("performance", "from=2020-01-01T00:00:00Z&to=2026-11-30T09:00:00Z"),
        ("usage/summary", "from=yesterday"),
        ("usage/latency", "grain=century"),
        ("servers/weather/health/history", "grain=day"),
        ("servers/weather/health", "hours=3"),
    ] {
        let answer = plane.ask(KEY, &format!("GET /api/v1/tenants/a/{path}?{wrong}"), &[], None).await;
        assert_eq!(answer.status, 400, "{path}?{wrong}");
        assert!(answer.json()["detail"].is_string());
    }
    for path in ["health/summary", "performance", "usage/summary", "usage/latency", "servers/secret/health"] {
        let answer = plane.ask(KEY, &format!("GET /api/v1/tenants/b/{path}?{HOUR}"), &[], None).await;
        assert_eq!(answer.status, 404, "{path}");
    }
    // A server of that name in another tenant is another server.
    let secret =
        plane.ask(KEY, &format!("GET /api/v1/tenants/a/servers/secret/health?{HOUR}"), &[], None).await;
    assert_eq!(secret.status, 404);
}

#[tokio::test]
async fn the_database_is_for_the_platform_only() {
    let plane = furnished().await;
    let shown = get(&plane, "tg_default_super_admin", "/api/v1/database?statements=3").await;
    assert_eq!((&shown["engine"], shown["statements"].as_array().unwrap().len()), (&json!("sqlite"), 3));
    assert!(shown["bytes"].as_i64().unwrap() > 0 && shown["free_bytes"].is_i64());
    let cost: Vec<u64> =
        shown["statements"].as_array().unwrap().iter().map(|s| s["total_us"].as_u64().unwrap()).collect();
    assert!(cost.is_sorted_by(|a, b| a >= b), "the dearest first");
    for key in ["tg_a_super_admin", "tg_default_admin"] {
        assert_eq!(plane.ask(key, "GET /api/v1/database", &[], None).await.status, 403, "{key}");
    }
    let many = plane.ask("tg_default_super_admin", "GET /api/v1/database?statements=1000", &[], None).await;
    assert_eq!(many.status, 400);
}
