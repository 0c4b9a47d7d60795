//! Canaries: revisions that are tried beside the head of their tenant, and what replicas count of them.
//!
//! At most one runs per tenant; a unique index says so, too. Starting one locks the row of the head, as publishing does, so
//! that a candidate never stands beside another base than the one it was compared with. Every change notifies
//! [`Channel::Config`] with `canary <tenant>`.

use sqlx::FromRow;
use uuid::Uuid;

use super::tx::q;
use super::{Channel, NewRevision, Page, Platform, StoreError, TenantScope, TenantTx, Time};
use crate::base::Scope;

/// A canary.
#[derive(Clone, Debug, PartialEq, Eq, FromRow, serde::Serialize, serde::Deserialize)]
pub struct Canary {
    /// Whose document.
    pub tenant: String,
    /// Its id: what the choice of callers depends on.
    #[serde(with = "as_text")]
    pub id: Uuid,
    /// The head that it is compared with.
    pub base: i64,
    /// The revision that is tried.
    pub candidate: i64,
    /// `principals` or `replicas`.
    pub kind: String,
    /// The share, in hundredths of a per cent.
    pub share: i32,
    /// The share before `share_at`.
    pub share_before: i32,
    /// From when on `share` holds.
    pub share_at: Time,
    /// `running`, `promoted`, `rolled_back` or `aborted`.
    pub state: String,
    /// When it ends, as JSON.
    pub rules: String,
    /// Who started it.
    pub started_by: String,
    /// Why, in their words.
    pub reason: String,
    /// When.
    pub started_at: Time,
    /// When it is rolled back at the latest.
    pub deadline: Time,
    /// When it ended.
    pub ended_at: Option<Time>,
    /// Who ended it.
    pub ended_by: Option<String>,
    /// Why.
    pub end_reason: Option<String>,
    /// The revision that the candidate was published as.
    pub promoted: Option<i64>,
    /// What was counted, as JSON; of a running one: nothing yet.
    pub figures: Option<String>,
}

/// Where a candidate's document is.
#[derive(Clone, Copy, Debug)]
pub enum CandidateSource<'a> {
    /// A revision that is there.
    Existing(i64),
    /// Here; it becomes a revision that is not the head.
    New(NewRevision<'a>),
}

/// A canary to start.
#[derive(Clone, Copy, Debug)]
pub struct NewCanary<'a> {
    /// Its id.
    pub id: Uuid,
    /// What the head must be at.
    pub base: i64,
    /// The candidate.
    pub candidate: CandidateSource<'a>,
    /// `principals` or `replicas`.
    pub kind: &'a str,
    /// The share, in hundredths of a per cent.
    pub share: i32,
    /// From when on it holds; nobody before.
    pub share_at: Time,
    /// When it ends, as JSON.
    pub rules: &'a str,
    /// Who starts it.
    pub started_by: &'a str,
    /// Why.
    pub reason: &'a str,
    /// When it is rolled back at the latest.
    pub deadline: Time,
}

/// How a canary ends.
#[derive(Clone, Copy, Debug)]
pub struct CanaryEnd<'a> {
    /// `promoted`, `rolled_back` or `aborted`.
    pub state: &'a str,
    /// Who ends it.
    pub by: &'a str,
    /// Why.
    pub reason: &'a str,
    /// The revision that the candidate was published as.
    pub promoted: Option<i64>,
    /// What was counted, as JSON.
    pub figures: &'a str,
    /// The share that whoever ends it has seen, if that matters.
    pub if_share: Option<i32>,
}

/// What one process counted of a canary, since it began.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct CanaryReport {
    /// Whose.
    pub tenant: String,
    /// Which canary.
    pub canary: Uuid,
    /// The process.
    pub boot: Uuid,
    /// Running totals, as JSON.
    pub figures: String,
    /// Why the candidate does not compile there.
    pub refusal: Option<String>,
    /// When it said so.
    pub reported_at: Time,
}

