//! Users: people and programs that are named, given roles or shut out.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json as Answer};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::in_tenant::{Conditional, Path, Walk};
use super::reach::{may_act_on, may_name};
use super::{Api, When};
use crate::base::TenantId;
use crate::control::etag::{self, Precondition};
use crate::control::extract::{At, Caller, Json, Params};
use crate::control::gate::Gated as _;
use crate::control::list::{self, ListQuery, every_row};
use crate::control::page::Page;
use crate::control::problem::{FieldError, Problem};
use crate::control::query::{Field, Kind, sortable};
use crate::control::trail::note;
use crate::store::{NewUser, Page as Rows, User};

/// Longest id of a principal, in bytes.
pub(super) const MAX_PRINCIPAL: usize = 256;
/// Longest text about somebody, in characters.
const MAX_TEXT: usize = 256;

const FIELDS: &[Field] = &[
    sortable("id", Kind::Text),
    sortable("display_name", Kind::Text),
    sortable("email", Kind::Text),
    sortable("disabled", Kind::Bool),
    sortable("created", Kind::Time),
    sortable("updated", Kind::Time),
];

pub(super) fn operations(router: OpenApiRouter<Api>) -> OpenApiRouter<Api> {
    router
        .operation(routes!(list_users))
        .operation(routes!(show_user))
        .operation(routes!(put_user))
        .operation(routes!(delete_user))
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
pub(super) fn principal(id: &str) -> Result<&str, Problem> {
    let good = (1..=MAX_PRINCIPAL).contains(&id.len()) && !id.chars().any(char::is_control);
    if good {
        Ok(id)
    } else {
        Err(Problem::bad_request(format!("a principal has 1 to {MAX_PRINCIPAL} bytes")))
    }
}

/// Users
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/users", tag = "users", params(Path, ListQuery),
    responses((status = 200, description = "Users by id, or as asked.", body = Page<UserView>)))]
async fn list_users(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Params(ask): Params<ListQuery>,
) -> Result<Response, Problem> {
    let scope = api.store()?.tenant(&tenant);
    if !ask.is_plain() {
        let rows =
            every_row!(|after| scope.users(after.map(String::as_str), Rows::of(Rows::MAX)), |row: &User| row
                .id
                .clone());
        let rows = rows.into_iter().map(UserView::from);
        return Ok(Answer(list::page(rows, &ask, &["list_users", tenant.as_str()], FIELDS)?).into_response());
    }
    let slice = Walk::from(ask).slice("list_users", &tenant, 1)?;
    let rows = scope.users(slice.after_text(), slice.rows()).await?;
    let page = slice.page(rows, |row| vec![Value::from(row.id.clone())]).map(UserView::from);
    Ok(Answer(page).into_response())
}

/// One user
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/users/{id}", tag = "users", params(OneUser),
    responses((status = 200, description = "The user.", body = UserView)))]
async fn show_user(State(api): State<Api>, At(at): At<OneUser>) -> Result<Response, Problem> {
    let (tenant, id) = at.parts()?;
    let found = api.store()?.tenant(&tenant).user(id).await?.ok_or_else(Problem::not_found)?;
    Ok(user(StatusCode::OK, found))
}

fn tag(row: &User) -> String {
    etag::of_content(&UserView::from(row.clone()))
}

fn user(status: StatusCode, row: User) -> Response {
    let view = UserView::from(row);
    let tag = etag::of_content(&view);
    (status, [etag::header(&tag)], Answer(view)).into_response()
}

/// Add or replace a user
///
/// Callers need not be users: a user is made to be named, given roles or shut out. Nobody shuts out, or lets in again,
/// somebody who was given more than they have.
#[utoipa::path(put, path = "/api/v1/tenants/{tenant}/users/{id}", tag = "users", params(OneUser, Conditional),
    request_body = UserBody,
    responses((status = 200, description = "Replaced.", body = UserView),
        (status = 201, description = "Added.", body = UserView),
        (status = 403, description = "They were given more than the caller has."),
        (status = 412, description = "Somebody changed it since it was read.")))]
async fn put_user(
    State(api): State<Api>,
    Caller(actor): Caller,
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
    may_name(&actor, id)?;
    let store = api.store()?;
    let scope = store.tenant(&tenant);
    // Whether it has to be allowed is known when the user is locked.
    let mut reach = may_act_on(&actor, &scope, id).await.err();
    let new = NewUser { id, display_name: &body.display_name, email: &body.email, disabled: body.disabled };
    let put = scope.put_user(new, |found| {
        let turned = found.is_some_and(|user| user.disabled) != body.disabled;
        match reach.take() {
            Some(refused) if turned => return Err(refused),
            refused => reach = refused,
        }
        precondition.check(found.map(tag).as_deref())
    });
    let put = put.await?;
    note(|notes| {
        notes.object = Some(id.to_owned());
        notes.changes.push(format!("disabled: {}", body.disabled));
    });
    Ok(user(if put.is_new() { StatusCode::CREATED } else { StatusCode::OK }, put.into_row()))
}

/// Take a user away
///
/// With the roles that were given to them. Their credentials count again if they were disabled.
#[utoipa::path(delete, path = "/api/v1/tenants/{tenant}/users/{id}", tag = "users", params(OneUser, Conditional),
    responses((status = 204, description = "Gone."),
        (status = 403, description = "They were given more than the caller has."),
        (status = 412, description = "Somebody changed it since it was read.")))]
async fn delete_user(
    State(api): State<Api>,
    Caller(actor): Caller,
    At(at): At<OneUser>,
    precondition: Precondition,
) -> Result<StatusCode, Problem> {
    let (tenant, id) = at.parts()?;
    may_name(&actor, id)?;
    let store = api.store()?;
    let scope = store.tenant(&tenant);
    if scope.user(id).await?.is_none() {
        return Err(Problem::not_found());
    }
    may_act_on(&actor, &scope, id).await?;
    scope.remove_user(id, |found| precondition.check(found.map(tag).as_deref())).await?;
    note(|notes| notes.object = Some(id.to_owned()));
    Ok(StatusCode::NO_CONTENT)
}
