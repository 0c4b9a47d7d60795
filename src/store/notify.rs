//! Wakes other replicas up: `LISTEN`/`NOTIFY` on PostgreSQL, a channel inside the process on SQLite.
//!
//! Notifications are hints: one may be lost while the connection is away, and then [`Notification::Missed`] says so. What
//! must not be missed is found in the tables. One connection listens for the whole process, from the first listener on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::postgres::PgListener;
use tokio::sync::broadcast;
use tokio::task::AbortHandle;

use super::engine::Pools;
use super::{Store, StoreError};
use crate::base::Scope;

/// Notifications that a slow listener may be behind before it is told that it missed some.
const BACKLOG: usize = 1_024;
/// Wait between two attempts to listen again.
const AGAIN: Duration = Duration::from_millis(500);

/// What a notification is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Events of the audit were written. Payload: see [`super::AuditNotice`].
    Audit,
    /// A head moved. Payload: the scope.
    Config,
    /// There are changes of identities. Payload: the sequence number.
    Identity,
    /// Sessions to be closed, and kin.
    Sessions,
}

impl Channel {
    const ALL: [Self; 4] = [Self::Audit, Self::Config, Self::Identity, Self::Sessions];

    /// Its name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Audit => "tollgate_audit",
            Self::Config => "tollgate_config",
            Self::Identity => "tollgate_identity",
            Self::Sessions => "tollgate_sessions",
        }
    }
}

/// What a listener hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notification {
    /// Somebody notified.
    Message {
        /// About what.
        channel: Channel,
        /// What they said.
        payload: String,
    },
    /// There may have been notifications that were not heard: look into the tables.
    Missed,
}

/// Hears notifications from the time it was made.
pub struct Listener {
    receiver: broadcast::Receiver<Notification>,
    // The channel is the store's: as long as somebody listens, it stays.
    _store: Store,
}

impl Listener {
    /// The next notification. Cancel-safe.
    pub async fn next(&mut self) -> Notification {
        match self.receiver.recv().await {
            Ok(notification) => notification,
            Err(broadcast::error::RecvError::Lagged(_)) => Notification::Missed,
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

pub(super) struct Notices {
    sender: broadcast::Sender<Notification>,
    started: AtomicBool,
    task: parking_lot::Mutex<Option<AbortHandle>>,
}

impl Default for Notices {
    fn default() -> Self {
        Self {
            sender: broadcast::channel(BACKLOG).0,
            started: AtomicBool::new(false),
            task: parking_lot::Mutex::new(None),
        }
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

impl Store {
    /// Listens to all channels. On PostgreSQL the first thing heard is [`Notification::Missed`], once listening began.
    pub fn listen(&self) -> Listener {
        let notices = &self.0.notices;
        let receiver = notices.sender.subscribe();
        if let Pools::Postgres(pools) = &self.0.pools
            && !notices.started.swap(true, Ordering::SeqCst)
        {
            let task = tokio::spawn(relay(pools.held.clone(), notices.sender.clone()));
            *notices.task.lock() = Some(task.abort_handle());
        }
        Listener { receiver, _store: self.clone() }
    }

    /// Notifies at once, outside of any transaction.
    ///
    /// # Errors
    /// The database.
    pub async fn notify(&self, channel: Channel, payload: &str) -> Result<(), StoreError> {
        let mut tx = self.begin(&Scope::Platform, super::tx::Access::Write).await?;
        tx.notify(channel, payload).await?;
        tx.commit().await
    }

    /// Tells listeners inside of this process.
    pub(super) fn announce(&self, channel: Channel, payload: String) {
        // Nobody listens: nobody to tell.
        let _ = self.0.notices.sender.send(Notification::Message { channel, payload });
    }
}

async fn relay(pool: sqlx::PgPool, sender: broadcast::Sender<Notification>) {
    loop {
        if let Err(error) = listen(&pool, &sender).await {
            tracing::debug!(event = "store_listener_lost", %error);
        }
        if pool.is_closed() {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Listens until the connection is lost.
async fn listen(pool: &sqlx::PgPool, sender: &broadcast::Sender<Notification>) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen_all(Channel::ALL.map(Channel::name)).await?;
    let _ = sender.send(Notification::Missed);
    while let Some(heard) = listener.try_recv().await? {
        let Some(channel) = Channel::ALL.into_iter().find(|c| c.name() == heard.channel()) else { continue };
        let payload = heard.payload().to_owned();
        let _ = sender.send(Notification::Message { channel, payload });
    }
    Ok(())
}
