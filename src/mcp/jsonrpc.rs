//! JSON-RPC error codes and the exact bytes of error responses.
//!
//! Codes of the JSON-RPC and MCP specifications have their specified meaning only. The gateway's own codes are
//! positive, so they lie outside the reserved range `-32768..=-32000` (MCP 2026-07-28, basic/index §Error Codes);
//! each is the HTTP status it usually travels with, times 100, plus a serial number.

use super::rewrite::push_quoted;

/// The body is not JSON, or not UTF-8.
pub const PARSE_ERROR: i32 = -32700;
/// JSON, but not a JSON-RPC message this endpoint accepts.
pub const INVALID_REQUEST: i32 = -32600;
/// The method does not exist here.
pub const METHOD_NOT_FOUND: i32 = -32601;
/// Bad parameters, which includes unknown tools and bad `requestState`, `taskId` and cursors.
pub const INVALID_PARAMS: i32 = -32602;
/// A fault of the answering side that has no better code.
pub const INTERNAL_ERROR: i32 = -32603;
/// A routing header and the body disagree (2026-07-28, streamable HTTP §Server Validation).
pub const HEADER_MISMATCH: i32 = -32020;
/// The client did not declare a capability that the request needs; `data.requiredCapabilities` names it.
pub const MISSING_CAPABILITY: i32 = -32021;
/// The protocol revision is not spoken here; `data.supported` lists those that are.
pub const UNSUPPORTED_VERSION: i32 = -32022;
/// A resource does not exist, in revisions up to 2025-11-25; newer ones use [`INVALID_PARAMS`].
pub const RESOURCE_NOT_FOUND_LEGACY: i32 = -32002;

/// Gateway: no valid credentials (401).
pub const UNAUTHENTICATED: i32 = 40_100;
/// Gateway: the credentials do not reach far enough (403).
pub const FORBIDDEN: i32 = 40_300;
/// Gateway: unknown, expired or foreign session (404).
pub const SESSION_NOT_FOUND: i32 = 40_400;
/// Gateway: nothing is served at this address (404).
pub const ROUTE_NOT_FOUND: i32 = 40_401;
/// Gateway: the HTTP method is not served here (405).
pub const METHOD_NOT_ALLOWED: i32 = 40_500;
/// Gateway: no media type that the client accepts can be answered (406).
pub const NOT_ACCEPTABLE: i32 = 40_600;
/// Gateway: the request did not arrive in time (408).
pub const REQUEST_TIMEOUT: i32 = 40_800;
/// Gateway: the body is larger than the listener allows (413).
pub const BODY_TOO_LARGE: i32 = 41_300;
/// Gateway: the body is not `application/json` (415).
pub const UNSUPPORTED_MEDIA_TYPE: i32 = 41_500;
/// Gateway: a limit is exhausted; `data.retryAfterMs` says for how long (429).
pub const LIMIT_EXCEEDED: i32 = 42_900;
/// Gateway: a fault of its own (500).
pub const GATEWAY_INTERNAL: i32 = 50_000;
/// Gateway: the upstream failed or broke the protocol while answering (502).
pub const UPSTREAM_FAILED: i32 = 50_200;
/// Gateway: no healthy target to send to (503).
pub const UPSTREAM_UNAVAILABLE: i32 = 50_300;
/// Gateway: its own credential for the upstream was refused or could not be fetched (503, never 401).
pub const UPSTREAM_CREDENTIAL: i32 = 50_301;
/// Gateway: it sheds load or is shutting down (503).
pub const OVERLOADED: i32 = 50_302;
/// The configuration for this address cannot be used at the moment.
pub const CONFIGURATION_UNUSABLE: i32 = 50_303;
/// Gateway: the deadline of the request passed (504).
pub const DEADLINE: i32 = 50_400;

/// Builds an error response: `{"jsonrpc":"2.0","id":…,"error":{"code":…,"message":…,"data":…}}`.
///
/// `id` and `data` are JSON texts that the caller has already validated (as [`super::scan`] yields them) and are copied
/// byte for byte; an unknown id is `null`, as JSON-RPC 2.0 §5 requires. Without `data` the member is left out.
pub fn error_body(id: Option<&str>, code: i32, message: &str, data: Option<&str>) -> Vec<u8> {
    let id = id.unwrap_or("null");
    let mut out = Vec::with_capacity(80 + id.len() + message.len() + data.map_or(0, str::len));
    out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    out.extend_from_slice(id.as_bytes());
    out.extend_from_slice(br#","error":{"code":"#);
    out.extend_from_slice(code.to_string().as_bytes());
    out.extend_from_slice(br#","message":"#);
    push_quoted(&mut out, message);
    if let Some(data) = data {
        out.extend_from_slice(br#","data":"#);
        out.extend_from_slice(data.as_bytes());
    }
    out.extend_from_slice(b"}}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_body_has_exact_bytes() {
        assert_eq!(
            error_body(Some(r#""a\u0062""#), LIMIT_EXCEEDED, "slow \"down\"\n", Some(r#"{"retryAfterMs":20}"#)),
            br#"{"jsonrpc":"2.0","id":"a\u0062","error":{"code":42900,"message":"slow \"down\"\n","data":{"retryAfterMs":20}}}"#
        );
    }

    #[test]
    fn unknown_id_is_null_and_absent_data_is_left_out() {
        assert_eq!(
            error_body(None, PARSE_ERROR, "not JSON", None),
            br#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"not JSON"}}"#
        );
    }

    #[test]
    fn own_codes_lie_outside_the_reserved_range_and_differ() {
        let mut own = [
            UNAUTHENTICATED,
            FORBIDDEN,
            SESSION_NOT_FOUND,
            ROUTE_NOT_FOUND,
            METHOD_NOT_ALLOWED,
            NOT_ACCEPTABLE,
            REQUEST_TIMEOUT,
            BODY_TOO_LARGE,
            UNSUPPORTED_MEDIA_TYPE,
            LIMIT_EXCEEDED,
            GATEWAY_INTERNAL,
            UPSTREAM_FAILED,
            UPSTREAM_UNAVAILABLE,
            UPSTREAM_CREDENTIAL,
            OVERLOADED,
            DEADLINE,
        ];
        assert!(own.iter().all(|code| !(-32768..=-32000).contains(code) && *code > 0));
        own.sort_unstable();
        assert!(own.windows(2).all(|pair| pair[0] != pair[1]), "two situations share a code");
    }
}
