//! One of two servers is killed under load, and comes back.

use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde::Serialize;

use super::callers::{Caller, Callers, Manner, Totals, What};
use super::{Checks, Options, Stage};
use crate::bench::{pace, start_fixture_at};
use crate::client::{Call, Session, Shape};
use crate::{Result, process};

/// How long the server that came back may go without a session.
const BACK: Duration = Duration::from_secs(90);

#[derive(Serialize)]
struct Details {
    sessions: usize,
    on_the_killed: usize,
    in_flight_failed: usize,
    back_in_use: bool,
    totals: Totals,
}

pub(super) fn prove(options: &Options) -> Result<bool> {
    let seconds = if options.smoke { 1 } else { 10 };
    let mut stage = Stage::new("kill", options.tollgate.as_deref(), 2, None)?;
    let endpoint = stage.gateway.endpoint();
    // Calls that take a while, so that some are in flight whenever the server dies.
    let manner = Manner { delay_ms: 5, think: Duration::from_millis(5) };
    let callers = Callers::start(&endpoint, options.sessions, manner)?;
    thread::sleep(Duration::from_secs(seconds));
    let (killed, address) = stage.servers.remove(1);
    killed.signal(Signal::KILL)?;
    drop(killed);
    thread::sleep(Duration::from_secs(seconds));
    let (back, _) = start_fixture_at("B", None, &address.to_string())?;
    thread::sleep(Duration::from_secs(seconds));
    let callers = callers.finish()?;
    let back_in_use = options.smoke
        || process::wait_until("the server that came back is used", BACK, || {
            let Ok(mut session) = Session::open(&endpoint) else { return false };
            let mut call = session.call(Call { bytes: 1, shape: Shape::Json, delay_ms: 0 });
            let called = session.connection.exchange(call.advance()).is_ok() && session.is_home();
            called && session.home().is_some_and(|home| home.starts_with('B'))
        })
        .is_ok();
    let survivor = pace(stage.servers[0].1, None)?;
    drop(back);

    let totals = Totals::of(&callers);
    let (on_it, elsewhere): (Vec<&Caller>, Vec<&Caller>) = callers.iter().partition(|c| was_on_killed(c));
    let mut checks = Checks::default();
    let both = !on_it.is_empty() && !elsewhere.is_empty();
    checks.add("sessions lived on both servers", format!("{} of {}", on_it.len(), callers.len()), both);
    let untouched = elsewhere.iter().all(|c| c.events.is_empty());
    checks.add(
        "sessions on the other server notice nothing",
        format!("{} calls", survivor.called),
        untouched,
    );
    let once = |c: &&Caller| c.count(|w| matches!(w, What::Failed { .. })) <= 1;
    let failed = on_it.iter().map(|c| c.count(|w| matches!(w, What::Failed { .. }))).sum::<usize>();
    checks.add("only calls in flight fail: at most one by session", failed, on_it.iter().all(once));
    let clear = |w: &What| match w {
        What::Failed { status, code, .. } => matches!(status, 502..=504) && code.is_some(),
        What::Lost => true,
        _ => false,
    };
    let unclear = callers.iter().map(|c| c.count(|w| !clear(w))).sum::<usize>();
    checks.add(
        "each failure is a JSON-RPC error with its id, none a broken connection",
        format!("{unclear} others"),
        unclear == 0,
    );
    let lost = |c: &&Caller| c.count(|w| matches!(w, What::Lost)) == 1;
    checks.add("each session on it gets one 404 and opens anew", totals.lost, on_it.iter().all(lost));
    if !options.smoke {
        checks.add("the server that came back gets sessions again", back_in_use, back_in_use);
    }
    let details = Details {
        sessions: options.sessions,
        on_the_killed: on_it.len(),
        in_flight_failed: failed,
        back_in_use,
        totals,
    };
    checks.publish(&options.out, "prove-kill", options.smoke, &details)
}

/// Whether its session lived on the server that was killed. Who was not has no event, or lived on the other one.
fn was_on_killed(caller: &Caller) -> bool {
    caller.events.first().is_some_and(|event| event.home.starts_with('b'))
}
