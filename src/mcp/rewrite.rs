//! Edits of JSON-RPC messages that leave every byte they do not mean to change as it was.
//!
//! **Purpose.** The gateway replaces ids that carry affinity, drops list entries that a caller may not see, and answers
//! under another id. Members it does not know, their order, number formats and white space all belong to the peers.
//!
//! **How.** The readers walk a message with the scanner's machinery and collect byte ranges; [`splice`] applies them in
//! one copy. Nothing is built for a message that needs no change, which the functions say with `None`: the original
//! bytes are to be forwarded.
//!
//! **Invariants.** A message is fully validated before it is changed. Objects on the way to an edit are checked for
//! duplicate keys, so that no second list or id hides behind the first; values that are merely passed are not, because
//! the gateway acts on nothing in them.
//!
//! **Failure.** [`RewriteError`] means that the message must not be forwarded: it is the sender's fault (the upstream's,
//! for messages of a server), and asking again may get a better one.

mod ids;
mod list;
mod peek;
mod text;

pub use ids::{Field, map_result_ids};
pub use list::{CacheScope, ListKind, filter_list};
pub use peek::{Peek, peek, response_id};
pub use text::{push_quoted, quote, splice, with_id};

use super::scan::ScanError;
use super::scan::reader::{Fault, Reader};

/// Why a message could not be rewritten.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// An edit lies outside the text or inside another edit: a fault of the caller.
    #[error("edit {start}..{end} overlaps another or leaves the text of {length} bytes")]
    Edit {
        /// Start of the edit, in bytes.
        start: usize,
        /// End of the edit, in bytes.
        end: usize,
        /// Length of the text.
        length: usize,
    },
    /// The message is not what the rewrite needs: a fault of its sender.
    #[error("message cannot be rewritten")]
    Message(#[from] ScanError),
}

/// Walks one message, or each message of a batch.
fn each_message<'a>(
    reader: &mut Reader<'a>,
    mut message: impl FnMut(&mut Reader<'a>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    if reader.peek() == b'[' { reader.array(message) } else { message(reader) }
}
