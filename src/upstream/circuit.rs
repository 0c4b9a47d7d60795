//! Circuit breaker of one target: stop asking a target that does not answer.
//!
//! Ejection ([`crate::upstream::outlier`]) moves traffic to better targets and never takes the last one. The circuit
//! is about the target alone: while open, requests are refused at once instead of waiting for a timeout, also when no
//! other target is left.
//!
//! Owner of state: the target's statistics, so that a reload neither opens nor closes it.
//!
//! # States
//!
//! ```text
//!            failures gateway failures in a row
//!   closed ─────────────────────────────────────► open ──── open_for × 2^trips ───► half open
//!     ▲                                            ▲                                    │
//!     │                                            └──────────── a trial fails ─────────┤
//!     └───────────────────────────────────────── successes trials in a row succeed ─────┘
//! ```
//!
//! Half open, at most `probes` trials run at a time; everything else is refused. A trial that is cancelled frees its
//! place and decides nothing. A trial that has not ended after `open_for` (a long stream) no longer keeps others out.
//! Outcomes of requests that began before the circuit opened change nothing, and neither do trials of an earlier
//! half-open phase: each phase has a number and a trial carries it.
//!
//! Panic mode and session affinity do not override an open circuit. Taking the breaker out of the configuration
//! closes it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::upstream::outlier::nanos;
use crate::upstream::spec::BreakerSpec;

/// What to tell a caller to wait when trials are under way.
pub(crate) const TRIAL_HINT: Duration = Duration::from_secs(1);

/// The circuit of one target.
#[derive(Debug, Default)]
pub(crate) struct Circuit {
    /// Whether `state` must be looked at: closed circuits cost one load.
    tripped: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    /// Times opened since it was last closed.
    trips: u32,
    /// Number of the current half-open phase.
    generation: u64,
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Closed,
    HalfOpen {
        since: u64,
        running: u32,
        successes: u32,
    },
    Open {
        until: u64,
    },
}

/// Whether a request may go to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The circuit is closed.
    Pass,
    /// Refused; trying again makes sense at this clock reading.
    Refused(u64),
    /// As a trial of the half-open phase with this number. Must be settled.
    Trial(u64),
}

/// How a trial ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Cancelled,
    Failure,
    Success,
}

/// The state of a circuit, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CircuitState {
    /// Requests pass.
    Closed,
    /// Some requests pass, to find out.
    HalfOpen,
    /// No request passes.
    Open,
}

impl Circuit {
    /// Asks to send a request.
    pub(crate) fn admit(&self, now: u64, spec: Option<&BreakerSpec>) -> Admission {
        if !self.tripped.load(Ordering::Acquire) {
            return Admission::Pass;
        }
        let mut state = self.state.lock();
        let Some(spec) = spec else {
            self.close(&mut state);
            return Admission::Pass;
        };
        if let Phase::Open { until } = state.phase {
            if now < until {
                return Admission::Refused(until);
            }
            state.generation += 1;
            state.phase = Phase::HalfOpen { since: now, running: 0, successes: 0 };
        }
        let generation = state.generation;
        let Phase::HalfOpen { since, running, .. } = &mut state.phase else { return Admission::Pass };
        if *running >= spec.probes {
            if now.saturating_sub(*since) < nanos(spec.open_for) {
                return Admission::Refused(now.saturating_add(nanos(TRIAL_HINT)));
            }
            *running = 0;
        }
        *since = now;
        *running += 1;
        Admission::Trial(generation)
    }

    /// Reports how a trial ended; returns whether that closed the circuit.
    pub(crate) fn settle(
        &self,
        generation: u64,
        verdict: Verdict,
        now: u64,
        spec: Option<&BreakerSpec>,
    ) -> bool {
        let mut state = self.state.lock();
        let Some(spec) = spec else {
            self.close(&mut state);
            return true;
        };
        if state.generation != generation {
            return false;
        }
        let Phase::HalfOpen { running, successes, .. } = &mut state.phase else { return false };
        *running = running.saturating_sub(1);
        match verdict {
            Verdict::Cancelled => false,
            Verdict::Failure => {
                self.open(&mut state, now, spec);
                false
            }
            Verdict::Success => {
                *successes += 1;
                let closes = *successes >= spec.successes;
                if closes {
                    self.close(&mut state);
                }
                closes
            }
        }
    }

    /// Opens a closed circuit; returns for how long, or `None` if it is not closed.
    pub(crate) fn trip(&self, now: u64, spec: &BreakerSpec) -> Option<Duration> {
        let mut state = self.state.lock();
        matches!(state.phase, Phase::Closed).then(|| self.open(&mut state, now, spec))
    }

    /// The state as a request at `now` would find it.
    pub(crate) fn peek(&self, now: u64) -> CircuitState {
        match self.state.lock().phase {
            Phase::Closed => CircuitState::Closed,
            Phase::HalfOpen { .. } => CircuitState::HalfOpen,
            Phase::Open { until } if now < until => CircuitState::Open,
            Phase::Open { .. } => CircuitState::HalfOpen,
        }
    }

