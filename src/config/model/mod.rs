//! The document as an operator writes it: plain serde structs, one file per area.
//!
//! Nothing here is checked beyond its own syntax; [`crate::config::Validated`] is the form that the rest of the program
//! takes. Every field's comment is its entry in the JSON Schema and in `docs/configuration.md`: first what it does,
//! with unit and effect; the default is added from [`Default`].

pub mod audit;
pub mod identity;
pub mod internal;
pub mod limit;
pub mod listener;
pub mod net;
pub mod policy;
pub mod process;
pub mod route;
pub mod samples;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod tenant;
pub mod text;
pub mod units;
pub mod valkey;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use audit::{Audit, Durability, MaskedField, OnFull, Retention, Spool, Unidentified};
pub use identity::{
    Algorithm, Anonymous, ApiKeys, ClaimRule, ClaimTest, DefaultRole, FailedAttempts, Identity, Issuer,
    IssuerKind, Jwks, KeyFile, Loopback, OnStale, Revocations, RoleMapping, RoleName, Scalar,
};
pub use internal::{InternalListener, InternalTls};
pub use limit::{Burst, BurstTokens, Cost, Limit, LimitBackend, LimitFail, LimitKey, LimitKeys, PerRole};
pub use listener::{
    AdminListener, ClientAuth, Cors, ForwardedHeader, ListenerLimits, ListenerTls, Listeners, McpListener,
    MetricsListener,
};
pub use net::{Address, Cidr, HostPattern, HttpUrl, UrlPattern};
pub use policy::{DefaultEffect, Matcher, Policy, PrincipalKindName, RecordBodies, Rule};
pub use process::{InsecureOptions, Runtime, Sessions, Shutdown};
pub use route::Route;
pub use samples::Samples;
pub use server::{
    Balance, Basic, Breaker, Catalogue, Credential, Dns, Era, HashKey, HeaderCredential, Health, Http,
    Outlier, Pool, Probe, Retry, Server, Target, Timeouts, UpstreamTls, WeightedTarget,
};
pub use store::{Encryption, HistoryRetention, MigrateWhen, Store};
pub use telemetry::{AccessLog, Log, LogFormat, LogLevel, MetricsCaps, Otlp, Telemetry};
pub use tenant::{Grants, SourceKind, Tenant, TenantDocument};
pub use text::{BadText, HeaderName, Name, SecretText};
pub use units::{Percent, Period, Rate, Size};
pub use valkey::Valkey;

/// The only document version there is.
pub const VERSION: u64 = 1;

/// A Tollgate configuration file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Tollgate configuration")]
pub struct Document {
    /// Version of this format: always `1`.
    #[schemars(range(min = 1, max = 1))]
    pub version: u64,
    /// Where clients and operators connect. Changes need a restart.
    #[serde(default)]
    pub listeners: Listeners,
    /// Threads. Changes need a restart.
    #[serde(default)]
    pub runtime: Runtime,
    /// Folder for what must survive a restart: the key that seals session ids, cached key sets. Created with mode 0700.
    #[serde(default = "data_dir")]
    pub data_dir: PathBuf,
    /// Where configuration, identities, audit and usage are kept. Changes need a restart.
    #[serde(default)]
    pub store: Store,
    /// How long sessions live and how many there may be.
    #[serde(default)]
    pub sessions: Sessions,
    /// Where tenants and their documents come from. Changes need a restart.
    #[serde(default)]
    pub source: SourceKind,
    /// Tenants besides `default`, whose servers, routes, limits, policies and identity are those of the top level.
    #[serde(default)]
    #[schemars(length(max = 10_000))]
    pub tenants: Vec<Tenant>,
    /// The MCP servers behind the gateway.
    #[serde(default)]
    pub servers: Vec<Server>,
    /// What clients dial.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Named token buckets that routes refer to.
    #[serde(default)]
    pub limits: Vec<Limit>,
    /// Named rule lists that routes refer to.
    #[serde(default)]
    pub policies: Vec<Policy>,
    /// How callers prove who they are. Without it every caller is refused.
    #[serde(default)]
    pub identity: Identity,
    /// Logs, traces, metrics.
    #[serde(default)]
    pub telemetry: Telemetry,
    /// The server that replicas share for exact limits. Changes need a restart.
    #[serde(default)]
    pub valkey: Option<Valkey>,
    /// What is recorded of decisions and actions.
    #[serde(default)]
    pub audit: Audit,
    /// A sample of requests that is kept for `tollgate whatif`. Changes need a restart.
    #[serde(default)]
    pub samples: Samples,
    /// How the process ends.
    #[serde(default)]
    pub shutdown: Shutdown,
    /// Switches that weaken a protection. Each says what it gives up.
    #[serde(default)]
    pub insecure_options: InsecureOptions,
}

impl Default for Document {
    fn default() -> Self {
        Self {
            version: VERSION,
            listeners: Listeners::default(),
            runtime: Runtime::default(),
            data_dir: data_dir(),
            store: Store::default(),
            sessions: Sessions::default(),
            source: SourceKind::default(),
            tenants: Vec::new(),
            servers: Vec::new(),
            routes: Vec::new(),
            limits: Vec::new(),
            policies: Vec::new(),
            identity: Identity::default(),
            telemetry: Telemetry::default(),
            valkey: None,
            audit: Audit::default(),
            samples: Samples::default(),
            shutdown: Shutdown::default(),
            insecure_options: InsecureOptions::default(),
        }
    }
}

fn data_dir() -> PathBuf {
    PathBuf::from("./data")
}
