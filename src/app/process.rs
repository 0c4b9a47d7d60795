//! One running Tollgate.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::app::admin::Admin;
use crate::app::certificates::Certificates;
use crate::app::handover::{self, Inherited};
use crate::app::keys::{KeyFileError, Keys};
use crate::app::parts::{bind, cores, listen_async, local, runtime, spawn, threads};
use crate::app::reload::{Loader, Places, Reloader};
use crate::app::{gauges, metrics, settings};
use crate::auth::{AuthState, CacheBounds, FailureBounds, JwksStore, KeyPepper, KeyStore, Revocations};
use crate::base::{Clock, Secret, TenantId};
use crate::config::{Diagnostics, model};
use crate::control::{AdminSocket, Exposure};
use crate::gateway::tls::TlsError;
use crate::gateway::{Gateway, Listener, Parts, Phase};
use crate::limit::{Buckets, DEFAULT_MAX_BUCKETS};
use crate::mcp::session::{BootId, Sessions};
use crate::snapshot::{CompileError, SnapshotCell, State};
use crate::telemetry::{
    ACCESS_LOG_CAPACITY, AccessLog, Caps, Metrics, Output, OutputError, Telemetry, Tracer, trace,
};
use crate::upstream::{Upstreams, client_connector};

/// How long connections that were accepted may still send their first request once accepting has ended.
const LINGER: Duration = Duration::from_secs(2);
/// How long the last lines of logs may take.
const FLUSH: Duration = Duration::from_secs(2);

/// Where the document comes from.
pub enum Document {
    /// The embedded default, with the built-in demo server behind it.
    Embedded,
    /// A file, watched.
    File(PathBuf),
    /// This text; never reloaded by itself. For tests and tools.
    Text(String),
}

/// Looks up environment variables.
pub type Environment = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// How to start.
pub struct Options {
    /// Where the document comes from.
    pub document: Document,
    /// Looks up environment variables for `${env:NAME}`.
    pub env: Environment,
    /// Instead of the addresses in the document; port 0 takes any free one.
    pub listen: Option<SocketAddr>,
    /// The same for the admin listener.
    pub admin: Option<SocketAddr>,
    /// Instead of the document's `data_dir`.
    pub data_dir: Option<PathBuf>,
    /// Sockets of a process that hands over.
    pub inherited: Option<Inherited>,
    /// Time.
    pub clock: Clock,
}

impl Options {
    /// Everything as the document says.
    pub fn new(document: Document) -> Self {
        Self {
            document,
            env: Arc::new(|_| None),
            listen: None,
            admin: None,
            data_dir: None,
            inherited: None,
            clock: Clock::default(),
        }
    }
}

