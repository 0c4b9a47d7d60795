//! Questions about one configuration, and the form of all answers.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use super::describe::Words;
use super::region::{Cube, simplify};
use super::space::{ROLES, Space, WHAT, facts};
use super::table::{Chain, Piece, pieces, rest};
use super::{Error, Gate};
use crate::auth::Source;
use crate::base::glob::Glob;
use crate::base::{Principal, RoleSet};
use crate::policy::{Item, ItemKind};

/// Beyond this many boxes, they are listed as they are instead of looking for fewer.
const MAX_SIMPLIFY: usize = 1_000;

/// Whether something is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// For no request.
    Never,
    /// For some, depending on expressions.
    If,
    /// For some, whatever the expressions say.
    Always,
}

/// What was found out.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    /// The question, in words.
    pub question: String,
    /// The strongest verdict of all routes.
    pub verdict: Verdict,
    /// Routes on which it is so; empty if the verdict is `never`.
    pub routes: Vec<RouteAnswer>,
    /// What else changed that decides who gets in, and cannot be compared request by request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub identity_changes: Vec<String>,
}

/// What was found out about one route.
#[derive(Clone, Debug, Serialize)]
pub struct RouteAnswer {
    /// Whose it is.
    pub tenant: String,
    /// Its name.
    pub route: String,
    /// What clients dial.
    pub url: String,
    /// The server behind it.
    pub server: String,
    /// The classes of requests; they may overlap.
    pub classes: Vec<Class>,
}

/// Requests that are decided alike.
#[derive(Clone, Debug, Serialize)]
pub struct Class {
    /// `always`, or `if`.
    pub verdict: Verdict,
    /// How the callers come to be who they are.
    pub callers: String,
    /// What sets the requests apart from all others of these callers; empty = nothing, it is all of them.
    #[serde(rename = "where")]
    pub only: BTreeMap<&'static str, String>,
    /// The expressions it depends on, in the order in which they are asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// What happens if all conditions are false; absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otherwise: Option<&'static str>,
    /// One of the requests.
    pub witness: Witness,
    /// The callers prove who they are.
    pub authenticated: bool,
    /// Every set of roles that a caller may have.
    #[serde(skip)]
    pub(crate) roles: Vec<RoleSet>,
}

/// An expression that was left open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// The rule, counted from one.
    pub rule: usize,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the rule does if the expression is true. One that fails denies.
    pub effect: &'static str,
    /// The expression.
    pub when: String,
    /// For `newly-allowed`: which configuration it is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<&'static str>,
    /// For `newly-allowed`: what it would have to say for the example.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub says: Option<&'static str>,
}

/// A concrete request.
#[derive(Clone, Debug, Serialize)]
pub struct Witness {
    /// The caller's stable id.
    pub principal: String,
    /// The caller's kind.
    pub kind: &'static str,
    /// The caller's roles.
    pub roles: Vec<&'static str>,
    /// The caller's groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// The caller's scopes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// The caller's address.
    pub ip: IpAddr,
    /// The method.
    pub method: String,
    /// What is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// What is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// What is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// The facts behind the text, for tests.
    #[serde(skip)]
    pub(crate) facts: Option<(super::space::What, Principal)>,
}

impl Condition {
    pub(super) fn all(chain: &Chain) -> Vec<Self> {
        let condition = |open: &super::table::Open| Condition {
            rule: open.rule + 1,
            name: open.name.as_deref().map(str::to_owned),
            effect: if open.allows { "allow" } else { "deny" },
            when: open.when.to_string(),
            of: None,
            says: None,
        };
        chain.open.iter().map(condition).collect()
    }
}

impl Class {
    /// Whether every caller of it has one of these roles.
    pub fn all_have_one_of(&self, roles: RoleSet) -> bool {
        self.roles.iter().all(|set| set.intersects(roles))
    }
}

/// Who can call tools that `pattern` matches, on the given gates.
///
/// # Errors
/// The pattern is none, or the policies are too complex.
pub fn who_can_call(gates: &[Gate], pattern: &str) -> Result<Answer, Error> {
    let glob = Glob::new(pattern).map_err(|e| Error::Pattern(pattern.to_owned(), e))?;
    let question = format!("who can call tools {pattern}");
    ask(question, gates, glob, |_| true)
}

/// Which tools can be called by callers who prove nothing.
///
/// # Errors
/// The policies are too complex.
pub fn unauthenticated(gates: &[Gate]) -> Result<Answer, Error> {
    let question = "which tools can be called without authentication".to_owned();
    let any = Glob::new("*").map_err(|e| Error::Pattern("*".to_owned(), e))?;
    ask(question, gates, any, |source| !source.authenticated)
}

