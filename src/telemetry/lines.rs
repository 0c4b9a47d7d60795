//! A bounded queue of lines in front of a slow output, with a thread that writes them in batches.
//!
//! [`LineQueue::push`] copies a line into a shared buffer and returns; it never waits for the output. The lock is held
//! for the copy only, and the writer takes the whole buffer by swapping it. When the buffer is full, or the output
//! fails, lines are lost and counted: a log must never slow or stop the gateway.
//!
//! The writer sleeps when there is nothing to do. The first line after a pause wakes it; it then waits
//! [`BATCH_DELAY`] for company, so a busy gateway makes a few dozen writes in a second, not one for each request.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::family::Counter;

/// How long the writer waits for more lines before it writes.
pub const BATCH_DELAY: Duration = Duration::from_millis(20);

/// The longest line, in bytes; a longer one is cut.
pub const MAX_LINE: usize = 64 * 1024;

/// How long an output may say "not now" before the rest of a batch is given up.
const BLOCKED_FOR: Duration = Duration::from_secs(1);

/// Where lines go.
pub enum Output {
    /// Appended to this file, which is made (mode 0640) if it is not there. See [`LineQueue::reopen`].
    File(PathBuf),
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// Anything else.
    Writer(Box<dyn Write + Send>),
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Output::File(path) => write!(f, "File({})", path.display()),
            Output::Stderr => f.write_str("Stderr"),
            Output::Stdout => f.write_str("Stdout"),
            Output::Writer(_) => f.write_str("Writer"),
        }
    }
}

/// The output could not be opened or its thread not started.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The file cannot be opened for appending.
    #[error("cannot open the log file {path}")]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system gave no thread.
    #[error("cannot start the log writer")]
    Thread(#[source] io::Error),
}

/// The queue. Cheap to clone; the writer ends with [`LineQueue::shutdown`] or with the last clone.
#[derive(Clone, Debug)]
pub struct LineQueue(Arc<Owner>);

/// Ends the writer when the last handle goes; the thread itself holds only `Shared`.
#[derive(Debug)]
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.state.lock().stop = true;
        self.0.wake.notify_one();
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    done: Condvar,
    capacity: usize,
    dropped: Counter,
}

#[derive(Debug, Default)]
struct State {
    pending: Vec<u8>,
    /// Lines accepted and lines dealt with since the start; equal when nothing is left to write.
    accepted: u64,
    settled: u64,
    asleep: bool,
    stop: bool,
    ended: bool,
    hurry: bool,
    reopen: bool,
}

