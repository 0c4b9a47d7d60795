//! Roles of a tenant's own: named sets of permissions of this API.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json as Answer};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::in_tenant::{Conditional, Named, Path, Walk};
use super::{Api, When};
use crate::base::{Role, TenantId};
use crate::control::actor::Actor;
use crate::control::etag::{self, Precondition};
use crate::control::extract::{At, Caller, Json, Params};
use crate::control::gate::Gated as _;
use crate::control::page::Page;
use crate::control::permission::{Permission, holds, may_be_given};
use crate::control::problem::{FieldError, Problem};
use crate::control::trail::note;
use crate::store::{CustomRole, NewCustomRole};

/// Longest description, in characters.
const MAX_DESCRIPTION: usize = 500;
/// The add-on, which is no name of a role either.
pub(super) const AUDITOR: &str = "auditor";

pub(super) fn operations(router: OpenApiRouter<Api>) -> OpenApiRouter<Api> {
    router
        .operation(routes!(list_custom_roles))
        .operation(routes!(show_custom_role))
        .operation(routes!(put_custom_role))
        .operation(routes!(delete_custom_role))
}

/// A role of the tenant's own.
#[derive(Serialize, ToSchema)]
struct CustomRoleView {
    /// Its name.
    name: String,
    /// What it is for.
    description: String,
    /// Names of the permissions it holds.
    permissions: Vec<String>,
    /// Who changed it last.
    author: String,
    /// When it was made.
    created: When,
    /// When it was last changed.
    updated: When,
}

impl From<CustomRole> for CustomRoleView {
    fn from(row: CustomRole) -> Self {
        Self {
            name: row.name,
            description: row.description,
            permissions: row
                .permissions
                .split(' ')
                .filter(|p| !p.is_empty())
                .map(ToOwned::to_owned)
                .collect(),
            author: row.author,
            created: row.created_at.into(),
            updated: row.updated_at.into(),
        }
    }
}

/// What a role holds.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CustomRoleBody {
    /// What it is for.
    #[serde(default)]
    #[schema(max_length = 500)]
    description: String,
    /// Names of permissions; none that the caller does not hold, and not `audit:bodies`.
    #[schema(min_items = 1, max_items = 64)]
    permissions: Vec<String>,
}

/// Nobody makes, changes, gives or takes a role that holds more than they do.
///
/// # Errors
///
/// 403.
pub(super) fn may_handle<'a>(
    actor: &Actor,
    permissions: impl IntoIterator<Item = &'a str>,
) -> Result<(), Problem> {
    for name in permissions {
        // Who runs the platform may give everything that can be given, in every tenant.
        let own = Permission::parse(name).is_none_or(|p| actor.is_platform() || holds(actor, p));
        if !own {
            return Err(Problem::forbidden(format!("you do not hold the permission `{name}` yourself")));
        }
    }
    Ok(())
}

/// Roles of a tenant's own
///
/// Besides the built-in ones (`/api/v1/roles`), which every tenant has.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/roles", tag = "users", params(Path, Walk),
    responses((status = 200, description = "Roles by name.", body = Page<CustomRoleView>)))]
async fn list_custom_roles(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Params(ask): Params<Walk>,
) -> Result<Answer<Page<CustomRoleView>>, Problem> {
    let slice = ask.slice("list_custom_roles", &tenant, 1)?;
    let rows = api.store()?.tenant(&tenant).custom_roles(slice.after_text(), slice.rows()).await?;
    Ok(Answer(slice.page(rows, |row| vec![Value::from(row.name.clone())]).map(CustomRoleView::from)))
}

/// One role of a tenant's own
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/roles/{name}", tag = "users", params(Named),
    responses((status = 200, description = "The role.", body = CustomRoleView)))]
async fn show_custom_role(State(api): State<Api>, At(at): At<Named>) -> Result<Response, Problem> {
    let (tenant, name) = at.names()?;
    let found = api.store()?.tenant(&tenant).custom_role(&name).await?.ok_or_else(Problem::not_found)?;
    Ok(answer(StatusCode::OK, found))
}

fn answer(status: StatusCode, row: CustomRole) -> Response {
    let view = CustomRoleView::from(row);
    let tag = etag::of_content(&view);
    (status, [etag::header(&tag)], Answer(view)).into_response()
}

