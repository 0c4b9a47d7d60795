//! Load of four kinds: as fast as answers come, at a rate, session after session, and streams that are held.

mod closed;
mod hold;
mod open;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use hdrhistogram::Histogram;

pub use closed::closed;
pub use hold::{Held, Kind, Options as HoldOptions, hold};
pub use open::open;

use crate::Result;
use crate::client::{Call, Connection, Endpoint, Request, Session, Shape};

/// What to do over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// `tools/call` without a session, answered as JSON.
    Modern,
    /// `tools/call` without a session, answered as an event stream.
    ModernSse,
    /// `tools/call` in a session, answered as JSON.
    Json,
    /// `initialize`, `notifications/initialized`, DELETE.
    Session,
    /// `tools/call` in a session, answered as an event stream.
    Sse,
    /// A request without session whose answer must be an error with the status of `expect`.
    Refused,
}

/// A run of load.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// What to do.
    #[arg(long, value_enum, default_value = "json")]
    pub work: Work,
    /// Who is dialled.
    #[arg(long)]
    pub target: SocketAddr,
    /// Path of the MCP endpoint.
    #[arg(long, default_value = "/mcp")]
    pub path: String,
    /// Bearer token.
    #[arg(long)]
    pub token: Option<String>,
    /// Connections, each with a session of its own where there are sessions.
    #[arg(long, default_value_t = 64)]
    pub connections: usize,
    /// Bytes of text in an answer.
    #[arg(long, default_value_t = 1024)]
    pub bytes: usize,
    /// Milliseconds that a call takes at the server.
    #[arg(long, default_value_t = 0)]
    pub delay_ms: u64,
    /// Status that counts as success.
    #[arg(long, default_value_t = 200)]
    pub expect: u16,
    /// Seconds before measuring.
    #[arg(long, default_value_t = 1.0)]
    pub warm: f64,
    /// Seconds of measuring.
    #[arg(long, default_value_t = 4.0)]
    pub seconds: f64,
    /// Process whose processor time is taken over the measured part.
    #[arg(long)]
    pub watch: Option<u32>,
}

impl Options {
    fn endpoint(&self) -> Endpoint {
        Endpoint { address: self.target, path: self.path.clone(), token: self.token.clone() }
    }

    fn warm(&self) -> Duration {
        Duration::from_secs_f64(self.warm.max(0.0))
    }

    fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.seconds.max(0.0))
    }
}

/// What came of a run.
#[derive(Clone, Debug, Default, serde::Deserialize, serde::Serialize)]
pub struct Outcome {
    /// Things done within the measured time: calls, or whole sessions.
    pub done: u64,
    /// Seconds measured.
    pub seconds: f64,
    /// What went wrong, warming up included, by what it was.
    pub errors: BTreeMap<String, u64>,
    /// Answers that came from another session's home.
    pub misrouted: u64,
    /// Microseconds of processor time per thing done, of the watched process.
    pub cpu_us: Option<f64>,
    /// Microseconds from when a request was due to its answer.
    pub latency: Latency,
}

/// Microseconds.
#[derive(Clone, Copy, Debug, Default, serde::Deserialize, serde::Serialize)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// Longest.
    pub max: f64,
}

impl Latency {
    /// Of nanoseconds.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Self { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: histogram.max() as f64 / 1e3 }
    }
}

impl Outcome {
    /// Things done per second.
    pub fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.done as f64 / self.seconds } else { 0.0 }
    }

    /// All that went wrong.
    pub fn failures(&self) -> u64 {
        self.errors.values().sum::<u64>() + self.misrouted
    }
}

/// Errors are told apart up to this many; the rest is counted as one.
const MAX_ERROR_KINDS: usize = 32;

/// What one connection did.
struct Tally {
    done: u64,
    errors: BTreeMap<String, u64>,
    misrouted: u64,
    latency: Histogram<u64>,
}

