//! `tollgate status --database`.

use std::process::ExitCode;

use serde::Deserialize;

use super::args::ApiArgs;
use super::client::{Call, Failure};
use super::connect;

/// Tables and statements that are shown; the API has the rest.
const SHOWN: usize = 10;

#[derive(Debug, Default, Deserialize)]
struct Database {
    engine: String,
    version: String,
    bytes: i64,
    free_bytes: Option<i64>,
    connections: Option<i64>,
    commits: Option<i64>,
    rollbacks: Option<i64>,
    blocks_hit: Option<i64>,
    blocks_read: Option<i64>,
    deadlocks: Option<i64>,
    tables: Vec<Table>,
    statements: Vec<Statement>,
}

#[derive(Debug, Deserialize)]
struct Table {
    name: String,
    rows_estimated: Option<i64>,
    table_bytes: Option<i64>,
    index_bytes: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct Statement {
    statement: String,
    count: u64,
    failed: u64,
    total_us: u64,
    max_us: u64,
}

pub(super) async fn run(api: &ApiArgs) -> Result<ExitCode, Failure> {
    let path = format!("/api/v1/database?statements={SHOWN}");
    let database: Database = connect(api)?.json(Call::get(&path)).await?;
    print!("{}", shown(&database));
    Ok(ExitCode::SUCCESS)
}

fn shown(database: &Database) -> String {
    let mut out = format!("{} {}, {}", database.engine, database.version, size(Some(database.bytes)));
    let numbers = [
        (database.free_bytes.map(|free| size(Some(free))), "free"),
        (database.connections.map(|n| n.to_string()), "connections"),
        (database.commits.map(|n| n.to_string()), "commits"),
        (database.rollbacks.map(|n| n.to_string()), "rolled back"),
        (database.deadlocks.map(|n| n.to_string()), "deadlocks"),
    ];
    for (number, what) in numbers {
        if let Some(number) = number {
            out.push_str(&format!(", {number} {what}"));
        }
    }
    if let (Some(hit), Some(read)) = (database.blocks_hit, database.blocks_read)
        && hit + read > 0
    {
        out.push_str(&format!(
            ", {:.1} % of blocks found in the cache",
            hit as f64 * 100.0 / (hit + read) as f64
        ));
    }
    out.push_str(&format!("\n\n{:32} {:>12} {:>12} {:>12}\n", "TABLE", "ROWS", "SIZE", "INDEXES"));
    for table in database.tables.iter().take(SHOWN) {
        let rows = table.rows_estimated.map_or_else(|| "–".to_owned(), |n| format!("~{n}"));
        let (own, indexes) = (size(table.table_bytes), size(table.index_bytes));
        out.push_str(&format!("{:32} {rows:>12} {own:>12} {indexes:>12}\n", table.name));
    }
    let head = format!("\n{:>9} {:>7} {:>11} {:>10}  STATEMENT\n", "COUNT", "FAILED", "TOTAL ms", "WORST ms");
    out.push_str(&head);
    for one in database.statements.iter().take(SHOWN) {
        let text: String = one.statement.split_whitespace().collect::<Vec<_>>().join(" ");
        let text: String = text.chars().take(90).collect();
        let (total, worst) = (one.total_us as f64 / 1000.0, one.max_us as f64 / 1000.0);
        out.push_str(&format!("{:>9} {:>7} {total:>11.1} {worst:>10.1}  {text}\n", one.count, one.failed));
    }
    out
}

/// Bytes for people; a dash where nobody knows.
fn size(bytes: Option<i64>) -> String {
    let Some(bytes) = bytes else { return "–".to_owned() };
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_for_people_and_what_is_unknown_is_a_dash() {
        let sizes = [None, Some(0), Some(1023), Some(1536), Some(5 << 20), Some(3 << 30), Some(2 << 40)];
        let expected = ["–", "0 B", "1023 B", "1.5 KiB", "5.0 MiB", "3.0 GiB", "2.0 TiB"];
        assert_eq!(sizes.map(size), expected);
    }

    #[test]
    fn what_the_engine_does_not_say_is_left_out() {
        let text = r#"{"engine":"sqlite","version":"3.46","bytes":2048,"free_bytes":1024,"indexes":[],
            "tables":[{"name":"users","partitions":0}],
            "statements":[{"statement":"SELECT 1\n  FROM x","count":3,"failed":1,"total_us":1500,"max_us":900}]}"#;
        let shown = shown(&serde_json::from_str(text).unwrap());
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], "sqlite 3.46, 2.0 KiB, 1.0 KiB free");
        assert!(lines[3].starts_with("users ") && lines[3].matches('–').count() == 3, "{shown}");
        assert!(lines[6].ends_with("1.5        0.9  SELECT 1 FROM x"), "{shown}");
    }
}
