//! Writes a backup.

use std::collections::BTreeMap;
use std::io::Write;

use futures::TryStreamExt as _;
use sha2::{Digest as _, Sha256};
use sqlx::AssertSqlSafe;

use super::super::tx::{Access, Conn, Tx};
use super::super::{Engine, SCHEMA_LEVEL, Store, StoreError};
use super::tables::{self, Table};
use super::{FORMAT, Header, Line, Manifest, TableManifest, hex};
use crate::base::Scope;

/// How hard zstd tries: its own default.
const LEVEL: i32 = 3;

impl Store {
    /// Writes a backup of one consistent state. The caller sees to it that what it wrote is kept (synced, renamed) only
    /// if this succeeds.
    ///
    /// # Errors
    /// The database; `out` cannot be written.
    pub async fn backup(&self, out: impl Write) -> Result<Manifest, StoreError> {
        let failed = |source| StoreError::io("the backup", source);
        let mut out = Hashed { out: zstd::Encoder::new(out, LEVEL).map_err(failed)?, hash: Sha256::new() };
        let migrations = self.migrations().await?;
        if migrations.iter().all(|m| m.applied_at.is_none()) {
            return Err(StoreError::Missing("table in the database: nothing to back up".to_owned()));
        }
        let mut tx = self.begin(&Scope::Platform, Access::Read).await?;
        tx.without_limit().await?;
        let header = Header {
            format: FORMAT,
            engine: self.engine(),
            schema_level: SCHEMA_LEVEL,
            migrations: migrations.into_iter().filter(|m| m.applied_at.is_some()).map(|m| m.name).collect(),
            created_at: self.now().to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        out.line(&Line::Backup(header))?;
        let mut found = BTreeMap::new();
        for table in tables::list(&mut tx).await? {
            let columns = table.columns.iter().map(|c| c.name.clone()).collect();
            out.line(&Line::Table { name: table.name.clone(), columns })?;
            let manifest = rows(&mut tx, self.engine(), &table, &mut |line| out.text(line)).await?;
            out.line(&Line::TableEnd(manifest.clone()))?;
            found.insert(table.name, manifest);
        }
        let manifest = Manifest { tables: found, sha256: hex(out.hash.clone().finalize()) };
        out.line(&Line::End(manifest.clone()))?;
        out.out.finish().and_then(|mut out| out.flush()).map_err(failed)?;
        Ok(manifest)
    }

    /// What a backup made now would have of each table, without writing one: to compare two stores.
    ///
    /// # Errors
    /// The database.
    pub async fn fingerprint(&self) -> Result<BTreeMap<String, TableManifest>, StoreError> {
        self.backup(std::io::sink()).await.map(|manifest| manifest.tables)
    }
}

/// Gives every row of a table to `each`, as a line.
pub(super) async fn rows(
    tx: &mut Tx,
    engine: Engine,
    table: &Table,
    each: &mut dyn FnMut(&str) -> Result<(), StoreError>,
) -> Result<TableManifest, StoreError> {
    let mut hash = Sha256::new();
    let mut rows = 0;
    let select = AssertSqlSafe(table.select(engine));
    let mut take = |row: String| {
        let line = neutral(&row, table)?;
        hash.update(line.as_bytes());
        hash.update(b"\n");
        rows += 1;
        each(&line)
    };
    match tx.conn() {
        Conn::Postgres(conn) => {
            let mut stream = sqlx::query_scalar::<_, String>(select).fetch(&mut **conn);
            while let Some(row) = stream.try_next().await? {
                take(row)?;
            }
        }
        Conn::Sqlite(conn) => {
            let mut stream = sqlx::query_scalar::<_, String>(select).fetch(&mut **conn);
            while let Some(row) = stream.try_next().await? {
                take(row)?;
            }
        }
    }
    Ok(TableManifest { rows, sha256: hex(hash.finalize()) })
}

/// The one way of writing a row, whichever engine it comes from: one puts spaces between values.
fn neutral(row: &str, table: &Table) -> Result<String, StoreError> {
    let bad = |_| StoreError::Schema(format!("a row of {} is not JSON", table.name));
    let values: Vec<serde_json::Value> = serde_json::from_str(row).map_err(bad)?;
    serde_json::to_string(&values).map_err(bad)
}

struct Hashed<W: Write> {
    out: zstd::Encoder<'static, W>,
    hash: Sha256,
}

impl<W: Write> Hashed<W> {
    fn line(&mut self, line: &Line) -> Result<(), StoreError> {
        let text = serde_json::to_string(line).map_err(|e| StoreError::Schema(e.to_string()))?;
        self.text(&text)
    }

    fn text(&mut self, line: &str) -> Result<(), StoreError> {
        self.hash.update(line.as_bytes());
        self.hash.update(b"\n");
        self.out
            .write_all(line.as_bytes())
            .and_then(|()| self.out.write_all(b"\n"))
            .map_err(|source| StoreError::io("the backup", source))
    }
}
