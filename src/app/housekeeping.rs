//! What one process among replicas does for the store, whether or not there is an audit: partitions ahead, retention of
//! health, metrics and usage, and of the feed of identities.

use std::time::Duration;

use crate::app::core::Core;
use crate::config::model::HistoryRetention;
use crate::store::{Past, Store, StoreError};

/// How often.
const EVERY: Duration = Duration::from_secs(3600);
/// How soon it is tried again.
const AGAIN: Duration = Duration::from_secs(30);
/// Days that are made ahead.
const AHEAD: u32 = 2;
const DAY: Duration = Duration::from_secs(86_400);

/// Ends with the process.
pub(super) async fn run(core: Core) {
    let mut seat = core.store.stand("upkeep", uuid::Uuid::from_u128(core.boot_id.0));
    loop {
        seat.held().await;
        let wait = match upkeep(&core.store, &core.model.store.retention).await {
            Ok(()) => EVERY,
            Err(error) => {
                tracing::warn!(event = "upkeep_failed", %error);
                AGAIN
            }
        };
        // Another leader may have done it meanwhile; doing it again does nothing.
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = seat.lost() => {}
        }
    }
}

/// One round. What failed is tried again with the next one; what was done stays.
///
/// # Errors
/// The store.
pub async fn upkeep(store: &Store, retention: &HistoryRetention) -> Result<(), StoreError> {
    let platform = store.platform();
    let now = store.now();
    for day in 0..=AHEAD {
        platform.history_day(now.plus(DAY * day)).await?;
    }
    let HistoryRetention { health_days, health_minute_days, usage_hour_days, identity_days } = *retention;
    for (table, days) in [
        (Past::HealthChanges, health_days),
        (Past::HealthHour, health_days),
        (Past::HealthMinute, health_minute_days),
        (Past::MetricHour, usage_hour_days),
        (Past::UsageHour, usage_hour_days),
    ] {
        if days > 0 {
            let gone = platform.forget_past(table, now.minus(DAY * days)).await?;
            if gone > 0 {
                tracing::info!(event = "history_dropped", table = table.as_str(), gone);
            }
        }
    }
    let gone = platform.prune_identity_changes(now.minus(DAY * identity_days)).await?;
    if gone > 0 {
        tracing::info!(event = "identity_changes_dropped", gone);
    }
    Ok(())
}
