//! The keys of issuers (RFC 7517): parsed, bounded, refreshed in the background.
//!
//! A [`JwksSource`] is one place keys come from; [`JwksStore`] owns the table of sources, keyed by what they are, so that
//! a reload finds the loaded keys again. Readers take one atomic load of the current [`KeySet`]. A refresh replaces the
//! set as a whole: a key that is no longer listed is gone at once. A refresh that fails changes nothing until the keys
//! reach `max_stale`; then they are no longer used.
//!
//! Fetching is injected ([`JwksFetch`]); [`JwksStore::run`] is the driver.

mod set;
mod source;
mod store;

pub(crate) use set::{KeyPrint, VerifyKey};
pub use set::{KeySet, MAX_JWKS_BYTES};
pub(crate) use source::check_url;
pub use source::{
    JwksError, JwksLocation, JwksSource, JwksSpec, JwksStatus, MAX_REFRESH_WAIT, RefreshTicket,
};
pub use store::{FetchError, JwksFetch, JwksStore};
