//! What the data plane serves from: one immutable, compiled form of the configuration.
//!
//! A [`Snapshot`] is a map of [`TenantSnapshot`]s and the way from a request's host and path to one of them. A tenant's
//! document compiles by itself ([`compile_tenant`]): it touches the registries of that tenant only (servers, keys,
//! revocations, metrics), so that a change resets no counter, bucket, session or breaker, and a tenant whose document does
//! not compile keeps its last good one while the others go on.
//!
//! A tenant may have a [`Canary`]: a candidate beside the revision in force, and who of its callers is served it. It goes as
//! soon as the tenant's revision is another one than it was started on.
//!
//! [`SnapshotCell`] publishes: a request loads the snapshot once and keeps it to its end, so it never sees half of a
//! change. The revision it was served by is in the header [`REVISION`] of the answer.

mod canary;
mod cell;
mod compile;
mod identities;
mod places;
mod route;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::AHashMap;

pub use canary::Canary;
pub use cell::SnapshotCell;
pub use compile::{
    CompileError, Compiled, CompiledTenant, MAX_FILE, State, compile, compile_beside, compile_tenant,
    policy_findings, recompile,
};
pub use identities::{Identities, TenantIdentity};
pub use route::{HashOn, Route};

use crate::base::TenantId;
use crate::config::Terms;
use crate::route::Table;
use places::Places;

/// The header that names the tenant and the revision an answer comes from: `acme@17`.
pub const REVISION: &str = "x-tollgate-revision";

/// A compiled configuration.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts snapshots in this process; the one in force is in the metrics.
    pub generation: u64,
    /// The hash of the operator's own document.
    pub revision: Arc<str>,
    tenants: BTreeMap<TenantId, Arc<TenantSnapshot>>,
    /// In the order of `places`.
    placed: Vec<Arc<TenantSnapshot>>,
    operator: Option<Arc<TenantSnapshot>>,
    places: Places,
    canaries: AHashMap<TenantId, Arc<Canary>>,
}

/// The compiled document of one tenant.
#[derive(Debug)]
pub struct TenantSnapshot {
    /// Whose it is.
    pub tenant: TenantId,
    /// The number of its revision, as the answers name it.
    pub revision: u64,
    /// The hash of its document.
    pub hash: Arc<str>,
    terms: Terms,
    table: Table<Arc<Route>>,
    routes: Vec<Arc<Route>>,
    /// There is a document, and it cannot be used: nobody knows what would be where.
    unusable: bool,
}

impl TenantSnapshot {
    /// Its routes, in the order of the document.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// The route for a host and a path, of those of this tenant.
    pub fn find(&self, host: &str, path: &str) -> Option<&Arc<Route>> {
        self.table.find(host, path)
    }

    /// The same place with nothing in it, because the tenant's document cannot be used.
    #[must_use]
    pub fn unusable(&self) -> Self {
        Self {
            tenant: self.tenant.clone(),
            revision: self.revision,
            hash: self.hash.clone(),
            terms: self.terms.clone(),
            table: Table::default(),
            routes: Vec::new(),
            unusable: true,
        }
    }

    /// On which terms it was compiled.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }
}

impl Snapshot {
    /// Puts tenants together.
    pub fn new(tenants: impl IntoIterator<Item = Arc<TenantSnapshot>>) -> Self {
        let tenants = tenants.into_iter().map(|tenant| (tenant.tenant.clone(), tenant)).collect();
        Self::of(tenants, AHashMap::default())
    }

    fn of(
        tenants: BTreeMap<TenantId, Arc<TenantSnapshot>>,
        mut canaries: AHashMap<TenantId, Arc<Canary>>,
    ) -> Self {
        static GENERATION: AtomicU64 = AtomicU64::new(0);
        let operator = tenants.get(&TenantId::default()).cloned();
        let placed: Vec<Arc<TenantSnapshot>> =
            tenants.values().filter(|tenant| !tenant.terms.is_operator()).cloned().collect();
        let mut places = Places::default();
        for (i, tenant) in placed.iter().enumerate() {
            places.insert(&tenant.terms, i);
        }
        Self {
            generation: GENERATION.fetch_add(1, Ordering::Relaxed) + 1,
            revision: operator.as_ref().map_or_else(|| "".into(), |tenant| tenant.hash.clone()),
            canaries: {
                canaries.retain(|tenant, canary| {
                    tenants.get(tenant).is_some_and(|base| base.revision == canary.base())
                });
                canaries
            },
            tenants,
            placed,
            operator,
            places,
        }
    }

