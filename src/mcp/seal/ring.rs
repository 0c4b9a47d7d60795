//! The keys of an installation, and what is done with them.

use std::fmt::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rand::rngs::SysRng;
use rand::{Rng as _, TryRng as _};

use super::key::Key;
use super::{FORMAT, KeyId, NONCE, OVERHEAD, PREFIX, Purpose, SealError, TAG};
use crate::base::Secret;

/// The most keys a ring holds. At one rotation a day and ids that live a month there are 32.
pub const MAX_KEYS: usize = 64;

/// How far the clocks of replicas may differ, in seconds, before an id outlives its key.
const SKEW: u64 = 300;

/// Associated data: what a token is bound to, part by part. The lengths go into it, so that `("ab", "c")` and
/// `("a", "bc")` are different.
pub type Aad<'a> = &'a [&'a [u8]];

/// Associated data up to this length is put together on the stack.
const AAD_STACK: usize = 256;

/// The operating system gives no random bytes. Nothing can be sealed safely.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no random bytes")]
pub struct NoEntropy;

/// A key file that cannot be used. Says nothing of what stands in the line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// A line that is not `kid base64 time`.
    #[error(
        "line {line}: expected `kid base64 unix-seconds` with a kid of 4 characters and a key of 32 bytes"
    )]
    BadLine {
        /// Counted from one.
        line: usize,
    },
    /// A key id stands twice.
    #[error("line {line}: the key id `{id}` is used twice")]
    DuplicateKey {
        /// Counted from one.
        line: usize,
        /// The id.
        id: KeyId,
    },
    /// No key.
    #[error("the file has no key")]
    NoKeys,
    /// More than [`MAX_KEYS`].
    #[error("the file has more than {MAX_KEYS} keys")]
    TooManyKeys,
}

/// Named 32-byte keys, oldest first. Cloning shares them.
#[derive(Clone, Debug)]
pub struct KeyRing {
    keys: Vec<Arc<Key>>,
    /// Which of them seals.
    sealing: usize,
}

impl KeyRing {
    /// A ring with one fresh key that seals from `now` (seconds since the Unix epoch) on.
    ///
    /// # Errors
    /// [`NoEntropy`].
    pub fn generate(now: u64) -> Result<Self, NoEntropy> {
        Ok(Self::from_keys(vec![Arc::new(fresh_key(now, &[])?)], now))
    }

    /// Reads a key file: one `kid base64 time` per line, where `time` is when the key begins to seal in seconds since the
    /// Unix epoch. Blank lines and lines that start with `#` are skipped.
    ///
    /// # Errors
    /// [`KeyFileError`] with the line.
    pub fn parse(text: &str, now: u64) -> Result<Self, KeyFileError> {
        let mut keys: Vec<Arc<Key>> = Vec::new();
        for (i, content) in text.lines().enumerate() {
            let content = content.trim();
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let key = parse_line(content).ok_or(KeyFileError::BadLine { line: i + 1 })?;
            if keys.iter().any(|k| k.id == key.id) {
                return Err(KeyFileError::DuplicateKey { line: i + 1, id: key.id });
            }
            if keys.len() == MAX_KEYS {
                return Err(KeyFileError::TooManyKeys);
            }
            keys.push(Arc::new(key));
        }
        if keys.is_empty() {
            return Err(KeyFileError::NoKeys);
        }
        Ok(Self::from_keys(keys, now))
    }

    /// The text that [`KeyRing::parse`] reads. Whoever has it can make any id.
    pub fn print(&self) -> Secret<String> {
        let mut out = String::from("# tollgate sealing keys: kid, key, first use (unix seconds)\n");
        for key in &self.keys {
            let secret = STANDARD.encode(key.secret.expose());
            writeln!(out, "{} {secret} {}", key.id, key.active_from).expect("writing to a string");
        }
        Secret::new(out)
    }

    /// The ring as it is at `now`: a key whose time has come seals. Call it every minute or so and swap the result in.
    #[must_use]
    pub fn at(&self, now: u64) -> Self {
        Self::from_keys(self.keys.clone(), now)
    }

