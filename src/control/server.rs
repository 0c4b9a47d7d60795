//! Accepts connections for a router, within bounds.
//!
//! `axum::serve` sets no deadline for a request's head and no cap on connections, so this module drives hyper by
//! itself. Any [`Listener`] will do; one with TLS must bound its handshake.
//!
//! - At most [`Limits::connections`] connections are open; further ones wait in the kernel's queue. A client that
//!   holds a connection and says nothing loses it after [`Limits::header_timeout`], which is therefore also the
//!   longest time for which a full house stays full.
//! - On shutdown, idle connections close at once and open requests may finish for [`Limits::drain`].

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

/// Bounds on the control listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open connections.
    pub connections: usize,
    /// The head of a request must arrive in this time, counted from the end of the one before it.
    pub header_timeout: Duration,
    /// Bytes of a request's head, at least 8192.
    pub header_bytes: usize,
    /// Headers of a request.
    pub headers: usize,
    /// Bytes of a request's body.
    pub body: usize,
    /// How long open requests may take after shutdown began.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            header_timeout: Duration::from_secs(15),
            header_bytes: 32 * 1024,
            headers: 64,
            body: 1024 * 1024,
            drain: Duration::from_secs(5),
        }
    }
}

/// hyper refuses smaller buffers.
const MIN_HEADER_BYTES: usize = 8192;

/// Serves a router until `shutdown` completes. Handlers can take `ConnectInfo<L::Addr>`. Dropping the future cuts all
/// connections off.
pub async fn serve<L>(
    mut listener: L,
    router: Router,
    limits: Limits,
    shutdown: impl Future<Output = ()> + Send,
) where
    L: Listener,
    L::Addr: Clone + Send + Sync + 'static,
{
    let permits = Arc::new(Semaphore::new(limits.connections.max(1)));
    let (finish, cut) = (CancellationToken::new(), CancellationToken::new());
    let _cut_on_drop = cut.clone().drop_guard();
    let connections = TaskTracker::new();
    let mut shutdown = pin!(shutdown);
    loop {
        // Only the shutdown may interrupt this: a listener with TLS may be in the middle of a handshake.
        let accept = async {
            let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
            (permit, listener.accept().await)
        };
        let (permit, (io, address)) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = accept => accepted,
        };
        let connection = connection::<L>(io, address, router.clone(), limits, finish.clone());
        let cut = cut.clone();
        connections.spawn(async move {
            cut.run_until_cancelled(connection).await;
            drop(permit);
        });
    }
    drop(listener);
    finish.cancel();
    connections.close();
    if tokio::time::timeout(limits.drain, connections.wait()).await.is_err() {
        tracing::warn!(
            event = "control_drain_timeout",
            connections = connections.len(),
            "control requests were cut off at shutdown"
        );
    }
}

async fn connection<L>(io: L::Io, address: L::Addr, router: Router, limits: Limits, finish: CancellationToken)
where
    L: Listener,
    L::Addr: Clone + Send + Sync + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let (router, address) = (router.clone(), address.clone());
        async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(address));
            let response: Result<_, Infallible> = router.oneshot(request).await;
            response
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(limits.headers)
        .max_buf_size(limits.header_bytes.max(MIN_HEADER_BYTES))
        .serve_connection(TokioIo::new(io), service);
    let mut connection = pin!(connection);
    // An error here is the client's: a broken head, a timeout, a reset. hyper has answered what can be answered.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = finish.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}
