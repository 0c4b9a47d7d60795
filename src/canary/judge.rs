//! When a candidate burns.
//!
//! Each of these ends a canary, over the last [`Rules::window`] or over the whole of it:
//!
//! - the candidate's error rate is above the base's by more than `max_error_rise`;
//! - its rate of refusals is, by more than `max_denial_rise`, if one was given;
//! - its 95th percentile of latency is above the base's times `max_latency_ratio`, and by more than [`NOTICEABLE`].
//!
//! Nothing is judged before the candidate had `min_calls` calls in that time; latency not before the base had, too. A base
//! without calls has an error rate of zero: then the candidate is held against its thresholds alone.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Share, Sides};

/// A difference of latencies that nobody notices.
const NOTICEABLE: Duration = Duration::from_millis(5);
/// States that a window keeps.
const KEPT: u64 = 60;
/// Bounds of what may be asked for, in seconds.
const MAX_DEADLINE: u64 = 30 * 86_400;
const MAX_WINDOW: u64 = 3_600;

/// When a canary ends, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rules {
    /// How far the candidate's error rate may be above the base's.
    pub max_error_rise: Share,
    /// How far its rate of refusals may be; `None`: refusals end nothing.
    #[serde(default)]
    pub max_denial_rise: Option<Share>,
    /// How many times the base's latency its own may be; `None`: latency ends nothing.
    #[serde(default)]
    pub max_latency_ratio: Option<f64>,
    /// Calls of the candidate before anything is judged.
    pub min_calls: u64,
    /// The time that rates are taken over, in seconds, besides the whole of the canary.
    pub window: u64,
    /// How long a candidate has to do well, in seconds.
    pub hold: u64,
    /// Whether it is promoted then, if it had `min_calls` calls.
    pub auto_promote: bool,
    /// When it is rolled back unless it was promoted, in seconds.
    pub deadline: u64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            max_error_rise: Share::from_basis_points(200).unwrap_or_default(),
            max_denial_rise: None,
            max_latency_ratio: Some(2.0),
            min_calls: 50,
            window: 60,
            hold: 600,
            auto_promote: false,
            deadline: 86_400,
        }
    }
}

/// Rules that make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// Too long, or shorter than `hold`.
    #[error("`deadline` must be longer than `hold` and at most 30 days")]
    Deadline,
    /// No time at all.
    #[error("`hold` must be at least a second")]
    Hold,
    /// Not above one.
    #[error("`max_latency_ratio` must be more than 1 and at most 1000")]
    LatencyRatio,
    /// Zero, or out of reach.
    #[error("`min_calls` must be from 1 to 1000000")]
    MinCalls,
    /// Too short or too long.
    #[error("`window` must be from 1 second to an hour")]
    Window,
}

impl Rules {
    /// Whether they make sense.
    ///
    /// # Errors
    /// [`RulesError`].
    pub fn check(&self) -> Result<(), RulesError> {
        if self.max_latency_ratio.is_some_and(|ratio| !(ratio > 1.0 && ratio <= 1000.0)) {
            return Err(RulesError::LatencyRatio);
        }
        if !(1..=1_000_000).contains(&self.min_calls) {
            return Err(RulesError::MinCalls);
        }
        if !(1..=MAX_WINDOW).contains(&self.window) {
            return Err(RulesError::Window);
        }
        if self.hold == 0 {
            return Err(RulesError::Hold);
        }
        if self.deadline <= self.hold || self.deadline > MAX_DEADLINE {
            return Err(RulesError::Deadline);
        }
        Ok(())
    }

    /// Why these figures end a canary; `None` if they do not.
    pub fn burns(&self, figures: &Sides) -> Option<String> {
        let Sides { base, candidate } = figures;
        if candidate.calls < self.min_calls {
            return None;
        }
        let rise = |name: &str, own: f64, other: f64, most: Share| {
            let all = candidate.calls;
            (own - other > most.fraction()).then(|| {
                format!(
                    "{name} {} of {all} calls against {} of the base's {}, more than {most} above",
                    percent(own),
                    percent(other),
                    base.calls
                )
            })
        };
        let errors = rise("errors", candidate.error_rate(), base.error_rate(), self.max_error_rise);
        let denials = self
            .max_denial_rise
            .and_then(|most| rise("refusals", candidate.denial_rate(), base.denial_rate(), most));
        errors.or(denials).or_else(|| self.slow(figures))
    }

    fn slow(&self, Sides { base, candidate }: &Sides) -> Option<String> {
        let ratio = self.max_latency_ratio?;
        if base.timed() < self.min_calls || candidate.timed() < self.min_calls {
            return None;
        }
        let (own, other) = (candidate.quantile(0.95)?, base.quantile(0.95)?);
        let slow = own.as_secs_f64() > other.as_secs_f64() * ratio && own.saturating_sub(other) > NOTICEABLE;
        slow.then(|| {
            format!("latency (p95) {own:?} against {other:?} of the base, more than {ratio} times as much")
        })
    }
}

fn percent(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}

/// Running totals of the last while, so that what came lately can be told from what was before. Of a bounded size.
#[derive(Debug)]
pub struct Window {
    length_ms: u64,
    /// The oldest is at least as old as the window, if there is one so old.
    earlier: VecDeque<(u64, Sides)>,
}

