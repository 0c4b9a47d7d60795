//! The metrics registry of the process.
//!
//! Owns every series. Nothing here is global: the app layer makes one [`Metrics`] and passes it down.
//!
//! - **Same labels, same object.** [`Metrics::route`] and its kin return the object they returned before for these
//!   labels, so reloads reset nothing.
//! - **Bounded.** Tenants, routes, servers, targets, tools, limits and issuers past their cap count as `other`, as
//!   does everything below a tenant that is past its cap; methods and outcomes come from fixed lists.
//! - **Forgotten late.** [`Metrics::sweep`] removes series that nothing outside the registry has held for two sweeps
//!   in a row. A failed reload or a rollback in between resets nothing.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{Registry, TextEncoder};

use super::families::Families;
use super::family::{Family, Gauge, LabelMap};
use super::handles::{
    Grid, RouteMetrics, RouteServer, RouteShared, ServerMetrics, TargetMetrics, TenantMetrics,
};
use super::jwks::{JwksAges, JwksCollector};
use super::names::{self, OTHER};
use super::process::ProcessCollector;
use super::series::{Gone, RouteEntry, ServerEntry, Slot, State, TenantEntry};
use super::single::Single;
use crate::base::{Clock, RouteId, ServerId, TargetId, TenantId};

/// `Content-Type` of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How many values a label may have before further ones count as `other`.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// Tenants.
    pub tenants: usize,
    /// Routes of one tenant.
    pub routes: usize,
    /// Servers of one tenant.
    pub servers: usize,
    /// Targets of one server.
    pub targets: usize,
    /// Tools of one server.
    pub tools: usize,
    /// Limits that refuse on one route.
    pub limits: usize,
    /// Token issuers.
    pub issuers: usize,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            tenants: 1000,
            routes: 1000,
            servers: 1000,
            targets: 256,
            tools: 200,
            limits: 64,
            issuers: 256,
        }
    }
}

/// What requests come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests that have ended.
    pub calls: u64,
    /// Those that did not end well.
    pub errors: u64,
    /// Streams that are open now.
    pub streams: u64,
}

/// Every series of the process. Shared as `Arc<Metrics>`.
pub struct Metrics {
    registry: Registry,
    caps: Caps,
    pub(super) families: Families,
    pub(super) single: Single,
    pub(super) jwks: Arc<JwksAges>,
    state: Mutex<State>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").field("caps", &self.caps).finish_non_exhaustive()
    }
}

impl Metrics {
    /// An empty registry. `version` is what `tollgate_build_info` says.
    pub fn new(caps: Caps, clock: Clock, version: &str) -> Arc<Self> {
        let registry = Registry::new();
        let families = Families::register(&registry);
        let single = Single::register(&registry);
        let build: Arc<Family<Gauge>> = Family::register(&names::BUILD_INFO, &registry);
        build.child(&[version]).set(1);
        let jwks = Arc::new(JwksAges::new(clock, caps.issuers, families.label_overflow.child(&["issuer"])));
        register(&registry, JwksCollector(jwks.clone()));
        register(&registry, ProcessCollector::new());
        Arc::new(Self { registry, caps, families, single, jwks, state: Mutex::default() })
    }

    /// The metrics of a route whose traffic goes to `servers`. [`Sample::server`](super::Sample) is a position in
    /// that list.
    pub fn route(&self, tenant: &TenantId, route: &RouteId, servers: &[ServerId]) -> RouteMetrics {
        let state = &mut *self.state.lock();
        let tenant = self.tenant_label(state, tenant.as_str());
        let route = {
            let entry = self.tenant_entry(state, tenant);
            self.below(tenant, &entry.routes, route.as_str(), self.caps.routes, "route")
        };
        let servers = servers
            .iter()
            .map(|server| {
                let (label, server) = self.server_in(state, tenant, server.as_str());
                (self.route_server_in(state, tenant, route, label), server)
            })
            .collect();
        let gateway = self.route_server_in(state, tenant, route, "");
        let shared = self.route_entry(state, tenant, route).shared.arc.clone();
        RouteMetrics { shared, gateway, servers }
    }

    /// For requests that no route takes: the tenant and route labels are empty.
    pub fn unrouted(&self) -> RouteMetrics {
        let state = &mut *self.state.lock();
        let gateway = self.route_server_in(state, "", "", "");
        RouteMetrics {
            shared: self.route_entry(state, "", "").shared.arc.clone(),
            gateway,
            servers: Box::default(),
        }
    }

