//! The HTTP side: binds, announces the address, serves until told to stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::signal::unix::{SignalKind, signal};

use crate::Era;
use crate::server::{Fixture, Shared};
use crate::sessions::Sessions;

/// How long open responses may take to end once the server stops.
const DRAIN: Duration = Duration::from_secs(2);

/// What the command line decides.
pub struct Options {
    pub listen: SocketAddr,
    pub era: Era,
    pub name: String,
    pub close_streams: bool,
    pub stop_after: Option<Duration>,
}

/// Serves until SIGINT, SIGTERM or the end of `stop_after`.
pub async fn run(options: Options) -> io::Result<()> {
    let listener = tokio::net::TcpListener::bind(options.listen).await?;
    println!("listening on http://{}/mcp", listener.local_addr()?);

    let shared = Arc::new(Shared::new(options.era, options.name));
    let sessions = Arc::new(Sessions::new(options.close_streams));
    let config = StreamableHttpServerConfig::default();
    let stop = config.cancellation_token.clone();
    let factory = {
        let shared = Arc::clone(&shared);
        move || Ok(Fixture::new(Arc::clone(&shared)))
    };
    let router = Router::new().nest_service("/mcp", StreamableHttpService::new(factory, sessions, config));

    let server = axum::serve(listener, router).with_graceful_shutdown({
        let stop = stop.clone();
        async move { stop.cancelled().await }
    });
    let server = tokio::spawn(server.into_future());
    wait_for_end(options.stop_after).await?;
    stop.cancel();
    shared.tasks.shutdown();
    // A client that never reads would hold the drain open for ever.
    match tokio::time::timeout(DRAIN, server).await {
        Ok(Ok(result)) => result,
        Ok(Err(join)) => Err(io::Error::other(join)),
        Err(_) => Ok(()),
    }
}

async fn wait_for_end(stop_after: Option<Duration>) -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let timer = async {
        match stop_after {
            Some(after) => tokio::time::sleep(after).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = timer => tracing::info!("stopping by itself"),
    }
    Ok(())
}
