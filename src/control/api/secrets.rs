//! Secrets of a tenant: values go in and never come out.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::in_tenant::{Conditional, Named, Path};
use super::{Api, When};
use crate::base::{Secret, TenantId};
use crate::control::etag::{self, Precondition};
use crate::control::extract::{At, Caller, Json, Params};
use crate::control::gate::Gated as _;
use crate::control::list::ListQuery;
use crate::control::page::{Fingerprint, Page, Slice};
use crate::control::problem::{FieldError, Problem};
use crate::control::trail::note;
use crate::store::{Page as Rows, SecretInfo};

/// Longest value, in bytes.
const MAX_VALUE: usize = 64 << 10;

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
    responses((status = 200, description = "Secrets by name.", body = Page<SecretView>)))]
async fn list_secrets(
    State(api): State<Api>,
    tenant: axum::Extension<TenantId>,
    Params(ask): Params<ListQuery>,
) -> Result<axum::Json<Page<SecretView>>, Problem> {
    if ask.filter.is_some() || ask.sort.is_some() {
        return Err(Problem::parameter("filter", "this list is by name and has no filter"));
    }
    let list = Fingerprint::of(&["list_secrets", tenant.as_str()]);
    let slice = Slice::read(ask.limit, ask.cursor.as_deref(), list, 1)?;
    let after = slice.after.as_ref().and_then(|keys| keys[0].as_str());
    let rows = api.store()?.tenant(&tenant).secrets(after, Rows::of(slice.limit as u32 + 1)).await?;
    let page = slice.page(rows, |row| vec![Value::from(row.name.clone())]);
    Ok(axum::Json(page.map(SecretView::from)))
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

/// Delete a secret
///
/// A document that refers to it keeps being served with the last value until it is changed, and does not compile again.
#[utoipa::path(delete, path = "/api/v1/tenants/{tenant}/secrets/{name}", tag = "secrets",
    params(Named, Conditional),
    responses((status = 204, description = "Gone.")))]
async fn delete_secret(
    State(api): State<Api>,
    At(at): At<Named>,
    precondition: Precondition,
) -> Result<StatusCode, Problem> {
    let (tenant, name) = at.names()?;
    let store = api.store()?;
    let scope = store.tenant(&tenant);
    scope.remove_secret(&name, |found| precondition.check(found.map(tag).as_deref())).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Not the version alone: one that was deleted and set again begins anew with 1.
fn tag(info: &SecretInfo) -> String {
    etag::of_content(&SecretView::from(info.clone()))
}

fn answer(status: StatusCode, info: SecretInfo) -> Response {
    let tag = tag(&info);
    (status, [etag::header(&tag)], axum::Json(SecretView::from(info))).into_response()
}
