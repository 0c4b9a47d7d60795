//! The session records of one replica.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use ahash::{HashMap, HashMapExt as _};
use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc;

use super::limits::{Counts, Limits, Swept, TenantCounts, Tombstone, TouchError};
use super::record::Record;
use super::tenant::{Tenant, release, reserve};
use super::{Binding, Serial, SessionToken};
use crate::base::{Clock, TenantId};

/// Locks are per shard, so that requests of different sessions rarely meet.
const SHARDS: usize = 64;
/// When a cap is reached, this part of it is freed at once: looking for the least recently used costs a walk over all
/// records, and so costs each new session only a few of them.
const EVICT_PART: usize = 64;
/// How long after a walk that found nothing to evict the next is not tried, in seconds.
const FULL_FOR: u64 = 1;
/// How far replicas' clocks may differ, in seconds: a tombstone outlives its id by that.
const SKEW: u64 = 300;

#[derive(Debug)]
enum Slot {
    Live(Arc<Record>),
    Tombstone { tenant: Arc<Tenant>, issued_at: u64 },
}

type Shard = Mutex<HashMap<Serial, Slot>>;

/// The registry.
///
/// **Invariants.** A serial has a record or a tombstone, never both. A tenant's count of records never exceeds its cap. A
/// record leaves the registry only when no stream of it is open, or when the session ends. No lock is held while another
/// shard's is taken.
///
/// **Cost.** [`Sessions::touch`] of a known session takes one shard's lock for a lookup and a count; a new one also takes
/// a read lock on the list of tenants.
#[derive(Debug)]
pub struct Sessions {
    shards: Box<[Shard]>,
    tenants: RwLock<HashMap<TenantId, Arc<Tenant>>>,
    total: AtomicUsize,
    limits: Limits,
    clock: Clock,
    /// Who writes down what ends here.
    ended: OnceLock<mpsc::Sender<Tombstone>>,
}