/// An id in texts.
mod as_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de};
    use uuid::Uuid;

    pub(super) fn serialize<S: Serializer>(id: &Uuid, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Uuid, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

const RUNNING: &str = "
    SELECT tenant, id, base, candidate, kind, share, share_before, share_at, state, rules, started_by, reason, started_at,
           deadline, ended_at, ended_by, end_reason, promoted, figures
      FROM canaries WHERE state = 'running' ORDER BY tenant";

const LATEST: &str = "
    SELECT tenant, id, base, candidate, kind, share, share_before, share_at, state, rules, started_by, reason, started_at,
           deadline, ended_at, ended_by, end_reason, promoted, figures
      FROM canaries WHERE tenant = $1 ORDER BY started_at DESC, id DESC LIMIT $2";

const ONE: &str = "
    SELECT tenant, id, base, candidate, kind, share, share_before, share_at, state, rules, started_by, reason, started_at,
           deadline, ended_at, ended_by, end_reason, promoted, figures
      FROM canaries WHERE tenant = $1 AND id = $2";

impl TenantScope<'_> {
    /// Starts a canary of the tenant's document.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the head is not at `base`, [`StoreError::Duplicate`] if one runs,
    /// [`StoreError::Missing`] if the candidate is no revision, [`StoreError::Unresolved`] if it refers to a secret that is not
    /// there; the database.
    pub async fn start_canary(&self, new: NewCanary<'_>) -> Result<Canary, StoreError> {
        let scope = Scope::Tenant(self.tenant().clone());
        let name = scope.as_str();
        let mut tx = self.begin().await?;
        let now = tx.now();
        let head = q!(
            tx, scalar_optional as i64,
            pg "SELECT revision FROM config_heads WHERE tenant = $1 FOR UPDATE",
            lite "SELECT revision FROM config_heads WHERE tenant = $1",
            name
        )?;
        let head = head.unwrap_or(0);
        if head != new.base {
            return Err(StoreError::Conflict { expected: new.base, found: head });
        }
        let runs = q!(
            tx,
            scalar_optional as i64,
            "SELECT candidate FROM canaries WHERE tenant = $1 AND state = 'running'",
            name
        )?;
        if let Some(candidate) = runs {
            return Err(StoreError::Duplicate(format!("a canary of revision {candidate}")));
        }
        let candidate = match new.candidate {
            CandidateSource::New(revision) => {
                tx.hold_secrets(&scope, revision.content).await?;
                tx.append_revision(&scope, head, revision).await?.0
            }
            CandidateSource::Existing(revision) => {
                let there = tx.revision(&scope, revision).await?;
                let there = there.ok_or_else(|| StoreError::Missing(format!("revision {revision}")))?;
                tx.hold_secrets(&scope, &there.content).await?;
                revision
            }
        };
        q!(
            tx,
            execute,
            "INSERT INTO canaries (tenant, id, base, candidate, kind, share, share_before, share_at, state, rules,
                                   started_by, reason, started_at, deadline)
             VALUES ($1, $2, $3, $4, $5, $6, 0, $7, 'running', $8, $9, $10, $11, $12)",
            name,
            new.id,
            new.base,
            candidate,
            new.kind,
            new.share,
            new.share_at,
            new.rules,
            new.started_by,
            new.reason,
            now,
            new.deadline
        )?;
        let canary = one(&mut tx, new.id).await?;
        announce(&mut tx).await?;
        tx.commit().await?;
        Ok(canary)
    }

    /// Changes the share of the running canary, from `at` on: if it is still the one that the caller has seen, in case that
    /// this matters.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if it does not run (any more), [`StoreError::Conflict`] if it has another share; the database.
    pub async fn share_canary(
        &self,
        id: Uuid,
        share: i32,
        at: Time,
        if_share: Option<i32>,
    ) -> Result<Canary, StoreError> {
        let mut tx = self.begin().await?;
        let now = tx.now();
        // A change that has not come into force yet is replaced: what held before it still does until then.
        let changed = q!(
            tx,
            execute,
            "UPDATE canaries SET share_before = CASE WHEN share_at <= $5 THEN share ELSE share_before END,
                                 share = $3, share_at = $4
              WHERE tenant = $1 AND id = $2 AND state = 'running' AND share = COALESCE($6, share)",
            self.tenant().as_str(),
            id,
            share,
            at,
            now,
            if_share
        )?;
        if changed == 0 {
            unseen(&mut tx, id, if_share).await?;
            return Err(StoreError::Missing("running canary".to_owned()));
        }
        let canary = one(&mut tx, id).await?;
        announce(&mut tx).await?;
        tx.commit().await?;
        Ok(canary)
    }

    /// Ends the running canary. `None`: somebody else had ended it.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if it has another share than the caller has seen; the database.
    pub async fn end_canary(&self, id: Uuid, end: CanaryEnd<'_>) -> Result<Option<Canary>, StoreError> {
        let mut tx = self.begin().await?;
        let now = tx.now();
        let ended = q!(
            tx,
            execute,
            "UPDATE canaries SET state = $3, ended_at = $4, ended_by = $5, end_reason = $6, promoted = $7, figures = $8
              WHERE tenant = $1 AND id = $2 AND state = 'running' AND share = COALESCE($9, share)",
            self.tenant().as_str(),
            id,
            end.state,
            now,
            end.by,
            end.reason,
            end.promoted,
            end.figures,
            end.if_share
        )?;
        if ended == 0 {
            unseen(&mut tx, id, end.if_share).await?;
            return Ok(None);
        }
        let canary = one(&mut tx, id).await?;
        announce(&mut tx).await?;
        tx.commit().await?;
        Ok(Some(canary))
    }

    /// The tenant's canaries, the latest first.
    ///
    /// # Errors
    /// The database.
    pub async fn canaries(&self, page: Page) -> Result<Vec<Canary>, StoreError> {
        let mut tx = self.read().await?;
        q!(tx, all as Canary, LATEST, self.tenant().as_str(), page.limit())
    }

    /// One canary of the tenant.
    ///
    /// # Errors
    /// The database.
    pub async fn canary(&self, id: Uuid) -> Result<Option<Canary>, StoreError> {
        let mut tx = self.read().await?;
        q!(tx, optional as Canary, ONE, self.tenant().as_str(), id)
    }

    /// What processes have counted of a canary.
    ///
    /// # Errors
    /// The database.
    pub async fn canary_reports(&self, id: Uuid) -> Result<Vec<CanaryReport>, StoreError> {
        let mut tx = self.read().await?;
        q!(
            tx,
            all as CanaryReport,
            "SELECT tenant, canary, boot, figures, refusal, reported_at FROM canary_reports
              WHERE tenant = $1 AND canary = $2 ORDER BY boot",
            self.tenant().as_str(),
            id
        )
    }
}

