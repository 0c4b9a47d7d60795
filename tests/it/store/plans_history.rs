//! The same for what grows with requests and people: audit, usage, metrics, health, samples, identity. A hundred tenants,
//! thirty days; every table has as many rows as `TOLLGATE_ROWS` says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tollgate::audit::{Class, WriterId};
use tollgate::store::{
    AuditFilter, Engine, Grain, HealthPlace, PLATFORM_ROLE, Page, Store, TENANT_ROLE, Time, UsageBy,
    UsageFilter,
};

use super::plans::{MEDIAN, RUNS, median, plan, rows};
use super::{Fixture, tenant};
use crate::support::postgres::Database;

/// When the fixture's clock stands, and the rows end.
const NOW: &str = "to_timestamp(1796000000)";
const NOW_US: i64 = 1_796_000_000_000_000;
const TENANTS: u64 = 100;

const LARGE: [&str; 17] = [
    "api_keys",
    "audit_checkpoints",
    "audit_events",
    "audit_heads",
    "health_changes",
    "health_hour",
    "health_minute",
    "idempotency_keys",
    "identity_changes",
    "metric_hour",
    "metric_minute",
    "request_samples",
    "revocations",
    "role_bindings",
    "usage_day",
    "usage_hour",
    "usage_minute",
];

/// Indexes that no SELECT uses: what a row is found by that is written or deleted.
const WRITTEN: [&str; 3] =
    ["idempotency_keys_expiry", "identity_changes_changed_at", "idempotency_keys_pkey"];

