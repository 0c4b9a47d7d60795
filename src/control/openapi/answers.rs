//! What answers have besides their bodies, and which refusals any operation may have: said once, for all operations.

use serde_json::{Value, json};

/// Operations whose good answers have an `ETag`, besides those whose name begins or ends so.
const TAGGED: [&str; 15] = [
    "list_tenants",
    "promote_canary",
    "abort_canary",
    "delete_tenant",
    "put_custom_role",
    "put_secret",
    "put_tenant",
    "put_user",
    "share_canary",
    "show_canary",
    "show_custom_role",
    "show_secret",
    "show_tenant",
    "show_user",
    "start_canary",
];
/// Kinds of objects of documents: all their operations have one.
const OBJECTS: [&str; 10] =
    ["server", "servers", "route", "routes", "policy", "policies", "limit", "limits", "issuer", "issuers"];
/// Operations on documents that have one.
const DOCUMENTS: [&str; 3] = ["read", "replace", "rollback"];

/// Whether good answers of an operation have an `ETag`.
fn is_tagged(id: &str) -> bool {
    let (verb, what) = id.split_once('_').unwrap_or((id, ""));
    let object = matches!(verb, "bulk" | "delete" | "list" | "put" | "show") && OBJECTS.contains(&what);
    let document = matches!(what, "document" | "platform_document" | "revision" | "platform_revision");
    TAGGED.contains(&id) || object || (document && DOCUMENTS.contains(&verb))
}

/// Adds to the description of one operation.
pub(super) fn describe(method: &str, operation: &mut Value) {
    let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
    let changes = method != "get";
    for (status, response) in operation["responses"].as_object_mut().into_iter().flatten() {
        let headers = &mut response["headers"];
        headers["x-tollgate-request-id"] = json!({
            "description": "Names the request in the log and in the audit.",
            "schema": { "type": "string", "format": "uuid" },
        });
        let good = status.starts_with('2');
        if good && is_tagged(&id) {
            headers["etag"] = json!({
                "description": "Names what there is now; for `If-Match`.",
                "schema": { "type": "string" },
            });
        }
        if matches!(status.as_str(), "429" | "503") {
            headers["retry-after"] = json!({
                "description": "When to come again, in seconds, where that is known.",
                "schema": { "type": "integer", "minimum": 1 },
            });
        }
        if changes && !status.starts_with('5') {
            headers["idempotency-replayed"] = json!({
                "description": "`true`: the answer is that of an earlier request with the same `Idempotency-Key`.",
                "schema": { "type": "string", "enum": ["true"] },
            });
        }
        if status == "401" {
            headers["www-authenticate"] = json!({
                "description": "A challenge (RFC 6750).",
                "schema": { "type": "string" },
            });
        }
    }
    if id == "export_audit" {
        let text = json!({ "schema": { "type": "string" } });
        operation["responses"]["200"]["content"] = json!({
            "application/jsonl": text, "text/csv": text, "text/plain": text,
        });
    }
}
