//! Health, metrics and summaries on both engines: written once, paged, summed to the same figures, forgotten by age.

use std::time::Duration;

use tollgate::app::upkeep;
use tollgate::audit::usage::Usage;
use tollgate::audit::{Class, Event, Keys, Names, Position, WriterId};
use tollgate::config::model::HistoryRetention;
use tollgate::store::{
    AuditBatch, Engine, Grain, HealthChange, HealthPlace, HealthSample, Heartbeat, NewUser, Page, Past,
    Store, Time, whatever,
};

use super::{Fixture, each_engine, tenant};

each_engine!(
    a_minute_is_written_once_and_hours_add_up,
    histories_are_paged_without_a_gap,
    other_tenants_have_a_history_of_their_own,
    what_is_old_goes_and_partitions_are_made_ahead,
    the_feed_keeps_what_a_live_process_has_not_read,
    the_database_says_how_large_it_is,
);

/// 2026-11-30T00:00:00Z.
const DAY: i64 = 1_796_000_000 / 86_400 * 86_400;
const MINUTE: i64 = 60;
const HOUR: i64 = 3_600;

fn at(secs: i64) -> Time {
    Time::from_micros((DAY + secs) * 1_000_000)
}

/// Two tenants' worth of everything here, for who has to keep it.
pub async fn fill(store: &Store) {
    let rows: Vec<HealthSample> = (0..130).map(|i| minute("Überseehafen", i * MINUTE, "a", "r1")).collect();
    store.platform().put_health(&rows, &[change(0, "a", "r1"), change(1, "ü'\"\n", "r2")]).await.unwrap();
    store.platform().audit_write(&requests()).await.unwrap();
    store.platform().usage_roll_up().await.unwrap();
}

/// A minute of a target in which it took work half of the time.
fn minute(tenant: &str, secs: i64, target: &str, replica: &str) -> HealthSample {
    HealthSample {
        tenant: tenant.to_owned(),
        at: at(secs),
        server: "weather".to_owned(),
        target: target.to_owned(),
        replica: replica.to_owned(),
        observed: 60,
        available: 30,
        probes: 6,
        probes_failed: 1,
        probe_us: 6_001,
        latency_count: 60,
        latency_us: 60_059,
        in_flight_max: secs / MINUTE,
        ejections: 1,
        changes: 2,
        state: if secs % HOUR == 0 { "healthy" } else { "unhealthy" }.to_owned(),
        error: (secs % HOUR != 0).then(|| "refused \"here\" ü".to_owned()),
    }
}

fn change(secs: i64, target: &str, replica: &str) -> HealthChange {
    HealthChange {
        tenant: "acme".to_owned(),
        at: at(secs),
        server: "weather".to_owned(),
        target: target.to_owned(),
        replica: replica.to_owned(),
        was: (secs > 0).then(|| "healthy".to_owned()),
        state: "ejected".to_owned(),
        error: None,
    }
}

async fn a_minute_is_written_once_and_hours_add_up(fixture: Fixture) {
    let platform = fixture.store.platform();
    let mut rows = Vec::new();
    for target in ["a", "b"] {
        for replica in ["r1", "r2"] {
            // Over the end of an hour.
            for i in 58..62 {
                rows.push(minute("acme", i * MINUTE, target, replica));
            }
        }
    }
    platform.put_health(&rows[..5], &[]).await.unwrap();
    // The commit of the first five was done, and nobody heard of it.
    platform.put_health(&rows, &[]).await.unwrap();
    platform.put_health(&rows, &[]).await.unwrap();
    let acme = tenant("acme");
    let scope = fixture.store.tenant(&acme);
    let minutes = scope.server_health_summary(Grain::Minute, at(0), at(2 * HOUR)).await.unwrap();
    let hours = scope.server_health_summary(Grain::Hour, at(0), at(2 * HOUR)).await.unwrap();
    assert_eq!(minutes.len(), 1);
    let all = &minutes[0];
    assert_eq!((all.server.as_str(), all.targets, all.replicas), ("weather", 2, 2));
    assert_eq!((all.observed, all.available), (16 * 60, 16 * 30));
    assert_eq!((all.probes, all.probes_failed, all.probe_us), (16 * 6, 16, 1_000), "means round down");
    assert_eq!((all.latency_us, all.in_flight_max), (1_000, 61));
    assert_eq!((all.ejections, all.changes, all.seen_at), (16, 32, at(61 * MINUTE)));
    let mut same = hours[0].clone();
    assert_eq!(same.seen_at, at(HOUR));
    same.seen_at = all.seen_at;
    assert_eq!(same, *all);
    let page = Page::of(100);
    let hours =
        scope.health_history("weather", Grain::Hour, (at(0), at(2 * HOUR)), None, page).await.unwrap();
    assert_eq!(hours.len(), 8);
    // The state of an hour is that of its last minute.
    assert!(hours.iter().all(|h| h.observed == 120 && h.state == "unhealthy"), "{hours:?}");
    let found =
        scope.health_history("weather", Grain::Minute, (at(0), at(2 * HOUR)), None, page).await.unwrap();
    rows.sort_by(|a, b| (b.at, &b.target, &b.replica).cmp(&(a.at, &a.target, &a.replica)));
    assert_eq!(found, rows, "what is read is what was written");
}

