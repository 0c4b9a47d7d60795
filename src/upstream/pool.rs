//! The targets of a server as one immutable view, and the choice among them.
//!
//! # The choice
//!
//! 1. The policy proposes ([`crate::upstream::balance`]); a candidate is taken unless it was tried before, is
//!    unhealthy, ejected or draining, is in slow start and its share is used up, is full, or its circuit is open.
//! 2. If the policy runs out of proposals, all targets are scanned from a random place by the same rules; if that finds
//!    none, once more without heeding slow start: a cold target is better than none.
//! 3. *Panic*: if **no** target is available, that is healthy, not ejected and not draining, then health and ejection
//!    are ignored: checks may be wrong, and an error without an attempt helps nobody. Circuits, draining, capacity and
//!    `tried` still hold. The threshold is zero, not the half that Envoy takes: most MCP calls cannot be retried, so
//!    sending a share of them to targets known to be dead costs more than loading the living ones.
//!
//! # Affinity
//!
//! A session lives in one process, so it goes to its address or nowhere. A draining, lingering, unhealthy or ejected
//! target still serves the sessions it has: they cannot move, and the attempt is the only way to find out. An open
//! circuit and a full target refuse them like anyone else.
//!
//! A pick takes no lock as long as no circuit is open and allocates nothing: it clones one `Arc`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::upstream::balance::{Selector, mix, scale};
use crate::upstream::lease::Lease;
use crate::upstream::spec::{Balance, ServerSpec};
use crate::upstream::target::{Member, Refusal, TargetKey, TargetRef, TargetStats};

/// What a request asks of the balancer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pick<'a> {
    /// For [`Balance::Hash`]: equal hashes find equal targets. Other policies ignore it.
    pub hash: Option<u64>,
    /// Targets that failed this request before.
    pub tried: &'a [TargetKey],
}

/// No target can take the request. Nothing was sent, so a retry is safe; whether it helps depends on the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTarget {
    /// All usable targets have as many requests in flight as they may.
    #[error("every target is at its request limit")]
    AtCapacity,
    /// All usable targets have an open circuit.
    #[error("the circuit of every target is open")]
    CircuitOpen {
        /// When the first of them lets a request through.
        retry_after: Duration,
    },
    /// All targets are being drained.
    #[error("every target is draining")]
    Draining,
    /// All usable targets are in [`Pick::tried`].
    #[error("every target was tried")]
    Exhausted,
    /// No host name has been resolved yet, or none to an allowed address.
    #[error("no address is known for any target")]
    Unresolved,
}

/// A session's target cannot take the request. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Pinned {
    /// The address is no longer one of the server's: the session is lost. A retry does not help.
    #[error("the session's target is gone")]
    Gone,
    /// The circuit is open or the target is full. The session may still live.
    #[error("the session's target cannot take a request now")]
    Unavailable {
        /// When a retry may help.
        retry_after: Duration,
    },
}

/// How long to wait for a place on a full target; requests end when they end.
const CAPACITY_HINT: Duration = Duration::from_secs(1);

/// One state of the pool.
pub(crate) struct View {
    pub(crate) spec: Arc<ServerSpec>,
    /// Sorted by address.
    pub(crate) members: Box<[Arc<Member>]>,
    /// Members and addresses that left DNS lately, by reference.
    pub(crate) pinned: HashMap<TargetRef, Arc<Member>>,
    pub(crate) selector: Arc<Selector>,
}

/// Why a scan found nothing.
#[derive(Default)]
struct Tally {
    usable: bool,
    tried: bool,
    full: bool,
    open: Option<u64>,
}

