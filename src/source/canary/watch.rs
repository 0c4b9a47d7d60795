//! Who ends canaries by themselves: the replica that leads.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use uuid::Uuid;

use super::start::{end, figures, promote};
use super::{OURSELVES, Tell, rules_of, tenant_of};
use crate::canary::{Sides, Window};
use crate::source::publish::{PublishError, Publisher};
use crate::source::replica::LIVE;
use crate::store::{Canary, CanaryEnd, Store, StoreError};

/// How often reports are added up.
const EVERY: Duration = Duration::from_secs(1);
/// How often reports of what has ended are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(60);
/// The seat of whoever watches.
const SEAT: &str = "canary";

/// Watches the canaries of all tenants while this process leads.
///
/// What came within a window is known only to the process that saw it: after a change of leaders the window begins anew,
/// while the totals of the whole canary are in the store.
pub struct Watcher {
    store: Store,
    publisher: Publisher,
    boot: Uuid,
    tell: Tell,
}

/// What is to be done about a canary.
enum Verdict {
    Go(&'static str, String),
    Promote,
    Wait,
}

impl Watcher {
    /// A watcher for the process `boot`.
    pub fn new(store: Store, publisher: Publisher, boot: Uuid, tell: Tell) -> Self {
        Self { store, publisher, boot, tell }
    }

    /// Watches until dropped.
    pub async fn run(self) {
        let mut seat = self.store.stand(SEAT, self.boot);
        loop {
            seat.held().await;
            let mut windows = HashMap::new();
            let mut tick = tokio::time::interval(EVERY);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut forgot = tokio::time::Instant::now();
            while seat.is_held() {
                tick.tick().await;
                if let Err(error) = self.round(&mut windows).await {
                    // What is in force stays so; a canary whose deadline passes meanwhile ends at each replica.
                    tracing::debug!(event = "canaries_not_watched", %error);
                }
                if forgot.elapsed() >= FORGET_EVERY
                    && self.store.platform().forget_canary_reports().await.is_ok()
                {
                    forgot = tokio::time::Instant::now();
                }
            }
        }
    }

    async fn round(&self, windows: &mut HashMap<Uuid, Window>) -> Result<(), StoreError> {
        let running = self.store.platform().running_canaries().await?;
        windows.retain(|id, _| running.iter().any(|canary| canary.id == *id));
        for canary in running {
            let rules = rules_of(&canary);
            let window = windows.entry(canary.id).or_insert_with(|| Window::new(rules.window));
            let total = figures(&self.store, &canary).await?;
            match self.judge(&canary, &total, window).await? {
                Verdict::Go(state, reason) => self.end(&canary, state, &reason, None).await?,
                Verdict::Promote => self.promote(&canary).await?,
                Verdict::Wait => {}
            }
        }
        Ok(())
    }

    async fn judge(
        &self,
        canary: &Canary,
        total: &Sides,
        window: &mut Window,
    ) -> Result<Verdict, StoreError> {
        let rules = rules_of(canary);
        let now = self.store.now();
        if let Some(reason) = self.head_moved(canary).await? {
            return Ok(reason);
        }
        if let Some(refusal) = self.refused(canary).await? {
            return Ok(Verdict::Go("aborted", refusal));
        }
        let recent = window.push(super::ms(now), total);
        let lately = rules.burns(&recent).map(|why| format!("in the last {} s: {why}", rules.window));
        if let Some(why) = lately.or_else(|| rules.burns(total)) {
            return Ok(Verdict::Go("rolled_back", why));
        }
        if now >= canary.deadline {
            let why =
                format!("the deadline has passed after {} calls of the candidate", total.candidate.calls);
            return Ok(Verdict::Go("rolled_back", why));
        }
        let held = now.since(canary.started_at) >= Duration::from_secs(rules.hold);
        let enough = total.candidate.calls >= rules.min_calls;
        Ok(if rules.auto_promote && held && enough { Verdict::Promote } else { Verdict::Wait })
    }

    /// What to do if the base is not the head any more.
    async fn head_moved(&self, canary: &Canary) -> Result<Option<Verdict>, StoreError> {
        let tenant = tenant_of(canary);
        let scope = self.store.tenant(&tenant);
        let Some(head) = scope.head().await?.filter(|head| head.revision != canary.base) else {
            return Ok(None);
        };
        // A promotion whose last step was cut off: the candidate's own bytes are the head, in place of its base.
        let published = scope.revision(head.revision).await?.map(|r| r.summary);
        let candidate = scope.revision(canary.candidate).await?.map(|r| r.summary);
        if let (Some(published), Some(candidate)) = (published, candidate)
            && published.parent == canary.base
            && published.hash == candidate.hash
        {
            self.end(canary, "promoted", "it is the head", Some(head.revision)).await?;
            return Ok(Some(Verdict::Wait));
        }
        let why = format!(
            "the head moved to revision {} while revision {} was tried",
            head.revision, canary.candidate
        );
        Ok(Some(Verdict::Go("aborted", why)))
    }

    /// Why a live replica cannot serve the candidate.
    async fn refused(&self, canary: &Canary) -> Result<Option<String>, StoreError> {
        let reports = self.store.tenant(&tenant_of(canary)).canary_reports(canary.id).await?;
        if reports.iter().all(|r| r.refusal.is_none()) {
            return Ok(None);
        }
        let live = self.store.platform().replicas(LIVE).await?;
        Ok(reports.into_iter().find_map(|report| {
            let replica = live.iter().find(|r| r.boot == report.boot)?;
            Some(format!("the candidate does not compile on {}: {}", replica.replica, report.refusal?))
        }))
    }

    async fn promote(&self, canary: &Canary) -> Result<(), StoreError> {
        let hold = rules_of(canary).hold;
        let why = format!("it did well for {hold} s");
        match promote(&self.publisher, canary, OURSELVES, &why).await {
            Ok(published) => self.end(canary, "promoted", &why, Some(published.revision)).await,
            Err(PublishError::Conflict { found, .. }) => {
                self.end(canary, "aborted", &format!("the head moved to revision {found}"), None).await
            }
            Err(PublishError::Store(error)) => Err(error),
            Err(error) => self.end(canary, "aborted", &format!("it cannot be promoted: {error}"), None).await,
        }
    }

    async fn end(
        &self,
        canary: &Canary,
        state: &str,
        reason: &str,
        promoted: Option<i64>,
    ) -> Result<(), StoreError> {
        let how = CanaryEnd { state, by: OURSELVES, reason, promoted, figures: "", if_share: None };
        end(&self.store, canary, how, &self.tell).await.map(drop)
    }
}
