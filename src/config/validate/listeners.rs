//! Rules about where connections are accepted.

use std::net::SocketAddr;

use super::{Context, DAY, HOUR, SOME};
use crate::config::hosts::host_matches;
use crate::config::model::{ClientAuth, ForwardedHeader, HttpUrl, ListenerTls, McpListener, Period, Size};
use crate::config::path::Path;

pub(super) fn validate(context: &mut Context<'_>) {
    let listeners = &context.document.listeners;
    let base = Path::of("listeners.mcp");
    public_url(context, &listeners.mcp, &base);
    tls(context, listeners.mcp.tls.as_ref(), &base.key("tls"));
    if listeners.mcp.h2 == Some(true) && listeners.mcp.tls.is_none() && context.intact("listeners.mcp.tls") {
        context
            .error("h2-without-tls", &base.key("h2"), "HTTP/2 is offered through TLS only, and there is none")
            .hint("add `tls`, or remove `h2`");
    }
    limits(context, &listeners.mcp, &base.key("limits"));
    hosts(context, &listeners.mcp, &base);
    cors(context, &listeners.mcp, &base.key("cors"));
    proxies(context, &listeners.mcp, &base);
    admin(context);
    metrics(context);
    collision(context);
    internal(context);
}

fn public_url(context: &mut Context<'_>, mcp: &McpListener, base: &Path) {
    let path = base.key("public_url");
    let Some(url) = &mcp.public_url else {
        if !mcp.address.is_loopback() && context.intact("listeners.mcp.public_url") {
            context
                .error("no-public-url", &base.key("address"), "a listener off loopback needs `public_url`")
                .expected("`public_url`, such as `https://mcp.example.com`")
                .hint("token audiences and OAuth metadata are built from it, never from the `Host` header");
        }
        return;
    };
    if url.path_and_query() != "/" {
        let hint = format!("write `{}`", url.origin());
        context
            .error("bad-value", &path, "`public_url` has a path")
            .expected("scheme, host and port only; routes have the paths")
            .hint(hint);
    }
    if url.is_https() && mcp.tls.is_none() && mcp.trusted_proxies.is_empty() {
        context
            .warning("no-trusted-proxy", &path, "TLS ends at a proxy, but none is trusted")
            .hint("list it in `trusted_proxies`, or every client has the proxy's address");
    }
    if !url.is_https() && !url.is_loopback() {
        context
            .warning("plaintext", &path, "clients send their credentials over plain HTTP")
            .hint("give the listener `tls`, or put a proxy with TLS in front");
    }
    if url.is_https() != mcp.tls.is_some() && mcp.tls.is_some() {
        context
            .error("bad-value", &path, "`public_url` is `http`, but the listener speaks TLS")
            .hint("write `https://`");
    }
}

fn tls(context: &mut Context<'_>, tls: Option<&ListenerTls>, path: &Path) {
    let Some(tls) = tls else { return };
    if tls.client_auth.is_some() && tls.client_ca.is_none() {
        context
            .error(
                "no-client-ca",
                &path.key("client_auth"),
                "client certificates cannot be verified without `client_ca`",
            )
            .hint("add `client_ca`, or remove `client_auth`");
    }
}

fn limits(context: &mut Context<'_>, mcp: &McpListener, path: &Path) {
    let limits = &mcp.limits;
    for (key, value, max) in [
        ("header_timeout", limits.header_timeout, HOUR),
        ("body_timeout", limits.body_timeout, HOUR),
        ("keepalive_timeout", limits.keepalive_timeout, DAY),
        ("write_timeout", limits.write_timeout, HOUR),
    ] {
        context.period(path.key(key), value, SOME, max);
    }
    for (key, value, min, max) in [
        ("max_body", limits.max_body, Size::from_kib(1), Size::from_mib(256)),
        ("max_header_size", limits.max_header_size, Size::from_kib(4), Size::from_mib(1)),
        (
            "min_send_rate",
            limits.min_send_rate.unwrap_or(Size::from_kib(1)),
            Size::from_bytes(1),
            Size::from_mib(1024),
        ),
    ] {
        if value < min || value > max {
            context
                .error("out-of-range", &path.key(key), format!("`{value}` is out of range"))
                .expected(format!("a size from `{min}` to `{max}`"));
        }
    }
    if limits.max_connections_per_address > limits.max_connections {
        context
            .warning(
                "no-effect",
                &path.key("max_connections_per_address"),
                "one address may open more connections than there may be in all",
            )
            .hint("lower it below `max_connections`");
    }
}

