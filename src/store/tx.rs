//! Transactions, and the macro that runs one statement on either engine.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use sqlx::{Postgres, Sqlite};

use super::{Channel, Store, StoreError, Time};
use crate::base::{Scope, TenantId};

pub(super) enum Conn {
    Postgres(sqlx::Transaction<'static, Postgres>),
    Sqlite(sqlx::Transaction<'static, Sqlite>),
}

/// What a server gets beyond the time that it allows a statement itself. One that is gone without a word (its machine died,
/// the network swallows packets) would otherwise be waited for until TCP gives up, a quarter of an hour later.
const GRACE: Duration = Duration::from_secs(5);

/// How long somebody who needs a whole table may keep others from it while it is in use: by an export or a backup, which
/// take minutes.
const QUEUE: Duration = Duration::from_secs(3);

/// An open transaction. Dropping it undoes everything.
pub struct Tx {
    /// There until it is committed.
    conn: Option<Conn>,
    access: Access,
    store: Store,
    notices: Vec<(Channel, String)>,
    /// Longest wait for the answer to one statement.
    patience: Duration,
}

impl Tx {
    pub(super) fn new(conn: Conn, store: Store, access: Access) -> Self {
        let patience = match &conn {
            Conn::Postgres(_) => store.0.settings.statement_timeout.saturating_add(GRACE),
            Conn::Sqlite(_) => Duration::MAX,
        };
        Self { conn: Some(conn), access, store, notices: Vec::new(), patience }
    }

    /// Lets statements of this transaction take as long as they take: for migrations, backups and restores.
    pub(super) async fn without_limit(&mut self) -> Result<(), StoreError> {
        if let Conn::Postgres(conn) = self.conn() {
            sqlx::query("SET LOCAL statement_timeout = 0").execute(&mut **conn).await?;
        }
        self.patience = Duration::MAX;
        Ok(())
    }

    /// Lets statements of this transaction wait for locks of others for [`QUEUE`] only, and then fail with
    /// [`StoreError::Busy`]: for those that need a whole table. Whoever comes after them waits as long as they do, also for
    /// what is only read.
    pub(super) async fn without_queue(&mut self) -> Result<(), StoreError> {
        if let Conn::Postgres(conn) = self.conn() {
            let limit = format!("SET LOCAL lock_timeout = {}", QUEUE.as_millis());
            // Built from a number.
            sqlx::raw_sql(sqlx::AssertSqlSafe(limit)).execute(&mut **conn).await?;
        }
        Ok(())
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    pub(super) fn conn(&mut self) -> &mut Conn {
        self.conn.as_mut().expect("only a commit takes it, and that takes the transaction")
    }

    /// The store that this is a transaction of.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The present, to the microsecond that the store keeps.
    pub fn now(&self) -> Time {
        self.store.now()
    }

    /// Tells whoever listens, if and when the transaction commits.
    ///
    /// # Errors
    /// The database.
    pub async fn notify(&mut self, channel: Channel, payload: &str) -> Result<(), StoreError> {
        let patience = self.patience;
        match self.conn() {
            Conn::Postgres(conn) => {
                let told = sqlx::query("SELECT pg_notify($1, $2)").bind(channel.name()).bind(payload);
                within(patience, told.execute(&mut **conn)).await?;
            }
            Conn::Sqlite(_) => self.notices.push((channel, payload.to_owned())),
        }
        Ok(())
    }

    /// Makes everything permanent.
    ///
    /// # Errors
    /// [`StoreError::CommitUnknown`] if the connection was lost meanwhile; otherwise nothing was done.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        match self.conn.take() {
            Some(Conn::Postgres(conn)) => within(self.patience, conn.commit()).await,
            Some(Conn::Sqlite(conn)) => conn.commit().await,
            None => Ok(()),
        }
        .map_err(StoreError::of_commit)?;
        for (channel, payload) in std::mem::take(&mut self.notices) {
            self.store.announce(channel, payload);
        }
        Ok(())
    }

    pub(super) fn timed(&self, statement: &'static str, took: Duration, ok: bool) {
        self.store.record(statement, took, ok);
    }
}

impl Drop for Tx {
    /// What only read is committed, in the background: it changes nothing, and PostgreSQL would count it as undone. If an answer
    /// was under way it has to come first, but the connection is not kept from others for that as long as a statement may take:
    /// then it is closed.
    fn drop(&mut self) {
        if self.access == Access::Read
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
            && let Some(Conn::Postgres(conn)) = self.conn.take()
        {
            runtime.spawn(async move {
                let _ = within(GRACE, conn.commit()).await;
            });
        }
    }
}

/// A transaction that sees one tenant's rows.
pub struct TenantTx {
    tx: Tx,
    tenant: TenantId,
}

impl TenantTx {
    pub(super) fn new(tx: Tx, tenant: TenantId) -> Self {
        Self { tx, tenant }
    }

