//! Passive outlier ejection: live traffic takes a bad target out while better ones are there.
//!
//! Owner of state: one `Outlier` per target address (in its statistics, so it outlives reloads) and one `Gate` per
//! server, which alone decides about ejections so that the cap holds.
//!
//! # Conditions
//!
//! *Gateway failures* are failures to connect, breaks and timeouts before the answer began, and the statuses 502, 503
//! and 504. *Failures* are those, other 5xx, and breaks and timeouts after the answer began. A caller that went away
//! is neither success nor failure.
//!
//! A target is ejected when
//! - its gateway failures in a row reach `consecutive_failures`; any success ends the row; or
//! - in one window it had `min_requests` outcomes and `error_percent` of them were failures. Windows are tumbling:
//!   `now / window` names the current one, and the first outcome of a new one forgets the last. A steady error rate
//!   is therefore seen after two windows at most.
//!
//! # Ejection
//!
//! The k-th ejection lasts `base_ejection × 2^(k-1)`, at most `max_ejection`. `k` falls by one for each
//! `base_ejection` spent back in service, so that an old failure is forgotten. At most `max_ejected_percent` of the
//! server's targets are out at a time: at least one, and never the last one in service. An ejection that the cap
//! refuses is not queued: the next failure asks again.
//!
//! # Return
//!
//! Time alone ends an ejection. The first look at the target after that clears row and window and starts its slow
//! start. Active checks neither shorten nor extend an ejection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::upstream::spec::OutlierSpec;
use crate::upstream::target::TargetStats;

/// Passive statistics of one target.
#[derive(Debug, Default)]
pub(crate) struct Outlier {
    /// Gateway failures in a row.
    consecutive: AtomicU32,
    /// Window number (24 bits), outcomes (20 bits), failures (20 bits).
    window: AtomicU64,
    /// Clock reading at which the ejection ends; 0 when in service.
    ejected_until: AtomicU64,
    /// Ejections since the target was first seen.
    ejections: AtomicU64,
    history: Mutex<History>,
}

#[derive(Debug, Default)]
struct History {
    /// Ejections that still count.
    count: u32,
    /// When the last one ended or will end.
    ends: u64,
}

/// Decides about ejections for the targets of one server.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    members: Mutex<Vec<Arc<TargetStats>>>,
}

const COUNT_BITS: u32 = 20;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;

// === impl Outlier ===

impl Outlier {
    /// Ends the row of failures and counts a success.
    pub(crate) fn success(&self, now: u64, spec: Option<&OutlierSpec>) {
        // A plain load first: the line stays shared between cores as long as all is well.
        if self.consecutive.load(Ordering::Relaxed) != 0 {
            self.consecutive.store(0, Ordering::Relaxed);
        }
        if let Some(spec) = spec.filter(|s| s.error_percent > 0) {
            self.count(now, spec.window, false);
        }
    }

    /// Counts a failure; returns the gateway failures in a row.
    pub(crate) fn failure(&self, gateway: bool) -> u32 {
        if gateway {
            self.consecutive.fetch_add(1, Ordering::Relaxed).saturating_add(1)
        } else {
            self.consecutive.load(Ordering::Relaxed)
        }
    }

