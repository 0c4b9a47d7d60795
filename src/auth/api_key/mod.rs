//! API keys: `tg_<id>_<secret>`, kept as a hash.
//!
//! The secret has 256 random bits, so a fast hash is enough and a slow one would only be a way to burn our CPU. The id is
//! public: it finds the record, appears in logs, and says nothing about the secret. A checksum tells typing errors and
//! truncated keys from wrong ones before anything is looked up (and lets secret scanners know a key when they see one).
//!
//! [`KeyStore`] owns the current table; replacing it is atomic. A list with an error replaces nothing.

mod format;
mod record;
mod restriction;
mod table;

pub use format::{NewKey, generate};
pub use record::{KeyHash, KeyPepper, KeyRecord, KeyScopes};
pub use restriction::Restriction;
pub use table::{KeyRefusal, KeyStore, KeyTable, KeyUse};

pub(crate) use format::PREFIX;
