//! Several edits of objects of one kind as one revision: all or none, or each by itself.
//!
//! "By itself" means: in the order of the request, each item on what those before it made, as if they had been sent one by
//! one, but published once. To know which of them the document does not compile with, all are tried together first, then
//! halves of what failed: with `b` bad ones among `n` that is `b · log n` tries and not `n`, and never more than `2n`.

use std::ops::Range;

use axum::Json as Answer;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::objects::{How, Place, place, refused};
use crate::config::Canonical;
use crate::config::edit::{self, Kind};
use crate::control::documents::{Current, Edit, Edited, Tries};
use crate::control::etag;
use crate::control::problem::{FieldError, Problem};
use crate::source::PublishError;

/// Most items of one request.
const MAX_ITEMS: usize = 500;

/// The code of the problem that ends a request of which nothing is published.
const NOTHING_DONE: &str = "nothing_to_do";

/// What a bulk request does to one object.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "op")]
pub(super) enum BulkItem {
    /// Put it in the place of the one with this name, or add it.
    Put {
        /// The name.
        name: String,
        /// The whole object.
        #[schema(value_type = Object)]
        object: Value,
    },
    /// Take it out.
    Delete {
        /// The name.
        name: String,
    },
}

impl BulkItem {
    fn name(&self) -> &str {
        match self {
            BulkItem::Put { name, .. } | BulkItem::Delete { name } => name,
        }
    }

    fn puts(&self, other: &str) -> bool {
        matches!(self, BulkItem::Put { name, .. } if name == other)
    }
}

/// Several edits, published together as one revision.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Bulk {
    /// In this order.
    #[schema(min_items = 1, max_items = 500)]
    items: Vec<BulkItem>,
    /// Whether one item that cannot be done leaves all undone. Otherwise the others are done.
    #[serde(default = "yes")]
    atomic: bool,
}

fn yes() -> bool {
    true
}

/// What became of one item.
#[derive(Serialize, ToSchema)]
pub(super) struct BulkResult {
    /// The name.
    name: String,
    /// As the single request would have been answered: 200, 204, 404, 422; 424 if another item kept it from being done.
    status: u16,
    /// What is wrong with it. Its pointers lead into the request: `/items/1/object/…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    problem: Option<Value>,
}

/// What became of a bulk request.
#[derive(Serialize, ToSchema)]
pub(super) struct BulkDone {
    /// In the order of the request.
    results: Vec<BulkResult>,
    /// What was published; absent if nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    edited: Option<Edited>,
}

impl Place {
    pub(super) async fn bulk(&self, how: How, bulk: Bulk) -> Result<Response, Problem> {
        if !(1..=MAX_ITEMS).contains(&bulk.items.len()) {
            let error = FieldError::new("/items", format!("it must have 1 to {MAX_ITEMS} items"));
            return Err(Problem::invalid([error]));
        }
        let edit = how.edit(self)?;
        let (edited, results) = match bulk.atomic {
            true => self.together(edit, &bulk.items).await?,
            false => self.each(edit, &bulk.items).await?,
        };
        let tag = edited.as_ref().map(|e| etag::of_revision(e.revision));
        let mut response = (StatusCode::MULTI_STATUS, Answer(BulkDone { results, edited })).into_response();
        if let Some((name, value)) = tag.as_deref().map(etag::header) {
            response.headers_mut().insert(name, value);
        }
        Ok(response)
    }

    /// All of them, or none.
    async fn together(
        &self,
        edit: Edit<'_>,
        items: &[BulkItem],
    ) -> Result<(Option<Edited>, Vec<BulkResult>), Problem> {
        let results = parking_lot::Mutex::new(Vec::new());
        let names = parking_lot::Mutex::new(Vec::new());
        let made = edit.run(
            |_| true,
            |document| {
                let (next, done) = apply(document, self.kind, items, 0..items.len())?;
                let all = done.iter().all(|r| r.problem.is_none());
                *results.lock() = done;
                *names.lock() = names_in(&next, self.kind);
                if all { Ok(next) } else { Err(Problem::conflict(NOTHING_DONE, "no item could be done")) }
            },
        );
        let made = made.await;
        let (mut results, names) = (results.into_inner(), names.into_inner());
        match made {
            Ok(edited) => Ok((Some(edited), results)),
            Err(problem) if problem.code() == NOTHING_DONE => {
                for result in results.iter_mut().filter(|r| r.problem.is_none()) {
                    result.status = StatusCode::FAILED_DEPENDENCY.as_u16();
                }
                Ok((None, results))
            }
            Err(problem) => Err(problem.pointing(|pointer| {
                let (index, rest) = Place::split(pointer, self.kind)?;
                let name = names.get(index)?;
                let at = items.iter().rposition(|item| item.puts(name))?;
                Some(format!("/items/{at}/object{rest}"))
            })),
        }
    }

