//! Series that there is one of, and what else is counted outside of requests.

use prometheus::Registry;

use super::family::{Child, Counter, Family, Gauge};
use super::label::{CanaryEnd, ReloadOutcome};
use super::metrics::Metrics;
use super::names;

/// All series without labels.
pub(super) struct Single {
    access_log_dropped: Counter,
    audit_backlog: Gauge,
    audit_bodies_lost: Counter,
    audit_dropped: Counter,
    audit_refused: Counter,
    audit_spool_bytes: Gauge,
    audit_summarised: Counter,
    config_refused: Gauge,
    config_revision: Gauge,
    connections: Gauge,
    health_history_dropped: Counter,
    identity_staleness: Gauge,
    limit_server_up: Gauge,
    log_suppressed: Counter,
    reload_success: Gauge,
    samples_dropped: Counter,
    sessions: Gauge,
    trace_dropped: Counter,
}

impl Single {
    pub(super) fn register(registry: &Registry) -> Self {
        fn one<C: Child>(spec: &'static names::Spec, registry: &Registry) -> C {
            Family::<C>::register(spec, registry).child(&[])
        }
        Self {
            access_log_dropped: one(&names::ACCESS_LOG_DROPPED, registry),
            audit_backlog: one(&names::AUDIT_BACKLOG, registry),
            audit_bodies_lost: one(&names::AUDIT_BODIES_LOST, registry),
            audit_dropped: one(&names::AUDIT_DROPPED, registry),
            audit_refused: one(&names::AUDIT_REFUSED, registry),
            audit_spool_bytes: one(&names::AUDIT_SPOOL_BYTES, registry),
            audit_summarised: one(&names::AUDIT_SUMMARISED, registry),
            config_refused: one(&names::CONFIG_REFUSED, registry),
            config_revision: one(&names::CONFIG_REVISION, registry),
            connections: one(&names::CONNECTIONS, registry),
            health_history_dropped: one(&names::HEALTH_HISTORY_DROPPED, registry),
            identity_staleness: one(&names::IDENTITY_STALENESS, registry),
            limit_server_up: one(&names::LIMIT_SERVER_UP, registry),
            log_suppressed: one(&names::LOG_SUPPRESSED, registry),
            reload_success: one(&names::CONFIG_RELOAD_SUCCESS, registry),
            samples_dropped: one(&names::SAMPLES_DROPPED, registry),
            sessions: one(&names::SESSIONS, registry),
            trace_dropped: one(&names::TRACE_DROPPED, registry),
        }
    }
}

impl Metrics {
    /// Open client connections.
    pub fn connections(&self) -> &Gauge {
        &self.single.connections
    }

    /// MCP sessions at home here.
    pub fn sessions(&self) -> &Gauge {
        &self.single.sessions
    }

    /// Audit records that have not reached the store.
    pub fn audit_backlog(&self) -> &Gauge {
        &self.single.audit_backlog
    }

    /// Requests whose bodies were lost.
    pub fn audit_bodies_lost(&self) -> &Counter {
        &self.single.audit_bodies_lost
    }

    /// Audit events that were lost.
    pub fn audit_dropped(&self) -> &Counter {
        &self.single.audit_dropped
    }

    /// Requests refused because their events would find no room.
    pub fn audit_refused(&self) -> &Counter {
        &self.single.audit_refused
    }

    /// Bytes of the audit spool.
    pub fn audit_spool_bytes(&self) -> &Gauge {
        &self.single.audit_spool_bytes
    }

    /// Requests of nobody known that have no audit events of their own.
    pub fn audit_summarised(&self) -> &Counter {
        &self.single.audit_summarised
    }

    /// Lines that the access log lost.
    pub fn access_log_dropped(&self) -> &Counter {
        &self.single.access_log_dropped
    }

    /// Minutes and changes of targets' health that were lost.
    pub fn health_history_dropped(&self) -> &Counter {
        &self.single.health_history_dropped
    }

    /// Minutes of routes whose sampled requests were lost.
    pub fn samples_dropped(&self) -> &Counter {
        &self.single.samples_dropped
    }

    /// Seconds since the store was last heard of about callers.
    pub fn identity_staleness(&self) -> &Gauge {
        &self.single.identity_staleness
    }

    /// Documents of the store that do not compile here now.
    pub fn config_refused(&self) -> &Gauge {
        &self.single.config_refused
    }

    /// Whether the server of shared limits answers.
    pub fn limit_server_up(&self) -> &Gauge {
        &self.single.limit_server_up
    }

    /// Trips to the server of shared limits with this outcome.
    pub fn limit_trips(&self, outcome: &str) -> Counter {
        self.families.limit_trips.child(&[outcome])
    }

    /// Log lines withheld or lost.
    pub fn log_suppressed(&self) -> &Counter {
        &self.single.log_suppressed
    }

    /// Spans that were not delivered.
    pub fn trace_dropped(&self) -> &Counter {
        &self.single.trace_dropped
    }

    /// Says which configuration is in force.
    pub fn config_revision(&self, revision: u64) {
        self.single.config_revision.set(i64::try_from(revision).unwrap_or(i64::MAX));
    }

    /// Counts an attempt to load a configuration.
    pub fn config_reloaded(&self, outcome: ReloadOutcome) {
        self.families.reloads.child(&[outcome.as_str()]).inc();
        self.single.reload_success.set(i64::from(outcome.is_success()));
    }

    /// Counts a canary that this process has ended.
    pub fn canary_ended(&self, end: CanaryEnd) {
        self.families.canaries_ended.child(&[end.as_str()]).inc();
    }

    /// Says that an issuer's keys were fetched now; their age counts from here at each scrape.
    pub fn jwks_fetched(&self, issuer: &str) {
        self.jwks.fetched(issuer);
    }

    /// Stops showing the age of an issuer's keys.
    pub fn jwks_forgotten(&self, issuer: &str) {
        self.jwks.forgotten(issuer);
    }
}
