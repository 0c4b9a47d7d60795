//! How many retries a server may get: a share of its requests, and a few in any case.
//!
//! Retries multiply load exactly when a server has least to spare. The budget bounds them over the last [`WINDOW`]
//! seconds: `retries ≤ requests × percent / 100 + min_per_second × WINDOW`. It belongs to the server and survives
//! changes of its spec; a change of the numbers applies to the window as it is.
//!
//! Counting a request costs one compare-and-swap. Taking a retry holds a lock for ten loads, so that two retries
//! cannot both take the last token.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::base::Clock;
use crate::upstream::spec::RetrySpec;

/// Seconds over which requests and retries are compared.
pub const WINDOW: u64 = 10;

/// The retry budget of one server.
#[derive(Debug)]
pub struct RetryBudget {
    clock: Clock,
    /// `percent` in the upper half, `min_per_second` in the lower.
    terms: AtomicU64,
    requests: Ring,
    retries: Ring,
    taking: Mutex<()>,
}

/// Counts for each of the last [`WINDOW`] seconds: the second in the upper half of a slot, the count in the lower.
#[derive(Debug, Default)]
struct Ring([AtomicU64; WINDOW as usize]);

impl RetryBudget {
    /// A budget with an empty window.
    pub fn new(clock: Clock, spec: RetrySpec) -> Self {
        let terms = AtomicU64::new(pack(spec));
        Self { clock, terms, requests: Ring::default(), retries: Ring::default(), taking: Mutex::default() }
    }

    /// Changes the numbers.
    pub fn set(&self, spec: RetrySpec) {
        self.terms.store(pack(spec), Ordering::Relaxed);
    }

    /// Counts a first attempt.
    pub fn deposit(&self) {
        self.requests.add(self.second());
    }

    /// Takes a retry if there is one left. What is taken counts, whether or not the retry is then made.
    pub fn withdraw(&self) -> bool {
        let terms = self.terms.load(Ordering::Relaxed);
        let (percent, min) = (terms >> 32, terms & 0xffff_ffff);
        let now = self.second();
        let _taking = self.taking.lock();
        let allowed = self.requests.sum(now) * percent / 100 + min * WINDOW;
        let granted = self.retries.sum(now) < allowed;
        if granted {
            self.retries.add(now);
        }
        granted
    }

    fn second(&self) -> u32 {
        (self.clock.mono_ns() / 1_000_000_000) as u32
    }
}

fn pack(spec: RetrySpec) -> u64 {
    (u64::from(spec.percent) << 32) | u64::from(spec.min_per_second)
}

impl Ring {
    fn add(&self, now: u32) {
        let slot = &self.0[(u64::from(now) % WINDOW) as usize];
        // The closure always answers, so the update cannot fail.
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |packed| {
            let count = if (packed >> 32) as u32 == now { packed as u32 } else { 0 };
            Some((u64::from(now) << 32) | u64::from(count.saturating_add(1)))
        });
    }

    fn sum(&self, now: u32) -> u64 {
        self.0
            .iter()
            .map(|slot| slot.load(Ordering::Relaxed))
            .filter(|packed| u64::from(now.wrapping_sub((packed >> 32) as u32)) < WINDOW)
            .map(|packed| packed & 0xffff_ffff)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn budget(percent: u32, min_per_second: u32) -> (Clock, RetryBudget) {
        let clock = Clock::manual(0);
        (clock.clone(), RetryBudget::new(clock, RetrySpec { percent, min_per_second }))
    }

    fn granted(b: &RetryBudget) -> usize {
        std::iter::repeat_with(|| b.withdraw()).take(10_000).take_while(|g| *g).count()
    }

    #[test]
    fn retries_are_a_share_of_requests_plus_a_minimum() {
        let (_clock, b) = budget(20, 1);
        (0..100).for_each(|_| b.deposit());
        assert_eq!(granted(&b), 30);
        assert!(!b.withdraw());
        let (_clock, none) = budget(0, 0);
        none.deposit();
        assert!(!none.withdraw());
    }

    #[test]
    fn the_window_slides() {
        let (clock, b) = budget(50, 0);
        (0..10).for_each(|_| b.deposit());
        assert_eq!(granted(&b), 5);
        clock.advance(Duration::from_secs(5));
        (0..10).for_each(|_| b.deposit());
        assert_eq!(granted(&b), 5, "twenty requests, ten retries");
        clock.advance(Duration::from_secs(5));
        assert_eq!(granted(&b), 0, "the first half of both left the window");
        clock.advance(Duration::from_secs(60));
        assert!(!b.withdraw(), "nothing is left of an idle minute");
    }

    #[test]
    fn changed_numbers_apply_at_once() {
        let (_clock, b) = budget(0, 0);
        (0..10).for_each(|_| b.deposit());
        assert!(!b.withdraw());
        b.set(RetrySpec { percent: 10, min_per_second: 0 });
        assert!(b.withdraw() && !b.withdraw());
    }

    #[test]
    fn threads_never_overdraw() {
        let (_clock, b) = budget(10, 0);
        (0..1000).for_each(|_| b.deposit());
        let total: usize = std::thread::scope(|s| {
            let threads: Vec<_> = (0..4).map(|_| s.spawn(|| granted(&b))).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(total, 100);
    }
}
