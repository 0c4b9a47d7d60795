//! The document of a tenant.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;

use super::views::*;
use super::work::*;
use crate::base::{Scope, TenantId};
use crate::control::api::{Api, in_tenant};
use crate::control::etag::Precondition;
use crate::control::extract::{At, Caller, Json, Params, Raw, Reason};
use crate::control::problem::Problem;

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct TenantRevision {
    /// Whose.
    tenant: String,
    /// Its number.
    revision: i64,
}

fn scope(at: &in_tenant::Path) -> Scope {
    Scope::Tenant(TenantId::new(at.tenant.as_str()))
}

/// The document of a tenant
///
/// Exactly the bytes of the store. `ETag` is the revision.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/document", tag = "documents", params(in_tenant::Path),
    responses((status = 200, description = "YAML.", content_type = "application/yaml", body = String)))]
pub(super) async fn read_document(
    State(api): State<Api>,
    At(at): At<in_tenant::Path>,
) -> Result<Response, Problem> {
    document(head(api.publisher()?, &scope(&at)).await?)
}

/// Publish a tenant's document
///
/// YAML or JSON. It is compiled first; what does not compile is refused and changes nothing. `If-Match` names the ETag of
/// the document that was read, or `*` for whatever there is; `If-None-Match: *` publishes the first. Unless it is only
/// tried, one of them is needed. `X-Tollgate-Reason` is kept with the revision.
#[utoipa::path(put, path = "/api/v1/tenants/{tenant}/document", tag = "documents",
    params(in_tenant::Path, PublishQuery, in_tenant::Conditional), request_body(content = String, content_type = "application/yaml"),
    responses((status = 200, description = "What was published, or would be. `ETag` is the head's revision.", body = PublishedView),
        (status = 428, description = "No precondition.")))]
pub(super) async fn replace_document(
    State(api): State<Api>,
    At(at): At<in_tenant::Path>,
    Params(ask): Params<PublishQuery>,
    Caller(actor): Caller,
    condition: Precondition,
    reason: Reason,
    Raw(body): Raw,
) -> Result<Response, Problem> {
    publish(&api, scope(&at), &ask, &actor.id, &condition, reason, body).await
}

/// Revisions of a tenant's document
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/revisions", tag = "documents",
    params(in_tenant::Path, HistoryQuery), responses((status = 200, description = "Revisions.", body = Revisions)))]
pub(super) async fn list_revisions(
    State(api): State<Api>,
    At(at): At<in_tenant::Path>,
    Params(ask): Params<HistoryQuery>,
) -> Result<axum::Json<Revisions>, Problem> {
    history(&api, &scope(&at), &ask).await
}

/// The document of one revision of a tenant
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/revisions/{revision}", tag = "documents", params(TenantRevision),
    responses((status = 200, description = "YAML.", content_type = "application/yaml", body = String)))]
pub(super) async fn read_revision(
    State(api): State<Api>,
    At(at): At<TenantRevision>,
) -> Result<Response, Problem> {
    let scope = Scope::Tenant(TenantId::new(at.tenant.as_str()));
    document(api.publisher()?.show(&scope, at.revision).await?)
}

/// What differs between two revisions of a tenant
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/diff", tag = "documents",
    params(in_tenant::Path, CompareQuery), responses((status = 200, description = "Changes.", body = Changes)))]
pub(super) async fn compare_revisions(
    State(api): State<Api>,
    At(at): At<in_tenant::Path>,
    Params(ask): Params<CompareQuery>,
) -> Result<axum::Json<Changes>, Problem> {
    compare(&api, &scope(&at), &ask).await
}

/// Publish an earlier revision of a tenant again
///
/// `If-Match` names the ETag of the document that is to be replaced, or `*` for whatever there is.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/rollback", tag = "documents",
    params(in_tenant::Path, PublishQuery, in_tenant::Conditional), request_body = Rollback,
    responses((status = 200, description = "What was published, or would be. `ETag` is the head's revision.", body = PublishedView),
        (status = 428, description = "No precondition.")))]
pub(super) async fn rollback_document(
    State(api): State<Api>,
    At(at): At<in_tenant::Path>,
    Params(ask): Params<PublishQuery>,
    Caller(actor): Caller,
    condition: Precondition,
    reason: Reason,
    Json(to): Json<Rollback>,
) -> Result<Response, Problem> {
    roll_back(&api, &scope(&at), (&ask, &to), &actor.id, &condition, reason).await
}

/// How far replicas are with a tenant's document
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/convergence", tag = "documents",
    params(in_tenant::Path, ConvergenceQuery),
    responses((status = 200, description = "Replicas.", body = ConvergenceView)))]
pub(super) async fn show_convergence(
    State(api): State<Api>,
    At(at): At<in_tenant::Path>,
    Params(ask): Params<ConvergenceQuery>,
) -> Result<axum::Json<ConvergenceView>, Problem> {
    converge(&api, &scope(&at), &ask).await
}

/// What differs between a revision of a tenant and a document that is sent
///
/// The document has to compile, and is not published.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/diff", tag = "documents",
    params(in_tenant::Path, CompareWithQuery), request_body(content = String, content_type = "application/yaml"),
    responses((status = 200, description = "Changes.", body = Changes)))]
pub(super) async fn compare_document(
    State(api): State<Api>,
    At(at): At<in_tenant::Path>,
    Params(ask): Params<CompareWithQuery>,
    Raw(body): Raw,
) -> Result<axum::Json<Changes>, Problem> {
    compare_with(&api, &scope(&at), &ask, &body).await
}
