//! Promises under load, each either kept or not: the program's exit code says which, and files say why.

mod callers;
pub mod control;
mod kill;
mod reload;
mod restart;
pub(crate) mod shared_limits;
mod streams;
mod takeover;

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::bench::gateway_binary;
use crate::gateway::{Gateway, Setup};
use crate::identity::Issuer;
use crate::process::Process;
use crate::{Result, process, report};

/// What is promised.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Promise {
    /// A revision that fails on some callers is rolled back by itself, and nobody else notices; by hand, nobody does.
    ControlCanary(Options),
    /// The embedded default starts in seconds, and `kill -9` loses nothing that was acknowledged.
    ControlEmbedded(Options),
    /// A database that is gone fails no call; neither its death nor the gateway's loses an audit event.
    ControlOutage(Options),
    /// Publications under load fail no call, reach every replica within a second, and never apply by halves.
    ControlPublish(Options),
    /// A store goes from SQLite into PostgreSQL and back, equal row by row, and serves the same calls.
    ControlRestore(Options),
    /// A full disk for the audit spool does what the configuration says, and shows.
    ControlSpoolFull(Options),
    /// 100,000 recorded requests are replayed against a candidate in seconds.
    ControlWhatif(Options),
    /// A server that is killed costs only the calls in flight to it, and each of its sessions one 404.
    Kill(Options),
    /// Reloads of the configuration fail no call and lose no session.
    Reload(Options),
    /// Zero-downtime restarts fail no call and lose no session.
    Restart(Options),
    /// Two gateways that share a limit grant together what one would: never more, and hardly less.
    SharedLimits(Options),
    /// Thousands of streams are held, served and lose nothing while calls run beside them.
    Streams(streams::Options),
    /// A gateway that is killed costs only the calls in flight to it; its sessions go on at another.
    Takeover(Options),
}

/// How promises are put to the test.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The gateway's binary. Default: the one beside this program.
    #[arg(long)]
    pub tollgate: Option<PathBuf>,
    /// Sessions that call.
    #[arg(long, default_value_t = 64)]
    pub sessions: usize,
    /// Folder for the figures.
    #[arg(long, default_value = "bench-results")]
    pub out: PathBuf,
    /// A few seconds only.
    #[arg(long)]
    pub smoke: bool,
}

/// Puts a promise to the test. `false`: it was broken.
///
/// # Errors
/// The test could not be made.
pub fn prove(promise: &Promise) -> Result<bool> {
    process::raise_descriptor_limit();
    match promise {
        Promise::ControlCanary(options) => control::canary(options),
        Promise::ControlEmbedded(options) => control::embedded(options),
        Promise::ControlOutage(options) => control::outage(options),
        Promise::ControlPublish(options) => control::publish(options),
        Promise::ControlRestore(options) => control::restore(options),
        Promise::ControlSpoolFull(options) => control::spool_full(options),
        Promise::ControlWhatif(options) => control::whatif(options),
        Promise::Kill(options) => kill::prove(options),
        Promise::Reload(options) => reload::prove(options),
        Promise::Restart(options) => restart::prove(options),
        Promise::SharedLimits(options) => shared_limits::prove(options),
        Promise::Streams(options) => streams::prove(options),
        Promise::Takeover(options) => takeover::prove(options),
    }
}

/// A folder that is gone when this is.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("tollgate-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A gateway before its servers.
struct Stage {
    gateway: Gateway,
    servers: Vec<(Process, std::net::SocketAddr)>,
    scratch: Scratch,
}

impl Stage {
    fn new(name: &str, tollgate: Option<&Path>, servers: usize, core: Option<usize>) -> Result<Self> {
        let scratch = Scratch::new(name)?;
        let names = ["a", "b", "c", "d"];
        let servers = names[..servers].iter().map(|name| crate::bench::start_fixture(name, core));
        let servers = servers.collect::<Result<Vec<_>>>()?;
        let setup = Setup {
            binary: gateway_binary(tollgate)?,
            dir: scratch.0.join("tollgate"),
            upstreams: servers.iter().map(|(_, address)| *address).collect(),
            data_threads: usize::from(core.is_some()),
            audit: true,
            core,
            valkey: None,
            key_file: None,
        };
        let gateway = Gateway::start(setup, &Issuer::new()?)?;
        Ok(Self { gateway, servers, scratch })
    }
}

/// How to set the stage for other tools.
#[derive(Clone, Debug, clap::Args)]
pub struct StageOptions {
    /// The gateway's binary. Default: the one beside this program.
    #[arg(long)]
    tollgate: Option<PathBuf>,
    /// Core that everything is pinned to.
    #[arg(long)]
    core: Option<usize>,
}

/// Starts the gateway and two servers as they are measured, prints how to reach them as JSON, and waits for the end of
/// stdin: for profilers and load generators of others.
///
/// # Errors
/// Something does not start.
pub fn stage(options: &StageOptions) -> Result<()> {
    process::raise_descriptor_limit();
    let stage = Stage::new("stage", options.tollgate.as_deref(), 2, options.core)?;
    let endpoint = stage.gateway.endpoint();
    let servers: Vec<String> = stage.servers.iter().map(|(_, address)| address.to_string()).collect();
    let json = serde_json::json!({
        "pid": stage.gateway.process.pid(), "target": endpoint.address.to_string(), "path": endpoint.path,
        "token": endpoint.token, "servers": servers, "dir": stage.scratch.0,
    });
    println!("{json}");
    let mut ignored = String::new();
    while std::io::stdin().read_line(&mut ignored)? > 0 {}
    Ok(())
}

/// What was promised, and whether it was kept.
#[derive(Clone, Debug, Serialize)]
struct Check {
    promise: String,
    found: String,
    kept: bool,
}

#[derive(Default)]
struct Checks(Vec<Check>);

impl Checks {
    fn add(&mut self, promise: &str, found: impl ToString, kept: bool) {
        self.0.push(Check { promise: promise.to_owned(), found: found.to_string(), kept });
    }

    /// Writes and prints; `true` if all were kept.
    fn publish(self, out: &Path, name: &str, smoke: bool, details: &impl Serialize) -> Result<bool> {
        #[derive(Serialize)]
        struct Report<'a, D> {
            machine: report::Machine,
            kept: bool,
            checks: &'a [Check],
            details: &'a D,
        }
        let kept = self.0.iter().all(|check| check.kept);
        let mut table = report::Table::new(&["promise", "found", ""]);
        for check in &self.0 {
            let verdict = if check.kept { "kept" } else { "BROKEN" };
            table.row(vec![check.promise.clone(), check.found.clone(), verdict.to_owned()]);
        }
        let machine = report::Machine::this();
        let text = format!(
            "{name}: {}\n{}\n\n{}",
            if kept { "kept" } else { "BROKEN" },
            machine.text(),
            table.text()
        );
        let name = if smoke { format!("{name}-smoke") } else { name.to_owned() };
        report::publish(out, &name, &text, &Report { machine, kept, checks: &self.0, details })?;
        Ok(kept)
    }
}
