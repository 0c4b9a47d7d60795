//! Findings about meaning: references, combinations, consequences.

use super::*;

fn server(more: &str) -> String {
    BASE.replace("    http:", &format!("    {more}\n    http:"))
}

fn targets(list: &str) -> String {
    BASE.replace("targets: [\"http://127.0.0.1:9001/mcp\"]", list)
}

fn listener(more: &str) -> String {
    format!("{BASE}listeners:\n  mcp: {{ {more} }}\n")
}

fn public(more: &str, identity: &str) -> String {
    BASE.replace("  loopback: { role: developer }", identity)
        + &format!("listeners:\n  mcp: {{ address: \"0.0.0.0:8443\", {more} }}\n")
}

const KEYS: &str = "  api_keys: { file: k }";
const URL: &str = "public_url: \"https://mcp.example.com\", tls: { cert: c, key: k }";

fn policy(rules: &str) -> String {
    BASE.replace("servers: [weather] }", "servers: [weather], policy: p }")
        + &format!("policies:\n  - name: p\n    rules: [{rules}]\n")
}

fn limit(more: &str) -> String {
    BASE.replace("servers: [weather] }", "servers: [weather], limits: [l] }")
        + &format!("limits:\n  - {{ name: l, key: principal, {more} }}\n")
}

fn issuer(more: &str) -> String {
    format!("{BASE}  issuers:\n    - {{ name: corp, issuer: \"https://login.example.com\", {more} }}\n")
}

const JWKS: &str = "jwks: { url: \"https://login.example.com/keys\" }";

#[track_caller]
fn clean(text: &str) {
    let loaded = load_text(text);
    assert!(loaded.diagnostics.is_empty(), "{}", loaded.diagnostics);
}

#[test]
fn the_bases_of_these_tests_have_no_findings() {
    clean(BASE);
    clean(&public(URL, KEYS));
    clean(&policy("{ allow: { roles: [developer] } }"));
    clean(&limit("rate: 10/m"));
    clean(&issuer(JWKS));
}

#[test]
fn dangling_references_name_what_there_is() {
    expect(
        &BASE.replace("[weather] }", "[wether] }"),
        "unknown-name",
        "wether",
        &["no server", "did you mean `weather`?"],
    );
    expect(
        &BASE.replace("[weather] }", "[weather], limits: [nope] }"),
        "unknown-name",
        "nope",
        &["no limit", "one of `default`"],
    );
    expect(
        &BASE.replace("[weather] }", "[weather], policy: nope }"),
        "unknown-name",
        "nope",
        &["no policy", "none is"],
    );
    expect(
        &policy("{ allow: { servers: [wether] } }"),
        "unknown-name",
        "wether",
        &["did you mean `weather`?"],
    );
}

#[test]
fn names_are_unique() {
    let text = BASE.replace(
        "routes:",
        "  - { name: weather, http: { targets: [\"http://127.0.0.1:9002/\"] } }\nroutes:",
    );
    expect(&text, "duplicate-name", "weather, http", &["server `weather` is defined twice", "servers[0]"]);
    let text = BASE.replace("identity:", "  - { name: weather, path: /x, servers: [weather] }\nidentity:");
    expect(&text, "duplicate-name", "weather, path", &["route `weather` is defined twice"]);
    let text = limit("rate: 1/s") + "  - { name: l, key: ip, rate: 1/s }\n";
    expect(&text, "duplicate-name", "l, key: ip", &["limit `l`"]);
    let text = policy("{ allow: { roles: [viewer] } }") + "  - { name: p, rules: [{ allow: {} }] }\n";
    expect(&text, "duplicate-name", "p, rules", &["policy `p`"]);
    let text =
        issuer(JWKS) + "    - { name: corp, issuer: \"https://other.example.com\", jwks: { file: x } }\n";
    expect(&text, "duplicate-name", "corp, issuer: \"https://other", &["issuer `corp`"]);
    let text = issuer(JWKS) + "    - { name: b, issuer: \"https://login.example.com\", jwks: { file: x } }\n";
    let found = only(&load_text(&text), "duplicate-name");
    assert_eq!((found.path.as_str(), found.line), ("identity.issuers[1].issuer", 11));
    expect(
        &policy("{ name: a, allow: { roles: [viewer] } }, { name: a, allow: {} }"),
        "duplicate-name",
        "a, allow: {}",
        &["rule `a`"],
    );
}

