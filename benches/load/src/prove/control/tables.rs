//! Everything in a store, read by the engines' own programs (`psql`, Python's SQLite): nothing here goes through the code
//! that wrote it. Both give a value the same text, so that two stores can be held against each other row by row.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};

use super::postgres::Postgres;
use crate::Result;

/// Tables about processes that run, and about how the tables were made: they stay where they are.
const OF_PROCESSES: [&str; 5] =
    ["canary_reports", "leader_locks", "replica_revisions", "replicas", "schema_migrations"];

/// The columns of each table, and its rows in order, each as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables(BTreeMap<String, Table>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Table {
    columns: Vec<String>,
    rows: Vec<String>,
}

/// Reads a file of SQLite. Text and bytes as hexadecimal, so that a line is a row.
const SQLITE: &str = r#"
import sqlite3, struct, sys
db = sqlite3.connect('file:' + sys.argv[1] + '?mode=ro', uri=True)
def text(value):
    if value is None: return 'n'
    if isinstance(value, bytes): return 'b' + value.hex()
    if isinstance(value, float): return 'f' + struct.pack('>d', value).hex()
    if isinstance(value, int): return 'i' + str(value)
    return 't' + value.encode().hex()
names = [name for (name,) in db.execute(
    "SELECT name FROM sqlite_schema WHERE (type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    # Three tables that are one for whoever reads them.
    " AND name NOT LIKE 'audit\\_event\\_%' ESCAPE '\\') OR (type = 'view' AND name = 'audit_events') ORDER BY name")]
for name in names:
    rows = db.execute('SELECT * FROM "' + name + '"')
    print('table', name, ' '.join(column[0] for column in rows.description))
    for row in rows: print('|'.join(text(value) for value in row))
"#;

impl Tables {
    /// Of a file of SQLite that nobody writes to.
    ///
    /// # Errors
    /// It cannot be read; Python is not there.
    pub fn of_sqlite(file: &Path) -> Result<Self> {
        let mut command = Command::new("python3");
        let output = command.args(["-c", SQLITE]).arg(file).stdin(Stdio::null()).output()?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("{}: {why}", file.display()).into());
        }
        let mut tables = Self::default();
        let mut name = String::new();
        for line in String::from_utf8(output.stdout)?.lines() {
            if let Some(head) = line.strip_prefix("table ") {
                let mut words = head.split(' ').map(str::to_owned);
                name = words.next().unwrap_or_default();
                tables.0.insert(name.clone(), Table { columns: words.collect(), rows: Vec::new() });
            } else if let Some(table) = tables.0.get_mut(&name) {
                table.rows.push(line.to_owned());
            }
        }
        Ok(tables.settled())
    }

    /// Of PostgreSQL, as a superuser whom row-level security does not hold back.
    ///
    /// # Errors
    /// It cannot be read, or has a type that nothing here reads.
    pub fn of_postgres(postgres: &Postgres) -> Result<Self> {
        let columns = postgres.ask(
            "SELECT c.relname, a.attname, t.typname FROM pg_class c
               JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
               JOIN pg_type t ON t.oid = a.atttypid
              WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
                AND c.relnamespace = 'public'::regnamespace ORDER BY c.relname, a.attnum",
        )?;
        let mut tables = Self::default();
        let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in columns.lines() {
            let [table, column, kind] = line.split('|').collect::<Vec<_>>()[..] else {
                return Err(format!("columns of PostgreSQL: {line}").into());
            };
            tables.0.entry(table.to_owned()).or_default().columns.push(column.to_owned());
            values.entry(table.to_owned()).or_default().push(value(column, kind)?);
        }
        for (name, table) in &mut tables.0 {
            let values = values.remove(name).unwrap_or_default().join(", ");
            let rows = postgres.ask(&format!("SELECT concat_ws('|', {values}) FROM \"{name}\""))?;
            table.rows = rows.lines().map(str::to_owned).collect();
        }
        Ok(tables.settled())
    }

    fn settled(mut self) -> Self {
        self.0.retain(|name, _| !OF_PROCESSES.contains(&name.as_str()));
        for table in self.0.values_mut() {
            table.rows.sort();
        }
        self
    }

    /// How many rows a table has.
    pub fn rows(&self, table: &str) -> usize {
        self.0.get(table).map_or(0, |table| table.rows.len())
    }

    /// How many rows each table has.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        self.0.iter().map(|(name, table)| (name.clone(), table.rows.len())).collect()
    }

    /// What differs, one line per table.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let names: BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        let mut found = Vec::new();
        for name in names {
            match (self.0.get(name), other.0.get(name)) {
                (Some(one), Some(two)) if one == two => {}
                (Some(one), Some(two)) => {
                    let example = one.rows.iter().zip(&two.rows).find(|(a, b)| a != b);
                    let (rows, others) = (one.rows.len(), two.rows.len());
                    let columns = if one.columns == two.columns { "" } else { ", other columns" };
                    found.push(format!("{name}: {rows} and {others} rows{columns}, {example:?}"));
                }
                (Some(_), None) | (None, _) => found.push(format!("{name} is only in one")),
            }
        }
        found
    }
}