    /// The ring with one more key, without those that sealed nothing which is still alive.
    ///
    /// The new key opens at once and seals after `lead` seconds; `lead` must cover the time in which every replica reads
    /// the new ring, and may be 0 if there is only one. A retired key stays for `max_age` seconds, the longest life of
    /// any id, after its successor took over. At most [`MAX_KEYS`] are kept; the oldest go first. While a new key still
    /// waits for its time no other is added, so that calling this twice is harmless.
    ///
    /// # Errors
    /// [`NoEntropy`].
    pub fn rotate(&self, now: u64, lead: u64, max_age: u64) -> Result<Self, NoEntropy> {
        let mut keys = self.keys.clone();
        if self.newest() <= now {
            keys.push(Arc::new(fresh_key(now.saturating_add(lead), &keys)?));
        }
        let mut ring = Self::from_keys(keys, now);
        let successors: Vec<u64> = ring.keys.iter().skip(1).map(|k| k.active_from).collect();
        let dead = |retired: &&u64| retired.saturating_add(max_age).saturating_add(SKEW) < now;
        let expired = successors.iter().take_while(dead).count();
        let expired = expired.max(ring.keys.len().saturating_sub(MAX_KEYS)).min(ring.sealing);
        ring.keys.drain(..expired);
        Ok(Self::from_keys(ring.keys, now))
    }

    /// When the newest key begins to seal, in seconds since the Unix epoch: what decides about the next rotation.
    pub fn newest(&self) -> u64 {
        self.keys.last().map_or(0, |k| k.active_from)
    }

    /// The ids of all keys, oldest first. Not secret.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> {
        self.keys.iter().map(|k| k.id)
    }

    /// The id of the key that seals.
    pub fn sealing(&self) -> KeyId {
        self.keys[self.sealing].id
    }

    /// The key by which a token says it was sealed. Says nothing about whether it opens.
    pub fn key_of(token: &str) -> Option<KeyId> {
        let bytes = token.as_bytes();
        if bytes.first() != Some(&FORMAT) { None } else { KeyId::parse(bytes.get(1..PREFIX)?) }
    }

    /// Seals under a random nonce: the same input gives another token each time.
    ///
    /// # Errors
    /// [`SealError::TooLong`] if the plaintext is over [`Purpose::max_plaintext`].
    pub fn seal(&self, purpose: Purpose, aad: Aad<'_>, plaintext: &[u8]) -> Result<String, SealError> {
        let mut nonce = [0; NONCE];
        rand::rng().fill_bytes(&mut nonce);
        let key = &self.keys[self.sealing];
        with_aad(key.id, purpose, aad, |aad| token(key, purpose, &nonce, aad, plaintext))
    }

    /// Seals so that the same input gives the same token, for ids that clients compare.
    ///
    /// After a rotation it gives other tokens; pass the [`KeyRing::key_of`] the token that the client presented as `like`
    /// to answer with the very same. An unknown key there is ignored.
    ///
    /// # Errors
    /// [`SealError::TooLong`] if the plaintext is over [`Purpose::max_plaintext`].
    pub fn seal_deterministic(
        &self,
        purpose: Purpose,
        aad: Aad<'_>,
        plaintext: &[u8],
        like: Option<KeyId>,
    ) -> Result<String, SealError> {
        let key = like.and_then(|id| self.find(id)).unwrap_or(&self.keys[self.sealing]);
        with_aad(key.id, purpose, aad, |aad| {
            token(key, purpose, &key.synthetic_nonce(aad, plaintext), aad, plaintext)
        })
    }

    /// Opens a token.
    ///
    /// # Errors
    /// [`SealError`]: wrong in any way.
    pub fn open(&self, purpose: Purpose, aad: Aad<'_>, token: &str) -> Result<Vec<u8>, SealError> {
        let len = token.len().min(purpose.max_token());
        let mut buf = vec![0; (len.saturating_sub(PREFIX)).div_ceil(4) * 3];
        let len = self.open_in(purpose, aad, token, &mut buf)?.len();
        buf.truncate(len);
        Ok(buf)
    }

    /// Opens a token into a buffer of the caller, without allocating. The buffer must hold three bytes for each four
    /// characters of the longest token that is to be opened; what needs more is [`SealError::TooLong`].
    ///
    /// # Errors
    /// [`SealError`]: wrong in any way.
    pub fn open_in<'b>(
        &self,
        purpose: Purpose,
        aad: Aad<'_>,
        token: &str,
        buf: &'b mut [u8],
    ) -> Result<&'b [u8], SealError> {
        if token.len() > purpose.max_token() {
            return Err(SealError::TooLong);
        }
        let id = Self::key_of(token).ok_or(SealError::Malformed)?;
        let encoded = &token.as_bytes()[PREFIX..];
        if encoded.len().div_ceil(4) * 3 > buf.len() {
            return Err(SealError::TooLong);
        }
        let key = self.find(id).ok_or(SealError::UnknownKey)?;
        let len = URL_SAFE_NO_PAD.decode_slice(encoded, buf).map_err(|_| SealError::Malformed)?;
        let (rest, nonce) = buf[..len].split_last_chunk_mut::<NONCE>().ok_or(SealError::Malformed)?;
        let (ciphertext, tag) = rest.split_last_chunk_mut::<TAG>().ok_or(SealError::Malformed)?;
        with_aad(key.id, purpose, aad, |aad| key.decrypt(purpose, nonce, aad, ciphertext, tag))?;
        Ok(ciphertext)
    }

    /// `keys` is not empty: every constructor sees to that.
    fn from_keys(mut keys: Vec<Arc<Key>>, now: u64) -> Self {
        keys.sort_by_key(|k| k.active_from);
        // If no key's time has come (a clock is wrong), the oldest is the one that every replica has.
        let sealing = keys.iter().rposition(|k| k.active_from <= now).unwrap_or(0);
        Self { keys, sealing }
    }

    fn find(&self, id: KeyId) -> Option<&Arc<Key>> {
        self.keys.iter().rev().find(|k| k.id == id)
    }
}

