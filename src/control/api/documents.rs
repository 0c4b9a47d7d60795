//! Documents and their revisions: read, publish, compare, roll back, and how far replicas are.
//!
//! A document goes in and out as YAML; what comes out are the bytes of the store. Each operation is there twice, for a
//! tenant and for the platform: the permissions differ, what is done does not.

use std::time::Duration;

use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, ETAG};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Api, in_tenant};
use crate::base::{Scope, TenantId};
use crate::config::Diagnostics;
use crate::control::etag::{self, Precondition};
use crate::control::extract::{At, Caller, Json, Params, Reason};
use crate::control::gate::Gated as _;
use crate::control::problem::{FieldError, Problem};
use crate::source::{Change, PublishError, Published, Publisher, Refusal};
use crate::store::{self, Revision, RevisionSummary};

/// The longest wait for replicas, in seconds.
const MAX_WAIT: u64 = 25;
/// Scopes of one status page.
const MAX_SCOPES: u32 = 500;

pub(super) fn operations(router: OpenApiRouter<Api>) -> OpenApiRouter<Api> {
    router
        .operation(routes!(read_document))
        .operation(routes!(replace_document))
        .operation(routes!(list_revisions))
        .operation(routes!(read_revision))
        .operation(routes!(compare_revisions))
        .operation(routes!(rollback_document))
        .operation(routes!(show_convergence))
        .operation(routes!(read_platform_document))
        .operation(routes!(replace_platform_document))
        .operation(routes!(list_platform_revisions))
        .operation(routes!(read_platform_revision))
        .operation(routes!(compare_platform_revisions))
        .operation(routes!(rollback_platform_document))
        .operation(routes!(show_platform_convergence))
        .operation(routes!(list_convergence))
}

/// What was published, or would be.
#[derive(Serialize, ToSchema)]
struct PublishedView {
    /// Whose document: a tenant, or `@platform`.
    scope: String,
    /// The head. Of a dry run: as it is.
    revision: i64,
    /// The head before.
    parent: i64,
    /// Whether there is a new revision, or would be. The bytes of the head are none.
    changed: bool,
    /// What differs, one line per change.
    changes: Vec<String>,
    /// What is right but looks wrong.
    warnings: Vec<String>,
    /// SHA-256 of the document, in hexadecimal.
    hash: String,
}

/// A revision without its document.
#[derive(Serialize, ToSchema)]
struct RevisionView {
    revision: i64,
    /// The revision it replaced; 0 for the first.
    parent: i64,
    /// Who published it.
    author: String,
    /// Why.
    reason: String,
    /// When, RFC 3339.
    created_at: String,
    /// SHA-256 of the document, in hexadecimal.
    hash: String,
    /// Bytes of the document.
    size: i64,
}

/// Revisions, the newest first.
#[derive(Serialize, ToSchema)]
struct Revisions {
    items: Vec<RevisionView>,
    /// `before` of the next page, if there is one.
    next: Option<i64>,
}

/// Changes in words.
#[derive(Serialize, ToSchema)]
struct Changes {
    items: Vec<String>,
}

/// How far live replicas are with a revision.
#[derive(Serialize, ToSchema)]
struct ConvergenceView {
    scope: String,
    revision: i64,
    /// Whether all of them serve it, or a later one.
    complete: bool,
    replicas: Vec<PositionView>,
}

/// What one replica does with a revision.
#[derive(Serialize, ToSchema)]
struct PositionView {
    replica: String,
    /// `all`, `control` or `data`.
    role: String,
    version: String,
    /// The revision it serves; 0 for none.
    served: i64,
    /// A later one that it refused.
    refused: Option<i64>,
    /// Why.
    reason: Option<String>,
}

