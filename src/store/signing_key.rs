//! The key that signs the audit: of all replicas one, encrypted in the store; or a file, where one is asked for.
//!
//! The first replica that needs the key makes it, or takes up the one that its data folder has from before the store kept
//! it. It is sealed with the master key and bound to its place ([`super::SealingKey`]), so that whoever can write to the
//! database but has not the master key can neither read it nor put another in its place: what they can do is remove it,
//! and then whatever is signed from then on is signed with a key that nobody trusts.

use std::io;
use std::path::PathBuf;

use tokio::sync::OnceCell;

use super::{SealingKey, Store, StoreError, Time};
use crate::audit::{AuditKey, KeyError, PublicKey};

/// What the key is for, among the store's shared keys.
const PURPOSE: &str = "audit";
/// Its id. There is one: a new key cannot continue what the old one signed.
const ID: &str = "ed25519";

/// The signing key cannot be used, now or at all.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeyError {
    /// A key file cannot be used.
    #[error(transparent)]
    File(#[from] KeyError),
    /// The store is away, or the master key is not the one that the key was sealed with.
    #[error("the key that signs the audit: {0}")]
    Store(#[from] StoreError),
}

/// The key that signs the audit, which may not be at hand yet.
#[derive(Debug)]
pub struct SigningKey {
    place: Place,
    key: OnceCell<AuditKey>,
}

enum Place {
    /// It was given.
    Given,
    /// The store has it; `adopt` is where a key of its own is that this process may have used before.
    Store { store: Store, adopt: PathBuf },
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Given => "Given",
            Self::Store { .. } => "Store",
        })
    }
}

impl SigningKey {
    /// A key that is at hand.
    pub fn given(key: AuditKey) -> Self {
        Self { place: Place::Given, key: OnceCell::new_with(Some(key)) }
    }

    /// The key of the store. If there is none yet, that in the file `adopt` becomes it, or a new one.
    pub fn stored(store: Store, adopt: PathBuf) -> Self {
        Self { place: Place::Store { store, adopt }, key: OnceCell::new() }
    }

    /// The key; read once, and at hand from then on. The store must have been prepared.
    ///
    /// # Errors
    /// [`SigningKeyError`]; asking again may help.
    pub async fn get(&self) -> Result<&AuditKey, SigningKeyError> {
        self.key
            .get_or_try_init(async || match &self.place {
                Place::Given => Err(StoreError::Missing("signing key".to_owned()).into()),
                Place::Store { store, adopt } => open(store, adopt).await,
            })
            .await
    }
}

async fn open(store: &Store, adopt: &std::path::Path) -> Result<AuditKey, SigningKeyError> {
    let file = || match AuditKey::read_pkcs8(adopt) {
        Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        done => done.map(Some),
    };
    if let Some(key) = stored(store).await? {
        tell_of_another(
            &key.public(),
            file().ok().flatten().and_then(|own| AuditKey::from_pkcs8(own.expose())),
        );
        return Ok(key);
    }
    let (secret, adopted) = match file()? {
        Some(secret) => (secret, true),
        None => (AuditKey::generate().ok_or_else(no_entropy)?, false),
    };
    let new = SealingKey { id: ID.to_owned(), secret, active_from: store.now() };
    // Of several replicas that start at once, the first wins: nobody has a key from before the epoch.
    let first = store.platform().add_first_sealing_key(PURPOSE, &new, Some(Time::from_micros(0))).await?;
    let key = stored(store).await?.ok_or_else(|| StoreError::Missing("signing key".to_owned()))?;
    if first {
        tracing::info!(event = "audit_key_made", public = %key.public(), adopted);
    } else if adopted {
        tell_of_another(&key.public(), AuditKey::from_pkcs8(new.secret.expose()));
    }
    Ok(key)
}

/// A replica whose own key did not become that of all. What it signed is still good, with its own public key.
fn tell_of_another(key: &PublicKey, own: Option<AuditKey>) {
    if let Some(own) = own.map(|own| own.public()).filter(|own| own != key) {
        tracing::warn!(event = "audit_key_file_ignored", signs_with = %key, file_has = %own);
    }
}

async fn stored(store: &Store) -> Result<Option<AuditKey>, StoreError> {
    let Some(found) = store.platform().sealing_keys(PURPOSE).await?.pop() else { return Ok(None) };
    let key = AuditKey::from_pkcs8(found.secret.expose());
    key.map(Some).ok_or_else(|| StoreError::Schema(format!("{PURPOSE}/{} is no Ed25519 key", found.id)))
}

fn no_entropy() -> StoreError {
    StoreError::io("a new signing key", io::Error::other("the operating system gives no random bytes"))
}
