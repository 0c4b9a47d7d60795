//! One address of a target and everything learned about it.
//!
//! [`TargetStats`] belongs to the server's pool, is keyed by address, and survives every change of the spec that keeps
//! the address. Selections see it through `Backend.ext`; nothing else is carried there, because a backend's identity
//! is address and weight and the rest of it may be stale. What comes from the spec (URL, peer, credentials) is in
//! [`Member`], which is rebuilt with each change.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use http::uri::PathAndQuery;
use parking_lot::Mutex;
use pingora::upstreams::peer::HttpPeer;
use sha2::{Digest, Sha256};

use crate::base::{Clock, TargetId};
use crate::upstream::circuit::{Admission, Circuit};
use crate::upstream::era::Findings;
use crate::upstream::ewma::PeakEwma;
use crate::upstream::outlier::{Gate, Outlier, nanos};
use crate::upstream::probe::ProbeSession;
use crate::upstream::spec::{BreakerSpec, ServerSpec};

/// Least share of its requests that a target in slow start gets.
pub(crate) const RAMP_FLOOR: f64 = 0.1;

/// What a session is bound to: one address of one target, as a short text that is the same on every replica and after
/// every restart.
///
/// The first 11 characters are a hash of the target's id. If its host is a name, `~` and the IP address follow, since
/// the name may stand for several processes and a session lives in one of them.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetRef(Arc<str>);

/// Names one target address within this process, for [`crate::upstream::Pick::tried`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TargetKey(pub(crate) u64);

impl TargetKey {
    /// No target at all; for lists with room to spare.
    pub const NONE: TargetKey = TargetKey(0);
}

/// What was learned about one address. All of it may be read and written at any time.
#[derive(Debug)]
pub(crate) struct TargetStats {
    pub(crate) key: TargetKey,
    pub(crate) addr: SocketAddr,
    in_flight: AtomicU32,
    /// Mirrors pingora's readiness after each round of checks: one load instead of a hash look-up per candidate.
    healthy: AtomicBool,
    draining: AtomicBool,
    /// Clock reading at which slow start began; 0 when there is none.
    ramp_from: AtomicU64,
    pub(crate) latency: PeakEwma,
    pub(crate) outlier: Outlier,
    pub(crate) circuit: Circuit,
    pub(crate) findings: Mutex<Findings>,
    pub(crate) last_probe: Mutex<LastProbe>,
    /// Taken by whoever probes the target, for the length of the probe. Never on the request path.
    pub(crate) session: tokio::sync::Mutex<ProbeSession>,
}

/// The latest active check.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastProbe {
    /// Unix milliseconds.
    pub(crate) at: Option<u64>,
    pub(crate) took: Duration,
    pub(crate) error: Option<Arc<str>>,
}

/// Why a target takes no request now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    AtCapacity,
    CircuitOpen { retry_at: u64 },
}

/// How an address is spoken to, as the current spec has it. Holds no statistics, so that a probe session may keep it.
pub(crate) struct Endpoint {
    pub(crate) peer: Arc<HttpPeer>,
    pub(crate) authority: HeaderValue,
    pub(crate) path_and_query: PathAndQuery,
    pub(crate) spec: Arc<ServerSpec>,
}

/// One address as the current spec sees it.
pub(crate) struct Member {
    pub(crate) stats: Arc<TargetStats>,
    pub(crate) target: TargetId,
    pub(crate) target_ref: TargetRef,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) weight: u32,
    pub(crate) gate: Arc<Gate>,
    pub(crate) clock: Clock,
    /// Position of the target in the spec: what "first" means for the catalogue entry.
    pub(crate) rank: usize,
    /// Gone from DNS: serves the sessions it has, gets nothing new.
    pub(crate) lingering: bool,
    /// Spoken to without TLS.
    pub(crate) plain: bool,
}

// === impl TargetRef ===

impl TargetRef {
    /// The reference of a target at an address.
    pub(crate) fn new(id: &TargetId, named_host: bool, address: IpAddr) -> Self {
        let hash = Sha256::digest(id.as_str().as_bytes());
        let mut text = URL_SAFE_NO_PAD.encode(&hash[..8]);
        if named_host {
            text.push('~');
            text.push_str(&address.to_string());
        }
        Self(text.into())
    }

    /// A reference read back from a sealed id. Any text is accepted; one that names nothing is [`Gone`].
    ///
    /// [`Gone`]: crate::upstream::Pinned::Gone
    pub fn from_text(text: &str) -> Self {
        Self(text.into())
    }

