//! One server at run time: its pool, its health, its eras.
//!
//! Owner of state: [`Server`] owns everything that outlives a change of the spec. Requests read one immutable
//! [`View`]; every change (spec, DNS, drain) is made under the pool's lock and ends in a new view. No lock is held
//! across an await, and the request path takes none.
//!
//! Statistics, health, ejection, circuit and probe session are keyed by *address*: they are about a process. A changed
//! weight, path, credential or policy therefore resets nothing; a changed address is another process.

mod rebuild;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use pingora_load_balancing::{Backend, Backends, HealthRegistry};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::base::{Clock, ServerId, TargetId, TenantId};
use crate::mcp::version::Versions;
use crate::upstream::balance::{Selector, stats_of};
use crate::upstream::budget::RetryBudget;
use crate::upstream::era::{self, DiscoverEntry, Eras};
use crate::upstream::lease::Lease;
use crate::upstream::outlier::Gate;
use crate::upstream::pool::{NoTarget, Pick, Pinned, View};
use crate::upstream::probe::{Check, Prober};
use crate::upstream::resolve::{Resolution, Resolved};
use crate::upstream::spec::{ServerSpec, SpecError, TargetSpec, Timeouts};
use crate::upstream::target::{TargetRef, TargetStats};

pub use rebuild::MAX_MEMBERS;

/// A registered MCP server: balancing, health and everything learned about its targets.
pub struct Server {
    pub(crate) clock: Clock,
    view: ArcSwap<View>,
    gate: Arc<Gate>,
    retry: RetryBudget,
    pub(crate) backends: Backends,
    resolved: Resolved,
    pool: Mutex<Pool>,
    eras: ArcSwap<Eras>,
    /// What follows from `eras`, for the request path.
    served: AtomicU8,
    discover: ArcSwapOption<DiscoverEntry>,
    /// Set once background work has a runtime.
    pub(crate) prober: OnceLock<Arc<Prober>>,
    pub(crate) signals: Signals,
    pub(crate) cancel: CancellationToken,
}

/// What wakes the background tasks.
pub(crate) struct Signals {
    /// Ask everything again: the spec changed or somebody wants to know. Holds the clock reading.
    pub(crate) wake: watch::Sender<u64>,
    /// The addresses changed.
    pub(crate) moved: watch::Sender<u64>,
    /// Every name has been asked about once.
    pub(crate) settled: watch::Sender<bool>,
}

/// What only changes touch.
struct Pool {
    spec: Arc<ServerSpec>,
    names: HashMap<TargetId, Resolution>,
    stats: HashMap<SocketAddr, Arc<TargetStats>>,
    drained: HashSet<TargetId>,
    /// Addresses that are no longer used but may have a probe session to close.
    orphans: Vec<Arc<TargetStats>>,
}

impl Server {
    pub(crate) fn new(spec: ServerSpec, clock: Clock) -> Result<Arc<Self>, SpecError> {
        spec.validate()?;
        let spec = Arc::new(prepare(spec));
        let server = Arc::new_cyclic(|weak: &Weak<Self>| {
            // Health is about an address: a changed weight makes another backend, but not another process.
            let registry = HealthRegistry::with_equivalence(address_key);
            registry.set_health_check(Box::new(Check::new(Weak::clone(weak))));
            let resolved = Resolved::default();
            let selector = Arc::new(Selector::build(spec.balance, &BTreeSet::new(), &clock));
            let view =
                View { spec: Arc::clone(&spec), members: Box::new([]), pinned: HashMap::new(), selector };
            Self {
                view: ArcSwap::from_pointee(view),
                gate: Arc::new(Gate::default()),
                retry: RetryBudget::new(clock.clone(), spec.retry),
                backends: Backends::new_with_health_registry(Box::new(resolved.clone()), Arc::new(registry)),
                resolved,
                eras: ArcSwap::from_pointee(Eras::default()),
                served: AtomicU8::new(Versions::ALL.bits()),
                discover: ArcSwapOption::empty(),
                prober: OnceLock::new(),
                signals: Signals {
                    wake: watch::Sender::new(0),
                    moved: watch::Sender::new(0),
                    settled: watch::Sender::new(false),
                },
                cancel: CancellationToken::new(),
                pool: Mutex::new(Pool {
                    spec,
                    names: HashMap::new(),
                    stats: HashMap::new(),
                    drained: HashSet::new(),
                    orphans: Vec::new(),
                }),
                clock,
            }
        });
        server.rebuild(&mut server.pool.lock());
        Ok(server)
    }

