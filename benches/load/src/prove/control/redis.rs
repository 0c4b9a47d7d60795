//! A private Valkey or Redis: on a free port, nothing on disk, gone with its guard.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::Result;
use crate::process::{self, Process};

/// How long it may take to answer.
const START: Duration = Duration::from_secs(10);

/// A server.
#[derive(Debug)]
pub struct Redis {
    dir: PathBuf,
    port: u16,
    server: Option<Process>,
}

impl Redis {
    /// Starts one that works in `dir`.
    ///
    /// # Errors
    /// Neither `valkey-server` nor `redis-server` is installed, or it does not start.
    pub fn start(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let mut redis = Self { dir: dir.to_owned(), port: process::free_port()?, server: None };
        redis.launch()?;
        Ok(redis)
    }

    /// Where the gateway finds it.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// It is gone already.
    pub fn kill(&mut self) -> Result<()> {
        self.server.take().map_or(Ok(()), |server| server.signal(Signal::KILL))
    }

    /// Starts it again after [`Redis::kill`], at the same address and empty.
    ///
    /// # Errors
    /// It does not come up.
    pub fn restart(&mut self) -> Result<()> {
        self.launch()
    }

    fn launch(&mut self) -> Result<()> {
        let mut refusal = None;
        for program in ["valkey-server", "redis-server"] {
            let mut command = Command::new(program);
            command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
            command.args([
                "--appendonly",
                "no",
                "--dir",
                &self.dir.to_string_lossy(),
                "--logfile",
                "redis.log",
            ]);
            if Command::new(program).arg("--version").output().is_err() {
                refusal = Some(format!("{program} is not installed: scripts/bootstrap.sh test"));
                continue;
            }
            self.server = Some(Process::start(process::bound(&command, None), None, None)?);
            return process::wait_until("Redis answers", START, || ping(self.port));
        }
        Err(refusal.unwrap_or_default().into())
    }
}

fn ping(port: u16) -> bool {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else { return false };
    let mut answer = [0; 7];
    stream.set_read_timeout(Some(Duration::from_secs(1))).is_ok()
        && stream.write_all(b"PING\r\n").is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && &answer == b"+PONG\r\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_at_the_same_address() {
        let dir = std::env::temp_dir().join(format!("tollgate-load-redis-{}", std::process::id()));
        let mut redis = Redis::start(&dir).unwrap();
        let address = redis.url();
        redis.kill().unwrap();
        assert!(!ping(redis.port));
        redis.restart().unwrap();
        assert!(ping(redis.port) && redis.url() == address);
        drop(redis);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
