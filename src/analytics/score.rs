//! How well a server is, as one number from 0 to 100, and what it is made of.
//!
//! Each component is a share of 1, or absent if there is no evidence for it:
//!
//! | component | weight | 1 | 0 |
//! |---|---|---|---|
//! | availability | 50 | every look found the target taking work | none did |
//! | errors | 25 | the server failed no request | it failed one in ten, or more |
//! | latency | 15 | requests took 250 ms or less on average | 10 s or more; in between by ratio |
//! | stability | 10 | no change of state and no ejection | six an hour and target, or more |
//!
//! The score is the weighted mean of those that there are, but never more than availability alone would give: a server that
//! is away half of the time is not at 75 because it answers quickly when it is there. Without a look there is no score.

use serde::Serialize;

/// Share of failed requests from which on nothing is left.
const WORST_FAILURES: f64 = 0.10;
/// Average latency up to which all is well, in microseconds.
const GOOD_LATENCY: f64 = 250_000.0;
/// From which on nothing is left.
const WORST_LATENCY: f64 = 10_000_000.0;
/// Changes and ejections in an hour of a target from which on nothing is left.
const WORST_CHANGES: f64 = 6.0;
/// Seconds of an hour, which is how many looks it has: targets are looked at once a second.
const HOUR: f64 = 3600.0;

/// What is known of a server over a time. Counts below zero count as zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Looks at its targets, one a second.
    pub observed: i64,
    /// Those that found the target taking work.
    pub available: i64,
    /// Requests that it was sent.
    pub calls: i64,
    /// Those that it failed.
    pub failures: i64,
    /// How long one took on average, in microseconds.
    pub mean_us: i64,
    /// Changes of its targets' states, and ejections.
    pub changes: i64,
}

/// One part of a score.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Component {
    /// From 0, the worst, to 1.
    pub value: f64,
    /// How much it counts, of 100.
    pub weight: u32,
}

/// The parts of a score; those without evidence are absent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Components {
    /// How much of the time targets took work.
    pub availability: Component,
    /// How many requests the server failed.
    pub errors: Option<Component>,
    /// How long requests took.
    pub latency: Option<Component>,
    /// How often targets came and went.
    pub stability: Component,
}

/// A word for a score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// Below 60.
    Poor,
    /// From 60 on.
    Fair,
    /// From 90 on.
    Good,
}

/// How well a server is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Score {
    /// From 0, the worst, to 100.
    pub score: u32,
    /// In a word.
    pub grade: Grade,
    /// What it is made of.
    pub components: Components,
}

impl Score {
    /// The score that the evidence gives; none without a look.
    pub fn of(evidence: &Evidence) -> Option<Self> {
        let Evidence { observed, available, calls, failures, mean_us, changes } = *evidence;
        if observed <= 0 {
            return None;
        }
        let share = |part: i64, of: i64| (part.max(0) as f64 / of as f64).clamp(0.0, 1.0);
        let component = |value: f64, weight| Component { value: value.clamp(0.0, 1.0), weight };
        let availability = component(share(available, observed), 50);
        let errors = (calls > 0).then(|| component(1.0 - share(failures, calls) / WORST_FAILURES, 25));
        let latency = (calls > 0).then(|| {
            let over = (mean_us.max(1) as f64 / GOOD_LATENCY).ln() / (WORST_LATENCY / GOOD_LATENCY).ln();
            component(1.0 - over, 15)
        });
        let hourly = changes.max(0) as f64 / (observed as f64 / HOUR).max(1.0);
        let stability = component(1.0 - hourly / WORST_CHANGES, 10);
        let parts = [Some(availability), errors, latency, Some(stability)];
        let weights: f64 = parts.iter().flatten().map(|c| f64::from(c.weight)).sum();
        let sum: f64 = parts.iter().flatten().map(|c| c.value * f64::from(c.weight)).sum();
        let score = (sum / weights).min(availability.value) * 100.0;
        let score = score.round() as u32;
        let grade = match score {
            90.. => Grade::Good,
            60.. => Grade::Fair,
            _ => Grade::Poor,
        };
        Some(Self { score, grade, components: Components { availability, errors, latency, stability } })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WELL: Evidence =
        Evidence { observed: 3600, available: 3600, calls: 1000, failures: 0, mean_us: 20_000, changes: 0 };

    fn score(evidence: Evidence) -> u32 {
        Score::of(&evidence).unwrap().score
    }

    #[test]
    fn scores_are_what_the_table_says() {
        assert_eq!(score(WELL), 100);
        assert_eq!(Score::of(&Evidence { observed: 0, ..WELL }), None, "nobody looked");
        // One request in ten: the 25 of errors are gone.
        assert_eq!(score(Evidence { failures: 100, ..WELL }), 75);
        assert_eq!(score(Evidence { failures: 50, ..WELL }), 88);
        assert_eq!(score(Evidence { mean_us: 10_000_000, ..WELL }), 85);
        assert_eq!(score(Evidence { changes: 6, ..WELL }), 90);
        assert_eq!(score(Evidence { changes: 3, ..WELL }), 95);
        // Away half of the time: no more than 50, however quick it is.
        assert_eq!(score(Evidence { available: 1800, ..WELL }), 50);
        assert_eq!(score(Evidence { available: 0, ..WELL }), 0);
        // Without requests only what was seen counts.
        let idle = Score::of(&Evidence { calls: 0, changes: 6, ..WELL }).unwrap();
        assert_eq!((idle.score, idle.grade), (83, Grade::Fair));
        assert!(idle.components.errors.is_none() && idle.components.latency.is_none());
        // Two changes in the first minutes are no twenty an hour.
        assert_eq!(score(Evidence { observed: 120, available: 120, changes: 3, ..WELL }), 95);
    }

    fn any_evidence() -> impl Strategy<Value = Evidence> {
        (1..1_000_000i64, any::<i64>(), 0..1_000_000i64, any::<i64>(), any::<i64>(), any::<i64>()).prop_map(
            |(observed, available, calls, failures, mean_us, changes)| Evidence {
                observed,
                available,
                calls,
                failures,
                mean_us,
                changes,
            },
        )
    }

    proptest! {
        #[test]
        fn scores_are_bounded_and_no_more_than_availability(e in any_evidence()) {
            let found = Score::of(&e).unwrap();
            prop_assert!(found.score <= 100);
            let c = found.components;
            for part in [Some(c.availability), c.errors, c.latency, Some(c.stability)].into_iter().flatten() {
                prop_assert!((0.0..=1.0).contains(&part.value));
            }
            prop_assert!(f64::from(found.score) <= c.availability.value * 100.0 + 0.5);
        }

        #[test]
        fn nothing_worse_makes_a_better_score(e in any_evidence(), by in 0..1_000_000i64) {
            let before = score(e);
            let worse = [
                Evidence { available: e.available.saturating_sub(by), ..e },
                Evidence { failures: e.failures.saturating_add(by), ..e },
                Evidence { mean_us: e.mean_us.saturating_add(by), ..e },
                Evidence { changes: e.changes.saturating_add(by), ..e },
            ];
            for evidence in worse {
                prop_assert!(score(evidence) <= before, "{:?}", evidence);
            }
        }
    }
}
