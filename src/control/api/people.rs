//! Users, the roles that were given to somebody, and revoked credentials.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json as Answer};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::in_tenant::{Conditional, Path, Walk};
use super::{Api, When, may_give};
use crate::auth::RevocationRecord;
use crate::base::{Role, TenantId};
use crate::control::etag::{self, Precondition};
use crate::control::extract::{At, Caller, Json, Params};
use crate::control::gate::Gated as _;
use crate::control::page::{Fingerprint, Page, Slice};
use crate::control::problem::{FieldError, Problem};
use crate::store::{NewUser, Page as Rows, RevocationEntry, RoleBinding, User};

/// Longest id of a principal, in bytes.
const MAX_PRINCIPAL: usize = 256;
/// Longest text about somebody, in characters.
const MAX_TEXT: usize = 256;
/// The add-on that stands beside the roles.
const AUDITOR: &str = "auditor";

pub(super) fn operations(router: OpenApiRouter<Api>) -> OpenApiRouter<Api> {
    router
        .operation(routes!(list_users))
        .operation(routes!(show_user))
        .operation(routes!(put_user))
        .operation(routes!(delete_user))
        .operation(routes!(list_role_bindings))
        .operation(routes!(put_role_binding))
        .operation(routes!(delete_role_binding))
        .operation(routes!(list_revocations))
        .operation(routes!(create_revocation))
        .operation(routes!(delete_revocation))
}

/// A user.
#[derive(Serialize, ToSchema)]
struct UserView {
    /// The whole principal id, such as `corp|alice`.
    id: String,
    /// Name for people.
    display_name: String,
    /// Address for people; empty if unknown.
    email: String,
    /// Whether every credential of theirs is refused.
    disabled: bool,
    /// When it was made.
    created: When,
    /// When it was last changed.
    updated: When,
}

impl From<User> for UserView {
    fn from(row: User) -> Self {
        Self {
            id: row.id,
            display_name: row.display_name,
            email: row.email,
            disabled: row.disabled,
            created: row.created_at.into(),
            updated: row.updated_at.into(),
        }
    }
}

/// What is kept of a user.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UserBody {
    /// Name for people.
    #[serde(default)]
    #[schema(max_length = 256)]
    display_name: String,
    /// Address for people.
    #[serde(default)]
    #[schema(max_length = 256)]
    email: String,
    /// Whether every credential of theirs is refused.
    #[serde(default)]
    disabled: bool,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
struct OneUser {
    /// Whose.
    tenant: String,
    /// The whole principal id, such as `corp|alice`, percent-encoded.
    #[param(max_length = 256)]
    id: String,
}

impl OneUser {
    fn parts(&self) -> Result<(TenantId, &str), Problem> {
        Ok((TenantId::new(self.tenant.as_str()), principal(&self.id)?))
    }
}

/// An id that somebody can have.
fn principal(id: &str) -> Result<&str, Problem> {
    let good = (1..=MAX_PRINCIPAL).contains(&id.len()) && !id.chars().any(char::is_control);
    if good {
        Ok(id)
    } else {
        Err(Problem::bad_request(format!("a principal has 1 to {MAX_PRINCIPAL} bytes")))
    }
}

/// Users
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/users", tag = "users", params(Path, Walk),
    responses((status = 200, description = "Users by id.", body = Page<UserView>)))]
async fn list_users(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Params(ask): Params<Walk>,
) -> Result<Answer<Page<UserView>>, Problem> {
    let slice =
        Slice::read(ask.limit, ask.cursor.as_deref(), Fingerprint::of(&["list_users", tenant.as_str()]), 1)?;
    let after = slice.after.as_ref().and_then(|keys| keys[0].as_str());
    let rows = api.store()?.tenant(&tenant).users(after, Rows::of(slice.limit as u32 + 1)).await?;
    Ok(Answer(slice.page(rows, |row| vec![Value::from(row.id.clone())]).map(UserView::from)))
}

/// One user
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/users/{id}", tag = "users", params(OneUser),
    responses((status = 200, description = "The user.", body = UserView)))]
async fn show_user(State(api): State<Api>, At(at): At<OneUser>) -> Result<Response, Problem> {
    let (tenant, id) = at.parts()?;
    let found = api.store()?.tenant(&tenant).user(id).await?.ok_or_else(Problem::not_found)?;
    Ok(user(StatusCode::OK, found))
}

