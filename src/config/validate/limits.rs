//! Rules about token buckets.

use std::collections::HashSet;

use super::Context;
use crate::base::Role;
use crate::config::model::limit::DEFAULT_LIMIT;
use crate::config::model::{Limit, LimitBackend, LimitFail, LimitKey, Name};
use crate::config::path::Path;

pub(super) fn validate(context: &mut Context<'_>) {
    let document = context.document;
    context.unique("limits", "limit", document.limits.iter().map(|l| &l.name));
    let used: HashSet<&Name> = document.routes.iter().flat_map(|route| &route.limits).collect();
    for (i, limit) in document.limits.iter().enumerate() {
        let path = Path::of("limits").index(i);
        rates(context, limit, &path);
        keys(context, limit, &path.key("key"));
        cost(context, limit, &path.key("cost"));
        backend(context, limit, &path);
        if !used.contains(&limit.name) {
            let finding =
                context.warning("unused", &path.key("name"), format!("no route has limit `{}`", limit.name));
            if limit.name.as_str() != DEFAULT_LIMIT {
                finding.hint(format!("add `limits: [{}]` to a route", limit.name));
            }
        }
    }
}

/// The longest time a bucket may take to fill: longer ones are typing errors, and past what is counted with.
const MAX_FILL_SECS: f64 = 100.0 * 365.0 * 86_400.0;

/// The most entries of a cost table.
const MAX_COSTS: usize = 1024;

fn rates(context: &mut Context<'_>, limit: &Limit, path: &Path) {
    match (&limit.rate, &limit.per_role) {
        (None, None) => {
            context
                .error("not-exactly-one", path, "a limit without a rate")
                .expected("`rate: 200/m`, or `per_role`");
        }
        (Some(_), Some(_)) => {
            context
                .error("not-exactly-one", &path.key("per_role"), "`rate` and `per_role` exclude each other")
                .expected("only one of them");
        }
        (None, Some(table)) if Role::ALL.into_iter().all(|role| table.named(role).is_none()) => {
            context
                .error("empty", &path.key("per_role"), "a table without a rate")
                .expected("at least one role, such as `developer: 200/m`");
        }
        _ => {}
    }
    let slow = Role::ALL.into_iter().filter_map(|role| limit.rate_of(role)).any(|rate| {
        limit.burst.tokens(rate) as f64 / rate.count() as f64 * rate.per().as_secs_f64() > MAX_FILL_SECS
    });
    if slow {
        context
            .error(
                "contradiction",
                &path.key("burst"),
                "an empty bucket would take more than a century to fill",
            )
            .expected("a smaller `burst`, or a higher rate");
    }
}

fn keys(context: &mut Context<'_>, limit: &Limit, path: &Path) {
    let keys = limit.key.as_slice();
    for (i, key) in keys.iter().enumerate() {
        if keys[..i].contains(key) {
            context.error("duplicate-name", &path.index(i), "a key that is already in the list");
        }
    }
    if keys.contains(&LimitKey::Principal) && keys.contains(&LimitKey::User) {
        context.warning("no-effect", path, "`user` adds nothing to `principal`").hint("name one of them");
    }
}

fn backend(context: &mut Context<'_>, limit: &Limit, path: &Path) {
    match limit.backend {
        LimitBackend::Valkey if context.document.valkey.is_none() && context.intact("valkey") => {
            context
                .error("missing", &path.key("backend"), "there is no server to share the limit through")
                .expected("a section `valkey: { urls: [redis://…] }`, or `backend: local`");
        }
        LimitBackend::Local if limit.fail != LimitFail::default() => {
            context
                .warning("no-effect", &path.key("fail"), "a local limit has no server that could fail")
                .hint("remove it, or set `backend: valkey`");
        }
        _ => {}
    }
}

/// A request that costs more than a full bucket could never pass.
fn cost(context: &mut Context<'_>, limit: &Limit, path: &Path) {
    let smallest = Role::ALL
        .into_iter()
        .filter_map(|role| limit.rate_of(role))
        .map(|rate| limit.burst.tokens(rate))
        .min();
    let Some(smallest) = smallest else { return };
    let cost = &limit.cost;
    let methods = cost.methods.iter().map(|(name, tokens)| (path.key("methods").entry(name), *tokens));
    let tools = cost.tools.iter().map(|(name, tokens)| (path.key("tools").entry(name), *tokens));
    let all: Vec<(Path, u32)> =
        std::iter::once((path.key("default"), cost.default)).chain(methods).chain(tools).collect();
    if all.iter().all(|(_, tokens)| *tokens == 0) {
        context.warning("no-effect", path, "no request costs anything, so nothing is limited");
    }
    for (path, tokens) in all {
        if u64::from(tokens) > smallest {
            context
                .error(
                    "contradiction",
                    &path,
                    format!("costs {tokens} tokens, but the smallest bucket holds {smallest}"),
                )
                .expected(format!("at most {smallest}, or a larger `burst`"));
        }
    }
    for (key, entries) in [("methods", cost.methods.len()), ("tools", cost.tools.len())] {
        if entries > MAX_COSTS {
            context
                .error("bad-length", &path.key(key), format!("a table of {entries} entries"))
                .expected(format!("at most {MAX_COSTS} entries"));
        }
    }
    for name in cost.tools.keys() {
        if let Err(problem) = (context.hooks.pattern)(name) {
            context.error(
                "bad-pattern",
                &path.key("tools").entry(name),
                format!("`{name}` is not a pattern: {problem}"),
            );
        }
    }
}