async fn histories_are_paged_without_a_gap(fixture: Fixture) {
    let platform = fixture.store.platform();
    let mut rows = Vec::new();
    let mut changes = Vec::new();
    for i in 0..20 {
        for (target, replica) in [("a", "r1"), ("a", "r2"), ("b", "r1")] {
            rows.push(minute("acme", i * MINUTE, target, replica));
            changes.push(change(i, target, replica));
        }
    }
    platform.put_health(&rows, &changes).await.unwrap();
    platform.put_health(&[], &changes).await.unwrap();
    let acme = tenant("acme");
    let scope = fixture.store.tenant(&acme);
    let (mut place, mut seen) = (None::<HealthPlace>, Vec::new());
    loop {
        let range = (at(MINUTE), at(19 * MINUTE));
        let page =
            scope.health_history("weather", Grain::Minute, range, place.as_ref(), Page::of(7)).await.unwrap();
        let Some(last) = page.last() else { break };
        place = Some(HealthPlace { at: last.at, target: last.target.clone(), replica: last.replica.clone() });
        seen.extend(page.into_iter().map(|row| (row.at, row.target, row.replica)));
    }
    assert_eq!(seen.len(), 18 * 3, "from on, and before");
    assert!(seen.is_sorted_by(|a, b| a > b), "the newest first, none twice");
    let (mut place, mut seen) = (None::<HealthPlace>, Vec::new());
    loop {
        let page =
            scope.health_changes("weather", (at(0), at(HOUR)), place.as_ref(), Page::of(7)).await.unwrap();
        let Some(last) = page.last() else { break };
        place = Some(HealthPlace { at: last.at, target: last.target.clone(), replica: last.replica.clone() });
        seen.extend(page);
    }
    changes.sort_by(|a, b| (b.at, &b.target, &b.replica).cmp(&(a.at, &a.target, &a.replica)));
    assert_eq!(seen, changes);
    let none = scope.health_history("other", Grain::Minute, (at(0), at(HOUR)), None, Page::of(7)).await;
    assert!(none.unwrap().is_empty());
}

async fn other_tenants_have_a_history_of_their_own(fixture: Fixture) {
    let platform = fixture.store.platform();
    platform.put_health(&[minute("acme", 0, "a", "r"), minute("zeta", 0, "a", "r")], &[]).await.unwrap();
    let zeta = tenant("zeta");
    let scope = fixture.store.tenant(&zeta);
    let found = scope.server_health_summary(Grain::Minute, at(0), at(HOUR)).await.unwrap();
    assert_eq!((found.len(), found[0].observed), (1, 60));
    // The functions ask as whoever calls them: naming another tenant gives nothing.
    if let Some(database) = &fixture.database {
        for function in ["server_health_summary", "request_performance_summary"] {
            let text = format!(
                "BEGIN; SET LOCAL ROLE tollgate_tenant; SET LOCAL tollgate.tenant = 'zeta';
                 SELECT count(*) FROM {function}('acme', '-infinity', 'infinity', 'minute'); COMMIT"
            );
            assert_eq!(database.try_sql_as(crate::support::postgres::LOGIN, &text).unwrap(), "0");
        }
    }
}

