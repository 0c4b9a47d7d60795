//! Brings the tables up to date, and back.
//!
//! One transaction per migration, under a lock that every process takes (an advisory lock on PostgreSQL, the write lock on
//! SQLite), so that replicas that start together wait for the first and then find nothing to do. A migration that fails
//! leaves nothing behind.
//!
//! Levels: each migration belongs to a level, and a program knows the level it was built for. During a rolling upgrade
//! the new version raises the level while old processes still run, so a program accepts tables one level above its own
//! and no more: migrations of the next level may add, but not take away what the level before uses.

use serde::Serialize;

use super::migrations::{MIGRATIONS, Migration};
use super::tx::{Conn, Tx, q};
use super::{Engine, Store, StoreError, Time};

/// The level of the schema that this program was built for.
pub const SCHEMA_LEVEL: i32 = 1;

/// How many levels above its own a program still works with.
const COMPATIBLE: i32 = 1;

/// Which lock on PostgreSQL: "tollgate" as a number.
const LOCK: &str = "SELECT pg_advisory_xact_lock(8389754676633104229)";

const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS schema_migrations (
        version BIGINT PRIMARY KEY,
        name TEXT NOT NULL,
        level INTEGER NOT NULL,
        checksum TEXT NOT NULL,
        applied_at BIGINT NOT NULL
    )";

/// How a migration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MigrationState {
    /// Done.
    Applied,
    /// Done, but with another text than the one in this program.
    Changed,
    /// To be done.
    Pending,
    /// Done by a newer program.
    Unknown,
}

/// One migration and how it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MigrationStatus {
    /// Its number.
    pub version: i64,
    /// Its name with the number in front.
    pub name: String,
    /// How it stands.
    pub state: MigrationState,
    /// When it was done.
    pub applied_at: Option<Time>,
}

#[derive(sqlx::FromRow)]
struct Applied {
    version: i64,
    name: String,
    level: i32,
    checksum: String,
    applied_at: i64,
}

impl Migration {
    fn up(&self, engine: Engine) -> &'static str {
        match engine {
            Engine::Postgres => self.postgres.up,
            Engine::Sqlite => self.sqlite.up,
        }
    }

    fn down(&self, engine: Engine) -> &'static str {
        match engine {
            Engine::Postgres => self.postgres.down,
            Engine::Sqlite => self.sqlite.down,
        }
    }

    fn checksum(&self, engine: Engine) -> String {
        use sha2::Digest as _;
        let digest = sha2::Sha256::digest(self.up(engine).as_bytes());
        digest.iter().take(16).fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }
}

/// Applies what is missing; returns the names of what was done.
pub(super) async fn up(store: &Store) -> Result<Vec<String>, StoreError> {
    let engine = store.engine();
    // Asked without the lock first: a replica that has nothing to do waits for nobody.
    if let Ok(applied) = read(store).await
        && compatible(engine, &applied)?
    {
        return Ok(Vec::new());
    }
    let mut done = Vec::new();
    loop {
        let mut tx = locked(store).await?;
        let name = step_up(&mut tx).await?;
        tx.commit().await?;
        match name {
            Some(name) => done.push(name.to_owned()),
            None => return Ok(done),
        }
    }
}

/// Applies the first that is missing, if one is.
async fn step_up(tx: &mut Tx) -> Result<Option<&'static str>, StoreError> {
    let engine = tx.store().engine();
    let applied = applied(tx).await?;
    compatible(engine, &applied)?;
    let Some(next) = MIGRATIONS.iter().find(|m| applied.iter().all(|a| a.version != m.version())) else {
        return Ok(None);
    };
    raw(tx, next.up(engine)).await.map_err(|e| failed(next, &e))?;
    let now = tx.now().micros();
    q!(
        tx,
        execute,
        "INSERT INTO schema_migrations (version, name, level, checksum, applied_at) VALUES ($1, $2, $3, $4, $5)",
        next.version(),
        next.name,
        next.level,
        next.checksum(engine),
        now
    )?;
    Ok(Some(next.name))
}

/// A transaction of the tables' owner in which they are up to date, and with `erase` have nothing in them but what
/// migrations put there. Nobody else migrates before it ends.
pub(super) async fn in_one(store: &Store, erase: bool) -> Result<Tx, StoreError> {
    let mut tx = locked(store).await?;
    if erase {
        while step_down(&mut tx, 0).await?.is_some() {}
    }
    while step_up(&mut tx).await?.is_some() {}
    Ok(tx)
}

/// Undoes everything after `target`, the newest first.
pub(super) async fn down(store: &Store, target: i64) -> Result<Vec<String>, StoreError> {
    let mut done = Vec::new();
    loop {
        let mut tx = locked(store).await?;
        let name = step_down(&mut tx, target).await?;
        tx.commit().await?;
        match name {
            Some(name) => done.push(name.to_owned()),
            None => return Ok(done),
        }
    }
}

