//! Tollgate: an enterprise gateway for the Model Context Protocol.
//!
//! The crate is one package with layers that point one way; `docs/architecture.md` says what each may use.

pub mod analytics;
pub mod app;
pub mod audit;
pub mod auth;
pub mod base;
pub mod canary;
pub mod cli;
pub mod config;
pub mod control;
pub mod demo;
pub mod gateway;
pub mod insight;
pub mod limit;
pub mod mcp;
pub mod policy;
pub mod route;
pub mod shared;
pub mod snapshot;
pub mod source;
pub mod store;
pub mod telemetry;
pub mod upstream;
