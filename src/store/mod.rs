//! The store: PostgreSQL, or SQLite as the embedded default, behind one repository layer.
//!
//! [`Store`] owns the connections. A transaction comes from [`Store::tenant`] (one tenant's rows) or [`Store::platform`]
//! (all of them) and from nowhere else. On PostgreSQL each begins by taking a role that may do no more than that and by
//! naming the tenant, so that row-level security holds even if a statement forgets its `WHERE tenant = …`; no tenant
//! named means no rows. SQLite has no roles: there the types, and statements that always name the tenant, are what holds.
//!
//! Opening connects to nothing. [`Store::prepare`] does: it checks the application's role, brings the tables up to date
//! and reads the master keys. While the database is away every call fails with [`StoreError::Unavailable`] and the reason
//! (`reach`), the first within `store.connect_timeout`, later ones at once; nothing on the request path calls this module.
//!
//! Repositories are one file per feature, with methods on [`TenantScope`], [`Platform`] and their transactions.

mod audit;
mod audit_export;
mod audit_lite;
mod audit_notice;
mod audit_read;
mod audit_retention;
mod backup;
mod canaries;
mod control;
mod custom_roles;
mod engine;
mod erasure;
mod error;
mod expect;
mod health;
mod identity;
mod keys;
mod leader;
mod metrics;
mod migrate;
mod migrations;
mod minutes;
mod monitor;
mod notify;
mod partitions;
mod reach;
mod replicas;
mod revisions;
mod roles;
mod sample_erasure;
mod samples;
mod sealing_keys;
mod secrets;
mod session_tombstones;
mod settings;
mod signing_key;
mod statements;
mod tenants;
mod time;
mod tx;
mod usage;
mod usage_erasure;
mod usage_roll;
mod usage_summary;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;

pub use audit::{AuditBatch, MovedChain, NewEvent};
pub use audit_export::{ExportError, ExportFormat, ExportSink, export};
pub use audit_notice::{AuditNotice, AuditRange};
pub use audit_read::{AuditEvent, AuditFilter, AuditPlace, StoredChain};
pub use audit_retention::NewCheckpoint;
pub use backup::{Into as RestoreInto, Manifest, TableManifest};
pub use canaries::{Canary, CanaryEnd, CanaryReport, CandidateSource, NewCanary};
pub use control::{ADMIN_TOKEN_REPLACED, Idempotency, OwnedApiKey, StoredStanding};
pub use custom_roles::{CustomRole, NewCustomRole};
pub use engine::Engine;
pub use erasure::{Erasure, MAX_REMEMBERED, REMEMBERED, erased_name};
pub use error::{Fault, StoreError};
pub use expect::{Put, whatever};
pub use health::{HealthChange, HealthPlace, HealthSample, HealthState, HealthSummary};
pub use identity::{
    ApiKey, IdentityChange, IdentityKind, IdentitySnapshot, NewApiKey, NewUser, RevocationEntry, RoleBinding,
    User,
};
pub use leader::Seat;
pub use metrics::Performance;
pub use migrate::{MigrationState, MigrationStatus, SCHEMA_LEVEL};
pub use monitor::{DatabaseState, IndexState, TableState};
pub use notify::{Channel, Listener, Notification};
pub use partitions::Past;
pub use replicas::{Heartbeat, Replica, ServedRevision};
pub use revisions::{Head, NewRevision, Page, Revision, RevisionSummary};
pub use roles::{PLATFORM_ROLE, TENANT_ROLE, roles_sql};
pub use sealing_keys::SealingKey;
pub use secrets::{SecretInfo, SecretUse, SecretsMark};
pub use session_tombstones::SessionTombstone;
pub use settings::{DATABASE_FILE, StoreSettings};
pub use signing_key::{SigningKey, SigningKeyError};
pub use statements::Statement;
pub use tenants::Tenant;
pub use time::Time;
pub use tx::{Platform, PlatformTx, TenantScope, TenantTx, Tx};
pub use usage::{Grain, UsageBy, UsageFilter, UsagePoint, UsageTop};
pub use usage_erasure::ERASED;
pub use usage_summary::UsageSummary;

use crate::base::envelope::MasterKeys;
use crate::base::{Clock, Scope, TenantId};
use crate::config::model::MigrateWhen;
use engine::Pools;
use notify::Notices;
use statements::Statements;
use tx::{Access, Conn};

/// The store. Cheap to clone; the last clone closes the connections.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    settings: StoreSettings,
    env: Environment,
    pools: Pools,
    clock: Clock,
    statements: Statements,
    notices: Notices,
    keys: ArcSwapOption<MasterKeys>,
}

/// Looks up environment variables; only the command line reads the environment.
pub type Environment = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

impl Store {
    /// A store by its settings. Connects to nothing yet, but makes the file of an SQLite database. Must be called on a
    /// runtime, which runs its connections.
    ///
    /// # Errors
    /// The settings make no sense, or the file cannot be made.
    pub fn open(settings: StoreSettings, clock: Clock, env: Environment) -> Result<Self, StoreError> {
        let pools = Pools::open(&settings)?;
        Ok(Self(Arc::new(Inner {
            settings,
            env,
            pools,
            clock,
            statements: Statements::default(),
            notices: Notices::default(),
            keys: ArcSwapOption::empty(),
        })))
    }