#[test]
fn routes_that_cannot_be_reached_are_errors() {
    let text =
        BASE.replace("identity:", "  - { name: other, path: /mcp/weather, servers: [weather] }\nidentity:");
    expect(&text, "unreachable-route", "/mcp/weather", &["route `weather` already has `/mcp/weather`"]);
    let on = |a: &str, b: &str| {
        BASE.replace("  - { name: weather, servers: [weather] }", &format!(
            "  - {{ name: a, path: /x, hosts: [{a}], servers: [weather] }}\n  - {{ name: b, path: /x, hosts: [{b}], servers: [weather] }}"
        ))
    };
    clean(&on("a.example.com", "b.example.com"));
    let text = on("a.example.com", "b.example.com, A.example.com");
    let found = only(&load_text(&text), "unreachable-route");
    assert!(found.message.contains("on `a.example.com`"), "{found}");
    let text = listener("allowed_hosts: [a.example.com]")
        .replace("servers: [weather] }", "servers: [weather], hosts: [b.example.com] }");
    expect(&text, "unreachable-route", "b.example.com", &["is not accepted", "allowed_hosts"]);
}

#[test]
fn paths_are_plain() {
    for (path, words) in [
        ("mcp", "write `/mcp`"),
        ("/mcp/", "write `/mcp`"),
        ("/a//b", "empty"),
        ("/a/../b", "segment"),
        ("/a b", "other than letters"),
        ("/a?b", "other than letters"),
        ("/%41", "other than letters"),
    ] {
        let text = BASE.replace("servers: [weather] }", &format!("path: \"{path}\", servers: [weather] }}"));
        expect(&text, "bad-value", &format!("\"{path}\""), &[words]);
    }
    let text = BASE.replace("servers: [weather] }", "path: /.well-known/x, servers: [weather] }");
    expect(&text, "reserved-path", "/.well-known", &["the gateway itself answers"]);
}

#[test]
fn what_nothing_uses_is_a_warning() {
    let text = BASE
        .replace("routes:", "  - { name: spare, http: { targets: [\"http://127.0.0.1:9002/\"] } }\nroutes:");
    expect(&text, "unused", "spare", &["no route leads to server `spare`", "`servers: [spare]`"]);
    expect(
        &format!("{BASE}limits: [{{ name: l, key: ip, rate: 1/s }}]\n"),
        "unused",
        "l, key",
        &["no route has limit `l`"],
    );
    let text = format!("{BASE}policies: [{{ name: p, rules: [{{ allow: {{}} }}] }}]\n");
    expect(&text, "unused", "p, rules", &["no route has policy `p`"]);
    let text = BASE.replace("routes:\n  - { name: weather, servers: [weather] }\n", "");
    let loaded = load_text(&text);
    only(&loaded, "no-routes");
}

#[test]
fn unlimited_routes_and_shared_audiences_are_warnings() {
    expect(&BASE.replace("[weather] }", "[weather], limits: [] }"), "no-limits", "limits", &["not limited"]);
    let text = issuer(JWKS).replace("servers: [weather] }", "servers: [weather], audiences: [\"api://x\"] }");
    expect(&text, "shared-audience", "\"api://x\"", &["tokens for another audience"]);
    expect(&issuer(&format!("{JWKS}, audiences: [a]")), "shared-audience", "a]", &["on every route"]);
    expect(&issuer(&format!("{JWKS}, audiences: [\"*\"]")), "bad-value", "\"*\"", &["compared exactly"]);
    let text = BASE.replace("servers: [weather] }", "servers: [weather], scopes: [a] }");
    expect(&text, "no-effect", "scopes", &["no issuer is configured"]);
    let text = issuer(JWKS).replace("servers: [weather] }", "servers: [weather], scopes: [\"a b\"] }");
    expect(&text, "bad-value", "\"a b\"", &["RFC 6749"]);
}

