//! The demo server behind the embedded default.

use std::net::{SocketAddr, TcpListener};

use crate::app::StartError;
use crate::app::options::Document;
use crate::app::parts::{bind, listen_async};
use crate::app::runtimes::Runtimes;

/// A socket for the demo server, if the document is the one that has it.
pub(super) fn socket(document: &Document) -> Result<Option<TcpListener>, StartError> {
    match document {
        Document::Embedded => bind("demo", SocketAddr::from(([127, 0, 0, 1], 0))).map(Some),
        Document::File(_) | Document::Text(_) => Ok(None),
    }
}

/// Serves it until background work ends.
pub(super) fn spawn(runtimes: &Runtimes, socket: TcpListener) {
    let stop = runtimes.background.clone();
    runtimes.control.spawn(async move {
        let served = match listen_async(socket) {
            Ok(socket) => crate::demo::serve(socket, stop).await,
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            tracing::error!(event = "demo_failed", %error);
        }
    });
}
