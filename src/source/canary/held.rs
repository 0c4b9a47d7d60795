//! What one replica does with the canaries that run.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::MissedTickBehavior;
use uuid::Uuid;

use super::{Beside, News, Tell, chooser, tenant_of, until};
use crate::base::{Scope, TenantId};
use crate::canary::{Counts, Sides};
use crate::source::board::Board;
use crate::source::cache::Cache;
use crate::source::secrets;
use crate::source::stored::{Serve, Stored};
use crate::store::{Canary, CanaryReport, Store, StoreError};

/// How often what was counted is reported.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// The longest reason that is reported of a refusal, in characters.
const MAX_REASON: usize = 2_000;

/// The canaries of one replica.
pub struct Holder {
    store: Store,
    serve: Arc<dyn Serve>,
    cache: Cache,
    /// This replica's name, which stays the same over restarts.
    replica: String,
    tell: Tell,
    held: Mutex<HashMap<TenantId, Held>>,
    /// What the disk has of them.
    on_disk: Mutex<Option<Vec<Canary>>>,
}

/// A canary as it is kept on disk, with its candidate.
#[derive(Serialize, Deserialize)]
struct Kept {
    canary: Canary,
    document: String,
}

/// One canary.
struct Held {
    canary: Canary,
    document: Stored,
    counts: Arc<Counts>,
    /// Why the candidate does not compile here.
    refused: Option<String>,
    /// What it means may have changed: it has to be compiled again.
    stale: bool,
    /// What the store was told last.
    reported: Option<(Sides, Option<String>)>,
}

impl Holder {
    /// Holds nothing yet.
    pub fn new(store: Store, serve: Arc<dyn Serve>, cache: Cache, replica: String, tell: Tell) -> Self {
        Self { store, serve, cache, replica, tell, held: Mutex::default(), on_disk: Mutex::default() }
    }

    /// Candidates for which `wanted` says yes are compiled again with the next [`Holder::follow`].
    pub(in crate::source) fn again(&self, wanted: impl Fn(&Stored) -> bool) {
        self.held.lock().values_mut().filter(|h| wanted(&h.document)).for_each(|h| h.stale = true);
    }

    /// Does what the store says: takes up what runs, and lets go of what has ended.
    pub(in crate::source) async fn follow(&self, board: &Board) -> Result<(), StoreError> {
        let running = self.store.platform().running_canaries().await?;
        let gone: Vec<Canary> = {
            let mut held = self.held.lock();
            let ended = |h: &Held| !running.iter().any(|c| c.id == h.canary.id);
            held.extract_if(|_, h| ended(h)).map(|(_, h)| h.canary).collect()
        };
        for canary in gone {
            self.drop_one(&canary).await;
        }
        for canary in running {
            // Over by itself; whoever leads says so in the store.
            if until(&canary) > self.store.now() {
                self.take(board, canary, None).await?;
            }
        }
        self.remember().await;
        Ok(())
    }

    /// Takes up what ran when this replica was last told, because the store cannot be asked: nobody changes sides by a
    /// restart. Whether they still run is heard when it is back; their deadlines hold in any case.
    pub(in crate::source) async fn recall(&self, board: &Board) {
        let cache = self.cache.clone();
        let kept = match tokio::task::spawn_blocking(move || cache.canaries()).await {
            Ok(Ok(Some(bytes))) => serde_json::from_slice::<Vec<Kept>>(&bytes).map_err(|e| e.to_string()),
            Ok(Ok(None)) => return,
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let kept = kept.unwrap_or_else(|error| {
            tracing::error!(event = "cached_canaries_unusable", %error, "the heads are served to everybody");
            Vec::new()
        });
        for Kept { canary, document } in kept {
            if until(&canary) <= self.store.now() {
                continue;
            }
            let content = Arc::from(document.as_bytes());
            if let Err(error) = self.take(board, canary, Some(content)).await {
                tracing::error!(event = "cached_canary_unusable", %error);
            }
        }
    }

    /// Keeps what is held on disk, unless that is what is there.
    async fn remember(&self) {
        let mut all: Vec<Canary> = self.held.lock().values().map(|h| h.canary.clone()).collect();
        all.sort_by(|a, b| a.tenant.cmp(&b.tenant));
        let known = self.on_disk.lock().clone();
        if known.as_ref() == Some(&all) {
            return;
        }
        let kept: Vec<Kept> = {
            let held = self.held.lock();
            let text = |h: &Held| String::from_utf8_lossy(&h.document.content).into_owned();
            held.values().map(|h| Kept { canary: h.canary.clone(), document: text(h) }).collect()
        };
        let cache = self.cache.clone();
        let work = move || {
            // What an earlier process left may be of canaries that have ended.
            if known.is_none() && kept.is_empty() && matches!(cache.canaries(), Ok(None)) {
                return Ok(());
            }
            cache.keep_canaries(&serde_json::to_vec(&kept)?)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(())) => *self.on_disk.lock() = Some(all),
            Ok(Err(error)) => tracing::error!(event = "canaries_not_cached", %error),
            Err(error) => tracing::error!(event = "canaries_not_cached", %error),
        }
    }