    /// The metrics of a server.
    pub fn server(&self, tenant: &TenantId, server: &ServerId) -> Arc<ServerMetrics> {
        let state = &mut *self.state.lock();
        let tenant = self.tenant_label(state, tenant.as_str());
        self.server_in(state, tenant, server.as_str()).1
    }

    /// The metrics of a target. Past a cap it counts under `other`, without a health series: one number cannot say
    /// the health of many.
    pub fn target(&self, tenant: &TenantId, server: &ServerId, target: &TargetId) -> Arc<TargetMetrics> {
        let state = &mut *self.state.lock();
        let tenant = self.tenant_label(state, tenant.as_str());
        let (server, shared) = self.server_in(state, tenant, server.as_str());
        let caps = self.caps.targets;
        let entry = self.server_entry(state, tenant, server, shared);
        let target = self.below(server, &entry.targets, target.as_str(), caps, "target");
        if let Some(slot) = entry.targets.get(target) {
            return slot.arc.clone();
        }
        let labels = [tenant, server, target];
        let healthy = match target {
            OTHER => self.families.target_healthy.unregistered(&labels),
            _ => self.families.target_healthy.child(&labels),
        };
        let made = Arc::new(TargetMetrics {
            healthy,
            in_flight: self.families.target_in_flight.child(&labels),
            ejections: self.families.target_ejections.child(&labels),
        });
        entry.targets.insert(target.into(), Slot::new(made.clone()));
        made
    }

    /// The metrics of a tenant.
    pub fn tenant(&self, tenant: &TenantId) -> Arc<TenantMetrics> {
        let state = &mut *self.state.lock();
        let tenant = self.tenant_label(state, tenant.as_str());
        self.tenant_entry(state, tenant).shared.arc.clone()
    }

    /// What each tenant's requests come to since the start. Tenants past their cap are [`OTHER`], requests that no route
    /// takes the empty name.
    pub fn traffic(&self) -> Vec<(Box<str>, Traffic)> {
        let state = self.state.lock();
        let of = |entry: &TenantEntry| {
            let mut sum = Traffic::default();
            for route in entry.routes.values() {
                sum.streams += u64::try_from(route.shared.arc.streams.get()).unwrap_or(0);
                for server in route.servers.values() {
                    let (calls, errors) = server.arc.requests.totals();
                    sum.calls += calls;
                    sum.errors += errors;
                }
            }
            sum
        };
        state.tenants.iter().map(|(name, entry)| (name.clone(), of(entry))).collect()
    }

    /// Removes the series of routes, servers, targets and tenants that nobody has held for two sweeps in a row.
    /// Returns how many objects went. Call it every few minutes.
    pub fn sweep(&self) -> usize {
        let mut gone = Gone::default();
        self.state.lock().sweep(&mut gone);
        let f = &self.families;
        f.gateway_seconds.forget(&gone.routes, 2);
        f.streams.forget(&gone.routes, 2);
        f.policy_denials.forget(&gone.routes, 2);
        f.limit_fallbacks.forget(&gone.routes, 2);
        f.limit_refusals.forget(&gone.routes, 2);
        f.requests.forget(&gone.route_servers, 3);
        f.request_seconds.forget(&gone.route_servers, 3);
        f.tool_seconds.forget(&gone.servers, 2);
        f.retries.forget(&gone.servers, 2);
        f.upstream_errors.forget(&gone.servers, 2);
        f.target_healthy.forget(&gone.targets, 3);
        f.target_in_flight.forget(&gone.targets, 3);
        f.target_ejections.forget(&gone.targets, 3);
        f.auth_failures.forget(&gone.tenants, 1);
        f.canary_calls.forget(&gone.tenants, 1);
        gone.count()
    }

    /// Everything in the Prometheus text format. Reads `/proc` and takes milliseconds with many series: not for the
    /// data plane's threads.
    pub fn render(&self) -> String {
        let families = self.registry.gather();
        // Only a family without a name or samples can fail to encode, and gathering drops those.
        TextEncoder::new().encode_to_string(&families).expect("gathered families are well-formed")
    }

    fn overflowed(&self, label: &str) {
        self.families.label_overflow.child(&[label]).inc();
    }

