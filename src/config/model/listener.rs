//! Where connections are accepted and what they may cost.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::internal::InternalListener;
use super::net::{Address, Cidr, HostPattern, HttpUrl};
use super::text::{HeaderName, SecretText};
use super::units::{Period, Rate, Size};

/// The listeners.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Listeners {
    /// For MCP clients.
    pub mcp: McpListener,
    /// For operators: health, metrics, status, the control API. Never expose it to the internet.
    pub admin: AdminListener,
    /// For other replicas.
    pub internal: Option<InternalListener>,
    /// For Prometheus: `/metrics` and `/healthz` alone. With it, the admin listener no longer serves `/metrics`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<MetricsListener>,
}

/// The listener for MCP clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct McpListener {
    /// Address and port to listen on. Anything but loopback needs `public_url` and `identity`.
    pub address: Address,
    /// Scheme, host and port that clients dial, such as `https://mcp.example.com`. The base of token audiences and of
    /// OAuth metadata; never taken from the `Host` header. Required off loopback; otherwise derived from `address`.
    pub public_url: Option<HttpUrl>,
    /// Certificate. Without it the listener speaks plain HTTP.
    pub tls: Option<ListenerTls>,
    /// Whether HTTP/2 is offered (ALPN). Default: offered if there is `tls`; plain HTTP/2 does not exist here.
    pub h2: Option<bool>,
    /// Bounds on connections and messages.
    pub limits: ListenerLimits,
    /// Hosts accepted in the `Host` header, against DNS rebinding. Default: the host of `public_url`, the hosts of the
    /// routes and, on a loopback listener, `localhost`, `127.0.0.1` and `[::1]`, with any port. A list replaces this default.
    #[schemars(length(min = 1))]
    pub allowed_hosts: Option<Vec<HostPattern>>,
    /// Origins accepted in the `Origin` header, such as `https://app.example.com`. Default: `public_url` and, on a
    /// loopback listener, loopback names with any port. A list replaces this default. Requests without `Origin` pass.
    pub allowed_origins: Option<Vec<HttpUrl>>,
    /// Cross-origin access for browsers, beyond the defaults: pages of `allowed_origins` may call and read answers.
    pub cors: Option<Cors>,
    /// Proxies whose forwarding header is believed. From anybody else it is removed.
    pub trusted_proxies: Vec<Cidr>,
    /// Which header of a trusted proxy names the client. The right-most address that is not a trusted proxy is taken.
    pub forwarded_header: ForwardedHeader,
}

impl Default for McpListener {
    fn default() -> Self {
        Self {
            address: loopback(8080),
            public_url: None,
            tls: None,
            h2: None,
            limits: ListenerLimits::default(),
            allowed_hosts: None,
            allowed_origins: None,
            cors: None,
            trusted_proxies: Vec::new(),
            forwarded_header: ForwardedHeader::XForwardedFor,
        }
    }
}

fn loopback(port: u16) -> Address {
    Address::new(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
}

/// Which header of a trusted proxy names the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedHeader {
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// `X-Forwarded-For`, and `X-Forwarded-Proto` for the scheme.
    #[default]
    XForwardedFor,
    /// `X-Real-IP`, one address.
    XRealIp,
}

/// Certificate and client certificates of a listener. Files are read again when they change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerTls {
    /// PEM file with the certificate, followed by its intermediates.
    pub cert: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
    /// PEM file with the authorities that sign client certificates. Without it none are asked for.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// Whether a client certificate must be presented. Default: `require` if there is a `client_ca`.
    #[serde(default)]
    pub client_auth: Option<ClientAuth>,
}

/// Whether a client certificate must be presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// Asked for; a client without one may identify itself in another way. A wrong one is refused.
    Request,
    /// The handshake fails without a valid one.
    Require,
}

/// Bounds on connections and messages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerLimits {
    /// Connections open at once. Further ones are closed at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: u32,
    /// Connections open at once from one address (IPv6: one /64). Trusted proxies are exempt.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections_per_address: u32,
    /// Time in which the whole request header must arrive, however slowly it drips; 408 after.
    pub header_timeout: Period,
    /// Time in which the whole request body must arrive; 408 after.
    pub body_timeout: Period,
    /// How long an idle connection is kept for the next request.
    pub keepalive_timeout: Period,
    /// Requests on one connection before it is closed, so that load spreads over replicas.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub keepalive_requests: u32,
    /// Largest request body; 413 above.
    pub max_body: Size,
    /// Largest request header, all fields together; 431 above.
    pub max_header_size: Size,
    /// Most header fields in a request; 431 above.
    #[schemars(range(min = 16, max = 256))]
    pub max_headers: u32,
    /// Longest time one write to a client may block before it is taken for dead.
    pub write_timeout: Period,
    /// Slowest reader tolerated, in bytes per second; slower clients are disconnected. Default: any speed within `write_timeout`.
    pub min_send_rate: Option<Size>,
    /// Streams (SSE responses) open at once per principal; 429 above.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_streams_per_principal: u32,
    /// HTTP/2 requests at once on one connection.
    #[schemars(range(min = 1, max = 10_000))]
    pub h2_max_streams: u32,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            max_connections: 16_384,
            max_connections_per_address: 1_024,
            header_timeout: Period::from_secs(10),
            body_timeout: Period::from_secs(30),
            keepalive_timeout: Period::from_secs(75),
            keepalive_requests: 10_000,
            max_body: Size::from_mib(4),
            max_header_size: Size::from_kib(32),
            max_headers: 100,
            write_timeout: Period::from_secs(30),
            min_send_rate: None,
            max_streams_per_principal: 100,
            h2_max_streams: 128,
        }
    }
}

/// Cross-origin access for browsers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// Origins that may read answers, such as `https://app.example.com`; `*` means any, without credentials.
    #[schemars(length(min = 1))]
    pub origins: Vec<String>,
    /// Request headers a page may send, besides those MCP needs.
    #[serde(default)]
    pub headers: Vec<HeaderName>,
    /// Response headers a page may read, besides those MCP needs.
    #[serde(default)]
    pub expose_headers: Vec<HeaderName>,
    /// Whether browsers may send credentials. Not together with the origin `*`.
    #[serde(default)]
    pub credentials: bool,
    /// How long a browser may remember the answer to a preflight.
    #[serde(default = "cors_max_age")]
    pub max_age: Period,
}

fn cors_max_age() -> Period {
    Period::from_secs(600)
}

/// The listener for operators.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdminListener {
    /// Address and port to listen on.
    pub address: Address,
    /// Certificate. Without it the listener speaks plain HTTP.
    pub tls: Option<ListenerTls>,
    /// Bearer token that opens everything, besides the token made at first start and API keys. `/metrics` and
    /// `/api/v1/status` ask for it as well. Required off loopback, unless client certificates are.
    pub token: Option<SecretText>,
    /// How often one caller may call the control API; half of it at once. Refused calls get 429 with `Retry-After`.
    pub rate: Rate,
    /// Origins whose pages may call the control API from a browser, such as `https://console.example.com`. They still
    /// need a token; browsers never send credentials of their own.
    pub allowed_origins: Vec<HttpUrl>,
}

impl Default for AdminListener {
    fn default() -> Self {
        Self {
            address: loopback(9090),
            tls: None,
            token: None,
            rate: Rate::per_minute(1200),
            allowed_origins: Vec::new(),
        }
    }
}

/// A listener for `/metrics` alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MetricsListener {
    /// Address and port to listen on.
    pub address: Address,
    /// Bearer token that `/metrics` requires. Required off loopback.
    #[serde(default)]
    pub token: Option<SecretText>,
}
