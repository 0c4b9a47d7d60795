//! `tollgate canary`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::args::ApiArgs;
use super::client::{Call, Client, Failure, Placing};
use super::connect;
use super::file::{InFile, own, read};
use crate::canary::Share;
use crate::cli::args::reason;
use crate::config::model::Period;
use crate::store::Time;

/// How often `status --watch` asks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Try a revision on some callers before it becomes the head.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tollgate canary start new.yaml --principals 10% --hold 10m --auto-promote --reason 'new weather server'
  tollgate canary start --revision 41 --replicas 50% --max-error-rise 1% --max-latency-ratio 1.5
  tollgate canary status --watch
  tollgate canary share 50%
  tollgate canary promote --reason 'looks good'
  tollgate canary abort")]
pub(in crate::cli) struct CanaryArgs {
    #[command(subcommand)]
    what: What,
}

/// Whose canary.
#[derive(Debug, Args)]
struct At {
    /// The tenant whose document is tried.
    #[arg(long, default_value = "default")]
    tenant: String,
    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Debug, Subcommand)]
enum What {
    /// End it: everybody is served the head again.
    Abort {
        /// Why.
        #[arg(long, default_value = "", value_parser = reason)]
        reason: String,
        #[command(flatten)]
        at: At,
    },
    /// Publish the candidate in place of the head, unless the head has moved meanwhile.
    Promote {
        /// Why. Kept with the revision.
        #[arg(long, default_value = "", value_parser = reason)]
        reason: String,
        #[command(flatten)]
        at: At,
    },
    /// Change the share. A larger one moves nobody from the candidate back.
    Share {
        /// In per cent, such as 25%.
        share: Share,
        #[command(flatten)]
        at: At,
    },
    /// Try a file or a revision. Callers are chosen by their stable ids, the same on every replica, never by request.
    Start(Box<StartArgs>),
    /// Show the canary, or the last one, and what was counted. Exit codes: 0 running or promoted, 1 rolled back or aborted.
    Status {
        /// Ask again every second until it has ended.
        #[arg(long)]
        watch: bool,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Debug, Args)]
struct StartArgs {
    /// The candidate: a whole configuration, of which the tenant's document is taken. `-` reads standard input.
    #[arg(required_unless_present = "revision", conflicts_with = "revision")]
    file: Option<PathBuf>,
    /// Try this revision instead of a file.
    #[arg(long, value_name = "N")]
    revision: Option<i64>,
    /// Share of callers who are served the candidate.
    #[arg(long, value_name = "SHARE", required_unless_present = "replicas", conflicts_with = "replicas")]
    principals: Option<Share>,
    /// Share of replicas that serve the candidate, at least one and not all. Not with the embedded store.
    #[arg(long, value_name = "SHARE")]
    replicas: Option<Share>,
    /// Roll back if the candidate's error rate is above the head's by more than this.
    #[arg(long, value_name = "SHARE", default_value = "2%")]
    max_error_rise: Share,
    /// Roll back if more of its calls are refused than of the head's, by more than this.
    #[arg(long, value_name = "SHARE")]
    max_denial_rise: Option<Share>,
    /// Roll back if its latency (p95) is more than so many times the head's; 0: never.
    #[arg(long, value_name = "RATIO", default_value_t = 2.0)]
    max_latency_ratio: f64,
    /// Calls of the candidate before anything is judged.
    #[arg(long, value_name = "N", default_value_t = 50)]
    min_calls: u64,
    /// The time that rates are taken over, besides the whole of the canary.
    #[arg(long, value_name = "TIME", default_value = "1m")]
    window: Period,
    /// How long the candidate has to do well.
    #[arg(long, value_name = "TIME", default_value = "10m")]
    hold: Period,
    /// Promote it then, by itself.
    #[arg(long)]
    auto_promote: bool,
    /// Roll it back if it was not promoted by then.
    #[arg(long, value_name = "TIME", default_value = "1d")]
    deadline: Period,
    /// Only if the head is at this revision.
    #[arg(long, value_name = "N")]
    if_revision: Option<i64>,
    /// Why. Kept with the revision.
    #[arg(long, default_value = "", value_parser = reason)]
    reason: String,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Deserialize)]
