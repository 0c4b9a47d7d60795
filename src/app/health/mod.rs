//! The history of targets' health: seen here, kept in the store.
//!
//! Two tasks of the control runtime, and between them a bounded [`Backlog`]. One looks at every target once a second and
//! never waits; the other writes. While the store is away finished minutes and changes wait, at most [`MAX_MINUTES`] and
//! [`MAX_CHANGES`]; beyond that the oldest are dropped and `tollgate_health_history_dropped_total` counts them. Requests
//! come nowhere near any of this. The minute that is under way when a process ends is not kept.

mod observer;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;

use crate::app::core::Core;
use crate::store::{Fault, HealthChange, HealthSample, Store};
use crate::telemetry::Metrics;
use observer::Observer;

/// How often targets are looked at. What comes and goes between two looks shows in ejections only.
const LOOK: Duration = Duration::from_secs(1);
/// How often what is new is written.
const WRITE: Duration = Duration::from_secs(5);
/// Minutes of targets that wait for the store at most: two hours of four hundred targets, some 15 MiB.
const MAX_MINUTES: usize = 50_000;
/// Changes of states that wait for it at most.
const MAX_CHANGES: usize = 10_000;
/// Rows of one transaction.
const CHUNK: usize = 1_000;

/// What is not in the store yet.
#[derive(Debug, Default)]
struct Backlog {
    minutes: VecDeque<HealthSample>,
    changes: VecDeque<HealthChange>,
    dropped: u64,
}

impl Backlog {
    fn add(&mut self, minutes: Vec<HealthSample>, changes: Vec<HealthChange>) {
        self.minutes.extend(minutes);
        self.changes.extend(changes);
        self.bound();
    }

    /// The oldest of both, out of the backlog.
    fn take(&mut self) -> (Vec<HealthSample>, Vec<HealthChange>) {
        let (minutes, changes) = (self.minutes.len().min(CHUNK), self.changes.len().min(CHUNK));
        (self.minutes.drain(..minutes).collect(), self.changes.drain(..changes).collect())
    }

    /// Puts back what could not be written.
    fn give_back(&mut self, minutes: Vec<HealthSample>, changes: Vec<HealthChange>) {
        minutes.into_iter().rev().for_each(|row| self.minutes.push_front(row));
        changes.into_iter().rev().for_each(|row| self.changes.push_front(row));
        self.bound();
    }

    fn bound(&mut self) {
        let minutes = self.minutes.len().saturating_sub(MAX_MINUTES);
        let changes = self.changes.len().saturating_sub(MAX_CHANGES);
        self.minutes.drain(..minutes);
        self.changes.drain(..changes);
        self.dropped += (minutes + changes) as u64;
    }
}

/// Looks and writes until the process ends.
pub(super) async fn keep(core: Core, replica: String) {
    let backlog = Arc::new(Mutex::new(Backlog::default()));
    tokio::join!(look(core.clone(), replica, backlog.clone()), write(core, backlog));
}

async fn look(core: Core, replica: String, backlog: Arc<Mutex<Backlog>>) {
    let mut observer = Observer::new(replica);
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let (minutes, changes) = observer.look(core.store.now(), &core.state.upstreams.status());
        if !minutes.is_empty() || !changes.is_empty() {
            let mut backlog = backlog.lock();
            backlog.add(minutes, changes);
            report(&mut backlog, &core.state.metrics);
        }
    }
}

async fn write(core: Core, backlog: Arc<Mutex<Backlog>>) {
    let mut tick = tokio::time::interval(WRITE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut prepared = false;
    loop {
        tick.tick().await;
        if !prepared {
            match core.store.prepare().await {
                Ok(()) => prepared = true,
                Err(error) => {
                    tracing::debug!(event = "health_not_stored", %error);
                    continue;
                }
            }
        }
        flush(&core.store, &backlog, &core.state.metrics).await;
    }
}

/// Writes what there is, until it is written or the store fails.
async fn flush(store: &Store, backlog: &Mutex<Backlog>, metrics: &Metrics) {
    loop {
        let (minutes, changes) = backlog.lock().take();
        if minutes.is_empty() && changes.is_empty() {
            return;
        }
        // Written twice, if the answer to a commit was lost, is written once.
        if let Err(error) = store.platform().put_health(&minutes, &changes).await {
            let mut backlog = backlog.lock();
            backlog.give_back(minutes, changes);
            report(&mut backlog, metrics);
            let waiting = backlog.minutes.len();
            if error.fault() == Fault::Store {
                tracing::debug!(event = "health_not_stored", %error, waiting);
            } else {
                tracing::warn!(event = "health_not_stored", %error, waiting);
            }
            return;
        }
    }
}

fn report(backlog: &mut Backlog, metrics: &Metrics) {
    metrics.health_history_dropped().add(std::mem::take(&mut backlog.dropped));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Time;

    fn minute(n: i64) -> HealthSample {
        HealthSample {
            tenant: "default".to_owned(),
            at: Time::from_micros(n),
            server: "s".to_owned(),
            target: "t".to_owned(),
            replica: "r".to_owned(),
            observed: 1,
            available: 1,
            probes: 0,
            probes_failed: 0,
            probe_us: 0,
            latency_count: 0,
            latency_us: 0,
            in_flight_max: 0,
            ejections: 0,
            changes: 0,
            state: "healthy".to_owned(),
            error: None,
        }
    }

    #[test]
    fn the_oldest_makes_room_and_is_counted() {
        let mut backlog = Backlog::default();
        let more = 7;
        backlog.add((0..(MAX_MINUTES + more) as i64).map(minute).collect(), Vec::new());
        assert_eq!((backlog.minutes.len(), backlog.dropped), (MAX_MINUTES, more as u64));
        assert_eq!(backlog.minutes[0].at, Time::from_micros(more as i64));
        // What comes back from a failed attempt is older than what came meanwhile.
        let (taken, _) = backlog.take();
        assert_eq!(taken.len(), CHUNK);
        backlog.add((0..CHUNK as i64).map(|n| minute(1_000_000 + n)).collect(), Vec::new());
        backlog.give_back(taken, Vec::new());
        assert_eq!((backlog.minutes.len(), backlog.dropped), (MAX_MINUTES, (more + CHUNK) as u64));
        assert_eq!(backlog.minutes[0].at, Time::from_micros((more + CHUNK) as i64));
        assert!(backlog.minutes.iter().is_sorted_by_key(|row| row.at));
    }
}
