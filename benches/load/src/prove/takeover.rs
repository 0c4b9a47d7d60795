//! One of two gateways behind a TCP balancer is killed under load. Its sessions go on at the other.

use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde::Serialize;

use super::callers::{Callers, Manner, Totals, What};
use super::{Checks, Options, Scratch};
use crate::Result;
use crate::balancer::Balancer;
use crate::bench::{gateway_binary, start_fixture};
use crate::client::Endpoint;
use crate::gateway::{Gateway, Setup};
use crate::identity::Issuer;

/// Seconds within which a caller notices that its connection was closed.
const NOTICED: f64 = 0.5;

#[derive(Serialize)]
struct Details {
    sessions: usize,
    reconnected: usize,
    calls_at_the_other: f64,
    totals: Totals,
}

pub(super) fn prove(options: &Options) -> Result<bool> {
    let seconds = if options.smoke { 2 } else { 20 };
    let scratch = Scratch::new("takeover")?;
    let (_fixture, upstream) = start_fixture("a", None)?;
    let issuer = Issuer::new()?;
    let start = |name: &str| {
        let setup = Setup {
            binary: gateway_binary(options.tollgate.as_deref())?,
            dir: scratch.0.join(name),
            upstreams: vec![upstream],
            data_threads: 0,
            core: None,
            audit: true,
            valkey: None,
            key_file: Some(scratch.0.join("session.keys")),
        };
        Gateway::start(setup, &issuer)
    };
    let (killed, other) = (start("one")?, start("two")?);
    let balancer = Balancer::start(vec![killed.endpoint().address, other.endpoint().address])?;
    let endpoint = Endpoint { address: balancer.address(), ..killed.endpoint() };
    // Calls that take a while, so that some are in flight when the gateway dies.
    let manner = Manner { delay_ms: 5, think: Duration::from_millis(5) };
    let callers = Callers::start(&endpoint, options.sessions, manner)?;
    thread::sleep(Duration::from_secs(seconds));
    let before = other.metric("tollgate_requests_total")?;
    let kill = callers.clock();
    killed.process.signal(Signal::KILL)?;
    // Waits for its end: until then the kernel goes on taking connections for it, and breaks them.
    drop(killed);
    let gone = callers.clock();
    thread::sleep(Duration::from_secs(seconds));
    let callers = callers.finish()?;
    let at_the_other = other.metric("tollgate_requests_total")? - before;

    let totals = Totals::of(&callers);
    let reconnected = callers.iter().filter(|c| c.connections > 1).count();
    let mut checks = Checks::default();
    let both = reconnected > 0 && reconnected < callers.len();
    let found = format!("{} of {}", callers.len() - reconnected, callers.len());
    checks.add("some sessions were at the one that stayed, and notice nothing", found, both);
    let quiet = callers.iter().filter(|c| c.connections == 1).all(|c| c.events.is_empty());
    checks.add("no call of theirs fails", if quiet { "none" } else { "some" }, quiet);
    let broken = |w: &What| matches!(w, What::Broken(_));
    let breaks: Vec<f64> =
        callers.iter().flat_map(|c| &c.events).filter(|e| broken(&e.what)).map(|e| e.at).collect();
    let most = callers.iter().map(|c| c.count(broken)).max().unwrap_or(0);
    let during = breaks.iter().all(|at| (kill..gone + NOTICED).contains(at));
    checks.add(
        "connections to the killed one break, once or, if made while it was dying, twice, and none afterwards",
        format!("{} breaks, at most {most} of one caller; gone after {:.0} ms", breaks.len(), (gone - kill) * 1e3),
        during && most <= 2 && !breaks.is_empty(),
    );
    let others = callers.iter().map(|c| c.count(|w| !broken(w))).sum::<usize>();
    checks.add("no session is lost, no call fails in another way", format!("{others} events"), others == 0);
    let until = 2.0 * seconds as f64 - 0.5;
    let went_on = callers.iter().all(|c| c.answered_at >= until);
    let found = format!("{at_the_other} calls after the kill");
    checks.add("all sessions go on at the other", found, went_on && at_the_other >= callers.len() as f64);
    let details =
        Details { sessions: options.sessions, reconnected, calls_at_the_other: at_the_other, totals };
    checks.publish(&options.out, "prove-takeover", options.smoke, &details)
}
