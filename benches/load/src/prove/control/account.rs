//! What the gateway's audit says of the calls of a run, read back through its own export.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::ledger::{Difference, Ledger};
use super::replica::Replica;
use crate::{Result, process};

/// How long draining what has piled up may take.
const DRAIN: Duration = Duration::from_secs(120);

/// An export, as far as it is looked at.
#[derive(Debug, Default)]
pub struct Account {
    /// Request ids of calls of tools, one per event.
    pub calls: Vec<String>,
    /// Events of any kind.
    pub events: u64,
    /// What `tollgate audit verify` says.
    pub verdict: String,
    /// Whether it found the export sound.
    pub sound: bool,
    /// The key that it was verified with.
    pub key: String,
}

impl Account {
    /// Waits until nothing is on its way into the store any more, exports all that is there to `file`, and verifies it.
    ///
    /// # Errors
    /// Events stay on their way, or the export fails.
    pub fn read(replicas: &[Replica], file: &Path) -> Result<Self> {
        for replica in replicas {
            settle(replica)?;
        }
        let teller = replicas.first().ok_or("no replica")?;
        // The first makes the key if there is none, so that the export has one to sign with.
        let key = teller.run(&["audit", "key", "--config", "tollgate.yaml"])?;
        let export = teller.run(&["audit", "export", "--config", "tollgate.yaml"])?;
        fs::write(file, &export)?;
        let verdict = teller.run(&["audit", "verify", &file.to_string_lossy(), "--key", key.trim()]);
        let mut account = match verdict {
            Ok(text) => Self { sound: text.starts_with("sound"), verdict: text, ..Self::default() },
            Err(error) => Self { verdict: error.to_string(), ..Self::default() },
        };
        account.key = key.trim().to_owned();
        for line in export.lines() {
            let line: Value = serde_json::from_str(line)?;
            // Checkpoints and the manifest are lines as well.
            let Some(event) = line.get("event") else { continue };
            account.events += 1;
            if event["method"] == "tools/call" {
                account.calls.push(event["request_id"].as_str().unwrap_or_default().to_owned());
            }
        }
        Ok(account)
    }

    /// How it differs from the ledger.
    pub fn against(&self, ledger: &Ledger) -> Difference {
        Difference::between(ledger, self.calls.iter().map(String::as_str))
    }
}

/// Waits until a replica's backlog is gone and stays so: the figure is taken once a second.
fn settle(replica: &Replica) -> Result<()> {
    let mut quiet = 0;
    process::wait_until("the audit is in the store", DRAIN, || {
        let backlog = replica.metric("tollgate_audit_backlog");
        quiet = if backlog.is_ok_and(|n| n == 0.0) { quiet + 1 } else { 0 };
        std::thread::sleep(Duration::from_millis(100));
        quiet > 20
    })
    .map_err(|error| format!("{error}\n{}", replica.log()).into())
}
