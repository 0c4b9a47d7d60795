//! One place keys come from, its current set and the schedule of its refreshes.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};

use crate::auth::jwks::{FetchError, KeyPrint, KeySet};
use crate::base::guard::AddressGuard;
use crate::base::{Clock, TenantId};

/// The longest wait for a refresh on behalf of a request.
pub const MAX_REFRESH_WAIT: Duration = Duration::from_secs(2);
/// An unknown key id triggers a refresh at most this often.
const TRIGGER_EVERY: Duration = Duration::from_secs(30);
/// The first wait after a failure; it doubles up to the refresh interval.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The shortest refresh interval: a source is never polled faster.
const MIN_REFRESH: Duration = Duration::from_secs(5);
/// How many requests may wait for one source; more are answered at once.
const MAX_WAITERS: usize = 1024;
/// The most warnings that a status keeps.
const MAX_WARNINGS: usize = 16;

/// Where keys come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum JwksLocation {
    /// The `jwks_uri` in the OpenID configuration of this issuer URL.
    Discovery(String),
    /// A JWKS file, read again at each refresh.
    File(PathBuf),
    /// The JWKS document itself.
    Inline(String),
    /// The URL of a JWKS document.
    Url(String),
}

/// A source of keys. Two equal specs share one source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JwksSpec {
    /// Where the keys are.
    pub location: JwksLocation,
    /// How often they are fetched; at least 5 s.
    pub refresh: Duration,
    /// How old keys may get when fetching fails before they are no longer used; at least `refresh`.
    pub max_stale: Duration,
    /// Allows `http://` to hosts that are not loopback. Whoever is on the way can then forge any token.
    pub allow_http: bool,
    /// Whose source it is: tenants share none, so that none can hold up another's keys.
    pub tenant: TenantId,
    /// Which addresses may be dialled for it.
    pub guard: AddressGuard,
    /// Whether the keys of an OpenID configuration must be at the issuer itself.
    pub same_origin: bool,
}

impl JwksSpec {
    /// A source with the defaults: fetched every 5 minutes (files: every 10 s), usable for 24 hours without success.
    pub fn new(location: JwksLocation) -> Self {
        let refresh = match location {
            JwksLocation::File(_) => Duration::from_secs(10),
            _ => Duration::from_secs(300),
        };
        Self {
            location,
            refresh,
            max_stale: Duration::from_secs(24 * 3600),
            allow_http: false,
            tenant: TenantId::default(),
            guard: AddressGuard::AllowAll,
            same_origin: false,
        }
    }

    fn check(&self) -> Result<(), JwksError> {
        if self.refresh < MIN_REFRESH {
            return Err(JwksError::Spec("`refresh` must be at least 5 s"));
        }
        if self.max_stale < self.refresh {
            return Err(JwksError::Spec("`max_stale` must be at least `refresh`"));
        }
        match &self.location {
            JwksLocation::Discovery(url) | JwksLocation::Url(url) => check_url(url, self.allow_http),
            JwksLocation::File(_) | JwksLocation::Inline(_) => Ok(()),
        }
    }
}

impl fmt::Display for JwksSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            // A query may hold a key of the operator's.
            JwksLocation::Discovery(url) | JwksLocation::Url(url) => {
                f.write_str(url.split(['?', '#']).next().unwrap_or_default())
            }
            JwksLocation::File(path) => path.display().fmt(f),
            JwksLocation::Inline(_) => f.write_str("inline"),
        }
    }
}

/// Refuses everything but absolute `https` URLs without user info; `http` if allowed or to loopback.
pub(crate) fn check_url(url: &str, allow_http: bool) -> Result<(), JwksError> {
    let uri: http::Uri = url.parse().map_err(|_| JwksError::Spec("not a URL"))?;
    let authority = uri.authority().ok_or(JwksError::Spec("the URL must be absolute"))?;
    if authority.as_str().contains('@') {
        return Err(JwksError::Spec("the URL must not hold user info"));
    }
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    let loopback = host == "localhost" || address.is_ok_and(|ip| ip.is_loopback());
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if allow_http || loopback => Ok(()),
        Some("http") => Err(JwksError::Spec("the URL must be https")),
        _ => Err(JwksError::Spec("the URL must be http or https")),
    }
}

/// Why keys could not be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// The attempt was abandoned.
    #[error("the refresh was abandoned")]
    Abandoned,
    /// The document could not be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The document is not a JWKS.
    #[error("not a JWKS: {0}")]
    Malformed(String),
    /// The source is configured in a way that cannot work.
    #[error("{0}")]
    Spec(&'static str),
    /// The document is larger than [`MAX_JWKS_BYTES`](crate::auth::MAX_JWKS_BYTES).
    #[error("the JWKS is larger than 1 MiB")]
    TooLarge,
}

