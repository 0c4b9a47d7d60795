//! Health of servers as this replica sees it.

use axum::extract::State;
use axum::{Extension, Json};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Api, in_tenant};
use crate::base::TenantId;
use crate::control::extract::Params;
use crate::control::gate::Gated as _;
use crate::control::list::{self, ListQuery};
use crate::control::page::Page;
use crate::control::problem::Problem;
use crate::control::query::{Field, Kind, field, sortable};
use crate::control::state::{Readiness, ServerStatus, Status};

pub(super) fn operations(router: OpenApiRouter<Api>) -> OpenApiRouter<Api> {
    router.operation(routes!(list_health)).operation(routes!(show_platform_health))
}

const FIELDS: &[Field] = &[
    sortable("name", Kind::Text),
    sortable("era", Kind::Text),
    field("transport", Kind::Text),
    field("available", Kind::Bool),
];

/// Health of a tenant's servers
///
/// Each with its targets, as the replica that answers sees them.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/health", tag = "health", params(in_tenant::Path, ListQuery),
    responses((status = 200, description = "Servers by name.", body = Page<ServerStatus>)))]
async fn list_health(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Params(ask): Params<ListQuery>,
) -> Result<Json<Page<Value>>, Problem> {
    let servers = api.state().status().servers.into_iter().filter(|s| s.tenant == tenant.as_str());
    list::page(servers, &ask, &["list_health", tenant.as_str()], FIELDS).map(Json)
}

/// A replica's health.
#[derive(Serialize, ToSchema)]
struct PlatformHealth {
    /// Whether the replica should get traffic.
    ready: bool,
    /// Why not.
    problems: Vec<String>,
    /// What that depends on.
    readiness: Readiness,
    /// The process, with the servers of all tenants.
    status: Status,
}

/// Health of the replica that answers
#[utoipa::path(get, path = "/api/v1/health", tag = "health",
    responses((status = 200, description = "The replica.", body = PlatformHealth)))]
async fn show_platform_health(State(api): State<Api>) -> Json<PlatformHealth> {
    let readiness = api.state().readiness();
    let problems = readiness.problems();
    Json(PlatformHealth { ready: problems.is_empty(), problems, readiness, status: api.state().status() })
}
