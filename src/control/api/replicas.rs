//! Replicas: who is alive, and which revisions each serves or refuses.

use axum::Json as Answer;
use axum::extract::State;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Api, When};
use crate::control::extract::Params;
use crate::control::gate::Gated as _;
use crate::control::list::{self, ListQuery};
use crate::control::page::Page;
use crate::control::problem::Problem;
use crate::control::query::{Field, Kind, field, sortable};
use crate::source::replica::{FORGOTTEN, LIVE};

const FIELDS: &[Field] = &[
    sortable("boot", Kind::Text),
    sortable("replica", Kind::Text),
    field("role", Kind::Text),
    field("version", Kind::Text),
    field("live", Kind::Bool),
];

pub(super) fn operations(router: OpenApiRouter<Api>) -> OpenApiRouter<Api> {
    router.operation(routes!(list_replicas))
}

/// A replica.
#[derive(Serialize, ToSchema)]
struct ReplicaView {
    /// The process, from its start to its end.
    boot: String,
    /// The replica: stays the same over restarts.
    replica: String,
    /// `all`, `control` or `data`.
    role: String,
    /// Of the program.
    version: String,
    /// Level of the schema that it was built for.
    schema_level: i32,
    /// Where its internal listener is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// When it started.
    started: When,
    /// When it was last heard of.
    seen: When,
    /// Whether that was in the last ten seconds.
    live: bool,
    /// Which revision it serves of each scope.
    revisions: Vec<ServedView>,
}

/// What a replica does with a scope.
#[derive(Serialize, ToSchema)]
struct ServedView {
    /// A tenant, or `@platform`.
    scope: String,
    /// The revision that it serves; 0 for none.
    served: i64,
    /// A later one that it refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<i64>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<String>,
    /// When it said so.
    reported: When,
}

/// Replicas
///
/// Those heard of in the last hour, with the revisions that each serves or refused.
#[utoipa::path(get, path = "/api/v1/replicas", tag = "replicas", params(ListQuery),
    responses((status = 200, description = "Replicas by boot id.", body = Page<ReplicaView>)))]
async fn list_replicas(
    State(api): State<Api>,
    Params(ask): Params<ListQuery>,
) -> Result<Answer<Page<Value>>, Problem> {
    let store = api.store()?;
    let now = store.now();
    let served = store.platform().all_served_revisions().await?;
    let views = store.platform().replicas(FORGOTTEN).await?.into_iter().map(|row| ReplicaView {
        boot: row.boot.to_string(),
        replica: row.replica,
        role: row.role,
        version: row.version,
        schema_level: row.schema_level,
        address: row.address,
        started: row.started_at.into(),
        seen: row.seen_at.into(),
        live: now.since(row.seen_at) <= LIVE,
        revisions: served
            .iter()
            .filter(|s| s.boot == row.boot)
            .map(|s| ServedView {
                scope: s.scope.clone(),
                served: s.served,
                refused: s.refused,
                refusal: s.refusal.clone(),
                reported: s.reported_at.into(),
            })
            .collect(),
    });
    list::page(views, &ask, &["list_replicas"], FIELDS).map(Answer)
}
