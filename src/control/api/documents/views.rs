//! What callers send and see of documents.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::source::{Convergence, Published};
use crate::store::RevisionSummary;

/// What was published, or would be.
#[derive(Serialize, ToSchema)]
pub(super) struct PublishedView {
    /// Whose document: a tenant, or `@platform`.
    pub(super) scope: String,
    /// The head. Of a dry run: as it is.
    pub(super) revision: i64,
    /// The head before.
    pub(super) parent: i64,
    /// Whether there is a new revision, or would be. The bytes of the head are none.
    pub(super) changed: bool,
    /// What differs, one line per change.
    pub(super) changes: Vec<String>,
    /// What is right but looks wrong.
    pub(super) warnings: Vec<String>,
    /// SHA-256 of the document, in hexadecimal.
    pub(super) hash: String,
}

/// A revision without its document.
#[derive(Serialize, ToSchema)]
pub(super) struct RevisionView {
    pub(super) revision: i64,
    /// The revision it replaced; 0 for the first.
    pub(super) parent: i64,
    /// Who published it.
    pub(super) author: String,
    /// Why.
    pub(super) reason: String,
    /// When, RFC 3339.
    pub(super) created_at: String,
    /// SHA-256 of the document, in hexadecimal.
    pub(super) hash: String,
    /// Bytes of the document.
    pub(super) size: i64,
}

/// Revisions, the newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct Revisions {
    pub(super) items: Vec<RevisionView>,
    /// `before` of the next page, if there is one.
    pub(super) next: Option<i64>,
}

/// Changes in words.
#[derive(Serialize, ToSchema)]
pub(super) struct Changes {
    pub(super) items: Vec<String>,
}

/// How far live replicas are with a revision.
#[derive(Serialize, ToSchema)]
pub(super) struct ConvergenceView {
    pub(super) scope: String,
    pub(super) revision: i64,
    /// Whether all of them serve it, or a later one.
    pub(super) complete: bool,
    pub(super) replicas: Vec<PositionView>,
}

/// What one replica does with a revision.
#[derive(Serialize, ToSchema)]
pub(super) struct PositionView {
    pub(super) replica: String,
    /// `all`, `control` or `data`.
    pub(super) role: String,
    pub(super) version: String,
    /// The revision it serves; 0 for none.
    pub(super) served: i64,
    /// A later one that it refused.
    pub(super) refused: Option<i64>,
    /// Why.
    pub(super) reason: Option<String>,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PublishQuery {
    /// Only say what would happen.
    #[serde(default)]
    pub(super) dry_run: bool,
    /// Why, at most 500 characters; the header `X-Tollgate-Reason` does the same.
    #[param(max_length = 500)]
    #[allow(dead_code, reason = "the reason has an extractor of its own")]
    pub(super) reason: Option<String>,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct HistoryQuery {
    /// Revisions before this one.
    pub(super) before: Option<i64>,
    /// How many, 50 unless given.
    #[param(minimum = 1, maximum = 500)]
    pub(super) limit: Option<u32>,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct CompareQuery {
    /// The older revision; 0 is the document that says nothing.
    pub(super) from: i64,
    /// The newer one. Default: the head.
    pub(super) to: Option<i64>,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ConvergenceQuery {
    /// Which revision. Default: the head.
    pub(super) revision: Option<i64>,
    /// Wait so many seconds, 25 at most, until every live replica serves it or has refused it.
    #[param(maximum = 25)]
    pub(super) wait: Option<u64>,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct CompareWithQuery {
    /// The revision to compare with; 0 is the document that says nothing. Default: the head.
    pub(super) with: Option<i64>,
}

/// Documents that are published together.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Together {
    /// Each of another scope.
    #[schema(min_items = 1, max_items = 1000)]
    pub(super) documents: Vec<OneOfThem>,
}

/// One document.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OneOfThem {
    /// Whose: a tenant, or `@platform`.
    #[schema(min_length = 1, max_length = 64)]
    pub(super) scope: String,
    /// The document, as YAML or JSON.
    pub(super) document: String,
    /// The revision that was read last (0: none); without it, whatever there is is replaced.
    pub(super) if_revision: Option<i64>,
}

/// What became of each of them, in their order.
#[derive(Serialize, ToSchema)]
pub(super) struct PublishedTogether {
    pub(super) items: Vec<PublishedView>,
}

/// Where to go back to.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rollback {
    /// The revision whose document is published again.
    pub(super) revision: i64,
}

impl From<Published> for PublishedView {
    fn from(p: Published) -> Self {
        Self {
            scope: p.scope.as_str().to_owned(),
            revision: p.revision,
            parent: p.parent,
            changed: p.changed,
            changes: p.changes,
            warnings: p.warnings,
            hash: p.hash,
        }
    }
}

impl From<RevisionSummary> for RevisionView {
    fn from(r: RevisionSummary) -> Self {
        Self {
            revision: r.revision,
            parent: r.parent,
            author: r.author,
            reason: r.reason,
            created_at: r.created_at.to_string(),
            hash: r.hash.iter().map(|byte| format!("{byte:02x}")).collect(),
            size: r.size,
        }
    }
}

impl ConvergenceView {
    pub(super) fn of(state: Convergence) -> Self {
        let complete = state.is_complete();
        let replicas = state.positions.into_iter().map(|p| {
            let (refused, reason) = p.refused.unzip();
            PositionView {
                replica: p.replica.replica,
                role: p.replica.role,
                version: p.replica.version,
                served: p.served,
                refused,
                reason,
            }
        });
        Self {
            scope: state.scope.as_str().to_owned(),
            revision: state.revision,
            complete,
            replicas: replicas.collect(),
        }
    }
}
