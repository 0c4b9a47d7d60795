//! Row-level security alone keeps tenants apart: attacks by raw SQL, on every table of tenants that the catalogue has.

use tollgate::store::{Engine, PLATFORM_ROLE, StoreSettings, TENANT_ROLE};

use super::{Fixture, open};
use crate::support::Folder;
use crate::support::postgres::Database;

/// Runs SQL as the application would: its login role, then the role and tenant of a transaction.
fn attack(
    database: &Database,
    role: Option<&str>,
    tenant: Option<&str>,
    sql: &str,
) -> Result<String, String> {
    let mut text = String::from("BEGIN;");
    if let Some(role) = role {
        text.push_str(&format!("SET LOCAL ROLE {role};"));
    }
    if let Some(tenant) = tenant {
        text.push_str(&format!("SET LOCAL tollgate.tenant = '{tenant}';"));
    }
    text.push_str(sql);
    text.push_str("; COMMIT;");
    database.try_sql_as(crate::support::postgres::LOGIN, &text)
}

/// Tables with a column `tenant`, without partitions.
fn tenant_tables(database: &Database) -> Vec<String> {
    let list = database.sql(
        "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant'
          WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace = 'public'::regnamespace
          ORDER BY 1",
    );
    list.lines().map(ToOwned::to_owned).collect()
}

/// Puts one row of each of the tenants `a` and `b` into a table, whatever its columns are.
fn fill(database: &Database, table: &str) {
    let columns = database.sql(&format!(
        "SELECT a.attname, t.typname, a.attnotnull FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
          WHERE a.attrelid = '{table}'::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
            AND a.attidentity <> 'a'"
    ));
    for tenant in ["a", "b"] {
        let mut names = Vec::new();
        let mut values = Vec::new();
        for line in columns.lines() {
            let [name, kind, not_null] = line.split('|').collect::<Vec<_>>()[..] else { panic!("{line}") };
            if not_null != "t" && name != "tenant" {
                continue;
            }
            names.push(format!("\"{name}\""));
            values.push(match (name, kind) {
                ("tenant", _) => format!("'{tenant}'"),
                (_, "uuid") => "gen_random_uuid()".to_owned(),
                (_, "timestamptz") => "now()".to_owned(),
                (_, "bytea") => {
                    format!("decode(repeat('{}', 32), 'hex')", if tenant == "a" { "0a" } else { "0b" })
                }
                (_, "jsonb") => "'{}'".to_owned(),
                (_, "bool") => "true".to_owned(),
                ("parent", _) => "0".to_owned(),
                (_, "int2" | "int4" | "int8") => (if tenant == "a" { "1" } else { "2" }).to_owned(),
                (_, "float4" | "float8" | "numeric") => "1".to_owned(),
                (_, "text") => format!("'{tenant}'"),
                (_, "_text") => "'{}'".to_owned(),
                other => panic!("no value for a column like {other:?} of {table}"),
            });
        }
        // Constraints that are not about tenants would need to know the table.
        database.sql(&format!(
            "BEGIN; SET LOCAL session_replication_role = replica;
             DO $$ DECLARE c record; BEGIN
               FOR c IN SELECT conname FROM pg_constraint WHERE conrelid = '{table}'::regclass AND contype = 'c' LOOP
                 EXECUTE format('ALTER TABLE {table} DROP CONSTRAINT %I', c.conname);
               END LOOP; END $$;
             INSERT INTO {table} ({}) VALUES ({}); COMMIT;",
            names.join(", "),
            values.join(", ")
        ));
    }
}

#[tokio::test]
async fn raw_sql_of_one_tenant_never_reaches_another() {
    let fixture = Fixture::new(Engine::Postgres).await;
    let database = fixture.database.as_ref().unwrap();
    let tables = tenant_tables(database);
    assert!(tables.len() >= 5, "{tables:?}");
    for table in &tables {
        fill(database, table);
        let count = |role, tenant: Option<&str>, condition: &str| {
            attack(database, role, tenant, &format!("SELECT count(*) FROM {table} {condition}"))
        };
        let rows =
            |tenant: &str| database.sql(&format!("SELECT count(*) FROM {table} WHERE tenant = '{tenant}'"));
        assert_eq!(rows("b"), "1", "{table}");
        // No predicate at all: a repository that forgot it.
        assert_eq!(count(Some(TENANT_ROLE), Some("a"), "").unwrap(), "1", "{table}");
        assert_eq!(count(Some(TENANT_ROLE), Some("a"), "WHERE tenant = 'b'").unwrap(), "0", "{table}");
        // No tenant, and an empty one, as is left behind by a transaction before.
        assert_eq!(count(Some(TENANT_ROLE), None, "").unwrap(), "0", "{table}");
        assert_eq!(count(Some(TENANT_ROLE), Some(""), "").unwrap(), "0", "{table}");
        // The owner itself, without a role: forced.
        assert_eq!(count(None, None, "").unwrap(), "0", "{table}");
        assert_eq!(count(None, Some("a"), "").unwrap(), "0", "{table}");
        assert_eq!(count(Some(PLATFORM_ROLE), None, "").unwrap(), "2", "{table}");
        for sql in [
            format!("UPDATE {table} SET tenant = tenant WHERE tenant = 'b'"),
            format!("UPDATE {table} SET tenant = 'b'"),
            format!("DELETE FROM {table} WHERE tenant = 'b'"),
            format!("INSERT INTO {table} SELECT * FROM {table}"),
            format!("INSERT INTO {table} (tenant) VALUES ('b')"),
            format!("TRUNCATE {table}"),
            format!("ALTER TABLE {table} DISABLE ROW LEVEL SECURITY"),
            format!("COPY {table} FROM '/dev/null'"),
            format!("CREATE POLICY mine ON {table} USING (true)"),
        ] {
            let before = database.sql(&format!(
                "SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM {table} t WHERE tenant = 'b'"
            ));
            let done = attack(database, Some(TENANT_ROLE), Some("a"), &sql);
            let after = database.sql(&format!(
                "SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM {table} t WHERE tenant = 'b'"
            ));
            assert_eq!(before, after, "{sql}: {done:?}");
        }
    }
    let statements = tables.len() * 16;
    println!(
        "tenants: {statements} statements of raw SQL on {} tables, none reached another tenant",
        tables.len()
    );
    // A partition is not a way around the policies of its table.
    let partitions = database.sql(
        "SELECT c.relname FROM pg_class c WHERE c.relispartition AND c.relkind = 'r'
            AND c.relnamespace = 'public'::regnamespace",
    );
    for partition in partitions.lines() {
        let done =
            attack(database, Some(TENANT_ROLE), Some("a"), &format!("SELECT count(*) FROM {partition}"));
        assert!(done.is_err_and(|e| e.contains("permission denied")), "{partition}");
    }
}

