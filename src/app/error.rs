//! Why a process does not start.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::app::keys::KeyFileError;
use crate::audit::{KeyError, SpoolError};
use crate::config::Diagnostics;
use crate::control::peers::PeerTlsError;
use crate::gateway::tls::TlsError;
use crate::snapshot::CompileError;
use crate::source::{BeginError, PublishError};
use crate::store::StoreError;
use crate::telemetry::{OutputError, trace};

/// Why the process cannot start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The planes cannot be apart with this configuration.
    #[error("--role {role} needs {lacks}")]
    Role {
        /// `data` or `control`.
        role: &'static str,
        /// What is missing.
        lacks: &'static str,
    },
    /// The audit cannot be written.
    #[error(transparent)]
    Audit(#[from] SpoolError),
    /// The key that signs the audit cannot be used.
    #[error(transparent)]
    AuditKey(#[from] KeyError),
    /// A certificate of a listener cannot be used.
    #[error("{listener}: {source}")]
    Certificate {
        /// Which listener.
        listener: &'static str,
        /// Why.
        source: TlsError,
    },
    /// The document passed validation, but something it names is wrong.
    #[error("the configuration does not compile:{}", bullets(.0))]
    Compile(Vec<CompileError>),
    /// The document has errors.
    #[error("{0}")]
    Document(Box<Diagnostics>),
    /// A file or folder cannot be used.
    #[error("{what} {path}: {source}")]
    File {
        /// What it is for.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The data folder is another process's.
    #[error(
        "data_dir {path}: process {process} runs on it; `tollgate upgrade` takes its place, and another gateway needs a \
         folder of its own (--data-dir)"
    )]
    Occupied {
        /// Which folder.
        path: PathBuf,
        /// Its id.
        process: String,
    },
    /// The sealing keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// The access log cannot be written.
    #[error("telemetry.access_log: {0}")]
    Log(#[from] OutputError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} (listeners.{listener}): {source}")]
    Listen {
        /// Which listener.
        listener: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The certificates that replicas prove themselves with cannot be used.
    #[error(transparent)]
    Peers(#[from] PeerTlsError),
    /// The pepper of API keys is too short to be one.
    #[error("identity.api_keys.pepper: needs at least 16 bytes")]
    Pepper,
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Threads cannot be started.
    #[error("cannot start threads: {0}")]
    Runtime(io::Error),
    /// The store cannot be used, or what it has cannot be served.
    #[error("source: {0}")]
    Begin(#[from] BeginError),
    /// The embedded default cannot be published.
    #[error("the embedded default cannot be brought into the store: {0}")]
    Seed(#[from] PublishError),
    /// Traces cannot be exported as configured.
    #[error("telemetry.otlp: {0}")]
    Trace(#[from] trace::TraceError),
}

fn bullets(errors: &[CompileError]) -> String {
    errors.iter().map(|e| format!("\n  - {e}")).collect()
}
