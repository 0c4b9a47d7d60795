//! Brings sampled requests from the data plane to the store.
//!
//! Finished minutes are stored every [`EVERY`]. While the database is away they wait here, bounded, the oldest dropped
//! first; a sample is worth neither memory without end nor a request.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::app::core::Core;
use crate::config::model;
use crate::store::{Fault, Store};
use crate::telemetry::{MAX_SAMPLE_BATCHES, SampleBatch, Sampler};

/// How often finished minutes are stored.
const EVERY: Duration = Duration::from_secs(10);
/// How often old ones are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(3600);
/// Batches of one transaction.
const CHUNK: usize = 128;

/// The sampler that the configuration asks for.
pub(super) fn sampler(model: &model::Samples) -> Option<Arc<Sampler>> {
    (model.per_minute > 0).then(|| Arc::new(Sampler::new(model.per_minute as usize, model.arguments)))
}

/// Stores until the process ends.
pub(super) async fn keep(core: Core) {
    let Some(sampler) = core.sampler.clone() else { return };
    let writer = uuid::Uuid::from_u128(core.boot_id.0);
    let retention = core.model.samples.retention.get();
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut waiting: Vec<SampleBatch> = Vec::new();
    let (mut forgot, mut before) = (None, 0);
    loop {
        tick.tick().await;
        waiting.extend(sampler.take(core.clock.unix_ms()));
        let too_many = waiting.len().saturating_sub(MAX_SAMPLE_BATCHES);
        waiting.drain(..too_many);
        let dropped = sampler.dropped();
        core.telemetry.metrics.samples_dropped().add(dropped - before + too_many as u64);
        before = dropped;
        store(&core.store, writer, &mut waiting).await;
        let now = tokio::time::Instant::now();
        if forgot.is_none_or(|at| now - at >= FORGET_EVERY) {
            match core.store.platform().forget_samples(core.store.now().minus(retention)).await {
                Ok(_) => forgot = Some(now),
                Err(error) if error.fault() == Fault::Store => {
                    tracing::debug!(event = "samples_not_forgotten", %error);
                }
                Err(error) => tracing::warn!(event = "samples_not_forgotten", %error),
            }
        }
    }
}

async fn store(store: &Store, writer: uuid::Uuid, waiting: &mut Vec<SampleBatch>) {
    while !waiting.is_empty() {
        let some = waiting.len().min(CHUNK);
        if let Err(error) = store.platform().put_samples(writer, &waiting[..some]).await {
            tracing::debug!(event = "samples_not_stored", %error, waiting = waiting.len());
            return;
        }
        waiting.drain(..some);
    }
}
