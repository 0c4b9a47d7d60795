//! One request as it is kept for later questions: what decided about it, and how it ended. No bodies.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A recorded request. As JSON, one line of a file of samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestSample {
    /// When it came, in milliseconds since the Unix epoch.
    pub time: u64,
    /// How many requests it stands for; a complete record has 1 everywhere.
    #[serde(default = "one")]
    pub weight: u32,
    /// The tenant it was for; none if no route matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The route it was for; none if no route matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// The host it was sent to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The path it was sent to. Without it, `route` says where it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The server it was sent on to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// The JSON-RPC method.
    pub method: String,
    /// The tool, prompt or resource, by its server's own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Who called; none if that was not found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<SampledPrincipal>,
    /// The client's address.
    pub ip: IpAddr,
    /// How it ended, by the words of metrics and the access log.
    pub outcome: String,
    /// The arguments of the call, if keeping them is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<String>,
}

/// A caller, as far as policies and limits ask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampledPrincipal {
    /// The stable id.
    pub id: String,
    /// `anonymous`, `key`, `service` or `user`.
    pub kind: String,
    /// Names of roles.
    pub roles: Vec<String>,
    /// Groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Scopes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
}

fn one() -> u32 {
    1
}