fn user(status: StatusCode, row: User) -> Response {
    let view = UserView::from(row);
    let tag = etag::of_content(&view);
    (status, [etag::header(&tag)], Answer(view)).into_response()
}

/// Add or replace a user
///
/// Callers need not be users: a user is made to be named, given roles or shut out.
#[utoipa::path(put, path = "/api/v1/tenants/{tenant}/users/{id}", tag = "users", params(OneUser, Conditional),
    request_body = UserBody,
    responses((status = 200, description = "Replaced.", body = UserView),
        (status = 201, description = "Added.", body = UserView),
        (status = 412, description = "Somebody changed it since it was read.")))]
async fn put_user(
    State(api): State<Api>,
    At(at): At<OneUser>,
    precondition: Precondition,
    Json(body): Json<UserBody>,
) -> Result<Response, Problem> {
    let (tenant, id) = at.parts()?;
    for (pointer, text) in [("/display_name", &body.display_name), ("/email", &body.email)] {
        if text.chars().count() > MAX_TEXT || text.chars().any(char::is_control) {
            let error =
                FieldError::new(pointer, format!("at most {MAX_TEXT} characters, no control characters"));
            return Err(Problem::invalid([error]));
        }
    }
    let store = api.store()?;
    let scope = store.tenant(&tenant);
    let found = scope.user(id).await?.map(UserView::from);
    precondition.check(found.as_ref().map(etag::of_content).as_deref())?;
    let new = NewUser { id, display_name: &body.display_name, email: &body.email, disabled: body.disabled };
    let row = scope.put_user(new).await?;
    Ok(user(if found.is_some() { StatusCode::OK } else { StatusCode::CREATED }, row))
}

/// Take a user away
///
/// With the roles that were given to them. Their credentials count again if they were disabled.
#[utoipa::path(delete, path = "/api/v1/tenants/{tenant}/users/{id}", tag = "users", params(OneUser, Conditional),
    responses((status = 204, description = "Gone."),
        (status = 412, description = "Somebody changed it since it was read.")))]
async fn delete_user(
    State(api): State<Api>,
    At(at): At<OneUser>,
    precondition: Precondition,
) -> Result<StatusCode, Problem> {
    let (tenant, id) = at.parts()?;
    let store = api.store()?;
    let found = store.tenant(&tenant).user(id).await?.map(UserView::from).ok_or_else(Problem::not_found)?;
    precondition.check(Some(&etag::of_content(&found)))?;
    store.tenant(&tenant).remove_user(id).await?;
    Ok(StatusCode::NO_CONTENT)
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
    /// A role, or `auditor`.
    role: String,
}

/// Roles that were given
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/role-bindings", tag = "users", params(Path, Walk),
    responses((status = 200, description = "By subject and role.", body = Page<BindingView>)))]
async fn list_role_bindings(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Params(ask): Params<Walk>,
) -> Result<Answer<Page<BindingView>>, Problem> {
    let list = Fingerprint::of(&["list_role_bindings", tenant.as_str()]);
    let slice = Slice::read(ask.limit, ask.cursor.as_deref(), list, 2)?;
    let after = slice.after.as_ref().and_then(|keys| Some((keys[0].as_str()?, keys[1].as_str()?)));
    let rows = api.store()?.tenant(&tenant).role_bindings(after, Rows::of(slice.limit as u32 + 1)).await?;
    let keys = |row: &RoleBinding| vec![Value::from(row.subject.clone()), Value::from(row.role.clone())];
    Ok(Answer(slice.page(rows, keys).map(BindingView::from)))
}

/// Give somebody a role
///
/// None above the caller's own. `auditor` is the add-on that may read recorded bodies.
#[utoipa::path(put, path = "/api/v1/tenants/{tenant}/role-bindings/{subject}/{role}", tag = "users", params(OneBinding),
    responses((status = 204, description = "Given."),
        (status = 403, description = "The role is above the caller's own.")))]
