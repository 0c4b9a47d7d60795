//! Checks a tree against the schema and turns it into the typed document.
//!
//! Every finding is collected, not only the first. What is right of a document with errors is kept as well
//! ([`Checked::document`] may be partial), so that one run also tells what the semantic rules have to say about it.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde::de::DeserializeOwned;
use serde_json::{Map, Number, Value as Json};

use super::describe::{constants, describe, kind, leaves};
use super::diagnostic::At;
use super::findings::Findings;
use super::model::VERSION;
use super::model::text::check_format;
use super::path::Path;
use super::schema::{resolve, schema};
use super::suggest::{list, nearest};
use super::tree::{Entry, Node, Value};
use super::unsupported;

/// Which kind of document is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A file, or a document built by the program: everything.
    File,
    /// The stored document of the platform: the tenants, without their documents.
    Platform,
    /// The stored document of a tenant.
    Tenant,
}

impl Shape {
    fn schema(self) -> &'static Json {
        static PLATFORM: LazyLock<Json> = LazyLock::new(|| {
            let properties = &schema()["properties"];
            serde_json::json!({
                "type": "object",
                "additionalProperties": false,
                "required": ["version"],
                "properties": { "version": properties["version"], "tenants": properties["tenants"] },
            })
        });
        match self {
            Self::File => schema(),
            Self::Platform => &PLATFORM,
            Self::Tenant => &schema()["$defs"]["TenantDocument"],
        }
    }
}

/// A document as far as it could be typed.
pub(crate) struct Checked<T> {
    /// The document; without the keys and items that were wrong.
    pub(crate) document: Option<T>,
    /// What was left out.
    pub(crate) broken: Vec<Path>,
    /// For lists that lost items: the original index of each that is left.
    kept: HashMap<Path, Vec<usize>>,
    /// Where secrets stand literally in the text.
    pub(crate) secrets: Vec<At>,
}

impl<T> Checked<T> {
    /// Where an item of a list of the typed document is in the text. `list` is the list's place in the text.
    pub(crate) fn original(&self, list: &Path, index: usize) -> usize {
        self.kept.get(list).and_then(|kept| kept.get(index)).copied().unwrap_or(index)
    }
}

/// Checks a whole document.
pub(crate) fn check<T: DeserializeOwned>(shape: Shape, root: &Node, findings: &mut Findings) -> Checked<T> {
    let mut checker =
        Checker { shape, findings, broken: Vec::new(), kept: HashMap::new(), secrets: Vec::new() };
    let json = checker.value(shape.schema(), root, &Path::default());
    let Checker { broken, kept, secrets, .. } = checker;
    let document = json.and_then(|json| match serde_json::from_value::<T>(json) {
        Ok(document) => Some(document),
        Err(_) => {
            // The schema is generated from the types, so what it admits deserializes; a test holds it to that. The
            // error's own text might quote a secret.
            findings.error("bad-document", &Path::default(), "the document cannot be read").at(root.at);
            None
        }
    });
    Checked { document, broken, kept, secrets }
}

struct Checker<'a> {
    shape: Shape,
    findings: &'a mut Findings,
    broken: Vec<Path>,
    kept: HashMap<Path, Vec<usize>>,
    secrets: Vec<At>,
}

