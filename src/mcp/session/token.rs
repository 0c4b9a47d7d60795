//! What a legacy session id carries, and to whom it is bound.

use std::fmt;

use rand::Rng as _;
use sha2::{Digest as _, Sha256};

use super::codec::{BadLayout, Reader, Writer};
use crate::base::{PrincipalId, RouteId, TenantId};
use crate::mcp::seal::{KeyRing, Purpose, SealError};
use crate::mcp::version::Version;

/// The longest target id that a session id carries, in bytes.
pub const MAX_TARGET_BYTES: usize = 512;
/// The longest upstream session id that a session id carries, in bytes. The specification names no bound; SDKs use UUIDs.
pub const MAX_UPSTREAM_ID_BYTES: usize = 512;

/// How far in the future an issue time may lie, in seconds: replicas' clocks differ.
const SKEW: u64 = 300;
/// The version of the layout, first byte of the plaintext.
const LAYOUT: u8 = 1;
/// Layout, revision, issue time, home, serial, two lengths.
const FIXED: usize = 1 + 1 + 8 + 16 + 16 + 4 + 4;
const _: () = assert!(FIXED + MAX_TARGET_BYTES + MAX_UPSTREAM_ID_BYTES <= Purpose::Session.max_plaintext());

/// One run of one replica. A replica that starts again is another one, because its memory is gone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BootId(pub u128);

impl BootId {
    /// A new one, random.
    pub fn fresh() -> Self {
        Self(random())
    }
}

/// Which session it is: random, unique over tenants and replicas. Knowing it does not help to make an id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serial(pub u128);

impl Serial {
    /// A new one, random.
    pub fn fresh() -> Self {
        Self(random())
    }
}

fn random() -> u128 {
    let mut bytes = [0; 16];
    rand::rng().fill_bytes(&mut bytes);
    u128::from_le_bytes(bytes)
}

macro_rules! hex {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                u128::from_str_radix(text, 16).map(Self)
            }
        }
    )*};
}

hex!(BootId, Serial);

/// Whose an id is. It opens for nobody else.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    /// The tenant of the route.
    pub tenant: &'a TenantId,
    /// The route it was issued on.
    pub route: &'a RouteId,
    /// The stable id of the caller, never a token's or a key's.
    pub principal: &'a PrincipalId,
}

impl<'a> Binding<'a> {
    pub(super) fn aad(&self) -> [&'a [u8]; 3] {
        [self.tenant.as_str().as_bytes(), self.route.as_str().as_bytes(), self.principal.as_str().as_bytes()]
    }
}

/// What a session id carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionToken<'a> {
    /// The target that has the upstream session; `None` if the gateway itself owns the session.
    pub target: Option<&'a str>,
    /// The upstream's session id; `None` if the upstream gave none.
    pub upstream: Option<&'a str>,
    /// The revision that `initialize` agreed on.
    pub version: Version,
    /// Seconds since the Unix epoch.
    pub issued_at: u64,
    /// The replica that has the session's record.
    pub home: BootId,
    /// Which session it is.
    pub serial: Serial,
}

/// A session id cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// The target's id is over [`MAX_TARGET_BYTES`]. A fault of the configuration.
    #[error("the target id is longer than {MAX_TARGET_BYTES} bytes")]
    Target,
    /// The upstream's session id is over [`MAX_UPSTREAM_ID_BYTES`], empty or not visible ASCII. The server's fault.
    #[error(
        "the upstream session id is empty, not visible ASCII, or longer than {MAX_UPSTREAM_ID_BYTES} bytes"
    )]
    Upstream,
}

/// A session id is not good. Always answered with 404, whatever it is; the client opens a new session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// Older than the maximum age.
    #[error("the session id has expired")]
    Expired,
    /// Issued in the future: a clock is wrong.
    #[error("the session id is from the future")]
    FromFuture,
    /// Written by another version of the gateway.
    #[error("the session id has an unknown layout")]
    Layout,
    /// Does not open for this tenant, route and principal.
    #[error(transparent)]
    Sealed(#[from] SealError),
}

