//! What a schema admits, and what a value is, in words.

use serde_json::Value as Json;

use super::model::text::check_format;
use super::schema::resolve;
use super::suggest::list;
use super::tree::{Node, Value};

/// The shapes of a union, references and nested unions resolved.
pub(crate) fn leaves(schema: &Json) -> Vec<&Json> {
    let schema = resolve(schema);
    match schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Json::as_array) {
        Some(variants) => variants.iter().flat_map(leaves).collect(),
        None => vec![schema],
    }
}

/// The fixed texts that a schema admits.
pub(crate) fn constants(schema: &Json) -> Vec<&str> {
    leaves(schema)
        .into_iter()
        .flat_map(|leaf| {
            leaf["const"]
                .as_str()
                .into_iter()
                .chain(leaf["enum"].as_array().into_iter().flatten().filter_map(Json::as_str))
        })
        .collect()
}

/// What a schema admits, as a phrase.
pub(crate) fn describe(schema: &Json) -> String {
    let constants = constants(schema);
    let mut phrases: Vec<String> = Vec::new();
    if !constants.is_empty() {
        phrases.push(format!("one of {}", list(&constants)));
    }
    let mut tags = Vec::new();
    let leaves = leaves(schema);
    for leaf in &leaves {
        if leaf.get("const").is_some() || leaf.get("enum").is_some() {
            continue;
        }
        let phrase = match leaf["type"].as_str() {
            Some("string") => match check_format(leaf["format"].as_str().unwrap_or_default(), "\0") {
                _ if leaf["format"] == "tollgate-secret" => {
                    "a reference to a secret, `${env:NAME}` or `${file:/path}`".to_owned()
                }
                Some(Err(bad)) => bad.expected,
                _ => "a text".to_owned(),
            },
            Some("integer") => range("a whole number", leaf),
            Some("number") => range("a number", leaf),
            Some("boolean") => "`true` or `false`".to_owned(),
            Some("array") => format!("a list, each entry {}", describe(&leaf["items"])),
            Some("object") => match leaf["required"].as_array().map(Vec::as_slice) {
                Some([tag]) if leaves.len() > 1 => {
                    tags.extend(tag.as_str());
                    continue;
                }
                _ => "a map".to_owned(),
            },
            _ => continue,
        };
        phrases.push(phrase);
    }
    if !tags.is_empty() {
        let several = if tags.len() > 1 { "one of " } else { "" };
        phrases.push(format!("a map with {several}{}", list(&tags)));
    }
    phrases.join(", or ")
}

fn range(what: &str, schema: &Json) -> String {
    match (schema["minimum"].as_f64(), schema["maximum"].as_f64()) {
        (Some(min), Some(max)) if min == max => format!("{what}: `{min}`"),
        (Some(min), Some(max)) => format!("{what} from {min} to {max}"),
        (Some(min), None) => format!("{what} from {min}"),
        (None, Some(max)) => format!("{what} up to {max}"),
        (None, None) => what.to_owned(),
    }
}

pub(crate) fn kind(node: &Node) -> String {
    match &node.value {
        Value::Bool(value) => format!("`{value}`"),
        Value::Float(_) | Value::Int(_) => "a number".to_owned(),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a map".to_owned(),
        Value::Broken | Value::Null | Value::Text(_) => "a text".to_owned(),
    }
}
