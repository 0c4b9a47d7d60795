//! Rules about the server of shared limits.

use super::Context;
use crate::config::model::{LimitBackend, Period, SourceKind};
use crate::config::path::Path;

pub(super) fn validate(context: &mut Context<'_>) {
    let Some(valkey) = &context.document.valkey else { return };
    let base = Path::of("valkey");
    let limits = &context.document.limits;
    context.period(base.key("timeout"), valkey.timeout, Period::from_millis(1), Period::from_secs(10));
    for (i, url) in valkey.urls.iter().enumerate() {
        let path = base.key("urls").index(i);
        let schemes = ["redis://", "rediss://", "valkey://", "valkeys://"];
        let Some(rest) = schemes.into_iter().find_map(|s| url.strip_prefix(s)) else {
            context
                .error("bad-value", &path, "not the URL of a Valkey or Redis server")
                .expected("such as `redis://10.0.0.5:6379`, or `rediss://` for TLS");
            continue;
        };
        if rest.contains('@') {
            context
                .error("bad-value", &path, "user and password do not belong in the URL")
                .expected("`username` and `password: ${env:NAME}`");
        }
        if valkey.cluster && rest.trim_end_matches('/').contains('/') {
            context
                .error("bad-value", &path, "a cluster has no numbered databases")
                .expected("a URL without a path");
        }
        let plain = url.starts_with("redis://") || url.starts_with("valkey://");
        let host = rest.split(['/', ':']).next().unwrap_or_default();
        if plain && valkey.password.is_some() && !(host == "localhost" || host.starts_with("127.")) {
            context.warning("plaintext", &path, "the password is sent without TLS").hint("use `rediss://`");
        }
    }
    if valkey.urls.len() > 1 && !valkey.cluster {
        context
            .error(
                "contradiction",
                &base.key("urls"),
                "several servers that are no cluster would each count alone",
            )
            .expected("one URL, or `cluster: true`");
    }
    if !valkey.prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:/".contains(&b)) {
        context
            .error("bad-value", &base.key("prefix"), "a prefix that cannot stand in a key")
            .expected("letters, digits and `-_.:/`");
    }
    // Documents of a store are not known here.
    let known = context.document.source == SourceKind::File;
    let tenants = context.document.tenants.iter().filter_map(|tenant| tenant.document.as_ref());
    let mut all = limits.iter().chain(tenants.flat_map(|document| &document.limits));
    if known && !all.any(|limit| limit.backend == LimitBackend::Valkey) {
        context.warning("unused", &base, "no limit has `backend: valkey`");
    }
}