fn hosts(context: &mut Context<'_>, mcp: &McpListener, base: &Path) {
    for (i, origin) in mcp.allowed_origins.iter().flatten().enumerate() {
        origin_only(context, origin, &base.key("allowed_origins").index(i));
    }
    let Some(allowed) = &mcp.allowed_hosts else { return };
    let Some(url) = &mcp.public_url else { return };
    if !allowed.iter().any(|pattern| host_matches(pattern, url.host(), Some(url.port()))) {
        context
            .error(
                "host-not-allowed",
                &base.key("allowed_hosts"),
                "the host of `public_url` is not among them",
            )
            .expected(format!("`{}` as well", url.authority()));
    }
}

fn origin_only(context: &mut Context<'_>, origin: &HttpUrl, path: &Path) {
    if origin.path_and_query() != "/" || origin.as_str().ends_with('/') {
        let hint = format!("write `{}`", origin.origin());
        context.error("bad-value", path, "an origin has no path").hint(hint);
    }
}

fn cors(context: &mut Context<'_>, mcp: &McpListener, path: &Path) {
    let Some(cors) = &mcp.cors else { return };
    for (i, origin) in cors.origins.iter().enumerate() {
        let path = path.key("origins").index(i);
        if origin == "*" {
            if cors.credentials {
                context
                    .error(
                        "cors-credentials",
                        &path,
                        "the origin `*` cannot be combined with `credentials: true`",
                    )
                    .hint("list the origins, or set `credentials: false`");
            }
            continue;
        }
        match origin.parse::<HttpUrl>() {
            Ok(origin) => origin_only(context, &origin, &path),
            Err(bad) => {
                context
                    .error("bad-value", &path, "not an origin")
                    .expected("an origin such as `https://app.example.com`, or `*`")
                    .hint = bad.hint;
            }
        }
    }
    context.period(path.key("max_age"), cors.max_age, Period::from_secs(0), DAY);
}

fn proxies(context: &mut Context<'_>, mcp: &McpListener, base: &Path) {
    for (i, proxy) in mcp.trusted_proxies.iter().enumerate() {
        if proxy.get().prefix_len() == 0 {
            context
                .warning(
                    "trusts-everybody",
                    &base.key("trusted_proxies").index(i),
                    "every client is a trusted proxy",
                )
                .hint("name the proxies' networks: whoever is trusted here can claim any address");
        }
    }
    if mcp.trusted_proxies.is_empty() && mcp.forwarded_header != ForwardedHeader::default() {
        context
            .warning(
                "no-effect",
                &base.key("forwarded_header"),
                "no proxy is trusted, so no such header is read",
            )
            .hint("add `trusted_proxies`, or remove `forwarded_header`");
    }
}

/// Who can reach the listener, and who is let in.
pub(super) fn exposure(context: &mut Context<'_>) {
    let document = context.document;
    let base = Path::of("listeners.mcp");
    // Without routes nobody is let in anywhere.
    if !context.intact("identity") || (document.routes.is_empty() && !document.tenants.is_empty()) {
        return;
    }
    let identity = &document.identity;
    // A required client certificate keeps strangers out as well; who comes in is then `anonymous`.
    let certificates = document.listeners.mcp.tls.as_ref().is_some_and(requires_certificates);
    let identified = identity.store_keys() || identity.key_file().is_some() || !identity.issuers.is_empty();
    let loopback = document.listeners.mcp.address.is_loopback();
    let open = document.insecure_options.open;
    let guarded = certificates && identity.anonymous.is_some();
    if !(loopback || identified || open || guarded) {
        let message = if identity.anonymous.is_some() {
            "everybody who reaches this listener is let in"
        } else {
            "a listener off loopback needs `identity`"
        };
        context
            .error("open-listener", &base.key("address"), message)
            .expected("`identity` with `api_keys` or `issuers`")
            .hint("listen on 127.0.0.1, or set `insecure_options.open: true`");
    }
    if loopback && !identified && identity.anonymous.is_none() && identity.loopback.is_none() {
        context
            .warning(
                "refuses-everybody",
                &Path::of("identity"),
                "nobody is let in: there is no way to prove who one is",
            )
            .hint("add `identity: { loopback: {} }` to let callers from this machine in");
    }
}

