//! Why a body was refused.

use super::MAX_BATCH;
use super::MAX_DEPTH;
use super::MAX_ID;
use super::MAX_TASK_IDS;
use super::reader::{Fault, FaultKind};
use super::string::unescape;
use crate::mcp::jsonrpc::{INVALID_REQUEST, PARSE_ERROR};

/// Longest excerpt of a key in an error, in bytes.
const MAX_KEY_EXCERPT: usize = 64;

/// Why a body was refused: always the client's fault, never worth a retry. Offsets are bytes from the body's start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// A member's name differs only in letter case from one that the gateway reads.
    #[error("key {key:?} at byte {at} differs from a protocol member only in letter case")]
    AmbiguousKey {
        /// Where the key starts.
        at: usize,
        /// The key, unescaped and cut to 64 bytes.
        key: Box<str>,
    },
    /// An object has the same key twice.
    #[error("duplicate key {key:?} at byte {at}")]
    DuplicateKey {
        /// Where one of the two starts.
        at: usize,
        /// The key, unescaped and cut to 64 bytes.
        key: Box<str>,
    },
    /// Valid JSON that is no message this endpoint accepts.
    #[error("{reason} (byte {at})")]
    NotARequest {
        /// Where the offending value, or the message, starts.
        at: usize,
        /// Which rule it breaks.
        reason: Shape,
    },
    /// Not JSON (RFC 8259), or a string with a lone surrogate.
    #[error("not valid JSON at byte {at}")]
    NotJson {
        /// Where the first unacceptable byte is.
        at: usize,
    },
    /// Not UTF-8.
    #[error("not valid UTF-8 at byte {at}")]
    NotUtf8 {
        /// Where the first invalid sequence starts.
        at: usize,
    },
    /// Arrays and objects are nested too deeply.
    #[error("nested more than {MAX_DEPTH} levels deep at byte {at}")]
    TooDeep {
        /// Where the first level too many opens.
        at: usize,
    },
    /// The body is longer than [`MAX_BODY`](super::MAX_BODY).
    #[error("body of {length} bytes is too long")]
    TooLong {
        /// Length of the body in bytes.
        length: usize,
    },
}

impl ScanError {
    /// The JSON-RPC code to answer with; the HTTP status is 400 for both.
    pub fn code(&self) -> i32 {
        match self {
            Self::NotJson { .. } | Self::NotUtf8 { .. } => PARSE_ERROR,
            Self::AmbiguousKey { .. }
            | Self::DuplicateKey { .. }
            | Self::NotARequest { .. }
            | Self::TooDeep { .. }
            | Self::TooLong { .. } => INVALID_REQUEST,
        }
    }

    /// Expands the scan's compact fault, reading the key it points at back from the text.
    #[cold]
    pub(super) fn from_fault(fault: Fault, text: &str) -> Self {
        let at = fault.at as usize;
        match fault.kind {
            FaultKind::Ambiguous => Self::AmbiguousKey { at, key: key_at(text, at) },
            FaultKind::Duplicate => Self::DuplicateKey { at, key: key_at(text, at) },
            FaultKind::Json => Self::NotJson { at },
            FaultKind::Shape(reason) => Self::NotARequest { at, reason },
            FaultKind::TooDeep => Self::TooDeep { at },
        }
    }
}

/// The beginning of the key whose content starts at `at`.
fn key_at(text: &str, at: usize) -> Box<str> {
    let rest = text.get(at..).unwrap_or_default();
    let mut escaped = false;
    let end = rest
        .bytes()
        .position(|byte| {
            let closes = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            closes
        })
        .unwrap_or(rest.len());
    // Cut the raw text first: a hostile key may be megabytes long. An escape is at most 12 bytes.
    let raw = &rest[..rest.floor_char_boundary(end.min(MAX_KEY_EXCERPT * 12))];
    let key = unescape(raw);
    key[..key.floor_char_boundary(MAX_KEY_EXCERPT)].into()
}

/// The rule that a JSON text breaks as a JSON-RPC message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shape {
    /// `method` together with `result` or `error`, or both of these.
    #[error("a message must have exactly one of method, result and error")]
    Ambiguous,
    /// More messages than [`MAX_BATCH`](super::MAX_BATCH).
    #[error("a batch must not have more than {MAX_BATCH} messages")]
    BatchTooLong,
    /// A batch without messages.
    #[error("a batch must not be empty")]
    EmptyBatch,
    /// `error` is not an object.
    #[error("error must be an object")]
    Error,
    /// `id` is neither a string nor an integer.
    #[error("id must be a string or an integer")]
    Id,
    /// `id`, `requestId` or `progressToken` is longer than [`MAX_ID`](super::MAX_ID).
    #[error("an id must not be longer than {MAX_ID} bytes")]
    IdTooLong,
    /// A list was expected, in a list response.
    #[error("the list must be an array")]
    List,
    /// `_meta` is not an object.
    #[error("_meta must be an object")]
    Meta,
    /// `method` is not a string.
    #[error("method must be a string")]
    Method,
    /// A response without an id.
    #[error("a response must have an id")]
    MissingId,
    /// None of `method`, `result`, `error`.
    #[error("a message must have a method")]
    MissingMethod,
    /// Neither an object nor an array of objects.
    #[error("a message must be an object")]
    NotAnObject,
    /// `params` is not an object.
    #[error("params must be an object")]
    Params,
    /// `taskIds` is not a list of strings.
    #[error("taskIds must be a list of strings")]
    TaskIds,
    /// `taskIds` has more than [`MAX_TASK_IDS`](super::MAX_TASK_IDS) entries.
    #[error("taskIds must not have more than {MAX_TASK_IDS} entries")]
    TooManyTaskIds,
    /// `jsonrpc` is absent or not `"2.0"`.
    #[error("jsonrpc must be \"2.0\"")]
    Version,
}
