//! Envelope encryption of what is kept in the store: a data key per value, wrapped by a master key.
//!
//! ```text
//! sealed = 1 | id length | master key id | nonce 24 | wrapped data key 48 | nonce 24 | ciphertext and tag
//! ```
//!
//! XChaCha20-Poly1305 both times, with random nonces. Both layers are bound to where the value belongs (table and row),
//! so a sealed value that is copied into another row does not open. Rotation of the master key re-wraps the data key and
//! leaves the ciphertext as it is. The ring seals with its last key and opens with any.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{Key, KeyInit as _, XChaCha20Poly1305, XNonce};
use rand::TryRng as _;
use rand::rngs::SysRng;

use super::secret::Secret;

/// Version of the layout.
const FORMAT: u8 = 1;
const KEY: usize = 32;
const NONCE: usize = 24;
const TAG: usize = 16;
/// Most keys in a ring: the one in use and those that values may still be sealed with.
const MAX_KEYS: usize = 32;
/// Longest id of a master key.
const MAX_KEY_ID: usize = 64;

/// Why something cannot be sealed or opened. Never contains key or content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The text is not a key ring.
    #[error("line {line}: expected `id base64` with a key of 32 bytes")]
    BadKey {
        /// Counted from one.
        line: usize,
    },
    /// A key id stands twice.
    #[error("the key id `{0}` is used twice")]
    DuplicateKey(String),
    /// The value was changed, or belongs to another row.
    #[error("the sealed value was changed, or belongs elsewhere")]
    Forged,
    /// Not something that was sealed.
    #[error("not a sealed value")]
    Malformed,
    /// The operating system gives no random bytes.
    #[error("the operating system gives no random bytes")]
    NoEntropy,
    /// No key.
    #[error("there is no master key")]
    NoKeys,
    /// More than 32 keys.
    #[error("more than {MAX_KEYS} master keys")]
    TooManyKeys,
    /// Sealed with a key that is not in the ring.
    #[error("sealed with the master key `{0}`, which is not among those configured")]
    UnknownKey(String),
}

struct MasterKey {
    id: String,
    secret: Secret<[u8; KEY]>,
}

/// The master keys of an installation. The last one seals.
pub struct MasterKeys(Vec<MasterKey>);

impl fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|k| &k.id)).finish()
    }
}

impl MasterKeys {
    /// A ring of one fresh key.
    ///
    /// # Errors
    /// [`EnvelopeError::NoEntropy`].
    pub fn generate() -> Result<Self, EnvelopeError> {
        Ok(Self(vec![fresh()?]))
    }