/// Add or replace a role of a tenant's own
///
/// It counts at once for whoever has it. It is for this API: policies of routes know the built-in roles only.
#[utoipa::path(put, path = "/api/v1/tenants/{tenant}/roles/{name}", tag = "users", params(Named, Conditional),
    request_body = CustomRoleBody,
    responses((status = 200, description = "Replaced.", body = CustomRoleView),
        (status = 201, description = "Added.", body = CustomRoleView),
        (status = 403, description = "It would hold, or holds, more than the caller does."),
        (status = 412, description = "Somebody changed it since it was read."),
        (status = 428, description = "No precondition.")))]
async fn put_custom_role(
    State(api): State<Api>,
    Caller(actor): Caller,
    At(at): At<Named>,
    precondition: Precondition,
    Json(body): Json<CustomRoleBody>,
) -> Result<Response, Problem> {
    let (tenant, name) = at.names()?;
    let precondition = precondition.required()?;
    if name == AUDITOR || name.parse::<Role>().is_ok() {
        return Err(Problem::conflict("built_in", "a built-in role has this name"));
    }
    if body.description.chars().count() > MAX_DESCRIPTION || body.description.chars().any(char::is_control) {
        let text = format!("at most {MAX_DESCRIPTION} characters, no control characters");
        return Err(Problem::invalid([FieldError::new("/description", text)]));
    }
    let names = permissions(&body.permissions)?;
    may_handle(&actor, names.iter().copied())?;
    let new = NewCustomRole {
        name: &name,
        description: &body.description,
        permissions: &names.join(" "),
        author: &actor.id,
    };
    let store = api.store()?;
    let scope = store.tenant(&tenant);
    // Taking permissions out of a role of stronger people is not for weaker ones either.
    let put = scope.put_custom_role(new, |found| may_replace(&actor, &precondition, found)).await?;
    note(|notes| {
        notes.changes.push(format!("permissions: {}", names.join(", ")));
        notes.object = Some(name.clone());
    });
    Ok(answer(if put.is_new() { StatusCode::CREATED } else { StatusCode::OK }, put.into_row()))
}

/// The names, each once, in the order of the table.
fn permissions(names: &[String]) -> Result<Vec<&'static str>, Problem> {
    if names.is_empty() || names.len() > Permission::ALL.len() {
        let text = format!("there must be 1 to {}", Permission::ALL.len());
        return Err(Problem::invalid([FieldError::new("/permissions", text)]));
    }
    let mut found = Vec::with_capacity(names.len());
    for (i, name) in names.iter().enumerate() {
        let pointer = format!("/permissions/{i}");
        match Permission::parse(name) {
            Some(permission) if may_be_given(permission) => found.push(permission),
            Some(_) => {
                return Err(Problem::invalid([FieldError::new(pointer, "no such role can hold this")]));
            }
            None => {
                let error = FieldError::new(pointer, "there is no such permission");
                return Err(Problem::invalid([error.expecting("a name of /api/v1/permissions")]));
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found.into_iter().map(Permission::as_str).collect())
}

/// Take a role of a tenant's own away
///
/// From everybody who has it, too.
#[utoipa::path(delete, path = "/api/v1/tenants/{tenant}/roles/{name}", tag = "users", params(Named, Conditional),
    responses((status = 204, description = "Gone."),
        (status = 403, description = "It holds more than the caller does."),
        (status = 412, description = "Somebody changed it since it was read.")))]
async fn delete_custom_role(
    State(api): State<Api>,
    Caller(actor): Caller,
    At(at): At<Named>,
    precondition: Precondition,
) -> Result<StatusCode, Problem> {
    let (tenant, name) = at.names()?;
    let store = api.store()?;
    let scope = store.tenant(&tenant);
    scope.remove_custom_role(&name, |found| may_replace(&actor, &precondition, found)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether this actor may change or remove what there is, and has seen it.
fn may_replace(
    actor: &Actor,
    precondition: &Precondition,
    found: Option<&CustomRole>,
) -> Result<(), Problem> {
    if let Some(found) = found {
        may_handle(actor, found.permissions.split(' '))?;
    }
    precondition.check(found.map(|row| etag::of_content(&CustomRoleView::from(row.clone()))).as_deref())
}
