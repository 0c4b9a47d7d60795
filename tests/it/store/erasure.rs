//! Erasing a principal: events, samples and the name in usage, also of what reaches the store afterwards.

use std::time::Duration;

use tollgate::audit::Event;
use tollgate::store::{
    ERASED, Erasure, Grain, MAX_REMEMBERED, Page, REMEMBERED, UsageBy, UsageFilter, UsageTop,
};
use tollgate::telemetry::{RequestSample, Sampler};

use super::audit::{Writer, event};
use super::{Fixture, each_engine, tenant};

each_engine!(
    usage_names_them_no_more_and_adds_up_as_before,
    samples_of_theirs_go_and_the_others_stay,
    samples_of_many_minutes_go,
    what_arrives_late_is_erased_and_what_happened_later_is_not,
    samples_of_the_minute_are_told_apart_by_their_own_time,
    who_was_erased_is_remembered_sealed_bounded_and_for_a_time,
);

const START_US: u64 = 1_796_000_000_000_000;
const HOUR_US: u64 = 3_600_000_000;
const MINUTE_MS: u64 = 60_000;
const GRAINS: [Grain; 3] = [Grain::Minute, Grain::Hour, Grain::Day];

/// Calls by what they are added up by, in all of the time that the test knows.
async fn top(fixture: &Fixture, grain: Grain, by: UsageBy) -> Vec<UsageTop> {
    let (now, days) = (fixture.store.now(), Duration::from_secs(10 * 86_400));
    let id = tenant("a");
    fixture.store.tenant(&id).usage_top(grain, by, now.minus(days), now.plus(days), 50).await.unwrap()
}

async fn named(fixture: &Fixture, grain: Grain) -> Vec<(String, i64)> {
    let mut names: Vec<_> =
        top(fixture, grain, UsageBy::Principal).await.into_iter().map(|t| (t.name, t.calls)).collect();
    names.sort();
    names
}

/// All sums that are not by principal, and how many durations there are.
async fn others(fixture: &Fixture) -> Vec<(Vec<UsageTop>, usize)> {
    let (now, days) = (fixture.store.now(), Duration::from_secs(10 * 86_400));
    let (id, all) = (tenant("a"), UsageFilter::default());
    let mut sums = Vec::new();
    for grain in GRAINS {
        for by in [UsageBy::Route, UsageBy::Server, UsageBy::Tool] {
            let theirs = fixture.store.tenant(&id);
            let latency =
                theirs.usage_latency(grain, now.minus(days), now.plus(days), &all).await.unwrap().unwrap();
            sums.push((top(fixture, grain, by).await, latency.count()));
        }
    }
    sums
}

fn is(name: &str, calls: i64) -> (String, i64) {
    (name.to_owned(), calls)
}

async fn usage_names_them_no_more_and_adds_up_as_before(fixture: Fixture) {
    let platform = fixture.store.platform();
    let mut writers = [Writer::new(), Writer::new()];
    for writer in &mut writers {
        for hour in 0..3 {
            let at = START_US + hour * HOUR_US;
            let events = [
                event("a", at, "ann", "x"),
                event("a", at + 1, "ann", "y"),
                event("a", at + 2, "bob", "x"),
                event("a", at + 3, "eve", "x"),
                event("b", at + 4, "ann", "x"),
            ];
            platform.audit_write(&writer.batch(&events)).await.unwrap();
        }
    }
    while platform.usage_roll_up().await.unwrap() > 0 {}
    let before = others(&fixture).await;
    let done = platform.audit_erase(&tenant("a"), "ann").await.unwrap();
    // By minute of two writers, by hour, and by day, each with two tools.
    assert_eq!(done, Erasure { events: 12, samples: 0, usage: 12 + 6 + 2 * days(&fixture).await });
    for grain in GRAINS {
        assert_eq!(named(&fixture, grain).await, [is(ERASED, 12), is("bob", 6), is("eve", 6)], "{grain:?}");
    }
    assert_eq!(others(&fixture).await, before);
    // The next one's calls join those that are nobody's already.
    let done = platform.audit_erase(&tenant("a"), "bob").await.unwrap();
    assert_eq!(done.events, 6);
    for grain in GRAINS {
        assert_eq!(named(&fixture, grain).await, [is(ERASED, 18), is("eve", 6)], "{grain:?}");
    }
    assert_eq!(others(&fixture).await, before);
    // Hours are made anew of minutes that name nobody.
    assert!(platform.usage_roll_up().await.unwrap() >= 3);
    for grain in GRAINS {
        assert_eq!(named(&fixture, grain).await, [is(ERASED, 18), is("eve", 6)], "{grain:?}");
    }
    assert_eq!(others(&fixture).await, before);
    let b = tenant("b");
    let theirs = fixture.store.tenant(&b);
    let (now, day) = (fixture.store.now(), Duration::from_secs(86_400));
    let names =
        theirs.usage_top(Grain::Hour, UsageBy::Principal, now.minus(day), now.plus(day), 9).await.unwrap();
    assert_eq!((names.len(), names[0].name.as_str(), names[0].calls), (1, "ann", 6), "another tenant's");
}

