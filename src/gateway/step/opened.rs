//! Session ids that were opened before, so that an id is opened once and not on each call: decryption is the dearest
//! single thing a call asks for otherwise.
//!
//! Keyed by the SHA-256 of the id, which the log needs anyway: without the id nobody finds an entry, and the id itself is
//! not kept. An entry holds only what its id said and to whom it is bound; the binding, the age and the keys in force are
//! compared on each use, and whether the session still lives is asked of its record as ever. Only ids that opened enter,
//! so a flood of forged ones changes nothing here.

use std::sync::Arc;

use http::HeaderValue;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, UnitWeighter};

use crate::base::{PrincipalId, RouteId, TenantId};
use crate::mcp::seal::KeyRing;
use crate::mcp::session::{Binding, BootId, Serial, SessionToken};
use crate::mcp::version::Version;
use crate::upstream::TargetRef;

/// Ids that are kept, each of about 400 bytes.
const CAPACITY: u64 = 65_536;

/// SHA-256 of an id.
pub(crate) type IdDigest = [u8; 32];

/// The ids.
pub(crate) struct OpenedIds(Cache<IdDigest, Arc<OpenedId>, UnitWeighter, ahash::RandomState>);

/// What an id says.
pub(crate) struct OpenedId {
    /// The keys that were in force; another set may no longer have the one that sealed it.
    ring: Arc<KeyRing>,
    tenant: TenantId,
    route: RouteId,
    principal: PrincipalId,
    pub(crate) target: Option<TargetRef>,
    pub(crate) upstream: Option<HeaderValue>,
    version: Version,
    issued_at: u64,
    home: BootId,
    serial: Serial,
}

impl Default for OpenedIds {
    fn default() -> Self {
        let options = OptionsBuilder::new()
            .estimated_items_capacity(1024)
            .weight_capacity(CAPACITY)
            .build()
            .expect("both capacities are given");
        let hasher = ahash::RandomState::new();
        Self(Cache::with_options(options, UnitWeighter, hasher, DefaultLifecycle::default()))
    }
}

impl OpenedIds {
    /// What the id says, if it opened before and is still good for this caller.
    pub(crate) fn get(
        &self,
        digest: &IdDigest,
        ring: &Arc<KeyRing>,
        binding: Binding<'_>,
        now: u64,
        max_age: u64,
    ) -> Option<Arc<OpenedId>> {
        let found = self.0.get(digest)?;
        let good = Arc::ptr_eq(&found.ring, ring)
            && found.tenant == *binding.tenant
            && found.route == *binding.route
            && found.principal == *binding.principal
            && now.saturating_sub(found.issued_at) <= max_age;
        good.then_some(found)
    }

    /// Keeps what an id said that has just been opened or issued.
    pub(crate) fn insert(
        &self,
        digest: IdDigest,
        ring: Arc<KeyRing>,
        binding: Binding<'_>,
        token: &SessionToken<'_>,
    ) -> Arc<OpenedId> {
        let opened = Arc::new(OpenedId {
            ring,
            tenant: binding.tenant.clone(),
            route: binding.route.clone(),
            principal: binding.principal.clone(),
            target: token.target.map(TargetRef::from_text),
            upstream: token.upstream.and_then(|id| HeaderValue::from_str(id).ok()),
            version: token.version,
            issued_at: token.issued_at,
            home: token.home,
            serial: token.serial,
        });
        self.0.insert(digest, opened.clone());
        opened
    }
}

impl OpenedId {
    pub(crate) fn token(&self) -> SessionToken<'_> {
        SessionToken {
            target: self.target.as_ref().map(TargetRef::as_str),
            upstream: self.upstream.as_ref().and_then(|id| id.to_str().ok()),
            version: self.version,
            issued_at: self.issued_at,
            home: self.home,
            serial: self.serial,
        }
    }
}
