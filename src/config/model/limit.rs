//! Named token buckets.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::Name;
use super::units::Rate;
use crate::base::Role;

/// The name of the limit that routes have unless they say otherwise.
pub const DEFAULT_LIMIT: &str = "default";

/// A token bucket per key: so many requests per time, with a burst.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Unique name. A limit named `default` replaces the built-in one.
    pub name: Name,
    /// What has a bucket of its own: one key, or a list for the combination of several.
    pub key: LimitKeys,
    /// Tokens per time, for every caller. Either this or `per_role`.
    #[serde(default)]
    pub rate: Option<Rate>,
    /// Tokens per time by the caller's most powerful role. Either this or `rate`. A role that is not named has the rate
    /// of the next weaker role that is, or else of the weakest named.
    #[serde(default)]
    pub per_role: Option<PerRole>,
    /// Size of the bucket.
    #[serde(default)]
    pub burst: Burst,
    /// Tokens that a request takes.
    #[serde(default)]
    pub cost: Cost,
    /// Where the buckets are. With `valkey` all replicas share them exactly, and the section `valkey` is needed.
    #[serde(default)]
    pub backend: LimitBackend,
    /// What a limit with `backend: valkey` does while that server does not answer.
    #[serde(default)]
    pub fail: LimitFail,
}

/// Where buckets are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitBackend {
    /// In the process: each replica counts for itself.
    #[default]
    Local,
    /// On the Valkey or Redis server of the section `valkey`, for all replicas together.
    Valkey,
}

/// What a shared limit does while its server does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitFail {
    /// Refuses, with 429 and `Retry-After: 1`.
    Closed,
    /// Counts in the process: each replica grants the full rate.
    #[default]
    Local,
    /// Does not limit.
    Open,
}

/// What a bucket belongs to: one key or the combination of several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum LimitKeys {
    /// One key.
    One(LimitKey),
    /// The combination of several keys: each combination has a bucket.
    Several(#[schemars(length(min = 1, max = 4))] Vec<LimitKey>),
}

impl LimitKeys {
    /// The keys, as written.
    pub fn as_slice(&self) -> &[LimitKey] {
        match self {
            LimitKeys::One(key) => std::slice::from_ref(key),
            LimitKeys::Several(keys) => keys,
        }
    }
}

/// What a bucket belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitKey {
    /// The client's address (IPv6: its /64).
    Ip,
    /// The API key. Callers without one are not limited.
    Key,
    /// The caller. Anonymous callers are told apart by address.
    Principal,
    /// The caller's most powerful role: all its holders share one bucket.
    Role,
    /// The route.
    Route,
    /// The server. Requests for no particular server do not count.
    Server,
    /// The tenant.
    Tenant,
    /// The tool called. Requests that call none do not count.
    Tool,
    /// The person. Callers that are not people do not count.
    User,
}

/// A rate for each role.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PerRole {
    /// Rate of `super_admin`.
    pub super_admin: Option<Rate>,
    /// Rate of `admin`.
    pub admin: Option<Rate>,
    /// Rate of `server_owner`.
    pub server_owner: Option<Rate>,
    /// Rate of `developer`.
    pub developer: Option<Rate>,
    /// Rate of `viewer`.
    pub viewer: Option<Rate>,
    /// Rate of `anonymous`.
    pub anonymous: Option<Rate>,
}

impl PerRole {
    /// The rate written for a role.
    pub fn named(&self, role: Role) -> Option<Rate> {
        match role {
            Role::Anonymous => self.anonymous,
            Role::Viewer => self.viewer,
            Role::Developer => self.developer,
            Role::ServerOwner => self.server_owner,
            Role::Admin => self.admin,
            Role::SuperAdmin => self.super_admin,
        }
    }

    /// The rate that applies to a role. `None` only if no role is named at all, which validation refuses.
    pub fn rate(&self, role: Role) -> Option<Rate> {
        let weaker = Role::ALL.into_iter().filter(|r| *r <= role).rev().find_map(|r| self.named(r));
        weaker.or_else(|| Role::ALL.into_iter().find_map(|r| self.named(r)))
    }
}