/// How many days the three hours lie in.
async fn days(fixture: &Fixture) -> u64 {
    let (now, days) = (fixture.store.now(), Duration::from_secs(10 * 86_400));
    let (id, all) = (tenant("a"), UsageFilter::default());
    let series = fixture
        .store
        .tenant(&id)
        .usage_series(Grain::Day, now.minus(days), now.plus(days), &all)
        .await
        .unwrap();
    series.len() as u64
}

fn sample(time: u64, principal: &str, name: &str) -> RequestSample {
    let text = serde_json::json!({
        "time": time, "method": "tools/call", "name": name, "ip": "10.0.0.1", "outcome": "ok", "path": "/mcp/a",
        "principal": { "id": principal, "kind": "user", "roles": [] },
        "arguments": "{\"principal\":{\"id\":\"o\\\"neil\"}}"
    });
    serde_json::from_value(text).unwrap()
}

async fn put(fixture: &Fixture, time: u64, of: &[(&str, &str)], writer: u128) {
    let sampler = Sampler::new(10, true);
    for (principal, name) in of {
        sampler.offer("a", "r", time, || sample(time, principal, name));
    }
    let batches = sampler.take(time + 10 * MINUTE_MS);
    fixture.store.platform().put_samples(uuid::Uuid::from_u128(writer), &batches).await.unwrap();
}

async fn samples(fixture: &Fixture) -> Vec<String> {
    let text = fixture.store.recent_samples(&tenant("a"), 48).await.unwrap();
    let mut names: Vec<String> =
        tollgate::insight::whatif::read(&text).unwrap().into_iter().filter_map(|s| s.name).collect();
    names.sort();
    names
}

async fn samples_of_theirs_go_and_the_others_stay(fixture: Fixture) {
    let now = fixture.clock.unix_ms() - 60 * MINUTE_MS;
    put(&fixture, now, &[("o\"neil", "a"), ("o\"neil", "b"), ("o\"neil-2", "c"), ("bob", "d")], 1).await;
    put(&fixture, now - 60 * MINUTE_MS, &[("o\"neil", "e")], 1).await;
    let done = fixture.store.platform().audit_erase(&tenant("a"), "o\"neil").await.unwrap();
    assert_eq!(done, Erasure { events: 0, samples: 3, usage: 0 });
    assert_eq!(samples(&fixture).await, ["c", "d"], "also those with the name in arguments");
    if let Some(database) = &fixture.database {
        assert_eq!(
            database.sql("SELECT samples FROM request_samples"),
            "2",
            "a minute without samples is gone"
        );
    }
    assert_eq!(fixture.store.platform().audit_erase(&tenant("b"), "bob").await.unwrap(), Erasure::default());
    assert_eq!(samples(&fixture).await, ["c", "d"], "another tenant's");
}

/// More than are in memory at once.
async fn samples_of_many_minutes_go(fixture: Fixture) {
    let now = fixture.clock.unix_ms() - 60 * MINUTE_MS;
    for minute in 0..125 {
        let time = now - minute * MINUTE_MS;
        for writer in [1, 2] {
            put(&fixture, time, &[("ann", "a")], writer).await;
        }
        put(&fixture, time, &[("ann", "a"), ("bob", "b")], 3).await;
    }
    let done = fixture.store.platform().audit_erase(&tenant("a"), "ann").await.unwrap();
    assert_eq!(done, Erasure { events: 0, samples: 375, usage: 0 });
    assert_eq!(samples(&fixture).await, vec!["b"; 125]);
}

async fn what_arrives_late_is_erased_and_what_happened_later_is_not(fixture: Fixture) {
    let platform = fixture.store.platform();
    let (mut drained, mut late) = (Writer::new(), Writer::new());
    let early: Vec<Event<'_>> = (0..3).map(|i| event("a", START_US - HOUR_US + i, "ann", "x")).collect();
    platform.audit_write(&drained.batch(&early)).await.unwrap();
    assert_eq!(platform.audit_erase(&tenant("a"), "ann").await.unwrap().events, 3);
    assert_eq!(platform.erase_late(false).await.unwrap(), Erasure::default(), "nothing has arrived");
    // Of another process, whose spool was not drained: before, after, and somebody else's.
    let events = [
        event("a", START_US - HOUR_US, "ann", "x"),
        event("a", START_US - 1, "ann", "x"),
        event("a", START_US - 1, "bob", "x"),
        event("a", START_US + 60_000_000, "ann", "later"),
    ];
    platform.audit_write(&late.batch(&events)).await.unwrap();
    put(&fixture, fixture.clock.unix_ms() - 5 * MINUTE_MS, &[("ann", "gone"), ("bob", "stays")], 2).await;
    fixture.clock.advance(Duration::from_secs(120));
    let done = platform.erase_late(false).await.unwrap();
    assert_eq!((done.events, done.samples), (2, 1));
    assert_eq!(done.usage, 2, "two minutes");
    assert_eq!(platform.erase_late(true).await.unwrap(), Erasure::default(), "once");
    assert_eq!(samples(&fixture).await, ["stays"]);
    let id = tenant("a");
    let found =
        fixture.store.tenant(&id).audit_search(&Default::default(), None, Page::of(50)).await.unwrap();
    let said: Vec<&str> = found.iter().filter_map(|e| e.payload.as_deref()).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said.iter().any(|e| e.contains("later")) && said.iter().any(|e| e.contains("bob")), "{said:?}");
    while platform.usage_roll_up().await.unwrap() > 0 {}
    for grain in GRAINS {
        assert_eq!(named(&fixture, grain).await, [is(ERASED, 5), is("ann", 1), is("bob", 1)], "{grain:?}");
    }
    // A spool that comes back after an hour is looked for less often, but is.
    fixture.clock.advance(Duration::from_secs(7200));
    platform.audit_write(&Writer::new().batch(&[event("a", START_US - 5, "ann", "x")])).await.unwrap();
    assert_eq!(platform.erase_late(false).await.unwrap(), Erasure::default());
    assert_eq!(platform.erase_late(true).await.unwrap(), Erasure { events: 1, samples: 0, usage: 1 });
}

