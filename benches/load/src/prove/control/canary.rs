//! A canary that fails every call is rolled back by itself under load, and only the callers it was tried on have noticed;
//! then a revision is rolled back by hand, and nobody has.
//!
//! Every caller calls two replicas in turn, so that one who was on one side here and on the other there would be seen. What
//! is tried sends calls to a port that nobody listens on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};

use super::api::Api;
use super::{Checks, Fleet, JWKS, Options, document};
use crate::client::{Call, Connection, Endpoint, Shape, now_ns};
use crate::{Result, process};

/// Per cent of callers that are tried on.
const SHARE: u32 = 25;
/// Longest time from the first call that is served the candidate to the last.
const EXPOSED: f64 = 5.0;
/// The same in the short form, which is of debug builds that share a machine with other tests.
const EXPOSED_SMOKE: f64 = 8.0;
/// How long an end may take to be heard of everywhere, in nanoseconds.
const HEARD: u64 = 1_000_000_000;
/// How long it is waited for the end.
const PATIENCE: Duration = Duration::from_secs(40);
const BASE: u64 = 1;
const CANDIDATE: u64 = 2;
const CANARY: &str = "/api/v1/tenants/default/canary";
const DOCUMENT: &str = "/api/v1/tenants/default/document";

#[derive(Serialize)]
struct Details {
    callers: usize,
    calls: usize,
    tried_on: usize,
    calls_of_candidate: usize,
    exposed_seconds: f64,
    canary: Value,
    reasons: BTreeMap<String, u64>,
}

/// One call.
struct Entry {
    sent: u64,
    done: u64,
    revision: Option<u64>,
    /// What went wrong.
    failed: Option<String>,
}

pub(in crate::prove) fn prove(options: &Options) -> Result<bool> {
    let mut fleet = Fleet::stage("canary", options.tollgate.as_deref())?;
    fleet.add(None, None, |_| String::new())?;
    let mut api = fleet.replicas[0].operator(&fleet.replicas[0])?;
    change(&mut api, "PUT", DOCUMENT, ("application/yaml", &fleet.document(0).1), 200)?;
    fleet.add(None, None, |_| String::new())?;
    let served = |number: usize| {
        let served = fleet.replicas[number].metric("tollgate_config_revision");
        served.is_ok_and(|revision| revision >= BASE as f64)
    };
    process::wait_until("both replicas serve the head", PATIENCE, || served(0) && served(1))?;

    let callers = Callers::start(&fleet, options.sessions)?;
    thread::sleep(Duration::from_secs(1));
    let body = json!({
        "document": nowhere(&fleet)?, "principals": format!("{SHARE}%"), "min_calls": 50, "window_seconds": 10,
    });
    change(&mut api, "POST", CANARY, ("application/json", &body.to_string()), 201)?;
    let canary = ended(&mut api)?;
    let ended = nanoseconds(canary["ended"].as_str().unwrap_or_default()).ok_or("it has no end")?;
    thread::sleep(Duration::from_secs(2));

    // By hand: a revision that is good goes live for everybody, and back.
    let by_hand = now_ns();
    change(&mut api, "PUT", DOCUMENT, ("application/yaml", &fleet.document(1).1), 200)?;
    thread::sleep(Duration::from_secs(1));
    let back = BASE.to_string();
    let token = api_token(&fleet);
    let said = fleet.replicas[1].run(&["rollback", &back, "--wait", "--token-file", &token])?;
    thread::sleep(Duration::from_secs(1));
    let books = callers.finish()?;

    let seen = Seen::of(&books, ended);
    let mut checks = Checks::default();
    let reason = canary["end_reason"].as_str().unwrap_or_default();
    checks.add(
        "a candidate that fails is rolled back, and nobody had to do it",
        format!("{} by {}: {reason}", canary["state"], canary["ended_by"]),
        canary["state"] == "rolled_back" && canary["ended_by"] == "tollgate" && reason.contains("errors"),
    );
    let most = if options.smoke { EXPOSED_SMOKE } else { EXPOSED };
    checks.add(
        &format!("within {most:.0} s of its first call"),
        format!("{:.1} s, {} calls", seen.exposed, seen.calls),
        seen.exposed <= most && seen.calls > 0,
    );
    let expected = options.sessions as f64 * f64::from(SHARE) / 100.0;
    // Five standard deviations of a fair draw.
    let slack = 5.0 * (expected * (1.0 - f64::from(SHARE) / 100.0)).sqrt();
    checks.add(
        &format!("{SHARE} % of {} callers were tried on", options.sessions),
        seen.tried.len(),
        !seen.tried.is_empty() && (seen.tried.len() as f64 - expected).abs() <= slack,
    );
    checks.add(
        "nobody else saw an error",
        format!(
            "{} of {} others, {} calls",
            seen.hurt_others,
            options.sessions - seen.tried.len(),
            seen.other_calls
        ),
        seen.hurt_others == 0 && seen.other_calls > 0,
    );
    checks.add(
        "no caller was ever on two sides, on either replica",
        format!("{} of {}", seen.flipped, options.sessions),
        seen.flipped == 0,
    );
    checks.add("a second after the end everybody is served the head", seen.late, seen.late == 0);
    let after: Vec<&Entry> = books.iter().flatten().filter(|e| e.sent >= by_hand).collect();
    let failed = after.iter().filter(|e| e.failed.is_some()).count();
    let newest = books.iter().filter_map(|book| book.last()?.revision).collect::<BTreeSet<_>>();
    checks.add(
        "`tollgate rollback` under load fails no call",
        format!("{failed} of {}, {}", after.len(), said.lines().next().unwrap_or_default()),
        failed == 0 && !after.is_empty(),
    );
    checks.add(
        "and everybody is served what it published",
        format!("{newest:?}"),
        newest == BTreeSet::from([4]),
    );
    let details = Details {
        callers: options.sessions,
        calls: books.iter().map(Vec::len).sum(),
        tried_on: seen.tried.len(),
        calls_of_candidate: seen.calls,
        exposed_seconds: seen.exposed,
        canary,
        reasons: reasons(&books),
    };
    checks.publish(&options.out, "prove-control-canary", options.smoke, &details)
}

