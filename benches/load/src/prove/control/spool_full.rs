//! The disk of the audit spool is full: `refuse` refuses before a server is asked, `drop` goes on and counts what it loses.

use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::process::geteuid;
use serde::Serialize;

use super::account::Account;
use super::callers::{Callers, Manner};
use super::ledger::{Difference, Ledger, Outcome};
use super::{Checks, Fleet, Options, Scratch};
use crate::bench::pace;
use crate::{Result, process};

/// Size of the disk: two segments of 1 MiB at once, one ahead, and then it is full.
const DISK: &str = "3m";
/// How long filling it may take.
const FILLING: Duration = Duration::from_secs(120);

#[derive(Serialize)]
struct Details {
    policy: &'static str,
    disk: &'static str,
    answered: u64,
    refused: f64,
    dropped: f64,
    audit: Difference,
    log: String,
    reasons: std::collections::BTreeMap<String, u64>,
}

pub(in crate::prove) fn prove(options: &Options) -> Result<bool> {
    let mut kept = true;
    for policy in ["refuse", "drop"] {
        kept &= with(policy, options)?;
    }
    Ok(kept)
}

fn with(policy: &'static str, options: &Options) -> Result<bool> {
    let disk = Disk::mount(policy)?;
    let mut fleet = Fleet::start(&format!("spool-{policy}"), options.tollgate.as_deref(), 1, |_| {
        // Without a disk of its own, the cap is what it meets.
        let cap = if disk.mounted { "1GiB" } else { "3MiB" };
        let spool =
            format!("{{ path: \"{}\", segment_size: 1MiB, max_size: {cap} }}", disk.folder.0.display());
        format!("audit: {{ on_full: {policy}, spool: {spool} }}\n")
    })?;
    // Nothing leaves the spool.
    fleet.postgres.kill()?;
    let manner = Manner { think: Duration::from_millis(2), delay_ms: 0, paired: None, reopen: true };
    let sessions = options.sessions.min(16);
    // The longer the name, the sooner it is full.
    let endpoints = fleet.endpoints(&"load".repeat(50))?;
    let callers = Callers::start(&endpoints, sessions, &manner)?;
    let metric = format!("tollgate_audit_{}_total", if policy == "refuse" { "refused" } else { "dropped" });
    process::wait_until("the spool is full", FILLING, || {
        fleet.replicas[0].metric(&metric).is_ok_and(|count| count > 0.0)
    })?;
    thread::sleep(Duration::from_secs(1));
    let full = callers.finish()?;
    let log = fleet.replicas[0].whole_log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("audit_spool_full")).collect();
    let line = lines.first().copied().unwrap_or_default().to_owned();
    let follows = if policy == "refuse" { "requests will be refused" } else { "events will be lost" };
    fleet.postgres.restart()?;
    // Room again: calls are served and recorded.
    let recovered = process::wait_until("there is room again", FILLING, || {
        let drained = fleet.replicas[0].metric("tollgate_audit_backlog").is_ok_and(|n| n == 0.0);
        drained && fleet.replicas[0].whole_log().contains("audit_spool_has_room")
    });
    // Slowly: the disk has room for a second of what was filled with, and draining is no promise about speed.
    let manner = Manner { think: Duration::from_millis(25), ..manner };
    let callers = Callers::start(&endpoints, sessions, &manner)?;
    thread::sleep(Duration::from_secs(1));
    let after = callers.finish()?;
    let account = Account::read(&fleet.replicas, &fleet.file("audit.jsonl"))?;
    let count = |what: &str| fleet.replicas[0].metric(&format!("tollgate_audit_{what}_total"));
    let (refused, dropped) = (count("refused")?, count("dropped")?);
    let called = pace(fleet.servers[0].1, None)?.called;

    let mut checks = Checks::default();
    let place = if disk.mounted { "a disk of its own" } else { "its cap" };
    let after_failed = after.failures().len();
    let reasons = full.reasons();
    let ledger = Ledger::merge([full, after]);
    let audit = account.against(&ledger);
    let answered = ledger.answered();
    checks.add(
        &format!("{policy}: the spool fills {place}, and a metric says so"),
        format!("{refused} refused, {dropped} dropped"),
        if policy == "refuse" { refused > 0.0 && dropped == 0.0 } else { dropped > 0.0 && refused == 0.0 },
    );
    let clear =
        lines.len() == 1 && line.contains("ERROR") && line.contains("error=") && line.contains(follows);
    checks.add(
        "one line of the log says so, why, and what follows",
        if clear { "yes".to_owned() } else { lines.join(" / ") },
        clear,
    );
    if policy == "refuse" {
        let others = ledger.failures().iter().filter(|e| !is_refusal(&e.outcome)).count();
        checks.add(
            "calls are refused with 503 and the reason, none otherwise",
            format!("{others} others"),
            others == 0,
        );
        checks.add(
            "no server is asked for what is refused",
            format!("{called} asked, {answered} answered"),
            called == answered,
        );
        checks.add(
            "each acknowledged call is in the audit, once",
            audit.text(),
            audit.lost + audit.duplicated == 0,
        );
    } else {
        let failed = ledger.failures().len();
        checks.add("no call fails", format!("{failed} of {}", ledger.calls()), failed == 0);
        let counted = audit.lost as f64 == dropped && audit.duplicated == 0;
        checks.add(
            "what is missing in the audit is what the metric says",
            format!("{}, {dropped} counted", audit.text()),
            counted,
        );
    }
    checks.add(
        "with the database back there is room again",
        format!("{after_failed} calls fail"),
        recovered.is_ok() && after_failed == 0,
    );
    checks.add("the export is sound", account.verdict.trim(), account.sound);
    let details = Details {
        policy,
        disk: if disk.mounted { DISK } else { "none: cap" },
        answered,
        refused,
        dropped,
        audit,
        log: line,
        reasons,
    };
    checks.publish(&options.out, &format!("prove-control-spool-full-{policy}"), options.smoke, &details)
}

fn is_refusal(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed { status: 503, message } if message.contains("audit"))
}

/// A folder, with a small file system in memory mounted on it where that is possible: mounting needs root.
struct Disk {
    mounted: bool,
    folder: Scratch,
}

impl Disk {
    fn mount(name: &str) -> Result<Self> {
        let folder = Scratch::new(&format!("disk-{name}"))?;
        let options = format!("size={DISK},mode=0700");
        let mounted = geteuid().is_root()
            && Command::new("mount")
                .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
                .arg(&folder.0)
                .output()
                .is_ok_and(|output| output.status.success());
        Ok(Self { mounted, folder })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            // Lazily: what has files on it may be on its way out.
            let _ = Command::new("umount").arg("-l").arg(&self.folder.0).output();
        }
    }
}
