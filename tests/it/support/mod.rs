//! Builders for end-to-end tests: a gateway in this process, scripted MCP servers, and a client that sees every byte.
//!
//! Everything listens on port 0 of 127.0.0.1 and ends with the value that stands for it. Nothing waits longer than
//! [`PATIENCE`]; what does not come by then fails the test with the name of what was waited for.

mod balancer;
mod gateway;
mod http;
mod issuer;
mod mcp;
pub mod postgres;
mod tls;
mod upstream;
mod valkey;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use balancer::Balancer;
pub use gateway::{Builder, Gateway};
pub use http::{Client, Head, Piece, Request, Response};
pub use issuer::Issuer;
pub use mcp::{Caller, LEGACY, MODERN, Session, modern_body};
pub use tls::{Authority, Leaf, dial_tls};
pub use upstream::{Call, Era, Reply, Upstream};
pub use valkey::Valkey;

/// Longest wait for anything. Generous, because the machine may be busy; what is claimed to be fast is measured.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// What is done "at once": slower than on an idle machine, far faster than any timer in the product.
pub const AT_ONCE: Duration = Duration::from_millis(1500);

/// Waits for `work`, at most [`PATIENCE`].
pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

/// Asks again and again until the answer is `Some`.
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    })
    .await
}

/// A folder that goes with its value.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder can be made"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file so that a reader sees the old content or the new one.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        let temporary = self.0.path().join(format!(".{name}.tmp"));
        std::fs::write(&temporary, content).expect("a file can be written");
        std::fs::rename(&temporary, &path).expect("a file can be renamed");
        path
    }
}
