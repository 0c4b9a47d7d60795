//! The files that hold what the store does not have yet.
//!
//! **Owner of state.** [`Spool`] owns the segments of this run. A thread of its own makes segments ahead of need and
//! another one syncs; the threads that record touch only memory.
//!
//! **Room.** Bytes that may be promised are counted in `credit`: each segment that is ready adds its size less the
//! longest record, because that much may stay unused at its end. A [`Credit`] is taken before a request reaches a
//! server and settled when its event is recorded. As long as records pay with credit, one that has it always finds
//! room: all that was promised is at most what the segments that are left can take whatever the sizes.
//!
//! **When the disk or the bound is reached** no segment can be made: credit runs out, [`Spool::admit`] fails and the
//! caller decides by [`OnFull`]. The thread tries again every second and at each release, so an operator only has to make
//! room. One line in the log when it begins and one when it ends.
//!
//! **A start without room** is one of these: what died with a full spool must be able to start, or nobody would ever drain
//! it. The first segment is made beyond the bound then, and nothing is promised of it until the folder is within the bound.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::{Condvar, Mutex};

use super::event::{MAX_ENCODED, MAX_PLAIN};
use super::group::Group;
use super::leftover::{lost, size_of};
use super::segment::{Position, Segment, WriterId};
use super::settings::{Durability, Full, OnFull, Settings, SpoolError};
use crate::base::mapped::{Next, Reading, footprint};

/// How long a thread sleeps at most before it looks again whether there is room.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// What one request without bodies may need.
const REQUEST: i64 = footprint(MAX_PLAIN) as i64;
/// What the lengths of two bodies take in a record.
const BODY_LENGTHS: usize = 8;
/// What the longest record needs; a segment cannot promise its last bytes.
const LONGEST: u64 = footprint(MAX_ENCODED);

/// A promise of room for one record. Given back when dropped.
#[derive(Debug)]
pub struct Credit {
    spool: Arc<Shared>,
    bytes: i64,
}

impl Drop for Credit {
    fn drop(&mut self) {
        self.spool.credit.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

/// How much is read at once, at most; one record is read however long it is.
#[derive(Clone, Copy, Debug)]
pub struct Most {
    /// Records.
    pub records: usize,
    /// Bytes of them.
    pub bytes: usize,
}

impl From<usize> for Most {
    /// So many records of any length.
    fn from(records: usize) -> Self {
        Self { records, bytes: usize::MAX }
    }
}

impl Most {
    /// What is left after a record; nothing if it was the last one.
    pub(crate) fn after(self, record: &[u8]) -> Self {
        match self.bytes.saturating_sub(record.len()) {
            0 => Self { records: 0, bytes: 0 },
            bytes => Self { records: self.records - 1, bytes },
        }
    }
}

/// The spool of this run. Cheap to clone; its threads end with the last clone.
#[derive(Clone, Debug)]
pub struct Spool(Arc<Owner>);

#[derive(Debug)]
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Release);
        self.0.wake_preparer();
        self.0.group.wake();
    }
}

#[derive(Debug)]
struct Shared {
    settings: Settings,
    writer: WriterId,
    /// Where records go.
    current: ArcSwap<Segment>,
    /// Bytes that may still be promised.
    credit: AtomicI64,
    files: Mutex<Files>,
    /// Bytes of all files in the folder, those of earlier runs included.
    taken: AtomicU64,
    failing: AtomicBool,
    /// The first segment lies beyond the bound, and may not be used yet.
    withheld: AtomicBool,
    stop: AtomicBool,
    prepare: (Mutex<bool>, Condvar),
    group: Group,
    /// Rings when room was made.
    room: tokio::sync::Notify,
}

#[derive(Debug)]
struct Files {
    /// Made, and not yet written to.
    ready: VecDeque<Arc<Segment>>,
    /// Every segment that has not been released, also those in `ready`.
    all: BTreeMap<u64, Arc<Segment>>,
    next_number: u64,
}

