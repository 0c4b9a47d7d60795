//! A candidate beside the revision in force.

use std::sync::Arc;

use uuid::Uuid;

use crate::base::PrincipalId;
use crate::canary::{Chooser, Counts, Side};
use crate::snapshot::TenantSnapshot;

/// A compiled candidate, who is served it, and where calls of both sides are counted.
#[derive(Debug)]
pub struct Canary {
    id: Uuid,
    base: u64,
    candidate: Arc<TenantSnapshot>,
    chooser: Chooser,
    /// Outlives snapshots: a larger share starts no count again.
    counts: Arc<Counts>,
}

impl Canary {
    /// A candidate for a tenant that is at revision `base`.
    pub fn new(
        id: Uuid,
        base: u64,
        candidate: Arc<TenantSnapshot>,
        chooser: Chooser,
        counts: Arc<Counts>,
    ) -> Self {
        Self { id, base, candidate, chooser, counts }
    }

    /// Its id.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The revision that it stands beside.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// The candidate.
    pub fn candidate(&self) -> &Arc<TenantSnapshot> {
        &self.candidate
    }

    /// Where calls are counted.
    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// On which side a caller is.
    pub fn side(&self, principal: &PrincipalId, now_ms: u64) -> Side {
        self.chooser.side(principal.as_str(), now_ms)
    }
}