    /// Reads `id base64` lines; blank lines and those that start with `#` are skipped. Commas separate as lines do, so
    /// that a ring fits into an environment variable.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(text: &str) -> Result<Self, EnvelopeError> {
        let mut keys: Vec<MasterKey> = Vec::new();
        for (i, line) in text.lines().enumerate() {
            let line = if line.trim_start().starts_with('#') { "" } else { line };
            for entry in line.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
                let key = parse_key(entry).ok_or(EnvelopeError::BadKey { line: i + 1 })?;
                if keys.iter().any(|k| k.id == key.id) {
                    return Err(EnvelopeError::DuplicateKey(key.id));
                }
                keys.push(key);
            }
        }
        match keys.len() {
            0 => Err(EnvelopeError::NoKeys),
            1..=MAX_KEYS => Ok(Self(keys)),
            _ => Err(EnvelopeError::TooManyKeys),
        }
    }

    /// The text that [`MasterKeys::parse`] reads.
    pub fn print(&self) -> Secret<String> {
        let mut out = String::from("# tollgate master keys: id, key. The last one seals.\n");
        for key in &self.0 {
            out.push_str(&key.id);
            out.push(' ');
            out.push_str(&STANDARD.encode(key.secret.expose()));
            out.push('\n');
        }
        Secret::new(out)
    }

    /// The ring with a fresh key that seals from now on.
    ///
    /// # Errors
    /// [`EnvelopeError::NoEntropy`], [`EnvelopeError::TooManyKeys`].
    pub fn rotate(mut self) -> Result<Self, EnvelopeError> {
        if self.0.len() >= MAX_KEYS {
            return Err(EnvelopeError::TooManyKeys);
        }
        self.0.push(fresh()?);
        Ok(self)
    }

    /// Whether there is a key of this id.
    pub fn has(&self, id: &str) -> bool {
        self.0.iter().any(|key| key.id == id)
    }

    /// The id of the key that seals.
    pub fn sealing(&self) -> &str {
        self.0.last().map_or("", |k| &k.id)
    }

    /// Encrypts `plaintext` for the place `aad`.
    ///
    /// # Errors
    /// [`EnvelopeError::NoEntropy`].
    pub fn seal(&self, aad: &[&str], plaintext: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
        let mut data_key = [0; KEY];
        random(&mut data_key)?;
        let aad = place(aad);
        let mut out = self.wrap(&data_key, &aad)?;
        out.extend(encrypt(&data_key, &aad, plaintext)?);
        Ok(out)
    }

    /// Decrypts what was sealed for the place `aad`.
    ///
    /// # Errors
    /// Which of the ways it is wrong.
    pub fn open(&self, aad: &[&str], sealed: &[u8]) -> Result<Secret<Vec<u8>>, EnvelopeError> {
        let aad = place(aad);
        let (data_key, rest) = self.unwrap(sealed, &aad)?;
        decrypt(data_key.expose(), &aad, rest).map(Secret::new)
    }

    /// The same value with its data key wrapped by the key that seals now; `None` if it already is.
    ///
    /// # Errors
    /// Which of the ways it is wrong.
    pub fn rewrap(&self, aad: &[&str], sealed: &[u8]) -> Result<Option<Vec<u8>>, EnvelopeError> {
        if key_id(sealed)? == self.sealing() {
            return Ok(None);
        }
        let aad = place(aad);
        let (data_key, rest) = self.unwrap(sealed, &aad)?;
        let mut out = self.wrap(data_key.expose(), &aad)?;
        out.extend_from_slice(rest);
        Ok(Some(out))
    }

    fn wrap(&self, data_key: &[u8; KEY], aad: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
        let master = self.0.last().ok_or(EnvelopeError::NoKeys)?;
        let mut out = vec![FORMAT, u8::try_from(master.id.len()).map_err(|_| EnvelopeError::Malformed)?];
        out.extend_from_slice(master.id.as_bytes());
        out.extend(encrypt(master.secret.expose(), aad, data_key)?);
        Ok(out)
    }

    fn unwrap<'s>(
        &self,
        sealed: &'s [u8],
        aad: &[u8],
    ) -> Result<(Secret<[u8; KEY]>, &'s [u8]), EnvelopeError> {
        let id = key_id(sealed)?;
        let master =
            self.0.iter().find(|k| k.id == id).ok_or_else(|| EnvelopeError::UnknownKey(id.to_owned()))?;
        let (wrapped, rest) =
            sealed[2 + id.len()..].split_at_checked(NONCE + KEY + TAG).ok_or(EnvelopeError::Malformed)?;
        let key = decrypt(master.secret.expose(), aad, wrapped)?;
        let key = key.try_into().map_err(|_| EnvelopeError::Malformed)?;
        Ok((Secret::new(key), rest))
    }
}

/// The id of the master key that a value was sealed with.
///
/// # Errors
/// [`EnvelopeError::Malformed`].
pub fn key_id(sealed: &[u8]) -> Result<&str, EnvelopeError> {
    let [FORMAT, len, rest @ ..] = sealed else { return Err(EnvelopeError::Malformed) };
    let id = rest.get(..usize::from(*len)).ok_or(EnvelopeError::Malformed)?;
    std::str::from_utf8(id).map_err(|_| EnvelopeError::Malformed)
}

/// The parts of a place with their lengths, so that `("ab", "c")` and `("a", "bc")` differ.
fn place(parts: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        out.extend_from_slice(&(part.len() as u64).to_le_bytes());
        out.extend_from_slice(part.as_bytes());
    }
    out
}

fn encrypt(key: &[u8; KEY], aad: &[u8], msg: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
    let mut nonce = [0; NONCE];
    random(&mut nonce)?;
    let cipher = XChaCha20Poly1305::new(&Key::from(*key));
    let sealed = cipher
        .encrypt(&XNonce::from(nonce), Payload { msg, aad })
        .expect("inputs are far below the cipher's 256 GiB");
    Ok([&nonce[..], &sealed].concat())
}

