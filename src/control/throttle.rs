//! How often one actor may call the API. The same buckets as the data plane has.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::actor::{Actor, Proof};
use super::problem::Problem;
use crate::base::{Clock, Principal, PrincipalId, PrincipalKind};
use crate::limit::{Backend, Buckets, CostSpec, Decision, Facts, KeyPart, Limit, LimitSpec, Rate, Rates};

/// Most actors that are counted one by one.
const MAX_BUCKETS: usize = 65_536;

/// One bucket per actor.
pub(super) struct Throttle {
    buckets: Buckets,
    limits: Vec<Arc<Limit>>,
    clock: Clock,
    swept: AtomicU64,
}

/// How often actors whose buckets are full again are forgotten.
const SWEEP_NS: u64 = 1_000_000_000;

impl Throttle {
    pub(super) fn new(rate: Rate, clock: Clock) -> Self {
        let limit = Limit::compile(&LimitSpec {
            scope: "control".to_owned(),
            name: "api".to_owned(),
            key: vec![KeyPart::Tenant, KeyPart::Principal],
            rates: Rates::One(rate),
            cost: CostSpec { default: 1, methods: Vec::new(), tools: Vec::new() },
            backend: Backend::Local,
        })
        .expect("a limit without tools whose burst is at least one compiles");
        Self {
            buckets: Buckets::new(clock.clone(), MAX_BUCKETS),
            limits: vec![Arc::new(limit)],
            clock,
            swept: AtomicU64::new(0),
        }
    }

    /// Takes one call.
    ///
    /// # Errors
    ///
    /// 429 with the time to wait.
    pub(super) fn take(&self, actor: &Actor, ip: IpAddr) -> Result<(), Problem> {
        let principal = Principal {
            tenant: actor.tenant.clone(),
            id: PrincipalId::new(actor.id.clone()),
            kind: if actor.proof == Proof::Key { PrincipalKind::Key } else { PrincipalKind::Service },
            ..Principal::anonymous(actor.tenant.clone(), actor.role())
        };
        let facts = Facts {
            tenant: actor.tenant.as_str(),
            route: "api",
            server: None,
            principal: Some(&principal),
            ip,
            method: "",
            tool: None,
        };
        let now = self.clock.mono_ns();
        if now.saturating_sub(self.swept.load(Ordering::Relaxed)) >= SWEEP_NS {
            self.swept.store(now, Ordering::Relaxed);
            self.buckets.sweep(now);
        }
        match self.buckets.check(now, &self.limits, &facts) {
            // The limit is a local one, and so never waits for tokens.
            Decision::Granted(_) | Decision::Starved(_) => Ok(()),
            Decision::Refused(refusal) => Err(Problem::too_many(
                "too many calls of the API; see `listeners.admin.rate`",
                refusal.retry_after_secs(),
            )),
        }
    }
}