/// Requests of three routes and callers over two hours, as the drainer writes them.
fn requests() -> AuditBatch {
    let mut usage = Usage::default();
    let mut names = Names::default();
    let mut random = 12_345u64;
    for i in 0..3_000u64 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pick = random >> 33;
        let route = ["weather", "files", "tickets"][(pick % 3) as usize];
        let caller = format!("corp|user{}", pick % 17);
        let outcome = match pick % 20 {
            0 => "timeout",
            1 => "denied",
            _ => "ok",
        };
        let time = u64::try_from(DAY).unwrap() * 1_000_000 + i * 2_400_000;
        let event = Event {
            principal: Some(&caller),
            method: Some("tools/call"),
            name: Some(["get", "put"][(pick % 2) as usize]),
            route: Some(route),
            server: (route != "tickets").then_some(route),
            outcome: Some(outcome),
            duration_us: Some(pick % 1_000_000),
            bytes_in: Some(10),
            bytes_out: Some(20),
            ..Event::new(time, "acme", Class::Data)
        };
        usage.count(time, &event, &Keys::of(&event, &mut names));
    }
    let (usage, metrics) = usage.into_parts();
    let to = Position { segment: 0, offset: 8 };
    AuditBatch {
        writer: WriterId::fresh(),
        from: Position::default(),
        to,
        events: Vec::new(),
        chains: Vec::new(),
        usage,
        metrics,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_engines_sum_up_the_same() {
    let mut found = Vec::new();
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let fixture = Fixture::new(engine).await;
        let (store, platform) = (&fixture.store, fixture.store.platform());
        // In two parts, and by two writers: sketches of a minute are merged.
        platform.audit_write(&requests()).await.unwrap();
        let mut second = requests();
        platform.audit_write(&second).await.unwrap();
        (second.from, second.to) = (second.to, Position { segment: 0, offset: 16 });
        platform.audit_write(&second).await.unwrap();
        platform.usage_roll_up().await.unwrap();
        let rows: Vec<HealthSample> = (0..50)
            .map(|i| HealthSample {
                server: ["weather", "files"][i as usize % 2].to_owned(),
                ..minute("acme", i * MINUTE, "a", "r")
            })
            .collect();
        platform.put_health(&rows, &[]).await.unwrap();
        let acme = tenant("acme");
        let scope = store.tenant(&acme);
        let (from, to) = (at(0), at(2 * HOUR));
        let minutes = scope.request_performance_summary(Grain::Minute, from, to).await.unwrap();
        let hours = scope.request_performance_summary(Grain::Hour, from, to).await.unwrap();
        assert_eq!(minutes, hours, "{engine}");
        let part = scope.request_performance_summary(Grain::Minute, at(10 * MINUTE), at(HOUR)).await.unwrap();
        let health = scope.server_health_summary(Grain::Minute, from, to).await.unwrap();
        let usage = scope.tenant_usage_summary(Grain::Hour, from, to).await.unwrap();
        let days = scope.tenant_usage_summary(Grain::Day, from, to).await.unwrap();
        assert_eq!(usage, days, "{engine}");
        let nothing = scope.tenant_usage_summary(Grain::Hour, to, to).await.unwrap();
        assert_eq!((nothing.calls, nothing.principals), (0, 0));
        assert!(scope.request_performance_summary(Grain::Hour, to, to).await.unwrap().is_empty());
        found.push((minutes, part, health, usage));
    }
    assert_eq!(found[0], found[1]);
    let (minutes, _, health, usage) = &found[0];
    assert_eq!((usage.calls, usage.bytes_in, usage.principals), (9_000, 90_000, 17));
    assert_eq!((usage.routes, usage.servers, usage.tools), (3, 2, 2));
    assert_eq!(minutes.iter().map(|p| p.calls).sum::<i64>(), 9_000);
    assert!(minutes.iter().all(|p| p.failures > 0 && p.failures < p.errors), "{minutes:?}");
    for row in minutes {
        let marks = [row.p50_us.unwrap(), row.p95_us.unwrap(), row.p99_us.unwrap()];
        // Durations are spread evenly up to a second.
        for (mark, exact) in marks.into_iter().zip([0.5, 0.95, 0.99]) {
            assert!((mark as f64 / (exact * 1_000_000.0) - 1.0).abs() < 0.1, "{row:?}");
        }
    }
    assert_eq!(health.iter().map(|h| h.server.as_str()).collect::<Vec<_>>(), ["files", "weather"]);
}

