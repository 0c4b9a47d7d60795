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

/// Which planes a process runs (`tollgate serve --role`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Both.
    #[default]
    All,
    /// The data plane: clients are served, operators find metrics and health only.
    Data,
    /// The control plane: operators are served, and no client.
    Control,
}

impl Role {
    /// `all`, `data` or `control`.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::All => "all",
            Role::Data => "data",
            Role::Control => "control",
        }
    }

    /// Whether MCP clients are served.
    pub(super) fn has_data_plane(self) -> bool {
        self != Role::Control
    }

    /// Whether the API is served.
    pub(super) fn has_control_plane(self) -> bool {
        self != Role::Data
    }
}

/// How to start.
pub struct Options {
    /// Which planes run.
    pub role: Role,
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
            role: Role::default(),
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
