//! How a process is started.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::app::handover::Inherited;
use crate::base::Clock;

/// Where the document comes from.
pub enum Document {
    /// The embedded default, with the built-in demo server behind it.
    Embedded,
    /// A file, watched.
    File(PathBuf),
    /// This text; never reloaded by itself. For tests and tools.
    Text(String),
}

/// Looks up environment variables.
pub type Environment = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// How to start.
pub struct Options {
    /// Where the document comes from.
    pub document: Document,
    /// Looks up environment variables for `${env:NAME}`.
    pub env: Environment,
    /// Instead of the addresses in the document; port 0 takes any free one.
    pub listen: Option<SocketAddr>,
    /// The same for the admin listener.
    pub admin: Option<SocketAddr>,
    /// Instead of the document's `data_dir`.
    pub data_dir: Option<PathBuf>,
    /// Sockets of a process that hands over.
    pub inherited: Option<Inherited>,
    /// Time.
    pub clock: Clock,
}

impl Options {
    /// Everything as the document says.
    pub fn new(document: Document) -> Self {
        Self {
            document,
            env: Arc::new(|_| None),
            listen: None,
            admin: None,
            data_dir: None,
            inherited: None,
            clock: Clock::default(),
        }
    }
}
