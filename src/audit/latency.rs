//! Durations counted by size, in a form that databases can add up and read quantiles from.
//!
//! Eight sizes to an octave: size `s` holds what took from 2^(s/8) to 2^((s+1)/8) microseconds. A quantile is the middle of
//! the size it lies in, by ratio, and so at most 4.4 percent off. The function `request_performance_summary` of the
//! PostgreSQL store does the same sums with the same rounding as [`Latency::quantile_us`].

use std::collections::BTreeMap;

/// Sizes to an octave.
const STEPS: f64 = 8.0;
/// The largest size: about an hour and ten minutes.
const MAX_SIZE: u16 = 255;

/// How many durations there were of each size. At most 256 sizes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency(BTreeMap<u16, u64>);

impl Latency {
    /// Counts a duration.
    pub fn add_us(&mut self, micros: u64) {
        self.add_many_us(micros, 1);
    }

    /// Counts a duration so many times.
    pub fn add_many_us(&mut self, micros: u64, times: u64) {
        // Nothing is quicker than a microsecond.
        let size = ((micros.max(1) as f64).log2() * STEPS).floor() as u16;
        *self.0.entry(size.min(MAX_SIZE)).or_default() += times;
    }

    /// Adds another one.
    pub fn merge(&mut self, other: &Self) {
        for (size, n) in &other.0 {
            *self.0.entry(*size).or_default() += n;
        }
    }

    /// How many durations.
    pub fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// The duration in microseconds below which so many percent lie.
    pub fn quantile_us(&self, percent: u64) -> Option<i64> {
        let total = u128::from(self.count());
        let mut upto = 0u128;
        for (size, n) in &self.0 {
            upto += u128::from(*n);
            if upto * 100 >= total * u128::from(percent) {
                return Some(((f64::from(*size) + 0.5) / STEPS).exp2().round() as i64);
            }
        }
        None
    }

    /// For the store: a JSON object of sizes and counts.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.0).expect("numbers always serialize")
    }

    /// From the store; `None` if it is damaged.
    pub fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantiles_are_within_their_bound_over_all_sizes() {
        for scale in [1u64, 37, 1_000, 250_000] {
            let mut latency = Latency::default();
            (1..=1000).for_each(|i| latency.add_us(i * scale));
            for percent in [50, 95, 99, 100] {
                let exact = (percent * 10 * scale) as f64;
                let found = latency.quantile_us(percent).unwrap() as f64;
                // Rounding to whole microseconds shows below some ten of them only.
                assert!((found / exact - 1.0).abs() < 0.05 || exact < 20.0, "{percent} of {scale}: {found}");
            }
        }
        assert_eq!(Latency::default().quantile_us(50), None);
    }

    proptest! {
        #[test]
        fn parts_add_up_and_survive_the_store(a in prop::collection::vec(any::<u64>(), 0..50), b in prop::collection::vec(0..10_000_000u64, 0..50)) {
            let of = |all: &[u64]| { let mut l = Latency::default(); all.iter().for_each(|us| l.add_us(*us)); l };
            let mut sum = of(&a);
            sum.merge(&of(&b));
            prop_assert_eq!(&sum, &of(&[a.clone(), b.clone()].concat()));
            prop_assert_eq!(sum.count(), (a.len() + b.len()) as u64);
            prop_assert_eq!(Latency::from_json(&sum.to_json()), Some(sum.clone()));
            let marks: Vec<_> = [1, 50, 95, 99, 100].iter().filter_map(|p| sum.quantile_us(*p)).collect();
            prop_assert!(marks.is_sorted());
        }
    }
}
