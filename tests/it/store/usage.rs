//! Hours and days of usage: made of minutes, also of those that come when the others of their hour are gone.

use std::time::Duration;

use tollgate::audit::usage::{Cell, Key, Metric, MetricKey, Sketch};
use tollgate::audit::{Position, WriterId};
use tollgate::store::{AuditBatch, Grain, Store, Time, UsageFilter};

use super::{Fixture, each_engine, tenant};

each_engine!(
    what_comes_late_is_added_and_not_put_in_place,
    each_hour_that_changed_is_made_once,
    quantiles_of_many_rows_are_those_of_all_their_calls,
);

/// 2026-11-30T00:00:00Z.
const DAY: u64 = 1_796_000_000 / 86_400 * 86_400;
const HOUR: u64 = 3_600;

fn time(secs: u64) -> Time {
    Time::from_micros(secs as i64 * 1_000_000)
}

/// A minute of a tenant with so many calls, as one writer drains it.
async fn drain(store: &Store, tenant: &str, secs: u64, calls: u64) {
    let minute_us = secs * 1_000_000;
    let mut cell = Cell { calls, bytes_in: 2 * calls, ..Cell::default() };
    let mut metric = Metric { calls, busy_us: 1_000 * calls, ..Metric::default() };
    for _ in 0..calls {
        cell.sketch.add_us(1_000);
        metric.latency.add_us(1_000);
    }
    let key = Key {
        tenant: tenant.into(),
        minute_us,
        principal: "ann".into(),
        route: "weather".into(),
        server: "weather".into(),
        tool: "forecast".into(),
    };
    let metric_key =
        MetricKey { tenant: tenant.into(), minute_us, route: "weather".into(), server: "weather".into() };
    let batch = AuditBatch {
        writer: WriterId::fresh(),
        from: Position::default(),
        to: Position { segment: 0, offset: 8 },
        events: Vec::new(),
        chains: Vec::new(),
        usage: vec![(key, cell)],
        metrics: vec![(metric_key, metric)],
    };
    store.platform().audit_write(&batch).await.unwrap();
}

/// Calls of the day by minute, hour and day, and by hour as metrics have them.
async fn calls(store: &Store, name: &str) -> [i64; 4] {
    let id = tenant(name);
    let scope = store.tenant(&id);
    let (from, to) = (time(DAY), time(DAY + 24 * HOUR));
    let mut found = [0; 4];
    for (at, grain) in [Grain::Minute, Grain::Hour, Grain::Day].into_iter().enumerate() {
        let series = scope.usage_series(grain, from, to, &UsageFilter::default()).await.unwrap();
        found[at] = series.iter().map(|point| point.calls).sum();
        let latency = scope.usage_latency(grain, from, to, &UsageFilter::default()).await.unwrap().unwrap();
        assert_eq!(latency.count() as i64, found[at], "{grain:?}");
    }
    let metrics = scope.request_performance_summary(Grain::Hour, from, to).await.unwrap();
    found[3] = metrics.iter().map(|one| one.calls).sum();
    found
}

async fn what_comes_late_is_added_and_not_put_in_place(fixture: Fixture) {
    let (store, platform) = (&fixture.store, fixture.store.platform());
    for hour in [5, 7] {
        drain(store, "a", DAY + hour * HOUR, 10).await;
    }
    assert_eq!(platform.usage_roll_up().await.unwrap(), 2);
    assert_eq!(calls(store, "a").await, [20, 20, 20, 20]);
    // In time: the hour is made anew of all of its minutes.
    drain(store, "a", DAY + 5 * HOUR, 3).await;
    assert_eq!(platform.usage_roll_up().await.unwrap(), 1);
    assert_eq!(calls(store, "a").await, [23, 23, 23, 23]);
    let gone = platform.usage_forget_minutes(time(DAY + 24 * HOUR)).await.unwrap();
    assert_eq!(gone, 6, "three minutes, as usage and as metrics");
    assert_eq!(calls(store, "a").await, [0, 23, 23, 23]);
    assert_eq!(platform.usage_forget_minutes(time(DAY + 24 * HOUR)).await.unwrap(), 0);
    // A process that was away for weeks brings what it had.
    for calls in [4, 40] {
        drain(store, "a", DAY + 5 * HOUR, calls).await;
    }
    drain(store, "a", DAY + 9 * HOUR, 5).await;
    assert_eq!(platform.usage_roll_up().await.unwrap(), 2);
    assert_eq!(calls(store, "a").await, [0, 72, 72, 72]);
    assert_eq!(platform.usage_roll_up().await.unwrap(), 0);
    assert_eq!(calls(store, "a").await, [0, 72, 72, 72]);
    // An hour that was not made yet keeps its minutes.
    drain(store, "a", DAY + 30 * HOUR, 1).await;
    platform.usage_forget_minutes(time(DAY + 72 * HOUR)).await.unwrap();
    assert_eq!(platform.usage_roll_up().await.unwrap(), 1);
    let id = tenant("a");
    let (from, to) = (time(DAY + 24 * HOUR), time(DAY + 48 * HOUR));
    let day = store.tenant(&id).usage_series(Grain::Day, from, to, &UsageFilter::default()).await.unwrap();
    assert_eq!(day[0].calls, 1);
}

