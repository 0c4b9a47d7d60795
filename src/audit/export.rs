//! The verifiable form of what is in the store: JSON lines that end with a signed manifest.
//!
//! Each line is one event of one chain, in order: with payload and salt, or, if a filter leaves it out or it was
//! erased, with its commitment only. So a filter hides what an event says and never that there is one. Checkpoints
//! between are lines of their own. The last line is the manifest. Nothing of an export may be left out, so an export
//! that was cut has no end, and one that was put together anew has no signature.

use std::io::Write as _;

use ring::digest::{Context, SHA256};

use super::chain::{ChainId, Hash, Head};
use super::event::Class;
use super::key::AuditKey;
use super::segment::WriterId;
use super::statement::{ChainState, CheckpointRef, Manifest, Mark, Statement};
use super::{hex, hex_into};

/// One event as the store has it.
#[derive(Clone, Debug)]
pub struct Stored<'a> {
    /// Its number in its chain.
    pub sequence: u64,
    /// Its time.
    pub time_us: u64,
    /// What the chain commits to.
    pub commitment: Hash,
    /// The link as it was stored.
    pub link: Hash,
    /// Salt and payload, unless they were erased.
    pub content: Option<([u8; 16], &'a str)>,
}

/// What an export covers.
#[derive(Clone, Debug, Default)]
pub struct Range {
    /// What was asked for, in words.
    pub filter: Option<String>,
    /// From this time on.
    pub from_us: Option<u64>,
    /// Before this time.
    pub to_us: Option<u64>,
}

/// Writes an export, line by line, into a buffer that its caller empties.
#[derive(Debug)]
pub struct Exporter {
    tenant: String,
    range: Range,
    digest: DigestOf,
    chains: Vec<ChainState>,
    events: u64,
    omitted: u64,
    erased: u64,
    checkpoint: Option<CheckpointRef>,
}

struct DigestOf(Context);

impl std::fmt::Debug for DigestOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DigestOf")
    }
}

impl Exporter {
    /// Begins the export of a tenant's events.
    pub fn new(tenant: &str, range: Range) -> Self {
        Self {
            tenant: tenant.to_owned(),
            range,
            digest: DigestOf(Context::new(&SHA256)),
            chains: Vec::new(),
            events: 0,
            omitted: 0,
            erased: 0,
            checkpoint: None,
        }
    }

    /// Begins a chain: `from` is the place behind which its events follow, `head` where it ends in the store.
    pub fn chain(&mut self, id: &ChainId, from: Head, head: Head) {
        self.chains.push(ChainState {
            writer: id.writer.to_string(),
            class: id.class.as_str().to_owned(),
            from: Mark::new(from.sequence, &from.link),
            to: Mark::new(from.sequence, &from.link),
            head: Some(Mark::new(head.sequence, &head.link)),
            time_us: None,
        });
    }

    /// The next event of the chain that was begun last. `shown`: whether the filter lets its payload through.
    pub fn event(&mut self, event: &Stored<'_>, shown: bool, out: &mut Vec<u8>) {
        let Some(chain) = self.chains.last_mut() else { return };
        let begin = out.len();
        let _ = write!(
            out,
            r#"{{"writer":"{}","class":"{}","seq":{},"time_us":{},"#,
            chain.writer, chain.class, event.sequence, event.time_us
        );
        match (event.content, shown) {
            (Some((salt, payload)), true) => {
                out.extend_from_slice(b"\"salt\":\"");
                hex_into(out, &salt);
                out.extend_from_slice(b"\",\"event\":");
                out.extend_from_slice(payload.as_bytes());
                out.extend_from_slice(b"}\n");
                self.events += 1;
            }
            (content, _) => {
                let why = if content.is_some() { "filter" } else { "erased" };
                if content.is_some() {
                    self.omitted += 1
                } else {
                    self.erased += 1
                }
                out.extend_from_slice(b"\"commitment\":\"");
                hex_into(out, &event.commitment);
                let _ = writeln!(out, r#"","omitted":"{why}"}}"#);
            }
        }
        chain.to = Mark::new(event.sequence, &event.link);
        self.digest.0.update(&out[begin..]);
    }

    /// A checkpoint of the store, as it was signed, and its number and hash.
    pub fn checkpoint(&mut self, line: &str, number: u64, hash: &Hash, out: &mut Vec<u8>) {
        let begin = out.len();
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
        self.checkpoint = Some(CheckpointRef { number, hash: hex(hash) });
        self.digest.0.update(&out[begin..]);
    }

    /// Ends the export.
    pub fn finish(self, key: &AuditKey, now_us: u64, out: &mut Vec<u8>) {
        let manifest = Statement::Manifest(Manifest {
            tenant: self.tenant,
            time_us: now_us,
            filter: self.range.filter,
            from_us: self.range.from_us,
            to_us: self.range.to_us,
            events: self.events,
            omitted: self.omitted,
            erased: self.erased,
            digest: hex(self.digest.0.finish().as_ref()),
            chains: self.chains,
            checkpoint: self.checkpoint,
        });
        out.extend_from_slice(manifest.sign(key).as_bytes());
        out.push(b'\n');
    }
}

/// Which chain a line belongs to.
pub(super) fn chain_of(tenant: &str, writer: &str, class: &str) -> Option<ChainId> {
    Some(ChainId {
        tenant: tenant.to_owned(),
        writer: writer.parse::<WriterId>().ok().filter(|w| w.to_string() == writer)?,
        class: Class::parse(class)?,
    })
}
