//! YAML text → a tree in which every key and value knows where it stands.
//!
//! The tree exists so that *all* findings about a document can be reported at once: serde stops at its first error. It
//! is bounded in every direction ([`MAX_DOCUMENT`], [`MAX_DEPTH`], [`MAX_NODES`], alias replay), so that hostile input
//! ends in one clean finding. Repeated keys are kept, and found by the checker.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{AliasLimits, DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Location, Spanned};

use super::diagnostic::At;

/// Largest document accepted, in bytes.
pub const MAX_DOCUMENT: usize = 4 << 20;

/// Deepest nesting of lists and maps.
const MAX_DEPTH: usize = 32;

/// Most lists, maps and scalars, those that aliases repeat included.
const MAX_NODES: usize = 250_000;

/// Most nodes that aliases may repeat.
const MAX_REPLAYED: usize = 50_000;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) at: At,
    pub(crate) value: Value,
    /// Whether the text came from a `${…}` reference: it may be a secret and is never shown.
    pub(crate) expanded: bool,
}

impl Node {
    /// A tree without places, from a document that was built by the program. Absent keys are `null` there.
    pub(crate) fn from_json(json: serde_json::Value) -> Self {
        let value = match json {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(value) => Value::Bool(value),
            serde_json::Value::Number(number) => match number.as_i128() {
                Some(int) => Value::Int(int),
                None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(text) => Value::Text(text),
            serde_json::Value::Array(items) => Value::List(items.into_iter().map(Self::from_json).collect()),
            serde_json::Value::Object(map) => {
                let entry = |(key, json)| Entry { key, key_at: At::NOWHERE, node: Self::from_json(json) };
                Value::Map(map.into_iter().filter(|(_, json)| !json.is_null()).map(entry).collect())
            }
        };
        // As if expanded: its secrets are not literal ones, and its values not to be shown.
        Node { at: At::NOWHERE, value, expanded: true }
    }

    /// The tree as JSON, texts as they are.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Bool(value) => Json::Bool(*value),
            Value::Float(value) => serde_json::Number::from_f64(*value).map_or(Json::Null, Json::Number),
            Value::Int(value) => serde_json::Number::from_i128(*value).map_or(Json::Null, Json::Number),
            Value::List(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            Value::Map(entries) => {
                Json::Object(entries.iter().map(|entry| (entry.key.clone(), entry.node.to_json())).collect())
            }
            Value::Broken | Value::Null => Json::Null,
            Value::Text(text) => Json::String(text.clone()),
        }
    }

    /// The entries of a map; none for anything else.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list; none for anything else.
    pub(crate) fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The first entry of a map with this key.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }
}

/// A value as YAML's core schema types it.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Bool(bool),
    /// A text whose reference could not be resolved; that has been reported.
    Broken,
    Float(f64),
    Int(i128),
    List(Vec<Node>),
    Map(Vec<Entry>),
    Null,
    Text(String),
}

/// One entry of a map.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_at: At,
    pub(crate) node: Node,
}

/// Why a text is no YAML document that we read. The message has no content of the document in it but key names.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    pub(crate) at: At,
    pub(crate) message: String,
    pub(crate) expected: Option<&'static str>,
}

impl SyntaxError {
    fn whole(message: impl Into<String>, expected: &'static str) -> Self {
        Self { at: At { line: 1, column: 1, length: 1 }, message: message.into(), expected: Some(expected) }
    }
}

/// Decodes and parses a document.
pub(crate) fn parse(bytes: &[u8]) -> Result<(&str, Node), SyntaxError> {
    if bytes.len() > MAX_DOCUMENT {
        return Err(SyntaxError::whole(
            format!("the document has {} bytes", bytes.len()),
            "a document of at most 4 MiB",
        ));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let utf16 = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
        let line = bytes[..error.valid_up_to()].iter().filter(|b| **b == b'\n').count() as u32 + 1;
        SyntaxError {
            at: At { line, column: 1, length: 1 },
            message: if utf16 { "the document is UTF-16".into() } else { "the document is not UTF-8".into() },
            expected: Some("text in UTF-8"),
        }
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // Control characters are not YAML; some would also be interpreted by the terminal that shows the line.
    if let Some((index, _)) =
        text.char_indices().find(|(_, c)| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
    {
        let line = text[..index].matches('\n').count() as u32 + 1;
        let column = text[..index].rsplit('\n').next().map_or(0, |l| l.chars().count()) as u32 + 1;
        return Err(SyntaxError {
            at: At { line, column, length: 1 },
            message: "a control character".into(),
            expected: Some("text without control characters"),
        });
    }
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Err(SyntaxError::whole("the document is empty", "a document that starts with `version: 1`"));
    }
    serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options())
        .map(|root| (text, node(root)))
        .map_err(|error| syntax_error(&error))
}

fn options() -> serde_saphyr::Options {
    let mut alias_limits = AliasLimits::default();
    alias_limits.max_total_replayed_events = MAX_REPLAYED;
    alias_limits.max_replay_stack_depth = 8;
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_documents: 2,
            max_total_scalar_bytes: MAX_DOCUMENT,
            max_recorded_anchor_bytes: MAX_DOCUMENT,
            max_recorded_anchor_events: MAX_NODES,
            max_total_comment_bytes: MAX_DOCUMENT,
        },
        alias_limits: alias_limits,
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

/// The parser's own words without its position, which the finding carries, and without values.
fn syntax_error(error: &serde_saphyr::Error) -> SyntaxError {
    use serde_saphyr::Error;
    let at = error.location().map_or(At { line: 1, column: 1, length: 1 }, at);
    let message = match error {
        Error::Eof { .. } => "the document ends too early".to_owned(),
        Error::MultipleDocuments { .. } => "more than one YAML document in the file".to_owned(),
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => {
            "the document is too deep, too large or repeats too much".to_owned()
        }
        Error::AliasError { error, .. } => return syntax_error(error),
        Error::RecursiveReferencesRequireWeakTypes { .. } => "an anchor that refers to itself".to_owned(),
        Error::ExternalMessage { msg, .. } => format!("not valid YAML: {msg}"),
        Error::UnknownAnchor { .. } => "an alias to an anchor that is not defined".to_owned(),
        Error::UnsupportedTag { .. } => "YAML tags are not used in this document".to_owned(),
        Error::MergeValueNotMapOrSeqOfMaps { .. } => "`<<` must refer to a map".to_owned(),
        _ => "not valid YAML".to_owned(),
    };
    SyntaxError { at, message, expected: None }
}

fn at(location: Location) -> At {
    At {
        line: u32::try_from(location.line()).unwrap_or(u32::MAX).max(1),
        column: u32::try_from(location.column()).unwrap_or(u32::MAX).max(1),
        length: u32::try_from(location.span().len()).unwrap_or(u32::MAX).max(1),
    }
}

fn node(spanned: Spanned<Raw>) -> Node {
    Node { at: at(spanned.referenced), value: spanned.value.0, expanded: false }
}

/// The value alone; [`Spanned`] adds the place.
struct Raw(Value);

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor).map(Raw)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Value, E> {
        i128::try_from(value).map(Value::Int).map_err(E::custom)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element::<Spanned<Raw>>()? {
            items.push(node(item));
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = access.next_key::<Spanned<String>>()? {
            let value = access.next_value::<Spanned<Raw>>()?;
            entries.push(Entry { key: key.value, key_at: at(key.referenced), node: node(value) });
        }
        Ok(Value::Map(entries))
    }
}
