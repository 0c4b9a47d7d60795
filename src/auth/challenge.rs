//! What a refused client is told, and where it learns how to get a token (RFC 6750 §3, RFC 9728, MCP.md §3.1).

use std::fmt::Write;

use http::HeaderValue;
use serde::Serialize;

use crate::auth::AuthError;

/// The well-known prefix of protected-resource metadata (RFC 9728 §3).
pub const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// The most bytes of a scope list in a challenge; more is cut at a space.
const MAX_SCOPE_BYTES: usize = 2048;

/// The `WWW-Authenticate` value for a refused credential (400, 401 and 403).
///
/// `metadata_url` is where the route's metadata is served ([`metadata_url`]); `scope` is the minimal scope of the route,
/// if it asks for one.
pub fn for_error(error: &AuthError, metadata_url: &str, scope: Option<&str>) -> HeaderValue {
    let code = error.challenge_code();
    // Without a code there is nothing to describe (RFC 6750 §3.1).
    challenge(Some(metadata_url), scope, code, code.map(|_| error.public_text()))
}

/// The `WWW-Authenticate` value for a 403: `scopes` is everything the operation needs, at once, so that the client asks
/// its user one time only.
pub fn insufficient_scope(metadata_url: &str, scopes: &str) -> HeaderValue {
    let text = "the access token does not carry the scopes that this needs";
    challenge(Some(metadata_url), Some(scopes), Some("insufficient_scope"), Some(text))
}

/// The protected-resource metadata (RFC 9728 §2) as JSON. `resource` is the URL the client dials, exactly: scheme, host,
/// port, path, no trailing slash. `scopes` should be the minimal ones; `offline_access` is left out (MCP.md §3.1).
pub fn protected_resource_metadata<'a>(
    resource: &str,
    authorization_servers: impl IntoIterator<Item = &'a str>,
    scopes: &[&str],
) -> Vec<u8> {
    #[derive(Serialize)]
    struct Metadata<'a> {
        resource: &'a str,
        authorization_servers: Vec<&'a str>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        scopes_supported: Vec<&'a str>,
        bearer_methods_supported: [&'static str; 1],
    }
    let metadata = Metadata {
        resource,
        authorization_servers: authorization_servers.into_iter().collect(),
        scopes_supported: scopes.iter().copied().filter(|s| *s != "offline_access").collect(),
        bearer_methods_supported: ["header"],
    };
    serde_json::to_vec(&metadata).expect("texts and lists always serialize")
}

/// Where the metadata of a route is served: the well-known prefix with the route's path behind it. `/` and the empty
/// path give the prefix alone.
pub fn well_known_path(route_path: &str) -> String {
    let path = route_path.trim_end_matches('/');
    let slash = if path.is_empty() || path.starts_with('/') { "" } else { "/" };
    format!("{WELL_KNOWN}{slash}{path}")
}

/// The route path that a well-known path asks about; `/` for the prefix alone. `None` if it is not such a path.
pub fn route_of_well_known(path: &str) -> Option<&str> {
    let rest = path.strip_prefix(WELL_KNOWN)?;
    match rest {
        "" => Some("/"),
        _ => rest.starts_with('/').then_some(rest),
    }
}

/// The URL of the metadata of a resource: the well-known prefix goes between authority and path. `None` if `resource`
/// is not an absolute URL.
pub fn metadata_url(resource: &str) -> Option<String> {
    let scheme = resource.find("://")? + 3;
    let rest = &resource[scheme..];
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    if end == 0 {
        return None;
    }
    let (origin, path) = resource.split_at(scheme + end);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    Some(format!("{origin}{}", well_known_path(path)))
}

fn challenge(
    metadata_url: Option<&str>,
    scope: Option<&str>,
    code: Option<&str>,
    description: Option<&str>,
) -> HeaderValue {
    let mut text = String::from("Bearer");
    let mut separator = ' ';
    let mut parameter = |name: &str, value: &str| {
        text.push(separator);
        if separator == ',' {
            text.push(' ');
        }
        separator = ',';
        // Writing to a String cannot fail.
        let _ = write!(text, "{name}=\"");
        push_quoted(&mut text, value);
        text.push('"');
    };
    if let Some(code) = code {
        parameter("error", code);
    }
    if let Some(description) = description {
        parameter("error_description", description);
    }
    if let Some(scope) = scope.map(cut_scope).filter(|scope| !scope.is_empty()) {
        parameter("scope", scope);
    }
    if let Some(url) = metadata_url {
        parameter("resource_metadata", url);
    }
    HeaderValue::try_from(text).expect("only printable ASCII was pushed")
}

/// The inside of a quoted-string (RFC 9110 §5.6.4). What has no place in one, and what RFC 6750 forbids, becomes `?`.
fn push_quoted(text: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            ' '..='~' => text.push(c),
            _ => text.push('?'),
        }
    }
}