/// A minute comes to the store when it is over, with what happened before the erasure and after it.
async fn samples_of_the_minute_are_told_apart_by_their_own_time(fixture: Fixture) {
    let platform = fixture.store.platform();
    let minute = fixture.clock.unix_ms() / MINUTE_MS * MINUTE_MS;
    fixture.clock.advance(Duration::from_millis(minute + 90_000 - fixture.clock.unix_ms()));
    let asked = fixture.clock.unix_ms();
    platform.audit_erase(&tenant("a"), "ann").await.unwrap();
    let sampler = Sampler::new(10, true);
    let of = [(-1, "before"), (0, "at once"), (1, "after"), (29_000, "later")];
    for (offset, name) in of {
        let time = asked.checked_add_signed(offset).unwrap();
        sampler.offer("a", "r", time, || sample(time, "ann", name));
    }
    let time = asked - 1;
    sampler.offer("a", "r", time, || sample(time, "bob", "bob's"));
    let batches = sampler.take(asked + 10 * MINUTE_MS);
    assert_eq!(batches.len(), 1, "one minute");
    platform.put_samples(uuid::Uuid::from_u128(7), &batches).await.unwrap();
    fixture.clock.advance(Duration::from_secs(120));
    for all in [false, true] {
        assert_eq!(platform.erase_late(all).await.unwrap().samples, u64::from(!all));
        assert_eq!(samples(&fixture).await, ["after", "at once", "bob's", "later"]);
    }
}

async fn who_was_erased_is_remembered_sealed_bounded_and_for_a_time(fixture: Fixture) {
    let platform = fixture.store.platform();
    let id = tenant("a");
    platform.audit_erase(&id, "ann").await.unwrap();
    platform.audit_erase(&id, "ann").await.unwrap();
    if let Some(database) = &fixture.database {
        let rows = database.sql("SELECT count(*), min(length(sealed)) > 100 FROM audit_erasures");
        assert_eq!(rows, "1|t", "once, however often");
        assert_eq!(
            database.sql("SELECT count(*) FROM audit_erasures WHERE position('ann'::bytea IN sealed) > 0"),
            "0"
        );
    }
    // The master key may move meanwhile.
    fixture.store.rotate_master_key().await.unwrap();
    assert_eq!(platform.rewrap().await.unwrap(), 1);
    let late = |at| Writer::new().batch(&[event("a", at, "ann", "x")]);
    platform.audit_write(&late(START_US - 1)).await.unwrap();
    assert_eq!(platform.erase_late(true).await.unwrap().events, 1);
    // Not for ever.
    fixture.clock.advance(REMEMBERED + Duration::from_secs(1));
    platform.audit_write(&late(START_US - 1)).await.unwrap();
    assert_eq!(platform.erase_late(true).await.unwrap(), Erasure::default());
    assert_eq!(platform.rewrap().await.unwrap(), 0);
    if let Some(database) = &fixture.database {
        assert_eq!(database.sql("SELECT count(*) FROM audit_erasures"), "0");
        // A tenant with very many is bounded: the oldest makes room.
        database.sql(&format!(
            "INSERT INTO audit_erasures SELECT 'a', gen_random_uuid(), 'k', decode('00', 'hex'), to_timestamp(i)
               FROM generate_series(1, {MAX_REMEMBERED}) i"
        ));
        assert_eq!(
            platform.audit_erase(&id, "ann").await.unwrap().events,
            1,
            "what does not open is in nobody's way"
        );
        let rows = database.sql("SELECT count(*), min(asked_at) = to_timestamp(2) FROM audit_erasures");
        assert_eq!(rows, format!("{MAX_REMEMBERED}|t"));
        assert!(platform.erase_late(false).await.is_ok(), "of the last hour all open");
    }
}
