//! One key of a ring, with everything derived from it.

use std::fmt;

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{Key as CipherKey, KeyInit as _, Tag, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use super::{NONCE, Purpose, SealError, TAG};
use crate::base::Secret;

/// The name of a key: four characters of the URL-safe Base64 alphabet. Not secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; KeyId::LEN]);

impl KeyId {
    pub(super) const LEN: usize = 4;

    /// Reads a name; `None` if it has another length or alphabet.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let bytes: [u8; KeyId::LEN] = text.try_into().ok()?;
        let valid = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        bytes.iter().all(valid).then_some(Self(bytes))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a key id is ASCII")
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

pub(super) struct Key {
    pub(super) id: KeyId,
    /// When the key begins to seal, in seconds since the Unix epoch.
    pub(super) active_from: u64,
    pub(super) secret: Secret<[u8; 32]>,
    /// One for each purpose, in the order of their numbers.
    ciphers: [XChaCha20Poly1305; Purpose::ALL.len()],
    nonces: Hmac<Sha256>,
}

impl Key {
    pub(super) fn new(id: KeyId, active_from: u64, secret: [u8; 32]) -> Self {
        let derive =
            |label: &[u8]| -> [u8; 32] { keyed(&secret).chain_update(label).finalize().into_bytes().into() };
        let cipher = |purpose: Purpose| XChaCha20Poly1305::new(&CipherKey::from(derive(purpose.label())));
        Self {
            id,
            active_from,
            ciphers: Purpose::ALL.map(cipher),
            nonces: keyed(&derive(b"tollgate seal v1 synthetic nonce")),
            secret: Secret::new(secret),
        }
    }

    /// A nonce that depends on everything sealed, so that the same input gives the same token and any other input another
    /// nonce: the construction of SIV.
    pub(super) fn synthetic_nonce(&self, aad: &[u8], plaintext: &[u8]) -> [u8; NONCE] {
        let mut mac = self.nonces.clone();
        mac.update(&(aad.len() as u64).to_le_bytes());
        mac.update(aad);
        mac.update(plaintext);
        let digest: [u8; 32] = mac.finalize().into_bytes().into();
        let mut nonce = [0; NONCE];
        nonce.copy_from_slice(&digest[..NONCE]);
        nonce
    }

    /// Encrypts in place and gives the tag.
    pub(super) fn encrypt(
        &self,
        purpose: Purpose,
        nonce: &[u8; NONCE],
        aad: &[u8],
        buf: &mut [u8],
    ) -> [u8; TAG] {
        self.ciphers[purpose as usize]
            .encrypt_inout_detached(&XNonce::from(*nonce), aad, buf.into())
            .expect("inputs are bounded far below the cipher's 256 GiB")
            .into()
    }

    /// Decrypts in place. On failure nothing of the plaintext is left in the buffer.
    pub(super) fn decrypt(
        &self,
        purpose: Purpose,
        nonce: &[u8; NONCE],
        aad: &[u8],
        buf: &mut [u8],
        tag: &[u8; TAG],
    ) -> Result<(), SealError> {
        self.ciphers[purpose as usize]
            .decrypt_inout_detached(&XNonce::from(*nonce), aad, buf.into(), &Tag::from(*tag))
            .map_err(|_| SealError::Forged)
    }
}

fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("active_from", &self.active_from)
            .finish_non_exhaustive()
    }
}