#[test]
fn an_open_listener_is_an_error_unless_it_is_meant() {
    let none = BASE.replace("identity:\n  loopback: { role: developer }\n", "");
    let text = format!("{none}listeners:\n  mcp: {{ address: \"0.0.0.0:8443\", {URL} }}\n");
    expect(&text, "open-listener", "\"0.0.0.0:8443\"", &["needs `identity`", "insecure_options.open"]);
    let meant = format!("{text}insecure_options: {{ open: true }}\n");
    assert!(load_text(&meant).validated.is_some());
    expect(&public(URL, "  anonymous: {}"), "open-listener", "\"0.0.0.0:8443\"", &["everybody who reaches"]);
    let meant = public(URL, "  anonymous: {}") + "insecure_options: { open: true }\n";
    expect(&meant, "open-listener", "anonymous", &["everybody is let in"]);
    expect(&none, "refuses-everybody", "version", &["nobody is let in"]);
    let admin = format!("{BASE}listeners: {{ admin: {{ address: \"0.0.0.0:9090\" }} }}\n");
    expect(&admin, "open-listener", "\"0.0.0.0:9090\"", &["needs `token`"]);
    let admin =
        format!("{BASE}listeners: {{ admin: {{ address: \"0.0.0.0:9090\", token: \"${{env:TOKEN}}\" }} }}\n");
    expect(&admin, "plaintext", "\"${env", &["plain HTTP"]);
    let metrics = format!("{BASE}listeners: {{ metrics: {{ address: \"0.0.0.0:9464\" }} }}\n");
    expect(&metrics, "open-listener", "\"0.0.0.0:9464\"", &["needs `token`"]);
    let metrics = format!("{BASE}listeners: {{ metrics: {{ address: \"127.0.0.1:9090\" }} }}\n");
    expect(&metrics, "address-in-use", "\"127.0.0.1:9090\"", &["another listener"]);
    let origin = format!("{BASE}listeners: {{ admin: {{ allowed_origins: [\"https://a.example/x\"] }} }}\n");
    expect(&origin, "bad-value", "\"https://a.example/x\"", &["no path"]);
}

#[test]
fn powerful_strangers_are_refused() {
    expect(
        &public(URL, &format!("{KEYS}\n  anonymous: {{ role: admin }}")),
        "open-role",
        "admin",
        &["without a credential"],
    );
    expect(&public(URL, &format!("{KEYS}\n  loopback: {{}}")), "open-role", "loopback", &["on loopback"]);
    expect(&listener("trusted_proxies: [127.0.0.1]"), "open-role", "loopback", &["trusted_proxies"]);
    expect(
        &issuer(&format!("{JWKS}, roles: {{ default: admin }}")),
        "powerful-default",
        "admin",
        &["at least `admin`"],
    );
}

#[test]
fn a_public_listener_needs_a_public_url() {
    expect(&public("tls: { cert: c, key: k }", KEYS), "no-public-url", "\"0.0.0.0:8443\"", &["public_url"]);
    expect(
        &public("public_url: \"https://a.example.com/mcp\", tls: { cert: c, key: k }", KEYS),
        "bad-value",
        "\"https://a",
        &["write `https://a.example.com`"],
    );
    expect(
        &public("public_url: \"http://a.example.com\", tls: { cert: c, key: k }", KEYS),
        "bad-value",
        "\"http://a",
        &["write `https://`"],
    );
    expect(
        &public("public_url: \"https://a.example.com\"", KEYS),
        "no-trusted-proxy",
        "\"https://a",
        &["trusted_proxies"],
    );
    expect(&public("public_url: \"http://a.example.com\"", KEYS), "plaintext", "\"http://a", &["plain HTTP"]);
}

