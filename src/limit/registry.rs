//! All buckets of the process.
//!
//! Buckets are found by a 128-bit hash of the limit's id and the key's parts, made with keys drawn at start: nobody
//! outside can choose keys that meet. The map is in shards. A request takes its shards' locks shared, for the length
//! of one look-up and one compare-and-swap; they are taken exclusively only to add a bucket, to sweep, and to convert
//! a bucket whose rate changed.
//!
//! Memory is bounded by `max_buckets`, [`BUCKET_BYTES`] each at worst. A bucket that is full again says nothing that a
//! missing one would not, so those may go: [`Buckets::sweep`] removes them from time to time, and a shard without room
//! first looks for them. **A bucket that is not full is never evicted**: otherwise a flood of new keys (many
//! addresses, say) would give callers that are out of tokens a fresh bucket. If there is no room at all, newcomers
//! share one bucket per limit, with the same rate, until room is made. Callers that already have a bucket notice nothing.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::RwLock;

use super::bucket::{Bucket, Taken, Wait};
use super::definition::{Backend, KeyPart, Limit, MAX_LIMITS, Priced, address_prefix};
use super::headers::{Quota, Refusal};
use super::leases::{Leases, Starved};
use super::mixed::Trips;
use crate::base::{Clock, Principal, PrincipalKind, Role};

/// How many buckets are kept unless told otherwise.
pub const DEFAULT_MAX_BUCKETS: usize = 1_000_000;

/// The memory of one bucket at worst: 32 bytes of key and state and one of the map, in a table that may just have
/// doubled. A million buckets are 38 to 76 MB.
pub const BUCKET_BYTES: usize = 76;

const SHARDS: usize = 256;

/// Shards swept by one call of [`Buckets::sweep`].
const SHARDS_PER_SWEEP: usize = 16;

/// A bucket goes only after it has been full for this long, so that one that was just added is not removed before its
/// first use.
const SWEEP_GRACE_NS: u64 = 1_000_000_000;

/// A shard without room is searched for full buckets at most this often: a flood must not turn every request into a
/// search.
const RESCAN_NS: u64 = 250_000_000;

/// The most limits with a shared bucket; beyond, limits share one another's.
const MAX_SHARED: usize = 65_536;

/// What is known about a request when its limits are checked.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The tenant's id.
    pub tenant: &'a str,
    /// The route's id.
    pub route: &'a str,
    /// The server's id, if the request is for one.
    pub server: Option<&'a str>,
    /// Who calls; `None` before that is known, which counts as anonymous.
    pub principal: Option<&'a Principal>,
    /// The client's address.
    pub ip: IpAddr,
    /// The JSON-RPC method, or the HTTP method of a request without a message.
    pub method: &'a str,
    /// The tool that is called, by its server's name for it.
    pub tool: Option<&'a str>,
}

/// The outcome of [`Buckets::check`].
#[derive(Clone, Debug)]
pub enum Decision<'a> {
    /// Tokens were taken from every limit that applies; the tightest, or `None` if none applies.
    Granted(Option<Quota<'a>>),
    /// Nothing was taken.
    Refused(Refusal<'a>),
    /// Nothing was taken: tokens of these keys have to be fetched before that can be said.
    Starved(Vec<Starved>),
}

/// The buckets of all limits. One per process; share it in an `Arc`.
#[derive(Debug)]
pub struct Buckets {
    clock: Clock,
    pub(super) leases: Leases,
    hashers: [ahash::RandomState; 2],
    shards: Box<[Shard]>,
    shared: RwLock<Map>,
    shard_room: usize,
    cursor: AtomicUsize,
    without_room: AtomicU64,
}

type Map = HashMap<u128, Bucket, BuildHasherDefault<KeyHasher>>;

#[derive(Debug, Default)]
struct Shard {
    map: RwLock<Map>,
    /// Not searched for full buckets before this time.
    rescan_at: AtomicU64,
}

/// One limit that applies to the request at hand.
#[derive(Clone, Copy)]
pub(super) struct Claim<'a> {
    pub(super) limit: &'a Limit,
    pub(super) priced: &'a Priced,
    pub(super) key: u128,
    pub(super) cost_ns: u64,
    taken: Taken,
    /// The key of the shared bucket that was used, if there was no room for an own one.
    shared: Option<u128>,
}

