//! `${env:NAME}`, `${file:/path}` and `${secret:name}` inside text values.
//!
//! Only values are expanded, never keys, and what comes out is text: it is not read as YAML again, so nothing in an
//! environment variable or file can add a key. A file loses one line break at its end. `$${` stands for `${`.
//!
//! A tenant's document is expanded on its terms: environment and files only if they are granted, and only its own secrets.

use std::path::{Path as FilePath, PathBuf};

use super::findings::Findings;
use super::model::Name;
use super::path::Path;
use super::terms::Terms;
use super::tree::{Node, Value};
use crate::base::TenantId;

/// Largest file that a reference may name, in bytes.
pub const MAX_REFERENCED_FILE: usize = 64 << 10;

/// Most references in one document.
const MAX_REFERENCES: usize = 10_000;

/// What to do about a document with a secret of a store.
const SECRET_OF_STORE: &str = "the gateway that the document is applied to must have it in its store; one that reads its \
                               configuration from a file has no such secrets";

/// What to do about a document with a variable that only the gateway sets.
const SET_BY_GATEWAY: &str = "the document can be applied to a gateway that runs without a configuration file, as it was exported \
                    from; for another one, write the address of a server of your own";

/// Most text that references may add to a document, in bytes.
const MAX_EXPANDED: usize = 16 << 20;

/// Where references lead. Injected, so that reading a document needs neither environment nor disk.
pub trait Sources {
    /// The value of an environment variable.
    fn env(&self, name: &str) -> Result<String, SourceError>;

    /// What stands for a variable that only a running gateway has, where a document is looked at and not served.
    fn stand_in(&self, name: &str) -> Option<String> {
        let _ = name;
        None
    }

    /// What stands for a secret of a store, where a document is looked at without the store that it is for.
    fn secret_stand_in(&self, name: &str) -> Option<String> {
        let _ = name;
        None
    }

    /// The content of a file; must read no more than [`MAX_REFERENCED_FILE`] bytes and one.
    fn file(&self, path: &FilePath) -> Result<Vec<u8>, SourceError>;

    /// A secret that the store keeps for a tenant. There are none without a store.
    fn secret(&self, tenant: &TenantId, name: &str) -> Result<String, SourceError> {
        let _ = (tenant, name);
        Err(SourceError::Missing)
    }
}

/// Why a reference leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// There is no such variable or file.
    #[error("does not exist")]
    Missing,
    /// The value is not UTF-8.
    #[error("is not text in UTF-8")]
    NotText,
    /// The file has more than [`MAX_REFERENCED_FILE`] bytes.
    #[error("has more than 64 KiB")]
    TooLarge,
    /// It exists, but cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
}

/// Expands every reference of a file in place. Returns the files named, for watching, missing ones included.
pub(crate) fn expand(root: &mut Node, sources: &dyn Sources, findings: &mut Findings) -> Vec<PathBuf> {
    let operator = Rights::of(&Terms::operator());
    let mut expander = Expander::new(operator.clone(), sources, findings);
    let Value::Map(entries) = &mut root.value else {
        expander.walk(root, &Path::default());
        return expander.finish();
    };
    for entry in entries {
        let path = Path::default().entry(&entry.key);
        let Value::List(tenants) = &mut entry.node.value else {
            expander.walk(&mut entry.node, &path);
            continue;
        };
        for (i, item) in tenants.iter_mut().enumerate() {
            let path = path.index(i);
            let rights = (entry.key == "tenants").then(|| Rights::written(item));
            match (&mut item.value, rights) {
                (Value::Map(entries), Some(rights)) => {
                    for entry in entries {
                        let own = if entry.key == "document" { &rights } else { &operator };
                        expander.rights = own.clone();
                        expander.walk(&mut entry.node, &path.entry(&entry.key));
                    }
                    expander.rights = operator.clone();
                }
                _ => expander.walk(item, &path),
            }
        }
    }
    expander.finish()
}

/// The same for a document that belongs to one tenant.
pub(crate) fn expand_for(
    root: &mut Node,
    terms: &Terms,
    sources: &dyn Sources,
    findings: &mut Findings,
) -> Vec<PathBuf> {
    let mut expander = Expander::new(Rights::of(terms), sources, findings);
    expander.walk(root, &Path::default());
    expander.finish()
}

