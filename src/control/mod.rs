//! The control plane's HTTP side: metrics, health, and the API for operators.
//!
//! This module knows HTTP and nothing of the gateway: everything it shows comes from a [`ControlState`] that the app
//! layer supplies. It runs on the control runtime, so nothing here can slow a client of the data plane.
//!
//! - [`serve`] answers `/metrics`, `/healthz`, `/readyz` and `/api/v1/…` on a listener; [`router`] gives the same as
//!   an axum router, with more routes beside it, and [`server::serve`] bounds any router.
//! - Every response carries `x-tollgate-request-id` and the headers that keep browsers from doing harm with it.
//! - Every error is problem details (RFC 9457), made in [`problem`] and nowhere else. What a caller reads and what the
//!   log says are different texts, joined by the request id.
//! - A loopback listener answers only to names of this machine, except on `/healthz`: a web page may resolve its own
//!   name to 127.0.0.1 and would read what it gets.
//! - Off loopback, `/api` asks for a token, and without a configured one it is closed.

mod guard;
mod ops;
pub mod problem;
pub mod server;
mod socket;
pub mod state;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;

use crate::base::Secret;

pub use self::problem::Problem;
pub use self::server::Limits;
pub use self::socket::AdminSocket;
pub use self::state::{
    CatalogueState, ControlState, ListenerState, Readiness, ReloadState, Revision, ServerStatus,
    SnapshotState, Status, TargetStatus,
};

/// Who can reach the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// Programs of this machine, and web pages in its browsers.
    Loopback,
    /// Others.
    Network,
}

impl Exposure {
    /// What binding to this address means.
    pub fn of(address: &std::net::SocketAddr) -> Self {
        if address.ip().to_canonical().is_loopback() { Exposure::Loopback } else { Exposure::Network }
    }
}

/// How the control listener answers.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// Who can reach it.
    pub exposure: Exposure,
    /// Host names, without port, that a loopback listener answers to besides `localhost` and loopback addresses. For
    /// a reverse proxy on the same machine.
    pub allowed_hosts: Vec<String>,
    /// The bearer token for `/api`. Without one, `/api` is open on loopback and closed elsewhere.
    pub api_token: Option<Secret<String>>,
    /// The bearer token for `/metrics`. Without one, `/metrics` is open.
    pub metrics_token: Option<Secret<String>>,
    /// The longest a request may take; after that it is answered with 503.
    pub request_timeout: Duration,
    /// Bounds on connections.
    pub limits: Limits,
}

impl ControlConfig {
    /// The defaults for a listener that this exposure describes.
    pub fn new(exposure: Exposure) -> Self {
        Self {
            exposure,
            allowed_hosts: Vec::new(),
            api_token: None,
            metrics_token: None,
            request_timeout: Duration::from_secs(30),
            limits: Limits::default(),
        }
    }
}

/// Serves until `shutdown` completes, then lets open requests finish for at most [`Limits::drain`].
pub async fn serve<L>(
    listener: L,
    config: ControlConfig,
    state: Arc<dyn ControlState>,
    shutdown: impl Future<Output = ()> + Send,
) where
    L: axum::serve::Listener,
    L::Addr: Clone + Send + Sync + 'static,
{
    let limits = config.limits;
    server::serve(listener, router(config, state, Router::new()), limits, shutdown).await;
}

/// The routes of [`serve`], and `more` beside them. Those get request ids, problem details, security headers and
/// bounds as well, and on loopback the check of the Host header; whom they answer is for them to decide.
pub fn router(config: ControlConfig, state: Arc<dyn ControlState>, more: Router) -> Router {
    let config = Arc::new(config);
    let api = Router::new()
        .route("/api/v1/status", get(ops::status))
        .route("/api/v1/config/revision", get(ops::revision))
        .layer(from_fn_with_state(config.clone(), guard::api));
    let metrics = Router::new()
        .route("/metrics", get(ops::metrics))
        .layer(from_fn_with_state(config.clone(), guard::metrics));
    let named = Router::new()
        .route("/readyz", get(ops::readyz))
        .merge(metrics)
        .merge(api)
        .with_state(state)
        .merge(more)
        .layer(from_fn_with_state(config.clone(), guard::host));
    named
        .route("/healthz", get(ops::healthz))
        .fallback(|| async { Problem::not_found() })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(axum::extract::DefaultBodyLimit::max(config.limits.body))
        .layer(from_fn_with_state(config, guard::bound))
        .layer(from_fn(guard::mark))
}

#[cfg(test)]
mod tests;
