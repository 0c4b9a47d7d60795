//! Connections to the two engines.
//!
//! PostgreSQL: a pool for transactions, a small one for who holds a connection for long (locks), and one connection that
//! listens (`notify`).
//! SQLite: one connection that writes and a pool that reads; write-ahead log, every commit synced (`synchronous=FULL`).

use std::fmt;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use sqlx::pool::{PoolConnectionMetadata, PoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection as _, PgConnection, PgPool, SqliteConnection, SqlitePool};

use super::reach::Reach;
use super::tx::within;
use super::{StoreError, StoreSettings};

/// Connections for locks: one for each seat that this process has, and room for those that it stands for.
const HELD: u32 = 8;

/// How long a connection that comes back may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// How long another process may hold SQLite's lock, as two do while one hands over to the other.
const BUSY: Duration = Duration::from_secs(10);

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// PostgreSQL 15 or later, shared by replicas.
    Postgres,
    /// SQLite in a file, for one process.
    Sqlite,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres => "PostgreSQL",
            Self::Sqlite => "SQLite",
        })
    }
}

pub(super) enum Pools {
    Postgres(PostgresPools),
    Sqlite(SqlitePools),
}

pub(super) struct PostgresPools {
    pub(super) main: PgPool,
    /// Connections that somebody keeps.
    pub(super) held: PgPool,
    pub(super) reach: Arc<Reach>,
}

pub(super) struct SqlitePools {
    pub(super) writer: SqlitePool,
    pub(super) readers: SqlitePool,
}

impl Pools {
    pub(super) fn open(settings: &StoreSettings) -> Result<Self, StoreError> {
        match settings.engine() {
            Engine::Postgres => postgres(settings).map(Self::Postgres),
            Engine::Sqlite => sqlite(settings).map(Self::Sqlite),
        }
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Postgres(pools) => {
                pools.held.close().await;
                pools.main.close().await;
            }
            // The writer last: the one that closes last folds the log into the file.
            Self::Sqlite(pools) => {
                pools.readers.close().await;
                pools.writer.close().await;
            }
        }
    }
}

fn postgres(settings: &StoreSettings) -> Result<PostgresPools, StoreError> {
    let options = settings.postgres()?;
    let limit = format!("SET statement_timeout = {}", settings.statement_timeout.as_millis());
    let main = PoolOptions::new()
        .max_connections(settings.max_connections)
        .acquire_timeout(settings.connect_timeout)
        .after_release(answers)
        .after_connect(move |conn, _| {
            let limit = limit.clone();
            Box::pin(async move {
                // Built from a number.
                sqlx::raw_sql(sqlx::AssertSqlSafe(limit)).execute(conn).await.map(drop)
            })
        })
        .connect_lazy_with(options.clone());
    let held = PoolOptions::new()
        .max_connections(HELD)
        .acquire_timeout(settings.connect_timeout)
        .after_release(answers)
        .idle_timeout(Duration::from_secs(60))
        .connect_lazy_with(options.clone());
    let reach = Reach::new(options, settings.connect_timeout);
    Ok(PostgresPools { main, held, reach })
}

/// Whether a connection that comes back still leads anywhere. One that does not is closed, so that it takes no place in the
/// pool until TCP gives up.
fn answers(conn: &mut PgConnection, _: PoolConnectionMetadata) -> BoxFuture<'_, Result<bool, sqlx::Error>> {
    Box::pin(async move { within(ANSWER, conn.ping()).await.map(|()| true) })
}

/// Whether a connection has no transaction open. SQLite undoes one by itself when the disk is full or fails; the driver, which
/// is told of nothing but an undo that found no transaction, takes it for open for good. Such a connection is closed.
fn is_whole(
    conn: &mut SqliteConnection,
    _: PoolConnectionMetadata,
) -> BoxFuture<'_, Result<bool, sqlx::Error>> {
    let whole = !conn.is_in_transaction();
    if !whole {
        tracing::warn!(event = "store_connection_replaced", engine = "sqlite");
    }
    Box::pin(std::future::ready(Ok(whole)))
}

fn sqlite(settings: &StoreSettings) -> Result<SqlitePools, StoreError> {
    let path = settings.sqlite_path();
    // Made here, so that nobody else can read it from the first byte on. One that is there is not even opened: closing it
    // would release the locks that SQLite holds on it in this process, and another process could take the log away.
    match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(StoreError::io(format!("the database {}", path.display()), source)),
    }
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY)
        // The last pages of each table are written again and again: the longer the log, the fewer of them reach the file.
        .pragma("wal_autocheckpoint", "4096")
        // A log that one large transaction made long is cut again.
        .pragma("journal_size_limit", "67108864");
    let writer = PoolOptions::new()
        .max_connections(1)
        .acquire_timeout(settings.connect_timeout.max(BUSY))
        .before_acquire(is_whole)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with(options.clone());
    let readers = PoolOptions::new()
        .max_connections(settings.readers)
        .acquire_timeout(settings.connect_timeout)
        .before_acquire(is_whole)
        // Refused by the engine rather than by convention: nothing but the one writer writes.
        .connect_lazy_with(options.pragma("query_only", "ON"));
    Ok(SqlitePools { writer, readers })
}

#[cfg(test)]
mod tests {
    use sqlx::query;

    use super::*;

    #[tokio::test]
    async fn a_disk_that_was_full_costs_no_more_than_the_transaction() {
        let folder = tempfile::tempdir().unwrap();
        let pools = sqlite(&StoreSettings::embedded(folder.path())).unwrap();
        let begin = async || pools.writer.begin_with("BEGIN IMMEDIATE").await;
        let mut tx = begin().await.unwrap();
        query("CREATE TABLE t (x BLOB)").execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        // As long as the one connection lives, there is no room for more.
        query("PRAGMA max_page_count = 4").execute(&pools.writer).await.unwrap();
        let mut tx = begin().await.unwrap();
        let full = query("INSERT INTO t VALUES (zeroblob(100000))").execute(&mut *tx).await.unwrap_err();
        assert!(full.to_string().contains("full"), "{full}");
        drop(tx);
        let mut tx = begin().await.expect("another connection");
        query("INSERT INTO t VALUES (zeroblob(100000))").execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(pools.writer.size(), 1);
    }
}
