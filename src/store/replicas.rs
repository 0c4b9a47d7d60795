//! Processes that share the store: who is alive, and which revision each serves or why it refused one.

use std::time::Duration;

use sqlx::FromRow;
use uuid::Uuid;

use super::tenants::counts;
use super::tx::q;
use super::{Platform, SCHEMA_LEVEL, StoreError, TenantScope, Time};
use crate::base::Scope;

/// What a process says of itself with every beat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// This process, from its start to its end.
    pub boot: Uuid,
    /// The replica: stays the same over restarts.
    pub replica: String,
    /// `all`, `control` or `data`.
    pub role: String,
    /// Version of the program.
    pub version: String,
    /// Where its internal listener is reached.
    pub address: Option<String>,
    /// When it started.
    pub started_at: Time,
    /// How far it has read the feed of identities.
    pub identity_seq: i64,
}

/// A process that was heard of.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Replica {
    /// The process.
    pub boot: Uuid,
    /// The replica.
    pub replica: String,
    /// `all`, `control` or `data`.
    pub role: String,
    /// Version of the program.
    pub version: String,
    /// Level of the schema it was built for.
    pub schema_level: i32,
    /// Where its internal listener is reached.
    pub address: Option<String>,
    /// When it started.
    pub started_at: Time,
    /// When it was last heard of, by its own clock.
    pub seen_at: Time,
}

/// What a process did with a scope's revisions.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct ServedRevision {
    /// The process.
    pub boot: Uuid,
    /// The scope, as [`Scope::as_str`] spells it.
    #[sqlx(rename = "tenant")]
    pub scope: String,
    /// The revision it serves; 0 for none.
    pub served: i64,
    /// A later revision that it refused.
    pub refused: Option<i64>,
    /// Why.
    pub refusal: Option<String>,
    /// When it last said so.
    pub reported_at: Time,
}

const REPORTED: &str = "SELECT boot, tenant, served, refused, refusal, reported_at FROM replica_revisions WHERE tenant = $1 ORDER BY boot";

impl Platform<'_> {
    /// Says that a process is alive.
    ///
    /// # Errors
    /// The database.
    pub async fn heartbeat(&self, beat: &Heartbeat) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let now = tx.now();
        q!(
            tx,
            execute,
            "INSERT INTO replicas (boot, replica, role, version, schema_level, address, started_at, seen_at, identity_seq)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             ON CONFLICT (boot) DO UPDATE
                SET role = excluded.role, address = excluded.address, seen_at = excluded.seen_at,
                    identity_seq = excluded.identity_seq",
            beat.boot,
            &beat.replica,
            &beat.role,
            &beat.version,
            SCHEMA_LEVEL,
            beat.address.as_deref(),
            beat.started_at,
            now,
            beat.identity_seq
        )?;
        tx.commit().await
    }

    /// Forgets a process that ends, and what it served.
    ///
    /// # Errors
    /// The database.
    pub async fn retire_replica(&self, boot: Uuid) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        q!(tx, execute, "DELETE FROM replicas WHERE boot = $1", boot)?;
        tx.commit().await
    }

    /// Processes that were heard of within `window`, by replica. One that has not been heard of since its replica started
    /// anew is gone, however recent that is; one that hands over to its successor still beats.
    ///
    /// # Errors
    /// The database.
    pub async fn replicas(&self, window: Duration) -> Result<Vec<Replica>, StoreError> {
        let mut tx = self.read().await?;
        let since = tx.now().minus(window);
        q!(
            tx,
            all as Replica,
            "SELECT boot, replica, role, version, schema_level, address, started_at, seen_at FROM replicas r
              WHERE seen_at >= $1
                AND NOT EXISTS (SELECT 1 FROM replicas n
                                 WHERE n.replica = r.replica AND n.boot <> r.boot AND n.started_at > r.seen_at)
              ORDER BY replica, started_at",
            since
        )
    }

    /// Forgets processes that were not heard of for `window`. Returns how many.
    ///
    /// # Errors
    /// The database.
    pub async fn forget_replicas(&self, window: Duration) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let since = tx.now().minus(window);
        let gone = q!(tx, execute, "DELETE FROM replicas WHERE seen_at < $1", since)?;
        tx.commit().await?;
        Ok(gone)
    }

    /// Reports what a process serves now. Scopes that are not named stay as they were.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if the process sent no heartbeat yet; the database.
    pub async fn report_revisions(&self, revisions: &[ServedRevision]) -> Result<(), StoreError> {
        if revisions.is_empty() {
            return Ok(());
        }
        let rows: Vec<serde_json::Value> = revisions
            .iter()
            .map(|r| {
                serde_json::json!({
                    "boot": r.boot.simple().to_string(),
                    "tenant": r.scope,
                    "served": r.served,
                    "refused": r.refused,
                    "refusal": r.refusal,
                })
            })
            .collect();
        let mut tx = self.begin().await?;
        let now = tx.now();
        q!(
            tx, execute,
            pg "INSERT INTO replica_revisions (boot, tenant, served, refused, refusal, reported_at)
                SELECT boot, tenant, served, refused, refusal, $2
                  FROM jsonb_to_recordset($1) AS r(boot uuid, tenant text, served bigint, refused bigint, refusal text)
                ON CONFLICT (boot, tenant) DO UPDATE
                   SET served = excluded.served, refused = excluded.refused, refusal = excluded.refusal,
                       reported_at = excluded.reported_at",
            lite "INSERT INTO replica_revisions (boot, tenant, served, refused, refusal, reported_at)
                  SELECT unhex(value ->> 'boot'), value ->> 'tenant', value ->> 'served', value ->> 'refused',
                         value ->> 'refusal', $2
                    FROM json_each($1) WHERE true
                  ON CONFLICT (boot, tenant) DO UPDATE
                     SET served = excluded.served, refused = excluded.refused, refusal = excluded.refusal,
                         reported_at = excluded.reported_at",
            sqlx::types::Json(&rows),
            now
        )?;
        tx.commit().await
    }

    /// What every process does with the revisions of one scope.
    ///
    /// # Errors
    /// The database.
    pub async fn served_revisions(&self, scope: &Scope) -> Result<Vec<ServedRevision>, StoreError> {
        let mut tx = self.read().await?;
        q!(tx, all as ServedRevision, REPORTED, scope.as_str())
    }

    /// Everything that every process refuses, by scope.
    ///
    /// # Errors
    /// The database.
    pub async fn refusals(&self) -> Result<Vec<ServedRevision>, StoreError> {
        let mut tx = self.read().await?;
        q!(
            tx,
            all as ServedRevision,
            concat!(
                "SELECT r.boot, r.tenant, r.served, r.refused, r.refusal, r.reported_at FROM replica_revisions r
                  WHERE r.refused IS NOT NULL AND ", counts!("r.tenant"), " ORDER BY r.tenant, r.boot"
            )
        )
    }
}

impl TenantScope<'_> {
    /// What every process does with the tenant's revisions.
    ///
    /// # Errors
    /// The database.
    pub async fn served_revisions(&self) -> Result<Vec<ServedRevision>, StoreError> {
        let mut tx = self.read().await?;
        q!(tx, all as ServedRevision, REPORTED, self.tenant().as_str())
    }
}