async fn what_is_old_goes_and_partitions_are_made_ahead(fixture: Fixture) {
    let (store, platform) = (&fixture.store, fixture.store.platform());
    let now = store.now();
    let days = |n: u64| Duration::from_secs(n * 86_400);
    let old = now.minus(days(40));
    let rows = [
        minute("acme", 0, "a", "r"),
        HealthSample { at: old.floor(Duration::from_secs(60)), ..minute("acme", 0, "a", "r") },
    ];
    // Before any partition is there, as after a restore.
    let was = HealthChange { at: old, ..change(0, "a", "r") };
    platform.put_health(&rows, &[change(0, "a", "r"), was]).await.unwrap();
    let retention = HistoryRetention { health_days: 60, health_minute_days: 14, ..Default::default() };
    upkeep(store, &retention).await.unwrap();
    upkeep(store, &retention).await.unwrap();
    let acme = tenant("acme");
    let scope = store.tenant(&acme);
    let range = (old.minus(days(1)), now.plus(days(1)));
    let minutes = scope.health_history("weather", Grain::Minute, range, None, Page::of(10)).await.unwrap();
    assert_eq!(minutes.iter().map(|m| m.at).collect::<Vec<_>>(), [at(0)]);
    assert_eq!(scope.health_changes("weather", range, None, Page::of(10)).await.unwrap().len(), 2);
    if let Some(database) = &fixture.database {
        let parts = database.sql(
            "SELECT count(*) FROM pg_class WHERE relispartition AND relkind = 'r' AND relname ~ '^health_minute_[0-9]{8}$'",
        );
        assert_eq!(parts, "3", "today and two days ahead");
        assert_eq!(database.sql("SELECT count(*) FROM health_minute_rest"), "0", "moved into its day");
        assert_eq!(
            database.sql("SELECT count(*) FROM health_hour_rest"),
            "1",
            "of a month without partition"
        );
    }
    // Later: days end, and go as a whole.
    fixture.clock.advance(days(16));
    upkeep(store, &retention).await.unwrap();
    let minutes = scope.health_history("weather", Grain::Minute, range, None, Page::of(10)).await.unwrap();
    assert!(minutes.is_empty());
    fixture.clock.advance(days(100));
    upkeep(store, &retention).await.unwrap();
    assert!(scope.health_changes("weather", range, None, Page::of(10)).await.unwrap().is_empty());
    assert_eq!(platform.forget_past(Past::HealthHour, store.now()).await.unwrap(), 0, "nothing is left");
    // Rows of a day come before its partition, and of the audit too: they move.
    if let Some(database) = &fixture.database {
        database.sql(
            "INSERT INTO audit_events (tenant, class, writer, sequence, time, commitment, link, principal, route, server, name, outcome)
             SELECT 'acme', 2, gen_random_uuid(), 1, '2027-06-01T12:00:00Z', '', '', '', '', '', '', ''",
        );
        let day = Time::parse("2027-06-01T05:00:00Z").unwrap();
        platform.audit_day(day).await.unwrap();
        platform.audit_day(day).await.unwrap();
        assert_eq!(database.sql("SELECT count(*) FROM audit_events_data_20270601"), "1");
        assert_eq!(database.sql("SELECT count(*) FROM audit_events_data_rest"), "0");
    }
}

