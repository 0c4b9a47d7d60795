//! What operators do with canaries.

use std::time::Duration;

use uuid::Uuid;

use super::{LEAD_ALONE, MARGIN, News, Tell};
use crate::base::{Scope, TenantId};
use crate::canary::{Kind, Replicas, Rules, RulesError, Share, Sides};
use crate::source::database::LONGEST_POLL;
use crate::source::publish::{MAX_REASON, PublishError, Publisher, SCHEMA_VERSION};
use crate::source::replica::LIVE;
use crate::source::{Change, Published};
use crate::store::{
    Canary, CanaryEnd, CandidateSource, Engine, NewCanary, NewRevision, Page, Store, StoreError,
};

/// What is to be tried.
#[derive(Clone, Debug)]
pub enum Candidate {
    /// A document, in any form that reads as one.
    Document(Vec<u8>),
    /// A revision that is there.
    Revision(i64),
}

/// A canary to start.
#[derive(Clone, Debug)]
pub struct Start {
    /// Whose document.
    pub tenant: TenantId,
    /// What is tried.
    pub candidate: Candidate,
    /// What the share is of.
    pub kind: Kind,
    /// How much of it.
    pub share: Share,
    /// When it ends, and how.
    pub rules: Rules,
    /// Who starts it.
    pub author: String,
    /// Why, in their words.
    pub reason: String,
    /// The head they have seen; `None`: whatever there is.
    pub if_revision: Option<i64>,
}

/// How an operator ends one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Everybody is served the base again.
    Abort,
    /// The candidate becomes the head.
    Promote,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum CanaryError {
    /// Somebody else's runs.
    #[error("{0} is running: end it first, or change its share")]
    Running(String),
    /// None runs.
    #[error("no canary of this tenant is running")]
    None,
    /// There is nothing to compare with.
    #[error("the tenant has no document yet: publish one first")]
    NoBase,
    /// The candidate is the head.
    #[error("the candidate says what the head says: there is nothing to try")]
    Same,
    /// There is only one replica, and a share of it would be all or nothing.
    #[error(
        "a share of replicas needs at least two that live, and the store knows of {0}; use a share of principals"
    )]
    Replicas(usize),
    /// It is not as whoever changes it has seen it.
    #[error("the share of the canary was changed since it was read: read it again")]
    Changed,
    /// Which replicas serve the candidate was chosen at the start.
    #[error("which replicas are tried on was chosen at the start: end the canary and start another one")]
    Fixed,
    /// A share of replicas is not of all of them.
    #[error("a share of replicas must be less than 100%: some have to serve the head to compare with")]
    AllReplicas,
    /// An embedded store has one replica.
    #[error("a share of replicas needs several, and the embedded store has one; use a share of principals")]
    Embedded,
    /// The rules make no sense.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// The document, the head, the store.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

impl From<StoreError> for CanaryError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Duplicate(what) => Self::Running(what),
            other => Self::Publish(other.into()),
        }
    }
}

/// Starts, changes and ends canaries. Cheap to clone.
#[derive(Clone)]
pub struct Canaries {
    store: Store,
    publisher: Publisher,
    tell: Tell,
    poll: Duration,
}

impl Canaries {
    /// Works on a store, with documents that `publisher` compiles. `poll`: how often replicas look without being notified.
    pub fn new(store: Store, publisher: Publisher, tell: Tell, poll: Duration) -> Self {
        Self { store, publisher, tell, poll }
    }

    /// How long before it holds a share has to be known.
    fn lead(&self, replicas: usize) -> Duration {
        if replicas > 1 { (self.poll.mul_f64(LONGEST_POLL) + MARGIN).max(LEAD_ALONE) } else { LEAD_ALONE }
    }