impl View {
    pub(crate) fn pick(&self, request: &Pick<'_>, now: u64) -> Result<Lease, NoTarget> {
        let n = self.members.len();
        if n == 0 {
            return Err(NoTarget::Unresolved);
        }
        let spec = &*self.spec;
        let key = match (spec.balance, request.hash) {
            (Balance::Hash, Some(hash)) => hash,
            _ => rand::random(),
        };
        let proposed = self.selector.visit(key, n, |stats| {
            if request.tried.contains(&stats.key)
                || !stats.available(now)
                || !within_ramp(stats, key, now, spec)
            {
                return None;
            }
            let member = self.member(stats.addr)?;
            let trial = member.stats.acquire(now, spec).ok()?;
            Some(Lease::new(Arc::clone(member), now, trial))
        });
        if let Some(lease) = proposed {
            return Ok(lease);
        }
        let start = scale(mix(key), n as u64) as usize;
        let mut tally = Tally::default();
        let warm = |t: &TargetStats| t.available(now) && within_ramp(t, key, now, spec);
        if spec.slow_start.is_some()
            && let Some(lease) = self.scan(start, request, now, &mut tally, warm)
        {
            return Ok(lease);
        }
        if let Some(lease) = self.scan(start, request, now, &mut tally, |t| t.available(now)) {
            return Ok(lease);
        }
        if tally.usable {
            return Err(tally.verdict(now));
        }
        self.scan(start, request, now, &mut tally, |t| !t.draining()).ok_or_else(|| tally.verdict(now))
    }

    pub(crate) fn pinned(&self, target: &TargetRef, now: u64) -> Result<Lease, Pinned> {
        let member = self.pinned.get(target).ok_or(Pinned::Gone)?;
        match member.stats.acquire(now, &self.spec) {
            Ok(trial) => Ok(Lease::new(Arc::clone(member), now, trial)),
            Err(Refusal::AtCapacity) => Err(Pinned::Unavailable { retry_after: CAPACITY_HINT }),
            Err(Refusal::CircuitOpen { retry_at }) => {
                Err(Pinned::Unavailable { retry_after: Duration::from_nanos(retry_at.saturating_sub(now)) })
            }
        }
    }

    pub(crate) fn member(&self, addr: SocketAddr) -> Option<&Arc<Member>> {
        self.members.binary_search_by_key(&addr, |m| m.stats.addr).ok().map(|i| &self.members[i])
    }

    fn scan(
        &self,
        start: usize,
        request: &Pick<'_>,
        now: u64,
        tally: &mut Tally,
        usable: impl Fn(&TargetStats) -> bool,
    ) -> Option<Lease> {
        let (late, early) = self.members.split_at(start);
        for member in early.iter().chain(late) {
            let stats = &member.stats;
            if !usable(stats) {
                continue;
            }
            tally.usable = true;
            if request.tried.contains(&stats.key) {
                tally.tried = true;
                continue;
            }
            match stats.acquire(now, &self.spec) {
                Ok(trial) => return Some(Lease::new(Arc::clone(member), now, trial)),
                Err(Refusal::AtCapacity) => tally.full = true,
                Err(Refusal::CircuitOpen { retry_at }) => {
                    tally.open = Some(tally.open.map_or(retry_at, |at| at.min(retry_at)));
                }
            }
        }
        None
    }
}

impl Tally {
    fn verdict(&self, now: u64) -> NoTarget {
        match self.open {
            // A place frees sooner than a circuit closes.
            _ if self.full => NoTarget::AtCapacity,
            Some(at) => NoTarget::CircuitOpen { retry_after: Duration::from_nanos(at.saturating_sub(now)) },
            None if self.tried => NoTarget::Exhausted,
            None => NoTarget::Draining,
        }
    }
}

/// Whether a target in slow start takes this request: it takes the share that its ramp has reached. The same key
/// gets the same answer at the same ramp, so a hashed key moves to a new target once and stays.
fn within_ramp(stats: &TargetStats, key: u64, now: u64, spec: &ServerSpec) -> bool {
    let share = stats.ramp(now, spec.slow_start);
    share >= 1.0 || (mix(key ^ stats.key.0) as f64 / u64::MAX as f64) < share
}
