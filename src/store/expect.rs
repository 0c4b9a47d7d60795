//! Changes that are made only if what they replace is what the caller has seen.
//!
//! Whoever changes a row gives a condition along. It is asked inside the transaction that makes the change, about the row
//! as it is then, and nobody else can change or delete that row until the transaction has ended: on PostgreSQL it is
//! locked before it is read, on SQLite there is one writer. Of several who have seen the same, one wins.

use super::StoreError;

/// How often a row that is new for us is found to be somebody else's: it takes one that goes and comes back in between.
pub(super) const ATTEMPTS: usize = 8;

/// What became of a row that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put<T> {
    /// There was none.
    Created(T),
    /// There was one.
    Replaced(T),
}

impl<T> Put<T> {
    /// The row as it is now.
    pub fn into_row(self) -> T {
        match self {
            Self::Created(row) | Self::Replaced(row) => row,
        }
    }

    /// Whether there was none.
    pub fn is_new(&self) -> bool {
        matches!(self, Self::Created(_))
    }
}

/// The condition of who does not care what there is.
///
/// # Errors
/// Never.
pub fn whatever<T>(_: Option<&T>) -> Result<(), StoreError> {
    Ok(())
}

/// There was none, somebody made one, it was gone again, …: too often.
pub(super) fn contended(what: &str) -> StoreError {
    StoreError::Busy(sqlx::Error::Protocol(format!("{what} is made and removed again all the time")))
}
