//! The one place where the control plane turns an error into a response: problem details (RFC 9457).

use std::borrow::Cow;
use std::sync::Arc;

use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde::Serialize;

/// The media type of RFC 9457 §3.
const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");

/// An error response. `detail` is for the caller; [`Problem::because`] adds what only the log may say.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    headers: HeaderMap,
    internal: Option<String>,
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
}

impl Problem {
    /// A problem with a stable code that programs can compare, and a text for people. The status must be an error.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        debug_assert!(status.is_client_error() || status.is_server_error(), "{status} is no error");
        Self { status, code, detail: detail.into(), headers: HeaderMap::new(), internal: None }
    }

    /// 400.
    pub fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", detail)
    }

    /// 401 with a bearer challenge (RFC 6750 §3).
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "a valid bearer token is required")
            .with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"tollgate\""))
    }

    /// 403.
    pub fn forbidden(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// 404.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this address")
    }

    /// 405. axum adds `Allow`.
    pub fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "this address does not take this method",
        )
    }

    /// 413.
    pub fn too_large(limit: usize) -> Self {
        let detail = format!("the body may have at most {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    /// 421: the Host header names another machine.
    pub fn misdirected() -> Self {
        let detail = "this listener answers only to names of this machine; see `allowed_hosts`";
        Self::new(StatusCode::MISDIRECTED_REQUEST, "misdirected", detail)
    }

    /// 503 for a request that took too long.
    pub fn timeout() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", "the request took too long")
    }

    /// 500. The cause goes to the log only.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the server failed; its log has the request id",
        )
        .because(cause)
    }

    /// Adds what only the log may say.
    pub fn because(mut self, cause: impl std::fmt::Display) -> Self {
        self.internal = Some(cause.to_string());
        self
    }

    /// Adds a header.
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// The response to the request with this id. Says in the log what the caller may not read.
    pub(super) fn respond(self, request_id: &str) -> Response {
        if let Some(cause) = &self.internal {
            tracing::warn!(
                event = "control_request_failed",
                request_id,
                status = self.status.as_u16(),
                code = self.code,
                cause,
                "a control request failed"
            );
        }
        self.render(Some(request_id))
    }

    fn render(&self, request_id: Option<&str>) -> Response {
        let body = Body {
            kind: format!("urn:tollgate:problem:{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code,
            instance: request_id.map(|id| format!("urn:uuid:{id}")),
        };
        let body = serde_json::to_vec(&body).expect("strings and a number always serialize");
        let mut response = (self.status, self.headers.clone(), body).into_response();
        response.headers_mut().insert(CONTENT_TYPE, MEDIA_TYPE);
        response
    }
}

/// A whole response, which the outermost layer replaces by one with the request id.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.render(None);
        response.extensions_mut().insert(Pending(Arc::new(Mutex::new(Some(self)))));
        response
    }
}

/// A problem on its way through the layers. Extensions must be `Clone`; the content is taken once.
#[derive(Clone)]
pub(super) struct Pending(Arc<Mutex<Option<Problem>>>);

impl Pending {
    pub(super) fn take(&self) -> Option<Problem> {
        self.0.lock().take()
    }
}
