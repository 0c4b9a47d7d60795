//! What is done with a document, whoever's it is.

use std::time::Duration;

use axum::http::HeaderValue;
use axum::http::header::{CONTENT_TYPE, ETAG};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;

use super::views::*;
use crate::base::Scope;
use crate::control::api::Api;
use crate::control::documents::contended;
use crate::control::etag::{self, Precondition};
use crate::control::extract::Reason;
use crate::control::problem::{FieldError, Problem};
use crate::control::trail::note;
use crate::source::{Change, PublishError, Published, Publisher};
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
) -> Result<Response, Problem> {
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
    let published = if ask.dry_run {
        publisher.dry_run(&change).await
    } else {
        let _turn = api.turns().of(&change.scope).await?;
        publisher.publish(change).await
    };
    answer(published.map_err(|error| lost(error, condition))?, ask.dry_run)
}

/// A race that was lost by somebody who takes whatever there is says nothing of a condition.
fn lost(error: PublishError, condition: &Precondition) -> Problem {
    match (error, condition) {
        (PublishError::Conflict { .. }, Precondition::Exists | Precondition::Absent) => contended(),
        (error, _) => error.into(),
    }
}

/// What was published, with the tag of the head, and in the record of the request.
fn answer(published: Published, dry_run: bool) -> Result<Response, Problem> {
    noted(&published, dry_run);
    let tag = etag::of_revision(published.revision.unsigned_abs());
    Ok(([etag::header(&tag)], axum::Json(PublishedView::from(published))).into_response())
}

/// Has the record of a request say what was published.
fn noted(published: &Published, dry_run: bool) {
    note(|notes| {
        notes.object.get_or_insert_with(|| published.scope.as_str().to_owned());
        notes.dry_run = dry_run;
        notes.revision = (published.changed && !dry_run).then_some(published.revision.unsigned_abs());
        notes.changes.extend_from_slice(&published.changes);
    });
}

/// The same of one among several: each change says whose document it is, and its revision is there as well.
pub(super) fn noted_among(published: &Published, dry_run: bool) {
    let scope = &published.scope;
    note(|notes| {
        notes.dry_run = dry_run;
        if published.changed && !dry_run {
            notes.changes.push(format!("{scope} revision {}", published.revision));
        }
        notes.changes.extend(published.changes.iter().map(|change| format!("{scope}: {change}")));
    });
}

pub(super) async fn roll_back(
    api: &Api,
    scope: &Scope,
    (ask, to): (&PublishQuery, &Rollback),
    author: &str,
    condition: &Precondition,
    reason: Reason,
) -> Result<Response, Problem> {
    let publisher = api.publisher()?;
    match condition {
        Precondition::Absent if !ask.dry_run => return Err(Problem::precondition_required()),
        // There is nothing to go back to where nothing is.
        Precondition::New => return Err(Problem::precondition_failed("a rollback replaces what there is")),
        Precondition::Absent | Precondition::Exists | Precondition::Match(_) => {}
    }
    let if_revision = expected(condition)?;
    note(|notes| notes.changes.push(format!("rollback to revision {}", to.revision)));
    let published = if ask.dry_run {
        let old = publisher.show(scope, to.revision).await?;
        let (author, reason) = (author.to_owned(), reason.0.unwrap_or_default());
        let change = Change { scope: scope.clone(), content: old.content, author, reason, if_revision };
        publisher.dry_run(&change).await
    } else {
        let _turn = api.turns().of(scope).await?;
        publisher.rollback(scope, to.revision, author, reason.0, if_revision).await
    };
    let published = published.map_err(|error| {
        lost(error, condition)
            .not_sent(format!("the document of revision {} would not be good any more", to.revision))
    });
    answer(published?, ask.dry_run)
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
