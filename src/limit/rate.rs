//! A sustained rate and a burst, in whole tokens and nanoseconds.

use std::time::Duration;

use crate::base::Role;

/// The longest time a bucket may take to fill: it keeps every sum of times inside 63 bits.
const MAX_FILL_NS: u64 = 1 << 62;

/// What [`default_per_role`] multiplies the count of a minute by to get the burst.
const DEFAULT_BURST_FACTOR: f64 = 1.5;

/// `count` tokens per `per`, with room for `burst` tokens at once.
///
/// One token takes `per / count` to come back, rounded up to a nanosecond: a bucket is never faster than its rate
/// and at most one nanosecond per token slower (0.1 % at a million per second).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    count: u64,
    per_ns: u64,
    burst: u64,
    token_ns: u64,
    fill_ns: u64,
}

/// Why a rate was refused.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum RateError {
    /// The factor is not a positive, finite number, or gives a burst below one token or out of range.
    #[error("the burst factor {0} does not give a burst of at least one")]
    BadFactor(f64),
    /// More than one token per nanosecond.
    #[error("the rate is faster than one per nanosecond")]
    TooFast,
    /// Filling the bucket would take longer than a century.
    #[error("filling a bucket of {burst} at this rate takes longer than a century")]
    TooSlow {
        /// The burst asked for.
        burst: u64,
    },
    /// Count, period or burst is zero.
    #[error("count, period and burst of a rate must be at least one")]
    Zero,
}

impl Rate {
    /// A rate with an explicit burst, in tokens.
    ///
    /// # Errors
    ///
    /// See [`RateError`].
    pub fn new(count: u64, per: Duration, burst: u64) -> Result<Self, RateError> {
        let per_ns = u64::try_from(per.as_nanos()).map_err(|_| RateError::TooSlow { burst })?;
        if count == 0 || per_ns == 0 || burst == 0 {
            return Err(RateError::Zero);
        }
        if count > per_ns {
            return Err(RateError::TooFast);
        }
        let token_ns = per_ns.div_ceil(count);
        let fill_ns = u128::from(token_ns) * u128::from(burst);
        let fill_ns = u64::try_from(fill_ns).ok().filter(|ns| *ns <= MAX_FILL_NS);
        let fill_ns = fill_ns.ok_or(RateError::TooSlow { burst })?;
        Ok(Self { count, per_ns, burst, token_ns, fill_ns })
    }

    /// A rate whose burst is `factor × count`, rounded, at least one.
    ///
    /// # Errors
    ///
    /// See [`RateError`].
    pub fn with_burst_factor(count: u64, per: Duration, factor: f64) -> Result<Self, RateError> {
        let burst = (count as f64 * factor).round();
        if !factor.is_finite() || factor <= 0.0 || burst >= u64::MAX as f64 {
            return Err(RateError::BadFactor(factor));
        }
        Self::new(count, per, (burst as u64).max(1))
    }

    /// Tokens per period.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The period.
    pub fn per(&self) -> Duration {
        Duration::from_nanos(self.per_ns)
    }

    /// The most tokens a full bucket holds.
    pub fn burst(&self) -> u64 {
        self.burst
    }

    /// Nanoseconds until one token is back.
    pub(crate) fn token_ns(&self) -> u64 {
        self.token_ns
    }

    /// Nanoseconds until an empty bucket is full.
    pub(crate) fn fill_ns(&self) -> u64 {
        self.fill_ns
    }
}

/// The built-in rates by role, indexed by `Role as usize`: 1000 per minute for administrators down to 20 for
/// anonymous callers, each with a burst of 1.5 times that (PRODUCT 0.7).
pub fn default_per_role() -> [Option<Rate>; 6] {
    Role::ALL.map(|role| {
        let per_minute = match role {
            Role::SuperAdmin | Role::Admin => 1000,
            Role::ServerOwner => 500,
            Role::Developer => 200,
            Role::Viewer => 60,
            Role::Anonymous => 20,
        };
        Rate::with_burst_factor(per_minute, Duration::from_secs(60), DEFAULT_BURST_FACTOR).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_and_fast_rates_are_exact() {
        let daily = Rate::new(1, Duration::from_secs(86_400), 1).unwrap();
        assert_eq!((daily.token_ns(), daily.fill_ns()), (86_400_000_000_000, 86_400_000_000_000));
        let fast = Rate::new(1_000_000, Duration::from_secs(1), 2_000_000).unwrap();
        assert_eq!((fast.token_ns(), fast.fill_ns()), (1_000, 2_000_000_000));
        let odd = Rate::new(7, Duration::from_secs(1), 7).unwrap();
        assert_eq!(odd.token_ns(), 142_857_143, "rounded up: never faster than asked");
    }

    #[test]
    fn impossible_rates_are_refused() {
        let second = Duration::from_secs(1);
        assert_eq!(Rate::new(0, second, 1), Err(RateError::Zero));
        assert_eq!(Rate::new(1, Duration::ZERO, 1), Err(RateError::Zero));
        assert_eq!(Rate::new(1, second, 0), Err(RateError::Zero));
        assert_eq!(Rate::new(2_000_000_000, second, 1), Err(RateError::TooFast));
        assert_eq!(Rate::new(1, second, u64::MAX), Err(RateError::TooSlow { burst: u64::MAX }));
        assert_eq!(Rate::new(1, Duration::MAX, 1), Err(RateError::TooSlow { burst: 1 }));
        for factor in [f64::NAN, f64::INFINITY, -1.0, 0.0] {
            assert!(matches!(Rate::with_burst_factor(5, second, factor), Err(RateError::BadFactor(_))));
        }
        assert_eq!(Rate::with_burst_factor(5, second, 0.01).unwrap().burst(), 1);
    }

    #[test]
    fn default_table_matches_the_product() {
        let table = default_per_role();
        let count = |role: Role| table[role as usize].map(|r| (r.count(), r.burst()));
        assert_eq!(count(Role::SuperAdmin), Some((1000, 1500)));
        assert_eq!(count(Role::Admin), Some((1000, 1500)));
        assert_eq!(count(Role::ServerOwner), Some((500, 750)));
        assert_eq!(count(Role::Developer), Some((200, 300)));
        assert_eq!(count(Role::Viewer), Some((60, 90)));
        assert_eq!(count(Role::Anonymous), Some((20, 30)));
    }
}
