//! Reads a backup into a database. The file is read twice: once to see that it is whole, before anything is touched, and
//! once into the database, in one transaction that commits only if every hash and count is right. What `--erase` removes is
//! removed in that transaction, too.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};

use serde::de::IgnoredAny;
use sha2::{Digest as _, Sha256};
use sqlx::AssertSqlSafe;

use super::super::tx::{Conn, Tx};
use super::super::{Engine, PLATFORM_ROLE, SCHEMA_LEVEL, Store, StoreError, migrate, roles};
use super::tables::{self, Table};
use super::{FORMAT, Header, Line, Manifest, SEEDED, TableManifest, dump, hex};

/// Longest line: the largest document, in hexadecimal, and then some.
const MAX_LINE: u64 = 256 << 20;
/// Rows that are written with one statement.
const BATCH_ROWS: usize = 500;
/// Bytes of rows that are written with one statement, unless one row alone has more.
const BATCH_BYTES: usize = 1 << 20;

/// What may be in the database that is restored into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Into {
    /// Nothing: anything else is an error.
    Empty,
    /// Anything: all of it is removed first.
    Erased,
}

impl Store {
    /// Puts a backup back. Nothing is changed if it fails, whatever was to be removed first.
    ///
    /// # Errors
    /// [`StoreError::Backup`] if the file is not a complete, unchanged backup, or of a newer version;
    /// [`StoreError::InUse`]; the database.
    pub async fn restore(&self, mut from: impl Read + Seek, into: Into) -> Result<Manifest, StoreError> {
        let start = from.stream_position().map_err(bad)?;
        Reading::new(&mut from)?.run(None).await?;
        from.seek(SeekFrom::Start(start)).map_err(bad)?;
        if self.engine() == Engine::Postgres {
            roles::ensure(self).await?;
        }
        let mut tx = migrate::in_one(self, into == Into::Erased).await?;
        if self.engine() == Engine::Postgres {
            execute(&mut tx, format!("SET LOCAL ROLE {PLATFORM_ROLE}"), None).await?;
            execute(&mut tx, "SET LOCAL tollgate.tenant = ''".to_owned(), None).await?;
        }
        let tables = tables::list(&mut tx).await?;
        clear(&mut tx, &tables).await?;
        let numbering = numbering(&mut tx).await?;
        switch(&mut tx, &numbering, "DISABLE").await?;
        let engine = self.engine();
        let manifest = Reading::new(from)?.run(Some(Target { tx: &mut tx, engine, tables: &tables })).await?;
        switch(&mut tx, &numbering, "ENABLE").await?;
        for table in &tables {
            let found = dump::rows(&mut tx, self.engine(), table, &mut |_| Ok(())).await?;
            let expected = manifest.tables.get(&table.name);
            // A table that is newer than the backup has nothing in it, and hashes as such.
            if expected.is_some_and(|expected| *expected != found) || (expected.is_none() && found.rows > 0) {
                return Err(bad(format!("{} is not what the backup says", table.name)));
            }
        }
        tx.commit().await?;
        Ok(manifest)
    }
}

/// Removes what migrations put there; fails if there is more.
async fn clear(tx: &mut Tx, tables: &[Table]) -> Result<(), StoreError> {
    for table in tables.iter().rev() {
        if SEEDED.contains(&table.name.as_str()) {
            execute(tx, format!("DELETE FROM {}", table.quoted()), None).await?;
            continue;
        }
        let text = AssertSqlSafe(format!("SELECT count(*) FROM {}", table.quoted()));
        let rows: i64 = match tx.conn() {
            Conn::Postgres(conn) => sqlx::query_scalar(text).fetch_one(&mut **conn).await?,
            Conn::Sqlite(conn) => sqlx::query_scalar(text).fetch_one(&mut **conn).await?,
        };
        if rows > 0 {
            let rows = if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") };
            return Err(StoreError::InUse(format!(
                "{} has {rows} (`--erase` removes everything first)",
                table.name
            )));
        }
    }
    Ok(())
}

/// Tables of PostgreSQL, quoted, whose rows are given values by triggers when they are inserted. A backup has the values.
async fn numbering(tx: &mut Tx) -> Result<Vec<String>, StoreError> {
    match tx.conn() {
        Conn::Postgres(conn) => Ok(sqlx::query_scalar(
            "SELECT DISTINCT quote_ident(c.relname) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
              WHERE NOT t.tgisinternal AND t.tgtype & 4 > 0 AND NOT c.relispartition
                AND c.relnamespace = current_schema()::regnamespace",
        )
        .fetch_all(&mut **conn)
        .await?),
        // Those of SQLite only refuse changes.
        Conn::Sqlite(_) => Ok(Vec::new()),
    }
}

/// Turns triggers off or on for the rest of the transaction, which is undone with it. Only the owner may.
async fn switch(tx: &mut Tx, tables: &[String], to: &str) -> Result<(), StoreError> {
    if tables.is_empty() {
        return Ok(());
    }
    execute(tx, "RESET ROLE".to_owned(), None).await?;
    for table in tables {
        execute(tx, format!("ALTER TABLE {table} {to} TRIGGER USER"), None).await?;
    }
    execute(tx, format!("SET LOCAL ROLE {PLATFORM_ROLE}"), None).await
}

async fn execute(tx: &mut Tx, text: String, rows: Option<String>) -> Result<(), StoreError> {
    let text = AssertSqlSafe(text);
    match tx.conn() {
        Conn::Postgres(conn) => {
            let mut query = sqlx::query(text);
            if let Some(rows) = rows {
                query = query.bind(rows);
            }
            query.execute(&mut **conn).await?;
        }
        Conn::Sqlite(conn) => {
            let mut query = sqlx::query(text);
            if let Some(rows) = rows {
                query = query.bind(rows);
            }
            query.execute(&mut **conn).await?;
        }
    }
    Ok(())
}

