//! `/api/docs/`: the description of the API as a page that can be tried out. Everything it needs is in the binary.
//!
//! The page says nothing about the installation, so it asks for no credential; what it calls does.

use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use utoipa_swagger_ui::Config;

use super::openapi;
use super::problem::Problem;

/// Where the page is.
pub const PAGE: &str = "/api/docs/";

/// Scripts, images and calls of this origin only. The page sets styles of its own elements, and its icons are `data:`.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// The routes of the page.
pub(super) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/api/docs", get(async || Redirect::permanent(PAGE)))
        .route("/api/docs/", get(async || file("index.html")))
        .route("/api/docs/openapi.json", get(description))
        .route("/api/docs/{file}", get(async |Path(name): Path<String>| file(&name)))
}

async fn description() -> Response {
    ([(CONTENT_TYPE, "application/json")], openapi::text().clone()).into_response()
}

fn file(name: &str) -> Response {
    let config = Config::new(["openapi.json"])
        .try_it_out_enabled(true)
        .filter(true)
        .display_request_duration(true)
        .validator_url("none");
    match utoipa_swagger_ui::serve(name, Arc::new(config)) {
        Ok(Some(file)) => {
            let mut response = (StatusCode::OK, file.bytes.into_owned()).into_response();
            let headers = response.headers_mut();
            if let Ok(kind) = HeaderValue::try_from(file.content_type) {
                headers.insert(CONTENT_TYPE, kind);
            }
            headers.insert(CONTENT_SECURITY_POLICY, POLICY);
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            response
        }
        Ok(None) => Problem::not_found().into_response(),
        Err(error) => Problem::internal(error).into_response(),
    }
}