#[test]
fn hosts_origins_and_cors_must_fit_together() {
    let text = public(&format!("{URL}, allowed_hosts: [other.example.com]"), KEYS);
    expect(&text, "host-not-allowed", "allowed_hosts", &["`mcp.example.com` as well"]);
    clean(&public(&format!("{URL}, allowed_hosts: [\"*.example.com\"]"), KEYS));
    let cors = |more: &str| listener(&format!("cors: {{ {more} }}"));
    expect(&cors("origins: [\"*\"], credentials: true"), "cors-credentials", "\"*\"", &["list the origins"]);
    expect(
        &cors("origins: [\"https://a.example.com/\"]"),
        "bad-value",
        "\"https://a",
        &["write `https://a.example.com`"],
    );
    expect(&cors("origins: [app]"), "bad-value", "app", &["not an origin"]);
    clean(&cors("origins: [\"*\"]"));
}

#[test]
fn listener_combinations_that_cannot_work_are_errors() {
    expect(&listener("h2: true"), "h2-without-tls", "true", &["through TLS only", "add `tls`"]);
    expect(
        &listener("tls: { cert: c, key: k, client_auth: require }"),
        "no-client-ca",
        "require",
        &["client_ca"],
    );
    expect(
        &listener("address: \"127.0.0.1:9090\""),
        "address-in-use",
        "listeners",
        &["same address and port"],
    );
    expect(&listener("limits: { header_timeout: 0s }"), "out-of-range", "0s", &["from `1ms` to `1h`"]);
    expect(&listener("limits: { max_body: 1GiB }"), "out-of-range", "1GiB", &["`256MiB`"]);
    expect(
        &listener("limits: { max_connections: 10 }"),
        "no-effect",
        "limits",
        &["one address may open more"],
    );
    expect(&listener("forwarded_header: forwarded"), "no-effect", "forwarded }", &["no proxy is trusted"]);
    let text = public(&format!("{URL}, trusted_proxies: [\"::/0\"]"), KEYS);
    expect(&text, "trusts-everybody", "\"::/0\"", &["claim any address"]);
}

#[test]
fn targets_must_be_distinct_and_verifiable() {
    let two = "targets: [\"http://127.0.0.1:9001/a\", \"http://127.0.0.1:9001/b\"]";
    expect(
        &targets(two),
        "same-address",
        "\"http://127.0.0.1:9001/b\"",
        &["also the address of target 0", "weight"],
    );
    expect(
        &targets("targets: [\"https://10.0.0.1/mcp\"]"),
        "ip-without-sni",
        "\"https://10",
        &["http.tls.sni"],
    );
    clean(&targets("targets: [\"https://10.0.0.1/mcp\"], tls: { sni: a.example.com }"));
    expect(
        &targets("targets: [\"https://10.0.0.1/mcp\"], tls: { sni: 10.0.0.1 }"),
        "bad-value",
        "10.0.0.1 }",
        &["not a host name"],
    );
    expect(
        &targets("targets: [{ url: \"http://a/\", weight: 0 }]"),
        "out-of-range",
        "0 }",
        &["from 1 to 100"],
    );
    expect(
        &targets("targets: [\"http://localhost:8080/mcp\"]"),
        "calls-itself",
        "\"http://localhost",
        &["call itself"],
    );
    expect(
        &targets("targets: [\"http://a.example.com/\"], tls: { ca: x }"),
        "no-effect",
        "x }",
        &["no target is `https`"],
    );
    expect(
        &targets("targets: [\"https://a/\"], tls: { client_cert: x }"),
        "incomplete",
        "x }",
        &["needs `client_key`"],
    );
    clean(&targets("targets: [\"http://a.example.com/\"], h2: true"));
}