fn fill(database: &Database, rows: u64) {
    for day in -30..=1 {
        for function in ["tollgate_audit_day", "tollgate_history_day"] {
            database.sql(&format!("SELECT {function}(({NOW} AT TIME ZONE 'UTC')::date + {day})"));
        }
    }
    let each = rows / TENANTS;
    // Row `i` of tenant `n`, spread over a time before now.
    let over = |seconds: u64| format!("{NOW} - interval '1 second' * ({seconds} * (1 - i / {each}::float8))");
    let (month, day) = (over(30 * 86_400), over(86_400));
    let from = format!("FROM generate_series(0, {TENANTS} - 1) n, generate_series(0, {each} - 1) i");
    let minute = |per: u64| format!("date_trunc('minute', {NOW}) - interval '1 minute' * (i / {per})");
    let hour = |per: u64| format!("date_trunc('hour', {NOW}, 'UTC') - interval '1 hour' * (i / {per})");
    let health = |at: String| {
        format!(
            "SELECT 't' || n, {at}, 's' || i % 3, 'http://10.0.0.' || i % 7 || '/mcp', 'r' || i % 7 % 2,
                    60, 60, 6, 0, 6000, 60, 60000, 3, 0, 0, 'healthy', NULL {from} ON CONFLICT DO NOTHING"
        )
    };
    let size = |i: &str| format!("'{{\"' || 60 + {i} % 40 || '\": 5, \"' || 110 + {i} % 9 || '\": 2}}'");
    let texts = [
        format!(
            "INSERT INTO audit_events SELECT 't' || n, CASE WHEN i % 50 = 0 THEN 1 ELSE 2 END, md5((i % 2)::text)::uuid, i, {month},
                    decode(repeat('0a', 32), 'hex'), decode(repeat('0b', 32), 'hex'), decode(repeat('0c', 16), 'hex'),
                    '{{\"method\":\"tools/call\",\"outcome\":\"ok\"}}', 'corp|u' || i % 500, 'r' || i % 5, 's' || i % 5,
                    'tool' || i % 50, CASE WHEN i % 1000 = 7 THEN 'denied' ELSE 'ok' END {from}"
        ),
        format!(
            "INSERT INTO audit_heads SELECT 't' || n, 1 + i % 2, md5((i / 2)::text)::uuid, {each}, decode('0a', 'hex'), {NOW}, 0, decode('0b', 'hex')
               FROM generate_series(0, {TENANTS} - 1) n, generate_series(0, {each} / 100) i"
        ),
        format!("INSERT INTO audit_checkpoints SELECT 't' || n, i, {month}, i, 'x' {from}"),
        format!(
            "INSERT INTO usage_minute SELECT 't' || n, {}, 'corp|u' || i % 7, 'r' || i % 5, 's' || i % 5, 'tool' || i % 7,
                    md5((i % 2)::text)::uuid, 5, 1, 10, 20, decode(repeat('0a', 60), 'hex') {from} ON CONFLICT DO NOTHING",
            minute(7)
        ),
        format!(
            "INSERT INTO usage_hour SELECT 't' || n, {}, 'corp|u' || i % 14, 'r' || i % 5, 's' || i % 5, 'tool' || i % 14,
                    5, 1, 10, 20, decode(repeat('0a', 60), 'hex') {from} ON CONFLICT DO NOTHING",
            hour(14)
        ),
        format!(
            "INSERT INTO usage_day SELECT 't' || n, date_trunc('day', {NOW}, 'UTC') - interval '1 day' * (i / 300), 'corp|u' || i % 300,
                    'r' || i % 5, 's' || i % 5, 'tool' || i % 300, 5, 1, 10, 20, decode(repeat('0a', 60), 'hex') {from}"
        ),
        format!(
            "INSERT INTO metric_minute SELECT 't' || n, {}, 'r' || i % 7, 's' || i % 7, md5((i % 2)::text)::uuid, 7, 1, 1, 9000, {} {from}
             ON CONFLICT DO NOTHING",
            minute(7),
            size("i")
        ),
        format!(
            "INSERT INTO metric_hour SELECT 't' || n, {}, 'r' || i % 14, 's' || i % 14, 7, 1, 1, 9000, {} {from} ON CONFLICT DO NOTHING",
            hour(14),
            size("i")
        ),
        format!("INSERT INTO health_minute {}", health(minute(7))),
        format!("INSERT INTO health_hour {}", health(hour(14))),
        format!(
            "INSERT INTO health_changes SELECT 't' || n, {month}, 's' || i % 3, 'http://10.0.0.1/mcp', 'r', 'healthy', 'ejected', NULL {from}"
        ),
        format!(
            "INSERT INTO request_samples SELECT 't' || n, {}, 'r' || i % 5, md5((i % 2)::text)::uuid, 9, 1, '{{}}' {from} ON CONFLICT DO NOTHING",
            minute(5)
        ),
        format!("INSERT INTO users SELECT 't' || n, 'corp|u' || i, '', '', false, {day}, {day} {from}"),
        format!(
            "INSERT INTO api_keys SELECT 't' || n, 'k' || n || '_' || i, 'corp|u' || i, '{{}}', 'ada', false, {day}, {day}, NULL, NULL {from}"
        ),
        format!("INSERT INTO revocations SELECT 't' || n, 'x' || i, '{{}}', 'ada', {day} {from}"),
        format!("INSERT INTO role_bindings SELECT 't' || n, 'corp|u' || i, 'viewer', 'ada', {day} {from}"),
        format!(
            "INSERT INTO identity_changes SELECT n * {each} + i + 1, 't' || n, 'user', 'corp|u' || i, 'active', {day} {from}"
        ),
        format!("UPDATE identity_head SET seq = {rows}"),
        format!(
            "INSERT INTO idempotency_keys SELECT 't' || n, decode(md5(i::text), 'hex'), decode('0a', 'hex'), 200, NULL, {day}, {day} {from}"
        ),
    ];
    for text in texts {
        database
            .sql(&format!("SET session_replication_role = replica; SET synchronous_commit = off; {text}"));
    }
    database.sql("VACUUM ANALYZE");
}

