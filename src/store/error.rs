//! What can go wrong with the store, whose fault it is, and whether trying again is safe.

use crate::base::envelope::EnvelopeError;

/// Who has to do something about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Whoever asked: the request cannot be met as it is.
    Caller,
    /// Whoever runs the gateway: settings, roles, keys, tables.
    Operator,
    /// The database, for now.
    Store,
}

/// Why the store did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file is not a whole, unchanged backup that this program can restore.
    #[error("the backup cannot be used: {0}")]
    Backup(String),
    /// Another transaction was in the way, and this one was undone.
    #[error("the store is busy")]
    Busy(#[source] sqlx::Error),
    /// The connection was lost while committing: it may have happened or not.
    #[error("the connection was lost while committing; whether it was done is unknown")]
    CommitUnknown(#[source] sqlx::Error),
    /// Somebody else changed it meanwhile.
    #[error("expected revision {expected}, but it is {found}")]
    Conflict {
        /// What the caller had seen; 0 for nothing.
        expected: i64,
        /// What there is; 0 for nothing.
        found: i64,
    },
    /// Anything else that the database says.
    #[error("the database says: {}", said(.0))]
    Database(#[source] sqlx::Error),
    /// There is one already.
    #[error("it exists already ({0})")]
    Duplicate(String),
    /// Something cannot be sealed or opened.
    #[error("{what}: {source}")]
    Envelope {
        /// What it was.
        what: String,
        /// Why.
        source: EnvelopeError,
    },
    /// There is something where nothing may be.
    #[error("the database is in use: {0}")]
    InUse(String),
    /// A folder, file or command that the store needs cannot be used.
    #[error("{what}: {source}")]
    Io {
        /// What it was for.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// The master keys are not those that the store needs, or others can read them.
    #[error("{0}")]
    MasterKey(String),
    /// There is no such thing.
    #[error("there is no {0}")]
    Missing(String),
    /// The database refuses: rows of another tenant, an append-only table, a constraint.
    #[error("refused by the database: {0}")]
    Refused(String),
    /// The application's role on PostgreSQL may too much or too little.
    #[error("{0}")]
    Roles(String),
    /// The tables are of another version.
    #[error("{0}")]
    Schema(String),
    /// The settings make no sense.
    #[error("store: {0}")]
    Settings(String),
    /// It took longer than `store.statement_timeout`.
    #[error("the statement was stopped after store.statement_timeout")]
    Timeout(#[source] sqlx::Error),
    /// A document refers to something that has gone since it was compiled.
    #[error("the document refers to the {0}, which is gone")]
    Unresolved(String),
    /// The database's certificate is not one to trust.
    #[error(
        "the certificate of the database is refused, see sslrootcert and the host name in store.url: {0}"
    )]
    Untrusted(#[source] sqlx::Error),
    /// The database cannot be reached.
    #[error("the store cannot be reached: {0}")]
    Unavailable(#[source] sqlx::Error),
}

impl StoreError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Busy(_) | Self::CommitUnknown(_) | Self::Timeout(_) | Self::Unavailable(_) => Fault::Store,
            Self::Conflict { .. }
            | Self::Duplicate(_)
            | Self::Missing(_)
            | Self::Refused(_)
            | Self::Unresolved(_) => Fault::Caller,
            Self::Backup(_)
            | Self::Database(_)
            | Self::Envelope { .. }
            | Self::InUse(_)
            | Self::Io { .. }
            | Self::MasterKey(_)
            | Self::Roles(_)
            | Self::Schema(_)
            | Self::Settings(_)
            | Self::Untrusted(_) => Fault::Operator,
        }
    }

    /// Whether the same call may be made again: nothing was done, and time may help.
    pub fn retry_is_safe(&self) -> bool {
        matches!(self, Self::Busy(_) | Self::Timeout(_) | Self::Unavailable(_))
    }

    /// The database went away in the middle of a commit.
    pub(super) fn of_commit(error: sqlx::Error) -> Self {
        match Self::from(error) {
            Self::Unavailable(error) => Self::CommitUnknown(error),
            other => other,
        }
    }

    pub(super) fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }
}

/// What the database says, without the line of its own source.
fn said(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        other => other.to_string(),
    }
}

/// SQLite's primary codes for "somebody else has the lock".
const SQLITE_BUSY: [i32; 2] = [5, 6];
/// SQLite's primary code for a constraint, with triggers among them.
const SQLITE_CONSTRAINT: i32 = 19;

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let sqlx::Error::Database(database) = &error else {
            return match error {
                error if is_untrusted(&error) => Self::Untrusted(error),
                sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::Protocol(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed
                | sqlx::Error::BeginFailed => Self::Unavailable(error),
                sqlx::Error::RowNotFound => Self::Missing("such row".to_owned()),
                other => Self::Database(other),
            };
        };
        let code = database.code().unwrap_or_default().into_owned();
        let message = database.message().to_owned();
        if database.is_unique_violation() {
            return Self::Duplicate(database.constraint().map_or(message, ToOwned::to_owned));
        }
        if database.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
            let primary = code.parse::<i32>().unwrap_or(0) & 0xff;
            return match primary {
                code if SQLITE_BUSY.contains(&code) => Self::Busy(error),
                SQLITE_CONSTRAINT => Self::Refused(message),
                _ => Self::Database(error),
            };
        }
        match code.as_str() {
            // Serialization failure, deadlock, lock not available.
            "40001" | "40P01" | "55P03" => Self::Busy(error),
            "57014" => Self::Timeout(error),
            // Insufficient privilege (row-level security, too), restrict (append-only tables), constraints; a character that no
            // text may have.
            "42501" | "23001" | "23502" | "23503" | "23514" | "22021" | "22P05" => Self::Refused(message),
            // Shutdown, crash, cannot connect now, too many connections; a server that only reads, as the old one does after a
            // failover; class 08: connection exceptions.
            "57P01" | "57P02" | "57P03" | "53300" | "25006" => Self::Unavailable(error),
            code if code.starts_with("08") => Self::Unavailable(error),
            _ => Self::Database(error),
        }
    }
}

/// Whether a handshake failed for the certificate of the other side.
fn is_untrusted(error: &sqlx::Error) -> bool {
    let inner = match error {
        sqlx::Error::Io(error) => error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()),
        sqlx::Error::Tls(error) => error.downcast_ref::<rustls::Error>(),
        _ => None,
    };
    matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_is_not_tried_again() {
        let lost = || sqlx::Error::PoolTimedOut;
        assert!(StoreError::from(lost()).retry_is_safe());
        let unknown = StoreError::of_commit(lost());
        assert!(matches!(unknown, StoreError::CommitUnknown(_)) && !unknown.retry_is_safe());
        assert_eq!(StoreError::Conflict { expected: 1, found: 2 }.fault(), Fault::Caller);
    }
}
