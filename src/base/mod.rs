//! Building blocks without knowledge of the rest: ids, time, secrets, addresses, waits.

pub mod clock;
pub mod envelope;
pub mod glob;
pub mod guard;
pub mod id;
pub mod mapped;
pub mod net;
pub mod principal;
pub mod role;
pub mod scope;
pub mod secret;

pub use clock::Clock;
pub use glob::Glob;
pub use id::{PrincipalId, RequestId, RouteId, ServerId, TargetId, TenantId};
pub use principal::{Principal, PrincipalKind};
pub use role::{Role, RoleSet};
pub use scope::{PLATFORM_SCOPE, Scope};
pub use secret::Secret;
