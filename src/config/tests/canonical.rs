//! Canonical documents: one form, the same meaning, nothing resolved.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::config::edit::{self, EditError, Kind};

#[test]
fn comments_order_and_style_do_not_matter() {
    let a = canonical(b"# c\nroutes: [{ servers: [s], name: r }]\nversion: 1\n").unwrap();
    let b = canonical(b"version: 1\nroutes:\n- name: 'r'\n  servers:\n    - \"s\"\n").unwrap();
    assert_eq!(a, b);
    assert_eq!(a.as_str(), "version: 1\nroutes:\n  - name: r\n    servers:\n      - s\n");
    assert_eq!(a.hash_hex().len(), 64);
}

#[test]
fn texts_stay_texts() {
    let text = "version: 1\na: [\"true\", \"1\", \"1.5\", \"~\", \"\", \"a: b\", \"#x\", \"${env:A}\", \"10s\", \"1:30\", \"a\\nb\", \"0x1f\"]\n";
    let once = canonical(text.as_bytes()).unwrap();
    assert_eq!(
        once.to_json()["a"],
        json!(["true", "1", "1.5", "~", "", "a: b", "#x", "${env:A}", "10s", "1:30", "a\nb", "0x1f"])
    );
    assert_eq!(canonical(once.as_bytes()).unwrap(), once);
}

#[test]
fn what_is_no_document_is_refused() {
    for bad in ["", "- a\n", "a: 1\na: 2\n", "a: [\n", "text"] {
        assert!(canonical(bad.as_bytes()).is_err(), "{bad:?}");
    }
    assert!(Canonical::stored(b"version: 1\n").is_ok());
    assert!(Canonical::stored(b"version:   1\n").is_err());
}

