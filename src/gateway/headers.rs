//! Header hygiene in both directions (RFC 9110 §7.6, MCP 2026-07-28 transports, DESIGN "relay").
//!
//! Towards the server a client's end-to-end headers pass, except those that frame the message, name the client's
//! credentials, or could be mistaken for something the gateway vouches for. Towards the client the server's pass,
//! except framing, cookies and challenges that speak of the gateway's own credential.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, FORWARDED, HeaderMap,
    VARY,
};
use http::response::Parts;
use http::{HeaderName, HeaderValue, StatusCode};

use crate::base::RequestId;
use crate::gateway::CorsSettings;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Tenant and revision that an answer comes from.
pub(crate) const REVISION: HeaderName = HeaderName::from_static(crate::snapshot::REVISION);
pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
pub(crate) const MCP_SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
pub(crate) const MCP_METHOD: HeaderName = HeaderName::from_static("mcp-method");
pub(crate) const MCP_NAME: HeaderName = HeaderName::from_static("mcp-name");
pub(crate) const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Headers by which proxies tell servers who the user is. A client that sends one is refused belief, not service.
const IDENTITY_PREFIXES: [&str; 7] =
    ["x-forwarded-", "x-tollgate-", "x-auth-", "x-authenticated-", "x-consumer-", "x-user", "x-remote-"];
const IDENTITY: [&str; 5] = ["x-real-ip", "x-api-key", "x-request-id", "remote-user", "x-client-cert"];

/// Whether a client's header may go to the server. `connection` is the request's `Connection` header.
pub(crate) fn passes_upstream(name: &HeaderName, connection: Option<&HeaderValue>) -> bool {
    let text = name.as_str();
    let dropped = matches!(
        text,
        "accept"
            | "accept-encoding"
            | "authorization"
            | "content-encoding"
            | "content-length"
            | "cookie"
            | "expect"
            | "forwarded"
            | "host"
            | "mcp-session-id"
            | "origin"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "traceparent"
            | "tracestate"
    );
    if dropped || hop_by_hop(text) {
        return false;
    }
    let may_identify = text.starts_with("x-") || text.starts_with('r');
    if may_identify && (IDENTITY.contains(&text) || IDENTITY_PREFIXES.iter().any(|p| text.starts_with(p))) {
        return false;
    }
    // Browser facts about the client's own fetch mean nothing to the server, and servers have refused them.
    if text.starts_with("sec-") || text.starts_with("access-control-") {
        return false;
    }
    !nominated(connection, text)
}

/// Whether a server's header may go to the client.
pub(crate) fn passes_downstream(name: &HeaderName, connection: Option<&HeaderValue>) -> bool {
    let text = name.as_str();
    let dropped = matches!(
        text,
        "content-length"
            | "date"
            // A client would take its request, credential and all, to wherever a server points.
            | "location"
            | "mcp-session-id"
            | "proxy-authenticate"
            | "refresh"
            | "server"
            | "set-cookie"
            | "www-authenticate"
            | "x-request-id"
    );
    !dropped
        && !hop_by_hop(text)
        && !text.starts_with("access-control-")
        && !text.starts_with("x-tollgate-")
        && !nominated(connection, text)
}

fn hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection" | "keep-alive" | "proxy-connection" | "te" | "trailer" | "transfer-encoding" | "upgrade"
    )
}

fn nominated(connection: Option<&HeaderValue>, name: &str) -> bool {
    let Some(value) = connection.and_then(|v| v.to_str().ok()) else { return false };
    value.split(',').any(|token| token.trim().eq_ignore_ascii_case(name))
}

/// Whether a proxy speaks for somebody else, or claims to.
pub(crate) fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.contains_key(FORWARDED)
        || headers.contains_key(X_FORWARDED_FOR)
        || headers.contains_key("x-real-ip")
}

/// The value of `name`, if it stands there once and is text.
pub(crate) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(first)
}

/// CORS headers, made once.
#[derive(Clone, Debug)]
pub(crate) struct Cors {
    credentials: bool,
    expose: HeaderValue,
    allow: HeaderValue,
    max_age: HeaderValue,
}

/// What a page may send.
const ALLOWED: &str = "Accept, Authorization, Content-Type, Last-Event-ID, MCP-Protocol-Version, Mcp-Method, Mcp-Name, \
                       Mcp-Session-Id, Traceparent, Tracestate, X-Api-Key";
/// What a page may read of a response.
const EXPOSED: &str = "Mcp-Session-Id, MCP-Protocol-Version, WWW-Authenticate, Retry-After, RateLimit, \
                       RateLimit-Policy, X-Request-Id";
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, DELETE, OPTIONS");

impl Cors {
    pub(crate) fn new(settings: &CorsSettings) -> Self {
        let list = |base: &str, more: &[String]| {
            let all = more.iter().fold(base.to_owned(), |list, name| format!("{list}, {name}"));
            HeaderValue::try_from(all).unwrap_or_else(|_| HeaderValue::from_static(""))
        };
        Self {
            credentials: settings.credentials,
            expose: list(EXPOSED, &settings.expose),
            allow: list(ALLOWED, &settings.headers),
            max_age: HeaderValue::from(settings.max_age.as_secs()),
        }
    }

