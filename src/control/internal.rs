//! The internal listener: what replicas ask each other. Mutual TLS only; whoever has a certificate of the authority is a
//! replica, and no token is asked for.
//!
//! It shows and ends what is at home in this process: sessions and streams. Nothing here forwards: a request is one hop.
//!
//! - `GET /internal/v1/health`
//! - `GET /internal/v1/servers`: `?tenant=`; `GET /internal/v1/traffic`
//! - `GET /internal/v1/sessions`, `GET /internal/v1/streams`: `?tenant=&principal=&after=&limit=`
//! - `DELETE /internal/v1/sessions/{tenant}/{serial}`, `DELETE /internal/v1/streams/{tenant}/{id}`
//! - `POST /internal/v1/tombstones`: sessions that have ended elsewhere

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::Problem;
use super::state::ServerStatus;

/// The most entries of one page.
pub const MAX_PAGE: usize = 1_000;
/// The most tombstones of one message.
pub const MAX_TOMBSTONES: usize = 10_000;

/// What the internal listener shows. The app layer supplies it.
pub trait InternalState: Send + Sync + 'static {
    /// This process.
    fn health(&self) -> Health;
    /// Servers, of one tenant or all of them, as this process sees them.
    fn servers(&self, tenant: Option<&str>) -> Vec<ServerStatus>;
    /// What each tenant's requests here come to since the start.
    fn traffic(&self) -> Vec<TrafficView>;
    /// Sessions, ordered by serial.
    fn sessions(&self, query: &Listing) -> Vec<SessionView>;
    /// Streams, ordered by id.
    fn streams(&self, query: &Listing) -> Vec<StreamView>;
    /// Ends a session that is at home here, and its streams; `None` if it is not.
    fn close_session(&self, tenant: &str, serial: &str) -> Option<TombstoneView>;
    /// Ends a stream; `false` if it is not here.
    fn close_stream(&self, tenant: &str, id: u64) -> bool;
    /// Takes over that sessions have ended elsewhere.
    fn bury(&self, tombstones: &[TombstoneView]);
}

/// A process that answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// This process, from its start to its end.
    pub boot: String,
    /// Version of the program.
    pub version: String,
    /// Sessions at home here.
    pub sessions: usize,
    /// Long-lived streams.
    pub streams: usize,
}

/// What the requests of a tenant come to in a process since its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficView {
    /// Whose; empty for requests that no route took.
    pub tenant: String,
    /// Requests that have ended.
    pub calls: u64,
    /// Those that did not end well.
    pub errors: u64,
    /// Streams that are open now.
    pub streams: u64,
}

/// Which entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listing {
    /// Only of this tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Only of this principal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// Only after this key, as an entry has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// So many at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

impl Listing {
    /// How many to give.
    pub fn limit(&self) -> usize {
        self.limit.unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE)
    }
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionView {
    /// Which, in hexadecimal.
    pub serial: String,
    /// Whose tenant.
    pub tenant: String,
    /// On which route.
    pub route: String,
    /// Who opened it.
    pub principal: String,
    /// The revision that was agreed.
    pub version: String,
    /// When it began, in seconds since the Unix epoch.
    pub created: u64,
    /// When it was used last.
    pub last_seen: u64,
    /// Open streams of its client.
    pub streams: u32,
}

/// A stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamView {
    /// Its number in its process.
    pub id: u64,
    /// Whose tenant.
    pub tenant: String,
    /// On which route.
    pub route: String,
    /// Who listens.
    pub principal: String,
    /// Its session, if it belongs to one.
    pub session: Option<String>,
    /// Since when, in seconds since the Unix epoch.
    pub since: u64,
}

/// A session that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TombstoneView {
    /// Whose tenant.
    pub tenant: String,
    /// Which, in hexadecimal.
    pub serial: String,
    /// When it began, in seconds since the Unix epoch.
    pub issued_at: u64,
}

type Shown = State<Arc<dyn InternalState>>;

/// The routes. They must only be reachable through a listener that has verified the peer's certificate.
pub fn router(state: Arc<dyn InternalState>) -> Router {
    Router::new()
        .route("/internal/v1/health", get(|State(state): Shown| async move { Json(state.health()) }))
        .route("/internal/v1/servers", get(servers))
        .route("/internal/v1/traffic", get(|State(state): Shown| async move { Json(state.traffic()) }))
        .route("/internal/v1/sessions", get(sessions))
        .route("/internal/v1/streams", get(streams))
        .route("/internal/v1/sessions/{tenant}/{serial}", delete(close_session))
        .route("/internal/v1/streams/{tenant}/{id}", delete(close_stream))
        .route("/internal/v1/tombstones", post(bury))
        .fallback(|| async { Problem::not_found() })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .with_state(state)
}

async fn servers(State(state): Shown, Query(query): Query<Listing>) -> Json<Vec<ServerStatus>> {
    Json(state.servers(query.tenant.as_deref()))
}

async fn sessions(State(state): Shown, Query(query): Query<Listing>) -> Json<Vec<SessionView>> {
    Json(state.sessions(&query))
}

async fn streams(State(state): Shown, Query(query): Query<Listing>) -> Json<Vec<StreamView>> {
    Json(state.streams(&query))
}

async fn close_session(
    State(state): Shown,
    Path((tenant, serial)): Path<(String, String)>,
) -> Result<Json<TombstoneView>, Problem> {
    state.close_session(&tenant, &serial).map(Json).ok_or_else(Problem::not_found)
}

async fn close_stream(
    State(state): Shown,
    Path((tenant, id)): Path<(String, u64)>,
) -> Result<StatusCode, Problem> {
    match state.close_stream(&tenant, id) {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Problem::not_found()),
    }
}

async fn bury(
    State(state): Shown,
    Json(tombstones): Json<Vec<TombstoneView>>,
) -> Result<StatusCode, Problem> {
    if tombstones.len() > MAX_TOMBSTONES {
        let detail = format!("more than {MAX_TOMBSTONES} tombstones at once");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail));
    }
    state.bury(&tombstones);
    Ok(StatusCode::NO_CONTENT)
}
