//! What a replica remembers of a session.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::state::{PendingReply, State, StateError, Upstream};
use super::tenant::Tenant;
use super::{Binding, LogLevel, Serial, SessionToken};
use crate::base::{PrincipalId, RouteId, TenantId};
use crate::mcp::version::Version;

const NO_LEVEL: u8 = u8::MAX;
/// Set in the stream count of a record that is no longer in the registry.
const RETIRED: u32 = 1 << 31;

/// The changing part of a session, at its home replica.
///
/// 160 bytes with its reference counts and about 45 for its place in the registry. Subscriptions, pending requests and
/// upstream sessions are kept apart and take nothing until there are some. Whoever holds the `Arc` may use it freely;
/// nothing here blocks but for a few list operations.
#[derive(Debug)]
pub struct Record {
    serial: Serial,
    tenant: Arc<Tenant>,
    route: RouteId,
    principal: PrincipalId,
    created: u64,
    last_seen: AtomicU64,
    generation: AtomicU64,
    state: Mutex<Option<Box<State>>>,
    ended: Notify,
    streams: AtomicU32,
    max_streams: u32,
    log_level: AtomicU8,
    closed: AtomicBool,
    version: Version,
}

/// No stream may be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamRefused {
    /// The record was dropped from the registry meanwhile: touch the session again.
    #[error("the session record is no longer current")]
    Retired,
    /// The session has as many streams as it may have. The client's fault.
    #[error("the session has too many open streams")]
    TooMany,
}

impl Record {
    pub(super) fn new(
        token: &SessionToken<'_>,
        binding: Binding<'_>,
        tenant: Arc<Tenant>,
        now: u64,
        max_streams: u32,
    ) -> Self {
        Self {
            serial: token.serial,
            tenant,
            route: binding.route.clone(),
            principal: binding.principal.clone(),
            created: token.issued_at,
            last_seen: AtomicU64::new(now),
            generation: AtomicU64::new(0),
            state: Mutex::new(None),
            ended: Notify::new(),
            streams: AtomicU32::new(0),
            max_streams: max_streams.min(RETIRED - 1),
            log_level: AtomicU8::new(NO_LEVEL),
            closed: AtomicBool::new(false),
            version: token.version,
        }
    }

    /// Which session it is; safe to log and to show.
    pub fn serial(&self) -> Serial {
        self.serial
    }