fn ask(
    question: String,
    gates: &[Gate],
    tools: Glob,
    wanted: impl Fn(&Source) -> bool,
) -> Result<Answer, Error> {
    let tools = [tools];
    let mut routes = Vec::new();
    for gate in gates {
        // Each route by itself: what other routes tell apart does not matter here.
        let one = std::slice::from_ref(gate);
        let space = Space::new(one.iter(), &tools)?;
        let words = Words::new(&space, one.iter(), &tools);
        let asked = space.what(|w| {
            w.method == "tools/call"
                && matches!(&w.item, Some((ItemKind::Tool, name)) if tools[0].matches(name))
        });
        let mut classes = Vec::new();
        for source in sources(gate).filter(|source| wanted(source)) {
            let mut room = space.of_source(source);
            room.0[WHAT] = room.0[WHAT].and(&asked);
            if room.is_empty() {
                continue;
            }
            let mut groups: BTreeMap<Chain, Vec<Cube>> = BTreeMap::new();
            for Piece { cube, chain } in pieces(&space, gate, &room)? {
                if !chain.is_never() {
                    groups.entry(chain).or_default().push(cube);
                }
            }
            for (chain, cubes) in groups {
                for cube in few(cubes, &room)? {
                    classes.push(class(&space, &words, gate, source, &cube, &room, &chain)?);
                }
            }
        }
        classes.sort_by_key(|class| std::cmp::Reverse(class.verdict));
        if !classes.is_empty() {
            routes.push(RouteAnswer::of(gate, classes));
        }
    }
    Ok(Answer::new(question, routes))
}

/// The gate's sources, without one that another is part of.
pub(super) fn sources(gate: &Gate) -> impl Iterator<Item = &Source> {
    gate.sources.iter().filter(|source| {
        let wider = |other: &&Source| !other.authenticated && !other.loopback && other.id == source.id;
        !source.loopback || !gate.sources.iter().any(|other| wider(&other) && other.roles == source.roles)
    })
}

/// The same requests in few boxes.
pub(super) fn few(cubes: Vec<Cube>, room: &Cube) -> Result<Vec<Cube>, Error> {
    let cubes = super::region::merge(cubes);
    if cubes.len() > MAX_SIMPLIFY {
        return Ok(cubes);
    }
    let others = rest(room, &cubes)?;
    Ok(simplify(cubes, room, &others))
}

fn class(
    space: &Space,
    words: &Words<'_>,
    gate: &Gate,
    source: &Source,
    cube: &Cube,
    room: &Cube,
    chain: &Chain,
) -> Result<Class, Error> {
    let conditions = Condition::all(chain);
    let verdict = if conditions.is_empty() { Verdict::Always } else { Verdict::If };
    let witness = witness(space, cube);
    if verdict == Verdict::Always {
        check(gate, &witness, true)?;
    }
    Ok(Class {
        verdict,
        callers: source.name.to_string(),
        only: words.describe(cube, room),
        otherwise: (!conditions.is_empty()).then_some(if chain.allows { "allow" } else { "deny" }),
        conditions,
        witness,
        authenticated: source.authenticated,
        roles: cube.0[ROLES].iter().map(|at| space.roles[at]).collect(),
    })
}

/// Puts a witness to the policy itself.
pub(super) fn check(gate: &Gate, witness: &Witness, allowed: bool) -> Result<(), Error> {
    let Some((what, principal)) = &witness.facts else { return Ok(()) };
    let decided = decides(gate, what, principal, witness.ip);
    if decided == allowed {
        return Ok(());
    }
    let witness = serde_json::to_string(witness).unwrap_or_default();
    Err(Error::Contradiction { route: gate.route.to_string(), witness })
}

/// What the gate itself says about a request.
pub(super) fn decides(gate: &Gate, what: &super::space::What, principal: &Principal, ip: IpAddr) -> bool {
    let served = gate.methods.is_empty() || gate.methods.iter().any(|m| m.matches(&what.method));
    let scoped = gate.scopes.iter().all(|scope| principal.scopes.iter().any(|s| **s == **scope));
    let allowed =
        |policy: &crate::policy::Policy| policy.decide(&facts(gate, what, principal, ip)).is_allowed();
    served && scoped && gate.policy.as_deref().is_none_or(allowed)
}

pub(super) fn witness(space: &Space, cube: &Cube) -> Witness {
    let Some((what, principal, ip)) = space.pick(cube) else {
        unreachable!("classes are made of boxes that are not empty")
    };
    let name = |wanted: bool| wanted.then(|| what.item().name().to_owned());
    let texts = |list: &[std::sync::Arc<str>]| list.iter().map(|t| t.to_string()).collect();
    Witness {
        principal: principal.id.to_string(),
        kind: principal.kind.as_str(),
        roles: principal.roles.iter().map(crate::base::Role::as_str).collect(),
        groups: texts(&principal.groups),
        scopes: texts(&principal.scopes),
        ip,
        method: what.method.clone(),
        tool: name(matches!(what.item(), Item::Tool(_))),
        prompt: name(matches!(what.item(), Item::Prompt(_))),
        resource: name(matches!(what.item(), Item::Resource(_))),
        facts: Some((what.clone(), principal)),
    }
}

impl RouteAnswer {
    pub(super) fn of(gate: &Gate, classes: Vec<Class>) -> Self {
        Self {
            tenant: gate.tenant.to_string(),
            route: gate.route.to_string(),
            url: gate.url.to_string(),
            server: gate.server.to_string(),
            classes,
        }
    }
}

impl Answer {
    pub(super) fn new(question: String, routes: Vec<RouteAnswer>) -> Self {
        let verdicts = routes.iter().flat_map(|route| &route.classes).map(|class| class.verdict);
        let verdict = verdicts.max().unwrap_or(Verdict::Never);
        Self { question, verdict, routes, identity_changes: Vec::new() }
    }

    /// Whether some class, of those that `wanted` picks, is there at all.
    pub fn any(&self, wanted: impl Fn(&Class) -> bool) -> bool {
        self.routes.iter().flat_map(|route| &route.classes).any(wanted)
    }
}
