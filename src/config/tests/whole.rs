//! Whole documents: the embedded one, differences, the schema, the reference page.

use std::net::SocketAddr;

use serde_json::Value;

use super::super::model::{Document, Limit, RoleName};
use super::*;
use crate::base::Role;

fn valid(text: &str) -> Validated {
    load_text(text).into_result().unwrap_or_else(|found| panic!("{found}"))
}

fn changes(old: &str, new: &str) -> Vec<String> {
    diff(&valid(old), &valid(new)).iter().map(Change::to_string).collect()
}

#[test]
fn the_embedded_document_is_safe_and_has_no_findings() {
    let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let embedded =
        embedded(address(9100), address(8080), address(9090), "/tmp/x".as_ref(), Hooks::permissive())
            .into_result()
            .unwrap();
    let document = embedded.document();
    assert_eq!(document.servers[0].http.targets[0].url().as_str(), "http://127.0.0.1:9100/mcp");
    assert!(document.identity.anonymous.is_none(), "anonymous callers are refused");
    assert_eq!(document.identity.loopback.as_ref().map(|l| l.role), Some(RoleName::Developer));
    let route = embedded.routes().next().unwrap();
    assert_eq!((route.path, route.server.name.as_str()), ("/mcp/demo", "demo"));
    let limits: Vec<&Limit> = route.limits().collect();
    assert_eq!(limits, [&Limit::built_in()]);
    assert_eq!(embedded.public_origin(address(8080)), "http://127.0.0.1:8080");
}

#[test]
fn a_route_without_limits_has_the_built_in_ones_by_role() {
    let validated = valid(BASE);
    let route = validated.routes().next().unwrap();
    let limit = route.limits().next().unwrap();
    let counts: Vec<u64> = Role::ALL.into_iter().map(|role| limit.rate_of(role).unwrap().count()).collect();
    assert_eq!(counts, [20, 60, 200, 500, 1000, 1000]);
    let replaced = valid(&format!("{BASE}limits: [{{ name: default, key: ip, rate: 5/s }}]\n"));
    assert_eq!(replaced.routes().next().unwrap().limits().next().unwrap().rate.unwrap().count(), 5);
    assert_eq!(replaced.limits().len(), 1);
}

#[test]
fn a_document_of_the_program_is_checked_by_the_same_rules() {
    assert!(Validated::new(Document::default(), Hooks::permissive()).is_ok());
    let mut document = valid(BASE).document().clone();
    document.routes[0].servers.clear();
    let found = Validated::new(document, Hooks::permissive()).expect_err("a route needs a server");
    assert!(found.has_errors(), "{found}");
}

#[test]
fn the_revision_is_that_of_the_text_and_equality_that_of_the_meaning() {
    let (a, b) = (valid(BASE), valid(&format!("{BASE}# a comment\n")));
    assert_eq!(a.revision(), valid(BASE).revision());
    assert_ne!(a.revision(), b.revision());
    assert_eq!(a.revision().as_str().len(), 16);
    assert_eq!(a, b);
    assert!(diff(&a, &b).is_empty());
}

#[test]
fn differences_are_said_in_words() {
    let two = BASE.replace("9001/mcp\"]", "9001/mcp\", { url: \"http://127.0.0.1:9002/mcp\", weight: 2 }]");
    assert_eq!(changes(BASE, &two), ["server weather: +1 target http://127.0.0.1:9002/mcp"]);
    assert_eq!(changes(&two, BASE), ["server weather: −1 target http://127.0.0.1:9002/mcp"]);
    assert_eq!(
        changes(&two, &two.replace("weight: 2", "weight: 3")),
        ["server weather: target http://127.0.0.1:9002/mcp weight 2 → 3"]
    );
    let hash =
        BASE.replace("    http:", "    balance: round_robin\n    timeouts: { request: 90s }\n    http:");
    assert_eq!(
        changes(BASE, &hash),
        ["server weather: balance least_request → round_robin", "server weather: timeouts.request 2m → 90s"]
    );
    let limits = |rate: &str| {
        BASE.replace("[weather] }", "[weather], limits: [by_role] }")
            + &format!("limits: [{{ name: by_role, key: principal, per_role: {{ developer: {rate} }} }}]\n")
    };
    assert_eq!(
        changes(&limits("200/m"), &limits("100/m")),
        ["limit by_role: per_role.developer 200/m → 100/m"]
    );
    assert_eq!(
        changes(BASE, &limits("200/m")),
        ["route weather: limits −default +by_role", "limit by_role: added"]
    );
    let address = format!("{BASE}listeners: {{ mcp: {{ address: \"127.0.0.1:8081\" }} }}\n");
    assert_eq!(
        changes(BASE, &address),
        ["listeners.mcp: address 127.0.0.1:8080 → 127.0.0.1:8081 (at the next start)"]
    );
    let dir = format!("{BASE}data_dir: x\n");
    assert_eq!(changes(BASE, &dir), ["document: data_dir ./data → x (at the next start)"]);
    assert_eq!(
        changes(BASE, &BASE.replace("role: developer", "role: viewer")),
        ["identity.loopback: role developer → viewer"]
    );
    let explicit = BASE.replace("    http:", "    era: auto\n    http:");
    assert!(changes(BASE, &explicit).is_empty(), "writing a default out is no change");
}

#[test]
fn changed_secrets_are_a_change_that_shows_nothing() {
    let text = BASE.replace("    http:", "    credential: { bearer: \"${env:T}\" }\n    http:");
    let with = |value: &str| {
        load(text.as_bytes(), "x", &FixedSources::default().with_env("T", value), hooks())
            .into_result()
            .unwrap()
    };
    let (old, new) = (with("hunter2"), with("hunter3"));
    assert_ne!(old, new);
    assert_eq!(old.revision(), new.revision());
    let shown: Vec<String> = diff(&old, &new).iter().map(Change::to_string).collect();
    assert_eq!(shown, ["server weather: credential changed"]);
    assert!(!format!("{old:?}").contains("hunter2"));
    assert!(!serde_json::to_string(old.document()).unwrap().contains("hunter2"));
}

