//! What a server's message is, for relaying it on the right stream.

use super::RewriteError;
use crate::mcp::scan::reader::{Checks, Fault, Reader, read};
use crate::mcp::scan::{JsonStr, Outcome, Raw, Shape};

/// A server's message, as far as relaying it needs to know. Ids are as written and of any type: what they mean is
/// decided by comparing them with what was sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Peek<'a> {
    /// An array of messages (revision 2025-03-26 only).
    Batch,
    /// A method without an id.
    Notification {
        /// The method.
        method: JsonStr<'a>,
    },
    /// A method with an id (legacy revisions only).
    Request {
        /// The server's id.
        id: Raw<'a>,
        /// The method.
        method: JsonStr<'a>,
    },
    /// An answer.
    Response {
        /// The id of the request; `None` if it is absent or `null`, as in an error about an unreadable request.
        id: Option<Raw<'a>>,
        /// What it carries.
        outcome: Outcome,
    },
}

/// Reads the envelope of a server's message. All of the message is validated as JSON, once, without allocation.
///
/// # Errors
///
/// [`RewriteError::Message`] if it is not JSON, has an envelope member twice, or is no JSON-RPC message.
pub fn peek(message: &[u8]) -> Result<Peek<'_>, RewriteError> {
    let mut found = Peek::Batch;
    read(message, Checks::WalkedKeys, |reader| {
        if reader.peek() == b'[' {
            return reader.skip();
        }
        found = envelope(reader)?;
        Ok(())
    })?;
    Ok(found)
}

/// The id that a server's message answers, as written. `None` also for messages that are no response and no JSON.
pub fn response_id(message: &[u8]) -> Option<&str> {
    match peek(message) {
        Ok(Peek::Response { id, .. }) => id.map(|id| id.as_str()),
        _ => None,
    }
}

fn envelope<'a>(reader: &mut Reader<'a>) -> Result<Peek<'a>, Fault> {
    let start = reader.position();
    if reader.peek() != b'{' {
        return Err(reader.shape(Shape::NotAnObject));
    }
    let mut id: Option<Raw<'a>> = None;
    let mut method = None;
    let (mut result, mut error) = (false, false);
    reader.object(|reader, key| {
        match &*reader.decode(key) {
            "id" => id = Some(reader.raw()?),
            "method" => {
                let at = reader.position();
                method = Some(reader.string_value()?.ok_or_else(|| Fault::shape(at, Shape::Method))?);
            }
            member => {
                result |= member == "result";
                error |= member == "error";
                reader.skip()?;
            }
        }
        Ok(())
    })?;
    let response = |outcome| Peek::Response { id: id.filter(|id| id.as_str() != "null"), outcome };
    match (method, result, error) {
        (Some(method), false, false) => Ok(match id {
            Some(id) => Peek::Request { id, method },
            None => Peek::Notification { method },
        }),
        (None, true, false) => Ok(response(Outcome::Result)),
        (None, false, true) => Ok(response(Outcome::Error)),
        (None, false, false) => Err(Fault::shape(start, Shape::MissingMethod)),
        _ => Err(Fault::shape(start, Shape::Ambiguous)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn method(message: &str) -> (Option<&str>, String) {
        match peek(message.as_bytes()).unwrap() {
            Peek::Request { id, method } => (Some(id.as_str()), method.to_string()),
            Peek::Notification { method } => (None, method.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn finds_the_id_wherever_it_stands() {
        assert_eq!(
            response_id(br#"{"result":{"id":1,"x":[{"id":2}]},"jsonrpc":"2.0","id":"ab"}"#),
            Some(r#""ab""#)
        );
        assert_eq!(response_id(br#" {"id":7,"error":{"code":1,"message":""}} "#), Some("7"));
        assert_eq!(response_id(br#"{"id":7,"result":null}"#), Some("7"));
    }

    #[test]
    fn tells_requests_from_notifications() {
        assert_eq!(method(r#"{"method":"ping","id":3}"#), (Some("3"), "ping".to_owned()));
        assert_eq!(method(r#"{"method":"notifications\/tasks"}"#), (None, "notifications/tasks".to_owned()));
    }

    #[test]
    fn id_is_none_for_errors_about_unreadable_requests() {
        let error = peek(br#"{"jsonrpc":"2.0","id":null,"error":{}}"#).unwrap();
        assert_eq!(error, Peek::Response { id: None, outcome: Outcome::Error });
    }

    #[test]
    fn the_range_of_an_id_can_be_spliced() {
        let message = br#"{"method":"roots/list","id":3}"#;
        let Peek::Request { id, .. } = peek(message).unwrap() else { panic!() };
        let renamed = crate::mcp::rewrite::splice(message, &mut [(id.range(), "\"s1\"")]).unwrap();
        assert_eq!(renamed, br#"{"method":"roots/list","id":"s1"}"#);
    }

    #[test]
    fn refuses_what_is_no_message() {
        for bad in [
            "",
            "5",
            "{}",
            r#"{"id":1}"#,
            r#"{"id":1,"id":2,"result":0}"#,
            r#"{"result":0,"error":{}}"#,
            r#"{"result":0"#,
        ] {
            assert!(peek(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(peek(b"[ ]").unwrap(), Peek::Batch);
    }
}
