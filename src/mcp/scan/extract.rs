//! Picks the members that the gateway acts on out of a message.
//!
//! Extraction does not depend on the method, because the method may come after the parameters; which fields mean
//! something for which method is the caller's knowledge. A field whose value has another type than the protocol gives
//! it is absent, and the bytes still reach the upstream, which refuses them itself.

use super::message::{Kind, Message, Meta, Outcome, Params, Raw};
use super::reader::{Fault, Reader, Token};
use super::{MAX_ID, MAX_TASK_IDS, Shape};

const ENVELOPE: &[&str] = &["jsonrpc", "id", "method", "params", "result", "error"];
const PARAMS: &[&str] = &[
    "name",
    "uri",
    "taskId",
    "requestState",
    "cursor",
    "level",
    "protocolVersion",
    "ref",
    "requestId",
    "arguments",
    "inputResponses",
    "notifications",
    "_meta",
];
const REFERENCE: &[&str] = &["name", "uri"];
const FILTER: &[&str] = &["taskIds"];
const META: &[&str] = &[
    "io.modelcontextprotocol/protocolVersion",
    "io.modelcontextprotocol/clientCapabilities",
    "io.modelcontextprotocol/clientInfo",
    "io.modelcontextprotocol/logLevel",
    "progressToken",
    "traceparent",
];

impl<'a> Message<'a> {
    /// Nothing read yet.
    #[inline]
    pub(super) fn empty() -> Self {
        let params = Params::default();
        Self { raw: Raw::new("", 0), kind: Kind::Notification, id: None, method: None, params }
    }

    /// Reads a message in place; `self` must be [`empty`](Self::empty).
    #[inline]
    pub(super) fn read(&mut self, reader: &mut Reader<'a>) -> Result<(), Fault> {
        let start = reader.position();
        if reader.peek() != b'{' {
            reader.skip()?;
            return Err(Fault::shape(start, Shape::NotAnObject));
        }
        let mut version = false;
        let mut id = Id::Absent;
        let mut result = false;
        let mut error = false;
        reader.object(|reader, key| {
            match &*reader.decode(key) {
                "jsonrpc" => version = reader.string_value()?.as_deref() == Some("2.0"),
                "id" => id = Id::read(reader)?,
                "method" => {
                    let at = reader.position();
                    self.method = reader.string_value()?;
                    if self.method.is_none() {
                        return Err(Fault::shape(at, Shape::Method));
                    }
                }
                "params" => self.params.read(reader)?,
                "result" => {
                    result = true;
                    reader.skip()?;
                }
                "error" => {
                    error = true;
                    if reader.peek() != b'{' {
                        return Err(reader.shape(Shape::Error));
                    }
                    reader.skip()?;
                }
                other => other_member(reader, key, other, ENVELOPE)?,
            }
            Ok(())
        })?;
        if !version {
            return Err(Fault::shape(start, Shape::Version));
        }
        self.raw = reader.since(start);
        (self.kind, self.id) =
            classify(self.method.is_some(), result, error, id).map_err(|shape| Fault::shape(start, shape))?;
        Ok(())
    }
}

/// JSON-RPC 2.0 §4 and §5: what the members of an envelope make of it.
fn classify(method: bool, result: bool, error: bool, id: Id<'_>) -> Result<(Kind, Option<Raw<'_>>), Shape> {
    match (method, result, error, id) {
        (true, false, false, Id::Given(id)) => Ok((Kind::Request, Some(id))),
        (true, false, false, Id::Absent) => Ok((Kind::Notification, None)),
        (false, true, false, Id::Given(id)) => Ok((Kind::Response(Outcome::Result), Some(id))),
        (false, false, true, Id::Given(id)) => Ok((Kind::Response(Outcome::Error), Some(id))),
        (false, false, true, Id::Absent | Id::Null) => Ok((Kind::Response(Outcome::Error), None)),
        (false, true, false, Id::Absent) => Err(Shape::MissingId),
        (true, false, false, Id::Null) | (false, true, false, Id::Null) => Err(Shape::Id),
        (false, false, false, _) => Err(Shape::MissingMethod),
        (true, true, _, _) | (true, _, true, _) | (_, true, true, _) => Err(Shape::Ambiguous),
    }
}

enum Id<'a> {
    Absent,
    Given(Raw<'a>),
    Null,
}

impl<'a> Id<'a> {
    #[inline]
    fn read(reader: &mut Reader<'a>) -> Result<Self, Fault> {
        let start = reader.position();
        match id_text(reader)? {
            Some(id) => Ok(Self::Given(id)),
            None if reader.since(start).as_str() == "null" => Ok(Self::Null),
            None => Err(Fault::shape(start, Shape::Id)),
        }
    }
}

/// Reads a value, and returns it if it is a string or a number written as an integer.
#[inline]
fn id_text<'a>(reader: &mut Reader<'a>) -> Result<Option<Raw<'a>>, Fault> {
    let (token, integer) = scalar(reader)?;
    Ok(token.filter(|_| integer))
}

/// Reads a value, and returns it if it is a string or a number, with whether it is a string or an integer.
#[inline]
fn scalar<'a>(reader: &mut Reader<'a>) -> Result<(Option<Raw<'a>>, bool), Fault> {
    let start = reader.position();
    let integer = match reader.peek() {
        b'"' => reader.string().map(|_| true)?,
        b'-' | b'0'..=b'9' => reader.number()?,
        _ => {
            reader.skip()?;
            return Ok((None, false));
        }
    };
    if reader.position() - start > MAX_ID {
        return Err(Fault::shape(start, Shape::IdTooLong));
    }
    Ok((Some(reader.since(start)), integer))
}

