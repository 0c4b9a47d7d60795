//! The reference page, generated from the JSON Schema and so from the types.

use std::fmt::Write;

use serde_json::Value;

use super::describe::constants;
use super::schema::{resolve, schema};

/// The order of the top-level keys on the page; a test holds it to the model.
const ORDER: [&str; 19] = [
    "version",
    "listeners",
    "servers",
    "routes",
    "limits",
    "policies",
    "identity",
    "source",
    "tenants",
    "sessions",
    "telemetry",
    "valkey",
    "audit",
    "samples",
    "shutdown",
    "runtime",
    "data_dir",
    "store",
    "insecure_options",
];

const INTRODUCTION: &str = "\
# Configuration

<!-- Generated from the types in src/config/model by `tollgate schema --reference`; edit those. -->

One YAML file. Unknown keys, keys given twice and keys without a value are errors; every finding names file, line,
column and what was expected, and `tollgate check` reports all of them at once. Editors complete and check the file with
the JSON Schema that `tollgate schema` prints.

- **Durations** are `250ms`, `10s`, `5m`, `12h`, `30d`; **sizes** `512B`, `64KiB`, `4MiB`, `1GiB`; **rates** `10/s`,
  `200/m`, `1000/h`, `5000/d`; **shares** `20%`. A number without a unit is an error.
- **Names** are up to 63 lower-case letters, digits, `-` and `_`.
- **References.** In any text value `${env:NAME}` stands for an environment variable and `${file:/path}` for the content
  of a file of at most 64 KiB, without the line break at its end. What they give is text: it is not read as YAML.
  Write `$${` for a literal `${`. **Secrets** must be references.
- **Files** are relative to the working directory of the process.
- A document with an error changes nothing: the last good one keeps serving.
";

/// The reference page in Markdown. `docs/configuration.md` is this text.
pub fn reference() -> String {
    let mut page = Page { out: INTRODUCTION.to_owned() };
    let root = schema();
    page.table("", root);
    for key in ORDER {
        page.section(key, &root["properties"][key]);
    }
    page.defaults();
    page.out
}

struct Page {
    out: String,
}

impl Page {
    /// The sections of the maps that a key holds; none for keys without.
    fn section(&mut self, path: &str, property: &Value) {
        for (suffix, map) in maps_in(property) {
            let path = format!("{path}{suffix}");
            let level = "#".repeat(path.matches('.').count().min(2) + 2);
            self.line(&format!("\n{level} `{path}`\n"));
            let direct = if suffix.contains('.') { None } else { property["description"].as_str() };
            self.line(direct.or_else(|| map["description"].as_str()).unwrap_or_default());
            self.table(&path, map);
            for (key, property) in sorted(map) {
                self.section(&join(&path, key), property);
            }
        }
    }

    fn table(&mut self, path: &str, map: &Value) {
        let properties = sorted(map);
        if properties.is_empty() {
            return;
        }
        self.line("\n| key | value | default | meaning |\n|---|---|---|---|");
        for (key, property) in &properties {
            let required = map["required"].as_array().is_some_and(|r| r.iter().any(|k| k == *key));
            let default = match property.get("default") {
                Some(value) => format!("`{}`", inline(value)),
                None if required => "**required**".to_owned(),
                None => "–".to_owned(),
            };
            let value = match map_of(property) {
                Some((suffix, _)) => {
                    let inner = format!("{}{suffix}", join(path, key));
                    let what = if suffix.is_empty() { "map" } else { "list" };
                    format!("[{what}](#{})", anchor(&inner))
                }
                None => kind(property),
            };
            let resolved = resolve(property);
            let meaning = property["description"]
                .as_str()
                .or_else(|| resolved["description"].as_str())
                .unwrap_or_default();
            self.line(&format!("| `{key}` | {} | {default} | {} |", cell(&value), cell(meaning)));
        }
        for (key, property) in &properties {
            self.choices(key, property);
        }
    }

    /// What each of the fixed values of a key means.
    fn choices(&mut self, key: &str, property: &Value) {
        let mut schema = resolve(property);
        if schema["type"] == "array" {
            schema = resolve(&schema["items"]);
        } else if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
            schema = resolve(values);
        } else if let Some(first) = schema["anyOf"].get(0) {
            schema = resolve(first);
        }
        let Some(variants) = schema.get("oneOf").and_then(Value::as_array) else { return };
        let described: Vec<(String, &str)> = variants
            .iter()
            .filter_map(|variant| {
                let name = match (variant["const"].as_str(), variant["required"][0].as_str()) {
                    (Some(name), _) => name.to_owned(),
                    (None, Some(tag)) => format!("{tag}: …"),
                    (None, None) => return None,
                };
                Some((name, variant["description"].as_str()?))
            })
            .collect();
        if described.is_empty() {
            return;
        }
        self.line(&format!("\n`{key}` is one of\n"));
        for (name, meaning) in described {
            self.line(&format!("- `{name}`: {meaning}"));
        }
    }

    /// The built-in limit, which no schema states.
    fn defaults(&mut self) {
        let limit = super::model::Limit::built_in();
        self.line("\n## The built-in limit `default`\n");
        self.line(
            "Applies to every route that does not say `limits`. A limit of that name in the document replaces it. Each \
             caller has a bucket of its own:\n",
        );
        self.line("| role | rate | bucket |\n|---|---|---|");
        for role in crate::base::Role::ALL.into_iter().rev() {
            if let Some(rate) = limit.rate_of(role) {
                self.line(&format!("| `{role}` | {rate} | {} |", limit.burst.tokens(rate)));
            }
        }
    }

    fn line(&mut self, text: &str) {
        writeln!(self.out, "{text}").expect("writing to a string does not fail");
    }
}

