//! What a server is to look like: a plain value, checked as a whole before anything is changed.
//!
//! The compiler of a document fills a [`ServerSpec`], calls [`ServerSpec::validate`] while compiling, and
//! [`crate::upstream::Upstreams::apply`] when the snapshot is published.

mod validate;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Uri};

use crate::base::guard::AddressGuard;
use crate::base::{ServerId, TargetId, TenantId};
use crate::upstream::certs::{CaBundle, ClientIdentity};

pub use validate::SpecError;

/// Most targets of one server.
pub const MAX_TARGETS: usize = 256;
/// Highest weight of a target: the consistent-hash ring has 160 points per unit of weight.
pub const MAX_WEIGHT: u32 = 100;
/// Shortest interval of anything periodic.
pub const MIN_INTERVAL: Duration = Duration::from_millis(50);

/// One server: where it is, how it is reached, how its targets are chosen and watched.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerSpec {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its name in the tenant.
    pub id: ServerId,
    /// At least one, at most [`MAX_TARGETS`].
    pub targets: Vec<TargetSpec>,
    /// For `https` targets.
    pub tls: TlsSpec,
    /// Whether to speak HTTP/2: by ALPN with fallback to HTTP/1.1 over TLS, with prior knowledge in clear text.
    pub h2: bool,
    /// Which MCP eras the server speaks, if that is known.
    pub era: EraHint,
    /// How a target is chosen.
    pub balance: Balance,
    /// Active health checks; `None` takes every target for healthy.
    pub health: Option<HealthSpec>,
    /// Ejection of targets that fail live requests; `None` never ejects.
    pub outlier: Option<OutlierSpec>,
    /// Circuit breaker of each target; `None` has none.
    pub breaker: Option<BreakerSpec>,
    /// How long a new or recovered target gets less than its share; `None` gives it all at once.
    pub slow_start: Option<Duration>,
    /// What the gateway waits for.
    pub timeouts: Timeouts,
    /// Most requests in flight to one target address; `None` is no bound.
    pub max_in_flight: Option<NonZeroU32>,
    /// How often host names are resolved again.
    pub dns_refresh: Duration,
    /// How often era and catalogue entry (`server/discover`) are asked for again.
    pub discover_refresh: Duration,
    /// Headers that authenticate the gateway to the server, on requests and probes.
    pub credentials: Vec<(HeaderName, HeaderValue)>,
    /// How long an unused connection is kept. Below the server's own limit, or requests meet closed connections:
    /// Node and uvicorn close after 5 s.
    pub pool_idle: Duration,
    /// How many unused connections are kept to each address.
    pub pool_max_idle: usize,
    /// How many retries may be made.
    pub retry: RetrySpec,
    /// Which addresses may be dialled.
    pub guard: AddressGuard,
}

/// One URL of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetSpec {
    /// Stable name, usually the URL's text.
    pub id: TargetId,
    /// `http` or `https`.
    pub scheme: Scheme,
    /// Host name or address literal, the latter without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// What is requested; `/` if the URL has no path.
    pub path_and_query: PathAndQuery,
    /// Share of the requests, 1 to [`MAX_WEIGHT`].
    pub weight: u32,
}

/// Clear text or TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP in clear text.
    Http,
    /// HTTP over TLS.
    Https,
}

/// How servers prove themselves, and how the gateway does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TlsSpec {
    /// Authorities that may vouch for the server; `None` takes the system's.
    pub roots: Option<CaBundle>,
    /// Certificate to show to the server.
    pub identity: Option<ClientIdentity>,
    /// Name to ask for and to verify, instead of the target's host.
    pub sni: Option<String>,
}

/// Which eras of MCP a server speaks (MCP.md §0.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EraHint {
    /// Find out by asking.
    #[default]
    Auto,
    /// It does not speak MCP over streamable HTTP: never probe for an era.
    Foreign,
    /// Up to 2025-11-25: `initialize` and sessions.
    Legacy,
    /// From 2026-07-28: `server/discover`, no sessions.
    Modern,
}

/// How a target is chosen. Every policy heeds weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// The same hash finds the same target as long as it is there (Ketama ring).
    Hash,
    /// The less loaded of two random targets, by requests in flight.
    LeastRequest,
    /// The better of two random targets, by latency and requests in flight.
    #[default]
    PeakEwma,
    /// In turn; a target of weight `w` gets `w` turns in a row.
    RoundRobin,
    /// At random, in proportion to the weights.
    Weighted,
}

/// Active health checks.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthSpec {
    /// What is asked.
    pub probe: ProbeKind,
    /// Between two rounds; ±10 % jitter is added.
    pub interval: Duration,
    /// For one probe, connection included.
    pub timeout: Duration,
    /// Failures in a row that take a target out.
    pub unhealthy_after: u32,
    /// Successes in a row that take it back.
    pub healthy_after: u32,
}

/// What a health check asks.
#[derive(Clone, Debug, PartialEq)]
pub enum ProbeKind {
    /// `GET` a path and compare the status.
    Http {
        /// What to get.
        path: PathAndQuery,
        /// Lowest and highest status that counts as healthy.
        expect: (u16, u16),
    },
    /// Speak MCP: `server/discover` to modern servers, `ping` in one long-lived session to legacy ones.
    Mcp,
    /// Open a TCP connection and close it.
    Tcp,
}

