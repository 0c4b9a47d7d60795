//! About the caller and about the API itself.

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use crate::base::Role;
use crate::control::extract::{Caller, Params};
use crate::control::gate::Gated as _;
use crate::control::list::{self, ListQuery};
use crate::control::page::Page;
use crate::control::permission::{Holder, Permission, holds};
use crate::control::problem::Problem;
use crate::control::query::{Field, Kind, field, sortable};

pub(super) fn operations(router: OpenApiRouter<Api>) -> OpenApiRouter<Api> {
    router
        .operation(routes!(show_self))
        .operation(routes!(show_openapi))
        .operation(routes!(list_roles))
        .operation(routes!(list_permissions))
}

/// The caller.
#[derive(Serialize, ToSchema)]
pub(super) struct Myself {
    /// Stable over credentials; the author of what they change.
    id: String,
    /// Whose they are.
    tenant: String,
    /// What they were given.
    roles: Vec<&'static str>,
    /// Whether they have the `auditor` add-on.
    auditor: bool,
    /// Whether they run the platform and may act in every tenant.
    platform: bool,
    /// `api_key`, `bootstrap_token` or `listener_token`.
    proof: &'static str,
    /// The public id of the credential.
    credential: String,
    /// When the credential ends, in milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
    /// What they may do in their tenant, and everywhere if they run the platform.
    permissions: Vec<&'static str>,
}

/// Who the caller is
///
/// The answer lists the permissions that the credential holds.
#[utoipa::path(get, path = "/api/v1/me", tag = "own", responses((status = 200, description = "The caller.", body = Myself)))]
async fn show_self(Caller(actor): Caller) -> axum::Json<Myself> {
    axum::Json(Myself {
        id: actor.id.to_string(),
        tenant: actor.tenant.to_string(),
        roles: actor.roles.iter().map(Role::as_str).collect(),
        auditor: actor.auditor,
        platform: actor.is_platform(),
        proof: actor.proof.as_str(),
        credential: actor.credential.to_string(),
        expires: actor.expires,
        permissions: Permission::ALL
            .iter()
            .filter(|p| holds(&actor, **p))
            .filter(|p| actor.is_platform() || p.holder() != Holder::From(Role::SuperAdmin))
            .map(|p| p.as_str())
            .collect(),
    })
}

/// This description
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "own", responses((status = 200, description = "OpenAPI 3.1.", body = Value)))]
async fn show_openapi() -> Response {
    ([(CONTENT_TYPE, "application/json")], crate::control::openapi::text().clone()).into_response()
}

/// A built-in role.
#[derive(Serialize, ToSchema)]
pub(super) struct RoleView {
    /// Its name.
    name: &'static str,
    /// Weaker roles have smaller ranks. The add-on has none.
    rank: Option<u8>,
    /// Names of the permissions it holds.
    permissions: Vec<&'static str>,
}

/// A page of roles.
const ROLE_FIELDS: &[Field] = &[sortable("name", Kind::Text), sortable("rank", Kind::Number)];

/// The built-in roles
///
/// Weakest first by `sort=rank`. `auditor` is an add-on to any of them.
#[utoipa::path(get, path = "/api/v1/roles", tag = "own", params(ListQuery),
    responses((status = 200, description = "Roles.", body = Page<RoleView>)))]
async fn list_roles(Params(ask): Params<ListQuery>) -> Result<axum::Json<Page<Value>>, Problem> {
    let mut roles: Vec<RoleView> = Role::ALL
        .iter()
        .map(|role| RoleView {
            name: role.as_str(),
            rank: Some(*role as u8),
            permissions: held(|h| match h {
                Holder::From(from) | Holder::FromOrAuditor(from) => *role >= from,
                Holder::AuditorOnly => false,
            }),
        })
        .collect();
    let auditor = held(|h| matches!(h, Holder::FromOrAuditor(_) | Holder::AuditorOnly));
    roles.push(RoleView { name: "auditor", rank: None, permissions: auditor });
    list::page(roles, &ask, &["list_roles"], ROLE_FIELDS).map(axum::Json)
}

fn held(by: impl Fn(Holder) -> bool) -> Vec<&'static str> {
    Permission::ALL.iter().filter(|p| by(p.holder())).map(|p| p.as_str()).collect()
}

/// A permission.
#[derive(Serialize, ToSchema)]
pub(super) struct PermissionView {
    /// `resource:action`.
    name: &'static str,
    /// What it allows.
    summary: &'static str,
    /// The weakest role that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    /// Whether the `auditor` add-on holds it.
    auditor: bool,
}

const PERMISSION_FIELDS: &[Field] =
    &[sortable("name", Kind::Text), sortable("role", Kind::Text), field("auditor", Kind::Bool)];

/// All permissions
#[utoipa::path(get, path = "/api/v1/permissions", tag = "own", params(ListQuery),
    responses((status = 200, description = "Permissions.", body = Page<PermissionView>)))]
async fn list_permissions(Params(ask): Params<ListQuery>) -> Result<axum::Json<Page<Value>>, Problem> {
    let views = Permission::ALL.iter().map(|p| {
        let (role, auditor) = match p.holder() {
            Holder::From(role) => (Some(role.as_str()), false),
            Holder::FromOrAuditor(role) => (Some(role.as_str()), true),
            Holder::AuditorOnly => (None, true),
        };
        PermissionView { name: p.as_str(), summary: p.summary(), role, auditor }
    });
    list::page(views, &ask, &["list_permissions"], PERMISSION_FIELDS).map(axum::Json)
}