impl Spool {
    /// Makes the first segments and starts the threads. `taken`: bytes of what earlier runs left in the folder, as
    /// [`size_of`] counts them.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn open(settings: Settings, writer: WriterId, taken: u64) -> Result<Self, SpoolError> {
        let segment = settings.segment_size;
        if settings.max_size < 3 * segment || segment < 4 * LONGEST {
            return Err(SpoolError::TooSmall { segment: segment.max(4 * LONGEST) });
        }
        let failed = |source| SpoolError::Create { path: settings.dir.clone(), source };
        let first = Arc::new(Segment::create(&settings.dir, writer, 0, segment).map_err(failed)?);
        let files =
            Files { ready: VecDeque::new(), all: BTreeMap::from([(0, first.clone())]), next_number: 1 };
        let withheld = taken + segment > settings.max_size;
        let has_room = taken + 2 * segment <= settings.max_size;
        let shared = Arc::new(Shared {
            current: ArcSwap::new(first),
            credit: AtomicI64::new(if withheld { 0 } else { promised(segment) }),
            files: Mutex::new(files),
            taken: AtomicU64::new(taken + segment),
            failing: AtomicBool::new(false),
            withheld: AtomicBool::new(withheld),
            stop: AtomicBool::new(false),
            prepare: Default::default(),
            group: Group::new(),
            room: tokio::sync::Notify::new(),
            settings,
            writer,
        });
        // The second one before the first request: a start on a full disk is no start. What earlier runs left may leave no room
        // for it, though.
        let failed = |source| SpoolError::Create { path: shared.settings.dir.clone(), source };
        if has_room {
            shared.grow().map_err(failed)?;
        }
        let preparer = shared.clone();
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        thread("tg-audit-spool").spawn(move || preparer.keep_ready()).map_err(failed)?;
        if shared.settings.durability == Durability::Strict {
            let syncer = shared.clone();
            thread("tg-audit-sync")
                .spawn(move || {
                    syncer
                        .group
                        .run(|| syncer.stop.load(Ordering::Acquire), |oldest| syncer.sync_from(oldest));
                })
                .map_err(failed)?;
        }
        Ok(Self(Arc::new(Owner(shared))))
    }

    /// Whose records these are.
    pub fn writer(&self) -> WriterId {
        self.0.0.writer
    }

    /// What happens when there is no room.
    pub fn on_full(&self) -> OnFull {
        self.0.0.settings.on_full
    }

    /// When an event counts as recorded.
    pub fn durability(&self) -> Durability {
        self.0.0.settings.durability
    }

    /// Enlarges a promise, or makes one, to an event with so many bytes of bodies.
    ///
    /// # Errors
    /// There is no room; what was promised before still is.
    pub fn extend(&self, credit: &mut Option<Credit>, bodies: usize) -> Result<(), Full> {
        let wanted = footprint(MAX_PLAIN + bodies + BODY_LENGTHS) as i64;
        let have = credit.as_ref().map_or(0, |credit| credit.bytes);
        if wanted > have {
            let mut more = self.0.0.take(wanted - have)?;
            match credit {
                Some(credit) => credit.bytes += more.take_bytes(),
                None => *credit = Some(more),
            }
        }
        Ok(())
    }

    /// Promises room for one record without bodies.
    ///
    /// # Errors
    /// There is none.
    pub fn admit(&self) -> Result<Credit, Full> {
        self.0.0.take(REQUEST)
    }

    /// The same; where segments may still be made, waits a moment for one.
    ///
    /// # Errors
    /// There is no room.
    pub async fn admit_soon(&self, patience: Duration) -> Result<Credit, Full> {
        self.soon(patience, || self.admit()).await
    }

    /// The same for [`Self::extend`].
    ///
    /// # Errors
    /// There is no room; what was promised before still is.
    pub async fn extend_soon(
        &self,
        credit: &mut Option<Credit>,
        bodies: usize,
        patience: Duration,
    ) -> Result<(), Full> {
        self.soon(patience, || self.extend(credit, bodies)).await
    }

    async fn soon<T>(
        &self,
        patience: Duration,
        mut take: impl FnMut() -> Result<T, Full>,
    ) -> Result<T, Full> {
        let shared = &self.0.0;
        let until = tokio::time::Instant::now() + patience;
        loop {
            let room = shared.room.notified();
            if let Ok(taken) = take() {
                return Ok(taken);
            }
            if shared.failing.load(Ordering::Relaxed) || tokio::time::timeout_at(until, room).await.is_err() {
                return take();
            }
        }
    }

    /// Appends a record. It pays with `credit`, and with what else it needs if it is longer.
    ///
    /// # Errors
    /// There was no credit, or not enough, and there is no room.
    pub fn append(&self, record: &[u8], credit: Option<Credit>) -> Result<Position, Full> {
        let shared = &self.0.0;
        let length = footprint(record.len()) as i64;
        let mut credit = match credit {
            Some(credit) => credit,
            None => shared.take(length)?,
        };
        if length > credit.bytes {
            let mut more = shared.take(length - credit.bytes)?;
            credit.bytes += more.take_bytes();
        }
        // What is used is not given back.
        credit.bytes -= length;
        let position = shared.append(record);
        if position.is_err() {
            credit.bytes += length;
        }
        position
    }

    /// Waits until the record at `position` is on the disk, if that is what counts here.
    ///
    /// # Errors
    /// The disk failed.
    pub async fn durable(&self, position: Position) -> Result<(), Full> {
        let shared = &self.0.0;
        if shared.settings.durability == Durability::Process {
            return Ok(());
        }
        shared.group.wait(position.segment).await
    }

    /// Reads up to `max` from `from` on, in order: each record with its position and its salt. Returns where to go on.
    ///
    /// Where `from` lies in a file that is gone, it goes on with the first that there is, and says so: the store was
    /// restored, or failed over to a server that had not heard of the last transactions.
    pub fn read(
        &self,
        from: Position,
        max: impl Into<Most>,
        mut each: impl FnMut(Position, [u8; 16], &[u8]),
    ) -> Position {
        let mut at = from;
        let mut left = max.into();
        let mut open: Option<Arc<Segment>> = None;
        while left.records > 0 {
            if open.as_ref().is_none_or(|s| s.number != at.segment) {
                open = self.0.0.files.lock().all.range(at.segment..).next().map(|(_, s)| s.clone());
            }
            let Some(segment) = &open else { break };
            if segment.number > at.segment {
                lost(self.writer(), at, segment.number);
                at = Position { segment: segment.number, offset: 0 };
            }
            match segment.next(at.offset, Reading::Live) {
                Next::Record { payload, at: place, next, .. } => {
                    each(Position { offset: place, ..at }, segment.salt(place), payload);
                    at.offset = next;
                    left = left.after(payload);
                }
                Next::Pending => break,
                Next::End { .. } => at = Position { segment: at.segment + 1, offset: 0 },
            }
        }
        at
    }

    /// Everything before `to` is in the store: its files can go.
    pub fn release(&self, to: Position) {
        let shared = &self.0.0;
        let mut files = shared.files.lock();
        let kept = files.all.split_off(&to.segment);
        let gone = std::mem::replace(&mut files.all, kept);
        drop(files);
        for segment in gone.values() {
            if let Err(error) = std::fs::remove_file(&segment.path) {
                tracing::warn!(event = "audit_segment_not_removed", path = %segment.path.display(), %error);
                continue;
            }
            shared.give_back(segment.map.size());
        }
        if !gone.is_empty() {
            shared.wake_preparer();
        }
    }

    /// Bytes of an earlier run's files have been given back.
    pub fn released_elsewhere(&self, bytes: u64) {
        self.0.0.give_back(bytes);
        self.0.0.wake_preparer();
    }

    /// Where the next record will go, about.
    pub fn end(&self) -> Position {
        let current = self.0.0.current.load();
        Position { segment: current.number, offset: current.map.used() }
    }

    /// Whether there is no room, and none can be made.
    pub fn is_full(&self) -> bool {
        self.0.0.failing.load(Ordering::Relaxed)
    }

    /// Whether what waits for the store takes more than half of the room, and more than a spool that is empty.
    pub fn is_crowded(&self) -> bool {
        let settings = &self.0.0.settings;
        self.size() > (settings.max_size / 2).max(3 * settings.segment_size)
    }

    /// Promises room for so many bytes of records, to be given back when they are to be written.
    ///
    /// # Errors
    /// There is none.
    pub fn reserve(&self, bytes: u64) -> Result<Credit, Full> {
        self.0.0.take(i64::try_from(bytes).map_err(|_| Full)?)
    }

    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.0.0.taken.load(Ordering::Relaxed)
    }
}

