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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::session::TokenBuf;

    const NOW: u64 = 1_800_000_000;
    const MAX_AGE: u64 = 3600;

    struct Owner(TenantId, RouteId, PrincipalId);

    impl Owner {
        fn new(tenant: &str, route: &str, principal: &str) -> Self {
            Self(tenant.into(), route.into(), principal.into())
        }

        fn binding(&self) -> Binding<'_> {
            Binding { tenant: &self.0, route: &self.1, principal: &self.2 }
        }
    }

    fn token() -> SessionToken<'static> {
        SessionToken {
            target: Some("10.0.0.1:9001"),
            upstream: Some("5f0c-upstream"),
            version: Version::V2025_11_25,
            issued_at: NOW,
            home: BootId::fresh(),
            serial: Serial::fresh(),
        }
    }

    fn alice() -> Owner {
        Owner::new("acme", "weather", "user:alice")
    }

    #[test]
    fn an_opened_id_says_what_opening_it_says() {
        let (ids, ring, owner) = (OpenedIds::default(), Arc::new(KeyRing::generate(NOW).unwrap()), alice());
        let token = token();
        let sealed = token.mint(&ring, owner.binding()).unwrap();
        ids.insert([1; 32], ring.clone(), owner.binding(), &token);
        let kept = ids.get(&[1; 32], &ring, owner.binding(), NOW, MAX_AGE).unwrap();
        let mut buffer = TokenBuf::default();
        let opened = SessionToken::open(&ring, owner.binding(), &sealed, NOW, MAX_AGE, &mut buffer);
        assert_eq!(Ok(kept.token()), opened);
        assert!(ids.get(&[2; 32], &ring, owner.binding(), NOW, MAX_AGE).is_none(), "another id");
    }

    #[test]
    fn nobody_else_may_use_it() {
        let (ids, ring, owner) = (OpenedIds::default(), Arc::new(KeyRing::generate(NOW).unwrap()), alice());
        ids.insert([1; 32], ring.clone(), owner.binding(), &token());
        for other in [
            Owner::new("evil", "weather", "user:alice"),
            Owner::new("acme", "files", "user:alice"),
            Owner::new("acme", "weather", "user:mallory"),
        ] {
            assert!(ids.get(&[1; 32], &ring, other.binding(), NOW, MAX_AGE).is_none());
        }
    }

    #[test]
    fn it_ends_with_its_age_and_with_the_keys_that_sealed_it() {
        let (ids, ring, owner) = (OpenedIds::default(), Arc::new(KeyRing::generate(NOW).unwrap()), alice());
        ids.insert([1; 32], ring.clone(), owner.binding(), &token());
        assert!(ids.get(&[1; 32], &ring, owner.binding(), NOW + MAX_AGE, MAX_AGE).is_some());
        assert!(ids.get(&[1; 32], &ring, owner.binding(), NOW + MAX_AGE + 1, MAX_AGE).is_none());
        let rotated = Arc::new(ring.rotate(NOW, 0, MAX_AGE).unwrap());
        assert!(ids.get(&[1; 32], &rotated, owner.binding(), NOW, MAX_AGE).is_none(), "asks the new keys");
    }

    #[test]
    fn no_more_are_kept_than_the_bound_says() {
        let (ids, ring, owner) = (OpenedIds::default(), Arc::new(KeyRing::generate(NOW).unwrap()), alice());
        for n in 0..CAPACITY + 1000 {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&n.to_be_bytes());
            ids.insert(digest, ring.clone(), owner.binding(), &token());
        }
        assert!(ids.0.len() as u64 <= CAPACITY);
    }
}
