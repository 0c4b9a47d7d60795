//! How callers prove who they are.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::net::HttpUrl;
use super::text::{Name, SecretText};
use super::units::{Period, Rate};
use crate::base::Role;

/// How callers prove who they are. A caller who proves nothing is refused, unless `anonymous` says otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Identity {
    /// API keys (`tg_…`): `true` for those of the store, or a file with keys.
    pub api_keys: Option<ApiKeys>,
    /// Issuers of JWT access tokens.
    #[schemars(length(max = 32))]
    pub issuers: Vec<Issuer>,
    /// Callers without a credential. Without this they are refused.
    pub anonymous: Option<Anonymous>,
    /// Callers without a credential from this machine, on a loopback listener. For trying things out.
    pub loopback: Option<Loopback>,
    /// Credentials that are no longer good.
    pub revocations: Option<Revocations>,
    /// Bound on failed attempts per client address. Verified credentials still pass above it.
    pub failed_attempts: FailedAttempts,
    /// Oldest that what the store last said about users, keys and revocations may be while it cannot be reached; at least
    /// 10 s.
    pub max_staleness: Period,
    /// What happens beyond `max_staleness`.
    pub on_stale: OnStale,
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            api_keys: None,
            issuers: Vec::new(),
            anonymous: None,
            loopback: None,
            revocations: None,
            failed_attempts: FailedAttempts::default(),
            max_staleness: Period::from_secs(24 * 3600),
            on_stale: OnStale::default(),
        }
    }
}

impl Identity {
    /// Whether API keys of the store are accepted.
    pub fn store_keys(&self) -> bool {
        matches!(self.api_keys, Some(ApiKeys::Store(true)))
    }

    /// The file with API keys, if they come from one.
    pub fn key_file(&self) -> Option<&KeyFile> {
        match &self.api_keys {
            Some(ApiKeys::File(file)) => Some(file),
            _ => None,
        }
    }

    /// Whether nothing is said of who may call.
    pub fn says_nothing(&self) -> bool {
        !self.store_keys()
            && self.key_file().is_none()
            && self.issuers.is_empty()
            && self.anonymous.is_none()
            && self.loopback.is_none()
    }
}

/// What happens to callers whose standing the gateway has not heard of for too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnStale {
    /// Callers with a key of the store are refused until the store can be reached again.
    Refuse,
    /// The gateway goes on with what it knows.
    #[default]
    Serve,
}

/// Where API keys are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ApiKeys {
    /// `true`: in the store, where the API makes and revokes them. `false`: there are none.
    Store(bool),
    /// In a file.
    File(KeyFile),
}

/// API keys in a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    /// File with hashed keys: a YAML list or JSON lines. Read again when it changes.
    pub file: PathBuf,
    /// Secret mixed into the hashes (HMAC), at least 16 bytes. Without it, a stolen file can be searched for keys.
    #[serde(default)]
    pub pepper: Option<SecretText>,
}

/// An issuer of JWT access tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// Unique name, used in logs and principal ids.
    pub name: Name,
    /// The `iss` claim, exactly.
    #[schemars(length(min = 1, max = 2048))]
    pub issuer: String,
    /// Audiences accepted on every route, besides each route's own. Best left empty: a token for one service is then
    /// no good for another.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// Where the keys are. Default: where the issuer's OpenID configuration says.
    #[serde(default)]
    pub jwks: Jwks,
    /// Signature algorithms accepted.
    #[serde(default = "algorithms")]
    #[schemars(length(min = 1))]
    pub algorithms: Vec<Algorithm>,
    /// Clock difference tolerated in `exp` and `nbf`.
    #[serde(default = "leeway")]
    pub leeway: Period,
    /// Whether callers are people or programs.
    #[serde(default)]
    pub kind: IssuerKind,
    /// Claims that must all match, such as the customer's id at an issuer that serves many.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub required: Vec<ClaimTest>,
    /// Claim that is the principal's stable id, `<issuer name>|<claim>`.
    #[serde(default = "principal_claim")]
    #[schemars(length(min = 1, max = 256))]
    pub principal_claim: String,
    /// Claim with the groups, a list or a text with spaces. Dots go into objects: `realm_access.roles`.
    #[serde(default = "groups_claim")]
    #[schemars(length(min = 1, max = 256))]
    pub groups_claim: String,
    /// Claim with the scopes, a list or a text with spaces. Default: `scope`, or else `scp`.
    #[serde(default)]
    #[schemars(length(min = 1, max = 256))]
    pub scopes_claim: Option<String>,
    /// From claims to roles. Without it every caller of this issuer is a `viewer`.
    #[serde(default)]
    pub roles: RoleMapping,
}

fn algorithms() -> Vec<Algorithm> {
    vec![
        Algorithm::EdDSA,
        Algorithm::ES256,
        Algorithm::ES384,
        Algorithm::PS256,
        Algorithm::PS384,
        Algorithm::PS512,
        Algorithm::RS256,
        Algorithm::RS384,
        Algorithm::RS512,
    ]
}

fn leeway() -> Period {
    Period::from_secs(30)
}

fn principal_claim() -> String {
    "sub".to_owned()
}

fn groups_claim() -> String {
    "groups".to_owned()
}

/// Whether an issuer's callers are people or programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IssuerKind {
    /// A program if the token looks like one from the client-credentials grant, a person otherwise.
    #[default]
    Auto,
    /// Always programs.
    Service,
    /// Always people.
    User,
}