    /// The name itself, or `other` if it is new and there is no room.
    fn capped<'a, V>(&self, map: &HashMap<Box<str>, V>, name: &'a str, cap: usize, label: &str) -> &'a str {
        // Requests without a route, and `other` itself, take nobody's place.
        let used = map.len() - ["", OTHER].iter().filter(|n| map.contains_key(**n)).count();
        if map.contains_key(name) || used < cap {
            return name;
        }
        self.overflowed(label);
        OTHER
    }

    /// As [`Metrics::capped`], but everything below `other` is `other`.
    fn below<'a, V>(
        &self,
        parent: &str,
        map: &HashMap<Box<str>, V>,
        name: &'a str,
        cap: usize,
        label: &str,
    ) -> &'a str {
        if parent == OTHER { OTHER } else { self.capped(map, name, cap, label) }
    }

    fn tenant_label<'a>(&self, state: &State, name: &'a str) -> &'a str {
        self.capped(&state.tenants, name, self.caps.tenants, "tenant")
    }

    fn tenant_entry<'s>(&self, state: &'s mut State, tenant: &str) -> &'s mut TenantEntry {
        state.tenants.entry(tenant.into()).or_insert_with(|| TenantEntry {
            shared: Slot::new(Arc::new(TenantMetrics {
                failures: [const { OnceLock::new() }; super::label::AuthFailure::COUNT],
                family: self.families.auth_failures.clone(),
                canary: [const { [const { OnceLock::new() }; super::label::CanaryOutcome::COUNT] };
                    super::label::CanarySide::COUNT],
                canary_family: self.families.canary_calls.clone(),
                label: tenant.into(),
            })),
            routes: HashMap::new(),
            servers: HashMap::new(),
        })
    }

    fn route_entry<'s>(&self, state: &'s mut State, tenant: &str, route: &str) -> &'s mut RouteEntry {
        let entry = self.tenant_entry(state, tenant);
        entry.routes.entry(route.into()).or_insert_with(|| {
            let labels = [tenant, route];
            let (family, t, r) = (self.families.limit_refusals.clone(), Box::from(tenant), Box::from(route));
            let overflow = self.families.label_overflow.child(&["limit"]);
            let limit = move |limit: &str| family.child(&[&t, &r, limit]);
            let (family, t, r) = (self.families.limit_fallbacks.clone(), Box::from(tenant), Box::from(route));
            let fallback = move |limit: &str| family.child(&[&t, &r, limit]);
            RouteEntry {
                shared: Slot::new(Arc::new(RouteShared {
                    gateway_seconds: self.families.gateway_seconds.child(&labels),
                    streams: self.families.streams.child(&labels),
                    policy_denials: self.families.policy_denials.child(&labels),
                    limit_fallbacks: LabelMap::new(self.caps.limits, overflow.clone(), fallback),
                    limit_refusals: LabelMap::new(self.caps.limits, overflow, limit),
                })),
                servers: HashMap::new(),
            }
        })
    }

    fn route_server_in(
        &self,
        state: &mut State,
        tenant: &str,
        route: &str,
        server: &str,
    ) -> Arc<RouteServer> {
        let make = || {
            Slot::new(Arc::new(RouteServer {
                requests: Grid::new(self.families.requests.clone(), tenant, route, server),
                seconds: self.families.request_seconds.child(&[tenant, route, server]),
            }))
        };
        let entry = self.route_entry(state, tenant, route);
        entry.servers.entry(server.into()).or_insert_with(make).arc.clone()
    }

    fn server_in<'a>(&self, state: &mut State, tenant: &str, name: &'a str) -> (&'a str, Arc<ServerMetrics>) {
        let entry = self.tenant_entry(state, tenant);
        let label = self.below(tenant, &entry.servers, name, self.caps.servers, "server");
        if let Some(entry) = entry.servers.get(label) {
            return (label, entry.shared.arc.clone());
        }
        let (family, t, s) = (self.families.tool_seconds.clone(), Box::from(tenant), Box::from(label));
        let overflow = self.families.label_overflow.child(&["tool"]);
        let made = Arc::new(ServerMetrics {
            tools: LabelMap::new(self.caps.tools, overflow, move |tool: &str| family.child(&[&t, &s, tool])),
            retries: self.families.retries.child(&[tenant, label]),
            errors: [const { OnceLock::new() }; super::label::UpstreamError::COUNT],
            error_family: self.families.upstream_errors.clone(),
            labels: [tenant.into(), label.into()],
        });
        self.server_entry(state, tenant, label, made.clone());
        (label, made)
    }

    fn server_entry<'s>(
        &self,
        state: &'s mut State,
        tenant: &str,
        server: &str,
        shared: Arc<ServerMetrics>,
    ) -> &'s mut ServerEntry {
        let entry = self.tenant_entry(state, tenant);
        entry
            .servers
            .entry(server.into())
            .or_insert_with(|| ServerEntry { shared: Slot::new(shared), targets: HashMap::new() })
    }
}

fn register(registry: &Registry, collector: impl Collector + 'static) {
    registry.register(Box::new(collector)).expect("no name is in the table twice");
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