    fn origin(&self, header: &mut Parts, origin: &HeaderValue) {
        header.headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        header.headers.append(VARY, HeaderValue::from_static("Origin"));
        if self.credentials {
            header.headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }

    /// Fills the answer to a preflight. `requested` is what the page wants to send: `Mcp-Param-*` headers cannot be
    /// listed ahead, so those among them are allowed by name.
    pub(crate) fn preflight(
        &self,
        header: &mut Parts,
        origin: &HeaderValue,
        requested: Option<&HeaderValue>,
    ) {
        self.origin(header, origin);
        header.headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        header.headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, self.allow.clone());
        let params = requested.and_then(|v| v.to_str().ok()).unwrap_or_default();
        for name in params.split(',').map(str::trim).take(MAX_PREFLIGHT_NAMES) {
            let mirrors = name.get(..10).is_some_and(|p| p.eq_ignore_ascii_case("mcp-param-"));
            if mirrors && let Ok(value) = HeaderValue::from_str(name) {
                header.headers.append(ACCESS_CONTROL_ALLOW_HEADERS, value);
            }
        }
        header.headers.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
    }
}

/// Header names of a preflight that are looked at.
const MAX_PREFLIGHT_NAMES: usize = 64;

/// A response's header, to be filled. Pingora's own type is made from it at the end: filling that one takes every name
/// through its text and back.
pub(crate) fn response(status: StatusCode, fields: usize) -> Parts {
    let mut parts = http::Response::new(()).into_parts().0;
    parts.status = status;
    parts.headers = HeaderMap::with_capacity(fields);
    parts
}

/// What every response of the gateway carries.
#[derive(Clone)]
pub(crate) struct Common<'a> {
    pub(crate) request_id: RequestId,
    /// The request's Origin, once it has been allowed.
    pub(crate) origin: Option<HeaderValue>,
    pub(crate) cors: &'a Cors,
    /// `RateLimit` headers, once a limit has been looked at.
    pub(crate) rate: Vec<(HeaderName, HeaderValue)>,
    /// Which revision answers, once there is a route.
    pub(crate) revision: Option<HeaderValue>,
}

impl Common<'_> {
    /// Adds the request id, rate-limit headers and, for a browser, the CORS headers.
    pub(crate) fn apply(&self, header: &mut Parts) {
        let mut id = [0u8; 36];
        let id = pingora::http::header_value_from_slice(self.request_id.encode(&mut id));
        header.headers.insert(REQUEST_ID, id);
        if let Some(revision) = &self.revision {
            header.headers.insert(REVISION, revision.clone());
        }
        for (name, value) in &self.rate {
            header.headers.insert(name.clone(), value.clone());
        }
        if let Some(origin) = &self.origin {
            self.cors.origin(header, origin);
            header.headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, self.cors.expose.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(name: &str) -> bool {
        passes_upstream(&HeaderName::from_bytes(name.as_bytes()).unwrap(), None)
    }

    #[test]
    fn credentials_and_identity_never_go_upstream() {
        for name in [
            "authorization",
            "cookie",
            "proxy-authorization",
            "x-api-key",
            "x-forwarded-for",
            "x-forwarded-user",
            "x-tollgate-principal",
            "x-auth-request-email",
            "x-consumer-id",
            "x-user",
            "x-user-id",
            "remote-user",
            "x-real-ip",
            "origin",
            "host",
            "transfer-encoding",
            "te",
            "upgrade",
            "keep-alive",
            "x-client-cert",
        ] {
            assert!(!upstream(name), "{name}");
        }
    }

    #[test]
    fn mcp_and_unknown_headers_pass() {
        for name in [
            "mcp-param-region",
            "mcp-method",
            "mcp-name",
            "mcp-protocol-version",
            "last-event-id",
            "x-team",
            "user-agent",
            "accept-language",
        ] {
            assert!(upstream(name), "{name}");
        }
    }

    #[test]
    fn what_connection_nominates_is_dropped() {
        let connection = HeaderValue::from_static("close, X-Team");
        assert!(!passes_upstream(&HeaderName::from_static("x-team"), Some(&connection)));
        assert!(!passes_downstream(&HeaderName::from_static("x-team"), Some(&connection)));
    }

    #[test]
    fn challenges_and_cookies_of_the_server_stay_behind() {
        for name in ["www-authenticate", "set-cookie", "transfer-encoding", "server", "date", "x-request-id"]
        {
            assert!(!passes_downstream(&HeaderName::from_static(name), None), "{name}");
        }
    }

    #[test]
    fn a_header_that_stands_twice_has_no_single_value() {
        let mut map = HeaderMap::new();
        map.append(MCP_NAME, HeaderValue::from_static("a"));
        assert_eq!(single(&map, &MCP_NAME), Some("a"));
        map.append(MCP_NAME, HeaderValue::from_static("a"));
        assert_eq!(single(&map, &MCP_NAME), None);
    }
}
