//! Peak-sensitive, exponentially weighted moving average of latency.
//!
//! A slow answer is believed at once: the estimate jumps to it. A fast answer is believed slowly: the estimate decays
//! towards it over [`DECAY`]. The estimate also decays towards zero while nothing is observed, so that a target that
//! was slow once is tried again. One `AtomicU64` holds estimate and time together, so that no reader sees one without
//! the other; a lost race costs one sample.
//!
//! Edge cases: a new target starts with [`INITIAL`] as if that had been observed, and decays from there, so that it is
//! neither flooded nor starved by faster ones. The time has millisecond steps and wraps after 49 days; a reading in the
//! future is taken for fresh, which the next sample corrects.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// After this time an old sample weighs 1/e.
pub const DECAY: Duration = Duration::from_secs(10);
/// Estimate before the first sample.
pub const INITIAL: Duration = Duration::from_millis(30);

/// Upper half: estimate in microseconds as `f32`; lower half: milliseconds of the clock at the last sample.
#[derive(Debug)]
pub(crate) struct PeakEwma(AtomicU64);

impl PeakEwma {
    /// The average of a target first seen at `now_ns`.
    pub(crate) fn new(now_ns: u64) -> Self {
        Self(AtomicU64::new(pack(INITIAL.as_micros() as f32, millis(now_ns))))
    }

    /// Records a latency seen at `now_ns`.
    pub(crate) fn observe(&self, now_ns: u64, latency: Duration) {
        let sample = latency.as_secs_f32() * 1e6;
        let now_ms = millis(now_ns);
        // The closure always answers, so the update cannot fail.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |packed| {
            let (estimate, at) = unpack(packed);
            let kept = decay(now_ms.wrapping_sub(at));
            let next =
                if sample > estimate * kept { sample } else { estimate * kept + sample * (1.0 - kept) };
            Some(pack(next, now_ms))
        });
    }

    /// The estimate in microseconds as of `now_ns`.
    pub(crate) fn micros(&self, now_ns: u64) -> f64 {
        let (estimate, at) = unpack(self.0.load(Ordering::Relaxed));
        f64::from(estimate * decay(millis(now_ns).wrapping_sub(at)))
    }
}

fn decay(elapsed_ms: u32) -> f32 {
    // A sample taken by another thread a moment after `now` was read looks 49 days old: take it for fresh.
    if elapsed_ms > u32::MAX / 2 {
        return 1.0;
    }
    (-(elapsed_ms as f32) / DECAY.as_millis() as f32).exp()
}

fn millis(ns: u64) -> u32 {
    (ns / 1_000_000) as u32
}

fn pack(estimate: f32, at: u32) -> u64 {
    (u64::from(estimate.to_bits()) << 32) | u64::from(at)
}

fn unpack(packed: u64) -> (f32, u32) {
    (f32::from_bits((packed >> 32) as u32), packed as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Clock;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn jumps_to_peaks_and_comes_down_slowly() {
        let clock = Clock::manual(0);
        let ewma = PeakEwma::new(clock.mono_ns());
        assert_eq!(ewma.micros(clock.mono_ns()), 30_000.0);
        clock.advance(Duration::from_secs(100));
        ewma.observe(clock.mono_ns(), MS(10));
        assert!((ewma.micros(clock.mono_ns()) - 10_000.0).abs() < 10.0);
        ewma.observe(clock.mono_ns(), MS(500));
        assert!((ewma.micros(clock.mono_ns()) - 500_000.0).abs() < 50.0, "a peak counts at once");
        clock.advance(Duration::from_secs(1));
        ewma.observe(clock.mono_ns(), MS(10));
        let after = ewma.micros(clock.mono_ns());
        assert!((400_000.0..500_000.0).contains(&after), "one good sample does not erase a peak: {after}");
    }

    #[test]
    fn decays_towards_zero_when_nothing_is_observed() {
        let clock = Clock::manual(0);
        let ewma = PeakEwma::new(clock.mono_ns());
        ewma.observe(clock.mono_ns(), MS(100));
        clock.advance(DECAY);
        let after = ewma.micros(clock.mono_ns());
        assert!((36_000.0..37_500.0).contains(&after), "1/e of it is left: {after}");
    }

    #[test]
    fn a_sample_from_the_future_is_fresh() {
        let clock = Clock::manual(0);
        let ewma = PeakEwma::new(clock.mono_ns());
        let before = clock.mono_ns();
        clock.advance(MS(5));
        ewma.observe(clock.mono_ns(), MS(100));
        assert!((ewma.micros(before) - 100_000.0).abs() < 10.0);
    }
}
