//! One running Tollgate.

use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::app::admin::Admin;
use crate::app::audit::AuditLedger;
use crate::app::certificates::Certificates;
use crate::app::core::Core;
use crate::app::database::{Database, Opening};
use crate::app::error::StartError;
use crate::app::internal::{self, Internal};
use crate::app::keys::Keys;
use crate::app::listeners::{Held, Operators, Sockets};
use crate::app::occupied::Occupied;
use crate::app::options::{Options, Role};
use crate::app::reload::{Loader, Places, Reloader};
use crate::app::runtimes::Runtimes;
use crate::app::{audit, demo, listeners, live, settings, shared_sessions, state, tasks};
use crate::audit::Auditor;
use crate::config::model;
use crate::gateway::{Listener, Phase};
use crate::mcp::session::BootId;
use crate::snapshot::SnapshotCell;
use crate::source::Publisher;
use crate::source::canary::Canaries;
use crate::store::{Engine, Store, StoreSettings};
use crate::telemetry::Telemetry;

/// How long connections that were accepted may still send their first request once accepting has ended.
const LINGER: Duration = Duration::from_secs(2);
/// How long the last lines of logs may take.
const FLUSH: Duration = Duration::from_secs(2);

/// A started process. Dropping it stops everything at once; [`Process::shutdown`] does it politely.
pub struct Process {
    /// None without a data plane.
    listener: Option<Listener>,
    mcp: Option<SocketAddr>,
    admin: SocketAddr,
    internal: Option<String>,
    metrics: Option<SocketAddr>,
    origin: String,
    reloader: Arc<Reloader>,
    telemetry: Telemetry,
    shutdown: model::Shutdown,
    sockets: Held,
    handed_over: watch::Receiver<bool>,
    database: Option<Database>,
    auditor: Auditor,
    audit: Option<audit::Running>,
    runtimes: Runtimes,
    /// After all that uses the folder. A successor has it in a task.
    _occupied: Option<Occupied>,
}

impl Process {
    /// Starts everything the document asks for. Must not be called from within a runtime.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub fn start(options: Options) -> Result<Self, StartError> {
        // Two TLS providers are in the program; whatever asks for "the default" gets this one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let clock = options.clock.clone();
        let demo = demo::socket(&options.document)?;
        let places = Places {
            demo: demo.as_ref().and_then(|d| d.local_addr().ok()),
            mcp: options.listen,
            admin: options.admin,
            data_dir: options.data_dir,
        };
        let env = options.env.clone();
        let loader = Loader::new(options.document, options.env, places);
        let read_since = SystemTime::now();
        let loaded = loader.load();
        let mut named = loaded.files.clone();
        let document = loaded.into_result().map_err(|d| StartError::Document(Box::new(d)))?;
        can_be(options.role, document.document())?;
        make_data_dir(&document.document().data_dir)?;

        let data_dir = document.document().data_dir.clone();
        let occupied = match &options.inherited {
            Some(_) => None,
            None => Some(Occupied::new(&data_dir)?),
        };

        let runtimes = Runtimes::start(&document.document().runtime)?;
        if occupied.is_none() {
            runtimes.control(Occupied::later(data_dir));
        }
        let state = state::state(document.document(), &clock);
        // Sockets before anything is announced.
        let sockets = Sockets::open(&document, options.inherited, options.role)?;
        let origin = document.public_origin(sockets.mcp_address);
        let keys = Keys::open(document.session_key_file(), &clock)?;
        let files = loader.files();
        let boot = BootId::fresh();
        let internal = Internal::open(&document.document().listeners, &*files, sockets.is_successor())?;
        let internal_address = internal.as_ref().map(|i| i.address.clone());
        let store = state::store(document.document(), &runtimes, &clock, env)?;
        let database = match document.document().source {
            model::SourceKind::Database => Some(Database::begin(
                &runtimes,
                &Opening {
                    store: &store,
                    document: &document,
                    env: &loader.environment(),
                    origin: &origin,
                    state: &state,
                    seed: loader.seed(),
                    boot,
                    address: internal_address.clone(),
                    role: options.role,
                },
            )?),
            model::SourceKind::File => None,
        };
        let cell = match &database {
            Some(database) => database.documents.cell(),
            None => {
                let compiled = crate::snapshot::compile(&document, &origin, &state, &*files);
                let compiled = compiled.map_err(StartError::Compile)?;
                named.extend(compiled.files);
                Arc::new(SnapshotCell::new(compiled.snapshot))
            }
        };
        let telemetry = state::telemetry(document.document(), &state.metrics, &runtimes)?;
        let certificates = Certificates::load(&document.document().listeners, &*files)?;
        let auditor = audit::open(document.document(), &clock)?;
        if let Some(database) = &database {
            database.herald.record_in(&auditor);
        }
        let valkey = settings::valkey(&document, &*files)?;
        let core =
            Core::new(&document, state, cell, keys.ring.clone(), telemetry, boot, auditor, store, valkey);

