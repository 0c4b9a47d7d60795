//! Rules about the servers behind the gateway.

use std::collections::{HashMap, HashSet};

use super::listeners::covers;
use super::{Context, DAY, HOUR, SOME};
use crate::config::model::{Balance, Credential, HashKey, HttpUrl, Name, Period, Probe, Server, Target};
use crate::config::path::Path;

/// Client SDKs ping every 15 s; a stream must be allowed to be silent for longer.
const MIN_STREAM_IDLE: Period = Period::from_secs(15);

/// Headers that the gateway or the protocol sets itself, which no credential may replace.
const RESERVED_HEADERS: [&str; 14] = [
    "accept",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "last-event-id",
    "te",
    "traceparent",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

pub(super) fn validate(context: &mut Context<'_>) {
    let document = context.document;
    context.unique("servers", "server", document.servers.iter().map(|s| &s.name));
    let used: HashSet<&Name> = document.routes.iter().flat_map(|route| &route.servers).collect();
    for (i, server) in document.servers.iter().enumerate() {
        let path = Path::of("servers").index(i);
        targets(context, server, &path.key("http"));
        tls(context, server, &path.key("http"));
        balance(context, server, &path);
        health(context, server, &path.key("health"));
        outlier(context, server, &path);
        timeouts(context, server, &path.key("timeouts"));
        credential(context, server, &path.key("credential"));
        context.period(path.key("slow_start"), server.slow_start, Period::from_secs(0), HOUR);
        context.period(path.key("dns.refresh"), server.dns.refresh, Period::from_secs(1), DAY);
        context.period(path.key("pool.idle_timeout"), server.pool.idle_timeout, SOME, HOUR);
        context.period(path.key("catalogue.refresh"), server.catalogue.refresh, Period::from_secs(1), DAY);
        for (key, share) in [
            ("outlier.error_ratio", server.outlier.error_ratio),
            ("outlier.max_ejected", server.outlier.max_ejected),
            ("retry.budget", server.retry.budget),
        ] {
            if share.percent().fract() != 0.0 {
                context
                    .error("bad-value", &path.key(key), format!("`{share}` is not a whole percent"))
                    .expected(format!("a whole percent, such as `{}%`", share.percent().ceil()));
            }
        }
        if server.retry.attempts > 1
            && server.retry.budget.percent() == 0.0
            && server.retry.min_per_second == 0
        {
            context
                .warning("no-effect", &path.key("retry.budget"), "a budget of nothing allows no retry")
                .hint("set `attempts: 1` if that is meant");
        }
        if !used.contains(&server.name) {
            context
                .warning("unused", &path.key("name"), format!("no route leads to server `{}`", server.name))
                .hint(format!("add a route with `servers: [{}]`", server.name));
        }
    }
}

fn targets(context: &mut Context<'_>, server: &Server, http: &Path) {
    let mut seen: HashMap<(&str, u16), usize> = HashMap::new();
    let listeners = &context.document.listeners;
    let own = [listeners.mcp.address.get(), listeners.admin.address.get()];
    for (i, target) in server.http.targets.iter().enumerate() {
        let url = target.url();
        let path = target_path(http, i, target);
        if let Some(first) = seen.insert((url.host(), url.port()), i) {
            context
                .error(
                    "same-address",
                    &path,
                    format!("`{}` is also the address of target {first}", url.authority()),
                )
                .expected("one target per address")
                .hint("to give it more traffic, raise its `weight`; for another path, define another server");
        }
        let ip = if url.host() == "localhost" { Some([127, 0, 0, 1].into()) } else { url.ip() };
        if let Some(ip) = ip {
            let address = (ip, url.port()).into();
            if own.into_iter().any(|listener| covers(listener, address) && ip.is_loopback()) {
                context
                    .error("calls-itself", &path, "the gateway would call itself")
                    .expected("the address of a server");
            }
        }
    }
}

fn target_path(http: &Path, i: usize, target: &Target) -> Path {
    let path = http.key("targets").index(i);
    match target {
        Target::Url(_) => path,
        Target::Weighted(_) => path.key("url"),
    }
}

fn tls(context: &mut Context<'_>, server: &Server, http: &Path) {
    let tls = &server.http.tls;
    let https = |url: &HttpUrl| url.is_https();
    let any_https = server.http.targets.iter().any(|t| https(t.url()));
    let path = http.key("tls");
    if tls.sni.is_none() {
        for (i, target) in server.http.targets.iter().enumerate() {
            if https(target.url()) && target.url().ip().is_some() {
                // An empty SNI makes Pingora skip the verification of the certificate altogether.
                context
                    .error(
                        "ip-without-sni",
                        &target_path(http, i, target),
                        "the certificate of an IP address cannot be verified without a name",
                    )
                    .expected("`http.tls.sni` with the host name in the certificate");
            }
        }
    }
    if let Some(sni) = &tls.sni {
        let host: Result<crate::config::model::HostPattern, _> = sni.parse();
        let name = host
            .is_ok_and(|h| h.port().is_none() && !h.host().starts_with("*.") && !h.host().starts_with('['))
            && sni.parse::<std::net::IpAddr>().is_err();
        if !name {
            context
                .error("bad-value", &path.key("sni"), "not a host name")
                .expected("a host name such as `mcp.example.com`");
        }
    }
    if !any_https && context.broken.is_empty() {
        let set = [
            ("ca", tls.ca.is_some()),
            ("client_cert", tls.client_cert.is_some()),
            ("sni", tls.sni.is_some()),
        ];
        for (key, _) in set.into_iter().filter(|(_, set)| *set) {
            context
                .warning("no-effect", &path.key(key), "no target is `https`")
                .hint("use `https://` in `targets`");
        }
    }
    if tls.client_cert.is_some() != tls.client_key.is_some() {
        let (given, missing) = if tls.client_cert.is_some() {
            ("client_cert", "client_key")
        } else {
            ("client_key", "client_cert")
        };
        context
            .error("incomplete", &path.key(given), format!("`{given}` needs `{missing}`"))
            .expected(format!("`{missing}` as well"));
    }
}

fn balance(context: &mut Context<'_>, server: &Server, path: &Path) {
    if server.balance != Balance::Hash && server.hash != HashKey::default() {
        context
            .warning("no-effect", &path.key("hash"), "only `balance: hash` hashes")
            .hint("set `balance: hash`, or remove `hash`");
    }
}

fn health(context: &mut Context<'_>, server: &Server, path: &Path) {
    let health = &server.health;
    if let Probe::Http(probe) = &health.probe
        && !(probe.starts_with('/') && probe.bytes().all(|b| b.is_ascii_graphic() && b != b'#'))
    {
        context.error("bad-value", &path.key("probe"), "not a path").expected("a path such as `/healthz`");
    }
    if health.interval.is_zero() {
        return;
    }
    context.period(path.key("interval"), health.interval, Period::from_millis(100), DAY);
    context.period(path.key("timeout"), health.timeout, SOME, HOUR);
    if health.timeout > health.interval {
        context
            .error("contradiction", &path.key("timeout"), "a probe may last longer than the time between two")
            .expected(format!("at most `interval`, `{}`", health.interval));
    }
}

fn outlier(context: &mut Context<'_>, server: &Server, path: &Path) {
    let outlier = &server.outlier;
    let base = path.key("outlier");
    context.period(base.key("window"), outlier.window, Period::from_secs(1), HOUR);
    context.period(base.key("base_ejection"), outlier.base_ejection, SOME, DAY);
    if outlier.base_ejection > outlier.max_ejection {
        context
            .error(
                "contradiction",
                &base.key("base_ejection"),
                "the first ejection is longer than the longest",
            )
            .expected(format!("at most `max_ejection`, `{}`", outlier.max_ejection));
    }
    context.period(path.key("breaker.max_open"), server.breaker.max_open, SOME, DAY);
    context.period(path.key("breaker.open_for"), server.breaker.open_for, SOME, DAY);
    if server.breaker.open_for > server.breaker.max_open {
        context
            .error(
                "contradiction",
                &path.key("breaker.open_for"),
                "longer than the longest time it may stay open",
            )
            .expected(format!("at most `max_open`, `{}`", server.breaker.max_open));
    }
}

fn timeouts(context: &mut Context<'_>, server: &Server, path: &Path) {
    let timeouts = &server.timeouts;
    for (key, value) in [
        ("connect", timeouts.connect),
        ("first_byte", timeouts.first_byte),
        ("request", timeouts.request),
        ("idle", timeouts.idle),
    ] {
        context.period(path.key(key), value, SOME, DAY);
    }
    for (key, value) in [("connect", timeouts.connect), ("first_byte", timeouts.first_byte)] {
        if value > timeouts.request {
            context
                .error(
                    "contradiction",
                    &path.key(key),
                    format!("`{key}` is longer than the whole request may take"),
                )
                .expected(format!("at most `request`, `{}`", timeouts.request));
        }
    }
    if timeouts.stream_idle < MIN_STREAM_IDLE {
        context
            .error("contradiction", &path.key("stream_idle"), "streams would be cut between two pings")
            .expected("at least `15s`: client SDKs ping every 15 s");
    }
    context.period(path.key("stream_idle"), timeouts.stream_idle, SOME, DAY);
}

fn credential(context: &mut Context<'_>, server: &Server, path: &Path) {
    let Some(credential) = &server.credential else { return };
    match credential {
        Credential::Basic(basic) if basic.username.contains(':') => {
            context
                .error("bad-value", &path.key("basic.username"), "a user name with `:`")
                .expected("a user name without `:` (RFC 7617)");
        }
        Credential::Header(header) => {
            let name = header.name.as_str();
            if RESERVED_HEADERS.contains(&name) || name.starts_with("mcp-") || name.starts_with("x-tollgate-")
            {
                context
                    .error(
                        "reserved-header",
                        &path.key("header.name"),
                        format!("the gateway itself sets `{name}`"),
                    )
                    .expected("a header such as `x-api-key`");
            }
        }
        _ => {}
    }
    let plaintext = server.http.targets.iter().any(|t| !t.url().is_https() && !t.url().is_loopback());
    if plaintext {
        context
            .warning("plaintext", path, "the credential is sent over plain HTTP")
            .hint("use `https://` in `targets`");
    }
}