async fn the_feed_keeps_what_a_live_process_has_not_read(fixture: Fixture) {
    let (store, platform) = (&fixture.store, fixture.store.platform());
    let acme = tenant("acme");
    for i in 0..5 {
        let id = format!("corp|user{i}");
        let user = NewUser { id: &id, display_name: "", email: "", disabled: true };
        store.tenant(&acme).put_user(user, whatever).await.unwrap();
    }
    let beat = |boot, identity_seq| Heartbeat {
        boot,
        replica: "r".to_owned(),
        role: "data".to_owned(),
        version: "1".to_owned(),
        address: None,
        started_at: at(0),
        identity_seq,
    };
    let (quick, slow) = (uuid::Uuid::from_u128(1), uuid::Uuid::from_u128(2));
    platform.heartbeat(&beat(quick, 5)).await.unwrap();
    platform.heartbeat(&beat(slow, 2)).await.unwrap();
    let later = store.now().plus(Duration::from_secs(1));
    assert_eq!(platform.prune_identity_changes(at(0)).await.unwrap(), 0, "nothing is that old");
    assert_eq!(platform.prune_identity_changes(later).await.unwrap(), 2, "the slow one has read two");
    let left = platform.identity_changes(2, 10).await.unwrap();
    assert_eq!(left.iter().map(|c| c.seq).collect::<Vec<_>>(), [3, 4, 5]);
    platform.heartbeat(&beat(slow, 4)).await.unwrap();
    // By way of the maintenance, a week later.
    fixture.clock.advance(Duration::from_secs(8 * 86_400));
    upkeep(store, &HistoryRetention::default()).await.unwrap();
    assert_eq!(platform.identity_changes(4, 10).await.unwrap().len(), 1);
    // Whoever is gone holds nothing up.
    platform.retire_replica(quick).await.unwrap();
    platform.retire_replica(slow).await.unwrap();
    upkeep(store, &HistoryRetention::default()).await.unwrap();
    assert!(platform.identity_changes(0, 10).await.unwrap().is_empty());
    assert_eq!(platform.identity_head().await.unwrap(), 5, "numbers go on");
}

async fn the_database_says_how_large_it_is(fixture: Fixture) {
    let platform = fixture.store.platform();
    let state = platform.database_state().await.unwrap();
    assert!(state.bytes > 100_000 && !state.version.is_empty(), "{state:?}");
    let (tables, indexes) =
        (platform.database_tables().await.unwrap(), platform.database_indexes().await.unwrap());
    if fixture.store.engine() == Engine::Sqlite {
        // The library that comes with the program can tell where its bytes are.
        let audit = tables.iter().find(|t| t.name == "audit_event_rows").expect("every table is listed");
        assert!(audit.table_bytes > Some(0) && audit.index_bytes > Some(0), "{audit:?}");
        assert!(audit.rows_estimated.is_none() && audit.partitions == 0, "{audit:?}");
        let index =
            indexes.iter().find(|i| i.name == "audit_event_rows_time").expect("every index is listed");
        assert_eq!((index.table_name.as_str(), index.scans), ("audit_event_rows", None));
        let sum = |all: &[Option<i64>]| all.iter().flatten().sum::<i64>();
        let of_tables = sum(&tables.iter().flat_map(|t| [t.table_bytes, t.index_bytes]).collect::<Vec<_>>());
        let of_indexes = sum(&indexes.iter().map(|i| i.bytes).collect::<Vec<_>>());
        assert!(of_indexes < of_tables && of_tables + state.free_bytes.unwrap() <= state.bytes, "{state:?}");
        assert!(tables.len() > 20 && indexes.len() > 5 && tables[0].table_bytes >= tables[9].table_bytes);
        return;
    }
    assert!(state.connections.unwrap() > 0 && state.commits.is_some());
    let audit = tables.iter().find(|t| t.name == "audit_events").expect("partitions count as their table");
    assert_eq!(audit.partitions, 2);
    assert!(indexes.iter().any(|i| i.name == "health_minute_server" && i.table_name == "health_minute"));
    // For the platform only.
    let database = fixture.database.as_ref().unwrap();
    let text = "BEGIN; SET LOCAL ROLE tollgate_tenant; SELECT * FROM monitoring_database; COMMIT";
    assert!(database.try_sql_as(crate::support::postgres::LOGIN, text).is_err());
}

#[tokio::test]
async fn a_table_that_is_not_one_of_these_is_never_dropped() {
    let fixture = Fixture::new(Engine::Postgres).await;
    let database = fixture.database.as_ref().unwrap();
    let text = "BEGIN; SET LOCAL ROLE tollgate_platform; SELECT tollgate_history_drop('audit_events_data', 'infinity'); COMMIT";
    let refused = database.try_sql_as(crate::support::postgres::LOGIN, text).unwrap_err();
    assert!(refused.contains("no such table"), "{refused}");
}
