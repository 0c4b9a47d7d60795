//! The embedded default: quick to start, and nothing acknowledged is lost by `kill -9`, whenever it comes.

use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::account::Account;
use super::callers::{Callers, Manner};
use super::ledger::{Difference, Ledger};
use super::replica::{Replica, Setup};
use super::{Checks, Options, Scratch};
use crate::Result;
use crate::bench::{gateway_binary, start_fixture};
use crate::client::{Connection, Endpoint};
use crate::identity::Issuer;
use crate::process;

/// From the first start to the first answer.
const FIRST_CALL: Duration = Duration::from_secs(5);
/// A time between two kills: seconds, in turn, so that they come at any moment of a start and of a batch.
const MOMENTS: [f64; 7] = [0.02, 0.35, 0.11, 0.7, 0.05, 0.25, 0.5];

#[derive(Serialize)]
struct Details {
    first_call_seconds: f64,
    kills: usize,
    answered: u64,
    audit: Difference,
}

pub(in crate::prove) fn prove(options: &Options) -> Result<bool> {
    let kills = if options.smoke { 5 } else { 100 };
    let scratch = Scratch::new("embedded")?;
    let binary = gateway_binary(options.tollgate.as_deref())?;
    let first_call = first_call(&binary, &scratch.0.join("first"))?;

    let server = start_fixture("a", None)?;
    let issuer = Issuer::new()?;
    let jwks = scratch.0.join("jwks.json");
    issuer.write_jwks(&jwks)?;
    // SQLite in its own folder, as the embedded default has it.
    let mut replica = Replica::start(Setup {
        binary,
        dir: scratch.0.join("replica"),
        role: None,
        store: None,
        keys: None,
        document: Some(super::document::document(&[server.1], &jwks.to_string_lossy(), 0)),
        more: String::new(),
    })?;
    let endpoint = replica.endpoint("/mcp/load", &issuer.token(super::CALLER)?);
    let manner = Manner { think: Duration::from_millis(4), delay_ms: 0, paired: None, reopen: true };
    let sessions = options.sessions.min(8);
    let mut ledgers = Vec::new();
    for kill in 0..kills {
        let callers = Callers::start(std::slice::from_ref(&endpoint), sessions, &manner)?;
        thread::sleep(Duration::from_secs_f64(MOMENTS[kill % MOMENTS.len()]));
        replica.kill()?;
        ledgers.push(callers.finish()?);
        replica.restart()?;
    }
    let ledger = Ledger::merge(ledgers);
    let account = Account::read(std::slice::from_ref(&replica), &scratch.0.join("audit.jsonl"))?;
    let audit = account.against(&ledger);

    let mut checks = Checks::default();
    checks.add(
        &format!("first start to first answer of a tool in less than {FIRST_CALL:?}"),
        format!("{:.2} s", first_call.as_secs_f64()),
        first_call < FIRST_CALL,
    );
    let whole = audit.lost + audit.duplicated == 0 && audit.acknowledged > 0;
    checks.add(
        &format!("after {kills} × kill -9 each acknowledged call is in the audit, once"),
        audit.text(),
        whole,
    );
    let known = audit.unacknowledged <= ledger.unknown();
    checks.add(
        "and nothing that was not called",
        format!("{} without an answer", audit.unacknowledged),
        known,
    );
    checks.add("the export is sound", account.verdict.trim(), account.sound);
    let details =
        Details { first_call_seconds: first_call.as_secs_f64(), kills, answered: ledger.answered(), audit };
    checks.publish(&options.out, "prove-control-embedded", options.smoke, &details)
}

/// What a newcomer does: starts it without a configuration, and calls a tool of its demo server.
fn first_call(binary: &std::path::Path, dir: &std::path::Path) -> Result<Duration> {
    std::fs::create_dir_all(dir)?;
    let mcp = std::net::SocketAddr::from(([127, 0, 0, 1], process::free_port()?));
    let admin = std::net::SocketAddr::from(([127, 0, 0, 1], process::free_port()?));
    let mut command = std::process::Command::new(std::fs::canonicalize(binary)?);
    command.args([
        "serve",
        "--data-dir",
        "data",
        "--listen",
        &mcp.to_string(),
        "--admin",
        &admin.to_string(),
    ]);
    command.current_dir(dir);
    let log = dir.join("tollgate.log");
    let started = Instant::now();
    let _running = process::Process::start(process::bound(&command, None), None, Some(&log))?;
    let endpoint = Endpoint { address: mcp, path: "/mcp/demo".to_owned(), token: None };
    let mut request = endpoint.modern_tool("echo", r#"{"text":"first"}"#);
    let served = process::wait_until("the embedded default serves", Duration::from_secs(60), || {
        let mut connection = Connection::new(mcp);
        let answer = connection.exchange(request.advance());
        answer.is_ok_and(|answer| answer.status == 200)
            && memchr::memmem::find(connection.body(), b"first").is_some()
    });
    served.map_err(|error| format!("{error}\n{}", std::fs::read_to_string(&log).unwrap_or_default()))?;
    Ok(started.elapsed())
}
