//! `requestState` and `taskId` of the modern era, wrapped so that they find their way back (MCP.md §0.7, §4).

use super::codec::{BadLayout, Reader, Writer};
use super::token::{Binding, BootId, MAX_TARGET_BYTES};
use crate::mcp::seal::{KeyId, KeyRing, Purpose, SealError};

/// The longest state of a server that is wrapped, in bytes.
pub const MAX_STATE_BYTES: usize = 64 * 1024;
/// The longest method and the longest name or URI that a state is bound to, in bytes.
pub const MAX_NAME_BYTES: usize = 8 * 1024;
/// The longest task id of a server that is wrapped, in bytes.
pub const MAX_TASK_ID_BYTES: usize = 1024;

const LAYOUT: u8 = 1;
const STATE_FIXED: usize = 1 + 8 + 4 * (1 + 4) + 1 + 16 + 16 + 32;
const TASK_FIXED: usize = 1 + 2 * 4;
const _: () = assert!(
    STATE_FIXED + MAX_TARGET_BYTES + 2 * MAX_NAME_BYTES + MAX_STATE_BYTES
        <= Purpose::RequestState.max_plaintext()
);
const _: () = assert!(TASK_FIXED + MAX_TARGET_BYTES + MAX_TASK_ID_BYTES <= Purpose::Task.max_plaintext());

/// A wrapped value is not good, or cannot be made. From a client it is answered with `-32602`, never with a bare 404, which
/// would make it fall back to the legacy era (DESIGN §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrapError {
    /// Past its expiry.
    #[error("the state has expired")]
    Expired,
    /// Written by another version of the gateway.
    #[error("the value has an unknown layout")]
    Layout,
    /// Issued for another method, name or parameters.
    #[error("the state belongs to another request")]
    OtherRequest,
    /// Does not open for this tenant, route and principal.
    #[error(transparent)]
    Sealed(#[from] SealError),
    /// What the server sent is longer than its bound. The server's fault.
    #[error("the value to wrap is too long")]
    TooLong,
}

impl WrapError {
    /// The label of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            WrapError::Expired => "expired",
            WrapError::Layout => "layout",
            WrapError::OtherRequest => "other_request",
            WrapError::Sealed(e) => e.as_str(),
            WrapError::TooLong => "too_long",
        }
    }
}

impl From<BadLayout> for WrapError {
    fn from(_: BadLayout) -> Self {
        WrapError::Layout
    }
}

/// An upstream stream that waits for the client's answer on one replica (DESIGN §5 "Four cells").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parked {
    /// The replica.
    pub home: BootId,
    /// Which parked call it is there. Taken out of its table by the first retry, so a state works once.
    pub slot: u128,
    /// A digest of the parameters that the retry must repeat.
    pub params: [u8; 32],
}

/// What a wrapped `requestState` carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestState<'a> {
    /// The target that asked for input.
    pub target: Option<&'a str>,
    /// The method of the request.
    pub method: &'a str,
    /// Its name or URI, if it has one.
    pub name: Option<&'a str>,
    /// The server's own state, to be returned to it byte by byte; `None` if it sent none.
    pub state: Option<&'a str>,
    /// Seconds since the Unix epoch.
    pub expires_at: u64,
    /// If the gateway itself holds the call.
    pub parked: Option<Parked>,
}

impl<'a> RequestState<'a> {
    /// The `requestState` for the client. The nonce is random: two equal states differ.
    ///
    /// # Errors
    /// [`WrapError::TooLong`].
    pub fn seal(&self, ring: &KeyRing, binding: Binding<'_>) -> Result<String, WrapError> {
        let len = |text: Option<&str>| text.map_or(0, str::len);
        if len(self.target) > MAX_TARGET_BYTES
            || self.method.len() > MAX_NAME_BYTES
            || len(self.name) > MAX_NAME_BYTES
            || len(self.state) > MAX_STATE_BYTES
        {
            return Err(WrapError::TooLong);
        }
        let texts = len(self.target) + self.method.len() + len(self.name) + len(self.state);
        let plaintext = Writer::with_capacity(STATE_FIXED + texts)
            .u8(LAYOUT)
            .u64(self.expires_at)
            .optional_text(self.target)
            .text(self.method)
            .optional_text(self.name)
            .optional_text(self.state);
        let plaintext = match &self.parked {
            None => plaintext.u8(0),
            Some(p) => plaintext.u8(1).u128(p.home.0).u128(p.slot).bytes(&p.params),
        };
        Ok(ring.seal(Purpose::RequestState, &binding.aad(), &plaintext.0)?)
    }

