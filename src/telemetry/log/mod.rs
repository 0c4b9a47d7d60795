//! The process log: what operators read when something is wrong.
//!
//! Our own code logs through `tracing`, Pingora and others through `log`; both end here, as text or JSON lines on
//! standard error or in a file. Lines go through a [`LineQueue`], so a slow terminal or disk loses lines rather than
//! time. The level can be changed while the process runs.
//!
//! **What never appears.** Payloads and credentials: our own events carry ids, counts and error texts, and other
//! crates, some of which print whole header maps when asked to debug, are held to `info` whatever the filter says.
//!
//! **What appears less often.** Pingora reports every client that goes away as an error. Such lines are demoted to
//! `info`, which the default filter hides for Pingora, and each place in its code may print
//! [`BURST`] lines in [`WINDOW`]; the next window says how many were withheld.

mod bridge;

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Dispatch, Metadata, Subscriber};
use tracing_log::AsLog as _;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

pub use self::bridge::{BURST, WINDOW};
use super::family::Counter;
use super::lines::{LineQueue, Output, OutputError};
use crate::base::Clock;

/// Bytes that wait for the output before lines are lost.
const CAPACITY: usize = 4 * 1024 * 1024;

/// Directives that come before the operator's own, which may override them. Pingora's connectors call it an error that a
/// connection of the pool has ended; what fails for a caller they hand to us.
const QUIET: &str = "pingora_core::connectors=off,pingora=warn,hyper=warn,h2=warn,reqwest=warn,rmcp=warn,rustls=warn,notify=warn,opentelemetry=warn";

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object for each line.
    Json,
    /// For people.
    Text,
}

/// How to log.
#[derive(Debug)]
pub struct LogConfig {
    /// How lines look.
    pub format: Format,
    /// Filter directives, such as `info` or `info,tollgate::gateway=debug`.
    pub filter: String,
    /// Where lines go.
    pub output: Output,
}

/// The log cannot be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The directives do not parse; what was in force stays.
    #[error("`{filter}` is not a log filter, expected something like `info,tollgate::gateway=debug`")]
    Filter {
        /// What was given.
        filter: String,
        /// Why.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// The process already logs elsewhere.
    #[error("a log is already installed in this process")]
    Installed,
    /// The output cannot be opened.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The log has been taken down.
    #[error("the log is gone")]
    Gone,
}

/// A log that is ready but not yet in force.
pub struct Log {
    dispatch: Dispatch,
    handle: LogHandle,
    bridge: bridge::Bridge,
}

/// Changes a running log. Cheap to clone.
#[derive(Clone)]
pub struct LogHandle {
    filter: reload::Handle<EnvFilter, Registry>,
    lines: LineQueue,
}

impl std::fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogHandle").field("level", &self.level()).finish_non_exhaustive()
    }
}

impl Log {
    /// Prepares a log. Lines withheld or lost are added to `suppressed`.
    pub fn new(config: LogConfig, suppressed: Counter, clock: Clock) -> Result<Self, LogError> {
        let filter = parse(&config.filter)?;
        let ansi = config.format == Format::Text
            && match config.output {
                Output::Stderr => io::stderr().is_terminal(),
                Output::Stdout => io::stdout().is_terminal(),
                Output::File(_) | Output::Writer(_) => false,
            };
        let lines = LineQueue::start(config.output, CAPACITY, suppressed.clone(), "tg-log")?;
        let (filter, reload) = reload::Layer::new(filter);
        let layer = layer(config.format, ansi, lines.clone());
        let subscriber = Registry::default().with(filter).with(HoldOthers).with(layer);
        let handle = LogHandle { filter: reload, lines };
        Ok(Self {
            dispatch: Dispatch::new(subscriber),
            handle,
            bridge: bridge::Bridge::new(suppressed, clock),
        })
    }