/// When live traffic takes a target out (see [`crate::upstream::outlier`]).
#[derive(Clone, Debug, PartialEq)]
pub struct OutlierSpec {
    /// Gateway failures in a row; 0 turns this detector off.
    pub consecutive_failures: u32,
    /// Share of failures in the window, in percent; 0 turns this detector off.
    pub error_percent: u8,
    /// Length of the window.
    pub window: Duration,
    /// Fewest requests in the window for the share to count.
    pub min_requests: u32,
    /// First ejection; each further one is twice as long.
    pub base_ejection: Duration,
    /// Longest ejection.
    pub max_ejection: Duration,
    /// Most targets out at a time, in percent: at least one, never all.
    pub max_ejected_percent: u8,
}

/// When requests to a target are refused at once (see [`crate::upstream::circuit`]).
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerSpec {
    /// Gateway failures in a row that open the circuit.
    pub failures: u32,
    /// How long it stays open the first time; each failed trial doubles it.
    pub open_for: Duration,
    /// Longest time open.
    pub max_open: Duration,
    /// Trial requests at a time while half open.
    pub probes: u32,
    /// Successful trials in a row that close it.
    pub successes: u32,
}

/// How many retries may be made (see [`crate::upstream::RetryBudget`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetrySpec {
    /// Retries per hundred requests.
    pub percent: u32,
    /// Retries per second that are always allowed.
    pub min_per_second: u32,
}

/// What the gateway waits for; `None` waits for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP and TLS together.
    pub connect: Duration,
    /// From the end of the request to the response header. Servers may keep the header back while a tool works.
    pub first_byte: Option<Duration>,
    /// The whole exchange, for answers that are not streams.
    pub request: Option<Duration>,
    /// Between two reads of an answer that is not a stream.
    pub idle: Option<Duration>,
    /// Between two reads of a stream. Well above 15 s, the interval at which servers send comments.
    pub stream_idle: Option<Duration>,
}

// === impl ServerSpec ===

impl ServerSpec {
    /// A server with defaults: peak EWMA, passive ejection, no active checks, no circuit breaker.
    pub fn new(tenant: TenantId, id: ServerId, targets: Vec<TargetSpec>) -> Self {
        Self {
            tenant,
            id,
            targets,
            tls: TlsSpec::default(),
            h2: false,
            era: EraHint::default(),
            balance: Balance::default(),
            health: None,
            outlier: Some(OutlierSpec::default()),
            breaker: None,
            slow_start: None,
            timeouts: Timeouts::default(),
            max_in_flight: None,
            dns_refresh: Duration::from_secs(30),
            discover_refresh: Duration::from_secs(60),
            credentials: Vec::new(),
            pool_idle: Duration::from_secs(4),
            pool_max_idle: 128,
            retry: RetrySpec::default(),
            guard: AddressGuard::default(),
        }
    }
}

// === impl TargetSpec ===

impl TargetSpec {
    /// Reads a URL such as `https://host:8443/mcp`; the id is its text.
    ///
    /// # Errors
    ///
    /// [`SpecError::Url`] if it is not `http` or `https`, has no host, or carries user information.
    pub fn parse(url: &str, weight: u32) -> Result<Self, SpecError> {
        let fault = |reason: &str| SpecError::Url { url: url.to_owned(), reason: reason.to_owned() };
        let uri: Uri = url.parse().map_err(|e: http::uri::InvalidUri| fault(&e.to_string()))?;
        let scheme = match uri.scheme_str() {
            Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            _ => return Err(fault("it must start with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| fault("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(fault("user information is not allowed; use a credential"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        // Not `authority.port()`: it takes a port that is out of range for none.
        let port = match authority.as_str()[authority.host().len()..].strip_prefix(':') {
            Some(text) => text.parse().map_err(|_| fault("the port is not between 1 and 65535"))?,
            None => scheme.default_port(),
        };
        if host.is_empty() || port == 0 {
            return Err(fault("it needs a host and a port other than 0"));
        }
        let path_and_query = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        Ok(Self { id: TargetId::new(url), scheme, host, port, path_and_query, weight })
    }

    /// The address, if the host is one.
    pub fn literal(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// The `Host` header: the port is left out if it is the scheme's own.
    pub fn authority(&self) -> String {
        let host = match self.literal() {
            Some(IpAddr::V6(v6)) => format!("[{v6}]"),
            _ => self.host.clone(),
        };
        if self.port == self.scheme.default_port() { host } else { format!("{host}:{}", self.port) }
    }
}

impl Scheme {
    /// 80 or 443.
    pub fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

// === impl HealthSpec ===

impl HealthSpec {
    /// Every 10 s with 2 s of patience, out after 3 failures, back after 2 successes.
    pub fn new(probe: ProbeKind) -> Self {
        Self {
            probe,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(2),
            unhealthy_after: 3,
            healthy_after: 2,
        }
    }
}

impl Default for OutlierSpec {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            error_percent: 0,
            window: Duration::from_secs(30),
            min_requests: 20,
            base_ejection: Duration::from_secs(10),
            max_ejection: Duration::from_secs(300),
            max_ejected_percent: 50,
        }
    }
}

impl Default for BreakerSpec {
    fn default() -> Self {
        Self {
            failures: 10,
            open_for: Duration::from_secs(5),
            max_open: Duration::from_secs(60),
            probes: 1,
            successes: 1,
        }
    }
}

impl Default for RetrySpec {
    fn default() -> Self {
        Self { percent: 20, min_per_second: 3 }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            first_byte: None,
            request: Some(Duration::from_secs(60)),
            idle: Some(Duration::from_secs(30)),
            stream_idle: Some(Duration::from_secs(600)),
        }
    }
}

#[cfg(test)]
mod tests;
