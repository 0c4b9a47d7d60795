//! A copy of the whole store in one file that either engine reads: to keep, and to move from SQLite to PostgreSQL or back.
//!
//! The file is zstd over JSON lines: a header, then for each table its columns, its rows (arrays) and a line with their
//! number and SHA-256, then an end line with the hash over all of that. It is one consistent state (one read-only
//! transaction). A file without its end line is no backup. Rows are streamed both ways; no table is ever in memory.
//!
//! What is only about running processes ([`EPHEMERAL`]) stays out. Secrets stay sealed: the master keys are not in the
//! file, and have to be kept elsewhere.

mod dump;
mod restore;
mod tables;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use restore::Into;

/// Version of the file's layout.
const FORMAT: u32 = 1;

/// Tables about processes that run: of no use in another database.
const EPHEMERAL: &[&str] =
    &["canary_reports", "leader_locks", "replica_revisions", "replicas", "schema_migrations"];

/// Tables in which migrations put rows: what is there does not make a database one in use.
const SEEDED: &[&str] = &["config_generation", "identity_head"];

/// What a backup has, or a restore has put back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Each table.
    pub tables: BTreeMap<String, TableManifest>,
    /// SHA-256 over the lines before this one.
    pub sha256: String,
}

/// One table of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableManifest {
    /// How many rows.
    pub rows: u64,
    /// SHA-256 over the lines of the rows, in the order of the primary key.
    pub sha256: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Backup(Header),
    Table { name: String, columns: Vec<String> },
    TableEnd(TableManifest),
    End(Manifest),
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: u32,
    engine: super::Engine,
    schema_level: i32,
    migrations: Vec<String>,
    created_at: String,
    version: String,
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
