//! The long-lived streams of one replica: what an operator can see of them, and the means to end one.
//!
//! A stream is listed while its guard lives. Ending one is polite: the relay sees it at its next turn and finishes the
//! response as at shutdown. Modern streams belong to no session, so this list is apart from the sessions' records.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Serial;
use crate::base::{PrincipalId, RouteId, TenantId};

/// What a stream belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// Whose tenant.
    pub tenant: TenantId,
    /// On which route.
    pub route: RouteId,
    /// Who listens.
    pub principal: PrincipalId,
    /// The legacy session, if there is one.
    pub session: Option<Serial>,
    /// Since when, in seconds since the Unix epoch.
    pub since: u64,
}

/// An open stream.
#[derive(Debug)]
pub struct OpenStream {
    id: u64,
    info: StreamInfo,
    closed: AtomicBool,
    ended: Notify,
}

/// All open streams. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Streams(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    next: AtomicU64,
    open: Mutex<BTreeMap<u64, Arc<OpenStream>>>,
}

/// Lists a stream until it is dropped.
#[derive(Debug)]
pub struct Listed {
    streams: Streams,
    stream: Arc<OpenStream>,
}

impl Streams {
    /// Lists a stream.
    pub fn list_open(&self, info: StreamInfo) -> Listed {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let stream = Arc::new(OpenStream { id, info, closed: AtomicBool::new(false), ended: Notify::new() });
        self.0.open.lock().insert(id, stream.clone());
        Listed { streams: self.clone(), stream }
    }

    /// Up to `limit` streams that `which` chooses, oldest first, after the one with the id `after`.
    pub fn page(
        &self,
        after: Option<u64>,
        limit: usize,
        which: impl Fn(&StreamInfo) -> bool,
    ) -> Vec<Arc<OpenStream>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let open = self.0.open.lock();
        let chosen = open.range((from, Bound::Unbounded)).map(|(_, s)| s).filter(|s| which(&s.info));
        chosen.take(limit).cloned().collect()
    }

    /// Ends a tenant's stream; `false` if it has none with this id.
    pub fn close(&self, tenant: &TenantId, id: u64) -> bool {
        let found = self.0.open.lock().get(&id).filter(|s| s.info.tenant == *tenant).cloned();
        if let Some(stream) = &found {
            stream.closed.store(true, Ordering::Release);
            stream.ended.notify_waiters();
        }
        found.is_some()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.open.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl OpenStream {
    /// Its number in this process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What it belongs to.
    pub fn info(&self) -> &StreamInfo {
        &self.info
    }

    /// Waits until an operator ends it. Cancel-safe.
    pub async fn closed(&self) {
        let mut notified = std::pin::pin!(self.ended.notified());
        // Registered before the flag is read, or a close in between would be missed.
        notified.as_mut().enable();
        if !self.closed.load(Ordering::Acquire) {
            notified.await;
        }
    }
}

impl Listed {
    /// The stream.
    pub fn stream(&self) -> &Arc<OpenStream> {
        &self.stream
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.streams.0.open.lock().remove(&self.stream.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(tenant: &str, principal: &str) -> StreamInfo {
        StreamInfo {
            tenant: TenantId::new(tenant),
            route: RouteId::new("r"),
            principal: PrincipalId::new(principal),
            session: None,
            since: 1,
        }
    }

    #[test]
    fn streams_are_listed_in_pages_while_they_are_open() {
        let streams = Streams::default();
        let open: Vec<Listed> =
            (0..5).map(|i| streams.list_open(info("t", &format!("p{}", i % 2)))).collect();
        let ids = |after, limit, principal: &str| -> Vec<u64> {
            let page = streams.page(after, limit, |i| i.principal.as_str() == principal);
            page.iter().map(|s| s.id()).collect()
        };
        assert_eq!(ids(None, 2, "p0"), [0, 2]);
        assert_eq!(ids(Some(2), 2, "p0"), [4]);
        drop(open);
        assert!(streams.is_empty());
    }

    #[tokio::test]
    async fn a_stream_ends_only_for_its_own_tenant_and_whenever_it_is_asked() {
        let streams = Streams::default();
        let listed = streams.list_open(info("t", "p"));
        assert!(!streams.close(&TenantId::new("other"), 0));
        assert!(!streams.close(&TenantId::new("t"), 7));
        assert!(streams.close(&TenantId::new("t"), 0));
        listed.stream().closed().await;
    }
}