impl Tally {
    fn new() -> Result<Self> {
        Ok(Self { done: 0, errors: BTreeMap::new(), misrouted: 0, latency: histogram()? })
    }

    fn failed(&mut self, what: &str) {
        let known = self.errors.len() < MAX_ERROR_KINDS || self.errors.contains_key(what);
        *self.errors.entry(if known { what } else { "other" }.to_owned()).or_default() += 1;
    }

    fn add(&mut self, other: &Tally) -> Result<()> {
        self.done += other.done;
        self.misrouted += other.misrouted;
        for (what, count) in &other.errors {
            *self.errors.entry(what.clone()).or_default() += count;
        }
        Ok(self.latency.add(&other.latency)?)
    }
}

/// Of nanoseconds up to a minute.
fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1_000, 60_000_000_000, 3)?)
}

/// What one connection does over and over.
enum Worker {
    Call { session: Box<Session>, request: Request },
    Session { endpoint: Endpoint, connection: Connection },
    Single { connection: Connection, request: Request, expect: u16 },
}

impl Worker {
    fn new(options: &Options) -> Result<Self> {
        let endpoint = options.endpoint();
        let shape =
            if matches!(options.work, Work::Sse | Work::ModernSse) { Shape::Events } else { Shape::Json };
        let call = Call { bytes: options.bytes, shape, delay_ms: options.delay_ms };
        let connection = Connection::new(endpoint.address);
        Ok(match options.work {
            Work::Json | Work::Sse => {
                let session = Box::new(Session::open(&endpoint)?);
                let request = session.call(call);
                Worker::Call { session, request }
            }
            Work::Modern | Work::ModernSse => {
                Worker::Single { connection, request: endpoint.modern_call(call), expect: options.expect }
            }
            Work::Refused => {
                Worker::Single { connection, request: endpoint.modern_call(call), expect: options.expect }
            }
            Work::Session => Worker::Session { endpoint, connection },
        })
    }

    /// Does it once.
    fn work(&mut self, tally: &mut Tally) -> bool {
        match self.try_work() {
            Ok(true) => return true,
            Ok(false) => tally.misrouted += 1,
            Err(error) => tally.failed(&error.to_string()),
        }
        false
    }

    fn try_work(&mut self) -> Result<bool> {
        match self {
            Worker::Call { session, request } => {
                let answer = session.connection.exchange(request.advance())?;
                check(answer.status, 200, request, session.connection.body())?;
                Ok(session.is_home())
            }
            Worker::Single { connection, request, expect } => {
                let answer = connection.exchange(request.advance())?;
                // An error that came before the body was read answers nothing in particular.
                let refused = *expect != 200 && connection.body().windows(7).any(|w| w == b"\"error\"");
                if refused && answer.status == *expect {
                    return Ok(true);
                }
                check(answer.status, *expect, request, connection.body())?;
                Ok(true)
            }
            Worker::Session { endpoint, connection } => {
                let mut initialize = endpoint.initialize();
                let answer = connection.exchange(initialize.advance())?;
                check(answer.status, 200, &initialize, connection.body())?;
                let id = answer.session.ok_or("no session id")?;
                let mut initialized = endpoint.initialized(&id);
                let answer = connection.exchange(initialized.advance())?;
                check(answer.status, 202, &initialized, b"")?;
                let answer = connection.exchange(endpoint.delete(&id).advance())?;
                if (200..300).contains(&answer.status) {
                    Ok(true)
                } else {
                    Err(format!("DELETE {}", answer.status).into())
                }
            }
        }
    }
}

fn check(status: u16, expected: u16, request: &Request, body: &[u8]) -> Result<()> {
    if status != expected {
        let text = String::from_utf8_lossy(body);
        return Err(format!("status {status}: {}", text.chars().take(120).collect::<String>()).into());
    }
    if request.is_answered_by(body) || body.is_empty() && expected == 202 {
        Ok(())
    } else {
        Err("answer to another request".into())
    }
}