/// What references of a part may lead to.
#[derive(Clone)]
struct Rights {
    tenant: TenantId,
    env: bool,
    file: bool,
}

impl Rights {
    fn of(terms: &Terms) -> Self {
        Self { tenant: terms.tenant().clone(), env: terms.allows_env(), file: terms.allows_files() }
    }

    /// Those of an item of `tenants`, as it is written: references give text, so none can give a right.
    fn written(item: &Node) -> Self {
        let granted = |name: &str| {
            let grants = item.entry("grants").and_then(|grants| grants.node.entry(name));
            grants.is_some_and(|entry| matches!(entry.node.value, Value::Bool(true)))
        };
        let name = match item.entry("name").map(|entry| &entry.node.value) {
            Some(Value::Text(name)) => name.as_str(),
            // Reported by the checker.
            _ => "",
        };
        Self { tenant: TenantId::new(name), env: granted("env"), file: granted("file") }
    }
}

struct Expander<'a> {
    rights: Rights,
    sources: &'a dyn Sources,
    findings: &'a mut Findings,
    files: Vec<PathBuf>,
    references: usize,
    bytes: usize,
    /// References of the text at hand that something else stands for.
    stood_in: Vec<StandIn>,
}

impl<'a> Expander<'a> {
    fn new(rights: Rights, sources: &'a dyn Sources, findings: &'a mut Findings) -> Self {
        Self { rights, sources, findings, files: Vec::new(), references: 0, bytes: 0, stood_in: Vec::new() }
    }

    fn finish(mut self) -> Vec<PathBuf> {
        self.files.sort();
        self.files.dedup();
        self.files
    }

    fn walk(&mut self, node: &mut Node, path: &Path) {
        match &mut node.value {
            Value::List(items) => {
                for (i, item) in items.iter_mut().enumerate() {
                    self.walk(item, &path.index(i));
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    self.walk(&mut entry.node, &path.entry(&entry.key));
                }
            }
            Value::Text(text) if text.contains("${") => match self.text(text) {
                Ok((expanded, from_outside)) => {
                    *text = expanded;
                    node.expanded = from_outside;
                    for StandIn { code, message, hint } in self.stood_in.drain(..) {
                        let finding = self.findings.warning(code, path, message).at(node.at);
                        finding.hint = Some(hint.to_owned());
                    }
                }
                Err(problem) => {
                    self.stood_in.clear();
                    let finding = self.findings.error(problem.code, path, problem.message).at(node.at);
                    finding.expected = problem.expected;
                    finding.hint = problem.hint;
                    node.value = Value::Broken;
                }
            },
            _ => {}
        }
    }

    /// The text with references replaced, and whether there were any.
    fn text(&mut self, text: &str) -> Result<(String, bool), Problem> {
        let mut out = String::new();
        let mut rest = text;
        let mut expanded = false;
        while let Some(start) = rest.find("${") {
            if rest[..start].ends_with('$') {
                out.push_str(&rest[..start - 1]);
                out.push_str("${");
                rest = &rest[start + 2..];
                continue;
            }
            out.push_str(&rest[..start]);
            let Some(end) = rest[start..].find('}') else {
                return Err(Problem::new("bad-reference", "a reference without `}`")
                    .expected(self.forms())
                    .hint("write `$${` for a literal `${`"));
            };
            let value = self.reference(&rest[start + 2..start + end])?;
            self.bytes += value.len();
            if self.bytes > MAX_EXPANDED {
                return Err(Problem::new("bad-reference", "references add more than 16 MiB"));
            }
            out.push_str(&value);
            expanded = true;
            rest = &rest[start + end + 1..];
        }
        out.push_str(rest);
        Ok((out, expanded))
    }

