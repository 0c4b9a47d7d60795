//! MCP servers as the gateway reaches them: targets, choice, health, connections.
//!
//! ```text
//! Upstreams ── registry by (tenant, server); outlives every snapshot
//! └── Server ── one per spec, changed in place
//!     ├── View (immutable, swapped whole) ── what a request reads
//!     │   ├── Selector ── proposes targets
//!     │   └── Member ── one address: peer, credentials, Arc<TargetStats>
//!     ├── TargetStats by address ── in flight, latency, ejection, circuit, probe session
//!     ├── pingora's Backends + HealthRegistry ── membership and active health
//!     └── tasks: resolve, check, examine
//! ```
//!
//! On the request path: [`Server::pick`] or [`Server::pinned`] gives a [`Lease`]; the caller connects to
//! [`Lease::peer`] with its own connector, reports [`Lease::first_byte`] and ends with [`Lease::finish`]. Nothing there
//! waits, allocates or takes a lock that is held for longer than a few instructions.
//!
//! Together with the gateway this is the only module that names pingora. What it takes from
//! `pingora-load-balancing` is membership, health bookkeeping and three selections; its `LoadBalancer` is not used,
//! because each of its selections clones a backend and fills a hash set.

mod balance;
mod budget;
pub mod certs;
pub mod circuit;
mod era;
mod ewma;
mod lease;
pub mod outlier;
mod peer;
mod pool;
mod probe;
mod registry;
mod resolve;
mod server;
mod spec;
mod status;
mod target;
mod tasks;

#[cfg(test)]
mod tests;

pub use crate::base::guard::{AddressGuard, RefusedAddress};
pub use budget::RetryBudget;
pub use certs::{CaBundle, CertError, ClientIdentity};
pub use circuit::CircuitState;
pub use era::{DiscoverEntry, Eras, FIRST_MODERN, LATEST_LEGACY};
pub use lease::{Lease, Outcome};
pub use peer::client_connector;
pub use pool::{NoTarget, Pick, Pinned};
pub use registry::Upstreams;
pub use resolve::{LINGER, MAX_ADDRESSES, Resolve, SystemResolver};
pub use server::{MAX_MEMBERS, Server};
pub use spec::{
    Balance, BreakerSpec, EraHint, HealthSpec, MAX_TARGETS, MAX_WEIGHT, OutlierSpec, ProbeKind, RetrySpec,
    Scheme, ServerSpec, SpecError, TargetSpec, Timeouts, TlsSpec,
};
pub use status::{NameStatus, ServerStatus, TargetStatus};
pub use target::{TargetKey, TargetRef};