#[test]
fn contradictions_within_a_server_are_errors() {
    expect(
        &server("timeouts: { first_byte: 5m }"),
        "contradiction",
        "5m",
        &["longer than the whole request", "`2m`"],
    );
    expect(&server("timeouts: { stream_idle: 10s }"), "contradiction", "10s", &["between two pings", "15s"]);
    expect(&server("timeouts: { connect: 0s }"), "out-of-range", "0s", &["from `1ms`"]);
    expect(
        &server("health: { interval: 1s, timeout: 2s }"),
        "contradiction",
        "2s",
        &["at most `interval`, `1s`"],
    );
    clean(&server("health: { interval: 0s }"));
    expect(
        &server("health: { probe: { http: healthz } }"),
        "bad-value",
        "probe",
        &["a path such as `/healthz`"],
    );
    expect(&server("outlier: { base_ejection: 10m }"), "contradiction", "10m", &["`max_ejection`, `5m`"]);
    expect(&server("hash: session"), "no-effect", "session", &["only `balance: hash` hashes"]);
    expect(
        &server("retry: { attempts: 3, budget: 0%, min_per_second: 0 }"),
        "no-effect",
        "0%",
        &["no retry"],
    );
}

#[test]
fn credentials_must_be_sendable() {
    let header = |name: &str| {
        server(&format!("credential: {{ header: {{ name: {name}, value: \"${{env:TOKEN}}\" }} }}"))
    };
    expect(&header("Host"), "reserved-header", "Host", &["sets `host`"]);
    expect(&header("Mcp-Session-Id"), "reserved-header", "Mcp-", &["sets `mcp-session-id`"]);
    clean(&header("x-api-key"));
    let text = server("credential: { basic: { username: \"a:b\", password: \"${env:TOKEN}\" } }");
    expect(&text, "bad-value", "\"a:b\"", &["RFC 7617"]);
    let text = server("credential: { bearer: \"${env:TOKEN}\" }")
        .replace("http://127.0.0.1:9001", "http://a.example.com");
    expect(&text, "plaintext", "credential", &["plain HTTP"]);
}

#[test]
fn limits_must_limit_something() {
    let text = BASE.replace("servers: [weather] }", "servers: [weather], limits: [l] }")
        + "limits:\n  - { name: l, key: ip }\n";
    expect(&text, "not-exactly-one", "{ name: l", &["without a rate"]);
    expect(
        &limit("rate: 1/s, per_role: { viewer: 1/s }"),
        "not-exactly-one",
        "per_role",
        &["exclude each other"],
    );
    expect(&limit("per_role: {}"), "empty", "per_role", &["at least one role"]);
    expect(
        &limit("rate: 10/m, cost: { tools: { deep: 20 } }"),
        "contradiction",
        "20 }",
        &["the smallest bucket holds 10"],
    );
    expect(&limit("rate: 10/m, burst: 0"), "out-of-range", "0 }", &["a number from 0.01 to 100"]);
    expect(&limit("rate: 10/m, cost: { default: 0 }"), "no-effect", "cost", &["nothing is limited"]);
    expect(&limit("rate: 10/m, cost: { tools: { \"[\": 1 } }"), "bad-pattern", "1 } }", &["unclosed class"]);
    let keys = |list: &str| limit("rate: 1/s").replace("key: principal", &format!("key: {list}"));
    expect(&keys("[ip, ip]"), "duplicate-name", "ip]", &["already in the list"]);
    expect(&keys("[user, principal]"), "no-effect", "key", &["adds nothing"]);
    clean(&keys("[principal, tool]"));
}

#[test]
fn rules_either_allow_or_deny() {
    expect(&policy("{ when: \"true\" }"), "not-exactly-one", "{ when", &["neither allows nor denies"]);
    expect(&policy("{ allow: {}, deny: {} }"), "not-exactly-one", "deny", &["make it two rules"]);
    expect(
        &policy("{ allow: {}, when: nonsense }"),
        "bad-expression",
        "nonsense",
        &["undeclared variable `nonsense`"],
    );
    expect(&policy("{ allow: { tools: [\"[\"] } }"), "bad-pattern", "\"[\"", &["unclosed class"]);
    expect(&policy("{ deny: { tools: [a] } }"), "refuses-everybody", "p\n", &["allows nothing"]);
    let text = policy("{ allow: { tools: [a] } }").replace("    rules", "    default: allow\n    rules");
    expect(&text, "no-effect", "p\n", &["denies nothing"]);
}

