//! One file of the spool: its name, its header, and the secret that salts come from.
//!
//! The name is `<writer>-<number>.seg`. The header page says the same, and holds the secret: 32 random bytes that key
//! the checksums of the records and, together with a record's position, give the salt of its commitment. So draining a
//! segment twice gives the same salts, and once the file is gone nobody can compute them.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ring::rand::{SecureRandom as _, SystemRandom};
use sha2::{Digest as _, Sha256};

use crate::base::mapped::{Mapped, Next, Reading};

const MAGIC: &[u8; 8] = b"TGSPOOL1";
const SUFFIX: &str = ".seg";
const NAMED: usize = 32;

/// Which run of which replica wrote a record: the process's boot id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WriterId([u8; 16]);

impl WriterId {
    /// An id for this run, ordered by time.
    pub fn fresh() -> Self {
        Self(uuid::Uuid::now_v7().into_bytes())
    }

    /// From the bytes of a UUID.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes of the UUID.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).simple().fmt(f)
    }
}

impl fmt::Debug for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for WriterId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        uuid::Uuid::from_str(text).map(|id| Self(id.into_bytes()))
    }
}

/// A place in a writer's spool. What lies before it has been dealt with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// Which segment, counted from 0.
    pub segment: u64,
    /// Where in its data area.
    pub offset: u64,
}

/// One file.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) map: Mapped,
    secret: [u8; 32],
}

impl Segment {
    /// Makes segment `number` of `writer` in `dir`.
    pub(super) fn create(dir: &Path, writer: WriterId, number: u64, size: u64) -> io::Result<Self> {
        let path = dir.join(format!("{writer}-{number:08}{SUFFIX}"));
        let mut secret = [0; 32];
        SystemRandom::new().fill(&mut secret).map_err(|_| io::Error::other("no random bytes"))?;
        let mut header = Vec::with_capacity(64);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(writer.as_bytes());
        header.extend_from_slice(&number.to_le_bytes());
        header.extend_from_slice(&secret);
        let map = Mapped::create(&path, &header, size, seed(&secret))?;
        map.lock()?;
        Ok(Self { number, path, map, secret })
    }

    /// Opens a segment that an earlier run left. `None`: its writer is alive.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        let map = Mapped::open(path, |header| seed(&secret_of(header)))?;
        let header = map.header();
        let named = parse_name(path);
        let is_ours = &header[..8] == MAGIC;
        let writer: [u8; 16] = header[8..24].try_into().expect("sixteen bytes");
        let number = u64::from_le_bytes(header[24..32].try_into().expect("eight bytes"));
        if !is_ours || named != Some((WriterId(writer), number)) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a segment of the spool"));
        }
        let secret = secret_of(header);
        Ok(map.lock()?.then(|| Self { number, path: path.to_owned(), map, secret }))
    }

    /// What lies at `offset`.
    pub(super) fn next(&self, offset: u64, reading: Reading) -> Next<'_> {
        self.map.next(offset, reading)
    }

    /// The salt of the record at `offset`: the same whenever it is asked for, and not to be guessed.
    pub(super) fn salt(&self, offset: u64) -> [u8; 16] {
        let digest = Sha256::new()
            .chain_update(self.secret)
            .chain_update(self.number.to_le_bytes())
            .chain_update(offset.to_le_bytes())
            .finalize();
        let mut salt = [0; 16];
        salt.copy_from_slice(&digest[..16]);
        salt
    }
}

fn secret_of(header: &[u8]) -> [u8; 32] {
    header[32..64].try_into().expect("32 bytes")
}

/// Keys the checksums. Another part of the secret than what a salt shows could not be had from it anyway, but the
/// checksum is no cryptographic function: it gets a value that is used for nothing else.
fn seed(secret: &[u8; 32]) -> u64 {
    let digest = Sha256::new().chain_update(b"checksum").chain_update(secret).finalize();
    u64::from_le_bytes(digest[..8].try_into().expect("eight bytes"))
}

/// Writer and number of a segment's file name.
pub(super) fn parse_name(path: &Path) -> Option<(WriterId, u64)> {
    let name = path.file_name()?.to_str()?.strip_suffix(SUFFIX)?;
    let (writer, number) = name.split_at_checked(NAMED)?;
    Some((writer.parse().ok()?, number.strip_prefix('-')?.parse().ok()?))
}
