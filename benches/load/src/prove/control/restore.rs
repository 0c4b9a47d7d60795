//! A store that was used on SQLite goes into PostgreSQL by backup and restore, and back: equal row by row, read by the
//! engines' own programs; and a gateway on the copy serves the same calls with the same key.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::account::Account;
use super::api::Api;
use super::callers::{Callers, Manner};
use super::ledger::{Difference, Ledger};
use super::postgres::Postgres;
use super::replica::{Replica, Setup};
use super::tables::Tables;
use super::{Checks, JWKS, Options, Scratch, document};
use crate::bench::{gateway_binary, start_fixture};
use crate::client::Session;
use crate::identity::Issuer;
use crate::{Result, process};

/// Tables that use leaves rows in, whatever its length.
const USED: [&str; 14] = [
    "admin_tokens",
    "api_keys",
    "audit_checkpoints",
    "audit_events",
    "audit_heads",
    "config_heads",
    "config_revisions",
    "identity_changes",
    "idempotency_keys",
    "revocations",
    "role_bindings",
    "secrets",
    "tenants",
    "users",
];
/// One that has rows only after a minute or more of it.
const USED_LONG: &str = "usage_minute";
/// How long a gateway may take to end.
const END: Duration = Duration::from_secs(30);
/// How long a new key may take to reach the data plane.
const KNOWN: Duration = Duration::from_secs(5);
const TENANT: &str = "/api/v1/tenants/default";

#[derive(Serialize)]
struct Details {
    rows: BTreeMap<String, usize>,
    calls: u64,
    audit: Difference,
    verdict: String,
}

/// What stays the same from one store to the next.
struct Stage {
    scratch: Scratch,
    binary: PathBuf,
    api_key: String,
    sessions: usize,
}

