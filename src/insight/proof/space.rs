//! The seven dimensions of a request, each as the classes that a set of policies tells apart.
//!
//! A class is kept as one of its members, and whether a rule matches a class is asked of the rule itself, with that
//! member. What is proved here is only that the classes are all there are and that no rule divides one.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

use super::bits::Bits;
use super::region::{Cube, DIMENSIONS};
use super::words::classes;
use super::{Error, Gate, MAX_CLASSES};
use crate::auth::{KEY_SCOPES, Source, SourceId, SourceScopes};
use crate::base::glob::Glob;
use crate::base::{Principal, PrincipalId, PrincipalKind, Role, RoleSet, TenantId};
use crate::policy::{COMPLETE, Facts, Item, ItemKind, MAX_NAME_BYTES, Patterns, Rule, is_open_method};

pub(crate) const WHAT: usize = 0;
pub(crate) const KINDS: usize = 1;
pub(crate) const ROLES: usize = 2;
pub(crate) const IDS: usize = 3;
pub(crate) const GROUPS: usize = 4;
pub(crate) const SCOPES: usize = 5;
pub(crate) const ADDRESSES: usize = 6;

/// Every kind of caller.
pub(crate) const ALL_KINDS: [PrincipalKind; 4] = PrincipalKind::ALL;

/// Methods that are told apart whatever the rules say: those that reach an item, and those that nothing but a rule
/// denies.
const METHODS: [&str; 20] = [
    "tools/call",
    "prompts/get",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    COMPLETE,
    "subscriptions/listen",
    "initialize",
    "logging/setLevel",
    "ping",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    "server/discover",
    "tasks/cancel",
    "tasks/get",
    "tasks/list",
    "tasks/result",
    "tasks/update",
    "tools/list",
];

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct What {
    pub(crate) method: String,
    pub(crate) item: Option<(ItemKind, String)>,
}

/// The classes of every dimension.
pub(crate) struct Space {
    pub(crate) whats: Vec<What>,
    pub(crate) roles: Vec<RoleSet>,
    pub(crate) ids: Vec<String>,
    pub(crate) groups: Vec<Vec<Arc<str>>>,
    pub(crate) scopes: Vec<Vec<Arc<str>>>,
    pub(crate) addresses: Vec<IpAddr>,
}

impl What {
    pub(crate) fn item(&self) -> Item<'_> {
        match &self.item {
            None => Item::None,
            Some((ItemKind::Prompt, name)) => Item::Prompt(name),
            Some((ItemKind::Resource, uri)) => Item::Resource(uri),
            Some((ItemKind::Tool, name)) => Item::Tool(name),
        }
    }

    /// Whether the arguments of the later call are not known.
    pub(crate) fn is_completion(&self) -> bool {
        self.method == COMPLETE
    }

    /// Whether only a rule denies it.
    pub(crate) fn is_open(&self) -> bool {
        self.item.is_none() && is_open_method(&self.method)
    }
}