    // --- request path ---

    /// Chooses a target for a request that is bound to none.
    ///
    /// # Errors
    ///
    /// [`NoTarget`]; nothing was sent.
    pub fn pick(&self, request: Pick<'_>) -> Result<Lease, NoTarget> {
        self.view.load().pick(&request, self.clock.mono_ns())
    }

    /// The target that a session is bound to.
    ///
    /// # Errors
    ///
    /// [`Pinned`]; nothing was sent.
    pub fn pinned(&self, target: &TargetRef) -> Result<Lease, Pinned> {
        self.view.load().pinned(target, self.clock.mono_ns())
    }

    /// What the gateway waits for.
    pub fn timeouts(&self) -> Timeouts {
        self.view.load().spec.timeouts
    }

    /// The retries this server may get.
    pub fn retry_budget(&self) -> &RetryBudget {
        &self.retry
    }

    /// Which eras the server speaks, as far as known.
    pub fn eras(&self) -> Arc<Eras> {
        self.eras.load_full()
    }

    /// The revisions that can be served through this server.
    pub fn served(&self) -> Versions {
        Versions::from_bits(self.served.load(Ordering::Acquire))
    }

    /// Between two refreshes of the answer to `server/discover`.
    pub fn discover_refresh(&self) -> Duration {
        self.view.load().spec.discover_refresh
    }

    /// The server's last answer to `server/discover`; kept when later attempts fail.
    pub fn discover(&self) -> Option<Arc<DiscoverEntry>> {
        self.discover.load_full()
    }

    // --- control ---

    /// Whose it is.
    pub fn tenant(&self) -> TenantId {
        self.view.load().spec.tenant.clone()
    }

    /// Its name.
    pub fn id(&self) -> ServerId {
        self.view.load().spec.id.clone()
    }

    /// Resolves, probes and asks for the catalogue entry at once.
    pub fn wake(&self) {
        self.signals.wake.send_replace(self.clock.mono_ns());
    }

    /// Stops (or resumes) giving new work to a target; sessions bound to it go on. Survives changes of the spec.
    /// Returns whether there is such a target.
    pub fn drain(&self, target: &TargetId, draining: bool) -> bool {
        let mut pool = self.pool.lock();
        if !pool.spec.targets.iter().any(|t| t.id == *target) {
            return false;
        }
        match draining {
            true => pool.drained.insert(target.clone()),
            false => pool.drained.remove(target),
        };
        for member in self.view.load().members.iter().filter(|m| m.target == *target) {
            member.stats.set_draining(draining);
        }
        true
    }

    /// Waits until every host name was asked about once.
    pub(crate) async fn settled(&self) {
        // An error means that the sender is gone, and it is ours.
        let _ = self.signals.settled.subscribe().wait_for(|settled| *settled).await;
    }

    pub(crate) fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Takes a new spec over. State of unchanged addresses stays.
    pub(crate) fn apply(&self, spec: ServerSpec) -> Result<(), SpecError> {
        spec.validate()?;
        let spec = prepare(spec);
        {
            let mut pool = self.pool.lock();
            if *pool.spec == spec {
                return Ok(());
            }
            self.retry.set(spec.retry);
            pool.names.retain(|id, _| spec.targets.iter().any(|t| t.id == *id));
            pool.drained.retain(|id| spec.targets.iter().any(|t| t.id == *id));
            pool.spec = Arc::new(spec);
            self.rebuild(&mut pool);
        }
        self.wake();
        Ok(())
    }

    /// Whether the spec in force says the same.
    pub(crate) fn is_as(&self, spec: &ServerSpec) -> bool {
        *self.pool.lock().spec == prepare(spec.clone())
    }