// === impl Buckets ===

impl Buckets {
    /// No buckets yet, and room for about `max_buckets` (rounded up to a multiple of the number of shards).
    pub fn new(clock: Clock, max_buckets: usize) -> Self {
        Self {
            clock,
            leases: Leases::default(),
            hashers: [ahash::RandomState::new(), ahash::RandomState::new()],
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            shared: RwLock::default(),
            shard_room: max_buckets.div_ceil(SHARDS).max(1),
            cursor: AtomicUsize::new(0),
            without_room: AtomicU64::new(0),
        }
    }

    /// Checks all limits that apply and takes from all of them or from none. `now_ns` is the monotonic clock's.
    ///
    /// Concurrent requests never get more than a limit allows. While one that will be refused holds what it is about
    /// to give back, another may be refused that would have fitted; that needs two limits, and both to be near empty.
    pub fn check<'a>(&self, now_ns: u64, limits: &'a [Arc<Limit>], facts: &Facts<'_>) -> Decision<'a> {
        self.run(now_ns, limits, facts, true)
    }

    /// What [`Buckets::check`] would say, without taking anything: for limiters of failed attempts, which count only
    /// what failed.
    pub fn peek<'a>(&self, now_ns: u64, limits: &'a [Arc<Limit>], facts: &Facts<'_>) -> Decision<'a> {
        self.run(now_ns, limits, facts, false)
    }

    /// Removes buckets that are full again from a part of the map; the next call goes on from there. Meant to be
    /// called about once a second; returns how many were removed.
    pub fn sweep(&self, now_ns: u64) -> usize {
        self.leases.sweep(now_ns, self.cursor.load(Ordering::Relaxed) / SHARDS_PER_SWEEP);
        let start = self.cursor.fetch_add(SHARDS_PER_SWEEP, Ordering::Relaxed);
        (start..start + SHARDS_PER_SWEEP)
            .map(|i| {
                let mut map = self.shards[i % SHARDS].map.write();
                let removed = remove_full(&mut map, now_ns);
                if map.len() < map.capacity() / 4 {
                    let room = map.len() * 2;
                    map.shrink_to(room);
                }
                removed
            })
            .sum()
    }