/// Every example means the same in canonical form, and writing it again changes no byte.
#[test]
fn the_examples_keep_their_meaning() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "yaml") {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let once = canonical(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(canonical(once.as_bytes()).unwrap(), once, "{}", path.display());
        struct Anything;
        impl Sources for Anything {
            fn env(&self, name: &str) -> Result<String, SourceError> {
                Ok(if name.starts_with("TOLLGATE_") && !name.contains("TOKEN") && !name.contains("PEPPER") {
                    "127.0.0.1:9000".into()
                } else {
                    "0123456789abcdef".into()
                })
            }
            fn file(&self, _: &std::path::Path) -> Result<Vec<u8>, SourceError> {
                Ok(b"x".to_vec())
            }
            fn secret(&self, _: &crate::base::TenantId, _: &str) -> Result<String, SourceError> {
                Ok("s".into())
            }
        }
        let meaning = |bytes: &[u8]| load(bytes, "f", &Anything, hooks()).validated;
        assert_eq!(meaning(&bytes), meaning(once.as_bytes()), "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 11);
}

#[test]
fn a_file_is_taken_apart_without_resolving_anything() {
    let text = format!(
        "{BASE}listeners: {{}}\ntenants:\n  - name: acme\n    document:\n      identity: {{ api_keys: true }}\n      servers: [{{ name: s, http: {{ targets: [\"${{env:T}}\"] }} }}]\n  - name: empty\n"
    );
    let documents = split(text.as_bytes()).unwrap();
    assert_eq!(documents.platform.as_str(), "version: 1\ntenants:\n  - name: acme\n  - name: empty\n");
    let names: Vec<&str> = documents.tenants.keys().map(|t| t.as_str()).collect();
    assert_eq!(names, ["acme", "default"]);
    let acme = &documents.tenants["acme"];
    assert!(
        acme.as_str().starts_with("version: 1\nservers:\n") && acme.as_str().contains("${env:T}"),
        "{acme:?}"
    );
    assert!(!documents.tenants["default"].as_str().contains("listeners"));
    for document in documents.tenants.values().chain([&documents.platform]) {
        assert_eq!(&Canonical::stored(document.as_bytes()).unwrap(), document);
    }
    assert!(split(b"version: 1\ntenants: [{ name: \"${env:X}\" }]\n").is_err());
}

#[test]
fn one_object_is_edited_and_the_rest_stays() {
    let document = canonical(BASE.as_bytes()).unwrap();
    let server = json!({ "http": { "targets": ["https://a.example/mcp"] }, "credential": { "bearer": "${secret:k}" } });
    let more = edit::put(&document, Kind::Server, "alpha", &server).unwrap();
    assert_eq!(edit::get(&more, Kind::Server, "alpha").unwrap()["credential"]["bearer"], "${secret:k}");
    assert_eq!(edit::list(&more, Kind::Server).len(), 2);
    assert_eq!(edit::get(&more, Kind::Server, "weather"), edit::get(&document, Kind::Server, "weather"));
    let again =
        edit::put(&more, Kind::Server, "alpha", &edit::get(&more, Kind::Server, "alpha").unwrap()).unwrap();
    assert_eq!(again, more, "what was read can be written back");
    assert_eq!(edit::remove(&more, Kind::Server, "alpha").unwrap(), document);
    let issuer =
        edit::put(&document, Kind::Issuer, "corp", &json!({ "issuer": "https://i.example" })).unwrap();
    assert_eq!(edit::remove(&issuer, Kind::Issuer, "corp").unwrap(), document);
    let error = |result: Result<Canonical, EditError>| result.unwrap_err();
    let mut editor = edit::Editor::of(&document);
    editor.put(Kind::Server, "alpha", &server).unwrap();
    assert!(matches!(editor.remove(Kind::Policy, "x"), Err(EditError::NotFound { .. })));
    assert!(matches!(editor.put(Kind::Server, "Alpha", &server), Err(EditError::Name(_))));
    editor.put(Kind::Issuer, "corp", &json!({ "issuer": "https://i.example" })).unwrap();
    editor.remove(Kind::Server, "alpha").unwrap();
    assert_eq!(editor.finish().unwrap(), issuer, "what failed has left nothing");
    assert!(matches!(error(edit::remove(&document, Kind::Route, "x")), EditError::NotFound { .. }));
    assert!(matches!(
        error(edit::put(&document, Kind::Route, "x", &json!({ "name": "y" }))),
        EditError::OtherName(_)
    ));
    assert!(matches!(error(edit::put(&document, Kind::Route, "X Y", &json!({}))), EditError::Name(_)));
    assert!(matches!(error(edit::put(&document, Kind::Route, "x", &json!([]))), EditError::Shape(_)));
    assert!("routes".parse::<Kind>().is_err() && "route".parse::<Kind>() == Ok(Kind::Route));
}

#[test]
fn changes_are_told_by_object_and_references_are_not_resolved() {
    let old = canonical(BASE.as_bytes()).unwrap();
    let new = BASE
        .replace("9001/mcp\"]", "9001/mcp\", \"http://127.0.0.1:9002/mcp\"]")
        .replace("servers: [weather] }", "servers: [weather], limits: [slow] }")
        + "limits: [{ name: slow, key: principal, rate: 100/m }]\n";
    let new = canonical(new.as_bytes()).unwrap();
    let told: Vec<String> = diff_documents(&old, &new).iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "server weather: +1 target http://127.0.0.1:9002/mcp",
            "route weather: limits none → [slow]",
            "limit slow: added",
        ]
    );
    assert!(diff_documents(&old, &old).is_empty());
    let slower = canonical(new.as_str().replace("100/m", "50/m").as_bytes()).unwrap();
    assert_eq!(diff_documents(&new, &slower)[0].to_string(), "limit slow: rate 100/m → 50/m");
}

fn scalar() -> impl Strategy<Value = serde_json::Value> {
    prop_oneof![
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Into::into),
        any::<String>().prop_map(Into::into),
        "[-a-zA-Z0-9 :#&*!|>'\"%@`,{}\\[\\]$~?=<._/\\\\\t\n]{0,12}".prop_map(Into::into),
    ]
}

fn any_tree() -> impl Strategy<Value = serde_json::Value> {
    scalar().prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            prop::collection::btree_map("[a-z:# \"1-]{1,6}|name|true", inner, 0..5)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Whatever a document holds is the same in canonical form, and its form is the same again.
    #[test]
    fn canonical_is_idempotent_and_keeps_everything(inner in any_tree()) {
        let root = json!({ "version": 1, "a": inner });
        let text = serde_json::to_string(&root).unwrap();
        // JSON is YAML but for escapes of control characters outside of strings.
        if let Ok(once) = canonical(text.as_bytes()) {
            prop_assert_eq!(once.to_json(), root, "{}", once.as_str());
            prop_assert_eq!(canonical(once.as_bytes()).unwrap(), once);
        }
    }

    /// The writer's own output always parses, to the same tree.
    #[test]
    fn what_is_written_is_read(inner in any_tree()) {
        let root = json!({ "a": inner });
        let written = yaml::write(&tree::Node::from_json(root.clone()));
        let read = tree::parse(written.as_bytes()).map(|(_, node)| node.to_json());
        prop_assert_eq!(read.map_err(|e| e.message), Ok(root), "{}", written);
    }
}
