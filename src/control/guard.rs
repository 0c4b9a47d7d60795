//! What every control request passes before and after its handler.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

use super::problem::{Pending, Problem};
use super::{ControlConfig, Exposure, size};
use crate::base::{RequestId, Secret};

/// Names a request in responses and logs.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-tollgate-request-id");

/// Sent with every response, unless a handler set its own: nothing is cached, framed, sniffed or run.
const SECURITY: [(HeaderName, HeaderValue); 5] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
];

/// Outermost: gives the request its id, finishes problems, and adds the security headers.
pub(super) async fn mark(mut request: Request, next: Next) -> Response {
    let id = RequestId::fresh();
    request.extensions_mut().insert(id);
    let mut response = next.run(request).await;
    let text = id.to_string();
    if let Some(problem) = response.extensions_mut().remove::<Pending>().and_then(|p| p.take()) {
        // Headers that layers set on the way, such as `Allow`, are kept.
        let finished = problem.respond(&text);
        let (mut parts, body) = finished.into_parts();
        for (name, value) in response.headers() {
            if name != CONTENT_LENGTH && !parts.headers.contains_key(name) {
                parts.headers.append(name, value.clone());
            }
        }
        response = Response::from_parts(parts, body);
    }
    let headers = response.headers_mut();
    for (name, value) in SECURITY {
        headers.entry(name).or_insert(value);
    }
    headers.insert(REQUEST_ID, HeaderValue::try_from(text).expect("a UUID is a header value"));
    response
}

/// Refuses bodies that declare too much, and gives up on requests that take too long.
pub(super) async fn bound(
    State(config): State<Arc<ControlConfig>>,
    request: Request,
    next: Next,
) -> Response {
    // Of the API's operations some may have more; their gate knows which.
    let own = config.limits.body;
    let limit = if request.uri().path().starts_with("/api/") { own.max(size::QUOTED) } else { own };
    if size::declared(request.headers()).is_some_and(|length| length > limit as u64) {
        return Problem::too_large(limit).into_response();
    }
    match tokio::time::timeout(config.request_timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::timeout().into_response(),
    }
}

/// For whatever says more than that the process lives: on loopback, the request must name this machine.
pub(super) async fn host(State(config): State<Arc<ControlConfig>>, request: Request, next: Next) -> Response {
    match config.exposure {
        Exposure::Loopback if !host_allowed(&request, &config.allowed_hosts) => {
            Problem::misdirected().into_response()
        }
        _ => next.run(request).await,
    }
}

/// For `/metrics`: the token, if one is configured.
pub(super) async fn metrics(
    State(config): State<Arc<ControlConfig>>,
    request: Request,
    next: Next,
) -> Response {
    match &config.metrics_token {
        Some(token) if !bears(request.headers(), token) => Problem::unauthorized().into_response(),
        _ => next.run(request).await,
    }
}

/// For `/api`: the token; without one, only loopback.
pub(super) async fn api(State(config): State<Arc<ControlConfig>>, request: Request, next: Next) -> Response {
    match (&config.api_token, config.exposure) {
        (Some(token), _) if !bears(request.headers(), token) => Problem::unauthorized().into_response(),
        (None, Exposure::Network) => Problem::forbidden(
            "the API is closed: the listener is not on loopback and no API token is configured",
        )
        .into_response(),
        _ => next.run(request).await,
    }
}

/// Compares digests, so that neither the content nor the length of the token shows in the time it takes.
fn bears(headers: &HeaderMap, token: &Secret<String>) -> bool {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else { return false };
    let Some((scheme, value)) = value.to_str().ok().and_then(|v| v.split_once(' ')) else { return false };
    let same = Sha256::digest(value.trim()).ct_eq(&Sha256::digest(token.expose()));
    scheme.eq_ignore_ascii_case("bearer") && bool::from(same)
}

/// Whether the request names this machine. A page of `evil.example` that resolves to 127.0.0.1 sends its own name.
fn host_allowed(request: &Request, allowed: &[String]) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (host, more) = (hosts.next(), hosts.next());
    if more.is_some() {
        return false;
    }
    // An absolute request target overrides Host (RFC 9112 §3.2.2); both must be good.
    let target = request.uri().authority().map(|a| a.as_str());
    let host = match host {
        Some(value) => match value.to_str() {
            Ok(text) => Some(text),
            Err(_) => return false,
        },
        None => None,
    };
    let mut named = [host, target].into_iter().flatten().peekable();
    named.peek().is_some() && named.all(|name| is_local(name, allowed))
}

fn is_local(authority: &str, allowed: &[String]) -> bool {
    let name = without_port(authority);
    let address = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || address.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
        || allowed.iter().any(|a| a.eq_ignore_ascii_case(name))
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_local() {
        for good in ["localhost", "LocalHost:9090", "127.0.0.1", "127.8.9.1:80", "[::1]", "[::1]:9090", "box"]
        {
            assert!(is_local(good, &["Box".to_owned()]), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "localhost.evil.example",
            "evil.example:9090",
            "127.0.0.1.evil.example",
            "localhost@evil.example",
            "10.0.0.1",
            "[::2]",
            "0.0.0.0",
            "box2",
            "localhost:x",
        ] {
            assert!(!is_local(bad, &["box".to_owned()]), "{bad}");
        }
    }

    #[test]
    fn a_token_must_match_whole_and_once() {
        let token = Secret::new("s3cret".to_owned());
        let with = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_static(value));
            }
            bears(&headers, &token)
        };
        assert!(with(&["Bearer s3cret"]) && with(&["bearer s3cret"]));
        for bad in ["Bearer s3cre", "Bearer s3crets", "Basic s3cret", "s3cret", "Bearer", "Bearer "] {
            assert!(!with(&[bad]), "{bad}");
        }
        assert!(!with(&[]) && !with(&["Bearer s3cret", "Bearer s3cret"]));
    }
}