    /// How many buckets there are.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|s| s.map.read().len()).sum()
    }

    /// Whether there are no buckets.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many requests had to use a shared bucket since the start because there was no room for their own.
    pub fn without_room(&self) -> u64 {
        self.without_room.load(Ordering::Relaxed)
    }

    fn run<'a>(&self, now: u64, limits: &'a [Arc<Limit>], facts: &Facts<'_>, take: bool) -> Decision<'a> {
        let mut inline = [None; MAX_LIMITS];
        let mut heap;
        let claims: &mut [Option<Claim<'a>>] = if limits.len() <= MAX_LIMITS {
            &mut inline
        } else {
            heap = vec![None; limits.len()];
            &mut heap
        };
        let mut count = 0;
        for limit in limits {
            if limit.backend() != Backend::Local {
                return self.mixed(now, limits, facts, take, Trips::Possible);
            }
            if let Some(claim) = self.claim(limit, facts) {
                claims[count] = Some(claim);
                count += 1;
            }
        }
        self.settle(now, &mut claims[..count], take)
    }

    /// Whether and how a limit applies.
    pub(super) fn claim<'a>(&self, limit: &'a Limit, facts: &Facts<'_>) -> Option<Claim<'a>> {
        let priced = limit.rate(|| role_of(facts) as usize)?;
        let cost = limit.cost(facts.method, facts.tool);
        if cost == 0 {
            return None;
        }
        let key = self.key(limit, facts)?;
        // Compiling made sure that the cost is at most the burst, so this is at most the fill time.
        let cost_ns = u64::from(cost).saturating_mul(priced.rate.token_ns());
        Some(Claim { limit, priced, key, cost_ns, taken: Taken::default(), shared: None })
    }

    pub(super) fn settle<'a>(&self, now: u64, claims: &mut [Option<Claim<'a>>], take: bool) -> Decision<'a> {
        // With one limit, taking is checking.
        if (claims.len() > 1 || !take)
            && let Some(refusal) = self.refusal(now, claims)
        {
            return Decision::Refused(refusal);
        }
        let mut tightest: Option<Quota<'a>> = None;
        for i in 0..claims.len() {
            let Some(claim) = &mut claims[i] else { continue };
            let outcome = match take {
                true => self.take(now, claim),
                false => self.look(now, claim),
            };
            match outcome {
                Ok(taken) => {
                    claim.taken = taken;
                    let quota = Quota::new(claim.limit, claim.priced, taken.after, now);
                    if tightest.is_none_or(|t| quota.is_tighter(&t)) {
                        tightest = Some(quota);
                    }
                }
                Err(Wait(wait)) => {
                    let refusal = claim.refused(now, wait);
                    for taken in claims[..i].iter().flatten() {
                        self.give_back(now, taken);
                    }
                    return Decision::Refused(refusal);
                }
            }
        }
        Decision::Granted(tightest)
    }

    /// The refusal to wait longest for, if any limit refuses.
    pub(super) fn refusal<'a>(&self, now: u64, claims: &[Option<Claim<'a>>]) -> Option<Refusal<'a>> {
        let mut worst: Option<Refusal<'a>> = None;
        for claim in claims.iter().flatten() {
            if let Err(Wait(wait)) = self.look(now, claim) {
                let refusal = claim.refused(now, wait);
                if worst.is_none_or(|w| w.retry_after() < refusal.retry_after()) {
                    worst = Some(refusal);
                }
            }
        }
        worst
    }

    /// What taking would say.
    fn look(&self, now: u64, claim: &Claim<'_>) -> Result<Taken, Wait> {
        let rate = &claim.priced.rate;
        let shard = self.shard(claim.key);
        {
            let map = shard.map.read();
            if let Some(bucket) = map.get(&claim.key) {
                return bucket.peek(rate, now, claim.cost_ns);
            }
            if map.len() < self.shard_room {
                return Bucket::full(rate, now).peek(rate, now, claim.cost_ns);
            }
        }
        let shared = self.shared.read();
        match shared.get(&shared_key(&shared, claim.limit)) {
            Some(bucket) if now < shard.rescan_at.load(Ordering::Relaxed) => {
                bucket.peek(rate, now, claim.cost_ns)
            }
            _ => Bucket::full(rate, now).peek(rate, now, claim.cost_ns),
        }
    }

    fn take(&self, now: u64, claim: &mut Claim<'_>) -> Result<Taken, Wait> {
        let rate = &claim.priced.rate;
        let shard = self.shard(claim.key);
        if let Some(bucket) = shard.map.read().get(&claim.key)
            && bucket.fits(rate)
        {
            return bucket.take(now, claim.cost_ns, rate.fill_ns());
        }
        let mut map = shard.map.write();
        if !map.contains_key(&claim.key) && !shard.has_room(&mut map, self.shard_room, now) {
            drop(map);
            self.without_room.fetch_add(1, Ordering::Relaxed);
            let mut shared = self.shared.write();
            let key = shared_key(&shared, claim.limit);
            claim.shared = Some(key);
            return take_exclusively(&mut shared, key, claim, now);
        }
        take_exclusively(&mut map, claim.key, claim, now)
    }

    fn give_back(&self, now: u64, claim: &Claim<'_>) {
        let (map, key) = match claim.shared {
            Some(key) => (&self.shared, key),
            None => (&self.shard(claim.key).map, claim.key),
        };
        // A bucket that is gone was full, and one that was converted meanwhile counts in other units: nothing to add.
        if let Some(bucket) = map.read().get(&key)
            && bucket.fits(&claim.priced.rate)
        {
            bucket.give_back(claim.taken, now, claim.cost_ns, || self.clock.mono_ns());
        }
    }

    fn shard(&self, key: u128) -> &Shard {
        &self.shards[(key >> 120) as usize % SHARDS]
    }

    /// The bucket's key, or `None` if the request lacks a part of it.
    fn key(&self, limit: &Limit, facts: &Facts<'_>) -> Option<u128> {
        let [mut high, mut low] = [self.hashers[0].build_hasher(), self.hashers[1].build_hasher()];
        feed(&mut high, limit, facts)?;
        feed(&mut low, limit, facts)?;
        Some(u128::from(high.finish()) << 64 | u128::from(low.finish()))
    }
}