    /// Makes this the log of the process, for `tracing` and for `log`. Only the first one in a process can.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tollgate::base::Clock;
    /// use tollgate::telemetry::log::{Format, Log, LogConfig};
    /// use tollgate::telemetry::{Counter, Output};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let dir = tempfile::tempdir()?;
    /// let path = dir.path().join("tollgate.log");
    /// let make = || LogConfig {
    ///     format: Format::Json,
    ///     filter: "info".to_owned(),
    ///     output: Output::File(path.clone()),
    /// };
    /// let handle = Log::new(make(), Counter::detached(), Clock::default())?.install()?;
    /// tracing::info!(target: "tollgate::doc", "through tracing");
    /// log::warn!(target: "pingora_core", "through log");
    /// log::debug!("hidden");
    /// handle.set_level("error")?;
    /// assert_eq!(log::max_level(), log::LevelFilter::Error);
    /// log::warn!("hidden");
    /// assert!(handle.flush(Duration::from_secs(10)));
    /// let text = std::fs::read_to_string(&path)?;
    /// assert!(text.contains("through tracing") && text.contains("through log") && !text.contains("hidden"));
    /// assert!(Log::new(make(), Counter::detached(), Clock::default())?.install().is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn install(self) -> Result<LogHandle, LogError> {
        tracing::dispatcher::set_global_default(self.dispatch).map_err(|_| LogError::Installed)?;
        log::set_boxed_logger(Box::new(self.bridge)).map_err(|_| LogError::Installed)?;
        follow_level();
        Ok(self.handle)
    }
}

impl LogHandle {
    /// Replaces the filter. What was in force stays if the directives do not parse.
    pub fn set_level(&self, filter: &str) -> Result<(), LogError> {
        let filter = parse(filter)?;
        self.filter.reload(filter).map_err(|_| LogError::Gone)?;
        follow_level();
        Ok(())
    }

    /// The filter in force.
    pub fn level(&self) -> String {
        self.filter.with_current(ToString::to_string).unwrap_or_default()
    }

    /// See [`LineQueue::reopen`].
    pub fn reopen(&self) {
        self.lines.reopen();
    }

    /// Waits until what was logged before is written; see [`LineQueue::flush`]. Call it before the process ends.
    pub fn flush(&self, timeout: Duration) -> bool {
        self.lines.flush(timeout)
    }
}

/// Lets `log` skip at its own, cheaper check what the filter would refuse.
fn follow_level() {
    log::set_max_level(LevelFilter::current().as_log());
}

fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    // The quiet directives may only take away: not where the operator asked for less, or named what to show.
    let general = filter.split(',').filter_map(|d| d.trim().parse::<LevelFilter>().ok()).next_back();
    let quiet = if general > Some(LevelFilter::WARN) { QUIET } else { "" };
    EnvFilter::builder()
        .with_regex(false)
        .parse(format!("{quiet},{filter}").trim_start_matches(','))
        .map_err(|source| LogError::Filter { filter: filter.to_owned(), source })
}

fn layer<S>(format: Format, ansi: bool, lines: LineQueue) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let layer = tracing_subscriber::fmt::layer().with_ansi(ansi).with_writer(Lines(lines));
    match format {
        Format::Json => layer.json().flatten_event(true).with_span_list(false).boxed(),
        Format::Text => layer.boxed(),
    }
}

/// Gives each event's text to the queue as one line.
struct Lines(LineQueue);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Lines;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl io::Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // A line that is lost is counted by the queue; there is nobody to tell.
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Holds other crates to `info`, whatever the filter says: their details are other people's payloads.
struct HoldOthers;

fn allowed(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= tracing::Level::INFO
        || metadata.target() == "tollgate"
        || metadata.target().starts_with("tollgate::")
}

impl<S: Subscriber> Layer<S> for HoldOthers {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        match allowed(metadata) {
            true => Interest::always(),
            false => Interest::never(),
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        allowed(metadata)
    }
}

#[cfg(test)]
mod tests;
