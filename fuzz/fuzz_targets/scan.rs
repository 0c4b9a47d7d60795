//! The scanner against serde_json: what one calls JSON the other must too, and what is extracted must be equal.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::Deserialize;
use serde_json::Value;
use tollgate::mcp::scan::{Body, JsonStr, MAX_DEPTH, Message, ScanError, scan};

fuzz_target!(|body: &[u8]| {
    let tree = tree(body);
    match (scan(body), tree) {
        (Ok(body_scanned), Ok(tree)) => {
            assert!(depth(&tree) <= MAX_DEPTH);
            match (&body_scanned, &tree) {
                (Body::One(message), tree) => check(body, message, tree),
                (Body::Batch(messages), Value::Array(trees)) => {
                    assert_eq!(messages.len(), trees.len());
                    messages.iter().zip(trees).for_each(|(message, tree)| check(body, message, tree));
                }
                _ => panic!("a batch that is no array"),
            }
        }
        (Ok(_), Err(error)) => assert!(is_limit(&error), "accepted what serde_json refuses: {error}"),
        (Err(ScanError::NotJson { .. } | ScanError::NotUtf8 { .. }), Ok(_)) => {
            panic!("refused as no JSON what serde_json accepts")
        }
        (Err(_), _) => {}
    }
});

/// The depth limit of serde_json is one below ours, so it is lifted where the stack allows.
fn tree(body: &[u8]) -> Result<Value, serde_json::Error> {
    let levels = body.iter().filter(|byte| matches!(byte, b'[' | b'{')).count();
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    if levels < 1000 {
        deserializer.disable_recursion_limit();
    }
    let tree = Value::deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(tree)
}

/// Whether serde_json met a limit of its own: a number beyond `f64`, or the depth limit where it applies.
fn is_limit(error: &serde_json::Error) -> bool {
    let text = error.to_string();
    text.starts_with("number out of range") || text.starts_with("recursion limit")
}

fn depth(tree: &Value) -> usize {
    match tree {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn check(body: &[u8], message: &Message<'_>, tree: &Value) {
    assert!(tree.is_object());
    let equal = |scanned: Option<&JsonStr<'_>>, tree: Option<&Value>| {
        assert_eq!(scanned.map(JsonStr::as_str), tree.and_then(Value::as_str));
        if let Some(scanned) = scanned {
            let literal: String = serde_json::from_slice(&body[scanned.range()]).expect("a string literal");
            assert_eq!(literal, scanned.as_str());
        }
    };
    let raw = |scanned: Option<&str>, tree: Option<&Value>| {
        let scanned: Option<Value> = scanned.map(|text| serde_json::from_str(text).expect("a JSON text"));
        assert_eq!(scanned.as_ref(), tree);
    };
    equal(message.method.as_ref(), tree.get("method"));
    raw(message.id.map(|id| id.as_str()), tree.get("id").filter(|id| !id.is_null()));
    let params = tree.get("params");
    let member = |name: &str| params.and_then(|params| params.get(name));
    for (scanned, name) in [
        (&message.params.name, "name"),
        (&message.params.uri, "uri"),
        (&message.params.task_id, "taskId"),
        (&message.params.request_state, "requestState"),
        (&message.params.cursor, "cursor"),
        (&message.params.level, "level"),
        (&message.params.protocol_version, "protocolVersion"),
    ] {
        equal(scanned.as_ref(), member(name));
    }
    equal(message.params.ref_name.as_ref(), member("ref").and_then(|reference| reference.get("name")));
    equal(message.params.ref_uri.as_ref(), member("ref").and_then(|reference| reference.get("uri")));
    let meta = |name: &str| member("_meta").and_then(|meta| meta.get(name));
    equal(message.params.meta.protocol_version.as_ref(), meta("io.modelcontextprotocol/protocolVersion"));
    equal(message.params.meta.log_level.as_ref(), meta("io.modelcontextprotocol/logLevel"));
    equal(message.params.meta.traceparent.as_ref(), meta("traceparent"));
    raw(message.params.arguments.map(|raw| raw.as_str()), member("arguments"));
    raw(message.params.input_responses.map(|raw| raw.as_str()), member("inputResponses"));
}