struct Shown {
    state: String,
    base: i64,
    candidate: i64,
    kind: String,
    share: String,
    next_share: Option<Next>,
    started_by: String,
    reason: String,
    started: String,
    hold_until: String,
    deadline: String,
    ended: Option<String>,
    ended_by: Option<String>,
    end_reason: Option<String>,
    promoted: Option<i64>,
    rules: ShownRules,
    base_calls: Figures,
    candidate_calls: Figures,
}

#[derive(Debug, Deserialize)]
struct Next {
    share: String,
    from: String,
}

#[derive(Debug, Deserialize)]
struct ShownRules {
    auto_promote: bool,
    min_calls: u64,
}

#[derive(Debug, Deserialize)]
struct Figures {
    calls: u64,
    errors: u64,
    denied: u64,
    error_rate: f64,
    p50_ms: Option<f64>,
    p95_ms: Option<f64>,
    p99_ms: Option<f64>,
}

pub(super) async fn run(args: &CanaryArgs) -> Result<ExitCode, Failure> {
    let at = match &args.what {
        What::Start(start) => &start.at,
        What::Abort { at, .. }
        | What::Promote { at, .. }
        | What::Share { at, .. }
        | What::Status { at, .. } => at,
    };
    let (client, path) = (connect(&at.api)?, format!("/api/v1/tenants/{}/canary", at.tenant));
    match &args.what {
        What::Abort { reason, .. } => send(&client, Method::DELETE, &path, reason, None).await,
        What::Promote { reason, .. } => {
            send(&client, Method::POST, &format!("{path}/promote"), reason, None).await
        }
        What::Share { share, .. } => {
            send(&client, Method::PATCH, &path, "", Some(json!({ "share": share }))).await
        }
        What::Start(start) => begin(&client, &path, start).await,
        What::Status { watch, .. } => status(&client, &path, *watch).await,
    }
}

async fn send(
    client: &Client,
    method: Method,
    path: &str,
    reason: &str,
    body: Option<Value>,
) -> Result<ExitCode, Failure> {
    let shown: Shown = client.json(call(method, path, reason, body, None)).await?;
    show(&shown);
    Ok(ExitCode::SUCCESS)
}

fn call<'a>(
    method: Method,
    path: &'a str,
    reason: &str,
    body: Option<Value>,
    if_revision: Option<i64>,
) -> Call<'a> {
    let mut headers = Vec::new();
    if !reason.is_empty() {
        headers.push(("x-tollgate-reason", reason.to_owned()));
    }
    if let Some(revision) = if_revision {
        headers.push(("if-match", format!("\"r{revision}\"")));
    }
    let body = body.map(|body| ("application/json", body.to_string().into_bytes()));
    Call { method, headers, body, ..Call::get(path) }
}

