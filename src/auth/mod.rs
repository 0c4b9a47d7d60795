//! Who is calling: bearer tokens, API keys and the absence of both (DESIGN §4 step 3, MCP.md §3.1).
//!
//! **Shape.** An [`Authenticator`] is immutable, belongs to one tenant and is compiled from an [`AuthSpec`]. What must
//! survive a reload lives beside it and is handed in: the JWKS sources ([`JwksStore`]), the cache of verified tokens
//! and the limiter on failed attempts ([`AuthState`]), the keys ([`KeyStore`]) and the [`Revocations`].
//!
//! **Invariants.**
//! - A credential that was presented and is not good is refused; it never turns into the anonymous caller.
//! - The token chooses nothing: algorithms come from the issuer's allow-list and the key's own type, keys only from the
//!   issuer's JWKS. Symmetric algorithms and `none` have no representation here.
//! - Only the cryptographic result is cached. Time, audience, revocation, the issuer's configuration and the presence of
//!   the key in the JWKS are checked on every request.
//! - Memory is bounded: only authentic tokens enter the cache, the limiter's table has a fixed size.
//!
//! **Failure.** Keys that cannot be refreshed keep working until their configured age; after that every token of the
//! issuer is refused. Lists that do not parse leave the last good ones in place.
//!
//! Nothing here does I/O except [`fetch`], which the rest reaches only through the [`JwksFetch`] trait.

mod alg;
mod api_key;
mod authenticator;
mod bindings;
mod cache;
pub mod challenge;
mod claims;
mod credential;
mod error;
mod failures;
pub mod fetch;
mod issuer;
mod json;
mod jwks;
mod pattern;
mod records;
mod revocation;
mod roles;
mod sources;
mod token;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use alg::{Alg, AlgSet, UnknownAlg};
pub use api_key::{
    KeyHash, KeyPepper, KeyRecord, KeyRefusal, KeyScopes, KeyStore, KeyTable, KeyUse, NewKey, Restriction,
    generate as generate_api_key,
};
pub use authenticator::{AuthSpec, AuthState, Authenticator, Identity};
pub use bindings::{Bindings, Standing, Standings};
pub use cache::{CacheBounds, TokenCache};
pub use claims::{ClaimPath, ClaimRule, ClaimTest};
pub use credential::{Credential, HeaderField, MAX_CREDENTIAL_BYTES};
pub use error::{AuthError, Blame, SpecError};
pub use failures::{FailureBounds, FailureLimiter};
pub use issuer::{IssuerSpec, KindRule, MAX_LEEWAY};
pub use jwks::{
    FetchError, JwksError, JwksFetch, JwksLocation, JwksSource, JwksSpec, JwksStatus, JwksStore, KeySet,
    MAX_JWKS_BYTES, MAX_REFRESH_WAIT, RefreshTicket,
};
pub use records::{LineError, Timestamp};
pub use revocation::{RevocationList, RevocationRecord, RevocationTarget, Revocations};
pub use roles::{RoleMapping, RoleRule};
pub use sources::{KEY_SCOPES, Source, SourceId, SourceScopes};
