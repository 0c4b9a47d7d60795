//! The server that replicas share for exact limits.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::SecretText;
use super::units::Period;

/// A Valkey or Redis server (7 or later) that all replicas ask for limits with `backend: valkey`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Valkey {
    /// Where it is, such as `redis://10.0.0.5:6379`; `rediss://` speaks TLS. One, or with `cluster` some of its nodes.
    /// User and password have fields of their own.
    #[schemars(length(min = 1, max = 64))]
    pub urls: Vec<String>,
    /// Whether it is a cluster; keys are spread over its nodes.
    #[serde(default)]
    pub cluster: bool,
    /// PEM file with the authorities that may have signed its certificate. Default: those of the system.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// User, if it has more than the default one.
    #[serde(default)]
    pub username: Option<String>,
    /// Password.
    #[serde(default)]
    pub password: Option<SecretText>,
    /// How long a request may wait for it. After that the limit's `fail` decides.
    #[serde(default = "timeout")]
    pub timeout: Period,
    /// Begins every key, so that several installations can share a server.
    #[serde(default = "prefix")]
    #[schemars(length(min = 1, max = 64))]
    pub prefix: String,
}

fn timeout() -> Period {
    Period::from_millis(250)
}

fn prefix() -> String {
    "tollgate".to_owned()
}
