//! Roles that were given to somebody, whatever their credential says.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json as Answer};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::custom_roles::{AUDITOR, may_handle};
use super::in_tenant::{Path, Walk};
use super::people::principal;
use super::reach::{may_give_auditor, may_name};
use super::{Api, When, may_give};
use crate::base::{Role, TenantId};
use crate::control::actor::Actor;
use crate::control::extract::{At, Caller, Params};
use crate::control::gate::Gated as _;
use crate::control::list::{self, ListQuery, every_row};
use crate::control::page::Page;
use crate::control::problem::Problem;
use crate::control::query::{Field, Kind, sortable};
use crate::control::trail::note;
use crate::store::{Page as Rows, RoleBinding, TenantScope};

/// The first two name a binding.
const FIELDS: &[Field] = &[
    sortable("subject", Kind::Text),
    sortable("role", Kind::Text),
    sortable("author", Kind::Text),
    sortable("created", Kind::Time),
];

pub(super) fn operations(router: OpenApiRouter<Api>) -> OpenApiRouter<Api> {
    router
        .operation(routes!(list_role_bindings))
        .operation(routes!(put_role_binding))
        .operation(routes!(delete_role_binding))
}

/// A role that somebody has whatever their credential says.
#[derive(Serialize, ToSchema)]
struct BindingView {
    /// The whole principal id.
    subject: String,
    /// Name of the role, or `auditor`.
    role: String,
    /// Who gave it.
    author: String,
    /// When.
    created: When,
}

impl From<RoleBinding> for BindingView {
    fn from(row: RoleBinding) -> Self {
        Self { subject: row.subject, role: row.role, author: row.author, created: row.created_at.into() }
    }
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
struct OneBinding {
    /// Whose.
    tenant: String,
    /// The whole principal id, percent-encoded.
    #[param(max_length = 256)]
    subject: String,
    /// A built-in role, one of the tenant's own, or `auditor`.
    #[param(max_length = 63)]
    role: String,
}

/// What kind of role it is.
enum Which {
    Auditor,
    BuiltIn(Role),
    Own,
}

impl OneBinding {
    /// The role, if there is one of this name and the actor may give and take it.
    async fn which(&self, scope: &TenantScope<'_>, actor: &Actor) -> Result<Which, Problem> {
        if self.role == AUDITOR {
            return may_give_auditor(actor).map(|()| Which::Auditor);
        }
        match self.role.parse::<Role>() {
            Ok(role) => may_give(actor, scope.tenant(), role).map(|()| Which::BuiltIn(role)),
            Err(unknown) => {
                let found =
                    if self.role.contains('\0') { None } else { scope.custom_role(&self.role).await? };
                let own = found.ok_or_else(|| Problem::bad_request(unknown.to_string()))?;
                may_handle(actor, own.permissions.split(' ')).map(|()| Which::Own)
            }
        }
    }
}

/// Roles that were given
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/role-bindings", tag = "users", params(Path, ListQuery),
    responses((status = 200, description = "By subject and role, or as asked.", body = Page<BindingView>)))]
async fn list_role_bindings(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Params(ask): Params<ListQuery>,
) -> Result<Response, Problem> {
    let scope = api.store()?.tenant(&tenant);
    if !ask.is_plain() {
        let rows = every_row!(
            |after| scope.role_bindings(
                after.map(|(subject, role): &(String, String)| (subject.as_str(), role.as_str())),
                Rows::of(Rows::MAX)
            ),
            |row: &RoleBinding| (row.subject.clone(), row.role.clone())
        );
        let rows = rows.into_iter().map(BindingView::from);
        let list = ["list_role_bindings", tenant.as_str()];
        return Ok(Answer(list::page_by(rows, &ask, &list, FIELDS, 2)?).into_response());
    }
    let slice = Walk::from(ask).slice("list_role_bindings", &tenant, 2)?;
    let after = slice.after.as_ref().and_then(|keys| Some((keys[0].as_str()?, keys[1].as_str()?)));
    let rows = scope.role_bindings(after, slice.rows()).await?;
    let keys = |row: &RoleBinding| vec![Value::from(row.subject.clone()), Value::from(row.role.clone())];
    Ok(Answer(slice.page(rows, keys).map(BindingView::from)).into_response())
}

/// Give somebody a role
///
/// None above the caller's own, and none of the tenant's own that holds more than the caller does. `auditor` is the add-on
/// that may read recorded bodies: administrators and auditors give it.
#[utoipa::path(put, path = "/api/v1/tenants/{tenant}/role-bindings/{subject}/{role}", tag = "users", params(OneBinding),
    responses((status = 204, description = "Given."),
        (status = 403, description = "The role is above the caller's own.")))]
async fn put_role_binding(
    State(api): State<Api>,
    Caller(actor): Caller,
    At(at): At<OneBinding>,
) -> Result<StatusCode, Problem> {
    let (store, tenant) = (api.store()?, TenantId::new(at.tenant.as_str()));
    let (scope, subject) = (store.tenant(&tenant), principal(&at.subject)?);
    may_name(&actor, subject)?;
    note(|notes| notes.object = Some(subject.to_owned()));
    match at.which(&scope, &actor).await? {
        Which::Auditor => scope.bind_auditor(subject, &actor.id).await?,
        Which::BuiltIn(role) => scope.bind_role(subject, role, &actor.id).await?,
        Which::Own => scope.bind_custom_role(subject, &at.role, &actor.id).await?,
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Take a role away that was given
#[utoipa::path(delete, path = "/api/v1/tenants/{tenant}/role-bindings/{subject}/{role}", tag = "users", params(OneBinding),
    responses((status = 204, description = "Taken away."),
        (status = 403, description = "The role is above the caller's own.")))]
async fn delete_role_binding(
    State(api): State<Api>,
    Caller(actor): Caller,
    At(at): At<OneBinding>,
) -> Result<StatusCode, Problem> {
    let (store, tenant) = (api.store()?, TenantId::new(at.tenant.as_str()));
    let (scope, subject) = (store.tenant(&tenant), principal(&at.subject)?);
    may_name(&actor, subject)?;
    note(|notes| notes.object = Some(subject.to_owned()));
    match at.which(&scope, &actor).await? {
        Which::Auditor => scope.unbind_auditor(subject).await?,
        Which::BuiltIn(role) => scope.unbind_role(subject, role).await?,
        Which::Own => scope.unbind_custom_role(subject, &at.role).await?,
    }
    Ok(StatusCode::NO_CONTENT)
}
