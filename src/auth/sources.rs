//! Which callers an authenticator can let in at all, for those who reason about every request instead of one.

use std::sync::Arc;

use crate::auth::{IssuerSpec, KindRule};
use crate::base::{Principal, PrincipalKind, Role, RoleSet};

/// One way to become a principal, and everything that may come of it.
///
/// Never too narrow: every principal of the authenticator is in one of its sources. It may be too wide, because claims
/// are taken as independent of one another: a token whose groups give a role is not told apart from one with the same
/// role and other groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// What to call it: `nobody`, `nobody, from this machine`, `api keys`, or `issuer <name>`.
    pub name: Arc<str>,
    /// The kinds of principal.
    pub kinds: Vec<PrincipalKind>,
    /// Their ids.
    pub id: SourceId,
    /// Every set of roles that a principal may have.
    pub roles: Vec<RoleSet>,
    /// They may have groups.
    pub groups: bool,
    /// Their scopes.
    pub scopes: SourceScopes,
    /// Only those who connect from this machine.
    pub loopback: bool,
    /// They prove who they are.
    pub authenticated: bool,
    /// Everything that decides which credentials become which principal. Two sources that agree in this give the same
    /// credential the same principal.
    pub mapping: Arc<str>,
}

/// The scopes that a source's principals may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceScopes {
    /// Any.
    Any,
    /// Those that API keys are restricted by: [`KEY_SCOPES`] and a name.
    Keys,
    /// None at all.
    None,
}

/// What a scope of an API key begins with.
pub const KEY_SCOPES: [&str; 4] = ["methods:", "routes:", "servers:", "tools:"];

/// The stable ids of a source's principals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceId {
    /// Any text.
    Any,
    /// One.
    Exact(Box<str>),
    /// All that begin so.
    Prefix(Box<str>),
}

impl Source {
    /// Callers who present nothing.
    pub(super) fn nobody(principal: &Principal, loopback: bool) -> Self {
        Self {
            name: if loopback { "nobody, from this machine".into() } else { "nobody".into() },
            kinds: vec![principal.kind],
            id: SourceId::Exact(principal.id.as_str().into()),
            roles: vec![principal.roles],
            groups: false,
            scopes: SourceScopes::None,
            loopback,
            authenticated: false,
            mapping: "".into(),
        }
    }

    /// Callers with an API key. Which keys there are is not part of a document, so every key is thought of.
    pub(super) fn keys() -> Self {
        Self {
            name: "api keys".into(),
            kinds: vec![PrincipalKind::Key],
            id: SourceId::Any,
            roles: all_sets(),
            groups: false,
            scopes: SourceScopes::Keys,
            loopback: false,
            authenticated: true,
            mapping: "".into(),
        }
    }

    /// Callers with a token of an issuer.
    pub(super) fn issuer(spec: &IssuerSpec) -> Self {
        Self {
            name: format!("issuer {}", spec.name).into(),
            kinds: match spec.kind {
                KindRule::Auto | KindRule::ServiceIf(_) => vec![PrincipalKind::Service, PrincipalKind::User],
                KindRule::Service => vec![PrincipalKind::Service],
                KindRule::User => vec![PrincipalKind::User],
            },
            id: SourceId::Prefix(format!("{}|", spec.name).into()),
            roles: role_sets(spec),
            groups: true,
            scopes: SourceScopes::Any,
            loopback: false,
            authenticated: true,
            mapping: format!(
                "{:?}",
                (
                    &spec.issuer,
                    &spec.audiences,
                    &spec.principal_claim,
                    &spec.kind,
                    &spec.groups_claim,
                    &spec.scope_claim,
                    &spec.required,
                    &spec.roles
                )
            )
            .into(),
        }
    }
}

/// Every set that isn't empty.
fn all_sets() -> Vec<RoleSet> {
    (1..1u8 << Role::ALL.len()).map(from_bits).collect()
}

fn from_bits(bits: u8) -> RoleSet {
    Role::ALL.into_iter().filter(|role| bits & 1 << *role as u8 != 0).collect()
}

/// What the mapping can give: any of the mapped roles, the role of at most one rule, or else the default.
fn role_sets(spec: &IssuerSpec) -> Vec<RoleSet> {
    let mapped: RoleSet = spec.roles.map.iter().map(|(_, role)| *role).collect();
    let of_rules: RoleSet = spec.roles.rules.iter().map(|rule| rule.role).collect();
    let subset = |set: RoleSet| set.iter().all(|role| mapped.contains(role));
    all_sets()
        .into_iter()
        .filter(|set| {
            let without = |rule: Role| set.iter().filter(|role| *role != rule).collect::<RoleSet>();
            subset(*set)
                || set.iter().any(|role| of_rules.contains(role) && subset(without(role)))
                || spec.roles.default.is_some_and(|role| *set == RoleSet::one(role))
        })
        .collect()
}
