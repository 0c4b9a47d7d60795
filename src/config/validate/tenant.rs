//! What a tenant's document may not say.
//!
//! Each rule is one way out of the tenant's own place: hosts and paths of others, files and networks of the gateway,
//! issuers that were not granted. References (`${env:}`, `${file:}`) are refused where they are resolved; host names are
//! checked again at every resolution, because what they stand for changes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use super::Context;
use crate::config::model::{ApiKeys, FailedAttempts, HttpUrl, Target};
use crate::config::path::Path;
use crate::config::terms::Terms;

pub(super) fn validate(context: &mut Context<'_>, terms: &Terms) {
    routes(context, terms);
    servers(context, terms);
    identity(context, terms);
}

fn routes(context: &mut Context<'_>, terms: &Terms) {
    for (i, route) in context.document.routes.iter().enumerate() {
        let base = Path::of("routes").index(i);
        if let Some(path) = route.path.as_deref().filter(|path| !terms.owns_path(path)) {
            context
                .error(
                    "not-granted",
                    &base.key("path"),
                    format!("`{path}` does not belong to tenant `{}`", terms.tenant()),
                )
                .expected(format!("a path under `{}/`", terms.prefix()));
        }
        for (j, host) in route.hosts.iter().enumerate().filter(|(_, host)| !terms.owns_host(host)) {
            let message = format!("host `{host}` does not belong to tenant `{}`", terms.tenant());
            let finding = context.error("not-granted", &base.key("hosts").index(j), message);
            if terms.hosts().is_empty() {
                finding.expected("no `hosts`: the tenant has none of its own");
            } else {
                let own: Vec<&str> = terms.hosts().iter().map(|host| host.as_str()).collect();
                finding.expected(format!("one of {}", crate::config::suggest::list(&own)));
            }
        }
    }
}

fn servers(context: &mut Context<'_>, terms: &Terms) {
    for (i, server) in context.document.servers.iter().enumerate() {
        let base = Path::of("servers").index(i).key("http");
        for (j, target) in server.http.targets.iter().enumerate() {
            let path = base.key("targets").index(j);
            let path = if matches!(target, Target::Url(_)) { path } else { path.key("url") };
            address(context, terms, target.url(), &path);
        }
        let tls = &server.http.tls;
        for (key, path) in
            [("ca", &tls.ca), ("client_cert", &tls.client_cert), ("client_key", &tls.client_key)]
        {
            file(context, terms, path.as_ref(), &base.key("tls").key(key));
        }
    }
}

fn identity(context: &mut Context<'_>, terms: &Terms) {
    let identity = &context.document.identity;
    let base = Path::of("identity");
    if let Some(ApiKeys::File(keys)) = &identity.api_keys {
        file(context, terms, Some(&keys.file), &base.key("api_keys.file"));
    }
    file(context, terms, identity.revocations.as_ref().map(|list| &list.file), &base.key("revocations.file"));
    if identity.anonymous.is_some() && !terms.allows_anonymous() {
        context
            .error(
                "not-granted",
                &base.key("anonymous"),
                "the tenant may not let in callers who prove nothing",
            )
            .hint("the operator can allow it: `grants: { anonymous: true }`");
    }
    if identity.loopback.is_some() {
        context
            .error(
                "not-granted",
                &base.key("loopback"),
                "callers from the gateway's machine are the operator's",
            )
            .expected("`api_keys` or `issuers`");
    }
    if identity.failed_attempts != FailedAttempts::default() {
        context
            .error(
                "not-granted",
                &base.key("failed_attempts"),
                "failed attempts are counted for all tenants together",
            )
            .expected("the key at the top level of the operator's file");
    }
    for (i, issuer) in identity.issuers.iter().enumerate() {
        let base = base.key("issuers").index(i);
        let url: Option<HttpUrl> = issuer.issuer.parse().ok();
        match &url {
            Some(url) => granted(context, terms, url, &base.key("issuer")),
            None if !terms.issuers().is_empty() => not_granted(context, &base.key("issuer"), &issuer.issuer),
            None => {}
        }
        if let Some(url) = &issuer.jwks.url {
            granted(context, terms, url, &base.key("jwks.url"));
            address(context, terms, url, &base.key("jwks.url"));
        } else if let Some(url) = url.filter(|_| issuer.jwks.file.is_none()) {
            address(context, terms, &url, &base.key("issuer"));
        }
        file(context, terms, issuer.jwks.file.as_ref(), &base.key("jwks.file"));
    }
}

fn granted(context: &mut Context<'_>, terms: &Terms, url: &HttpUrl, path: &Path) {
    if !terms.allows_issuer(url) {
        not_granted(context, path, url.as_str());
    }
}

fn not_granted(context: &mut Context<'_>, path: &Path, url: &str) {
    let shown: String = url.chars().take(64).filter(|c| !c.is_control()).collect();
    let shown = shown.split('?').next().unwrap_or_default();
    context
        .error("not-granted", path, format!("`{shown}` is not among the issuers granted to the tenant"))
        .hint("the operator can add it to `grants.issuers`");
}

/// Refuses addresses, written out, that the tenant may not have dialled. Names are checked when they are resolved.
fn address(context: &mut Context<'_>, terms: &Terms, url: &HttpUrl, path: &Path) {
    let guard = terms.guard();
    let host = url.host().trim_end_matches('.');
    let addresses: Vec<IpAddr> = if host == "localhost" || host.ends_with(".localhost") {
        vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
    } else {
        url.ip().into_iter().collect()
    };
    if addresses.is_empty() || addresses.iter().any(|ip| guard.check(*ip).is_ok()) {
        return;
    }
    let Some(Err(refused)) = addresses.first().map(|ip| guard.check(*ip)) else { return };
    context
        .error("not-granted", path, format!("`{}` is {}", url.host(), refused.kind))
        .expected("an address that the Internet reaches")
        .hint("the operator can allow a network: `grants: { private_targets: [10.1.0.0/16] }`");
}

fn file(context: &mut Context<'_>, terms: &Terms, file: Option<&PathBuf>, path: &Path) {
    if file.is_some() && !terms.allows_files() {
        context
            .error("not-granted", path, "the tenant may not name files of the gateway's machine")
            .hint("the operator can allow it: `grants: { file: true }`");
    }
}
