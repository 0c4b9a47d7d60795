//! The leases of this replica, by key, and who is waiting for one.
//!
//! A lease may be forgotten at any time: what it held lapses on the shared server as if it had not been spent, so no
//! flood of keys can make anybody's bucket fuller. The map is bounded and drops idle leases first.
//!
//! The trip that fetches tokens is somebody else's work (`shared`): [`Starved`] says what is missing, and
//! [`Starved::begin`] lets one of all who wait for a key make the trip. Whoever has been told to must end it by
//! [`Errand::land`]; dropping the [`Errand`] counts as a failure, so nobody waits for a trip that is gone.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::definition::Limit;
use super::lease::{Ask, Grant, Held};
use super::rate::Rate;
use super::registry::KeyHasher;
use crate::base::Clock;

const SHARDS: usize = 64;
/// Keys of shared limits remembered at a time, in all shards.
const MAX_LEASES: usize = 262_144;
/// A lease that holds nothing is forgotten after this time without use.
const IDLE_NS: u64 = 10_000_000_000;
/// Keys that may wait to be fetched ahead of need.
const MAX_LOW: usize = 1_024;

/// After a trip that failed, the same key is not tried again for this long.
pub const FAILED_FOR: Duration = Duration::from_millis(500);

/// Names a shared bucket on every replica: a digest of the limit and of the key's parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SharedKey(pub(crate) [u8; 16]);

impl SharedKey {
    /// The digest.
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// One key's tokens here.
#[derive(Debug)]
pub(crate) struct Lease {
    key: SharedKey,
    held: Mutex<Held>,
    landed: Arc<Notify>,
    /// When the last trip failed; 0 if it did not.
    failed: AtomicU64,
}

/// A key without tokens for a request: the trip that is needed.
#[derive(Clone, Debug)]
pub struct Starved {
    lease: Arc<Lease>,
    rate: Rate,
    cost_ns: u64,
    limit: Arc<str>,
}

/// A trip that has to be made, and must be reported.
#[derive(Debug)]
pub struct Errand {
    starved: Starved,
    ask: Ask,
    clock: Clock,
    done: bool,
}

/// All leases of the process.
#[derive(Debug)]
pub(super) struct Leases {
    shards: Box<[RwLock<Map>]>,
    /// Keys whose tokens run out soon.
    low: Mutex<Vec<Starved>>,
    pub(super) runs_low: Notify,
}

type Map = HashMap<u128, Arc<Lease>, BuildHasherDefault<KeyHasher>>;

impl Default for Leases {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            low: Mutex::default(),
            runs_low: Notify::new(),
        }
    }
}

impl Leases {
    /// The lease of a local key, made with the shared one if there is none.
    pub(super) fn get(&self, key: u128, now: u64, shared: impl FnOnce() -> SharedKey) -> Arc<Lease> {
        let shard = &self.shards[(key >> 120) as usize % SHARDS];
        if let Some(lease) = shard.read().get(&key) {
            return lease.clone();
        }
        let mut map = shard.write();
        if map.len() >= MAX_LEASES / SHARDS {
            forget_idle(&mut map, now);
        }
        if map.len() >= MAX_LEASES / SHARDS
            && let Some(any) = map.keys().next().copied()
        {
            map.remove(&any);
        }
        map.entry(key).or_insert_with(|| Arc::new(Lease::new(shared()))).clone()
    }

    /// Forgets what is idle in one shard; the next call may name the next.
    pub(super) fn sweep(&self, now: u64, turn: usize) -> usize {
        let mut map = self.shards[turn % SHARDS].write();
        let before = map.len();
        forget_idle(&mut map, now);
        before - map.len()
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|s| s.read().len()).sum()
    }

    /// Has more tokens fetched before the last is gone. Past the bound the key does without.
    pub(super) fn fetch_ahead(&self, starved: Starved) {
        let mut low = self.low.lock();
        if low.len() < MAX_LOW && !low.iter().any(|s| Arc::ptr_eq(&s.lease, &starved.lease)) {
            low.push(starved);
            drop(low);
            self.runs_low.notify_one();
        }
    }

    pub(super) fn take_low(&self) -> Vec<Starved> {
        std::mem::take(&mut *self.low.lock())
    }
}

impl Lease {
    fn new(key: SharedKey) -> Self {
        Self { key, held: Mutex::default(), landed: Arc::default(), failed: AtomicU64::new(0) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock()
    }
}

impl Starved {
    pub(super) fn new(lease: Arc<Lease>, limit: &Limit, rate: &Rate, cost_ns: u64) -> Self {
        Self { lease, rate: *rate, cost_ns, limit: limit.shared_name() }
    }

    /// The limit's name.
    pub fn limit(&self) -> &str {
        &self.limit
    }

    /// Joins the trip of this key: completes when it is over. An [`Errand`] means that the caller has to make it.
    pub fn begin(&self, clock: &Clock) -> (OwnedNotified, Option<Errand>) {
        let mut held = self.lease.lock();
        // Registered under the lock under which trips end: no end is missed.
        let landed = self.lease.landed.clone().notified_owned();
        let ask = held.begin(clock.mono_ns(), &self.rate, self.cost_ns);
        drop(held);
        (landed, ask.map(|ask| Errand { starved: self.clone(), ask, clock: clock.clone(), done: false }))
    }

    /// Whether a trip of this key has just failed, so that another would be in vain.
    pub fn has_failed(&self, clock: &Clock) -> bool {
        let failed = self.lease.failed.load(Ordering::Relaxed);
        failed != 0 && u128::from(clock.mono_ns().saturating_sub(failed)) < FAILED_FOR.as_nanos()
    }
}

impl Errand {
    /// Which bucket.
    pub fn key(&self) -> &SharedKey {
        &self.starved.lease.key
    }

    /// What to ask for.
    pub fn ask(&self) -> &Ask {
        &self.ask
    }

    /// The reply to what was sent at `sent` (monotonic).
    pub fn land(mut self, sent: u64, grant: &Grant) {
        self.done = true;
        let lease = &self.starved.lease;
        let mut held = lease.lock();
        held.land(sent, self.clock.mono_ns(), &self.ask, grant);
        lease.failed.store(0, Ordering::Relaxed);
        lease.landed.notify_waiters();
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        if !self.done {
            let lease = &self.starved.lease;
            let mut held = lease.lock();
            let now = self.clock.mono_ns();
            held.fail(now);
            lease.failed.store(now.max(1), Ordering::Relaxed);
            lease.landed.notify_waiters();
        }
    }
}

fn forget_idle(map: &mut Map, now: u64) {
    // Leases that somebody holds are in use.
    map.retain(|_, lease| {
        Arc::strong_count(lease) > 1 || !lease.lock().is_idle(now, now.saturating_sub(IDLE_NS))
    });
}
