//! Requests that end before it is known who asks: told one by one up to a rate, and beyond it as counts.
//!
//! Anybody who reaches a listener can cause them, as fast as it answers. Were each an event of its own, a stranger could
//! fill the spool while the store is away. So a bucket of the process grants some of them events of their own, and the
//! others are added up by class, tenant, route, outcome and cause. A count becomes one event, at most once in an interval
//! and at most so many in one, however many tenants and routes there are: what is not told yet goes on counting.
//!
//! **Nothing is lost.** What finds no room in the spool stays counted. Beyond [`MAX_TALLIES`] the tenant and route of
//! further ones are given up, never their number.
//!
//! On the request path this is one atomic number and, beyond the rate, an addition under a short lock.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::event::{Class, Event};
use crate::base::Clock;

/// Most counts by tenant, route, outcome and cause. With all of them there is about a megabyte.
const MAX_TALLIES: usize = 4096;
const SHARDS: usize = 16;
const PER_SHARD: usize = MAX_TALLIES / SHARDS;
/// Stands between the parts of a key; no name has it.
const BETWEEN: char = '\0';
/// Whose log has what no tenant's has.
const NOBODYS: &str = "default";
/// The cause of what is counted without tenant and route.
const OTHER: &str = "other";

/// How many such requests have events of their own.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// So many in `per`.
    pub count: u64,
    /// The time.
    pub per: Duration,
    /// So many at once.
    pub burst: u64,
}

/// The bucket and the counts.
#[derive(Debug)]
pub(super) struct Unidentified {
    clock: Clock,
    /// When the bucket is full again, in monotonic nanoseconds: GCRA.
    full_at: AtomicU64,
    token_ns: u64,
    fill_ns: u64,
    hasher: ahash::RandomState,
    shards: [Mutex<Tallies>; SHARDS],
}

type Tallies = HashMap<Box<str>, Tally, ahash::RandomState>;

/// How many of a kind there were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tally {
    count: u64,
    since_us: u64,
    until_us: u64,
    duration_us: u64,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.count += other.count;
        self.since_us = self.since_us.min(other.since_us);
        self.until_us = self.until_us.max(other.until_us);
        self.duration_us = self.duration_us.saturating_add(other.duration_us);
    }
}

/// Requests of one kind that have no events of their own.
#[derive(Debug)]
pub(super) struct Untold {
    key: Box<str>,
    tally: Tally,
}

thread_local! {
    static KEY: RefCell<String> = const { RefCell::new(String::new()) };
}

impl Unidentified {
    pub(super) fn new(allowance: Allowance, clock: Clock) -> Self {
        let per = u64::try_from(allowance.per.as_nanos()).unwrap_or(u64::MAX);
        let token_ns = per.div_ceil(allowance.count.max(1)).max(1);
        Self {
            clock,
            full_at: AtomicU64::new(0),
            token_ns,
            fill_ns: token_ns.saturating_mul(allowance.burst.max(1)),
            hasher: ahash::RandomState::new(),
            shards: Default::default(),
        }
    }

    /// Takes an event out of the bucket.
    pub(super) fn take(&self) -> bool {
        let now = self.clock.mono_ns();
        let taken = |full_at: u64| {
            let next = full_at.max(now).saturating_add(self.token_ns);
            (next - now <= self.fill_ns).then_some(next)
        };
        self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }

    /// Counts a request in place of its event. `cause` is one of few.
    pub(super) fn count(&self, event: &Event<'_>, cause: &str) {
        let tally = Tally {
            count: 1,
            since_us: event.time_us,
            until_us: event.time_us,
            duration_us: event.duration_us.unwrap_or(0),
        };
        KEY.with_borrow_mut(|key| {
            key.clear();
            let status = event.status.unwrap_or(0);
            let (decision, outcome) = (event.decision.unwrap_or_default(), event.outcome.unwrap_or_default());
            let _ = write!(key, "{}\0{decision}\0{outcome}\0{status}\0", event.class.as_str());
            let _ = write!(key, "{cause}\0{}\0{}", event.tenant, event.route.unwrap_or_default());
            let mut shard = self.shard(key).lock();
            if let Some(known) = shard.get_mut(key.as_str()) {
                return known.add(tally);
            }
            if shard.len() < PER_SHARD {
                shard.insert(key.as_str().into(), tally);
                return;
            }
            drop(shard);
            self.put(Untold { key: crowd(key), tally });
        });
    }

    /// Adds to a count, also beyond the bound: what was counted before, and the few that stand for all others.
    pub(super) fn put(&self, untold: Untold) {
        let mut shard = self.shard(&untold.key).lock();
        match shard.get_mut(&untold.key) {
            Some(known) => known.add(untold.tally),
            None => drop(shard.insert(untold.key, untold.tally)),
        }
    }

    /// Takes out up to `most` counts, those that wait longest first. The others stay.
    pub(super) fn untold(&self, most: usize) -> Vec<Untold> {
        let mut all: Vec<Untold> = Vec::new();
        for shard in &self.shards {
            all.extend(shard.lock().drain().map(|(key, tally)| Untold { key, tally }));
        }
        if all.len() > most {
            all.sort_unstable_by_key(|untold| untold.tally.since_us);
            all.drain(most..).for_each(|untold| self.put(untold));
        }
        all
    }

    fn shard(&self, key: &str) -> &Mutex<Tallies> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }
}

