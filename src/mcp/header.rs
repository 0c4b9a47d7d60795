//! The names of MCP's HTTP headers and the encoding of their values (2026-07-28 streamable-http §Value Encoding).
//!
//! `Mcp-Name` and `Mcp-Param-*` mirror values of the body. What is not plain visible ASCII travels as
//! `=?base64?…?=`; so does plain text that looks like that, to keep decoding unambiguous. [`decode`] and [`encode`] borrow
//! unless there is Base64 to undo or to make.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};

/// `MCP-Protocol-Version`: the revision the request speaks.
pub static PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// `Mcp-Session-Id`: legacy only; ignored and never sent in the modern era.
pub static SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// `Mcp-Method`: mirrors `method` (modern).
pub static METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// `Mcp-Name`: mirrors what [`NameSource`] names (modern).
pub static NAME: HeaderName = HeaderName::from_static("mcp-name");
/// `Last-Event-ID`: where to resume a legacy stream.
pub static LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// What the name of every mirrored tool argument starts with, in lower case as [`HeaderName`] has it.
pub const PARAM_PREFIX: &str = "mcp-param-";

/// The longest value [`decode`] looks into, in bytes. Header blocks are bounded by the listener; this bounds what one
/// value may make us allocate.
pub const MAX_VALUE_BYTES: usize = 16 * 1024;

const SENTINEL_START: &str = "=?base64?";
const SENTINEL_END: &str = "?=";

/// The part after `Mcp-Param-`, if the header mirrors a tool argument. Unknown ones are forwarded untouched
/// (§Server Behavior for Custom Headers).
pub fn param_name(header: &HeaderName) -> Option<&str> {
    header.as_str().strip_prefix(PARAM_PREFIX).filter(|rest| !rest.is_empty())
}

/// Which member of `params` the `Mcp-Name` header mirrors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameSource {
    /// `params.name` of `tools/call` and `prompts/get`.
    Name,
    /// `params.taskId` of `tasks/get`, `tasks/update` and `tasks/cancel` (SEP-2663 §Routing Headers).
    TaskId,
    /// `params.uri` of `resources/read`.
    Uri,
}

impl NameSource {
    /// What the method's `Mcp-Name` mirrors; `None` for methods that carry no name (§Standard Request Headers).
    pub fn of(method: &str) -> Option<Self> {
        match method {
            "tools/call" | "prompts/get" => Some(NameSource::Name),
            "resources/read" => Some(NameSource::Uri),
            "tasks/get" | "tasks/update" | "tasks/cancel" => Some(NameSource::TaskId),
            _ => None,
        }
    }

    /// The member as an error message names it.
    pub fn as_str(self) -> &'static str {
        match self {
            NameSource::Name => "params.name",
            NameSource::TaskId => "params.taskId",
            NameSource::Uri => "params.uri",
        }
    }
}

/// A header value that cannot be read. The peer's fault; the same request will fail again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadValue {
    /// Between the sentinels is no canonical, padded Base64.
    #[error("is not valid Base64")]
    Base64,
    /// A byte outside visible ASCII, space and tab.
    #[error("contains invalid characters")]
    Characters,
    /// Longer than [`MAX_VALUE_BYTES`].
    #[error("is too long")]
    Length,
    /// The Base64 does not encode UTF-8.
    #[error("does not encode UTF-8")]
    Utf8,
}

/// How often a header that must be unique was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Field<'a> {
    /// Not at all.
    #[default]
    Absent,
    /// More than once. Somebody on the way could read the other one, so neither is used.
    Many,
    /// Once, with this value as it came.
    One(&'a [u8]),
}

impl<'a> Field<'a> {
    /// Looks a header up.
    pub fn read(headers: &'a HeaderMap, name: &HeaderName) -> Self {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Field::Absent,
            (Some(value), None) => Field::One(value.as_bytes()),
            (Some(_), Some(_)) => Field::Many,
        }
    }
}

/// A value as text, without the whitespace around it (RFC 9110 §5.5).
///
/// # Errors
/// [`BadValue::Characters`] or [`BadValue::Length`].
pub fn text(value: &[u8]) -> Result<&str, BadValue> {
    let value = trim_ows(value);
    if value.len() > MAX_VALUE_BYTES {
        return Err(BadValue::Length);
    }
    if !value.iter().all(|b| matches!(b, b'\t' | b' '..=b'~')) {
        return Err(BadValue::Characters);
    }
    std::str::from_utf8(value).map_err(|_| BadValue::Characters)
}

/// The value that an `Mcp-Name` or `Mcp-Param-*` header stands for.
///
/// # Errors
/// When the value has bytes that no header may have, or sentinels around something that is not Base64 of UTF-8. Such a
/// request is refused with `-32020`.
pub fn decode(value: &[u8]) -> Result<Cow<'_, str>, BadValue> {
    let plain = text(value)?;
    let inner = plain.strip_prefix(SENTINEL_START).and_then(|rest| rest.strip_suffix(SENTINEL_END));
    match inner {
        None => Ok(Cow::Borrowed(plain)),
        Some(inner) => {
            let bytes = STANDARD.decode(inner).map_err(|_| BadValue::Base64)?;
            String::from_utf8(bytes).map(Cow::Owned).map_err(|_| BadValue::Utf8)
        }
    }
}

