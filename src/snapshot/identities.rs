//! Keys and revocations of each tenant. They outlive snapshots, and no tenant's are another's.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::auth::{Bindings, KeyPepper, KeyStore, Revocations};
use crate::base::TenantId;
use crate::config::model::SecretText;

/// What one tenant's authenticators are linked with.
#[derive(Clone, Debug)]
pub struct TenantIdentity {
    /// Keys of the file that the document names.
    pub file_keys: Arc<KeyStore>,
    /// Keys of the store, which the feed of changes keeps current (`identity.api_keys: true`).
    pub store_keys: Arc<KeyStore>,
    /// Revoked credentials.
    pub revocations: Arc<Revocations>,
    /// Disabled users and given roles, from the same feed.
    pub bindings: Arc<Bindings>,
    pepper: Option<SecretText>,
}

/// Those of all tenants.
#[derive(Debug, Default)]
pub struct Identities {
    tenants: Mutex<HashMap<TenantId, TenantIdentity>>,
    fed: bool,
}

impl Identities {
    /// An empty registry. `fed` says that a feed brings keys and revocations: compiling then leaves revocations alone.
    pub fn new(fed: bool) -> Self {
        Self { tenants: Mutex::default(), fed }
    }

    /// Whether a feed brings revocations.
    pub fn is_fed(&self) -> bool {
        self.fed
    }

    /// Those of a tenant.
    pub fn of(&self, tenant: &TenantId) -> TenantIdentity {
        self.tenants
            .lock()
            .entry(tenant.clone())
            .or_insert_with(|| TenantIdentity::new(tenant, None, None))
            .clone()
    }

    /// The same, with keys of a file that are hashed with a pepper. Another pepper makes another table.
    pub(super) fn peppered(
        &self,
        tenant: &TenantId,
        pepper: Option<&SecretText>,
    ) -> Result<TenantIdentity, &'static str> {
        let known = self.of(tenant);
        if known.pepper.as_ref() == pepper {
            return Ok(known);
        }
        let key = match pepper {
            Some(text) => {
                let secret = crate::base::Secret::new(text.expose().as_bytes().to_vec());
                Some(KeyPepper::new(&secret).ok_or("needs at least 16 bytes")?)
            }
            None => None,
        };
        let fresh = TenantIdentity {
            store_keys: known.store_keys,
            revocations: known.revocations,
            bindings: known.bindings,
            ..TenantIdentity::new(tenant, key, pepper.cloned())
        };
        Ok(fresh)
    }

    /// Makes what [`Identities::peppered`] gave the tenant's own.
    pub(super) fn keep(&self, tenant: &TenantId, identity: TenantIdentity) {
        self.tenants.lock().insert(tenant.clone(), identity);
    }

    /// Forgets the tenants for which `live` says no. What a feed has brought is kept: it would not be brought again.
    pub(super) fn retain(&self, live: impl Fn(&TenantId) -> bool) {
        if self.fed {
            return;
        }
        self.tenants.lock().retain(|tenant, _| live(tenant));
    }
}

impl TenantIdentity {
    fn new(tenant: &TenantId, key: Option<KeyPepper>, pepper: Option<SecretText>) -> Self {
        Self {
            file_keys: Arc::new(KeyStore::new(tenant.clone(), key)),
            store_keys: Arc::new(KeyStore::new(tenant.clone(), None)),
            revocations: Arc::new(Revocations::new()),
            bindings: Arc::new(Bindings::new()),
            pepper,
        }
    }
}
