//! One validating pass over a JSON-RPC request body.
//!
//! **Purpose.** Policy, limits and routing act on what this module reads, and the upstream then parses the same bytes
//! with its own library. So the scan refuses every body that two parsers could read differently: invalid UTF-8, invalid
//! JSON (RFC 8259), lone surrogate escapes, a key that occurs twice in one object at any depth (compared after
//! unescaping), nesting over [`MAX_DEPTH`], parameters by position, and members whose name differs from one that the
//! gateway reads only by letter case (some parsers match names without regard to case).
//!
//! **Shape.** No tree is built. [`scan`] borrows from the body: strings without escapes are slices, objects are byte
//! ranges, so that [`super::rewrite::splice`] can replace parts and leave every other byte as the client sent it.
//!
//! **State.** The only state is a per-thread scratch list of the keys of open objects, kept between calls so that an
//! ordinary body costs no allocation, and dropped after a body that made it grow.
//!
//! **Bounds.** Time is linear in the body whatever it holds: objects with many keys are checked with a hash table under
//! random keys. The stack use is bounded by [`MAX_DEPTH`], the scratch by a small multiple of the body's own length.
//!
//! **Failure.** All errors are the client's fault and repeating the same body cannot help.

mod error;
mod extract;
mod keys;
mod message;
pub(in crate::mcp) mod reader;
mod string;
#[cfg(test)]
mod tests;

pub use error::{ScanError, Shape};
pub use message::{Body, JsonStr, Kind, Message, Meta, Outcome, Params, Raw};

use reader::{Checks, Fault, Reader};

/// Deepest nesting of arrays and objects, the outermost one included.
pub const MAX_DEPTH: usize = 128;
/// Most messages in one batch (only revision 2025-03-26 has batches).
pub const MAX_BATCH: usize = 64;
/// Longest `id`, `requestId` or `progressToken`, in bytes of JSON text with its quotes.
pub const MAX_ID: usize = 1024;
/// Most entries of `taskIds` in one `subscriptions/listen` request.
pub const MAX_TASK_IDS: usize = 256;
/// Longest body, in bytes: offsets are 32 bits wide. Listeners set a far lower limit.
pub const MAX_BODY: usize = u32::MAX as usize;

/// Reads a request body: one JSON-RPC message or a batch of them.
///
/// # Errors
///
/// [`ScanError`], whose [`code`](ScanError::code) is the JSON-RPC code to answer with. When several rules are broken,
/// the one met first in the body is reported.
pub fn scan(body: &[u8]) -> Result<Body<'_>, ScanError> {
    let mut scanned = Body::One(Message::empty());
    reader::read(body, Checks::AllKeys, |reader| match (&mut scanned, reader.peek()) {
        (Body::One(message), first) if first != b'[' => message.read(reader),
        _ => {
            scanned = Body::Batch(batch(reader)?);
            Ok(())
        }
    })?;
    Ok(scanned)
}

fn batch<'a>(reader: &mut Reader<'a>) -> Result<Vec<Message<'a>>, Fault> {
    let at = reader.position();
    let mut messages = Vec::new();
    reader.array(|reader| {
        if messages.len() == MAX_BATCH {
            return Err(reader.shape(Shape::BatchTooLong));
        }
        let mut message = Message::empty();
        message.read(reader)?;
        messages.push(message);
        Ok(())
    })?;
    if messages.is_empty() { Err(Fault::shape(at, Shape::EmptyBatch)) } else { Ok(messages) }
}
