//! Sessions that call without end, and remember everything that was not an answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::Result;
use crate::client::{Call, Endpoint, Session, Shape, number_after};

/// Events that one caller remembers.
const MAX_EVENTS: usize = 200;
/// Tries at opening a session again.
const REOPENINGS: usize = 20;
/// Wait between them.
const REOPEN_WAIT: Duration = Duration::from_millis(50);

/// How callers call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// Milliseconds that a call takes at the server.
    pub(super) delay_ms: u64,
    /// Wait between two calls.
    pub(super) think: Duration,
}

/// What happened in place of an answer.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum What {
    /// The connection broke in mid-call.
    Broken(String),
    /// An error of the gateway; `code` of its JSON-RPC error, if it was one with the right id.
    Failed { status: u16, code: Option<u64>, message: String },
    /// 404: the session is lost.
    Lost,
    /// An answer of another session's home.
    Misrouted,
    /// A new session could not be opened at once.
    NotReopened(String),
}

/// When, and where the session lived until then.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Event {
    /// Seconds since the callers started.
    pub(super) at: f64,
    pub(super) home: String,
    pub(super) what: What,
}

/// All that one caller did.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Caller {
    pub(super) calls: u64,
    pub(super) events: Vec<Event>,
    /// Connections made: one, unless the gateway closed some.
    pub(super) connections: u64,
    /// When a call was answered last, in seconds since the callers started.
    pub(super) answered_at: f64,
    /// Where its session lived last.
    pub(super) home: String,
}

impl Caller {
    pub(super) fn count(&self, is: impl Fn(&What) -> bool) -> usize {
        self.events.iter().filter(|event| is(&event.what)).count()
    }
}

/// Callers at work.
pub(super) struct Callers {
    threads: Vec<JoinHandle<Caller>>,
    stop: Arc<AtomicBool>,
    started: Instant,
}

impl Callers {
    /// Opens the sessions one by one, then calls in all of them.
    pub(super) fn start(endpoint: &Endpoint, sessions: usize, manner: Manner) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let opened = (0..sessions).map(|_| Session::open(endpoint)).collect::<Result<Vec<_>>>()?;
        let started = Instant::now();
        let threads = opened
            .into_iter()
            .map(|session| {
                let stop = stop.clone();
                thread::spawn(move || run(session, manner, started, &stop))
            })
            .collect();
        Ok(Self { threads, stop, started })
    }

    /// Seconds since they started: the clock of their events.
    pub(super) fn clock(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Lets each caller finish its call, and returns what all of them did.
    pub(super) fn finish(self) -> Result<Vec<Caller>> {
        self.stop.store(true, Ordering::Release);
        let callers =
            self.threads.into_iter().map(|thread| thread.join().map_err(|_| "a caller panicked".into()));
        callers.collect()
    }
}

fn run(mut session: Session, manner: Manner, started: Instant, stop: &AtomicBool) -> Caller {
    let call = Call { bytes: 1024, shape: Shape::Json, delay_ms: manner.delay_ms };
    let mut request = session.call(call);
    let mut caller =
        Caller { calls: 0, events: Vec::new(), connections: 0, answered_at: 0.0, home: String::new() };
    while !stop.load(Ordering::Acquire) {
        session.connection.drop_if_closed();
        caller.calls += 1;
        let what = match session.connection.exchange(request.advance()) {
            Err(error) => Some(What::Broken(error.to_string())),
            Ok(answer) if answer.status == 404 => Some(What::Lost),
            Ok(answer) if answer.status == 200 && request.is_answered_by(session.connection.body()) => {
                caller.answered_at = started.elapsed().as_secs_f64();
                (!session.is_home()).then_some(What::Misrouted)
            }
            Ok(answer) => {
                let body = session.connection.body();
                let is_error =
                    request.is_answered_by(body) && memchr::memmem::find(body, b"\"error\"").is_some();
                Some(What::Failed {
                    status: answer.status,
                    code: number_after(body, "\"code\":").filter(|_| is_error),
                    message: String::from_utf8_lossy(body).chars().take(300).collect(),
                })
            }
        };
        let home = session.home().unwrap_or_default().to_owned();
        if let Some(what) = what {
            let lost = matches!(what, What::Lost);
            note(&mut caller, started, &home, what);
            if lost {
                for _ in 0..REOPENINGS {
                    match session.reopen() {
                        Ok(()) => break,
                        Err(error) => note(&mut caller, started, &home, What::NotReopened(error.to_string())),
                    }
                    thread::sleep(REOPEN_WAIT);
                }
                request = session.call(call);
            }
        }
        thread::sleep(manner.think);
    }
    caller.connections = session.connection.opened();
    caller.home = session.home().unwrap_or_default().to_owned();
    caller
}

fn note(caller: &mut Caller, started: Instant, home: &str, what: What) {
    if caller.events.len() < MAX_EVENTS {
        caller.events.push(Event { at: started.elapsed().as_secs_f64(), home: home.to_owned(), what });
    }
}

/// Sums over callers.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Totals {
    pub(super) calls: u64,
    pub(super) failed: usize,
    pub(super) lost: usize,
    pub(super) misrouted: usize,
    pub(super) not_reopened: usize,
    pub(super) connections: u64,
    /// Some of what happened.
    pub(super) examples: Vec<Event>,
}

impl Totals {
    pub(super) fn of(callers: &[Caller]) -> Self {
        let count = |is: fn(&What) -> bool| callers.iter().map(|c| c.count(is)).sum();
        Self {
            calls: callers.iter().map(|c| c.calls).sum(),
            failed: count(|w| matches!(w, What::Broken(_) | What::Failed { .. })),
            lost: count(|w| matches!(w, What::Lost)),
            misrouted: count(|w| matches!(w, What::Misrouted)),
            not_reopened: count(|w| matches!(w, What::NotReopened(_))),
            connections: callers.iter().map(|c| c.connections).sum(),
            examples: callers.iter().flat_map(|c| c.events.iter().take(2)).take(20).cloned().collect(),
        }
    }
}
