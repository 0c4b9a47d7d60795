//! Verified tokens, so that a signature is checked once and not on each call (24.6 µs against 1.8 µs).
//!
//! Keyed by SHA-256 over tenant and token: an attacker without the token can neither find nor replace an entry, and the
//! token itself is not kept. An entry holds the prints of the issuer configuration and of the key it was verified under;
//! whoever finds it must check both (the [`Authenticator`](crate::auth::Authenticator) does) and drops it otherwise.
//! Only authentic tokens enter, so a flood of bad ones changes nothing here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};
use sha2::{Digest, Sha256};

use crate::auth::issuer::Verified;
use crate::base::TenantId;

/// Fewer, larger shards on machines with many cores, so that a token with many claims still fits into one.
const SHARDS: usize = 32;

/// How much the cache may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheBounds {
    /// Tokens; at least 1.
    pub entries: usize,
    /// Bytes of what is kept about them, roughly; at least 1 MiB.
    pub bytes: usize,
}

impl Default for CacheBounds {
    /// 50,000 tokens, 64 MiB.
    fn default() -> Self {
        Self { entries: 50_000, bytes: 64 * 1024 * 1024 }
    }
}

/// The verified tokens of all tenants. Survives reloads.
pub struct TokenCache {
    entries: Cache<TokenId, Arc<Verified>, WeighBytes, ahash::RandomState>,
    misses: AtomicU64,
}

/// SHA-256 over tenant and token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TokenId([u8; 32]);

/// The part of a [`TokenId`] that is the same for all tokens of a tenant, hashed ahead.
#[derive(Clone)]
pub(crate) struct TenantPrefix(Sha256);

impl TenantPrefix {
    pub(crate) fn new(tenant: &TenantId) -> Self {
        // A fixed length keeps tenant and token apart, and 64 bytes fill the first block.
        let digest = Sha256::digest(tenant.as_str());
        Self(Sha256::new().chain_update(digest).chain_update([0; 32]))
    }

    pub(crate) fn token(&self, token: &[u8]) -> TokenId {
        TokenId(self.0.clone().chain_update(token).finalize().into())
    }
}

#[derive(Clone)]
struct WeighBytes {
    /// What an entry weighs at least: makes the bound on bytes one on entries, too.
    floor: u64,
}

impl Weighter<TokenId, Arc<Verified>> for WeighBytes {
    fn weight(&self, _: &TokenId, token: &Arc<Verified>) -> u64 {
        (token.weight as u64).max(self.floor)
    }
}

impl TokenCache {
    /// An empty cache.
    pub fn new(bounds: CacheBounds) -> Self {
        let entries = bounds.entries.max(1);
        let bytes = bounds.bytes.max(1024 * 1024);
        let options = OptionsBuilder::new()
            .shards(SHARDS)
            .estimated_items_capacity(entries)
            .weight_capacity(bytes as u64)
            .build()
            .expect("both capacities are given");
        let floor = (bytes / entries) as u64;
        Self {
            entries: Cache::with_options(
                options,
                WeighBytes { floor: floor.max(1) },
                ahash::RandomState::new(),
                DefaultLifecycle::default(),
            ),
            misses: AtomicU64::new(0),
        }
    }

    /// How many tokens it holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What it weighs, in bytes, roughly.
    pub fn weight(&self) -> u64 {
        self.entries.weight()
    }

    /// How many tokens had to be looked at from scratch since the start.
    pub fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    pub(crate) fn get(&self, id: &TokenId) -> Option<Arc<Verified>> {
        let found = self.entries.get(id);
        if found.is_none() {
            self.misses.fetch_add(1, Ordering::Relaxed);
        }
        found
    }

    pub(crate) fn insert(&self, id: TokenId, token: Arc<Verified>) {
        self.entries.insert(id, token);
    }

    pub(crate) fn remove(&self, id: &TokenId) {
        self.entries.remove(id);
    }
}

impl std::fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenCache").field("len", &self.len()).field("weight", &self.weight()).finish()
    }
}
