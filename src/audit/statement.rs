//! What is signed: checkpoints and the manifests of exports.
//!
//! A statement is one JSON line `{"statement":{…},"key":…,"signature":…}`. The signature covers the bytes of the inner
//! object as they stand, after a prefix that no other use of the key has. The key is named for convenience; whoever
//! verifies compares it with one that came by another way.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::chain::{Hash, sha256};
use super::event::Class;
use super::key::{AuditKey, PublicKey};
use super::unhex;

const DOMAIN: &[u8] = b"tollgate-audit-statement-1\n";

/// A place in a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// The event's number; 0: before the first.
    pub sequence: u64,
    /// Its link, in hexadecimal digits.
    pub link: String,
}

impl Mark {
    /// A place by its number and link.
    pub fn new(sequence: u64, link: &Hash) -> Self {
        Self { sequence, link: super::hex(link) }
    }

    pub(super) fn hash(&self) -> Option<Hash> {
        unhex(&self.link)
    }
}

/// What a statement says of one chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainState {
    /// Boot id of the writer.
    pub writer: String,
    /// `data` or `control`.
    pub class: String,
    /// Where what is there begins: behind this place. What came before was dropped by retention, or is not asked for.
    pub from: Mark,
    /// Where it ends. In a checkpoint: the head.
    pub to: Mark,
    /// In a manifest, the head, which lies behind `to` if the range ends earlier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Mark>,
    /// In a checkpoint, the time of the head, in microseconds since the Unix epoch. Older ones do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_us: Option<u64>,
}

/// What retention may have dropped: events before these times, in microseconds since the Unix epoch. 0: none.
///
/// Whoever signs knows it from the configuration, and not from the store: whoever has the store could say there that
/// everything is old.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Horizon {
    /// Of the class `control`.
    pub control_us: u64,
    /// Of the class `data`.
    pub data_us: u64,
}

impl Horizon {
    /// Of one class.
    pub fn of(&self, class: Class) -> u64 {
        match class {
            Class::Control => self.control_us,
            Class::Data => self.data_us,
        }
    }

    /// The later one of each: what was dropped once does not come back when events are kept longer.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { control_us: self.control_us.max(other.control_us), data_us: self.data_us.max(other.data_us) }
    }

    /// Checkpoints before this time go, but the last one of them: the earlier horizon of those classes that are dropped
    /// at all. 0: none go.
    pub fn of_checkpoints(&self) -> u64 {
        let some = [self.control_us, self.data_us].into_iter().filter(|time| *time > 0);
        some.min().unwrap_or(0)
    }
}

/// The heads of a tenant's chains at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Whose.
    pub tenant: String,
    /// Counted from 1, without gaps.
    pub number: u64,
    /// When, in microseconds since the Unix epoch.
    pub time_us: u64,
    /// Hash of the checkpoint before it.
    pub previous: Option<String>,
    /// What may be missing. Checkpoints of before it was said have every chain that there ever was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub horizon: Option<Horizon>,
    /// Every chain there is, but those of which every event is gone and lies before the horizon.
    pub chains: Vec<ChainState>,
}

/// How an export ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Whose events.
    pub tenant: String,
    /// When it was made, in microseconds since the Unix epoch.
    pub time_us: u64,
    /// What was asked for, in words of the API; events that do not match are in the file as header and commitment.
    pub filter: Option<String>,
    /// Events from this time on, in microseconds since the Unix epoch.
    pub from_us: Option<u64>,
    /// Events before this time.
    pub to_us: Option<u64>,
    /// Events with their payload.
    pub events: u64,
    /// Events that the filter left out.
    pub omitted: u64,
    /// Events whose payload was erased.
    pub erased: u64,
    /// SHA-256 of every byte of the file before this line.
    pub digest: String,
    /// Every chain the tenant has, also those without events in the file, but for those that the last checkpoint may do
    /// without.
    pub chains: Vec<ChainState>,
    /// The last checkpoint before the export.
    pub checkpoint: Option<CheckpointRef>,
}

/// Names a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointRef {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: String,
}

/// Either.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Statement {
    /// All heads at one moment.
    Checkpoint(Checkpoint),
    /// The end of an export.
    Manifest(Manifest),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed<'a> {
    #[serde(borrow)]
    statement: &'a RawValue,
    key: &'a str,
    signature: &'a str,
}

/// Why a statement is not to be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSigned {
    /// Signed with another key than the trusted one.
    #[error("signed with {0}, which is not the trusted key")]
    Key(String),
    /// Not a statement at all.
    #[error("not a signed statement")]
    Malformed,
    /// The signature does not fit.
    #[error("the signature does not fit what is signed")]
    Signature,
}

impl Statement {
    /// The statement as a signed line, without a newline.
    pub fn sign(&self, key: &AuditKey) -> String {
        let inner = serde_json::to_string(self).expect("statements have only text and numbers");
        let signature = key.sign(&[DOMAIN, inner.as_bytes()].concat());
        format!(
            r#"{{"statement":{inner},"key":"{}","signature":"{}"}}"#,
            key.public(),
            STANDARD.encode(signature)
        )
    }

    /// Reads a signed line; also gives the statement's hash, which the next checkpoint names.
    ///
    /// # Errors
    /// [`NotSigned`].
    pub fn verify(line: &str, trusted: &[PublicKey]) -> Result<(Self, Hash), NotSigned> {
        let signed: Signed<'_> = serde_json::from_str(line).map_err(|_| NotSigned::Malformed)?;
        let key: PublicKey = signed.key.parse().map_err(|_| NotSigned::Malformed)?;
        if !trusted.contains(&key) {
            return Err(NotSigned::Key(signed.key.to_owned()));
        }
        let inner = signed.statement.get();
        let signature = STANDARD.decode(signed.signature).map_err(|_| NotSigned::Malformed)?;
        if !key.verifies(&[DOMAIN, inner.as_bytes()].concat(), &signature) {
            return Err(NotSigned::Signature);
        }
        let statement = serde_json::from_str(inner).map_err(|_| NotSigned::Malformed)?;
        Ok((statement, hash_of(inner)))
    }
}

/// What a signed line says may be missing, if it is a checkpoint that says so. The signature is not looked at.
pub fn horizon_of(line: &str) -> Option<Horizon> {
    let signed: Signed<'_> = serde_json::from_str(line).ok()?;
    match serde_json::from_str(signed.statement.get()).ok()? {
        Statement::Checkpoint(checkpoint) => checkpoint.horizon,
        Statement::Manifest(_) => None,
    }
}

/// The hash of a signed line's statement.
pub fn statement_hash(line: &str) -> Option<Hash> {
    let signed: Signed<'_> = serde_json::from_str(line).ok()?;
    Some(hash_of(signed.statement.get()))
}

fn hash_of(inner: &str) -> Hash {
    sha256(&[DOMAIN, inner.as_bytes()])
}
