//! Rules about policies.

use std::collections::HashSet;

use super::Context;
use super::routes::patterns;
use super::shadow::shadows;
use crate::config::model::{DefaultEffect, Matcher, Name, Policy, Rule};
use crate::config::path::Path;

/// Rules of one policy compared with each other; comparing is quadratic.
const MAX_COMPARED: usize = 300;

pub(super) fn validate(context: &mut Context<'_>) {
    let document = context.document;
    context.unique("policies", "policy", document.policies.iter().map(|p| &p.name));
    let used: HashSet<&Name> = document.routes.iter().filter_map(|route| route.policy.as_ref()).collect();
    for (i, policy) in document.policies.iter().enumerate() {
        let path = Path::of("policies").index(i);
        for (j, rule) in policy.rules.iter().enumerate() {
            check_rule(context, rule, &path.key("rules").index(j));
        }
        names(context, policy, &path.key("rules"));
        shadowed(context, policy, &path.key("rules"));
        for finding in (context.hooks.policy)(policy) {
            let at = path.key("rules").index(finding.rule);
            context.warning("doubtful-rule", &at, finding.message);
        }
        extremes(context, policy, &path);
        if !used.contains(&policy.name) {
            context
                .warning("unused", &path.key("name"), format!("no route has policy `{}`", policy.name))
                .hint(format!("add `policy: {}` to a route", policy.name));
        }
    }
}

fn check_rule(context: &mut Context<'_>, rule: &Rule, path: &Path) {
    match (&rule.allow, &rule.deny) {
        (None, None) => {
            context
                .error("not-exactly-one", path, "a rule that neither allows nor denies")
                .expected("`allow` or `deny`")
                .hint("`allow: {}` matches every request");
        }
        (Some(_), Some(_)) => {
            context
                .error("not-exactly-one", &path.key("deny"), "a rule that both allows and denies")
                .expected("`allow` or `deny`")
                .hint("make it two rules; the first that matches decides");
        }
        (Some(matcher), None) => check_matcher(context, matcher, &path.key("allow")),
        (None, Some(matcher)) => check_matcher(context, matcher, &path.key("deny")),
    }
    if let Some(when) = &rule.when
        && let Err(problem) = (context.hooks.expression)(when)
    {
        // Only the first line: a parser's drawing of the place would not survive in a message.
        let problem = problem.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or("unknown").to_owned();
        context
            .error("bad-expression", &path.key("when"), format!("the expression does not compile: {problem}"))
            .expected("a CEL expression that gives true or false");
    }
}

fn check_matcher(context: &mut Context<'_>, matcher: &Matcher, path: &Path) {
    for (key, list) in [
        ("principals", &matcher.principals),
        ("groups", &matcher.groups),
        ("scopes", &matcher.scopes),
        ("methods", &matcher.methods),
        ("tools", &matcher.tools),
        ("prompts", &matcher.prompts),
        ("resources", &matcher.resources),
    ] {
        patterns(context, list, &path.key(key));
    }
    for (i, server) in matcher.servers.iter().enumerate() {
        context.defined(&path.key("servers").index(i), "server", server, |names| &names.servers);
    }
}

fn names(context: &mut Context<'_>, policy: &Policy, path: &Path) {
    for (i, rule) in policy.rules.iter().enumerate() {
        let Some(name) = &rule.name else { continue };
        if policy.rules[..i].iter().any(|other| other.name.as_ref() == Some(name)) {
            context.error(
                "duplicate-name",
                &path.index(i).key("name"),
                format!("rule `{name}` is defined twice"),
            );
        }
    }
}

/// Rules that are never reached, because an earlier one without a condition matches all that they match.
fn shadowed(context: &mut Context<'_>, policy: &Policy, path: &Path) {
    for (i, rule) in policy.rules.iter().enumerate().take(MAX_COMPARED) {
        let Some((allows, matcher)) = rule.effect() else { continue };
        let earlier = policy.rules[..i].iter().position(|earlier| {
            earlier.when.is_none() && earlier.effect().is_some_and(|(_, wider)| shadows(wider, matcher))
        });
        if let Some(earlier) = earlier {
            let key = if allows { "allow" } else { "deny" };
            let name = match &policy.rules[earlier].name {
                Some(name) => format!("rule `{name}`"),
                None => format!("rule {earlier}"),
            };
            context
                .warning(
                    "shadowed-rule",
                    &path.index(i).key(key),
                    format!("never reached: {name} matches all of this"),
                )
                .hint("move it up, or remove it");
        }
    }
}

fn extremes(context: &mut Context<'_>, policy: &Policy, path: &Path) {
    let any = |wanted: bool| {
        policy.rules.iter().any(|rule| rule.effect().is_some_and(|(allows, _)| allows == wanted))
    };
    match policy.default {
        DefaultEffect::Allow if !any(false) => {
            context
                .warning("no-effect", &path.key("name"), "a policy that denies nothing")
                .hint("set `default: deny`");
        }
        DefaultEffect::Deny if !any(true) => {
            context
                .warning("refuses-everybody", &path.key("name"), "a policy that allows nothing")
                .hint("add an `allow` rule");
        }
        _ => {}
    }
}