#[test]
fn rules_that_are_never_reached_are_warnings() {
    let text = policy(
        "{ name: wide, allow: { tools: [\"get_*\"] } }, { deny: { tools: [get_secret], roles: [viewer] } }",
    );
    expect(&text, "shadowed-rule", "deny", &["rule `wide` matches all of this"]);
    let text = policy("{ allow: {} }, { deny: { tools: [a] } }");
    expect(&text, "shadowed-rule", "deny", &["rule 0 matches"]);
    clean(&policy("{ allow: { tools: [\"get_*\"] }, when: \"true\" }, { deny: { tools: [get_secret] } }"));
    clean(&policy("{ allow: { roles: [viewer] } }, { allow: { roles: [viewer, developer] } }"));
}

#[test]
fn issuers_need_exactly_one_source_of_keys() {
    clean(&issuer("jwks: {}"));
    expect(
        &issuer("jwks: { url: \"https://a/\", file: b }"),
        "not-exactly-one",
        "b }",
        &["exclude each other"],
    );
    expect(
        &issuer("jwks: { url: \"http://login.example.com/\" }"),
        "insecure",
        "\"http://login",
        &["plaintext_jwks"],
    );
    clean(&issuer("jwks: { url: \"http://127.0.0.1:9999/\" }"));
    expect(&issuer(&format!("{JWKS}, leeway: 1h")), "out-of-range", "1h", &["`5m`"]);
    expect(
        &issuer(&format!("{JWKS}, roles: {{ map: {{ a: admin }} }}")),
        "incomplete",
        "map",
        &["needs `claim`"],
    );
    expect(
        &issuer(&format!("{JWKS}, roles: {{ claim: groups }}")),
        "no-effect",
        "groups",
        &["without `map`"],
    );
    expect(
        &issuer(&format!("{JWKS}, algorithms: [RS256, RS256]")),
        "duplicate-name",
        "RS256]",
        &["already in the list"],
    );
    expect(&issuer(&format!("{JWKS}, algorithms: [HS256]")), "bad-value", "HS256", &["one of `ES256`"]);
    expect(&issuer("jwks: { max_stale: 1m }"), "contradiction", "1m", &["`refresh`, `5m`"]);
    expect(&issuer("jwks: { file: k, max_stale: 5s }"), "contradiction", "5s", &["`refresh`, `10s`"]);
    let text = issuer("kind: user").replace("\"https://login.example.com\"", "corp-login");
    only(&load_text(&text), "incomplete");
    let text = issuer("kind: user").replace("name: corp", "name: key");
    expect(&text, "bad-value", "key, issuer", &["what other callers are called"]);
    let text = issuer(JWKS).replace("\"https://login.example.com\"", "corp-login");
    expect(&text, "not-a-url", "corp-login", &["OAuth metadata"]);
}

#[test]
fn sessions_shutdown_and_telemetry_must_be_consistent() {
    let with = |text: &str| format!("{BASE}{text}\n");
    expect(&with("sessions: { idle_ttl: 25h }"), "contradiction", "25h", &["`max_age`, `1d`"]);
    expect(
        &with("sessions: { max_per_tenant: 300000 }"),
        "contradiction",
        "300000",
        &["`max_total`, 200000"],
    );
    expect(&with("sessions: { key_rotation: 1s }"), "out-of-range", "1s", &["from `1h`"]);
    expect(&with("shutdown: { drain: 1s }"), "contradiction", "shutdown", &["`drain`, `1s`"]);
    expect(
        &with("telemetry: { access_log: { enabled: false, path: x } }"),
        "no-effect",
        "x }",
        &["no access log"],
    );
    let otlp = "telemetry: { otlp: { endpoint: \"http://otel.example.com/\", headers: { x-key: \"${env:TOKEN}\" } } }";
    expect(&with(otlp), "plaintext", "\"http://otel", &["use `https://`"]);
    let otlp = "telemetry: { otlp: { endpoint: \"https://otel.example.com/\", headers: { \"a b\": \"${env:TOKEN}\" } } }";
    expect(&with(otlp), "bad-value", "\"${env", &["header"]);
}

