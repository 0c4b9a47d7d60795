//! What the MCP listener answers without knowing who asks: health, and OAuth protected-resource metadata (RFC 9728),
//! at the path-inserted location of each route and, where there is only one route for the host, at the root.

use bytes::Bytes;
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE};
use http::response::Parts;
use http::{HeaderValue, Method, StatusCode};

use crate::gateway::respond::Failure;
use crate::gateway::{Stop, headers};
use crate::snapshot::Snapshot;

/// Where RFC 9728 §3 puts the metadata.
pub(crate) const METADATA: &str = "/.well-known/oauth-protected-resource";

/// The answer, if the path is one of ours. Other paths under `/.well-known/` do not exist here.
pub(crate) fn answer(
    method: &Method,
    host: &str,
    path: &str,
    snapshot: &Snapshot,
) -> Option<Result<(Parts, Bytes), Stop>> {
    if path == "/healthz" {
        return Some(read_only(method).map(|()| build("text/plain", Bytes::from_static(b"ok\n"))));
    }
    if !path.starts_with("/.well-known/") {
        return None;
    }
    let unusable = path.strip_prefix(METADATA).is_some_and(|resource| snapshot.is_unusable(host, resource));
    let metadata = path.strip_prefix(METADATA).and_then(|resource| match resource {
        "" | "/" => snapshot.only_route(host),
        resource => snapshot.find(host, resource),
    });
    Some(match metadata.and_then(|route| route.metadata.clone()) {
        Some(json) => read_only(method).map(|()| build("application/json", json)),
        None if unusable => Err(Failure::unusable().into()),
        None => Err(Failure::no_route().into()),
    })
}

fn read_only(method: &Method) -> Result<(), Stop> {
    match *method {
        Method::GET | Method::HEAD | Method::OPTIONS => Ok(()),
        _ => Err(Failure::method_not_allowed("GET").into()),
    }
}

fn build(content_type: &'static str, body: Bytes) -> (Parts, Bytes) {
    let mut header = headers::response(StatusCode::OK, 6);
    header.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    header.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Public by nature: browsers' OAuth clients fetch it from any page.
    header.headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    (header, body)
}
