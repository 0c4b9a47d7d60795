//! Documents in the one form in which they are stored, compared and shown.
//!
//! A [`Canonical`] is text: what was written and nothing else, without comments, keys in a fixed order, references as
//! they stand (`${secret:…}` is never resolved here). Equal meaning, as far as it can be seen without resolving anything,
//! is equal bytes, so its hash names it. It is not yet valid: [`load_tenant`](super::load_tenant) and
//! [`load_platform`](super::load_platform) say that.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::diagnostic::{At, Diagnostics};
use super::findings::{Findings, Source};
use super::model::{Name, VERSION};
use super::path::Path;
use super::tree::{self, Entry, MAX_DOCUMENT, Node, Value};
use super::yaml;
use crate::base::TenantId;

/// The sections that belong to a tenant.
pub(crate) const TENANT_SECTIONS: [&str; 5] = ["servers", "routes", "limits", "policies", "identity"];

/// A document in canonical form. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Canonical {
    text: Arc<str>,
    hash: [u8; 32],
}

impl Canonical {
    /// The document that says nothing.
    pub fn empty() -> Self {
        Self::of_text(yaml::write(&map(vec![version()])))
    }

    /// Takes a text that was made by [`canonical`] before.
    ///
    /// # Errors
    /// What [`canonical`] finds, or that the text is not in canonical form.
    pub fn stored(bytes: &[u8]) -> Result<Self, Diagnostics> {
        let again = canonical(bytes)?;
        if again.as_bytes() == bytes {
            return Ok(again);
        }
        let mut findings = Findings::default();
        findings.error("not-canonical", &Path::default(), "a stored document that is not in canonical form");
        Err(findings.into_diagnostics(&Source::new("stored document", "")))
    }

    fn of_text(text: String) -> Self {
        let hash = Sha256::digest(text.as_bytes()).into();
        Self { text: text.into(), hash }
    }

    pub(crate) fn of_tree(root: &Node) -> Result<Self, Diagnostics> {
        let text = yaml::write(root);
        if text.len() <= MAX_DOCUMENT {
            return Ok(Self::of_text(text));
        }
        let mut findings = Findings::default();
        findings
            .error("syntax", &Path::default(), format!("the document has {} bytes", text.len()))
            .expected("a document of at most 4 MiB");
        Err(findings.into_diagnostics(&Source::new("document", "")))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The bytes that are stored and exported.
    pub fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// SHA-256 of the bytes.
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// The hash in hexadecimal.
    pub fn hash_hex(&self) -> String {
        self.hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The document as JSON, references unresolved.
    pub fn to_json(&self) -> serde_json::Value {
        self.tree().to_json()
    }

    pub(crate) fn tree(&self) -> Node {
        // It was written by `yaml::write`, whose output parses.
        tree::parse(self.as_bytes()).map_or_else(|_| map(vec![version()]), |(_, root)| root)
    }
}

impl fmt::Debug for Canonical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Canonical({} bytes, {})", self.text.len(), &self.hash_hex()[..16])
    }
}

/// The canonical form of a document of any kind: a whole file, a platform document or a tenant's.
///
/// # Errors
/// The text is not YAML, not a map, or has a key twice. Whether it makes sense is for loading to say.
pub fn canonical(bytes: &[u8]) -> Result<Canonical, Diagnostics> {
    Canonical::of_tree(&read(bytes, "document")?)
}

/// A file, taken apart into what the store keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Documents {
    /// Which tenants there are, and what they may do.
    pub platform: Canonical,
    /// The documents of those for whom the file has one. `default` is there if the top level has a section of its own.
    pub tenants: BTreeMap<TenantId, Canonical>,
}

/// Takes a file apart into platform document and tenants' documents. What is read at the start only stays in the file.
///
/// # Errors
/// As [`canonical`], or a tenant without a usable name or with a document that is no map.
pub fn split(bytes: &[u8]) -> Result<Documents, Diagnostics> {
    split_file(bytes, "document")
}