/// What the API asks. Each is one request's part of the store.
async fn queries(store: &Store, rows: u64) -> Vec<(&'static str, Duration)> {
    let id = tenant("t77");
    let (scope, platform) = (store.tenant(&id), store.platform());
    let page = Page::of(51);
    let (now, ago) = (Time::from_micros(NOW_US), |hours: u64| {
        Time::from_micros(NOW_US).minus(Duration::from_secs(hours * 3600))
    });
    let text = |t: &str| Some(t.to_owned());
    let all = AuditFilter::default();
    let ann = AuditFilter { principal: text("corp|u33"), ..AuditFilter::default() };
    let tool = AuditFilter { name: text("tool33"), ..AuditFilter::default() };
    let denied = AuditFilter { outcome: text("denied"), from: Some(ago(24)), ..AuditFilter::default() };
    let never = AuditFilter { name: text("tool_of_nobody"), ..AuditFilter::default() };
    let any = UsageFilter::default();
    let one = UsageFilter { principal: text("corp|u3"), ..UsageFilter::default() };
    let place =
        HealthPlace { at: ago(5), target: "http://10.0.0.3/mcp".to_owned(), replica: "r1".to_owned() };
    let middle = i64::try_from(rows / 2).unwrap();
    vec![
        ("audit, newest", median(async || scope.audit_search(&all, None, page).await).await),
        ("audit of a caller", median(async || scope.audit_search(&ann, None, page).await).await),
        ("audit of a tool", median(async || scope.audit_search(&tool, None, page).await).await),
        ("audit, denied, a day", median(async || scope.audit_search(&denied, None, page).await).await),
        ("audit, nothing found", median(async || scope.audit_search(&never, None, page).await).await),
        (
            "usage by hour, a day",
            median(async || scope.usage_series(Grain::Hour, ago(24), now, &any).await).await,
        ),
        (
            "usage of a caller",
            median(async || scope.usage_series(Grain::Hour, ago(24), now, &one).await).await,
        ),
        (
            "usage by minute, an hour",
            median(async || scope.usage_series(Grain::Minute, ago(1), now, &any).await).await,
        ),
        (
            "most active callers, a day",
            median(async || scope.usage_top(Grain::Hour, UsageBy::Principal, ago(24), now, 10).await).await,
        ),
        (
            "usage in all, a day",
            median(async || scope.tenant_usage_summary(Grain::Hour, ago(24), now).await).await,
        ),
        (
            "usage in all, a week",
            median(async || scope.tenant_usage_summary(Grain::Day, ago(168), now).await).await,
        ),
        (
            "performance, an hour",
            median(async || scope.request_performance_summary(Grain::Minute, ago(1), now).await).await,
        ),
        (
            "performance, a day",
            median(async || scope.request_performance_summary(Grain::Hour, ago(24), now).await).await,
        ),
        (
            "health, an hour",
            median(async || scope.server_health_summary(Grain::Minute, ago(1), now).await).await,
        ),
        (
            "health, a day",
            median(async || scope.server_health_summary(Grain::Hour, ago(24), now).await).await,
        ),
        (
            "health of a server by minute",
            median(async || {
                scope.health_history("s1", Grain::Minute, (ago(24), now), Some(&place), page).await
            })
            .await,
        ),
        (
            "health of a server by hour",
            median(async || {
                scope.health_history("s1", Grain::Hour, (ago(700), now), Some(&place), page).await
            })
            .await,
        ),
        (
            "changes of a server",
            median(async || scope.health_changes("s1", (ago(700), now), Some(&place), page).await).await,
        ),
        ("users", median(async || scope.users(Some("corp|u5"), page).await).await),
        ("one user", median(async || scope.user("corp|u7").await).await),
        ("keys", median(async || scope.api_keys(Some("k77_5"), page).await).await),
        ("one key", median(async || scope.api_key("k77_7").await).await),
        ("whose key it is", median(async || platform.api_keys_with_id("k77_7").await).await),
        ("revocations", median(async || scope.revocations(Some("x5"), page).await).await),
        ("role bindings", median(async || scope.role_bindings(None, page).await).await),
        ("standing of a caller", median(async || scope.standing("corp|u7", "x7").await).await),
        ("changes of identities", median(async || platform.identity_changes(middle, 1000).await).await),
        ("newest samples", median(async || scope.samples(ago(1)).await).await),
    ]
}