impl Checker<'_> {
    fn value(&mut self, schema: &Json, node: &Node, path: &Path) -> Option<Json> {
        let schema = resolve(schema);
        let result = match &node.value {
            Value::Broken => None,
            Value::Null => {
                self.findings
                    .error("no-value", path, "a key without a value")
                    .at(node.at)
                    .expected(describe(schema))
                    .hint("remove the key, or give it a value");
                None
            }
            _ if schema.get("oneOf").is_some() || schema.get("anyOf").is_some() => {
                self.union(schema, node, path)
            }
            _ => match schema["type"].as_str() {
                Some("object") => self.object(schema, node, path),
                Some("array") => self.array(schema, node, path),
                Some("string") => self.text(schema, node, path),
                Some("boolean") => match node.value {
                    Value::Bool(value) => Some(Json::Bool(value)),
                    _ => self.mismatch(schema, node, path),
                },
                Some("integer" | "number") => self.number(schema, node, path),
                _ => self.mismatch(schema, node, path),
            },
        };
        if result.is_none() {
            self.broken.push(path.clone());
        }
        result
    }

    /// One of several shapes: told apart by the kind of value, and among maps by their one key.
    fn union(&mut self, schema: &Json, node: &Node, path: &Path) -> Option<Json> {
        let variants = leaves(schema);
        let of_type =
            |name: &str| variants.iter().copied().find(|v| v["type"] == name && v.get("const").is_none());
        match &node.value {
            Value::Text(text) => {
                let constants = constants(schema);
                if constants.contains(&text.as_str()) {
                    return Some(Json::String(text.clone()));
                }
                match of_type("string") {
                    Some(variant) => self.text(variant, node, path),
                    None => self.not_one_of(schema, node, path),
                }
            }
            Value::Map(entries) => {
                let maps: Vec<&Json> = variants.into_iter().filter(|v| v["type"] == "object").collect();
                match maps.as_slice() {
                    [] => self.mismatch(schema, node, path),
                    [one] => self.object(one, node, path),
                    several => self.tagged(several, entries, node, path),
                }
            }
            Value::List(_) => match of_type("array") {
                Some(variant) => self.array(variant, node, path),
                None => self.mismatch(schema, node, path),
            },
            Value::Float(_) | Value::Int(_) => match of_type("number").or_else(|| of_type("integer")) {
                Some(variant) => self.number(variant, node, path),
                None => self.mismatch(schema, node, path),
            },
            Value::Bool(value) if of_type("boolean").is_some() => Some(Json::Bool(*value)),
            _ => self.mismatch(schema, node, path),
        }
    }

    /// A map whose single key says which of several shapes it has.
    fn tagged(&mut self, variants: &[&Json], entries: &[Entry], node: &Node, path: &Path) -> Option<Json> {
        let tag = |variant: &Json| variant["required"][0].as_str().unwrap_or_default().to_owned();
        let tags: Vec<String> = variants.iter().map(|v| tag(v)).collect();
        let names: Vec<&str> = tags.iter().map(String::as_str).collect();
        let [entry] = entries else {
            self.findings
                .error("not-exactly-one", path, "exactly one of these keys must be given")
                .at(node.at)
                .expected(format!("one of {}", list(&names)));
            return None;
        };
        match variants.iter().find(|v| tag(v) == entry.key) {
            Some(variant) => self.object(variant, node, path),
            None => {
                self.unknown_key(entry, &names, variants, path);
                None
            }
        }
    }

    fn object(&mut self, schema: &Json, node: &Node, path: &Path) -> Option<Json> {
        let Value::Map(entries) = &node.value else { return self.mismatch(schema, node, path) };
        let none = Map::new();
        let properties = schema["properties"].as_object().unwrap_or(&none);
        let additional = schema.get("additionalProperties").filter(|a| a.is_object());
        let mut out = Map::new();
        let mut seen: HashMap<&str, &Entry> = HashMap::new();
        for entry in entries {
            let inner = path.entry(&entry.key);
            if let Some(first) = seen.insert(&entry.key, entry) {
                let message = format!("key `{}` is given twice", entry.key);
                let hint = format!("the first is on line {}", first.key_at.line);
                self.findings.error("duplicate-key", &inner, message).at(entry.key_at).hint(hint);
                continue;
            }
            let Some(schema) = properties.get(&entry.key).or(additional) else {
                let names: Vec<&str> = properties.keys().map(String::as_str).collect();
                self.unknown_key(entry, &names, &[schema], path);
                continue;
            };
            if entry.key.is_empty() {
                self.findings.error("empty", &inner, "an empty key").at(entry.key_at);
                continue;
            }
            if let Some(value) = self.value(schema, &entry.node, &inner) {
                out.insert(entry.key.clone(), value);
            }
        }
        let mut complete = true;
        for required in schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str) {
            if !seen.contains_key(required) {
                let finding =
                    self.findings.error("missing-key", path, format!("key `{required}` is missing"));
                finding.at(node.at).expected(describe(properties.get(required).unwrap_or(&Json::Null)));
                if path.keys().is_empty() && required == "version" {
                    finding.hint(format!("start the document with `version: {VERSION}`"));
                }
            }
            complete &= out.contains_key(required);
        }
        complete.then_some(Json::Object(out))
    }

    fn unknown_key(&mut self, entry: &Entry, known: &[&str], schemas: &[&Json], path: &Path) {
        let inner = path.entry(&entry.key);
        if self.is_tenant(path) && schema()["properties"].get(&entry.key).is_some() {
            self.findings
                .error("not-granted", &inner, format!("`{}` is not a tenant's to set", entry.key))
                .at(entry.key_at)
                .expected(format!("one of {}", list(known)))
                .hint("what holds for the whole process stands at the top level of the operator's file");
            return;
        }
        if let Some((message, hint)) = unsupported::key(&path.keys(), &entry.key) {
            self.findings.error("unsupported", &inner, message).at(entry.key_at).hint(hint);
            return;
        }
        let has_room = self.findings.has_room();
        let finding = self.findings.error("unknown-key", &inner, format!("unknown key `{}`", entry.key));
        if !has_room {
            return;
        }
        finding.at(entry.key_at).expected(format!("one of {}", list(known)));
        if let Some(near) = nearest(&entry.key, known.iter().copied()) {
            finding.hint(format!("did you mean `{near}`?"));
        } else if let Some(child) = schemas.iter().find_map(|schema| child_with(schema, &entry.key)) {
            finding.hint(format!("did you mean `{child}.{}`?", entry.key));
        }
    }

    /// Whether the map at a path is a tenant's document.
    fn is_tenant(&self, path: &Path) -> bool {
        match self.shape {
            Shape::File | Shape::Platform => path.keys() == "tenants.document",
            Shape::Tenant => path.keys().is_empty(),
        }
    }

    fn array(&mut self, schema: &Json, node: &Node, path: &Path) -> Option<Json> {
        let Value::List(items) = &node.value else { return self.mismatch(schema, node, path) };
        let min = schema["minItems"].as_u64().unwrap_or(0);
        let max = schema["maxItems"].as_u64().unwrap_or(u64::MAX);
        let count = items.len() as u64;
        if count < min || count > max {
            let message =
                if count == 0 { "an empty list".to_owned() } else { format!("a list of {count} entries") };
            let expected = if count < min { format!("at least {min}") } else { format!("at most {max}") };
            let finding = self.findings.error("bad-length", path, message);
            finding.at(node.at).expected(format!("{expected} entries").replace(" 1 entries", " one entry"));
            if count == 0 {
                finding.hint("remove the key if nothing is to be listed");
            }
            return None;
        }
        let mut out = Vec::new();
        let mut kept = Vec::new();
        for (i, item) in items.iter().enumerate() {
            if let Some(value) = self.value(&schema["items"], item, &path.index(i)) {
                out.push(value);
                kept.push(i);
            }
        }
        if kept.len() < items.len() {
            self.kept.insert(path.clone(), kept);
        }
        Some(Json::Array(out))
    }

    fn text(&mut self, schema: &Json, node: &Node, path: &Path) -> Option<Json> {
        let format = schema["format"].as_str().unwrap_or_default();
        let secret = format == "tollgate-secret";
        if secret && !node.expanded {
            self.secrets.push(node.at);
        }
        let Value::Text(text) = &node.value else { return self.mismatch(schema, node, path) };
        if schema.get("enum").is_some() || schema.get("const").is_some() {
            if constants(schema).contains(&text.as_str()) {
                return Some(Json::String(text.clone()));
            }
            return self.not_one_of(schema, node, path);
        }
        let length = text.chars().count() as u64;
        let (min, max) =
            (schema["minLength"].as_u64().unwrap_or(1), schema["maxLength"].as_u64().unwrap_or(u64::MAX));
        if length < min {
            let message =
                if node.expanded { "a reference that gives an empty text" } else { "an empty text" };
            self.findings.error("empty", path, message).at(node.at).expected(describe(schema));
            return None;
        }
        if length > max {
            let message = format!("a text of {length} characters");
            let expected = format!("at most {max} characters");
            self.findings.error("bad-length", path, message).at(node.at).expected(expected);
            return None;
        }
        if let Some(Err(bad)) = check_format(format, text) {
            let message = if node.expanded || secret {
                "the value is not of the right form".to_owned()
            } else {
                format!("`{}` is not of the right form", clip(text))
            };
            let finding = self.findings.error("bad-value", path, message);
            finding.at(node.at).expected(bad.expected);
            // A hint spells the value differently, so it would show one that came from outside.
            finding.hint = bad.hint.filter(|_| !node.expanded && !secret);
            return None;
        }
        if secret && !node.expanded {
            self.findings
                .error("literal-secret", path, "a secret that stands in the document")
                .at(node.at)
                .expected(match self.shape {
                    // The store has secrets, and most tenants may use nothing else.
                    Shape::Tenant => "`${secret:name}`",
                    Shape::File | Shape::Platform => "`${env:NAME}` or `${file:/path}`",
                })
                .hint("documents are shown, compared and kept; put the secret elsewhere and refer to it");
            return None;
        }
        Some(Json::String(text.clone()))
    }

    fn number(&mut self, schema: &Json, node: &Node, path: &Path) -> Option<Json> {
        let whole = schema["type"] == "integer";
        let (value, json) = match node.value {
            Value::Int(int) => (
                int as f64,
                i64::try_from(int).map(Number::from).or_else(|_| u64::try_from(int).map(Number::from)).ok(),
            ),
            Value::Float(float) if !whole => (float, Number::from_f64(float)),
            _ => return self.mismatch(schema, node, path),
        };
        let min = schema["minimum"].as_f64().unwrap_or(f64::MIN);
        let max = schema["maximum"].as_f64().unwrap_or(f64::MAX);
        if let Some(json) = json.filter(|_| (min..=max).contains(&value)) {
            return Some(Json::Number(json));
        }
        self.findings
            .error("out-of-range", path, format!("`{value}` is out of range"))
            .at(node.at)
            .expected(describe(schema));
        None
    }

    fn not_one_of(&mut self, schema: &Json, node: &Node, path: &Path) -> Option<Json> {
        let Value::Text(text) = &node.value else { return self.mismatch(schema, node, path) };
        let constants = constants(schema);
        let message = if node.expanded {
            "the value is not one of the choices".to_owned()
        } else {
            format!("`{}` is not one of the choices", clip(text))
        };
        let finding = self.findings.error("bad-value", path, message);
        finding.at(node.at).expected(describe(schema));
        if let Some(near) = nearest(text, constants.iter().copied()).filter(|_| !node.expanded) {
            finding.hint(format!("did you mean `{near}`?"));
        }
        None
    }

    /// A value of the wrong kind.
    fn mismatch(&mut self, schema: &Json, node: &Node, path: &Path) -> Option<Json> {
        if let Some((message, hint)) = unsupported::value(&path.keys(), &node.value) {
            self.findings.error("unsupported", path, message).at(node.at).hint(hint);
            return None;
        }
        let finding = self.findings.error("wrong-type", path, format!("found {}", kind(node)));
        finding.at(node.at).expected(describe(schema));
        let shown = match &node.value {
            Value::Bool(value) => Some(value.to_string()),
            Value::Float(value) => Some(value.to_string()),
            Value::Int(value) => Some(value.to_string()),
            Value::Text(text) if !node.expanded && text.len() <= 64 => Some(text.clone()),
            _ => None,
        };
        let wanted = schema["type"].as_str().unwrap_or_default();
        let format = schema["format"].as_str().unwrap_or_default();
        let hint = match (&node.value, wanted, shown) {
            (Value::Float(_) | Value::Int(_), "string", Some(number)) => {
                match check_format(format, &number) {
                    _ if format == "tollgate-secret" => None,
                    Some(Err(bad)) => bad.hint,
                    _ => Some(format!("put it in quotes: `\"{number}\"`")),
                }
            }
            (Value::Text(_), "boolean", Some(text)) => match text.to_ascii_lowercase().as_str() {
                "yes" | "on" | "y" | "true" => Some("write `true`".to_owned()),
                "no" | "off" | "n" | "false" => Some("write `false`".to_owned()),
                _ => None,
            },
            (Value::Text(text), "integer" | "number", Some(_)) if text.parse::<f64>().is_ok() => {
                Some("remove the quotes".to_owned())
            }
            (Value::Text(_), "integer" | "number" | "boolean", None) if node.expanded => {
                Some("references give text; write the value itself".to_owned())
            }
            (Value::Bool(_) | Value::Float(_) | Value::Int(_) | Value::Text(_), "array", Some(value)) => {
                Some(format!("write `[{}]`", in_list(&node.value, value)))
            }
            (Value::Map(_), "array", _) => Some("start each entry with `- `".to_owned()),
            _ => None,
        };
        finding.hint = hint;
        None
    }
}

/// The key of a map inside this one in which the key would have been right.
fn child_with<'a>(schema: &'a Json, key: &str) -> Option<&'a str> {
    let properties = schema["properties"].as_object()?;
    properties.iter().find_map(|(name, child)| {
        leaves(child).into_iter().any(|leaf| leaf["properties"].get(key).is_some()).then_some(name.as_str())
    })
}

/// A value as it can stand in a list between brackets.
fn in_list(value: &Value, shown: String) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/');
    let starts = shown.bytes().next().is_some_and(|b| b.is_ascii_alphabetic());
    let word =
        ["true", "false", "null", "yes", "no", "on", "off"].contains(&shown.to_ascii_lowercase().as_str());
    match value {
        Value::Text(_) if !(starts && shown.bytes().all(plain)) || word => Json::String(shown).to_string(),
        _ => shown,
    }
}

/// A value short enough for a message, without control characters.
fn clip(text: &str) -> String {
    let mut out: String = text.chars().take(64).map(|c| if c.is_control() { '·' } else { c }).collect();
    if text.chars().nth(64).is_some() {
        out.push('…');
    }
    out
}