    /// The names to resolve: target and host.
    pub(crate) fn names(&self) -> Vec<(TargetId, String)> {
        let view = self.view.load();
        let named = view.spec.targets.iter().filter(|t| t.literal().is_none());
        named.map(|t| (t.id.clone(), t.host.clone())).collect()
    }

    /// Takes the answers of a round of lookups in; returns whether all of them were good.
    pub(crate) fn learn(&self, answers: Vec<(TargetId, Result<Vec<IpAddr>, String>)>) -> bool {
        let now = self.clock.mono_ns();
        let mut pool = self.pool.lock();
        let spec = Arc::clone(&pool.spec);
        let (mut changed, mut good) = (false, true);
        for (id, answer) in answers {
            // The target may have gone while the lookup ran.
            if spec.targets.iter().any(|t| t.id == id) {
                let resolution = pool.names.entry(id).or_default();
                changed |= resolution.learn(answer, &spec.guard, now);
                good &= resolution.error.is_none();
            }
        }
        if changed {
            self.rebuild(&mut pool);
        }
        self.settle(&pool);
        drop(pool);
        if changed {
            self.signals.moved.send_replace(now);
        }
        good
    }

    /// Addresses whose probe sessions are to be closed.
    pub(crate) fn take_orphans(&self) -> Vec<Arc<TargetStats>> {
        std::mem::take(&mut self.pool.lock().orphans)
    }

    /// Every address there is, for the end.
    pub(crate) fn all_stats(&self) -> Vec<Arc<TargetStats>> {
        let mut pool = self.pool.lock();
        let orphans = std::mem::take(&mut pool.orphans);
        pool.stats.values().cloned().chain(orphans).collect()
    }

    /// Takes over what the health registry decided.
    pub(crate) fn sync_health(&self) {
        let now = self.clock.mono_ns();
        for backend in self.backends.get_backend().iter() {
            if let Some(stats) = stats_of(backend) {
                stats.set_healthy(self.backends.ready(backend), now);
            }
        }
    }

    /// Works out eras and catalogue entry from what the targets were found to be.
    pub(crate) fn summarise(&self) {
        let view = self.view.load_full();
        let eras = era::summarise(view.spec.era, &view.members);
        if *self.eras.load_full() != eras {
            tracing::info!(
                event = "server_eras", tenant = %view.spec.tenant, server = %view.spec.id,
                modern = eras.modern, legacy = eras.legacy, versions = eras.versions.join(" "),
            );
            self.served.store(eras.served().bits(), Ordering::Release);
            self.eras.store(Arc::new(eras));
        }
        // Trouble keeps the old entry; only a server known to be legacy has none.
        if self.eras.load().modern == Some(false) {
            self.discover.store(None);
        } else if let Some(entry) = era::entry(&view.members) {
            self.discover.store(Some(entry));
        }
    }

    pub(crate) fn resolutions<R>(&self, f: impl Fn(&TargetSpec, &Resolution) -> R) -> Vec<R> {
        let pool = self.pool.lock();
        pool.spec.targets.iter().filter_map(|t| Some(f(t, pool.names.get(&t.id)?))).collect()
    }

    fn settle(&self, pool: &Pool) {
        let asked = |t: &TargetSpec| t.literal().is_some() || pool.names.get(&t.id).is_some_and(|r| r.asked);
        if pool.spec.targets.iter().all(asked) {
            self.signals.settled.send_replace(true);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let view = self.view.load();
        f.debug_struct("Server")
            .field("tenant", &view.spec.tenant)
            .field("id", &view.spec.id)
            .field("members", &view.members)
            .finish_non_exhaustive()
    }
}

/// Marks credentials so that no header dump shows them.
fn prepare(mut spec: ServerSpec) -> ServerSpec {
    spec.credentials.iter_mut().for_each(|(_, value)| value.set_sensitive(true));
    spec
}

fn address_key(backend: &Backend) -> u64 {
    let mut hasher = std::collections::hash_map::DefaultHasher::new();
    backend.addr.hash(&mut hasher);
    hasher.finish()
}

/// A wait of about `interval`: ±10 %, so that servers and replicas do not ask in step.
pub(crate) fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(rand::random_range(0.9..1.1))
}
