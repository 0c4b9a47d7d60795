//! The rules of the document, one test per kind of finding.

mod canonical;
mod findings;
mod rules;
mod tenants;
mod whole;

use super::*;

/// A base that has no findings; rules are broken one by one.
pub(super) const BASE: &str = "\
version: 1
servers:
  - name: weather
    http: { targets: [\"http://127.0.0.1:9001/mcp\"] }
routes:
  - { name: weather, servers: [weather] }
identity:
  loopback: { role: developer }
";

pub(super) fn sources() -> FixedSources {
    FixedSources::default()
        .with_env("TOKEN", "hunter2")
        .with_env("EMPTY", "")
        .with_env("NUMBER", "4")
        .with_file("/run/secret", b"from-file\n")
}

/// Refuses expressions with `nonsense` and patterns with `[`.
pub(super) fn hooks() -> Hooks<'static> {
    Hooks {
        expression: &|text| match text.contains("nonsense") {
            true => Err("undeclared variable `nonsense`\n  | ^".to_owned()),
            false => Ok(()),
        },
        policy: &|policy| {
            let doubtful = |(i, rule): (usize, &model::Rule)| {
                let reads = rule
                    .when
                    .as_ref()?
                    .contains("arguments.path")
                    .then_some("may fail without `arguments.path`")?;
                Some(RuleFinding { rule: i, message: reads.to_owned() })
            };
            policy.rules.iter().enumerate().filter_map(doubtful).collect()
        },
        pattern: &|text| match text.contains('[') {
            true => Err("unclosed class".to_owned()),
            false => Ok(()),
        },
    }
}

pub(super) fn load_text(text: &str) -> Loaded {
    load(text.as_bytes(), "tollgate.yaml", &sources(), hooks())
}

/// The one finding of a code.
pub(super) fn only(loaded: &Loaded, code: &str) -> Diagnostic {
    let found: Vec<&Diagnostic> = loaded.diagnostics.iter().filter(|d| d.code == code).collect();
    assert_eq!(found.len(), 1, "one `{code}` expected in:\n{}", loaded.diagnostics);
    found[0].clone()
}

/// Line and column of the first place of a text in a document.
pub(super) fn place(text: &str, needle: &str) -> (u32, u32) {
    let at = text.find(needle).unwrap_or_else(|| panic!("`{needle}` is not in the document"));
    let line = text[..at].matches('\n').count() + 1;
    let column = text[..at].rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line as u32, column as u32)
}

/// Asserts that a document has one finding of a code, where a text first stands, and that it says certain words.
#[track_caller]
pub(super) fn expect(text: &str, code: &str, at: &str, words: &[&str]) {
    let loaded = load_text(text);
    let found = only(&loaded, code);
    assert_eq!((found.line, found.column), place(text, at), "place of\n{found}");
    let shown = found.to_string();
    for word in words {
        assert!(shown.contains(word), "`{word}` is missing in\n{shown}");
    }
    assert_eq!(found.severity == Severity::Error, loaded.validated.is_none(), "{}", loaded.diagnostics);
}