impl Credit {
    fn take_bytes(&mut self) -> i64 {
        std::mem::take(&mut self.bytes)
    }
}

/// What a segment can promise.
fn promised(size: u64) -> i64 {
    (size.next_multiple_of(4096) - LONGEST) as i64
}

impl Shared {
    fn take(self: &Arc<Self>, bytes: i64) -> Result<Credit, Full> {
        let before = self.credit.fetch_sub(bytes, Ordering::Relaxed);
        let low = promised(self.settings.segment_size);
        if before >= low && before - bytes < low {
            self.wake_preparer();
        }
        if before < bytes {
            self.credit.fetch_add(bytes, Ordering::Relaxed);
            self.wake_preparer();
            return Err(Full);
        }
        Ok(Credit { spool: self.clone(), bytes })
    }

    fn append(&self, record: &[u8]) -> Result<Position, Full> {
        loop {
            let segment = self.current.load();
            if let Ok(offset) = segment.map.append(record) {
                return Ok(Position { segment: segment.number, offset });
            }
            let mut files = self.files.lock();
            // Somebody else may have moved on meanwhile.
            if self.current.load().number == segment.number {
                let Some(next) = files.ready.pop_front() else { return Err(Full) };
                self.current.store(next);
            }
        }
    }

    fn wake_preparer(&self) {
        *self.prepare.0.lock() = true;
        self.prepare.1.notify_one();
    }

