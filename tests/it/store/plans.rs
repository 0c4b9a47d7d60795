//! Every index of the core is there for a query, and every query of the core finds its rows by an index, however many
//! there are. `make prove-control-queries` does it on a million rows (`TOLLGATE_ROWS`).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tollgate::base::Scope;
use tollgate::store::{Engine, PLATFORM_ROLE, Page, Store, StoreError, TENANT_ROLE};

use super::{Fixture, tenant};
use crate::support::postgres::{Database, LOGIN};

/// Rows in an ordinary run.
const ROWS: u64 = 100_000;
/// Times that each query runs.
pub const RUNS: usize = 101;
/// Longest median of a query that the API makes.
pub const MEDIAN: Duration = Duration::from_millis(10);

/// Tables that grow with tenants, replicas and time.
const LARGE: [&str; 5] = ["config_heads", "config_revisions", "replica_revisions", "secrets", "tenants"];

#[allow(clippy::disallowed_methods, reason = "how many rows is said by make")]
pub fn rows() -> u64 {
    std::env::var("TOLLGATE_ROWS").ok().and_then(|n| n.parse().ok()).unwrap_or(ROWS)
}

/// Each large table with `rows` rows or a tenth of it, those of many tenants.
fn fill(database: &Database, rows: u64) {
    let tenants = rows / 10;
    for text in [
        format!(
            "INSERT INTO tenants SELECT 't' || i, '', now(), now() FROM generate_series(1, {tenants}) i"
        ),
        format!(
            "INSERT INTO config_heads SELECT 't' || i, 10, '', i, now() FROM generate_series(1, {tenants}) i"
        ),
        format!("UPDATE config_generation SET generation = {tenants}"),
        format!(
            "INSERT INTO config_revisions
             SELECT 't' || i, r, r - 1, 1, decode(repeat('0a', 32), 'hex'), 100, decode(repeat('0b', 100), 'hex'), 'ada', '', now()
               FROM generate_series(1, {tenants}) i, generate_series(1, 10) r"
        ),
        format!(
            "INSERT INTO secrets SELECT 't' || i % 1000, 's' || i, 1, 'k', decode('0a', 'hex'), 'ada', now(), now()
               FROM generate_series(1, {tenants}) i"
        ),
        "INSERT INTO replicas SELECT gen_random_uuid(), 'r' || i, 'all', '1', 1, NULL, now(), now() FROM generate_series(1, 10) i"
            .to_owned(),
        format!(
            "INSERT INTO replica_revisions SELECT boot, 't' || i, 10, CASE WHEN i % 10000 = 0 THEN 11 END, NULL, now()
               FROM replicas, generate_series(1, {tenants}) i"
        ),
    ] {
        // Without triggers: the generations are given.
        database.sql(&format!("SET session_replication_role = replica; {text}"));
    }
    database.sql("VACUUM ANALYZE");
}

/// Runs one query of the repository again and again; its median.
pub async fn median<T>(mut query: impl AsyncFnMut() -> Result<T, StoreError>) -> Duration {
    let mut times = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        let started = Instant::now();
        // Boxed: a test of many queries would have room for all of them on its stack.
        Box::pin(query()).await.unwrap();
        times.push(started.elapsed());
    }
    times.sort();
    times[RUNS / 2]
}

async fn queries(store: &Store, rows: u64) -> Vec<(&'static str, Duration)> {
    let acme = tenant("t77");
    let scope = store.tenant(&acme);
    let platform = store.platform();
    let page = Page::of(50);
    let moved = i64::try_from(rows / 10).unwrap() - 20;
    vec![
        ("head of a tenant", median(async || scope.head().await).await),
        ("revision of a tenant", median(async || scope.revision(5).await).await),
        ("history of a tenant", median(async || scope.history(Some(9), page).await).await),
        ("heads that moved", median(async || platform.heads(moved).await).await),
        ("documents that moved", median(async || platform.head_revisions(moved, page).await).await),
        ("secrets of a tenant", median(async || scope.secrets(Some("s1"), page).await).await),
        ("tenants by name", median(async || platform.tenants(Some("t5"), page).await).await),
        ("one tenant", median(async || platform.find_tenant(&acme).await).await),
        ("who serves a tenant", median(async || scope.served_revisions().await).await),
        ("who serves the platform", median(async || platform.served_revisions(&Scope::Platform).await).await),
        ("what is refused", median(async || platform.refusals().await).await),
        ("live replicas", median(async || platform.replicas(Duration::from_secs(1_000_000_000)).await).await),
    ]
}

/// The plan of a statement, whatever its parameters are, with all partitions. None if it is not for this role.
pub fn plan(database: &Database, role: &str, statement: &str) -> Option<String> {
    let parameters = (1..=20).take_while(|n| statement.contains(&format!("${n}"))).count();
    // The driver sends types along; here the text has to say them.
    let typed = (1..=parameters).fold(statement.to_owned(), |text, n| {
        let kind = if statement.contains(&format!("class = ${n}")) { "smallint" } else { "text" };
        text.replace(&format!("${n} IS NULL"), &format!("${n}::{kind} IS NULL"))
    });
    let arguments = vec!["NULL"; parameters].join(", ");
    let execute = if parameters == 0 { "q".to_owned() } else { format!("q({arguments})") };
    let text = format!(
        "BEGIN; SET LOCAL ROLE {role}; SET LOCAL tollgate.tenant = 't77'; SET LOCAL plan_cache_mode = force_generic_plan;
         SET LOCAL enable_partition_pruning = off;
         PREPARE q AS {typed}; EXPLAIN EXECUTE {execute}; ROLLBACK"
    );
    match database.try_sql_as(LOGIN, &text) {
        Ok(plan) => Some(plan),
        Err(error) if error.contains("permission denied") => None,
        Err(error) => panic!("{statement}: {error}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_has_an_index_and_every_index_a_query() {
    let rows = rows();
    let fixture = Fixture::new(Engine::Postgres).await;
    let database = fixture.database.as_ref().unwrap();
    fill(database, rows);
    let medians = queries(&fixture.store, rows).await;
    let mut slow = Vec::new();
    for (name, took) in &medians {
        println!("{rows} rows, median of {RUNS}: {name:<24} {took:?}");
        if *took > MEDIAN {
            slow.push(*name);
        }
    }
    // Among other tests a time says little: it is held to where the run is alone.
    if std::env::var_os("TOLLGATE_ROWS").is_some() {
        assert!(slow.is_empty(), "over {MEDIAN:?}: {slow:?}");
    }

    let mut used = BTreeSet::new();
    let mut seen = 0;
    for statement in fixture.store.statements() {
        let text = statement.statement;
        let large = LARGE.iter().any(|table| text.contains(table));
        if !text.starts_with("SELECT") || !large {
            continue;
        }
        seen += 1;
        for role in [PLATFORM_ROLE, TENANT_ROLE] {
            let plan = plan(database, role, &text).expect("every role may ask");
            for table in LARGE {
                assert!(!plan.contains(&format!("Seq Scan on {table}")), "{role}: {text}\n{plan}");
            }
            used.extend(plan.split_whitespace().map(ToOwned::to_owned));
        }
    }
    assert!(seen >= 10, "{seen} statements");
    let indexes = database.sql(&format!(
        "SELECT indexname FROM pg_indexes WHERE schemaname = 'public' AND tablename IN ('{}')",
        LARGE.join("', '")
    ));
    // It keeps a report unique, and is what a report is written by.
    let written = ["replica_revisions_pkey"];
    for index in indexes.lines().filter(|index| !written.contains(index)) {
        assert!(used.contains(index), "no query uses the index {index}");
    }
}