    fn open(&self, state: &mut State, now: u64, spec: &BreakerSpec) -> Duration {
        let length = spec.open_for.saturating_mul(1 << state.trips.min(20)).min(spec.max_open);
        state.trips = state.trips.saturating_add(1);
        state.phase = Phase::Open { until: now.saturating_add(nanos(length)) };
        self.tripped.store(true, Ordering::Release);
        length
    }

    fn close(&self, state: &mut State) {
        state.phase = Phase::Closed;
        state.trips = 0;
        self.tripped.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Clock;

    fn spec() -> BreakerSpec {
        BreakerSpec {
            open_for: Duration::from_secs(5),
            max_open: Duration::from_secs(15),
            ..BreakerSpec::default()
        }
    }

    fn trial(c: &Circuit, now: u64, spec: &BreakerSpec) -> u64 {
        match c.admit(now, Some(spec)) {
            Admission::Trial(generation) => generation,
            other => panic!("expected a trial, got {other:?}"),
        }
    }

    #[test]
    fn refuses_while_open_and_lets_one_trial_through_after() {
        let clock = Clock::manual(0);
        let (c, spec) = (Circuit::default(), spec());
        assert_eq!(c.admit(clock.mono_ns(), Some(&spec)), Admission::Pass);
        let start = clock.mono_ns();
        assert_eq!(c.trip(start, &spec), Some(Duration::from_secs(5)));
        assert_eq!(c.trip(start, &spec), None, "open already");
        assert_eq!(c.admit(start, Some(&spec)), Admission::Refused(start + 5_000_000_000));
        clock.advance(Duration::from_secs(5));
        let generation = trial(&c, clock.mono_ns(), &spec);
        assert!(matches!(c.admit(clock.mono_ns(), Some(&spec)), Admission::Refused(_)));
        assert_eq!(c.peek(clock.mono_ns()), CircuitState::HalfOpen);
        assert!(c.settle(generation, Verdict::Success, clock.mono_ns(), Some(&spec)));
        assert_eq!(c.admit(clock.mono_ns(), Some(&spec)), Admission::Pass);
        assert_eq!(c.peek(clock.mono_ns()), CircuitState::Closed);
    }

    #[test]
    fn a_failed_trial_opens_it_for_twice_as_long() {
        let clock = Clock::manual(0);
        let (c, spec) = (Circuit::default(), spec());
        c.trip(clock.mono_ns(), &spec);
        let mut waits = Vec::new();
        for _ in 0..3 {
            let Admission::Refused(until) = c.admit(clock.mono_ns(), Some(&spec)) else { panic!("open") };
            waits.push((until - clock.mono_ns()) / 1_000_000_000);
            clock.advance(Duration::from_nanos(until - clock.mono_ns()));
            let generation = trial(&c, clock.mono_ns(), &spec);
            assert!(!c.settle(generation, Verdict::Failure, clock.mono_ns(), Some(&spec)));
        }
        assert_eq!(waits, [5, 10, 15]);
    }

    #[test]
    fn cancelled_and_late_trials_decide_nothing() {
        let clock = Clock::manual(0);
        let (c, spec) = (Circuit::default(), spec());
        c.trip(clock.mono_ns(), &spec);
        clock.advance(Duration::from_secs(5));
        let first = trial(&c, clock.mono_ns(), &spec);
        c.settle(first, Verdict::Cancelled, clock.mono_ns(), Some(&spec));
        let second = trial(&c, clock.mono_ns(), &spec);
        c.settle(second, Verdict::Failure, clock.mono_ns(), Some(&spec));
        assert!(!c.settle(first, Verdict::Success, clock.mono_ns(), Some(&spec)));
        assert_eq!(c.peek(clock.mono_ns()), CircuitState::Open);
    }

    #[test]
    fn a_trial_that_never_ends_does_not_block_the_target() {
        let clock = Clock::manual(0);
        let (c, spec) = (Circuit::default(), spec());
        c.trip(clock.mono_ns(), &spec);
        clock.advance(Duration::from_secs(5));
        trial(&c, clock.mono_ns(), &spec);
        assert!(matches!(c.admit(clock.mono_ns(), Some(&spec)), Admission::Refused(_)));
        clock.advance(Duration::from_secs(5));
        trial(&c, clock.mono_ns(), &spec);
    }

    #[test]
    fn several_successes_may_be_asked_for() {
        let clock = Clock::manual(0);
        let c = Circuit::default();
        let spec = BreakerSpec { probes: 2, successes: 3, ..spec() };
        c.trip(clock.mono_ns(), &spec);
        clock.advance(Duration::from_secs(5));
        for round in 0..3 {
            assert_eq!(c.peek(clock.mono_ns()), CircuitState::HalfOpen, "round {round}");
            let generation = trial(&c, clock.mono_ns(), &spec);
            c.settle(generation, Verdict::Success, clock.mono_ns(), Some(&spec));
        }
        assert_eq!(c.peek(clock.mono_ns()), CircuitState::Closed);
    }

    #[test]
    fn taking_the_breaker_away_closes_the_circuit() {
        let clock = Clock::manual(0);
        let c = Circuit::default();
        c.trip(clock.mono_ns(), &spec());
        assert_eq!(c.admit(clock.mono_ns(), None), Admission::Pass);
        assert_eq!(c.peek(clock.mono_ns()), CircuitState::Closed);
    }
}
