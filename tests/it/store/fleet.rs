//! Replicas: beats, reports, leaders, and listening again after the database was away.

use std::sync::Arc;
use std::time::Duration;

use tollgate::base::{Clock, PrincipalId, RouteId, Scope};
use tollgate::mcp::session::{Binding, BootId, Limits, SessionToken, Sessions, Tombstone, TouchError};
use tollgate::mcp::version::Version;
use tollgate::store::{
    Channel, Heartbeat, Notification, ServedRevision, SessionTombstone, StoreError, StoreSettings, Time,
};
use uuid::Uuid;

use super::{Fixture, each_engine, open, tenant};
use crate::support::postgres::{Durability, LOGIN, Postgres};
use crate::support::{Folder, eventually, within};

each_engine!(
    replicas_are_live_while_they_beat,
    a_replica_that_starts_anew_replaces_its_dead_process,
    reports_say_what_is_served_and_what_refused,
    ended_sessions_are_forgotten_with_their_ids_and_beyond_a_bound,
    tenants_are_listed,
);

fn beat(replica: &str) -> Heartbeat {
    Heartbeat {
        boot: Uuid::now_v7(),
        replica: replica.to_owned(),
        role: "all".to_owned(),
        version: "1".to_owned(),
        address: Some("127.0.0.1:9999".to_owned()),
        started_at: Time::from_micros(1),
        identity_seq: 0,
    }
}

async fn replicas_are_live_while_they_beat(fixture: Fixture) {
    let platform = fixture.store.platform();
    let (one, two) = (beat("one"), beat("two"));
    platform.heartbeat(&one).await.unwrap();
    platform.heartbeat(&two).await.unwrap();
    let window = Duration::from_secs(10);
    assert_eq!(platform.replicas(window).await.unwrap().len(), 2);
    fixture.clock.advance(Duration::from_secs(9));
    platform.heartbeat(&two).await.unwrap();
    fixture.clock.advance(Duration::from_secs(2));
    let live = platform.replicas(window).await.unwrap();
    assert_eq!(live.iter().map(|r| r.replica.as_str()).collect::<Vec<_>>(), ["two"]);
    assert_eq!(live[0].boot, two.boot);
    assert_eq!(live[0].started_at, Time::from_micros(1));
    assert_eq!(platform.forget_replicas(window).await.unwrap(), 1);
    platform.retire_replica(two.boot).await.unwrap();
    assert!(platform.replicas(Duration::from_secs(1000)).await.unwrap().is_empty());
}

async fn a_replica_that_starts_anew_replaces_its_dead_process(fixture: Fixture) {
    let platform = fixture.store.platform();
    let window = Duration::from_secs(10);
    let boots = async || {
        let rows = platform.replicas(window).await.unwrap();
        rows.into_iter().map(|row| row.boot).collect::<Vec<_>>()
    };
    let (dead, other) = (beat("one"), beat("two"));
    platform.heartbeat(&dead).await.unwrap();
    platform.heartbeat(&other).await.unwrap();
    fixture.clock.advance(Duration::from_secs(1));
    let successor = Heartbeat { started_at: fixture.store.now(), ..beat("one") };
    platform.heartbeat(&successor).await.unwrap();
    assert_eq!(boots().await, [successor.boot, other.boot]);
    // One that hands over to its successor is not dead: it beats.
    fixture.clock.advance(Duration::from_secs(1));
    platform.heartbeat(&dead).await.unwrap();
    assert_eq!(boots().await, [dead.boot, successor.boot, other.boot]);
}