    /// The text to seal.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TargetRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TargetRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

// === impl TargetStats ===

impl TargetStats {
    /// An address first seen at `now`, with slow start from `ramp_from` (0 for none).
    pub(crate) fn new(addr: SocketAddr, now: u64, ramp_from: u64) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new(Self {
            key: TargetKey(NEXT.fetch_add(1, Ordering::Relaxed)),
            addr,
            in_flight: AtomicU32::new(0),
            healthy: AtomicBool::new(true),
            draining: AtomicBool::new(false),
            ramp_from: AtomicU64::new(ramp_from),
            latency: PeakEwma::new(now),
            outlier: Outlier::default(),
            circuit: Circuit::default(),
            findings: Mutex::default(),
            last_probe: Mutex::default(),
            session: tokio::sync::Mutex::default(),
        })
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    pub(crate) fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(crate) fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Relaxed);
    }

    /// Takes over what the health registry says; returns whether that changed anything. A recovered target starts
    /// slowly.
    pub(crate) fn set_healthy(&self, healthy: bool, now: u64) -> bool {
        let changed = self.healthy.swap(healthy, Ordering::Relaxed) != healthy;
        if changed && healthy {
            self.ramp_from.store(now, Ordering::Relaxed);
        }
        changed
    }

    /// Whether live traffic took the target out. Ends an ejection whose time is over.
    pub(crate) fn ejected(&self, now: u64) -> bool {
        self.outlier.ejected(now).unwrap_or_else(|ended| {
            self.ramp_from.store(ended, Ordering::Relaxed);
            false
        })
    }

    /// Whether new work may come here, as far as health goes.
    pub(crate) fn available(&self, now: u64) -> bool {
        self.healthy() && !self.draining() && !self.ejected(now)
    }

    /// The share of its requests that the target gets now: 1 outside slow start.
    pub(crate) fn ramp(&self, now: u64, slow_start: Option<Duration>) -> f64 {
        let from = self.ramp_from.load(Ordering::Relaxed);
        let Some(window) = slow_start.filter(|_| from != 0) else { return 1.0 };
        let share = now.saturating_sub(from) as f64 / nanos(window).max(1) as f64;
        if share >= 1.0 {
            // Only forget the ramp just read: a new one may have begun meanwhile.
            let _ = self.ramp_from.compare_exchange(from, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
        share.clamp(RAMP_FLOOR, 1.0)
    }

    /// Takes a place for one request; returns the trial number if the circuit is half open.
    pub(crate) fn acquire(&self, now: u64, spec: &ServerSpec) -> Result<Option<u64>, Refusal> {
        let most = spec.max_in_flight.map_or(u32::MAX, |m| m.get());
        self.in_flight
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < most).then(|| n + 1))
            .map_err(|_| Refusal::AtCapacity)?;
        match self.circuit.admit(now, spec.breaker.as_ref()) {
            Admission::Pass => Ok(None),
            Admission::Trial(generation) => Ok(Some(generation)),
            Admission::Refused(retry_at) => {
                self.release();
                Err(Refusal::CircuitOpen { retry_at })
            }
        }
    }

    pub(crate) fn release(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Notes the outcome of an active check, for people.
    pub(crate) fn note_probe(&self, unix_ms: u64, took: Duration, error: Option<String>) {
        *self.last_probe.lock() = LastProbe { at: Some(unix_ms), took, error: error.map(Arc::from) };
    }
}

// === impl Member ===

impl Member {
    pub(crate) fn spec(&self) -> &ServerSpec {
        &self.endpoint.spec
    }

    pub(crate) fn breaker(&self) -> Option<&BreakerSpec> {
        self.endpoint.spec.breaker.as_ref()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the spec: it holds credentials.
        f.debug_struct("Endpoint").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("target", &self.target)
            .field("addr", &self.stats.addr)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Clock;

    #[test]
    fn references_are_stable_and_name_the_address_only_behind_a_host_name() {
        let id = TargetId::new("http://mcp.example:9001/mcp");
        let ip = "10.0.0.7".parse().unwrap();
        assert_eq!(TargetRef::new(&id, true, ip).as_str(), "fLXZ123-Wqw~10.0.0.7");
        assert_eq!(TargetRef::new(&id, false, ip).as_str(), "fLXZ123-Wqw");
        assert_eq!(TargetRef::from_text("fLXZ123-Wqw"), TargetRef::new(&id, false, ip));
    }

    #[test]
    fn slow_start_rises_from_a_tenth_to_all() {
        let clock = Clock::manual(0);
        let start = clock.mono_ns();
        let t = TargetStats::new(([10, 0, 0, 1], 1).into(), start, start);
        let window = Some(Duration::from_secs(10));
        assert_eq!(t.ramp(clock.mono_ns(), window), RAMP_FLOOR);
        clock.advance(Duration::from_secs(5));
        assert_eq!(t.ramp(clock.mono_ns(), window), 0.5);
        assert_eq!(t.ramp(clock.mono_ns(), None), 1.0);
        clock.advance(Duration::from_secs(5));
        assert_eq!(t.ramp(clock.mono_ns(), window), 1.0);
        assert!(t.set_healthy(false, clock.mono_ns()));
        assert!(t.set_healthy(true, clock.mono_ns()));
        assert_eq!(t.ramp(clock.mono_ns(), window), RAMP_FLOOR, "a recovered target starts again");
    }
}