    /// Whose.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// Makes everything permanent.
    ///
    /// # Errors
    /// As [`Tx::commit`].
    pub async fn commit(self) -> Result<(), StoreError> {
        self.tx.commit().await
    }
}

/// A transaction that sees every tenant's rows.
pub struct PlatformTx(pub(super) Tx);

impl PlatformTx {
    /// Makes everything permanent.
    ///
    /// # Errors
    /// As [`Tx::commit`].
    pub async fn commit(self) -> Result<(), StoreError> {
        self.0.commit().await
    }
}

impl Deref for TenantTx {
    type Target = Tx;

    fn deref(&self) -> &Tx {
        &self.tx
    }
}

impl DerefMut for TenantTx {
    fn deref_mut(&mut self) -> &mut Tx {
        &mut self.tx
    }
}

impl Deref for PlatformTx {
    type Target = Tx;

    fn deref(&self) -> &Tx {
        &self.0
    }
}

impl DerefMut for PlatformTx {
    fn deref_mut(&mut self) -> &mut Tx {
        &mut self.0
    }
}

/// One tenant's part of the store. The only way to a transaction on tenant tables besides [`Platform`].
///
/// There is no such scope without a tenant:
/// ```compile_fail
/// # async fn f(store: tollgate::store::Store) {
/// store.tenant().begin().await;
/// # }
/// ```
/// nor a transaction without a scope:
/// ```compile_fail
/// # async fn f(store: tollgate::store::Store) {
/// store.begin().await;
/// # }
/// ```
/// while this is one:
/// ```no_run
/// # async fn f(store: tollgate::store::Store) {
/// let _ = store.tenant(&tollgate::base::TenantId::new("acme")).begin().await;
/// # }
/// ```
#[derive(Clone, Copy)]
pub struct TenantScope<'a> {
    store: &'a Store,
    tenant: &'a TenantId,
}

impl<'a> TenantScope<'a> {
    pub(super) fn new(store: &'a Store, tenant: &'a TenantId) -> Self {
        Self { store, tenant }
    }

    /// Whose.
    pub fn tenant(&self) -> &'a TenantId {
        self.tenant
    }

    /// The store.
    pub fn store(&self) -> &'a Store {
        self.store
    }

    /// A transaction that reads and writes.
    ///
    /// # Errors
    /// The database cannot be reached, or the roles are not as they should be.
    pub async fn begin(&self) -> Result<TenantTx, StoreError> {
        let tx = self.store.begin(&Scope::Tenant(self.tenant.clone()), Access::Write).await?;
        Ok(TenantTx::new(tx, self.tenant.clone()))
    }

    /// A transaction that only reads, and sees one state of everything.
    ///
    /// # Errors
    /// As [`TenantScope::begin`].
    pub async fn read(&self) -> Result<TenantTx, StoreError> {
        let tx = self.store.begin(&Scope::Tenant(self.tenant.clone()), Access::Read).await?;
        Ok(TenantTx::new(tx, self.tenant.clone()))
    }
}

/// The whole store, across tenants: for the platform's own work, never on behalf of a tenant.
#[derive(Clone, Copy)]
pub struct Platform<'a>(pub(super) &'a Store);