    /// Makes the store ready for use: role, tables, master keys. May be called again, and is when it failed.
    ///
    /// # Errors
    /// The database is away ([`StoreError::retry_is_safe`]), or something that an operator has to put right.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        if self.engine() == Engine::Postgres {
            roles::ensure(self).await?;
        }
        match self.0.settings.migrate {
            MigrateWhen::AtStart => migrate::up(self).await.map(drop)?,
            MigrateWhen::Manual => migrate::check(self).await?,
        }
        self.load_keys().await
    }

    /// Which engine.
    pub fn engine(&self) -> Engine {
        self.0.settings.engine()
    }

    /// Connections that may read at once.
    pub fn read_connections(&self) -> u32 {
        match self.engine() {
            Engine::Postgres => self.0.settings.max_connections,
            Engine::Sqlite => self.0.settings.readers,
        }
    }

    /// One tenant's part of the store.
    pub fn tenant<'a>(&'a self, tenant: &'a TenantId) -> TenantScope<'a> {
        TenantScope::new(self, tenant)
    }

    /// The store across tenants.
    pub fn platform(&self) -> Platform<'_> {
        Platform(self)
    }

    /// The present.
    pub fn now(&self) -> Time {
        Time::now(&self.0.clock)
    }

    /// What our own statements cost since the process started, the dearest first.
    pub fn statements(&self) -> Vec<Statement> {
        self.0.statements.list()
    }

    /// Asks the database for a sign of life.
    ///
    /// # Errors
    /// It gives none.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let mut tx = self.begin(&Scope::Platform, Access::Read).await?;
        tx::q!(tx, scalar as i32, "SELECT 1").map(drop)
    }

    /// Where each migration stands.
    ///
    /// # Errors
    /// The database.
    pub async fn migrations(&self) -> Result<Vec<MigrationStatus>, StoreError> {
        migrate::status(self).await
    }

    /// Applies what is missing, whatever `store.migrate` says. Returns the names of what was done.
    ///
    /// # Errors
    /// The database; the tables are newer than this program.
    pub async fn migrate_up(&self) -> Result<Vec<String>, StoreError> {
        if self.engine() == Engine::Postgres {
            roles::ensure(self).await?;
        }
        migrate::up(self).await
    }

    /// Undoes every migration after `target`, the newest first. Data in what it removes is lost.
    ///
    /// # Errors
    /// The database; there is a migration that this program does not know.
    pub async fn migrate_down(&self, target: i64) -> Result<Vec<String>, StoreError> {
        migrate::down(self, target).await
    }

    /// Closes all connections, after what is running on them.
    pub async fn close(&self) {
        self.0.pools.close().await;
    }

    async fn begin(&self, scope: &Scope, access: Access) -> Result<Tx, StoreError> {
        let conn = match &self.0.pools {
            Pools::Postgres(pools) => {
                let (role, tenant) = match scope {
                    Scope::Platform => (PLATFORM_ROLE, ""),
                    Scope::Tenant(tenant) => (TENANT_ROLE, tenant.as_str()),
                };
                let begun = async {
                    // Repeatable read: what only reads sees one state.
                    let mut conn = match access {
                        Access::Read => {
                            pools.main.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?
                        }
                        Access::Write => pools.main.begin().await?,
                    };
                    sqlx::query(
                        "SELECT set_config('role', $1, true), set_config('tollgate.tenant', $2, true)",
                    )
                    .bind(role)
                    .bind(tenant)
                    .execute(&mut *conn)
                    .await?;
                    Ok(conn)
                };
                // To get a connection may take all of the former; what is asked on it is nothing.
                let settings = &self.0.settings;
                let patience = settings.connect_timeout.saturating_add(settings.statement_timeout);
                Conn::Postgres(pools.reach.through(Box::pin(tx::within(patience, begun))).await?)
            }
            // Boxed as above.
            Pools::Sqlite(pools) => Conn::Sqlite(match access {
                Access::Read => Box::pin(pools.readers.begin()).await?,
                // A transaction that begins by reading could not become a writer later without failing.
                Access::Write => Box::pin(pools.writer.begin_with("BEGIN IMMEDIATE")).await?,
            }),
        };
        Ok(Tx::new(conn, self.clone(), access))
    }

    /// A transaction as the owner of the tables, without a limit of time: for migrations only. Under forced row-level
    /// security it sees no tenant's rows.
    async fn begin_as_owner(&self) -> Result<Tx, StoreError> {
        let conn = match &self.0.pools {
            Pools::Postgres(pools) => {
                Conn::Postgres(pools.reach.through(Box::pin(pools.main.begin())).await?)
            }
            Pools::Sqlite(pools) => Conn::Sqlite(pools.writer.begin_with("BEGIN IMMEDIATE").await?),
        };
        let mut tx = Tx::new(conn, self.clone(), Access::Write);
        tx.without_limit().await?;
        Ok(tx)
    }

    fn record(&self, statement: &'static str, took: Duration, ok: bool) {
        self.0.statements.record(statement, took, ok);
    }
}