impl Space {
    /// The classes that `gates` tell apart, and `tools`.
    pub(crate) fn new<'g>(
        gates: impl Iterator<Item = &'g Gate> + Clone,
        tools: &[Glob],
    ) -> Result<Self, Error> {
        let rules: Vec<&Rule> =
            gates.clone().filter_map(|g| g.policy.as_deref()).flat_map(|p| p.rules()).collect();
        let lists = |field: fn(&Rule) -> &Patterns| -> BTreeSet<Vec<Glob>> {
            rules.iter().map(|rule| field(rule).globs().to_vec()).filter(|list| !list.is_empty()).collect()
        };
        let mut tool_lists = lists(|r| &r.tools);
        tool_lists.insert(tools.to_vec());
        let mut method_lists = lists(|r| &r.methods);
        method_lists.extend(gates.clone().map(|g| g.methods.clone()).filter(|list| !list.is_empty()));
        method_lists.extend(METHODS.iter().map(|m| vec![Glob::exact(m)]));
        method_lists.extend(Glob::new("notifications/*").map(|glob| vec![glob]));
        let mut id_lists = lists(|r| &r.principals);
        id_lists.extend(gates.clone().flat_map(|g| &g.sources).filter_map(|source| match &source.id {
            SourceId::Any => None,
            SourceId::Exact(id) => Some(vec![Glob::exact(id)]),
            SourceId::Prefix(prefix) => Some(vec![Glob::prefix(prefix)]),
        }));
        let group_lists = lists(|r| &r.groups);
        let mut scope_lists = lists(|r| &r.scopes);
        scope_lists.extend(gates.clone().flat_map(|g| &g.scopes).map(|scope| vec![Glob::exact(scope)]));
        let key_scopes: Vec<Glob> = KEY_SCOPES.iter().map(|prefix| Glob::prefix(prefix)).collect();
        let networks: BTreeSet<IpNet> = rules.iter().flat_map(|rule| rule.cidrs.iter()).copied().collect();
        let names = |lists: &BTreeSet<Vec<Glob>>| -> Result<Vec<String>, Error> {
            let lists: Vec<&[Glob]> = lists.iter().map(Vec::as_slice).collect();
            Ok(classes(&lists)?.into_iter().map(|word| word.text).collect())
        };
        let mut whats = Vec::new();
        let tools = item_names(names(&tool_lists)?)?;
        let prompts = item_names(names(&lists(|r| &r.prompts))?)?;
        let resources = item_names(names(&lists(|r| &r.resources))?)?;
        for method in names(&method_lists)? {
            let mut with = |kind: ItemKind, names: &[String]| {
                whats.extend(
                    names
                        .iter()
                        .map(|name| What { method: method.clone(), item: Some((kind, name.clone())) }),
                );
            };
            match method.as_str() {
                "tools/call" => with(ItemKind::Tool, &tools),
                "prompts/get" => with(ItemKind::Prompt, &prompts),
                COMPLETE => with(ItemKind::Prompt, &prompts),
                "resources/read" | "resources/subscribe" | "resources/unsubscribe" => {
                    with(ItemKind::Resource, &resources);
                }
                "subscriptions/listen" => {
                    with(ItemKind::Resource, &resources);
                    whats.push(What { method, item: None });
                }
                _ => whats.push(What { method, item: None }),
            }
        }
        if whats.len() > MAX_CLASSES {
            return Err(Error::TooComplex("classes of requests", MAX_CLASSES));
        }
        Ok(Self {
            whats,
            roles: (1..1u8 << Role::ALL.len()).map(role_set).collect(),
            ids: names(&id_lists)?,
            groups: sets(&group_lists, None)?,
            scopes: sets(&scope_lists, Some(&key_scopes))?,
            addresses: addresses(&networks),
        })
    }

    /// How many classes a dimension has.
    pub(crate) fn size(&self, dimension: usize) -> usize {
        match dimension {
            WHAT => self.whats.len(),
            KINDS => ALL_KINDS.len(),
            ROLES => self.roles.len(),
            IDS => self.ids.len(),
            GROUPS => self.groups.len(),
            SCOPES => self.scopes.len(),
            _ => self.addresses.len(),
        }
    }

    pub(crate) fn full(&self, dimension: usize) -> Bits {
        Bits::filter(self.size(dimension), |_| true)
    }

    /// Every request.
    pub(crate) fn everything(&self) -> Cube {
        Cube(std::array::from_fn::<_, DIMENSIONS, _>(|d| self.full(d)))
    }

    pub(crate) fn what(&self, wanted: impl Fn(&What) -> bool) -> Bits {
        Bits::filter(self.whats.len(), |at| wanted(&self.whats[at]))
    }

    /// The requests that a rule's fields match, on a route to `server`.
    pub(crate) fn of_rule(&self, rule: &Rule, server: &str) -> Option<Cube> {
        if !rule.servers.matches(server) {
            return None;
        }
        let cube = Cube([
            self.what(|w| rule.matches_item(w.item()).is_ok() && rule.methods.matches(&w.method)),
            Bits::filter(ALL_KINDS.len(), |at| {
                rule.kinds == 0 || rule.kinds & (1 << ALL_KINDS[at] as u8) != 0
            }),
            Bits::filter(self.roles.len(), |at| {
                rule.roles.is_empty() || rule.roles.intersects(self.roles[at])
            }),
            Bits::filter(self.ids.len(), |at| rule.principals.matches(&self.ids[at])),
            Bits::filter(self.groups.len(), |at| rule.groups.matches_one_of(&self.groups[at])),
            Bits::filter(self.scopes.len(), |at| rule.scopes.matches_one_of(&self.scopes[at])),
            Bits::filter(self.addresses.len(), |at| {
                rule.cidrs.is_empty() || rule.cidrs.iter().any(|net| net.contains(&self.addresses[at]))
            }),
        ]);
        (!cube.is_empty()).then_some(cube)
    }

    /// The requests that a route does not refuse by itself.
    pub(crate) fn of_gate(&self, gate: &Gate) -> Cube {
        let mut cube = self.everything();
        cube.0[WHAT] =
            self.what(|w| gate.methods.is_empty() || gate.methods.iter().any(|m| m.matches(&w.method)));
        cube.0[SCOPES] = Bits::filter(self.scopes.len(), |at| {
            let has = |scope: &str| self.scopes[at].iter().any(|s| **s == *scope);
            gate.scopes.iter().all(|scope| has(scope))
        });
        cube
    }

    /// The requests that a source's callers can make.
    pub(crate) fn of_source(&self, source: &Source) -> Cube {
        let mut cube = self.everything();
        cube.0[KINDS] = Bits::filter(ALL_KINDS.len(), |at| source.kinds.contains(&ALL_KINDS[at]));
        cube.0[ROLES] = Bits::filter(self.roles.len(), |at| source.roles.contains(&self.roles[at]));
        cube.0[IDS] = Bits::filter(self.ids.len(), |at| match &source.id {
            SourceId::Any => true,
            SourceId::Exact(id) => self.ids[at] == **id,
            SourceId::Prefix(prefix) => self.ids[at].starts_with(&**prefix),
        });
        if !source.groups {
            cube.0[GROUPS] = Bits::filter(self.groups.len(), |at| self.groups[at].is_empty());
        }
        let of_key = |scope: &Arc<str>| KEY_SCOPES.iter().any(|prefix| scope.starts_with(prefix));
        match source.scopes {
            SourceScopes::Any => {}
            SourceScopes::Keys => {
                cube.0[SCOPES] = Bits::filter(self.scopes.len(), |at| self.scopes[at].iter().all(of_key));
            }
            SourceScopes::None => {
                cube.0[SCOPES] = Bits::filter(self.scopes.len(), |at| self.scopes[at].is_empty());
            }
        }
        if source.loopback {
            cube.0[ADDRESSES] = Bits::filter(self.addresses.len(), |at| self.addresses[at].is_loopback());
        }
        cube
    }

    /// One request of a set that is not empty.
    pub(crate) fn pick(&self, cube: &Cube) -> Option<(&What, Principal, IpAddr)> {
        let first = |d: usize| cube.0[d].first();
        let principal = Principal {
            id: PrincipalId::new(self.ids[first(IDS)?].as_str()),
            kind: ALL_KINDS[first(KINDS)?],
            // With few roles a witness says most.
            roles: cube.0[ROLES].iter().map(|at| self.roles[at]).min_by_key(|set| set.iter().count())?,
            groups: self.groups[first(GROUPS)?].clone(),
            scopes: self.scopes[first(SCOPES)?].clone(),
            ..Principal::anonymous(TenantId::default(), Role::Anonymous)
        };
        Some((&self.whats[first(WHAT)?], principal, self.addresses[first(ADDRESSES)?]))
    }
}