pub(in crate::prove) fn prove(options: &Options) -> Result<bool> {
    let seconds = if options.smoke { 1.0 } else { 75.0 };
    let scratch = Scratch::new("restore")?;
    let servers = ["a", "b"].iter().map(|name| start_fixture(name, None)).collect::<Result<Vec<_>>>()?;
    let addresses: Vec<_> = servers.iter().map(|(_, address)| *address).collect();
    let jwks = scratch.0.join(JWKS);
    Issuer::new()?.write_jwks(&jwks)?;
    let binary = gateway_binary(options.tollgate.as_deref())?;
    let sessions = options.sessions.min(16);
    let mut stage = Stage { scratch, binary, api_key: String::new(), sessions };

    let mut first = Replica::start(stage.setup("sqlite", None))?;
    let mut operator = first.operator(&first)?;
    let documents: Vec<String> =
        (0..4).map(|n| document::keyed(&addresses, &jwks.to_string_lossy(), n)).collect();
    stage.api_key = populate(&mut operator, &documents)?;
    let endpoint = first.endpoint("/mcp/load", &stage.api_key);
    process::wait_until("a new key is accepted", KNOWN, || Session::open(&endpoint).is_ok())?;
    let mut ledgers = vec![stage.call(&first, seconds)?];
    let mut account = Account::read(std::slice::from_ref(&first), &stage.file("first.jsonl"))?;
    let auditor = account.key.clone();
    first.run(&["audit", "checkpoint", "--config", "tollgate.yaml"])?;
    let before = shown(&mut operator)?;
    let mut clean = first.stop(END)?;

    let postgres = Postgres::start(&stage.file("postgres"))?;
    let mut second = stage.successor(&first, "postgres-replica", Some(postgres.url()))?;
    let printed = hand_over(&first, &second, &stage.file("sqlite.backup"))?;
    let source = Tables::of_sqlite(&sqlite(&first))?;
    let differences = source.differences(&Tables::of_postgres(&postgres)?);
    let mut checks = Checks::default();
    let long = (!options.smoke).then_some(&USED_LONG);
    let unused: Vec<&&str> = USED.iter().chain(long).filter(|table| source.rows(table) == 0).collect();
    let counts = source.counts();
    let filled = counts.values().filter(|rows| **rows > 0).count();
    checks.add(
        "the store was used",
        format!(
            "{} rows in {filled} of {} tables, none in {unused:?}",
            counts.values().sum::<usize>(),
            counts.len()
        ),
        unused.is_empty(),
    );
    equal(
        &mut checks,
        "SQLite restored into PostgreSQL is equal, table by table",
        &differences,
        counts.len(),
    );
    checks.add(
        "backup and restore print the same rows and hashes",
        printed.0.lines().count(),
        printed.0 == printed.1 && printed.0.lines().count() == counts.len(),
    );

    second.launch()?;
    second.await_ready()?;
    let after = shown(&mut second.operator(&first)?)?;
    checks.add(
        "the API shows the same, to the same admin token",
        format!("{} answers", after.len()),
        before == after && !after.is_empty(),
    );
    ledgers.push(stage.call(&second, seconds.min(5.0))?);
    let served = |ledger: &Ledger| ledger.calls() > 0 && ledger.answered() == ledger.calls();
    checks.add(
        "PostgreSQL serves the same calls with the same key",
        calls(&ledgers[1]),
        ledgers.iter().all(served),
    );
    account = Account::read(std::slice::from_ref(&second), &stage.file("second.jsonl"))?;
    let signed = account.sound && account.key == auditor;
    checks.add("its audit goes on, sound by the same key", account.verdict.trim(), signed);
    clean &= second.stop(END)?;

    let mut third = stage.successor(&second, "sqlite-again", None)?;
    let printed = hand_over(&second, &third, &stage.file("postgres.backup"))?;
    let source = Tables::of_postgres(&postgres)?;
    let differences = source.differences(&Tables::of_sqlite(&sqlite(&third))?);
    equal(&mut checks, "and the way back is equal, table by table", &differences, source.counts().len());
    checks.add("backup and restore print the same again", printed.0.lines().count(), printed.0 == printed.1);
    third.launch()?;
    third.await_ready()?;
    ledgers.push(stage.call(&third, seconds.min(5.0))?);
    checks.add("SQLite serves the same calls again", calls(&ledgers[2]), ledgers.iter().all(served));
    account = Account::read(std::slice::from_ref(&third), &stage.file("third.jsonl"))?;
    clean &= third.stop(END)?;
    let ledger = Ledger::merge(ledgers);
    let audit = account.against(&ledger);
    let whole = audit.lost + audit.duplicated + audit.unacknowledged == 0 && audit.acknowledged > 0;
    checks.add("the audit has each call of all three, once", audit.text(), whole);
    checks.add(
        "and is sound by the first key",
        account.verdict.trim(),
        account.sound && account.key == auditor,
    );
    checks.add("each gateway ended by itself", clean, clean);
    let verdict = account.verdict.trim().to_owned();
    let details = Details { rows: counts, calls: ledger.calls(), audit, verdict };
    checks.publish(&options.out, "prove-control-restore", options.smoke, &details)
}

fn equal(checks: &mut Checks, promise: &str, differences: &[String], tables: usize) {
    let found = match differences {
        [] => format!("{tables} tables"),
        some => some.join("; "),
    };
    checks.add(promise, found, differences.is_empty() && tables > 0);
}

fn calls(ledger: &Ledger) -> String {
    format!("{} of {} answered {:?}", ledger.answered(), ledger.calls(), ledger.reasons())
}

/// The file of a replica's store.
fn sqlite(replica: &Replica) -> PathBuf {
    replica.dir().join("data/tollgate.db")
}

/// Backs one store up and restores it into another; what both commands print.
fn hand_over(from: &Replica, to: &Replica, file: &Path) -> Result<(String, String)> {
    let file = file.to_string_lossy();
    let backup = from.run(&["backup", &file, "--config", "tollgate.yaml"])?;
    Ok((backup, to.run(&["restore", &file, "--config", "tollgate.yaml"])?))
}

impl Stage {
    fn file(&self, name: &str) -> PathBuf {
        self.scratch.0.join(name)
    }

    fn setup(&self, name: &str, store: Option<String>) -> Setup {
        Setup {
            binary: self.binary.clone(),
            dir: self.file(name),
            role: None,
            store,
            keys: None,
            document: None,
            more: String::new(),
        }
    }

