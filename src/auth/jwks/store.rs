//! The table of sources and the task that refreshes them.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::auth::jwks::source::Refresh;
use crate::auth::{JwksError, JwksSource, JwksSpec, JwksStatus};
use crate::base::Clock;

/// How long one fetch may take in all.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// How many fetches run at once.
const MAX_FETCHES: usize = 8;
/// The driver looks at least this often, whatever the schedule says.
const MAX_SLEEP: Duration = Duration::from_secs(60);

/// Gets a JWKS document. The real one is [`HttpFetch`](crate::auth::fetch::HttpFetch).
#[async_trait]
pub trait JwksFetch: Send + Sync {
    /// Fetches the document of `spec`: at most [`MAX_JWKS_BYTES`](crate::auth::MAX_JWKS_BYTES) bytes, following no
    /// redirect. The caller bounds the time.
    async fn fetch(&self, spec: &JwksSpec) -> Result<Vec<u8>, FetchError>;
}

/// Why a document could not be fetched. The text is for operators.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FetchError(pub String);

/// Every source in use, by what it is. Lives as long as the process; a source lives as long as an authenticator uses it.
#[derive(Debug)]
pub struct JwksStore {
    clock: Clock,
    sources: Mutex<HashMap<JwksSpec, Weak<JwksSource>>>,
    wake: Arc<Notify>,
}

impl JwksStore {
    /// An empty table.
    pub fn new(clock: Clock) -> Self {
        Self { clock, sources: Mutex::default(), wake: Arc::default() }
    }

    /// The source of this spec: the one that exists, with its keys, or a new one, whose first refresh is due at once.
    pub fn source(&self, spec: JwksSpec) -> Result<Arc<JwksSource>, JwksError> {
        let mut sources = self.sources.lock();
        if let Some(source) = sources.get(&spec).and_then(Weak::upgrade) {
            return Ok(source);
        }
        let source = JwksSource::new(spec.clone(), self.clock.clone(), self.wake.clone())?;
        sources.retain(|_, source| source.strong_count() > 0);
        sources.insert(spec, Arc::downgrade(&source));
        drop(sources);
        self.wake.notify_one();
        Ok(source)
    }

    /// How each source is doing, in no particular order.
    pub fn status(&self) -> Vec<JwksStatus> {
        self.live().iter().map(|source| source.status()).collect()
    }

    /// Refreshes what is due and returns when that is done: called once before serving, so that the first requests
    /// find keys.
    pub async fn refresh_due(&self, fetch: &dyn JwksFetch) {
        futures::stream::iter(self.take_due())
            .for_each_concurrent(MAX_FETCHES, |refresh| run_one(refresh, fetch))
            .await;
    }

    /// Keeps every source fresh until `shutdown`. One slow source does not delay the others. Must run exactly once.
    pub async fn run(&self, fetch: Arc<dyn JwksFetch>, shutdown: CancellationToken) {
        let mut running = JoinSet::new();
        let mut waiting = Vec::new();
        loop {
            waiting.extend(self.take_due());
            while running.len() < MAX_FETCHES {
                let Some(refresh) = waiting.pop() else { break };
                let fetch = fetch.clone();
                running.spawn(async move { run_one(refresh, &*fetch).await });
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.wake.notified() => {}
                Some(_) = running.join_next() => {}
                () = tokio::time::sleep(self.until_next()) => {}
            }
        }
    }

    fn live(&self) -> Vec<Arc<JwksSource>> {
        self.sources.lock().values().filter_map(Weak::upgrade).collect()
    }

    fn take_due(&self) -> Vec<Refresh> {
        let now = self.clock.mono_ns();
        self.live().iter().filter_map(|source| source.begin(now)).collect()
    }

    fn until_next(&self) -> Duration {
        let now = self.clock.mono_ns();
        let next = self.live().iter().filter_map(|source| source.due_ns()).min();
        next.map_or(MAX_SLEEP, |due| Duration::from_nanos(due.saturating_sub(now)).min(MAX_SLEEP))
    }
}

