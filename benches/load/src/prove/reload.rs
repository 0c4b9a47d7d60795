//! Reloads under load: 100 in a minute while sessions call.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde::Serialize;

use super::callers::{Callers, Manner, Totals};
use super::{Checks, Options, Stage};
use crate::Result;

#[derive(Serialize)]
struct Details {
    sessions: usize,
    reloads: u64,
    applied: f64,
    refused: f64,
    seconds: f64,
    totals: Totals,
}

pub(super) fn prove(options: &Options) -> Result<bool> {
    let (reloads, seconds) = if options.smoke { (5, 3.0) } else { (100, 60.0) };
    let stage = Stage::new("reload", options.tollgate.as_deref(), 2, None)?;
    let gateway = &stage.gateway;
    let outcome =
        |outcome: &str| gateway.metric(&format!("tollgate_config_reloads_total{{outcome=\"{outcome}\"}}"));
    let (applied, refused) = (outcome("applied")?, outcome("rejected")?);
    let manner = Manner { delay_ms: 1, think: Duration::from_millis(2) };
    let callers = Callers::start(&gateway.endpoint(), options.sessions, manner)?;
    let started = Instant::now();
    for reload in 1..=reloads {
        let due = Duration::from_secs_f64(seconds * reload as f64 / reloads as f64);
        thread::sleep(due.saturating_sub(started.elapsed()));
        gateway.rewrite(reload)?;
        gateway.process.signal(Signal::HUP)?;
    }
    thread::sleep(Duration::from_millis(700));
    let (applied, refused) = (outcome("applied")? - applied, outcome("rejected")? - refused);
    let took = started.elapsed().as_secs_f64();
    let totals = Totals::of(&callers.finish()?);

    let mut checks = Checks::default();
    let what = format!("{reloads} changed documents are put in force in {seconds} s");
    checks.add(
        &what,
        format!("{applied} applied, {refused} refused"),
        applied >= reloads as f64 && refused == 0.0,
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
    let details = Details { sessions: options.sessions, reloads, applied, refused, seconds: took, totals };
    checks.publish(&options.out, "prove-reload", options.smoke, &details)
}