async fn begin(client: &Client, path: &str, start: &StartArgs) -> Result<ExitCode, Failure> {
    let (document, places) = match &start.file {
        Some(file) => {
            let bytes = read(file)?;
            (Some(own(&bytes, file, &start.at.tenant)?), InFile::of(&bytes))
        }
        None => (None, InFile::default()),
    };
    let verbatim = document.as_ref().is_none_or(|part| part.verbatim);
    let base = document.as_ref().map(|part| part.base.clone()).unwrap_or_default();
    let placed = places.below(&base);
    let document = document.map(|part| String::from_utf8_lossy(&part.bytes).into_owned());
    let seconds = |period: Period| period.get().as_secs();
    let body = json!({
        "document": document,
        "revision": start.revision,
        "principals": start.principals,
        "replicas": start.replicas,
        "max_error_rise": start.max_error_rise,
        "max_denial_rise": start.max_denial_rise,
        "max_latency_ratio": start.max_latency_ratio,
        "min_calls": start.min_calls,
        "window_seconds": seconds(start.window),
        "hold_seconds": seconds(start.hold),
        "deadline_seconds": seconds(start.deadline),
        "auto_promote": start.auto_promote,
    });
    let places = Some(&placed as &Placing<'_>);
    let call =
        Call { verbatim, places, ..call(Method::POST, path, &start.reason, Some(body), start.if_revision) };
    let shown: Shown = client.json(call).await?;
    show(&shown);
    Ok(ExitCode::SUCCESS)
}

async fn status(client: &Client, path: &str, watch: bool) -> Result<ExitCode, Failure> {
    loop {
        let shown: Shown = client.json(Call::get(path)).await?;
        let running = shown.state == "running";
        if watch && running {
            println!("{}", line(&shown));
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        }
        show(&shown);
        let good = running || shown.state == "promoted";
        return Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
}

/// One line while it runs.
fn line(shown: &Shown) -> String {
    let side =
        |f: &Figures| format!("{} calls, {:.1}% errors, p95 {}", f.calls, f.error_rate * 100.0, ms(f.p95_ms));
    let waits = if shown.rules.auto_promote && is_held_up(shown, now()) { " | waits for calls" } else { "" };
    format!(
        "revision {} for {} of {}: {} | head: {}{waits}",
        shown.candidate,
        shown.share,
        shown.kind,
        side(&shown.candidate_calls),
        side(&shown.base_calls)
    )
}

fn show(shown: &Shown) {
    let state = shown.state.replace('_', " ");
    println!("revision {} beside {}: {state}", shown.candidate, shown.base);
    let next =
        shown.next_share.as_ref().map(|n| format!(", {} from {}", n.share, n.from)).unwrap_or_default();
    println!("  share     {} of {}{next}", shown.share, shown.kind);
    let why = if shown.reason.is_empty() { String::new() } else { format!(": {}", shown.reason) };
    println!("  started   {} by {}{why}", shown.started, shown.started_by);
    match (&shown.ended, &shown.ended_by, &shown.end_reason) {
        (Some(ended), by, why) => {
            let (by, why) = (by.as_deref().unwrap_or("-"), why.as_deref().unwrap_or("-"));
            println!("  ended     {ended} by {by}: {why}");
        }
        (None, ..) if shown.rules.auto_promote => println!("  {}", promotion(shown, now())),
        (None, ..) => println!("  deadline  {}", shown.deadline),
    }
    if let Some(revision) = shown.promoted {
        println!("  published as revision {revision}");
    }
    println!(
        "  {:9}  {:>9}  {:>8}  {:>8}  {:>9}  {:>9}  {:>9}",
        "", "CALLS", "ERRORS", "REFUSED", "P50", "P95", "P99"
    );
    for (name, f) in [("head", &shown.base_calls), ("candidate", &shown.candidate_calls)] {
        println!(
            "  {name:9}  {:>9}  {:>8}  {:>8}  {:>9}  {:>9}  {:>9}",
            f.calls,
            f.errors,
            f.denied,
            ms(f.p50_ms),
            ms(f.p95_ms),
            ms(f.p99_ms)
        );
    }
}

fn now() -> Time {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    Time::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Whether it did well for long enough, but had too few calls to tell.
fn is_held_up(shown: &Shown, now: Time) -> bool {
    let held = Time::parse(&shown.hold_until).is_some_and(|until| until <= now);
    held && shown.candidate_calls.calls < shown.rules.min_calls
}

/// When it is promoted, or what that waits for.
fn promotion(shown: &Shown, now: Time) -> String {
    let (calls, enough) = (shown.candidate_calls.calls, shown.rules.min_calls);
    if !is_held_up(shown, now) {
        return format!("promoted  at {} if it does well", shown.hold_until);
    }
    format!(
        "waits     for calls: {calls} of {enough} (--min-calls) before it can be promoted; rolled back at {}",
        shown.deadline
    )
}

fn ms(ms: Option<f64>) -> String {
    ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_back_by_too_few_calls_says_so() {
        let side = |calls: u64| json!({ "calls": calls, "errors": 0, "denied": 0, "error_rate": 0.0 });
        let shown = |calls: u64| -> Shown {
            serde_json::from_value(json!({
                "state": "running", "base": 1, "candidate": 2, "kind": "principals", "share": "10%",
                "started_by": "ada", "reason": "", "started": "2026-11-30T04:00:00Z",
                "hold_until": "2026-11-30T04:10:00Z", "deadline": "2026-12-01T04:00:00Z",
                "rules": { "auto_promote": true, "min_calls": 50 },
                "base_calls": side(900), "candidate_calls": side(calls),
            }))
            .unwrap()
        };
        let [before, after] =
            ["2026-11-30T04:09:59Z", "2026-11-30T04:10:00Z"].map(|t| Time::parse(t).unwrap());
        assert!(promotion(&shown(3), before).starts_with("promoted  at 2026-11-30T04:10:00Z"));
        let waits = promotion(&shown(3), after);
        assert!(waits.contains("3 of 50 (--min-calls)") && waits.contains("2026-12-01"), "{waits}");
        assert!(promotion(&shown(50), after).starts_with("promoted"));
    }
}
