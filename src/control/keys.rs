//! API keys of the store as credentials for the API.
//!
//! A key is looked up on every call, so that one that was taken away, revoked or switched off is refused at once. It is
//! verified by the same code as on the data plane. Its principal's other roles count as well. A key that is restricted
//! to routes, servers, tools or methods is for calling those, and opens nothing here.

use std::net::IpAddr;

use async_trait::async_trait;

use super::actor::{Actor, Proof, is_reserved};
use super::authn::Keys;
use super::permission::{Permission, Permissions};
use super::problem::Problem;
use crate::auth::{KeyRecord, KeyStore, RevocationRecord, RevocationTarget};
use crate::base::{Clock, PrincipalId, RoleSet, TenantId};
use crate::store::{OwnedApiKey, Store, StoredStanding};

/// The add-on, among the names of roles.
const AUDITOR: &str = "auditor";

/// Looks keys up in the store.
pub struct StoreKeys {
    store: Store,
    clock: Clock,
    /// Whether the store says which tenants there are.
    has_tenants: bool,
}

impl StoreKeys {
    /// Keys of a store. `has_tenants`: documents come from it as well, so that it knows which tenants there are; keys of one
    /// that was taken out open nothing any more.
    pub fn new(store: Store, clock: Clock, has_tenants: bool) -> Self {
        Self { store, clock, has_tenants }
    }

    async fn owned(&self, owned: OwnedApiKey, text: &str, address: IpAddr) -> Result<Option<Actor>, Problem> {
        let tenant = TenantId::new(owned.tenant);
        let record = KeyRecord::parse(&owned.record).map_err(Problem::internal)?;
        let (id, created, expires) = (record.id.clone(), record.created, record.expires);
        let restricted = record.scopes != crate::auth::KeyScopes::default();
        let principal = record.principal.clone().unwrap_or_else(|| format!("key|{id}"));
        // One that an earlier version let somebody make.
        if is_reserved(&principal) {
            return Ok(None);
        }
        let mut roles: RoleSet = record.roles.iter().copied().collect();
        let keys = KeyStore::new(tenant.clone(), None);
        keys.replace(vec![record]).map_err(|_| Problem::internal("a stored key is not as it must be"))?;
        // The limiter of the caller counts guesses.
        if !matches!(keys.verify(text.as_bytes(), address, self.clock.unix_secs(), || true), Ok(Some(_))) {
            return Ok(None);
        }
        if self.has_tenants && !self.store.platform().knows_tenant(&tenant).await? {
            return Ok(None);
        }
        let standing = self.store.tenant(&tenant).standing(&principal, &id).await?;
        if standing.disabled || revoked(&standing, &principal, &id, created.map(|t| t.0)) {
            return Ok(None);
        }
        roles = roles.iter().chain(standing.roles.iter().filter_map(|r| r.parse().ok())).collect();
        let auditor = standing.roles.iter().any(|r| r == AUDITOR);
        let custom = standing.custom.iter().flat_map(|names| names.split(' '));
        // A permission of a later version gives nothing here.
        let custom: Permissions = custom.filter_map(Permission::parse).collect();
        Ok(Some(Actor {
            id: PrincipalId::new(principal).as_str().into(),
            tenant,
            roles: if restricted { RoleSet::default() } else { roles },
            auditor: auditor && !restricted,
            custom: if restricted { Permissions::default() } else { custom },
            proof: Proof::Key,
            credential: id.into(),
            expires: expires.map(|t| t.0.saturating_mul(1000)),
        }))
    }
}

#[async_trait]
impl Keys for StoreKeys {
    async fn actor(&self, key: &str, address: IpAddr) -> Result<Option<Actor>, Problem> {
        // `tg_`, the id, `_`, the rest.
        let Some((id, _)) = key.strip_prefix("tg_").and_then(|rest| rest.split_once('_')) else {
            return Ok(None);
        };
        if id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Ok(None);
        }
        for owned in self.store.platform().api_keys_with_id(id).await? {
            if let Some(actor) = self.owned(owned, key, address).await? {
                return Ok(Some(actor));
            }
        }
        Ok(None)
    }
}

/// Whether something that is revoked is this key or this principal.
pub(super) fn revoked(standing: &StoredStanding, principal: &str, id: &str, created: Option<u64>) -> bool {
    standing.revocations.iter().filter_map(|text| RevocationRecord::parse(text).ok()).any(|record| {
        // A key that does not say when it was made counts as made before.
        let before = record.before.is_none_or(|before| created.is_none_or(|at| at <= before.0));
        match &record.target {
            RevocationTarget::Id(revoked) => revoked == id,
            RevocationTarget::Principal(revoked) => revoked == principal && before,
            RevocationTarget::Subject(_) => false,
        }
    })
}
