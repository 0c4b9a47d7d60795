//! All servers of all tenants, by id.
//!
//! Owner of state: the registry outlives every snapshot; a snapshot holds `Arc<Server>`s that it got here. Applying a
//! spec creates a server or changes it in place; a server that no document names any more is dropped with
//! [`Upstreams::retain`] and serves the requests it has.
//!
//! A candidate revision's servers stand *beside* those of the head ([`Upstreams::apply_beside`]): one that is the same in
//! both is one server, with one set of statistics and connections; one that differs is a server of its own, so that
//! trying a revision changes nothing about the head's.
//!
//! A spec is applied after its document has compiled: [`ServerSpec::validate`] says beforehand, without side effects,
//! whether [`Upstreams::apply`] will succeed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::base::{Clock, ServerId, TenantId};
use crate::upstream::probe::Prober;
use crate::upstream::resolve::{LOOKUPS, Resolve, SystemResolver};
use crate::upstream::server::Server;
use crate::upstream::spec::{ServerSpec, SpecError};
use crate::upstream::status::{ServerStatus, status};
use crate::upstream::tasks;

/// The registry. Share it by `Arc`.
pub struct Upstreams {
    clock: Clock,
    resolver: Arc<dyn Resolve>,
    servers: RwLock<HashMap<(TenantId, ServerId), Arc<Server>>>,
    /// Those of candidate revisions.
    beside: RwLock<HashMap<(TenantId, ServerId), Arc<Server>>>,
    runner: Mutex<Option<Runner>>,
    tracker: TaskTracker,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

/// What background tasks need.
struct Runner {
    handle: Handle,
    prober: Arc<Prober>,
    lookups: Arc<Semaphore>,
}

impl Upstreams {
    /// An empty registry that resolves names with the operating system.
    pub fn new(clock: Clock) -> Self {
        Self::with_resolver(clock, Arc::new(SystemResolver))
    }

    /// An empty registry with another resolver.
    pub fn with_resolver(clock: Clock, resolver: Arc<dyn Resolve>) -> Self {
        let stop = CancellationToken::new();
        Self {
            clock,
            resolver,
            servers: RwLock::default(),
            beside: RwLock::default(),
            runner: Mutex::default(),
            tracker: TaskTracker::new(),
            _stop_on_drop: stop.clone().drop_guard(),
            stop,
        }
    }

    /// Creates a server, or changes the one with that tenant and id in place.
    ///
    /// # Errors
    ///
    /// [`SpecError`]; nothing was changed.
    pub fn apply(&self, spec: ServerSpec) -> Result<Arc<Server>, SpecError> {
        self.apply_in(&self.servers, spec)
    }

    /// The server of a candidate revision: the head's own if it is the same, else one beside it.
    ///
    /// # Errors
    ///
    /// [`SpecError`]; nothing was changed.
    pub fn apply_beside(&self, spec: ServerSpec) -> Result<Arc<Server>, SpecError> {
        match self.get(&spec.tenant, &spec.id) {
            Some(server) if server.is_as(&spec) => Ok(server),
            _ => self.apply_in(&self.beside, spec),
        }
    }

    fn apply_in(
        &self,
        servers: &RwLock<HashMap<(TenantId, ServerId), Arc<Server>>>,
        spec: ServerSpec,
    ) -> Result<Arc<Server>, SpecError> {
        let key = (spec.tenant.clone(), spec.id.clone());
        if let Some(server) = servers.read().get(&key).cloned() {
            server.apply(spec)?;
            return Ok(server);
        }
        let mut servers = servers.write();
        // Another thread may have been faster.
        if let Some(server) = servers.get(&key).cloned() {
            drop(servers);
            server.apply(spec)?;
            return Ok(server);
        }
        let server = Server::new(spec, self.clock.clone())?;
        servers.insert(key, Arc::clone(&server));
        drop(servers);
        if let Some(runner) = &*self.runner.lock() {
            self.start(runner, &server);
        }
        Ok(server)
    }

    /// One server.
    pub fn get(&self, tenant: &TenantId, id: &ServerId) -> Option<Arc<Server>> {
        self.servers.read().get(&(tenant.clone(), id.clone())).cloned()
    }

