//! What one process among replicas does for the audit: roll-ups, checkpoints, retention, partitions ahead.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::checkpoint::{Signed, checkpoint_all, checkpoint_each, horizon};
use crate::audit::{Class, Horizon};
use crate::base::envelope::EnvelopeError;
use crate::config::model::Retention;
use crate::store::{Erasure, SigningKey, SigningKeyError, Store, StoreError, Time};

/// How often there is something to do.
const EVERY: Duration = Duration::from_secs(30);
/// How often old events are dropped and days are made ahead.
const SELDOM: Duration = Duration::from_secs(3600);
/// Days made ahead.
const AHEAD: u32 = 2;
const DAY: Duration = Duration::from_secs(86_400);

/// The task.
pub(super) struct Upkeep {
    pub(super) store: Store,
    pub(super) key: Arc<SigningKey>,
    pub(super) retention: Retention,
    pub(super) checkpoint_every: Duration,
    pub(super) boot: [u8; 16],
}

impl Upkeep {
    /// Ends with the process.
    pub(super) async fn run(self) {
        let seat = self.store.stand("audit", uuid::Uuid::from_bytes(self.boot));
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut seldom, mut signed) = (None, tokio::time::Instant::now());
        let mut complained = None;
        loop {
            tick.tick().await;
            // Every replica reads it as soon as it can: what is wrong with it is found now, and not by an export.
            match self.key.get().await {
                Ok(_) => complained = None,
                Err(error) => complain(&error, &mut complained),
            }
            if !seat.is_held() {
                continue;
            }
            let now = tokio::time::Instant::now();
            let is_due = |last: Option<tokio::time::Instant>, every| last.is_none_or(|at| now - at >= every);
            if is_due(seldom, SELDOM) {
                match self.seldom().await {
                    Ok(()) => seldom = Some(now),
                    Err(error) => tracing::warn!(event = "audit_retention_failed", %error),
                }
                self.erase_late(true).await;
            } else {
                self.erase_late(false).await;
            }
            if let Err(error) = self.store.platform().usage_roll_up().await {
                tracing::warn!(event = "usage_not_rolled_up", %error);
            }
            if is_due(Some(signed), self.checkpoint_every) {
                match self.sign().await {
                    // Of whom it failed is tried again with the next ones.
                    Ok(_) => signed = now,
                    Err(error) => tracing::warn!(event = "audit_checkpoint_failed", %error),
                }
            }
        }
    }

    /// Events of principals who were erased before they reached the store.
    async fn erase_late(&self, all: bool) {
        match self.store.platform().erase_late(all).await {
            Ok(Erasure { events: 0, samples: 0, usage: 0 }) => {}
            Ok(Erasure { events, samples, usage }) => {
                tracing::info!(event = "audit_erased_late", events, samples, usage);
            }
            Err(error) => tracing::warn!(event = "audit_erasure_failed", %error),
        }
    }

    async fn sign(&self) -> Result<Signed, SigningKeyError> {
        let horizon = horizon(&self.retention, self.store.now());
        Ok(checkpoint_all(&self.store, self.key.get().await?, horizon).await?)
    }

    /// Says that events may be gone from now on, before they go: an export that is made in between is sound, too. Where
    /// this fails they go all the same, and the next checkpoint says so.
    async fn announce(&self, horizon: Horizon) -> Result<(), StoreError> {
        let mut tenants = BTreeSet::new();
        for class in [Class::Control, Class::Data] {
            if horizon.of(class) > 0 {
                let before = Time::from_micros(i64::try_from(horizon.of(class)).unwrap_or(i64::MAX));
                tenants.extend(self.store.platform().audit_droppable(class, before).await?);
            }
        }
        match self.key.get().await {
            _ if tenants.is_empty() => {}
            Ok(key) => drop(checkpoint_each(&self.store, key, horizon, &tenants).await?),
            Err(error) => tracing::warn!(event = "audit_checkpoint_failed", %error, tenants = tenants.len()),
        }
        Ok(())
    }

    async fn seldom(&self) -> Result<(), StoreError> {
        let platform = self.store.platform();
        let now = self.store.now();
        for day in 0..=AHEAD {
            platform.audit_day(now.plus(DAY * day)).await?;
        }
        self.announce(horizon(&self.retention, now)).await?;
        for (class, days) in
            [(Class::Control, self.retention.control_days), (Class::Data, self.retention.data_days)]
        {
            if days > 0 {
                let gone = platform.audit_drop(class, now.minus(DAY * days)).await?;
                if gone > 0 {
                    tracing::info!(event = "audit_dropped_old", class = class.as_str(), gone);
                }
            }
        }
        if self.retention.usage_minute_days > 0 {
            platform.usage_forget_minutes(now.minus(DAY * self.retention.usage_minute_days)).await?;
        }
        Ok(())
    }
}

/// Says what is wrong with the signing key, once for as long as it is the same. That the store is away, or was not prepared
/// yet, others say.
fn complain(error: &SigningKeyError, last: &mut Option<String>) {
    if let SigningKeyError::Store(error) = error
        && matches!(
            error,
            StoreError::Unavailable(_) | StoreError::Envelope { source: EnvelopeError::NoKeys, .. }
        )
    {
        return;
    }
    let text = error.to_string();
    if last.as_ref() != Some(&text) {
        tracing::error!(event = "audit_key_unusable", error = %text);
        *last = Some(text);
    }
}
