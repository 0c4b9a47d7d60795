//! Active checks: is a target alive, what does it speak, what does it offer.
//!
//! Owner of state: [`Prober`] owns one connector, whose connections belong to the runtime of the background tasks;
//! each target's probe session and findings are in its statistics.
//!
//! Invariants
//! - A probe never holds up another target's, a request, or a reload.
//! - At most [`PARALLEL`] probes run at a time over all servers; waiting for a place does not count as failing.
//! - A legacy target holds at most one probe session. It is opened once, kept, and opened again only when the server
//!   says 404 (unknown session). An `initialize` whose end is not known (cut off, connection broken) may have opened
//!   one that nobody can close, so the next attempt waits, twice as long each time; meanwhile the target is judged
//!   without a session.
//! - An examination runs in its own task: a health check that stops waiting does not cut it off.
//!
//! Failure: a failed probe counts against the target's health if it was a health check, is shown in the status, and
//! leaves era and catalogue entry as they were.

mod exchange;
mod mcp;
mod message;

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::Connector;
use pingora_load_balancing::Backend;
use pingora_load_balancing::health_check::HealthCheck;
use tokio::sync::Semaphore;

pub(crate) use mcp::ProbeSession;

use crate::upstream::balance::stats_of;
use crate::upstream::probe::exchange::Request;
use crate::upstream::server::Server;
use crate::upstream::spec::{HealthSpec, ProbeKind};
use crate::upstream::target::{Member, TargetStats};

/// Probes at a time, over all servers.
pub const PARALLEL: usize = 64;
/// Idle connections the prober keeps.
const IDLE_CONNECTIONS: usize = 128;
/// For one whole examination (at most four exchanges), whoever waits for it.
pub(crate) const EXAMINATION: Duration = Duration::from_secs(30);
/// For closing one probe session.
const CLOSING: Duration = Duration::from_secs(2);
/// How the gateway names itself to servers.
pub(crate) const USER_AGENT: &str = concat!("tollgate/", env!("CARGO_PKG_VERSION"));

/// Why a probe failed. Shown to operators; holds no credentials and no bodies.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    #[error("the server refuses our credential (status {0})")]
    Credential(u16),
    #[error("cannot connect: {0}")]
    Connect(String),
    #[error("the connection broke: {0}")]
    Io(String),
    #[error("the server speaks no era of MCP that we do")]
    NoEra,
    #[error("the answer is not a JSON-RPC message")]
    NotJsonRpc,
    #[error("the server answered error {code}: {message}")]
    Refused { code: i64, message: String },
    #[error("the target was removed")]
    Retired,
    #[error("unexpected status {0}")]
    Status(u16),
    #[error("no answer in time")]
    Timeout,
    #[error("the answer is too large")]
    TooLarge,
    #[error("waiting {0} s before a session is opened again: the last attempt did not end")]
    Waiting(u64),
}

impl ProbeError {
    /// Whether the server may have acted on the request although it seems to have failed.
    pub(crate) fn may_have_acted(&self) -> bool {
        matches!(self, Self::Io(_) | Self::NotJsonRpc | Self::Timeout | Self::TooLarge)
    }
}

/// Sends probes.
pub(crate) struct Prober {
    connector: Connector,
    permits: Arc<Semaphore>,
}

impl Prober {
    /// Loads the system's certificate authorities.
    pub(crate) fn new() -> Self {
        Self {
            connector: Connector::new(Some(ConnectorOptions::new(IDLE_CONNECTIONS))),
            permits: Arc::new(Semaphore::new(PARALLEL)),
        }
    }

