//! Replacing the ids in a server's messages that must find their way back to the same target.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::text::{quote, splice};
use super::{RewriteError, each_message};
use crate::mcp::scan::reader::{Checks, Fault, Reader, read};
use crate::mcp::scan::{JsonStr, Shape};

/// The `_meta` key by which revision 2025-11-25 ties a message to a task.
const RELATED_TASK: &str = "io.modelcontextprotocol/related-task";

/// What an id is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `requestState` of an `input_required` result (2026-07-28, basic/patterns/mrtr).
    RequestState,
    /// The id of a task (SEP-2663).
    TaskId,
}

/// Replaces `requestState` and task ids in a server's response or notification, or in each one of a batch. `map` gets
/// the value with escapes resolved and returns its replacement, or `None` to leave it.
///
/// | message | places |
/// |---|---|
/// | result | `requestState`, `taskId` (`CreateTaskResult`, `tasks/get`), `task.taskId` and `tasks[].taskId` (2025-11-25) |
/// | notification | `taskId` (`notifications/tasks`), `task.taskId`, `notifications.taskIds[]` (`notifications/subscriptions/acknowledged`) |
/// | both | `_meta["io.modelcontextprotocol/related-task"].taskId` (2025-11-25) |
///
/// Requests of a server stay as they are: task ids in them were minted by the client. So do arguments, content and
/// structured results, where a member of that name is data.
///
/// `None` means that nothing changes. A message in which the names do not occur costs a substring search and no parsing.
///
/// # Errors
///
/// [`RewriteError::Message`] if the names occur and the message is not JSON, or has a key twice on the way to one of the
/// places. The caller must not forward it.
pub fn map_result_ids(
    message: &[u8],
    mut map: impl FnMut(Field, &str) -> Option<String>,
) -> Result<Option<Vec<u8>>, RewriteError> {
    if !may_have_ids(message) {
        return Ok(None);
    }
    let mut edits = Vec::new();
    read(message, Checks::WalkedKeys, |reader| {
        each_message(reader, |reader| {
            for (field, value) in one_message(reader)? {
                if let Some(replacement) = map(field, &value) {
                    edits.push((value.range(), quote(&replacement)));
                }
            }
            Ok(())
        })
    })?;
    if edits.is_empty() { Ok(None) } else { splice(message, &mut edits).map(Some) }
}

/// Whether one of the names occurs, or an escape that may be a letter of one.
fn may_have_ids(message: &[u8]) -> bool {
    static NEEDLES: LazyLock<[Finder<'static>; 3]> =
        LazyLock::new(|| ["taskId", "requestState", r"\u00"].map(Finder::new));
    NEEDLES.iter().any(|needle| needle.find(message).is_some())
}

type Found<'a> = Vec<(Field, JsonStr<'a>)>;

fn one_message<'a>(reader: &mut Reader<'a>) -> Result<Found<'a>, Fault> {
    if reader.peek() != b'{' {
        return Err(reader.shape(Shape::NotAnObject));
    }
    let (mut has_id, mut has_method) = (false, false);
    let mut found = Found::new();
    reader.object(|reader, key| match &*reader.decode(key) {
        "id" => {
            has_id = true;
            reader.skip()
        }
        "method" => {
            has_method = true;
            reader.skip()
        }
        "result" => body(reader, Part::Result, &mut found),
        "params" => body(reader, Part::Params, &mut found),
        _ => reader.skip(),
    })?;
    if has_id && has_method {
        found.clear();
    }
    Ok(found)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Params,
    Result,
}

fn body<'a>(reader: &mut Reader<'a>, part: Part, found: &mut Found<'a>) -> Result<(), Fault> {
    members(reader, |reader, key| match (key, part) {
        ("requestState", Part::Result) => string(reader, Field::RequestState, found),
        ("taskId", _) => string(reader, Field::TaskId, found),
        ("task", _) => task(reader, found),
        ("tasks", Part::Result) => elements(reader, |reader| task(reader, found)),
        ("notifications", Part::Params) => members(reader, |reader, key| match key {
            "taskIds" => elements(reader, |reader| string(reader, Field::TaskId, found)),
            _ => reader.skip(),
        }),
        ("_meta", _) => members(reader, |reader, key| match key {
            RELATED_TASK => task(reader, found),
            _ => reader.skip(),
        }),
        _ => reader.skip(),
    })
}

/// Reads an object with a `taskId`.
fn task<'a>(reader: &mut Reader<'a>, found: &mut Found<'a>) -> Result<(), Fault> {
    members(reader, |reader, key| match key {
        "taskId" => string(reader, Field::TaskId, found),
        _ => reader.skip(),
    })
}

fn string<'a>(reader: &mut Reader<'a>, field: Field, found: &mut Found<'a>) -> Result<(), Fault> {
    if let Some(value) = reader.string_value()? {
        found.push((field, value));
    }
    Ok(())
}

/// Walks an object; passes any other value.
fn members<'a>(
    reader: &mut Reader<'a>,
    mut member: impl FnMut(&mut Reader<'a>, &str) -> Result<(), Fault>,
) -> Result<(), Fault> {
    if reader.peek() != b'{' {
        return reader.skip();
    }
    reader.object(|reader, key| {
        let name = reader.decode(key);
        member(reader, &name)
    })
}

