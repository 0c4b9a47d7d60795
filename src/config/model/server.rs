//! The MCP servers behind the gateway.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::net::HttpUrl;
use super::text::{HeaderName, Name, SecretText};
use super::units::{Percent, Period};

/// One MCP server: one or more targets that are the same service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Unique name, used by routes, metrics and logs.
    pub name: Name,
    /// Streamable HTTP: where it is and how to connect.
    pub http: Http,
    /// Which MCP protocol era the server speaks. `auto` asks it.
    #[serde(default)]
    pub era: Era,
    /// How a target is chosen for a request that no session binds to one.
    #[serde(default)]
    pub balance: Balance,
    /// What `hash` hashes.
    #[serde(default)]
    pub hash: HashKey,
    /// Probes that run whether or not there is traffic.
    #[serde(default)]
    pub health: Health,
    /// Taking a target out because of what requests to it look like.
    #[serde(default)]
    pub outlier: Outlier,
    /// Failing fast when a target does nothing but fail.
    #[serde(default)]
    pub breaker: Breaker,
    /// Time over which a target that is new or back from ill health is ramped up to its full share. `0s` turns it off.
    #[serde(default = "slow_start")]
    pub slow_start: Period,
    /// Requests in flight to one target at once, streams included; 503 when all targets are full.
    #[serde(default = "max_in_flight")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_in_flight: u32,
    /// How long to wait for what.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// Trying again. Only what is safe to repeat is ever repeated.
    #[serde(default)]
    pub retry: Retry,
    /// Name resolution of the targets.
    #[serde(default)]
    pub dns: Dns,
    /// What the gateway presents to the server. The caller's own credential is never forwarded.
    #[serde(default)]
    pub credential: Option<Credential>,
    /// Connections kept for reuse.
    #[serde(default)]
    pub pool: Pool,
    /// The server's lists of tools, prompts and resources.
    #[serde(default)]
    pub catalogue: Catalogue,
}

fn slow_start() -> Period {
    Period::from_secs(10)
}

fn max_in_flight() -> u32 {
    10_000
}

/// A server reached over streamable HTTP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// URLs of the server's MCP endpoint, one per instance.
    #[schemars(length(min = 1, max = 256))]
    pub targets: Vec<Target>,
    /// How `https` targets are verified.
    #[serde(default)]
    pub tls: UpstreamTls,
    /// Whether to speak HTTP/2: to `https` targets that offer it, to `http` targets without asking.
    #[serde(default)]
    pub h2: bool,
}

/// One instance of a server: a URL, or a URL with a weight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Target {
    /// A URL, with weight 1.
    Url(HttpUrl),
    /// A URL with a weight.
    Weighted(WeightedTarget),
}

/// One instance of a server with a weight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WeightedTarget {
    /// URL of the MCP endpoint.
    pub url: HttpUrl,
    /// Share of the traffic, relative to the other targets. Every `balance` heeds it.
    #[serde(default = "weight")]
    #[schemars(range(min = 1, max = 100))]
    pub weight: u32,
}

fn weight() -> u32 {
    1
}

impl Target {
    /// Where the instance is.
    pub fn url(&self) -> &HttpUrl {
        match self {
            Target::Url(url) => url,
            Target::Weighted(target) => &target.url,
        }
    }

    /// Its share of the traffic, relative to the other targets.
    pub fn weight(&self) -> u32 {
        match self {
            Target::Url(_) => weight(),
            Target::Weighted(target) => target.weight,
        }
    }
}

/// How `https` targets are verified.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamTls {
    /// PEM file with the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// PEM file with the certificate the gateway presents.
    pub client_cert: Option<PathBuf>,
    /// PEM file with the key of `client_cert`.
    pub client_key: Option<PathBuf>,
    /// Host name to ask for and to verify. Default: the host of the target. Required if that is an IP address.
    #[schemars(length(min = 1, max = 253))]
    pub sni: Option<String>,
}

/// Which MCP protocol era a server speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Era {
    /// Asked on first contact and remembered.
    #[default]
    Auto,
    /// Revisions up to 2025-11-25: `initialize` and sessions.
    Legacy,
    /// Revision 2026-07-28 and later: no sessions.
    Modern,
}

/// How a target is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// The same key goes to the same target (see `hash`), with bounded movement when targets change.
    Hash,
    /// Of two random targets, the one with fewer requests in flight per weight.
    #[default]
    LeastRequest,
    /// Of two random targets, the one with the lower latency × load, by a peak-sensitive moving average. New sessions
    /// gather on the fastest target while load is low.
    PeakEwma,
    /// One after the other; a target of weight 3 has three turns in a row.
    RoundRobin,
    /// At random, in proportion to the weights.
    Weighted,
}

/// What `balance: hash` hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HashKey {
    /// The caller.
    #[default]
    Principal,
    /// The MCP session; the caller if there is none.
    Session,
    /// The value of a request header; the caller if there is none.
    Header(HeaderName),
}

