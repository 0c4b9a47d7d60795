//! What can be said about a policy without a request.

use std::fmt;

use super::facts::{ItemKind, is_open_method};
use super::rule::{Patterns, Rule, When};
use crate::base::{Glob, Role};

/// Something that is probably not what the author meant. Rules are counted from zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The expression reads a key that may be missing, without `has(…)`: a request without it is denied.
    MayFail {
        /// The rule.
        rule: usize,
        /// What it reads, as in `arguments.path`.
        path: String,
    },
    /// The rule cannot match any request.
    NeverMatches {
        /// The rule.
        rule: usize,
        /// Why.
        reason: &'static str,
    },
    /// Every request that would match the rule is decided by an earlier one.
    Shadowed {
        /// The rule.
        rule: usize,
        /// The earlier one.
        by: usize,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::MayFail { rule, path } => {
                write!(f, "rules[{rule}] denies requests without `{path}`: guard it with `has({path})`")
            }
            Finding::NeverMatches { rule, reason } => write!(f, "rules[{rule}] never matches: {reason}"),
            Finding::Shadowed { rule, by } => {
                write!(f, "rules[{rule}] is never reached: rules[{by}] decides all its requests")
            }
        }
    }
}

/// Sound, not complete: what is reported is so for all requests (entries of template lists aside, where a deny rule
/// matches less), but two rules that together shadow a third are not found.
pub(crate) fn findings(rules: &[Rule]) -> Vec<Finding> {
    let mut found = Vec::new();
    for (rule, this) in rules.iter().enumerate() {
        if let Some(reason) = never(this) {
            found.push(Finding::NeverMatches { rule, reason });
            continue;
        }
        if let Some(by) = rules[..rule].iter().position(|earlier| covers(earlier, this)) {
            found.push(Finding::Shadowed { rule, by });
            continue;
        }
        if let When::If(program) = &this.when {
            let paths = program.unguarded().iter();
            found.extend(paths.map(|path| Finding::MayFail { rule, path: path.clone() }));
        }
    }
    found
}

fn never(rule: &Rule) -> Option<&'static str> {
    if matches!(rule.when, When::Never) {
        return Some("its expression is always false");
    }
    let methods = rule.methods.globs();
    if !rule.items.is_empty() && !methods.is_empty() {
        let reachable = methods.iter().any(|method| match method.as_exact() {
            // Nothing is known about methods that are neither.
            Some(exact) => !is_open_method(exact) || exact == "subscriptions/listen",
            None => true,
        });
        let right_kind = methods.iter().any(|method| {
            let Some(exact) = method.as_exact() else { return true };
            let of = |kinds: &[ItemKind]| kinds.iter().any(|kind| rule.items.contains(*kind));
            match exact {
                "tools/call" => of(&[ItemKind::Tool]),
                "prompts/get" => of(&[ItemKind::Prompt]),
                "resources/read" | "resources/subscribe" | "resources/unsubscribe" => {
                    of(&[ItemKind::Resource])
                }
                "completion/complete" => of(&[ItemKind::Prompt, ItemKind::Resource]),
                _ => true,
            }
        });
        if !reachable || !right_kind {
            return Some("none of its methods reaches what it names");
        }
    }
    None
}

/// Whether `wide`, an earlier rule, decides every request that `narrow` would match.
fn covers(wide: &Rule, narrow: &Rule) -> bool {
    matches!(wide.when, When::Always)
        && covers_items(wide, narrow)
        && covers_roles(wide, narrow)
        && (wide.kinds == 0 || narrow.kinds != 0 && narrow.kinds & !wide.kinds == 0)
        && covers_patterns(&wide.principals, &narrow.principals)
        && covers_optional(&wide.groups, &narrow.groups)
        && covers_optional(&wide.scopes, &narrow.scopes)
        && covers_patterns(&wide.methods, &narrow.methods)
        && covers_optional(&wide.servers, &narrow.servers)
        && covers_networks(wide, narrow)
}

fn covers_items(wide: &Rule, narrow: &Rule) -> bool {
    if wide.items.is_empty() {
        return true;
    }
    if narrow.items.is_empty() || !wide.items.covers(narrow.items) {
        return false;
    }
    [
        (ItemKind::Tool, &wide.tools, &narrow.tools),
        (ItemKind::Prompt, &wide.prompts, &narrow.prompts),
        (ItemKind::Resource, &wide.resources, &narrow.resources),
    ]
    .into_iter()
    .all(|(kind, wide_names, names)| !narrow.items.contains(kind) || covers_patterns(wide_names, names))
}

/// Every caller has a role, so all six are as good as none given.
fn covers_roles(wide: &Rule, narrow: &Rule) -> bool {
    wide.roles.is_empty()
        || Role::ALL.iter().all(|r| wide.roles.contains(*r))
        || !narrow.roles.is_empty() && narrow.roles.iter().all(|r| wide.roles.contains(r))
}

/// For fields that every request has.
fn covers_patterns(wide: &Patterns, narrow: &Patterns) -> bool {
    wide.is_any() || covers_listed(wide, narrow)
}

/// For fields that a request may lack: a `*` matches only those that have it.
fn covers_optional(wide: &Patterns, narrow: &Patterns) -> bool {
    wide.is_empty() || covers_listed(wide, narrow)
}

fn covers_listed(wide: &Patterns, narrow: &Patterns) -> bool {
    let covered = |narrow: &Glob| wide.globs().iter().any(|wide| wide.covers(narrow));
    !narrow.globs().is_empty() && narrow.globs().iter().all(covered)
}

fn covers_networks(wide: &Rule, narrow: &Rule) -> bool {
    wide.cidrs.is_empty()
        || !narrow.cidrs.is_empty() && narrow.cidrs.iter().all(|n| wide.cidrs.iter().any(|w| w.contains(n)))
}