/// All scopes.
#[derive(Serialize, ToSchema)]
struct Convergences {
    items: Vec<ConvergenceView>,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct PublishQuery {
    /// Only say what would happen.
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct HistoryQuery {
    /// Revisions before this one.
    before: Option<i64>,
    /// How many, 50 unless given.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct CompareQuery {
    /// The older revision; 0 is the document that says nothing.
    from: i64,
    /// The newer one. Default: the head.
    to: Option<i64>,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ConvergenceQuery {
    /// Which revision. Default: the head.
    revision: Option<i64>,
    /// Wait so many seconds, 25 at most, until every live replica serves it or has refused it.
    #[param(maximum = 25)]
    wait: Option<u64>,
}

/// Where to go back to.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Rollback {
    /// The revision whose document is published again.
    revision: i64,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
struct TenantRevision {
    /// Whose.
    tenant: String,
    /// Its number.
    revision: i64,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
struct PlatformRevision {
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
async fn read_document(State(api): State<Api>, At(at): At<in_tenant::Path>) -> Result<Response, Problem> {
    document(head(publisher(&api)?, &scope(&at)).await?)
}

/// Publish a tenant's document
///
/// YAML or JSON. It is compiled first; what does not compile is refused and changes nothing. `If-Match` with the ETag of
/// the document that was read keeps others' changes; `X-Tollgate-Reason` is kept with the revision.
#[utoipa::path(put, path = "/api/v1/tenants/{tenant}/document", tag = "documents",
    params(in_tenant::Path, PublishQuery), request_body(content = String, content_type = "application/yaml"),
    responses((status = 200, description = "What was published.", body = PublishedView)))]
async fn replace_document(
    State(api): State<Api>,
    At(at): At<in_tenant::Path>,
    Params(ask): Params<PublishQuery>,
    Caller(actor): Caller,
    condition: Precondition,
    reason: Reason,
    body: Bytes,
) -> Result<axum::Json<PublishedView>, Problem> {
    publish(&api, scope(&at), &ask, &actor.id, &condition, reason, body).await
}

/// Revisions of a tenant's document
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/revisions", tag = "documents",
    params(in_tenant::Path, HistoryQuery), responses((status = 200, description = "Revisions.", body = Revisions)))]
async fn list_revisions(
    State(api): State<Api>,
    At(at): At<in_tenant::Path>,
    Params(ask): Params<HistoryQuery>,
) -> Result<axum::Json<Revisions>, Problem> {
    history(&api, &scope(&at), &ask).await
}

/// The document of one revision of a tenant
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/revisions/{revision}", tag = "documents", params(TenantRevision),
    responses((status = 200, description = "YAML.", content_type = "application/yaml", body = String)))]
async fn read_revision(State(api): State<Api>, At(at): At<TenantRevision>) -> Result<Response, Problem> {
    let scope = Scope::Tenant(TenantId::new(at.tenant.as_str()));
    document(publisher(&api)?.show(&scope, at.revision).await.map_err(problem)?)
}

/// What differs between two revisions of a tenant
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/diff", tag = "documents",
    params(in_tenant::Path, CompareQuery), responses((status = 200, description = "Changes.", body = Changes)))]
async fn compare_revisions(
    State(api): State<Api>,
    At(at): At<in_tenant::Path>,
    Params(ask): Params<CompareQuery>,
) -> Result<axum::Json<Changes>, Problem> {
    compare(&api, &scope(&at), &ask).await
}

/// Publish an earlier revision of a tenant again
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/rollback", tag = "documents", params(in_tenant::Path),
    request_body = Rollback, responses((status = 200, description = "What was published.", body = PublishedView)))]
async fn rollback_document(
    State(api): State<Api>,
    At(at): At<in_tenant::Path>,
    Caller(actor): Caller,
    condition: Precondition,
    reason: Reason,
    Json(to): Json<Rollback>,
) -> Result<axum::Json<PublishedView>, Problem> {
    roll_back(&api, &scope(&at), &to, &actor.id, &condition, reason).await
}

