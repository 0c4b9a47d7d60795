//! A second implementation of the scanner's rules over a tree that serde_json builds: slow, plain and independent.

use std::collections::HashSet;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::super::{MAX_BATCH, MAX_DEPTH, MAX_ID, MAX_TASK_IDS, scan};

/// Fails if the scanner accepts what the rules refuse or the other way round.
pub(super) fn compare(body: &[u8]) {
    let Some(expected) = accepts(body) else { return };
    let found = scan(body);
    assert_eq!(found.is_ok(), expected, "{:?}: {found:?}", String::from_utf8_lossy(body));
}

/// `None` where serde_json has limits of its own: numbers beyond `f64`, and more than 127 levels.
fn accepts(body: &[u8]) -> Option<bool> {
    match serde_json::from_slice::<Tree>(body) {
        Ok(tree) => Some(tree.depth() <= MAX_DEPTH && is_body(&tree)),
        Err(error) if error.to_string().starts_with("number out of range") => None,
        Err(error) if error.to_string().starts_with("recursion limit") => None,
        Err(_) => Some(false),
    }
}

enum Tree {
    Array(Vec<Tree>),
    Integer(usize),
    Null,
    Object(Vec<(String, Tree)>),
    Other,
    Text(String),
}

impl Tree {
    fn depth(&self) -> usize {
        match self {
            Self::Array(items) => 1 + items.iter().map(Self::depth).max().unwrap_or(0),
            Self::Object(members) => 1 + members.iter().map(|(_, member)| member.depth()).max().unwrap_or(0),
            _ => 0,
        }
    }

    fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.iter().find(|(key, _)| key == name).map(|(_, member)| member),
            _ => None,
        }
    }

    fn is_object(&self) -> bool {
        matches!(self, Self::Object(_))
    }

    /// Whether no member is a case variant of one of `names`.
    fn unambiguous(&self, names: &[&str]) -> bool {
        let Self::Object(members) = self else { return true };
        members.iter().all(|(key, _)| {
            let folded: String = key.chars().map(|c| c.to_lowercase().next().unwrap_or(c)).collect();
            let folded = folded.replace('ſ', "s");
            !names.iter().any(|name| key != name && folded == name.to_lowercase())
        })
    }
}

fn is_body(tree: &Tree) -> bool {
    match tree {
        Tree::Array(items) => !items.is_empty() && items.len() <= MAX_BATCH && items.iter().all(is_message),
        tree => is_message(tree),
    }
}

fn is_message(tree: &Tree) -> bool {
    let id = tree.get("id");
    let id_given = matches!(id, Some(Tree::Integer(_) | Tree::Text(_)));
    let error = tree.get("error");
    let kind = match (tree.get("method"), tree.get("result"), error) {
        (Some(Tree::Text(_)), None, None) => id.is_none() || id_given,
        (None, Some(_), None) => id_given,
        (None, None, Some(error)) => {
            error.is_object() && (id.is_none_or(|id| matches!(id, Tree::Null)) || id_given)
        }
        _ => false,
    };
    kind && tree.is_object()
        && matches!(tree.get("jsonrpc"), Some(Tree::Text(version)) if version == "2.0")
        && id.is_none_or(short)
        && tree.unambiguous(&["jsonrpc", "id", "method", "params", "result", "error"])
        && tree.get("params").is_none_or(is_params)
}

fn is_params(params: &Tree) -> bool {
    let names = [
        "name",
        "uri",
        "taskId",
        "requestState",
        "cursor",
        "level",
        "protocolVersion",
        "ref",
        "requestId",
        "arguments",
        "inputResponses",
        "notifications",
        "_meta",
    ];
    let meta_names = [
        "io.modelcontextprotocol/protocolVersion",
        "io.modelcontextprotocol/clientCapabilities",
        "io.modelcontextprotocol/clientInfo",
        "io.modelcontextprotocol/logLevel",
        "progressToken",
        "traceparent",
    ];
    let meta_holds = |meta: &Tree| match meta {
        Tree::Null => true,
        meta => {
            meta.is_object() && meta.unambiguous(&meta_names) && meta.get("progressToken").is_none_or(short)
        }
    };
    let filter_holds = |filter: &Tree| {
        filter.unambiguous(&["taskIds"])
            && match filter.get("taskIds") {
                None | Some(Tree::Null) => true,
                Some(Tree::Array(ids)) => {
                    ids.len() <= MAX_TASK_IDS && ids.iter().all(|id| matches!(id, Tree::Text(_)))
                }
                Some(_) => false,
            }
    };
    matches!(params, Tree::Null)
        || params.is_object()
            && params.unambiguous(&names)
            && params.get("requestId").is_none_or(short)
            && params.get("ref").is_none_or(|reference| reference.unambiguous(&["name", "uri"]))
            && params.get("notifications").is_none_or(filter_holds)
            && params.get("_meta").is_none_or(meta_holds)
}

/// The generators make ids that are either far below the bound or absent, so that the unescaped length will do.
fn short(id: &Tree) -> bool {
    match id {
        Tree::Text(text) => text.len() + 2 <= MAX_ID,
        Tree::Integer(length) => *length <= MAX_ID,
        _ => true,
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON without duplicate keys")
    }

    fn visit_unit<E: Error>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Tree, E> {
        Ok(Tree::Other)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Integer(value.to_string().len()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Integer(value.to_string().len()))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Tree, E> {
        Ok(Tree::Other)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element()? {
            array.push(item);
        }
        Ok(Tree::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Tree, A::Error> {
        let (mut object, mut seen) = (Vec::new(), HashSet::new());
        while let Some((key, member)) = members.next_entry::<String, Tree>()? {
            if !seen.insert(key.clone()) {
                while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                return Err(A::Error::custom("duplicate key"));
            }
            object.push((key, member));
        }
        Ok(Tree::Object(object))
    }
}