    /// What may be written.
    fn forms(&self) -> &'static str {
        match (self.rights.env, self.rights.file) {
            (true, true) => "`${env:NAME}`, `${file:/path}` or `${secret:name}`",
            (true, false) => "`${env:NAME}` or `${secret:name}`",
            (false, true) => "`${file:/path}` or `${secret:name}`",
            (false, false) => "`${secret:name}`",
        }
    }

    fn reference(&mut self, reference: &str) -> Result<String, Problem> {
        self.references += 1;
        if self.references > MAX_REFERENCES {
            return Err(Problem::new("bad-reference", "more than 10000 references"));
        }
        match reference.split_once(':') {
            Some(("env", _)) if !self.rights.env => Err(self.not_granted("environment variables", "env")),
            Some(("file", _)) if !self.rights.file => Err(self.not_granted("files", "file")),
            Some(("env", name)) if is_variable(name) => self.variable(name).map_err(|error| {
                let hint = format!("set `{name}` in the environment of the gateway");
                Problem::new("unresolved-reference", format!("environment variable `{name}` {error}"))
                    .hint(hint)
            }),
            Some(("file", name)) if !name.is_empty() && !name.contains('\0') => self.file(name),
            Some(("secret", name)) if name.parse::<Name>().is_ok() => self.secret(name).map_err(|error| {
                let tenant = &self.rights.tenant;
                let problem = Problem::new(
                    "unresolved-reference",
                    format!("secret `{name}` of tenant `{tenant}` {error}"),
                );
                match error {
                    SourceError::Missing => problem.hint(
                        "put it into the store; secrets of a store exist for documents of the store only",
                    ),
                    _ => problem,
                }
            }),
            _ => {
                let problem = Problem::new("bad-reference", format!("`${{{reference}}}` is not a reference"))
                    .expected(self.forms());
                Err(if is_variable(reference) && self.rights.env {
                    problem.hint(format!("write `${{env:{reference}}}`"))
                } else {
                    problem.hint("write `$${` for a literal `${`")
                })
            }
        }
    }

    fn variable(&mut self, name: &str) -> Result<String, SourceError> {
        match (self.sources.env(name), self.sources.stand_in(name)) {
            (Err(SourceError::Missing), Some(value)) => {
                let message = format!("only the gateway itself sets `{name}`; `{value}` stands for it here");
                self.stood_in.push(StandIn { code: "set-by-gateway", message, hint: SET_BY_GATEWAY });
                Ok(value)
            }
            (found, _) => found,
        }
    }

    fn secret(&mut self, name: &str) -> Result<String, SourceError> {
        let tenant = &self.rights.tenant;
        match (self.sources.secret(tenant, name), self.sources.secret_stand_in(name)) {
            (Err(SourceError::Missing), Some(value)) => {
                let message = format!("secret `{name}` of tenant `{tenant}` is not looked up here");
                self.stood_in.push(StandIn { code: "secret-of-store", message, hint: SECRET_OF_STORE });
                Ok(value)
            }
            (found, _) => found,
        }
    }

    fn not_granted(&self, what: &str, grant: &str) -> Problem {
        let tenant = &self.rights.tenant;
        Problem::new("not-granted", format!("tenant `{tenant}` may not refer to {what} of the gateway"))
            .expected("`${secret:name}`")
            .hint(format!("the operator can allow it: `grants: {{ {grant}: true }}`"))
    }

    fn file(&mut self, name: &str) -> Result<String, Problem> {
        let path = FilePath::new(name);
        self.files.push(path.to_owned());
        let read = self.sources.file(path).and_then(|bytes| {
            if bytes.len() > MAX_REFERENCED_FILE {
                return Err(SourceError::TooLarge);
            }
            String::from_utf8(bytes).map_err(|_| SourceError::NotText)
        });
        let mut text =
            read.map_err(|error| Problem::new("unresolved-reference", format!("file `{name}` {error}")))?;
        if text.ends_with('\n') {
            text.pop();
            if text.ends_with('\r') {
                text.pop();
            }
        }
        Ok(text)
    }
}

fn is_variable(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// What is said of a reference that something else stands for.
struct StandIn {
    code: &'static str,
    message: String,
    hint: &'static str,
}

struct Problem {
    code: &'static str,
    message: String,
    expected: Option<String>,
    hint: Option<String>,
}

impl Problem {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), expected: None, hint: None }
    }

    fn expected(mut self, expected: &str) -> Self {
        self.expected = Some(expected.to_owned());
        self
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
