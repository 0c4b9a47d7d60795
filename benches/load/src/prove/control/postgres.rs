//! A private PostgreSQL cluster: made in a folder of the run, on a free port, gone with its guard.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::process::{self, Process};
use crate::{Error, Result};

/// How long it may take to accept connections, recovery after a crash included.
const START: Duration = Duration::from_secs(60);
/// How long killed processes may take to be gone.
const GONE: Duration = Duration::from_secs(10);
/// Who the gateway connects as, and the database.
const NAME: &str = "tollgate";

/// A cluster.
#[derive(Debug)]
pub struct Postgres {
    dir: PathBuf,
    bin: PathBuf,
    port: u16,
    /// Who it runs as: it refuses to be root.
    user: Option<String>,
    server: Option<Process>,
}

impl Postgres {
    /// Makes a cluster in `dir` and starts it.
    ///
    /// # Errors
    /// PostgreSQL is not installed, or does not start; its log is part of the error.
    pub fn start(dir: &Path) -> Result<Self> {
        let user = geteuid().is_root().then(unprivileged).transpose()?;
        fs::create_dir_all(dir)?;
        let dir = fs::canonicalize(dir)?;
        if let Some(user) = &user {
            let uid = id("-u", user)?;
            chown(&dir, Some(uid), Some(id("-g", user)?))?;
        }
        let mut postgres = Self { bin: binaries()?, port: process::free_port()?, dir, user, server: None };
        postgres.run(
            "initdb",
            &["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "--username=postgres"],
        )?;
        postgres.launch()?;
        // Not a superuser: row-level security holds for whoever connects.
        postgres.query("postgres", &format!("CREATE ROLE {NAME} LOGIN CREATEROLE"))?;
        postgres.query("postgres", &format!("CREATE DATABASE {NAME} OWNER {NAME}"))?;
        Ok(postgres)
    }

    /// Where the gateway finds it.
    pub fn url(&self) -> String {
        format!("postgres://{NAME}@127.0.0.1:{}/{NAME}", self.port)
    }

    /// What a statement answers, fields separated by `|`, as a superuser.
    ///
    /// # Errors
    /// It fails.
    pub fn ask(&self, sql: &str) -> Result<String> {
        self.query(NAME, sql)
    }

    /// `kill -9` of every process of it.
    ///
    /// # Errors
    /// They are still there afterwards.
    pub fn kill(&mut self) -> Result<()> {
        let Some(server) = self.server.take() else { return Ok(()) };
        let children = process::children(server.pid());
        server.signal(Signal::KILL)?;
        for child in &children {
            // It may have ended by itself.
            let _ =
                i32::try_from(*child).ok().and_then(Pid::from_raw).map(|pid| kill_process(pid, Signal::KILL));
        }
        drop(server);
        // Shared memory that is still attached keeps the next one from starting.
        process::wait_until("PostgreSQL's processes are gone", GONE, || {
            children.iter().all(|child| !Path::new(&format!("/proc/{child}")).exists())
        })
    }

    /// Starts it again after [`Postgres::kill`], at the same address.
    ///
    /// # Errors
    /// It does not come up.
    pub fn restart(&mut self) -> Result<()> {
        self.launch()
    }

    fn launch(&mut self) -> Result<()> {
        let mut command = Command::new(self.bin.join("postgres"));
        command.arg("-D").arg(self.data()).current_dir(&self.dir);
        for setting in [
            format!("port={}", self.port),
            "listen_addresses=127.0.0.1".to_owned(),
            "unix_socket_directories=".to_owned(),
            "max_connections=200".to_owned(),
            "shared_buffers=64MB".to_owned(),
            "log_min_messages=warning".to_owned(),
        ] {
            command.arg("-c").arg(setting);
        }
        let log = self.dir.join("postgres.log");
        self.server = Some(Process::start(process::bound(&command, self.user.as_deref()), None, Some(&log))?);
        let ready =
            process::wait_until("PostgreSQL answers", START, || self.query("postgres", "SELECT 1").is_ok());
        ready.map_err(|error| format!("{error}\n{}", fs::read_to_string(&log).unwrap_or_default()).into())
    }

    fn data(&self) -> PathBuf {
        self.dir.join("cluster")
    }

    /// A program of PostgreSQL on this cluster's folder.
    fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(self.bin.join(program));
        command.arg("-D").arg(self.data()).args(arguments).current_dir(&self.dir);
        let output = process::bound(&command, self.user.as_deref()).stdin(Stdio::null()).output()?;
        if output.status.success() {
            Ok(())
        } else {
            Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr)).into())
        }
    }

    fn query(&self, database: &str, sql: &str) -> Result<String> {
        let output = Command::new(self.bin.join("psql"))
            .args(["--no-psqlrc", "--tuples-only", "--no-align", "--quiet", "--set=ON_ERROR_STOP=1"])
            .args(["--host=127.0.0.1", "--username=postgres", &format!("--port={}", self.port)])
            .args([&format!("--dbname={database}"), "--command", sql])
            .env("PGCONNECT_TIMEOUT", "5")
            .stdin(Stdio::null())
            .output()?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            Err(Error::from(format!("psql: {}", String::from_utf8_lossy(&output.stderr).trim())))
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Where the programs are: Debian keeps all but `psql` off the path.
fn binaries() -> Result<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for entry in fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten() {
        let version = entry.file_name().to_string_lossy().parse();
        let bin = entry.path().join("bin");
        if let (Ok(version), true) = (version, bin.join("initdb").exists()) {
            found.push((version, bin));
        }
    }
    found.sort();
    if let Some((_, bin)) = found.pop() {
        return Ok(bin);
    }
    let path = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .find(|dir| dir.join("initdb").exists() && dir.join("postgres").exists());
    path.ok_or_else(|| "PostgreSQL is not installed: scripts/bootstrap.sh test".into())
}

/// A user without rights.
fn unprivileged() -> Result<String> {
    for user in ["postgres", "nobody"] {
        if id("-u", user).is_ok() {
            return Ok(user.to_owned());
        }
    }
    Err("neither user postgres nor nobody exists, and PostgreSQL refuses to run as root".into())
}

fn id(what: &str, user: &str) -> Result<u32> {
    let output = Command::new("id").args([what, user]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_committed_is_there_after_kill_9() {
        let dir = std::env::temp_dir().join(format!("tollgate-load-postgres-{}", std::process::id()));
        let mut postgres = Postgres::start(&dir).unwrap();
        postgres.ask("CREATE TABLE t (n int); INSERT INTO t VALUES (7)").unwrap();
        let address = postgres.url();
        postgres.kill().unwrap();
        assert!(postgres.ask("SELECT 1").is_err());
        postgres.restart().unwrap();
        assert_eq!(postgres.ask("SELECT n FROM t").unwrap(), "7");
        assert_eq!(postgres.url(), address);
        drop(postgres);
        fs::remove_dir_all(dir).unwrap();
    }
}
