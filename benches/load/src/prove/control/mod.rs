//! Promises of the control plane: replicas that share a store, put to the test as processes of their own.
//!
//! Everything is private to a run and gone with it: a PostgreSQL cluster ([`postgres`]), Valkey or Redis ([`redis`]), gateways
//! ([`replica`]) with servers behind them. Sessions call without end and enter every call into a ledger ([`ledger`]); what
//! the gateway says afterwards, such as its audit, is held against that. Processes are started from the main thread: they
//! end with the thread that started them.

pub mod account;
pub mod api;
pub mod callers;
pub mod document;
mod embedded;
pub mod ledger;
mod outage;
pub mod postgres;
pub mod redis;
pub mod replica;
mod spool_full;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::{Checks, Options, Scratch};
use crate::Result;
use crate::bench::{gateway_binary, start_fixture};
use crate::client::Endpoint;
use crate::identity::Issuer;
use crate::process::Process;
use postgres::Postgres;
use replica::{Replica, Setup};

pub(super) use embedded::prove as embedded;
pub(super) use outage::prove as outage;
pub(super) use spool_full::prove as spool_full;

/// Who calls.
const CALLER: &str = "load";

/// Replicas of one PostgreSQL, in front of two servers.
struct Fleet {
    postgres: Postgres,
    replicas: Vec<Replica>,
    servers: Vec<(Process, SocketAddr)>,
    issuer: Issuer,
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
        let scratch = Scratch::new(name)?;
        let postgres = Postgres::start(&scratch.0.join("postgres"))?;
        let servers = ["a", "b"].iter().map(|name| start_fixture(name, None)).collect::<Result<Vec<_>>>()?;
        let issuer = Issuer::new()?;
        let jwks = scratch.0.join("jwks.json");
        issuer.write_jwks(&jwks)?;
        let addresses: Vec<SocketAddr> = servers.iter().map(|(_, address)| *address).collect();
        let document = document::document(&addresses, &jwks.to_string_lossy(), 0);
        let binary = gateway_binary(tollgate)?;
        let replicas = (1..=replicas).map(|number| {
            let dir = scratch.0.join(format!("replica-{number}"));
            Replica::start(Setup {
                binary: binary.clone(),
                more: more(&dir),
                role: None,
                store: Some(postgres.url()),
                keys: None,
                document: Some(document.clone()),
                dir,
            })
        });
        let replicas = replicas.collect::<Result<Vec<_>>>()?;
        Ok(Self { postgres, replicas, servers, issuer, scratch })
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