/// How far replicas are with a tenant's document
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/convergence", tag = "documents",
    params(in_tenant::Path, ConvergenceQuery),
    responses((status = 200, description = "Replicas.", body = ConvergenceView)))]
async fn show_convergence(
    State(api): State<Api>,
    At(at): At<in_tenant::Path>,
    Params(ask): Params<ConvergenceQuery>,
) -> Result<axum::Json<ConvergenceView>, Problem> {
    converge(&api, &scope(&at), &ask).await
}

/// The document of the platform
#[utoipa::path(get, path = "/api/v1/platform/document", tag = "documents",
    responses((status = 200, description = "YAML.", content_type = "application/yaml", body = String)))]
async fn read_platform_document(State(api): State<Api>) -> Result<Response, Problem> {
    document(head(publisher(&api)?, &Scope::Platform).await?)
}

/// Publish the platform's document
#[utoipa::path(put, path = "/api/v1/platform/document", tag = "documents", params(PublishQuery),
    request_body(content = String, content_type = "application/yaml"),
    responses((status = 200, description = "What was published.", body = PublishedView)))]
async fn replace_platform_document(
    State(api): State<Api>,
    Params(ask): Params<PublishQuery>,
    Caller(actor): Caller,
    condition: Precondition,
    reason: Reason,
    body: Bytes,
) -> Result<axum::Json<PublishedView>, Problem> {
    publish(&api, Scope::Platform, &ask, &actor.id, &condition, reason, body).await
}

/// Revisions of the platform's document
#[utoipa::path(get, path = "/api/v1/platform/revisions", tag = "documents", params(HistoryQuery),
    responses((status = 200, description = "Revisions.", body = Revisions)))]
async fn list_platform_revisions(
    State(api): State<Api>,
    Params(ask): Params<HistoryQuery>,
) -> Result<axum::Json<Revisions>, Problem> {
    history(&api, &Scope::Platform, &ask).await
}

/// The document of one revision of the platform
#[utoipa::path(get, path = "/api/v1/platform/revisions/{revision}", tag = "documents", params(PlatformRevision),
    responses((status = 200, description = "YAML.", content_type = "application/yaml", body = String)))]
async fn read_platform_revision(
    State(api): State<Api>,
    At(at): At<PlatformRevision>,
) -> Result<Response, Problem> {
    document(publisher(&api)?.show(&Scope::Platform, at.revision).await.map_err(problem)?)
}

/// What differs between two revisions of the platform
#[utoipa::path(get, path = "/api/v1/platform/diff", tag = "documents", params(CompareQuery),
    responses((status = 200, description = "Changes.", body = Changes)))]
async fn compare_platform_revisions(
    State(api): State<Api>,
    Params(ask): Params<CompareQuery>,
) -> Result<axum::Json<Changes>, Problem> {
    compare(&api, &Scope::Platform, &ask).await
}

/// Publish an earlier revision of the platform again
#[utoipa::path(post, path = "/api/v1/platform/rollback", tag = "documents", request_body = Rollback,
    responses((status = 200, description = "What was published.", body = PublishedView)))]
async fn rollback_platform_document(
    State(api): State<Api>,
    Caller(actor): Caller,
    condition: Precondition,
    reason: Reason,
    Json(to): Json<Rollback>,
) -> Result<axum::Json<PublishedView>, Problem> {
    roll_back(&api, &Scope::Platform, &to, &actor.id, &condition, reason).await
}

/// How far replicas are with the platform's document
#[utoipa::path(get, path = "/api/v1/platform/convergence", tag = "documents", params(ConvergenceQuery),
    responses((status = 200, description = "Replicas.", body = ConvergenceView)))]
async fn show_platform_convergence(
    State(api): State<Api>,
    Params(ask): Params<ConvergenceQuery>,
) -> Result<axum::Json<ConvergenceView>, Problem> {
    converge(&api, &Scope::Platform, &ask).await
}

