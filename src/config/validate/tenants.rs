//! Rules about which tenants there are and what is whose.

use std::collections::HashMap;

use super::Context;
use super::routes::path_shape;
use crate::config::hosts::host_matches;
use crate::config::model::{HostPattern, Route, Tenant};
use crate::config::path::Path;
use crate::config::terms::Terms;

/// Names that mean something else.
const RESERVED: [&str; 2] = ["default", "platform"];

/// Most segments of a path prefix; finding a request's tenant looks at no more.
pub(crate) const MAX_PREFIX_SEGMENTS: usize = 8;

pub(super) fn validate(context: &mut Context<'_>) {
    let document = context.document;
    context.unique("tenants", "tenant", document.tenants.iter().map(|tenant| &tenant.name));
    for (i, tenant) in document.tenants.iter().enumerate() {
        let path = Path::of("tenants").index(i);
        if RESERVED.contains(&tenant.name.as_str()) {
            context
                .error("bad-value", &path.key("name"), format!("a tenant cannot be called `{}`", tenant.name))
                .expected("another name")
                .hint("what belongs to the tenant `default` stands at the top level");
        }
        prefix(context, tenant, &path);
        hosts(context, tenant, &path);
    }
    overlaps(context);
    own_routes(context);
}

fn prefix(context: &mut Context<'_>, tenant: &Tenant, base: &Path) {
    let Some(text) = &tenant.path_prefix else { return };
    let path = base.key("path_prefix");
    if text == "/" {
        if tenant.hosts.is_empty() {
            context
                .error("bad-value", &path, "everything on every host would be the tenant's")
                .expected("a path such as `/t/acme`, or `hosts`");
        }
        return;
    }
    path_shape(context, text, &path);
    if text.split('/').count() > MAX_PREFIX_SEGMENTS + 1 {
        context
            .error("bad-length", &path, "a prefix of too many segments")
            .expected(format!("at most {MAX_PREFIX_SEGMENTS}"));
    }
    if text == "/healthz" || text.starts_with("/healthz/") {
        context
            .error("reserved-path", &path, "the gateway itself answers `/healthz`")
            .expected("another path");
    }
}

fn hosts(context: &mut Context<'_>, tenant: &Tenant, base: &Path) {
    let public = context.document.listeners.mcp.public_url.clone();
    for (i, host) in tenant.hosts.iter().enumerate() {
        let path = base.key("hosts").index(i);
        if host.port().is_some() {
            context
                .error("bad-value", &path, "a tenant has a host with all its ports")
                .expected("a host without a port")
                .hint(format!("write `{}`", host.host()));
        }
        if tenant.hosts[..i].contains(host) {
            context.error("duplicate-name", &path, format!("host `{host}` is named twice"));
        }
        let operators = public.as_ref().is_some_and(|url| host.host() == url.host());
        if operators && tenant.prefix().is_empty() {
            context
                .error("overlap", &path, "the host of `public_url` is the operator's")
                .expected("another host, or a `path_prefix`");
        }
    }
}

/// Two tenants cannot have the same place, nor one a place within another's.
fn overlaps(context: &mut Context<'_>) {
    let document = context.document;
    let mut by_host: HashMap<&str, Vec<(usize, String)>> = HashMap::new();
    let any = ["".to_owned()];
    for (i, tenant) in document.tenants.iter().enumerate() {
        let prefix = tenant.prefix();
        let hosts: Vec<&str> = tenant.hosts.iter().map(HostPattern::host).collect();
        let hosts = if hosts.is_empty() { any.iter().map(String::as_str).collect() } else { hosts };
        for (j, host) in hosts.into_iter().enumerate() {
            let others = by_host.entry(host).or_default();
            let clash = others.iter().find(|(_, other)| nested(other, &prefix)).map(|(other, _)| *other);
            others.push((i, prefix.clone()));
            let Some(other) = clash.filter(|other| *other != i) else { continue };
            let other = &document.tenants[other];
            let base = Path::of("tenants").index(i);
            let at = match (&tenant.path_prefix, tenant.hosts.is_empty()) {
                (Some(_), _) => base.key("path_prefix"),
                (None, true) => base.key("name"),
                (None, false) => base.key("hosts").index(j),
            };
            let on = if host.is_empty() { String::new() } else { format!(" on `{host}`") };
            context
                .error(
                    "overlap",
                    &at,
                    format!("tenant `{}` already has `{}/`{on}", other.name, other.prefix()),
                )
                .expected("a place that is not within another tenant's, nor around it");
        }
    }
}

/// Whether one of two prefixes is within the other.
fn nested(a: &str, b: &str) -> bool {
    let within = |outer: &str, inner: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    within(a, b) || within(b, a)
}

/// Routes of the operator in a place that was given away: requests to them are the tenant's.
pub(super) fn own_routes(context: &mut Context<'_>) {
    let document = context.document;
    if document.tenants.is_empty() {
        return;
    }
    let tenants: Vec<Terms> = document.tenants.iter().map(Terms::of).collect();
    for (i, route) in document.routes.iter().enumerate() {
        let Some(tenant) = tenants.iter().find(|terms| taken(terms, route)) else { continue };
        let base = Path::of("routes").index(i);
        let at = if route.path.is_some() { base.key("path") } else { base.key("name") };
        let message = format!("`{}` belongs to tenant `{}`", route.path(), tenant.tenant());
        context.error("unreachable-route", &at, message).expected("a path and hosts that are no tenant's");
    }
}

/// Whether all of a route is in a tenant's place.
fn taken(terms: &Terms, route: &Route) -> bool {
    let path = route.path();
    if !terms.owns_path(&path) {
        return false;
    }
    if terms.hosts().is_empty() {
        // Hosts that the route names may be another's, but never free of this prefix.
        return true;
    }
    !route.hosts.is_empty()
        && route
            .hosts
            .iter()
            .all(|host| terms.hosts().iter().any(|own| own == host || host_matches(own, host.host(), None)))
}
