//! Changes that are announced to subscribers: lists that changed and a resource that was updated.
//!
//! Modern clients hear of them on their `subscriptions/listen` stream, legacy clients on the standalone stream of their
//! session. A change bumps a counter that shows in the list (or the content), so whoever re-reads sees the difference.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rmcp::service::SubscriptionContext;
use rmcp::{Peer, RoleServer};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::catalog::WATCHED_RESOURCE;

/// Changes that may wait for a slow subscriber; one that lags is told that everything changed.
const BACKLOG: usize = 64;

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    PromptList,
    ResourceList,
    ToolList,
    WatchedResource,
}

impl Change {
    pub const ALL: [Change; 4] =
        [Change::PromptList, Change::ResourceList, Change::ToolList, Change::WatchedResource];
}

/// The hub: counts changes and tells everybody.
pub struct Changes {
    counts: [AtomicU64; Change::ALL.len()],
    listeners: broadcast::Sender<Change>,
    sessions: Mutex<Vec<Session>>,
}

/// A legacy session that wants to hear of changes.
struct Session {
    peer: Peer<RoleServer>,
    subscribed: Arc<Mutex<BTreeSet<String>>>,
}

impl Changes {
    pub fn new() -> Self {
        Self {
            counts: Default::default(),
            listeners: broadcast::channel(BACKLOG).0,
            sessions: Mutex::default(),
        }
    }

    /// How often this has changed since the start.
    pub fn count(&self, change: Change) -> u64 {
        self.counts[change as usize].load(Ordering::Relaxed)
    }

    /// A receiver of everything that changes from now on.
    pub fn listen(&self) -> broadcast::Receiver<Change> {
        self.listeners.subscribe()
    }

    /// Remembers a legacy session until its transport closes.
    pub fn add_session(&self, peer: Peer<RoleServer>, subscribed: Arc<Mutex<BTreeSet<String>>>) {
        let mut sessions = self.sessions.lock();
        sessions.retain(|s| !s.peer.is_transport_closed());
        sessions.push(Session { peer, subscribed });
    }

    /// Counts a change and announces it.
    pub async fn announce(&self, change: Change) {
        self.counts[change as usize].fetch_add(1, Ordering::Relaxed);
        // No receiver is normal: nobody listens.
        let _ = self.listeners.send(change);
        let peers: Vec<_> = {
            let mut sessions = self.sessions.lock();
            sessions.retain(|s| !s.peer.is_transport_closed());
            let wants = |s: &&Session| {
                change != Change::WatchedResource || s.subscribed.lock().contains(WATCHED_RESOURCE)
            };
            sessions.iter().filter(wants).map(|s| s.peer.clone()).collect()
        };
        for peer in peers {
            let sent = match change {
                Change::PromptList => peer.notify_prompt_list_changed().await,
                Change::ResourceList => peer.notify_resource_list_changed().await,
                Change::ToolList => peer.notify_tool_list_changed().await,
                Change::WatchedResource => {
                    let params = rmcp::model::ResourceUpdatedNotificationParam::new(WATCHED_RESOURCE);
                    peer.notify_resource_updated(params).await
                }
            };
            if let Err(error) = sent {
                tracing::debug!(%error, ?change, "a session did not take a change");
            }
        }
    }
}

/// Relays changes to one `subscriptions/listen` stream until it is cancelled.
pub async fn relay(context: SubscriptionContext, mut changes: broadcast::Receiver<Change>) {
    loop {
        let change = tokio::select! {
            () = context.cancelled() => return,
            change = changes.recv() => change,
        };
        match change {
            Ok(change) => tell(&context, change).await,
            Err(RecvError::Lagged(_)) => {
                for change in Change::ALL {
                    tell(&context, change).await;
                }
            }
            Err(RecvError::Closed) => return,
        }
    }
}

/// The sink itself drops what the client did not ask for.
async fn tell(context: &SubscriptionContext, change: Change) {
    let sink = context.sink();
    let sent = match change {
        Change::PromptList => sink.notify_prompt_list_changed().await,
        Change::ResourceList => sink.notify_resource_list_changed().await,
        Change::ToolList => sink.notify_tool_list_changed().await,
        Change::WatchedResource => sink.notify_resource_updated(WATCHED_RESOURCE).await,
    };
    if let Err(error) = sent {
        tracing::debug!(%error, ?change, "not sent on a subscription");
    }
}