/// Why the process cannot start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A certificate of a listener cannot be used.
    #[error("{listener}: {source}")]
    Certificate {
        /// Which listener.
        listener: &'static str,
        /// Why.
        source: TlsError,
    },
    /// The document passed validation, but something it names is wrong.
    #[error("the configuration does not compile:{}", bullets(.0))]
    Compile(Vec<CompileError>),
    /// The document has errors.
    #[error("{0}")]
    Document(Box<Diagnostics>),
    /// A file or folder cannot be used.
    #[error("{what} {path}: {source}")]
    File {
        /// What it is for.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The sealing keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// The access log cannot be written.
    #[error("telemetry.access_log: {0}")]
    Log(#[from] OutputError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} (listeners.{listener}): {source}")]
    Listen {
        /// Which listener.
        listener: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The pepper of API keys is too short to be one.
    #[error("identity.api_keys.pepper: needs at least 16 bytes")]
    Pepper,
    /// Threads cannot be started.
    #[error("cannot start threads: {0}")]
    Runtime(io::Error),
    /// Traces cannot be exported as configured.
    #[error("telemetry.otlp: {0}")]
    Trace(#[from] trace::TraceError),
}

fn bullets(errors: &[CompileError]) -> String {
    errors.iter().map(|e| format!("\n  - {e}")).collect()
}

/// A started process. Dropping it stops everything at once; [`Process::shutdown`] does it politely.
pub struct Process {
    control: Option<Runtime>,
    data: Option<Runtime>,
    listener: Listener,
    mcp: SocketAddr,
    admin: SocketAddr,
    metrics: Option<SocketAddr>,
    origin: String,
    reloader: Arc<Reloader>,
    telemetry: Telemetry,
    phase: watch::Sender<Phase>,
    background: CancellationToken,
    stop_upstreams: watch::Sender<bool>,
    shutdown: model::Shutdown,
    sockets: Arc<Mutex<Option<(TcpListener, TcpListener)>>>,
    handed_over: watch::Receiver<bool>,
    data_dir: PathBuf,
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
        let control_threads = 2;
        let demo = match options.document {
            Document::Embedded => Some(bind("demo", SocketAddr::from(([127, 0, 0, 1], 0)))?),
            _ => None,
        };
        let demo_address = demo.as_ref().and_then(|d| d.local_addr().ok());
        let places = Places {
            demo: demo_address,
            mcp: options.listen,
            admin: options.admin,
            data_dir: options.data_dir,
        };
        let loader = Loader::new(options.document, options.env, places);
        let read_since = SystemTime::now();
        let loaded = loader.load();
        let mut named = loaded.files.clone();
        let document = loaded.into_result().map_err(|d| StartError::Document(Box::new(d)))?;
        let model = document.document().clone();
        let data_dir = model.data_dir.clone();
        // It holds keys: nobody else has to look into it.
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&data_dir)
            .map_err(|source| StartError::File { what: "data_dir", path: data_dir.clone(), source })?;

        let control = runtime("control", threads(model.runtime.control_threads, control_threads))?;
        let data = runtime("data", threads(model.runtime.data_threads, cores()))?;
        let background = CancellationToken::new();
        let (phase, phases) = watch::channel(Phase::Running);
        let (stop_upstreams, upstreams_stopped) = watch::channel(false);

        // What outlives snapshots.
        let caps = Caps {
            tools: model.telemetry.metrics.max_tools as usize,
            routes: model.telemetry.metrics.max_routes as usize,
            servers: model.telemetry.metrics.max_servers as usize,
            tenants: model.telemetry.metrics.max_tenants as usize,
            ..Caps::default()
        };
        let metrics = Metrics::new(caps, clock.clone(), env!("CARGO_PKG_VERSION"));
        let failed = &model.identity.failed_attempts;
        let failures = FailureBounds {
            burst: failed.burst,
            forget_one: failed.rate.per() / u32::try_from(failed.rate.count().max(1)).unwrap_or(u32::MAX),
            ..FailureBounds::default()
        };
        let state = State {
            upstreams: Arc::new(Upstreams::new(clock.clone())),
            metrics: metrics.clone(),
            jwks: Arc::new(JwksStore::new(clock.clone())),
            api_keys: Arc::new(KeyStore::new(TenantId::default(), pepper(&model.identity)?)),
            revocations: Arc::new(Revocations::new()),
            auth: AuthState::new(CacheBounds::default(), failures, clock.clone()),
            clock: clock.clone(),
        };

        // Sockets before anything is announced: a bad address is an error now.
        let (mcp_address, admin_address) = settings::addresses(&document);
        let (mcp_socket, admin_socket, serving) = match options.inherited {
            Some(inherited) => {
                let (mcp, admin, serving) = inherited.into_parts();
                (mcp, admin, Some(serving))
            }
            None => (bind("mcp", mcp_address)?, bind("admin", admin_address)?, None),
        };
        let mcp = local(&mcp_socket, mcp_address);
        let admin = local(&admin_socket, admin_address);
        let origin = document.public_origin(mcp);

        let keys = Keys::open(document.session_key_file(), &clock)?;
        let files = loader.files();
        let compiled =
            crate::snapshot::compile(&document, &origin, &state, &*files).map_err(StartError::Compile)?;
        let cell = Arc::new(SnapshotCell::new(compiled.snapshot));

        let telemetry = telemetry(&model, &metrics, control.handle(), &background)?;
        let certificates = Certificates::load(&model.listeners, &*files)?;
        let buckets = Arc::new(Buckets::new(clock.clone(), DEFAULT_MAX_BUCKETS));
        let sessions = Arc::new(Sessions::new(settings::sessions(&document), clock.clone()));
        let parts = Parts {
            snapshot: cell.clone(),
            keys: keys.ring.clone(),
            sessions: sessions.clone(),
            buckets: buckets.clone(),
            telemetry: telemetry.clone(),
            clock: clock.clone(),
            phase: phases,
            session_max_age: model.sessions.max_age.get().as_secs(),
            boot_id: BootId::fresh(),
        };
        let data_threads = threads(model.runtime.data_threads, cores());
        let gateway = {
            // Connectors pick up the runtime they are made on.
            let _on_data = data.enter();
            Gateway::new(parts, settings::listener(&document), client_connector(data_threads))
        };
        let tls = certificates.mcp_settings(document.offers_h2())?;
        let listener = {
            let _on_data = data.enter();
            let socket = mcp_socket.try_clone().map_err(|source| StartError::Listen {
                listener: "mcp",
                address: mcp,
                source,
            })?;
            gateway
                .listen(data.handle(), socket, tls, data_threads.min(4))
                .map_err(|source| StartError::Listen { listener: "mcp", address: mcp, source })?
        };

        state.upstreams.spawn(control.handle(), upstreams_stopped);
        if let Some(socket) = demo {
            let stop = background.clone();
            control.spawn(async move {
                match listen_async(socket) {
                    Ok(socket) => {
                        if let Err(error) = crate::demo::serve(socket, stop).await {
                            tracing::error!(event = "demo_failed", %error);
                        }
                    }
                    Err(error) => tracing::error!(event = "demo_failed", %error),
                }
            });
        }
        let rotation = model.sessions.key_rotation.get().as_secs();
        spawn(
            &control,
            &background,
            keys.keep(clock.clone(), rotation, model.sessions.max_age.get().as_secs()),
        );
        let jwks = state.jwks.clone();
        let stop = background.clone();
        control.spawn(async move {
            match crate::auth::fetch::HttpFetch::new() {
                Ok(fetch) => jwks.run(Arc::new(fetch), stop).await,
                Err(error) => tracing::error!(event = "jwks_client_failed", %error),
            }
        });
        spawn(&data, &background, gateway.clone().sweep());
        spawn(
            &control,
            &background,
            gauges::sweep(buckets, sessions.clone(), metrics.clone(), clock.clone()),
        );

        let reloader =
            Arc::new(Reloader::new(loader, state, cell, origin.clone(), document, certificates, clock));
        named.extend(compiled.files);
        spawn(&control, &background, reloader.clone().watch(named, read_since));
        let admin_state = Arc::new(Admin::new(
            reloader.clone(),
            telemetry.clone(),
            sessions,
            vec![("mcp", mcp), ("admin", admin)],
            phase.subscribe(),
        ));
        let process = Self {
            mcp,
            admin,
            metrics: None,
            origin,
            listener,
            telemetry,
            phase,
            stop_upstreams,
            shutdown: model.shutdown.clone(),
            sockets: Arc::new(Mutex::new(None)),
            handed_over: watch::channel(false).1,
            data_dir,
            reloader,
            background,
            control: Some(control),
            data: Some(data),
        };
        process.finish_start(&model, admin_state, (mcp_socket, admin_socket), serving)
    }

    /// The admin listener and the door for a successor: what needs the rest to be there.
    fn finish_start(
        mut self,
        model: &model::Document,
        state: Arc<Admin>,
        (mcp_socket, admin_socket): (TcpListener, TcpListener),
        serving: Option<watch::Receiver<bool>>,
    ) -> Result<Self, StartError> {
        let failed = |source| StartError::Listen { listener: "admin", address: self.admin, source };
        let config = settings::control(model, Exposure::of(&self.admin));
        if let Some(control) = &self.control {
            let successor = serving.is_some();
            self.metrics =
                metrics::start(model, control.handle(), &self.background, state.clone(), successor)?;
        }
        let tls = self.reloader.certificates().admin();
        let ours = admin_socket.try_clone().map_err(failed)?;
        let stop = self.background.clone();
        state.attach(self.listener.counts());
        if let Some(control) = &self.control {
            let _on_control = control.enter();
            let socket = listen_async(ours).and_then(|s| AdminSocket::new(s, tls)).map_err(failed)?;
            control.spawn(crate::control::serve(
                socket,
                config,
                state,
                async move { stop.cancelled().await },
            ));
            *self.sockets.lock() = Some((mcp_socket, admin_socket));
            let (handed, receiver) = watch::channel(false);
            self.handed_over = receiver;
            let door = handover::serve(self.data_dir.clone(), self.sockets.clone(), handed, serving);
            spawn(control, &self.background, door);
        }
        Ok(self)
    }

    /// Where MCP clients connect.
    pub fn mcp_address(&self) -> SocketAddr {
        self.mcp
    }

    /// Where operators connect.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
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
        let (Some(control), Some(data)) = (self.control.take(), self.data.take()) else { return true };
        let times = self.shutdown.clone();
        let done = control.block_on(async {
            let _ = self.phase.send(Phase::Draining);
            if !successor {
                tokio::time::sleep(times.announce.get()).await;
            }
            // The successor listens on the same sockets; ours must go, or connections would wait here unaccepted.
            self.sockets.lock().take();
            let drain = times.drain.get();
            let done = self.listener.drain(LINGER.min(drain), drain).await;
            if !done {
                let _ = self.phase.send(Phase::Closing);
                return self.listener.drain(Duration::ZERO, times.streams.get()).await;
            }
            done
        });
        let _ = self.stop_upstreams.send(true);
        self.background.cancel();
        self.telemetry.access.shutdown(FLUSH);
        data.shutdown_timeout(Duration::from_millis(500));
        control.shutdown_timeout(Duration::from_secs(1));
        done
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.background.cancel();
        let _ = self.stop_upstreams.send(true);
        for runtime in [self.data.take(), self.control.take()].into_iter().flatten() {
            runtime.shutdown_background();
        }
    }
}

