//! The document of the platform, and those of everybody together.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;

use super::views::*;
use super::work::*;
use crate::base::Scope;
use crate::control::api::{Api, in_tenant};
use crate::control::etag::Precondition;
use crate::control::extract::{At, Caller, Json, Params, Raw, Reason};
use crate::control::page::{Fingerprint, Page, Slice};
use crate::control::problem::{FieldError, Problem};
use crate::source::{Change, PublishError};

/// Documents that are published together.
const MAX_TOGETHER: usize = 1_000;

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct PlatformRevision {
    /// Its number.
    revision: i64,
}

/// The document of the platform
#[utoipa::path(get, path = "/api/v1/platform/document", tag = "documents",
    responses((status = 200, description = "YAML.", content_type = "application/yaml", body = String)))]
pub(super) async fn read_platform_document(State(api): State<Api>) -> Result<Response, Problem> {
    document(head(api.publisher()?, &Scope::Platform).await?)
}

/// Publish the platform's document
///
/// As a tenant's.
#[utoipa::path(put, path = "/api/v1/platform/document", tag = "documents", params(PublishQuery, in_tenant::Conditional),
    request_body(content = String, content_type = "application/yaml"),
    responses((status = 200, description = "What was published, or would be. `ETag` is the head's revision.", body = PublishedView),
        (status = 428, description = "No precondition.")))]
pub(super) async fn replace_platform_document(
    State(api): State<Api>,
    Params(ask): Params<PublishQuery>,
    Caller(actor): Caller,
    condition: Precondition,
    reason: Reason,
    Raw(body): Raw,
) -> Result<Response, Problem> {
    publish(&api, Scope::Platform, &ask, &actor.id, &condition, reason, body).await
}

/// Revisions of the platform's document
#[utoipa::path(get, path = "/api/v1/platform/revisions", tag = "documents", params(HistoryQuery),
    responses((status = 200, description = "Revisions.", body = Revisions)))]
pub(super) async fn list_platform_revisions(
    State(api): State<Api>,
    Params(ask): Params<HistoryQuery>,
) -> Result<axum::Json<Revisions>, Problem> {
    history(&api, &Scope::Platform, &ask).await
}

/// The document of one revision of the platform
#[utoipa::path(get, path = "/api/v1/platform/revisions/{revision}", tag = "documents", params(PlatformRevision),
    responses((status = 200, description = "YAML.", content_type = "application/yaml", body = String)))]
pub(super) async fn read_platform_revision(
    State(api): State<Api>,
    At(at): At<PlatformRevision>,
) -> Result<Response, Problem> {
    document(api.publisher()?.show(&Scope::Platform, at.revision).await?)
}

/// What differs between two revisions of the platform
#[utoipa::path(get, path = "/api/v1/platform/diff", tag = "documents", params(CompareQuery),
    responses((status = 200, description = "Changes.", body = Changes)))]
pub(super) async fn compare_platform_revisions(
    State(api): State<Api>,
    Params(ask): Params<CompareQuery>,
) -> Result<axum::Json<Changes>, Problem> {
    compare(&api, &Scope::Platform, &ask).await
}

/// Publish an earlier revision of the platform again
///
/// As a tenant's.
#[utoipa::path(post, path = "/api/v1/platform/rollback", tag = "documents", params(PublishQuery, in_tenant::Conditional),
    request_body = Rollback,
    responses((status = 200, description = "What was published, or would be. `ETag` is the head's revision.", body = PublishedView),
        (status = 428, description = "No precondition.")))]
pub(super) async fn rollback_platform_document(
    State(api): State<Api>,
    Params(ask): Params<PublishQuery>,
    Caller(actor): Caller,
    condition: Precondition,
    reason: Reason,
    Json(to): Json<Rollback>,
) -> Result<Response, Problem> {
    roll_back(&api, &Scope::Platform, (&ask, &to), &actor.id, &condition, reason).await
}

/// How far replicas are with the platform's document
#[utoipa::path(get, path = "/api/v1/platform/convergence", tag = "documents", params(ConvergenceQuery),
    responses((status = 200, description = "Replicas.", body = ConvergenceView)))]
pub(super) async fn show_platform_convergence(
    State(api): State<Api>,
    Params(ask): Params<ConvergenceQuery>,
) -> Result<axum::Json<ConvergenceView>, Problem> {
    converge(&api, &Scope::Platform, &ask).await
}

/// What differs between a revision of the platform and a document that is sent
///
/// The document has to compile, and is not published.
#[utoipa::path(post, path = "/api/v1/platform/diff", tag = "documents", params(CompareWithQuery),
    request_body(content = String, content_type = "application/yaml"),
    responses((status = 200, description = "Changes.", body = Changes)))]
