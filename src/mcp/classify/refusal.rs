//! What a request that breaks a rule of the wire is answered with.

use std::borrow::Cow;

use http::StatusCode;
use serde_json::{Value, json};

use super::Message;
use crate::mcp::header::BadValue;
use crate::mcp::version::{Era, Versions};

/// `HeaderMismatch`: a header is missing, unreadable, sent twice, or says other than the body.
pub const HEADER_MISMATCH: i32 = -32020;
/// `UnsupportedProtocolVersion`.
pub const UNSUPPORTED_VERSION: i32 = -32022;
/// JSON-RPC "invalid request".
pub const INVALID_REQUEST: i32 = -32600;
/// JSON-RPC "invalid params".
pub const INVALID_PARAMS: i32 = -32602;

/// How much of a value that the peer sent is said back to it, in characters.
const MAX_ECHO_CHARS: usize = 128;

/// Which rule was broken; the label of metrics and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// A batch where the revision has none.
    Batch,
    /// `initialize` under a modern version header.
    Handshake,
    /// Header and body disagree, or a header is missing, doubled or unreadable.
    HeaderMismatch,
    /// A legacy version header that names no revision.
    InvalidVersion,
    /// The HTTP method is not served in this era.
    Method,
    /// `_meta` lacks what the modern era requires.
    Meta,
    /// No JSON-RPC message in the body.
    NoMessage,
    /// A response where the client may not send any.
    Response,
    /// The revision is not served here.
    UnsupportedVersion,
}

impl Rule {
    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Rule::Batch => "batch",
            Rule::Handshake => "handshake",
            Rule::HeaderMismatch => "header_mismatch",
            Rule::InvalidVersion => "invalid_version",
            Rule::Method => "method",
            Rule::Meta => "meta",
            Rule::NoMessage => "no_message",
            Rule::Response => "response",
            Rule::UnsupportedVersion => "unsupported_version",
        }
    }
}

/// The answer to a request that cannot be classified. The client's fault; repeating the request unchanged fails again.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Which rule was broken.
    pub rule: Rule,
    /// 400 or 405.
    pub status: StatusCode,
    /// The JSON-RPC error code. `None`: the answer has no JSON-RPC body.
    pub code: Option<i32>,
    /// For the client: its own values may be in it, cut to a bounded length.
    pub message: Cow<'static, str>,
    /// `error.data`.
    pub data: Option<Value>,
    /// The `Allow` header of a 405.
    pub allow: Option<&'static str>,
}

impl Refusal {
    fn bad_request(rule: Rule, code: i32, message: impl Into<Cow<'static, str>>) -> Self {
        let message = message.into();
        Self { rule, status: StatusCode::BAD_REQUEST, code: Some(code), message, data: None, allow: None }
    }

    /// §2.2 "Validation": a required header is absent.
    pub(super) fn header_missing(name: &'static str) -> Self {
        let message = format!("Header mismatch: the required {name} header is missing");
        Self::bad_request(Rule::HeaderMismatch, HEADER_MISMATCH, message)
    }

    /// §2.2 "Validation": whoever is behind us could read the other one.
    pub(super) fn header_duplicate(name: &'static str) -> Self {
        let message = format!("Header mismatch: the {name} header was sent more than once");
        Self::bad_request(Rule::HeaderMismatch, HEADER_MISMATCH, message)
    }

    /// §2.2 "Validation" and "Header encoding".
    pub(super) fn header_unreadable(name: &'static str, why: BadValue) -> Self {
        let message = format!("Header mismatch: the {name} header {why}");
        Self::bad_request(Rule::HeaderMismatch, HEADER_MISMATCH, message)
    }

    /// §2.2 "Validation".
    pub(super) fn header_mismatch(name: &'static str, value: &str, member: &str, expected: &str) -> Self {
        let (value, expected) = (echo(value), echo(expected));
        let message = format!(
            "Header mismatch: the {name} header value '{value}' does not match {member} '{expected}'"
        );
        Self::bad_request(Rule::HeaderMismatch, HEADER_MISMATCH, message)
    }

    /// §2.1 rule 3.
    pub(super) fn handshake_with_header(version: &str) -> Self {
        let version = echo(version);
        let message = format!(
            "Header mismatch: initialize does not exist in the revision '{version}' that the MCP-Protocol-Version \
             header names"
        );
        Self::bad_request(Rule::Handshake, HEADER_MISMATCH, message)
    }

    /// §2.1 rule 5, §2.2 "`_meta`".
    pub(super) fn meta_missing(message: &Message<'_>) -> Self {
        let missing = match (message.meta_version.is_some(), message.client_capabilities) {
            (false, false) => {
                "io.modelcontextprotocol/protocolVersion, io.modelcontextprotocol/clientCapabilities"
            }
            (false, true) => "io.modelcontextprotocol/protocolVersion",
            (true, _) => "io.modelcontextprotocol/clientCapabilities",
        };
        let message =
            format!("Invalid params: request _meta is missing or has malformed required fields: {missing}");
        Self::bad_request(Rule::Meta, INVALID_PARAMS, message)
    }

    /// §2.2 "Version error". `requested` is left out if the request named no revision at all.
    pub(super) fn unsupported(served: Versions, requested: Option<&str>) -> Self {
        let supported: Vec<&str> = served.iter().map(|v| v.as_str()).collect();
        let mut data = json!({ "supported": supported });
        if let Some(requested) = requested {
            // A client compares this with what it sent, so it is cut only where it cannot be a revision's name.
            data["requested"] = Value::from(echo(requested));
        }
        let mut refusal =
            Self::bad_request(Rule::UnsupportedVersion, UNSUPPORTED_VERSION, "Unsupported protocol version");
        refusal.data = Some(data);
        refusal
    }

    /// §2.3: "Invalid/unsupported → 400". Deliberately no code that clients take for a sign of the modern era.
    pub(super) fn invalid_version_header(value: &str, served: Versions) -> Self {
        let value = echo(value);
        let supported: Vec<&str> = served.iter().map(|v| v.as_str()).collect();
        let supported = supported.join(", ");
        let message =
            format!("Bad Request: unsupported MCP-Protocol-Version header: {value} (supported: {supported})");
        Self::bad_request(Rule::InvalidVersion, INVALID_REQUEST, message)
    }

    /// §2.1 rule 2.
    pub(crate) fn batch_not_accepted() -> Self {
        Self::bad_request(
            Rule::Batch,
            INVALID_REQUEST,
            "Invalid Request: this revision has no JSON-RPC batches",
        )
    }

    /// §2.2 "Body".
    pub(super) fn response_not_accepted() -> Self {
        let message = "Invalid Request: this revision has no JSON-RPC responses from clients";
        Self::bad_request(Rule::Response, INVALID_REQUEST, message)
    }

    /// A POST without a JSON-RPC message.
    pub(super) fn no_message() -> Self {
        Self::bad_request(
            Rule::NoMessage,
            INVALID_REQUEST,
            "Invalid Request: the body is not a JSON-RPC message",
        )
    }

    /// §2.1 rule 1, §2.2 "Methods".
    pub(super) fn method_not_allowed(served: Versions) -> Self {
        Self {
            rule: Rule::Method,
            status: StatusCode::METHOD_NOT_ALLOWED,
            code: None,
            message: Cow::Borrowed("Method Not Allowed"),
            data: None,
            allow: Some(if served.speaks(Era::Legacy) { "GET, POST, DELETE" } else { "POST" }),
        }
    }
}

fn echo(value: &str) -> &str {
    value.char_indices().nth(MAX_ECHO_CHARS).map_or(value, |(end, _)| &value[..end])
}