/// The text that carries a value in an `Mcp-Name` or `Mcp-Param-*` header.
pub fn encode(value: &str) -> Cow<'_, str> {
    if !needs_base64(value) {
        return Cow::Borrowed(value);
    }
    let mut out =
        String::with_capacity(SENTINEL_START.len() + value.len().div_ceil(3) * 4 + SENTINEL_END.len());
    out.push_str(SENTINEL_START);
    STANDARD.encode_string(value, &mut out);
    out.push_str(SENTINEL_END);
    Cow::Owned(out)
}

/// [`encode`] as a header value.
pub fn encode_value(value: &str) -> HeaderValue {
    HeaderValue::from_str(&encode(value)).expect("encoded values are visible ASCII, space and tab")
}

fn needs_base64(value: &str) -> bool {
    let bytes = value.as_bytes();
    let edge = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
    edge(bytes.first())
        || edge(bytes.last())
        || !bytes.iter().all(|b| matches!(b, b' '..=b'~'))
        || (value.starts_with(SENTINEL_START) && value.ends_with(SENTINEL_END))
}

/// Not `trim_ascii`: that takes more than the two characters that HTTP calls optional whitespace.
fn trim_ows(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn encodes_the_examples_of_the_value_encoding_table() {
        let table = [
            ("us-west1", "us-west1"),
            ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
            (" padded ", "=?base64?IHBhZGRlZCA=?="),
            ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
            ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
            ("a b c", "a b c"),
            ("", ""),
            ("tab\tinside", "=?base64?dGFiCWluc2lkZQ==?="),
            ("a\r\nEvil: 1", "=?base64?YQ0KRXZpbDogMQ==?="),
            ("\u{7f}", "=?base64?fw==?="),
        ];
        for (value, header) in table {
            assert_eq!(encode(value), header, "{value:?}");
            assert_eq!(decode(header.as_bytes()).as_deref(), Ok(value), "{header}");
        }
    }

    #[test]
    fn sentinels_are_lower_case_and_need_both_ends() {
        for plain in ["=?BASE64?YQ==?=", "=?base64?YQ==", "YQ==?=", "=?base64?=", "?=", "=?base64?"] {
            assert_eq!(decode(plain.as_bytes()), Ok(Cow::Borrowed(plain)));
        }
        assert_eq!(decode(b"=?base64??=").as_deref(), Ok(""));
    }

    #[test]
    fn whitespace_around_a_value_is_not_part_of_it() {
        assert_eq!(decode(b" \t greet \t").as_deref(), Ok("greet"));
        assert_eq!(decode(b"  =?base64?IGE=?=  ").as_deref(), Ok(" a"));
        assert_eq!(decode(b"  ").as_deref(), Ok(""));
    }

    #[test]
    fn refuses_what_cannot_be_a_value() {
        let cases: [(&[u8], BadValue); 7] = [
            (b"=?base64?!!!?=", BadValue::Base64),
            (b"=?base64?YQ?=", BadValue::Base64),
            (b"=?base64?YR==?=", BadValue::Base64),
            (b"=?base64?/w==?=", BadValue::Utf8),
            (b"a\nb", BadValue::Characters),
            (b"caf\xc3\xa9", BadValue::Characters),
            (b"\x7f", BadValue::Characters),
        ];
        for (value, expected) in cases {
            assert_eq!(decode(value), Err(expected), "{}", value.escape_ascii());
        }
        assert_eq!(decode(&vec![b'a'; MAX_VALUE_BYTES + 1]), Err(BadValue::Length));
    }

    #[test]
    fn plain_values_are_borrowed() {
        assert!(matches!(decode(b"greet"), Ok(Cow::Borrowed(_))));
        assert!(matches!(encode("greet"), Cow::Borrowed(_)));
    }

    #[test]
    fn names_come_from_the_member_the_method_has() {
        let table = [
            ("tools/call", Some(NameSource::Name)),
            ("prompts/get", Some(NameSource::Name)),
            ("resources/read", Some(NameSource::Uri)),
            ("tasks/get", Some(NameSource::TaskId)),
            ("tasks/update", Some(NameSource::TaskId)),
            ("tasks/cancel", Some(NameSource::TaskId)),
            ("tasks/list", None),
            ("tools/list", None),
            ("resources/subscribe", None),
            ("TOOLS/CALL", None),
        ];
        for (method, source) in table {
            assert_eq!(NameSource::of(method), source, "{method}");
        }
    }

    #[test]
    fn counts_how_often_a_header_was_sent() {
        let mut headers = HeaderMap::new();
        assert_eq!(Field::read(&headers, &METHOD), Field::Absent);
        headers.append(&METHOD, HeaderValue::from_static("ping"));
        assert_eq!(Field::read(&headers, &METHOD), Field::One(b"ping"));
        headers.append(&METHOD, HeaderValue::from_static("ping"));
        assert_eq!(Field::read(&headers, &METHOD), Field::Many);
    }

    #[test]
    fn recognises_mirrored_arguments_in_any_case() {
        let name = HeaderName::from_bytes(b"MCP-Param-Region").unwrap();
        assert_eq!(param_name(&name), Some("region"));
        assert_eq!(param_name(&HeaderName::from_static("mcp-param-")), None);
        assert_eq!(param_name(&METHOD), None);
    }

    proptest! {
        #[test]
        fn any_text_survives_a_header(value in any::<String>(), plain in "[ -~]{0,40}") {
            for value in [value, plain] {
                let header = encode_value(&value);
                prop_assert!(header.as_bytes().iter().all(|b| matches!(b, b' '..=b'~')));
                prop_assert_eq!(decode(header.as_bytes()).unwrap(), value);
            }
        }

        #[test]
        fn decoding_never_panics(value in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&value);
        }
    }
}
