//! This process among the others: its heartbeat, what it reports, and how far all of them are.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use crate::base::Scope;
use crate::source::board::Served;
use crate::source::database::Follower;
use crate::source::identity::Feed;
use crate::store::{Heartbeat, Replica, ServedRevision, Store, StoreError, Time};

/// How often a process says that it is alive.
pub const BEAT: Duration = Duration::from_secs(2);
/// A process that was not heard of for so long counts as gone.
pub const LIVE: Duration = Duration::from_secs(10);
/// After so long it is forgotten.
pub const FORGOTTEN: Duration = Duration::from_secs(3_600);
/// How often what changed is reported, at most.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// What a process says of itself.
#[derive(Clone, Debug)]
pub struct Identity {
    /// This run of it.
    pub boot: Uuid,
    /// Its name, which stays the same over restarts.
    pub replica: String,
    /// `all`, `control` or `data`.
    pub role: &'static str,
    /// Where its internal listener is reached.
    pub address: Option<String>,
    /// When it started.
    pub started_at: Time,
}

/// Keeps the store told of this process.
pub struct Member {
    store: Store,
    identity: Identity,
    follower: Arc<Follower>,
    feed: Arc<Feed>,
    /// Why the last beat failed.
    failed: Mutex<Option<String>>,
}

impl Member {
    /// A process that has not been heard of.
    pub fn new(store: Store, identity: Identity, follower: Arc<Follower>, feed: Arc<Feed>) -> Self {
        Self { store, identity, follower, feed, failed: Mutex::new(None) }
    }

    /// Who we are.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Beats and reports until dropped.
    pub async fn run(&self) {
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut report = interval(REPORT_EVERY);
        report.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = false;
        loop {
            tokio::select! {
                _ = beat.tick() => {
                    let before = heard;
                    heard = self.note(self.beat().await);
                    if heard && !before {
                        // The store may have forgotten us, or be another one.
                        self.follower.report_all();
                    }
                }
                _ = report.tick(), if heard => heard = self.report().await,
            }
        }
    }

    /// Takes our row away, for a process that ends.
    pub async fn leave(&self) {
        if let Err(error) = self.store.platform().retire_replica(self.identity.boot).await {
            tracing::debug!(event = "replica_not_retired", %error);
        }
    }

    async fn beat(&self) -> Result<(), StoreError> {
        let beat = Heartbeat {
            boot: self.identity.boot,
            replica: self.identity.replica.clone(),
            role: self.identity.role.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            address: self.identity.address.clone(),
            started_at: self.identity.started_at,
            identity_seq: self.feed.applied(),
        };
        self.store.platform().heartbeat(&beat).await?;
        // Whoever comes by sweeps; the statement finds next to nothing.
        self.store.platform().forget_replicas(FORGOTTEN).await.map(drop)
    }

    /// `true` if there was nothing to say or it was heard.
    async fn report(&self) -> bool {
        let served = self.follower.to_report();
        if served.is_empty() {
            return true;
        }
        let now = self.store.now();
        let rows: Vec<ServedRevision> = served.iter().map(|s| self.row(s, now)).collect();
        let outcome = self.store.platform().report_revisions(&rows).await;
        if outcome.is_err() {
            self.follower.not_reported(served);
        }
        self.note(outcome)
    }

    fn row(&self, served: &Served, now: Time) -> ServedRevision {
        ServedRevision {
            boot: self.identity.boot,
            scope: served.scope.as_str().to_owned(),
            served: served.revision,
            refused: served.refused,
            refusal: served.reason.clone(),
            reported_at: now,
        }
    }

    fn note(&self, outcome: Result<(), StoreError>) -> bool {
        let mut failed = self.failed.lock();
        match &outcome {
            Err(error) if failed.is_none() => tracing::warn!(event = "replica_unheard", %error),
            Ok(()) if failed.is_some() => tracing::info!(event = "replica_heard"),
            _ => {}
        }
        *failed = outcome.as_ref().err().map(ToString::to_string);
        outcome.is_ok()
    }
}

/// What one live process does with a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The process.
    pub replica: Replica,
    /// The revision it serves; 0 for none.
    pub served: i64,
    /// The one that it refused last, and why: a later one, or the one it serves, which would not compile any more.
    pub refused: Option<(i64, String)>,
}

/// How far live processes are with a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Convergence {
    /// Whose document.
    pub scope: Scope,
    /// Which revision.
    pub revision: i64,
    /// Every live process.
    pub positions: Vec<Position>,
}

/// What processes have reported, by scope and process.
type Reports<'r> = HashMap<(&'r str, Uuid), &'r ServedRevision>;

impl Convergence {
    fn of(scope: &Scope, revision: i64, replicas: &[Replica], reports: &Reports<'_>) -> Self {
        let positions = replicas.iter().map(|replica| {
            let report = reports.get(&(scope.as_str(), replica.boot));
            Position {
                served: report.map_or(0, |r| r.served),
                refused: report.and_then(|r| Some((r.refused?, r.refusal.clone().unwrap_or_default()))),
                replica: replica.clone(),
            }
        });
        Self { scope: scope.clone(), revision, positions: positions.collect() }
    }

    /// Those that serve it, or a later one.
    pub fn serving(&self) -> usize {
        self.positions.iter().filter(|p| p.served >= self.revision).count()
    }

    /// Those where it would not compile now, whether they serve it from before or not.
    pub fn failing(&self) -> impl Iterator<Item = &Position> {
        self.positions.iter().filter(|p| p.has_refused(self.revision))
    }

    /// Those that refused it, and serve an earlier one.
    pub fn refusing(&self) -> impl Iterator<Item = &Position> {
        self.positions.iter().filter(|p| p.served < self.revision && p.has_refused(self.revision))
    }

    /// Whether every live process serves it, and would still.
    pub fn is_complete(&self) -> bool {
        !self.positions.is_empty()
            && self.serving() == self.positions.len()
            && self.failing().next().is_none()
    }

    /// Whether every live process serves it or has refused it: waiting longer changes nothing.
    pub fn is_settled(&self) -> bool {
        !self.positions.is_empty() && self.serving() + self.refusing().count() == self.positions.len()
    }
}

impl Position {
    fn has_refused(&self, revision: i64) -> bool {
        self.refused.as_ref().is_some_and(|(refused, _)| *refused >= revision)
    }
}

/// Asks the store how far every process is that was heard of within `window`.
///
/// # Errors
/// The store.
pub async fn convergence(
    store: &Store,
    scope: &Scope,
    revision: i64,
    window: Duration,
) -> Result<Convergence, StoreError> {
    let replicas = store.platform().replicas(window).await?;
    let reports = match scope {
        Scope::Platform => store.platform().served_revisions(scope).await?,
        Scope::Tenant(tenant) => store.tenant(tenant).served_revisions().await?,
    };
    let reports: Reports<'_> = reports.iter().map(|r| ((r.scope.as_str(), r.boot), r)).collect();
    Ok(Convergence::of(scope, revision, &replicas, &reports))
}

/// The same of several scopes, each with its revision. Asks the store twice, however many there are.
///
/// # Errors
/// The store.
pub async fn convergences(
    store: &Store,
    scopes: &[(Scope, i64)],
    window: Duration,
) -> Result<Vec<Convergence>, StoreError> {
    let replicas = store.platform().replicas(window).await?;
    let reports = store.platform().all_served_revisions().await?;
    let reports: Reports<'_> = reports.iter().map(|r| ((r.scope.as_str(), r.boot), r)).collect();
    Ok(scopes
        .iter()
        .map(|(scope, revision)| Convergence::of(scope, *revision, &replicas, &reports))
        .collect())
}