    /// Another process of the folder may have made files that were not counted here: never below nothing.
    fn give_back(&self, bytes: u64) {
        let less = |taken: u64| Some(taken.saturating_sub(bytes));
        let _ = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Counts the folder anew: while one process hands over to another, both make and remove files.
    fn recount(&self) -> io::Result<u64> {
        let taken = size_of(&self.settings.dir)?;
        self.taken.store(taken, Ordering::Relaxed);
        Ok(taken)
    }

    /// Makes one more segment, or gives the first one free.
    fn grow(&self) -> io::Result<()> {
        let size = self.settings.segment_size;
        let taken = self.recount()?;
        let withheld = self.withheld.load(Ordering::Relaxed);
        let more = if withheld { 0 } else { size };
        if taken + more > self.settings.max_size {
            let limit = self.settings.max_size;
            return Err(io::Error::other(format!("audit.spool.max_size of {limit} bytes is reached")));
        }
        if withheld {
            self.withheld.store(false, Ordering::Relaxed);
            self.credit.fetch_add(promised(size), Ordering::Release);
            self.room.notify_waiters();
            return Ok(());
        }
        let number = self.files.lock().next_number;
        let segment = Arc::new(Segment::create(&self.settings.dir, self.writer, number, size)?);
        self.taken.fetch_add(size, Ordering::Relaxed);
        let mut files = self.files.lock();
        files.next_number += 1;
        files.all.insert(number, segment.clone());
        files.ready.push_back(segment);
        drop(files);
        // Only now: credit must never promise what is not there.
        self.credit.fetch_add(promised(size), Ordering::Release);
        self.room.notify_waiters();
        Ok(())
    }

    fn keep_ready(&self) {
        let low = promised(self.settings.segment_size);
        while !self.stop.load(Ordering::Acquire) {
            // What is wrong with the folder is said once a file is to be made.
            let _ = self.recount();
            while self.credit.load(Ordering::Relaxed) < low || self.files.lock().ready.is_empty() {
                match self.grow() {
                    Ok(()) => {
                        if self.failing.swap(false, Ordering::Relaxed) {
                            tracing::info!(event = "audit_spool_has_room");
                        }
                    }
                    Err(error) => {
                        if !self.failing.swap(true, Ordering::Relaxed) {
                            let on_full = match self.settings.on_full {
                                OnFull::Drop => "events will be lost",
                                OnFull::Refuse => "requests will be refused",
                            };
                            let bytes = self.taken.load(Ordering::Relaxed);
                            tracing::error!(event = "audit_spool_full", %error, bytes, on_full);
                        }
                        self.room.notify_waiters();
                        break;
                    }
                }
            }
            let mut asked = self.prepare.0.lock();
            if !*asked {
                self.prepare.1.wait_for(&mut asked, LOOK_AGAIN);
            }
            *asked = false;
        }
    }

    /// Whole segments: a record may lie before one that was synced long ago, and clean pages cost nothing.
    fn sync_from(&self, oldest: u64) -> io::Result<()> {
        let last = self.current.load().number;
        for number in oldest..=last {
            // A released one is in the store.
            let segment = self.files.lock().all.get(&number).cloned();
            if let Some(segment) = segment {
                segment.map.sync(0, segment.map.used())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "spool_tests.rs"]
mod tests;