/// How far replicas are with every document
///
/// The first 500 of them.
#[utoipa::path(get, path = "/api/v1/convergence", tag = "documents",
    responses((status = 200, description = "Replicas.", body = Convergences)))]
async fn list_convergence(State(api): State<Api>) -> Result<axum::Json<Convergences>, Problem> {
    let publisher = publisher(&api)?;
    let mut items = Vec::new();
    for head in publisher.heads(MAX_SCOPES).await.map_err(problem)? {
        let state = publisher.wait(&Scope::parse(&head.scope), head.revision, Duration::ZERO).await;
        items.push(ConvergenceView::of(state.map_err(problem)?));
    }
    Ok(axum::Json(Convergences { items }))
}

fn publisher(api: &Api) -> Result<&Publisher, Problem> {
    api.publisher()
}

async fn head(publisher: &Publisher, scope: &Scope) -> Result<Revision, Problem> {
    publisher.head(scope).await.map_err(problem)?.ok_or_else(Problem::not_found)
}

fn document(revision: Revision) -> Result<Response, Problem> {
    let tag = etag::of_revision(revision.summary.revision.unsigned_abs());
    let tag = HeaderValue::try_from(tag).map_err(Problem::internal)?;
    let kind = HeaderValue::from_static("application/yaml");
    Ok(([(CONTENT_TYPE, kind), (ETAG, tag)], revision.content).into_response())
}

async fn publish(
    api: &Api,
    scope: Scope,
    ask: &PublishQuery,
    author: &str,
    condition: &Precondition,
    reason: Reason,
    body: Bytes,
) -> Result<axum::Json<PublishedView>, Problem> {
    let change = Change {
        scope,
        content: body.to_vec(),
        author: author.to_owned(),
        reason: reason.0.unwrap_or_default(),
        if_revision: expected(condition)?,
    };
    let publisher = publisher(api)?;
    let published =
        if ask.dry_run { publisher.dry_run(&change).await } else { publisher.publish(change).await };
    published.map(|p| axum::Json(p.into())).map_err(problem)
}

async fn roll_back(
    api: &Api,
    scope: &Scope,
    to: &Rollback,
    author: &str,
    condition: &Precondition,
    reason: Reason,
) -> Result<axum::Json<PublishedView>, Problem> {
    let published =
        publisher(api)?.rollback(scope, to.revision, author, reason.0, expected(condition)?).await;
    published.map(|p| axum::Json(p.into())).map_err(problem)
}

fn expected(condition: &Precondition) -> Result<Option<i64>, Problem> {
    match condition {
        Precondition::New => Ok(Some(0)),
        Precondition::Absent | Precondition::Exists => Ok(None),
        Precondition::Match(_) => Ok(condition.revision()?.and_then(|n| i64::try_from(n).ok())),
    }
}

async fn history(api: &Api, scope: &Scope, ask: &HistoryQuery) -> Result<axum::Json<Revisions>, Problem> {
    let limit = ask.limit.unwrap_or(50).clamp(1, 500);
    let found = publisher(api)?.history(scope, ask.before, store::Page::of(limit)).await.map_err(problem)?;
    let more = found.len() == limit as usize;
    let next = found.last().map(|r| r.revision).filter(|r| more && *r > 1);
    Ok(axum::Json(Revisions { items: found.into_iter().map(RevisionView::from).collect(), next }))
}

async fn compare(api: &Api, scope: &Scope, ask: &CompareQuery) -> Result<axum::Json<Changes>, Problem> {
    let publisher = publisher(api)?;
    let to = match ask.to {
        Some(to) => to,
        None => head(publisher, scope).await?.summary.revision,
    };
    let items = publisher.diff(scope, ask.from, to).await.map_err(problem)?;
    Ok(axum::Json(Changes { items }))
}

