//! Rules about how callers prove who they are.

use super::{Context, DAY};
use crate::base::Role;
use crate::config::model::{ClaimTest, HttpUrl, Issuer, Period, RoleMapping};
use crate::config::path::Path;

/// More would keep expired tokens alive.
const MAX_LEEWAY: Period = Period::from_secs(300);

/// The most entries of a role map.
const MAX_MAP: usize = 4096;

/// The shortest pepper, in bytes.
const MIN_PEPPER: usize = 16;

/// Names that principals without an issuer have.
const RESERVED: [&str; 4] = ["anonymous", "key", "loopback", "operator"];

pub(super) fn validate(context: &mut Context<'_>) {
    let document = context.document;
    let identity = &document.identity;
    let base = Path::of("identity");
    let oldest = Period::from_secs(366 * 86_400);
    context.period(base.key("max_staleness"), identity.max_staleness, Period::from_secs(10), oldest);
    context.unique("identity.issuers", "issuer", identity.issuers.iter().map(|i| &i.name));
    for (i, issuer) in identity.issuers.iter().enumerate() {
        let path = base.key("issuers").index(i);
        if identity.issuers[..i].iter().any(|other| other.issuer == issuer.issuer) {
            context
                .error("duplicate-name", &path.key("issuer"), "another issuer has the same `iss`")
                .expected("one entry per `iss`");
        }
        check_issuer(context, issuer, &path);
        jwks(context, issuer, &path.key("jwks"));
        roles(context, &issuer.roles, &path.key("roles"));
    }
    if let Some(pepper) = identity.key_file().and_then(|keys| keys.pepper.as_ref())
        && pepper.expose().len() < MIN_PEPPER
    {
        context
            .error("bad-length", &base.key("api_keys.pepper"), "the pepper is too short")
            .expected(format!("at least {MIN_PEPPER} bytes"));
    }
    if let Some(anonymous) = &identity.anonymous
        && Role::from(anonymous.role) >= Role::ServerOwner
        && !document.insecure_options.open
    {
        context
            .error(
                "open-role",
                &base.key("anonymous.role"),
                "callers without a credential would run the gateway",
            )
            .expected("`anonymous`, `viewer` or `developer`");
    }
    if identity.loopback.is_some() {
        local(context, &base.key("loopback"));
    }
    if identity.anonymous.is_some() && identity.loopback.is_none() && document.insecure_options.open {
        context.warning(
            "open-listener",
            &base.key("anonymous"),
            "everybody is let in, as `insecure_options.open` allows",
        );
    }
}

fn check_issuer(context: &mut Context<'_>, issuer: &Issuer, path: &Path) {
    if RESERVED.contains(&issuer.name.as_str()) {
        context
            .error(
                "bad-value",
                &path.key("name"),
                format!("`{}` is what other callers are called", issuer.name),
            )
            .expected("another name");
    }
    for (i, test) in issuer.required.iter().enumerate() {
        claim(context, test, &path.key("required").index(i));
    }
    context.period(path.key("leeway"), issuer.leeway, Period::from_secs(0), MAX_LEEWAY);
    if issuer.issuer.trim() != issuer.issuer {
        context
            .error("bad-value", &path.key("issuer"), "spaces around the issuer")
            .expected("the `iss` claim, exactly");
    } else if issuer.issuer.parse::<HttpUrl>().is_err() {
        context
            .warning(
                "not-a-url",
                &path.key("issuer"),
                "the issuer is not a URL, so OAuth metadata cannot name it",
            )
            .hint("clients then need to know by themselves where to get a token");
    }
    for (i, audience) in issuer.audiences.iter().enumerate() {
        let path = path.key("audiences").index(i);
        if audience.contains('*') {
            context
                .error("bad-value", &path, "audiences are compared exactly; `*` has no meaning")
                .expected("an audience");
        } else {
            context
                .warning("shared-audience", &path, "tokens for this audience are accepted on every route")
                .hint("better have the issuer put the route's own URL into `aud`");
        }
    }
    for (i, algorithm) in issuer.algorithms.iter().enumerate() {
        if issuer.algorithms[..i].contains(algorithm) {
            context.error(
                "duplicate-name",
                &path.key("algorithms").index(i),
                "an algorithm that is already in the list",
            );
        }
    }
}

