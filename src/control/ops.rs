//! Handlers for operators and their machines.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::problem::Problem;
use super::state::{ControlState, Readiness, Revision};
use crate::telemetry::METRICS_CONTENT_TYPE;

type Shared = State<Arc<dyn ControlState>>;

/// The process runs and its control runtime answers. Says nothing about traffic: restarting cures neither a bad
/// configuration nor a dead upstream.
pub(super) async fn healthz() -> Response {
    Json(serde_json::json!({ "status": "ok" })).into_response()
}

/// Whether the process should get traffic, and everything that this depends on.
pub(super) async fn readyz(State(state): Shared) -> Response {
    #[derive(Serialize)]
    struct Body {
        status: &'static str,
        problems: Vec<String>,
        #[serde(flatten)]
        detail: Readiness,
    }
    let detail = state.readiness();
    let problems = detail.problems();
    let (code, status) = match problems.is_empty() {
        true if detail.refused.is_empty() && detail.audit_spool_full.is_none() => (StatusCode::OK, "ready"),
        // It serves what it has, and somebody should look.
        true => (StatusCode::OK, "degraded"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
    };
    (code, Json(Body { status, problems, detail })).into_response()
}

/// Gathering walks every series and reads `/proc`, so it leaves the runtime's threads alone.
pub(super) async fn metrics(State(state): Shared) -> Response {
    match tokio::task::spawn_blocking(move || state.metrics()).await {
        Ok(text) => ([(CONTENT_TYPE, METRICS_CONTENT_TYPE)], text).into_response(),
        Err(error) => Problem::internal(error).into_response(),
    }
}

pub(super) async fn status(State(state): Shared) -> Response {
    Json(state.status()).into_response()
}

pub(super) async fn revision(State(state): Shared) -> Response {
    #[derive(Serialize)]
    struct Body {
        tenants: Vec<Revision>,
    }
    Json(Body { tenants: state.revisions() }).into_response()
}