    /// Whose session it is.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant.id
    }

    /// On which route.
    pub fn route(&self) -> &RouteId {
        &self.route
    }

    /// Who opened it.
    pub fn principal(&self) -> &PrincipalId {
        &self.principal
    }

    /// The revision that was agreed.
    pub fn version(&self) -> Version {
        self.version
    }

    /// When the session began, in seconds since the Unix epoch.
    pub fn created(&self) -> u64 {
        self.created
    }

    /// When it was used last, in seconds since the Unix epoch.
    pub fn last_seen(&self) -> u64 {
        self.last_seen.load(Ordering::Relaxed)
    }

    /// How many streams of the client are open.
    pub fn streams(&self) -> u32 {
        self.streams.load(Ordering::Relaxed) & !RETIRED
    }

    /// Counts a stream as open until the guard is dropped. A session with an open stream is never idle.
    ///
    /// # Errors
    /// [`StreamRefused`].
    pub fn open_stream(self: &Arc<Self>) -> Result<StreamGuard, StreamRefused> {
        let next = |n: u32| (n & RETIRED == 0 && n < self.max_streams).then_some(n + 1);
        match self.streams.fetch_update(Ordering::AcqRel, Ordering::Acquire, next) {
            Ok(_) => Ok(StreamGuard(self.clone())),
            Err(n) if n & RETIRED != 0 => Err(StreamRefused::Retired),
            Err(_) => Err(StreamRefused::TooMany),
        }
    }

    /// The level that `logging/setLevel` asked for.
    pub fn log_level(&self) -> Option<LogLevel> {
        LogLevel::from_code(self.log_level.load(Ordering::Relaxed))
    }

    /// Remembers what `logging/setLevel` asked for, to repeat it after recovery.
    pub fn set_log_level(&self, level: LogLevel) {
        self.log_level.store(level as u8, Ordering::Relaxed);
    }

    /// Counts the changes of upstream sessions.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The upstream session with a server, and the generation at which it was read.
    pub fn upstream(&self, server: &str) -> (u64, Option<Upstream>) {
        let state = self.state.lock();
        let known = state.as_ref().and_then(|s| s.upstreams.iter().find(|u| *u.server == *server).cloned());
        (self.generation(), known)
    }

    /// All upstream sessions, to end or to re-establish them.
    pub fn upstreams(&self) -> Vec<Upstream> {
        self.state.lock().as_ref().map_or_else(Vec::new, |s| s.upstreams.clone())
    }

    /// Puts an upstream session in place of what was known at `generation`. Of several requests that find the same dead
    /// session only the first succeeds; the others read again and use what it put there.
    ///
    /// # Errors
    /// [`StateError::Stale`] or [`StateError::Full`].
    pub fn set_upstream(&self, generation: u64, upstream: Upstream) -> Result<u64, StateError> {
        let mut state = self.state.lock();
        if self.generation() != generation {
            return Err(StateError::Stale);
        }
        state.get_or_insert_default().set_upstream(upstream)?;
        self.generation.store(generation + 1, Ordering::Release);
        Ok(generation + 1)
    }

    /// Remembers a subscription; `false` if it was known.
    ///
    /// # Errors
    /// [`StateError::Full`] over [`super::MAX_SUBSCRIPTIONS`] or [`super::MAX_SUBSCRIPTION_BYTES`].
    pub fn subscribe(&self, uri: &str) -> Result<bool, StateError> {
        self.state.lock().get_or_insert_default().subscribe(uri)
    }

    /// Forgets a subscription; `false` if there was none.
    pub fn unsubscribe(&self, uri: &str) -> bool {
        self.state.lock().as_mut().is_some_and(|s| s.unsubscribe(uri))
    }

    /// The subscribed URIs, to replay them after recovery.
    pub fn subscriptions(&self) -> Vec<Box<str>> {
        self.state.lock().as_ref().map_or_else(Vec::new, |s| s.subscriptions().to_vec())
    }

    /// Remembers that a server's request went to the client under `id` (raw JSON).
    ///
    /// # Errors
    /// [`StateError::Duplicate`], or [`StateError::Full`] over [`super::MAX_PENDING`] or
    /// [`super::MAX_PENDING_BYTES`].
    pub fn expect_reply(&self, id: &str, reply: PendingReply) -> Result<(), StateError> {
        self.state.lock().get_or_insert_default().expect_reply(id, reply)
    }

    /// Where the client's answer under `id` goes; each is taken once.
    pub fn take_reply(&self, id: &str) -> Option<PendingReply> {
        self.state.lock().as_mut()?.take_reply(id)
    }

    /// How many requests of servers wait for an answer.
    pub fn pending(&self) -> usize {
        self.state.lock().as_ref().map_or(0, |s| s.pending())
    }

    /// Whether the session was ended: by the client, by an operator, or by age.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Waits until [`Record::is_closed`]. Streams of the session end then. Cancel-safe.
    pub async fn closed(&self) {
        let mut notified = std::pin::pin!(self.ended.notified());
        // Registered before the flag is read, or a close in between would be missed.
        notified.as_mut().enable();
        if !self.is_closed() {
            notified.await;
        }
    }

    pub(super) fn belongs_to(&self, binding: Binding<'_>) -> bool {
        self.tenant.id == *binding.tenant
            && self.route == *binding.route
            && self.principal == *binding.principal
    }

    pub(super) fn tenant_counts(&self) -> &Arc<Tenant> {
        &self.tenant
    }

    pub(super) fn seen_at(&self, now: u64) {
        // Not `fetch_max`: most requests of a second find the value already there and write nothing.
        if self.last_seen.load(Ordering::Relaxed) < now {
            self.last_seen.store(now, Ordering::Relaxed);
        }
    }

    /// Takes the record out of use if no stream is open. `true`: nobody can open one any more.
    pub(super) fn retire_if_idle(&self) -> bool {
        self.streams.compare_exchange(0, RETIRED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Takes the record out of use and ends its streams.
    pub(super) fn close(&self) {
        self.streams.fetch_or(RETIRED, Ordering::AcqRel);
        self.closed.store(true, Ordering::Release);
        self.ended.notify_waiters();
    }
}

/// An open stream of a session.
#[derive(Debug)]
pub struct StreamGuard(Arc<Record>);

impl StreamGuard {
    /// The session.
    pub fn record(&self) -> &Arc<Record> {
        &self.0
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::AcqRel);
    }
}
