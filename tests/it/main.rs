//! End-to-end tests: a gateway in this process, scripted servers behind it, and clients that see every byte.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod audit;
mod bodies;
mod control;
mod database;
mod examples;
mod faults;
mod framing;
mod identity;
mod layering;
mod limits;
mod policy;
mod relay;
mod reload;
mod replicas;
mod shared_limits;
mod shutdown;
mod store;
mod strangers;
mod support;
mod tenants;
mod tls;
mod whatif;
