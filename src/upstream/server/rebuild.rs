//! From a spec and what its names resolve to, to the view that requests read.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures::FutureExt;
use http::HeaderValue;
use pingora_load_balancing::{Backend, Extensions};

use crate::upstream::balance::Selector;
use crate::upstream::peer;
use crate::upstream::pool::View;
use crate::upstream::server::{Pool, Server};
use crate::upstream::spec::{Scheme, ServerSpec, TargetSpec};
use crate::upstream::target::{Endpoint, Member, TargetRef, TargetStats};

/// Most addresses of one server, over all its targets; the rest is ignored, in the order of the spec.
pub const MAX_MEMBERS: usize = 1024;
/// Addresses waiting for their probe session to be closed; beyond that the oldest is forgotten.
const MAX_ORPHANS: usize = 1024;

impl Server {
    /// Publishes a view of the current spec and addresses. The caller holds the pool's lock.
    pub(super) fn rebuild(&self, pool: &mut Pool) {
        let now = self.clock.mono_ns();
        let first = self.view.load().members.is_empty();
        let mut members: Vec<Arc<Member>> = Vec::new();
        let mut pinned = HashMap::new();
        for (addr, rank, lingering) in addresses(pool) {
            let target = &pool.spec.targets[rank];
            let stats = Arc::clone(
                // Targets that were there from the start need no slow start: all are equally cold.
                pool.stats
                    .entry(addr)
                    .or_insert_with(|| TargetStats::new(addr, now, if first { 0 } else { now })),
            );
            stats.set_draining(pool.drained.contains(&target.id));
            let member = Arc::new(Member {
                stats,
                target: target.id.clone(),
                target_ref: TargetRef::new(&target.id, target.literal().is_none(), addr.ip()),
                endpoint: Arc::new(endpoint(&pool.spec, target, addr)),
                weight: target.weight,
                gate: Arc::clone(&self.gate),
                clock: self.clock.clone(),
                rank,
                lingering,
                plain: target.scheme == Scheme::Http,
            });
            pinned.insert(member.target_ref.clone(), Arc::clone(&member));
            if !lingering {
                members.push(member);
            }
        }
        members.sort_by_key(|m| m.stats.addr);

        let used: HashSet<SocketAddr> = pinned.values().map(|m| m.stats.addr).collect();
        let left = pool.stats.extract_if(|addr, _| !used.contains(addr)).map(|(_, stats)| stats);
        pool.orphans.extend(left);
        let excess = pool.orphans.len().saturating_sub(MAX_ORPHANS);
        pool.orphans.drain(..excess);

        self.gate.set_members(members.iter().map(|m| Arc::clone(&m.stats)).collect());
        let selector = self.reselect(&pool.spec, &members);
        self.view.store(Arc::new(View {
            spec: Arc::clone(&pool.spec),
            members: members.into(),
            pinned,
            selector,
        }));
        self.sync_health();
        self.settle(pool);
        self.summarise();
    }

    /// Runs the membership through pingora's pool; a new selection is built only if it or the policy changed, so that
    /// a reload does not restart round robin.
    fn reselect(&self, spec: &ServerSpec, members: &[Arc<Member>]) -> Arc<Selector> {
        let backend = |m: &Arc<Member>| {
            let mut ext = Extensions::new();
            ext.insert(Arc::clone(&m.stats));
            Backend {
                addr: pingora::protocols::l4::socket::SocketAddr::Inet(m.stats.addr),
                weight: m.weight as usize,
                ext,
            }
        };
        self.resolved.set(members.iter().map(backend).collect());
        let mut changed = false;
        let update = self.backends.update(|_| changed = true).now_or_never();
        debug_assert!(matches!(update, Some(Ok(()))), "the resolved set is there without waiting");
        let old = self.view.load();
        if !changed && old.spec.balance == spec.balance {
            return Arc::clone(&old.selector);
        }
        Arc::new(Selector::build(spec.balance, &self.backends.get_backend(), &self.clock))
    }
}

/// All addresses with the rank of their target, each address once: the first target in the spec has it, and current
/// ones go before those that left DNS.
fn addresses(pool: &Pool) -> Vec<(SocketAddr, usize, bool)> {
    let spec = &pool.spec;
    let mut seen = HashSet::new();
    let mut all = Vec::new();
    for lingering in [false, true] {
        for (rank, target) in spec.targets.iter().enumerate() {
            let ips: Vec<IpAddr> = match (target.literal(), pool.names.get(&target.id)) {
                (Some(ip), _) if !lingering => vec![ip.to_canonical()],
                (None, Some(r)) if lingering => r.lingering.iter().map(|(ip, _)| *ip).collect(),
                (None, Some(r)) => r.addresses.clone(),
                _ => Vec::new(),
            };
            for ip in ips {
                let addr = SocketAddr::new(ip, target.port);
                // The guard may have become stricter since the answer was taken in.
                if all.len() < MAX_MEMBERS && spec.guard.check(ip).is_ok() && seen.insert(addr) {
                    all.push((addr, rank, lingering));
                }
            }
        }
    }
    all
}

fn endpoint(spec: &Arc<ServerSpec>, target: &TargetSpec, addr: SocketAddr) -> Endpoint {
    Endpoint {
        peer: peer::build(spec, target, addr),
        authority: HeaderValue::try_from(target.authority())
            .expect("a validated host and a port are a valid header value"),
        path_and_query: target.path_and_query.clone(),
        spec: Arc::clone(spec),
    }
}
