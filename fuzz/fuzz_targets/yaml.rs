//! Any bytes end in a document or in findings, never in a panic; findings can be shown, documents compared.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate::config::{self, FixedSources, Hooks};

fuzz_target!(|bytes: &[u8]| {
    let sources = FixedSources::default().with_env("A", "value").with_file("/a", b"content\n");
    let loaded = config::load(bytes, "fuzz.yaml", &sources, Hooks::permissive());
    assert!(loaded.validated.is_some() || loaded.diagnostics.has_errors());
    let _ = loaded.diagnostics.to_string();
    let _ = loaded.diagnostics.to_json();
    if let Some(validated) = &loaded.validated {
        assert!(config::diff(validated, validated).is_empty());
        validated.routes().for_each(|route| assert!(route.limits().count() == route.route.limits.len()));
    }
});
