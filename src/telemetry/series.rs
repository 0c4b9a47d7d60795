//! Which objects the metrics registry has handed out, by their labels, and which of them may go.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::handles::{RouteServer, RouteShared, ServerMetrics, TargetMetrics, TenantMetrics};

#[derive(Default)]
pub(super) struct State {
    pub(super) tenants: HashMap<Box<str>, TenantEntry>,
}

pub(super) struct TenantEntry {
    pub(super) shared: Slot<TenantMetrics>,
    pub(super) routes: HashMap<Box<str>, RouteEntry>,
    pub(super) servers: HashMap<Box<str>, ServerEntry>,
}

pub(super) struct RouteEntry {
    pub(super) shared: Slot<RouteShared>,
    pub(super) servers: HashMap<Box<str>, Slot<RouteServer>>,
}

pub(super) struct ServerEntry {
    pub(super) shared: Slot<ServerMetrics>,
    pub(super) targets: HashMap<Box<str>, Slot<TargetMetrics>>,
}

/// An object of the registry and whether the last sweep found it unused.
pub(super) struct Slot<T> {
    pub(super) arc: Arc<T>,
    idle: bool,
}

impl<T> Slot<T> {
    pub(super) fn new(arc: Arc<T>) -> Self {
        Self { arc, idle: false }
    }

    /// Whether it may go. New references are only made under the registry's lock, so a count of one is final.
    fn expired(&mut self) -> bool {
        let unused = Arc::strong_count(&self.arc) == 1;
        let expired = unused && self.idle;
        self.idle = unused;
        expired
    }
}

pub(super) type Labels = Box<[Box<str>]>;

#[derive(Default)]
pub(super) struct Gone {
    pub(super) tenants: HashSet<Labels>,
    pub(super) routes: HashSet<Labels>,
    pub(super) route_servers: HashSet<Labels>,
    pub(super) servers: HashSet<Labels>,
    pub(super) targets: HashSet<Labels>,
}

impl Gone {
    pub(super) fn count(&self) -> usize {
        let sets = [&self.tenants, &self.routes, &self.route_servers, &self.servers, &self.targets];
        sets.into_iter().map(HashSet::len).sum()
    }
}

fn labels(values: &[&str]) -> Labels {
    values.iter().map(|v| Box::from(*v)).collect()
}

impl State {
    pub(super) fn sweep(&mut self, gone: &mut Gone) {
        self.tenants.retain(|tenant, entry| {
            entry.routes.retain(|route, entry| {
                entry.servers.retain(|server, slot| {
                    let expired = slot.expired();
                    if expired {
                        gone.route_servers.insert(labels(&[tenant, route, server]));
                    }
                    !expired
                });
                let expired = entry.shared.expired() && entry.servers.is_empty();
                if expired {
                    gone.routes.insert(labels(&[tenant, route]));
                }
                !expired
            });
            entry.servers.retain(|server, entry| {
                entry.targets.retain(|target, slot| {
                    let expired = slot.expired();
                    if expired {
                        gone.targets.insert(labels(&[tenant, server, target]));
                    }
                    !expired
                });
                let expired = entry.shared.expired() && entry.targets.is_empty();
                if expired {
                    gone.servers.insert(labels(&[tenant, server]));
                }
                !expired
            });
            let expired = entry.shared.expired() && entry.routes.is_empty() && entry.servers.is_empty();
            if expired {
                gone.tenants.insert(labels(&[tenant]));
            }
            !expired
        });
    }
}