/// The size of a bucket: a factor of the rate's count, or tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Burst {
    /// So many times the count of the rate: with `200/m`, `1.5` makes 300 tokens. From 0.01 to 100, at least one token.
    Factor(#[schemars(range(min = 0.01, max = 100))] f64),
    /// So many tokens.
    Tokens(BurstTokens),
}

/// The size of a bucket in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BurstTokens {
    /// Tokens in a full bucket.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub tokens: u64,
}

impl Default for Burst {
    fn default() -> Self {
        Burst::Factor(1.0)
    }
}

impl Burst {
    /// Tokens in a full bucket of a rate; at least 1.
    pub fn tokens(self, rate: Rate) -> u64 {
        match self {
            Burst::Factor(factor) => ((rate.count() as f64 * factor).round() as u64).max(1),
            Burst::Tokens(BurstTokens { tokens }) => tokens.max(1),
        }
    }
}

/// Tokens that a request takes. The most specific entry counts: tool, then method, then `default`. `0`: the limit does
/// not apply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cost {
    /// Tokens of a request that nothing else names.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub default: u32,
    /// Tokens by JSON-RPC method, such as `tools/call`.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub methods: BTreeMap<String, u32>,
    /// Tokens by tool. An exact name counts before a pattern (`search_*`), and of several patterns the dearest.
    pub tools: BTreeMap<String, u32>,
}

impl Default for Cost {
    fn default() -> Self {
        Self { default: 1, methods: BTreeMap::new(), tools: BTreeMap::new() }
    }
}

impl Cost {
    /// The entries for tools, dearest first: the first pattern that matches is the one that counts.
    pub fn tools_dearest_first(&self) -> Vec<(&str, u32)> {
        let mut tools: Vec<(&str, u32)> =
            self.tools.iter().map(|(name, tokens)| (name.as_str(), *tokens)).collect();
        tools.sort_by_key(|(_, tokens)| std::cmp::Reverse(*tokens));
        tools
    }
}

pub(crate) fn default_name() -> Name {
    DEFAULT_LIMIT.parse().expect("the default limit's name is a valid name")
}

impl Limit {
    /// The built-in limit that routes have unless they say otherwise: per caller, by role, from 1000 to 20 per minute.
    pub fn built_in() -> Self {
        let rate = |count| Some(Rate::per_minute(count));
        Self {
            name: default_name(),
            key: LimitKeys::One(LimitKey::Principal),
            rate: None,
            per_role: Some(PerRole {
                super_admin: rate(1000),
                admin: rate(1000),
                server_owner: rate(500),
                developer: rate(200),
                viewer: rate(60),
                anonymous: rate(20),
            }),
            burst: Burst::Factor(1.5),
            cost: Cost::default(),
            backend: LimitBackend::default(),
            fail: LimitFail::default(),
        }
    }

    /// The rate that applies to a role. `None` only before validation.
    pub fn rate_of(&self, role: Role) -> Option<Rate> {
        self.rate.or_else(|| self.per_role.as_ref()?.rate(role))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_without_a_rate_takes_that_of_the_next_weaker_one() {
        let table = PerRole {
            admin: Some(Rate::per_minute(900)),
            viewer: Some(Rate::per_minute(60)),
            ..PerRole::default()
        };
        let count = |role| table.rate(role).unwrap().count();
        assert_eq!(count(Role::SuperAdmin), 900);
        assert_eq!(count(Role::Developer), 60);
        assert_eq!(count(Role::Anonymous), 60, "nothing weaker is named");
    }

    #[test]
    fn burst_is_a_factor_of_the_count_or_tokens() {
        let rate = Rate::per_minute(200);
        assert_eq!(Burst::Factor(1.5).tokens(rate), 300);
        assert_eq!(Burst::Factor(0.01).tokens(Rate::per_minute(1)), 1);
        assert_eq!(Burst::Tokens(BurstTokens { tokens: 20 }).tokens(rate), 20);
    }
}
