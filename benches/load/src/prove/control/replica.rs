//! Processes of the gateway that share a store: started with their own part of the configuration, killed, started again.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use super::api::Api;
use crate::Result;
use crate::client::{Connection, Endpoint};
use crate::process::{self, Process};

/// How long it may take until the listeners answer; a debug build on a busy machine needs most of it.
const START: Duration = Duration::from_secs(40);
/// How long it may take until the admin token is known, which is looked for every 5 s.
const KNOWN: Duration = Duration::from_secs(15);
/// Lines of a log that are shown.
const SHOWN: usize = 30;

/// What a replica is started with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The binary.
    pub binary: PathBuf,
    /// For its file, its log and its data; made if it is not there.
    pub dir: PathBuf,
    /// `control`, `data` or `all`; without one the option is left out.
    pub role: Option<&'static str>,
    /// The database's address. Without one: SQLite in the replica's own folder.
    pub store: Option<String>,
    /// File with the keys that seal secrets; replicas of one store share it.
    pub keys: Option<PathBuf>,
    /// The document to serve, in the file; without one, documents come from the store.
    pub document: Option<String>,
    /// More sections of the file, as YAML.
    pub more: String,
}

/// A replica.
#[derive(Debug)]
pub struct Replica {
    setup: Setup,
    mcp: SocketAddr,
    admin: SocketAddr,
    process: Option<Process>,
    starts: usize,
}

impl Replica {
    /// Writes its file, starts it, and waits until it is ready.
    ///
    /// # Errors
    /// It does not come up; the end of its log is part of the error.
    pub fn start(setup: Setup) -> Result<Self> {
        let mut replica = Self::prepare(setup)?;
        replica.launch()?;
        replica.await_ready()?;
        Ok(replica)
    }