impl LineQueue {
    /// Opens the output and starts the writer. At most `capacity` bytes wait at any time; lost lines are added to
    /// `dropped`. `name` is the name of the thread (15 bytes at most on Linux).
    pub fn start(output: Output, capacity: usize, dropped: Counter, name: &str) -> Result<Self, OutputError> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            wake: Condvar::new(),
            done: Condvar::new(),
            capacity,
            dropped,
        });
        let writer = Writer { shared: shared.clone(), sink: Sink::open(output)?, torn: false };
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || writer.run())
            .map_err(OutputError::Thread)?;
        Ok(Self(Arc::new(Owner(shared))))
    }

    /// Queues a line, with or without its newline; `false` if it was lost. Never waits for the output.
    pub fn push(&self, line: &[u8]) -> bool {
        let shared = &self.0.0;
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = &line[..line.len().min(MAX_LINE)];
        let mut state = shared.state.lock();
        if state.stop || state.pending.len() + line.len() + 1 > shared.capacity {
            drop(state);
            shared.dropped.inc();
            return false;
        }
        let half = shared.capacity / 2;
        let was = state.pending.len();
        state.pending.extend_from_slice(line);
        state.pending.push(b'\n');
        state.accepted += 1;
        // Half full: do not wait for the delay to pass.
        let urgent = was < half && state.pending.len() >= half;
        let wake = urgent || state.asleep;
        state.asleep = false;
        state.hurry |= urgent;
        drop(state);
        if wake {
            shared.wake.notify_one();
        }
        true
    }

    /// Opens the file anew before the next write, as log rotation wants after it has moved the old one. The old file
    /// stays in use if that fails. Does nothing to other outputs.
    pub fn reopen(&self) {
        self.0.0.state.lock().reopen = true;
        self.0.0.wake.notify_one();
    }

    /// Waits until what was queued before is written or lost; `false` if that takes longer than `timeout`. Blocks
    /// the thread.
    pub fn flush(&self, timeout: Duration) -> bool {
        let shared = &self.0.0;
        let mut state = shared.state.lock();
        let target = state.accepted;
        state.hurry = true;
        shared.wake.notify_one();
        let deadline = Instant::now() + timeout;
        while state.settled < target && !state.ended {
            if shared.done.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        state.settled >= target
    }

    /// Takes no more lines, writes those that wait, and ends the writer; `false` if that takes longer than
    /// `timeout`, for example because nobody reads a full pipe. Blocks the thread.
    pub fn shutdown(&self, timeout: Duration) -> bool {
        let shared = &self.0.0;
        let mut state = shared.state.lock();
        state.stop = true;
        shared.wake.notify_one();
        let deadline = Instant::now() + timeout;
        while !state.ended {
            if shared.done.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        state.ended
    }
}

struct Writer {
    shared: Arc<Shared>,
    sink: Sink,
    /// The last write ended in the middle of a line.
    torn: bool,
}

impl Writer {
    fn run(mut self) {
        let mut batch = Vec::new();
        loop {
            let (reopen, stop) = self.next(&mut batch);
            if reopen && let Err(error) = self.sink.reopen() {
                // No log to tell it to: this is the log. The counter and the old file remain.
                eprintln!("tollgate: the log file could not be reopened, the old one stays in use: {error}");
            }
            let lines = memchr::memchr_iter(b'\n', &batch).count() as u64;
            if lines > 0 {
                let lost = self.write(&batch);
                self.shared.dropped.add(lost);
                batch.clear();
            }
            let mut state = self.shared.state.lock();
            state.settled += lines;
            state.ended = stop && state.pending.is_empty();
            let ended = state.ended;
            self.shared.done.notify_all();
            drop(state);
            if ended {
                return;
            }
        }
    }

    /// Waits for work and takes all of it.
    fn next(&self, batch: &mut Vec<u8>) -> (bool, bool) {
        let mut state = self.shared.state.lock();
        while state.pending.is_empty() && !state.stop && !state.reopen {
            state.asleep = true;
            self.shared.wake.wait(&mut state);
        }
        state.asleep = false;
        let until = Instant::now() + BATCH_DELAY;
        while !state.stop && !state.reopen && !state.hurry {
            if self.shared.wake.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        state.hurry = false;
        std::mem::swap(&mut state.pending, batch);
        (std::mem::take(&mut state.reopen), state.stop)
    }

    /// Writes whole lines; returns how many were lost.
    fn write(&mut self, batch: &[u8]) -> u64 {
        let mut rest = batch;
        let mut blocked: Option<Instant> = None;
        if self.torn {
            if self.sink.get().write_all(b"\n").is_err() {
                return memchr::memchr_iter(b'\n', batch).count() as u64;
            }
            self.torn = false;
        }
        while !rest.is_empty() {
            match self.sink.get().write(rest) {
                Ok(0) => break,
                Ok(n) => {
                    rest = &rest[n..];
                    blocked = None;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if blocked.get_or_insert_with(Instant::now).elapsed() > BLOCKED_FOR {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(_) => break,
            }
        }
        let written = batch.len() - rest.len();
        if written > 0 && !rest.is_empty() {
            self.torn = batch[written - 1] != b'\n';
        }
        if self.sink.get().flush().is_err() && rest.is_empty() {
            // The bytes sit in a buffer that could not be emptied; count the batch as lost.
            return memchr::memchr_iter(b'\n', batch).count() as u64;
        }
        memchr::memchr_iter(b'\n', rest).count() as u64
    }
}

enum Sink {
    File { path: PathBuf, file: File },
    Writer(Box<dyn Write + Send>),
}

impl Sink {
    fn open(output: Output) -> Result<Self, OutputError> {
        Ok(match output {
            Output::File(path) => match open(&path) {
                Ok(file) => Sink::File { path, file },
                Err(source) => return Err(OutputError::Open { path, source }),
            },
            Output::Stderr => Sink::Writer(Box::new(io::stderr())),
            Output::Stdout => Sink::Writer(Box::new(io::stdout())),
            Output::Writer(writer) => Sink::Writer(writer),
        })
    }

    fn reopen(&mut self) -> io::Result<()> {
        if let Sink::File { path, file } = self {
            *file = open(path)?;
        }
        Ok(())
    }

    fn get(&mut self) -> &mut dyn Write {
        match self {
            Sink::File { file, .. } => file,
            Sink::Writer(writer) => &mut **writer,
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        // The lines name people and what they did.
        options.mode(0o640);
    }
    options.open(path)
}

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;
