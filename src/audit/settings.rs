//! How a spool is kept, and what it can say no with.

use std::io;
use std::path::PathBuf;

/// When an event counts as recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// When it is in memory that outlives the process.
    Process,
    /// When it is on the disk.
    Strict,
}

/// What becomes of requests when there is no room for their events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFull {
    /// They go on, and their events are lost and counted.
    Drop,
    /// They are refused.
    Refuse,
}

/// How a spool is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Folder of the segments.
    pub dir: PathBuf,
    /// Bytes that all segments in the folder may take.
    pub max_size: u64,
    /// Bytes of one segment.
    pub segment_size: u64,
    /// When an event counts as recorded.
    pub durability: Durability,
    /// What happens when there is no room.
    pub on_full: OnFull,
}

/// The spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The folder or its first files cannot be made.
    #[error("cannot make the audit spool in {path}: {source}")]
    Create {
        /// Which folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The bound is below what a spool needs.
    #[error("audit.spool.max_size: needs room for at least three segments of {segment} bytes")]
    TooSmall {
        /// Bytes of one segment.
        segment: u64,
    },
}

/// There is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the audit spool is full")]
pub struct Full;