/// SQL that gives a value the same text as [`SQLITE`] gives it.
fn value(column: &str, kind: &str) -> Result<String> {
    let name = format!("\"{column}\"");
    let text = match kind {
        "bool" => format!("'i' || {name}::int"),
        "bytea" => format!("'b' || encode({name}, 'hex')"),
        "float8" => format!("'f' || encode(float8send({name}), 'hex')"),
        "int2" | "int4" | "int8" => format!("'i' || {name}"),
        "text" => format!("'t' || encode(convert_to({name}, 'UTF8'), 'hex')"),
        "timestamptz" => format!("'i' || (extract(epoch FROM {name}) * 1000000)::bigint"),
        "uuid" => format!("'b' || replace({name}::text, '-', '')"),
        other => return Err(format!("{column}: no way to read a {other}").into()),
    };
    Ok(format!("coalesce({text}, 'n')"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_engines_read_alike_and_differences_are_found() {
        let dir = std::env::temp_dir().join(format!("tollgate-load-tables-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("a.db");
        let script = "import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.executescript('''CREATE TABLE a (t TEXT, b BLOB, i INTEGER, f REAL, y INTEGER, w INTEGER, u BLOB);
CREATE TABLE replicas (n INTEGER); INSERT INTO replicas VALUES (1);''')
db.execute('INSERT INTO a VALUES (?, ?, ?, ?, ?, ?, ?)', ('ü\\n|', bytes([0, 255]), -7, 0.1, 1, 1700000000000001, bytes(16)))
db.execute('INSERT INTO a VALUES (NULL, NULL, NULL, NULL, NULL, NULL, NULL)')
db.commit()";
        assert!(Command::new("python3").args(["-c", script]).arg(&file).status().unwrap().success());
        let postgres = Postgres::start(&dir.join("postgres")).unwrap();
        postgres
            .ask("CREATE TABLE a (t text, b bytea, i int8, f float8, y bool, w timestamptz, u uuid)")
            .unwrap();
        let rows = "INSERT INTO a VALUES (NULL, NULL, NULL, NULL, NULL, NULL, NULL),
            (E'ü\\n|', '\\x00ff', -7, 0.1, true, to_timestamp(1700000000) + interval '1 microsecond',
             '00000000-0000-0000-0000-000000000000')";
        postgres.ask(rows).unwrap();
        let (one, two) = (Tables::of_sqlite(&file).unwrap(), Tables::of_postgres(&postgres).unwrap());
        assert_eq!(one.differences(&two), Vec::<String>::new());
        assert_eq!((one.rows("a"), one.rows("replicas")), (2, 0));
        for change in
            ["UPDATE a SET f = 0.1000000001 WHERE t <> ''", "DELETE FROM a", "CREATE TABLE b (i int8)"]
        {
            let before = Tables::of_postgres(&postgres).unwrap();
            postgres.ask(change).unwrap();
            let after = Tables::of_postgres(&postgres).unwrap();
            assert_eq!(before.differences(&after).len(), 1, "{change}");
        }
        drop(postgres);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
