//! One bucket: the generic cell rate algorithm on one atomic number.
//!
//! The number is the *theoretical arrival time*, in nanoseconds: the moment at which the bucket is full again. What
//! lies between now and then is the debt; a request of cost `c` may add `c` tokens' worth of time as long as the debt
//! stays within the time the bucket takes to fill.
//!
//! A bucket also remembers the fill time of the rate that last wrote to it. When a rate changes (a reload, or a caller
//! whose highest role changed), the debt is scaled so that the bucket stays as full, in per cent, as it was. That
//! happens under an exclusive lock of the map that owns the bucket, so it never races with the methods here.

use std::sync::atomic::{AtomicU64, Ordering};

use super::rate::Rate;

/// The state of one key of one limit.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    full_at: AtomicU64,
    fill_ns: u64,
}

/// What a successful [`Bucket::take`] did; needed to give it back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// The value that was replaced.
    pub(crate) before: u64,
    /// The value that was written.
    pub(crate) after: u64,
}

/// Nanoseconds until the cost would have been granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wait(pub(crate) u64);

impl Bucket {
    /// A full bucket.
    pub(crate) fn full(rate: &Rate, now: u64) -> Self {
        Self { full_at: AtomicU64::new(now), fill_ns: rate.fill_ns() }
    }

    /// Whether the debt is counted in the time of this rate.
    pub(crate) fn fits(&self, rate: &Rate) -> bool {
        self.fill_ns == rate.fill_ns()
    }

    /// Counts the debt in the time of another rate; the bucket stays as full, in per cent, as it was.
    pub(crate) fn reshape(&mut self, rate: &Rate, now: u64) {
        let full_at = self.full_at.get_mut();
        *full_at = rescaled(*full_at, now, self.fill_ns, rate.fill_ns());
        self.fill_ns = rate.fill_ns();
    }

    /// When the bucket is full again.
    pub(crate) fn full_at(&self) -> u64 {
        self.full_at.load(Ordering::Relaxed)
    }

    /// Takes `cost_ns` worth of tokens, or says how long until that is possible and takes nothing.
    pub(crate) fn take(&self, now: u64, cost_ns: u64, fill_ns: u64) -> Result<Taken, Wait> {
        let mut before = self.full_at.load(Ordering::Relaxed);
        loop {
            let after = admit(before, now, cost_ns, fill_ns)?;
            // Relaxed is enough: the number itself is all that is shared.
            match self.full_at.compare_exchange_weak(before, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(Taken { before, after }),
                Err(current) => before = current,
            }
        }
    }

    /// What [`Bucket::take`] would say, without taking.
    pub(crate) fn peek(&self, rate: &Rate, now: u64, cost_ns: u64) -> Result<Taken, Wait> {
        let before = match self.fits(rate) {
            true => self.full_at(),
            false => rescaled(self.full_at(), now, self.fill_ns, rate.fill_ns()),
        };
        Ok(Taken { before, after: admit(before, now, cost_ns, rate.fill_ns())? })
    }

    /// Gives back what was taken at `now`, because another limit refused.
    ///
    /// If nobody touched the bucket since, the old value is put back. Otherwise the time that went by since is not
    /// refunded: in that time the bucket may have filled by itself, and refunding it too would grant more than the
    /// rate allows. `clock` is read after the value it must be newer than.
    pub(crate) fn give_back(&self, taken: Taken, now: u64, cost_ns: u64, clock: impl Fn() -> u64) {
        let mut current = match self.full_at.compare_exchange(
            taken.after,
            taken.before,
            Ordering::AcqRel,
            Ordering::Acquire,
        ) {
            Ok(_) => return,
            Err(current) => current,
        };
        loop {
            let refund = cost_ns.saturating_sub(clock().saturating_sub(now));
            let next = current.saturating_sub(refund);
            match self.full_at.compare_exchange_weak(current, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(changed) => current = changed,
            }
        }
    }
}

/// The new theoretical arrival time, or how long to wait. All terms stay below 2^63: see `MAX_FILL_NS`.
fn admit(full_at: u64, now: u64, cost_ns: u64, fill_ns: u64) -> Result<u64, Wait> {
    let next = full_at.max(now).saturating_add(cost_ns);
    let latest = now.saturating_add(fill_ns);
    if next > latest { Err(Wait(next - latest)) } else { Ok(next) }
}