impl Platform<'_> {
    /// Every canary that runs.
    ///
    /// # Errors
    /// The database.
    pub async fn running_canaries(&self) -> Result<Vec<Canary>, StoreError> {
        let mut tx = self.read().await?;
        q!(tx, all as Canary, RUNNING)
    }

    /// Reports what a process has counted; a later report of the same process replaces an earlier one.
    ///
    /// # Errors
    /// The database.
    pub async fn report_canaries(&self, reports: &[CanaryReport]) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        for report in reports {
            q!(
                tx,
                execute,
                "INSERT INTO canary_reports (tenant, canary, boot, figures, refusal, reported_at)
                 VALUES ($1, $2, $3, $4, $5, $6)
                 ON CONFLICT (tenant, canary, boot) DO UPDATE
                    SET figures = excluded.figures, refusal = excluded.refusal, reported_at = excluded.reported_at",
                &report.tenant,
                report.canary,
                report.boot,
                &report.figures,
                report.refusal.as_deref(),
                report.reported_at
            )?;
        }
        tx.commit().await
    }

    /// Forgets reports of canaries that have ended: their figures are kept with them. Returns how many.
    ///
    /// # Errors
    /// The database.
    pub async fn forget_canary_reports(&self) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let gone = q!(
            tx,
            execute,
            "DELETE FROM canary_reports WHERE NOT EXISTS
                (SELECT 1 FROM canaries c WHERE c.tenant = canary_reports.tenant AND c.id = canary_reports.canary
                                            AND c.state = 'running')"
        )?;
        tx.commit().await?;
        Ok(gone)
    }
}

async fn one(tx: &mut TenantTx, id: Uuid) -> Result<Canary, StoreError> {
    let tenant = tx.tenant().clone();
    q!(tx, one as Canary, ONE, tenant.as_str(), id)
}

/// Tells a canary with another share than was seen from one that does not run.
async fn unseen(tx: &mut TenantTx, id: Uuid, if_share: Option<i32>) -> Result<(), StoreError> {
    let tenant = tx.tenant().clone();
    let found = q!(
        tx,
        scalar_optional as i32,
        "SELECT share FROM canaries WHERE tenant = $1 AND id = $2 AND state = 'running'",
        tenant.as_str(),
        id
    )?;
    match (if_share, found) {
        (Some(expected), Some(found)) => {
            Err(StoreError::Conflict { expected: expected.into(), found: found.into() })
        }
        _ => Ok(()),
    }
}

async fn announce(tx: &mut TenantTx) -> Result<(), StoreError> {
    let payload = format!("canary {}", tx.tenant());
    tx.notify(Channel::Config, &payload).await
}
