//! What the data plane serves from: one immutable, compiled form of the configuration.
//!
//! [`compile`](compile::compile) is the only constructor. It links what is configured with the registries that outlive
//! it (servers, metrics, keys, key sets), so that a reload resets no counter, bucket, session or breaker.
//! [`SnapshotCell`] publishes: a request loads the snapshot once and keeps it to its end, so it never sees half of a
//! change. A document that does not compile changes nothing.

mod cell;
mod compile;
mod route;

use std::sync::Arc;

pub use cell::SnapshotCell;
pub use compile::{CompileError, Compiled, MAX_FILE, State, compile, policy_findings};
pub use route::{HashOn, Route};

use crate::route::Table;

/// A compiled configuration.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts compilations in this process; the one in force is in the metrics.
    pub generation: u64,
    /// The hash of the document it came from.
    pub revision: Arc<str>,
    pub(crate) table: Table<Arc<Route>>,
    pub(crate) routes: Vec<Arc<Route>>,
}

impl Snapshot {
    /// The route for a host and a path.
    pub fn find(&self, host: &str, path: &str) -> Option<&Arc<Route>> {
        self.table.find(host, path)
    }

    /// The route of a host that has only one.
    pub fn only_route(&self, host: &str) -> Option<&Arc<Route>> {
        let mut found =
            self.routes.iter().filter(|r| self.find(host, &r.path).is_some_and(|f| Arc::ptr_eq(f, r)));
        let only = found.next()?;
        found.next().is_none().then_some(only)
    }

    /// All routes, in the order of the document.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }
}
