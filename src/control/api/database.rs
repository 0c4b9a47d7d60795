//! The database: how large it is, which indexes are used, and which of our own statements cost time.

use axum::Json as Answer;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use crate::control::extract::Params;
use crate::control::gate::Gated as _;
use crate::control::problem::Problem;
use crate::store::Engine;

/// Most statements that are shown.
const MAX_STATEMENTS: usize = 200;

pub(super) fn operations(router: OpenApiRouter<Api>) -> OpenApiRouter<Api> {
    router.operation(routes!(show_database))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Ask {
    /// How many statements, 20 unless given.
    #[param(minimum = 1, maximum = 200)]
    statements: Option<usize>,
}

/// The database of the store.
#[derive(Serialize, ToSchema)]
struct DatabaseView {
    /// `postgres` or `sqlite`.
    engine: &'static str,
    /// Of the database server or library.
    version: String,
    /// Its size.
    bytes: i64,
    /// Of these, free for new rows. SQLite only.
    #[serde(skip_serializing_if = "Option::is_none")]
    free_bytes: Option<i64>,
    /// Connections to it, of whomever. PostgreSQL only, like what follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<i64>,
    /// Transactions that committed, since the database's statistics were reset.
    #[serde(skip_serializing_if = "Option::is_none")]
    commits: Option<i64>,
    /// Those undone.
    #[serde(skip_serializing_if = "Option::is_none")]
    rollbacks: Option<i64>,
    /// Blocks found in its cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    blocks_hit: Option<i64>,
    /// Blocks that were not.
    #[serde(skip_serializing_if = "Option::is_none")]
    blocks_read: Option<i64>,
    /// Deadlocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    deadlocks: Option<i64>,
    /// Tables, the largest first, at most 200.
    tables: Vec<TableView>,
    /// Indexes, those used least first, at most 200; on SQLite, which does not count uses, the largest first.
    indexes: Vec<IndexView>,
    /// Statements of the replica that answers since it started, those that cost most time first.
    statements: Vec<StatementView>,
}

/// A table with its partitions.
#[derive(Serialize, ToSchema)]
struct TableView {
    /// Its name.
    name: String,
    /// How many partitions it has.
    partitions: i64,
    /// How many rows, as the planner guesses. PostgreSQL only.
    #[serde(skip_serializing_if = "Option::is_none")]
    rows_estimated: Option<i64>,
    /// Size of its rows. Not there if the database cannot say.
    #[serde(skip_serializing_if = "Option::is_none")]
    table_bytes: Option<i64>,
    /// Size of its indexes. Not there if the database cannot say.
    #[serde(skip_serializing_if = "Option::is_none")]
    index_bytes: Option<i64>,
}

/// An index with those of partitions.
#[derive(Serialize, ToSchema)]
struct IndexView {
    /// The table.
    table: String,
    /// Its name.
    name: String,
    /// How often it was used. PostgreSQL only.
    #[serde(skip_serializing_if = "Option::is_none")]
    scans: Option<i64>,
    /// Entries that gave. PostgreSQL only.
    #[serde(skip_serializing_if = "Option::is_none")]
    rows_read: Option<i64>,
    /// Its size. Not there if the database cannot say.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<i64>,
}

/// A statement.
#[derive(Serialize, ToSchema)]
struct StatementView {
    /// Its text, with `$1` where values stand.
    statement: String,
    /// How often it ran.
    count: u64,
    /// How often it failed.
    failed: u64,
    /// Time spent in all, in microseconds.
    total_us: u64,
    /// The longest it took, in microseconds.
    max_us: u64,
}

/// The database
///
/// Its size, its tables, how much its indexes are used, and the statements that cost most.
#[utoipa::path(get, path = "/api/v1/database", tag = "replicas", params(Ask),
    responses((status = 200, description = "The database.", body = DatabaseView)))]
async fn show_database(
    State(api): State<Api>,
    Params(ask): Params<Ask>,
) -> Result<Answer<DatabaseView>, Problem> {
    let most = ask.statements.unwrap_or(20);
    if !(1..=MAX_STATEMENTS).contains(&most) {
        return Err(Problem::parameter("statements", format!("it must be from 1 to {MAX_STATEMENTS}")));
    }
    let store = api.store()?;
    let platform = store.platform();
    let state = platform.database_state().await?;
    let tables = platform.database_tables().await?;
    let indexes = platform.database_indexes().await?;
    let statements = store.statements().into_iter().take(most).map(|s| StatementView {
        statement: s.statement,
        count: s.count,
        failed: s.failed,
        total_us: s.total_us,
        max_us: s.max_us,
    });
    Ok(Answer(DatabaseView {
        engine: match store.engine() {
            Engine::Postgres => "postgres",
            Engine::Sqlite => "sqlite",
        },
        version: state.version,
        bytes: state.bytes,
        free_bytes: state.free_bytes,
        connections: state.connections,
        commits: state.commits,
        rollbacks: state.rollbacks,
        blocks_hit: state.blocks_hit,
        blocks_read: state.blocks_read,
        deadlocks: state.deadlocks,
        tables: tables
            .into_iter()
            .map(|t| TableView {
                name: t.name,
                partitions: t.partitions,
                rows_estimated: t.rows_estimated,
                table_bytes: t.table_bytes,
                index_bytes: t.index_bytes,
            })
            .collect(),
        indexes: indexes
            .into_iter()
            .map(|i| IndexView {
                table: i.table_name,
                name: i.name,
                scans: i.scans,
                rows_read: i.rows_read,
                bytes: i.bytes,
            })
            .collect(),
        statements: statements.collect(),
    }))
}
