//! What one tenant's sessions add up to.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::base::TenantId;

/// Counts of one tenant. Shared by its records, so that nothing is looked up to count.
#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) id: TenantId,
    /// Records in the registry, and those about to be put in.
    pub(super) live: AtomicUsize,
    pub(super) tombstones: AtomicUsize,
    /// No record is made again for ids issued at or before this time (seconds since the Unix epoch): tombstones of that
    /// age were dropped for lack of room, so any of them may be a deleted session.
    floor: AtomicU64,
    /// Until then (seconds since the Unix epoch) nobody looks again for a session to evict: there was none.
    full_until: AtomicU64,
}

impl Tenant {
    pub(super) fn new(id: TenantId) -> Self {
        Self {
            id,
            live: AtomicUsize::new(0),
            tombstones: AtomicUsize::new(0),
            floor: AtomicU64::new(0),
            full_until: AtomicU64::new(0),
        }
    }

    /// Whether a session of that age may have been deleted and forgotten.
    pub(super) fn forgot(&self, issued_at: u64) -> bool {
        let floor = self.floor.load(Ordering::Acquire);
        floor != 0 && issued_at <= floor
    }

    pub(super) fn raise_floor(&self, issued_at: u64) {
        self.floor.fetch_max(issued_at, Ordering::AcqRel);
    }

    pub(super) fn is_full_at(&self, now: u64) -> bool {
        now < self.full_until.load(Ordering::Relaxed)
    }

    pub(super) fn set_full_until(&self, time: u64) {
        self.full_until.store(time, Ordering::Relaxed);
    }

    /// Whether the registry can forget the tenant.
    pub(super) fn is_idle(&self, oldest_possible: u64) -> bool {
        self.live.load(Ordering::Acquire) == 0
            && self.tombstones.load(Ordering::Acquire) == 0
            && self.floor.load(Ordering::Acquire) < oldest_possible
    }
}

/// Takes one of `cap` places; `false` if there is none.
pub(super) fn reserve(counter: &AtomicUsize, cap: usize) -> bool {
    counter.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < cap).then_some(n + 1)).is_ok()
}

pub(super) fn release(counter: &AtomicUsize) {
    counter.fetch_sub(1, Ordering::AcqRel);
}
