//! Follows the heads of the store: what moved is fetched, compiled and put in force, and the store is told.
//!
//! A notification wakes the follower, and a poll every [`Follower::new`]'s `poll` (jittered, so that replicas do not ask
//! at once) finds what was not notified. Both do the same: one index scan for heads that moved after the generation that
//! was seen last, so that a notification too many costs next to nothing and one too few costs the time of a poll.
//!
//! - Only the scopes that moved are compiled. The platform's document is taken before those of tenants in a batch.
//! - A document that does not compile on this replica changes nothing: the last good one of that scope stays in force,
//!   and the refusal is reported with the reason.
//! - What was put in force is kept on disk ([`Cache`]), with the sealed secrets that it names. At the start the store is
//!   asked; if it is away, the documents on disk are served, with the canaries that ran beside them, and the follower
//!   catches up when it is back. If the head does not compile, the one on disk does.
//! - A tenant that the platform's document does not name (any more) is not there: its document is laid aside, neither
//!   served nor refused nor kept on disk, and taken up again when the tenant is.
//! - While the store is away nothing changes. Errors are logged when they begin and when they end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::base::Scope;
use crate::source::board::{Board, Served, Taken};
use crate::source::cache::Cache;
use crate::source::canary::Holder;
use crate::source::secrets;
use crate::source::stored::{SecretValues, Serve, Stored};
use crate::store::{Channel, Engine, Listener, Notification, Page, SecretsMark, Store, StoreError};

/// Documents that are fetched at once.
const BATCH: u32 = 200;
/// A poll is a fifth shorter or longer than asked for, so that replicas that started together do not ask together.
const SHORTEST_POLL: f64 = 0.8;
pub(super) const LONGEST_POLL: f64 = 1.2;
/// What the payload of a notification begins with if a secret changed; the tenant follows.
const SECRET: &str = "secret ";

/// Follows the store for one process.
pub struct Follower {
    store: Store,
    serve: Arc<dyn Serve>,
    cache: Cache,
    board: Arc<Board>,
    canaries: Arc<Holder>,
    poll: Duration,
    /// Taking documents is one at a time.
    seen: tokio::sync::Mutex<i64>,
    away: Mutex<Option<String>>,
    prepared: AtomicBool,
    secrets: tokio::sync::Mutex<Option<KnownSecrets>>,
}

/// When the secrets that were compiled in had been set.
struct KnownSecrets {
    mark: SecretsMark,
    of: BTreeMap<String, SecretsMark>,
}

/// Where the documents came from at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// From disk, because the store is away.
    Cache,
    /// Nowhere: the store has none.
    Nothing,
    /// From the store.
    Store,
}

/// Why a replica cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// No document of the tenants or the platform compiles, and none did before.
    #[error(
        "revision {revision} of {scope} does not compile here, and there is no earlier one on disk: {reason}"
    )]
    Refused {
        /// Whose.
        scope: Scope,
        /// Which.
        revision: i64,
        /// Why.
        reason: String,
    },
    /// The store is away, and nothing is on disk.
    #[error("the store cannot be asked ({0}), and there is no document on disk from before")]
    Unknown(#[source] StoreError),
    /// The store has to be put right by an operator.
    #[error(transparent)]
    Store(StoreError),
}

impl Follower {
    /// A follower that has served nothing yet.
    pub fn new(
        store: Store,
        serve: Arc<dyn Serve>,
        cache: Cache,
        canaries: Arc<Holder>,
        poll: Duration,
    ) -> Self {
        Self {
            store,
            serve,
            cache,
            canaries,
            board: Arc::default(),
            poll,
            seen: tokio::sync::Mutex::new(0),
            away: Mutex::new(None),
            prepared: AtomicBool::new(false),
            secrets: tokio::sync::Mutex::default(),
        }
    }

    /// What this replica serves and refuses, the platform first.
    pub fn served(&self) -> Vec<Served> {
        self.board.list()
    }

    /// The document of a scope that is in force.
    pub fn serving(&self, scope: &Scope) -> Option<Stored> {
        self.board.serving(scope)
    }

    /// Why the store cannot be asked at present.
    pub fn away(&self) -> Option<String> {
        self.away.lock().clone()
    }

    /// Makes the store ready, if that has not been done: tables, roles, keys.
    ///
    /// # Errors
    /// The store.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        if !self.prepared.load(Ordering::Relaxed) {
            self.store.prepare().await?;
            self.prepared.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Puts everything in force that the store has, or if it is away what is on disk.
    ///
    /// # Errors
    /// There is nothing that could be served.
    pub async fn begin(&self) -> Result<Begun, BeginError> {
        match self.catch_up().await {
            Ok(()) => {
                self.fall_back().await?;
                self.drop_gone().await;
                // Before the first request, so that a restart moves nobody to the other side.
                if let Err(error) = self.canaries.follow(&self.board).await {
                    tracing::warn!(event = "canaries_from_cache", %error);
                    self.canaries.recall(&self.board).await;
                }
                Ok(if self.board.list().is_empty() { Begun::Nothing } else { Begun::Store })
            }
            Err(error) if error.retry_is_safe() => {
                let text = error.to_string();
                // They are not in the database; sealed secrets on disk are opened with them.
                if let Err(error) = self.store.load_keys().await {
                    tracing::warn!(event = "master_keys_unavailable", %error);
                }
                let cached = self.load_cache();
                if cached.is_empty() {
                    return Err(BeginError::Unknown(error));
                }
                tracing::warn!(
                    event = "serving_from_cache",
                    documents = cached.len(),
                    error = %text,
                    "the store cannot be asked; what was served last is served again"
                );
                *self.away.lock() = Some(text);
                let _ = self.take(cached, false).await;
                self.canaries.recall(&self.board).await;
                Ok(Begun::Cache)
            }
            Err(error) => Err(BeginError::Store(error)),
        }
    }

