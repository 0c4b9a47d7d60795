//! One object of a document at a time: what the API's `servers`, `routes` and so on do to a document.
//!
//! Everything else of the document stays as it is, byte for byte. References stay references: what is read here may be
//! shown, and written back.

use std::fmt;
use std::str::FromStr;

use serde_json::Value as Json;

use super::canonical::{Canonical, entry, map};
use super::diagnostic::{At, Diagnostics};
use super::model::Name;
use super::tree::{Node, Value};

/// What can be edited by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// An issuer, in `identity.issuers`.
    Issuer,
    /// A limit.
    Limit,
    /// A policy.
    Policy,
    /// A route.
    Route,
    /// A server.
    Server,
    /// A tenant, in the platform document.
    Tenant,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 6] =
        [Self::Issuer, Self::Limit, Self::Policy, Self::Route, Self::Server, Self::Tenant];

    /// What one of them is called.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Issuer => "issuer",
            Self::Limit => "limit",
            Self::Policy => "policy",
            Self::Route => "route",
            Self::Server => "server",
            Self::Tenant => "tenant",
        }
    }

    /// The keys of the list they are in, from the root.
    const fn list(self) -> &'static [&'static str] {
        match self {
            Self::Issuer => &["identity", "issuers"],
            Self::Limit => &["limits"],
            Self::Policy => &["policies"],
            Self::Route => &["routes"],
            Self::Server => &["servers"],
            Self::Tenant => &["tenants"],
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = EditError;

    fn from_str(text: &str) -> Result<Self, EditError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| EditError::Kind(text.to_owned()))
    }
}

/// Why an object cannot be edited. The document is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The document would be too large.
    #[error("{0}")]
    Document(Diagnostics),
    /// There are no such objects.
    #[error("`{0}` is not a kind of object")]
    Kind(String),
    /// A name that no object may have.
    #[error("`{0}` is not a name: lower-case letters, digits, `-` and `_`, at most 63")]
    Name(String),
    /// There is no such object.
    #[error("there is no {kind} `{name}`")]
    NotFound {
        /// What was looked for.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// The object is no JSON object.
    #[error("a {0} is an object")]
    Shape(Kind),
    /// The object has another name than the one it is put under.
    #[error("the object is called `{0}`: a name cannot be changed; make another object")]
    OtherName(String),
}

/// All objects of a kind, in the order of the document, with their names.
pub fn list(document: &Canonical, kind: Kind) -> Vec<(String, Json)> {
    let root = document.tree();
    let items = kind.list().iter().try_fold(&root, |node, key| Some(&node.entry(key)?.node));
    let items = items.map(Node::items).unwrap_or_default();
    items.iter().filter_map(|item| Some((name_of(item)?.to_owned(), item.to_json()))).collect()
}

/// One object.
pub fn get(document: &Canonical, kind: Kind, name: &str) -> Option<Json> {
    list(document, kind).into_iter().find(|(known, _)| known == name).map(|(_, object)| object)
}

/// Several edits of one document, which is read and written once for all of them.
pub struct Editor {
    root: Node,
}

impl Editor {
    /// Begins with a document.
    pub fn of(document: &Canonical) -> Self {
        Self { root: document.tree() }
    }

    /// Puts an object in the place of the one with its name, or at the end. `name` may be left out of the object.
    ///
    /// # Errors
    /// [`EditError`]; nothing is edited then.
    pub fn put(&mut self, kind: Kind, name: &str, object: &Json) -> Result<(), EditError> {
        if name.parse::<Name>().is_err() {
            return Err(EditError::Name(name.to_owned()));
        }
        let Json::Object(fields) = object else { return Err(EditError::Shape(kind)) };
        let mut fields = fields.clone();
        match fields.get("name") {
            None | Some(Json::Null) => {
                fields.insert("name".to_owned(), name.into());
            }
            Some(Json::String(own)) if own == name => {}
            Some(Json::String(own)) => return Err(EditError::OtherName(own.clone())),
            Some(_) => return Err(EditError::Shape(kind)),
        }
        let new = Node::from_json(Json::Object(fields));
        let items = items_mut(&mut self.root, kind);
        match items.iter_mut().find(|item| name_of(item) == Some(name)) {
            Some(old) => *old = new,
            None => items.push(new),
        }
        Ok(())
    }

    /// Takes an object out.
    ///
    /// # Errors
    /// [`EditError::NotFound`]; nothing is edited then.
    pub fn remove(&mut self, kind: Kind, name: &str) -> Result<(), EditError> {
        let items = items_mut(&mut self.root, kind);
        let before = items.len();
        items.retain(|item| name_of(item) != Some(name));
        let (gone, none) = (items.len() < before, items.is_empty());
        if none {
            // As if nothing of the kind had ever been put: an empty list says no more than none.
            prune(&mut self.root, kind.list());
        }
        if gone { Ok(()) } else { Err(EditError::NotFound { kind, name: name.to_owned() }) }
    }

    /// The document with all edits.
    ///
    /// # Errors
    /// [`EditError::Document`]; whether the document then makes sense is for loading to say.
    pub fn finish(self) -> Result<Canonical, EditError> {
        Canonical::of_tree(&self.root).map_err(EditError::Document)
    }
}

/// [`Editor::put`] alone.
///
/// # Errors
/// [`EditError`].
pub fn put(document: &Canonical, kind: Kind, name: &str, object: &Json) -> Result<Canonical, EditError> {
    let mut editor = Editor::of(document);
    editor.put(kind, name, object)?;
    editor.finish()
}

/// [`Editor::remove`] alone.
///
/// # Errors
/// [`EditError`].
pub fn remove(document: &Canonical, kind: Kind, name: &str) -> Result<Canonical, EditError> {
    let mut editor = Editor::of(document);
    editor.remove(kind, name)?;
    editor.finish()
}

/// Takes out the last of some nested keys, and those above that hold nothing else.
fn prune(node: &mut Node, keys: &[&str]) {
    let (Some((key, below)), Value::Map(entries)) = (keys.split_first(), &mut node.value) else { return };
    let Some(at) = entries.iter().position(|entry| entry.key == *key) else { return };
    if !below.is_empty() {
        prune(&mut entries[at].node, below);
    }
    if below.is_empty() || entries[at].node.entries().is_empty() {
        entries.remove(at);
    }
}

fn name_of(item: &Node) -> Option<&str> {
    match &item.entry("name")?.node.value {
        Value::Text(name) => Some(name),
        _ => None,
    }
}

/// The list of a kind, made if there is none. What stands in its place and is no list gives way.
fn items_mut(root: &mut Node, kind: Kind) -> &mut Vec<Node> {
    let mut node = root;
    let keys = kind.list();
    for (depth, key) in keys.iter().enumerate() {
        let last = depth + 1 == keys.len();
        let Value::Map(entries) = &mut node.value else {
            unreachable!("the root and what is made below are maps")
        };
        let at = match entries.iter().position(|entry| entry.key == *key) {
            Some(at) => at,
            None => {
                entries.push(entry(key, map(Vec::new())));
                entries.len() - 1
            }
        };
        node = &mut entries[at].node;
        let fits =
            if last { matches!(node.value, Value::List(_)) } else { matches!(node.value, Value::Map(_)) };
        if !fits {
            let value = if last { Value::List(Vec::new()) } else { Value::Map(Vec::new()) };
            *node = Node { at: At::NOWHERE, value, expanded: false };
        }
    }
    let Value::List(items) = &mut node.value else { unreachable!("the last key has just been made a list") };
    items
}