    /// Whether a failure just counted by [`Outlier::failure`] calls for an ejection.
    pub(crate) fn exceeds(
        &self,
        now: u64,
        row: u32,
        gateway: bool,
        spec: &OutlierSpec,
    ) -> Option<&'static str> {
        let by_share = spec.error_percent > 0 && {
            let (outcomes, failures) = self.count(now, spec.window, true);
            outcomes >= u64::from(spec.min_requests)
                && failures * 100 >= outcomes * u64::from(spec.error_percent)
        };
        if gateway && spec.consecutive_failures > 0 && row >= spec.consecutive_failures {
            Some("consecutive_failures")
        } else if by_share {
            Some("error_share")
        } else {
            None
        }
    }

    fn count(&self, now: u64, window: Duration, failed: bool) -> (u64, u64) {
        let index = (now / nanos(window).max(1)) & 0xff_ffff;
        let mut seen = (0, 0);
        let _ = self.window.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |packed| {
            let (mut outcomes, mut failures) = match packed >> (2 * COUNT_BITS) == index {
                true => ((packed >> COUNT_BITS) & COUNT_MAX, packed & COUNT_MAX),
                false => (0, 0),
            };
            if outcomes == COUNT_MAX {
                // The share is what matters: halve both before the counter overflows.
                outcomes /= 2;
                failures /= 2;
            }
            outcomes += 1;
            failures += u64::from(failed);
            seen = (outcomes, failures);
            Some((index << (2 * COUNT_BITS)) | (outcomes << COUNT_BITS) | failures)
        });
        seen
    }

    /// Whether the target is out at `now`. Returns `Err(ended)` to the one caller that finds an ejection over.
    pub(crate) fn ejected(&self, now: u64) -> Result<bool, u64> {
        let until = self.ejected_until.load(Ordering::Acquire);
        if until == 0 {
            return Ok(false);
        }
        if now < until {
            return Ok(true);
        }
        match self.ejected_until.compare_exchange(until, 0, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                self.consecutive.store(0, Ordering::Relaxed);
                self.window.store(0, Ordering::Relaxed);
                Err(until)
            }
            Err(_) => Ok(false),
        }
    }

    /// When the current ejection ends, if there is one.
    pub(crate) fn ejected_until(&self, now: u64) -> Option<u64> {
        Some(self.ejected_until.load(Ordering::Acquire)).filter(|until| *until > now)
    }

    /// Ejections since the target was first seen.
    pub(crate) fn ejections(&self) -> u64 {
        self.ejections.load(Ordering::Relaxed)
    }

    /// Forgets the row of failures.
    pub(crate) fn forgive(&self) {
        self.consecutive.store(0, Ordering::Relaxed);
    }

    fn eject(&self, now: u64, spec: &OutlierSpec) -> Duration {
        let mut history = self.history.lock();
        let served = now.saturating_sub(history.ends);
        let forgotten = served / nanos(spec.base_ejection).max(1);
        history.count = history.count.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX)) + 1;
        let doublings = history.count.saturating_sub(1).min(20);
        let length = spec.base_ejection.saturating_mul(1 << doublings).min(spec.max_ejection);
        history.ends = now.saturating_add(nanos(length));
        self.ejected_until.store(history.ends, Ordering::Release);
        self.ejections.fetch_add(1, Ordering::Relaxed);
        length
    }
}

// === impl Gate ===

impl Gate {
    /// The targets the cap is about.
    pub(crate) fn set_members(&self, members: Vec<Arc<TargetStats>>) {
        *self.members.lock() = members;
    }

    /// Takes a target out if the cap allows it; returns for how long.
    pub(crate) fn try_eject(&self, target: &TargetStats, now: u64, spec: &OutlierSpec) -> Option<Duration> {
        // Held to the end: two targets failing at once must not both be taken for the first.
        let members = self.members.lock();
        if target.outlier.ejected_until(now).is_some() || !members.iter().any(|m| m.key == target.key) {
            return None;
        }
        let out = members.iter().filter(|m| m.outlier.ejected_until(now).is_some()).count();
        let share = members.len() * usize::from(spec.max_ejected_percent) / 100;
        let allowed = share.max(1).min(members.len().saturating_sub(1));
        (out < allowed).then(|| target.outlier.eject(now, spec))
    }
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Clock;

    fn targets(n: u16) -> Vec<Arc<TargetStats>> {
        (0..n).map(|i| TargetStats::new(([127, 0, 0, 1], 9000 + i).into(), 0, 0)).collect()
    }

    fn spec() -> OutlierSpec {
        OutlierSpec {
            base_ejection: Duration::from_secs(10),
            max_ejection: Duration::from_secs(60),
            ..OutlierSpec::default()
        }
    }

