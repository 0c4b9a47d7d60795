//! What happened, kept so that nobody can deny or change it.
//!
//! **The way of an event.** The data plane (or the control plane) makes an [`Event`] and hands it to the [`Auditor`],
//! which copies it into the [`Spool`]: files that are allocated and mapped ahead, so that recording is a copy, and what
//! was recorded survives the death of the process. A task of the app layer drains the spool in order: it turns each
//! record into canonical JSON, links it into the hash chain of its tenant, writer and class, and puts it into the store.
//!
//! **Acknowledged means recorded.** A response ends only after its event is in the spool; with
//! [`Durability::Strict`] only after it is on the disk.
//!
//! **Room is promised, not hoped for.** A request takes a [`Credit`] for the longest record it can make before it
//! reaches a server, and gives back what it did not use. So with [`OnFull::Refuse`] no call is ever made whose event
//! would find no room.
//!
//! | file | what |
//! |---|---|
//! | `event` | the record and its binary form |
//! | `auditor` | what the planes hold |
//! | `spool`, `segment`, `leftover` | the files, and those of earlier runs |

mod auditor;
mod event;
mod leftover;
mod segment;
mod spool;

pub use auditor::{Auditor, Counts, Receipt};
pub use event::{Class, Event, MAX_BODY, MAX_ENCODED, MAX_LONG, MAX_PLAIN, MAX_TEXT, Unreadable};
pub use leftover::{Leftover, leftovers};
pub use segment::{Position, WriterId};
pub use spool::{Credit, Durability, Full, OnFull, Settings, Spool, SpoolError};

/// At most `max` bytes of `text`, cut between characters.
fn clip(text: &str, max: usize) -> &str {
    if text.len() <= max {
        return text;
    }
    let end = (0..=max).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    &text[..end]
}
