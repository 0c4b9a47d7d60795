//! Promises of the control plane: replicas that share a store, put to the test as processes of their own.
//!
//! Everything is private to a run and gone with it: a PostgreSQL cluster ([`postgres`]), Valkey or Redis ([`redis`]), gateways
//! ([`replica`]) with servers behind them. Sessions call without end and enter every call into a ledger ([`ledger`]); what
//! the gateway says afterwards, such as its audit, is held against that. Processes are started from the main thread: they
//! end with the thread that started them.

pub mod account;
pub mod api;
pub mod callers;
mod canary;
pub mod document;
mod embedded;
pub mod ledger;
mod outage;
pub mod postgres;
mod publish;
pub mod redis;
pub mod replica;
mod restore;
mod spool_full;
pub mod tables;
mod whatif;

use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Checks, Options, Scratch};
use crate::Result;
use crate::bench::{gateway_binary, start_fixture};
use crate::client::Endpoint;
use crate::identity::Issuer;
use crate::process::Process;
use postgres::Postgres;
use replica::{Replica, Setup};

pub(super) use canary::prove as canary;
pub(super) use embedded::prove as embedded;
pub(super) use outage::prove as outage;
pub(super) use publish::prove as publish;
pub(super) use restore::prove as restore;
pub(super) use spool_full::prove as spool_full;
pub(super) use whatif::prove as whatif;

/// Who calls.
const CALLER: &str = "load";
/// File with the issuer's keys.
const JWKS: &str = "jwks.json";
/// File with the keys that seal secrets.
const KEYS: &str = "master.keys";

/// Replicas of one PostgreSQL, in front of two servers.
struct Fleet {
    postgres: Postgres,
    replicas: Vec<Replica>,
    servers: Vec<(Process, SocketAddr)>,
    issuer: Issuer,
    binary: PathBuf,
    // Last: the others have files in it.
    scratch: Scratch,
}

impl Fleet {
    /// Starts as many replicas, all with these sections in their file.
    fn start(
        name: &str,
        tollgate: Option<&Path>,
        replicas: usize,
        more: impl Fn(&Path) -> String,
    ) -> Result<Self> {
        let mut fleet = Self::stage(name, tollgate)?;
        let (_, document) = fleet.document(0);
        for _ in 0..replicas {
            fleet.add(None, Some(&document), &more)?;
        }
        Ok(fleet)
    }

    /// Starts what replicas need, without any.
    fn stage(name: &str, tollgate: Option<&Path>) -> Result<Self> {
        let scratch = Scratch::new(name)?;
        let postgres = Postgres::start(&scratch.0.join("postgres"))?;
        let servers = ["a", "b"].iter().map(|name| start_fixture(name, None)).collect::<Result<Vec<_>>>()?;
        let issuer = Issuer::new()?;
        issuer.write_jwks(&scratch.0.join(JWKS))?;
        write_master_key(&scratch.0.join(KEYS))?;
        let binary = gateway_binary(tollgate)?;
        Ok(Self { postgres, replicas: Vec::new(), servers, issuer, binary, scratch })
    }

    /// Starts another replica; without a document it has those of the store.
    fn add(
        &mut self,
        role: Option<&'static str>,
        document: Option<&str>,
        more: impl Fn(&Path) -> String,
    ) -> Result<()> {
        let dir = self.file(&format!("replica-{}", self.replicas.len() + 1));
        self.replicas.push(Replica::start(Setup {
            binary: self.binary.clone(),
            more: more(&dir),
            role,
            store: Some(self.postgres.url()),
            keys: Some(self.file(KEYS)),
            document: document.map(str::to_owned),
            dir,
        })?);
        Ok(())
    }

    /// A variant of the document, with its number.
    fn document(&self, variant: u64) -> (u64, String) {
        let servers: Vec<SocketAddr> = self.servers.iter().map(|(_, address)| *address).collect();
        (variant, document::document(&servers, &self.file(JWKS).to_string_lossy(), variant))
    }

    /// The ordinary route of each replica, for a caller of that name.
    fn endpoints(&self, caller: &str) -> Result<Vec<Endpoint>> {
        let token = self.issuer.token(caller)?;
        Ok(self.replicas.iter().map(|replica| replica.endpoint("/mcp/load", &token)).collect())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.scratch.0.join(name)
    }
}

/// Writes a new key that seals secrets, as replicas of one store share it.
fn write_master_key(path: &Path) -> Result<()> {
    let mut key = [0; 32];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| "no randomness")?;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    Ok(writeln!(file, "k1 {}", STANDARD.encode(key))?)
}
