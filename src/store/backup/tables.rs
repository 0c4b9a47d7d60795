//! What there is to back up, from the catalogue of the database, and the statements that read and write it.
//!
//! Names come from the catalogue and are quoted; nothing else gets into a statement's text.

use super::super::tx::{Conn, Tx};
use super::super::{Engine, StoreError};
use super::EPHEMERAL;

/// How values of a column travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Hexadecimal text: `bytea`, `uuid`; `BLOB`.
    Bytes,
    /// A number: `boolean` as 0 or 1, too.
    Bool,
    Integer,
    Text,
    /// Microseconds since the Unix epoch.
    Time,
    Uuid,
}

pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
}

pub(super) struct Table {
    pub(super) name: String,
    pub(super) columns: Vec<Column>,
    /// Columns of the primary key.
    key: Vec<String>,
}

#[derive(sqlx::FromRow)]
struct Row {
    relation: String,
    attribute: String,
    kind: String,
    key: i64,
}

const POSTGRES: &str = "
    SELECT c.relname::text AS relation, a.attname::text AS attribute, t.typname::text AS kind,
           coalesce(array_position(i.indkey::int2[], a.attnum) + 1, 0)::bigint AS key
      FROM pg_class c
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
      JOIN pg_type t ON t.oid = a.atttypid
      LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
     WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace = current_schema()::regnamespace
     ORDER BY c.relname, a.attnum";

/// Events are in three tables on SQLite; a backup has what they mean, by the key that they have on PostgreSQL.
const SQLITE: &str = "
    SELECT t.name AS relation, c.name AS attribute, c.type AS kind,
           CASE WHEN t.type = 'table' THEN c.pk ELSE coalesce(k.key + 1, 0) END AS key
      FROM sqlite_schema t
      JOIN pragma_table_info(t.name) c
      LEFT JOIN json_each('[\"tenant\",\"class\",\"writer\",\"sequence\"]') k ON k.value = c.name
     WHERE (t.type = 'table' AND t.name NOT LIKE 'sqlite_%'
            AND t.name NOT IN ('audit_event_rows', 'audit_event_chains', 'audit_event_tenants'))
        OR (t.type = 'view' AND t.name = 'audit_events')
     ORDER BY t.name, c.cid";

/// The tables that a backup has, each after those it refers to.
pub(super) async fn list(tx: &mut Tx) -> Result<Vec<Table>, StoreError> {
    let rows: Vec<Row> = match tx.conn() {
        Conn::Postgres(conn) => sqlx::query_as(POSTGRES).fetch_all(&mut **conn).await?,
        Conn::Sqlite(conn) => sqlx::query_as(SQLITE).fetch_all(&mut **conn).await?,
    };
    let mut tables: Vec<Table> = Vec::new();
    let mut keys: Vec<(i64, String)> = Vec::new();
    for row in rows {
        if EPHEMERAL.contains(&row.relation.as_str()) {
            continue;
        }
        if tables.last().is_none_or(|table| table.name != row.relation) {
            finish(&mut tables, &mut keys);
            tables.push(Table { name: row.relation.clone(), columns: Vec::new(), key: Vec::new() });
        }
        let kind = match row.kind.as_str() {
            "bytea" | "BLOB" => Kind::Bytes,
            "bool" => Kind::Bool,
            "int2" | "int4" | "int8" | "INTEGER" => Kind::Integer,
            "text" | "varchar" | "TEXT" => Kind::Text,
            "timestamptz" => Kind::Time,
            "uuid" => Kind::Uuid,
            other => {
                return Err(StoreError::Schema(format!(
                    "{}.{}: columns of type {other} cannot be backed up",
                    row.relation, row.attribute
                )));
            }
        };
        if row.key > 0 {
            keys.push((row.key, row.attribute.clone()));
        }
        if let Some(table) = tables.last_mut() {
            table.columns.push(Column { name: row.attribute, kind });
        }
    }
    finish(&mut tables, &mut keys);
    let links = links(tx).await?;
    Ok(ordered(tables, &links))
}

fn finish(tables: &mut [Table], keys: &mut Vec<(i64, String)>) {
    keys.sort();
    let key = std::mem::take(keys).into_iter().map(|(_, name)| name).collect();
    if let Some(table) = tables.last_mut() {
        table.key = key;
    }
}

/// Which table refers to which.
async fn links(tx: &mut Tx) -> Result<Vec<(String, String)>, StoreError> {
    Ok(match tx.conn() {
        Conn::Postgres(conn) => {
            sqlx::query_as(
                "SELECT c.relname::text, f.relname::text FROM pg_constraint k
                   JOIN pg_class c ON c.oid = k.conrelid JOIN pg_class f ON f.oid = k.confrelid
                  WHERE k.contype = 'f' AND c.relnamespace = current_schema()::regnamespace",
            )
            .fetch_all(&mut **conn)
            .await?
        }
        Conn::Sqlite(conn) => {
            sqlx::query_as(
                "SELECT t.name, f.[table] FROM sqlite_schema t, pragma_foreign_key_list(t.name) f WHERE t.type = 'table'",
            )
            .fetch_all(&mut **conn)
            .await?
        }
    })
}

