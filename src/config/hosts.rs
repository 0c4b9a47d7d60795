//! Which hosts and origins a listener accepts, against DNS rebinding (MCP.md §2.4).

use super::model::{Document, HostPattern, HttpUrl};

/// The names of this machine that a loopback listener accepts, with any port.
const LOOPBACK_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Whether a pattern matches a host name, lower case and without brackets for IPv6. A pattern without a port matches
/// every port; `*.example.com` matches every name below `example.com`, not that itself.
pub fn host_matches(pattern: &HostPattern, host: &str, port: Option<u16>) -> bool {
    if pattern.port().is_some() && pattern.port() != port {
        return false;
    }
    let plain = |text: &str| text.trim_start_matches('[').trim_end_matches(']').to_owned();
    let (pattern, host) = (plain(pattern.host()), plain(host));
    match pattern.strip_prefix('*') {
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix) && !host.starts_with('.'),
        None => pattern == host,
    }
}

/// The hosts accepted in the `Host` header.
pub(crate) fn allowed_hosts(document: &Document) -> Vec<HostPattern> {
    let mcp = &document.listeners.mcp;
    if let Some(hosts) = &mcp.allowed_hosts {
        return hosts.clone();
    }
    let mut hosts: Vec<HostPattern> = document.routes.iter().flat_map(|route| route.hosts.clone()).collect();
    if let Some(url) = &mcp.public_url {
        let host = url.authority();
        // Without the port: a proxy may or may not pass it on, and it says nothing about rebinding.
        let host = host.strip_suffix(&format!(":{}", url.port())).unwrap_or(&host);
        hosts.extend(host.parse());
    }
    if mcp.address.is_loopback() {
        hosts.extend(LOOPBACK_HOSTS.iter().filter_map(|host| host.parse().ok()));
    }
    hosts.sort();
    hosts.dedup();
    hosts
}

/// The origins accepted in the `Origin` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedOrigins {
    exact: Vec<String>,
    loopback: bool,
}

impl AllowedOrigins {
    pub(crate) fn of(document: &Document) -> Self {
        let mcp = &document.listeners.mcp;
        let mut exact: Vec<String> = match &mcp.allowed_origins {
            Some(origins) => origins.iter().map(HttpUrl::origin).collect(),
            None => mcp.public_url.iter().map(HttpUrl::origin).collect(),
        };
        // Whoever may read answers across origins may also ask.
        exact.extend(mcp.cors.iter().flat_map(|cors| cors.origins.clone()));
        exact.sort();
        exact.dedup();
        Self { exact, loopback: mcp.allowed_origins.is_none() && mcp.address.is_loopback() }
    }

    /// Whether a request with this `Origin` header is accepted. `null` and what cannot be read are not.
    pub fn accepts(&self, origin: &str) -> bool {
        self.exact.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin))
            || (self.loopback && origin.parse::<HttpUrl>().is_ok_and(|url| url.is_loopback()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, host: &str, port: u16) -> bool {
        host_matches(&pattern.parse().unwrap(), host, Some(port))
    }

    #[test]
    fn a_wildcard_matches_below_and_not_the_domain_itself() {
        assert!(matches("*.example.com", "a.example.com", 1));
        assert!(matches("*.example.com", "a.b.example.com", 1));
        assert!(!matches("*.example.com", "example.com", 1));
        assert!(!matches("*.example.com", "badexample.com", 1));
    }

    #[test]
    fn a_port_in_the_pattern_must_match() {
        assert!(matches("a:1", "a", 1) && !matches("a:1", "a", 2) && matches("a", "a", 2));
        assert!(matches("[::1]", "::1", 1));
    }

    #[test]
    fn a_loopback_listener_accepts_local_names_only() {
        let document = Document::default();
        let hosts = allowed_hosts(&document);
        assert!(hosts.iter().any(|h| host_matches(h, "localhost", Some(1234))));
        assert!(!hosts.iter().any(|h| host_matches(h, "evil.example.com", None)));
        let origins = AllowedOrigins::of(&document);
        assert!(origins.accepts("http://localhost:5173") && origins.accepts("http://[::1]:8080"));
        for origin in ["https://evil.example.com", "null", "http://localhost.evil.com", ""] {
            assert!(!origins.accepts(origin), "{origin}");
        }
    }
}