    /// A replica that is not started, with the master key of another one, which is in no backup. What the audit is signed
    /// with is in it, sealed.
    fn successor(&self, of: &Replica, name: &str, store: Option<String>) -> Result<Replica> {
        let replica = Replica::prepare(self.setup(name, store))?;
        let data = replica.dir().join("data");
        fs::DirBuilder::new().mode(0o700).create(&data)?;
        fs::copy(of.dir().join("data").join("master.key"), data.join("master.key"))?;
        Ok(replica)
    }

    /// Calls for a while, with the key of the store.
    fn call(&self, replica: &Replica, seconds: f64) -> Result<Ledger> {
        let endpoint = replica.endpoint("/mcp/load", &self.api_key);
        let paired = Some("/mcp/paired".to_owned());
        let manner = Manner { think: Duration::from_millis(25), delay_ms: 0, paired, reopen: true };
        let callers = Callers::start(&[endpoint], self.sessions, &manner)?;
        thread::sleep(Duration::from_secs_f64(seconds));
        callers.finish()
    }
}

/// Puts something of each kind into a store, through the API; returns an API key for calls.
fn populate(api: &mut Api, documents: &[String]) -> Result<String> {
    let json = |body: &str| Some(("application/json", body.to_owned()));
    let mut tell = |line: &str, headers: &[(&str, &str)], body: Option<(&str, String)>| -> Result<String> {
        let (method, path) = line.split_once(' ').ok_or("a method and a path")?;
        let body = body.as_ref().map(|(kind, body)| (*kind, body.as_str()));
        let answer = api.send(method, path, headers, body)?;
        if (200..300).contains(&answer.status) { Ok(answer.body) } else { Err(answer.refusal(method, path)) }
    };
    let create = [("If-None-Match", "*")];
    let awkward = r#"{"value":"s3cret \" ' | \\ \ud83d\ude00 ü\n"}"#;
    for tenant in ["acme", "a_z-9"] {
        let at = format!("PUT /api/v1/tenants/{tenant}");
        tell(&at, &create, json("{}"))?;
        tell(&format!("{at}/secrets/token"), &create, json(awkward))?;
        let limit = r#"{"key":"principal","rate":"5/m"}"#;
        tell(&format!("{at}/limits/five"), &create, json(limit))?;
    }
    tell(&format!("PUT {TENANT}/secrets/upstream"), &create, json(r#"{"value":"b3arer"}"#))?;
    for (number, document) in documents.iter().enumerate() {
        let tag = format!("\"r{number}\"");
        let condition = if number == 0 { ("If-None-Match", "*") } else { ("If-Match", tag.as_str()) };
        let headers = [condition, ("X-Tollgate-Reason", "a \"variant\", ü")];
        tell(&format!("PUT {TENANT}/document"), &headers, Some(("application/yaml", document.clone())))?;
    }
    let last = format!(r#"{{"revision":{}}}"#, documents.len() - 1);
    tell(&format!("POST {TENANT}/rollback"), &[("If-Match", "*")], json(&last))?;
    let user = r#"{"display_name":"Bob Ü","email":"bob@example.com"}"#;
    tell(&format!("PUT {TENANT}/users/corp%7Cbob"), &create, json(user))?;
    tell(&format!("PUT {TENANT}/role-bindings/corp%7Cbob/viewer"), &[], None)?;
    tell(&format!("POST {TENANT}/revocations"), &[], json(r#"{"principal":"corp|mallory"}"#))?;
    let keyed = [("Idempotency-Key", "the-key")];
    let body = r#"{"roles":["developer"],"principal":"corp|load","note":"calls"}"#;
    let made = tell(&format!("POST {TENANT}/api-keys"), &keyed, json(body))?;
    let made: Value = serde_json::from_str(&made)?;
    Ok(made["key"].as_str().ok_or("no key in the answer")?.to_owned())
}

/// What the API shows of what was put there.
fn shown(api: &mut Api) -> Result<Vec<String>> {
    let rests = ["document", "revisions", "secrets", "users", "role-bindings", "revocations"];
    let mine = rests.iter().map(|rest| format!("{TENANT}/{rest}"));
    let others = ["acme/document", "a_z-9/secrets"].iter().map(|rest| format!("/api/v1/tenants/{rest}"));
    let platform = ["/api/v1/tenants", "/api/v1/platform/document"].map(str::to_owned);
    mine.chain(others).chain(platform).map(|path| api.get(&path)).collect()
}
