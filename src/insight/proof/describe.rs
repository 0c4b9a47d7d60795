//! Sets of requests in the words of the policies.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use super::Gate;
use super::bits::Bits;
use super::region::Cube;
use super::space::{ADDRESSES, ALL_KINDS, GROUPS, IDS, KINDS, ROLES, SCOPES, Space, WHAT, What};
use crate::base::glob::Glob;
use crate::policy::{ItemKind, Rule};

/// What can be said about one dimension.
struct Literal {
    text: String,
    not: String,
    bits: Bits,
}

/// The words for every dimension.
pub(crate) struct Words<'s> {
    space: &'s Space,
    literals: [Vec<Literal>; super::region::DIMENSIONS],
}

impl<'s> Words<'s> {
    pub(crate) fn new<'g>(
        space: &'s Space,
        gates: impl Iterator<Item = &'g Gate> + Clone,
        tools: &[Glob],
    ) -> Self {
        let mut words = Self { space, literals: Default::default() };
        let rules: Vec<&Rule> =
            gates.clone().filter_map(|g| g.policy.as_deref()).flat_map(|p| p.rules()).collect();
        for rule in &rules {
            words.rule(rule);
        }
        words.names(ItemKind::Tool, tools, |globs, name| globs.iter().any(|g| g.matches(name)));
        for gate in gates {
            for scope in &gate.scopes {
                let bits =
                    Bits::filter(space.scopes.len(), |at| space.scopes[at].iter().any(|s| **s == **scope));
                words.add(SCOPES, join(&[scope]), bits);
            }
            if !gate.methods.is_empty() {
                let bits = space.what(|w| gate.methods.iter().any(|g| g.matches(&w.method)));
                words.add(WHAT, format!("methods {}", join(&gate.methods)), bits);
            }
        }
        for (kind, name) in [
            (Some(ItemKind::Tool), "tools"),
            (Some(ItemKind::Prompt), "prompts"),
            (Some(ItemKind::Resource), "resources"),
            (None, "requests that reach no item"),
        ] {
            let bits = space.what(|w| w.item.as_ref().map(|(kind, _)| *kind) == kind);
            words.add(WHAT, name.to_owned(), bits);
        }
        let open = space.what(What::is_open);
        words.add(
            WHAT,
            "what reaches no item by itself (handshake, pings, notifications, lists, tasks)".to_owned(),
            open,
        );
        let methods: BTreeSet<&str> = space.whats.iter().map(|w| w.method.as_str()).collect();
        for method in methods {
            let bits = space.what(|w| w.method == method);
            words.add(WHAT, format!("methods {method}"), bits);
        }
        for (at, kind) in ALL_KINDS.iter().enumerate() {
            words.add(KINDS, kind.as_str().to_owned(), Bits::filter(ALL_KINDS.len(), |other| other == at));
        }
        words
    }

    fn rule(&mut self, rule: &Rule) {
        let space = self.space;
        if !rule.roles.is_empty() {
            let bits = Bits::filter(space.roles.len(), |at| rule.roles.intersects(space.roles[at]));
            self.add(ROLES, join(&rule.roles.iter().collect::<Vec<_>>()), bits);
        }
        if rule.kinds != 0 {
            let of = |at: usize| rule.kinds & (1 << ALL_KINDS[at] as u8) != 0;
            let names: Vec<&str> =
                (0..ALL_KINDS.len()).filter(|at| of(*at)).map(|at| ALL_KINDS[at].as_str()).collect();
            self.add(KINDS, join(&names), Bits::filter(ALL_KINDS.len(), of));
        }
        if !rule.principals.is_empty() {
            let bits = Bits::filter(space.ids.len(), |at| rule.principals.matches(&space.ids[at]));
            self.add(IDS, join(rule.principals.globs()), bits);
        }
        for (dimension, patterns, sets) in
            [(GROUPS, &rule.groups, &space.groups), (SCOPES, &rule.scopes, &space.scopes)]
        {
            if !patterns.is_empty() {
                let bits = Bits::filter(sets.len(), |at| patterns.matches_one_of(&sets[at]));
                self.add(dimension, join(patterns.globs()), bits);
            }
        }
        if !rule.cidrs.is_empty() {
            let bits = Bits::filter(space.addresses.len(), |at| {
                rule.cidrs.iter().any(|net| net.contains(&space.addresses[at]))
            });
            self.add(ADDRESSES, join(&rule.cidrs), bits);
        }
        if !rule.methods.is_empty() {
            let bits = space.what(|w| rule.methods.matches(&w.method));
            self.add(WHAT, format!("methods {}", join(rule.methods.globs())), bits);
        }
        for (kind, patterns) in [
            (ItemKind::Tool, &rule.tools),
            (ItemKind::Prompt, &rule.prompts),
            (ItemKind::Resource, &rule.resources),
        ] {
            if !patterns.is_empty() {
                self.names(kind, patterns.globs(), |_, name| patterns.matches(name));
            }
        }
    }

    fn names(&mut self, kind: ItemKind, globs: &[Glob], matches: impl Fn(&[Glob], &str) -> bool) {
        let bits =
            self.space.what(|w| w.item.as_ref().is_some_and(|(k, name)| *k == kind && matches(globs, name)));
        let what = match kind {
            ItemKind::Prompt => "prompts",
            ItemKind::Resource => "resources",
            ItemKind::Tool => "tools",
        };
        if !globs.is_empty() {
            self.add(WHAT, format!("{what} {}", join(globs)), bits);
        }
    }

    fn add(&mut self, dimension: usize, text: String, bits: Bits) {
        let literals = &mut self.literals[dimension];
        if !literals.iter().any(|known| known.bits == bits) {
            literals.push(Literal { not: format!("not {text}"), text, bits });
        }
    }

    /// What sets `cube` apart within `room`, per field. Nothing for what does not matter.
    pub(crate) fn describe(&self, cube: &Cube, room: &Cube) -> BTreeMap<&'static str, String> {
        let fields = ["requests", "kinds", "roles", "principals", "groups", "scopes", "addresses"];
        let mut found = BTreeMap::new();
        for (dimension, field) in fields.into_iter().enumerate() {
            if !room.0[dimension].within(&cube.0[dimension]) {
                found.insert(field, self.dimension(dimension, &cube.0[dimension], &room.0[dimension]));
            }
        }
        found
    }

    fn dimension(&self, dimension: usize, set: &Bits, room: &Bits) -> String {
        if let Some(text) = self.all_of(dimension, set, room) {
            return text;
        }
        let mut left = set.clone();
        let mut parts = Vec::new();
        while !left.is_empty() {
            let part = self.literals[dimension]
                .iter()
                .filter(|l| l.bits.and(room).within(set) && l.bits.meets(&left))
                .max_by_key(|l| l.bits.and(&left).len());
            let Some(part) = part else { break };
            parts.push(part.text.clone());
            left = left.minus(&part.bits);
        }
        if !left.is_empty() {
            match self.all_of(dimension, &left, room) {
                Some(text) => parts.push(text),
                None => parts.extend(left.iter().map(|at| self.class(dimension, at, room))),
            }
        }
        parts.join("; or ")
    }

    /// One class, as precisely as can be said.
    fn class(&self, dimension: usize, at: usize, room: &Bits) -> String {
        let one = Bits::filter(self.space.size(dimension), |other| other == at);
        self.all_of(dimension, &one, room).unwrap_or_else(|| match dimension {
            ROLES => {
                let roles: Vec<_> = self.space.roles[at].iter().collect();
                format!("exactly {}", roles.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and "))
            }
            GROUPS => format!("such as {:?}", self.space.groups[at]),
            SCOPES => format!("such as {:?}", self.space.scopes[at]),
            IDS => format!("such as `{}`", self.space.ids[at]),
            ADDRESSES => format!("such as {}", self.space.addresses[at]),
            KINDS => ALL_KINDS[at].as_str().to_owned(),
            _ => {
                let what = &self.space.whats[at];
                format!("such as {} `{}`", what.method, what.item().name())
            }
        })
    }

    /// `set` as what several literals, or their opposites, have in common within `room`.
    fn all_of(&self, dimension: usize, set: &Bits, room: &Bits) -> Option<String> {
        let literals = &self.literals[dimension];
        let mut current = room.clone();
        let mut chosen: Vec<(bool, &Literal)> = Vec::new();
        while current != *set {
            let mut best: Option<(usize, bool, &Literal)> = None;
            for literal in literals {
                for (yes, after) in
                    [(true, current.and(&literal.bits)), (false, current.minus(&literal.bits))]
                {
                    // Saying what it is beats saying what it is not.
                    let better = best.is_none_or(|(size, was, _)| (after.len(), !yes) < (size, !was));
                    if set.within(&after) && after.len() < current.len() && better {
                        best = Some((after.len(), yes, literal));
                    }
                }
            }
            let (_, yes, literal) = best?;
            current = if yes { current.and(&literal.bits) } else { current.minus(&literal.bits) };
            chosen.push((yes, literal));
        }
        // Later choices may have made earlier ones unnecessary.
        let mut at = 0;
        while at < chosen.len() && chosen.len() > 1 {
            let without = chosen.iter().enumerate().filter(|(i, _)| *i != at).fold(
                room.clone(),
                |set, (_, (yes, l))| {
                    if *yes { set.and(&l.bits) } else { set.minus(&l.bits) }
                },
            );
            if without == *set {
                chosen.remove(at);
            } else {
                at += 1;
            }
        }
        chosen.sort_by_key(|(yes, _)| !*yes);
        let texts: Vec<&str> =
            chosen.iter().map(|(yes, l)| if *yes { l.text.as_str() } else { l.not.as_str() }).collect();
        Some(texts.join(", but "))
    }
}

fn join<T: Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
}