impl<'a> Params<'a> {
    #[inline]
    fn read(&mut self, reader: &mut Reader<'a>) -> Result<(), Fault> {
        let start = reader.position();
        match reader.peek() {
            b'{' => {}
            b'n' => return reader.skip(),
            // Positional parameters are JSON-RPC but not MCP, and libraries that fill structures from either form
            // would see members there that policy did not.
            _ => return Err(reader.shape(Shape::Params)),
        }
        reader.object(|reader, key| {
            match &*reader.decode(key) {
                "name" => self.name = reader.string_value()?,
                "uri" => self.uri = reader.string_value()?,
                "taskId" => self.task_id = reader.string_value()?,
                "requestState" => self.request_state = reader.string_value()?,
                "cursor" => self.cursor = reader.string_value()?,
                "level" => self.level = reader.string_value()?,
                "protocolVersion" => self.protocol_version = reader.string_value()?,
                "ref" => self.read_reference(reader)?,
                "requestId" => self.request_id = id_text(reader)?,
                "arguments" => self.arguments = Some(reader.raw()?),
                "inputResponses" => self.input_responses = Some(reader.raw()?),
                "notifications" => self.read_filter(reader)?,
                "_meta" => self.meta.read(reader)?,
                other => other_member(reader, key, other, PARAMS)?,
            }
            Ok(())
        })?;
        self.raw = Some(reader.since(start));
        Ok(())
    }

    fn read_reference(&mut self, reader: &mut Reader<'a>) -> Result<(), Fault> {
        if reader.peek() != b'{' {
            return reader.skip();
        }
        reader.object(|reader, key| {
            match &*reader.decode(key) {
                "name" => self.ref_name = reader.string_value()?,
                "uri" => self.ref_uri = reader.string_value()?,
                other => other_member(reader, key, other, REFERENCE)?,
            }
            Ok(())
        })
    }

    fn read_filter(&mut self, reader: &mut Reader<'a>) -> Result<(), Fault> {
        if reader.peek() != b'{' {
            return reader.skip();
        }
        let start = reader.position();
        reader.object(|reader, key| match &*reader.decode(key) {
            "taskIds" => self.read_task_ids(reader),
            other => other_member(reader, key, other, FILTER),
        })?;
        self.notifications = Some(reader.since(start));
        Ok(())
    }

    fn read_task_ids(&mut self, reader: &mut Reader<'a>) -> Result<(), Fault> {
        match reader.peek() {
            b'[' => {}
            b'n' => return reader.skip(),
            _ => return Err(reader.shape(Shape::TaskIds)),
        }
        reader.array(|reader| {
            if self.task_ids.len() == MAX_TASK_IDS {
                return Err(reader.shape(Shape::TooManyTaskIds));
            }
            let at = reader.position();
            let id = reader.string_value()?.ok_or_else(|| Fault::shape(at, Shape::TaskIds))?;
            self.task_ids.push(id);
            Ok(())
        })
    }
}

impl<'a> Meta<'a> {
    #[inline]
    fn read(&mut self, reader: &mut Reader<'a>) -> Result<(), Fault> {
        let start = reader.position();
        match reader.peek() {
            b'{' => {}
            b'n' => return reader.skip(),
            _ => return Err(reader.shape(Shape::Meta)),
        }
        reader.object(|reader, key| {
            let object = reader.peek() == b'{';
            match &*reader.decode(key) {
                "io.modelcontextprotocol/protocolVersion" => self.protocol_version = reader.string_value()?,
                "io.modelcontextprotocol/clientCapabilities" => {
                    self.client_capabilities = Some(reader.raw()?).filter(|_| object);
                }
                "io.modelcontextprotocol/clientInfo" => {
                    self.client_info = object;
                    reader.skip()?;
                }
                "io.modelcontextprotocol/logLevel" => self.log_level = reader.string_value()?,
                "progressToken" => self.progress_token = scalar(reader)?.0,
                "traceparent" => self.traceparent = reader.string_value()?,
                other => other_member(reader, key, other, META)?,
            }
            Ok(())
        })?;
        self.raw = Some(reader.since(start));
        Ok(())
    }
}

/// Passes a member that is not read, unless a parser that ignores case would read it as one that is.
fn other_member<'a>(reader: &mut Reader<'a>, key: Token, name: &str, known: &[&str]) -> Result<(), Fault> {
    if known.iter().any(|known| equal_folded(name, known)) {
        return Err(key.ambiguous());
    }
    reader.skip()
}

/// Whether `name` equals the ASCII name `known` under Unicode simple case folding, where two letters outside ASCII
/// fold into it: `ſ` (U+017F) to `s` and the Kelvin sign (U+212A) to `k`.
fn equal_folded(name: &str, known: &str) -> bool {
    // Each character of `name` takes one to three bytes for one byte of `known`.
    if name.len() < known.len() || name.len() > 3 * known.len() {
        return false;
    }
    let fold = |character| match character {
        '\u{17F}' => 's',
        '\u{212A}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    name.chars().map(fold).eq(known.chars().map(|character| character.to_ascii_lowercase()))
}