impl Sessions {
    /// An empty registry.
    pub fn new(limits: Limits, clock: Clock) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(HashMap::new())).collect(),
            tenants: RwLock::new(HashMap::new()),
            total: AtomicUsize::new(0),
            limits,
            clock,
            ended: OnceLock::new(),
        }
    }

    /// The bounds.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The record of a session whose id has just been opened or made; it is made if there is none.
    ///
    /// # Errors
    /// [`TouchError`].
    pub fn touch(&self, token: &SessionToken<'_>, binding: Binding<'_>) -> Result<Arc<Record>, TouchError> {
        let now = self.clock.unix_secs();
        let known =
            self.shard(token.serial).lock().get(&token.serial).map(|slot| Self::current(slot, binding, now));
        // The lock is released here: making a record takes it again.
        known.unwrap_or_else(|| self.insert(token, binding, now))
    }

    /// Ends a session at its client's wish. From now on its id is [`TouchError::Gone`], also if there was no record. Gives
    /// the record, for its upstream sessions.
    pub fn delete(&self, token: &SessionToken<'_>, binding: Binding<'_>) -> Option<Arc<Record>> {
        let tomb =
            Tombstone { tenant: binding.tenant.clone(), serial: token.serial, issued_at: token.issued_at };
        self.announce(&tomb);
        self.bury(&tomb)
    }

    /// Ends a tenant's session at an operator's wish; `None` if the tenant has no such record.
    pub fn close(&self, tenant: &TenantId, serial: Serial) -> Option<Arc<Record>> {
        let issued_at = match self.shard(serial).lock().get(&serial) {
            Some(Slot::Live(record)) if record.tenant() == tenant => record.created(),
            _ => return None,
        };
        let tomb = Tombstone { tenant: tenant.clone(), serial, issued_at };
        self.announce(&tomb);
        self.bury(&tomb)
    }

    /// Says from now on what ends here, at a client's or an operator's wish. Only the first call counts.
    pub fn announce_to(&self, writer: mpsc::Sender<Tombstone>) {
        let _ = self.ended.set(writer);
    }

    fn announce(&self, tomb: &Tombstone) {
        let Some(writer) = self.ended.get() else { return };
        if writer.try_send(tomb.clone()).is_err() {
            tracing::warn!(event = "session_end_not_spread", tenant = %tomb.tenant, serial = %tomb.serial);
        }
    }

    /// Ends all sessions that `which` chooses, for example those of a principal whose access was revoked.
    pub fn close_where(&self, which: impl Fn(&Record) -> bool) -> Vec<Arc<Record>> {
        let chosen = self.list(usize::MAX, which);
        chosen.iter().filter_map(|r| self.close(r.tenant(), r.serial())).collect()
    }

    /// Takes over that a session has ended: from another replica, or from the store after a restart. Gives the record if
    /// there was one.
    pub fn bury(&self, tomb: &Tombstone) -> Option<Arc<Record>> {
        let now = self.clock.unix_secs();
        if self.is_dead(tomb.issued_at, now) {
            return self.take_live(tomb.serial);
        }
        self.in_tenant(&tomb.tenant, |tenant| {
            if !reserve(&tenant.tombstones, self.limits.tombstones_per_tenant) {
                self.forget_tombstones(tenant);
                if !reserve(&tenant.tombstones, self.limits.tombstones_per_tenant) {
                    tenant.raise_floor(tomb.issued_at);
                    return self.take_live(tomb.serial);
                }
            }
            let slot = Slot::Tombstone { tenant: tenant.clone(), issued_at: tomb.issued_at };
            match self.shard(tomb.serial).lock().insert(tomb.serial, slot) {
                None => None,
                Some(Slot::Live(record)) => Some(self.ended(record)),
                Some(Slot::Tombstone { tenant, .. }) => {
                    release(&tenant.tombstones);
                    None
                }
            }
        })
    }

    /// Up to `limit` records that `which` chooses, in no order.
    pub fn list(&self, limit: usize, which: impl Fn(&Record) -> bool) -> Vec<Arc<Record>> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let live = shard.values().filter_map(|slot| match slot {
                Slot::Live(record) if which(record) => Some(record.clone()),
                _ => None,
            });
            found.extend(live.take(limit - found.len()));
            if found.len() == limit {
                break;
            }
        }
        found
    }

    /// All tombstones, to write them down.
    pub fn tombstones(&self) -> Vec<Tombstone> {
        let mut found = Vec::new();
        for shard in &self.shards {
            for (serial, slot) in shard.lock().iter() {
                if let Slot::Tombstone { tenant, issued_at } = slot {
                    let tenant = tenant.id.clone();
                    found.push(Tombstone { tenant, serial: *serial, issued_at: *issued_at });
                }
            }
        }
        found
    }

    /// How many there are.
    pub fn counts(&self) -> Counts {
        let tombstones = self.tenants.read().values().map(|t| t.tombstones.load(Ordering::Relaxed)).sum();
        Counts { live: self.total.load(Ordering::Relaxed), tombstones }
    }

    /// How many there are of each tenant.
    pub fn counts_by_tenant(&self) -> Vec<TenantCounts> {
        let of = |t: &Arc<Tenant>| TenantCounts {
            tenant: t.id.clone(),
            counts: Counts {
                live: t.live.load(Ordering::Relaxed),
                tombstones: t.tombstones.load(Ordering::Relaxed),
            },
        };
        self.tenants.read().values().map(of).collect()
    }

    /// Drops what is over: sessions of age, records nobody uses, tombstones nobody needs, tenants without any. To be
    /// called every minute or so.
    pub fn sweep(&self) -> Swept {
        let now = self.clock.unix_secs();
        let mut swept = Swept::default();
        for shard in &self.shards {
            shard.lock().retain(|_, slot| match slot {
                Slot::Live(record) if now.saturating_sub(record.created()) > self.limits.max_age => {
                    swept.expired.push(self.ended(record.clone()));
                    false
                }
                Slot::Live(record) => {
                    let idle = now.saturating_sub(record.last_seen()) >= self.limits.idle;
                    if idle && record.retire_if_idle() {
                        self.uncount(record);
                        swept.idle.push(record.clone());
                        return false;
                    }
                    true
                }
                Slot::Tombstone { tenant, issued_at } if self.is_dead(*issued_at, now) => {
                    release(&tenant.tombstones);
                    swept.tombstones += 1;
                    false
                }
                Slot::Tombstone { .. } => true,
            });
        }
        let oldest = now.saturating_sub(self.limits.max_age).saturating_sub(SKEW);
        // Nobody begins to count in a tenant without the read lock, so nobody counts in one that is dropped here.
        self.tenants.write().retain(|_, tenant| !tenant.is_idle(oldest));
        swept
    }

    fn current(slot: &Slot, binding: Binding<'_>, now: u64) -> Result<Arc<Record>, TouchError> {
        match slot {
            // The id opened for this binding, so another one means that two serials collided. Nobody gets to see
            // another's session by that.
            Slot::Live(record) if record.belongs_to(binding) => {
                record.seen_at(now);
                Ok(record.clone())
            }
            Slot::Live(_) | Slot::Tombstone { .. } => Err(TouchError::Gone),
        }
    }

    fn insert(
        &self,
        token: &SessionToken<'_>,
        binding: Binding<'_>,
        now: u64,
    ) -> Result<Arc<Record>, TouchError> {
        if self.is_dead(token.issued_at, now) {
            return Err(TouchError::Gone);
        }
        self.in_tenant(binding.tenant, |tenant| {
            self.reserve(tenant, now)?;
            let streams = self.limits.streams_per_session;
            let record = Arc::new(Record::new(token, binding, tenant.clone(), now, streams));
            let mut shard = self.shard(token.serial).lock();
            // Asked under the lock: a tombstone that went between the caller's look and now raised the floor before.
            let there = match shard.get(&token.serial) {
                Some(slot) => Self::current(slot, binding, now),
                None if tenant.forgot(token.issued_at) => Err(TouchError::Gone),
                None => {
                    shard.insert(token.serial, Slot::Live(record.clone()));
                    return Ok(record);
                }
            };
            self.uncount(&record);
            there
        })
    }

    /// Runs `f` for a tenant, which is added if it is new. Nobody forgets the tenant meanwhile.
    fn in_tenant<T>(&self, id: &TenantId, f: impl FnOnce(&Arc<Tenant>) -> T) -> T {
        loop {
            if let Some(tenant) = self.tenants.read().get(id) {
                return f(tenant);
            }
            self.tenants.write().entry(id.clone()).or_insert_with(|| Arc::new(Tenant::new(id.clone())));
        }
    }

    /// Counts one more record of the tenant, making room if there is none.
    fn reserve(&self, tenant: &Arc<Tenant>, now: u64) -> Result<(), TouchError> {
        let room = |counter: &AtomicUsize, cap: usize, of: Option<&Arc<Tenant>>| {
            reserve(counter, cap) || (self.evict(tenant, of, cap, now) > 0 && reserve(counter, cap))
        };
        if !room(&tenant.live, self.limits.per_tenant, Some(tenant)) {
            return Err(TouchError::TenantFull);
        }
        if !room(&self.total, self.limits.total, None) {
            release(&tenant.live);
            return Err(TouchError::TotalFull);
        }
        Ok(())
    }

    /// Drops the least recently used records without streams: of one tenant, or of all. How many it dropped.
    fn evict(&self, asking: &Tenant, of: Option<&Arc<Tenant>>, cap: usize, now: u64) -> usize {
        if asking.is_full_at(now) {
            return 0;
        }
        let mine = |r: &Record| of.is_none_or(|t| Arc::ptr_eq(t, r.tenant_counts()));
        let mut idle: Vec<(u64, Serial)> = Vec::new();
        for shard in &self.shards {
            idle.extend(shard.lock().values().filter_map(|slot| match slot {
                Slot::Live(record) if record.streams() == 0 && mine(record) => {
                    Some((record.last_seen(), record.serial()))
                }
                _ => None,
            }));
        }
        let want = (cap / EVICT_PART).max(1).min(idle.len());
        if want > 0 && want < idle.len() {
            idle.select_nth_unstable(want - 1);
        }
        let mut dropped = 0;
        for (_, serial) in &idle[..want] {
            let mut shard = self.shard(*serial).lock();
            if let Some(Slot::Live(record)) = shard.get(serial)
                && record.retire_if_idle()
            {
                self.uncount(record);
                shard.remove(serial);
                dropped += 1;
            }
        }
        if dropped == 0 {
            asking.set_full_until(now + FULL_FOR);
        }
        dropped
    }

    /// Drops the oldest tombstones of a tenant. What is as old and has no record counts as deleted from then on.
    fn forget_tombstones(&self, of: &Arc<Tenant>) {
        let mut tombs: Vec<(u64, Serial)> = Vec::new();
        for shard in &self.shards {
            tombs.extend(shard.lock().iter().filter_map(|(serial, slot)| match slot {
                Slot::Tombstone { tenant, issued_at } if Arc::ptr_eq(tenant, of) => {
                    Some((*issued_at, *serial))
                }
                _ => None,
            }));
        }
        let want = (self.limits.tombstones_per_tenant / EVICT_PART).max(1).min(tombs.len());
        if want > 0 && want < tombs.len() {
            tombs.select_nth_unstable(want - 1);
        }
        for (issued_at, serial) in &tombs[..want] {
            // First the floor, then the tombstone: there is no moment at which the session could come back.
            of.raise_floor(*issued_at);
            let mut shard = self.shard(*serial).lock();
            if matches!(shard.get(serial), Some(Slot::Tombstone { .. })) {
                shard.remove(serial);
                release(&of.tombstones);
            }
        }
    }

    /// Takes a record out without leaving a tombstone: its id is dead by itself.
    fn take_live(&self, serial: Serial) -> Option<Arc<Record>> {
        let mut shard = self.shard(serial).lock();
        if !matches!(shard.get(&serial), Some(Slot::Live(_))) {
            return None;
        }
        match shard.remove(&serial) {
            Some(Slot::Live(record)) => Some(self.ended(record)),
            _ => None,
        }
    }

    fn ended(&self, record: Arc<Record>) -> Arc<Record> {
        self.uncount(&record);
        record.close();
        record
    }

    fn uncount(&self, record: &Record) {
        release(&record.tenant_counts().live);
        release(&self.total);
    }

    /// Whether an id issued then opens nowhere any more.
    fn is_dead(&self, issued_at: u64, now: u64) -> bool {
        now.saturating_sub(issued_at) > self.limits.max_age + SKEW
    }

    fn shard(&self, serial: Serial) -> &Shard {
        // Serials are random, and nobody outside can choose one.
        &self.shards[serial.0 as usize % SHARDS]
    }
}