fn bad(why: impl std::fmt::Display) -> StoreError {
    StoreError::Backup(why.to_string())
}

/// Where rows go.
struct Target<'a> {
    tx: &'a mut Tx,
    engine: Engine,
    tables: &'a [Table],
}

impl Target<'_> {
    /// The statement that writes rows of a table.
    fn insert(&self, name: &str, columns: &[String]) -> Result<String, StoreError> {
        let table = self.tables.iter().find(|table| table.name == name);
        let table = table.ok_or_else(|| bad(format!("there is no table {name} here")))?;
        table.insert(self.engine, columns)
    }
}

struct Reading<R: Read> {
    lines: BufReader<zstd::Decoder<'static, BufReader<R>>>,
    hash: Sha256,
    line: String,
}

impl<R: Read> Reading<R> {
    fn new(from: R) -> Result<Self, StoreError> {
        let decoder = zstd::Decoder::new(from).map_err(bad)?;
        Ok(Self { lines: BufReader::new(decoder), hash: Sha256::new(), line: String::new() })
    }

    /// The next line, hashed.
    fn next(&mut self) -> Result<&str, StoreError> {
        self.line.clear();
        let read = (&mut self.lines).take(MAX_LINE).read_line(&mut self.line).map_err(bad)?;
        if read == 0 || !self.line.ends_with('\n') {
            return Err(bad("it ends too early"));
        }
        self.line.pop();
        Ok(&self.line)
    }

    fn hashed(&mut self) {
        self.hash.update(self.line.as_bytes());
        self.hash.update(b"\n");
    }

    /// Reads all of it, and writes the rows where they are to go, if they are.
    async fn run(mut self, mut target: Option<Target<'_>>) -> Result<Manifest, StoreError> {
        let header = match serde_json::from_str(self.next()?) {
            Ok(Line::Backup(header)) => header,
            _ => return Err(bad("it does not begin as one")),
        };
        self.hashed();
        check(&header)?;
        let mut found = BTreeMap::new();
        loop {
            match serde_json::from_str(self.next()?).map_err(bad)? {
                Line::Table { name, columns } => {
                    self.hashed();
                    let insert = target.as_ref().map(|target| target.insert(&name, &columns)).transpose()?;
                    let into = target.as_mut().map(|target| &mut *target.tx).zip(insert.as_deref());
                    let manifest = self.table(into, &name, columns.len()).await?;
                    if found.insert(name.clone(), manifest).is_some() {
                        return Err(bad(format!("{name} is in it twice")));
                    }
                }
                Line::End(manifest) => {
                    if manifest.sha256 != hex(self.hash.finalize()) || manifest.tables != found {
                        return Err(bad("its end does not match what is before it"));
                    }
                    let mut rest = [0];
                    if self.lines.read(&mut rest).map_err(bad)? != 0 {
                        return Err(bad("there is something behind its end"));
                    }
                    return Ok(manifest);
                }
                Line::Backup(_) | Line::TableEnd(_) => return Err(bad("its lines are not in order")),
            }
        }
    }

    /// The rows of one table; where they are to be written, and with which statement.
    async fn table(
        &mut self,
        mut into: Option<(&mut Tx, &str)>,
        name: &str,
        columns: usize,
    ) -> Result<TableManifest, StoreError> {
        let mut hash = Sha256::new();
        let mut rows = 0;
        let mut batch = Batch::default();
        loop {
            let line = self.next()?;
            if line.starts_with('[') {
                hash.update(line.as_bytes());
                hash.update(b"\n");
                rows += 1;
                match &mut into {
                    // Nothing is kept of it: an array of as many values as there are columns.
                    None => match serde_json::from_str::<Vec<IgnoredAny>>(line) {
                        Ok(values) if values.len() == columns => {}
                        _ => return Err(bad(format!("row {rows} of {name} is damaged"))),
                    },
                    Some((tx, insert)) => {
                        batch.push(line);
                        if batch.is_full() {
                            execute(tx, (*insert).to_owned(), Some(batch.take())).await?;
                        }
                    }
                }
                self.hashed();
                continue;
            }
            let Ok(Line::TableEnd(expected)) = serde_json::from_str(line) else {
                return Err(bad(format!("the rows of {name} have no end")));
            };
            self.hashed();
            if let Some((tx, insert)) = &mut into
                && batch.rows > 0
            {
                execute(tx, (*insert).to_owned(), Some(batch.take())).await?;
            }
            let found = TableManifest { rows, sha256: hex(hash.finalize()) };
            return if found == expected {
                Ok(found)
            } else {
                Err(bad(format!("rows of {name} were changed")))
            };
        }
    }
}

fn check(header: &Header) -> Result<(), StoreError> {
    if header.format != FORMAT || header.schema_level > SCHEMA_LEVEL {
        return Err(bad(format!("it was made by the newer version {}", header.version)));
    }
    Ok(())
}

/// Rows on their way into one statement.
#[derive(Default)]
struct Batch {
    text: String,
    rows: usize,
}

impl Batch {
    fn push(&mut self, line: &str) {
        self.text.push(if self.rows == 0 { '[' } else { ',' });
        self.text.push_str(line);
        self.rows += 1;
    }

    fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS || self.text.len() >= BATCH_BYTES
    }

    fn take(&mut self) -> String {
        self.rows = 0;
        self.text.push(']');
        std::mem::take(&mut self.text)
    }
}
