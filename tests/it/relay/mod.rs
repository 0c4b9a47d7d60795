//! What a relay owes clients and servers, in both eras (MCP 2026-07-28 and 2025-11-25).

mod affinity;
mod browsers;
mod disconnect;
mod discover;
mod errors;
mod headers;
mod metadata;
mod sessions;
mod streams;
mod validation;
