//! Sessions that call without end and enter every call into the ledger.
//!
//! Each caller stays with one replica. Most of its calls are in a session; every so often it calls without one on a
//! route whose limit and server change together with each publish, which shows whether an answer was made of two
//! revisions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::ledger::{Entry, Ledger, Outcome, Pages};
use crate::Result;
use crate::client::{Call, Connection, Endpoint, Request, Session, Shape, now_ns};

/// Bytes of a body that are remembered of a failure.
const REMEMBERED: usize = 160;
/// Wait after a call that broke: the replica may be gone.
const AFTER_BREAK: Duration = Duration::from_millis(20);
/// Failures that one caller remembers; beyond it stops, because something is wrong throughout.
const MAX_FAILURES: usize = 2_000;

/// How callers call.
#[derive(Clone, Debug)]
pub struct Manner {
    /// Wait between two calls.
    pub think: Duration,
    /// Milliseconds that a call takes at the server.
    pub delay_ms: u64,
    /// Path of the route on which settings change together, if there is one; every fourth call goes there.
    pub paired: Option<String>,
    /// Whether a session that was lost is opened again; otherwise its caller stops there.
    pub reopen: bool,
}

/// Callers at work.
pub struct Callers {
    threads: Vec<JoinHandle<Pages>>,
    stop: Arc<AtomicBool>,
}

impl Callers {
    /// Opens the sessions one by one, in turn at each of `replicas`, then calls in all of them.
    ///
    /// # Errors
    /// A session cannot be opened.
    pub fn start(replicas: &[Endpoint], sessions: usize, manner: &Manner) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let opened = (0..sessions)
            .map(|number| Session::open(&replicas[number % replicas.len()]))
            .collect::<Result<Vec<_>>>()?;
        let threads = opened.into_iter().enumerate().map(|(number, session)| {
            let caller =
                Caller { replica: number % replicas.len(), manner: manner.clone(), stop: stop.clone() };
            thread::spawn(move || caller.run(session))
        });
        Ok(Self { threads: threads.collect(), stop })
    }

    /// Lets each caller finish its call, and returns the book.
    ///
    /// # Errors
    /// A caller panicked.
    pub fn finish(self) -> Result<Ledger> {
        self.stop.store(true, Ordering::Release);
        let pages = self.threads.into_iter().map(|t| t.join().map_err(|_| "a caller panicked".into()));
        Ok(Ledger::new(pages.collect::<Result<_>>()?))
    }
}

struct Caller {
    replica: usize,
    manner: Manner,
    stop: Arc<AtomicBool>,
}

impl Caller {
    fn run(self, mut session: Session) -> Pages {
        let call = Call { bytes: 256, shape: Shape::Json, delay_ms: self.manner.delay_ms };
        let mut in_session = session.call(call);
        let paired = self.manner.paired.as_deref().map(|path| session.endpoint().at(path).modern_call(call));
        let mut paired = paired.map(|request| (Connection::new(session.endpoint().address), request));
        let (mut pages, mut failures) = (Pages::new(), 0);
        while !self.stop.load(Ordering::Acquire) && failures < MAX_FAILURES {
            let entry = match &mut paired {
                Some((connection, request)) if pages.len() % 4 == 3 => {
                    let mut entry = self.call(connection, request);
                    if entry.outcome == Outcome::Answered {
                        entry.seen = Some(settings(connection));
                    }
                    entry
                }
                _ => {
                    let mut entry = self.call(&mut session.connection, &mut in_session);
                    if entry.outcome == Outcome::Answered && !session.is_home() {
                        let message = "an answer from another session's home".to_owned();
                        entry.outcome = Outcome::Failed { status: 200, message };
                    }
                    entry
                }
            };
            let lost = matches!(entry.outcome, Outcome::Failed { status: 404, .. });
            let broken = matches!(entry.outcome, Outcome::Broken(_));
            failures += usize::from(entry.outcome != Outcome::Answered);
            pages.push(entry);
            if lost && self.manner.reopen && session.reopen().is_ok() {
                in_session = session.call(call);
            }
            thread::sleep(if broken { AFTER_BREAK } else { self.manner.think });
        }
        pages
    }

    fn call(&self, connection: &mut Connection, request: &mut Request) -> Entry {
        connection.drop_if_closed();
        let sent = now_ns();
        let result = connection.exchange(request.advance());
        let done = now_ns();
        let (outcome, answered) = match result {
            Err(error) => (Outcome::Broken(error.to_string()), false),
            Ok(answer) if answer.status == 200 && request.is_answered_by(connection.body()) => {
                let is_error = memchr::memmem::find(connection.body(), b"\"error\"").is_some();
                (if is_error { failed(200, connection.body()) } else { Outcome::Answered }, true)
            }
            Ok(answer) => (failed(answer.status, connection.body()), true),
        };
        let header = |name| answered.then(|| connection.header(name)).flatten();
        Entry {
            request_id: header("x-request-id").map(str::to_owned),
            sent,
            done,
            replica: self.replica,
            revision: header("x-tollgate-revision").and_then(revision),
            seen: None,
            outcome,
        }
    }
}

fn failed(status: u16, body: &[u8]) -> Outcome {
    Outcome::Failed { status, message: String::from_utf8_lossy(body).chars().take(REMEMBERED).collect() }
}

/// The number in `default@17`.
fn revision(text: &str) -> Option<u64> {
    text.rsplit_once('@')?.1.parse().ok()
}

/// The variant that all that an answer shows agrees on: the limit's name and quota, and the server that answered. If
/// they differ or one is missing, a number that is no variant.
fn settings(connection: &Connection) -> u64 {
    let home = memchr::memmem::find(connection.body(), b"\"home\":\"").map(|at| connection.body()[at + 8]);
    let policy = connection.header("ratelimit-policy").unwrap_or_default();
    together(policy, home).unwrap_or(u64::MAX)
}

fn together(policy: &str, home: Option<u8>) -> Option<u64> {
    // "paired_17";q=1000017;w=1
    let variant = policy.split('"').nth(1)?.strip_prefix("paired_")?.parse::<u64>().ok()?;
    let quota = policy.split(";q=").nth(1)?.split(';').next()?.parse::<u64>().ok()?;
    let server = if variant.is_multiple_of(2) { b'a' } else { b'b' };
    (quota == super::document::quota(variant) && home == Some(server)).then_some(variant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_read_from_its_header() {
        assert_eq!(revision("default@17"), Some(17));
        assert_eq!(revision("17"), None);
    }

    #[test]
    fn settings_that_do_not_belong_together_are_no_variant() {
        assert_eq!(together("\"paired_17\";q=1000017;w=1", Some(b'b')), Some(17));
        assert_eq!(together("\"paired_17\";q=1000017;w=1", Some(b'a')), None);
        assert_eq!(together("\"paired_17\";q=1000016;w=1", Some(b'b')), None);
        assert_eq!(together("", Some(b'b')), None);
    }
}