/// Walks an array; passes any other value.
fn elements<'a>(
    reader: &mut Reader<'a>,
    element: impl FnMut(&mut Reader<'a>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    if reader.peek() == b'[' { reader.array(element) } else { reader.skip() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(message: &str) -> Option<String> {
        map_result_ids(message.as_bytes(), |field, value| match field {
            Field::RequestState => Some(format!("S<{value}>")),
            Field::TaskId => Some(format!("T<{value}>")),
        })
        .unwrap()
        .map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn replaces_ids_at_every_place_of_a_result() {
        for (before, after) in [
            (
                r#"{"id":1,"result":{"resultType":"input_required","requestState":"a\"b","n":1.0}}"#,
                r#"{"id":1,"result":{"resultType":"input_required","requestState":"S<a\"b>","n":1.0}}"#,
            ),
            (
                r#"{"result":{"resultType":"task","taskId":"t1","ttlMs":null},"id":1}"#,
                r#"{"result":{"resultType":"task","taskId":"T<t1>","ttlMs":null},"id":1}"#,
            ),
            (
                r#"{"id":1,"result":{"task":{"taskId":"t"}}}"#,
                r#"{"id":1,"result":{"task":{"taskId":"T<t>"}}}"#,
            ),
            (
                r#"{"id":1,"result":{"tasks":[{"taskId":"t"}, {"taskId":"u"}]}}"#,
                r#"{"id":1,"result":{"tasks":[{"taskId":"T<t>"}, {"taskId":"T<u>"}]}}"#,
            ),
            (
                r#"{"id":1,"result":{"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"t"}},"content":[]}}"#,
                r#"{"id":1,"result":{"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"T<t>"}},"content":[]}}"#,
            ),
            (r#"{"id":1,"result":{"t\u0061skId":"t"}}"#, r#"{"id":1,"result":{"t\u0061skId":"T<t>"}}"#),
        ] {
            assert_eq!(seal(before).as_deref(), Some(after));
        }
    }

    #[test]
    fn replaces_ids_at_every_place_of_a_notification() {
        for (before, after) in [
            (
                r#"{"method":"notifications/tasks","params":{"taskId":"t","status":"working"}}"#,
                r#"{"method":"notifications/tasks","params":{"taskId":"T<t>","status":"working"}}"#,
            ),
            (
                r#"{"method":"notifications/subscriptions/acknowledged","params":{"notifications":{"taskIds":["t","u"]}}}"#,
                r#"{"method":"notifications/subscriptions/acknowledged","params":{"notifications":{"taskIds":["T<t>","T<u>"]}}}"#,
            ),
            (
                r#"{"params":{"task":{"taskId":"t"},"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"t"}}},"method":"x"}"#,
                r#"{"params":{"task":{"taskId":"T<t>"},"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"T<t>"}}},"method":"x"}"#,
            ),
        ] {
            assert_eq!(seal(before).as_deref(), Some(after));
        }
    }

    #[test]
    fn data_of_that_name_and_requests_of_the_server_stay() {
        for message in [
            r#"{"id":1,"result":{"structuredContent":{"taskId":"t","requestState":"s"},"content":[{"type":"text","text":"taskId"}]}}"#,
            r#"{"id":1,"result":{"result":{"taskId":"t"},"status":"completed"}}"#,
            r#"{"id":1,"method":"tasks/get","params":{"taskId":"t"}}"#,
            r#"{"params":{"taskId":"t"},"method":"tasks/get","id":1}"#,
            r#"{"method":"notifications/x","params":{"requestState":"s"}}"#,
            r#"{"id":1,"error":{"code":1,"message":"taskId","data":{"taskId":"t"}}}"#,
            r#"{"id":1,"result":{"taskId":7,"requestState":null}}"#,
        ] {
            assert_eq!(seal(message), None, "{message}");
        }
    }

    #[test]
    fn a_message_without_the_names_is_not_even_parsed() {
        assert_eq!(seal(r#"{"id":1,"result":{"content":[}"#), None);
    }

    #[test]
    fn none_leaves_a_value_and_batches_are_walked() {
        let batch = br#"[{"id":1,"result":{"taskId":"a"}},{"id":2,"result":{"taskId":"b"}}]"#;
        let mapped =
            map_result_ids(batch, |_, value| (value == "b").then(|| "B\n".to_owned())).unwrap().unwrap();
        assert_eq!(mapped, br#"[{"id":1,"result":{"taskId":"a"}},{"id":2,"result":{"taskId":"B\n"}}]"#);
    }

    #[test]
    fn fails_closed_when_it_cannot_be_sure() {
        for bad in [
            r#"{"id":1,"result":{"taskId":"t","taskId":"u"}}"#,
            r#"{"id":1,"result":{"taskId":"t"},"result":{}}"#,
            r#"{"id":1,"result":{"taskId":"t"}"#,
            r#"["taskId"]"#,
        ] {
            assert!(map_result_ids(bad.as_bytes(), |_, _| None).is_err(), "{bad}");
        }
    }

    #[test]
    fn duplicate_keys_in_mere_data_are_the_business_of_the_peers() {
        let sloppy = r#"{"id":1,"result":{"structuredContent":{"a":1,"a":2},"taskId":"t"}}"#;
        assert_eq!(seal(sloppy).unwrap(), sloppy.replace(r#""t""#, r#""T<t>""#));
    }
}
