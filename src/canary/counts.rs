//! What is counted of both sides of a canary.
//!
//! A replica counts in place: a few relaxed additions to memory of a fixed size. What leaves it are [`Figures`], running
//! totals since it began, so that a report that is repeated or lost changes nothing: the next one says the same and more.
//! Latencies are kept in buckets that are an eighth of a power of two wide: a quantile is exact to 12.5 %.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Side;

/// Below 64 µs nothing is told apart.
const LOWEST: u32 = 6;
/// Nor above 134 s.
const OCTAVES: u32 = 21;
/// Parts of an octave.
const PARTS: u32 = 8;
const BUCKETS: usize = (OCTAVES * PARTS) as usize + 2;

/// How a call ended, as far as a canary is about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// We refused it: policy, limits, scopes.
    Denied,
    /// We or the server failed.
    Failed,
    /// It was answered.
    Ok,
}

/// The counts of one replica.
#[derive(Debug)]
pub struct Counts([Cells; 2]);

#[derive(Debug)]
struct Cells {
    calls: AtomicU64,
    errors: AtomicU64,
    denied: AtomicU64,
    latency: Box<[AtomicU64]>,
}

impl Default for Counts {
    fn default() -> Self {
        let side = || Cells {
            calls: AtomicU64::default(),
            errors: AtomicU64::default(),
            denied: AtomicU64::default(),
            latency: (0..BUCKETS).map(|_| AtomicU64::default()).collect(),
        };
        Self([side(), side()])
    }
}

impl Counts {
    /// Counts a call. `took`: if its length says something about speed.
    pub fn record(&self, side: Side, ended: Ended, took: Option<Duration>) {
        let side = &self.0[side as usize];
        side.calls.fetch_add(1, Ordering::Relaxed);
        let kind = match ended {
            Ended::Denied => Some(&side.denied),
            Ended::Failed => Some(&side.errors),
            Ended::Ok => None,
        };
        if let Some(kind) = kind {
            kind.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(took) = took {
            side.latency[bucket(took)].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What was counted so far.
    pub fn figures(&self) -> Sides {
        let read = |side: Side| {
            let side = &self.0[side as usize];
            let latency = side.latency.iter().map(|n| n.load(Ordering::Relaxed)).enumerate();
            Figures {
                calls: side.calls.load(Ordering::Relaxed),
                errors: side.errors.load(Ordering::Relaxed),
                denied: side.denied.load(Ordering::Relaxed),
                latency: latency.filter(|(_, n)| *n > 0).map(|(at, n)| (at as u16, n)).collect(),
            }
        };
        Sides { base: read(Side::Base), candidate: read(Side::Candidate) }
    }
}

/// Counts as plain numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Calls.
    pub calls: u64,
    /// Of these, those that we or the server failed.
    pub errors: u64,
    /// Of these, those that we refused.
    pub denied: u64,
    /// Calls by latency: bucket and how many.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    latency: BTreeMap<u16, u64>,
}

/// The figures of both sides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sides {
    /// Those who are served the head.
    pub base: Figures,
    /// Those who are served the candidate.
    pub candidate: Figures,
}

impl Figures {
    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.errors += other.errors;
        self.denied += other.denied;
        for (bucket, n) in &other.latency {
            *self.latency.entry(*bucket).or_default() += n;
        }
    }

    /// What came since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let latency = self.latency.iter().map(|(bucket, n)| {
            (*bucket, n.saturating_sub(earlier.latency.get(bucket).copied().unwrap_or(0)))
        });
        Self {
            calls: self.calls.saturating_sub(earlier.calls),
            errors: self.errors.saturating_sub(earlier.errors),
            denied: self.denied.saturating_sub(earlier.denied),
            latency: latency.filter(|(_, n)| *n > 0).collect(),
        }
    }

    /// The part of calls that failed.
    pub fn error_rate(&self) -> f64 {
        rate(self.errors, self.calls)
    }

    /// The part of calls that were refused.
    pub fn denial_rate(&self) -> f64 {
        rate(self.denied, self.calls)
    }

    /// Calls whose latency is known.
    pub fn timed(&self) -> u64 {
        self.latency.values().sum()
    }

    /// The latency that this part of calls stayed below; `None` without calls.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let all = self.timed();
        let rank = ((all as f64 * part).ceil() as u64).clamp(1, all.max(1));
        let mut seen = 0;
        let found = self.latency.iter().find(|(_, n)| {
            seen += **n;
            seen >= rank
        });
        found.map(|(bucket, _)| upper(*bucket))
    }
}