fn cut_scope(scope: &str) -> &str {
    if scope.len() <= MAX_SCOPE_BYTES {
        return scope;
    }
    let head = &scope.as_bytes()[..MAX_SCOPE_BYTES];
    let end = head.iter().rposition(|b| *b == b' ').unwrap_or(0);
    &scope[..end]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const URL: &str = "https://gw.example/.well-known/oauth-protected-resource/mcp/a";

    fn text(value: HeaderValue) -> String {
        value.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_missing_credential_gets_no_error_code() {
        assert_eq!(
            text(for_error(&AuthError::Missing, URL, Some("mcp:read"))),
            format!("Bearer scope=\"mcp:read\", resource_metadata=\"{URL}\"")
        );
    }

    #[test]
    fn a_bad_token_is_named_so() {
        let error = AuthError::Expired { issuer: "corp".into() };
        assert_eq!(
            text(for_error(&error, URL, None)),
            format!(
                "Bearer error=\"invalid_token\", error_description=\"the access token has expired\", \
                 resource_metadata=\"{URL}\""
            )
        );
        let error = AuthError::MalformedRequest { reason: "more than one credential" };
        assert!(text(for_error(&error, URL, None)).starts_with("Bearer error=\"invalid_request\""));
    }

    #[test]
    fn missing_scopes_are_named_all_at_once() {
        let value = text(insufficient_scope(URL, "a b"));
        assert!(value.contains("error=\"insufficient_scope\"") && value.contains("scope=\"a b\""));
        assert!(value.ends_with(&format!("resource_metadata=\"{URL}\"")));
    }

    #[test]
    fn values_cannot_break_out_of_their_quotes() {
        let value = text(insufficient_scope(URL, "a\", evil=\"b\\\r\nX: y é"));
        assert!(value.contains(r#"scope="a\", evil=\"b\\??X: y ?""#), "{value}");
    }

    #[test]
    fn metadata_paths_are_inserted_and_found_again() {
        for (route, path) in [
            ("/mcp/weather", "/.well-known/oauth-protected-resource/mcp/weather"),
            ("/mcp", "/.well-known/oauth-protected-resource/mcp"),
            ("/t/a/mcp/", "/.well-known/oauth-protected-resource/t/a/mcp"),
            ("/", "/.well-known/oauth-protected-resource"),
            ("", "/.well-known/oauth-protected-resource"),
            ("mcp", "/.well-known/oauth-protected-resource/mcp"),
        ] {
            assert_eq!(well_known_path(route), path);
        }
        assert_eq!(route_of_well_known("/.well-known/oauth-protected-resource/mcp/a"), Some("/mcp/a"));
        assert_eq!(route_of_well_known("/.well-known/oauth-protected-resource"), Some("/"));
        assert_eq!(route_of_well_known("/.well-known/oauth-protected-resource/"), Some("/"));
        assert_eq!(route_of_well_known("/.well-known/oauth-protected-resourcex"), None);
        assert_eq!(route_of_well_known("/.well-known/oauth-authorization-server"), None);
    }

    #[test]
    fn metadata_urls_keep_scheme_host_and_port() {
        for (resource, url) in [
            (
                "http://127.0.0.1:8080/mcp/a",
                "http://127.0.0.1:8080/.well-known/oauth-protected-resource/mcp/a",
            ),
            ("https://gw.example", "https://gw.example/.well-known/oauth-protected-resource"),
            ("https://gw.example/x/mcp?y", "https://gw.example/.well-known/oauth-protected-resource/x/mcp"),
        ] {
            assert_eq!(metadata_url(resource).as_deref(), Some(url));
        }
        assert_eq!(metadata_url("/mcp"), None);
        assert_eq!(metadata_url("https:///mcp"), None);
    }

    #[test]
    fn metadata_lists_what_clients_need() {
        let json = protected_resource_metadata(
            "https://gw.example/mcp",
            ["https://i.example"],
            &["a", "offline_access"],
        );
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "resource": "https://gw.example/mcp",
                "authorization_servers": ["https://i.example"],
                "scopes_supported": ["a"],
                "bearer_methods_supported": ["header"],
            })
        );
        let json = protected_resource_metadata("https://gw.example/mcp", [], &[]);
        assert!(!String::from_utf8(json).unwrap().contains("scopes_supported"));
    }

    proptest! {
        #[test]
        fn any_scope_gives_a_header(scope: String) {
            let value = text(insufficient_scope(URL, &scope));
            prop_assert!(value.bytes().all(|b| (b' '..=b'~').contains(&b)));
            prop_assert!(value.len() < 3 * MAX_SCOPE_BYTES);
        }

        #[test]
        fn every_route_path_round_trips(path in "(/[a-z0-9._~-]{1,8}){1,4}") {
            let inserted = well_known_path(&path);
            prop_assert_eq!(route_of_well_known(&inserted), Some(path.as_str()));
        }
    }
}
