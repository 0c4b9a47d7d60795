//! Legacy sessions and what else has to find its way back to one server (DESIGN §5).
//!
//! A session's id is a sealed [`SessionToken`]: it carries target, upstream id and revision, so any replica serves a
//! relayed session without looking anything up. What can change during a session (upstream ids after recovery,
//! subscriptions, log level, requests the server waits for answers to) is in a [`Record`] of its home replica's
//! [`Sessions`]. [`RequestState`] and [`TaskRef`] are the modern counterparts of the token.
//!
//! **State.** [`Sessions`] is the only state. A record that is missing although its token opens (after a restart, after the
//! memory was reclaimed) is made again from the token; one that was closed leaves a tombstone until the id's maximum age,
//! so that a deleted session does not come back.
//!
//! **Failure.** Whatever is wrong with a session id, the client gets a 404 and opens a new session; whatever is wrong with
//! a `requestState` or `taskId`, it gets `-32602`. The errors here keep the reason for metrics and logs only.

mod codec;
mod level;
mod limits;
mod record;
mod registry;
mod state;
mod streams;
mod tenant;
#[cfg(test)]
mod tests;
mod token;
mod wrap;

pub use self::level::LogLevel;
pub use self::limits::{Counts, Limits, Swept, TenantCounts, Tombstone, TouchError};
pub use self::record::{Record, StreamGuard, StreamRefused};
pub use self::registry::Sessions;
pub use self::state::{
    MAX_PENDING, MAX_PENDING_BYTES, MAX_SUBSCRIPTION_BYTES, MAX_SUBSCRIPTIONS, MAX_UPSTREAMS, PendingReply,
    StateError, Upstream,
};
pub use self::streams::{Listed, OpenStream, StreamInfo, Streams};
pub use self::token::{
    Binding, BootId, LogHash, MAX_TARGET_BYTES, MAX_UPSTREAM_ID_BYTES, MintError, Serial, SessionError,
    SessionToken, TokenBuf,
};
pub use self::wrap::{
    MAX_NAME_BYTES, MAX_STATE_BYTES, MAX_TASK_ID_BYTES, Parked, RequestState, TaskRef, WrapError, open_task,
    seal_task,
};
