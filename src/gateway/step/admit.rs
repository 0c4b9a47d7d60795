//! Admission: Host, Origin and CORS, before anything else is believed (MCP 2025-11-25 transports §Security Warning,
//! 2026-07-28 streamable HTTP §Security).
//!
//! The gateway puts its own `Host` on what it sends to servers and drops `Origin`; that disables the servers' defence
//! against DNS rebinding, so ours has to hold. A request without `Origin` does not come from a browser's page and passes.

use http::HeaderValue;

use crate::config::AllowedOrigins;
use crate::config::model::HostPattern;

/// What the listener admits. Built once.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    hosts: Vec<HostRule>,
    origins: AllowedOrigins,
}

#[derive(Clone, Debug)]
struct HostRule {
    /// A name, or with `below` the part after the `*` of `*.example.com`.
    name: Box<str>,
    below: bool,
    /// `None` = any port.
    port: Option<u16>,
}

impl HostRule {
    fn matches(&self, name: &str, port: Option<u16>) -> bool {
        if self.port.is_some() && self.port != port {
            return false;
        }
        if !self.below {
            return self.name.eq_ignore_ascii_case(name);
        }
        let start = name.len().checked_sub(self.name.len()).filter(|at| *at > 0);
        start.and_then(|at| name.get(at..)).is_some_and(|end| end.eq_ignore_ascii_case(&self.name))
            && !name.starts_with('.')
    }
}

/// What to do with a request's Origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// No page sent it.
    Absent,
    /// A page that may.
    Allowed,
    /// A page that may not.
    Refused,
}

impl Admission {
    pub(crate) fn new(hosts: &[HostPattern], origins: AllowedOrigins) -> Self {
        let rule = |pattern: &HostPattern| {
            let (name, below) = match pattern.host().strip_prefix('*') {
                Some(rest) => (rest, true),
                None => (pattern.host(), false),
            };
            HostRule { name: name.into(), below, port: pattern.port() }
        };
        Self { hosts: hosts.iter().map(rule).collect(), origins }
    }

    /// Whether a request for this authority is for us.
    pub(crate) fn host(&self, authority: &str) -> bool {
        let (name, port) = split_port(authority);
        self.hosts.iter().any(|rule| rule.matches(name, port))
    }

    /// Whether a page of this origin may call.
    pub(crate) fn origin(&self, origin: Option<&HeaderValue>) -> Origin {
        match origin.map(HeaderValue::to_str) {
            None => Origin::Absent,
            Some(Ok(origin)) if self.origins.accepts(origin) => Origin::Allowed,
            Some(_) => Origin::Refused,
        }
    }
}

fn split_port(authority: &str) -> (&str, Option<u16>) {
    let name_end = if authority.starts_with('[') {
        authority.find(']').map_or(authority.len(), |at| at + 1)
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (name, rest) = authority.split_at(name_end);
    match rest.strip_prefix(':') {
        // A port that is not a number makes the name useless, too: nothing is called "host:x".
        Some(port) => port.parse().map_or((authority, None), |port| (name, Some(port))),
        None if rest.is_empty() => (name, None),
        None => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Document;
    use crate::config::{Hooks, Validated};

    fn admission(edit: impl FnOnce(&mut Document)) -> Admission {
        let mut document = Document::default();
        edit(&mut document);
        let validated = Validated::new(document, Hooks::permissive()).unwrap();
        Admission::new(validated.allowed_hosts(), validated.allowed_origins().clone())
    }

    fn with_hosts(hosts: &[&str]) -> Admission {
        let hosts = hosts.iter().map(|h| h.parse().unwrap()).collect();
        admission(|d| d.listeners.mcp.allowed_hosts = Some(hosts))
    }

    #[test]
    fn a_rebound_name_is_not_our_host() {
        let a = with_hosts(&[
            "127.0.0.1:8080",
            "localhost:8080",
            "[::1]:8080",
            "gw.example.com",
            "*.corp.example",
        ]);
        for host in [
            "evil.example",
            "127.0.0.1.evil.example:8080",
            "localhost:9999",
            "",
            "localhost:8080x",
            "[::1]x:8080",
            "localhost:8080:8080",
            "corp.example",
            ".corp.example",
            "evilcorp.example",
        ] {
            assert!(!a.host(host), "{host}");
        }
        for host in [
            "127.0.0.1:8080",
            "LOCALHOST:8080",
            "[::1]:8080",
            "gw.example.com",
            "gw.example.com:443",
            "A.corp.example:1",
        ] {
            assert!(a.host(host), "{host}");
        }
    }

    #[test]
    fn a_loopback_listener_takes_local_names_with_any_port() {
        let a = admission(|_| {});
        assert!(a.host("localhost:1234") && a.host("[::1]:1") && a.host("127.0.0.1"));
        assert!(!a.host("localhost.evil.example:1234"));
    }

    #[test]
    fn only_listed_and_local_pages_may_call() {
        let a = admission(|_| {});
        let origin = |text: &'static str| a.origin(Some(&HeaderValue::from_static(text)));
        for o in ["http://localhost:6274", "http://127.0.0.1", "http://[::1]:3000"] {
            assert_eq!(origin(o), Origin::Allowed, "{o}");
        }
        for o in ["https://evil.example", "null", "http://localhost.evil.example", "file://localhost"] {
            assert_eq!(origin(o), Origin::Refused, "{o}");
        }
        assert_eq!(a.origin(None), Origin::Absent);
        let unreadable = HeaderValue::from_bytes(b"\xff").unwrap();
        assert_eq!(a.origin(Some(&unreadable)), Origin::Refused);
    }
}
