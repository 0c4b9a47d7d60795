//! Secrets of a tenant: values go in and never come out.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::in_tenant::{Conditional, Named, Path, Walk};
use super::{Api, When};
use crate::base::{Secret, TenantId};
use crate::control::etag::{self, Precondition};
use crate::control::extract::{At, Caller, Json, Params};
use crate::control::gate::Gated as _;
use crate::control::list::{self, ListQuery, every_row};
use crate::control::page::Page;
use crate::control::problem::{FieldError, Problem};
use crate::control::query::{Field, Kind, sortable};
use crate::control::trail::note;
use crate::store::{Page as Rows, SecretInfo, SecretUse};

/// Longest value, in bytes.
const MAX_VALUE: usize = 64 << 10;

const FIELDS: &[Field] = &[
    sortable("name", Kind::Text),
    sortable("version", Kind::Number),
    sortable("author", Kind::Text),
    sortable("created", Kind::Time),
    sortable("updated", Kind::Time),
];

pub(super) fn operations(router: OpenApiRouter<Api>) -> OpenApiRouter<Api> {
    router
        .operation(routes!(list_secrets))
        .operation(routes!(show_secret))
        .operation(routes!(put_secret))
        .operation(routes!(delete_secret))
}

/// A secret, without its value.
#[derive(Serialize, ToSchema)]
pub(super) struct SecretView {
    /// What documents call it: `${secret:name}`.
    name: String,
    /// Counted up with every change.
    version: i64,
    /// Who set it last.
    author: String,
    /// When it was first set.
    created: When,
    /// When it was last set.
    updated: When,
}

impl From<SecretInfo> for SecretView {
    fn from(info: SecretInfo) -> Self {
        Self {
            name: info.name,
            version: info.version,
            author: info.author,
            created: info.created_at.into(),
            updated: info.updated_at.into(),
        }
    }
}

/// A value to keep.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewSecret {
    /// At most 64 KiB.
    #[schema(min_length = 1, max_length = 65536)]
    value: String,
}

/// Secrets, without values
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/secrets", tag = "secrets", params(Path, ListQuery),
    responses((status = 200, description = "Secrets by name, or as asked.", body = Page<SecretView>)))]
async fn list_secrets(
    State(api): State<Api>,
    tenant: axum::Extension<TenantId>,
    Params(ask): Params<ListQuery>,
) -> Result<Response, Problem> {
    let scope = api.store()?.tenant(&tenant);
    if !ask.is_plain() {
        let rows = every_row!(
            |after| scope.secrets(after.map(String::as_str), Rows::of(Rows::MAX)),
            |row: &SecretInfo| row.name.clone()
        );
        let rows = rows.into_iter().map(SecretView::from);
        let list = ["list_secrets", tenant.as_str()];
        return Ok(axum::Json(list::page(rows, &ask, &list, FIELDS)?).into_response());
    }
    let slice = Walk::from(ask).slice("list_secrets", &tenant, 1)?;
    let rows = scope.secrets(slice.after_text(), slice.rows()).await?;
    let page = slice.page(rows, |row| vec![Value::from(row.name.clone())]).map(SecretView::from);
    Ok(axum::Json(page).into_response())
}

/// One secret, without its value
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/secrets/{name}", tag = "secrets", params(Named),
    responses((status = 200, description = "The secret.", body = SecretView)))]
async fn show_secret(State(api): State<Api>, At(at): At<Named>) -> Result<Response, Problem> {
    let (tenant, name) = at.names()?;
    let found = api.store()?.tenant(&tenant).secret_info(&name).await?.ok_or_else(Problem::not_found)?;
    Ok(answer(StatusCode::OK, found))
}

/// Set a secret
///
/// Replicas compile the tenant's document again with the new value.
#[utoipa::path(put, path = "/api/v1/tenants/{tenant}/secrets/{name}", tag = "secrets",
    params(Named, Conditional), request_body = NewSecret,
    responses((status = 200, description = "Replaced.", body = SecretView),
        (status = 201, description = "Set for the first time.", body = SecretView)))]
async fn put_secret(
    State(api): State<Api>,
    Caller(actor): Caller,
    At(at): At<Named>,
    precondition: Precondition,
    Json(new): Json<NewSecret>,
) -> Result<Response, Problem> {
    let store = api.store()?;
    let (tenant, name) = at.names()?;
    let value = new.value.into_bytes();
    if !(1..=MAX_VALUE).contains(&value.len()) {
        let error = FieldError::new("/value", format!("it must have 1 to {MAX_VALUE} bytes"));
        return Err(Problem::invalid([error]));
    }
    let scope = store.tenant(&tenant);
    let seen = |found: Option<&SecretInfo>| precondition.check(found.map(tag).as_deref());
    let put = scope.put_secret(&name, &Secret::new(value), &actor.id, seen).await?;
    let status = if put.is_new() { StatusCode::CREATED } else { StatusCode::OK };
    let row = put.into_row();
    note(|notes| {
        notes.object = Some(name);
        notes.changes.push(format!("version: {}", row.version));
    });
    Ok(answer(status, row))
}

/// How a secret is deleted.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Delete {
    /// Also if documents refer to it.
    #[serde(default)]
    force: bool,
}

/// Delete a secret
///
/// One that the tenant's document refers to, or the candidate of its canary, is refused with the places: without it they do not
/// compile, and no replica that starts serves them. With `force=true` it goes all the same; what is served goes on with the
/// last value until it is changed.
#[utoipa::path(delete, path = "/api/v1/tenants/{tenant}/secrets/{name}", tag = "secrets",
    params(Named, Delete, Conditional),
    responses((status = 204, description = "Gone."),
        (status = 409, description = "`secret_in_use`: a document refers to it.")))]
async fn delete_secret(
    State(api): State<Api>,
    At(at): At<Named>,
    Params(how): Params<Delete>,
    precondition: Precondition,
) -> Result<StatusCode, Problem> {
    let (tenant, name) = at.names()?;
    let store = api.store()?;
    let scope = store.tenant(&tenant);
    // Without a publisher documents come from a file, whatever the store has.
    let served = api.publisher().is_ok();
    let mut places = Vec::new();
    let removed = scope.remove_secret(&name, |found, uses| {
        // What was not seen is said first.
        precondition.check(Some(&tag(found)))?;
        places.extend(uses.iter().filter(|_| served).map(|used| place(&tenant, used)));
        if places.is_empty() || how.force {
            return Ok(());
        }
        let errors = places.iter().map(|place| {
            FieldError::new("?force", place.as_str()).expecting("another document, or `force=true`")
        });
        let detail = format!("`{name}` is in use: without it the document does not compile");
        Err(Problem::conflict("secret_in_use", detail).with_errors(errors))
    });
    removed.await?;
    note(|notes| {
        notes.object = Some(name);
        notes.changes.extend(places.into_iter().map(|place| format!("in use: {place}")));
    });
    Ok(StatusCode::NO_CONTENT)
}

/// Where a document refers to a secret, in words.
fn place(tenant: &TenantId, used: &SecretUse) -> String {
    let which = if used.tried { "which is tried" } else { "the head" };
    format!("the document of `{tenant}` (revision {}, {which}): {}", used.revision, used.place)
}

/// Not the version alone: one that was deleted and set again begins anew with 1.
fn tag(info: &SecretInfo) -> String {
    etag::of_content(&SecretView::from(info.clone()))
}

fn answer(status: StatusCode, info: SecretInfo) -> Response {
    let tag = tag(&info);
    (status, [etag::header(&tag)], axum::Json(SecretView::from(info))).into_response()
}