    /// Starts one. The candidate is compiled first; what does not compile is refused and nothing is stored.
    ///
    /// # Errors
    /// [`CanaryError`]; nothing was started.
    pub async fn start(&self, start: Start) -> Result<Canary, CanaryError> {
        start.rules.check()?;
        if start.reason.chars().count() > MAX_REASON {
            return Err(PublishError::Reason.into());
        }
        let scope = Scope::Tenant(start.tenant.clone());
        let replicas = self.replicas().await?;
        let id = self.choose(&start, &replicas)?;
        let content = match &start.candidate {
            Candidate::Document(content) => content.clone(),
            Candidate::Revision(revision) => self.publisher.show(&scope, *revision).await?.content,
        };
        // Also one that was right once: the platform's terms or secrets may be others now.
        let change = Change {
            scope: scope.clone(),
            content,
            author: start.author.clone(),
            reason: start.reason.clone(),
            if_revision: start.if_revision,
        };
        let (canonical, found) = self.publisher.compare(&change).await?;
        if found.revision == 0 {
            return Err(CanaryError::NoBase);
        }
        if !found.changed {
            return Err(CanaryError::Same);
        }
        let now = self.store.now();
        let reason = match start.reason.as_str() {
            "" => "canary".to_owned(),
            reason => format!("canary: {reason}"),
        };
        let candidate = match start.candidate {
            Candidate::Revision(revision) => CandidateSource::Existing(revision),
            Candidate::Document(_) => CandidateSource::New(NewRevision {
                content: canonical.as_bytes(),
                schema_version: SCHEMA_VERSION,
                author: &start.author,
                reason: &reason,
                if_revision: None,
            }),
        };
        let lead = self.lead(replicas.len());
        let rules = serde_json::to_string(&start.rules).unwrap_or_default();
        let new = NewCanary {
            id,
            base: found.revision,
            candidate,
            kind: start.kind.as_str(),
            share: basis_points(start.share),
            share_at: now.plus(lead),
            rules: &rules,
            started_by: &start.author,
            reason: &start.reason,
            deadline: now.plus(lead + Duration::from_secs(start.rules.deadline)),
        };
        let canary = self.store.tenant(&start.tenant).start_canary(new).await?;
        tracing::info!(
            event = "canary_started",
            tenant = %start.tenant,
            base = canary.base,
            candidate = canary.candidate,
            share = %start.share,
            kind = start.kind.as_str(),
        );
        (self.tell)(&News { canary: canary.clone(), ours: true });
        Ok(canary)
    }

