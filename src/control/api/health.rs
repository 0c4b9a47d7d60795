//! Health of servers now, as all replicas see it.

use axum::extract::State;
use axum::{Extension, Json};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::sessions::MissingReplica;
use super::{Api, in_tenant};
use crate::base::TenantId;
use crate::control::extract::Params;
use crate::control::gate::Gated as _;
use crate::control::list::{self, ListQuery};
use crate::control::problem::Problem;
use crate::control::query::{Field, Kind, field, sortable};
use crate::control::seen::ServerNow;
use crate::control::state::{Readiness, Status};

pub(super) fn operations(router: OpenApiRouter<Api>) -> OpenApiRouter<Api> {
    router.operation(routes!(list_health)).operation(routes!(show_platform_health))
}

const FIELDS: &[Field] = &[
    sortable("name", Kind::Text),
    sortable("era", Kind::Text),
    field("state", Kind::Text),
    field("transport", Kind::Text),
    field("available", Kind::Bool),
];

/// A page of servers.
#[derive(Serialize, ToSchema)]
struct HealthPage {
    /// The servers, by name.
    #[schema(value_type = Vec<ServerNow>)]
    items: Vec<Value>,
    /// Where the next page begins, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    /// Replicas of which nothing is known.
    missing: Vec<MissingReplica>,
}

/// Health of a tenant's servers
///
/// Each with its targets now, as all replicas that call servers see them: those that can be asked are, of the others it is
/// what they stored last, with its age.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/health", tag = "health", params(in_tenant::Path, ListQuery),
    responses((status = 200, description = "Servers by name.", body = HealthPage)))]
async fn list_health(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Params(ask): Params<ListQuery>,
) -> Result<Json<HealthPage>, Problem> {
    let seen = api.fleet()?.servers(Some(tenant.as_str())).await;
    let page = list::page(seen.servers(), &ask, &["list_health", tenant.as_str()], FIELDS)?;
    Ok(Json(HealthPage {
        items: page.items,
        next_cursor: page.next_cursor,
        missing: seen.missing.into_iter().map(MissingReplica::from).collect(),
    }))
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
    /// The process, with the servers of all tenants as it sees them itself.
    status: Status,
    /// The servers of all tenants, as all replicas see them.
    servers: Vec<ServerNow>,
    /// Replicas of which nothing is known.
    missing: Vec<MissingReplica>,
}

/// Health of the replica that answers, and of all servers
#[utoipa::path(get, path = "/api/v1/health", tag = "health",
    responses((status = 200, description = "The replica.", body = PlatformHealth)))]
async fn show_platform_health(State(api): State<Api>) -> Result<Json<PlatformHealth>, Problem> {
    let readiness = api.state().readiness();
    let seen = api.fleet()?.servers(None).await;
    let problems = readiness.problems();
    Ok(Json(PlatformHealth {
        ready: problems.is_empty(),
        problems,
        readiness,
        status: api.state().status(),
        servers: seen.servers(),
        missing: seen.missing.into_iter().map(MissingReplica::from).collect(),
    }))
}
