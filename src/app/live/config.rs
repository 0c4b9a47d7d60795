//! Documents: heads that moved, and what each replica does with them.
//!
//! After a head moved, its scope is watched until every live replica serves the revision or has refused it, at most for
//! [`PATIENCE`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval};
use uuid::Uuid;

use crate::app::admin::Admin;
use crate::base::{Scope, TenantId};
use crate::control::ControlState as _;
use crate::control::events::{Hub, Topic};
use crate::source::replica::{LIVE, convergence};
use crate::store::{Channel, Head, Listener, Notification, Page, Store, StoreError};

/// How often replicas are asked about.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// How often heads are looked at without a notification.
const HEADS_EVERY: Duration = Duration::from_secs(2);
/// How long replicas are watched after a head moved.
const PATIENCE: Duration = Duration::from_secs(60);
/// Scopes that are watched at once.
const MAX_WATCHED: usize = 64;
/// Heads that are told of at once.
const MAX_HEADS: usize = 500;
/// How often a process that reads a file is asked whether it read it again.
const RELOADS_EVERY: Duration = Duration::from_secs(1);

/// A scope whose head moved.
struct Watched {
    revision: i64,
    until: Instant,
    /// What was told of each process: what it serves, and what it refused.
    told: BTreeMap<Uuid, (i64, Option<i64>)>,
}

struct Follower {
    store: Store,
    hub: Arc<Hub>,
    /// The generation of the last head that was told of; `None` until the store was asked.
    seen: Option<i64>,
    watched: BTreeMap<Scope, Watched>,
}

/// Follows until dropped.
pub(super) async fn follow(store: Store, hub: Arc<Hub>) {
    let mut listener = store.listen();
    let mut this = Follower { store, hub, seen: None, watched: BTreeMap::new() };
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heads = interval(HEADS_EVERY);
    heads.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let done = tokio::select! {
            () = moved(&mut listener) => this.heads().await,
            _ = heads.tick() => this.heads().await,
            _ = look.tick(), if !this.watched.is_empty() => this.replicas().await,
        };
        if let Err(error) = done {
            // It is asked again; what moved meanwhile is told of then.
            tracing::debug!(event = "heads_not_followed", %error);
        }
    }
}

/// Waits for word that a head may have moved.
async fn moved(listener: &mut Listener) {
    loop {
        match listener.next().await {
            Notification::Message { channel: Channel::Config, .. } | Notification::Missed => return,
            Notification::Message { .. } => {}
        }
    }
}

fn owner(scope: &Scope) -> Option<TenantId> {
    match scope {
        Scope::Platform => None,
        Scope::Tenant(tenant) => Some(tenant.clone()),
    }
}

impl Follower {
    async fn heads(&mut self) -> Result<(), StoreError> {
        let mut heads = self.store.platform().heads(self.seen.unwrap_or(0)).await?;
        let last = heads.last().map(|head| head.generation);
        let begun = self.seen.is_some();
        if begun {
            if heads.len() > MAX_HEADS {
                self.hub.lose(Topic::Config, None);
                heads.drain(..heads.len() - MAX_HEADS);
            }
            for head in heads {
                self.head(&head).await?;
                self.seen = Some(head.generation);
            }
        }
        self.seen = last.or(self.seen).or(Some(0));
        Ok(())
    }

    async fn head(&mut self, head: &Head) -> Result<(), StoreError> {
        let scope = Scope::parse(&head.scope);
        let before = head.revision.saturating_add(1);
        let found = self.store.platform().history(&scope, Some(before), Page::of(1)).await?;
        let Some(revision) = found.first() else { return Ok(()) };
        let data = json!({
            "kind": "published",
            "scope": scope.as_str(),
            "revision": revision.revision,
            "parent": revision.parent,
            "author": revision.author,
            "reason": revision.reason,
            "time": revision.created_at.to_string(),
        });
        self.hub.publish(Topic::Config, owner(&scope), data);
        if self.watched.len() < MAX_WATCHED || self.watched.contains_key(&scope) {
            let until = Instant::now() + PATIENCE;
            let watched = Watched { revision: head.revision, until, told: BTreeMap::new() };
            self.watched.insert(scope, watched);
        }
        Ok(())
    }

    async fn replicas(&mut self) -> Result<(), StoreError> {
        let (mut over, mut failed) = (Vec::new(), None);
        for (scope, watched) in &mut self.watched {
            let state = match convergence(&self.store, scope, watched.revision, LIVE).await {
                Ok(state) => state,
                Err(error) => {
                    // Of those before it is told once.
                    failed = Some(error);
                    break;
                }
            };
            let tell = |mut data: serde_json::Value| {
                data["scope"] = json!(scope.as_str());
                self.hub.publish(Topic::Config, owner(scope), data);
            };
            for position in &state.positions {
                let refused = position.refused.as_ref().filter(|(r, _)| *r >= watched.revision);
                let now = (position.served, refused.map(|(revision, _)| *revision));
                if watched.told.insert(position.replica.boot, now) == Some(now) {
                    continue;
                }
                let replica = &position.replica.replica;
                match refused {
                    Some((revision, reason)) => tell(json!({
                        "kind": "refused", "replica": replica, "revision": revision, "reason": reason,
                        "serves": position.served,
                    })),
                    None if position.served >= watched.revision => {
                        tell(json!({ "kind": "served", "replica": replica, "revision": position.served }));
                    }
                    None => {}
                }
            }
            let replicas = state.positions.len();
            if state.is_complete() {
                tell(json!({ "kind": "converged", "revision": watched.revision, "replicas": replicas }));
            } else if state.is_settled() || Instant::now() >= watched.until {
                tell(json!({
                    "kind": "not_converged", "revision": watched.revision, "replicas": replicas,
                    "serving": state.serving(),
                }));
            } else {
                continue;
            }
            over.push(scope.clone());
        }
        over.iter().for_each(|scope| drop(self.watched.remove(scope)));
        failed.map_or(Ok(()), Err)
    }
}

/// Tells of each time that the process reads its file. Runs until dropped.
pub(super) async fn reloads(shown: Arc<Admin>, hub: Arc<Hub>) {
    let mut tick = interval(RELOADS_EVERY);
    let mut seen = shown.last_reload().map(|last| last.at);
    loop {
        tick.tick().await;
        let Some(last) = shown.last_reload().filter(|last| Some(last.at) != seen) else { continue };
        seen = Some(last.at);
        let data = json!({
            "kind": "reloaded", "outcome": last.outcome, "error": last.error,
            "revision": shown.readiness().snapshot.map(|s| s.revision),
        });
        hub.publish(Topic::Config, None, data);
    }
}
