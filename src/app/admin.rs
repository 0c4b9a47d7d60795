//! What the admin listener shows.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::app::reload::{LastReload, Reloader};
use crate::audit::{Auditor, OnFull};
use crate::base::{ServerId, TargetId, TenantId};
use crate::control::{
    CatalogueState, ControlState, IdentityState, ListenerState, REFUSED, Readiness, RefusedState,
    ReloadState, Revision, ServerStatus, SnapshotState, Status, TargetStatus,
};
use crate::gateway::{ConnectionCounts, Phase};
use crate::mcp::session::Sessions;
use crate::snapshot::TenantSnapshot;
use crate::source::{Feed, Follower};
use crate::telemetry::Telemetry;
use crate::upstream;

/// A catalogue is stale when it is older than this many refreshes, and what is known of callers when it is older than so
/// many looks.
const STALE_AFTER: u32 = 3;

/// By tenant, server and target.
type Ejections = HashMap<(String, String, String), u64>;

/// Reads the state of the process.
pub(super) struct Admin {
    reloader: Arc<Reloader>,
    telemetry: Telemetry,
    sessions: Arc<Sessions>,
    listeners: Vec<(&'static str, SocketAddr)>,
    phase: watch::Receiver<Phase>,
    started: u64,
    connections: OnceLock<ConnectionCounts>,
    /// What follows identities, and how often it looks.
    feed: OnceLock<(Arc<Feed>, Duration)>,
    /// What takes documents from the store.
    documents: OnceLock<Arc<Follower>>,
    audit: Auditor,
    /// Ejections of each target that the counters know of.
    ejections: Mutex<Ejections>,
}

impl Admin {
    pub(super) fn new(
        reloader: Arc<Reloader>,
        telemetry: Telemetry,
        sessions: Arc<Sessions>,
        listeners: Vec<(&'static str, SocketAddr)>,
        phase: watch::Receiver<Phase>,
        audit: Auditor,
    ) -> Self {
        let started = reloader.state().clock.unix_ms();
        Self {
            reloader,
            telemetry,
            sessions,
            listeners,
            phase,
            started,
            connections: OnceLock::new(),
            feed: OnceLock::new(),
            documents: OnceLock::new(),
            audit,
            ejections: Mutex::default(),
        }
    }

    /// Hands in what is known only once the listener runs.
    pub(super) fn attach(&self, connections: ConnectionCounts) {
        let _ = self.connections.set(connections);
    }

    /// Hands in what follows identities, and how often it looks.
    pub(super) fn follow(&self, feed: Arc<Feed>, every: Duration) {
        let _ = self.feed.set((feed, every));
    }

    /// Hands in what takes documents from the store.
    pub(super) fn follow_documents(&self, follower: Arc<Follower>) {
        let _ = self.documents.set(follower);
    }

    fn refused(&self) -> Vec<RefusedState> {
        let Some(follower) = self.documents.get() else { return Vec::new() };
        let refused = |s: crate::source::Served| {
            Some(RefusedState {
                scope: s.scope.as_str().to_owned(),
                revision: s.refused?,
                served: s.revision,
            })
        };
        follower.served().into_iter().filter_map(refused).collect()
    }

    fn identity(&self) -> Option<IdentityState> {
        let (feed, every) = self.feed.get()?;
        let staleness_seconds = feed.age();
        let late = staleness_seconds > (*every * STALE_AFTER).as_secs() + 1;
        Some(IdentityState { staleness_seconds, late })
    }

    /// Whether clients are served here, and so servers are called and known.
    fn has_data_plane(&self) -> bool {
        self.connections.get().is_some()
    }

    fn open_connections(&self) -> u64 {
        self.connections.get().map_or(0, |c| c.open() as u64)
    }

    /// The last attempt to load a configuration.
    pub(super) fn last_reload(&self) -> Option<ReloadState> {
        let LastReload { at, outcome, error } = self.reloader.status().1?;
        Some(ReloadState { at, outcome: outcome.as_str(), error })
    }
}

impl ControlState for Admin {
    fn metrics(&self) -> String {
        let metrics = &self.telemetry.metrics;
        metrics.connections().set(self.open_connections() as i64);
        if let Some(identity) = self.identity() {
            let age = i64::try_from(identity.staleness_seconds).unwrap_or(i64::MAX);
            metrics.identity_staleness().set(age);
        }
        metrics.config_refused().set(i64::try_from(self.refused().len()).unwrap_or(i64::MAX));
        metrics.sessions().set(self.sessions.counts().live as i64);
        // What nobody probes is neither well nor ill.
        let known =
            if self.has_data_plane() { self.reloader.state().upstreams.servers() } else { Vec::new() };
        // Held to the end: what one scrape counts, another one beside it does not.
        let mut counted = self.ejections.lock();
        let mut ejections = Ejections::new();
        for server in known {
            let status = server.status();
            let (tenant, id) = (TenantId::new(status.tenant.as_str()), ServerId::new(status.server.as_str()));
            for target in &status.targets {
                let series = metrics.target(&tenant, &id, &TargetId::new(target.target.as_str()));
                series.set_in_flight(u64::from(target.in_flight));
                // Targets count for themselves, and series may be shared.
                let key = (status.tenant.clone(), status.server.clone(), target.target_ref.clone());
                series.ejected(target.ejections.saturating_sub(counted.get(&key).copied().unwrap_or(0)));
                ejections.insert(key, target.ejections);
                if target.healthy && target.ejected_until.is_none() {
                    series.set_healthy();
                } else {
                    series.set_unhealthy();
                }
            }
        }
        // Those that are gone are forgotten.
        *counted = ejections;
        drop(counted);
        metrics.render()
    }

