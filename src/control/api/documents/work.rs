//! What is done with a document, whoever's it is.

use std::time::Duration;

use axum::http::HeaderValue;
use axum::http::header::{CONTENT_TYPE, ETAG};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;

use super::views::*;
use crate::base::Scope;
use crate::control::api::Api;
use crate::control::etag::{self, Precondition};
use crate::control::extract::Reason;
use crate::control::problem::{FieldError, Problem};
use crate::source::{Change, Publisher};
use crate::store::{self, Revision};

/// The longest wait for replicas, in seconds.
const MAX_WAIT: u64 = 25;

pub(super) async fn head(publisher: &Publisher, scope: &Scope) -> Result<Revision, Problem> {
    publisher.head(scope).await?.ok_or_else(Problem::not_found)
}

pub(super) fn document(revision: Revision) -> Result<Response, Problem> {
    let tag = etag::of_revision(revision.summary.revision.unsigned_abs());
    let tag = HeaderValue::try_from(tag).map_err(Problem::internal)?;
    let kind = HeaderValue::from_static("application/yaml");
    Ok(([(CONTENT_TYPE, kind), (ETAG, tag)], revision.content).into_response())
}

pub(super) async fn publish(
    api: &Api,
    scope: Scope,
    ask: &PublishQuery,
    author: &str,
    condition: &Precondition,
    reason: Reason,
    body: Bytes,
) -> Result<axum::Json<PublishedView>, Problem> {
    let publisher = api.publisher()?;
    if *condition == Precondition::Absent && !ask.dry_run {
        return Err(Problem::precondition_required());
    }
    if *condition == Precondition::Exists && publisher.head(&scope).await?.is_none() {
        return Err(Problem::precondition_failed("it does not exist"));
    }
    let change = Change {
        scope,
        content: body.to_vec(),
        author: author.to_owned(),
        reason: reason.0.unwrap_or_default(),
        if_revision: expected(condition)?,
    };
    let published =
        if ask.dry_run { publisher.dry_run(&change).await } else { publisher.publish(change).await };
    Ok(axum::Json(published?.into()))
}

pub(super) async fn roll_back(
    api: &Api,
    scope: &Scope,
    to: &Rollback,
    author: &str,
    condition: &Precondition,
    reason: Reason,
) -> Result<axum::Json<PublishedView>, Problem> {
    let publisher = api.publisher()?;
    match condition {
        Precondition::Absent => return Err(Problem::precondition_required()),
        // There is nothing to go back to where nothing is.
        Precondition::New => return Err(Problem::precondition_failed("a rollback replaces what there is")),
        Precondition::Exists | Precondition::Match(_) => {}
    }
    let published = publisher.rollback(scope, to.revision, author, reason.0, expected(condition)?).await;
    Ok(axum::Json(published?.into()))
}

pub(super) fn expected(condition: &Precondition) -> Result<Option<i64>, Problem> {
    match condition {
        Precondition::New => Ok(Some(0)),
        Precondition::Absent | Precondition::Exists => Ok(None),
        Precondition::Match(_) => Ok(condition.revision()?.and_then(|n| i64::try_from(n).ok())),
    }
}

pub(super) async fn history(
    api: &Api,
    scope: &Scope,
    ask: &HistoryQuery,
) -> Result<axum::Json<Revisions>, Problem> {
    let limit = match ask.limit.unwrap_or(50) {
        limit @ 1..=500 => limit,
        _ => return Err(Problem::parameter("limit", "it must be from 1 to 500")),
    };
    let found = api.publisher()?.history(scope, ask.before, store::Page::of(limit)).await?;
    let more = found.len() == limit as usize;
    let next = found.last().map(|r| r.revision).filter(|r| more && *r > 1);
    Ok(axum::Json(Revisions { items: found.into_iter().map(RevisionView::from).collect(), next }))
}

pub(super) async fn compare(
    api: &Api,
    scope: &Scope,
    ask: &CompareQuery,
) -> Result<axum::Json<Changes>, Problem> {
    let publisher = api.publisher()?;
    let to = match ask.to {
        Some(to) => to,
        None => head(publisher, scope).await?.summary.revision,
    };
    let items = publisher.diff(scope, ask.from, to).await?;
    Ok(axum::Json(Changes { items }))
}

pub(super) async fn converge(
    api: &Api,
    scope: &Scope,
    ask: &ConvergenceQuery,
) -> Result<axum::Json<ConvergenceView>, Problem> {
    let publisher = api.publisher()?;
    if let Scope::Tenant(tenant) = scope
        && !api.store()?.platform().knows_tenant(tenant).await?
    {
        // Its history stays, but nobody serves it.
        return Err(Problem::no_tenant(tenant));
    }
    let revision = match ask.revision {
        Some(revision) => revision,
        None => head(publisher, scope).await?.summary.revision,
    };
    let wait = ask.wait.unwrap_or(0);
    if wait > MAX_WAIT {
        let error = FieldError::new("?wait", format!("{wait} seconds are too long"));
        let error = error.expecting(format!("at most {MAX_WAIT}; ask again to wait longer"));
        return Err(Problem::parameter("wait", "").replacing_errors([error]));
    }
    let patience = Duration::from_secs(wait);
    let state = publisher.wait(scope, revision, patience).await?;
    Ok(axum::Json(ConvergenceView::of(state)))
}

/// What differs between a revision and a document that was sent.
pub(super) async fn compare_with(
    api: &Api,
    scope: &Scope,
    ask: &CompareWithQuery,
    body: &Bytes,
) -> Result<axum::Json<Changes>, Problem> {
    let publisher = api.publisher()?;
    let with = match ask.with {
        Some(revision) => revision,
        None => publisher.head(scope).await?.map_or(0, |head| head.summary.revision),
    };
    let items = publisher.diff_with(scope, with, body).await?;
    Ok(axum::Json(Changes { items }))
}
