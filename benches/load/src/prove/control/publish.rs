//! Publications through a control plane while sessions call at two data planes: no call fails, each replica follows
//! within a second and never goes back, and no answer is made of two revisions.
//!
//! Each publication changes three things that belong together (a limit's name, its quota, and the server of a route), and
//! answers on that route show all three beside the revision that they name: see [`super::document`].

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use super::api::Api;
use super::callers::{Callers, Manner};
use super::ledger::{Publish, Served};
use super::{Checks, Fleet, Options};
use crate::client::now_ns;
use crate::report::percentile;
use crate::{Result, process};

/// Longest that a replica may serve what a publication has replaced.
const BEHIND: f64 = 1.0;
/// The same in the short form, which is of debug builds that share a machine with other tests.
const BEHIND_SMOKE: f64 = 3.0;
/// How long replicas may take to say what they serve.
const CONVERGED: Duration = Duration::from_secs(15);
/// Every so many publications one goes back to an earlier revision.
const ROLLBACK_EVERY: u64 = 10;
const DOCUMENT: &str = "/api/v1/tenants/default/document";

#[derive(Serialize)]
struct Details {
    sessions: usize,
    calls: u64,
    failed: usize,
    publishes: usize,
    rollbacks: usize,
    seconds: f64,
    publish_ms: Spread,
    lag_ms: Spread,
    served: Served,
    reasons: std::collections::BTreeMap<String, u64>,
}

#[derive(Clone, Copy, Serialize)]
struct Spread {
    p50: f64,
    p99: f64,
    most: f64,
}

impl Spread {
    /// Of seconds, sorted; in milliseconds.
    fn of(sorted: &[f64]) -> Self {
        let at = |share| percentile(sorted, share) * 1e3;
        Self { p50: at(0.5), p99: at(0.99), most: at(1.0) }
    }

    fn text(self) -> String {
        format!("p50 {:.0} ms, p99 {:.0} ms, most {:.0} ms", self.p50, self.p99, self.most)
    }
}

pub(in crate::prove) fn prove(options: &Options) -> Result<bool> {
    let (count, every) = if options.smoke { (10, 0.4) } else { (200, 0.6) };
    let (fleet, mut editor) = start(options.tollgate.as_deref(), 2)?;

    let manner = Manner {
        think: Duration::from_millis(15),
        delay_ms: 1,
        paired: Some("/mcp/paired".to_owned()),
        reopen: true,
    };
    // The control plane takes no calls.
    let endpoints = &fleet.endpoints(super::CALLER)?[1..];
    let callers = Callers::start(endpoints, options.sessions, &manner)?;
    thread::sleep(Duration::from_secs(1));
    let (mut took, mut rollbacks) = (Vec::with_capacity(count), 0);
    let started = Instant::now();
    for number in 1..=count as u64 {
        let due = started + Duration::from_secs_f64(every * number as f64);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let began = Instant::now();
        if number.is_multiple_of(ROLLBACK_EVERY) {
            editor.roll_back()?;
            rollbacks += 1;
        } else {
            editor.publish(&fleet.document(number))?;
        }
        took.push(began.elapsed().as_secs_f64());
    }
    let seconds = started.elapsed().as_secs_f64();
    thread::sleep(Duration::from_secs_f64(if options.smoke { BEHIND_SMOKE } else { BEHIND } + 0.5));
    let ledger = callers.finish()?;
    let head = editor.head()?.revision;
    let converged = converged(&mut editor.api, head);

    took.sort_by(f64::total_cmp);
    let publishes = editor.done;
    let served = ledger.served(&publishes);
    let lags = ledger.lags(&publishes[1..], endpoints.len());
    let failures = ledger.failures();
    let (publish_ms, lag_ms) = (Spread::of(&took), Spread::of(&lags));
    let mut checks = Checks::default();
    // Those that took longer than their turn put the next ones off.
    let planned = every * count as f64;
    checks.add(
        &format!("{count} publications in {planned:.0} s through the control API"),
        format!("{} ({rollbacks} rollbacks) in {seconds:.1} s: {}", took.len(), publish_ms.text()),
        took.len() == count && (options.smoke || seconds < planned + 5.0),
    );
    checks.add(
        "no call fails meanwhile",
        format!("{} of {}", failures.len(), ledger.calls()),
        failures.is_empty() && ledger.calls() > 0,
    );
    checks.add(
        "each answer names its revision",
        format!("{} of {}, {} revisions", served.named, served.named + served.unnamed, served.revisions),
        served.unnamed == 0 && served.revisions > count / 2,
    );
    checks.add(
        "no replica goes back to an older one",
        format!("{} times", served.backwards),
        served.backwards == 0,
    );
    let behind = if options.smoke { BEHIND_SMOKE } else { BEHIND };
    checks.add(
        &format!("each is at most {behind:.0} s behind the acknowledged head"),
        lag_ms.text(),
        served.behind <= behind && lags.len() == count * endpoints.len(),
    );
    checks.add(
        "no answer is made of two revisions",
        format!("{} of {} looked at", served.torn, served.looked_at),
        served.torn == 0 && served.looked_at > 0,
    );
    let newest: Vec<u64> = (0..endpoints.len()).map(|replica| ledger.newest(replica)).collect();
    checks.add(
        "both serve the head in the end, and the API says so",
        format!("{newest:?} of {head}; {}", converged.as_ref().err().map_or("all", |_| "not all")),
        newest.iter().all(|newest| *newest == head) && converged.is_ok(),
    );
    let details = Details {
        sessions: options.sessions,
        calls: ledger.calls(),
        failed: failures.len(),
        publishes: took.len(),
        rollbacks,
        seconds,
        publish_ms,
        lag_ms,
        served,
        reasons: ledger.reasons(),
    };
    checks.publish(&options.out, "prove-control-publish", options.smoke, &details)
}