#[test]
fn claims_are_tested_in_exactly_one_way() {
    let required = |test: &str| issuer(&format!("{JWKS}, required: [{{ claim: a, {test} }}]"));
    clean(&required("equals: true"));
    clean(&required("equals: 5"));
    expect(
        &required("equals: 5, contains: x"),
        "not-exactly-one",
        "{ claim: a",
        &["exactly one of `contains`"],
    );
    expect(&required("contains: \"a b\""), "bad-value", "\"a b\"", &["a word without spaces"]);
    expect(&required("matches: \"[\""), "bad-pattern", "\"[\"", &["unclosed class"]);
    let rule = issuer(&format!("{JWKS}, roles: {{ rules: [{{ when: {{ claim: a }}, role: viewer }}] }}"));
    expect(&rule, "not-exactly-one", "when", &["exactly one of"]);
}

#[test]
fn required_client_certificates_keep_strangers_out() {
    let tls = "public_url: \"https://a.example.com\", tls: { cert: c, key: k, client_ca: a }";
    expect(
        &public(tls, "  anonymous: { role: viewer }"),
        "no-policy",
        "weather, servers",
        &["without a credential"],
    );
    let asked = tls.replace("client_ca: a", "client_ca: a, client_auth: request");
    expect(
        &public(&asked, "  anonymous: {}"),
        "open-listener",
        "\"0.0.0.0:8443\"",
        &["everybody who reaches"],
    );
}

#[test]
fn short_peppers_are_refused_unseen() {
    let text = BASE.replace("identity:\n", "identity:\n  api_keys: { file: k, pepper: \"${env:TOKEN}\" }\n");
    expect(&text, "bad-length", "\"${env:TOKEN}\"", &["at least 16 bytes"]);
}

#[test]
fn what_the_policy_engine_doubts_is_a_warning() {
    let text = policy("{ allow: { roles: [viewer] }, when: arguments.path == 1 }");
    expect(&text, "doubtful-rule", "{ allow", &["may fail without `arguments.path`"]);
}

#[test]
fn origins_are_checked_without_allowed_hosts_too() {
    let text = listener("allowed_origins: [\"https://a.example.com/\"]");
    expect(&text, "bad-value", "\"https://a", &["an origin has no path"]);
}

#[test]
fn shares_that_engines_round_are_whole() {
    expect(&server("retry: { budget: 0.5% }"), "bad-value", "0.5%", &["a whole percent, such as `1%`"]);
    expect(&server("breaker: { open_for: 10m }"), "contradiction", "10m", &["`max_open`, `5m`"]);
}

#[test]
fn buckets_must_fill_within_a_century() {
    let text = limit("rate: 1/d, burst: { tokens: 100000 }");
    expect(&text, "contradiction", "burst", &["more than a century"]);
}

#[test]
fn log_filters_name_parts_and_levels() {
    let with = |filter: &str| format!("{BASE}telemetry: {{ log: {{ filter: \"{filter}\" }} }}\n");
    clean(&with("tollgate::gateway=debug,tollgate::auth=off"));
    for filter in ["debug", "a=loud", "=info", "a=info,"] {
        expect(&with(filter), "bad-value", &format!("\"{filter}\""), &["does not set the level of a part"]);
    }
}

