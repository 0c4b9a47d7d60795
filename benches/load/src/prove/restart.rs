//! Zero-downtime restarts under load: a successor takes the sockets over while sessions call.

use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::callers::{Callers, Manner, Totals};
use super::{Checks, Options, Stage};
use crate::Result;

/// How long the old process may take to finish what it has.
const DRAIN: Duration = Duration::from_secs(45);
/// Load between two restarts.
const BETWEEN: Duration = Duration::from_secs(3);

#[derive(Serialize)]
struct Details {
    sessions: usize,
    restarts: usize,
    /// Seconds from the start of each successor to the end of its predecessor.
    took: Vec<f64>,
    totals: Totals,
}

pub(super) fn prove(options: &Options) -> Result<bool> {
    let restarts = if options.smoke { 1 } else { 5 };
    let mut stage = Stage::new("restart", options.tollgate.as_deref(), 2, None)?;
    let manner = Manner { delay_ms: 1, think: Duration::from_millis(2) };
    let callers = Callers::start(&stage.gateway.endpoint(), options.sessions, manner)?;
    let mut took = Vec::new();
    for restart in 1..=restarts {
        thread::sleep(if options.smoke { Duration::from_millis(500) } else { BETWEEN });
        let started = Instant::now();
        let mut old = stage.gateway.upgrade(restart)?;
        if !old.ended_within(DRAIN)? {
            let log = stage.gateway.log(&format!("tollgate-{restart}.log"));
            return Err(format!(
                "the old process is still there after {DRAIN:?}; its successor says:\n{log}"
            )
            .into());
        }
        took.push(started.elapsed().as_secs_f64());
    }
    thread::sleep(Duration::from_millis(500));
    let totals = Totals::of(&callers.finish()?);

    let mut checks = Checks::default();
    let slowest = took.iter().copied().fold(0.0, f64::max);
    checks.add(
        &format!("{restarts} successors take over, and their predecessors end"),
        format!("the slowest in {slowest:.1} s"),
        took.len() == restarts,
    );
    checks.add(
        "no call fails",
        format!("{} of {}", totals.failed, totals.calls),
        totals.failed == 0 && totals.calls > 0,
    );
    let what = format!("none of {} sessions is lost or leads elsewhere", options.sessions);
    checks.add(
        &what,
        format!("{} lost, {} misrouted", totals.lost, totals.misrouted),
        totals.lost + totals.misrouted == 0,
    );
    let moved = totals.connections >= options.sessions as u64 * (restarts as u64 + 1);
    checks.add("every client moves to each successor", format!("{} connections", totals.connections), moved);
    let details = Details { sessions: options.sessions, restarts, took, totals };
    checks.publish(&options.out, "prove-restart", options.smoke, &details)
}
