//! The one place where the control plane turns an error into a response: problem details (RFC 9457).

use std::borrow::Cow;
use std::sync::Arc;

use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde::Serialize;
use utoipa::ToSchema;

use crate::base::TenantId;

/// The media type of RFC 9457 §3.
const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");

/// An error response. `detail` is for the caller; [`Problem::because`] adds what only the log may say.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    current: Option<Box<str>>,
    headers: Box<HeaderMap>,
    internal: Option<String>,
}

/// One thing that is wrong with a request, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Where in the body, as a JSON pointer (RFC 6901): `/roles/0`; `?name` for a parameter of the query.
    pub pointer: String,
    /// Line in a document, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Column in a document, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// What is wrong.
    pub detail: String,
    /// What would have been right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// A change that would help.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl FieldError {
    /// What is wrong at a place.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into(), ..Self::default() }
    }

    /// Adds what would have been right.
    pub fn expecting(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }
}

/// Problem details (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Body<'a> {
    /// `urn:tollgate:problem:` and the code.
    #[serde(rename = "type")]
    kind: String,
    /// The reason phrase of the status.
    title: &'a str,
    /// The status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What went wrong with this request, for people.
    detail: &'a str,
    /// Stable, for programs.
    code: &'a str,
    /// `urn:uuid:` and the request id, which the log has as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    /// Of a 412: the ETag of what there is now. Absent if there is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    current_etag: Option<&'a str>,
    /// What is wrong, one by one.
    #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
    errors: &'a [FieldError],
}

/// Where pointers into a whole document begin.
const SECTIONS: [&str; 6] = ["/identity", "/limits", "/policies", "/routes", "/servers", "/tenants"];

/// Most entries of `errors` that an answer has.
const MAX_ERRORS: usize = 100;

impl Problem {
    /// A problem with a stable code that programs can compare, and a text for people. The status must be an error.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        debug_assert!(status.is_client_error() || status.is_server_error(), "{status} is no error");
        Self {
            status,
            code,
            detail: detail.into(),
            errors: Vec::new(),
            current: None,
            headers: Box::default(),
            internal: None,
        }
    }

    /// 400.
    pub fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", detail)
    }

    /// 400 about one parameter of the query.
    pub fn parameter(name: &str, error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_parameter", "a parameter is not as it must be")
            .with_errors([FieldError::new(format!("?{name}"), error)])
    }

    /// 422 about what a well-formed body says.
    pub fn invalid(errors: impl IntoIterator<Item = FieldError>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "the body is not as it must be")
            .with_errors(errors)
    }

    /// 409.
    pub fn conflict(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 412: the resource is not what the caller last saw.
    pub fn precondition_failed(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", detail)
    }

    /// Says what the ETag is now.
    pub(super) fn currently(mut self, etag: impl Into<String>) -> Self {
        self.current = Some(etag.into().into_boxed_str());
        self
    }

    /// 428: the caller must say which state they saw last.
    pub fn precondition_required() -> Self {
        Self::new(
            StatusCode::PRECONDITION_REQUIRED,
            "precondition_required",
            "send the ETag that you last read as `If-Match`, or `If-None-Match: *` to create what is not there yet",
        )
    }

    /// 429 with the seconds to wait.
    pub fn too_many(detail: impl Into<Cow<'static, str>>, retry_after: u64) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", detail)
            .with_header(RETRY_AFTER, HeaderValue::from(retry_after.max(1)))
    }

    /// 503 for what is not there at the moment or in this configuration.
    pub fn unavailable(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail)
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

    /// 404: nothing is made in a tenant that is not there.
    pub fn no_tenant(tenant: &TenantId) -> Self {
        let detail = format!("there is no tenant `{tenant}`: add it with PUT /api/v1/tenants/{tenant}");
        Self::new(StatusCode::NOT_FOUND, "no_tenant", detail)
    }

    /// 404 for the API of a process without a control plane.
    pub fn elsewhere() -> Self {
        let detail = "this process serves no API (--role data): ask one that runs --role control or all";
        Self::new(StatusCode::NOT_FOUND, "no_api_here", detail)
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

    /// Adds what is wrong, one by one. What exceeds the bound is left out.
    pub fn with_errors(mut self, errors: impl IntoIterator<Item = FieldError>) -> Self {
        let room = MAX_ERRORS.saturating_sub(self.errors.len());
        self.errors.extend(errors.into_iter().take(room));
        self
    }

    /// Puts these in place of what was wrong so far.
    pub(super) fn replacing_errors(mut self, errors: impl IntoIterator<Item = FieldError>) -> Self {
        self.errors.clear();
        self.with_errors(errors)
    }

    /// Puts pointers below a place.
    pub(super) fn below(mut self, place: &str) -> Self {
        self.errors.iter_mut().for_each(|error| error.pointer.insert_str(0, place));
        self
    }

    /// Has pointers lead into what was sent, as `to` says of each; those of which it does not know become part of the text.
    pub(super) fn pointing(mut self, to: impl Fn(&str) -> Option<String>) -> Self {
        for error in self.errors.iter_mut().filter(|error| !error.pointer.is_empty()) {
            match to(&error.pointer) {
                Some(pointer) => error.pointer = pointer,
                None => error.detail = format!("{}: {}", std::mem::take(&mut error.pointer), error.detail),
            }
            (error.line, error.column) = (None, None);
        }
        self
    }

    /// For what a document would not be good without, or that it is not good any more: nobody sent the document, so places in
    /// its text would mislead.
    pub(super) fn not_sent(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        if self.code == "invalid" {
            self.detail = detail.into();
            self.errors.iter_mut().for_each(|error| (error.line, error.column) = (None, None));
        }
        self
    }

    /// Says it in other words.
    pub(super) fn detailed(mut self, detail: String) -> Self {
        self.detail = detail.into();
        self
    }

    /// Makes pointers that lead into `place` relative to it; those that lead elsewhere become part of the text.
    pub(super) fn within(mut self, place: &str) -> Self {
        for error in &mut self.errors {
            match error.pointer.strip_prefix(place) {
                Some(inside) if inside.is_empty() || inside.starts_with('/') => {
                    error.pointer = inside.to_owned()
                }
                // Already about the object that was sent.
                _ if !SECTIONS.iter().any(|section| error.pointer.starts_with(section)) => {}
                _ => error.detail = format!("{}: {}", std::mem::take(&mut error.pointer), error.detail),
            }
            (error.line, error.column) = (None, None);
        }
        self
    }

    /// The status that the caller gets.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The text for people.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The body as JSON, for answers that contain problems of their parts.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self.body(None)).expect("strings and numbers always serialize")
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

    fn body(&self, request_id: Option<&str>) -> Body<'_> {
        Body {
            kind: format!("urn:tollgate:problem:{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code,
            instance: request_id.map(|id| format!("urn:uuid:{id}")),
            current_etag: self.current.as_deref(),
            errors: &self.errors,
        }
    }

    fn render(&self, request_id: Option<&str>) -> Response {
        let body = self.body(request_id);
        let body = serde_json::to_vec(&body).expect("strings and a number always serialize");
        let mut response = (self.status, HeaderMap::clone(&self.headers), body).into_response();
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

    /// Whether it has this code.
    pub(super) fn is(&self, code: &str) -> bool {
        self.0.lock().as_ref().is_some_and(|problem| problem.code == code)
    }
}