fn parse_line(content: &str) -> Option<Key> {
    let mut words = content.split_ascii_whitespace();
    let (id, secret, time) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() {
        return None;
    }
    let secret: [u8; 32] = STANDARD.decode(secret).ok()?.try_into().ok()?;
    Some(Key::new(KeyId::parse(id.as_bytes())?, time.parse().ok()?, secret))
}

fn fresh_key(active_from: u64, others: &[Arc<Key>]) -> Result<Key, NoEntropy> {
    let mut secret = [0; 32];
    SysRng.try_fill_bytes(&mut secret).map_err(|_| NoEntropy)?;
    loop {
        let mut id = [0; 3];
        SysRng.try_fill_bytes(&mut id).map_err(|_| NoEntropy)?;
        let id = URL_SAFE_NO_PAD.encode(id);
        let id = KeyId::parse(id.as_bytes()).expect("three bytes are four characters");
        if others.iter().all(|k| k.id != id) {
            return Ok(Key::new(id, active_from, secret));
        }
    }
}

fn token(
    key: &Key,
    purpose: Purpose,
    nonce: &[u8; NONCE],
    aad: &[u8],
    plaintext: &[u8],
) -> Result<String, SealError> {
    if plaintext.len() > purpose.max_plaintext() {
        return Err(SealError::TooLong);
    }
    let mut sealed = Vec::with_capacity(plaintext.len() + OVERHEAD);
    sealed.extend_from_slice(plaintext);
    let tag = key.encrypt(purpose, nonce, aad, &mut sealed);
    sealed.extend_from_slice(&tag);
    sealed.extend_from_slice(nonce);
    let mut token = String::with_capacity(PREFIX + sealed.len().div_ceil(3) * 4);
    token.push(char::from(FORMAT));
    token.push_str(key.id.as_str());
    URL_SAFE_NO_PAD.encode_string(&sealed, &mut token);
    Ok(token)
}

/// Puts the associated data together: what the token shows of itself, its purpose, and the parts with their lengths.
fn with_aad<T>(id: KeyId, purpose: Purpose, parts: Aad<'_>, run: impl FnOnce(&[u8]) -> T) -> T {
    let len = PREFIX + 1 + parts.iter().map(|p| 4 + p.len()).sum::<usize>();
    if len <= AAD_STACK {
        let mut stack = [0; AAD_STACK];
        let mut at = 0;
        put_aad(id, purpose, parts, |bytes| {
            stack[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        });
        run(&stack[..at])
    } else {
        let mut heap = Vec::with_capacity(len);
        put_aad(id, purpose, parts, |bytes| heap.extend_from_slice(bytes));
        run(&heap)
    }
}

fn put_aad(id: KeyId, purpose: Purpose, parts: Aad<'_>, mut put: impl FnMut(&[u8])) {
    put(&[FORMAT]);
    put(id.as_str().as_bytes());
    put(&[purpose as u8]);
    for part in parts {
        put(&(part.len() as u32).to_le_bytes());
        put(part);
    }
}
