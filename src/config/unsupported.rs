//! What the format knows but this version does not do. Refused in so many words, never read and ignored.

use super::tree::Value;

/// Message and hint for a key that a later version may have, by the keys above it.
pub(crate) fn key(above: &str, key: &str) -> Option<(String, &'static str)> {
    let hint = match (above, key) {
        ("", "source") => "remove it: the document is always this file",
        ("", "tenants" | "tenant" | "platform") => {
            "remove it: everything belongs to the one tenant `default`"
        }
        ("", "plugins" | "transforms" | "webhooks" | "alerts") => "remove it",
        ("servers", "stdio") => "run the server behind an HTTP bridge and use `http`",
        ("servers", "openapi") => "use `http` with an MCP server",
        ("identity", "mtls") => "require client certificates with `listeners.mcp.tls.client_ca`",
        ("servers", "sse") => "use `http` with a server that speaks streamable HTTP",
        ("routes", "prefix") => "remove it: a route leads to one server, whose names are passed through",
        _ => return None,
    };
    Some((format!("`{key}` is not supported by this version"), hint))
}

/// Message and hint for a value of a form that a later version may have.
pub(crate) fn value(path: &str, value: &Value) -> Option<(String, &'static str)> {
    match (path, value) {
        ("routes.servers", Value::Map(_)) => Some((
            "choosing tools per server is not supported by this version".to_owned(),
            "give the server's name; use a policy to deny tools",
        )),
        ("identity.api_keys", Value::Bool(_)) => Some((
            "API keys in a store are not supported by this version".to_owned(),
            "write `api_keys: { file: ./data/api-keys.jsonl }`",
        )),
        _ => None,
    }
}
