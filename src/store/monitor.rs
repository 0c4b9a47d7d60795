//! What the database says of itself: how large it is, which indexes are used. For whoever runs the platform.

use sqlx::FromRow;

use super::tx::q;
use super::{Engine, Platform, StoreError};

/// Largest tables and indexes that are listed.
const LISTED: i64 = 200;

/// The database as a whole.
#[derive(Clone, Debug, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct DatabaseState {
    /// Version of the database server or library.
    pub version: String,
    /// Its size.
    pub bytes: i64,
    /// Of these, free for new rows (SQLite; PostgreSQL does not say cheaply).
    pub free_bytes: Option<i64>,
    /// Connections to it, of whomever.
    pub connections: Option<i64>,
    /// Transactions that committed since its statistics were reset.
    pub commits: Option<i64>,
    /// Those undone.
    pub rollbacks: Option<i64>,
    /// Blocks found in its cache.
    pub blocks_hit: Option<i64>,
    /// Blocks that were not.
    pub blocks_read: Option<i64>,
    /// Deadlocks.
    pub deadlocks: Option<i64>,
}

/// A table with its partitions.
#[derive(Clone, Debug, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct TableState {
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: i64,
    /// How many rows, as the planner guesses.
    pub rows_estimated: i64,
    /// Size of its rows.
    pub table_bytes: i64,
    /// Size of its indexes.
    pub index_bytes: i64,
}

/// An index with those of partitions.
#[derive(Clone, Debug, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct IndexState {
    /// The table.
    pub table_name: String,
    /// Its name.
    pub name: String,
    /// How often it was used.
    pub scans: i64,
    /// Entries that gave.
    pub rows_read: i64,
    /// Its size.
    pub bytes: i64,
}

impl Platform<'_> {
    /// The database as a whole.
    ///
    /// # Errors
    /// The database.
    pub async fn database_state(&self) -> Result<DatabaseState, StoreError> {
        let mut tx = self.read().await?;
        q!(
            tx, one as DatabaseState,
            pg "SELECT version, bytes, NULL::bigint AS free_bytes, connections, commits, rollbacks, blocks_hit, blocks_read, deadlocks
                  FROM monitoring_database",
            lite "SELECT sqlite_version() AS version, page_count * page_size AS bytes,
                         freelist_count * page_size AS free_bytes, NULL AS connections, NULL AS commits,
                         NULL AS rollbacks, NULL AS blocks_hit, NULL AS blocks_read, NULL AS deadlocks
                    FROM pragma_page_count(), pragma_page_size(), pragma_freelist_count()"
        )
    }

    /// Tables, the largest first. Empty on SQLite, which would have to read all of its file to say.
    ///
    /// # Errors
    /// The database.
    pub async fn database_tables(&self) -> Result<Vec<TableState>, StoreError> {
        let mut tx = self.read().await?;
        if tx.store().engine() == Engine::Sqlite {
            return Ok(Vec::new());
        }
        q!(
            tx,
            all as TableState,
            "SELECT name, partitions, rows_estimated, table_bytes, index_bytes FROM monitoring_tables
              ORDER BY table_bytes + index_bytes DESC, name LIMIT $1",
            LISTED
        )
    }

    /// Indexes, those used least first. Empty on SQLite, which does not count.
    ///
    /// # Errors
    /// The database.
    pub async fn database_indexes(&self) -> Result<Vec<IndexState>, StoreError> {
        let mut tx = self.read().await?;
        if tx.store().engine() == Engine::Sqlite {
            return Ok(Vec::new());
        }
        q!(
            tx,
            all as IndexState,
            "SELECT table_name, name, scans, rows_read, bytes FROM monitoring_indexes
              ORDER BY scans, bytes DESC, name LIMIT $1",
            LISTED
        )
    }
}