/// Statements that other parts of the program make: they need their indexes, too.
async fn others(store: &Store) {
    let id = tenant("t77");
    let mut tx = store.platform().read().await.unwrap();
    let chain = tx.audit_chains(&id).await.unwrap().remove(0).id;
    let chain = tollgate::audit::ChainId { class: Class::Data, ..chain };
    tx.audit_range(&chain, 5, Page::of(10)).await.unwrap();
    tx.audit_before(&chain, Time::from_micros(NOW_US)).await.unwrap();
    tx.audit_checkpoints(&id, 5, Page::of(10)).await.unwrap();
    tx.audit_last_checkpoint(&id).await.unwrap();
    drop(tx);
    store.platform().audit_writer_chains(WriterId::fresh()).await.unwrap();
}

/// Each index of a large table or of one of its partitions, and the index of the table that it belongs to.
fn indexes(database: &Database) -> BTreeMap<String, String> {
    let list = database.sql(&format!(
        "SELECT i.relname, coalesce(pg_partition_root(i.oid)::regclass::text, i.relname)
           FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid
          WHERE t.relnamespace = 'public'::regnamespace
            AND coalesce(pg_partition_root(t.oid)::regclass::text, t.relname) IN ('{}')",
        LARGE.join("', '")
    ));
    list.lines().filter_map(|line| line.split_once('|')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_grows_with_requests_is_found_by_an_index() {
    let rows = rows();
    let fixture = Fixture::new(Engine::Postgres).await;
    let database = fixture.database.as_ref().unwrap();
    fill(database, rows);
    let medians = queries(&fixture.store, rows).await;
    let mut slow = Vec::new();
    for (name, took) in &medians {
        println!("{rows} rows, median of {RUNS}: {name:<30} {took:?}");
        if *took > MEDIAN {
            slow.push(*name);
        }
    }
    others(&fixture.store).await;
    // Among other tests a time says little: it is held to where the run is alone.
    if std::env::var_os("TOLLGATE_ROWS").is_some() {
        assert!(slow.is_empty(), "over {MEDIAN:?}: {slow:?}");
    }

    let indexes = indexes(database);
    // Those that are too small to be worth an index do not count.
    let full = database.sql("SELECT relname FROM pg_class WHERE relkind = 'r' AND reltuples > 1000");
    let full: BTreeSet<&str> = full.lines().collect();
    let mut used: BTreeSet<&str> = BTreeSet::new();
    let mut seen = 0;
    for statement in fixture.store.statements() {
        let text = statement.statement;
        // A snapshot of everything reads everything.
        let asks = text.starts_with("SELECT") && !text.contains("UNION ALL");
        let large = LARGE.iter().any(|table| text.contains(table)) || text.contains("_summary(");
        if !asks || !large || text.contains("tollgate_") || text.contains("FROM audit_heads WHERE writer") {
            continue;
        }
        seen += 1;
        for role in [PLATFORM_ROLE, TENANT_ROLE] {
            let Some(plan) = plan(database, role, &text) else { continue };
            for line in plan.lines() {
                if let Some(table) = line.split("Seq Scan on ").nth(1) {
                    let table = table.split_whitespace().next().unwrap();
                    assert!(!full.contains(table), "{role}: {text}\n{plan}");
                }
            }
            used.extend(plan.split_whitespace().filter_map(|word| indexes.get(word)).map(String::as_str));
        }
    }
    assert!(seen >= 25, "{seen} statements");
    for index in indexes.values().filter(|index| !WRITTEN.contains(&index.as_str())) {
        assert!(used.contains(index.as_str()), "no query uses the index {index}");
    }
}