        let share = shared_sessions::has_keys(&core.store, &core.model.sessions);
        let begun = shared_sessions::begin(&core.store, &keys, &core.sessions, &core.clock, share);
        runtimes.control.block_on(begun)?;
        let (gateway, listener) =
            listeners::mcp(&core, &runtimes, &sockets, &document, &certificates)?.unzip();
        if let Some(socket) = demo {
            demo::spawn(&runtimes, socket);
        }
        if let Some(database) = &database {
            database.spawn(&runtimes);
        }
        tasks::spawn(&core, &runtimes, gateway.as_ref(), keys);
        let fleet = internal::fleet(&core, database.as_ref(), internal.as_ref(), options.role);
        if let Some(internal) = internal {
            internal.serve(&runtimes, fleet.own());
        }
        let audit = audit::start(&core, &runtimes)?;
        let ledger = Arc::new(AuditLedger::new(core.audit.clone(), core.clock.clone()));
        let (mcp, admin) = (listener.as_ref().map(|_| sockets.mcp_address), sockets.admin_address);
        let reloader = Arc::new(Reloader::new(
            loader,
            core.state.clone(),
            core.cell.clone(),
            origin.clone(),
            document,
            certificates,
            clock,
            database.as_ref().map(|d| d.documents.clone()),
        ));
        runtimes.control(reloader.clone().watch(named, read_since));
        let shown = Arc::new(Admin::new(
            reloader.clone(),
            core.telemetry.clone(),
            core.sessions.clone(),
            mcp.map(|mcp| ("mcp", mcp)).into_iter().chain([("admin", admin)]).collect(),
            runtimes.phase.subscribe(),
            core.audit.clone(),
        ));
        if let Some(database) = &database {
            shown.follow_documents(database.follower.clone());
        }
        if let Some(listener) = &listener {
            shown.attach(listener.counts());
            if let Some(database) = &database {
                shown.follow(database.feed.clone(), core.model.store.poll.get());
            }
        }
        let operators = options.role.has_control_plane().then(|| Operators {
            publisher: database.as_ref().map(|d| d.publisher.clone()),
            canaries: database.as_ref().map(|d| (d.canaries.clone(), d.herald.clone())),
            ledger,
            events: live::start(&core, &runtimes, &shown, database.as_ref(), &fleet),
            fleet,
            audit_key: audit.as_ref().map(|audit| audit.key.clone()),
        });
        let metrics =
            listeners::admin(&runtimes, &sockets, reloader.certificates(), shown, &core, operators)?;
        let (held, handed_over) = listeners::door(core.data_dir.clone(), &runtimes, sockets);
        Ok(Self {
            listener,
            mcp,
            admin,
            internal: internal_address,
            metrics,
            origin,
            reloader,
            telemetry: core.telemetry,
            shutdown: core.model.shutdown.clone(),
            sockets: held,
            handed_over,
            database,
            auditor: core.audit,
            audit,
            runtimes,
            _occupied: occupied,
        })
    }

    /// Publishes documents, if they come from a store.
    pub fn publisher(&self) -> Option<&Publisher> {
        self.database.as_ref().map(|d| &d.publisher)
    }

    /// Starts and ends canaries, if documents come from a store.
    pub fn canaries(&self) -> Option<&Canaries> {
        self.database.as_ref().map(|d| &d.canaries)
    }

    /// The store, if documents come from one.
    pub fn store(&self) -> Option<&Store> {
        self.database.as_ref().map(|d| &d.store)
    }

    /// Where MCP clients connect; `None` without a data plane.
    pub fn mcp_address(&self) -> Option<SocketAddr> {
        self.mcp
    }

    /// Where operators connect.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Where other replicas connect, if they can.
    pub fn internal_address(&self) -> Option<&str> {
        self.internal.as_deref()
    }

    /// Where `/metrics` alone is served, if it is and the address was free.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// Scheme, host and port that clients dial.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Paths of all routes.
    pub fn routes(&self) -> Vec<(String, String)> {
        let snapshot = self.reloader.snapshot();
        snapshot.routes().iter().map(|r| (r.id.to_string(), r.url.to_string())).collect()
    }

    /// Reads the document and everything it names again, and reopens log files.
    pub fn reload(&self) {
        self.telemetry.access.reopen();
        self.reloader.reload("signal");
    }

    /// What reloads.
    pub fn reloader(&self) -> &Arc<Reloader> {
        &self.reloader
    }

    /// Becomes true when a successor has taken the sockets over.
    pub fn handed_over(&self) -> watch::Receiver<bool> {
        self.handed_over.clone()
    }

    /// Ends politely: not ready, no more accepting, streams end, what is in flight completes, at most as long as the
    /// document's `shutdown` says. `true` if nothing had to be cut.
    pub fn shutdown(mut self, successor: bool) -> bool {
        let times = &self.shutdown;
        let phase = &self.runtimes.phase;
        let done = self.runtimes.control.block_on(async {
            let _ = phase.send(Phase::Draining);
            if !successor {
                tokio::time::sleep(times.announce.get()).await;
            }
            // The successor listens on the same sockets; ours must go, or connections would wait here unaccepted.
            self.sockets.lock().take();
            let Some(listener) = &self.listener else { return true };
            let drain = times.drain.get();
            let done = listener.drain(LINGER.min(drain), drain).await;
            if !done {
                let _ = phase.send(Phase::Closing);
                return listener.drain(Duration::ZERO, times.streams.get()).await;
            }
            done
        });
        if let Some(database) = &self.database {
            // Timers are made on a runtime.
            let leave = async { tokio::time::timeout(FLUSH, database.member.leave()).await };
            let _ = self.runtimes.control.block_on(leave);
        }
        // For the last that is drained; what comes after that is told at the very end.
        self.auditor.tell_unidentified(usize::MAX);
        self.runtimes.end_background();
        if let Some(audit) = self.audit.take() {
            // The last events; what the store does not take in time is drained by the next run.
            let last = async { tokio::time::timeout(FLUSH, audit.drainer).await };
            let _ = self.runtimes.control.block_on(last);
        }
        self.telemetry.access.shutdown(FLUSH);
        self.runtimes.end();
        self.auditor.tell_last_unidentified();
        done
    }
}

/// A plane of its own needs others to complete it, and a store that they can share.
fn can_be(role: Role, document: &model::Document) -> Result<(), StartError> {
    let lacks = match document {
        _ if role == Role::All => return Ok(()),
        document if document.source != model::SourceKind::Database => {
            "`source: database`: with a file there is nothing that the planes share"
        }
        document if StoreSettings::new(&document.store, &document.data_dir).engine() == Engine::Sqlite => {
            "a PostgreSQL database that other processes reach as well, named by `store.url`; the embedded store is \
             for one process"
        }
        _ => return Ok(()),
    };
    Err(StartError::Role { role: role.as_str(), lacks })
}

/// Makes a data folder that is not there. It holds keys: nobody else has to look into it.
///
/// # Errors
/// [`StartError::File`].
pub fn make_data_dir(path: &Path) -> Result<(), StartError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| StartError::File { what: "data_dir", path: path.to_owned(), source })
}
