//! Limits: how much of something a caller may do in a time.
//!
//! A [`Limit`] is an immutable, compiled definition: a name, the parts of a request that make up its key, a [`Rate`]
//! (or one per role) and what each request costs. The state, one number per key, lives in [`Buckets`], which belongs
//! to the process and outlives every snapshot, so a reload resets nothing. [`Buckets::check`] asks all limits that
//! apply to a request and takes from all of them or from none.
//!
//! Buckets are exact (GCRA): in any stretch of time `t` a key is granted at most `rate × t + burst`, under any
//! concurrency, and a refusal takes nothing. A hierarchy (tenant, role, user, server, tool) is several limits.
//!
//! What must never be refused, because refusing would make a client fall back to an older protocol or leak
//! resources, is listed by [`is_exempt`]; the caller asks that before [`Buckets::check`].
//!
//! A limit may count on a server that all replicas ask ([`Backend::Shared`]). Then tokens are leased ahead and spent
//! here, as exactly as above (`lease.rs` says why), and [`Decision::Starved`] names the trips that must be made first;
//! [`Buckets::check`] is then asked again.
//!
//! [`Permits`] is the other kind of limit: how many of something may be open at the same time.
//!
//! No I/O and no clock of its own: the caller passes monotonic nanoseconds. Failure is always a refusal with a time to
//! wait; there is no state in which a limit cannot answer.

mod bucket;
mod concurrency;
mod definition;
mod exempt;
mod headers;
mod lease;
mod leases;
mod mixed;
mod rate;
mod registry;

pub use concurrency::{Exhausted, Permit, Permits};
pub use definition::{
    Backend, CostSpec, KeyPart, Limit, LimitError, LimitSpec, MAX_LIMITS, Outage, Rates, address_prefix,
};
pub use exempt::{Incoming, is_exempt};
pub use headers::{Quota, Refusal};
pub use lease::{Ask, Grant};
pub use leases::{Errand, FAILED_FOR, SharedKey, Starved};
pub use rate::{Rate, RateError, default_per_role};
pub use registry::{BUCKET_BYTES, Buckets, DEFAULT_MAX_BUCKETS, Decision, Facts};

#[cfg(test)]
mod tests;