/// A document whose servers are on a port that nobody listens on.
fn nowhere(fleet: &Fleet) -> Result<String> {
    let closed = SocketAddr::from(([127, 0, 0, 1], process::free_port()?));
    Ok(document::document(&[closed, closed], &fleet.file(JWKS).to_string_lossy(), 0))
}

fn api_token(fleet: &Fleet) -> String {
    fleet.replicas[0].dir().join("data/admin.token").to_string_lossy().into_owned()
}

fn change(api: &mut Api, method: &str, path: &str, body: (&str, &str), wanted: u16) -> Result<()> {
    // Nobody else publishes here: whatever there is may be replaced, and if there is nothing, it is made.
    let mut answer = match method {
        "PUT" => api.send(method, path, &[("If-Match", "*")], Some(body))?,
        _ => api.send(method, path, &[], Some(body))?,
    };
    if answer.status == 412 {
        answer = api.send(method, path, &[("If-None-Match", "*")], Some(body))?;
    }
    let done = answer.status == wanted || (method == "PUT" && answer.status == 201);
    if done { Ok(()) } else { Err(answer.refusal(method, path)) }
}

/// Waits until the canary has ended.
fn ended(api: &mut Api) -> Result<Value> {
    let started = Instant::now();
    loop {
        let canary = api.json(CANARY)?;
        if canary["state"] != "running" {
            return Ok(canary);
        }
        if started.elapsed() > PATIENCE {
            return Err(format!("the canary does not end: {canary}").into());
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// What the callers' books say of the canary.
struct Seen {
    tried: BTreeSet<usize>,
    calls: usize,
    exposed: f64,
    hurt_others: usize,
    other_calls: usize,
    flipped: usize,
    late: usize,
}

impl Seen {
    /// `ended`: when the canary did.
    fn of(books: &[Vec<Entry>], ended: u64) -> Self {
        let is_tried = |entry: &&Entry| entry.revision == Some(CANDIDATE);
        let tried: BTreeSet<usize> =
            (0..books.len()).filter(|caller| books[*caller].iter().any(|e| is_tried(&e))).collect();
        let calls: Vec<&Entry> = books.iter().flatten().filter(is_tried).collect();
        let first = calls.iter().map(|e| e.sent).min().unwrap_or(0);
        let last = calls.iter().map(|e| e.done).max().unwrap_or(0);
        let others =
            || (0..books.len()).filter(|caller| !tried.contains(caller)).map(|caller| &books[caller]);
        let flipped = tried.iter().filter(|caller| {
            let book = &books[**caller];
            let begun = book.iter().find(is_tried).map_or(u64::MAX, |e| e.sent);
            book.iter().any(|e| e.sent > begun && e.done < ended && e.revision != Some(CANDIDATE))
        });
        Self {
            calls: calls.len(),
            exposed: last.saturating_sub(first) as f64 / 1e9,
            hurt_others: others().filter(|book| book.iter().any(|e| e.failed.is_some())).count(),
            other_calls: others().map(Vec::len).sum(),
            flipped: flipped.count(),
            late: calls.iter().filter(|e| e.sent > ended + HEARD).count(),
            tried,
        }
    }
}

fn reasons(books: &[Vec<Entry>]) -> BTreeMap<String, u64> {
    let mut reasons = BTreeMap::new();
    for reason in books.iter().flatten().filter_map(|e| e.failed.as_ref()) {
        *reasons.entry(reason.clone()).or_default() += 1;
    }
    reasons
}

/// Callers at work, each under a name of its own.
struct Callers {
    threads: Vec<JoinHandle<Vec<Entry>>>,
    stop: Arc<AtomicBool>,
}

impl Callers {
    fn start(fleet: &Fleet, count: usize) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let endpoints =
            (0..count).map(|n| fleet.endpoints(&format!("caller-{n}"))).collect::<Result<Vec<_>>>()?;
        let threads = endpoints.into_iter().map(|endpoints| {
            let stop = stop.clone();
            thread::spawn(move || call(&endpoints, &stop))
        });
        Ok(Self { threads: threads.collect(), stop })
    }

    fn finish(self) -> Result<Vec<Vec<Entry>>> {
        self.stop.store(true, Ordering::Release);
        self.threads.into_iter().map(|t| t.join().map_err(|_| "a caller panicked".into())).collect()
    }
}

fn call(endpoints: &[Endpoint], stop: &AtomicBool) -> Vec<Entry> {
    let call = Call { bytes: 256, shape: Shape::Json, delay_ms: 1 };
    let mut ways: Vec<_> =
        endpoints.iter().map(|e| (Connection::new(e.address), e.modern_call(call))).collect();
    let mut book = Vec::new();
    while !stop.load(Ordering::Acquire) {
        let way = book.len() % ways.len();
        let (connection, request) = &mut ways[way];
        connection.drop_if_closed();
        let sent = now_ns();
        let result = connection.exchange(request.advance());
        let done = now_ns();
        let answered = result.is_ok();
        let failed = match result {
            Err(error) => Some(format!("broken: {error}")),
            Ok(answer) if answer.status == 200 && request.is_answered_by(connection.body()) => None,
            Ok(answer) => Some(answer.status.to_string()),
        };
        let revision = answered.then(|| connection.header("x-tollgate-revision")).flatten();
        let revision = revision.and_then(|text| text.rsplit_once('@')?.1.parse().ok());
        book.push(Entry { sent, done, revision, failed });
        thread::sleep(Duration::from_millis(15));
    }
    book
}

/// `2026-11-29T17:20:51.238Z` in nanoseconds since the Unix epoch.
fn nanoseconds(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.split('-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut time = time.split(':');
    let (hour, minute) = (time.next()?.parse::<i64>().ok()?, time.next()?.parse::<i64>().ok()?);
    let seconds = time.next()?.parse::<f64>().ok()?;
    // Days since the epoch, by years that begin in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    let whole = u64::try_from(days * 86_400 + hour * 3_600 + minute * 60).ok()?;
    Some(whole * 1_000_000_000 + (seconds * 1e9) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(nanoseconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(nanoseconds("2000-02-29T12:00:00.5Z"), Some(951_825_600_500_000_000));
        assert_eq!(nanoseconds("2026-11-29T00:00:00Z"), Some(1_795_910_400_000_000_000));
        assert_eq!(nanoseconds("yesterday"), None);
    }

    #[test]
    fn who_was_tried_on_and_who_flipped_is_seen() {
        let entry = |sent: u64, revision: u64| Entry {
            sent,
            done: sent + 1,
            revision: Some(revision),
            failed: (revision == CANDIDATE).then(|| "502".to_owned()),
        };
        let base = |times: std::ops::Range<u64>| times.map(|t| entry(t, BASE)).collect::<Vec<_>>();
        let mut tried = base(0..3);
        tried.extend((3..6).map(|t| entry(t, CANDIDATE)));
        tried.extend(base(8..10));
        let seen = Seen::of(&[base(0..10), tried], 7);
        assert_eq!((seen.tried.len(), seen.calls, seen.flipped, seen.hurt_others), (1, 3, 0, 0));
        let mut flipping = base(0..3);
        flipping.extend([entry(3, CANDIDATE), entry(4, BASE), entry(5, CANDIDATE)]);
        let mut hurt = base(0..10);
        hurt[4].failed = Some("500".to_owned());
        let seen = Seen::of(&[hurt, flipping], 9);
        assert_eq!((seen.flipped, seen.hurt_others), (1, 1));
    }
}
