//! What-if: what a candidate would have done with recorded requests.
//!
//! Each request is put to two compiled configurations, the baseline and the candidate, in the order of the data plane:
//! route, identity, scopes, limits, methods, policy. Limits run on the recorded time, in buckets of their own. What
//! differs is counted in groups, with examples.
//!
//! # What a sample cannot say, and how it is said
//!
//! - Callers are recorded as principals, not as credentials: a configuration that identifies callers in another way
//!   is asked only whether such a principal could still come to be ([`crate::auth::Source`]).
//! - A rule that reads arguments or claims is `undecided` where the sample has none.
//! - A thinned sample (weights over one) shows limits fewer requests than there were; [`Report::thinned`] says so.
//! - Where the baseline's answer is not what was recorded, the sample or the baseline is not what it should be; those
//!   requests are counted in [`Report::disagreements`].
//!
//! Pure: reads snapshots that were compiled apart, changes nothing, does no I/O.

mod fate;
mod report;

use std::collections::HashMap;
use std::sync::Arc;

pub use fate::{Fate, Verdict};
pub use report::{Change, Disagreement, Example, Report};

use crate::base::{Principal, PrincipalId, PrincipalKind, Role, RoleSet, TenantId};
use crate::snapshot::Snapshot;
use crate::telemetry::RequestSample;
use fate::Side;

/// A sample that cannot be replayed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sample {line}: {problem}")]
pub struct BadSample {
    /// Counted from one.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
}

/// Reads JSON lines; empty lines do not count.
///
/// # Errors
/// The first line that is no sample.
pub fn read(text: &str) -> Result<Vec<RequestSample>, BadSample> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(at, line)| {
            serde_json::from_str(line).map_err(|e| BadSample { line: at + 1, problem: e.to_string() })
        })
        .collect()
}

/// Replays samples, in the order of their time.
///
/// # Errors
/// A sample names a role or a kind of caller that does not exist.
pub fn replay(
    samples: &[RequestSample],
    baseline: Option<&Snapshot>,
    candidate: &Snapshot,
) -> Result<Report, BadSample> {
    let mut order: Vec<usize> = (0..samples.len()).collect();
    order.sort_by_key(|at| samples[*at].time);
    let start = order.first().map_or(0, |at| samples[*at].time);
    let mut callers = Callers::default();
    let mut before = baseline.map(Side::new);
    let mut after = Side::new(candidate);
    let mut report = Report::default();
    for at in order {
        let sample = &samples[at];
        let principal = callers.of(sample).map_err(|problem| BadSample { line: at + 1, problem })?;
        let now_ms = sample.time - start;
        let recorded = fate::recorded(sample);
        let was = match &mut before {
            Some(side) => side.decide(sample, principal.as_deref(), now_ms),
            None => recorded.clone(),
        };
        let will = after.decide(sample, principal.as_deref(), now_ms);
        report.count(sample, &was, &will);
        if baseline.is_some() && !was.agrees_with(&recorded) {
            report.disagree(sample, &recorded, &was);
        }
    }
    report.finish(baseline.is_some());
    Ok(report)
}

/// Principals of samples, each made once.
#[derive(Default)]
struct Callers(HashMap<String, Arc<Principal>>);

impl Callers {
    fn of(&mut self, sample: &RequestSample) -> Result<Option<Arc<Principal>>, String> {
        let Some(sampled) = &sample.principal else { return Ok(None) };
        // The same id may have had other roles at another time.
        let key = format!(
            "{:?}|{}|{}|{:?}|{:?}|{:?}",
            sample.tenant, sampled.id, sampled.kind, sampled.roles, sampled.groups, sampled.scopes
        );
        if let Some(known) = self.0.get(&key) {
            return Ok(Some(known.clone()));
        }
        let roles = sampled.roles.iter().map(|name| name.parse::<Role>().map_err(|e| e.to_string()));
        let kind = PrincipalKind::ALL.into_iter().find(|kind| kind.as_str() == sampled.kind);
        let texts = |list: &[String]| list.iter().map(|text| text.as_str().into()).collect();
        let tenant = sample.tenant.as_deref().map_or_else(TenantId::default, TenantId::new);
        let principal = Arc::new(Principal {
            id: PrincipalId::new(sampled.id.as_str()),
            kind: kind.ok_or_else(|| format!("unknown kind of caller `{}`", sampled.kind))?,
            roles: roles.collect::<Result<RoleSet, _>>()?,
            groups: texts(&sampled.groups),
            scopes: texts(&sampled.scopes),
            ..Principal::anonymous(tenant, Role::Anonymous)
        });
        self.0.insert(key, principal.clone());
        Ok(Some(principal))
    }
}