    /// The same, as a snapshot of its own.
    #[must_use]
    pub fn again(&self) -> Self {
        Self::of(self.tenants.clone(), self.canaries.clone())
    }

    /// The same with another version of one tenant; all others are shared.
    #[must_use]
    pub fn with(&self, tenant: Arc<TenantSnapshot>) -> Self {
        let mut tenants = self.tenants.clone();
        tenants.insert(tenant.tenant.clone(), tenant);
        Self::of(tenants, self.canaries.clone())
    }

    /// The same with a canary of one tenant, or without one.
    #[must_use]
    pub fn with_canary(&self, tenant: &TenantId, canary: Option<Arc<Canary>>) -> Self {
        let mut canaries = self.canaries.clone();
        match canary {
            Some(canary) => canaries.insert(tenant.clone(), canary),
            None => canaries.remove(tenant),
        };
        Self::of(self.tenants.clone(), canaries)
    }

    /// The canary of a tenant.
    pub fn canary(&self, tenant: &TenantId) -> Option<&Arc<Canary>> {
        // Nearly always there is none at all, and nothing has to be hashed.
        if self.canaries.is_empty() { None } else { self.canaries.get(tenant) }
    }

    /// The same without a tenant.
    #[must_use]
    pub fn without(&self, tenant: &TenantId) -> Self {
        let mut tenants = self.tenants.clone();
        tenants.remove(tenant);
        Self::of(tenants, self.canaries.clone())
    }

    /// All tenants, by name.
    pub fn tenants(&self) -> impl Iterator<Item = &Arc<TenantSnapshot>> {
        self.tenants.values()
    }

    /// One tenant.
    pub fn tenant(&self, tenant: &TenantId) -> Option<&Arc<TenantSnapshot>> {
        self.tenants.get(tenant)
    }

    /// The tenant whose place a host and a path are in.
    fn owner(&self, host: &str, path: &str) -> Option<&TenantSnapshot> {
        match self.places.find(host, path) {
            Some(i) => self.placed.get(i).map(|tenant| &**tenant),
            None => self.operator.as_deref(),
        }
    }

    /// The route for a host and a path. What is in a tenant's place is never another's, also if the tenant has no route
    /// there.
    pub fn find(&self, host: &str, path: &str) -> Option<&Arc<Route>> {
        self.owner(host, path)?.find(host, path)
    }

    /// Whether a host and a path are in the place of a tenant whose document cannot be used, so that nobody can say that
    /// there is nothing.
    pub fn is_unusable(&self, host: &str, path: &str) -> bool {
        self.owner(host, path).is_some_and(|tenant| tenant.unusable)
    }

    /// Whether a host was given to some tenant, and so is served whatever the listener's own list says.
    pub fn has_host(&self, host: &str) -> bool {
        self.places.has_host(host)
    }

    /// The route of a host that has only one.
    pub fn only_route(&self, host: &str) -> Option<&Arc<Route>> {
        let owner = self.owner(host, "/")?;
        let reached = |r: &Arc<Route>| owner.table.find(host, &r.path).is_some_and(|f| Arc::ptr_eq(f, r));
        let mut found = owner.routes.iter().filter(|r| reached(r));
        let only = found.next()?;
        found.next().is_none().then_some(only)
    }

    /// All routes, by tenant and in the order of its document.
    pub fn routes(&self) -> Vec<Arc<Route>> {
        self.tenants.values().flat_map(|tenant| tenant.routes.iter().cloned()).collect()
    }
}
