//! What a scan yields: the members of a message that the gateway acts on, borrowed from the body.

use std::borrow::Cow;
use std::ops::{Deref, Range};

/// A scanned request body.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "the large variant is the ordinary one; boxing it would allocate"
)]
pub enum Body<'a> {
    /// A single message.
    One(Message<'a>),
    /// A batch of 1 to [`MAX_BATCH`](super::MAX_BATCH) messages (revision 2025-03-26 only).
    Batch(Vec<Message<'a>>),
}

impl<'a> Body<'a> {
    /// The messages, whether one or many.
    pub fn messages(&self) -> &[Message<'a>] {
        match self {
            Self::One(message) => std::slice::from_ref(message),
            Self::Batch(messages) => messages,
        }
    }
}

/// A JSON text inside the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raw<'a> {
    text: &'a str,
    start: u32,
}

impl<'a> Raw<'a> {
    /// `start` is below [`MAX_BODY`](super::MAX_BODY), so it fits.
    #[inline]
    pub(in crate::mcp) fn new(text: &'a str, start: usize) -> Self {
        Self { text, start: start as u32 }
    }

    /// The text as the client wrote it; a string has its quotes and escapes.
    pub fn as_str(&self) -> &'a str {
        self.text
    }

    /// Where it lies in the body, in bytes.
    pub fn range(&self) -> Range<usize> {
        self.start as usize..self.start as usize + self.text.len()
    }
}

/// A JSON string inside the body; dereferences to its unescaped value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonStr<'a> {
    value: Cow<'a, str>,
    start: u32,
    end: u32,
}

impl<'a> JsonStr<'a> {
    #[inline]
    pub(in crate::mcp) fn new(value: Cow<'a, str>, start: usize, end: usize) -> Self {
        Self { value, start: start as u32, end: end as u32 }
    }

    /// The value, escapes resolved.
    pub fn as_str(&self) -> &str {
        &self.value
    }

    /// The value itself: borrowed from the body unless it had escapes.
    pub fn into_value(self) -> Cow<'a, str> {
        self.value
    }

    /// Where the literal lies in the body, quotes included, in bytes.
    pub fn range(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

impl Deref for JsonStr<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.value
    }
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A method without an id: there is no answer.
    Notification,
    /// A method with an id.
    Request,
    /// The answer to a request that the server sent (legacy revisions only).
    Response(Outcome),
}

/// What a response carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// `error`.
    Error,
    /// `result`.
    Result,
}

/// One JSON-RPC message.
#[derive(Debug)]
pub struct Message<'a> {
    /// The whole object.
    pub raw: Raw<'a>,
    /// What it is.
    pub kind: Kind,
    /// The id as written, a string or an integer of at most [`MAX_ID`](super::MAX_ID) bytes. Every request has one; of responses
    /// only an error may lack it or have `null`, as JSON-RPC 2.0 §5 provides for unreadable requests.
    pub id: Option<Raw<'a>>,
    /// The method of a request or notification.
    pub method: Option<JsonStr<'a>>,
    /// What `params` holds; empty without them.
    pub params: Params<'a>,
}

impl Message<'_> {
    /// The method, or the empty string for a response.
    pub fn method_name(&self) -> &str {
        self.method.as_deref().unwrap_or_default()
    }
}

/// The parameters that the gateway acts on. Strings are present if the member is a JSON string.
#[derive(Debug, Default)]
pub struct Params<'a> {
    /// The whole `params` object; absent also if it is `null`.
    pub raw: Option<Raw<'a>>,
    /// `name`: tool or prompt (`tools/call`, `prompts/get`).
    pub name: Option<JsonStr<'a>>,
    /// `uri`: resource (`resources/read`, `resources/subscribe`, `resources/unsubscribe`).
    pub uri: Option<JsonStr<'a>>,
    /// `taskId` (`tasks/*`).
    pub task_id: Option<JsonStr<'a>>,
    /// `requestState`: echoed from an `input_required` result.
    pub request_state: Option<JsonStr<'a>>,
    /// `cursor` of a list; the empty string is a valid one.
    pub cursor: Option<JsonStr<'a>>,
    /// `level` (`logging/setLevel`).
    pub level: Option<JsonStr<'a>>,
    /// `protocolVersion` (`initialize`).
    pub protocol_version: Option<JsonStr<'a>>,
    /// `ref.name` (`completion/complete` for a prompt).
    pub ref_name: Option<JsonStr<'a>>,
    /// `ref.uri` (`completion/complete` for a resource template).
    pub ref_uri: Option<JsonStr<'a>>,
    /// `requestId` if it is a string or an integer (`notifications/cancelled`).
    pub request_id: Option<Raw<'a>>,
    /// `arguments`, of whatever type.
    pub arguments: Option<Raw<'a>>,
    /// `inputResponses`, of whatever type.
    pub input_responses: Option<Raw<'a>>,
    /// `notifications` if it is an object: the filter of `subscriptions/listen`.
    pub notifications: Option<Raw<'a>>,
    /// `notifications.taskIds` of `subscriptions/listen` (SEP-2663), at most [`MAX_TASK_IDS`](super::MAX_TASK_IDS).
    pub task_ids: Vec<JsonStr<'a>>,
    /// `_meta`.
    pub meta: Meta<'a>,
}

/// `params._meta`. Nothing in it is verified.
#[derive(Debug, Default)]
pub struct Meta<'a> {
    /// The whole `_meta` object; absent also if it is `null`.
    pub raw: Option<Raw<'a>>,
    /// `io.modelcontextprotocol/protocolVersion`: its presence makes a request modern.
    pub protocol_version: Option<JsonStr<'a>>,
    /// `io.modelcontextprotocol/clientCapabilities` if it is an object.
    pub client_capabilities: Option<Raw<'a>>,
    /// Whether `io.modelcontextprotocol/clientInfo` is there and an object.
    pub client_info: bool,
    /// `io.modelcontextprotocol/logLevel`.
    pub log_level: Option<JsonStr<'a>>,
    /// `progressToken` if it is a string or a number, as written.
    pub progress_token: Option<Raw<'a>>,
    /// `traceparent` (W3C Trace Context).
    pub traceparent: Option<JsonStr<'a>>,
}