/// The facts of a picked request.
pub(crate) fn facts<'a>(gate: &'a Gate, what: &'a What, principal: &'a Principal, ip: IpAddr) -> Facts<'a> {
    Facts {
        tenant: &gate.tenant,
        route: &gate.route,
        server: Some(&gate.server),
        principal,
        ip,
        method: &what.method,
        item: what.item(),
        arguments: None,
    }
}

pub(crate) fn role_set(bits: u8) -> RoleSet {
    Role::ALL.into_iter().filter(|role| bits & 1 << *role as u8 != 0).collect()
}

/// Names over the bound are refused whatever the rules say; a class that may or may not have shorter ones is too much.
fn item_names(names: Vec<String>) -> Result<Vec<String>, Error> {
    match names.iter().any(|name| name.len() > MAX_NAME_BYTES) {
        true => Err(Error::TooComplex("bytes in the shortest name of a class", MAX_NAME_BYTES)),
        false => Ok(names),
    }
}

/// The classes of sets of texts. What a rule can ask of a set is whether it has a text that a list matches, so a set
/// is as good as the union of what its texts match. With `only`, sets that hold other texts are told apart, too.
fn sets(lists: &BTreeSet<Vec<Glob>>, only: Option<&[Glob]>) -> Result<Vec<Vec<Arc<str>>>, Error> {
    let mut slices: Vec<&[Glob]> = lists.iter().map(Vec::as_slice).collect();
    slices.extend(only);
    let size = slices.len() + 1;
    let words: Vec<(Bits, Arc<str>)> = classes(&slices)?
        .into_iter()
        .map(|word| {
            let foreign = only.is_some() && !word.matched.contains(slices.len() - 1);
            let bits = Bits::filter(size, |at| match at + 1 == size {
                true => foreign,
                false => word.matched.contains(at),
            });
            (bits, word.text.into())
        })
        .collect();
    let mut found: HashMap<Bits, usize> = HashMap::from([(Bits::none(size), 0)]);
    let mut all: Vec<(Bits, Vec<Arc<str>>)> = vec![(Bits::none(size), Vec::new())];
    let mut at = 0;
    while at < all.len() {
        for (bits, text) in &words {
            let union = all[at].0.or(bits);
            if let std::collections::hash_map::Entry::Vacant(entry) = found.entry(union.clone()) {
                entry.insert(all.len());
                let mut texts = all[at].1.clone();
                texts.push(text.clone());
                all.push((union, texts));
            }
        }
        if all.len() > MAX_CLASSES {
            return Err(Error::TooComplex("classes of groups or scopes", MAX_CLASSES));
        }
        at += 1;
    }
    Ok(all.into_iter().map(|(_, texts)| texts).collect())
}