/// By name, but a table after those that it refers to.
fn ordered(mut left: Vec<Table>, links: &[(String, String)]) -> Vec<Table> {
    let mut done: Vec<Table> = Vec::new();
    while !left.is_empty() {
        let waits = |table: &Table| {
            links.iter().any(|(from, to)| {
                *from == table.name && to != from && left.iter().any(|other| other.name == *to)
            })
        };
        // Tables that refer to each other in a circle would have no order; then any.
        let next = left.iter().position(|table| !waits(table)).unwrap_or(0);
        done.push(left.remove(next));
    }
    done
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Table {
    pub(super) fn quoted(&self) -> String {
        quoted(&self.name)
    }

    /// Reads every row as one JSON array of text, in the order of the primary key.
    pub(super) fn select(&self, engine: Engine) -> String {
        let value = |column: &Column| {
            let name = quoted(&column.name);
            match (engine, column.kind) {
                (Engine::Postgres, Kind::Bool) => format!("{name}::int"),
                (Engine::Postgres, Kind::Bytes) => format!("encode({name}, 'hex')"),
                (Engine::Postgres, Kind::Time) => {
                    // Exact: the number of microseconds fits into numeric, and `extract` gives numeric.
                    format!("(extract(epoch FROM {name}) * 1000000)::bigint")
                }
                (Engine::Postgres, Kind::Uuid) => format!("replace({name}::text, '-', '')"),
                // `hex` of NULL is empty text.
                (Engine::Sqlite, Kind::Bytes | Kind::Uuid) => {
                    format!("CASE WHEN {name} IS NULL THEN NULL ELSE lower(hex({name})) END")
                }
                _ => name,
            }
        };
        let values: Vec<String> = self.columns.iter().map(value).collect();
        let array = match engine {
            Engine::Postgres => "json_build_array",
            Engine::Sqlite => "json_array",
        };
        let cast = if engine == Engine::Postgres { "::text" } else { "" };
        let collate = if engine == Engine::Postgres { " COLLATE \"C\"" } else { "" };
        // Texts in the order of their bytes, or the two engines would differ.
        let order: Vec<String> = self
            .key
            .iter()
            .map(|name| {
                let text = self.columns.iter().any(|c| c.name == *name && c.kind == Kind::Text);
                format!("{}{}", quoted(name), if text { collate } else { "" })
            })
            .collect();
        let order = if order.is_empty() { String::new() } else { format!(" ORDER BY {}", order.join(", ")) };
        let from = match (engine, self.name.as_str()) {
            (Engine::Sqlite, "audit_events") => "audit_events_by_chain".to_owned(),
            _ => self.quoted(),
        };
        format!("SELECT {array}({}){cast} FROM {from}{order}", values.join(", "))
    }

    /// Writes the rows of a JSON array of arrays, whose values are those of `columns`.
    pub(super) fn insert(&self, engine: Engine, columns: &[String]) -> Result<String, StoreError> {
        let mut names = Vec::new();
        let mut values = Vec::new();
        for (at, name) in columns.iter().enumerate() {
            let Some(column) = self.columns.iter().find(|c| c.name == *name) else {
                return Err(StoreError::Schema(format!("{}.{name}: there is no such column", self.name)));
            };
            names.push(quoted(name));
            values.push(match (engine, column.kind) {
                (Engine::Postgres, Kind::Bool) => format!("(r.value ->> {at})::int::boolean"),
                (Engine::Postgres, Kind::Bytes) => format!("decode(r.value ->> {at}, 'hex')"),
                (Engine::Postgres, Kind::Integer) => format!("(r.value ->> {at})::bigint"),
                (Engine::Postgres, Kind::Text) => format!("r.value ->> {at}"),
                (Engine::Postgres, Kind::Time) => {
                    format!("'epoch'::timestamptz + (r.value ->> {at})::bigint * interval '1 microsecond'")
                }
                (Engine::Postgres, Kind::Uuid) => format!("(r.value ->> {at})::uuid"),
                (Engine::Sqlite, Kind::Bytes | Kind::Uuid) => format!("unhex(r.value ->> {at})"),
                (Engine::Sqlite, _) => format!("r.value ->> {at}"),
            });
        }
        let rows = match engine {
            Engine::Postgres => "jsonb_array_elements($1::jsonb) AS r(value)",
            Engine::Sqlite => "json_each($1) AS r",
        };
        Ok(format!(
            "INSERT INTO {} ({}) SELECT {} FROM {rows}",
            self.quoted(),
            names.join(", "),
            values.join(", ")
        ))
    }
}