    #[test]
    fn ejects_at_most_the_configured_share_and_never_the_last() {
        let clock = Clock::manual(0);
        let now = clock.mono_ns();
        for (n, percent, expected) in
            [(1u16, 100, 0), (2, 100, 1), (2, 0, 1), (4, 50, 2), (10, 30, 3), (3, 100, 2)]
        {
            let all = targets(n);
            let gate = Gate::default();
            gate.set_members(all.clone());
            let spec = OutlierSpec { max_ejected_percent: percent, ..spec() };
            let ejected = all.iter().filter(|t| gate.try_eject(t, now, &spec).is_some()).count();
            assert_eq!(ejected, expected, "{n} targets, {percent} %");
        }
    }

    #[test]
    fn ejections_grow_and_are_forgotten() {
        let clock = Clock::manual(0);
        let all = targets(3);
        let gate = Gate::default();
        gate.set_members(all.clone());
        let mut lengths = Vec::new();
        for _ in 0..5 {
            let length = gate.try_eject(&all[0], clock.mono_ns(), &spec()).unwrap();
            assert_eq!(gate.try_eject(&all[0], clock.mono_ns(), &spec()), None, "already out");
            assert_eq!(all[0].outlier.ejected(clock.mono_ns()), Ok(true));
            lengths.push(length.as_secs());
            clock.advance(length);
            assert!(all[0].outlier.ejected(clock.mono_ns()).is_err(), "one caller sees the end");
            assert_eq!(all[0].outlier.ejected(clock.mono_ns()), Ok(false));
        }
        assert_eq!(lengths, [10, 20, 40, 60, 60]);
        clock.advance(Duration::from_secs(3600));
        let length = gate.try_eject(&all[0], clock.mono_ns(), &spec()).unwrap();
        assert_eq!(length.as_secs(), 10, "an hour of service forgives all");
    }

    #[test]
    fn a_success_ends_the_row() {
        let clock = Clock::manual(0);
        let o = Outlier::default();
        let spec = spec();
        for round in 0..3 {
            for _ in 0..4 {
                let row = o.failure(true);
                assert_eq!(o.exceeds(clock.mono_ns(), row, true, &spec), None, "round {round}");
            }
            o.success(clock.mono_ns(), Some(&spec));
        }
        for _ in 0..4 {
            o.failure(true);
        }
        let row = o.failure(true);
        assert_eq!(o.exceeds(clock.mono_ns(), row, true, &spec), Some("consecutive_failures"));
    }

    #[test]
    fn an_error_share_needs_enough_requests_in_one_window() {
        let clock = Clock::manual(0);
        let spec = OutlierSpec { consecutive_failures: 0, error_percent: 50, min_requests: 10, ..spec() };
        let o = Outlier::default();
        let fail = |o: &Outlier| {
            let row = o.failure(false);
            o.exceeds(clock.mono_ns(), row, false, &spec)
        };
        for _ in 0..5 {
            o.success(clock.mono_ns(), Some(&spec));
        }
        for _ in 0..4 {
            assert_eq!(fail(&o), None);
        }
        clock.advance(spec.window);
        assert_eq!(fail(&o), None, "the old window is forgotten");
        for _ in 0..8 {
            assert_eq!(fail(&o), None);
        }
        assert_eq!(fail(&o), Some("error_share"));
    }

    #[test]
    fn the_window_survives_more_outcomes_than_it_can_count() {
        let o = Outlier::default();
        let start = ((7u64) << 40) | (COUNT_MAX << 20) | (COUNT_MAX / 2);
        o.window.store(start, Ordering::Relaxed);
        let (outcomes, failures) = o.count(7_000_000_000, Duration::from_secs(1), true);
        assert_eq!((outcomes, failures), (COUNT_MAX / 2 + 1, COUNT_MAX / 4 + 1));
    }
}
