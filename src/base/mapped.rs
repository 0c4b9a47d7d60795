//! A file of fixed size, mapped into memory, that records are appended to without a system call.
//!
//! The only file of the crate with `unsafe`: everything that needs it for the audit spool is here, behind a safe API.
//!
//! **Layout.** One page of header (written once, before anybody else can see the file), then the data area: records
//! one after the other, each aligned to eight bytes: a state word, a checksum word, the payload, padding. The state
//! word is magic, state and payload length in one `u64`, so that one store publishes a record.
//!
//! **Writers** reserve with one `fetch_add` on a counter *in memory*, write the state word as *pending*, copy the
//! payload, write the checksum, and publish with a release store of the state word as *committed*. Whoever reserves past the end gets
//! [`Overflow`]; the first one to do so leaves an *end* mark.
//!
//! **Readers** walk the records from the start and see a record only once it is committed, so always in order and never
//! half of one. A file of a process that is gone is read with [`Reading::Dead`]: what was pending is skipped (the data
//! area is zeros where nothing was written, so the next state word is found), and a checksum keyed with a secret of
//! the file tells a record from what a torn write left behind.
//!
//! **Why a fault cannot happen.** The blocks are allocated (`fallocate`) before the file is mapped; the file is never
//! truncated by us, and it lies in a directory that only our user may write to. Running out of disk is an error of
//! [`Mapped::create`], never a `SIGBUS` later.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, fallocate};

/// Bytes of the header page.
pub const HEADER: usize = 4096;
/// Bytes of a record besides its payload.
pub const OVERHEAD: usize = 16;
/// Longest payload.
pub const MAX_PAYLOAD: usize = 256 * 1024;

const MAGIC: u64 = 0x7467 << 48;
const MAGIC_MASK: u64 = 0xffff << 48;
const STATE_MASK: u64 = 0xffff << 32;
const PENDING: u64 = 1 << 32;
const COMMITTED: u64 = 2 << 32;
const END: u64 = 3 << 32;

/// There is no room for the record in this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow;

/// Whether somebody may still be writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The writer is gone: what it did not commit is skipped.
    Dead,
    /// A record that is not committed yet will be.
    Live,
}

/// What lies at a place of the data area.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<'m> {
    /// A record, and where the one after it begins.
    Record {
        /// What was appended.
        payload: &'m [u8],
        /// Where this record begins.
        at: u64,
        /// Where the next one begins.
        next: u64,
        /// Records that were begun before this one and never committed.
        torn: u64,
    },
    /// Nothing yet.
    Pending,
    /// No record can come after this place.
    End {
        /// Records that were begun before the end and never committed.
        torn: u64,
    },
}

/// The file. Shared between threads as `Arc<Mapped>`.
#[derive(Debug)]
pub struct Mapped {
    map: MmapRaw,
    /// Next free place in the data area; past its end once the file is full.
    reserved: AtomicU64,
    size: u64,
    seed: u64,
    /// Kept for its advisory lock, and for syncing.
    file: File,
}

impl Mapped {
    /// Makes the file, with all its blocks, mode 0600. `size` bytes of data area; `seed` keys the checksums and should be random.
    ///
    /// # Errors
    /// The file exists, or there is no room for it. Nothing is left behind then.
    pub fn create(path: &Path, header: &[u8], size: u64, seed: u64) -> io::Result<Self> {
        let size = size.next_multiple_of(HEADER as u64);
        if header.len() > HEADER || size < 2 * (MAX_PAYLOAD + OVERHEAD) as u64 || size >= u64::from(u32::MAX)
        {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        let made = (|| {
            allocate(&file, HEADER as u64 + size)?;
            (&file).write_all(header)?;
            file.sync_all()?;
            if let Some(dir) = path.parent() {
                File::open(dir)?.sync_all()?;
            }
            Self::map(file, size, seed)
        })();
        if made.is_err() {
            let _ = std::fs::remove_file(path);
        }
        made
    }

    /// Opens a file of a process that is gone, for reading. Nothing can be appended to it. `seed` is taken from the header by the caller, who knows what is in it.
    ///
    /// # Errors
    /// The file cannot be read, or its length is none that [`Mapped::create`] gives.
    pub fn open(path: &Path, seed: impl FnOnce(&[u8]) -> u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let size = file.metadata()?.len().saturating_sub(HEADER as u64);
        if size == 0 || !size.is_multiple_of(HEADER as u64) || size >= u64::from(u32::MAX) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not the length of a segment"));
        }
        let mut mapped = Self::map(file, size, 0)?;
        mapped.seed = seed(mapped.header());
        *mapped.reserved.get_mut() = size + 1;
        Ok(mapped)
    }

