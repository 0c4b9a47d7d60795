//! Schemas of the objects of documents, from the JSON Schema of the configuration: the same types, described once.

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// Each kind's definition in the configuration, and what its operations are called.
const KINDS: [(&str, &str, &str); 6] = [
    ("Issuer", "issuer", "issuers"),
    ("Limit", "limit", "limits"),
    ("Policy", "policy", "policies"),
    ("Route", "route", "routes"),
    ("Server", "server", "servers"),
    ("Tenant", "tenant", "tenants"),
];
/// Where definitions of the configuration are.
const DEFINITIONS: &str = "#/$defs/";
/// Where they are here. They have a prefix: the API has types of its own.
const SCHEMAS: &str = "#/components/schemas/Config";

/// Puts schemas in the place of free JSON.
pub(super) fn describe(document: &mut Value) {
    let configuration = crate::config::schema();
    let mut wanted: Vec<String> = KINDS.iter().map(|(name, ..)| (*name).to_owned()).collect();
    let mut known = BTreeSet::new();
    while let Some(name) = wanted.pop() {
        if !known.insert(name.clone()) {
            continue;
        }
        let mut schema = configuration["$defs"][name.as_str()].clone();
        redirect(&mut schema, &mut wanted);
        if KINDS.iter().any(|(kind, ..)| *kind == name) {
            // The address has it.
            if let Some(required) = schema["required"].as_array_mut() {
                required.retain(|field| field != "name");
            }
        }
        document["components"]["schemas"][format!("Config{name}")] = schema;
    }
    for (name, one, many) in KINDS {
        let schema = json!({ "$ref": format!("{SCHEMAS}{name}") });
        let page = json!({
            "type": "object",
            "required": ["items"],
            "properties": {
                "items": { "type": "array", "items": schema },
                "next_cursor": { "type": ["string", "null"], "description": "The next page, if there is one." },
            },
        });
        let places = [
            (format!("put_{one}"), "/requestBody/content/application~1json/schema", &schema),
            (format!("show_{one}"), "/responses/200/content/application~1json/schema", &schema),
            (format!("list_{many}"), "/responses/200/content/application~1json/schema", &page),
        ];
        for (operation, place, schema) in places {
            let found = operations(document).find(|o| o["operationId"] == operation.as_str());
            if let Some(found) = found.and_then(|o| o.pointer_mut(place)) {
                *found = schema.clone();
            }
        }
    }
}

fn operations(document: &mut Value) -> impl Iterator<Item = &mut Value> {
    let paths = document["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut());
    paths.flat_map(|item| item.as_object_mut().into_iter().flat_map(|item| item.values_mut()))
}

/// Has references lead to where definitions are here, and notes which are needed.
fn redirect(schema: &mut Value, wanted: &mut Vec<String>) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(|item| redirect(item, wanted)),
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(to) if key == "$ref" => {
                        if let Some(name) = to.strip_prefix(DEFINITIONS).map(ToOwned::to_owned) {
                            *to = format!("{SCHEMAS}{name}");
                            wanted.push(name);
                        }
                    }
                    value => redirect(value, wanted),
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_described_by_what_the_configuration_says_and_no_reference_is_loose() {
        let text = crate::control::openapi::text();
        let mut document: Value = serde_json::from_slice(text).unwrap();
        assert!(!String::from_utf8_lossy(text).contains(DEFINITIONS));
        for (name, one, _) in KINDS {
            let id = format!("put_{one}");
            let put = operations(&mut document).find(|o| o["operationId"] == id.as_str()).unwrap();
            let schema = &put["requestBody"]["content"]["application/json"]["schema"];
            assert_eq!(schema["$ref"], format!("{SCHEMAS}{name}"), "{id}");
        }
        let mut references = Vec::new();
        let schemas = document["components"]["schemas"].clone();
        let mut collect = schemas.clone();
        redirect(&mut collect, &mut references);
        fn names(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Array(items) => items.iter().for_each(|item| names(item, found)),
                Value::Object(fields) => fields.iter().for_each(|(key, value)| match value.as_str() {
                    Some(to) if key == "$ref" => found.push(to.to_owned()),
                    _ => names(value, found),
                }),
                _ => {}
            }
        }
        names(&document, &mut references);
        for reference in references {
            let name =
                reference.strip_prefix("#/components/schemas/").unwrap_or_else(|| panic!("{reference}"));
            assert!(schemas.get(name).is_some(), "{reference}");
        }
        let server = &schemas["ConfigServer"];
        assert!(server["properties"]["http"].is_object(), "{server}");
        assert!(!server["required"].as_array().is_some_and(|r| r.contains(&json!("name"))), "{server}");
    }
}