/// One address of every class. Between two edges of networks, no network tells addresses apart.
fn addresses(networks: &BTreeSet<IpNet>) -> Vec<IpAddr> {
    let loopback = ["127.0.0.0/8", "::1/128"].map(|net| net.parse::<IpNet>());
    let mapped = Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0).to_bits();
    let mut v4: BTreeSet<u32> = BTreeSet::from([0]);
    let mut v6: BTreeSet<u128> = BTreeSet::from([0, mapped, mapped + (1 << 32)]);
    for net in networks.iter().copied().chain(loopback.into_iter().flatten()) {
        match net {
            IpNet::V4(net) => {
                v4.insert(net.network().to_bits());
                v4.extend(net.broadcast().to_bits().checked_add(1));
            }
            IpNet::V6(net) => {
                v6.insert(net.network().to_bits());
                v6.extend(net.broadcast().to_bits().checked_add(1));
            }
        }
    }
    let v4: Vec<u32> = v4.into_iter().collect();
    let v6: Vec<u128> = v6.into_iter().collect();
    let print = |ip: IpAddr| -> (Vec<bool>, bool, bool) {
        (networks.iter().map(|net| net.contains(&ip)).collect(), ip.is_loopback(), ip.is_ipv4())
    };
    let mut seen = HashMap::new();
    let mut found = Vec::new();
    let mut add = |ip: IpAddr| {
        if seen.insert(print(ip), ()).is_none() {
            found.push(ip);
        }
    };
    // Familiar addresses first: they stand for their classes.
    for familiar in [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(127, 0, 0, 1)] {
        add(familiar.into());
    }
    add(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into());
    for (at, start) in v4.iter().enumerate() {
        let end = v4.get(at + 1).map_or(u32::MAX, |next| next - 1);
        add(Ipv4Addr::from_bits(if *start < end { start + 1 } else { *start }).into());
    }
    for (at, start) in v6.iter().enumerate() {
        let end = v6.get(at + 1).map_or(u128::MAX, |next| next - 1);
        // Addresses of IPv4 in IPv6 arrive as IPv4.
        if *start < mapped || *start > mapped + u128::from(u32::MAX) {
            add(Ipv6Addr::from_bits(if *start < end { start + 1 } else { *start }).into());
        }
    }
    found
}
