//! What a configuration allows that another did not.
//!
//! Requests are compared by what clients dial and what answers there: the route's URL and its server. A route that is
//! new, has moved, or leads to another server allows all that it allows newly.
//!
//! A caller is compared as the same credential: whoever presents nothing may be called something else in the other
//! configuration and is still the same caller. A token's claims become roles by the issuer's mapping; where that
//! mapping differs, nobody can say without the tokens who holds which role, and the answer says that instead of
//! comparing by role and calling the rest nothing.

use std::collections::BTreeMap;

use super::answer::{Answer, Class, Condition, RouteAnswer, Verdict, check, few, witness};
use super::describe::Words;
use super::region::{Cube, subtract};
use super::space::{ADDRESSES, IDS, KINDS, ROLES, Space};
use super::table::{Chain, Piece, pieces};
use super::{Error, Gate, MAX_PIECES};
use crate::auth::Source;

/// How many combinations of expressions are tried.
const MAX_TRIES: usize = 100_000;

/// What an expression may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    False,
    True,
    Fails,
}

impl Says {
    fn as_str(self) -> &'static str {
        match self {
            Says::False => "false",
            Says::True => "true",
            Says::Fails => "fails",
        }
    }
}

/// What was decided before: nothing, or by a chain. Whether expressions of the same text say the same in both.
type Before = (Option<Chain>, bool);

/// What `new` allows that `old` did not.
///
/// # Errors
/// The policies are too complex.
pub fn newly_allowed(old: &[Gate], new: &[Gate]) -> Result<Answer, Error> {
    let mut routes = Vec::new();
    let mut notes = Vec::new();
    for gate in new {
        let same = |other: &&Gate| {
            other.tenant == gate.tenant && other.url == gate.url && other.server == gate.server
        };
        let before = old.iter().find(same);
        let classes = compare(before, gate)?;
        if !classes.is_empty() {
            routes.push(RouteAnswer::of(gate, classes));
        }
        if let Some(before) = before {
            identity(before, gate, &mut notes);
        }
    }
    let mut answer = Answer::new("what is newly allowed".to_owned(), routes);
    notes.sort();
    notes.dedup();
    if !notes.is_empty() {
        answer.verdict = answer.verdict.max(Verdict::If);
    }
    answer.identity_changes = notes;
    Ok(answer)
}

/// What decides who gets in and as what, and differs.
fn identity(old: &Gate, new: &Gate, notes: &mut Vec<String>) {
    for source in new.sources.iter().filter(|s| s.authenticated) {
        let before = old.sources.iter().find(|other| other.name == source.name);
        if before.is_some_and(|before| before.mapping != source.mapping) {
            notes.push(format!(
                "{}: how tokens become callers differs; callers may have other roles, groups or scopes than before",
                source.name
            ));
        }
    }
    let tokens = new.sources.iter().any(|s| s.name.starts_with("issuer "));
    for audience in new.audiences.iter().filter(|a| tokens && !old.audiences.contains(a)) {
        notes.push(format!("route {}: tokens for the audience {audience} are newly accepted", new.route));
    }
}

fn compare(old: Option<&Gate>, new: &Gate) -> Result<Vec<Class>, Error> {
    let both = old.into_iter().chain([new]);
    let space = Space::new(both.clone(), &[])?;
    let words = Words::new(&space, both, &[]);
    let mut classes = Vec::new();
    // Those from anywhere first: they speak for those from this machine where both may the same.
    let mut sources: Vec<&Source> = new.sources.iter().collect();
    sources.sort_by_key(|source| source.loopback);
    for source in sources {
        let room = space.of_source(source);
        let after = pieces(&space, new, &room)?;
        let counterpart = old.and_then(|old| counterpart(old, source));
        let before = match (old, counterpart) {
            (Some(old), Some(same)) => carried(&space, old, same, source, (&room, &new.route))?,
            _ => (Vec::new(), true),
        };
        let mut groups: BTreeMap<(Chain, Option<Chain>), Vec<Cube>> = BTreeMap::new();
        for Piece { cube, chain } in after {
            if !chain.is_never() {
                newly(cube, &chain, &before, &mut groups)?;
            }
        }
        for ((chain, was), cubes) in groups {
            let before = (was, before.1);
            let Some(example) = solve(&chain, &before)? else { continue };
            for cube in few(cubes, &room)? {
                classes.push(class(
                    &space,
                    &words,
                    (old, new),
                    source,
                    (&cube, &room),
                    (&chain, &before, &example),
                )?);
            }
        }
    }
    classes.sort_by_key(|class| std::cmp::Reverse(class.verdict));
    Ok(dedup(classes))
}

/// The source of `old` that the same credentials belong to.
fn counterpart<'o>(old: &'o Gate, source: &Source) -> Option<&'o Source> {
    if source.authenticated {
        return old.sources.iter().find(|other| other.name == source.name);
    }
    old.sources.iter().find(|other| !other.authenticated && other.loopback == source.loopback)
}

/// What was decided about the callers of `source`, who were those of `same`; and whether they look the same to
/// expressions.
fn carried(
    space: &Space,
    old: &Gate,
    same: &Source,
    source: &Source,
    (room, route): (&Cube, &str),
) -> Result<(Vec<Piece>, bool), Error> {
    let was = space.of_source(same);
    let mut found = pieces(space, old, &was)?;
    let same_caller = source.authenticated || (same.id == source.id && same.roles == source.roles);
    if !same_caller {
        for piece in &mut found {
            for d in [KINDS, ROLES, IDS] {
                piece.cube.0[d] = room.0[d].clone();
            }
        }
    }
    // Expressions can read the route's name, too.
    Ok((found, same_caller && *old.route == *route))
}

