//! What an operator defines: a named limit, compiled once and immutable.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use http::HeaderValue;
use sha2::{Digest, Sha256};

use super::headers::policy_header;
use super::rate::Rate;
use crate::base::glob::{Glob, GlobError};

/// The most limits one request may be subject to before checking them allocates; more of them work as well.
pub const MAX_LIMITS: usize = 8;

/// The longest name of a limit: it is sent to clients with every answer.
const MAX_NAME_BYTES: usize = 64;

/// The most entries of a cost table.
const MAX_COSTS: usize = 1024;

/// The prefix of an IPv6 address that is one customer: whoever has a `/64` has 2^64 addresses.
const IPV6_PREFIX_BITS: u32 = 64;

/// A part of what makes up a bucket's key. Requests that agree in all parts share a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyPart {
    /// The client's address; of an IPv6 address its `/64`.
    Ip,
    /// The API key used. The limit does not apply to callers without one.
    Key,
    /// The caller's stable id, of whatever kind; for callers without an identity their address, because all of them
    /// have the same id.
    Principal,
    /// The caller's highest role.
    Role,
    /// The route.
    Route,
    /// The server. The limit does not apply to requests that are for no particular server.
    Server,
    /// The tenant.
    Tenant,
    /// The tool. The limit does not apply to requests that call none.
    Tool,
    /// The caller's stable id, if it is a person. The limit does not apply to others.
    User,
}

/// The rate of a limit.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a few exist, for as long as a document compiles")]
pub enum Rates {
    /// The same for everybody.
    One(Rate),
    /// By the caller's highest role, indexed by `Role as usize`; roles with `None` are not limited.
    PerRole([Option<Rate>; 6]),
}

/// How many tokens a request takes. The first of these that applies: the tool's entry (an exact name before patterns,
/// patterns in order), the method's entry, the default. Zero means the limit does not apply.
#[derive(Clone, Debug, PartialEq)]
pub struct CostSpec {
    /// For everything not listed.
    pub default: u32,
    /// By JSON-RPC method.
    pub methods: Vec<(String, u32)>,
    /// By tool name or pattern, for `tools/call`.
    pub tools: Vec<(String, u32)>,
}

/// Where the buckets of a limit are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// In this process: each replica counts for itself.
    #[default]
    Local,
    /// On a server that all replicas ask, exact over all of them; with what happens while it does not answer.
    Shared(Outage),
}

/// What a shared limit does while its server does not answer and no leased tokens are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// Refuses.
    Closed,
    /// Counts in this process, at the full rate.
    Local,
    /// Lets pass.
    Open,
}

/// A limit as configured.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitSpec {
    /// Whose limit it is: a tenant's id, or a fixed word for the platform. With the name it identifies the buckets
    /// over reloads.
    pub scope: String,
    /// Unique in its scope; seen by clients.
    pub name: String,
    /// What makes up the key; empty means one bucket for all.
    pub key: Vec<KeyPart>,
    /// How fast.
    pub rates: Rates,
    /// How much a request takes.
    pub cost: CostSpec,
    /// Where its buckets are.
    pub backend: Backend,
}

/// A compiled limit.
#[derive(Debug)]
pub struct Limit {
    id: u128,
    name: Arc<str>,
    key: Box<[KeyPart]>,
    rates: Box<[Option<Priced>]>,
    cost: Costs,
    backend: Backend,
}

/// A rate with the header that announces it.
#[derive(Debug)]
pub(crate) struct Priced {
    pub(crate) rate: Rate,
    pub(crate) policy: HeaderValue,
}

#[derive(Debug)]
struct Costs {
    default: u32,
    methods: HashMap<Box<str>, u32, ahash::RandomState>,
    tools: HashMap<Box<str>, u32, ahash::RandomState>,
    patterns: Box<[(Glob, u32)]>,
}

/// Why a limit does not compile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// A request of this cost could never be granted.
    #[error("a cost of {cost} is more than the burst of {burst}: such a request would always be refused")]
    CostAboveBurst {
        /// The cost.
        cost: u32,
        /// The smallest burst of the limit's rates.
        burst: u64,
    },
    /// The same part twice.
    #[error("the key lists {0:?} twice")]
    DuplicateKeyPart(KeyPart),
    /// The name cannot be sent in a header.
    #[error("the name must have 1 to {MAX_NAME_BYTES} printable ASCII characters")]
    Name,
    /// A tool pattern is not one.
    #[error("cost of tool `{pattern}`")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        #[source]
        source: GlobError,
    },
    /// Too many cost entries.
    #[error("the cost table has more than {MAX_COSTS} entries")]
    TooManyCosts,
}