/// What the catalogue says of every table and view: forced security, no other grants, views that ask as the caller.
#[tokio::test]
async fn the_catalogue_has_no_way_around() {
    let fixture = Fixture::new(Engine::Postgres).await;
    let database = fixture.database.as_ref().unwrap();
    let unforced = database.sql(
        "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant'
          WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace = 'public'::regnamespace
            AND NOT (c.relrowsecurity AND c.relforcerowsecurity)",
    );
    assert_eq!(unforced, "", "tables of tenants without forced row-level security");
    let unowned = database.sql(&format!(
        "SELECT c.relname FROM pg_class c, aclexplode(c.relacl) g
          WHERE c.relkind IN ('r', 'p', 'v', 'm') AND c.relnamespace = 'public'::regnamespace
            AND NOT EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant')
            AND g.grantee IN (0, '{TENANT_ROLE}'::regrole)"
    ));
    assert_eq!(unowned, "", "tables without tenants that the tenant's role may use");
    let views = database.sql(
        "SELECT c.relname FROM pg_class c WHERE c.relkind = 'v' AND c.relnamespace = 'public'::regnamespace
            AND NOT coalesce(c.reloptions @> '{security_invoker=true}', false)",
    );
    assert_eq!(views, "", "views that do not ask as the caller");
    let materialized = database.sql(
        "SELECT c.relname FROM pg_class c WHERE c.relkind = 'm' AND c.relnamespace = 'public'::regnamespace",
    );
    assert_eq!(materialized, "", "materialized views have no row-level security");
    // The platform may do more than a tenant already; triggers cannot be called.
    let definers = database.sql(&format!(
        "SELECT p.proname FROM pg_proc p WHERE p.prosecdef AND p.pronamespace = 'public'::regnamespace
            AND p.prorettype <> 'trigger'::regtype
            AND has_function_privilege('{TENANT_ROLE}', p.oid, 'EXECUTE')"
    ));
    assert_eq!(definers, "", "functions with the owner's rights that a tenant may call");
    println!("tenants: the catalogue has no table, view or function around row-level security");
}

#[tokio::test]
async fn a_role_that_may_too_much_is_refused_at_start() {
    let database = Database::fresh();
    let folder = Folder::new();
    let start = async |url: String| {
        let store = open(&StoreSettings::at(&url, folder.path()), &tollgate::base::Clock::default());
        store.prepare().await.map_err(|e| e.to_string())
    };
    let error = start(database.admin_url()).await.unwrap_err();
    assert!(error.contains("is a superuser") && error.contains("tollgate migrate roles"), "{error}");
    database.sql("CREATE ROLE bypassing LOGIN BYPASSRLS");
    let error = start(database.url_as("bypassing")).await.unwrap_err();
    assert!(error.contains("BYPASSRLS"), "{error}");
    database.sql("CREATE ROLE stranger LOGIN");
    let error = start(database.url_as("stranger")).await.unwrap_err();
    assert!(error.contains("not a member"), "{error}");
}

/// A database for trying things out: the login role may create roles, and makes what is missing.
#[tokio::test]
async fn a_role_that_may_create_roles_makes_its_own() {
    let server = std::sync::Arc::new(crate::support::postgres::Postgres::start(
        crate::support::postgres::Durability::None,
    ));
    server.sql(
        "postgres",
        &format!("DROP ROLE {TENANT_ROLE}; DROP ROLE {PLATFORM_ROLE}; CREATE ROLE dev LOGIN CREATEROLE"),
    );
    server.sql("postgres", "CREATE DATABASE dev OWNER dev");
    let folder = Folder::new();
    let settings = StoreSettings::at(&server.url("dev", "dev"), folder.path());
    open(&settings, &tollgate::base::Clock::default()).prepare().await.unwrap();
    let store = open(&settings, &tollgate::base::Clock::default());
    store.prepare().await.unwrap();
    store.ping().await.unwrap();
}