    /// All servers, in no order.
    pub fn servers(&self) -> Vec<Arc<Server>> {
        self.servers.read().values().cloned().collect()
    }

    /// Drops the servers for which `live` says no. Their background work ends; requests under way go on.
    pub fn retain(&self, live: impl FnMut(&TenantId, &ServerId) -> bool) {
        retain(&self.servers, live);
    }

    /// The same for servers of candidate revisions.
    pub fn retain_beside(&self, live: impl FnMut(&TenantId, &ServerId) -> bool) {
        retain(&self.beside, live);
    }

    /// Servers of candidate revisions that are none of a head, in no order.
    pub fn servers_beside(&self) -> Vec<Arc<Server>> {
        self.beside.read().values().cloned().collect()
    }

    /// Starts background work for all servers, present and future, until `shutdown` turns true or its sender is gone.
    /// Call once; a second call changes nothing. Loads the system's certificate authorities.
    pub fn spawn(self: &Arc<Self>, handle: &Handle, mut shutdown: watch::Receiver<bool>) {
        let mut slot = self.runner.lock();
        if slot.is_some() {
            return;
        }
        let runner = Runner {
            handle: handle.clone(),
            prober: Arc::new(Prober::new()),
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
        };
        for server in self.servers().into_iter().chain(self.servers_beside()) {
            self.start(&runner, &server);
        }
        *slot = Some(runner);
        let stop = self.stop.clone();
        self.tracker.spawn_on(
            async move {
                tokio::select! {
                    _ = shutdown.wait_for(|stopping| *stopping) => stop.cancel(),
                    () = stop.cancelled() => {}
                }
            },
            handle,
        );
    }

    /// Waits until every host name was asked about once, at most `limit`; returns whether that happened. For the time
    /// between the first documents and the first requests.
    pub async fn settled(&self, limit: Duration) -> bool {
        let all = async {
            for server in self.servers() {
                server.settled().await;
            }
        };
        tokio::time::timeout(limit, all).await.is_ok()
    }

    /// Ends background work, closing probe sessions; waits at most `limit` and returns whether all was done.
    pub async fn shutdown(&self, limit: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        tokio::time::timeout(limit, self.tracker.wait()).await.is_ok()
    }

    /// Everything there is to see, sorted by tenant and server.
    pub fn status(&self) -> Vec<ServerStatus> {
        let mut all: Vec<_> = self.servers().iter().map(|s| s.status()).collect();
        all.sort_by(|a, b| (&a.tenant, &a.server).cmp(&(&b.tenant, &b.server)));
        all
    }

    fn start(&self, runner: &Runner, server: &Arc<Server>) {
        if server.prober.set(Arc::clone(&runner.prober)).is_err() {
            // A server applied while `spawn` ran was started already.
            return;
        }
        // Ends with the server or with the registry, whichever is first.
        let stop = self.stop.child_token();
        let (removed, end) = (server.cancel.clone(), stop.clone());
        let spawn =
            |task: futures::future::BoxFuture<'static, ()>| self.tracker.spawn_on(task, &runner.handle);
        spawn(Box::pin(async move {
            tokio::select! {
                () = removed.cancelled() => end.cancel(),
                () = end.cancelled() => {}
            }
        }));
        let (s, resolver, lookups) =
            (Arc::clone(server), Arc::clone(&self.resolver), Arc::clone(&runner.lookups));
        spawn(Box::pin(tasks::resolve(s, stop.clone(), resolver, lookups)));
        spawn(Box::pin(tasks::check(Arc::clone(server), stop.clone())));
        spawn(Box::pin(tasks::examine(Arc::clone(server), stop, Arc::clone(&runner.prober))));
    }
}

fn retain(
    servers: &RwLock<HashMap<(TenantId, ServerId), Arc<Server>>>,
    mut live: impl FnMut(&TenantId, &ServerId) -> bool,
) {
    servers.write().retain(|(tenant, id), server| {
        let stays = live(tenant, id);
        if !stays {
            server.cancel.cancel();
        }
        stays
    });
}

impl Server {
    /// Everything there is to see about this server.
    pub fn status(&self) -> ServerStatus {
        status(self)
    }
}
