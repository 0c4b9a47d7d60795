//! From text to a validated document: parse, expand references, check, validate. One way, and every finding of it.

use std::path::{Path as FilePath, PathBuf};

use super::check::{Checked, check};
use super::diagnostic::Diagnostics;
use super::diagnostic::Severity;
use super::expand::{Sources, expand};
use super::findings::{Findings, Source};
use super::path::Path;
use super::tree::{self, Node, Value};
use super::validate::{Context, Hooks, Known, Names, validate};
use super::validated::{Revision, Validated};

/// The outcome of loading a document.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The document, if there was no error.
    pub validated: Option<Validated>,
    /// Everything found; warnings only if there is a document.
    pub diagnostics: Diagnostics,
    /// Files that the document's `${file:…}` references name, for watching. Also filled when loading failed, as far as
    /// it came, so that a file that appears later is noticed.
    pub files: Vec<PathBuf>,
}

impl Loaded {
    /// What loading a document gives that cannot be read.
    pub fn unreadable(name: &str, error: &std::io::Error) -> Self {
        let mut findings = Findings::default();
        findings.error("unreadable", &Path::default(), format!("cannot read the document: {error}"));
        let diagnostics = findings.into_diagnostics(&Source::new(name, ""));
        Self { validated: None, diagnostics, files: Vec::new() }
    }

    /// The document, or what is wrong with it.
    pub fn into_result(self) -> Result<Validated, Diagnostics> {
        self.validated.ok_or(self.diagnostics)
    }
}

/// Loads a document from bytes. `name` is what findings call it, usually its path. Never panics, whatever the bytes.
pub fn load(bytes: &[u8], name: &str, sources: &dyn Sources, hooks: Hooks<'_>) -> Loaded {
    let mut findings = Findings::default();
    let (text, mut root) = match tree::parse(bytes) {
        Ok(parsed) => parsed,
        Err(error) => {
            let finding = findings.error("syntax", &Path::default(), error.message).at(error.at);
            finding.expected = error.expected.map(str::to_owned);
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(tree::MAX_DOCUMENT)]);
            let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
            let source = Source::new(name, text);
            return Loaded {
                validated: None,
                diagnostics: findings.into_diagnostics(&source),
                files: Vec::new(),
            };
        }
    };
    let files = expand(&mut root, sources, &mut findings);
    let checked = check(&root, &mut findings);
    let mut source = Source::new(name, text);
    source.hide(checked.secrets.clone());
    semantic(&root, &checked, hooks, &mut findings);
    let validated = match checked.document {
        Some(document) if !findings.has_errors() => Some(Validated::resolve(document, Revision::of(bytes))),
        _ => None,
    };
    Loaded { validated, diagnostics: findings.into_diagnostics(&source), files }
}

/// Runs the rules and gives their findings the places in the text.
fn semantic(root: &Node, checked: &Checked, hooks: Hooks<'_>, findings: &mut Findings) {
    let Some(document) = &checked.document else { return };
    let partial = findings.has_errors();
    let names = Names {
        servers: names(root, "servers"),
        limits: names(root, "limits"),
        policies: names(root, "policies"),
    };
    let mut context =
        Context { document, hooks, broken: &checked.broken, names, findings: Findings::default() };
    validate(&mut context);
    for mut finding in context.findings.into_list() {
        finding.path = finding.path.translate(|list, index| {
            checked.kept.get(list).and_then(|kept| kept.get(index)).copied().unwrap_or(index)
        });
        finding.at.get_or_insert(finding.path.locate(root));
        let real = finding.severity == Severity::Error
            && !checked.broken.iter().any(|broken| broken.overlaps(&finding.path));
        if !partial || real {
            findings.add(finding);
        }
    }
}

/// The names that the items of a list have in the text, whether or not the items are right.
fn names(root: &Node, list: &str) -> Known {
    let items = root.entry(list).map(|entry| entry.node.items()).unwrap_or_default();
    items
        .iter()
        .filter_map(|item| match &item.entry("name")?.node.value {
            Value::Text(name) => Some(name.clone()),
            _ => None,
        })
        .collect()
}

/// The document that `tollgate` runs without a file: everything on loopback, one route to the built-in demo server.
///
/// Callers from this machine are developers, everybody else is refused, and the built-in limits apply.
pub fn embedded(
    demo: std::net::SocketAddr,
    mcp: std::net::SocketAddr,
    admin: std::net::SocketAddr,
    data_dir: &FilePath,
    hooks: Hooks<'_>,
) -> Loaded {
    let sources = super::sources::FixedSources::default()
        .with_env("TOLLGATE_DEMO", &demo.to_string())
        .with_env("TOLLGATE_MCP", &mcp.to_string())
        .with_env("TOLLGATE_ADMIN", &admin.to_string())
        .with_env("TOLLGATE_DATA", &data_dir.to_string_lossy());
    load(EMBEDDED.as_bytes(), "embedded.yaml", &sources, hooks)
}

/// The text of the embedded document.
pub const EMBEDDED: &str = include_str!("../../conf/embedded.yaml");
