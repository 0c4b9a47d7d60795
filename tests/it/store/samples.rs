//! Sampled requests: kept by tenant, found by time, forgotten by age.

use std::time::Duration;

use tollgate::telemetry::{RequestSample, Sampler};

use super::{Fixture, each_engine, tenant};

each_engine!(samples_are_kept_by_tenant_and_forgotten_by_age);

const MINUTE_MS: u64 = 60_000;

fn sample(time: u64, name: &str) -> RequestSample {
    let text = format!(
        r#"{{"time":{time},"method":"tools/call","name":"{name}","ip":"10.0.0.1","outcome":"ok","path":"/mcp/a"}}"#
    );
    serde_json::from_str(&text).unwrap()
}

async fn samples_are_kept_by_tenant_and_forgotten_by_age(fixture: Fixture) {
    let store = &fixture.store;
    let (acme, other) = (tenant("acme"), tenant("other"));
    let now = fixture.clock.unix_ms();
    let sampler = Sampler::new(10, false);
    sampler.offer("acme", "a", now - 180 * MINUTE_MS, || sample(now - 180 * MINUTE_MS, "old"));
    sampler.offer("acme", "a", now - 2 * MINUTE_MS, || sample(now - 2 * MINUTE_MS, "new"));
    sampler.offer("other", "a", now - 2 * MINUTE_MS, || sample(now - 2 * MINUTE_MS, "theirs"));
    let batches = sampler.take(now);
    assert_eq!(batches.len(), 3);
    let writer = uuid::Uuid::from_u128(7);
    store.platform().put_samples(writer, &batches).await.unwrap();
    // A batch that is stored again, because nobody knew whether it was, is there once.
    store.platform().put_samples(writer, &batches).await.unwrap();
    let names = |text: String| -> Vec<String> {
        let samples = tollgate::insight::whatif::read(&text).unwrap();
        samples.into_iter().filter_map(|sample| sample.name).collect()
    };
    assert_eq!(names(store.recent_samples(&acme, 24).await.unwrap()), ["old", "new"]);
    let (newest, more) = store.latest_samples(&acme, 24, 1).await.unwrap();
    assert_eq!((names(newest), more), (vec!["new".to_owned()], true));
    assert!(!store.latest_samples(&acme, 24, 2).await.unwrap().1);
    assert_eq!(names(store.recent_samples(&acme, 1).await.unwrap()), ["new"]);
    assert_eq!(names(store.recent_samples(&other, 24).await.unwrap()), ["theirs"]);
    let before = store.now().minus(Duration::from_secs(3600));
    assert_eq!(store.platform().forget_samples(before).await.unwrap(), 1);
    assert_eq!(names(store.recent_samples(&acme, 24).await.unwrap()), ["new"]);
}