    /// Each by itself.
    async fn each(
        &self,
        edit: Edit<'_>,
        items: &[BulkItem],
    ) -> Result<(Option<Edited>, Vec<BulkResult>), Problem> {
        let _turn = edit.turn().await?;
        let mut tries = Tries::begin();
        loop {
            let current = edit.begin(&|_: &Canonical| true).await?;
            let made = match self.settle(&edit, &current, items).await {
                Ok((_, results)) if results.iter().all(|r| r.problem.is_some()) => {
                    return Ok((None, results));
                }
                Ok((next, results)) => {
                    edit.publish(&current, next).await.map(|edited| (Some(edited), results))
                }
                Err(error) => Err(error),
            };
            match made {
                Err(error) if edit.may_try_again(&error) => tries.again().await?,
                made => return Ok(made?),
            }
        }
    }

    /// The document with every item that it compiles with, and what became of each.
    async fn settle(
        &self,
        edit: &Edit<'_>,
        current: &Current,
        items: &[BulkItem],
    ) -> Result<(Canonical, Vec<BulkResult>), PublishError> {
        let publisher = self.api.publisher().map_err(|_| PublishError::Unchecked)?;
        let mut document = current.document.clone();
        let mut results = Vec::with_capacity(items.len());
        let mut waiting: Vec<_> = std::iter::once(0..items.len()).collect();
        while let Some(range) = waiting.pop() {
            let applied = apply(&document, self.kind, items, range.clone());
            let tried = match applied {
                // It would be too large.
                Err(problem) => Err(problem),
                Ok((next, done)) if next == document => Ok((next, done)),
                Ok((next, done)) => match edit.try_out(publisher, current, &next).await {
                    Ok(()) => Ok((next, done)),
                    Err(error @ (PublishError::Malformed(_) | PublishError::Refused(_))) => {
                        let index =
                            names_in(&next, self.kind).iter().position(|n| n == items[range.start].name());
                        let at = place(self.kind, index.unwrap_or(usize::MAX));
                        Err(Problem::from(error).within(&at))
                    }
                    Err(error) => return Err(error),
                },
            };
            match tried {
                Ok((next, done)) => {
                    document = next;
                    results.extend(done);
                }
                Err(_) if range.len() > 1 => {
                    let middle = range.start + range.len() / 2;
                    // The last one is looked at next.
                    waiting.extend([middle..range.end, range.start..middle]);
                }
                Err(problem) => results.push(failed(&items[range.start], range.start, problem)),
            }
        }
        Ok((document, results))
    }
}

fn names_in(document: &Canonical, kind: Kind) -> Vec<String> {
    edit::list(document, kind).into_iter().map(|(name, _)| name).collect()
}

/// Makes some of the edits. Those that cannot be made are left out.
fn apply(
    document: &Canonical,
    kind: Kind,
    items: &[BulkItem],
    range: Range<usize>,
) -> Result<(Canonical, Vec<BulkResult>), Problem> {
    let mut next = edit::Editor::of(document);
    let mut results = Vec::with_capacity(range.len());
    for (at, item) in range.clone().zip(&items[range]) {
        let (made, status) = match item {
            BulkItem::Put { name, object } => (next.put(kind, name, object), StatusCode::OK),
            BulkItem::Delete { name } => (next.remove(kind, name), StatusCode::NO_CONTENT),
        };
        results.push(match made {
            Ok(()) => BulkResult { name: item.name().to_owned(), status: status.as_u16(), problem: None },
            Err(error) => failed(item, at, refused(&error)),
        });
    }
    Ok((next.finish().map_err(|error| refused(&error))?, results))
}

fn failed(item: &BulkItem, at: usize, problem: Problem) -> BulkResult {
    let problem = match item {
        BulkItem::Put { .. } => problem.below(&format!("/items/{at}/object")),
        BulkItem::Delete { .. } => problem.below(&format!("/items/{at}")),
    };
    let (name, status) = (item.name().to_owned(), problem.status().as_u16());
    BulkResult { name, status, problem: Some(problem.to_json()) }
}
