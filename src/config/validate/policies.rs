//! Rules about policies.

use std::collections::HashSet;

use super::Context;
use super::routes::patterns;
use super::shadow::shadows;
use crate::config::model::{DefaultEffect, MaskedField, Matcher, Name, Policy, RecordBodies, Rule, Size};
use crate::config::path::Path;

/// Rules of one policy compared with each other; comparing is quadratic.
const MAX_COMPARED: usize = 300;
/// Most bytes of a body that an event can hold.
pub(super) const MAX_BODY: Size = Size::from_kib(64);
/// Longest name of what is redacted, in bytes.
const MAX_REDACTED_NAME: usize = 128;

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
    if let Some(record) = &rule.record {
        check_record(context, rule, record, &path.key("record"));
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

fn check_record(context: &mut Context<'_>, rule: &Rule, record: &RecordBodies, path: &Path) {
    if record.max == Size::from_bytes(0) || record.max > MAX_BODY {
        context
            .error("out-of-range", &path.key("max"), format!("`{}` is out of range", record.max))
            .expected(format!("a size from `1B` to `{MAX_BODY}`"));
    }
    for (i, name) in record.redact.iter().enumerate() {
        if name.is_empty() || name.len() > MAX_REDACTED_NAME {
            context
                .error("bad-length", &path.key("redact").index(i), "this is no name of a member")
                .expected(format!("1 to {MAX_REDACTED_NAME} bytes"));
        }
    }
    if !record.request && !record.response {
        context
            .error("contradiction", path, "a record of neither request nor response")
            .hint("remove `record`, or one of the two `false`");
        return;
    }
    let audit = &context.document.audit;
    let masked = |field| audit.mask.contains(&field);
    let (enabled, most) = (audit.enabled, audit.max_body);
    let request = record.request && !masked(MaskedField::RequestBody);
    let response = record.response && !masked(MaskedField::ResponseBody);
    let answered = rule.effect().is_none_or(|(_, matcher)| may_be_answered(matcher));
    if !enabled {
        context
            .warning("no-effect", path, "nothing is recorded: the audit is off")
            .hint("remove `record`, or `enabled: false` of `audit`");
    } else if !request && !response {
        context
            .warning("no-effect", path, "no body is recorded: `audit.mask` has all that this rule asks for")
            .hint("remove `record`, or what `audit.mask` says of bodies");
    } else if !request && !answered {
        context
            .warning("no-effect", path, "no response is recorded: none of the rule's methods has one")
            .hint("`request: true` records what the client sends");
    } else if record.max > most && record.max <= MAX_BODY {
        context.warning(
            "no-effect",
            &path.key("max"),
            format!("`audit.max_body` allows no more than `{most}`"),
        );
    }
}

/// Whether anything that the matcher matches is answered with one message: notifications are not, and streams that stay
/// open are not recorded.
fn may_be_answered(matcher: &Matcher) -> bool {
    let silent = |method: &String| method.starts_with("notifications/") || method == "subscriptions/listen";
    matcher.methods.is_empty() || !matcher.methods.iter().all(silent)
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
