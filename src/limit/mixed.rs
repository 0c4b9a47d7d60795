//! Checking limits some of which are shared with other replicas.
//!
//! The order keeps all-or-nothing exact and trips few: local buckets are looked at first, since what they refuse needs
//! no trip; then all leases are locked, in one order for everybody, and looked at; only if nothing refuses and nothing is
//! missing are the local buckets taken from, and last, still under the locks, the leases: that cannot fail any more.

use std::hash::Hasher;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::definition::{Backend, Limit, Outage};
use super::headers::{Quota, Refusal};
use super::lease::Verdict;
use super::leases::{Lease, SharedKey, Starved};
use super::registry::{Buckets, Claim, Decision, Facts, feed};

/// How long a caller is told to wait while the shared server does not answer.
const OUTAGE_WAIT_NS: u64 = 1_000_000_000;

/// Whether tokens can be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trips {
    /// The shared server does not answer: each limit does what it says for that.
    Failed,
    /// They can.
    Possible,
    /// There were enough trips; others took what they brought. What is missing now is refused.
    Spent,
}

impl Buckets {
    /// [`Buckets::check`] when the shared server does not answer: limits that lack leased tokens do as
    /// [`Limit::backend`] says. Never [`Decision::Starved`].
    pub fn check_cut_off<'a>(
        &self,
        now_ns: u64,
        limits: &'a [Arc<Limit>],
        facts: &Facts<'_>,
    ) -> Decision<'a> {
        self.mixed(now_ns, limits, facts, true, Trips::Failed)
    }

    /// [`Buckets::check`] for a request that has waited for trips often enough. Never [`Decision::Starved`].
    pub fn check_finally<'a>(
        &self,
        now_ns: u64,
        limits: &'a [Arc<Limit>],
        facts: &Facts<'_>,
    ) -> Decision<'a> {
        self.mixed(now_ns, limits, facts, true, Trips::Spent)
    }

    /// Waits until leases run low, and takes the list of them.
    pub async fn running_low(&self) -> Vec<Starved> {
        self.leases.runs_low.notified().await;
        self.leases.take_low()
    }

    /// Keys of shared limits that are remembered.
    pub fn leases(&self) -> usize {
        self.leases.len()
    }

    pub(super) fn mixed<'a>(
        &self,
        now: u64,
        limits: &'a [Arc<Limit>],
        facts: &Facts<'_>,
        take: bool,
        trips: Trips,
    ) -> Decision<'a> {
        let mut local = Vec::with_capacity(limits.len());
        let mut shared: Vec<(Arc<Lease>, Outage, Claim<'a>)> = Vec::with_capacity(limits.len());
        for limit in limits {
            let Some(claim) = self.claim(limit, facts) else { continue };
            match limit.backend() {
                Backend::Local => local.push(Some(claim)),
                Backend::Shared(outage) => {
                    let lease = self.leases.get(claim.key, now, || shared_key(limit, facts));
                    shared.push((lease, outage, claim));
                }
            }
        }
        if let Some(refusal) = self.refusal(now, &local) {
            return Decision::Refused(refusal);
        }
        shared.sort_by_key(|(lease, ..)| Arc::as_ptr(lease));
        // A limit that is listed twice counts once: its lock cannot be taken twice.
        shared.dedup_by(|a, b| Arc::ptr_eq(&a.0, &b.0));

        let mut held = Vec::with_capacity(shared.len());
        let mut starved = Vec::new();
        let mut worst: Option<Refusal<'a>> = None;
        let mut refuse = |refusal: Refusal<'a>| {
            if worst.is_none_or(|w| w.retry_after() < refusal.retry_after()) {
                worst = Some(refusal);
            }
        };
        for (lease, outage, claim) in &shared {
            let mut guard = lease.lock();
            let verdict = guard.judge(now, &claim.priced.rate, claim.cost_ns);
            let quota = Quota::new(claim.limit, claim.priced, now.saturating_add(guard.debt(now)), now);
            match (verdict, trips, outage) {
                (Verdict::Ready, ..) => held.push((guard, lease, claim)),
                (Verdict::Refused(_) | Verdict::Starved, Trips::Failed, Outage::Local) => {
                    local.push(Some(*claim))
                }
                (Verdict::Refused(_) | Verdict::Starved, Trips::Failed, Outage::Open) => {}
                (Verdict::Refused(wait), ..) => refuse(Refusal::new(quota, wait)),
                (Verdict::Starved, Trips::Failed, Outage::Closed) => {
                    refuse(Refusal::new(quota, OUTAGE_WAIT_NS))
                }
                (Verdict::Starved, Trips::Spent, _) => refuse(Refusal::new(quota, claim.cost_ns)),
                (Verdict::Starved, Trips::Possible, _) => {
                    starved.push(Starved::new(lease.clone(), claim.limit, &claim.priced.rate, claim.cost_ns));
                }
            }
        }
        if let Some(refusal) = worst {
            return Decision::Refused(refusal);
        }
        if !starved.is_empty() {
            return Decision::Starved(starved);
        }
        let mut tightest = match self.settle(now, &mut local, take) {
            Decision::Granted(quota) => quota,
            refused => return refused,
        };
        for (guard, lease, claim) in &mut held {
            if take {
                guard.spend(now, claim.cost_ns);
                if trips == Trips::Possible && guard.runs_low(now) {
                    self.leases.fetch_ahead(Starved::new(
                        Arc::clone(lease),
                        claim.limit,
                        &claim.priced.rate,
                        0,
                    ));
                }
            }
            let quota = Quota::new(claim.limit, claim.priced, now.saturating_add(guard.debt(now)), now);
            if tightest.is_none_or(|t| quota.is_tighter(&t)) {
                tightest = Some(quota);
            }
        }
        Decision::Granted(tightest)
    }
}

/// The bucket's name on the shared server: nobody can choose names whose digests meet.
fn shared_key(limit: &Limit, facts: &Facts<'_>) -> SharedKey {
    let mut hasher = Digester(Sha256::new());
    // All parts are there: the claim has been made with them.
    let _ = feed(&mut hasher, limit, facts);
    let mut key = [0; 16];
    key.copy_from_slice(&hasher.0.finalize()[..16]);
    SharedKey(key)
}

/// Feeds key parts to a digest, in an order of bytes that is the same everywhere.
struct Digester(Sha256);

impl Hasher for Digester {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn write_u8(&mut self, i: u8) {
        self.write(&[i]);
    }

    fn write_u64(&mut self, i: u64) {
        self.write(&i.to_le_bytes());
    }

    fn write_u128(&mut self, i: u128) {
        self.write(&i.to_le_bytes());
    }

    fn finish(&self) -> u64 {
        0
    }
}