async fn reports_say_what_is_served_and_what_refused(fixture: Fixture) {
    let platform = fixture.store.platform();
    let beat = beat("one");
    let report = |scope: &str, served, refused: Option<i64>| ServedRevision {
        boot: beat.boot,
        scope: scope.to_owned(),
        served,
        refused,
        refusal: refused.map(|_| "does not compile: line 1".to_owned()),
        reported_at: fixture.store.now(),
    };
    let early = platform.report_revisions(&[report("acme", 1, None)]).await.unwrap_err();
    assert!(matches!(early, StoreError::Refused(_)), "{early}");
    platform.heartbeat(&beat).await.unwrap();
    platform.report_revisions(&[report("acme", 1, None), report("@platform", 7, None)]).await.unwrap();
    platform.report_revisions(&[report("acme", 1, Some(2))]).await.unwrap();
    let acme = tenant("acme");
    assert_eq!(fixture.store.tenant(&acme).served_revisions().await.unwrap(), [report("acme", 1, Some(2))]);
    let served = platform.served_revisions(&Scope::Platform).await.unwrap();
    assert_eq!(served, [report("@platform", 7, None)]);
    assert_eq!(platform.refusals().await.unwrap().len(), 1);
    platform.retire_replica(beat.boot).await.unwrap();
    assert!(platform.served_revisions(&Scope::Platform).await.unwrap().is_empty());
}

async fn ended_sessions_are_forgotten_with_their_ids_and_beyond_a_bound(fixture: Fixture) {
    let platform = fixture.store.platform();
    let now = fixture.clock.unix_secs();
    let tomb = |tenant: &str, i: u64, issued_at: u64| SessionTombstone {
        tenant: tenant.to_owned(),
        serial: format!("{i:032x}"),
        issued_at: i64::try_from(issued_at).unwrap(),
    };
    let day = 24 * 3600;
    // Ended just now, but as old as an id gets: nobody can come with it again.
    platform.bury_sessions(&[tomb("a", 1, now - day - 1), tomb("a", 2, now - day)]).await.unwrap();
    let age = Duration::from_secs(day);
    assert_eq!(platform.forget_session_tombstones(age, 100).await.unwrap(), 1);
    assert_eq!(platform.session_tombstones().await.unwrap(), [tomb("a", 2, now - day)]);
    // Some of the same second, on both sides of the bound.
    let many: Vec<_> = (10..40).map(|i| tomb("b", i, now - 100 + i / 4)).collect();
    platform.bury_sessions(&many).await.unwrap();
    assert_eq!(platform.forget_session_tombstones(age, 30).await.unwrap(), 0);
    assert_eq!(platform.forget_session_tombstones(age, 9).await.unwrap(), 20);
    let mut left = platform.session_tombstones().await.unwrap();
    left.sort_by(|x, y| (&x.tenant, &x.serial).cmp(&(&y.tenant, &y.serial)));
    assert_eq!(left[0], tomb("a", 2, now - day), "another tenant's");
    assert_eq!(left[1..], many[20..], "the newest, and one more than the bound");

    // A replica that starts now and remembers nine does not let one of the forgotten come back.
    let limits = Limits { tombstones_per_tenant: 9, ..Limits::default() };
    let sessions = Sessions::new(limits, fixture.clock.clone());
    for tomb in platform.session_tombstones().await.unwrap() {
        let issued_at = u64::try_from(tomb.issued_at).unwrap();
        let (tenant, serial) = (tenant(&tomb.tenant), tomb.serial.parse().unwrap());
        sessions.bury(&Tombstone { tenant, serial, issued_at });
    }
    let (b, route, ann) = (tenant("b"), RouteId::new("r"), PrincipalId::new("ann"));
    let touch = |serial: &str, issued_at: i64| {
        let token = SessionToken {
            target: None,
            upstream: None,
            version: Version::V2025_11_25,
            issued_at: u64::try_from(issued_at).unwrap(),
            home: BootId(1),
            serial: serial.parse().unwrap(),
        };
        sessions.touch(&token, Binding { tenant: &b, route: &route, principal: &ann }).map(drop)
    };
    for tomb in &many {
        assert_eq!(touch(&tomb.serial, tomb.issued_at), Err(TouchError::Gone), "{tomb:?}");
    }
    let new = tomb("b", 99, now);
    assert_eq!(touch(&new.serial, new.issued_at), Ok(()), "a new one is not taken for ended");
}