/// Probes that run whether or not there is traffic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Health {
    /// Time between two probes of a target. `0s` turns probing off.
    pub interval: Period,
    /// How long a probe may take.
    pub timeout: Period,
    /// Failures in a row that take a target out.
    #[schemars(range(min = 1, max = 100))]
    pub unhealthy_after: u32,
    /// Successes in a row that bring it back.
    #[schemars(range(min = 1, max = 100))]
    pub healthy_after: u32,
    /// What a probe does.
    pub probe: Probe,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            interval: Period::from_secs(10),
            timeout: Period::from_secs(2),
            unhealthy_after: 3,
            healthy_after: 2,
            probe: Probe::Mcp,
        }
    }
}

/// What a health probe does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// `GET` of this path; any 2xx is healthy.
    Http(String),
    /// A request of the MCP protocol that every server must answer.
    #[default]
    Mcp,
    /// A connection.
    Tcp,
}

/// Taking a target out because of what requests to it look like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Outlier {
    /// Failures in a row that eject a target. `0` turns this rule off.
    #[schemars(range(min = 0, max = 1000))]
    pub consecutive_failures: u32,
    /// Share of failed requests within `window` that ejects a target, a whole percent. `0%` turns this rule off.
    pub error_ratio: Percent,
    /// Requests within `window` below which `error_ratio` is not looked at.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_requests: u32,
    /// Time over which `error_ratio` is taken.
    pub window: Period,
    /// Length of the first ejection; each further one is twice as long.
    pub base_ejection: Period,
    /// Longest ejection.
    pub max_ejection: Period,
    /// Share of a server's targets that may be out at once, a whole percent: at least one target, never all.
    pub max_ejected: Percent,
}

impl Default for Outlier {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            error_ratio: Percent::new(50.0),
            min_requests: 20,
            window: Period::from_secs(30),
            base_ejection: Period::from_secs(10),
            max_ejection: Period::from_secs(300),
            max_ejected: Percent::new(50.0),
        }
    }
}

/// Failing fast when a target does nothing but fail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Breaker {
    /// Failures in a row that open the breaker. `0` turns it off.
    #[schemars(range(min = 0, max = 1000))]
    pub failures: u32,
    /// How long it stays open before a few requests are let through to try. Each failed trial doubles it.
    pub open_for: Period,
    /// Longest time it stays open before the next trial.
    pub max_open: Period,
    /// Requests let through at a time to try; as many successes in a row close it.
    #[schemars(range(min = 1, max = 100))]
    pub half_open_requests: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            failures: 10,
            open_for: Period::from_secs(10),
            max_open: Period::from_secs(300),
            half_open_requests: 3,
        }
    }
}

/// How long to wait for what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// For a connection, TLS included.
    pub connect: Period,
    /// For the response header, from the end of the request.
    pub first_byte: Period,
    /// For the whole exchange, unless the response is a stream.
    pub request: Period,
    /// Between two reads of a response that is not a stream.
    pub idle: Period,
    /// Without any byte from the server on a stream before it is given up. Client SDKs ping every 15 s.
    pub stream_idle: Period,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Period::from_secs(2),
            first_byte: Period::from_secs(60),
            request: Period::from_secs(120),
            idle: Period::from_secs(60),
            stream_idle: Period::from_secs(600),
        }
    }
}

/// Trying again on another target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// Attempts per request, the first included. `1` turns retries off.
    #[schemars(range(min = 1, max = 10))]
    pub attempts: u32,
    /// Retries allowed as a share of requests, a whole percent, so that retries cannot multiply an outage.
    pub budget: Percent,
    /// Retries per second that are allowed whatever the share, for servers with little traffic.
    #[schemars(range(min = 0, max = 1000))]
    pub min_per_second: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 2, budget: Percent::new(20.0), min_per_second: 3 }
    }
}

/// Name resolution of the targets, in the background.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    /// Time between two look-ups of a host name. Addresses of a failed look-up stay in use.
    pub refresh: Period,
}

impl Default for Dns {
    fn default() -> Self {
        Self { refresh: Period::from_secs(30) }
    }
}

/// What the gateway presents to a server. Exactly one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Credential {
    /// `Authorization: Basic`.
    Basic(Basic),
    /// `Authorization: Bearer` with this token.
    Bearer(SecretText),
    /// Any other header.
    Header(HeaderCredential),
}

/// User name and password.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Basic {
    /// User name, without `:`.
    #[schemars(length(min = 1, max = 256))]
    pub username: String,
    /// Password.
    pub password: SecretText,
}

/// A header with a secret value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderCredential {
    /// Name of the header.
    pub name: HeaderName,
    /// Value of the header.
    pub value: SecretText,
}

/// Connections kept for reuse.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Pool {
    /// How long an idle connection is kept. Below the server's own idle time (Node and uvicorn: 5 s), because a call
    /// must not be repeated when the server closes first.
    pub idle_timeout: Period,
}

impl Default for Pool {
    fn default() -> Self {
        Self { idle_timeout: Period::from_secs(4) }
    }
}

/// The server's lists of tools, prompts and resources.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Catalogue {
    /// Time between two background refreshes; of the server's era, too. A `list_changed` notification refreshes at once.
    pub refresh: Period,
}

impl Default for Catalogue {
    fn default() -> Self {
        Self { refresh: Period::from_secs(300) }
    }
}
