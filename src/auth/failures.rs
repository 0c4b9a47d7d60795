//! A limiter on failed attempts, by client address.
//!
//! A table of fixed size: sets of eight slots, an address maps to one set through a keyed hash. When a set is full, the
//! slot with the fewest recent failures makes room, so a flood from many addresses cannot grow memory and at worst
//! makes the limiter forget; it never refuses an address that did not fail. IPv6 clients are counted by their /64,
//! because one host owns all of it.

use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;

use crate::base::Clock;

const WAYS: usize = 8;

/// How many failures are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureBounds {
    /// Failures at once before an address is refused; at least 1.
    pub burst: u32,
    /// How long until one failure is forgotten; at least 1 ms.
    pub forget_one: Duration,
    /// How many addresses are remembered, rounded up to a multiple of 8. 16 bytes each.
    pub addresses: usize,
}

impl Default for FailureBounds {
    /// 20 failures, one forgotten each 3 s, 65,536 addresses (1.1 MiB).
    fn default() -> Self {
        Self { burst: 20, forget_one: Duration::from_secs(3), addresses: 65_536 }
    }
}

/// Counts failed attempts. Shared by all tenants; survives reloads.
pub struct FailureLimiter {
    clock: Clock,
    hasher: ahash::RandomState,
    sets: Box<[Mutex<[Slot; WAYS]>]>,
    interval_ns: u64,
    window_ns: u64,
}

/// GCRA: `until` is when all failures will be forgotten. 0 is an empty slot.
#[derive(Clone, Copy, Default)]
struct Slot {
    tag: u64,
    until: u64,
}

impl FailureLimiter {
    /// An empty table.
    pub fn new(bounds: FailureBounds, clock: Clock) -> Self {
        let interval_ns = (bounds.forget_one.as_nanos() as u64).max(1_000_000);
        let sets = bounds.addresses.div_ceil(WAYS).max(1);
        Self {
            clock,
            hasher: ahash::RandomState::new(),
            sets: (0..sets).map(|_| Mutex::default()).collect(),
            interval_ns,
            window_ns: interval_ns.saturating_mul(u64::from(bounds.burst.max(1))),
        }
    }

    /// Whether another attempt of this address may be looked at.
    pub fn allows(&self, address: IpAddr) -> bool {
        let (set, tag) = self.place(address);
        let now = self.clock.mono_ns();
        let slots = set.lock();
        // One more failure must still fit in the window.
        slots
            .iter()
            .find(|s| s.tag == tag)
            .is_none_or(|s| s.until.max(now) - now + self.interval_ns <= self.window_ns)
    }

    /// Counts one failure.
    pub fn record(&self, address: IpAddr) {
        let (set, tag) = self.place(address);
        let now = self.clock.mono_ns();
        let mut slots = set.lock();
        let slot = match slots.iter().position(|s| s.tag == tag) {
            Some(known) => &mut slots[known],
            None => {
                let weakest = slots.iter_mut().min_by_key(|s| s.until).expect("a set has eight slots");
                *weakest = Slot { tag, until: 0 };
                weakest
            }
        };
        slot.until =
            slot.until.max(now).saturating_add(self.interval_ns).min(now.saturating_add(self.window_ns));
    }

    fn place(&self, address: IpAddr) -> (&Mutex<[Slot; WAYS]>, u64) {
        let key = match address.to_canonical() {
            IpAddr::V4(v4) => u128::from(u32::from(v4)),
            // Never equal to a canonical IPv4 address: those are below 2^32.
            IpAddr::V6(v6) => u128::from(v6) >> 64 | 1 << 127,
        };
        let hash = self.hasher.hash_one(key);
        // The tag is the whole hash, so two addresses share a slot only if all 64 bits agree.
        let index = ((u128::from(hash) * self.sets.len() as u128) >> 64) as usize;
        (&self.sets[index], hash)
    }
}

impl std::fmt::Debug for FailureLimiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FailureLimiter").field("addresses", &(self.sets.len() * WAYS)).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    const BOUNDS: FailureBounds =
        FailureBounds { burst: 3, forget_one: Duration::from_secs(10), addresses: 64 };

    fn limiter() -> (FailureLimiter, Clock) {
        let clock = Clock::manual(1_000);
        (FailureLimiter::new(BOUNDS, clock.clone()), clock)
    }

    fn v4(n: u32) -> IpAddr {
        Ipv4Addr::from(n).into()
    }

    #[test]
    fn the_burst_is_allowed_and_then_one_per_interval() {
        let (limiter, clock) = limiter();
        for _ in 0..3 {
            assert!(limiter.allows(v4(1)));
            limiter.record(v4(1));
        }
        assert!(!limiter.allows(v4(1)));
        assert!(limiter.allows(v4(2)), "others are not affected");
        clock.advance(Duration::from_secs(10));
        assert!(limiter.allows(v4(1)));
        limiter.record(v4(1));
        assert!(!limiter.allows(v4(1)));
        clock.advance(Duration::from_secs(30));
        (0..3).for_each(|_| limiter.record(v4(1)));
        assert!(!limiter.allows(v4(1)));
    }

    #[test]
    fn asking_alone_costs_nothing() {
        let (limiter, _) = limiter();
        assert!((0..1000).all(|_| limiter.allows(v4(1))));
    }

    #[test]
    fn one_ipv6_network_is_one_client_and_mapped_addresses_are_ipv4() {
        let (limiter, _) = limiter();
        let v6 = |text: &str| IpAddr::from(text.parse::<Ipv6Addr>().unwrap());
        for i in 0..3 {
            limiter.record(v6(&format!("2001:db8::{i}")));
            limiter.record(v6("::ffff:10.0.0.1"));
        }
        assert!(!limiter.allows(v6("2001:db8::ffff")));
        assert!(limiter.allows(v6("2001:db8:0:1::1")));
        assert!(!limiter.allows(Ipv4Addr::new(10, 0, 0, 1).into()));
    }

    #[test]
    fn a_flood_of_addresses_forgets_but_never_refuses_the_innocent() {
        let (limiter, _) = limiter();
        (0..3).for_each(|_| limiter.record(v4(7)));
        for n in 100..10_000 {
            limiter.record(v4(n));
        }
        assert_eq!(limiter.sets.len() * WAYS, 64);
        assert!((20_000..30_000).all(|n| limiter.allows(v4(n))));
        assert!(!limiter.allows(v4(7)), "who failed most is remembered longest");
    }

    proptest! {
        #[test]
        fn never_more_than_burst_plus_rate(steps in prop::collection::vec(0u64..30_000, 1..200)) {
            let (limiter, clock) = limiter();
            let (mut passed, mut elapsed) = (0u64, 0u64);
            for ms in steps {
                clock.advance(Duration::from_millis(ms));
                elapsed += ms;
                if limiter.allows(v4(1)) {
                    limiter.record(v4(1));
                    passed += 1;
                }
            }
            prop_assert!(passed <= 3 + elapsed / 10_000);
        }
    }
}