    /// Follows until dropped.
    pub async fn run(&self) {
        let mut listener = self.store.listen();
        loop {
            self.round().await;
            self.wait(&mut listener).await;
        }
    }

    /// Catches up once, and tells the log when the store goes and comes.
    pub async fn round(&self) {
        let error = self.look().await.err();
        let mut away = self.away.lock();
        match (&error, away.is_some()) {
            (Some(error), false) => tracing::error!(
                event = "store_away",
                %error,
                "what is in force stays in force; changes are taken up when the store is back"
            ),
            (None, true) => tracing::info!(event = "store_back"),
            _ => {}
        }
        *away = error.map(|e| e.to_string());
    }

    async fn look(&self) -> Result<(), StoreError> {
        self.catch_up().await?;
        self.canaries.follow(&self.board).await
    }

    /// Compiles again what names secrets of tenants whose secrets moved. PostgreSQL tells of that, but nobody of what
    /// `tollgate secrets` does in another process beside an embedded store.
    async fn catch_up_secrets(&self) -> Result<(), StoreError> {
        if self.store.engine() != Engine::Sqlite {
            return Ok(());
        }
        let mut known = self.secrets.lock().await;
        let platform = self.store.platform();
        let mark = platform.secrets_mark().await?;
        let before = match &mut *known {
            Some(known) if known.mark == mark => return Ok(()),
            // Nothing was compiled before this look.
            None => {
                *known = Some(KnownSecrets { mark, of: platform.secrets_marks().await? });
                return Ok(());
            }
            Some(known) => {
                // Before anything is noted: what cannot be read now is looked at again.
                let of = platform.secrets_marks().await?;
                known.mark = mark;
                std::mem::replace(&mut known.of, of)
            }
        };
        let now = known.as_ref().map(|known| known.of.clone()).unwrap_or_default();
        let moved = |document: &Stored| match &document.scope {
            Scope::Tenant(id) => document.names_secrets() && before.get(id.as_str()) != now.get(id.as_str()),
            Scope::Platform => false,
        };
        self.canaries.again(moved);
        self.again(moved).await;
        Ok(())
    }

    /// Waits for a reason to look again.
    async fn wait(&self, listener: &mut Listener) {
        let jitter = rand::random_range(SHORTEST_POLL..LONGEST_POLL);
        let poll = tokio::time::sleep(self.poll.mul_f64(jitter));
        tokio::pin!(poll);
        loop {
            let heard = tokio::select! {
                () = &mut poll => return,
                heard = listener.next() => heard,
            };
            match heard {
                Notification::Message { channel: Channel::Config, payload } => {
                    if let Some(tenant) = payload.strip_prefix(SECRET) {
                        let scope = Scope::parse(tenant);
                        self.canaries.again(|d| d.scope == scope && d.names_secrets());
                        self.again(|d| d.scope == scope && d.names_secrets()).await;
                    }
                    return;
                }
                Notification::Message { .. } => {}
                Notification::Missed => {
                    self.canaries.again(Stored::names_secrets);
                    self.again(Stored::names_secrets).await;
                    return;
                }
            }
        }
    }

    /// Fetches and takes what moved.
    async fn catch_up(&self) -> Result<(), StoreError> {
        self.prepare().await?;
        self.catch_up_secrets().await?;
        let mut seen = self.seen.lock().await;
        let mut tenants = false;
        loop {
            let found = self.store.platform().head_revisions(*seen, Page::of(BATCH)).await?;
            let Some((last, _)) = found.last() else {
                // Not before all heads are known: the platform's may be among the last.
                if tenants {
                    self.drop_gone().await;
                }
                return Ok(());
            };
            let last = last.generation;
            let mut documents: Vec<Stored> = found
                .into_iter()
                .map(|(head, revision)| Stored {
                    scope: Scope::parse(&head.scope),
                    revision: head.revision,
                    generation: head.generation,
                    content: revision.content.into(),
                })
                .collect();
            documents.sort_by(|a, b| a.scope.cmp(&b.scope));
            tenants |= self.take(documents, true).await;
            *seen = last;
        }
    }

