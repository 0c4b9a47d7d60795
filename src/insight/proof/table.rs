//! A policy as a table: the requests of a route, cut into pieces that are decided alike.

use std::sync::Arc;

use super::bits::Bits;
use super::region::{Cube, subtract};
use super::space::{Space, WHAT};
use super::{Error, Gate, MAX_PIECES};
use crate::policy::{Effect, Policy, Rule, When};

/// An expression that decides, unless it is false.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Open {
    pub(crate) when: Arc<str>,
    pub(crate) allows: bool,
    pub(crate) rule: usize,
    pub(crate) name: Option<Arc<str>>,
}

/// How a piece is decided: the first open expression that is true decides as it says, one that fails denies, and if all
/// are false, `allows` does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Chain {
    pub(crate) open: Vec<Open>,
    pub(crate) allows: bool,
}

/// Requests that are decided alike.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) cube: Cube,
    pub(crate) chain: Chain,
}

impl Chain {
    fn end(mut open: Vec<Open>, allows: bool) -> Self {
        // What can only deny, before nothing but denial, decides nothing.
        while !allows && open.last().is_some_and(|last| !last.allows) {
            open.pop();
        }
        Self { open, allows }
    }

    /// Whether nothing is allowed, whatever the expressions say.
    pub(crate) fn is_never(&self) -> bool {
        self.open.is_empty() && !self.allows
    }
}

/// All requests in `within`, cut into pieces that do not overlap. What the route refuses by itself is in none of them.
pub(crate) fn pieces(space: &Space, gate: &Gate, within: &Cube) -> Result<Vec<Piece>, Error> {
    let Some(start) = within.and(&space.of_gate(gate)) else { return Ok(Vec::new()) };
    let Some(policy) = &gate.policy else {
        return Ok(vec![Piece { cube: start, chain: Chain::end(Vec::new(), true) }]);
    };
    let completions = space.what(|w| w.is_completion());
    let mut undecided = vec![(start, Vec::new())];
    let mut done = Vec::new();
    for (index, rule) in policy.rules().iter().enumerate() {
        if matches!(rule.when, When::Never) {
            continue;
        }
        let Some(matched) = space.of_rule(rule, &gate.server) else { continue };
        let mut left = Vec::new();
        for (cube, open) in undecided {
            let Some(inside) = cube.and(&matched) else {
                left.push((cube, open));
                continue;
            };
            left.extend(cube.minus(&matched).into_iter().map(|rest| (rest, open.clone())));
            meet(index, rule, inside, open, &completions, &mut left, &mut done);
        }
        undecided = left;
        if undecided.len() + done.len() > MAX_PIECES {
            return Err(Error::TooComplex("kinds of requests", MAX_PIECES));
        }
    }
    finish(space, policy, undecided, &mut done);
    Ok(done)
}

/// A rule meets requests that its fields match.
fn meet(
    index: usize,
    rule: &Rule,
    inside: Cube,
    open: Vec<Open>,
    completions: &Bits,
    left: &mut Vec<(Cube, Vec<Open>)>,
    done: &mut Vec<Piece>,
) {
    let allows = rule.effect == Effect::Allow;
    let program = match &rule.when {
        When::Always => {
            done.push(Piece { cube: inside, chain: Chain::end(open, allows) });
            return;
        }
        When::If(program) => program,
        When::Never => return,
    };
    let mut calls = inside.clone();
    if program.reads_arguments() {
        calls.0[WHAT] = inside.0[WHAT].minus(completions);
        let mut listed = inside;
        listed.0[WHAT] = listed.0[WHAT].and(completions);
        if !listed.is_empty() {
            // Without arguments it is undecided: an allow shows, a deny is skipped.
            match allows {
                true => done.push(Piece { cube: listed, chain: Chain::end(open.clone(), true) }),
                false => left.push((listed, open.clone())),
            }
        }
    }
    if calls.is_empty() {
        return;
    }
    let mut open = open;
    // An expression that got this far is false, and so it is the second time.
    if open.iter().all(|earlier| *earlier.when != *program.source()) {
        let name = rule.name.as_deref().map(Into::into);
        open.push(Open { when: program.source().into(), allows, rule: index, name });
    }
    left.push((calls, open));
}

/// What no rule decided.
fn finish(space: &Space, policy: &Policy, undecided: Vec<(Cube, Vec<Open>)>, done: &mut Vec<Piece>) {
    let free = space.what(|w| w.is_open());
    for (cube, open) in undecided {
        if policy.default_effect() == Effect::Allow {
            done.push(Piece { cube, chain: Chain::end(open, true) });
            continue;
        }
        for (what, allows) in [(cube.0[WHAT].and(&free), true), (cube.0[WHAT].minus(&free), false)] {
            if !what.is_empty() {
                let mut cube = cube.clone();
                cube.0[WHAT] = what;
                done.push(Piece { cube, chain: Chain::end(open.clone(), allows) });
            }
        }
    }
}

/// All of `room` that is in none of `cubes`.
pub(crate) fn rest(room: &Cube, cubes: &[Cube]) -> Result<Vec<Cube>, Error> {
    let mut left = vec![room.clone()];
    for cube in cubes {
        left = subtract(left, std::slice::from_ref(cube));
        if left.len() > MAX_PIECES {
            return Err(Error::TooComplex("kinds of requests", MAX_PIECES));
        }
    }
    Ok(left)
}