async fn run_one(refresh: Refresh, fetch: &dyn JwksFetch) {
    let result = match tokio::time::timeout(FETCH_TIMEOUT, fetch.fetch(refresh.spec())).await {
        Ok(result) => result.map_err(JwksError::from),
        Err(_) => Err(FetchError(format!("no answer within {} s", FETCH_TIMEOUT.as_secs())).into()),
    };
    refresh.complete(result);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::auth::JwksLocation;
    use crate::auth::testing::{FakeFetch, Signer, jwks};

    const URL: &str = "https://issuer.example/keys";

    fn spec() -> JwksSpec {
        JwksSpec::new(JwksLocation::Url(URL.into()))
    }

    #[tokio::test]
    async fn a_failed_refresh_keeps_the_keys_until_they_are_too_old() {
        let clock = Clock::manual(1_000);
        let store = JwksStore::new(clock.clone());
        let source = store.source(spec()).unwrap();
        let fetch = FakeFetch::new(jwks(&[Signer::ed25519("a")]));
        assert!(!source.is_usable(clock.unix_secs()), "nothing loaded yet");
        store.refresh_due(&fetch).await;
        assert_eq!(source.status().keys, 1);

        fetch.fail("down");
        clock.advance(Duration::from_secs(600));
        store.refresh_due(&fetch).await;
        let status = source.status();
        assert!(status.usable);
        assert_eq!(
            (status.age_secs, status.failures, status.last_error.as_deref()),
            (Some(600), 1, Some("down"))
        );

        clock.advance(Duration::from_secs(24 * 3600));
        store.refresh_due(&fetch).await;
        assert!(!source.status().usable, "older than max_stale");

        fetch.serve(jwks(&[Signer::ed25519("a")]));
        clock.advance(Duration::from_secs(400));
        store.refresh_due(&fetch).await;
        let status = source.status();
        assert!(status.usable && status.last_error.is_none() && status.failures == 0);
    }

    #[tokio::test]
    async fn retries_back_off_and_documents_that_do_not_parse_are_failures() {
        let clock = Clock::manual(1_000);
        let store = JwksStore::new(clock.clone());
        let source = store.source(spec()).unwrap();
        let fetch = FakeFetch::new("<html>".into());
        for _ in 0..100 {
            store.refresh_due(&fetch).await;
            clock.advance(Duration::from_secs(1));
        }
        let calls = fetch.calls();
        assert!((5..=8).contains(&calls), "1, 2, 4, 8 … s between attempts: {calls}");
        assert!(source.status().last_error.unwrap().starts_with("not a JWKS"));
    }

    #[tokio::test]
    async fn an_unknown_key_triggers_one_refresh_in_thirty_seconds() {
        let clock = Clock::manual(1_000);
        let store = JwksStore::new(clock.clone());
        let source = store.source(spec()).unwrap();
        let fetch = FakeFetch::new(jwks(&[Signer::ed25519("a")]));
        store.refresh_due(&fetch).await;
        let tickets: Vec<_> = (0..50).map(|_| source.request_refresh().expect("shared")).collect();
        store.refresh_due(&fetch).await;
        assert_eq!(fetch.calls(), 2, "fifty requests, one refresh");
        for ticket in tickets {
            assert!(ticket.wait(Duration::from_secs(1)).await);
        }
        clock.advance(Duration::from_secs(29));
        assert!(source.request_refresh().is_none());
        clock.advance(Duration::from_secs(1));
        assert!(source.request_refresh().is_some());
    }

    #[tokio::test]
    async fn a_refresh_that_is_dropped_can_be_begun_again() {
        let clock = Clock::manual(1_000);
        let store = JwksStore::new(clock.clone());
        let source = store.source(spec()).unwrap();
        drop(source.begin(clock.mono_ns()).unwrap());
        assert_eq!(source.status().failures, 1);
        clock.advance(Duration::from_secs(2));
        assert!(source.begin(clock.mono_ns()).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_is_bounded() {
        let store = JwksStore::new(Clock::manual(1_000));
        let source = store.source(spec()).unwrap();
        let before = tokio::time::Instant::now();
        let ticket = source.request_refresh().unwrap();
        assert!(!ticket.wait(Duration::from_secs(3600)).await, "nobody refreshes");
        assert_eq!(before.elapsed(), crate::auth::MAX_REFRESH_WAIT);
    }

    #[tokio::test]
    async fn equal_specs_share_a_source_and_unused_ones_go() {
        let store = JwksStore::new(Clock::manual(1_000));
        let one = store.source(spec()).unwrap();
        assert!(Arc::ptr_eq(&one, &store.source(spec()).unwrap()));
        let slower = JwksSpec { refresh: Duration::from_secs(900), ..spec() };
        let two = store.source(slower).unwrap();
        assert!(!Arc::ptr_eq(&one, &two));
        assert_eq!(store.status().len(), 2);
        drop((one, two));
        assert_eq!(store.status().len(), 0);
    }

    struct Stuck(AtomicUsize);

    #[async_trait]
    impl JwksFetch for Stuck {
        async fn fetch(&self, spec: &JwksSpec) -> Result<Vec<u8>, FetchError> {
            self.0.fetch_add(1, Ordering::SeqCst);
            if spec.to_string().contains("stuck") {
                std::future::pending::<()>().await;
            }
            Ok(jwks(&[Signer::ed25519("a")]).into_bytes())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_driver_serves_others_while_one_source_hangs() {
        let store = Arc::new(JwksStore::new(Clock::manual(1_000)));
        let stuck = store.source(JwksSpec::new(JwksLocation::Url("https://stuck.example/".into()))).unwrap();
        let shutdown = CancellationToken::new();
        let fetch = Arc::new(Stuck(AtomicUsize::new(0)));
        let task = tokio::spawn({
            let (store, fetch, shutdown) = (store.clone(), fetch.clone(), shutdown.clone());
            async move { store.run(fetch, shutdown).await }
        });
        tokio::time::sleep(Duration::from_millis(1)).await;
        let good = store.source(spec()).unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(good.is_usable(1_000));
        assert!(!stuck.is_usable(1_000));
        tokio::time::sleep(FETCH_TIMEOUT).await;
        assert!(stuck.status().last_error.unwrap().contains("10 s"));
        shutdown.cancel();
        task.await.unwrap();
        assert_eq!(fetch.0.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn specs_that_cannot_work_are_refused() {
        let store = JwksStore::new(Clock::manual(1_000));
        let url = |url: &str| JwksSpec::new(JwksLocation::Url(url.into()));
        for bad in [
            url("http://issuer.example/keys"),
            url("file:///etc/passwd"),
            url("/keys"),
            url("https://user:pw@issuer.example/"),
            url("not a url"),
            JwksSpec { refresh: Duration::from_secs(1), ..spec() },
            JwksSpec { max_stale: Duration::from_secs(60), ..spec() },
            JwksSpec::new(JwksLocation::Inline("{}".into())),
        ] {
            assert!(store.source(bad.clone()).is_err(), "{bad:?}");
        }
        assert!(store.source(url("http://127.0.0.1:8080/keys")).is_ok());
        assert!(store.source(url("http://[::1]/keys")).is_ok());
        assert!(store.source(JwksSpec { allow_http: true, ..url("http://idp:8080/keys") }).is_ok());
    }

    #[test]
    fn the_location_is_shown_without_its_query() {
        assert_eq!(
            JwksSpec::new(JwksLocation::Url("https://a.example/k?key=s3cret".into())).to_string(),
            "https://a.example/k"
        );
    }
}