fn jwks(context: &mut Context<'_>, issuer: &Issuer, path: &Path) {
    let jwks = &issuer.jwks;
    context.period(path.key("refresh"), jwks.refresh(), Period::from_secs(5), DAY);
    context.period(
        path.key("max_stale"),
        jwks.max_stale,
        Period::from_secs(5),
        Period::from_secs(366 * 86_400),
    );
    if jwks.max_stale < jwks.refresh() {
        context
            .error(
                "contradiction",
                &path.key("max_stale"),
                "keys would be too old before they are fetched again",
            )
            .expected(format!("at least `refresh`, `{}`", jwks.refresh()));
    }
    let (key, url) = match (&jwks.url, &jwks.file) {
        (Some(_), Some(_)) => {
            context
                .error("not-exactly-one", &path.key("file"), "`url` and `file` exclude each other")
                .expected("only one of them");
            return;
        }
        (None, Some(_)) => return,
        (Some(url), None) => (path.key("url"), url.clone()),
        (None, None) => match issuer.issuer.parse::<HttpUrl>() {
            Ok(url) => (path.clone(), url),
            Err(_) => {
                context
                    .error(
                        "incomplete",
                        path,
                        "an issuer that is not a URL has no OpenID configuration to find keys in",
                    )
                    .expected("`jwks` with `url` or `file`");
                return;
            }
        },
    };
    if !url.is_https() && !url.is_loopback() && !context.document.insecure_options.plaintext_jwks {
        context
            .error("insecure", &key, "keys fetched over plain HTTP can be replaced on the way")
            .expected("`https://`")
            .hint("or set `insecure_options.plaintext_jwks: true`");
    }
}

/// What a claim must say is said in one way.
fn claim(context: &mut Context<'_>, test: &ClaimTest, path: &Path) {
    let given = [test.contains.is_some(), test.equals.is_some(), test.matches.is_some()];
    if given.into_iter().filter(|given| *given).count() != 1 {
        context
            .error("not-exactly-one", path, "what the claim must say")
            .expected("exactly one of `contains`, `equals`, `matches`");
    }
    if test.contains.as_ref().is_some_and(|word| word.contains(' ')) {
        context
            .error("bad-value", &path.key("contains"), "more than one word")
            .expected("a word without spaces");
    }
    if let Some(pattern) = &test.matches
        && let Err(problem) = (context.hooks.pattern)(pattern)
    {
        context.error(
            "bad-pattern",
            &path.key("matches"),
            format!("`{pattern}` is not a pattern: {problem}"),
        );
    }
}

fn roles(context: &mut Context<'_>, roles: &RoleMapping, path: &Path) {
    for (i, rule) in roles.rules.iter().enumerate() {
        claim(context, &rule.when, &path.key("rules").index(i).key("when"));
    }
    if roles.map.len() > MAX_MAP {
        context
            .error("bad-length", &path.key("map"), format!("a table of {} entries", roles.map.len()))
            .expected(format!("at most {MAX_MAP} entries"));
    }
    match (&roles.claim, roles.map.is_empty()) {
        (None, false) => {
            context
                .error("incomplete", &path.key("map"), "`map` needs `claim`")
                .expected("the claim whose values are mapped, such as `claim: groups`");
        }
        (Some(_), true) => {
            context
                .warning("no-effect", &path.key("claim"), "without `map` the claim is not looked at")
                .hint("add `map: { value: role }`");
        }
        _ => {}
    }
    if let Some(role) = roles.default.role().filter(|role| *role >= Role::Admin) {
        context
            .warning(
                "powerful-default",
                &path.key("default"),
                format!("every caller of this issuer is at least `{role}`"),
            )
            .hint("give that role by `map` or `rules`");
    }
}

/// Callers from this machine are let in: then nobody else may look like one.
fn local(context: &mut Context<'_>, path: &Path) {
    let mcp = &context.document.listeners.mcp;
    if !mcp.address.is_loopback() {
        context
            .error("open-role", path, "`loopback` is for a listener on loopback")
            .hint("a program on this machine that forwards requests would make every caller local");
    } else if !mcp.trusted_proxies.is_empty() {
        context
            .error("open-role", path, "`loopback` cannot be combined with `trusted_proxies`")
            .hint("requests that the proxy forwards without an address would all be local");
    }
}
