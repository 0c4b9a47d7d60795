//! Building blocks without knowledge of the rest: ids, time, secrets, addresses, waits.

pub mod clock;
pub mod id;
pub mod secret;

pub use clock::Clock;
pub use id::{PrincipalId, RequestId, RouteId, ServerId, TargetId, TenantId};
pub use secret::Secret;
