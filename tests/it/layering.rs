//! Modules depend one way only (`docs/architecture.md`, "Layers").

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Layer of each top-level module; a module may use lower layers only, and none of its own but what is listed.
const LAYERS: &[(&str, u8)] = &[
    ("base", 1),
    ("analytics", 2),
    ("audit", 2),
    ("auth", 2),
    ("canary", 2),
    ("config", 2),
    ("limit", 2),
    ("mcp", 2),
    ("plugin", 2),
    ("policy", 2),
    ("route", 2),
    ("telemetry", 2),
    ("transform", 2),
    ("shared", 3),
    ("upstream", 3),
    ("snapshot", 4),
    ("gateway", 5),
    ("insight", 5),
    ("store", 5),
    ("source", 6),
    ("control", 7),
    ("demo", 7),
    ("app", 8),
    ("cli", 9),
];

/// Crates that only some modules may name.
const OWNED: &[(&str, &[&str])] = &[
    ("pingora", &["gateway", "upstream"]),
    ("redis", &["shared"]),
    ("sqlx", &["store"]),
    ("axum", &["control", "demo"]),
];

fn sources() -> Vec<(String, PathBuf, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    files
        .into_iter()
        .map(|path| {
            let relative = path.strip_prefix(&root).unwrap();
            let module = relative.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
            let text = fs::read_to_string(&path).unwrap();
            (module, path, text)
        })
        .collect()
}

/// The code of a line, without its comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// Names after `crate::` in a line, also in `use crate::{a, b::c}`.
fn uses(text: &str) -> Vec<String> {
    let text: String = text.lines().map(code).collect::<Vec<_>>().join("\n");
    let mut names = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        // `pub(in crate::x)` grants, it does not use.
        if text[..at].trim_end().ends_with("(in") {
            continue;
        }
        let rest = &text[at + 7..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut name = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => names.push(std::mem::take(&mut name)),
                    _ if depth == 0 => name.push(c),
                    _ => {}
                }
            }
            names.push(name);
        } else {
            names.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    names
        .into_iter()
        .map(|n| n.trim().split("::").next().unwrap_or_default().trim().to_owned())
        .filter(|n| !n.is_empty())
        .collect()
}

#[test]
fn modules_use_only_lower_layers() {
    let layers: BTreeMap<_, _> = LAYERS.iter().copied().collect();
    let mut wrong = Vec::new();
    for (module, path, text) in sources() {
        let Some(own) = layers.get(module.as_str()) else {
            assert!(matches!(module.as_str(), "lib" | "main"), "{module} is in no layer");
            continue;
        };
        for used in uses(&text) {
            if used == module {
                continue;
            }
            match layers.get(used.as_str()) {
                Some(layer) if layer < own => {}
                Some(_) => wrong.push(format!("{}: {module} uses {used}", path.display())),
                None => {}
            }
        }
    }
    assert!(wrong.is_empty(), "wrong direction:\n{}", wrong.join("\n"));
}

#[test]
fn crates_stay_with_their_owners() {
    let mut wrong = Vec::new();
    for (module, path, text) in sources() {
        for (name, owners) in OWNED {
            let named = text.lines().map(code).any(|line| {
                line.match_indices(name).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    let after = &line[at + name.len()..];
                    !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '"' || c == '-')
                        && (after.starts_with("::") || after.starts_with('_'))
                })
            });
            if named && !owners.contains(&module.as_str()) {
                wrong.push(format!("{}: {name}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "named outside its owner:\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_stays_in_one_file() {
    let wrong: Vec<_> = sources()
        .into_iter()
        .filter(|(_, path, text)| {
            !path.ends_with("base/mapped.rs")
                && text.lines().map(code).any(|l| {
                    l.contains("unsafe {")
                        || l.contains("unsafe fn")
                        || l.contains("unsafe impl")
                        || l.contains("unsafe_code")
                })
        })
        .map(|(_, path, _)| path)
        .collect();
    assert!(wrong.is_empty(), "unsafe outside of base/mapped.rs: {wrong:?}");
}

#[test]
fn the_reader_of_uses_sees_groups_and_paths() {
    assert_eq!(uses("use crate::{base::Clock, mcp::{a, b}};"), ["base", "mcp"]);
    assert_eq!(uses("let x = crate::gateway::X; // crate::store"), ["gateway"]);
    assert!(uses("pub(in crate::mcp) mod x;").is_empty());
}