async fn converge(
    api: &Api,
    scope: &Scope,
    ask: &ConvergenceQuery,
) -> Result<axum::Json<ConvergenceView>, Problem> {
    let publisher = publisher(api)?;
    let revision = match ask.revision {
        Some(revision) => revision,
        None => head(publisher, scope).await?.summary.revision,
    };
    let patience = Duration::from_secs(ask.wait.unwrap_or(0).min(MAX_WAIT));
    let state = publisher.wait(scope, revision, patience).await.map_err(problem)?;
    Ok(axum::Json(ConvergenceView::of(state)))
}

impl From<Published> for PublishedView {
    fn from(p: Published) -> Self {
        Self {
            scope: p.scope.as_str().to_owned(),
            revision: p.revision,
            parent: p.parent,
            changed: p.changed,
            changes: p.changes,
            warnings: p.warnings,
            hash: p.hash,
        }
    }
}

impl From<RevisionSummary> for RevisionView {
    fn from(r: RevisionSummary) -> Self {
        Self {
            revision: r.revision,
            parent: r.parent,
            author: r.author,
            reason: r.reason,
            created_at: r.created_at.to_string(),
            hash: r.hash.iter().map(|byte| format!("{byte:02x}")).collect(),
            size: r.size,
        }
    }
}

impl ConvergenceView {
    fn of(state: crate::source::Convergence) -> Self {
        let complete = state.is_complete();
        let replicas = state.positions.into_iter().map(|p| {
            let (refused, reason) = p.refused.unzip();
            PositionView {
                replica: p.replica.replica,
                role: p.replica.role,
                version: p.replica.version,
                served: p.served,
                refused,
                reason,
            }
        });
        Self {
            scope: state.scope.as_str().to_owned(),
            revision: state.revision,
            complete,
            replicas: replicas.collect(),
        }
    }
}

/// What a publication that failed is answered with.
fn problem(error: PublishError) -> Problem {
    match error {
        PublishError::Conflict { found, .. } => {
            Problem::precondition_failed(format!("the head is at revision {found}: read it again"))
        }
        PublishError::Malformed(found) | PublishError::Refused(Refusal::Document(found)) => {
            refused("the document has errors").with_errors(fields(&found))
        }
        PublishError::Refused(Refusal::Compile(errors)) => {
            let errors = errors.into_iter().map(|(path, message)| FieldError::new(pointer(&path), message));
            refused("the document does not compile").with_errors(errors)
        }
        PublishError::Missing { .. } => Problem::not_found(),
        PublishError::Reason => Problem::bad_request(error.to_string()),
        PublishError::Store(error) if error.retry_is_safe() => {
            Problem::unavailable("store_unavailable", "the store cannot be reached at the moment")
                .because(error)
        }
        PublishError::Store(error) => Problem::internal(error),
        PublishError::Unchecked => Problem::internal("the document could not be checked"),
    }
}

fn refused(detail: &'static str) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_document", detail)
}

fn fields(found: &Diagnostics) -> Vec<FieldError> {
    let errors = found.iter().filter(|d| d.severity == crate::config::Severity::Error);
    errors
        .map(|d| FieldError {
            pointer: pointer(&d.path),
            line: Some(d.line).filter(|line| *line > 0),
            column: Some(d.column).filter(|column| *column > 0),
            detail: d.message.clone(),
            expected: d.expected.clone().or_else(|| d.hint.clone()),
        })
        .collect()
}

/// `routes[0].servers` as a JSON pointer.
fn pointer(path: &str) -> String {
    let steps = path.split(['.', '[']).map(|step| step.trim_end_matches(']')).filter(|step| !step.is_empty());
    steps.map(|step| format!("/{}", step.replace('~', "~0").replace('/', "~1"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_pointers() {
        assert_eq!(pointer("routes[0].servers"), "/routes/0/servers");
        assert_eq!(pointer("servers.weather.http"), "/servers/weather/http");
        assert_eq!(pointer(""), "");
    }
}