/// What readiness, metrics and the API want to know about a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwksStatus {
    /// Where the keys come from, without secrets.
    pub location: String,
    /// How many keys are in use.
    pub keys: usize,
    /// Seconds since the last successful refresh; none if there was none.
    pub age_secs: Option<u64>,
    /// Whether the keys may be used now.
    pub usable: bool,
    /// Failures since the last success.
    pub failures: u32,
    /// Why the last refresh failed; none if it did not.
    pub last_error: Option<String>,
    /// Keys that were skipped, and why.
    pub warnings: Vec<String>,
}

/// A source of keys and the set it last gave. Shared by all issuers, of all tenants, with an equal spec.
pub struct JwksSource {
    spec: JwksSpec,
    clock: Clock,
    set: ArcSwap<KeySet>,
    /// Unix seconds until which the set may be used; 0 before the first success.
    usable_until: AtomicU64,
    state: Mutex<State>,
    /// Counts finished refreshes; requests that wait watch it.
    finished: watch::Sender<u64>,
    waiters: Semaphore,
    wake: Arc<Notify>,
}

struct State {
    due_ns: u64,
    in_flight: bool,
    triggered_ns: Option<u64>,
    failures: u32,
    last_error: Option<String>,
    last_success: Option<u64>,
    warnings: Vec<String>,
}

impl JwksSource {
    pub(super) fn new(spec: JwksSpec, clock: Clock, wake: Arc<Notify>) -> Result<Arc<Self>, JwksError> {
        spec.check()?;
        let inline = match &spec.location {
            JwksLocation::Inline(document) => Some(KeySet::parse(document.as_bytes())?),
            _ => None,
        };
        let mut state = State {
            due_ns: 0,
            in_flight: false,
            triggered_ns: None,
            failures: 0,
            last_error: None,
            last_success: None,
            warnings: Vec::new(),
        };
        let mut set = KeySet::default();
        let mut usable_until = 0;
        if let Some((keys, warnings)) = inline {
            set = keys;
            usable_until = u64::MAX;
            state.due_ns = u64::MAX;
            state.last_success = Some(clock.unix_secs());
            state.warnings = warnings.into_iter().take(MAX_WARNINGS).collect();
        }
        Ok(Arc::new(Self {
            spec,
            clock,
            set: ArcSwap::from_pointee(set),
            usable_until: AtomicU64::new(usable_until),
            state: Mutex::new(state),
            finished: watch::Sender::new(0),
            waiters: Semaphore::new(MAX_WAITERS),
            wake,
        }))
    }

    /// What the source was made from.
    pub fn spec(&self) -> &JwksSpec {
        &self.spec
    }

    /// Hot: whether a key that once verified a token is still listed, and the list fresh enough.
    pub(crate) fn holds(&self, print: &KeyPrint, now_unix: u64) -> bool {
        self.is_usable(now_unix) && self.set.load().holds(print)
    }

    /// The current keys, unless they are too old or were never loaded.
    pub(crate) fn current(&self, now_unix: u64) -> Option<Arc<KeySet>> {
        self.is_usable(now_unix).then(|| self.set.load_full())
    }

    /// Whether there are keys that may be used.
    pub fn is_usable(&self, now_unix: u64) -> bool {
        now_unix < self.usable_until.load(Ordering::Acquire)
    }

    /// How the source is doing.
    pub fn status(&self) -> JwksStatus {
        let now = self.clock.unix_secs();
        let state = self.state.lock();
        JwksStatus {
            location: self.spec.to_string(),
            keys: self.set.load().len(),
            age_secs: state.last_success.map(|at| now.saturating_sub(at)),
            usable: self.is_usable(now),
            failures: state.failures,
            last_error: state.last_error.clone(),
            warnings: state.warnings.clone(),
        }
    }

    /// Asks for a refresh because a key was missing. Gives a ticket to wait with if a refresh is under way or about to
    /// start; none if one was triggered less than 30 s ago. Any number of callers share one refresh.
    pub(crate) fn request_refresh(self: &Arc<Self>) -> Option<RefreshTicket> {
        if matches!(self.spec.location, JwksLocation::Inline(_)) {
            return None;
        }
        // Subscribed before the trigger, so that a refresh that ends in between is not missed.
        let finished = self.finished.subscribe();
        let now = self.clock.mono_ns();
        let mut state = self.state.lock();
        if !state.in_flight && state.due_ns > now {
            let every = TRIGGER_EVERY.as_nanos() as u64;
            if state.triggered_ns.is_some_and(|at| now.saturating_sub(at) < every) {
                return None;
            }
            state.triggered_ns = Some(now);
            state.due_ns = now;
            drop(state);
            self.wake.notify_one();
        }
        Some(RefreshTicket { source: self.clone(), finished })
    }

