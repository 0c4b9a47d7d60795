//! Identities: users, API keys, revocations and role bindings, and the feed of changes by which replicas learn of them.
//!
//! Each change is written together with its row of the feed, in one transaction. Numbers of the feed are gapless and in
//! the order of commits over all tenants, because the row of the head stays locked until the commit. A reader that finds
//! its next number missing has slept through retention and begins again with [`Platform::identity_snapshot`].
//!
//! What a replica needs of an entry is the `body` of its feed row: JSON, as the readers in `auth` take it. Hashes of keys
//! are in it, keys never.

mod feed;
mod keys;
mod people;
mod revocations;

pub use feed::{IdentityChange, IdentityKind, IdentitySnapshot};
pub use keys::{ApiKey, NewApiKey};
pub use people::{NewUser, RoleBinding, User};
pub use revocations::RevocationEntry;
