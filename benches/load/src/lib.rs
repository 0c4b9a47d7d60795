//! Measures Tollgate and proves what it promises under load.
//!
//! One run starts everything it compares: a fast MCP server ([`fixture`]), the gateway ([`gateway`]), and a Pingora
//! proxy that does nothing but pass bytes on ([`bare`]). Each is a process of its own, so that the kernel's accounting
//! tells what each one costs; the load generator ([`drive`]) is a further one. [`mod@bench`] prints the table of figures,
//! [`prove`] holds the gateway to promises that are either kept or not.
//!
//! Figures are only comparable within one run on one machine: everything is pinned to one core, rounds are interleaved,
//! and what counts is the ratio to the bare proxy of the same run. `docs/measuring.md` says how to read them.

pub mod balancer;
pub mod bare;
pub mod bench;
pub mod client;
pub mod drive;
pub mod fixture;
pub mod gateway;
pub mod http;
pub mod identity;
pub mod process;
pub mod prove;
pub mod report;

/// What a failed measurement says.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// A measurement, or why there is none.
pub type Result<T> = std::result::Result<T, Error>;