    /// When the next refresh is due, on the monotonic clock; none while one is under way.
    pub(super) fn due_ns(&self) -> Option<u64> {
        let state = self.state.lock();
        (!state.in_flight).then_some(state.due_ns)
    }

    /// Takes the right to refresh, if it is time.
    pub(super) fn begin(self: &Arc<Self>, now_ns: u64) -> Option<Refresh> {
        let mut state = self.state.lock();
        if state.in_flight || state.due_ns > now_ns {
            return None;
        }
        state.in_flight = true;
        Some(Refresh { source: self.clone(), result: None })
    }

    fn finish(&self, result: Result<Vec<u8>, JwksError>) {
        let parsed = result.and_then(|document| KeySet::parse(&document));
        let (now_ns, now_unix) = (self.clock.mono_ns(), self.clock.unix_secs());
        let mut state = self.state.lock();
        state.in_flight = false;
        let wait = match parsed {
            Ok((set, mut warnings)) => {
                if set.is_empty() {
                    warnings.insert(
                        0,
                        "there is no usable key: every token of this issuer is refused".to_owned(),
                    );
                }
                self.set.store(Arc::new(set));
                self.usable_until
                    .store(now_unix.saturating_add(self.spec.max_stale.as_secs()), Ordering::Release);
                state.failures = 0;
                state.last_error = None;
                state.last_success = Some(now_unix);
                if state.warnings != warnings && !warnings.is_empty() {
                    tracing::warn!(source = %self.spec, ?warnings, "auth.jwks.keys_skipped");
                }
                warnings.truncate(MAX_WARNINGS);
                state.warnings = warnings;
                self.spec.refresh
            }
            Err(error) => {
                state.failures = state.failures.saturating_add(1);
                tracing::warn!(source = %self.spec, %error, failures = state.failures, "auth.jwks.refresh_failed");
                state.last_error = Some(error.to_string());
                let doubled = FIRST_RETRY.saturating_mul(1 << (state.failures - 1).min(16));
                doubled.min(self.spec.refresh)
            }
        };
        // Up to a quarter more, so that replicas that started together drift apart.
        let jitter = wait.as_nanos() as u64 / 4;
        let jitter = if jitter == 0 { 0 } else { rand::random::<u64>() % jitter };
        state.due_ns = now_ns.saturating_add(wait.as_nanos() as u64).saturating_add(jitter);
        drop(state);
        self.finished.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl Hash for JwksSource {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.spec.hash(state);
    }
}

impl PartialEq for JwksSource {
    fn eq(&self, other: &Self) -> bool {
        self.spec == other.spec
    }
}

impl Eq for JwksSource {}

impl fmt::Debug for JwksSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JwksSource({})", self.spec)
    }
}

/// The right to do one refresh. Dropped without a result it counts as failed, so that a cancelled task does not leave
/// the source waiting for ever.
pub(super) struct Refresh {
    source: Arc<JwksSource>,
    result: Option<Result<Vec<u8>, JwksError>>,
}

impl Refresh {
    pub(super) fn spec(&self) -> &JwksSpec {
        &self.source.spec
    }

    pub(super) fn complete(mut self, result: Result<Vec<u8>, JwksError>) {
        self.result = Some(result);
    }
}

impl Drop for Refresh {
    fn drop(&mut self) {
        self.source.finish(self.result.take().unwrap_or(Err(JwksError::Abandoned)));
    }
}

/// A refresh that is under way; a request may wait for its end.
pub struct RefreshTicket {
    source: Arc<JwksSource>,
    finished: watch::Receiver<u64>,
}

impl RefreshTicket {
    /// Waits until the refresh has ended, well or not, but no longer than `bound` (at most [`MAX_REFRESH_WAIT`]).
    /// Returns whether it ended. Does not wait if 1024 others do already.
    pub async fn wait(mut self, bound: Duration) -> bool {
        let Ok(_waiting) = self.source.waiters.try_acquire() else { return false };
        tokio::time::timeout(bound.min(MAX_REFRESH_WAIT), self.finished.changed()).await.is_ok()
    }
}

impl fmt::Debug for RefreshTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RefreshTicket({})", self.source.spec)
    }
}
