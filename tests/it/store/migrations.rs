//! Migrations go up and down, from several processes at once, and a program refuses tables that are not for it.

use std::collections::BTreeMap;

use tollgate::base::{Clock, TenantId};
use tollgate::config::model::MigrateWhen;
use tollgate::store::{
    Engine, MigrationState, NewCustomRole, Page, SCHEMA_LEVEL, Store, StoreError, StoreSettings, whatever,
};

use super::{Fixture, each_engine, open};

each_engine!(they_go_down_to_nothing_and_up_again, what_is_newer_than_the_next_level_is_refused,);

async fn they_go_down_to_nothing_and_up_again(fixture: Fixture) {
    let all = fixture.store.migrations().await.unwrap();
    assert!(all.iter().all(|m| m.state == MigrationState::Applied && m.applied_at.is_some()));
    assert!(fixture.store.migrate_up().await.unwrap().is_empty());
    let before = tables(&fixture);
    // One at a time, so that each one's way back leads to where it came from.
    for migration in all.iter().rev() {
        let undone = fixture.store.migrate_down(migration.version - 1).await.unwrap();
        assert_eq!(undone, std::slice::from_ref(&migration.name));
    }
    assert_eq!(tables(&fixture).keys().collect::<Vec<_>>(), ["schema_migrations"]);
    assert_eq!(fixture.store.migrate_up().await.unwrap().len(), all.len());
    assert_eq!(tables(&fixture), before);
}

async fn what_is_newer_than_the_next_level_is_refused(fixture: Fixture) {
    let manual = StoreSettings { migrate: MigrateWhen::Manual, ..fixture.settings.clone() };
    let manual = open(&manual, &fixture.clock);
    manual.prepare().await.unwrap();
    let newer = |level: i32| {
        sql(
            &fixture,
            &format!("INSERT INTO schema_migrations VALUES ({}, '9{level}_x', {level}, '', 0)", 9000 + level),
        );
    };
    newer(SCHEMA_LEVEL + 1);
    for store in [&fixture.another(), &manual] {
        store.prepare().await.expect("one level above is for rolling upgrades");
    }
    newer(SCHEMA_LEVEL + 2);
    for store in [&fixture.another(), &manual] {
        let error = store.prepare().await.unwrap_err();
        assert!(matches!(error, StoreError::Schema(_)), "{error}");
    }
    let error = fixture.store.migrate_down(0).await.unwrap_err();
    assert!(error.to_string().contains("newer version"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_start_together_migrate_once() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let fixture = Fixture::unprepared(engine);
        let stores: Vec<Store> = (0..6).map(|_| fixture.another()).collect();
        let tasks: Vec<_> =
            stores.into_iter().map(|store| tokio::spawn(async move { store.prepare().await })).collect();
        for task in tasks {
            task.await.unwrap().unwrap_or_else(|e| panic!("{engine}: {e}"));
        }
        let all = fixture.store.migrations().await.unwrap();
        assert!(all.iter().all(|m| m.state == MigrationState::Applied), "{engine}");
    }
}

#[tokio::test]
async fn by_hand_means_not_at_start() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let fixture = Fixture::unprepared(engine);
        let settings = StoreSettings { migrate: MigrateWhen::Manual, ..fixture.settings.clone() };
        let store = open(&settings, &Clock::default());
        let error = store.prepare().await.unwrap_err();
        assert!(error.to_string().contains("tollgate migrate up"), "{engine}: {error}");
        fixture.store.migrate_up().await.unwrap();
        store.prepare().await.unwrap();
    }
}

/// A role of a tenant's own goes with all who have it, or whoever makes one of this name later gives it to them unseen.
#[tokio::test]
async fn without_custom_roles_nobody_has_one() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let fixture = Fixture::new(engine).await;
        let acme = TenantId::new("acme");
        let role = NewCustomRole { name: "reader", description: "", permissions: "", author: "ada" };
        fixture.store.tenant(&acme).put_custom_role(role, whatever).await.unwrap();
        fixture.store.tenant(&acme).bind_custom_role("bob", "reader", "ada").await.unwrap();
        fixture.store.tenant(&acme).bind_auditor("bob", "ada").await.unwrap();
        fixture.store.migrate_down(50).await.unwrap();
        fixture.store.migrate_up().await.unwrap();
        let left = fixture.store.tenant(&acme).role_bindings(None, Page::of(10)).await.unwrap();
        assert_eq!(left.iter().map(|b| b.role.as_str()).collect::<Vec<_>>(), ["auditor"], "{engine}");
    }
}

/// Both dialects make the same tables with the same columns, in the same order, nullable or not.
#[tokio::test]
async fn both_engines_have_the_same_tables() {
    let sqlite = Fixture::new(Engine::Sqlite).await;
    let postgres = Fixture::new(Engine::Postgres).await;
    let (sqlite, postgres) = (tables(&sqlite), tables(&postgres));
    assert_eq!(sqlite.keys().collect::<Vec<_>>(), postgres.keys().collect::<Vec<_>>());
    for (table, columns) in &sqlite {
        assert_eq!(Some(columns), postgres.get(table), "{table}");
    }
}

/// Tables and their columns, without partitions: `name` or `name?` if it may be NULL.
fn tables(fixture: &Fixture) -> BTreeMap<String, Vec<String>> {
    let listed = match &fixture.database {
        Some(database) => database.sql(
            "SELECT c.relname, a.attname, a.attnotnull FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
              WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace = 'public'::regnamespace
                AND a.attnum > 0 AND NOT a.attisdropped ORDER BY c.relname, a.attnum",
        ),
        None => sqlite(
            fixture,
            // Events are in three tables, and seen through a view that knows nothing of NULL.
            "SELECT t.name, c.name, CASE WHEN c.[notnull] OR c.pk OR r.[notnull] THEN 't' ELSE 'f' END
               FROM sqlite_schema t JOIN pragma_table_info(t.name) c
               LEFT JOIN (SELECT name, [notnull] FROM pragma_table_info('audit_event_rows')
                           UNION SELECT name, [notnull] FROM pragma_table_info('audit_event_chains')) r
                 ON r.name = c.name AND t.name = 'audit_events' AND r.[notnull]
              WHERE (t.type = 'table' AND t.name NOT LIKE 'sqlite_%' AND t.name NOT LIKE 'audit_event^_%' ESCAPE '^')
                 OR (t.type = 'view' AND t.name = 'audit_events')
              ORDER BY t.name, c.cid",
        ),
    };
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in listed.lines() {
        let [table, column, not_null] = line.split('|').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let column = if not_null == "t" { column.to_owned() } else { format!("{column}?") };
        tables.entry(table.to_owned()).or_default().push(column);
    }
    tables
}

fn sql(fixture: &Fixture, text: &str) {
    match &fixture.database {
        Some(database) => drop(database.sql(text)),
        None => drop(sqlite(fixture, text)),
    }
}

/// Runs SQL on the file by Python's own SQLite.
fn sqlite(fixture: &Fixture, text: &str) -> String {
    let script = "import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=10)
for row in db.execute(sys.argv[2]): print('|'.join(str(v) for v in row))
db.commit()";
    let output = std::process::Command::new("python3")
        .args(["-c", script])
        .arg(fixture.settings.data_dir.join("tollgate.db"))
        .arg(text)
        .output()
        .unwrap();
    assert!(output.status.success(), "{text}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
