//! One compiled rule and what it matches.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::cel::Program;
use super::error::{CompileError, Problem};
use super::facts::{Facts, Item, ItemKind, ItemKinds};
use super::spec::{Effect, Record, RuleSpec};
use crate::base::{Glob, RoleSet};

/// The most entries of one field.
pub(crate) const MAX_ENTRIES: usize = 1_000;

/// Lists of exact names up to this length are compared one by one; longer ones are searched.
const SEARCH_FROM: usize = 8;

/// A field of a rule; where an error is, or why a rule did not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// The client's address.
    Cidrs,
    /// The caller's groups.
    Groups,
    /// What the request reaches.
    Items,
    /// The caller's kind.
    Kinds,
    /// The method.
    Methods,
    /// The caller's id.
    Principals,
    /// The prompt.
    Prompts,
    /// The resource.
    Resources,
    /// The caller's roles.
    Roles,
    /// The credential's scopes.
    Scopes,
    /// The server.
    Servers,
    /// The tool.
    Tools,
    /// The expression.
    When,
}

/// A compiled rule.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) name: Option<Box<str>>,
    pub(crate) effect: Effect,
    /// Empty means any.
    pub(crate) roles: RoleSet,
    /// A bit per [`PrincipalKind`](crate::base::PrincipalKind); zero means any.
    pub(crate) kinds: u8,
    pub(crate) principals: Patterns,
    pub(crate) groups: Patterns,
    pub(crate) scopes: Patterns,
    pub(crate) methods: Patterns,
    pub(crate) tools: Patterns,
    pub(crate) prompts: Patterns,
    pub(crate) resources: Patterns,
    pub(crate) servers: Patterns,
    /// Empty means any.
    pub(crate) cidrs: Box<[IpNet]>,
    /// The kinds of item the rule is about; empty means every request.
    pub(crate) items: ItemKinds,
    pub(crate) when: When,
    pub(crate) record: Option<Record>,
}

/// The rule's expression.
#[derive(Debug)]
pub(crate) enum When {
    /// None, or always true.
    Always,
    /// Has to be evaluated.
    If(Program),
    /// Always false.
    Never,
}

/// A list of patterns; an empty one matches everything.
#[derive(Debug, Default)]
pub(crate) struct Patterns {
    all: Box<[Glob]>,
    /// The exact ones, sorted, if they are many.
    exact: Box<[Box<str>]>,
    /// Those that are not in `exact`.
    rest: Box<[Glob]>,
}

/// How items are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// A request with its arguments.
    Call,
    /// An entry of a list, or a completion: arguments are unknown.
    List,
}

// === impl Rule ===

impl Rule {
    /// Compiles rule number `index`, adding what is wrong to `errors`.
    pub(crate) fn compile(index: usize, spec: &RuleSpec, errors: &mut Vec<CompileError>) -> Self {
        let mut fail = |field, problem| {
            errors.push(CompileError { rule: Some(index), field: Some(field), problem });
        };
        let mut patterns = |field, list: &[String]| Patterns::compile(field, list, &mut fail);
        let principals = patterns(Field::Principals, &spec.principals);
        let groups = patterns(Field::Groups, &spec.groups);
        let scopes = patterns(Field::Scopes, &spec.scopes);
        let methods = patterns(Field::Methods, &spec.methods);
        let tools = patterns(Field::Tools, &spec.tools);
        let prompts = patterns(Field::Prompts, &spec.prompts);
        let resources = patterns(Field::Resources, &spec.resources);
        let servers = patterns(Field::Servers, &spec.servers);
        if spec.cidrs.len() > MAX_ENTRIES {
            fail(Field::Cidrs, Problem::TooMany(MAX_ENTRIES));
        }
        let mut items: ItemKinds = [
            (ItemKind::Tool, &spec.tools),
            (ItemKind::Prompt, &spec.prompts),
            (ItemKind::Resource, &spec.resources),
        ]
        .into_iter()
        .filter_map(|(kind, list)| (!list.is_empty()).then_some(kind))
        .collect();
        let mut when = When::Always;
        if let Some(source) = &spec.when {
            match Program::compile(source) {
                Ok(program) => {
                    if items.is_empty() {
                        items = program.items();
                    } else if program.reads_arguments() && only(items, ItemKind::Resource) {
                        let message = "requests for resources have no arguments".to_owned();
                        fail(Field::When, Problem::Expression { message, offset: None });
                    }
                    when = match program.constant() {
                        Some(true) => When::Always,
                        Some(false) => When::Never,
                        None => When::If(program),
                    };
                }
                Err(error) => fail(Field::When, error.into()),
            }
        }
        Self {
            name: spec.name.as_deref().map(Into::into),
            effect: spec.effect,
            roles: spec.roles.iter().copied().collect(),
            kinds: spec.kinds.iter().fold(0, |bits, kind| bits | 1 << *kind as u8),
            principals,
            groups,
            scopes,
            methods,
            tools,
            prompts,
            resources,
            servers,
            cidrs: spec.cidrs.iter().map(canonical).collect(),
            items,
            when,
            record: spec.record.clone(),
        }
    }

