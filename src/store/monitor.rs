//! What the database says of itself: how large it is, which indexes are used. For whoever runs the platform.

use sqlx::FromRow;

use super::tx::q;
use super::{Engine, Platform, StoreError, Tx};

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
    /// How many rows, as the planner guesses (PostgreSQL).
    pub rows_estimated: Option<i64>,
    /// Size of its rows.
    pub table_bytes: Option<i64>,
    /// Size of its indexes.
    pub index_bytes: Option<i64>,
}

/// An index with those of partitions.
#[derive(Clone, Debug, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct IndexState {
    /// The table.
    pub table_name: String,
    /// Its name.
    pub name: String,
    /// How often it was used (PostgreSQL).
    pub scans: Option<i64>,
    /// Entries that gave (PostgreSQL).
    pub rows_read: Option<i64>,
    /// Its size.
    pub bytes: Option<i64>,
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

    /// Tables, the largest first. SQLite looks through its whole file for their sizes, if it was built to be able to
    /// (`dbstat`), and knows no number of rows.
    ///
    /// # Errors
    /// The database.
    pub async fn database_tables(&self) -> Result<Vec<TableState>, StoreError> {
        let mut tx = self.read().await?;
        if tx.store().engine() == Engine::Sqlite && !tx.has_dbstat().await? {
            return q!(
                tx,
                all as TableState,
                "SELECT name, 0 AS partitions, NULL AS rows_estimated, NULL AS table_bytes, NULL AS index_bytes
                   FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name LIMIT $1",
                LISTED
            );
        }
        q!(
            tx, all as TableState,
            pg "SELECT name, partitions, rows_estimated, table_bytes, index_bytes FROM monitoring_tables
                 ORDER BY table_bytes + index_bytes DESC, name LIMIT $1",
            lite "SELECT s.tbl_name AS name, 0 AS partitions, NULL AS rows_estimated,
                         coalesce(sum(d.pgsize) FILTER (WHERE s.type = 'table'), 0) AS table_bytes,
                         coalesce(sum(d.pgsize) FILTER (WHERE s.type = 'index'), 0) AS index_bytes
                    FROM sqlite_schema s LEFT JOIN dbstat d ON d.name = s.name AND d.aggregate = 1
                   WHERE s.type IN ('table', 'index') AND s.tbl_name NOT LIKE 'sqlite_%'
                   GROUP BY s.tbl_name ORDER BY sum(d.pgsize) DESC, s.tbl_name LIMIT $1",
            LISTED
        )
    }

    /// Indexes, those used least first; SQLite does not count that.
    ///
    /// # Errors
    /// The database.
    pub async fn database_indexes(&self) -> Result<Vec<IndexState>, StoreError> {
        let mut tx = self.read().await?;
        if tx.store().engine() == Engine::Sqlite && !tx.has_dbstat().await? {
            return q!(
                tx,
                all as IndexState,
                "SELECT tbl_name AS table_name, name, NULL AS scans, NULL AS rows_read, NULL AS bytes
                   FROM sqlite_schema WHERE type = 'index' ORDER BY tbl_name, name LIMIT $1",
                LISTED
            );
        }
        q!(
            tx, all as IndexState,
            pg "SELECT table_name, name, scans, rows_read, bytes FROM monitoring_indexes
                 ORDER BY scans, bytes DESC, name LIMIT $1",
            lite "SELECT s.tbl_name AS table_name, s.name, NULL AS scans, NULL AS rows_read,
                         coalesce(d.pgsize, 0) AS bytes
                    FROM sqlite_schema s LEFT JOIN dbstat d ON d.name = s.name AND d.aggregate = 1
                   WHERE s.type = 'index' ORDER BY d.pgsize DESC, s.name LIMIT $1",
            LISTED
        )
    }
}

impl Tx {
    /// Whether this SQLite was built with the table that says where its bytes are.
    async fn has_dbstat(&mut self) -> Result<bool, StoreError> {
        let found = q!(self, scalar as i64, "SELECT count(*) FROM pragma_module_list WHERE name = 'dbstat'")?;
        Ok(found > 0)
    }
}