    fn map(file: File, size: u64, seed: u64) -> io::Result<Self> {
        let length = HEADER + usize::try_from(size).map_err(|_| io::ErrorKind::InvalidInput)?;
        let map = MmapOptions::new().len(length).map_raw(&file)?;
        Ok(Self { map, reserved: AtomicU64::new(0), size, seed, file })
    }

    /// The header page.
    pub fn header(&self) -> &[u8] {
        // SAFETY: the page lies within the mapping, which lives as long as `self`. It is written by `create` through
        // the file before the mapping exists, and by nobody afterwards.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr(), HEADER) }
    }

    /// Bytes of the data area.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Takes the advisory lock of the file; `false` if another process has it. It ends with the process.
    ///
    /// # Errors
    /// The file system has no locks.
    pub fn lock(&self) -> io::Result<bool> {
        match rustix::fs::flock(&self.file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Appends one record; returns where it begins. No system call, no lock, no allocation.
    ///
    /// # Errors
    /// [`Overflow`]; nothing was appended.
    pub fn append(&self, payload: &[u8]) -> Result<u64, Overflow> {
        if payload.len() > MAX_PAYLOAD {
            return Err(Overflow);
        }
        let length = footprint(payload.len());
        // Once it is full, nobody may move the counter any more, or it would wrap after long enough.
        if self.reserved.load(Ordering::Relaxed) > self.size {
            return Err(Overflow);
        }
        let at = self.reserved.fetch_add(length, Ordering::Relaxed);
        if at + length > self.size {
            if at < self.size {
                self.word(at).store(MAGIC | END, Ordering::Release);
            }
            return Err(Overflow);
        }
        let state = MAGIC | payload.len() as u64;
        self.word(at).store(state | PENDING, Ordering::Relaxed);
        let place = HEADER + at as usize + OVERHEAD;
        // SAFETY: `at` came from `fetch_add` and `at + length <= size`, so `[at, at + length)` lies within the mapping
        // and was handed to this call alone. Readers look at these bytes only after the release store below.
        // `payload` cannot overlap: a `&[u8]` into the mapping is only ever given out for committed records.
        unsafe {
            std::ptr::copy_nonoverlapping(payload.as_ptr(), self.map.as_mut_ptr().add(place), payload.len());
        }
        self.word(at + 8).store(checksum(self.seed, at, payload), Ordering::Relaxed);
        self.word(at).store(state | COMMITTED, Ordering::Release);
        Ok(at)
    }

    /// How far the file is used, pending records included.
    pub fn used(&self) -> u64 {
        self.reserved.load(Ordering::Acquire).min(self.size)
    }

    /// What lies at `at`, which is 0 or the `next` of a record.
    pub fn next(&self, at: u64, reading: Reading) -> Next<'_> {
        let mut at = at.next_multiple_of(8);
        let mut torn = 0;
        loop {
            if at.saturating_add(OVERHEAD as u64) > self.size {
                return Next::End { torn };
            }
            let word = self.word(at).load(Ordering::Acquire);
            let length = (word & 0xffff_ffff) as usize;
            let fits = length <= MAX_PAYLOAD && at + footprint(length) <= self.size;
            match (word & MAGIC_MASK == MAGIC, word & STATE_MASK) {
                (true, END) => return Next::End { torn },
                (true, COMMITTED) if fits => {
                    let payload = self.payload(at, length);
                    let sum = self.word(at + 8).load(Ordering::Relaxed);
                    if sum == checksum(self.seed, at, payload) {
                        return Next::Record { payload, at, next: at + footprint(length), torn };
                    }
                    torn += 1;
                    // A dead writer's length may be as damaged as the rest; a live one's is not.
                    at += if reading == Reading::Live { footprint(length) } else { 8 };
                }
                _ if reading == Reading::Live => return Next::Pending,
                (true, PENDING) if fits => {
                    torn += 1;
                    at += footprint(length);
                }
                // Reserved and not begun, or what a power failure left: the next record is somewhere behind.
                _ => at += 8,
            }
        }
    }

    fn payload(&self, at: u64, length: usize) -> &[u8] {
        let place = HEADER + at as usize + OVERHEAD;
        debug_assert!(place + length <= HEADER + self.size as usize);
        // SAFETY: the caller has checked that the record lies within the mapping and has seen it committed with an
        // acquire load, which orders these reads behind the writer's copy. Committed records are never written again.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(place), length) }
    }

    fn word(&self, at: u64) -> &AtomicU64 {
        assert!(at.is_multiple_of(8) && at + 8 <= self.size, "a word of the data area");
        // SAFETY: the word lies within the mapping (asserted) and is aligned (the mapping begins at a page, `HEADER`
        // and `at` are multiples of eight). State and checksum words are only ever accessed as atomics: `append` hands
        // payload bytes to one writer, and `next` takes a word for a state word only where a record can begin.
        unsafe { &*self.map.as_mut_ptr().add(HEADER + at as usize).cast::<AtomicU64>() }
    }

    /// Waits until the data area from `from` to `to` is on the disk.
    ///
    /// # Errors
    /// The disk failed; what is in memory is still there, but a power failure would lose it.
    pub fn sync(&self, from: u64, to: u64) -> io::Result<()> {
        let to = to.min(self.size);
        if from < to {
            self.map.flush_range(HEADER + from as usize, (to - from) as usize)?;
        }
        Ok(())
    }
}

/// Bytes that a payload of this length takes.
pub const fn footprint(payload: usize) -> u64 {
    (OVERHEAD + payload).next_multiple_of(8) as u64
}

/// Not a cryptographic checksum: it tells a whole record from a torn one. Keyed, so that nobody can put what looks
/// like a record into a payload.
fn checksum(seed: u64, at: u64, payload: &[u8]) -> u64 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |a: u64, b: u64| {
        let wide = u128::from(a ^ K) * u128::from(b ^ seed.rotate_left(32));
        (wide as u64) ^ (wide >> 64) as u64
    };
    let mut state = mix(seed ^ at, payload.len() as u64);
    let mut chunks = payload.chunks_exact(16);
    for chunk in &mut chunks {
        let (a, b) = chunk.split_at(8);
        let a = u64::from_le_bytes(a.try_into().expect("eight bytes"));
        let b = u64::from_le_bytes(b.try_into().expect("eight bytes"));
        state = mix(a ^ state, b).wrapping_add(state.rotate_left(23));
    }
    let mut tail = [0; 16];
    tail[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    let (a, b) = tail.split_at(8);
    let a = u64::from_le_bytes(a.try_into().expect("eight bytes"));
    let b = u64::from_le_bytes(b.try_into().expect("eight bytes"));
    mix(a ^ state, b)
}

/// Takes blocks for the whole file, so that writing to them cannot run out of space.
fn allocate(file: &File, length: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, length) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            // No such call on this file system: zeros take the blocks as well, only slower.
            let zeros = vec![0; 64 * 1024];
            let mut left = length;
            let mut file = file;
            while left > 0 {
                let n = left.min(zeros.len() as u64);
                file.write_all(&zeros[..n as usize])?;
                left -= n;
            }
            io::Seek::rewind(&mut file)
        }
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _, SeekFrom};
    use std::sync::Arc;

    use super::*;

    const SIZE: u64 = 1024 * 1024;

    fn make() -> (tempfile::TempDir, std::path::PathBuf, Mapped) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.seg");
        let mapped = Mapped::create(&path, b"header", SIZE, 7).unwrap();
        (dir, path, mapped)
    }

    fn all(mapped: &Mapped, reading: Reading) -> (Vec<Vec<u8>>, u64, bool) {
        let (mut at, mut found, mut lost) = (0, Vec::new(), 0);
        loop {
            match mapped.next(at, reading) {
                Next::Record { payload, next, torn, .. } => {
                    found.push(payload.to_vec());
                    lost += torn;
                    at = next;
                }
                Next::Pending => return (found, lost, false),
                Next::End { torn } => return (found, lost + torn, true),
            }
        }
    }

    #[test]
    fn what_is_appended_is_read_in_order_also_by_another_mapping() {
        let (_dir, path, mapped) = make();
        assert_eq!(mapped.next(0, Reading::Live), Next::Pending);
        let records: Vec<Vec<u8>> = (0..100u8).map(|i| vec![i; usize::from(i)]).collect();
        for record in &records {
            mapped.append(record).unwrap();
        }
        assert_eq!(all(&mapped, Reading::Live), (records.clone(), 0, false));
        drop(mapped);
        let again = Mapped::open(&path, |header| {
            assert_eq!(&header[..6], b"header");
            7
        })
        .unwrap();
        assert_eq!(all(&again, Reading::Dead), (records, 0, true));
        assert_eq!(again.append(b"x"), Err(Overflow), "a file of the past takes nothing");
    }

    #[test]
    fn blocks_are_allocated_ahead_and_the_mode_is_ours_alone() {
        use std::os::unix::fs::MetadataExt as _;
        let (_dir, path, _mapped) = make();
        let meta = std::fs::metadata(path).unwrap();
        assert!(meta.blocks() * 512 >= SIZE, "{} blocks", meta.blocks());
        assert_eq!(meta.mode() & 0o777, 0o600);
    }

    #[test]
    fn a_full_file_says_so_and_ends() {
        let (_dir, _path, mapped) = make();
        let record = vec![1; 100_000];
        let mut n = 0;
        while mapped.append(&record).is_ok() {
            n += 1;
        }
        assert_eq!(n, SIZE as usize / 100_016);
        // Nothing shorter slips in behind the end mark, or order would be lost.
        assert_eq!(mapped.append(b"small"), Err(Overflow));
        let (found, torn, ended) = all(&mapped, Reading::Live);
        assert_eq!((found.len(), torn, ended), (n, 0, true));
    }

    #[test]
    fn many_writers_lose_nothing_and_a_reader_sees_whole_records_only() {
        let (_dir, _path, mapped) = make();
        let mapped = Arc::new(mapped);
        let writers: Vec<_> = (0..4u8)
            .map(|w| {
                let mapped = mapped.clone();
                std::thread::spawn(move || {
                    for i in 0..2000u32 {
                        let mut record = vec![w; 40 + (i % 17) as usize];
                        record[..4].copy_from_slice(&i.to_le_bytes());
                        mapped.append(&record).unwrap();
                    }
                })
            })
            .collect();
        let mut seen = [0u32; 4];
        let (mut at, mut total) = (0, 0);
        while total < 8000 {
            if let Next::Record { payload, next, .. } = mapped.next(at, Reading::Live) {
                let writer = payload[5];
                assert!(payload[4..].iter().all(|b| *b == writer), "half a record");
                let number = u32::from_le_bytes(payload[..4].try_into().unwrap());
                assert_eq!(number, seen[usize::from(writer)], "out of order");
                seen[usize::from(writer)] += 1;
                total += 1;
                at = next;
            }
        }
        for writer in writers {
            writer.join().unwrap();
        }
    }

    /// A process that dies between any two of a writer's steps, and a power failure that lost a page.
    #[test]
    fn torn_records_are_skipped_and_the_rest_is_found() {
        let (_dir, path, mapped) = make();
        let places: Vec<u64> = (0..6u8).map(|i| mapped.append(&[i; 50]).unwrap()).collect();
        drop(mapped);
        let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mut put = |at: u64, bytes: &[u8]| {
            file.seek(SeekFrom::Start(HEADER as u64 + at)).unwrap();
            file.write_all(bytes).unwrap();
        };
        // Reserved only: all zeros. Pending: the state word and half the payload. Damaged: one byte of it.
        put(places[1], &[0; footprint(50) as usize]);
        put(places[3], &(MAGIC | PENDING | 50).to_le_bytes());
        put(places[3] + 40, &[0; 20]);
        put(places[4] + 20, &[9]);
        let mapped = Mapped::open(&path, |_| 7).unwrap();
        let (found, torn, ended) = all(&mapped, Reading::Dead);
        assert_eq!(found, [vec![0; 50], vec![2; 50], vec![5; 50]]);
        assert!(ended && torn == 2, "{torn}");
    }

    #[test]
    fn a_payload_that_looks_like_a_record_is_not_taken_for_one() {
        let (_dir, path, mapped) = make();
        let mut fake = [0; 64];
        fake[..8].copy_from_slice(&(MAGIC | COMMITTED | 8).to_le_bytes());
        fake[8..16].copy_from_slice(&checksum(0, 16, &[0; 8]).to_le_bytes());
        let at = mapped.append(&fake).unwrap();
        mapped.append(b"after").unwrap();
        drop(mapped);
        let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        file.seek(SeekFrom::Start(HEADER as u64 + at)).unwrap();
        file.write_all(&[0; 8]).unwrap();
        let mapped = Mapped::open(&path, |_| 7).unwrap();
        assert_eq!(all(&mapped, Reading::Dead).0, [b"after".to_vec()]);
    }

    #[test]
    fn sync_puts_records_where_a_reader_of_the_file_finds_them() {
        let (_dir, path, mapped) = make();
        mapped.append(b"needle").unwrap();
        mapped.sync(0, mapped.used()).unwrap();
        let mut bytes = Vec::new();
        File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
        assert!(bytes.windows(6).any(|w| w == b"needle"));
    }

    #[test]
    fn only_one_process_has_the_lock() {
        let (_dir, path, mapped) = make();
        assert!(mapped.lock().unwrap());
        // Another open file description stands for another process.
        let other = Mapped::open(&path, |_| 7).unwrap();
        assert!(!other.lock().unwrap());
        drop(mapped);
        assert!(other.lock().unwrap());
    }
}