    /// Whether everything but the expression matches; if not, the first field that does not. `ip` is canonical.
    pub(crate) fn matches(&self, facts: &Facts<'_>, ip: IpAddr) -> Result<(), Field> {
        let principal = facts.principal;
        let check = |matched: bool, field| if matched { Ok(()) } else { Err(field) };
        check(self.roles.is_empty() || self.roles.intersects(principal.roles), Field::Roles)?;
        check(self.kinds == 0 || self.kinds & (1 << principal.kind as u8) != 0, Field::Kinds)?;
        self.matches_item(facts.item)?;
        check(self.methods.matches(facts.method), Field::Methods)?;
        check(
            self.servers.is_empty() || facts.server.is_some_and(|s| self.servers.matches(s)),
            Field::Servers,
        )?;
        check(self.principals.matches(principal.id.as_str()), Field::Principals)?;
        check(self.groups.matches_one_of(&principal.groups), Field::Groups)?;
        check(self.scopes.matches_one_of(&principal.scopes), Field::Scopes)?;
        check(self.cidrs.is_empty() || self.cidrs.iter().any(|net| net.contains(&ip)), Field::Cidrs)
    }

    pub(crate) fn matches_item(&self, item: Item<'_>) -> Result<(), Field> {
        if self.items.is_empty() {
            return Ok(());
        }
        let Some(kind) = item.kind().filter(|kind| self.items.contains(*kind)) else {
            return Err(Field::Items);
        };
        let (matched, field) = match (item, kind) {
            (Item::ResourceTemplate(text), _) => (self.matches_template(text), Field::Resources),
            (_, ItemKind::Tool) => (self.tools.matches(item.name()), Field::Tools),
            (_, ItemKind::Prompt) => (self.prompts.matches(item.name()), Field::Prompts),
            (_, ItemKind::Resource) => (self.resources.matches(item.name()), Field::Resources),
        };
        if matched { Ok(()) } else { Err(field) }
    }

    /// A template stands for many URIs: allowed if one could be, denied if all are.
    fn matches_template(&self, text: &str) -> bool {
        if self.resources.is_any() {
            return true;
        }
        let template = Glob::from_template(text);
        self.resources.all.iter().any(|pattern| match self.effect {
            Effect::Allow => pattern.intersects(&template),
            Effect::Deny => pattern.covers(&template),
        })
    }

    /// Whether it matches every request of this kind, whoever makes it.
    pub(crate) fn covers_all(&self, kind: ItemKind) -> bool {
        let patterns = match kind {
            ItemKind::Prompt => &self.prompts,
            ItemKind::Resource => &self.resources,
            ItemKind::Tool => &self.tools,
        };
        matches!(self.when, When::Always)
            && (self.items.is_empty() || self.items.contains(kind) && patterns.is_any())
            && self.roles.is_empty()
            && self.kinds == 0
            && self.cidrs.is_empty()
            && self.principals.is_any()
            && self.methods.is_any()
            // A `*` in one of these does not match callers and requests that have none.
            && [&self.groups, &self.scopes, &self.servers].iter().all(|p| p.is_empty())
    }
}

impl Patterns {
    fn compile(field: Field, list: &[String], fail: &mut impl FnMut(Field, Problem)) -> Self {
        if list.len() > MAX_ENTRIES {
            fail(field, Problem::TooMany(MAX_ENTRIES));
            return Self::default();
        }
        let mut all = Vec::with_capacity(list.len());
        for pattern in list {
            match Glob::new(pattern) {
                Ok(glob) => all.push(glob),
                Err(reason) => fail(field, Problem::Pattern { pattern: pattern.clone(), reason }),
            }
        }
        let mut exact: Vec<Box<str>> = all.iter().filter_map(|g| g.as_exact().map(Into::into)).collect();
        exact.sort_unstable();
        let mut rest = all.clone();
        match exact.len() < SEARCH_FROM {
            true => exact.clear(),
            false => rest.retain(|g| g.as_exact().is_none()),
        }
        Self { all: all.into(), exact: exact.into(), rest: rest.into() }
    }

    /// Whether nothing was asked for.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether it matches every name: empty, or with a `*`.
    pub(crate) fn is_any(&self) -> bool {
        self.all.is_empty() || self.all.iter().any(Glob::is_any)
    }

    /// The patterns as written; empty means any.
    pub(crate) fn globs(&self) -> &[Glob] {
        &self.all
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        self.all.is_empty()
            || self.exact.binary_search_by(|e| (**e).cmp(name)).is_ok()
            || self.rest.iter().any(|g| g.matches(name))
    }

    pub(crate) fn matches_one_of(&self, names: &[std::sync::Arc<str>]) -> bool {
        self.all.is_empty() || names.iter().any(|name| self.matches(name))
    }
}

impl Field {
    /// The name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Field::Cidrs => "cidrs",
            Field::Groups => "groups",
            Field::Items => "items",
            Field::Kinds => "kinds",
            Field::Methods => "methods",
            Field::Principals => "principals",
            Field::Prompts => "prompts",
            Field::Resources => "resources",
            Field::Roles => "roles",
            Field::Scopes => "scopes",
            Field::Servers => "servers",
            Field::Tools => "tools",
            Field::When => "when",
        }
    }
}

fn only(items: ItemKinds, kind: ItemKind) -> bool {
    items == [kind].into_iter().collect()
}

/// A network of IPv4 addresses mapped into IPv6 is the IPv4 network: addresses are compared in that form.
fn canonical(net: &IpNet) -> IpNet {
    if let IpNet::V6(v6) = net
        && v6.prefix_len() >= 96
        && let Some(v4) = v6.network().to_ipv4_mapped()
        && let Ok(v4) = Ipv4Net::new(v4, v6.prefix_len() - 96)
    {
        return IpNet::V4(v4);
    }
    *net
}