    /// Opens a `requestState` that came with a request for `method` and `name`. The content is put into `buf`.
    ///
    /// A state with [`RequestState::parked`] is bound to the parameters too: the caller compares their digest.
    ///
    /// # Errors
    /// [`WrapError`]: answer `-32602`.
    pub fn open(
        ring: &KeyRing,
        binding: Binding<'_>,
        token: &str,
        (method, name): (&str, Option<&str>),
        now: u64,
        buf: &'a mut Vec<u8>,
    ) -> Result<Self, WrapError> {
        *buf = ring.open(Purpose::RequestState, &binding.aad(), token)?;
        let state = Self::decode(buf)?;
        if state.method != method || state.name != name {
            return Err(WrapError::OtherRequest);
        }
        if state.expires_at <= now {
            return Err(WrapError::Expired);
        }
        Ok(state)
    }

    fn decode(plaintext: &'a [u8]) -> Result<Self, WrapError> {
        let mut reader = Reader(plaintext);
        if reader.u8()? != LAYOUT {
            return Err(WrapError::Layout);
        }
        let expires_at = reader.u64()?;
        let target = reader.optional_text()?;
        let method = reader.text()?;
        let name = reader.optional_text()?;
        let state = reader.optional_text()?;
        let parked = match reader.u8()? {
            0 => None,
            1 => Some(Parked { home: BootId(reader.u128()?), slot: reader.u128()?, params: reader.array()? }),
            _ => return Err(WrapError::Layout),
        };
        reader.end()?;
        Ok(Self { target, method, name, state, expires_at, parked })
    }
}

/// What a wrapped `taskId` carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskRef<'a> {
    /// The target that runs the task.
    pub target: &'a str,
    /// The server's own id.
    pub id: &'a str,
}

/// The `taskId` for the client: the same for the same task each time, because clients compare them.
///
/// `like` is the key of the id that the client presented, if the answer is to a request about that task: see
/// [`KeyRing::seal_deterministic`].
///
/// # Errors
/// [`WrapError::TooLong`].
pub fn seal_task(
    ring: &KeyRing,
    binding: Binding<'_>,
    task: TaskRef<'_>,
    like: Option<KeyId>,
) -> Result<String, WrapError> {
    if task.target.len() > MAX_TARGET_BYTES || task.id.len() > MAX_TASK_ID_BYTES {
        return Err(WrapError::TooLong);
    }
    let plaintext = Writer::with_capacity(TASK_FIXED + task.target.len() + task.id.len())
        .u8(LAYOUT)
        .text(task.target)
        .text(task.id);
    Ok(ring.seal_deterministic(Purpose::Task, &binding.aad(), &plaintext.0, like)?)
}

/// Opens a `taskId`. The content is put into `buf`.
///
/// # Errors
/// [`WrapError`]: answer `-32602`.
pub fn open_task<'b>(
    ring: &KeyRing,
    binding: Binding<'_>,
    token: &str,
    buf: &'b mut Vec<u8>,
) -> Result<TaskRef<'b>, WrapError> {
    *buf = ring.open(Purpose::Task, &binding.aad(), token)?;
    let mut reader = Reader(buf);
    if reader.u8()? != LAYOUT {
        return Err(WrapError::Layout);
    }
    let task = TaskRef { target: reader.text()?, id: reader.text()? };
    reader.end()?;
    Ok(task)
}