impl Untold {
    /// The event that tells of them.
    pub(super) fn event(&self) -> Event<'_> {
        let mut parts = self.key.split(BETWEEN);
        let mut part = || parts.next().filter(|part| !part.is_empty());
        let class = part().and_then(Class::parse).unwrap_or(Class::Data);
        let (decision, outcome, status, cause) = (part(), part(), part(), part());
        let tenant = part().unwrap_or(NOBODYS);
        Event {
            route: part(),
            decision,
            outcome,
            status: status.and_then(|status| status.parse().ok()).filter(|status| *status != 0),
            reason: cause,
            duration_us: Some(self.tally.duration_us),
            count: Some(self.tally.count),
            since_us: Some(self.tally.since_us),
            ..Event::new(self.tally.until_us, tenant, class)
        }
    }

    /// How many requests.
    pub(super) fn requests(&self) -> u64 {
        self.tally.count
    }

    /// All of them in few counts, without tenants and routes.
    pub(super) fn crowded(all: Vec<Untold>) -> Vec<Untold> {
        let mut few = HashMap::<Box<str>, Tally>::new();
        for Untold { key, tally } in all {
            few.entry(crowd(&key)).and_modify(|known| known.add(tally)).or_insert(tally);
        }
        few.into_iter().map(|(key, tally)| Untold { key, tally }).collect()
    }
}

/// The key of what has lost its tenant, route and cause. There are as many as classes, outcomes and statuses.
fn crowd(key: &str) -> Box<str> {
    let kind: Vec<&str> = key.split(BETWEEN).take(4).collect();
    format!("{}\0{OTHER}\0{NOBODYS}\0", kind.join("\0")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unidentified(burst: u64) -> (Unidentified, Clock) {
        let clock = Clock::manual(1_000);
        let allowance = Allowance { count: 10, per: Duration::from_secs(1), burst };
        (Unidentified::new(allowance, clock.clone()), clock)
    }

    fn event<'a>(time_us: u64, tenant: &'a str, route: &'a str) -> Event<'a> {
        Event {
            route: Some(route),
            decision: Some("deny"),
            outcome: Some("unauthenticated"),
            status: Some(401),
            duration_us: Some(3),
            ..Event::new(time_us, tenant, Class::Data)
        }
    }

    #[test]
    fn the_bucket_grants_the_burst_and_then_the_rate() {
        let (own, clock) = unidentified(5);
        let granted = || (0..100).filter(|_| own.take()).count();
        assert_eq!(granted(), 5);
        clock.advance(Duration::from_millis(300));
        assert_eq!(granted(), 3);
        clock.advance(Duration::from_secs(3600));
        assert_eq!(granted(), 5);
    }

    #[test]
    fn a_kind_is_told_once_with_how_many_since_when() {
        let (own, _) = unidentified(1);
        for n in 0..7 {
            own.count(&event(100 + n, "acme", "weather"), "expired");
        }
        own.count(&event(200, "acme", "weather"), "missing");
        own.count(&event(200, "acme", "other"), "missing");
        let mut told = own.untold(usize::MAX);
        told.sort_by_key(|untold| std::cmp::Reverse(untold.requests()));
        assert_eq!(told.len(), 3);
        let first = told[0].event();
        assert_eq!((first.count, first.since_us, first.time_us), (Some(7), Some(100), 106));
        assert_eq!((first.tenant, first.route, first.reason), ("acme", Some("weather"), Some("expired")));
        assert_eq!((first.outcome, first.decision), (Some("unauthenticated"), Some("deny")));
        assert_eq!((first.status, first.duration_us, first.class), (Some(401), Some(21), Class::Data));
        assert!(own.untold(usize::MAX).is_empty(), "each once");
    }

    #[test]
    fn what_is_not_told_goes_on_counting_and_the_oldest_come_first() {
        let (own, _) = unidentified(1);
        let names: Vec<String> = (0..10).map(|n| format!("t{n}")).collect();
        for (n, name) in names.iter().enumerate() {
            own.count(&event(n as u64, name, "r"), "missing");
        }
        let first = own.untold(4);
        let mut tenants: Vec<&str> = first.iter().map(|untold| untold.event().tenant).collect();
        tenants.sort_unstable();
        assert_eq!(tenants, ["t0", "t1", "t2", "t3"]);
        own.count(&event(50, "t9", "r"), "missing");
        first.into_iter().for_each(|untold| own.put(untold));
        let rest = own.untold(usize::MAX);
        assert_eq!((rest.len(), rest.iter().map(Untold::requests).sum::<u64>()), (10, 11));
    }

    #[test]
    fn however_many_kinds_there_are_memory_is_bounded_and_none_is_lost() {
        let (own, _) = unidentified(1);
        let many = 3 * MAX_TALLIES as u64;
        for n in 0..many {
            own.count(&event(n, &format!("tenant-{n}"), "r"), "missing");
        }
        let told = own.untold(usize::MAX);
        assert!(told.len() <= MAX_TALLIES + 1, "{}", told.len());
        assert_eq!(told.iter().map(Untold::requests).sum::<u64>(), many);
        let few = Untold::crowded(told);
        let event = few[0].event();
        assert_eq!((few.len(), event.count), (1, Some(many)));
        assert_eq!((event.tenant, event.route, event.reason), ("default", None, Some("other")));
        assert_eq!((event.outcome, event.status), (Some("unauthenticated"), Some(401)));
    }

    #[test]
    fn threads_that_count_while_others_tell_lose_nothing() {
        let (own, _) = unidentified(1);
        let told = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let own = &own;
                scope.spawn(move || {
                    for n in 0..20_000 {
                        own.count(&event(n, if n % 2 == 0 { "a" } else { "b" }, "r"), "missing");
                        if n % 500 == thread {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..200 {
                    let some: u64 = own.untold(1).iter().map(Untold::requests).sum();
                    told.fetch_add(some, Ordering::Relaxed);
                    std::thread::yield_now();
                }
            });
        });
        let rest: u64 = own.untold(usize::MAX).iter().map(Untold::requests).sum();
        assert_eq!(told.load(Ordering::Relaxed) + rest, 80_000);
    }
}