pub(super) async fn compare_platform_document(
    State(api): State<Api>,
    Params(ask): Params<CompareWithQuery>,
    Raw(body): Raw,
) -> Result<axum::Json<Changes>, Problem> {
    compare_with(&api, &Scope::Platform, &ask, &body).await
}

/// Publish several documents together
///
/// All or none: one transaction, after all of them compiled, those of tenants on the terms of the platform's document if it
/// is among them. A problem's pointers lead into `/documents/<position>/document`.
#[utoipa::path(post, path = "/api/v1/platform/apply", tag = "documents", params(PublishQuery, in_tenant::Repeatable),
    request_body = Together,
    responses((status = 200, description = "What was published.", body = PublishedTogether),
        (status = 412, description = "One of them is not at its `if_revision`.")))]
pub(super) async fn apply_documents(
    State(api): State<Api>,
    Params(ask): Params<PublishQuery>,
    Caller(actor): Caller,
    condition: Precondition,
    reason: Reason,
    Json(together): Json<Together>,
) -> Result<axum::Json<PublishedTogether>, Problem> {
    if condition != Precondition::Absent {
        let detail = "a condition would be about one document: each here has `if_revision` instead";
        return Err(Problem::bad_request(detail));
    }
    let documents = together.documents;
    if !(1..=MAX_TOGETHER).contains(&documents.len()) {
        let error = FieldError::new("/documents", format!("there must be 1 to {MAX_TOGETHER}"));
        return Err(Problem::invalid([error]));
    }
    let reason = reason.0.unwrap_or_default();
    let mut changes: Vec<Change> = Vec::with_capacity(documents.len());
    for (i, one) in documents.into_iter().enumerate() {
        let scope = Scope::parse(&one.scope);
        let good = scope == Scope::Platform || is_tenant(&one.scope);
        if !good || changes.iter().any(|change| change.scope == scope) {
            let what = if good { "there is another one of this scope" } else { "there is no such scope" };
            let error = FieldError::new(format!("/documents/{i}/scope"), what);
            return Err(Problem::invalid([error.expecting("a tenant, or `@platform`")]));
        }
        changes.push(Change {
            scope,
            content: one.document.into_bytes(),
            author: actor.id.to_string(),
            reason: reason.clone(),
            if_revision: one.if_revision,
        });
    }
    let publisher = api.publisher()?;
    let done = match ask.dry_run {
        true => publisher.dry_run_all(&changes).await,
        false => publisher.publish_all(&changes).await,
    };
    let items = done.map_err(|failed| {
        let at = changes.iter().position(|change| change.scope == failed.scope).unwrap_or(0);
        let detail = format!("{}: {}", failed.scope, one_line(&failed.error));
        Problem::from(failed.error).below(&format!("/documents/{at}/document")).detailed(detail)
    })?;
    items.iter().for_each(|published| noted_among(published, ask.dry_run));
    Ok(axum::Json(PublishedTogether { items: items.into_iter().map(Into::into).collect() }))
}

/// Whose fault it is, in a few words; what exactly is in `errors`.
fn one_line(error: &PublishError) -> String {
    match error {
        PublishError::Malformed(_) | PublishError::Refused(_) => "the document does not compile".to_owned(),
        PublishError::Store(_) => "the store cannot take it at the moment; nothing was published".to_owned(),
        other => other.to_string(),
    }
}

fn is_tenant(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    (1..=63).contains(&name.len()) && name.bytes().all(plain)
}

/// How far replicas are with every document
///
/// Those that moved first before.
#[utoipa::path(get, path = "/api/v1/convergence", tag = "documents", params(in_tenant::Walk),
    responses((status = 200, description = "Replicas.", body = Page<ConvergenceView>)))]
pub(super) async fn list_convergence(
    State(api): State<Api>,
    Params(ask): Params<in_tenant::Walk>,
) -> Result<axum::Json<Page<ConvergenceView>>, Problem> {
    let slice = Slice::read(ask.limit, ask.cursor.as_deref(), Fingerprint::of(&["list_convergence"]), 1)?;
    let after = slice.after.as_ref().and_then(|keys| keys[0].as_i64()).unwrap_or(0);
    let found = api.publisher()?.positions(after, slice.limit + 1).await?;
    let page = slice.page(found, |(generation, _)| vec![Value::from(*generation)]);
    Ok(axum::Json(page.map(|(_, state)| ConvergenceView::of(state))))
}
