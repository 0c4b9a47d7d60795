//! A policy as configured. Plain data; the configuration maps onto it.

use std::sync::Arc;

use ipnet::IpNet;

use crate::base::{PrincipalKind, Role};

/// What a rule, or the default, does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Let the request go on.
    Allow,
    /// Refuse it.
    Deny,
}

impl Effect {
    /// The word used in configuration and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Effect::Allow => "allow",
            Effect::Deny => "deny",
        }
    }
}

/// A named list of rules.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicySpec {
    /// Unique in its tenant.
    pub name: String,
    /// What happens if no rule matches.
    pub default: Effect,
    /// Whether a denied caller is told so, instead of hearing that the tool does not exist.
    pub explain: bool,
    /// In order; the first that matches decides. At most 1000.
    pub rules: Vec<RuleSpec>,
}

/// One rule. An empty list means "any"; see the module's documentation for what each field is compared with. Lists of
/// text hold patterns ([`crate::base::glob`]).
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSpec {
    /// For logs and explanations.
    pub name: Option<String>,
    /// What it does.
    pub effect: Effect,
    /// Any of the caller's roles.
    pub roles: Vec<Role>,
    /// The caller's kind.
    pub kinds: Vec<PrincipalKind>,
    /// The caller's stable id.
    pub principals: Vec<String>,
    /// Any of the caller's groups.
    pub groups: Vec<String>,
    /// Any of the credential's scopes.
    pub scopes: Vec<String>,
    /// The JSON-RPC method.
    pub methods: Vec<String>,
    /// The tool's name.
    pub tools: Vec<String>,
    /// The prompt's name.
    pub prompts: Vec<String>,
    /// The resource's URI, or a template's text.
    pub resources: Vec<String>,
    /// The server's id. Requests that are for no particular server do not match.
    pub servers: Vec<String>,
    /// Networks of the client's address. An IPv4 address that arrives mapped into IPv6 counts as IPv4.
    pub cidrs: Vec<IpNet>,
    /// A CEL expression that must be true.
    pub when: Option<String>,
    /// What is recorded of the bodies of requests that it decides.
    pub record: Option<Record>,
}

/// What is recorded of the bodies of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The request's.
    pub request: bool,
    /// The response's.
    pub response: bool,
    /// Most bytes of each.
    pub max: usize,
    /// Names of JSON members whose values are left out.
    pub redact: Arc<[Box<str>]>,
}

impl RuleSpec {
    /// A rule that matches everything.
    pub fn new(effect: Effect) -> Self {
        Self {
            name: None,
            effect,
            roles: Vec::new(),
            kinds: Vec::new(),
            principals: Vec::new(),
            groups: Vec::new(),
            scopes: Vec::new(),
            methods: Vec::new(),
            tools: Vec::new(),
            prompts: Vec::new(),
            resources: Vec::new(),
            servers: Vec::new(),
            cidrs: Vec::new(),
            when: None,
            record: None,
        }
    }
}
