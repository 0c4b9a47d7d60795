//! What a tenant may not say: one attack each, refused at its line, in a file and as a stored document.

use super::*;
use crate::config::model::{Document, Tenant};

/// A file with a tenant `acme`; `{grants}` and `{document}` are filled in.
fn file(grants: &str, document: &str) -> String {
    let indented: String = document.lines().map(|line| format!("      {line}\n")).collect();
    format!("{BASE}tenants:\n  - name: acme\n    grants: {grants}\n    document:\n{indented}")
}

const GOOD: &str = "\
servers:
  - { name: s, http: { targets: [\"https://mcp.example.com/mcp\"] } }
routes:
  - { name: r, servers: [s] }
identity: { api_keys: true }
";

/// Asserts that a document is refused at a place, in both of its forms, and accepted with a grant if there is one.
#[track_caller]
fn attack(document: &str, at: &str, words: &[&str], grant: Option<&str>) {
    let text = file("{}", document);
    expect(&text, "not-granted", at, words);
    let stored = stored("name: acme", document);
    let found = only(&stored, "not-granted");
    assert_eq!((found.line, found.column), place(&format!("version: 1\n{document}"), at), "{found}");
    if let Some(grant) = grant {
        let loaded = load_text(&file(grant, document));
        assert!(loaded.validated.is_some(), "{}", loaded.diagnostics);
    }
}

fn stored(tenant: &str, document: &str) -> Loaded {
    let tenant: Tenant = serde_saphyr::from_str(tenant).unwrap();
    let text = format!("version: 1\n{document}");
    let settings = Document::default();
    load_tenant(text.as_bytes(), "acme", &Terms::of(&tenant), &settings, &sources(), hooks())
}

#[test]
fn a_harmless_tenant_is_accepted_and_has_its_own_document() {
    let loaded = load_text(&file("{}", GOOD));
    let validated = loaded.validated.unwrap_or_else(|| panic!("{}", loaded.diagnostics));
    let acme = &validated.tenants()[0];
    assert_eq!(acme.tenant().as_str(), "acme");
    assert_eq!(acme.routes().map(|route| route.path.to_owned()).collect::<Vec<_>>(), ["/t/acme/mcp/r"]);
    assert_eq!(validated.routes().count(), 1, "the operator's own routes are its own");
    let loaded = stored("name: acme", GOOD);
    assert!(loaded.validated.is_some(), "{}", loaded.diagnostics);
}

#[test]
fn paths_and_hosts_of_others_are_refused() {
    for path in ["/mcp/weather", "/t/other/mcp", "/t/acmeother", "/t"] {
        attack(
            &GOOD.replace("servers: [s]", &format!("servers: [s], path: {path}")),
            path,
            &["/t/acme/"],
            None,
        );
    }
    let host = GOOD.replace("servers: [s]", "servers: [s], hosts: [www.example.com]");
    attack(&host, "www.example.com", &["does not belong to tenant `acme`"], None);
    let wide = GOOD.replace("servers: [s]", "servers: [s], hosts: [\"*.example.com\"]");
    let found = stored("name: acme\nhosts: [\"*.acme.example.com\"]", &wide);
    assert!(only(&found, "not-granted").message.contains("*.example.com"));
}

#[test]
fn environment_and_files_of_the_gateway_are_refused() {
    let with = |text: &str| GOOD.replace("] } }", &format!("] }}, credential: {{ bearer: \"{text}\" }} }}"));
    attack(&with("${env:TOKEN}"), "\"${env", &["${secret:name}"], Some("{ env: true }"));
    attack(&with("${file:/run/secret}"), "\"${file", &["${secret:name}"], Some("{ file: true }"));
    let target = GOOD.replace("https://mcp.example.com/mcp", "https://${env:NUMBER}.example.com/mcp");
    attack(&target, "\"https://${env", &[], Some("{ env: true }"));
    for (keys, at) in [
        ("{ api_keys: { file: ./k } }", "./k"),
        ("{ api_keys: true, revocations: { file: ./r } }", "./r"),
        ("{ issuers: [{ name: i, issuer: \"https://i.example\", jwks: { file: ./j } }] }", "./j"),
    ] {
        attack(
            &GOOD.replace("{ api_keys: true }", keys),
            at,
            &["may not name files"],
            Some("{ file: true }"),
        );
    }
    for (keys, at) in [("ca: ./ca", "./ca"), ("client_cert: ./c, client_key: \"./key\"", "./c")] {
        let document = GOOD.replace("/mcp\"]", &format!("/mcp\"], tls: {{ {keys} }}"));
        let loaded = load_text(&file("{}", &document));
        let first = loaded.diagnostics.iter().find(|d| d.code == "not-granted").unwrap();
        assert_eq!((first.line, first.column), place(&file("{}", &document), at));
        assert!(load_text(&file("{ file: true }", &document)).validated.is_some());
    }
}

/// Every key that names a file has its rule: whoever adds one has to come here.
#[test]
fn no_key_of_a_tenant_names_a_file_without_a_rule() {
    let model = [
        include_str!("../model/identity.rs"),
        include_str!("../model/limit.rs"),
        include_str!("../model/policy.rs"),
        include_str!("../model/route.rs"),
        include_str!("../model/server.rs"),
    ];
    let fields = model
        .iter()
        .flat_map(|text| text.lines())
        .filter(|line| line.contains(": ") && line.contains("PathBuf"));
    assert_eq!(fields.count(), 6, "tls.{{ca,client_cert,client_key}}, {{api_keys,revocations,jwks}}.file");
}

#[test]
fn addresses_that_the_internet_does_not_reach_are_refused() {
    for (host, kind, grant) in [
        ("127.0.0.1", "loopback", "127.0.0.0/8"),
        ("localhost", "loopback", "127.0.0.0/8"),
        ("a.localhost", "loopback", "127.0.0.0/8"),
        ("[::1]", "loopback", "\"::1/128\""),
        ("10.1.2.3", "private", "10.0.0.0/8"),
        ("192.168.1.1", "private", "192.168.0.0/16"),
        ("172.16.0.1", "private", "172.16.0.0/12"),
        ("[fd00::1]", "private", "\"fd00::/8\""),
        ("100.64.0.1", "carrier-grade NAT", "100.64.0.0/10"),
        ("169.254.169.254", "link-local", "169.254.169.254"),
        ("[fe80::1]", "link-local", "\"fe80::/10\""),
        ("[fd00:ec2::254]", "private", "\"fd00:ec2::254\""),
        ("[::ffff:127.0.0.1]", "loopback", "127.0.0.0/8"),
        ("[::ffff:a9fe:a9fe]", "link-local", "169.254.0.0/16"),
        ("[64:ff9b::7f00:1]", "loopback", "\"64:ff9b::/96\""),
        ("0.0.0.0", "unspecified", "0.0.0.0/8"),
    ] {
        let sni = if host.contains("localhost") { "" } else { ", tls: { sni: a.example }" };
        let document = GOOD.replace("mcp.example.com/mcp\"]", &format!("{host}/mcp\"]{sni}"));
        let grant = format!("{{ private_targets: [{grant}] }}");
        attack(&document, &format!("\"https://{host}"), &[kind], Some(&grant));
    }
    let metadata = GOOD.replace("https://mcp.example.com", "http://169.254.169.254");
    let text = file("{ private_targets: [0.0.0.0/0] }", &metadata);
    expect(&text, "not-granted", "\"http://169", &["link-local"]);
    for host in ["2130706433", "0177.0.0.1", "0x7f.1", "127.1", "user:pw@mcp.example.com"] {
        let text = file("{ private_targets: [127.0.0.0/8] }", &GOOD.replace("mcp.example.com", host));
        expect(&text, "bad-value", "\"https://", &[]);
    }
}

#[test]
fn issuers_and_key_sets_that_were_not_granted_are_refused() {
    let identity = |issuer: &str, jwks: &str| {
        let text = format!("{{ issuers: [{{ name: i, issuer: \"{issuer}\"{jwks} }}] }}");
        GOOD.replace("{ api_keys: true }", &text)
    };
    let granted = "{ issuers: [\"https://login.example.com\", \"https://keys.example.com/acme/*\"] }";
    let good =
        identity("https://login.example.com", ", jwks: { url: \"https://keys.example.com/acme/keys\" }");
    assert!(load_text(&file(granted, &good)).validated.is_some());
    assert!(load_text(&file("{}", &good)).validated.is_some(), "without a list, whatever is public");
    for (document, at) in [
        (identity("https://evil.example.com", ""), "\"https://evil"),
        (identity("not-a-url", ", jwks: { url: \"https://keys.example.com/acme/keys\" }"), "\"not-a-url"),
        (
            identity("https://login.example.com", ", jwks: { url: \"https://keys.example.com/other/k\" }"),
            "\"https://keys.example.com/other",
        ),
        (
            identity(
                "https://login.example.com",
                ", jwks: { url: \"https://keys.example.com/acme/../other/k\" }",
            ),
            "\"https://keys.example.com/acme/..",
        ),
    ] {
        expect(&file(granted, &document), "not-granted", at, &["grants.issuers"]);
    }
    attack(
        &identity("https://10.0.0.1", ""),
        "\"https://10",
        &["private"],
        Some("{ private_targets: [10.0.0.0/8] }"),
    );
    let jwks = identity("https://login.example.com", ", jwks: { url: \"http://127.0.0.1/k\" }");
    attack(&jwks, "\"http://127.0.0.1/k", &["loopback"], Some("{ private_targets: [127.0.0.0/8] }"));
    let plain = identity("https://login.example.com", ", jwks: { url: \"http://keys.example.com/k\" }");
    expect(&file("{}", &plain), "insecure", "\"http://keys", &[]);
}

#[test]
fn what_holds_for_the_whole_process_is_refused() {
    for key in [
        "listeners",
        "runtime",
        "insecure_options",
        "telemetry",
        "sessions",
        "tenants",
        "data_dir",
        "shutdown",
    ] {
        attack(&format!("{GOOD}{key}: {{}}\n"), &format!("{key}: {{}}"), &["not a tenant's to set"], None);
    }
    attack(
        &GOOD.replace("{ api_keys: true }", "{ api_keys: true, anonymous: {} }"),
        "anonymous",
        &["grants: { anonymous: true }"],
        Some("{ anonymous: true }"),
    );
    attack(&GOOD.replace("{ api_keys: true }", "{ loopback: {} }"), "loopback: {}", &["operator's"], None);
    let failed = GOOD.replace("{ api_keys: true }", "{ api_keys: true, failed_attempts: { burst: 9 } }");
    attack(&failed, "failed_attempts", &["all tenants"], None);
    let stdio = GOOD.replace("name: s,", "name: s, stdio: { command: sh },");
    expect(&file("{}", &stdio), "unsupported", "stdio", &["not supported by this version"]);
}

#[test]
fn a_secret_is_looked_up_for_its_own_tenant() {
    struct Secrets;
    impl Sources for Secrets {
        fn env(&self, _: &str) -> Result<String, SourceError> {
            Err(SourceError::Missing)
        }
        fn file(&self, _: &std::path::Path) -> Result<Vec<u8>, SourceError> {
            Err(SourceError::Missing)
        }
        fn secret(&self, tenant: &crate::base::TenantId, name: &str) -> Result<String, SourceError> {
            (tenant.as_str() == "acme").then(|| format!("of acme: {name}")).ok_or(SourceError::Missing)
        }
    }
    let document = GOOD.replace("] } }", "] }, credential: { bearer: \"${secret:key}\" } }");
    let own = load(file("{}", &document).as_bytes(), "f", &Secrets, hooks());
    assert!(own.validated.is_some(), "{}", own.diagnostics);
    let other = file("{}", &document).replace("name: acme", "name: other");
    let found = load(other.as_bytes(), "f", &Secrets, hooks());
    assert!(only(&found, "unresolved-reference").message.contains("secret `key` of tenant `other`"));
}

#[test]
fn tenants_have_places_of_their_own() {
    let tenants = |list: &str| format!("{BASE}tenants:\n{list}");
    for (list, code, at) in [
        ("  - { name: default }\n", "bad-value", "default"),
        ("  - { name: a }\n  - { name: a, path_prefix: /b }\n", "duplicate-name", "a, path"),
        ("  - { name: a, path_prefix: / }\n", "bad-value", "/ }"),
        ("  - { name: a, path_prefix: /.well-known/x }\n", "reserved-path", "/.well"),
        ("  - { name: a, path_prefix: /x }\n  - { name: b, path_prefix: /x/y }\n", "overlap", "/x/y"),
        (
            "  - { name: a, hosts: [h.example] }\n  - { name: b, hosts: [h.example] }\n",
            "overlap",
            "h.example] }\n  - {",
        ),
        ("  - { name: a, hosts: [\"h.example:1\"] }\n", "bad-value", "\"h.example:1"),
        ("  - { name: a, path_prefix: /mcp }\n", "unreachable-route", "weather, servers"),
        ("  - { name: a, grants: { stdio: true } }\n", "unsupported", "stdio"),
    ] {
        let text = tenants(list);
        let loaded = load_text(&text);
        let found = only(&loaded, code);
        assert!(loaded.validated.is_none(), "{list}");
        if code != "overlap" && code != "duplicate-name" {
            assert_eq!((found.line, found.column), place(&text, at), "{found}");
        }
    }
    let fine = "  - { name: a, hosts: [h.example], path_prefix: /a }\n  - { name: b, hosts: [h.example], path_prefix: /b }\n";
    assert!(load_text(&tenants(fine)).validated.is_some(), "{}", load_text(&tenants(fine)).diagnostics);
}

#[test]
fn findings_in_a_tenants_document_are_placed_even_behind_broken_neighbours() {
    let text = file("{}", &GOOD.replace("servers: [s]", "servers: [t]"))
        .replace("tenants:\n", "tenants:\n  - { name: \"BAD NAME\" }\n");
    expect(&text, "unknown-name", "[t]".trim_start_matches('['), &[]);
}

#[test]
fn the_platform_document_has_no_documents_of_tenants() {
    let load = |text: &str| load_platform(text.as_bytes(), "p", &Document::default(), &sources(), hooks());
    assert_eq!(load("version: 1\ntenants: [{ name: a }]\n").tenants.unwrap().len(), 1);
    assert!(load("version: 1\ntenants: [{ name: a, document: {} }]\n").tenants.is_none());
    assert!(load("version: 1\nservers: []\n").tenants.is_none());
    assert!(load("version: 1\ntenants: [{ name: a }, { name: a }]\n").tenants.is_none());
}