impl Default for CostSpec {
    fn default() -> Self {
        Self { default: 1, methods: Vec::new(), tools: Vec::new() }
    }
}

impl Limit {
    /// Compiles a limit.
    ///
    /// # Errors
    ///
    /// See [`LimitError`].
    pub fn compile(spec: &LimitSpec) -> Result<Self, LimitError> {
        let printable = spec.name.bytes().all(|b| (0x20..0x7f).contains(&b));
        if spec.name.is_empty() || spec.name.len() > MAX_NAME_BYTES || !printable {
            return Err(LimitError::Name);
        }
        for (i, part) in spec.key.iter().enumerate() {
            if spec.key[..i].contains(part) {
                return Err(LimitError::DuplicateKeyPart(*part));
            }
        }
        let rates: Vec<Option<Rate>> = match &spec.rates {
            Rates::One(rate) => vec![Some(*rate)],
            Rates::PerRole(rates) => rates.to_vec(),
        };
        let costs = spec.cost.methods.iter().chain(&spec.cost.tools).map(|(_, cost)| *cost);
        let highest = costs.chain([spec.cost.default]).max().unwrap_or(0);
        if let Some(burst) = rates.iter().flatten().map(Rate::burst).min()
            && u64::from(highest) > burst
        {
            return Err(LimitError::CostAboveBurst { cost: highest, burst });
        }
        let priced =
            |rate: Option<Rate>| rate.map(|rate| Priced { rate, policy: policy_header(&spec.name, &rate) });
        Ok(Self {
            id: stable_id(&spec.scope, &spec.name),
            name: spec.name.as_str().into(),
            key: spec.key.as_slice().into(),
            rates: rates.into_iter().map(priced).collect(),
            cost: Costs::compile(&spec.cost)?,
            backend: spec.backend,
        })
    }

    /// The name clients see.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its buckets are.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    pub(crate) fn shared_name(&self) -> Arc<str> {
        self.name.clone()
    }

    /// Identifies the limit's buckets; the same for the same scope and name.
    pub(crate) fn id(&self) -> u128 {
        self.id
    }

    pub(crate) fn key(&self) -> &[KeyPart] {
        &self.key
    }

    /// The rate for a role; `None` if it is not limited.
    pub(crate) fn rate(&self, role: impl FnOnce() -> usize) -> Option<&Priced> {
        match &*self.rates {
            [one] => one.as_ref(),
            per_role => per_role.get(role())?.as_ref(),
        }
    }

    /// What a request costs.
    pub(crate) fn cost(&self, method: &str, tool: Option<&str>) -> u32 {
        self.cost.of(method, tool)
    }
}

impl Costs {
    fn compile(spec: &CostSpec) -> Result<Self, LimitError> {
        if spec.methods.len() + spec.tools.len() > MAX_COSTS {
            return Err(LimitError::TooManyCosts);
        }
        let mut tools = HashMap::default();
        let mut patterns = Vec::new();
        for (pattern, cost) in &spec.tools {
            let glob = Glob::new(pattern)
                .map_err(|source| LimitError::Pattern { pattern: pattern.clone(), source })?;
            match glob.as_exact() {
                Some(name) => drop(tools.insert(Box::from(name), *cost)),
                None => patterns.push((glob, *cost)),
            }
        }
        let methods = spec.methods.iter().map(|(m, cost)| (m.as_str().into(), *cost)).collect();
        Ok(Self { default: spec.default, methods, tools, patterns: patterns.into() })
    }

    fn of(&self, method: &str, tool: Option<&str>) -> u32 {
        if let Some(tool) = tool {
            // An empty table must not cost a hash.
            if !self.tools.is_empty()
                && let Some(cost) = self.tools.get(tool)
            {
                return *cost;
            }
            if let Some((_, cost)) = self.patterns.iter().find(|(glob, _)| glob.matches(tool)) {
                return *cost;
            }
        }
        match self.methods.is_empty() {
            true => self.default,
            false => self.methods.get(method).copied().unwrap_or(self.default),
        }
    }
}

/// The part of an address that limits count by: an IPv4 address (also if mapped into IPv6), or the `/64` of an IPv6 address.
pub fn address_prefix(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => {
            let mask = u128::MAX << (128 - IPV6_PREFIX_BITS);
            IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask))
        }
    }
}

/// A digest, so that no choice of names makes two limits share buckets.
fn stable_id(scope: &str, name: &str) -> u128 {
    let mut hash = Sha256::new();
    hash.update((scope.len() as u64).to_le_bytes());
    hash.update(scope);
    hash.update(name);
    let mut id = [0; 16];
    id.copy_from_slice(&hash.finalize()[..16]);
    u128::from_le_bytes(id)
}