    /// Takes documents in their order. `keep`: those that are good go on disk. `true` if it may be others now who the
    /// tenants are.
    async fn take(&self, documents: Vec<Stored>, keep: bool) -> bool {
        let mut tenants = false;
        for document in documents {
            let platform = document.scope == Scope::Platform;
            tenants |= platform;
            if platform {
                // What a candidate may say is for its tenant's terms to decide.
                self.canaries.again(|_| true);
            } else if !self.is_there(&document.scope) {
                self.board.lay_aside(document);
                continue;
            }
            let secrets = secrets::named_by(&self.store, &self.cache, &document).await;
            let again = self.blocking(document, secrets, keep, false).await;
            if platform {
                self.board.lay_aside_unless(|tenant| self.serve.has_tenant(tenant));
            }
            for tenant in again {
                match self.board.take_up(&tenant) {
                    Some(document) => {
                        let secrets = secrets::named_by(&self.store, &self.cache, &document).await;
                        self.blocking(document, secrets, keep, false).await;
                    }
                    None => self.again(|d| d.scope == tenant).await,
                }
            }
        }
        tenants
    }

    /// Whether somebody names the tenant. If the platform's document is refused here, that cannot be said, and it is refused
    /// with the reason instead.
    fn is_there(&self, scope: &Scope) -> bool {
        match scope {
            Scope::Platform => true,
            Scope::Tenant(tenant) => self.serve.has_tenant(tenant) || self.board.refuses(&Scope::Platform),
        }
    }

    /// Compiles again what is there, because what it means may have changed.
    async fn again(&self, wanted: impl Fn(&Stored) -> bool) {
        for document in self.board.again(wanted) {
            let secrets = secrets::named_by(&self.store, &self.cache, &document).await;
            self.blocking(document, secrets, true, true).await;
        }
    }

    /// One document, on a thread for blocking work. Gives the scopes that have to be compiled again.
    async fn blocking(&self, document: Stored, secrets: SecretValues, keep: bool, force: bool) -> Vec<Scope> {
        let (serve, board, cache) = (self.serve.clone(), self.board.clone(), self.cache.clone());
        let (scope, revision) = (document.scope.clone(), document.revision);
        let outcome = tokio::task::spawn_blocking(move || {
            let taken = document.clone();
            let taken = if force {
                board.put(&*serve, taken, &secrets)
            } else {
                board.take(&*serve, taken, &secrets)
            };
            if keep
                && matches!(taken, Taken::InForce(_))
                && let Err(error) = cache.keep(&document)
            {
                // It is served; only a start with the store away would not know of it.
                tracing::error!(event = "document_not_cached", scope = %document.scope, %error);
            }
            taken
        })
        .await;
        match outcome {
            Ok(Taken::InForce(again)) => again.into_iter().map(Scope::Tenant).collect(),
            Ok(Taken::Known | Taken::Refused) => Vec::new(),
            Err(error) => {
                tracing::error!(event = "revision_not_compiled", %scope, revision, %error);
                Vec::new()
            }
        }
    }

    /// For every scope that serves nothing: what it served before, from disk.
    async fn fall_back(&self) -> Result<(), BeginError> {
        let refused: Vec<Served> = self.board.list().into_iter().filter(|s| s.revision == 0).collect();
        if refused.is_empty() {
            return Ok(());
        }
        let cached = self.load_cache();
        for served in refused {
            // What was just refused is not looked at again: it was in force before, and would not compile any more.
            let earlier = |d: &&Stored| d.scope == served.scope && Some(d.revision) != served.refused;
            let Some(document) = cached.iter().find(earlier).cloned() else {
                // One tenant's fault is not another's: only if the operator's own documents are useless it is over.
                if served.scope == Scope::Platform {
                    return Err(BeginError::Refused {
                        scope: served.scope,
                        revision: served.refused.unwrap_or_default(),
                        reason: served.reason.unwrap_or_default(),
                    });
                }
                continue;
            };
            let latest = self.board.again(|d| d.scope == served.scope);
            let _ = self.take(vec![document], false).await;
            if self.board.refuses(&served.scope) {
                continue;
            }
            // The store was put back, and the one on disk is the later one: it is the refusal that is to be reported.
            for document in latest {
                let secrets = secrets::named_by(&self.store, &self.cache, &document).await;
                self.blocking(document, secrets, false, true).await;
            }
        }
        Ok(())
    }

    /// Files of scopes that the store does not know, or the platform's document does not name.
    async fn drop_gone(&self) {
        let (known, cache) = (self.board.scopes(), self.cache.clone());
        match tokio::task::spawn_blocking(move || cache.keep_only(&known)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(event = "cached_documents_not_removed", %error),
            Err(error) => tracing::warn!(event = "cached_documents_not_removed", %error),
        }
    }

    fn load_cache(&self) -> Vec<Stored> {
        self.cache.load().unwrap_or_else(|error| {
            tracing::error!(event = "cache_unreadable", %error);
            Vec::new()
        })
    }

    /// What the store was not told of yet. Give back with [`Follower::not_reported`] what it could not be told.
    pub(super) fn to_report(&self) -> Vec<Served> {
        self.board.take_unreported()
    }

    pub(super) fn not_reported(&self, served: Vec<Served>) {
        self.board.unreport(served);
    }

    pub(super) fn report_all(&self) {
        self.board.unreport_all();
    }
}
