//! What the registry is asked for and what it answers with.

use std::sync::Arc;

use super::{Record, Serial};
use crate::base::TenantId;

/// The bounds of a [`super::Sessions`]. Times are in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Records in all.
    pub total: usize,
    /// Records of one tenant.
    pub per_tenant: usize,
    /// Tombstones of one tenant. Over it the oldest are dropped, and with them the chance to make records again that
    /// are as old.
    pub tombstones_per_tenant: usize,
    /// Streams of one session that are open at a time.
    pub streams_per_session: u32,
    /// A record unused for so long, without an open stream, is dropped. The session goes on: its next request makes the
    /// record again.
    pub idle: u64,
    /// The age at which a session ends.
    pub max_age: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            total: 200_000,
            per_tenant: 100_000,
            tombstones_per_tenant: 100_000,
            streams_per_session: 64,
            idle: 30 * 60,
            max_age: 24 * 3600,
        }
    }
}

/// A session has no record and gets none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TouchError {
    /// The session was deleted or closed, or may have been. Answer 404.
    #[error("the session has ended")]
    Gone,
    /// The tenant has as many sessions as it may have, all of them with open streams. Answer 503 or 429; the same id may
    /// work later.
    #[error("the tenant has too many sessions")]
    TenantFull,
    /// The replica has as many sessions as it can have.
    #[error("there are too many sessions")]
    TotalFull,
}

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records.
    pub live: usize,
    /// Deleted sessions that are remembered.
    pub tombstones: usize,
}

/// [`Counts`] of one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantCounts {
    /// The tenant.
    pub tenant: TenantId,
    /// Its counts.
    pub counts: Counts,
}

/// A deleted session, as other replicas and the store need to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// Whose it was.
    pub tenant: TenantId,
    /// Which one it was.
    pub serial: Serial,
    /// When its id was issued, in seconds since the Unix epoch.
    pub issued_at: u64,
}

/// What a sweep dropped.
#[derive(Debug, Default)]
pub struct Swept {
    /// Sessions that came of age. They are closed; their upstream sessions can be ended.
    pub expired: Vec<Arc<Record>>,
    /// Records nobody used. Their sessions go on.
    pub idle: Vec<Arc<Record>>,
    /// How many tombstones were no longer needed.
    pub tombstones: usize,
}