/// A signature algorithm. Symmetric ones are not offered: who can verify could also forge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(clippy::upper_case_acronyms, reason = "the names of RFC 7518")]
pub enum Algorithm {
    /// ECDSA, P-256, SHA-256.
    ES256,
    /// ECDSA, P-384, SHA-384.
    ES384,
    /// Ed25519.
    EdDSA,
    /// RSA-PSS, SHA-256.
    PS256,
    /// RSA-PSS, SHA-384.
    PS384,
    /// RSA-PSS, SHA-512.
    PS512,
    /// RSA, SHA-256.
    RS256,
    /// RSA, SHA-384.
    RS384,
    /// RSA, SHA-512.
    RS512,
}

/// Where an issuer's keys are: `url`, `file`, or neither for the issuer's OpenID configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Jwks {
    /// URL of the key set. Fetched in the background; the last good set stays in use.
    pub url: Option<HttpUrl>,
    /// File with the key set.
    pub file: Option<PathBuf>,
    /// Time between two fetches. A token with an unknown key id also causes one. Default: `5m`; files `10s`.
    pub refresh: Option<Period>,
    /// Age at which keys are no longer used if fetching fails.
    pub max_stale: Period,
}

impl Default for Jwks {
    fn default() -> Self {
        Self { url: None, file: None, refresh: None, max_stale: Period::from_secs(24 * 3600) }
    }
}

impl Jwks {
    /// Time between two fetches, default filled in.
    pub fn refresh(&self) -> Period {
        self.refresh.unwrap_or(if self.file.is_some() {
            Period::from_secs(10)
        } else {
            Period::from_secs(300)
        })
    }
}

/// From claims to roles: every value in `map` gives its role, then the first of `rules` that matches gives its own; with
/// neither, `default` is given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RoleMapping {
    /// Claim that `map` looks at: a text or a list. Dots go into objects: `realm_access.roles`.
    pub claim: Option<String>,
    /// From values of `claim` to roles.
    pub map: BTreeMap<String, RoleName>,
    /// Rules tried in order after `map`; the first that matches gives its role.
    #[schemars(length(max = 256))]
    pub rules: Vec<ClaimRule>,
    /// Role of a caller to whom nothing else applies. `none` refuses them.
    pub default: DefaultRole,
}

impl Default for RoleMapping {
    fn default() -> Self {
        Self { claim: None, map: BTreeMap::new(), rules: Vec::new(), default: DefaultRole::Viewer }
    }
}

/// A rule that gives a role: what a claim must say, as in `required`, and the role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimRule {
    /// What a claim must say.
    pub when: ClaimTest,
    /// Role given.
    pub role: RoleName,
}

/// A claim and what it must say: exactly one of `contains`, `equals` and `matches`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimTest {
    /// Claim to look at. Dots go into objects: `realm_access.roles`.
    #[schemars(length(min = 1, max = 256))]
    pub claim: String,
    /// Word that is in it: in a list, or among words separated by spaces.
    #[serde(default)]
    #[schemars(length(min = 1, max = 256))]
    pub contains: Option<String>,
    /// Value that it is, type included.
    #[serde(default)]
    pub equals: Option<Scalar>,
    /// Pattern of the whole text, or of one text of a list; `*` and `?` stand for other characters.
    #[serde(default)]
    #[schemars(length(min = 1, max = 256))]
    pub matches: Option<String>,
}

/// A single value of a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Scalar {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Number(i64),
    /// A text.
    Text(String),
}

/// One of the six roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RoleName {
    /// Nobody said who they are.
    Anonymous,
    /// May look.
    Viewer,
    /// May call tools.
    Developer,
    /// Owns registered servers.
    ServerOwner,
    /// Runs a tenant.
    Admin,
    /// Runs the platform.
    SuperAdmin,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Anonymous => Role::Anonymous,
            RoleName::Viewer => Role::Viewer,
            RoleName::Developer => Role::Developer,
            RoleName::ServerOwner => Role::ServerOwner,
            RoleName::Admin => Role::Admin,
            RoleName::SuperAdmin => Role::SuperAdmin,
        }
    }
}

/// The role of a caller to whom no mapping applies, or `none` to refuse them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DefaultRole {
    /// Refused.
    None,
    /// Nobody said who they are.
    Anonymous,
    /// May look.
    Viewer,
    /// May call tools.
    Developer,
    /// Owns registered servers.
    ServerOwner,
    /// Runs a tenant.
    Admin,
    /// Runs the platform.
    SuperAdmin,
}

impl DefaultRole {
    /// The role, or `None` if such callers are refused.
    pub fn role(self) -> Option<Role> {
        match self {
            DefaultRole::None => None,
            DefaultRole::Anonymous => Some(Role::Anonymous),
            DefaultRole::Viewer => Some(Role::Viewer),
            DefaultRole::Developer => Some(Role::Developer),
            DefaultRole::ServerOwner => Some(Role::ServerOwner),
            DefaultRole::Admin => Some(Role::Admin),
            DefaultRole::SuperAdmin => Some(Role::SuperAdmin),
        }
    }
}

/// Callers without a credential.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Anonymous {
    /// Their role.
    #[serde(default = "anonymous_role")]
    pub role: RoleName,
}

fn anonymous_role() -> RoleName {
    RoleName::Anonymous
}

/// Callers without a credential from this machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Loopback {
    /// Their role.
    #[serde(default = "loopback_role")]
    pub role: RoleName,
}

fn loopback_role() -> RoleName {
    RoleName::Developer
}

/// Credentials that are no longer good.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Revocations {
    /// File with revoked token and key ids (`jti`), subjects and principals: a YAML list or JSON lines. Read again when
    /// it changes.
    pub file: PathBuf,
}

/// Bound on failed attempts per client address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FailedAttempts {
    /// Failed attempts per time; above it, credentials that are not already verified are refused unread.
    pub rate: Rate,
    /// Failed attempts allowed at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: u32,
}

impl Default for FailedAttempts {
    fn default() -> Self {
        Self { rate: Rate::per_minute(30), burst: 30 }
    }
}
