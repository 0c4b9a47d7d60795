//! The data plane: what happens to a request between the client and a server.
//!
//! [`front`] takes connections from Pingora's listeners and reads request headers; [`serve`] is the request path, in
//! the order admit → match → identify → read → classify → limit → authorize → select → exchange → observe, with each
//! decision in a file of its own under `step/`; [`exchange`] and [`relay`] carry the bytes; [`respond`] is the only
//! place where an error becomes HTTP and JSON-RPC.
//!
//! **Owner of state.** [`Gateway`] holds what outlives a snapshot: sessions, buckets, stream counts, keys. Everything
//! that an operator configures comes from the [`Snapshot`](crate::snapshot::Snapshot) that a request loads once.
//!
//! **Invariants.** No SQL, DNS, file I/O or lock across an await. Every request is observed exactly once, however it
//! ends. The client's credential never reaches a server.

mod acknowledge;
mod answer;
mod body;
mod driver;
mod exchange;
mod front;
mod handshake;
mod headers;
mod message;
mod observe;
mod outgoing;
mod record;
mod relay;
mod respond;
mod rewrite;
mod send;
mod serve;
mod step;
pub mod tls;
mod wellknown;
mod wire;

use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora::connectors::http::Connector;
use pingora::protocols::http::v2::server::default_h2_options;
use tokio::sync::watch;

pub use driver::Running;

use crate::audit::Auditor;
use crate::base::Clock;
use crate::base::net::TrustedProxies;
use crate::config::AllowedOrigins;
use crate::config::model::{ForwardedHeader, HostPattern};
use crate::gateway::driver::{InFlight, ListenerPlan};
use crate::gateway::exchange::Clients;
use crate::gateway::front::{Cleanup, Connections, Entrance, Front, Times};
use crate::gateway::respond::Failure;
use crate::gateway::step::admit::Admission;
use crate::gateway::step::opened::OpenedIds;
use crate::limit::{Buckets, Permits};
use crate::mcp::seal::KeyRing;
use crate::mcp::session::{BootId, Sessions, Streams};
use crate::shared::Shared;
use crate::snapshot::SnapshotCell;
use crate::telemetry::{RouteMetrics, Sampler, Telemetry};

/// How far along its end the process is. Only ever moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    Running,
    /// Not ready any more; long-lived streams are asked to end.
    Draining,
    /// Whatever is still open is cut.
    Closing,
}

/// Static properties of the MCP listener.
pub struct ListenerSettings {
    /// Hosts that are ours.
    pub allowed_hosts: Vec<HostPattern>,
    /// Origins that may call.
    pub allowed_origins: AllowedOrigins,
    /// What browsers are told.
    pub cors: CorsSettings,
    /// Whose forwarding header is believed.
    pub trusted_proxies: TrustedProxies,
    /// Which header that is.
    pub forwarded_header: ForwardedHeader,
    /// Whether clients speak TLS to us.
    pub https: bool,
    /// Open connections.
    pub max_connections: usize,
    /// Open connections from one address.
    pub max_connections_per_address: usize,
    /// For a whole request header.
    pub header_timeout: Duration,
    /// For a whole request body.
    pub body_timeout: Duration,
    /// For the next request on a connection.
    pub keepalive_timeout: Duration,
    /// Requests on one connection.
    pub keepalive_requests: u32,
    /// Bytes of a request body.
    pub max_body: usize,
    /// Bytes of a request header.
    pub max_header_size: usize,
    /// Fields of a request header.
    pub max_headers: usize,
    /// One write to a client.
    pub write_timeout: Duration,
    /// Bytes per second below which a reader is too slow.
    pub min_send_rate: Option<usize>,
    /// Long-lived streams of one principal.
    pub max_streams_per_principal: u32,
    /// HTTP/2 streams on one connection.
    pub h2_max_streams: u32,
}

/// CORS beyond who may call.
#[derive(Clone, Debug, Default)]
pub struct CorsSettings {
    /// Request headers allowed besides those of MCP.
    pub headers: Vec<String>,
    /// Response headers exposed besides those of MCP.
    pub expose: Vec<String>,
    /// Whether browsers may send credentials.
    pub credentials: bool,
    /// How long a preflight's answer may be remembered.
    pub max_age: Duration,
}

/// What the gateway is made of. Everything is shared with the control plane through `Arc`s.
pub struct Parts {
    /// What requests are served from.
    pub snapshot: Arc<SnapshotCell>,
    /// Keys that seal ids.
    pub keys: Arc<ArcSwap<KeyRing>>,
    /// Legacy sessions.
    pub sessions: Arc<Sessions>,
    /// Long-lived streams, for operators to see and to end.
    pub streams: Streams,
    /// Token buckets.
    pub buckets: Arc<Buckets>,
    /// The server of shared limits, if there is one.
    pub shared: Option<Arc<Shared>>,
    /// Metrics, access log, spans.
    pub telemetry: Telemetry,
    /// The audit.
    pub audit: Auditor,
    /// Keeps some requests for what-if; `None` if none are wanted.
    pub sampler: Option<Arc<Sampler>>,
    /// Time.
    pub clock: Clock,
    /// Moves forward when the process is to end.
    pub phase: watch::Receiver<Phase>,
    /// Age at which a session id ends, in seconds.
    pub session_max_age: u64,
    /// Tells this process from the one before it.
    pub boot_id: BootId,
}

