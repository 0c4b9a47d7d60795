//! What operators see of a server. A copy, taken without stopping anything; figures may be a moment apart.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::upstream::circuit::CircuitState;
use crate::upstream::era::Eras;
use crate::upstream::server::Server;
use crate::upstream::target::Member;

/// One server.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ServerStatus {
    /// Whose it is.
    pub tenant: String,
    /// Its name.
    pub server: String,
    /// What it speaks.
    pub eras: Eras,
    /// When the catalogue entry was fetched, in Unix milliseconds.
    pub discovered_at: Option<u64>,
    /// One entry per address, in the order of the spec; addresses that left DNS last.
    pub targets: Vec<TargetStatus>,
    /// Host names.
    pub names: Vec<NameStatus>,
}

/// One address of a target.
#[derive(Clone, Debug, serde::Serialize)]
pub struct TargetStatus {
    /// What sessions are bound to.
    #[serde(rename = "ref")]
    pub target_ref: String,
    /// As configured.
    pub target: String,
    /// As dialled.
    pub address: SocketAddr,
    /// As configured.
    pub weight: u32,
    /// What active checks say; true without checks.
    pub healthy: bool,
    /// Gets no new work, by an operator's will.
    pub draining: bool,
    /// Gets no new work because the name no longer resolves to it.
    pub lingering: bool,
    /// End of the ejection, in Unix milliseconds.
    pub ejected_until: Option<u64>,
    /// How often it was ejected since it was first seen.
    pub ejections: u64,
    /// State of the circuit breaker.
    pub circuit: CircuitState,
    /// Requests and streams under way.
    pub in_flight: u32,
    /// Peak EWMA of the time to the response header, in microseconds.
    pub latency_us: u64,
    /// When the last probe ended, in Unix milliseconds.
    pub last_probe_at: Option<u64>,
    /// How long it took, in microseconds.
    pub last_probe_us: Option<u64>,
    /// Why it failed.
    pub last_probe_error: Option<Arc<str>>,
    /// Whether it speaks the modern era, if that is known.
    pub modern: Option<bool>,
    /// Whether it speaks the legacy era, if that is known.
    pub legacy: Option<bool>,
}

/// One host name.
#[derive(Clone, Debug, serde::Serialize)]
pub struct NameStatus {
    /// The target that has it.
    pub target: String,
    /// The name.
    pub host: String,
    /// What it last resolved to.
    pub addresses: Vec<IpAddr>,
    /// Why the last lookup failed; the addresses are then older.
    pub error: Option<String>,
}

pub(crate) fn status(server: &Server) -> ServerStatus {
    let view = server.view();
    let mut members: Vec<&Arc<Member>> = view.pinned.values().collect();
    members.sort_by_key(|m| (m.lingering, m.rank, m.stats.addr));
    ServerStatus {
        tenant: view.spec.tenant.to_string(),
        server: view.spec.id.to_string(),
        eras: Eras::clone(&server.eras()),
        discovered_at: server.discover().map(|d| d.fetched_at),
        targets: members.into_iter().map(|m| target(server, m)).collect(),
        names: server.resolutions(|spec, resolution| NameStatus {
            target: spec.id.to_string(),
            host: spec.host.clone(),
            addresses: resolution.addresses.clone(),
            error: resolution.error.clone(),
        }),
    }
}

fn target(server: &Server, member: &Member) -> TargetStatus {
    let stats = &member.stats;
    let now = server.clock.mono_ns();
    let probe = stats.last_probe.lock().clone();
    let (modern, legacy) = {
        let findings = stats.findings.lock();
        (findings.modern, findings.legacy)
    };
    TargetStatus {
        target_ref: member.target_ref.to_string(),
        target: member.target.to_string(),
        address: stats.addr,
        weight: member.weight,
        healthy: stats.healthy(),
        draining: stats.draining(),
        lingering: member.lingering,
        ejected_until: stats
            .outlier
            .ejected_until(now)
            .map(|at| server.clock.unix_ms() + (at - now) / 1_000_000),
        ejections: stats.outlier.ejections(),
        circuit: stats.circuit.peek(now),
        in_flight: stats.in_flight(),
        latency_us: stats.latency.micros(now) as u64,
        last_probe_at: probe.at,
        last_probe_us: probe.at.map(|_| u64::try_from(probe.took.as_micros()).unwrap_or(u64::MAX)),
        last_probe_error: probe.error,
        modern,
        legacy,
    }
}