    fn readiness(&self) -> Readiness {
        let now = self.reloader.state().clock.unix_ms();
        let (_, since) = self.reloader.source();
        let snapshot = self.reloader.snapshot();
        let revision = snapshot.tenant(&TenantId::default()).map_or(snapshot.generation, |own| own.revision);
        let catalogues = self.reloader.state().upstreams.servers().into_iter().filter_map(|server| {
            let eras = server.eras();
            // A legacy server has no answer to keep; its health is in the status.
            if eras.modern != Some(true) {
                return None;
            }
            let age_ms = server.discover().map(|entry| now.saturating_sub(entry.fetched_at));
            let bound = server.discover_refresh().as_millis() as u64 * u64::from(STALE_AFTER);
            Some(CatalogueState {
                tenant: server.tenant().to_string(),
                server: server.id().to_string(),
                age_ms,
                stale: age_ms.is_none_or(|age| age > bound),
            })
        });
        Readiness {
            snapshot: Some(SnapshotState { revision, since }),
            last_reload: self.last_reload(),
            listeners: self
                .listeners
                .iter()
                .map(|(name, address)| ListenerState {
                    name: (*name).to_owned(),
                    address: address.to_string(),
                    bound: true,
                })
                .collect(),
            draining: *self.phase.borrow() != Phase::Running,
            catalogues: catalogues.collect(),
            refused: self.refused(),
            identity: self.identity(),
            audit_spool_full: self.audit.spool().filter(|spool| spool.is_full()).map(|spool| {
                match spool.on_full() {
                    OnFull::Drop => "not_recorded",
                    OnFull::Refuse => REFUSED,
                }
            }),
        }
    }

    fn status(&self) -> Status {
        let snapshot = self.reloader.snapshot();
        let streams = snapshot.routes().iter().map(|r| r.metrics.streams().max(0) as u64).sum();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self.started,
            sessions: self.sessions.counts().live as u64,
            streams,
            connections: self.open_connections(),
            servers: servers(&self.reloader.state().upstreams, self.has_data_plane()),
        }
    }

    fn revisions(&self) -> Vec<Revision> {
        let snapshot = self.reloader.snapshot();
        let (source, since) = self.reloader.source();
        let revision = |tenant: &Arc<TenantSnapshot>| Revision {
            tenant: tenant.tenant.to_string(),
            revision: tenant.revision,
            source,
            since,
            last_reload: self.last_reload(),
        };
        snapshot.tenants().map(revision).collect()
    }
}

/// Servers that are registered here; if they are not called from here, nothing is known of how they are.
pub(super) fn servers(upstreams: &upstream::Upstreams, called: bool) -> Vec<ServerStatus> {
    let mut servers: Vec<ServerStatus> = upstreams.servers().iter().map(|s| server_status(s)).collect();
    if !called {
        for server in &mut servers {
            server.available = None;
            server.targets.iter_mut().for_each(|target| target.healthy = None);
        }
    }
    servers
}

fn server_status(server: &upstream::Server) -> ServerStatus {
    let status = server.status();
    let era = match (status.eras.modern, status.eras.legacy) {
        (Some(true), Some(true)) => "dual",
        (Some(true), _) => "modern",
        (_, Some(true)) => "legacy",
        _ => "unknown",
    };
    let targets: Vec<TargetStatus> = status
        .targets
        .iter()
        .map(|target| TargetStatus {
            id: target.target.clone(),
            healthy: Some(target.healthy && target.ejected_until.is_none()),
            in_flight: u64::from(target.in_flight),
            latency_us: (target.latency_us > 0).then_some(target.latency_us),
            ejected_until: target.ejected_until,
            last_error: target.last_probe_error.as_deref().map(str::to_owned),
        })
        .collect();
    ServerStatus {
        tenant: status.tenant.clone(),
        name: status.server.clone(),
        transport: "http".to_owned(),
        era: era.to_owned(),
        available: Some(targets.iter().any(|t| t.healthy == Some(true))),
        tools: None,
        targets,
    }
}