/// Sorts the requests of `cube` by how they were decided before; those that were always allowed are left out.
fn newly(
    cube: Cube,
    chain: &Chain,
    before: &(Vec<Piece>, bool),
    groups: &mut BTreeMap<(Chain, Option<Chain>), Vec<Cube>>,
) -> Result<(), Error> {
    let mut left = vec![cube.clone()];
    for piece in &before.0 {
        let Some(common) = cube.and(&piece.cube) else { continue };
        left = subtract(left, std::slice::from_ref(&piece.cube));
        if left.len() > MAX_PIECES {
            return Err(Error::TooComplex("kinds of requests", MAX_PIECES));
        }
        let was = (!piece.chain.is_never()).then(|| piece.chain.clone());
        if was.as_ref().is_some_and(|was| was.allows && was.open.is_empty()) {
            continue;
        }
        groups.entry((chain.clone(), was)).or_default().push(common);
    }
    if !left.is_empty() {
        groups.entry((chain.clone(), None)).or_default().extend(left);
    }
    Ok(())
}

/// Expressions, what each says, and where that is said.
type Said = Vec<(String, bool, Says)>;

/// What expressions would have to say so that the new chain allows and the old one denies; none if that cannot be.
fn solve(chain: &Chain, before: &Before) -> Result<Option<Said>, Error> {
    let mut said = Vec::new();
    let mut tries = 0;
    Ok(search(chain, before, &mut said, &mut tries)?.then_some(said))
}

fn search(chain: &Chain, before: &Before, said: &mut Said, tries: &mut usize) -> Result<bool, Error> {
    *tries += 1;
    if *tries > MAX_TRIES {
        return Err(Error::TooComplex("combinations of expressions", MAX_TRIES));
    }
    let unknown = match decide(chain, true, before.1, said) {
        Ok(false) => return Ok(false),
        Ok(true) => match before.0.as_ref().map(|was| decide(was, false, before.1, said)) {
            None | Some(Ok(false)) => return Ok(true),
            Some(Ok(true)) => return Ok(false),
            Some(Err(unknown)) => unknown,
        },
        Err(unknown) => unknown,
    };
    for says in [Says::False, Says::True, Says::Fails] {
        said.push((unknown.0.clone(), unknown.1, says));
        if search(chain, before, said, tries)? {
            return Ok(true);
        }
        said.pop();
    }
    Ok(false)
}

/// What a chain decides, or the expression that has to be known first.
fn decide(
    chain: &Chain,
    new: bool,
    alike: bool,
    said: &[(String, bool, Says)],
) -> Result<bool, (String, bool)> {
    for open in &chain.open {
        let known = said.iter().find(|(when, of, _)| **when == *open.when && (alike || *of == new));
        match known.map(|(_, _, says)| *says) {
            None => return Err((open.when.to_string(), new)),
            Some(Says::False) => {}
            Some(Says::True) => return Ok(open.allows),
            Some(Says::Fails) => return Ok(false),
        }
    }
    Ok(chain.allows)
}

fn class(
    space: &Space,
    words: &Words<'_>,
    (old, new): (Option<&Gate>, &Gate),
    source: &Source,
    (cube, room): (&Cube, &Cube),
    (chain, before, example): (&Chain, &Before, &[(String, bool, Says)]),
) -> Result<Class, Error> {
    let mut conditions = Vec::new();
    let olds = before.0.as_ref().map(Condition::all).unwrap_or_default();
    for (of, new_one, list) in [("new", true, Condition::all(chain)), ("old", false, olds)] {
        for mut condition in list {
            let said = example
                .iter()
                .find(|(when, new, _)| *when == condition.when && (before.1 || *new == new_one));
            condition.of = Some(of);
            condition.says = said.map(|(_, _, says)| says.as_str());
            conditions.push(condition);
        }
    }
    let verdict = if conditions.is_empty() { Verdict::Always } else { Verdict::If };
    let witness = witness(space, cube);
    if chain.open.is_empty() {
        check(new, &witness, true)?;
    }
    if let (Some(old), None, true) = (old, &before.0, before.1)
        && had(space, old, source, cube)
    {
        check(old, &witness, false)?;
    }
    Ok(Class {
        verdict,
        callers: source.name.to_string(),
        only: words.describe(cube, room),
        otherwise: (!chain.open.is_empty()).then_some(if chain.allows { "allow" } else { "deny" }),
        conditions,
        witness,
        authenticated: source.authenticated,
        roles: cube.0[ROLES].iter().map(|at| space.roles[at]).collect(),
    })
}

/// Whether the callers of the box existed before.
fn had(space: &Space, old: &Gate, source: &Source, cube: &Cube) -> bool {
    counterpart(old, source).is_some_and(|same| {
        let was = space.of_source(same);
        (KINDS..=ADDRESSES).all(|d| cube.0[d].within(&was.0[d]))
    })
}

/// The two kinds of callers who present nothing say the same where they are the same.
fn dedup(classes: Vec<Class>) -> Vec<Class> {
    let mut kept: Vec<Class> = Vec::new();
    for class in classes {
        let same = |other: &Class| {
            !class.authenticated
                && !other.authenticated
                && other.verdict == class.verdict
                && other.conditions == class.conditions
                && other.witness.principal == class.witness.principal
                && other.roles == class.roles
                && (other.only == class.only || {
                    let mut wide = class.only.clone();
                    wide.remove("addresses");
                    other.only == wide
                })
        };
        if !kept.iter().any(same) {
            kept.push(class);
        }
    }
    kept
}
