//! What the errors of the layers below mean to a caller of the API.

use axum::http::StatusCode;
use axum::http::header::{HeaderValue, RETRY_AFTER};

use super::documents::{findings, pointer};
use super::etag;
use super::problem::FieldError;
use super::problem::Problem;
use crate::source::{PublishError, Refusal};
use crate::store::{SigningKeyError, StoreError};

/// What callers are told to wait while the store is away, in seconds.
const STORE_RETRY: u64 = 2;

/// The code of what may have been done or not.
pub(super) const OUTCOME_UNKNOWN: &str = "outcome_unknown";

/// 503 with the seconds to wait: the store cannot be asked.
pub(super) fn store_away() -> Problem {
    Problem::unavailable("store_unavailable", "the store cannot be reached; nothing was changed")
        .with_header(RETRY_AFTER, HeaderValue::from(STORE_RETRY))
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Conflict { expected, found } => {
                let changed = Problem::precondition_failed(format!(
                    "the revision is {found} and not {expected}: somebody changed it; read it again"
                ));
                match u64::try_from(*found) {
                    Ok(revision @ 1..) => changed.currently(etag::of_revision(revision)),
                    _ => changed,
                }
            }
            StoreError::Duplicate(_) => Problem::conflict("exists", "it exists already"),
            StoreError::Missing(_) => Problem::not_found(),
            StoreError::Refused(_) => {
                Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "refused", "the store refuses this")
                    .because(error)
            }
            StoreError::Unresolved(_) => Problem::conflict("secret_gone", error.to_string()),
            StoreError::CommitUnknown(_) => Problem::unavailable(
                OUTCOME_UNKNOWN,
                "the connection to the store was lost while committing: look whether it was done",
            )
            .because(error),
            StoreError::Busy(_) | StoreError::Timeout(_) | StoreError::Unavailable(_) => {
                store_away().because(error)
            }
            _ => Problem::internal(error),
        }
    }
}

impl From<SigningKeyError> for Problem {
    fn from(error: SigningKeyError) -> Self {
        match error {
            SigningKeyError::Store(error) if error.retry_is_safe() => error.into(),
            error => Problem::unavailable(
                "audit_key_unusable",
                "the key that signs the audit cannot be opened; the log of this replica says why",
            )
            .because(error),
        }
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Conflict { expected, found } => StoreError::Conflict { expected, found }.into(),
            PublishError::Malformed(diagnostics) | PublishError::Refused(Refusal::Document(diagnostics)) => {
                Problem::invalid(findings(&diagnostics))
            }
            PublishError::Missing { .. } => Problem::not_found().detailed(error.to_string()),
            PublishError::Reason => Problem::bad_request(error.to_string()),
            PublishError::Refused(Refusal::Compile(found)) => Problem::invalid(
                found.into_iter().map(|(path, message)| FieldError::new(pointer(&path), message)),
            ),
            PublishError::Store(error) => error.into(),
            PublishError::Unchecked => Problem::internal(error),
        }
    }
}