fn admin(context: &mut Context<'_>) {
    let admin = &context.document.listeners.admin;
    let base = Path::of("listeners.admin");
    tls(context, admin.tls.as_ref(), &base.key("tls"));
    let certificates = admin.tls.as_ref().is_some_and(requires_certificates);
    if admin.address.is_loopback() || !context.intact("listeners.admin") {
        return;
    }
    if admin.token.is_none() && !certificates && !context.document.insecure_options.open {
        context
            .error("open-listener", &base.key("address"), "an admin listener off loopback needs `token`")
            .expected("`token`, or `tls` with `client_ca`")
            .hint("listen on 127.0.0.1, or set `insecure_options.open: true`");
    }
    if admin.token.is_some() && admin.tls.is_none() {
        context
            .warning("plaintext", &base.key("token"), "the token is sent over plain HTTP")
            .hint("add `tls`");
    }
}

fn metrics(context: &mut Context<'_>) {
    for (i, origin) in context.document.listeners.admin.allowed_origins.iter().enumerate() {
        origin_only(context, origin, &Path::of("listeners.admin.allowed_origins").index(i));
    }
    let Some(metrics) = &context.document.listeners.metrics else { return };
    let base = Path::of("listeners.metrics");
    let address = metrics.address.get();
    if !metrics.address.is_loopback() && metrics.token.is_none() && !context.document.insecure_options.open {
        context
            .error("open-listener", &base.key("address"), "a metrics listener off loopback needs `token`")
            .expected("`token`")
            .hint("listen on 127.0.0.1, or set `insecure_options.open: true`");
    }
    let listeners = &context.document.listeners;
    let others = [listeners.mcp.address.get(), listeners.admin.address.get()];
    if others.into_iter().any(|other| covers(other, address) || covers(address, other)) {
        context
            .error("address-in-use", &base.key("address"), "another listener has the same address and port")
            .hint("choose another port");
    }
}

fn requires_certificates(tls: &ListenerTls) -> bool {
    tls.client_auth() == Some(ClientAuth::Require)
}

/// Two listeners that cannot both have their address.
fn collision(context: &mut Context<'_>) {
    let (mcp, admin) =
        (context.document.listeners.mcp.address.get(), context.document.listeners.admin.address.get());
    if covers(mcp, admin) || covers(admin, mcp) {
        context
            .error(
                "address-in-use",
                &Path::of("listeners.admin.address"),
                "both listeners have the same address and port",
            )
            .hint("choose another port");
    }
}

fn internal(context: &mut Context<'_>) {
    let listeners = &context.document.listeners;
    let Some(internal) = &listeners.internal else { return };
    let base = Path::of("listeners.internal");
    let own = internal.address.get();
    let others = [listeners.mcp.address.get(), listeners.admin.address.get()];
    if others.into_iter().any(|other| covers(own, other) || covers(other, own)) {
        context
            .error("address-in-use", &base.key("address"), "another listener has the same address and port")
            .hint("choose another port");
    }
    let dialled = internal.advertise.as_deref().map(|text| text.rsplit_once(':'));
    let port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    match dialled {
        Some(Some((host, number))) if !host.is_empty() && port(number) => {}
        None if !own.ip().is_unspecified() => {}
        None => {
            context
                .error("missing", &base.key("advertise"), "other replicas cannot dial every interface")
                .expected("`advertise: HOST:PORT`, by which they reach this one");
        }
        Some(_) => {
            context
                .error("bad-value", &base.key("advertise"), "not a host and port")
                .expected("such as `10.0.0.7:7946`");
        }
    }
}

/// Whether listening on the first takes what the second needs.
pub(super) fn covers(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() != 0 && one.port() == other.port() && (one.ip() == other.ip() || one.ip().is_unspecified())
}
