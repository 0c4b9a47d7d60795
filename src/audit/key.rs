//! The key that signs checkpoints and exports: Ed25519.
//!
//! The private key is in the store, encrypted ([`crate::store::SigningKey`]), or in a file of mode 0600. Whoever verifies has
//! the public one from elsewhere, never from the export.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use crate::base::Secret;

const PREFIX: &str = "ed25519:";
/// Largest key file.
const MAX_FILE: u64 = 4096;

/// A key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file is not one of ours.
    #[error("the audit key {path} is damaged; restore it: a new key cannot continue what the old one signed")]
    Damaged {
        /// Which file.
        path: PathBuf,
    },
    /// Reading or writing failed.
    #[error("cannot use the audit key {path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The text is no public key.
    #[error("not a public key: expected `ed25519:` and 44 characters")]
    NotPublic,
    /// Others may read the file.
    #[error("the audit key {path} may be read by others (mode {mode:o}); chmod 600 it")]
    Open {
        /// Which file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

/// Signs.
pub struct AuditKey(Ed25519KeyPair);

impl fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuditKey({})", self.public())
    }
}

impl AuditKey {
    /// Reads the file, or makes it with a new key.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        match Self::read(path) {
            Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            done => return done,
        }
        let failed = |source| KeyError::Io { path: path.to_owned(), source };
        let document = Self::generate().ok_or_else(|| failed(io::Error::other("no random bytes")))?;
        let text = format!("{}\n", STANDARD.encode(document.expose()));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(mut file) => file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?,
            // Another process was faster: its key counts.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(failed(e)),
        }
        Self::read(path)
    }

    /// Reads the file.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let bytes = Self::read_pkcs8(path)?;
        Self::from_pkcs8(bytes.expose()).ok_or_else(|| KeyError::Damaged { path: path.to_owned() })
    }

    /// What is in the file: the private key in PKCS #8.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn read_pkcs8(path: &Path) -> Result<Secret<Vec<u8>>, KeyError> {
        let failed = |source| KeyError::Io { path: path.to_owned(), source };
        let damaged = || KeyError::Damaged { path: path.to_owned() };
        let meta = fs::metadata(path).map_err(failed)?;
        let mode = meta.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Open { path: path.to_owned(), mode });
        }
        if meta.len() > MAX_FILE {
            return Err(damaged());
        }
        let text = Secret::new(fs::read_to_string(path).map_err(failed)?);
        let bytes = Secret::new(STANDARD.decode(text.expose().trim()).map_err(|_| damaged())?);
        Self::from_pkcs8(bytes.expose()).map(|_| bytes).ok_or_else(damaged)
    }

    /// A private key in PKCS #8.
    pub fn from_pkcs8(bytes: &[u8]) -> Option<Self> {
        Ed25519KeyPair::from_pkcs8(bytes).map(Self).ok()
    }

    /// A new private key in PKCS #8. `None` if the operating system gives no random bytes.
    pub fn generate() -> Option<Secret<Vec<u8>>> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).ok()?;
        Some(Secret::new(document.as_ref().to_vec()))
    }

    /// A key that is kept nowhere. For tests and benches.
    pub fn ephemeral() -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("random bytes");
        Self(Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("what was just made"))
    }

    /// What verifies.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.public_key().as_ref().try_into().expect("Ed25519 keys have 32 bytes"))
    }

    pub(super) fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        self.0.sign(bytes).as_ref().try_into().expect("Ed25519 signatures have 64 bytes")
    }
}

/// Verifies. Written as `ed25519:` and base64.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    pub(super) fn verifies(&self, bytes: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(bytes, signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(KeyError::NotPublic)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| KeyError::NotPublic)?;
        bytes.try_into().map(Self).map_err(|_| KeyError::NotPublic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_for_us_alone_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.key");
        let first = AuditKey::open(&path).unwrap();
        assert_eq!(first.public(), AuditKey::open(&path).unwrap().public());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = first.public().to_string();
        assert_eq!(text.parse::<PublicKey>().unwrap(), first.public());
        assert!(first.public().verifies(b"a", &first.sign(b"a")));
        assert!(!first.public().verifies(b"b", &first.sign(b"a")));
        assert!(!AuditKey::ephemeral().public().verifies(b"a", &first.sign(b"a")));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(AuditKey::open(&path), Err(KeyError::Open { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "nonsense").unwrap();
        assert!(matches!(AuditKey::open(&path), Err(KeyError::Damaged { .. })));
    }
}
