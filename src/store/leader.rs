//! One process among replicas does what only one should: partitions, retention, roll-ups.
//!
//! On PostgreSQL whoever holds an advisory lock on a connection of its own; the lock goes with the connection. On SQLite
//! there is one process. Each take-over raises an epoch in `leader_locks`, which shows how often and when leadership moved. A
//! leader that loses its connection knows of it within [`BEAT`] and the time of a ping, and finishes what it is at: whatever a
//! leader does must be safe to be done by two.

use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{Postgres, Row as _};
use tokio::sync::watch;
use uuid::Uuid;

use super::engine::Pools;
use super::tx::q;
use super::{Store, StoreError};

/// How often a candidate tries, and a leader makes sure that it still is one.
const BEAT: Duration = Duration::from_secs(1);
/// Longest wait for the answer to that.
const PATIENCE: Duration = Duration::from_secs(5);

/// A candidate for a task that one process does. Dropping it gives the seat up.
pub struct Seat {
    epoch: watch::Receiver<Option<i64>>,
    task: tokio::task::AbortHandle,
}

impl Seat {
    /// The epoch of our leadership; `None` while another process leads.
    pub fn epoch(&self) -> Option<i64> {
        *self.epoch.borrow()
    }

    /// Whether this process leads.
    pub fn is_held(&self) -> bool {
        self.epoch().is_some()
    }

    /// Waits until this process leads. Cancel-safe.
    pub async fn held(&mut self) -> i64 {
        match self.epoch.wait_for(Option::is_some).await.map(|epoch| *epoch) {
            Ok(Some(epoch)) => epoch,
            _ => std::future::pending().await,
        }
    }

    /// Waits until it no longer does. Cancel-safe.
    pub async fn lost(&mut self) {
        let _ = self.epoch.wait_for(Option::is_none).await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Store {
    /// Stands for the seat `name`, as the process `holder`.
    pub fn stand(&self, name: &'static str, holder: Uuid) -> Seat {
        let (sender, epoch) = watch::channel(None);
        let store = self.clone();
        let task = tokio::spawn(async move {
            loop {
                if let Err(error) = hold(&store, name, holder, &sender).await {
                    tracing::debug!(event = "leader_election", seat = name, %error);
                }
                sender.send_if_modified(|epoch| epoch.take().is_some());
                tokio::time::sleep(BEAT).await;
            }
        });
        Seat { epoch, task: task.abort_handle() }
    }
}

/// Returns when the seat is taken by another, or lost.
async fn hold(
    store: &Store,
    name: &'static str,
    holder: Uuid,
    sender: &watch::Sender<Option<i64>>,
) -> Result<(), StoreError> {
    let Pools::Postgres(pools) = &store.0.pools else {
        sender.send_replace(Some(take(store, name, holder).await?));
        return std::future::pending().await;
    };
    let mut conn = Held(Some(pools.reach.through(Box::pin(pools.held.acquire())).await?));
    let key = i64::from_le_bytes(lock_key(name));
    let got: bool = sqlx::query("SELECT pg_try_advisory_lock($1)")
        .bind(key)
        .fetch_one(&mut **conn.get()?)
        .await?
        .try_get(0)?;
    if !got {
        // Nothing is held on it, so it may go back.
        drop(conn.0.take());
        return Ok(());
    }
    sender.send_replace(Some(take(store, name, holder).await?));
    tracing::info!(event = "leader", seat = name);
    loop {
        tokio::time::sleep(BEAT).await;
        let ping = sqlx::query("SELECT 1").execute(&mut **conn.get()?);
        tokio::time::timeout(PATIENCE, ping)
            .await
            .map_err(|_| StoreError::Unavailable(sqlx::Error::PoolTimedOut))??;
    }
}

/// A connection with a lock on it. It is closed, never given back, so that the lock goes whatever happens.
struct Held(Option<PoolConnection<Postgres>>);

impl Held {
    fn get(&mut self) -> Result<&mut PoolConnection<Postgres>, StoreError> {
        self.0.as_mut().ok_or(StoreError::Unavailable(sqlx::Error::PoolClosed))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(mut conn) = self.0.take() {
            conn.close_on_drop();
        }
    }
}

async fn take(store: &Store, name: &str, holder: Uuid) -> Result<i64, StoreError> {
    let mut tx = store.platform().begin().await?;
    let epoch = q!(
        tx,
        scalar as i64,
        "INSERT INTO leader_locks (name, holder, epoch, taken_at) VALUES ($1, $2, 1, $3)
         ON CONFLICT (name) DO UPDATE
            SET holder = excluded.holder, epoch = leader_locks.epoch + 1, taken_at = excluded.taken_at
         RETURNING epoch",
        name,
        holder,
        store.now()
    )?;
    tx.commit().await?;
    Ok(epoch)
}

fn lock_key(name: &str) -> [u8; 8] {
    use sha2::Digest as _;
    let digest: [u8; 32] = sha2::Sha256::digest(format!("tollgate leader {name}").as_bytes()).into();
    let mut key = [0; 8];
    key.copy_from_slice(&digest[..8]);
    key
}
