//! Tenants: who owns which hosts and paths, what each may do, and the document of each.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::identity::Identity;
use super::limit::Limit;
use super::net::{Cidr, HostPattern, UrlPattern};
use super::policy::Policy;
use super::route::Route;
use super::server::Server;
use super::text::Name;

/// Where tenants and their documents come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// From the store, where every change is a revision. `tollgate apply` brings this file's tenants and documents there.
    Database,
    /// From this file, which is watched.
    #[default]
    File,
}

/// Somebody with servers, routes and callers of their own. What the top level of this file says belongs to the tenant
/// `default`, which may do everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// Unique name. Not `default` and not `platform`.
    pub name: Name,
    /// Hosts that are the tenant's, without ports, such as `acme.example.com` or `*.acme.example.com`. Empty: every host
    /// that is nobody's own. The first one without `*` is the base of the tenant's token audiences and OAuth metadata.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub hosts: Vec<HostPattern>,
    /// Path under which all routes of the tenant are. Default: `/t/<name>`, or everything on its `hosts` if it has any.
    #[serde(default)]
    #[schemars(length(min = 1, max = 128))]
    pub path_prefix: Option<String>,
    /// What the tenant's document may do beyond the harmless.
    #[serde(default)]
    pub grants: Grants,
    /// The tenant's own document.
    #[serde(default)]
    pub document: Option<TenantDocument>,
}

impl Tenant {
    /// The path under which all routes are, default filled in: empty for everything, otherwise without a slash at its end.
    pub fn prefix(&self) -> String {
        match &self.path_prefix {
            Some(prefix) => prefix.trim_end_matches('/').to_owned(),
            None if self.hosts.is_empty() => format!("/t/{}", self.name),
            None => String::new(),
        }
    }
}

/// What a tenant's document may do beyond the harmless. Everything is off unless it is granted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Grants {
    /// Whether it may refer to environment variables of the gateway, `${env:NAME}`: all of them.
    pub env: bool,
    /// Whether it may name files of the gateway's machine, in `${file:/path}` and in every other key: all of them.
    pub file: bool,
    /// Networks besides the public ones in which its servers and issuers may be: private, loopback and others that the
    /// Internet does not reach. Link-local addresses and those of cloud metadata services need an entry of their own, no
    /// wider than `169.254.0.0/16` or `fe80::/10`; a wider network does not include them.
    #[schemars(length(max = 64))]
    pub private_targets: Vec<Cidr>,
    /// Issuers whose tokens it may accept, and places their keys may come from, such as `https://login.example.com` or
    /// `https://*.example.com/realms/acme/*`. Empty: any that are public.
    #[schemars(length(max = 64))]
    pub issuers: Vec<UrlPattern>,
    /// Whether it may let callers in who prove nothing (`identity.anonymous`).
    pub anonymous: bool,
}

/// What is a tenant's own to say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TenantDocument {
    /// Version of this format: always `1`.
    #[schemars(range(min = 1, max = 1))]
    pub version: u64,
    /// The MCP servers behind the gateway.
    pub servers: Vec<Server>,
    /// What clients dial. The default path is `<path_prefix>/mcp/<name>`.
    pub routes: Vec<Route>,
    /// Named token buckets that routes refer to.
    pub limits: Vec<Limit>,
    /// Named rule lists that routes refer to.
    pub policies: Vec<Policy>,
    /// How callers prove who they are. Without it every caller is refused.
    pub identity: Identity,
}

impl Default for TenantDocument {
    fn default() -> Self {
        Self {
            version: super::VERSION,
            servers: Vec::new(),
            routes: Vec::new(),
            limits: Vec::new(),
            policies: Vec::new(),
            identity: Identity::default(),
        }
    }
}
