//! The JSON Schema of the document, generated from the model.
//!
//! The same schema drives editors, the checker and the reference page, so none of them can disagree with the types.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::model::Document;

/// Longest text accepted where nothing shorter is stated, in characters.
pub(crate) const MAX_TEXT: u64 = 4096;

/// Largest whole number accepted where nothing smaller is stated: the largest that JSON readers agree on (2⁵³).
const MAX_INTEGER: i64 = 1 << 53;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let mut schema =
        SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Document>().to_value();
    tidy(&mut schema);
    schema
});

/// The JSON Schema (draft 2020-12) of a document.
pub fn schema() -> &'static Value {
    &SCHEMA
}

/// The schema that `$ref` points to, if it is one of ours.
pub(crate) fn resolve(schema: &Value) -> &Value {
    let mut schema = schema;
    // A definition may itself be a reference; the model nests these once, the bound only guards against a loop.
    for _ in 0..8 {
        let Some(name) = schema["$ref"].as_str().and_then(|r| r.strip_prefix("#/$defs/")) else { break };
        schema = &SCHEMA["$defs"][name];
    }
    schema
}

/// Makes the generated schema say what the checker enforces: no `null` (a key without a value is an error, not an
/// absence), no empty text, no unbounded text.
fn tidy(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    drop_null(map);
    // The defaults of a map are those of its keys, stated there.
    if matches!(map.get("default"), Some(Value::Null | Value::Object(_))) {
        map.remove("default");
    }
    // Where a list must not be empty, leaving it out is not the same as an empty one.
    if map.contains_key("minItems")
        && map.get("default").is_some_and(|d| d.as_array().is_some_and(Vec::is_empty))
    {
        map.remove("default");
    }
    if let Some(Value::String(description)) = map.get_mut("description") {
        *description = description.replace('\n', " ");
    }
    let text = map.get("type").and_then(Value::as_str) == Some("string");
    if text && !map.contains_key("const") && !map.contains_key("enum") {
        map.entry("minLength").or_insert(1.into());
        map.entry("maxLength").or_insert(MAX_TEXT.into());
    }
    let (min, max) = match map.get("format").and_then(Value::as_str) {
        Some("uint32") => (0, i64::from(u32::MAX)),
        Some("uint64") => (0, MAX_INTEGER),
        Some("int64") => (-MAX_INTEGER, MAX_INTEGER),
        _ => (0, 0),
    };
    if max > 0 {
        map.entry("minimum").or_insert(min.into());
        map.entry("maximum").or_insert(max.into());
    }
    for (keyword, value) in map.iter_mut() {
        match (keyword.as_str(), value) {
            ("additionalProperties" | "items", schema) => tidy(schema),
            ("anyOf" | "oneOf", Value::Array(schemas)) => schemas.iter_mut().for_each(tidy),
            ("$defs" | "properties", Value::Object(schemas)) => schemas.values_mut().for_each(tidy),
            _ => {}
        }
    }
}

fn drop_null(map: &mut Map<String, Value>) {
    let null_type = |v: &Value| v["type"] == "null";
    if let Some(Value::Array(types)) = map.get_mut("type") {
        types.retain(|t| t != "null");
        if let [one] = types.as_slice() {
            let one = one.clone();
            map.insert("type".to_owned(), one);
        }
    }
    if let Some(Value::Array(variants)) = map.get_mut("anyOf") {
        variants.retain(|v| !null_type(v));
        if let [Value::Object(one)] = variants.as_slice() {
            let one = one.clone();
            map.remove("anyOf");
            for (key, value) in one {
                map.entry(key).or_insert(value);
            }
        }
    }
}
