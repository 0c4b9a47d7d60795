//! What-if on 100,000 recorded requests, as an operator runs it: the command, from its start to its answer, which is held
//! against what the two documents say.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use super::{Checks, Options, Scratch};
use crate::Result;
use crate::bench::gateway_binary;

const REQUESTS: u64 = 100_000;
/// In the short form, which is of debug builds.
const REQUESTS_SMOKE: u64 = 5_000;
/// How long it may take.
const LIMIT: Duration = Duration::from_secs(5);
/// Tools and callers, which have no common divisor with the roles' turn of three.
const TOOLS: u64 = 977;
const CALLERS: u64 = 251;

#[derive(Serialize)]
struct Details {
    requests: u64,
    seconds: f64,
    bytes: u64,
    changed: u64,
}

pub(in crate::prove) fn prove(options: &Options) -> Result<bool> {
    let requests = if options.smoke { REQUESTS_SMOKE } else { REQUESTS };
    let scratch = Scratch::new("whatif")?;
    let file = |name: &str| scratch.0.join(name);
    fs::write(file("before.yaml"), document("*"))?;
    fs::write(file("after.yaml"), document("get_1*"))?;
    let samples = samples(requests);
    fs::write(file("samples.jsonl"), &samples)?;
    let mut command = Command::new(fs::canonicalize(gateway_binary(options.tollgate.as_deref())?)?);
    command.args(["whatif", "after.yaml", "--baseline", "before.yaml", "--samples", "samples.jsonl"]);
    command.args(["--format", "json"]).current_dir(&scratch.0);
    let started = Instant::now();
    let output = command.output()?;
    let took = started.elapsed();
    if !output.status.success() {
        return Err(format!("tollgate whatif: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let count = |name: &str| report[name].as_u64().unwrap_or(u64::MAX);
    let changes = report["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let denied = |change: &&Value| change["change"] == "allow → deny";
    let changed: u64 = changes.iter().filter(denied).filter_map(|change| change["samples"].as_u64()).sum();
    // Viewers lose what does not begin with a 1; developers may do everything in both.
    let lost = |at: &u64| role(*at) == "viewer" && !(at % TOOLS).to_string().starts_with('1');
    let expected = (0..requests).filter(lost).count() as u64;

    let mut checks = Checks::default();
    let seconds = took.as_secs_f64();
    checks.add(
        &format!("{requests} recorded requests are replayed in less than {LIMIT:?}"),
        format!("{seconds:.2} s, start and reading included"),
        took < LIMIT && count("samples") == requests,
    );
    checks.add(
        "the change is found, and nothing else",
        format!("{changed} of {expected} allow → deny, {} kinds of change", changes.len()),
        changed == expected && changes.len() == 1 && count("undecided") == 0 && count("disagreeing") == 0,
    );
    checks.add("the rest is unchanged", count("unchanged"), count("unchanged") == requests - expected);
    let details = Details { requests, seconds, bytes: samples.len() as u64, changed };
    checks.publish(&options.out, "prove-control-whatif", options.smoke, &details)
}

fn role(at: u64) -> &'static str {
    if at.is_multiple_of(3) { "developer" } else { "viewer" }
}

/// Requests that the first document allows, as the sampler records them.
fn samples(requests: u64) -> String {
    let mut text = String::new();
    for at in 0..requests {
        let (time, tool, caller, role) = (1_700_000_000_000 + at, at % TOOLS, at % CALLERS, role(at));
        let _ = writeln!(
            text,
            r#"{{"time":{time},"tenant":"default","route":"weather","path":"/mcp/weather","method":"tools/call","name":"get_{tool}","ip":"10.0.0.1","outcome":"ok","principal":{{"id":"corp|{caller}","kind":"user","roles":["{role}"]}}}}"#
        );
    }
    text
}

/// A document with some rules that are looked at and apply to nobody here, and a last one for viewers.
fn document(viewers: &str) -> String {
    let mut rules = String::new();
    for at in 0..20 {
        let _ = writeln!(
            rules,
            "      - {{ deny: {{ roles: [viewer], tools: [\"drop_{at}_*\"], groups: [\"g{at}\"] }} }}"
        );
    }
    format!(
        r#"version: 1
servers:
  - {{ name: weather, http: {{ targets: ["http://127.0.0.1:9001/mcp"] }} }}
routes:
  - {{ name: weather, servers: [weather], policy: staff, limits: [ample] }}
limits:
  - {{ name: ample, key: principal, rate: 1000000/s }}
policies:
  - name: staff
    default: deny
    rules:
{rules}      - {{ allow: {{ roles: [developer] }} }}
      - {{ allow: {{ roles: [viewer], tools: ["{viewers}"] }} }}
identity:
  issuers:
    - {{ name: corp, issuer: "https://login.example.com", jwks: {{ url: "https://login.example.com/keys" }} }}
"#
    )
}
