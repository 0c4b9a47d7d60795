//! The process: threads, sessions, its end, and what it may do without.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::Period;

/// Threads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Runtime {
    /// Threads that carry MCP traffic. `0`: one per core.
    #[schemars(range(min = 0, max = 1024))]
    pub data_threads: u32,
    /// Threads for the admin listener, health probes and refreshes.
    #[schemars(range(min = 1, max = 64))]
    pub control_threads: u32,
}

impl Default for Runtime {
    fn default() -> Self {
        Self { data_threads: 0, control_threads: 2 }
    }
}

/// How long sessions live and how many there may be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sessions {
    /// Age at which a session ends, however busy; 404 after, and clients start a new one.
    pub max_age: Period,
    /// Time without a request after which the memory kept for a session is given back. Its id goes on working.
    pub idle_ttl: Period,
    /// Sessions per tenant at once. The longest idle one makes room.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_per_tenant: u32,
    /// Sessions at once in all.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_total: u32,
    /// File with the keys that seal session ids, mode 0600; created if missing. Default: `session.keys` in `data_dir`.
    pub key_file: Option<PathBuf>,
    /// Age at which a new sealing key is made. Old ones open what they sealed until its `max_age` has passed.
    pub key_rotation: Period,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            max_age: Period::from_secs(24 * 3600),
            idle_ttl: Period::from_secs(3600),
            max_per_tenant: 50_000,
            max_total: 200_000,
            key_file: None,
            key_rotation: Period::from_secs(7 * 24 * 3600),
        }
    }
}

/// How the process ends after SIGTERM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// Time in which `/readyz` fails while requests are still accepted, so that load balancers notice.
    pub announce: Period,
    /// Time given to requests in flight after no more are accepted.
    pub drain: Period,
    /// Time given to streams to end politely, within `drain`.
    pub streams: Period,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { announce: Period::from_secs(0), drain: Period::from_secs(30), streams: Period::from_secs(5) }
    }
}

/// Switches that weaken a protection. All are off by default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct InsecureOptions {
    /// Allow listeners that others can reach without identity. Gives up: knowing who calls.
    pub open: bool,
    /// Allow issuers' key sets over plain HTTP from other machines. Gives up: the authenticity of every token.
    pub plaintext_jwks: bool,
}