async fn each_hour_that_changed_is_made_once(fixture: Fixture) {
    // More than are read at once.
    for hour in 0..150 {
        drain(&fixture.store, if hour % 2 == 0 { "a" } else { "b" }, DAY + hour * HOUR, 1).await;
    }
    // Drained into all the while: a round ends all the same.
    let busy = {
        let store = fixture.store.clone();
        tokio::spawn(async move {
            loop {
                drain(&store, "b", DAY + 149 * HOUR, 1).await;
            }
        })
    };
    let platform = fixture.store.platform();
    let round = tokio::time::timeout(Duration::from_secs(60), platform.usage_roll_up());
    let made = round.await.expect("it ends").unwrap();
    assert_eq!(made, 150);
    busy.abort();
}

/// As many rows as one question may be about: each has its own sketch, and the answer is that of all calls together.
async fn quantiles_of_many_rows_are_those_of_all_their_calls(fixture: Fixture) {
    const ROWS: u64 = 10_000;
    let store = &fixture.store;
    let mut all = Sketch::new();
    for batch in 0..10 {
        let mut usage = Vec::new();
        for row in 0..ROWS / 10 {
            let mut cell = Cell { calls: 30, ..Cell::default() };
            for call in 0..30 {
                // From a tenth of a millisecond to ten seconds; some took no time at all.
                let micros = 100 * ((row * 31 + call * 7919 + batch) % 100_000);
                cell.sketch.add_us(micros);
            }
            all.merge(&cell.sketch);
            let key = Key {
                tenant: "a".into(),
                minute_us: (DAY + batch * 60) * 1_000_000,
                principal: format!("p{row}").into(),
                route: "weather".into(),
                server: "weather".into(),
                tool: "forecast".into(),
            };
            usage.push((key, cell));
        }
        let batch = AuditBatch {
            writer: WriterId::fresh(),
            from: Position::default(),
            to: Position { segment: 0, offset: 8 },
            events: Vec::new(),
            chains: Vec::new(),
            usage,
            metrics: Vec::new(),
        };
        store.platform().audit_write(&batch).await.unwrap();
    }
    let id = tenant("a");
    let scope = store.tenant(&id);
    let (from, to) = (time(DAY), time(DAY + HOUR));
    for (rows, to) in [(1_000, time(DAY + 60)), (2_000, time(DAY + 120)), (ROWS, to)] {
        let mut took = Vec::new();
        for _ in 0..11 {
            let began = std::time::Instant::now();
            let found = scope.usage_latency(Grain::Minute, from, to, &UsageFilter::default()).await.unwrap();
            took.push(began.elapsed());
            assert_eq!(found.unwrap().count() as u64, 30 * rows);
        }
        took.sort();
        println!("usage/latency of {rows} rows on {:?}: median {:?}", store.engine(), took[5]);
    }
    let found = scope.usage_latency(Grain::Minute, from, to, &UsageFilter::default()).await.unwrap().unwrap();
    for share in [0.001, 0.5, 0.9, 0.95, 0.99, 0.999] {
        assert_eq!(found.quantile_ms(share), all.quantile_ms(share), "{share}");
    }
    drain(store, "a", DAY, 1).await;
    let more = scope.usage_latency(Grain::Minute, from, to, &UsageFilter::default()).await.unwrap();
    assert!(more.is_none(), "a part of them would mislead");
}