    /// Names of replicas that serve.
    async fn replicas(&self) -> Result<Vec<String>, CanaryError> {
        let live = self.store.platform().replicas(LIVE).await?;
        let mut names: Vec<String> =
            live.into_iter().filter(|r| r.role != "control").map(|r| r.replica).collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// The canary's id: what its choice of callers or replicas follows from.
    fn choose(&self, start: &Start, replicas: &[String]) -> Result<Uuid, CanaryError> {
        match start.kind {
            Kind::Principals => Ok(Uuid::now_v7()),
            Kind::Replicas if self.store.engine() == Engine::Sqlite => Err(CanaryError::Embedded),
            Kind::Replicas if start.share.fraction() >= 1.0 => Err(CanaryError::AllReplicas),
            Kind::Replicas => Replicas::choose(replicas, start.share, Uuid::now_v7)
                .ok_or(CanaryError::Replicas(replicas.len())),
        }
    }

    /// The latest canaries of a tenant, the newest first.
    ///
    /// # Errors
    /// The store.
    pub async fn list(&self, tenant: &TenantId, limit: u32) -> Result<Vec<Canary>, CanaryError> {
        Ok(self.store.tenant(tenant).canaries(Page::of(limit)).await?)
    }

    /// The one that runs.
    ///
    /// # Errors
    /// [`CanaryError::None`]; the store.
    pub async fn running(&self, tenant: &TenantId) -> Result<Canary, CanaryError> {
        let latest = self.list(tenant, 1).await?.pop();
        latest.filter(|canary| canary.state == "running").ok_or(CanaryError::None)
    }

    /// What was counted of a canary so far, by all replicas.
    ///
    /// # Errors
    /// The store.
    pub async fn figures(&self, canary: &Canary) -> Result<Sides, CanaryError> {
        Ok(figures(&self.store, canary).await?)
    }

    /// Changes the share of one that runs, if it is still `if_share` in case that this is given. Of replicas it cannot be
    /// changed: which they are was chosen at the start.
    ///
    /// # Errors
    /// [`CanaryError::None`] if it has ended, [`CanaryError::Changed`], [`CanaryError::Fixed`]; the store.
    pub async fn share(
        &self,
        running: &Canary,
        share: Share,
        if_share: Option<i32>,
    ) -> Result<Canary, CanaryError> {
        let tenant = super::tenant_of(running);
        if running.kind == Kind::Replicas.as_str() {
            return Err(CanaryError::Fixed);
        }
        let at = self.store.now().plus(self.lead(self.replicas().await?.len()));
        let scope = self.store.tenant(&tenant);
        let changed = scope.share_canary(running.id, basis_points(share), at, if_share).await;
        let changed = changed.map_err(|error| match error {
            StoreError::Conflict { .. } => CanaryError::Changed,
            StoreError::Missing(_) => CanaryError::None,
            other => other.into(),
        })?;
        (self.tell)(&News { canary: changed.clone(), ours: true });
        Ok(changed)
    }

    /// Ends one that runs, if its share is still `if_share` in case that this is given.
    ///
    /// # Errors
    /// [`CanaryError::None`] if it has ended, [`CanaryError::Changed`]; of a promotion, what publishing says: if the head has moved, [`PublishError::Conflict`].
    pub async fn end(
        &self,
        canary: &Canary,
        wish: Wish,
        by: &str,
        reason: &str,
        if_share: Option<i32>,
    ) -> Result<Canary, CanaryError> {
        let (state, promoted, reason) = match wish {
            Wish::Abort => ("aborted", None, if reason.is_empty() { "ended by an operator" } else { reason }),
            Wish::Promote => {
                // Somebody may have ended it since it was looked at.
                let tenant = super::tenant_of(canary);
                let running = self.running(&tenant).await?;
                if running.id != canary.id {
                    return Err(CanaryError::None);
                }
                if if_share.is_some_and(|share| share != running.share) {
                    return Err(CanaryError::Changed);
                }
                let published = promote(&self.publisher, canary, by, reason).await?;
                (
                    "promoted",
                    Some(published.revision),
                    if reason.is_empty() { "by an operator" } else { reason },
                )
            }
        };
        // What was published is not taken back for a share.
        let if_share = if_share.filter(|_| promoted.is_none());
        let how = CanaryEnd { state, by, reason, promoted, figures: "", if_share };
        match end(&self.store, canary, how, &self.tell).await {
            Err(StoreError::Conflict { .. }) => Err(CanaryError::Changed),
            ended => ended?.ok_or(CanaryError::None),
        }
    }
}

/// Publishes the candidate in place of its base, and of nothing else.
pub(super) async fn promote(
    publisher: &Publisher,
    canary: &Canary,
    by: &str,
    reason: &str,
) -> Result<Published, PublishError> {
    let scope = Scope::Tenant(super::tenant_of(canary));
    let candidate = publisher.show(&scope, canary.candidate).await?;
    let reason = match reason {
        "" => format!("canary of revision {} promoted", canary.candidate),
        reason => format!("canary of revision {} promoted: {reason}", canary.candidate),
    };
    let change = Change {
        scope,
        content: candidate.content,
        author: by.to_owned(),
        reason: reason.chars().take(MAX_REASON).collect(),
        if_revision: Some(canary.base),
    };
    publisher.publish(change).await
}

/// Ends a canary with the figures as they are. `None`: somebody else was faster.
pub(super) async fn end(
    store: &Store,
    canary: &Canary,
    end: CanaryEnd<'_>,
    tell: &Tell,
) -> Result<Option<Canary>, StoreError> {
    let figures = figures(store, canary).await?;
    let figures = serde_json::to_string(&figures).unwrap_or_default();
    let end = CanaryEnd { figures: &figures, ..end };
    let ended = store.tenant(&super::tenant_of(canary)).end_canary(canary.id, end).await?;
    if let Some(ended) = &ended {
        tracing::info!(
            event = "canary_ended",
            tenant = ended.tenant,
            candidate = ended.candidate,
            state = ended.state,
            by = end.by,
            reason = end.reason,
        );
        tell(&News { canary: ended.clone(), ours: true });
    }
    Ok(ended)
}

/// The sum over all processes that reported; of one that has ended: what was kept of it.
pub(super) async fn figures(store: &Store, canary: &Canary) -> Result<Sides, StoreError> {
    if let Some(kept) = super::figures_of(canary) {
        return Ok(kept);
    }
    let mut sum = Sides::default();
    for report in store.tenant(&super::tenant_of(canary)).canary_reports(canary.id).await? {
        if let Ok(figures) = serde_json::from_str(&report.figures) {
            sum.add(&figures);
        }
    }
    Ok(sum)
}

fn basis_points(share: Share) -> i32 {
    i32::try_from(share.basis_points()).unwrap_or(i32::MAX)
}
