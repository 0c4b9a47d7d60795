//! Which route a request is for: by host and path.
//!
//! [`Table`] is built once per snapshot and read by every request, without allocation. An MCP endpoint is one path, so
//! paths match whole (a trailing slash is forgiven); among routes with the same path the most specific host wins: an
//! exact name, then a wildcard with more labels, then a route for any host. Two routes that could match the same
//! request equally well are refused when the table is built.

mod table;

pub use table::{Conflict, HostPattern, Table};
