//! The two roles that the application takes on PostgreSQL, and what its own role must not be.
//!
//! The role that logs in owns the tables and is a member of both; it can neither pass row-level security by itself nor
//! through them. Where it may create roles (a database for trying things out), it makes them; otherwise a DBA runs what
//! `tollgate migrate roles` prints.

use super::engine::Pools;
use super::{Store, StoreError};

/// The role of transactions on behalf of one tenant.
pub const TENANT_ROLE: &str = "tollgate_tenant";
/// The role of transactions across tenants.
pub const PLATFORM_ROLE: &str = "tollgate_platform";

/// What a DBA runs once for each database cluster. `login` is the role in `store.url`.
pub fn roles_sql(login: &str, database: &str) -> String {
    let (login, database) = (quoted(login), quoted(database));
    format!(
        r"-- Roles for Tollgate. Run once as a superuser of the PostgreSQL cluster.
CREATE ROLE {TENANT_ROLE} NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB;
CREATE ROLE {PLATFORM_ROLE} NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB;
CREATE ROLE {login} LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB; -- then: \password
GRANT {TENANT_ROLE}, {PLATFORM_ROLE} TO {login};
CREATE DATABASE {database} OWNER {login};
"
    )
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[derive(sqlx::FromRow)]
struct Role {
    name: String,
    superuser: bool,
    bypass: bool,
    create_role: bool,
    own: bool,
    member: bool,
}

const ROLES: &str = "
    SELECT rolname::text AS name, rolsuper AS superuser, rolbypassrls AS bypass, rolcreaterole AS create_role,
           rolname = current_user AS own, pg_has_role(current_user, oid, 'MEMBER') AS member
      FROM pg_roles WHERE rolname = current_user OR rolname = $1 OR rolname = $2";

/// Sees to it that the roles are there and no more than they should be.
pub(super) async fn ensure(store: &Store) -> Result<(), StoreError> {
    let Pools::Postgres(pools) = &store.0.pools else { return Ok(()) };
    let mut conn = pools.reach.through(Box::pin(pools.main.acquire())).await?;
    let roles: Vec<Role> =
        sqlx::query_as(ROLES).bind(TENANT_ROLE).bind(PLATFORM_ROLE).fetch_all(&mut *conn).await?;
    let Some(own) = roles.iter().find(|r| r.own) else {
        return Err(StoreError::Roles("the application's role does not exist".to_owned()));
    };
    for role in &roles {
        let power = match role {
            Role { superuser: true, .. } => "a superuser",
            Role { bypass: true, .. } => "allowed to pass row-level security (BYPASSRLS)",
            _ => continue,
        };
        return Err(StoreError::Roles(format!(
            "the PostgreSQL role `{}` is {power}, so nothing would keep tenants apart: put an ordinary role into store.url; `tollgate migrate roles` prints how to make one",
            role.name
        )));
    }
    for (name, create, grant) in [
        (
            TENANT_ROLE,
            "CREATE ROLE tollgate_tenant NOLOGIN NOSUPERUSER NOBYPASSRLS",
            "GRANT tollgate_tenant TO CURRENT_USER",
        ),
        (
            PLATFORM_ROLE,
            "CREATE ROLE tollgate_platform NOLOGIN NOSUPERUSER NOBYPASSRLS",
            "GRANT tollgate_platform TO CURRENT_USER",
        ),
    ] {
        let there = roles.iter().find(|r| r.name == name);
        if there.is_some_and(|r| r.member) {
            continue;
        }
        if !own.create_role {
            return Err(StoreError::Roles(format!(
                "the PostgreSQL role `{}` is not a member of `{name}`: a DBA has to run what `tollgate migrate roles` prints",
                own.name
            )));
        }
        // Another process may do the same at the same time, and there is no CREATE ROLE IF NOT EXISTS.
        if there.is_none()
            && let Err(error) = sqlx::raw_sql(create).execute(&mut *conn).await
        {
            let code = error.as_database_error().and_then(|e| e.code().map(|c| c.into_owned()));
            if !matches!(code.as_deref(), Some("42710" | "23505")) {
                return Err(error.into());
            }
        }
        if let Err(error) = sqlx::raw_sql(grant).execute(&mut *conn).await {
            // Two grants of the same at once.
            let code = error.as_database_error().and_then(|e| e.code().map(|c| c.into_owned()));
            if !matches!(code.as_deref(), Some("23505" | "XX000")) {
                return Err(error.into());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_end_the_statement() {
        assert!(roles_sql("a\"; DROP", "db").contains("\"a\"\"; DROP\""));
    }
}
