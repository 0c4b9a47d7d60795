//! Every file in `conf/` is a document without errors, and what is generated from the types is current.

use std::path::{Path, PathBuf};

use tollgate::config::{self, FixedSources, Loaded};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn examples() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(root().join("conf"))
        .expect("conf/ exists")
        .map(|entry| entry.expect("conf/ can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    files
}

fn load(path: &Path) -> Loaded {
    let sources = FixedSources::default()
        .with_env("DATABASE_URL", "postgres://tollgate@127.0.0.1/tollgate")
        .with_env("OTEL_KEY", "x")
        .with_env("TICKETS_KEY", "x")
        .with_env("TOLLGATE_ADMIN", "127.0.0.1:9090")
        .with_env("TOLLGATE_ADMIN_TOKEN", "x")
        .with_env("TOLLGATE_DATA", "./data")
        .with_env("TOLLGATE_DEMO", "127.0.0.1:9100")
        .with_env("TOLLGATE_MCP", "127.0.0.1:8080")
        .with_env("TOLLGATE_PEPPER", "0123456789abcdef")
        .with_env("VALKEY_PASSWORD", "x")
        .with_env("WIKI_PASSWORD", "x")
        .with_file("/run/secrets/search-token", b"x\n")
        .with_file("/run/secrets/weather", b"x\n");
    let bytes = std::fs::read(path).expect("an example can be read");
    config::load(&bytes, &path.display().to_string(), &sources, tollgate::app::hooks())
}

#[test]
fn every_example_loads_without_errors() {
    assert!(examples().len() >= 11, "examples are missing");
    for path in examples() {
        let loaded = load(&path);
        assert!(loaded.validated.is_some(), "{}\n{}", path.display(), loaded.diagnostics);
    }
}

#[test]
fn examples_have_no_warnings_but_those_they_show() {
    for path in examples() {
        let loaded = load(&path);
        // The full example shows every key, also those that `check` warns about.
        if !path.ends_with("full.yaml") {
            assert!(loaded.diagnostics.is_empty(), "{}", loaded.diagnostics);
        }
    }
}

#[test]
fn the_full_example_has_every_key() {
    let text = std::fs::read_to_string(root().join("conf/full.yaml")).expect("conf/full.yaml exists");
    let schema = config::schema();
    let definitions = schema["$defs"].as_object().expect("the schema has definitions");
    for properties in
        definitions.values().chain([schema]).filter_map(|schema| schema["properties"].as_object())
    {
        for key in properties.keys() {
            assert!(text.contains(&format!("{key}:")), "`{key}` is missing in conf/full.yaml");
        }
    }
}

#[test]
fn the_schema_file_is_current() {
    let path = root().join("conf/tollgate.schema.json");
    let current = serde_json::to_string_pretty(config::schema()).expect("a schema is JSON") + "\n";
    let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(checked_in == current, "run `tollgate schema > conf/tollgate.schema.json`");
}

#[test]
fn the_reference_page_is_current() {
    let checked_in = std::fs::read_to_string(root().join("docs/configuration.md")).unwrap_or_default();
    assert!(checked_in == config::reference(), "run `tollgate schema --reference > docs/configuration.md`");
}
