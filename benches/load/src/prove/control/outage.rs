//! PostgreSQL is killed for a minute under load, then one of the gateways: no call fails for the first, and the audit has
//! every acknowledged call exactly once after both.

use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::account::Account;
use super::callers::{Callers, Manner};
use super::ledger::{Difference, Entry, Outcome};
use super::{Checks, Fleet, Options};
use crate::client::now_ns;
use crate::{Result, process};

/// What a gateway's own memory may grow by while its database is away: buffers, not events.
const GROWTH_KIB: u64 = 48 * 1024;

#[derive(Serialize)]
struct Details {
    sessions: usize,
    calls: u64,
    calls_while_away: u64,
    seconds_away: f64,
    /// Anonymous memory in KiB of each replica: before PostgreSQL went, and the most while it was away.
    memory: Vec<(u64, u64)>,
    /// Most events of one replica that waited for the store.
    backlog: f64,
    audit: Difference,
    verdict: String,
    reasons: std::collections::BTreeMap<String, u64>,
}

pub(in crate::prove) fn prove(options: &Options) -> Result<bool> {
    let (before, away, after) = if options.smoke { (1.0, 2.0, 1.0) } else { (5.0, 60.0, 10.0) };
    let mut fleet = Fleet::start("outage", options.tollgate.as_deref(), 2, |_| String::new())?;
    let manner = Manner { think: Duration::from_millis(15), delay_ms: 1, paired: None, reopen: true };
    let callers = Callers::start(&fleet.endpoints(super::CALLER)?, options.sessions, &manner)?;
    thread::sleep(Duration::from_secs_f64(before));

    let memory = |fleet: &Fleet| -> Result<Vec<u64>> {
        fleet.replicas.iter().map(|replica| process::anonymous_kib(replica.pid()?)).collect()
    };
    let at_first = memory(&fleet)?;
    let mut highest = at_first.clone();
    let mut backlog: f64 = 0.0;
    let went = now_ns();
    let started = Instant::now();
    fleet.postgres.kill()?;
    while started.elapsed().as_secs_f64() < away {
        thread::sleep(Duration::from_millis(500));
        for (most, now) in highest.iter_mut().zip(memory(&fleet)?) {
            *most = now.max(*most);
        }
        for replica in &fleet.replicas {
            backlog = backlog.max(replica.metric("tollgate_audit_backlog")?);
        }
    }
    let ready = fleet.replicas.iter().all(super::Replica::ready);
    fleet.postgres.restart()?;
    let came = now_ns();
    thread::sleep(Duration::from_secs_f64(after));

    let killed = now_ns();
    fleet.replicas[1].kill()?;
    thread::sleep(Duration::from_millis(300));
    fleet.replicas[1].restart()?;
    thread::sleep(Duration::from_secs_f64(after));
    let ledger = callers.finish()?;
    let account = Account::read(&fleet.replicas, &fleet.file("audit.jsonl"))?;
    let audit = account.against(&ledger);

    let mut checks = Checks::default();
    let while_away: Vec<&Entry> = ledger.entries().filter(|e| (went..came).contains(&e.sent)).collect();
    let until_killed = |entry: &&Entry| entry.done < killed && entry.outcome != Outcome::Answered;
    let failed = ledger.entries().filter(until_killed).count();
    checks.add(
        &format!("PostgreSQL is killed for {away} s, and no call fails"),
        format!("{failed} of {}", while_away.len()),
        failed == 0 && !while_away.is_empty(),
    );
    checks.add("replicas stay ready meanwhile", ready, ready);
    let grown: Vec<u64> = at_first.iter().zip(&highest).map(|(a, b)| b.saturating_sub(*a)).collect();
    checks.add(
        &format!("memory of their own grows by less than {} MiB", GROWTH_KIB / 1024),
        format!("{grown:?} KiB"),
        grown.iter().all(|grown| *grown < GROWTH_KIB),
    );
    checks.add("events wait meanwhile", format!("up to {backlog}"), backlog > 0.0);
    let at_the_other = ledger.failures().iter().filter(|e| e.replica == 0).count();
    checks.add(
        "a gateway is killed, and the other one's callers notice nothing",
        at_the_other,
        at_the_other == 0,
    );
    // What was in flight breaks; connections are refused until it is back. Its sessions go on.
    let unclear = ledger.failures().iter().filter(|e| !matches!(e.outcome, Outcome::Broken(_))).count();
    checks.add("its own callers lose connections, no session", format!("{unclear} others"), unclear == 0);
    let again = ledger.entries().any(|e| e.replica == 1 && e.sent > killed && e.outcome == Outcome::Answered);
    checks.add("they are served again", again, again);
    let whole = audit.lost == 0 && audit.duplicated == 0;
    checks.add("each acknowledged call is in the audit, once", audit.text(), whole && audit.acknowledged > 0);
    let known = audit.unacknowledged <= ledger.failures().len() as u64;
    checks.add(
        "and nothing that was not called",
        format!("{} without an answer", audit.unacknowledged),
        known,
    );
    checks.add("the export is sound", account.verdict.trim(), account.sound);
    let details = Details {
        sessions: options.sessions,
        calls: ledger.calls(),
        calls_while_away: while_away.len() as u64,
        seconds_away: (came - went) as f64 / 1e9,
        memory: at_first.into_iter().zip(highest).collect(),
        backlog,
        verdict: account.verdict.trim().to_owned(),
        audit,
        reasons: ledger.reasons(),
    };
    checks.publish(&options.out, "prove-control-outage", options.smoke, &details)
}