/// The same of a file of this name, as findings tell it.
///
/// # Errors
/// As [`split`].
pub fn split_file(bytes: &[u8], file: &str) -> Result<Documents, Diagnostics> {
    let root = read(bytes, file)?;
    let mut findings = Findings::default();
    // What is stored has this program's version, so that a file of another one would be taken for what it is not.
    if let Some(stated) = root.entry("version")
        && !matches!(stated.node.value, Value::Int(number) if number == i128::from(VERSION))
    {
        findings
            .error(
                "out-of-range",
                &Path::of("version"),
                "a document of a version that this program does not read",
            )
            .at(stated.node.at)
            .expected(format!("`version: {VERSION}`"));
    }
    let mut tenants = BTreeMap::new();
    let own: Vec<Entry> = root
        .entries()
        .iter()
        .filter(|entry| TENANT_SECTIONS.contains(&entry.key.as_str()))
        .cloned()
        .collect();
    if !own.is_empty() {
        tenants.insert(TenantId::default(), document(own)?);
    }
    let mut platform = Vec::new();
    let list = Path::of("tenants");
    for (i, item) in
        root.entry("tenants").map(|entry| entry.node.items()).unwrap_or_default().iter().enumerate()
    {
        let path = list.index(i);
        let mut entries: Vec<Entry> = item.entries().to_vec();
        let inner = entries.iter().position(|entry| entry.key == "document").map(|at| entries.remove(at));
        platform.push(map(entries));
        let name = match item.entry("name").map(|entry| &entry.node.value) {
            Some(Value::Text(name)) if name.parse::<Name>().is_ok() => TenantId::new(name.as_str()),
            _ => {
                findings
                    .error("bad-value", &path.key("name"), "a tenant without a name")
                    .at(item.at)
                    .expected("a name, written out");
                continue;
            }
        };
        let Some(inner) = inner else { continue };
        if !matches!(inner.node.value, Value::Map(_)) {
            findings
                .error("wrong-type", &path.key("document"), "a document that is no map")
                .at(inner.key_at)
                .expected("a map with `servers`, `routes` and so on");
        } else if tenants.insert(name.clone(), document(inner.node.entries().to_vec())?).is_some() {
            findings
                .error("duplicate-name", &path.key("name"), format!("tenant `{name}` is defined twice"))
                .at(item.at);
        }
    }
    if findings.has_errors() {
        let text = String::from_utf8_lossy(bytes);
        return Err(findings.into_diagnostics(&Source::new(file, &text)));
    }
    let mut entries = vec![version()];
    if !platform.is_empty() {
        entries
            .push(entry("tenants", Node { at: At::NOWHERE, value: Value::List(platform), expanded: false }));
    }
    Ok(Documents { platform: Canonical::of_tree(&map(entries))?, tenants })
}

fn document(sections: Vec<Entry>) -> Result<Canonical, Diagnostics> {
    let mut entries = vec![version()];
    entries.extend(sections.into_iter().filter(|entry| entry.key != "version"));
    Canonical::of_tree(&map(entries))
}

fn version() -> Entry {
    entry("version", Node { at: At::NOWHERE, value: Value::Int(VERSION.into()), expanded: false })
}

pub(crate) fn entry(key: &str, node: Node) -> Entry {
    Entry { key: key.to_owned(), key_at: At::NOWHERE, node }
}

pub(crate) fn map(entries: Vec<Entry>) -> Node {
    Node { at: At::NOWHERE, value: Value::Map(entries), expanded: false }
}

/// Parses a document that is a map without repeated keys.
fn read(bytes: &[u8], name: &str) -> Result<Node, Diagnostics> {
    let mut findings = Findings::default();
    let (text, root) = match tree::parse(bytes) {
        Ok(parsed) => parsed,
        Err(error) => {
            findings.error("syntax", &Path::default(), error.message).at(error.at).expected =
                error.expected.map(str::to_owned);
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_DOCUMENT)]);
            return Err(findings.into_diagnostics(&Source::new(name, &text)));
        }
    };
    if !matches!(root.value, Value::Map(_)) {
        findings
            .error("wrong-type", &Path::default(), "the document is not a map")
            .at(root.at)
            .expected("a map");
    }
    duplicates(&root, &Path::default(), &mut findings);
    if findings.has_errors() {
        return Err(findings.into_diagnostics(&Source::new(name, text)));
    }
    Ok(root)
}

fn duplicates(node: &Node, path: &Path, findings: &mut Findings) {
    match &node.value {
        Value::List(items) => {
            for (i, item) in items.iter().enumerate() {
                duplicates(item, &path.index(i), findings);
            }
        }
        Value::Map(entries) => {
            let mut seen = std::collections::HashSet::new();
            for entry in entries {
                let inner = path.entry(&entry.key);
                if !seen.insert(entry.key.as_str()) {
                    let message = format!("key `{}` is given twice", entry.key);
                    findings.error("duplicate-key", &inner, message).at(entry.key_at);
                }
                duplicates(&entry.node, &inner, findings);
            }
        }
        _ => {}
    }
}