fn decrypt(key: &[u8; KEY], aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
    let (nonce, msg) = sealed.split_first_chunk::<NONCE>().ok_or(EnvelopeError::Malformed)?;
    let cipher = XChaCha20Poly1305::new(&Key::from(*key));
    cipher.decrypt(&XNonce::from(*nonce), Payload { msg, aad }).map_err(|_| EnvelopeError::Forged)
}

fn fresh() -> Result<MasterKey, EnvelopeError> {
    let mut id = [0; 6];
    let mut secret = [0; KEY];
    random(&mut id)?;
    random(&mut secret)?;
    let id = id.iter().fold(String::from("mk-"), |text, byte| text + &format!("{byte:02x}"));
    Ok(MasterKey { id, secret: Secret::new(secret) })
}

fn parse_key(entry: &str) -> Option<MasterKey> {
    let mut words = entry.split_ascii_whitespace();
    let (id, secret) = (words.next()?, words.next()?);
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if words.next().is_some() || id.len() > MAX_KEY_ID || !id.bytes().all(plain) {
        return None;
    }
    let secret = STANDARD.decode(secret).ok()?.try_into().ok()?;
    Some(MasterKey { id: id.to_owned(), secret: Secret::new(secret) })
}

fn random(bytes: &mut [u8]) -> Result<(), EnvelopeError> {
    SysRng.try_fill_bytes(bytes).map_err(|_| EnvelopeError::NoEntropy)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: [&str; 3] = ["secrets", "acme", "token"];

    #[test]
    fn what_is_sealed_opens_in_its_place_only() {
        let keys = MasterKeys::generate().unwrap();
        let sealed = keys.seal(&PLACE, b"hunter2").unwrap();
        assert_eq!(keys.open(&PLACE, &sealed).unwrap().expose(), b"hunter2");
        assert_eq!(keys.open(&["secrets", "other", "token"], &sealed), Err(EnvelopeError::Forged));
        assert_eq!(keys.open(&["secrets", "acmet", "oken"], &sealed), Err(EnvelopeError::Forged));
        assert_ne!(sealed, keys.seal(&PLACE, b"hunter2").unwrap(), "nonces are random");
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let keys = MasterKeys::generate().unwrap();
        let sealed = keys.seal(&PLACE, b"hunter2").unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(keys.open(&PLACE, &changed).is_err(), "byte {at}");
            assert!(keys.open(&PLACE, &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn rotation_rewraps_without_touching_the_ciphertext() {
        let old = MasterKeys::generate().unwrap();
        let sealed = old.seal(&PLACE, b"hunter2").unwrap();
        let text = old.print();
        let both = MasterKeys::parse(text.expose()).unwrap().rotate().unwrap();
        let moved = both.rewrap(&PLACE, &sealed).unwrap().expect("another key seals now");
        assert_eq!(key_id(&moved).unwrap(), both.sealing());
        assert!(moved.ends_with(&sealed[sealed.len() - NONCE - TAG - 7..]));
        assert_eq!(both.rewrap(&PLACE, &moved).unwrap(), None);
        assert_eq!(both.open(&PLACE, &moved).unwrap().expose(), b"hunter2");
        let id = both.sealing().to_owned();
        assert_eq!(old.open(&PLACE, &moved), Err(EnvelopeError::UnknownKey(id)));
    }

    #[test]
    fn rings_are_read_strictly() {
        let ring = MasterKeys::generate().unwrap().rotate().unwrap();
        let printed = ring.print();
        let lines: Vec<&str> = printed.expose().lines().skip(1).collect();
        assert_eq!(MasterKeys::parse(&lines.join(",")).unwrap().sealing(), ring.sealing());
        let doubled = format!("{}\n{}", lines[0], lines[0]);
        assert!(matches!(MasterKeys::parse(&doubled), Err(EnvelopeError::DuplicateKey(_))));
        assert_eq!(MasterKeys::parse("\n# nothing\n").unwrap_err(), EnvelopeError::NoKeys);
        assert_eq!(MasterKeys::parse("a c2hvcnQ=").unwrap_err(), EnvelopeError::BadKey { line: 1 });
        assert!(!format!("{ring:?}").contains(lines[0].split(' ').nth(1).unwrap()));
    }
}
