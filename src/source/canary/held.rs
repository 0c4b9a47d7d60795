//! What one replica does with the canaries that run.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;
use uuid::Uuid;

use super::{Beside, News, Tell, chooser, tenant_of, until};
use crate::base::{Scope, TenantId};
use crate::canary::{Counts, Sides};
use crate::source::board::Board;
use crate::source::database::secret_values;
use crate::source::stored::{SecretValues, Serve, Stored};
use crate::store::{Canary, CanaryReport, Store, StoreError};

/// How often what was counted is reported.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// The longest reason that is reported of a refusal, in characters.
const MAX_REASON: usize = 2_000;

/// The canaries of one replica.
pub struct Holder {
    store: Store,
    serve: Arc<dyn Serve>,
    /// This replica's name, which stays the same over restarts.
    replica: String,
    tell: Tell,
    held: Mutex<HashMap<TenantId, Held>>,
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
    pub fn new(store: Store, serve: Arc<dyn Serve>, replica: String, tell: Tell) -> Self {
        Self { store, serve, replica, tell, held: Mutex::default() }
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
                self.take(board, canary).await?;
            }
        }
        Ok(())
    }

    async fn drop_one(&self, canary: &Canary) {
        let (serve, tenant, id) = (self.serve.clone(), tenant_of(canary), canary.id);
        let work = tokio::task::spawn_blocking(move || serve.end_beside(&tenant, id));
        let _ = work.await;
        if let Ok(Some(now)) = self.store.tenant(&tenant_of(canary)).canary(canary.id).await {
            (self.tell)(&News { canary: now, ours: false });
        }
    }

    async fn take(&self, board: &Board, canary: Canary) -> Result<(), StoreError> {
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
                let found = self.store.tenant(&tenant).revision(canary.candidate).await?;
                let Some(found) = found else { return Ok(()) };
                let document = Stored {
                    scope,
                    revision: canary.candidate,
                    generation: 0,
                    content: found.content.into(),
                };
                (document, Arc::default())
            }
        };
        let secrets = if document.names_secrets() {
            secret_values(&self.store, &tenant).await?
        } else {
            SecretValues::new()
        };
        let beside = Beside {
            id: canary.id,
            tenant: tenant.clone(),
            base: canary.base,
            document: document.clone(),
            chooser: chooser(&canary, &self.replica),
            counts: counts.clone(),
        };
        let serve = self.serve.clone();
        let outcome = tokio::task::spawn_blocking(move || serve.serve_beside(&beside, &secrets)).await;
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