    async fn drop_one(&self, canary: &Canary) {
        let (serve, tenant, id) = (self.serve.clone(), tenant_of(canary), canary.id);
        let work = tokio::task::spawn_blocking(move || serve.end_beside(&tenant, id));
        if let Err(error) = work.await {
            tracing::error!(event = "canary_not_ended", canary = %id, %error);
        }
        if let Ok(Some(now)) = self.store.tenant(&tenant_of(canary)).canary(canary.id).await {
            (self.tell)(&News { canary: now, ours: false });
        }
    }

    /// Takes one up. `content`: its candidate, if it is at hand.
    async fn take(
        &self,
        board: &Board,
        canary: Canary,
        content: Option<Arc<[u8]>>,
    ) -> Result<(), StoreError> {
        let tenant = tenant_of(&canary);
        let scope = Scope::Tenant(tenant.clone());
        let known = self.known(&tenant, &canary);
        if let Some((_, _, true)) = known {
            return Ok(());
        }
        // Beside its own base only. A replica that is behind takes it up when it is not; one whose head moved will hear that
        // the canary is over.
        if board.serving(&scope).is_none_or(|d| d.revision != canary.base) {
            return Ok(());
        }
        let news = known.is_none();
        let (document, counts) = match known {
            Some((document, counts, _)) => (document, counts),
            None => {
                let content = match content {
                    Some(content) => content,
                    None => match self.store.tenant(&tenant).revision(canary.candidate).await? {
                        Some(found) => found.content.into(),
                        None => return Ok(()),
                    },
                };
                let document = Stored { scope, revision: canary.candidate, generation: 0, content };
                (document, Arc::default())
            }
        };
        let secrets = secrets::named_by(&self.store, &self.cache, &document).await;
        let beside = Beside {
            id: canary.id,
            tenant: tenant.clone(),
            base: canary.base,
            document: document.clone(),
            chooser: chooser(&canary, &self.replica),
            counts: counts.clone(),
        };
        let serve = self.serve.clone();
        let outcome = tokio::task::spawn_blocking(move || {
            serve.serve_beside(&beside, &secrets).map_err(|refusal| refusal.hiding(&secrets))
        })
        .await;
        let refused = match outcome {
            Ok(Ok(())) => {
                let share = super::share_of(canary.share);
                tracing::info!(event = "canary_served", tenant = %tenant, candidate = canary.candidate, %share);
                None
            }
            Ok(Err(refusal)) => Some(refusal.to_string().chars().take(MAX_REASON).collect::<String>()),
            Err(_) => Some("the thread that compiled it ended early".to_owned()),
        };
        if let Some(error) = &refused {
            tracing::error!(event = "canary_refused", tenant = %tenant, candidate = canary.candidate, %error);
        }
        let told = canary.clone();
        self.held
            .lock()
            .insert(tenant, Held { canary, document, counts, refused, stale: false, reported: None });
        if news {
            (self.tell)(&News { canary: told, ours: false });
        }
        Ok(())
    }

    /// What is held of a canary, and whether nothing about it has changed.
    fn known(&self, tenant: &TenantId, canary: &Canary) -> Option<(Stored, Arc<Counts>, bool)> {
        let held = self.held.lock();
        let held = held.get(tenant).filter(|h| h.canary.id == canary.id)?;
        Some((held.document.clone(), held.counts.clone(), !held.stale && held.canary == *canary))
    }

    /// Reports what is counted, as the process `boot`, until dropped.
    pub async fn run(&self, boot: Uuid) {
        let mut tick = tokio::time::interval(REPORT_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if let Err(error) = self.report(boot).await {
                // The next report says all of it again.
                tracing::debug!(event = "canary_not_reported", %error);
            }
        }
    }

    async fn report(&self, boot: Uuid) -> Result<(), StoreError> {
        let now = self.store.now();
        let said: Vec<(TenantId, Uuid, (Sides, Option<String>))> = {
            let held = self.held.lock();
            let state = |h: &Held| (h.counts.figures(), h.refused.clone());
            let all = held.iter().map(|(tenant, h)| (tenant, h, state(h)));
            let new = all.filter(|(_, h, state)| h.reported.as_ref() != Some(state));
            new.map(|(tenant, h, state)| (tenant.clone(), h.canary.id, state)).collect()
        };
        if said.is_empty() {
            return Ok(());
        }
        let rows: Vec<CanaryReport> = said
            .iter()
            .map(|(tenant, canary, (figures, refusal))| CanaryReport {
                tenant: tenant.to_string(),
                canary: *canary,
                boot,
                figures: serde_json::to_string(figures).unwrap_or_default(),
                refusal: refusal.clone(),
                reported_at: now,
            })
            .collect();
        self.store.platform().report_canaries(&rows).await?;
        let mut held = self.held.lock();
        for (tenant, canary, state) in said {
            if let Some(held) = held.get_mut(&tenant).filter(|h| h.canary.id == canary) {
                held.reported = Some(state);
            }
        }
        Ok(())
    }
}