async fn tenants_are_listed(fixture: Fixture) {
    let platform = fixture.store.platform();
    for name in ["b", "a", "c"] {
        platform.put_tenant(&tenant(name), name).await.unwrap();
    }
    platform.put_tenant(&tenant("b"), "Bee").await.unwrap();
    let list = platform.tenants(Some("a"), tollgate::store::Page::of(1)).await.unwrap();
    assert_eq!((list.len(), list[0].display_name.as_str()), (1, "Bee"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_leads_and_another_follows_it() {
    let fixture = Fixture::new(tollgate::store::Engine::Postgres).await;
    let mut first = fixture.store.stand("maintenance", Uuid::now_v7());
    let epoch = within("the seat", first.held()).await;
    let other = fixture.another();
    let mut second = other.stand("maintenance", Uuid::now_v7());
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!second.is_held(), "two leaders");
    drop(first);
    assert_eq!(within("the seat", second.held()).await, epoch + 1);
    // The connection with the lock is lost: so is the seat, and it is taken again.
    fixture.database.as_ref().unwrap().sql(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    );
    within("the loss", second.lost()).await;
    assert!(within("the seat", second.held()).await > epoch + 1);
}

#[tokio::test]
async fn alone_a_process_leads() {
    let fixture = Fixture::new(tollgate::store::Engine::Sqlite).await;
    let mut seat = fixture.store.stand("maintenance", Uuid::now_v7());
    assert_eq!(within("the seat", seat.held()).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_crash_of_the_database_everything_goes_on() {
    let server = Arc::new(Postgres::start(Durability::Full));
    let database = server.database();
    let folder = Folder::new();
    let settings = StoreSettings {
        connect_timeout: Duration::from_millis(500),
        ..StoreSettings::at(&server.url(LOGIN, database.name()), folder.path())
    };
    let store = open(&settings, &Clock::default());
    store.prepare().await.unwrap();
    let mut listener = store.listen();
    assert_eq!(within("listening", listener.next()).await, Notification::Missed);
    store.platform().put_tenant(&tenant("acme"), "Acme").await.unwrap();
    server.kill();
    let error = store.ping().await.unwrap_err();
    assert!(error.retry_is_safe(), "{error:?}");
    let fresh = open(&settings, &Clock::default());
    assert!(fresh.prepare().await.unwrap_err().retry_is_safe(), "starting does not wait for the database");
    server.restart();
    eventually("the store is back", async || store.ping().await.ok()).await;
    assert!(store.platform().find_tenant(&tenant("acme")).await.unwrap().is_some());
    within("listening again", async { while listener.next().await != Notification::Missed {} }).await;
    store.notify(Channel::Sessions, "close").await.unwrap();
    let heard = within("a notification", listener.next()).await;
    assert_eq!(heard, Notification::Message { channel: Channel::Sessions, payload: "close".to_owned() });
}

#[tokio::test]
async fn what_only_reads_is_no_rollback() {
    let fixture = Fixture::new(tollgate::store::Engine::Postgres).await;
    let database = fixture.database.as_ref().unwrap();
    let figures = || {
        let text = format!(
            "SELECT xact_commit, xact_rollback FROM pg_stat_database WHERE datname = '{}'",
            database.name()
        );
        let row = database.sql(&text);
        let (commits, rollbacks) = row.split_once('|').unwrap();
        (commits.parse::<i64>().unwrap(), rollbacks.parse::<i64>().unwrap())
    };
    let before = figures();
    for _ in 0..200 {
        fixture.store.platform().replicas(Duration::from_secs(1)).await.unwrap();
    }
    // A backend tells its figures once it has been idle for a while.
    let after = eventually("they are counted", async || {
        let now = figures();
        (now.0 + now.1 >= before.0 + before.1 + 200).then_some(now)
    })
    .await;
    assert!(after.1 - before.1 < 10, "{} of 200 reads were undone", after.1 - before.1);
}