impl Sides {
    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        self.base.add(&other.base);
        self.candidate.add(&other.candidate);
    }

    /// What came since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self { base: self.base.since(&earlier.base), candidate: self.candidate.since(&earlier.candidate) }
    }

    /// Those of one side.
    pub fn of(&mut self, side: Side) -> &mut Figures {
        match side {
            Side::Base => &mut self.base,
            Side::Candidate => &mut self.candidate,
        }
    }
}

fn rate(part: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { part as f64 / all as f64 }
}

fn bucket(took: Duration) -> usize {
    let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let octave = us.checked_ilog2().unwrap_or(0);
    if octave < LOWEST {
        return 0;
    }
    let part = ((us >> (octave - 3)) & 7) as u32;
    (((octave - LOWEST) * PARTS + part + 1) as usize).min(BUCKETS - 1)
}

/// Where a bucket ends.
fn upper(bucket: u16) -> Duration {
    let Some(at) = u32::from(bucket).checked_sub(1) else { return Duration::from_micros(1 << LOWEST) };
    let (octave, part) = (LOWEST + at / PARTS, u64::from(at % PARTS));
    Duration::from_micros((8 + part + 1) << (octave - 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(n: u64) -> Duration {
        Duration::from_micros(n)
    }

    #[test]
    fn a_bucket_is_at_most_an_eighth_wide() {
        let mut last = 0;
        for n in (1..200_000_000u64).step_by(9_973) {
            let found = bucket(us(n));
            assert!(found >= last, "buckets are in order");
            last = found;
            if found > 0 && found < BUCKETS - 1 {
                let upper = upper(found as u16).as_micros() as u64;
                assert!(n < upper && upper - n <= n.div_ceil(8) + 1, "{n} µs ends at {upper}");
            }
        }
        assert_eq!(bucket(Duration::from_secs(1 << 40)), BUCKETS - 1);
        assert_eq!(bucket(Duration::ZERO), 0);
    }

    #[test]
    fn figures_add_up_over_replicas_and_give_quantiles() {
        let (here, there) = (Counts::default(), Counts::default());
        for n in 1..=1000u64 {
            let counts = if n % 2 == 0 { &here } else { &there };
            let ended = if n % 10 == 0 { Ended::Failed } else { Ended::Ok };
            counts.record(Side::Candidate, ended, Some(us(n * 1000)));
        }
        here.record(Side::Base, Ended::Denied, None);
        let mut all = here.figures();
        all.add(&there.figures());
        assert_eq!(
            (all.candidate.calls, all.candidate.errors, all.base.denied, all.base.timed()),
            (1000, 100, 1, 0)
        );
        let p95 = all.candidate.quantile(0.95).unwrap().as_millis();
        assert!((950..=1069).contains(&p95), "{p95} ms");
        assert_eq!(all.base.quantile(0.95), None);
        assert_eq!((all.candidate.error_rate(), all.base.denial_rate()), (0.1, 1.0));
    }

    #[test]
    fn what_came_since_is_the_difference() {
        let counts = Counts::default();
        counts.record(Side::Base, Ended::Ok, Some(us(100)));
        let earlier = counts.figures();
        counts.record(Side::Base, Ended::Failed, Some(us(90_000)));
        let since = counts.figures().since(&earlier);
        assert_eq!((since.base.calls, since.base.errors, since.base.timed()), (1, 1, 1));
        assert!(since.base.quantile(0.5).unwrap() > us(89_000));
    }

    #[test]
    fn figures_travel_as_json() {
        let counts = Counts::default();
        counts.record(Side::Candidate, Ended::Ok, Some(us(12_345)));
        let figures = counts.figures();
        let text = serde_json::to_string(&figures).unwrap();
        assert_eq!(serde_json::from_str::<Sides>(&text).unwrap(), figures, "{text}");
    }
}