/// The secret mixed into the hashes of API keys.
pub(super) fn pepper(identity: &model::Identity) -> Result<Option<KeyPepper>, StartError> {
    let Some(text) = identity.api_keys.as_ref().and_then(|keys| keys.pepper.as_ref()) else {
        return Ok(None);
    };
    let secret = Secret::new(text.expose().as_bytes().to_vec());
    KeyPepper::new(&secret).map(Some).ok_or(StartError::Pepper)
}

fn telemetry(
    model: &model::Document,
    metrics: &Arc<Metrics>,
    control: &tokio::runtime::Handle,
    background: &CancellationToken,
) -> Result<Telemetry, StartError> {
    let access = &model.telemetry.access_log;
    let access_log = if access.enabled {
        let output = access.path.clone().map_or(Output::Stdout, Output::File);
        AccessLog::start(output, ACCESS_LOG_CAPACITY, metrics.access_log_dropped().clone())?
    } else {
        AccessLog::disabled()
    };
    let tracer = match &model.telemetry.otlp {
        None => Tracer::disabled(),
        Some(otlp) => {
            let config = trace::TraceConfig {
                headers: otlp.headers.iter().map(|(k, v)| (k.clone(), v.secret().clone())).collect(),
                timeout: otlp.timeout.get(),
                sample_ratio: otlp.sample.fraction(),
                service_name: otlp.service_name.clone(),
                ..trace::TraceConfig::new(otlp.endpoint.as_str())
            };
            let (tracer, exporter) = trace::exporter(&config, metrics.trace_dropped().clone())?;
            let stop = background.clone();
            control.spawn(exporter.run(async move { stop.cancelled().await }));
            tracer
        }
    };
    Ok(Telemetry { metrics: metrics.clone(), access: access_log, tracer })
}