impl Window {
    /// A window of so many seconds.
    pub fn new(seconds: u64) -> Self {
        Self { length_ms: seconds.max(1) * 1000, earlier: VecDeque::new() }
    }

    /// Takes the totals of now, and gives what came within the window.
    pub fn push(&mut self, now_ms: u64, total: &Sides) -> Sides {
        let old = |(at, _): &(u64, Sides)| now_ms.saturating_sub(*at) >= self.length_ms;
        while self.earlier.get(1).is_some_and(old) {
            self.earlier.pop_front();
        }
        let recent = self.earlier.front().map_or_else(|| total.clone(), |(_, earlier)| total.since(earlier));
        let step = self.length_ms / KEPT;
        if self.earlier.back().is_none_or(|(at, _)| now_ms.saturating_sub(*at) >= step.max(1)) {
            self.earlier.push_back((now_ms, total.clone()));
        }
        recent
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Counts, Ended, Side};
    use super::*;

    fn sides(base: (u64, u64), candidate: (u64, u64)) -> Sides {
        let counts = Counts::default();
        for (side, (calls, errors)) in [(Side::Base, base), (Side::Candidate, candidate)] {
            for n in 0..calls {
                counts.record(side, if n < errors { Ended::Failed } else { Ended::Ok }, None);
            }
        }
        counts.figures()
    }

    #[test]
    fn errors_end_it_only_above_the_base_and_only_with_enough_calls() {
        let rules = Rules::default();
        for (base, candidate, burns) in [
            ((1000, 0), (49, 49), false),
            ((1000, 0), (50, 2), true),
            ((1000, 0), (100, 2), false),
            ((1000, 100), (100, 12), false),
            ((1000, 100), (100, 13), true),
            ((0, 0), (100, 50), true),
            ((1000, 1000), (100, 100), false),
        ] {
            let found = rules.burns(&sides(base, candidate));
            assert_eq!(found.is_some(), burns, "{base:?} {candidate:?}: {found:?}");
        }
        let text = rules.burns(&sides((200, 0), (50, 25))).unwrap();
        assert_eq!(text, "errors 50.0 % of 50 calls against 0.0 % of the base's 200, more than 2% above");
    }

    #[test]
    fn refusals_end_it_only_if_that_was_asked_for() {
        let counts = Counts::default();
        for _ in 0..100 {
            counts.record(Side::Base, Ended::Ok, None);
            counts.record(Side::Candidate, Ended::Denied, None);
        }
        let figures = counts.figures();
        assert_eq!(Rules::default().burns(&figures), None);
        let asked = Rules { max_denial_rise: Some("5%".parse().unwrap()), ..Rules::default() };
        assert!(asked.burns(&figures).unwrap().starts_with("refusals 100.0 %"));
    }

    #[test]
    fn latency_ends_it_if_somebody_would_notice() {
        let timed = |base: u64, candidate: u64| {
            let counts = Counts::default();
            for _ in 0..100 {
                counts.record(Side::Base, Ended::Ok, Some(Duration::from_micros(base)));
                counts.record(Side::Candidate, Ended::Ok, Some(Duration::from_micros(candidate)));
            }
            Rules::default().burns(&counts.figures()).is_some()
        };
        assert!(timed(20_000, 60_000));
        assert!(!timed(20_000, 30_000), "within the ratio");
        assert!(!timed(200, 2_000), "ten times as much, and nobody notices");
    }

    #[test]
    fn a_window_forgets_what_was_before_it() {
        let mut window = Window::new(10);
        let mut total = Sides::default();
        for second in 0..30u64 {
            total.candidate.calls += 100;
            total.candidate.errors += if second == 25 { 100 } else { 0 };
            let recent = window.push(second * 1000, &total);
            assert!(recent.candidate.calls <= 1_100, "{}", recent.candidate.calls);
            let expected = if second >= 25 { 100 } else { 0 };
            assert_eq!(recent.candidate.errors, expected, "at {second}");
        }
        let whole = Rules { max_error_rise: "5%".parse().unwrap(), ..Rules::default() };
        assert!(whole.burns(&total).is_none(), "3.3 % of all calls");
        assert!(whole.burns(&window.push(30_000, &total)).is_some(), "10 % of the last ones");
        for n in 0..100_000u64 {
            window.push(30_000 + n, &total);
        }
        assert!(window.earlier.len() as u64 <= KEPT + 2, "{}", window.earlier.len());
    }

    #[test]
    fn rules_that_make_no_sense_are_refused() {
        let good = Rules::default();
        assert_eq!(good.check(), Ok(()));
        for (bad, error) in [
            (Rules { max_latency_ratio: Some(1.0), ..good.clone() }, RulesError::LatencyRatio),
            (Rules { max_latency_ratio: Some(f64::NAN), ..good.clone() }, RulesError::LatencyRatio),
            (Rules { min_calls: 0, ..good.clone() }, RulesError::MinCalls),
            (Rules { window: 0, ..good.clone() }, RulesError::Window),
            (Rules { hold: 0, ..good.clone() }, RulesError::Hold),
            (Rules { deadline: 600, ..good.clone() }, RulesError::Deadline),
            (Rules { deadline: u64::MAX, ..good.clone() }, RulesError::Deadline),
        ] {
            assert_eq!(bad.check(), Err(error), "{bad:?}");
        }
    }
}
