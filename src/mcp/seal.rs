//! Opaque ids that only this gateway can make and read (DESIGN §5 "Sealed ids").
//!
//! Session ids, wrapped `requestState`, `taskId` and cursors go to clients, and come back from whoever got hold of them.
//! Each is an AEAD token (XChaCha20-Poly1305) under a key from a [`KeyRing`]: it hides what it carries, cannot be made or
//! changed outside, and opens only for the [`Purpose`] and the associated data (tenant, route, principal) it was sealed
//! with.
//!
//! **Token.** `1` (format), the key's four characters, then URL-safe Base64 without padding of ciphertext, tag and nonce:
//! letters, digits, `-` and `_` only, so it fits a header, a URL and a JSON string.
//!
//! **Keys.** A ring is an immutable value; its owner keeps it in one place and swaps it. The newest key whose time has come
//! seals, all open. [`KeyRing::rotate`] adds a key that becomes active only after `lead`, when every replica has it, and
//! forgets keys once no id sealed by them can be alive. Each purpose has its own cipher key, derived from the ring's; the
//! nonces of [`KeyRing::seal_deterministic`] come from one more.
//!
//! **Failure.** [`SealError`] does not say whether the tenant, the route, the principal or the bytes were wrong: nobody
//! learns more than that the token does not open here.

mod key;
mod ring;
#[cfg(test)]
mod tests;

pub use self::key::KeyId;
pub use self::ring::{Aad, KeyFileError, KeyRing, MAX_KEYS, NoEntropy};

/// What a token is for. Tokens of one purpose do not open for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Purpose {
    /// The position in a merged list.
    Cursor = 0,
    /// A wrapped `requestState`.
    RequestState = 1,
    /// A legacy session id.
    Session = 2,
    /// A wrapped `taskId`.
    Task = 3,
}

impl Purpose {
    const ALL: [Purpose; 4] = [Purpose::Cursor, Purpose::RequestState, Purpose::Session, Purpose::Task];

    /// The longest token of the purpose, in bytes; longer ones are refused unread.
    pub const fn max_token(self) -> usize {
        match self {
            // It travels in a header of every request.
            Purpose::Session => 1536,
            Purpose::Task => 4 * 1024,
            Purpose::Cursor => 16 * 1024,
            // It carries the server's own state, which some servers make large.
            Purpose::RequestState => 128 * 1024,
        }
    }

    /// The longest plaintext whose token is within [`Purpose::max_token`], in bytes.
    pub const fn max_plaintext(self) -> usize {
        (self.max_token() - PREFIX) / 4 * 3 - OVERHEAD
    }

    fn label(self) -> &'static [u8] {
        match self {
            Purpose::Cursor => b"tollgate seal v1 cursor",
            Purpose::RequestState => b"tollgate seal v1 request state",
            Purpose::Session => b"tollgate seal v1 session",
            Purpose::Task => b"tollgate seal v1 task",
        }
    }
}

/// Why a token was not made or not opened. For the client all of them are "no such id".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The token was changed, or belongs to another tenant, route, principal or purpose.
    #[error("the token does not open here")]
    Forged,
    /// Not a token at all.
    #[error("not a sealed token")]
    Malformed,
    /// Longer than its purpose allows.
    #[error("the token is too long")]
    TooLong,
    /// Sealed by a key that the ring does not have: retired, or of another installation.
    #[error("the token was sealed by an unknown key")]
    UnknownKey,
}

impl SealError {
    /// The label of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            SealError::Forged => "forged",
            SealError::Malformed => "malformed",
            SealError::TooLong => "too_long",
            SealError::UnknownKey => "unknown_key",
        }
    }
}

/// The first character of a token: the format.
const FORMAT: u8 = b'1';
/// Characters before the Base64: format and key id.
const PREFIX: usize = 1 + KeyId::LEN;
const TAG: usize = 16;
const NONCE: usize = 24;
/// Bytes that a token has more than its plaintext, before Base64.
const OVERHEAD: usize = TAG + NONCE;