/// The map that a key holds, or that the items of its list are, with `[]` for a list. Unions and texts are none.
fn map_of(property: &Value) -> Option<(&'static str, &Value)> {
    let schema = resolve(property);
    if schema["properties"].is_object() {
        return Some(("", schema));
    }
    let items = resolve(&schema["items"]);
    if items["properties"].is_object() {
        return Some(("[]", items));
    }
    None
}

/// The maps that a key may hold, with what its path has more: `[]` for a list, `.tag` for a map that a key tells apart.
fn maps_in(property: &Value) -> Vec<(String, &Value)> {
    let schema = resolve(property);
    if let Some((suffix, map)) = map_of(schema) {
        return vec![(suffix.to_owned(), map)];
    }
    if schema["type"] == "array" {
        return maps_in(&schema["items"])
            .into_iter()
            .map(|(suffix, map)| (format!("[]{suffix}"), map))
            .collect();
    }
    let untagged = schema["anyOf"].as_array().into_iter().flatten().filter_map(|variant| {
        let map = resolve(variant);
        map["properties"].is_object().then(|| (String::new(), map))
    });
    let tagged = schema["oneOf"].as_array().into_iter().flatten().filter_map(|variant| {
        let tag = variant["required"][0].as_str()?;
        let map = resolve(&variant["properties"][tag]);
        map["properties"].is_object().then(|| (format!(".{tag}"), map))
    });
    untagged.chain(tagged).collect()
}

fn sorted(map: &Value) -> Vec<(&str, &Value)> {
    let Some(properties) = map["properties"].as_object() else { return Vec::new() };
    let rank = |key: &str| {
        let required = map["required"].as_array().is_some_and(|r| r.iter().any(|k| k == key));
        let top =
            ORDER.iter().position(|k| *k == key).filter(|_| properties.contains_key("insecure_options"));
        (top.unwrap_or(0), key != "name", !required)
    };
    let mut list: Vec<(&str, &Value)> = properties.iter().map(|(k, v)| (k.as_str(), v)).collect();
    list.sort_by_key(|(key, _)| rank(key));
    list
}

/// What a key takes, in few words.
fn kind(property: &Value) -> String {
    let schema = resolve(property);
    if schema["type"] == "array" {
        return format!("list: {}", kind(&schema["items"]));
    }
    if let Some(values) = schema.get("additionalProperties").filter(|v| v.is_object()) {
        return format!("map to: {}", kind(values));
    }
    if schema.get("oneOf").is_some()
        && (!constants(schema).is_empty() || schema["oneOf"][0]["required"].is_array())
    {
        return "see below".to_owned();
    }
    if let Some(variants) = schema["anyOf"].as_array() {
        return variants.iter().map(kind).collect::<Vec<_>>().join(" or ");
    }
    let range = |what: &str| match (&schema["minimum"], &schema["maximum"]) {
        (min, max) if min.is_number() && min == max => format!("`{min}`"),
        (min, max) if min.is_number() && max.is_number() => format!("{what}, {min}–{max}"),
        _ => what.to_owned(),
    };
    match (schema["type"].as_str(), schema["format"].as_str()) {
        (Some("boolean"), _) => "`true` or `false`".to_owned(),
        (Some("integer"), _) => range("whole number"),
        (Some("number"), _) => range("number"),
        (Some("object"), _) => "map".to_owned(),
        (_, Some("tollgate-address")) => "address and port".to_owned(),
        (_, Some("tollgate-cidr")) => "network".to_owned(),
        (_, Some("tollgate-header-name")) => "header name".to_owned(),
        (_, Some("tollgate-percent")) => "share".to_owned(),
        (_, Some("tollgate-url")) => "URL".to_owned(),
        (_, Some(format)) if format.starts_with("tollgate-") => format["tollgate-".len()..].to_owned(),
        _ => "text".to_owned(),
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The anchor that Markdown renderers give a heading.
fn anchor(path: &str) -> String {
    path.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_' || *c == '-').collect()
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
