//! What the app layer tells the control plane, and the JSON that callers see.
//!
//! Field names are part of the API: a change of one is a change of `/api/v1`. Times are milliseconds since the Unix
//! epoch.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The view of the process that the control plane serves. Methods answer from memory and do not block, except
/// [`ControlState::metrics`], which runs on a thread for blocking work.
pub trait ControlState: Send + Sync + 'static {
    /// The metrics in the Prometheus text format.
    fn metrics(&self) -> String;

    /// What readiness depends on.
    fn readiness(&self) -> Readiness;

    /// Servers, targets and load.
    fn status(&self) -> Status;

    /// Which configuration is in force, for each tenant.
    fn revisions(&self) -> Vec<Revision>;
}

/// What becomes of requests with `audit.on_full: refuse`.
pub const REFUSED: &str = "refused";

/// What readiness depends on. See [`Readiness::problems`] for the rule.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Readiness {
    /// The snapshot in force; `None` until one compiled.
    pub snapshot: Option<SnapshotState>,
    /// The last attempt to load a configuration.
    pub last_reload: Option<ReloadState>,
    /// Listeners that the configuration asks for.
    pub listeners: Vec<ListenerState>,
    /// The process is about to end and wants no new traffic.
    pub draining: bool,
    /// How fresh each server's catalogue is.
    pub catalogues: Vec<CatalogueState>,
    /// Documents of the store that do not compile here now: an earlier revision is served, or one that compiled before, or
    /// nothing. No reason to take traffic away: it may be the same everywhere.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedState>,
    /// What is known of callers, if that comes from a store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentityState>,
    /// What becomes of requests because the spool of the audit has no room: `refused` or `not_recorded`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit_spool_full: Option<&'static str>,
}

impl Readiness {
    /// Why the process should get no traffic; empty when it should.
    ///
    /// A failed reload is no reason, because the last good configuration serves. One stale catalogue is no reason
    /// either: one dead server must not take the gateway down. All of them stale at once is, because then the fault
    /// is on this side.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.draining {
            problems.push("draining".to_owned());
        }
        if self.snapshot.is_none() {
            problems.push("no configuration has compiled".to_owned());
        }
        for listener in self.listeners.iter().filter(|l| !l.bound) {
            problems.push(format!("listener `{}` is not bound to {}", listener.name, listener.address));
        }
        if !self.catalogues.is_empty() && self.catalogues.iter().all(|c| c.stale) {
            problems.push("every server's catalogue is stale".to_owned());
        }
        // The spools of others may have room.
        if self.audit_spool_full == Some(REFUSED) {
            problems.push("the audit spool is full, and requests are refused".to_owned());
        }
        problems
    }
}

/// A document that does not compile here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct RefusedState {
    /// Whose: a tenant, or `@platform`.
    pub scope: String,
    /// The revision that was refused. `/api/v1/convergence` says why.
    pub revision: i64,
    /// The revision that is served; 0 for none.
    pub served: i64,
}

/// What the store says of callers: users, keys, revocations and roles.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct IdentityState {
    /// For how many seconds the store was not heard of. API keys are refused beyond `identity.max_staleness` of a tenant
    /// whose `identity.on_stale` is `refuse`; that is no reason to take traffic away, for tokens are verified without it.
    pub staleness_seconds: u64,
    /// Whether it should have been heard of by now.
    pub late: bool,
}

/// The snapshot in force.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SnapshotState {
    /// Its revision.
    pub revision: u64,
    /// When it came into force.
    pub since: u64,
}

/// An attempt to load a configuration.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ReloadState {
    /// When.
    pub at: u64,
    /// `applied`, `unchanged`, `rejected` or `failed`.
    pub outcome: &'static str,
    /// The error with file, line and field, if it did not succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A listener.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ListenerState {
    /// Its name in the configuration.
    pub name: String,
    /// Where it should listen.
    pub address: String,
    /// Whether it does.
    pub bound: bool,
}

/// A server's catalogue.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CatalogueState {
    /// Whose server.
    pub tenant: String,
    /// Which server.
    pub server: String,
    /// How old the catalogue is, in milliseconds; `None` before the first fetch.
    pub age_ms: Option<u64>,
    /// Older than its refresh allows, or never fetched.
    pub stale: bool,
}

/// The process at a glance.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Status {
    /// Of the program.
    pub version: String,
    /// When the process started.
    pub started: u64,
    /// MCP sessions at home here.
    pub sessions: u64,
    /// Open event streams to clients.
    pub streams: u64,
    /// Open client connections.
    pub connections: u64,
    /// Registered servers.
    pub servers: Vec<ServerStatus>,
}

/// A server, as one process sees it, or several together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerStatus {
    /// Whose.
    pub tenant: String,
    /// Its name.
    pub name: String,
    /// `http`, `sse`, `stdio` or `openapi`.
    pub transport: String,
    /// `modern`, `legacy`, `dual`, or `unknown` before the first contact.
    pub era: String,
    /// Whether at least one target takes traffic; null if nobody knows, as in a process without a data plane, which
    /// calls no server.
    pub available: Option<bool>,
    /// Tools in its catalogue; `None` before the first fetch.
    pub tools: Option<usize>,
    /// Its targets.
    pub targets: Vec<TargetStatus>,
}

/// A target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TargetStatus {
    /// Its address as configured.
    pub id: String,
    /// Whether it takes traffic; null if nobody knows.
    pub healthy: Option<bool>,
    /// Exchanges it has not finished.
    pub in_flight: u64,
    /// Smoothed latency in microseconds, if it was measured.
    pub latency_us: Option<u64>,
    /// Until when it is ejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejected_until: Option<u64>,
    /// Why it is unhealthy or was ejected last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// The configuration in force for a tenant.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Revision {
    /// Whose.
    pub tenant: String,
    /// Its number.
    pub revision: u64,
    /// `file` or `database`.
    pub source: &'static str,
    /// When it came into force.
    pub since: u64,
    /// The tenant's last attempt to load one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_reload: Option<ReloadState>,
}
