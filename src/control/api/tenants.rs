//! Tenants: what each owns and may do. Part of the platform document, so every change is a revision of it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::in_tenant::{Conditional, Path, Write};
use super::objects::{place, refused};
use crate::base::{Scope, TenantId};
use crate::config::edit::{self, Kind};
use crate::control::documents::{Edit, Edited, current};
use crate::control::etag::{self, Precondition};
use crate::control::extract::{At, Caller, Json, Params, Reason};
use crate::control::gate::Gated as _;
use crate::control::list::{self, ListQuery};
use crate::control::page::Page;
use crate::control::problem::Problem;
use crate::control::query::{self, Field, sortable};

const FIELDS: &[Field] = &[sortable("name", query::Kind::Text)];

pub(super) fn operations(router: OpenApiRouter<Api>) -> OpenApiRouter<Api> {
    router
        .operation(routes!(list_tenants))
        .operation(routes!(show_tenant))
        .operation(routes!(put_tenant))
        .operation(routes!(delete_tenant))
}

/// Tenants
///
/// Besides `default`, which is always there and may do everything.
#[utoipa::path(get, path = "/api/v1/tenants", tag = "tenants", params(ListQuery),
    responses((status = 200, description = "Tenants by name. `ETag` is the platform document's revision.", body = Page<Value>)))]
async fn list_tenants(State(api): State<Api>, Params(ask): Params<ListQuery>) -> Result<Response, Problem> {
    let current = current(&api, &Scope::Platform).await?;
    let tenants = edit::list(&current.document, Kind::Tenant).into_iter().map(|(_, tenant)| tenant);
    let page = list::page(tenants, &ask, &["list_tenants"], FIELDS)?;
    Ok(([etag::header(&current.tag())], Answer(page)).into_response())
}

/// One tenant
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}", tag = "tenants", params(Path),
    responses((status = 200, description = "Hosts, path prefix and grants.", body = Value)))]
async fn show_tenant(State(api): State<Api>, At(at): At<Path>) -> Result<Response, Problem> {
    let current = current(&api, &Scope::Platform).await?;
    let found = match edit::get(&current.document, Kind::Tenant, &at.tenant) {
        Some(found) => found,
        None if at.tenant == TenantId::default().as_str() => serde_json::json!({ "name": at.tenant }),
        None => return Err(Problem::not_found()),
    };
    Ok(([etag::header(&current.tag())], Answer(found)).into_response())
}

/// Add or replace a tenant
///
/// With its hosts, path prefix and grants, as in the platform document.
#[utoipa::path(put, path = "/api/v1/tenants/{tenant}", tag = "tenants", params(Path, Write, Conditional),
    request_body = Value,
    responses((status = 200, description = "Replaced, or tried.", body = Edited),
        (status = 201, description = "Added.", body = Edited),
        (status = 412, description = "Somebody changed the platform document since it was read."),
        (status = 422, description = "The platform document would not be good."),
        (status = 428, description = "No precondition.")))]
async fn put_tenant(
    State(api): State<Api>,
    Caller(actor): Caller,
    At(at): At<Path>,
    Params(write): Params<Write>,
    reason: Reason,
    precondition: Precondition,
    Json(tenant): Json<Value>,
) -> Result<Response, Problem> {
    let name = at.tenant.as_str();
    let (existed, index) = (AtomicBool::new(false), AtomicUsize::new(0));
    let edit = Edit {
        api: &api,
        actor,
        scope: Scope::Platform,
        reason: reason.0,
        precondition: precondition.required()?,
        dry_run: write.dry_run,
    };
    let edited = edit
        .run(
            |document| edit::get(document, Kind::Tenant, name).is_some(),
            |document| {
                let names = edit::list(document, Kind::Tenant);
                let at = names.iter().position(|(known, _)| known == name);
                existed.store(at.is_some(), Ordering::Relaxed);
                index.store(at.unwrap_or(names.len()), Ordering::Relaxed);
                edit::put(document, Kind::Tenant, name, &tenant).map_err(|e| refused(&e))
            },
        )
        .await
        .map_err(|problem| problem.within(&place(Kind::Tenant, index.load(Ordering::Relaxed))))?;
    let created = !existed.into_inner() && !edited.dry_run;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, [etag::header(&etag::of_revision(edited.revision))], Answer(edited)).into_response())
}

/// Take a tenant out
///
/// Its routes end at once, and its keys open this API no more. Its revisions, audit and usage stay: they are history.
#[utoipa::path(delete, path = "/api/v1/tenants/{tenant}", tag = "tenants", params(Path, Write, Conditional),
    responses((status = 200, description = "Taken out, or tried.", body = Edited),
        (status = 412, description = "Somebody changed the platform document since it was read."),
        (status = 428, description = "No precondition.")))]
async fn delete_tenant(
    State(api): State<Api>,
    Caller(actor): Caller,
    At(at): At<Path>,
    Params(write): Params<Write>,
    reason: Reason,
    precondition: Precondition,
) -> Result<Response, Problem> {
    let name = at.tenant.as_str();
    let edit = Edit {
        api: &api,
        actor,
        scope: Scope::Platform,
        reason: reason.0,
        precondition: precondition.required()?,
        dry_run: write.dry_run,
    };
    let edited = edit
        .run(
            |document| edit::get(document, Kind::Tenant, name).is_some(),
            |document| edit::remove(document, Kind::Tenant, name).map_err(|e| refused(&e)),
        )
        .await
        .map_err(|problem| {
            problem.not_sent(format!("without the tenant `{name}` the platform document would not be good"))
        })?;
    Ok(([etag::header(&etag::of_revision(edited.revision))], Answer(edited)).into_response())
}