    /// One health check, and how long the target took.
    async fn check(
        self: &Arc<Self>,
        server: &Server,
        member: &Arc<Member>,
        health: &HealthSpec,
    ) -> (Result<(), ProbeError>, Duration) {
        // Taken before the time runs: a busy prober is not the target's fault.
        let Ok(_permit) = self.permits.acquire().await else { return (Ok(()), Duration::ZERO) };
        let started = server.clock.mono_ns();
        let probe = async {
            match &health.probe {
                ProbeKind::Http { path, expect: (low, high) } => {
                    let request =
                        Request { method: Method::GET, path, headers: Vec::new(), body: None, want: None };
                    let answer = exchange::send(&self.connector, &member.endpoint, request).await?;
                    match (*low..=*high).contains(&answer.status) {
                        true => Ok(()),
                        false => Err(ProbeError::Status(answer.status)),
                    }
                }
                ProbeKind::Mcp => self.examine_detached(server, member).await,
                ProbeKind::Tcp => match tokio::net::TcpStream::connect(member.stats.addr).await {
                    Ok(_) => Ok(()),
                    Err(e) => Err(ProbeError::Connect(e.to_string())),
                },
            }
        };
        let result = tokio::time::timeout(health.timeout, probe).await.unwrap_or(Err(ProbeError::Timeout));
        (result, Duration::from_nanos(server.clock.mono_ns().saturating_sub(started)))
    }

    /// One examination outside a health check.
    pub(crate) async fn examine(
        self: &Arc<Self>,
        server: &Server,
        member: &Arc<Member>,
    ) -> Result<(), ProbeError> {
        let Ok(_permit) = self.permits.acquire().await else { return Ok(()) };
        self.examine_detached(server, member).await
    }

    /// Runs an examination to its own end, whether or not the caller waits that long.
    async fn examine_detached(
        self: &Arc<Self>,
        server: &Server,
        member: &Arc<Member>,
    ) -> Result<(), ProbeError> {
        let (prober, member, clock) = (Arc::clone(self), Arc::clone(member), server.clock.clone());
        let examination = tokio::spawn(async move {
            let examined = mcp::examine(&prober.connector, &member, &clock);
            tokio::time::timeout(EXAMINATION, examined).await.unwrap_or(Err(ProbeError::Timeout))
        });
        examination.await.unwrap_or(Err(ProbeError::Timeout))
    }

    /// Ends a target's probe session, if it has one, and opens no more.
    pub(crate) async fn retire(&self, stats: &TargetStats) {
        // An examination may hold the session; it is not worth more than this wait.
        let closing = async { stats.session.lock().await.retire(&self.connector).await };
        let _ = tokio::time::timeout(CLOSING, closing).await;
    }
}

/// Pingora's view of a server's health checks.
pub(crate) struct Check(Weak<Server>);

impl Check {
    pub(crate) fn new(server: Weak<Server>) -> Self {
        Self(server)
    }
}

#[async_trait]
impl HealthCheck for Check {
    async fn check(&self, backend: &Backend) -> pingora::Result<()> {
        let Some(server) = self.0.upgrade() else { return Ok(()) };
        let view = server.view();
        let Some(member) = stats_of(backend).and_then(|stats| view.member(stats.addr)) else { return Ok(()) };
        // Without checks every target is healthy: one passed round undoes what earlier ones found.
        let Some(health) = &view.spec.health else { return Ok(()) };
        let Some(prober) = server.prober.get() else { return Ok(()) };
        let (result, took) = prober.check(&server, member, health).await;
        let error = result.as_ref().err().map(|e| e.to_string());
        member.stats.note_probe(server.clock.unix_ms(), took, error);
        result.map_err(|e| pingora::Error::explain(pingora::ErrorType::Custom("ProbeFailed"), e.to_string()))
    }

    fn backend_summary(&self, backend: &Backend) -> String {
        match self.0.upgrade() {
            Some(server) => format!("server {}/{} target {}", server.tenant(), server.id(), backend.addr),
            None => backend.addr.to_string(),
        }
    }

    fn health_threshold(&self, success: bool) -> usize {
        let server = self.0.upgrade();
        let view = server.map(|s| s.view());
        let health = view.as_ref().and_then(|v| v.spec.health.as_ref());
        health.map_or(1, |h| if success { h.healthy_after } else { h.unhealthy_after }) as usize
    }
}
