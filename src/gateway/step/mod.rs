//! Decisions of the request path, one per file: from what is known of a request to what becomes of it.

pub(crate) mod admit;
pub(crate) mod affinity;
pub(crate) mod client;
pub(crate) mod opened;
pub(crate) mod permit;
pub(crate) mod select;
