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
use super::tx::within;
use super::{Store, StoreError};
use crate::base::Scope;

/// Notifications that a slow listener may be behind before it is told that it missed some.
const BACKLOG: usize = 1_024;
/// How long nothing may be heard before the database is asked whether it is still there.
const QUIET: Duration = Duration::from_secs(15);
/// Longest wait for the answer to that.
const PATIENCE: Duration = Duration::from_secs(5);
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
        let _ = self.0.notices.sender.send(Notification::Message { channel, payload });
    }
}

async fn relay(held: sqlx::PgPool, sender: broadcast::Sender<Notification>) {
    loop {
        // A pool of its own each time: a connection that hangs on its way out takes no place from who comes after it.
        let own = held.options().clone().max_connections(1);
        let own = own.connect_lazy_with((*held.connect_options()).clone());
        match held.close_event().do_until(listen(&own, &sender)).await {
            Err(_) => return,
            Ok(Err(error)) => tracing::debug!(event = "store_listener_lost", %error),
            Ok(Ok(())) => {}
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Listens until the connection is lost.
async fn listen(pool: &sqlx::PgPool, sender: &broadcast::Sender<Notification>) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen_all(Channel::ALL.map(Channel::name)).await?;
    // As to all that is sent here: nobody listens, nobody to tell.
    let _ = sender.send(Notification::Missed);
    loop {
        let heard = match tokio::time::timeout(QUIET, listener.try_recv()).await {
            Ok(Ok(Some(heard))) => heard,
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                // Nobody has anything to say, or there is nobody any more: a connection that was lost without a word says
                // nothing either.
                within(PATIENCE, sqlx::query("SELECT 1").execute(&mut listener)).await?;
                continue;
            }
        };
        let Some(channel) = Channel::ALL.into_iter().find(|c| c.name() == heard.channel()) else { continue };
        let payload = heard.payload().to_owned();
        let _ = sender.send(Notification::Message { channel, payload });
    }
}