    /// Writes its file and takes its addresses, without starting it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn prepare(setup: Setup) -> Result<Self> {
        fs::create_dir_all(&setup.dir)?;
        let setup =
            Setup { dir: fs::canonicalize(&setup.dir)?, binary: fs::canonicalize(&setup.binary)?, ..setup };
        let mcp = SocketAddr::from(([127, 0, 0, 1], process::free_port()?));
        let admin = SocketAddr::from(([127, 0, 0, 1], process::free_port()?));
        fs::write(setup.dir.join("tollgate.yaml"), own_part(&setup, mcp, admin))?;
        if let Some(url) = &setup.store {
            fs::write(setup.dir.join("store.url"), url)?;
        }
        Ok(Self { setup, mcp, admin, process: None, starts: 0 })
    }

    /// Starts the process and returns at once.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn launch(&mut self) -> Result<()> {
        let mut command = Command::new(&self.setup.binary);
        command.args(["serve", "--config", "tollgate.yaml"]).current_dir(&self.setup.dir);
        if let Some(role) = self.setup.role {
            command.args(["--role", role]);
        }
        self.starts += 1;
        let log = self.setup.dir.join(format!("tollgate-{}.log", self.starts));
        self.process = Some(Process::start(process::bound(&command, None), None, Some(&log))?);
        Ok(())
    }

    /// Waits until `/readyz` says so.
    ///
    /// # Errors
    /// It does not in time.
    pub fn await_ready(&mut self) -> Result<()> {
        let ready = process::wait_until("the replica is ready", START, || self.ready());
        ready.map_err(|error| format!("{error}\n{}", self.log()).into())
    }

    /// Whether it is ready now.
    pub fn ready(&self) -> bool {
        self.api("").get("/readyz").is_ok()
    }

    /// `kill -9`, and waits until it is gone.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self) -> Result<()> {
        let process = self.process.take().ok_or("the replica does not run")?;
        process.signal(Signal::KILL)
    }

    /// Asks it to end and waits for that; whether it did in time.
    ///
    /// # Errors
    /// It does not run.
    pub fn stop(&mut self, patience: Duration) -> Result<bool> {
        let mut process = self.process.take().ok_or("the replica does not run")?;
        process.signal(Signal::TERM)?;
        process.ended_within(patience)
    }

    /// Starts it again on what it left.
    ///
    /// # Errors
    /// It does not come up.
    pub fn restart(&mut self) -> Result<()> {
        self.launch()?;
        self.await_ready()
    }

    /// Its process id.
    ///
    /// # Errors
    /// It does not run.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.process.as_ref().ok_or("the replica does not run")?.pid())
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.setup.dir
    }

    /// A route of it.
    pub fn endpoint(&self, path: &str, token: &str) -> Endpoint {
        Endpoint { address: self.mcp, path: path.to_owned(), token: Some(token.to_owned()) }
    }

    /// Its admin listener, for the bearer of `token`.
    pub fn api(&self, token: &str) -> Api {
        Api::new(self.admin, token)
    }

    /// The admin listener for the operator of this installation, once it knows the token, which is looked up in the
    /// store after the start. `made_by`: the replica that made the token, at the first start of all.
    ///
    /// # Errors
    /// There is none, or it is not accepted in time.
    pub fn operator(&self, made_by: &Self) -> Result<Api> {
        let path = made_by.setup.dir.join("data/admin.token");
        process::wait_until("the admin token is accepted", KNOWN, || {
            let token = fs::read_to_string(&path).unwrap_or_default();
            !token.is_empty() && self.api(token.trim()).get("/api/v1/me").is_ok()
        })
        .map_err(|error| format!("{error}\n{}", self.log()))?;
        Ok(self.api(fs::read_to_string(&path)?.trim()))
    }

    /// A figure of `/metrics`: the sum of the samples whose line begins with `name`.
    ///
    /// # Errors
    /// The admin listener does not answer.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let text = self.api("").get("/metrics")?;
        let samples = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with([' ', '{', ',']).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
        });
        Ok(samples.sum())
    }

    /// The last lines of its log.
    pub fn log(&self) -> String {
        let text = self.whole_log();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(SHOWN)..].join("\n")
    }

    /// Its log since the last start.
    pub fn whole_log(&self) -> String {
        fs::read_to_string(self.setup.dir.join(format!("tollgate-{}.log", self.starts))).unwrap_or_default()
    }

    /// Runs a subcommand of the binary beside it and returns what it printed.
    ///
    /// # Errors
    /// It failed.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.setup.binary)
            .args(arguments)
            .env("TOLLGATE_API", format!("http://{}", self.admin))
            .current_dir(&self.setup.dir)
            .output()?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() {
            Ok(out.into_owned())
        } else {
            Err(format!("tollgate {}: {out}{err}", arguments.join(" ")).into())
        }
    }

    /// Whether its admin listener takes connections.
    pub fn listens(&self) -> bool {
        Connection::new(self.admin).exchange(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").is_ok()
    }
}

/// What is the replica's own: listeners, threads, folders, the store.
fn own_part(setup: &Setup, mcp: SocketAddr, admin: SocketAddr) -> String {
    let dir = setup.dir.display();
    let mut text = format!(
        r#"version: 1
listeners:
  mcp:
    address: {mcp}
    limits: {{ max_connections: 100000, max_connections_per_address: 100000, max_streams_per_principal: 100000 }}
  admin: {{ address: {admin} }}
runtime: {{ data_threads: 1, control_threads: 2 }}
data_dir: "{dir}/data"
telemetry:
  log: {{ level: info }}
  access_log: {{ enabled: true, path: "{dir}/access.log" }}
shutdown: {{ announce: 0s, drain: 10s, streams: 2s }}
"#
    );
    if setup.store.is_some() {
        // A password may be in it, so a document only refers to it.
        let _ = writeln!(text, "store:\n  url: \"${{file:{dir}/store.url}}\"");
        if let Some(keys) = &setup.keys {
            let _ = writeln!(text, "  encryption: {{ key_file: \"{}\" }}", keys.display());
        }
    }
    text.push_str(&setup.more);
    match &setup.document {
        Some(document) => text.push_str(document.trim_start_matches("version: 1\n")),
        None => text.push_str("source: database\n"),
    }
    text
}
