//! A small MCP server to try the gateway with, without installing anything else.
//!
//! It speaks both eras over streamable HTTP on a listener that the caller binds, loopback in practice, and has a few
//! honest tools: the time, a calculator, an echo, a countdown that reports progress and can be cancelled, and an order
//! that asks the user back. Nothing it lists ever changes, so it advertises no change notifications.
//!
//! State is legacy sessions and nothing else: at most [`sessions::MAX_SESSIONS`], each forgotten after
//! [`sessions::SESSION_IDLE`] without a message. A new session at the limit ends the one that was idle longest; its
//! client gets 404, as the protocol has it, and initialises again.

mod calculator;
mod civil;
mod countdown;
mod lunch;
mod server;
mod sessions;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::base::Clock;
use server::Demo;
use sessions::BoundedSessions;

/// Where the MCP endpoint is.
pub const PATH: &str = "/mcp";

/// Largest request body, in bytes. The largest honest one is an echo.
const MAX_BODY: usize = 256 * 1024;
/// How long open responses may take to end after the shutdown began.
const DRAIN: Duration = Duration::from_secs(2);

/// Serves the demo on `listener` until `shutdown` is cancelled. The endpoint is [`PATH`].
///
/// Only requests whose `Host`, and `Origin` if there is one, name a loopback address are answered (DNS rebinding,
/// S25/basic/transports §Security Warning); the others get 403.
///
/// # Errors
///
/// If accepting fails for good. Ending because of `shutdown` is not an error, and takes at most two seconds.
pub async fn serve(listener: TcpListener, shutdown: CancellationToken) -> io::Result<()> {
    // Cancelling this one also ends sessions and open streams.
    let stop = shutdown.child_token();
    let router = router(stop.clone(), Clock::default());
    let server = axum::serve(listener, router)
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .into_future();
    tokio::pin!(server);
    tokio::select! {
        result = &mut server => return result,
        () = shutdown.cancelled() => {}
    }
    // A client that never reads would hold the drain open for ever; dropping the server closes its connections.
    tokio::time::timeout(DRAIN, server).await.unwrap_or(Ok(()))
}

fn router(stop: CancellationToken, clock: Clock) -> Router {
    let config = StreamableHttpServerConfig::default()
        .with_max_request_body_bytes(MAX_BODY)
        .with_allowed_origins(["http://localhost:*", "http://127.0.0.1:*", "http://[::1]:*"])
        .with_cancellation_token(stop);
    let sessions = Arc::new(BoundedSessions::new(sessions::MAX_SESSIONS));
    Router::new().nest_service(
        PATH,
        StreamableHttpService::new(move || Ok(Demo { clock: clock.clone() }), sessions, config),
    )
}