#[test]
fn every_place_for_a_secret_is_compared() {
    // `diff` names the places by hand; whoever adds one must add it there.
    let text = schema().to_string();
    assert_eq!(
        text.matches("tollgate-secret").count(),
        9,
        "admin token, metrics token, store URL, valkey password, pepper, bearer, basic, header, otlp headers"
    );
}

#[test]
fn the_schema_admits_nothing_that_serde_refuses() {
    // Every default that the schema states deserializes, and the model's own default round-trips through the checker.
    let json = serde_json::to_value(Document::default()).unwrap();
    assert_eq!(serde_json::from_value::<Document>(json).unwrap(), Document::default());
}

/// The full example with some values replaced by others of any kind.
fn mutated(changes: &[(usize, usize)]) -> String {
    const VALUES: [&str; 20] = [
        "1",
        "-1",
        "1.5",
        "true",
        "\"\"",
        "x",
        "[]",
        "{}",
        "[1]",
        "{ a: 1 }",
        "~",
        "10s",
        "4MiB",
        "5/s",
        "5%",
        "99999999999999999999",
        "9007199254740993",
        "5000000000",
        "1e400",
        "[{ name: a }]",
    ];
    let mut text = include_str!("../../../conf/full.yaml").to_owned();
    for (place, value) in changes {
        let places: Vec<usize> = text.match_indices(": ").map(|(at, _)| at + 2).collect();
        let start = places[place % places.len()];
        let end = text[start..].find([',', '}', ']', '\n', '[', '{']).map_or(text.len(), |end| start + end);
        text.replace_range(start..end.max(start), VALUES[value % VALUES.len()]);
    }
    text
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 150, ..Default::default() })]

    #[test]
    fn what_the_checker_admits_deserializes(changes in proptest::collection::vec((0usize..1000, 0usize..20), 1..4)) {
        let text = mutated(&changes);
        let loaded = load_text(&text);
        let bad = loaded.diagnostics.iter().any(|d| d.code == "bad-document");
        proptest::prop_assert!(!bad, "{text}");
    }
}

#[test]
fn every_key_has_a_description_and_lists_only_known_formats() {
    fn walk(path: &str, value: &Value) {
        if let Some(properties) = value["properties"].as_object() {
            for (key, property) in properties {
                let tag = value["required"][0] == *key && properties.len() == 1;
                assert!(
                    property["description"].is_string() || tag || property["$ref"].is_string(),
                    "{path}.{key}"
                );
            }
        }
        if let Some(format) = value["format"].as_str().filter(|f| f.starts_with("tollgate-")) {
            assert!(model::text::check_format(format, "\0").is_some(), "{format}");
        }
        match value {
            Value::Object(map) => map.iter().for_each(|(key, inner)| walk(&format!("{path}.{key}"), inner)),
            Value::Array(items) => items.iter().for_each(|inner| walk(path, inner)),
            _ => {}
        }
    }
    walk("", schema());
    assert!(!schema().to_string().contains("\"null\""), "a key without a value is an error");
}

#[test]
fn the_reference_page_has_every_key() {
    let page = reference();
    let defs = schema()["$defs"].as_object().unwrap();
    for properties in defs.values().chain([schema()]).filter_map(|def| def["properties"].as_object()) {
        for key in properties.keys() {
            assert!(page.contains(&format!("`{key}`")) || page.contains(&format!("`{key}: …`")), "{key}");
        }
    }
    for key in schema()["properties"].as_object().unwrap().keys() {
        assert!(page.contains(&format!("\n| `{key}` |")), "top-level key {key}");
    }
}

/// People put secrets where none belong; the log tells where something changed, and no value.
#[test]
fn places_of_changes_have_no_values() {
    let text = |secret: &str| {
        format!(
            "version: 1
servers:
  - name: weather
    http: {{ targets: [\"http://127.0.0.1:9001/mcp-{secret}\"] }}
    timeouts: {{ request: {}0s }}
routes:
  - {{ name: weather, servers: [weather], policy: p, scopes: [\"{secret}\"], audiences: [\"https://x.example/{secret}\"] }}
policies:
  - {{ name: p, rules: [ {{ allow: {{ tools: [\"{secret}\"] }}, when: 'method == \"{secret}\"' }} ] }}
identity:
  loopback: {{ role: developer }}
",
            secret.len()
        )
    };
    let (old, new) = (valid(&text("hunter2")), valid(&text("correct-horse")));
    let changes = diff(&old, &new);
    let said: String = changes.iter().map(|change| format!("{change}\n")).collect();
    assert!(said.contains("hunter2") && said.contains("correct-horse"), "to readers of documents: {said}");
    let places: Vec<String> = changes.iter().map(Change::place).collect();
    assert!(places.len() >= 5, "{places:?}");
    for place in &places {
        assert!(!place.contains("hunter2") && !place.contains("horse") && !place.contains("13"), "{place}");
    }
    assert!(places.contains(&"server weather: http.targets changed".to_owned()), "{places:?}");
    let more = BASE.replace(
        "servers:\n",
        "servers:\n  - { name: two, http: { targets: [\"http://127.0.0.1:1/mcp\"] } }\n",
    );
    let added: Vec<String> = diff(&valid(BASE), &valid(&more)).iter().map(Change::place).collect();
    assert_eq!(added, ["server two: added"]);
    assert!(!serde_json::to_string(&changes).unwrap().contains("place"), "it is for the log");
}
