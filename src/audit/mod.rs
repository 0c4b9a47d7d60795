//! What happened, kept so that nobody can deny or change it.
//!
//! **The way of an event.** The data plane (or the control plane) makes an [`Event`] and hands it to the [`Auditor`],
//! which copies it into the [`Spool`]: files that are allocated and mapped ahead, so that recording is a copy, and what
//! was recorded survives the death of the process. A task of the app layer drains the spool in order: it turns each
//! record into canonical JSON, links it into the hash chain of its tenant, writer and class, and puts it into the store.
//! [`Exporter`] and [`Checkpoint`] sign what is there; [`verify()`] proves it to somebody who has nothing but the file
//! and the public key.
//!
//! **Acknowledged means recorded.** A response ends only after its event is in the spool; with
//! [`Durability::Strict`] only after it is on the disk.
//!
//! **Room is promised, not hoped for.** A request takes a [`Credit`] for the longest record it can make before it
//! reaches a server, and gives back what it did not use. So with [`OnFull::Refuse`] no call is ever made whose event
//! would find no room.
//!
//! **Strangers fill nothing.** What ends before it is known who asks has events of its own up to a rate; beyond it, counts
//! become events ([`Auditor::record_unidentified`]).
//!
//! | file | what |
//! |---|---|
//! | `event` | the record and its binary form |
//! | `auditor` | what the planes hold |
//! | `spool`, `segment`, `group`, `settings`, `leftover` | the files, and those of earlier runs |
//! | `payload` | canonical JSON |
//! | `redact` | bodies without what is not to be recorded |
//! | `chain`, `statement`, `key` | links, checkpoints and manifests, signatures |
//! | `export`, `table`, `verify` | JSON lines with a signed manifest, CSV and CEF, and the proof |
//! | `names` | what events are searched and counted by |
//! | `usage`, `merged` | counts and latency sketches by minute, and many of them together |
//! | `unidentified` | what strangers cause, told in numbers |

mod auditor;
mod chain;
mod event;
mod export;
mod group;
mod key;
mod latency;
mod leftover;
mod merged;
mod missing;
mod names;
mod payload;
mod redact;
mod segment;
mod settings;
mod spool;
mod statement;
mod table;
mod unidentified;
pub mod usage;
mod verify;

pub use auditor::{Auditor, Counts, MASKED, Mask, Receipt};
pub use chain::{Chain, ChainId, Hash, Head, Linked, commit};
pub use event::{Class, Event, MAX_BODY, MAX_ENCODED, MAX_LONG, MAX_PLAIN, MAX_TEXT, Unreadable};
pub use export::{Exporter, Range, Stored};
pub use key::{AuditKey, KeyError, PublicKey};
pub use latency::Latency;
pub use leftover::{Leftover, leftovers, remove_unused, size_of};
pub use merged::Merged;
pub use names::{Keys, Names};
pub use payload::{BODIES, render};
pub use redact::{redact, whole_characters};
pub use segment::{Position, WriterId};
pub use settings::{Durability, Full, OnFull, Settings, SpoolError};
pub use spool::{Credit, Most, Spool};
pub use statement::{
    ChainState, Checkpoint, CheckpointRef, Horizon, Manifest, Mark, NotSigned, Statement, horizon_of,
    statement_hash,
};
pub use table::{Row, cef, csv, csv_header};
pub use unidentified::Allowance;
pub use verify::{Finding, Report, verify};

/// At most `max` bytes of `text`, cut between characters.
fn clip(text: &str, max: usize) -> &str {
    if text.len() <= max {
        return text;
    }
    let end = (0..=max).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    &text[..end]
}

/// Hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let mut out = Vec::with_capacity(bytes.len() * 2);
    hex_into(&mut out, bytes);
    String::from_utf8(out).expect("digits are ASCII")
}

fn hex_into(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

/// The bytes of lower-case hexadecimal digits.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    if pairs.len() != N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}