/// Waits until the API says that all three replicas serve the head.
fn converged(api: &mut Api, head: u64) -> Result<()> {
    process::wait_until("all replicas serve the head", CONVERGED, || {
        let all = api.json("/api/v1/tenants/default/convergence").ok();
        all.is_some_and(|all| {
            let replicas = all["replicas"].as_array().map_or(0, Vec::len);
            all["complete"] == true && all["revision"] == head && replicas == 3
        })
    })
}

/// Publishes one document after the other, and remembers what was acknowledged when.
struct Editor {
    api: Api,
    done: Vec<Publish>,
}

impl Editor {
    /// What was acknowledged last.
    fn head(&self) -> Result<Publish> {
        self.done.last().copied().ok_or_else(|| "nothing was published".into())
    }

    /// Publishes a variant on the condition that nobody else did meanwhile.
    fn publish(&mut self, (variant, text): &(u64, String)) -> Result<()> {
        let condition = match self.done.last() {
            Some(head) => ("If-Match", format!("\"r{}\"", head.revision)),
            None => ("If-None-Match", "*".to_owned()),
        };
        let headers = [(condition.0, condition.1.as_str()), ("X-Tollgate-Reason", "a variant")];
        self.change("PUT", DOCUMENT, &headers, ("application/yaml", text), *variant)
    }

    /// Publishes the document of the revision before the last one again.
    fn roll_back(&mut self) -> Result<()> {
        let [.., earlier, head] = self.done[..] else { return Err("there is nothing to go back to".into()) };
        let condition = format!("\"r{}\"", head.revision);
        let body = format!(r#"{{"revision":{}}}"#, earlier.revision);
        let path = "/api/v1/tenants/default/rollback";
        self.change("POST", path, &[("If-Match", &condition)], ("application/json", &body), earlier.variant)
    }

    fn change(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: (&str, &str),
        variant: u64,
    ) -> Result<()> {
        let answer = self.api.send(method, path, headers, Some(body))?;
        let acknowledged = now_ns();
        if answer.status != 200 {
            return Err(answer.refusal(method, path));
        }
        let said: Value = serde_json::from_str(&answer.body)?;
        let revision = said["revision"].as_u64().ok_or("no revision in the answer")?;
        if said["changed"] != true {
            return Err(format!("{method} {path} changed nothing: {}", answer.body).into());
        }
        self.done.push(Publish { revision, variant, acknowledged });
        Ok(())
    }
}

/// A control plane, and `data` data planes for calls, all with their documents from the store; the first
/// document is published.
fn start(tollgate: Option<&Path>, data: usize) -> Result<(Fleet, Editor)> {
    let mut fleet = Fleet::stage("publish", tollgate)?;
    fleet.add(Some("control"), None, |_| String::new())?;
    let control = &fleet.replicas[0];
    let mut editor = Editor { api: control.operator(control)?, done: Vec::new() };
    editor.publish(&fleet.document(0))?;
    for _ in 0..data {
        fleet.add(Some("data"), None, |_| String::new())?;
    }
    Ok((fleet, editor))
}
