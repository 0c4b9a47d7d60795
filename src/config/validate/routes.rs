//! Rules about what clients dial.

use std::collections::HashMap;

use super::Context;
use crate::config::hosts::host_matches;
use crate::config::model::limit::DEFAULT_LIMIT;
use crate::config::model::{Route, SourceKind};
use crate::config::path::Path;

/// Paths that the gateway answers itself.
pub(super) const RESERVED_PATHS: [&str; 1] = ["/.well-known"];

pub(super) fn validate(context: &mut Context<'_>) {
    let document = context.document;
    context.unique("routes", "route", document.routes.iter().map(|r| &r.name));
    context.names.limits.insert(DEFAULT_LIMIT.to_owned());
    let elsewhere = !document.tenants.is_empty() || document.source == SourceKind::Database;
    if document.routes.is_empty() && !elsewhere && context.intact("routes") {
        context
            .warning("no-routes", &Path::of("routes"), "there is nothing for clients to dial")
            .hint("add a route: `{ name: demo, servers: [demo] }`");
    }
    for (i, route) in document.routes.iter().enumerate() {
        let path = Path::of("routes").index(i);
        shape(context, route, &path);
        hosts(context, route, &path);
        references(context, route, &path);
        tokens(context, route, &path);
        patterns(context, &route.methods, &path.key("methods"));
    }
    reachable(context);
}

fn shape(context: &mut Context<'_>, route: &Route, base: &Path) {
    let Some(text) = &route.path else { return };
    path_shape(context, text, &base.key("path"));
}

/// Reports paths that are not written as they must be.
pub(super) fn path_shape(context: &mut Context<'_>, text: &str, path: &Path) {
    let expected = "a path such as `/mcp/weather`";
    let odd = |b: u8| !(b.is_ascii_alphanumeric() || b"/-_.~".contains(&b));
    if !text.starts_with('/') {
        context
            .error("bad-value", path, "a path that does not start with `/`")
            .expected(expected)
            .hint(format!("write `/{text}`"));
    } else if text.bytes().any(odd) {
        context
            .error("bad-value", path, "a path with other than letters, digits, `-`, `_`, `.` and `~`")
            .expected(expected);
    } else if text.len() > 1 && text.ends_with('/') {
        context.error("bad-value", path, "a path that ends with `/`").expected(expected).hint(format!(
            "write `{}`; it matches with a trailing slash as well",
            text.trim_end_matches('/')
        ));
    } else if text.len() > 1
        && text[1..].split('/').any(|part| part.is_empty() || part == "." || part == "..")
    {
        context.error("bad-value", path, "a path with an empty, `.` or `..` segment").expected(expected);
    }
    if let Some(reserved) =
        RESERVED_PATHS.into_iter().find(|r| text == *r || text.starts_with(&format!("{r}/")))
    {
        context
            .error("reserved-path", path, format!("the gateway itself answers under `{reserved}`"))
            .expected(expected);
    }
}

fn hosts(context: &mut Context<'_>, route: &Route, base: &Path) {
    let mcp = &context.document.listeners.mcp;
    let Some(allowed) = &mcp.allowed_hosts else { return };
    for (i, host) in route.hosts.iter().enumerate() {
        if !allowed.iter().any(|pattern| pattern == host || host_matches(pattern, host.host(), host.port())) {
            context
                .error(
                    "unreachable-route",
                    &base.key("hosts").index(i),
                    format!("host `{host}` is not accepted"),
                )
                .hint("add it to `listeners.mcp.allowed_hosts`");
        }
    }
}

fn references(context: &mut Context<'_>, route: &Route, base: &Path) {
    let path = base.key("servers");
    if route.servers.len() > 1 {
        context
            .error("unsupported", &path, "several servers behind one route are not supported by this version")
            .expected("exactly one server")
            .hint(
                "define one route per server; for several instances of one server, give it several `targets`",
            );
    }
    for (i, server) in route.servers.iter().enumerate() {
        context.defined(&path.index(i), "server", server, |names| &names.servers);
    }
    let path = base.key("limits");
    for (i, limit) in route.limits.iter().enumerate() {
        context.defined(&path.index(i), "limit", limit, |names| &names.limits);
        if route.limits[..i].contains(limit) {
            context.error("duplicate-name", &path.index(i), format!("limit `{limit}` is named twice"));
        }
    }
    if route.limits.is_empty() {
        context
            .warning("no-limits", &path, "callers of this route are not limited")
            .hint("remove `limits` for the built-in ones");
    }
    let document = context.document;
    if route.policy.is_none()
        && document.identity.anonymous.is_some()
        && !document.listeners.mcp.address.is_loopback()
    {
        context
            .warning(
                "no-policy",
                &base.key("name"),
                "callers without a credential may use everything on this route",
            )
            .hint("add a `policy`, or remove `identity.anonymous`");
    }
    if let Some(policy) = &route.policy {
        context.defined(&base.key("policy"), "policy", policy, |names| &names.policies);
    }
}

fn tokens(context: &mut Context<'_>, route: &Route, base: &Path) {
    for (i, audience) in route.audiences.iter().enumerate() {
        let path = base.key("audiences").index(i);
        if audience.contains('*') {
            context
                .error("bad-value", &path, "audiences are compared exactly; `*` has no meaning")
                .expected("an audience");
        } else {
            context
                .warning("shared-audience", &path, "tokens for another audience are accepted here")
                .hint("better have the issuer put the route's own URL into `aud`");
        }
    }
    for (i, scope) in route.scopes.iter().enumerate() {
        if !scope.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\') {
            context
                .error("bad-value", &base.key("scopes").index(i), "not a scope")
                .expected("printable characters but space, `\"` and `\\` (RFC 6749)");
        }
    }
    if (!route.audiences.is_empty() || !route.scopes.is_empty())
        && context.document.identity.issuers.is_empty()
        && context.intact("identity")
    {
        let key = if route.scopes.is_empty() { "audiences" } else { "scopes" };
        context
            .warning("no-effect", &base.key(key), "no issuer is configured, so no token is read")
            .hint("add `identity.issuers`");
    }
}

/// Reports patterns that do not compile.
pub(super) fn patterns(context: &mut Context<'_>, patterns: &[String], path: &Path) {
    for (i, pattern) in patterns.iter().enumerate() {
        if let Err(problem) = (context.hooks.pattern)(pattern) {
            context.error("bad-pattern", &path.index(i), format!("`{pattern}` is not a pattern: {problem}"));
        }
    }
}

/// Routes that an earlier one hides: same path on the same host.
fn reachable(context: &mut Context<'_>) {
    let document = context.document;
    let mut seen: HashMap<(String, String), usize> = HashMap::new();
    for (i, route) in document.routes.iter().enumerate() {
        let hosts: Vec<String> = if route.hosts.is_empty() {
            vec![String::new()]
        } else {
            route.hosts.iter().map(|h| h.to_string()).collect()
        };
        for host in hosts {
            let first = *seen.entry((host.clone(), route.path())).or_insert(i);
            if first == i {
                continue;
            }
            let other = &document.routes[first].name;
            let on = if host.is_empty() { String::new() } else { format!(" on `{host}`") };
            let base = Path::of("routes").index(i);
            let at = if route.path.is_some() { base.key("path") } else { base.key("name") };
            context
                .error(
                    "unreachable-route",
                    &at,
                    format!("route `{other}` already has `{}`{on}", route.path()),
                )
                .expected("one route per host and path");
        }
    }
}
