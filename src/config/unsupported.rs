//! What the format knows but this version does not do. Refused in so many words, never read and ignored.

use super::tree::Value;

/// Message and hint for a key that a later version may have, by the keys above it.
pub(crate) fn key(above: &str, key: &str) -> Option<(String, &'static str)> {
    let above = above.strip_prefix("tenants.document.").unwrap_or(above);
    let hint = match (above, key) {
        ("", "tenant" | "platform") => "name tenants under `tenants`, each with its `document`",
        ("tenants.grants", "stdio") => "remove it: there are no stdio servers to grant",
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
    match (path.strip_prefix("tenants.document.").unwrap_or(path), value) {
        ("routes.servers", Value::Map(_)) => Some((
            "choosing tools per server is not supported by this version".to_owned(),
            "give the server's name; use a policy to deny tools",
        )),
        _ => None,
    }
}
