//! What is to be published, what became of it, and why nothing did.

use crate::base::Scope;
use crate::config::Diagnostics;
use crate::source::stored::Refusal;
use crate::store::StoreError;

/// The longest reason, in characters.
pub const MAX_REASON: usize = 1_000;

/// What is to be published.
#[derive(Clone, Debug)]
pub struct Change {
    /// Whose document.
    pub scope: Scope,
    /// The document, in any form that reads as one.
    pub content: Vec<u8>,
    /// Who publishes.
    pub author: String,
    /// Why, in their words.
    pub reason: String,
    /// The revision they have seen (0: none); `None`: whatever there is.
    pub if_revision: Option<i64>,
}

/// What was published, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Whose document.
    pub scope: Scope,
    /// The head now. Of a dry run: the head as it is.
    pub revision: i64,
    /// The head before.
    pub parent: i64,
    /// Whether there is a new revision, or would be.
    pub changed: bool,
    /// What differs, one line per change.
    pub changes: Vec<String>,
    /// What is right but looks wrong.
    pub warnings: Vec<String>,
    /// SHA-256 of the canonical bytes, in hexadecimal.
    pub hash: String,
}

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Somebody else was faster.
    #[error("revision {expected} was expected, but the head is {found}")]
    Conflict {
        /// What was expected.
        expected: i64,
        /// What there is.
        found: i64,
    },
    /// It cannot even be read as a document.
    #[error("{0}")]
    Malformed(Box<Diagnostics>),
    /// There is no such revision.
    #[error("{scope} has no revision {revision}")]
    Missing {
        /// Whose.
        scope: Scope,
        /// Which.
        revision: i64,
    },
    /// The reason is too long.
    #[error("a reason has at most {MAX_REASON} characters")]
    Reason,
    /// It does not compile.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store.
    #[error(transparent)]
    Store(StoreError),
    /// The thread that compiled it ended early.
    #[error("the document could not be checked")]
    Unchecked,
}

impl From<StoreError> for PublishError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict { expected, found } => Self::Conflict { expected, found },
            other => Self::Store(other),
        }
    }
}

/// Of several documents none was published, because of this one.
#[derive(Debug, thiserror::Error)]
#[error("{scope}: {error}")]
pub struct Failed {
    /// Whose.
    pub scope: Scope,
    /// Why.
    pub error: PublishError,
}