impl Shard {
    /// Whether one more bucket fits, after removing full ones if needed.
    fn has_room(&self, map: &mut Map, room: usize, now: u64) -> bool {
        if map.len() < room {
            return true;
        }
        if now < self.rescan_at.load(Ordering::Relaxed) {
            return false;
        }
        self.rescan_at.store(now.saturating_add(RESCAN_NS), Ordering::Relaxed);
        remove_full(map, now);
        map.len() < room
    }
}

impl<'a> Claim<'a> {
    fn refused(&self, now: u64, wait_ns: u64) -> Refusal<'a> {
        let rate = &self.priced.rate;
        // The debt follows from the wait: debt + cost = fill time + wait.
        let debt = rate.fill_ns().saturating_add(wait_ns).saturating_sub(self.cost_ns);
        Refusal::new(Quota::new(self.limit, self.priced, now.saturating_add(debt), now), wait_ns)
    }
}

/// The bucket that newcomers of a limit share when there is no room.
fn shared_key(shared: &Map, limit: &Limit) -> u128 {
    match shared.len() >= MAX_SHARED && !shared.contains_key(&limit.id()) {
        true => 0,
        false => limit.id(),
    }
}

/// Adds the bucket, or converts it to the rate at hand, and takes.
fn take_exclusively(map: &mut Map, key: u128, claim: &Claim<'_>, now: u64) -> Result<Taken, Wait> {
    let rate = &claim.priced.rate;
    let bucket = map.entry(key).or_insert_with(|| Bucket::full(rate, now));
    if !bucket.fits(rate) {
        bucket.reshape(rate, now);
    }
    bucket.take(now, claim.cost_ns, rate.fill_ns())
}

fn remove_full(map: &mut Map, now: u64) -> usize {
    let before = map.len();
    map.retain(|_, bucket| bucket.full_at().saturating_add(SWEEP_GRACE_NS) > now);
    before - map.len()
}

fn role_of(facts: &Facts<'_>) -> Role {
    facts.principal.map_or(Role::Anonymous, Principal::role)
}

/// Hashes the key's parts, each with its kind and, if it is text, its length, so that no two keys look the same.
pub(super) fn feed(hasher: &mut impl Hasher, limit: &Limit, facts: &Facts<'_>) -> Option<()> {
    hasher.write_u128(limit.id());
    for part in limit.key() {
        match part {
            KeyPart::Ip => address(hasher, facts.ip),
            KeyPart::Key => {
                let principal = facts.principal.filter(|p| p.kind == PrincipalKind::Key)?;
                // The stable id of a key is its own; the credential tells apart keys of one owner.
                identity(hasher, 1, principal);
                text(hasher, 2, principal.credential_id.as_deref().unwrap_or_default());
            }
            KeyPart::Principal => match facts.principal {
                Some(principal) if principal.kind != PrincipalKind::Anonymous => {
                    identity(hasher, 3, principal);
                }
                _ => address(hasher, facts.ip),
            },
            KeyPart::Role => hasher.write_u8(role_of(facts) as u8),
            KeyPart::Route => {
                text(hasher, 4, facts.tenant);
                text(hasher, 5, facts.route);
            }
            KeyPart::Server => {
                text(hasher, 6, facts.tenant);
                text(hasher, 7, facts.server?);
            }
            KeyPart::Tenant => text(hasher, 8, facts.tenant),
            KeyPart::Tool => text(hasher, 9, facts.tool?),
            KeyPart::User => {
                identity(hasher, 10, facts.principal.filter(|p| p.kind == PrincipalKind::User)?);
            }
        }
    }
    Some(())
}

fn identity(hasher: &mut impl Hasher, kind: u8, principal: &Principal) {
    text(hasher, kind, principal.tenant.as_str());
    text(hasher, kind, principal.id.as_str());
}

fn text(hasher: &mut impl Hasher, kind: u8, text: &str) {
    hasher.write_u64((text.len() as u64) << 8 | u64::from(kind));
    hasher.write(text.as_bytes());
}

fn address(hasher: &mut impl Hasher, ip: IpAddr) {
    match address_prefix(ip) {
        IpAddr::V4(ip) => hasher.write_u64(4 << 32 | u64::from(ip.to_bits())),
        IpAddr::V6(ip) => hasher.write_u128(ip.to_bits() | 6),
    }
}

/// The keys are hashes already.
#[derive(Default)]
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