/// Undoes the last one after `target`, if there is one.
async fn step_down(tx: &mut Tx, target: i64) -> Result<Option<&'static str>, StoreError> {
    let engine = tx.store().engine();
    let applied = applied(tx).await?;
    let Some(last) = applied.iter().filter(|a| a.version > target).max_by_key(|a| a.version) else {
        return Ok(None);
    };
    let Some(known) = MIGRATIONS.iter().find(|m| m.version() == last.version) else {
        return Err(StoreError::Schema(format!(
            "the migration {} was made by a newer version of Tollgate: undo it with that version",
            last.name
        )));
    };
    raw(tx, known.down(engine)).await.map_err(|e| failed(known, &e))?;
    q!(tx, execute, "DELETE FROM schema_migrations WHERE version = $1", last.version)?;
    Ok(Some(known.name))
}

/// Fails unless this program can work with the tables as they are.
pub(super) async fn check(store: &Store) -> Result<(), StoreError> {
    let applied = read(store).await.or_else(|error| match error {
        StoreError::Database(_) => Ok(Vec::new()),
        other => Err(other),
    })?;
    if compatible(store.engine(), &applied)? {
        return Ok(());
    }
    Err(StoreError::Schema(
        "the tables are older than this version of Tollgate, and store.migrate is manual: run `tollgate migrate up`"
            .to_owned(),
    ))
}

/// Where each migration stands.
pub(super) async fn status(store: &Store) -> Result<Vec<MigrationStatus>, StoreError> {
    let engine = store.engine();
    let mut tx = locked(store).await?;
    let applied = applied(&mut tx).await?;
    tx.commit().await?;
    let mut list: Vec<MigrationStatus> = MIGRATIONS
        .iter()
        .map(|migration| {
            let found = applied.iter().find(|a| a.version == migration.version());
            MigrationStatus {
                version: migration.version(),
                name: migration.name.to_owned(),
                state: match found {
                    None => MigrationState::Pending,
                    Some(found) if found.checksum == migration.checksum(engine) => MigrationState::Applied,
                    Some(_) => MigrationState::Changed,
                },
                applied_at: found.map(|f| Time::from_micros(f.applied_at)),
            }
        })
        .collect();
    for found in applied.iter().filter(|a| MIGRATIONS.iter().all(|m| m.version() != a.version)) {
        list.push(MigrationStatus {
            version: found.version,
            name: found.name.clone(),
            state: MigrationState::Unknown,
            applied_at: Some(Time::from_micros(found.applied_at)),
        });
    }
    list.sort_by_key(|m| m.version);
    Ok(list)
}

/// Whether everything is applied; an error if the tables are too new, or not those of this program.
fn compatible(engine: Engine, applied: &[Applied]) -> Result<bool, StoreError> {
    let level = applied.iter().map(|a| a.level).max().unwrap_or(0);
    if level > SCHEMA_LEVEL + COMPATIBLE {
        return Err(StoreError::Schema(format!(
            "the tables are of level {level}; this version of Tollgate is for level {SCHEMA_LEVEL} and works with one above: use a newer version"
        )));
    }
    for migration in MIGRATIONS {
        if let Some(found) = applied.iter().find(|a| a.version == migration.version())
            && found.name != migration.name
        {
            return Err(StoreError::Schema(format!(
                "migration {} of the database is `{}`, of this program `{}`: they are not of the same history",
                found.version, found.name, migration.name
            )));
        }
        if let Some(found) = applied.iter().find(|a| a.version == migration.version())
            && found.checksum != migration.checksum(engine)
        {
            tracing::warn!(event = "migration_changed", name = migration.name, "applied with another text");
        }
    }
    Ok(MIGRATIONS.iter().all(|m| applied.iter().any(|a| a.version == m.version())))
}

async fn locked(store: &Store) -> Result<Tx, StoreError> {
    let mut tx = store.begin_as_owner().await?;
    if let Conn::Postgres(conn) = tx.conn() {
        sqlx::raw_sql(LOCK).execute(&mut **conn).await?;
    }
    if !exists(&mut tx).await? {
        raw(&mut tx, TABLE).await?;
    }
    Ok(tx)
}

/// Asked first: PostgreSQL has a notice for whoever creates what is there.
async fn exists(tx: &mut Tx) -> Result<bool, StoreError> {
    let found = q!(
        tx, scalar_optional as i32,
        pg "SELECT 1 WHERE to_regclass('schema_migrations') IS NOT NULL",
        lite "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'schema_migrations'"
    )?;
    Ok(found.is_some())
}

const APPLIED: &str =
    "SELECT version, name, level, checksum, applied_at FROM schema_migrations ORDER BY version";

async fn applied(tx: &mut Tx) -> Result<Vec<Applied>, StoreError> {
    q!(tx, all as Applied, APPLIED)
}

async fn read(store: &Store) -> Result<Vec<Applied>, StoreError> {
    let mut tx = store.begin_as_owner().await?;
    let applied = applied(&mut tx).await?;
    tx.commit().await?;
    Ok(applied)
}

/// Runs a text of several statements.
async fn raw(tx: &mut Tx, text: &'static str) -> Result<(), StoreError> {
    match tx.conn() {
        Conn::Postgres(conn) => sqlx::raw_sql(text).execute(&mut **conn).await.map(|_| ())?,
        Conn::Sqlite(conn) => sqlx::raw_sql(text).execute(&mut **conn).await.map(|_| ())?,
    }
    Ok(())
}

fn failed(migration: &Migration, error: &StoreError) -> StoreError {
    StoreError::Schema(format!("migration {}: {error}", migration.name))
}
