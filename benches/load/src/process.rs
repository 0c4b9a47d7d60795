//! Processes under measurement: started pinned, accounted by the kernel, gone when their guard is.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

use crate::{Error, Result};

/// First of the ports that listeners are given: below the range the kernel takes outgoing ports from.
const FIRST_PORT: u16 = 20_000;
const PORTS: u16 = 5_000;

/// A running process. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    name: String,
}

impl Process {
    /// Starts `command`, on one core if `core` says so. What it writes to stderr goes to `log`, or nowhere.
    ///
    /// # Errors
    /// It cannot be started; for a pinned one, `taskset` of util-linux is needed.
    pub fn start(mut command: Command, core: Option<usize>, log: Option<&Path>) -> Result<Self> {
        let name =
            Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(core) = core {
            let mut pinned = Command::new("taskset");
            pinned.arg("-c").arg(core.to_string()).arg(command.get_program()).args(command.get_args());
            if let Some(dir) = command.get_current_dir() {
                pinned.current_dir(dir);
            }
            command = pinned;
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        match log {
            Some(path) => command.stderr(fs::File::create(path)?),
            None => command.stderr(Stdio::null()),
        };
        let mut child = command.spawn().map_err(|e| format!("cannot start {name}: {e}"))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or("no stdout")?;
        Ok(Self { child, stdin, stdout: BufReader::new(stdout), name })
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its next line on stdout.
    ///
    /// # Errors
    /// It has ended.
    pub fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            return Err(format!("{} ended early", self.name).into());
        }
        Ok(line.trim_end().to_owned())
    }

    /// Reads `listening ADDRESS`, which our own servers print.
    ///
    /// # Errors
    /// It has ended or says something else.
    pub fn address(&mut self) -> Result<SocketAddr> {
        let line = self.line()?;
        let address = line.strip_prefix("listening ").ok_or_else(|| format!("{}: {line}", self.name))?;
        Ok(address.parse()?)
    }

    /// Writes a line to its stdin.
    ///
    /// # Errors
    /// It has ended.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().ok_or("no stdin")?;
        writeln!(stdin, "{line}")?;
        Ok(stdin.flush()?)
    }

    /// Waits for its end, with whatever is left on stdout.
    ///
    /// # Errors
    /// It failed.
    pub fn finish(mut self) -> Result<String> {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest)?;
        let status = self.child.wait()?;
        if status.success() {
            Ok(rest)
        } else {
            Err(format!("{} failed: {status}: {rest}", self.name).into())
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).ok_or("no process id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits until it has ended, or says that it has not.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn ended_within(&mut self, patience: Duration) -> Result<bool> {
        let until = Instant::now() + patience;
        while self.child.try_wait()?.is_none() {
            if Instant::now() >= until {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(true)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `command`, but the kernel ends it when the thread that started it is gone, however that came about. Needs `setpriv` of
/// util-linux. `user` is who it runs as, if not who we are.
pub fn bound(command: &Command, user: Option<&str>) -> Command {
    let mut bound = Command::new("setpriv");
    bound.arg("--pdeathsig=KILL");
    if let Some(user) = user {
        bound.args([&format!("--reuid={user}"), "--regid", user_group(user).as_str(), "--clear-groups"]);
    }
    bound.arg("--").arg(command.get_program()).args(command.get_args());
    if let Some(dir) = command.get_current_dir() {
        bound.current_dir(dir);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bound.env(name, value),
            None => bound.env_remove(name),
        };
    }
    bound
}

/// The first group of a user.
fn user_group(user: &str) -> String {
    let output = Command::new("id").args(["-g", user]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// Processes whose parent is `pid`.
pub fn children(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let all = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    all.filter(|child| {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        // After the name, which may contain anything: state, then the parent.
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        rest.split_whitespace().nth(1).and_then(|parent| parent.parse::<u32>().ok()) == Some(pid)
    })
    .collect()
}

/// What the threads of a process have run so far.
#[derive(Clone, Debug, Default)]
pub struct Cpu(HashMap<u32, u64>);

impl Cpu {
    /// Reads it.
    ///
    /// # Errors
    /// The process is gone, or the kernel does not say (`CONFIG_SCHED_INFO`).
    pub fn of(pid: u32) -> Result<Self> {
        let mut threads = HashMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            let entry = entry?;
            // A thread may end between the two reads.
            let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else { continue };
            let run: u64 = text.split(' ').next().unwrap_or_default().parse()?;
            threads.insert(entry.file_name().to_string_lossy().parse()?, run);
        }
        if threads.is_empty() {
            Err(format!("no accounting for process {pid}").into())
        } else {
            Ok(Self(threads))
        }
    }

    /// Time that passed on a processor between `earlier` and this.
    pub fn since(&self, earlier: &Self) -> Duration {
        let run =
            self.0.iter().map(|(tid, now)| now.saturating_sub(earlier.0.get(tid).copied().unwrap_or(0)));
        Duration::from_nanos(run.sum())
    }
}

/// Proportional set size of a process in KiB.
///
/// # Errors
/// The process is gone.
pub fn pss_kib(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).ok_or("no Pss line")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

/// Memory of a process that no file is behind, in KiB: what it has allocated.
///
/// # Errors
/// The process is gone.
pub fn anonymous_kib(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).ok_or("no RssAnon line")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

/// Descriptors a process has open.
///
/// # Errors
/// The process is gone.
pub fn descriptors(pid: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// Lets this process and its children open as many files as the machine allows; returns how many that is.
pub fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    limit.maximum.unwrap_or(u64::MAX)
}

/// Lets sleeping threads wake on time; the default may be 50 µs late.
pub fn sharpen_timers() {
    let _ = fs::write("/proc/self/timerslack_ns", "1");
}

/// Ends this process when whoever started it is gone: its stdin closes then.
pub fn end_with_parent() {
    std::thread::spawn(|| {
        let mut ignored = [0u8; 64];
        while !matches!(std::io::stdin().read(&mut ignored), Ok(0) | Err(_)) {}
        std::process::exit(0);
    });
}

/// A port of `127.0.0.1` that nothing listens on.
///
/// # Errors
/// All are taken.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Programs that are started one after the other must not look for the same ports at the same time.
    let start = u16::try_from(std::process::id().wrapping_mul(37) % u32::from(PORTS)).unwrap_or_default();
    for _ in 0..PORTS {
        let offset = (start + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS) % PORTS;
        let port = FIRST_PORT + offset;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err("no free port".into())
}

/// Tries `ready` until it says yes.
///
/// # Errors
/// It did not within `patience`; `what` says what was waited for.
pub fn wait_until(what: &str, patience: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
    let until = Instant::now() + patience;
    while !ready() {
        if Instant::now() >= until {
            return Err(Error::from(format!("{what}: not within {patience:?}")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