impl<'a> Platform<'a> {
    /// The store.
    pub fn store(&self) -> &'a Store {
        self.0
    }

    /// A transaction that reads and writes.
    ///
    /// # Errors
    /// The database cannot be reached, or the roles are not as they should be.
    pub async fn begin(&self) -> Result<PlatformTx, StoreError> {
        self.0.begin(&Scope::Platform, Access::Write).await.map(PlatformTx)
    }

    /// A transaction that only reads, and sees one state of everything.
    ///
    /// # Errors
    /// As [`Platform::begin`].
    pub async fn read(&self) -> Result<PlatformTx, StoreError> {
        self.0.begin(&Scope::Platform, Access::Read).await.map(PlatformTx)
    }
}

/// What a transaction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// Waits no longer than `patience`; a server that says nothing until then is not there.
pub(super) async fn within<T>(
    patience: Duration,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    match tokio::time::timeout(patience, answer).await {
        Ok(answer) => answer,
        Err(_) => {
            let why = format!("no answer within {} s", patience.as_secs());
            Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, why)))
        }
    }
}

/// Runs one statement in a transaction: `q!(tx, HOW, SQL, BINDS…)`.
///
/// `HOW` is `execute` (rows affected), `one as T`, `optional as T`, `all as T` (`T: FromRow`), or `scalar as T`,
/// `scalar_optional as T`, `scalar_all as T` (first column). `SQL` is one text for both engines, or twins:
/// `pg "…", lite "…"`. Parameters are `$1`, `$2`, … on both. Binds are evaluated once.
macro_rules! q {
    ($tx:expr, $how:ident $(as $t:ty)?, pg $pg:expr, lite $lite:expr $(, $bind:expr)* $(,)?) => {{
        let started = std::time::Instant::now();
        let patience = $tx.patience();
        let done = match $tx.conn() {
            $crate::store::tx::Conn::Postgres(conn) => $crate::store::tx::within(patience, async {
                $crate::store::tx::q!(@ $how sqlx::Postgres, [$($t)?], conn, $pg, [$($bind),*])
            })
            .await,
            $crate::store::tx::Conn::Sqlite(conn) => {
                $crate::store::tx::q!(@ $how sqlx::Sqlite, [$($t)?], conn, $lite, [$($bind),*])
            }
        };
        $tx.timed($pg, started.elapsed(), done.is_ok());
        done.map_err($crate::store::StoreError::from)
    }};
    ($tx:expr, $how:ident $(as $t:ty)?, $sql:expr $(, $bind:expr)* $(,)?) => {
        $crate::store::tx::q!($tx, $how $(as $t)?, pg $sql, lite $sql $(, $bind)*)
    };
    (@ execute $db:ty, [], $conn:ident, $sql:expr, [$($bind:expr),*]) => {
        sqlx::query::<$db>($sql)$(.bind($bind))*.execute(&mut **$conn).await.map(|done| done.rows_affected())
    };
    (@ one $db:ty, [$t:ty], $conn:ident, $sql:expr, [$($bind:expr),*]) => {
        sqlx::query_as::<$db, $t>($sql)$(.bind($bind))*.fetch_one(&mut **$conn).await
    };
    (@ optional $db:ty, [$t:ty], $conn:ident, $sql:expr, [$($bind:expr),*]) => {
        sqlx::query_as::<$db, $t>($sql)$(.bind($bind))*.fetch_optional(&mut **$conn).await
    };
    (@ all $db:ty, [$t:ty], $conn:ident, $sql:expr, [$($bind:expr),*]) => {
        sqlx::query_as::<$db, $t>($sql)$(.bind($bind))*.fetch_all(&mut **$conn).await
    };
    (@ scalar $db:ty, [$t:ty], $conn:ident, $sql:expr, [$($bind:expr),*]) => {
        sqlx::query_scalar::<$db, $t>($sql)$(.bind($bind))*.fetch_one(&mut **$conn).await
    };
    (@ scalar_optional $db:ty, [$t:ty], $conn:ident, $sql:expr, [$($bind:expr),*]) => {
        sqlx::query_scalar::<$db, $t>($sql)$(.bind($bind))*.fetch_optional(&mut **$conn).await
    };
    (@ scalar_all $db:ty, [$t:ty], $conn:ident, $sql:expr, [$($bind:expr),*]) => {
        sqlx::query_scalar::<$db, $t>($sql)$(.bind($bind))*.fetch_all(&mut **$conn).await
    };
}
pub(crate) use q;
