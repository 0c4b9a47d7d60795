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
//! - Everything under `/api/v1` asks for a credential, on loopback too, and passes the [`gate`]. Only
//!   `/api/v1/status` is open on a loopback listener without a token.

pub mod actor;
mod api;
pub mod authn;
pub mod bootstrap;
mod cors;
mod docs;
mod documents;
pub mod etag;
pub mod events;
pub mod extract;
mod failure;
pub mod fleet;
mod gate;
mod guard;
mod idempotency;
pub mod internal;
pub mod keys;
pub mod list;
pub mod openapi;
mod ops;
pub mod page;
pub mod peers;
pub mod permission;
pub mod problem;
pub mod query;
pub mod seen;
pub mod server;
mod shares;
mod size;
mod socket;
pub mod state;
mod throttle;
pub mod trail;

use std::sync::Arc;
use std::time::Duration;

use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{any, get};
use axum::{Extension, Router};

use self::actor::Proof;
use self::api::Api;
use self::authn::Authenticator;
use self::events::Hub;
use self::fleet::Fleet;
use self::trail::Ledger;
use crate::base::{Clock, Secret};
use crate::limit::Rate;
use crate::source::Publisher;
use crate::source::canary::Canaries;
use crate::store::Store;

pub use self::problem::Problem;
pub use self::server::Limits;
pub use self::socket::AdminSocket;
pub use self::state::{
    CatalogueState, ControlState, IdentityState, ListenerState, REFUSED, Readiness, RefusedState,
    ReloadState, Revision, ServerStatus, SnapshotState, Status, TargetStatus,
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
#[derive(Clone)]
pub struct ControlConfig {
    /// Who can reach it.
    pub exposure: Exposure,
    /// Host names, without port, that a loopback listener answers to besides `localhost` and loopback addresses. For
    /// a reverse proxy on the same machine.
    pub allowed_hosts: Vec<String>,
    /// Whether the API is served; without it, everything under `/api` is 404 and says why.
    pub api: bool,
    /// A bearer token for everything under `/api`.
    pub api_token: Option<Secret<String>>,
    /// Whether `/metrics` is served here.
    pub metrics: bool,
    /// The bearer token for `/metrics`. Without one, `/metrics` is open.
    pub metrics_token: Option<Secret<String>>,
    /// Origins whose pages may call the API and read its answers. None unless listed.
    pub cors_origins: Vec<String>,
    /// How often one caller may call the API.
    pub rate: Rate,
    /// Knows all other credentials.
    pub authenticator: Arc<Authenticator>,
    /// Where uses of the API are recorded.
    pub ledger: Option<Arc<dyn Ledger>>,
    /// What happens, for whoever follows it.
    pub events: Arc<Hub>,
    /// Whether somebody publishes what the store has of the audit, actions of the API included.
    pub audit_is_followed: bool,
    /// What exports of the audit are signed with; without an audit there is none.
    pub audit_key: Option<Arc<crate::store::SigningKey>>,
    /// Where everything is kept. Without it, what needs it answers 503.
    pub store: Option<Store>,
    /// Documents, if they come from a store.
    pub publisher: Option<Publisher>,
    /// Canaries of those documents.
    pub canaries: Option<Canaries>,
    /// Sessions and streams of all replicas.
    pub fleet: Option<Fleet>,
    /// The time.
    pub clock: Clock,
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
            api: true,
            api_token: None,
            metrics: true,
            metrics_token: None,
            cors_origins: Vec::new(),
            rate: default_rate(),
            authenticator: Arc::new(Authenticator::new(None, Clock::default())),
            ledger: None,
            events: Arc::new(Hub::new()),
            audit_is_followed: false,
            audit_key: None,
            store: None,
            publisher: None,
            canaries: None,
            fleet: None,
            clock: Clock::default(),
            request_timeout: Duration::from_secs(30),
            limits: Limits::default(),
        }
    }
}

/// Calls of one caller: 1200 per minute, half of them at once.
pub fn default_rate() -> Rate {
    Rate::new(1200, Duration::from_secs(60), 600).expect("neither zero nor out of range")
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
    if let Some(token) = &config.api_token {
        config.authenticator.accept(token, Proof::Listener);
    }
    let api = Api::new(&config, state.clone());
    let config = Arc::new(config);
    let metrics = if config.metrics { metrics_routes(&config) } else { Router::new() };
    let named = Router::new().route("/readyz", get(ops::readyz)).merge(metrics);
    if !config.api {
        let elsewhere = Router::new()
            .route("/api/{*rest}", any(|| async { Problem::elsewhere() }))
            .merge(named.with_state(state))
            .merge(more)
            .layer(from_fn_with_state(config.clone(), guard::host));
        return finish(elsewhere, config);
    }
    let open = Router::new()
        .route("/api/v1/status", get(ops::status))
        .route("/api/v1/config/revision", get(ops::revision))
        .layer(from_fn_with_state(config.clone(), guard::api));
    let named = named
        .merge(open)
        .with_state(state)
        .merge(openapi::build().0.layer(Extension(api.clone())).with_state(api))
        .merge(docs::router())
        .merge(more)
        .layer(from_fn_with_state(config.clone(), guard::host));
    finish(named, config)
}

/// `/metrics` and `/healthz` alone, for a listener of their own.
pub fn metrics_router(config: ControlConfig, state: Arc<dyn ControlState>) -> Router {
    let config = Arc::new(config);
    let named =
        metrics_routes(&config).with_state(state).layer(from_fn_with_state(config.clone(), guard::host));
    finish(named, config)
}

fn metrics_routes(config: &Arc<ControlConfig>) -> Router<Arc<dyn ControlState>> {
    Router::new()
        .route("/metrics", get(ops::metrics))
        .layer(from_fn_with_state(config.clone(), guard::metrics))
}

/// What every listener has around its routes.
fn finish(named: Router, config: Arc<ControlConfig>) -> Router {
    named
        .route("/healthz", get(ops::healthz))
        .fallback(|| async { Problem::not_found() })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(axum::extract::DefaultBodyLimit::max(config.limits.body))
        .layer(from_fn_with_state(config.clone(), cors::allow))
        .layer(from_fn_with_state(config, guard::bound))
        .layer(from_fn(guard::mark))
}

#[cfg(test)]
mod tests;