async fn put_role_binding(
    State(api): State<Api>,
    Caller(actor): Caller,
    At(at): At<OneBinding>,
) -> Result<StatusCode, Problem> {
    let (store, tenant) = (api.store()?, TenantId::new(at.tenant.as_str()));
    let subject = principal(&at.subject)?;
    if at.role == AUDITOR {
        store.tenant(&tenant).bind_auditor(subject, &actor.id).await?;
    } else {
        let role = at.role.parse::<Role>().map_err(|e| Problem::bad_request(e.to_string()))?;
        may_give(&actor, &tenant, role)?;
        store.tenant(&tenant).bind_role(subject, role, &actor.id).await?;
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
    let subject = principal(&at.subject)?;
    if at.role == AUDITOR {
        store.tenant(&tenant).unbind_auditor(subject).await?;
    } else {
        let role = at.role.parse::<Role>().map_err(|e| Problem::bad_request(e.to_string()))?;
        may_give(&actor, &tenant, role)?;
        store.tenant(&tenant).unbind_role(subject, role).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Credentials that are refused whatever their signature says: exactly one of `jti`, `sub` and `principal`.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RevocationBody {
    /// One token, by its `jti`; or one API key, by its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    /// Every token with this `sub`.
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
    /// Every credential of a principal, such as `corp|alice`.
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<String>,
    /// Only credentials of this issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    /// Only credentials that were issued at or before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    before: Option<String>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256)]
    note: Option<String>,
}

/// A revocation.
#[derive(Serialize, ToSchema)]
struct RevocationView {
    /// Its own id.
    id: String,
    /// What is refused.
    #[schema(value_type = Object)]
    record: Value,
    /// Who revoked.
    author: String,
    /// When.
    created: When,
}

impl From<RevocationEntry> for RevocationView {
    fn from(row: RevocationEntry) -> Self {
        Self {
            id: row.id,
            record: serde_json::from_str(&row.record).unwrap_or_else(|_| json!(row.record)),
            author: row.author,
            created: row.created_at.into(),
        }
    }
}

/// Revoked credentials
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/revocations", tag = "users", params(Path, Walk),
    responses((status = 200, description = "The oldest first.", body = Page<RevocationView>)))]
async fn list_revocations(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Params(ask): Params<Walk>,
) -> Result<Answer<Page<RevocationView>>, Problem> {
    let list = Fingerprint::of(&["list_revocations", tenant.as_str()]);
    let slice = Slice::read(ask.limit, ask.cursor.as_deref(), list, 1)?;
    let after = slice.after.as_ref().and_then(|keys| keys[0].as_str());
    let rows = api.store()?.tenant(&tenant).revocations(after, Rows::of(slice.limit as u32 + 1)).await?;
    Ok(Answer(slice.page(rows, |row| vec![Value::from(row.id.clone())]).map(RevocationView::from)))
}

/// Revoke credentials
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/revocations", tag = "users", params(Path, Conditional),
    request_body = RevocationBody,
    responses((status = 201, description = "Revoked.", body = RevocationView),
        (status = 422, description = "It does not say what is revoked.")))]
async fn create_revocation(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Caller(actor): Caller,
    Json(body): Json<RevocationBody>,
) -> Result<Response, Problem> {
    let long = [&body.jti, &body.sub, &body.principal, &body.issuer, &body.note];
    if long.iter().any(|text| text.as_ref().is_some_and(|t| t.len() > MAX_PRINCIPAL)) {
        return Err(Problem::invalid([FieldError::new(
            "",
            format!("a text has more than {MAX_PRINCIPAL} bytes"),
        )]));
    }
    let record = serde_json::to_string(&body).map_err(Problem::internal)?;
    RevocationRecord::parse(&record).map_err(|what| Problem::invalid([FieldError::new("", what)]))?;
    let row = api.store()?.tenant(&tenant).revoke(&record, &actor.id).await?;
    Ok((StatusCode::CREATED, Answer(RevocationView::from(row))).into_response())
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
struct OneRevocation {
    /// Whose.
    tenant: String,
    /// Its id.
    #[param(max_length = 64)]
    id: String,
}

/// Take a revocation back
#[utoipa::path(delete, path = "/api/v1/tenants/{tenant}/revocations/{id}", tag = "users", params(OneRevocation),
    responses((status = 204, description = "Taken back.")))]
async fn delete_revocation(State(api): State<Api>, At(at): At<OneRevocation>) -> Result<StatusCode, Problem> {
    if !at.id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err(Problem::not_found());
    }
    api.store()?.tenant(&TenantId::new(at.tenant.as_str())).unrevoke(&at.id).await?;
    Ok(StatusCode::NO_CONTENT)
}