impl SessionError {
    /// The label of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            SessionError::Expired => "expired",
            SessionError::FromFuture => "from_future",
            SessionError::Layout => "layout",
            SessionError::Sealed(e) => e.as_str(),
        }
    }
}

impl From<BadLayout> for SessionError {
    fn from(_: BadLayout) -> Self {
        SessionError::Layout
    }
}

/// Room for the content of one session id, on the stack.
#[derive(Debug)]
pub struct TokenBuf([u8; TokenBuf::LEN]);

impl TokenBuf {
    const LEN: usize = Purpose::Session.max_token() / 4 * 3;
}

impl Default for TokenBuf {
    fn default() -> Self {
        Self([0; TokenBuf::LEN])
    }
}

impl<'a> SessionToken<'a> {
    /// The session id for the client: visible ASCII, at most [`Purpose::max_token`] bytes.
    ///
    /// # Errors
    /// [`MintError`] if something in it is too long.
    pub fn mint(&self, ring: &KeyRing, binding: Binding<'_>) -> Result<String, MintError> {
        let (target, upstream) = (self.target.unwrap_or_default(), self.upstream.unwrap_or_default());
        if target.len() > MAX_TARGET_BYTES || self.target.is_some_and(str::is_empty) {
            return Err(MintError::Target);
        }
        let visible =
            self.upstream.is_none_or(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_graphic()));
        if upstream.len() > MAX_UPSTREAM_ID_BYTES || !visible {
            return Err(MintError::Upstream);
        }
        let plaintext = Writer::with_capacity(FIXED + target.len() + upstream.len())
            .u8(LAYOUT)
            .u8(self.version.code())
            .u64(self.issued_at)
            .u128(self.home.0)
            .u128(self.serial.0)
            .text(target)
            .text(upstream);
        let sealed = ring.seal(Purpose::Session, &binding.aad(), &plaintext.0);
        Ok(sealed.expect("the lengths were checked against the purpose's bound"))
    }

    /// Opens a session id that was issued at most `max_age` seconds before `now`. Does not allocate.
    ///
    /// # Errors
    /// [`SessionError`]: answer 404.
    pub fn open(
        ring: &KeyRing,
        binding: Binding<'_>,
        id: &str,
        now: u64,
        max_age: u64,
        buf: &'a mut TokenBuf,
    ) -> Result<Self, SessionError> {
        let token = Self::decode(ring.open_in(Purpose::Session, &binding.aad(), id, &mut buf.0)?)?;
        if token.issued_at > now.saturating_add(SKEW) {
            return Err(SessionError::FromFuture);
        }
        if now.saturating_sub(token.issued_at) > max_age {
            return Err(SessionError::Expired);
        }
        Ok(token)
    }

    fn decode(plaintext: &'a [u8]) -> Result<Self, SessionError> {
        let mut reader = Reader(plaintext);
        if reader.u8()? != LAYOUT {
            return Err(SessionError::Layout);
        }
        let version = Version::from_code(reader.u8()?).ok_or(SessionError::Layout)?;
        let issued_at = reader.u64()?;
        let (home, serial) = (BootId(reader.u128()?), Serial(reader.u128()?));
        let some = |text: &'a str| Some(text).filter(|t| !t.is_empty());
        let (target, upstream) = (some(reader.text()?), some(reader.text()?));
        reader.end()?;
        Ok(Self { target, upstream, version, issued_at, home, serial })
    }
}

/// A short name for a session id in logs: eight bytes of its SHA-256. The id itself is a credential and never logged.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogHash([u8; 8]);

impl LogHash {
    /// The name of an id, ours or an upstream's, valid or not.
    pub fn of(id: &str) -> Self {
        let digest: [u8; 32] = Sha256::digest(id).into();
        let mut short = [0; 8];
        short.copy_from_slice(&digest[..8]);
        Self(short)
    }
}

impl fmt::Display for LogHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for LogHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