/// The data plane of one process.
pub struct Gateway {
    parts: Parts,
    settings: ListenerSettings,
    admission: Admission,
    cors: headers::Cors,
    streams: Permits<Box<str>>,
    clients: Clients,
    opened: OpenedIds,
    /// Counts what was refused before a route was known.
    unrouted: Arc<RouteMetrics>,
}

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    Close,
    Keep,
}

/// Why the request path ends early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The client is gone; there is nobody to answer.
    Client(String),
    /// An answer had begun and cannot be completed.
    Cut(String),
    /// The server broke off before the first byte of its answer was passed on.
    Broken(String),
    /// The server's answer could not be looked into, and must not pass unseen.
    Unreadable(String),
    /// An answer of our own.
    Failure(Box<Failure>),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Stop::Failure(Box::new(failure))
    }
}

impl Stop {
    pub(crate) fn client(error: Box<pingora::Error>) -> Self {
        Stop::Client(error.to_string())
    }
}

/// The listener at work, with the means to end it.
pub struct Listener {
    running: Running,
    cleanup: Arc<Cleanup>,
    connections: Arc<Connections>,
}

/// Counts a listener's connections.
#[derive(Clone)]
pub struct ConnectionCounts(Arc<Connections>);

impl ConnectionCounts {
    /// Open now.
    pub fn open(&self) -> usize {
        self.0.total()
    }

    /// Refused since start because of a cap.
    pub fn refused(&self) -> usize {
        self.0.refused()
    }
}

impl Listener {
    /// The accept loops and what they accepted.
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// Its connections.
    pub fn counts(&self) -> ConnectionCounts {
        ConnectionCounts(self.connections.clone())
    }

    /// Stops accepting, serves what was accepted, drops idle connections after `linger`, and waits for the rest.
    /// `true` if all was done within `deadline`.
    pub async fn drain(&self, linger: Duration, deadline: Duration) -> bool {
        self.running.stop_accepting();
        if self.running.drain(linger.min(deadline)).await {
            return true;
        }
        self.cleanup.drop_idle();
        self.running.drain(deadline.saturating_sub(linger)).await
    }
}

impl Gateway {
    /// Puts a gateway together.
    pub fn new(parts: Parts, settings: ListenerSettings, connector: Connector) -> Arc<Self> {
        let admission = Admission::new(&settings.allowed_hosts, settings.allowed_origins.clone());
        let unrouted = Arc::new(parts.telemetry.metrics.unrouted());
        Arc::new(Self {
            cors: headers::Cors::new(&settings.cors),
            streams: Permits::new(MAX_STREAM_HOLDERS),
            admission,
            clients: Clients { connector, pool: wire::Pool::default() },
            opened: OpenedIds::default(),
            unrouted,
            parts,
            settings,
        })
    }

    /// Starts to accept on `socket`, on the runtime `data`.
    ///
    /// # Errors
    /// The socket cannot be used.
    pub fn listen(
        self: &Arc<Self>,
        data: &tokio::runtime::Handle,
        socket: TcpListener,
        tls: Option<pingora::listeners::tls::TlsSettings>,
        accept_loops: usize,
    ) -> std::io::Result<Listener> {
        let s = &self.settings;
        let in_flight = Arc::new(InFlight::default());
        let cleanup = Arc::new(Cleanup::default());
        let connections =
            Connections::new(s.max_connections, s.max_connections_per_address, s.trusted_proxies.clone());
        let mut h2 = default_h2_options();
        h2.max_concurrent_streams(s.h2_max_streams);
        h2.max_header_list_size(u32::try_from(s.max_header_size).unwrap_or(u32::MAX));
        let front = Front {
            gateway: self.clone(),
            connections: connections.clone(),
            in_flight: in_flight.clone(),
            times: Times { header: s.header_timeout, idle: s.keepalive_timeout },
            write_timeout: s.write_timeout,
            min_send_rate: s.min_send_rate,
            cleanup: cleanup.clone(),
            options: driver::server_options(s.keepalive_requests, s.keepalive_timeout),
            h2,
        };
        let plan = ListenerPlan { socket, tls, accept_loops };
        let running = driver::start(data, "mcp", plan, Entrance(Arc::new(front)), in_flight)?;
        Ok(Listener { running, cleanup, connections })
    }

    /// Closes idle connections to servers that waited too long. Ends with the process.
    pub async fn sweep(self: Arc<Self>) {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.clients.pool.sweep();
        }
    }

    fn client_address(&self, headers: &http::HeaderMap, peer: IpAddr) -> IpAddr {
        step::client::address(headers, peer, &self.settings.trusted_proxies, self.settings.forwarded_header)
    }
}

/// Principals that may hold streams at the same time.
const MAX_STREAM_HOLDERS: usize = 1_000_000;
