//! Who may do what.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::identity::RoleName;
use super::net::Cidr;
use super::text::Name;
use super::units::Size;

/// An ordered list of rules; the first that matches decides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Unique name that routes refer to.
    pub name: Name,
    /// What happens when no rule matches. `deny` leaves handshake, pings, notifications and lists alone; the entries of
    /// lists are decided one by one.
    #[serde(default)]
    pub default: DefaultEffect,
    /// Whether a denied call is answered with the reason. Otherwise a denied tool looks like one that does not exist.
    #[serde(default)]
    pub explain: bool,
    /// The rules, in order.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    pub rules: Vec<Rule>,
}

/// What happens when no rule matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DefaultEffect {
    /// The request passes.
    Allow,
    /// The request is refused.
    #[default]
    Deny,
}

/// One rule: either `allow` or `deny`, with what it matches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Name for logs, audit and explanations. Default: the rule's number.
    #[serde(default)]
    pub name: Option<Name>,
    /// Requests that this matches pass.
    #[serde(default)]
    pub allow: Option<Matcher>,
    /// Requests that this matches are refused.
    #[serde(default)]
    pub deny: Option<Matcher>,
    /// A CEL expression that must also be true, such as `arguments.path.startsWith("/srv/")`. One that fails denies.
    #[serde(default)]
    #[schemars(length(min = 1, max = 4096), extend("x-tollgate-expression" = true))]
    pub when: Option<String>,
    /// Records the bodies of requests that this rule decides in the audit, where only auditors read them. Without it no
    /// body is recorded.
    #[serde(default)]
    pub record: Option<RecordBodies>,
}

/// What is recorded of the bodies of requests that a rule decides, refused ones included. `{}` records both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RecordBodies {
    /// Whether the request's body is recorded, as the client sent it.
    pub request: bool,
    /// Whether the answer's body is recorded, as the client got it. Of an event stream: the message that ends the call.
    pub response: bool,
    /// Bytes of each body that are kept; what is longer is cut, and the event says by how much. From `1B` to `64KiB`.
    pub max: Size,
    /// Names of JSON members whose values are replaced by `[redacted]` before anything is recorded, at any depth and in
    /// whatever case they are written. What does not say its name, such as prose, is not found.
    #[schemars(length(max = 100))]
    pub redact: Vec<String>,
}

impl Default for RecordBodies {
    fn default() -> Self {
        Self { request: true, response: true, max: Size::from_kib(16), redact: Vec::new() }
    }
}

impl Rule {
    /// What the rule matches, and whether it allows. `None` unless it is exactly one of the two, as validation ensures.
    pub fn effect(&self) -> Option<(bool, &Matcher)> {
        match (&self.allow, &self.deny) {
            (Some(matcher), None) => Some((true, matcher)),
            (None, Some(matcher)) => Some((false, matcher)),
            _ => None,
        }
    }
}

/// What a rule matches. All lists that are given must match; a list matches if one of its entries does. A
/// matcher without lists, `{}`, matches every request. In patterns, `*` stands for any text, `?` for one character, and
/// a backslash takes the meaning from the character after it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Matcher {
    /// Roles; the caller has one of them.
    #[schemars(length(min = 1, max = 1000))]
    pub roles: Vec<RoleName>,
    /// Principal ids; `*` matches any text.
    #[schemars(length(min = 1, max = 1000))]
    pub principals: Vec<String>,
    /// Kinds of caller.
    #[schemars(length(min = 1, max = 1000))]
    pub kinds: Vec<PrincipalKindName>,
    /// Groups as the issuer states them; the caller is in one. `*` matches any text.
    #[schemars(length(min = 1, max = 1000))]
    pub groups: Vec<String>,
    /// OAuth or key scopes; the caller has one. `*` matches any text.
    #[schemars(length(min = 1, max = 1000))]
    pub scopes: Vec<String>,
    /// JSON-RPC methods, such as `tools/call`; `*` matches any text.
    #[schemars(length(min = 1, max = 1000))]
    pub methods: Vec<String>,
    /// Tools, by the server's own names; `*` matches any text. Requests that reach no tool do not match.
    #[schemars(length(min = 1, max = 1000))]
    pub tools: Vec<String>,
    /// Prompts, by the server's own names; `*` matches any text. With tools or resources: requests for any of them.
    #[schemars(length(min = 1, max = 1000))]
    pub prompts: Vec<String>,
    /// Resource URIs; `*` matches any text. With tools or prompts: requests for any of them.
    #[schemars(length(min = 1, max = 1000))]
    pub resources: Vec<String>,
    /// Servers.
    #[schemars(length(min = 1, max = 1000))]
    pub servers: Vec<Name>,
    /// Networks the client is in.
    #[schemars(length(min = 1, max = 1000))]
    pub cidr: Vec<Cidr>,
}

/// A kind of caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PrincipalKindName {
    /// Presented no credential.
    Anonymous,
    /// Presented an API key.
    Key,
    /// A program with a token of its own.
    Service,
    /// A person.
    User,
}

impl From<PrincipalKindName> for crate::base::PrincipalKind {
    fn from(kind: PrincipalKindName) -> Self {
        match kind {
            PrincipalKindName::Anonymous => Self::Anonymous,
            PrincipalKindName::Key => Self::Key,
            PrincipalKindName::Service => Self::Service,
            PrincipalKindName::User => Self::User,
        }
    }
}
