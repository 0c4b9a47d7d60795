//! What clients dial.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::net::HostPattern;
use super::text::Name;

/// One endpoint for clients: a path, optionally on certain hosts, that leads to a server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Unique name, used by metrics and logs.
    pub name: Name,
    /// Path that clients dial. Default: `/mcp/<name>`. Matches exactly, with or without a trailing slash.
    #[serde(default)]
    #[schemars(length(min = 1, max = 256))]
    pub path: Option<String>,
    /// Hosts on which the route exists. Empty: on every allowed host. A route with a host wins over one without.
    #[serde(default)]
    pub hosts: Vec<HostPattern>,
    /// The server behind it: exactly one name.
    #[schemars(length(min = 1, max = 64))]
    pub servers: Vec<Name>,
    /// Limits that apply, all of them. Default: `[default]`, the built-in limit by role (see `limits`), unless the
    /// document defines a limit of that name. An empty list means no limits.
    #[serde(default = "default_limits")]
    pub limits: Vec<Name>,
    /// Policy that decides who may do what. Default: whoever is identified may do everything.
    #[serde(default)]
    pub policy: Option<Name>,
    /// Token audiences accepted besides the route's own URL, for issuers that cannot be told that URL.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// Scopes that a token must all have; 403 `insufficient_scope` otherwise. Named in OAuth metadata and challenges.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// JSON-RPC methods that exist on this route; `*` matches any text. Empty: all. Others are answered as unknown methods.
    #[serde(default)]
    pub methods: Vec<String>,
}

fn default_limits() -> Vec<Name> {
    vec![super::limit::default_name()]
}

impl Route {
    /// The path that clients dial.
    pub fn path(&self) -> String {
        self.path.clone().unwrap_or_else(|| format!("/mcp/{}", self.name))
    }
}