/// The same share of debt in another fill time, rounded up.
fn rescaled(full_at: u64, now: u64, from_ns: u64, to_ns: u64) -> u64 {
    let debt = full_at.saturating_sub(now);
    if debt == 0 || from_ns == 0 {
        return full_at;
    }
    let debt = (u128::from(debt) * u128::from(to_ns)).div_ceil(u128::from(from_ns));
    now.saturating_add(u64::try_from(debt).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const T0: u64 = 3_600_000_000_000;

    fn rate() -> Rate {
        // A token per microsecond, ten at once.
        Rate::new(1_000_000, Duration::from_secs(1), 10).unwrap()
    }

    fn take(bucket: &Bucket, now: u64, tokens: u64) -> Option<Taken> {
        bucket.take(now, tokens * 1_000, rate().fill_ns()).ok()
    }

    #[test]
    fn giving_back_restores_an_untouched_bucket_whenever_it_happens() {
        let bucket = Bucket::full(&rate(), T0);
        take(&bucket, T0, 4).unwrap();
        let before = bucket.full_at();
        let taken = take(&bucket, T0 + 500, 3).unwrap();
        bucket.give_back(taken, T0 + 500, 3_000, || T0 + 1_000_000);
        assert_eq!(bucket.full_at(), before);
    }

    #[test]
    fn giving_back_leaves_what_others_took() {
        let bucket = Bucket::full(&rate(), T0);
        let taken = take(&bucket, T0, 3).unwrap();
        take(&bucket, T0, 2).unwrap();
        bucket.give_back(taken, T0, 3_000, || T0);
        assert_eq!(bucket.full_at(), T0 + 2_000);
    }

    #[test]
    fn time_that_filled_the_bucket_is_not_refunded_again() {
        let bucket = Bucket::full(&rate(), T0);
        let taken = take(&bucket, T0, 3).unwrap();
        // The debt was paid by time before the next one came.
        let later = T0 + 5_000;
        take(&bucket, later, 2).unwrap();
        bucket.give_back(taken, T0, 3_000, || later);
        assert_eq!(bucket.full_at(), later + 2_000);
        // Paid in part: only the rest comes back.
        let bucket = Bucket::full(&rate(), T0);
        let taken = take(&bucket, T0, 3).unwrap();
        take(&bucket, T0 + 1_000, 2).unwrap();
        bucket.give_back(taken, T0, 3_000, || T0 + 1_000);
        assert_eq!(bucket.full_at(), T0 + 1_000 + 2_000, "as if only the second had come");
    }

    #[test]
    fn reshaping_keeps_the_share_and_rounds_against_the_caller() {
        let mut bucket = Bucket::full(&rate(), T0);
        take(&bucket, T0, 5).unwrap();
        let slow = Rate::new(1, Duration::from_secs(60), 3).unwrap();
        bucket.reshape(&slow, T0);
        assert_eq!(bucket.full_at(), T0 + 90_000_000_000, "half of 180 s");
        bucket.reshape(&rate(), T0);
        assert_eq!(bucket.full_at(), T0 + 5_000);
        take(&bucket, T0, 5).unwrap();
        bucket.reshape(&Rate::new(1, Duration::from_secs(7), 1).unwrap(), T0 + 1);
        assert!(bucket.full_at() - T0 > 6_999_300_000);
    }

    proptest! {
        /// Any mix of requests that keep what they took and requests that give it back later, in any order: those that
        /// keep never get more than the rate and the burst in any stretch of time.
        #[test]
        fn giving_back_never_creates_tokens(
            steps in prop::collection::vec((0u64..3_000, 1u64..8, any::<bool>(), any::<bool>()), 1..80),
        ) {
            let bucket = Bucket::full(&rate(), T0);
            let mut now = T0;
            let mut pending: Vec<(Taken, u64, u64)> = Vec::new();
            let mut kept: Vec<(u64, u64)> = Vec::new();
            for (wait, tokens, keeps, settles) in steps {
                now += wait;
                if let Some(taken) = take(&bucket, now, tokens) {
                    match keeps {
                        true => kept.push((now, tokens)),
                        false => pending.push((taken, now, tokens)),
                    }
                }
                if settles && let Some((taken, at, tokens)) = pending.pop() {
                    bucket.give_back(taken, at, tokens * 1_000, || now);
                }
            }
            for from in 0..kept.len() {
                let mut sum = 0;
                for (at, tokens) in &kept[from..] {
                    sum += tokens * 1_000;
                    prop_assert!(sum <= 10_000 + (at - kept[from].0));
                }
            }
        }
    }
}