#[test]
fn what_is_recorded_of_bodies_has_bounds_and_can_be_recorded() {
    let rule = |record: &str| policy(&format!("{{ allow: {{}}, record: {record} }}"));
    for record in ["{}", "{ response: false, max: 64KiB }", "{ max: 1B, redact: [pin, \"card number\"] }"] {
        clean(&rule(record));
    }
    clean(&policy("{ allow: { tools: [a] } }, { deny: { tools: [b] }, record: {} }"));
    expect(&rule("{ max: 65KiB }"), "out-of-range", "65KiB", &["`65KiB`", "from `1B` to `64KiB`"]);
    expect(&rule("{ max: 0B }"), "out-of-range", "0B", &["from `1B` to `64KiB`"]);
    expect(&rule("{ redact: [\"\"] }"), "empty", "\"\"", &["an empty text"]);
    let long = "x".repeat(129);
    expect(&rule(&format!("{{ redact: [{long}] }}")), "bad-length", "xxx", &["1 to 128 bytes"]);
    expect(&rule("{ request: false, response: false }"), "contradiction", "record", &["neither"]);
    expect(&rule("{ body: true }"), "unknown-key", "body: true", &["`request`"]);
    expect(&rule("true"), "wrong-type", "true }", &["a map"]);
    for (audit, at, words) in [
        ("enabled: false", "{}, record: {}", "the audit is off"),
        ("mask: [request_body, response_body]", "{}, record: {}", "`audit.mask`"),
    ] {
        let text = format!("{}audit: {{ {audit} }}\n", rule("{}"));
        let loaded = load_text(&text);
        let found = only(&loaded, "no-effect");
        assert!(found.to_string().contains(words) && loaded.validated.is_some(), "{found}");
        assert_eq!(found.line, place(&text, at).0);
    }
    let text = format!("{}audit: {{ mask: [request_body] }}\n", rule("{ response: false }"));
    expect(&text, "no-effect", "record", &["`audit.mask`"]);
    let text = format!("{}audit: {{ max_body: 1KiB }}\n", rule("{ max: 2KiB }"));
    expect(&text, "no-effect", "2KiB", &["no more than `1KiB`"]);
    let methods =
        "{ allow: { methods: [\"notifications/*\", subscriptions/listen] }, record: { request: false } }";
    expect(&policy(methods), "no-effect", "record", &["no response is recorded"]);
    expect(
        &format!("{BASE}audit: {{ max_body: 1MiB }}\n"),
        "out-of-range",
        "1MiB",
        &["from `1B` to `64KiB`", "mask: [request_body, response_body]"],
    );
}

#[test]
fn what_is_coarse_is_kept_as_long_as_what_it_is_made_of() {
    let with = |lines: &str| format!("{BASE}{lines}");
    let refused = with("store:\n  retention: { usage_hour_days: 7 }\n");
    expect(
        &refused,
        "contradiction",
        "7 }",
        &["store.retention.usage_hour_days", "hours would stay for 7 days", "14", "at least", "at most 7"],
    );
    let refused = with(
        "audit: { retention: { usage_minute_days: 0 } }\nstore: { retention: { usage_hour_days: 400 } }\n",
    );
    expect(&refused, "contradiction", "400 }", &["for ever", "`0`, which is for ever"]);
    let refused = with("store: { retention: { health_days: 13 } }\n");
    expect(&refused, "contradiction", "13 }", &["store.retention.health_days", "health_minute_days"]);
    for good in [
        "store: { retention: { usage_hour_days: 14, health_days: 14 } }\n",
        "store: { retention: { usage_hour_days: 0, health_days: 0 } }\naudit: { retention: { usage_minute_days: 0 } }\n",
        "store: { retention: { usage_hour_days: 3 } }\naudit: { retention: { usage_minute_days: 3 } }\n",
    ] {
        let loaded = load_text(&with(good));
        assert!(!loaded.diagnostics.iter().any(|d| d.code == "contradiction"), "{good}");
    }
}

#[test]
fn what_strangers_may_have_recorded_is_a_rate_and_at_least_one_at_once() {
    expect(&format!("{BASE}audit: {{ unidentified: {{ burst: 0 }} }}\n"), "out-of-range", "0 }", &["burst"]);
    expect(&format!("{BASE}audit: {{ unidentified: {{ rate: 50 }} }}\n"), "wrong-type", "50 }", &["50/m"]);
}
