//! What earlier runs left in the folder of the spool.
//!
//! Each segment is locked by the process that writes it; a lock that can be had means that the process is gone. A record
//! that was not committed when it died was never acknowledged, and is skipped: the same ones whenever the file is read.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::segment::{Position, Segment, WriterId, parse_name};
use super::spool::Most;
use crate::base::mapped::{HEADER, Next, Reading};

/// The segments of a writer that is gone, locked until dropped.
#[derive(Debug)]
pub struct Leftover {
    writer: WriterId,
    segments: Vec<Segment>,
}

/// Finds what writers other than `own` left in `dir`, oldest writer first, and the bytes of all their files. What
/// belongs to a process that still runs is counted and otherwise left alone.
///
/// # Errors
/// The folder cannot be read.
pub fn leftovers(dir: &Path, own: Option<WriterId>) -> io::Result<(Vec<Leftover>, u64)> {
    let mut by_writer: BTreeMap<WriterId, Vec<PathBuf>> = BTreeMap::new();
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        let Some((writer, _)) = parse_name(&path) else { continue };
        if own == Some(writer) {
            continue;
        }
        bytes += data(&entry)?;
        by_writer.entry(writer).or_default().push(path);
    }
    let mut found = Vec::new();
    for (writer, mut paths) in by_writer {
        paths.sort();
        let mut segments = Vec::new();
        let mut alive = false;
        for path in paths {
            match Segment::open(&path) {
                Ok(Some(segment)) => segments.push(segment),
                Ok(None) => alive = true,
                Err(error) => {
                    // Out of the way, so that it is reported once, and kept, so that somebody can look at it.
                    let kept = path.with_extension("damaged");
                    tracing::error!(event = "audit_segment_damaged", path = %path.display(), kept = %kept.display(), %error);
                    let _ = std::fs::rename(&path, kept);
                }
            }
        }
        if !alive && !segments.is_empty() {
            found.push(Leftover { writer, segments });
        }
    }
    Ok((found, bytes))
}

/// Removes the files of writers that are gone and never wrote: a run that found no room makes one and ends.
///
/// # Errors
/// The folder cannot be read.
pub fn remove_unused(dir: &Path) -> io::Result<()> {
    let mut by_writer: BTreeMap<WriterId, Vec<PathBuf>> = BTreeMap::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if let Some((writer, _)) = parse_name(&path) {
            by_writer.entry(writer).or_default().push(path);
        }
    }
    for mut paths in by_writer.into_values() {
        paths.sort();
        // Segments are filled one after the other. What cannot be opened is reported by whoever drains it.
        let first = paths.first().and_then(|path| Segment::open(path).ok().flatten());
        if first.is_some_and(|s| s.number == 0 && s.next(0, Reading::Dead) == Next::End { torn: 0 }) {
            for path in paths {
                std::fs::remove_file(path)?;
            }
        }
    }
    Ok(())
}

/// Bytes of all segments in `dir`, without their headers.
///
/// # Errors
/// The folder cannot be read.
pub fn size_of(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if parse_name(&entry.path()).is_some() {
            bytes += data(&entry)?;
        }
    }
    Ok(bytes)
}

/// Bytes of a segment without its header; none of one that another process removes meanwhile.
fn data(entry: &std::fs::DirEntry) -> io::Result<u64> {
    match entry.metadata() {
        Ok(meta) => Ok(meta.len().saturating_sub(HEADER as u64)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Says that what lies between `at` and a later segment is gone.
pub(super) fn lost(writer: WriterId, at: Position, next: u64) {
    tracing::error!(
        event = "audit_events_lost",
        %writer,
        from_segment = at.segment,
        to_segment = next,
        "these events are in no file any more: one was damaged, or the store went back to an earlier state (restored, failed over)"
    );
}

impl Leftover {
    /// Whose they are.
    pub fn writer(&self) -> WriterId {
        self.writer
    }

    /// Bytes of the files, as [`size_of`] counts them.
    pub fn size(&self) -> u64 {
        self.segments.iter().map(|s| s.map.size()).sum()
    }

    /// Reads up to `max` from `from` on, in order: each record with its position and its salt. Returns where to go on, and
    /// whether that is the end. `torn` grows by the records that were never committed.
    pub fn read(
        &self,
        from: Position,
        max: impl Into<Most>,
        torn: &mut u64,
        mut each: impl FnMut(Position, [u8; 16], &[u8]),
    ) -> (Position, bool) {
        let mut at = from;
        let mut left = max.into();
        for segment in self.segments.iter().filter(|s| s.number >= from.segment) {
            if segment.number > at.segment {
                lost(self.writer, at, segment.number);
                at = Position { segment: segment.number, offset: 0 };
            }
            loop {
                if left.records == 0 {
                    return (at, false);
                }
                match segment.next(at.offset, Reading::Dead) {
                    Next::Record { payload, at: place, next, torn: lost } => {
                        *torn += lost;
                        each(Position { offset: place, ..at }, segment.salt(place), payload);
                        at.offset = next;
                        left = left.after(payload);
                    }
                    Next::End { torn: lost } => {
                        *torn += lost;
                        at = Position { segment: segment.number + 1, offset: 0 };
                        break;
                    }
                    // Only a live segment has more to come.
                    Next::Pending => return (at, true),
                }
            }
        }
        (at, true)
    }

    /// Removes the files: everything is in the store. Returns their bytes.
    pub fn remove(self) -> u64 {
        let bytes = self.size();
        for segment in self.segments {
            if let Err(error) = std::fs::remove_file(&segment.path) {
                tracing::warn!(event = "audit_segment_not_removed", path = %segment.path.display(), %error);
            }
        }
        bytes
    }
}
