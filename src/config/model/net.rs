//! Values of the network: addresses, networks, hosts, URLs.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::text::{BadText, display_as_str, text_value};

/// Longest URL accepted, in bytes.
const MAX_URL: usize = 2048;

/// An IP address and port to listen on, such as `127.0.0.1:8080`, `0.0.0.0:443` or `[::1]:8080`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address(SocketAddr);

impl Address {
    /// An address to listen on.
    pub const fn new(address: SocketAddr) -> Self {
        Self(address)
    }

    /// The address as the standard library has it.
    pub const fn get(self) -> SocketAddr {
        self.0
    }

    /// Whether only this machine can reach it.
    pub fn is_loopback(self) -> bool {
        self.0.ip().to_canonical().is_loopback()
    }
}

impl FromStr for Address {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        text.parse().map(Self).map_err(|_| {
            let bad = BadText::expected("an IP address and port, such as `127.0.0.1:8080` or `[::]:8080`");
            if let Some(port) = text.strip_prefix("localhost:") {
                bad.hint(format!("write `127.0.0.1:{port}`"))
            } else if let Some(port) = text.strip_prefix(':').or_else(|| text.strip_prefix("*:")) {
                bad.hint(format!("write `0.0.0.0:{port}` for every interface"))
            } else if text.parse::<u16>().is_ok() {
                bad.hint(format!("write `127.0.0.1:{text}`"))
            } else {
                bad
            }
        })
    }
}

/// A network such as `10.0.0.0/8` or `fd00::/8`; a bare address means that address alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr(ipnet::IpNet);

impl Cidr {
    /// The network as `ipnet` has it, host bits cleared.
    pub const fn get(self) -> ipnet::IpNet {
        self.0
    }
}

impl FromStr for Cidr {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        let bad = || BadText::expected("a network such as `10.0.0.0/8` or an address such as `192.0.2.7`");
        match text.parse::<ipnet::IpNet>() {
            Ok(net) if net == net.trunc() => Ok(Self(net)),
            Ok(net) => Err(bad().hint(format!("host bits are set: write `{}`", net.trunc()))),
            Err(_) => text.parse::<IpAddr>().map(|ip| Self(ip.into())).map_err(|_| bad()),
        }
    }
}

/// An absolute `http` or `https` URL without user information or fragment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpUrl {
    text: String,
    https: bool,
    host: String,
    port: u16,
    path_and_query: String,
}

impl HttpUrl {
    /// The URL as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the scheme is `https`.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// The host, lower case; an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host as an address, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// The port as written, or that of the scheme.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path and query, at least `/`.
    pub fn path_and_query(&self) -> &str {
        &self.path_and_query
    }

    /// The path, at least `/`.
    pub fn path(&self) -> &str {
        self.path_and_query.split('?').next().unwrap_or("/")
    }

    /// `host` or `host:port` as a `Host` header has it: the scheme's own port is left out, IPv6 is bracketed.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == default_port(self.https) { host } else { format!("{host}:{}", self.port) }
    }

    /// `scheme://authority`, without a trailing slash.
    pub fn origin(&self) -> String {
        format!("{}://{}", if self.https { "https" } else { "http" }, self.authority())
    }

    /// Whether the host is this machine: `localhost` or a loopback address.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.ip().is_some_and(|ip| ip.to_canonical().is_loopback())
    }
}

const fn default_port(https: bool) -> u16 {
    if https { 443 } else { 80 }
}

/// Refuses hosts that different programs would read differently: `0x7f.1`, `2130706433` and `0177.0.0.1` are addresses to
/// some and names to others, and what was checked would not be what is dialled.
fn check_host(host: &str) -> Result<(), Option<&'static str>> {
    if host.contains(':') {
        return host
            .parse::<std::net::Ipv6Addr>()
            .map(drop)
            .map_err(|_| Some("an IPv6 address without a zone"));
    }
    if host.is_empty() || !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return Err(None);
    }
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
    if (hex || last.bytes().all(|b| b.is_ascii_digit())) && host.parse::<std::net::Ipv4Addr>().is_err() {
        return Err(Some("a host name, or an IPv4 address as four decimal numbers"));
    }
    Ok(())
}

impl FromStr for HttpUrl {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        let bad = || BadText::expected("a URL such as `https://mcp.example.com/mcp`");
        if text.len() > MAX_URL {
            return Err(BadText::expected("a URL of at most 2048 bytes"));
        }
        if !text.contains("://") {
            let host_like = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
            return Err(if host_like {
                bad().hint("start it with `http://` or `https://`".into())
            } else {
                bad()
            });
        }
        if text.contains('#') {
            return Err(BadText::expected("a URL without a fragment (`#…`)"));
        }
        let uri: http::Uri = text.parse().map_err(|_| bad())?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(BadText::expected("a URL with the scheme `http` or `https`")),
        };
        let authority = uri.authority().ok_or_else(bad)?;
        if authority.as_str().contains('@') {
            return Err(BadText::expected("a URL without user name or password")
                .hint("put them under `credential`".into()));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        check_host(&host).map_err(|expected| expected.map_or_else(bad, BadText::expected))?;
        // `http` reads an unusable port as none at all, so what follows the host is looked at as text.
        let written =
            authority.as_str().rsplit_once(':').map(|(_, port)| port).filter(|port| !port.contains(']'));
        let port = match written {
            None => default_port(https),
            Some(port) => match port.parse::<u16>() {
                Ok(port) if port > 0 => port,
                _ => return Err(BadText::expected("a port from 1 to 65535")),
            },
        };
        let path_and_query = match uri.path_and_query().map(http::uri::PathAndQuery::as_str) {
            None | Some("") => "/".to_owned(),
            Some(path) => path.to_owned(),
        };
        Ok(Self { text: text.to_owned(), https, host, port, path_and_query })
    }
}

/// A host name as clients send it, with an optional port and an optional `*.` in front: `mcp.example.com`,
/// `*.example.com`, `localhost:8080`. Compared without regard to case; without a port every port matches.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPattern {
    text: String,
    port: Option<u16>,
}

impl HostPattern {
    /// The host as written, lower case, with the port if one was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host without the port; starts with `*.` for a wildcard.
    pub fn host(&self) -> &str {
        match self.port {
            Some(_) => self.text.rsplit_once(':').map_or(self.text.as_str(), |(host, _)| host),
            None => &self.text,
        }
    }

    /// The port, if one was given.
    pub fn port(&self) -> Option<u16> {
        self.port
    }
}

impl FromStr for HostPattern {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        let bad =
            || BadText::expected("a host such as `mcp.example.com`, `*.example.com` or `localhost:8080`");
        if text.contains("://") {
            return Err(bad().hint("leave out the scheme".into()));
        }
        if text.contains('/') {
            return Err(bad().hint("leave out the path".into()));
        }
        let text = text.to_ascii_lowercase();
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (host, Some(port.parse::<u16>().ok().filter(|p| *p > 0).ok_or_else(bad)?))
            }
            _ => (text.as_str(), None),
        };
        let valid = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                let name = host.strip_prefix("*.").unwrap_or(host);
                name.len() <= 253
                    && name.split('.').all(|label| {
                        (1..=63).contains(&label.len())
                            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                    })
            }
        };
        if valid { Ok(Self { text: text.clone(), port }) } else { Err(bad()) }
    }
}

/// What URLs may look like: `https://login.example.com`, `https://*.example.com:8443`, `https://example.com/realms/acme/*`.
///
/// Scheme and port must be the same, `*.` in front of the host stands for one or more labels. Without a path every path
/// matches; a path matches whole, one that ends with `/*` everything below it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UrlPattern {
    text: String,
    https: bool,
    host: HostPattern,
    path: Option<String>,
}

impl UrlPattern {
    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a URL is one of those meant. One that a program on the way could read as another path is not.
    pub fn matches(&self, url: &HttpUrl) -> bool {
        let port = self.host.port().unwrap_or(default_port(self.https));
        url.https == self.https
            && url.port == port
            && crate::config::host_matches(&self.host, &url.host, Some(port))
            && self.path.as_deref().is_none_or(|pattern| {
                let path = url.path();
                let plain = path.bytes().all(|b| b != b'%' && b != b'\\')
                    && !path.split('/').any(|part| part == "." || part == "..");
                plain
                    && match pattern.strip_suffix('*') {
                        Some(above) => path.len() > above.len() && path.starts_with(above),
                        None => path == pattern,
                    }
            })
    }
}

impl FromStr for UrlPattern {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        let bad = || {
            BadText::expected(
                "a URL such as `https://login.example.com`, `https://*.example.com` or `https://example.com/acme/*`",
            )
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(bad)?;
        let https = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(BadText::expected("a URL with the scheme `http` or `https`")),
        };
        if text.len() > MAX_URL || rest.contains(['@', '#', '?', '%', '\\']) {
            return Err(bad());
        }
        let (host, path) = match rest.find('/') {
            Some(at) => (&rest[..at], Some(&rest[at..]).filter(|path| *path != "/" && *path != "/*")),
            None => (rest, None),
        };
        let odd = |path: &str| {
            let fixed = path.strip_suffix("/*").unwrap_or(path);
            fixed.contains('*') || fixed.split('/').any(|part| part == "." || part == "..")
        };
        if path.is_some_and(odd) {
            return Err(
                bad().hint("`*` stands for a whole first label of the host or the rest of the path".into())
            );
        }
        Ok(Self {
            text: text.to_owned(),
            https,
            host: host.parse().map_err(|_| bad())?,
            path: path.map(str::to_owned),
        })
    }
}

display_as_str!(HttpUrl, HostPattern, UrlPattern);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_value!(Address, "tollgate-address", r"^[0-9a-fA-F.:\[\]]+:[0-9]+$");
text_value!(Cidr, "tollgate-cidr", r"^[0-9a-fA-F.:]+(/[0-9]+)?$");
text_value!(HostPattern, "tollgate-host", r"^[^/]+$");
text_value!(HttpUrl, "tollgate-url", r"^https?://[^#@]+$");
text_value!(UrlPattern, "tollgate-url-pattern", r"^https?://[^#@?%]+$");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_parts_are_those_of_rfc_3986() {
        let url: HttpUrl = "https://MCP.example.com/a/b?c=d".parse().unwrap();
        assert_eq!((url.host(), url.port(), url.path()), ("mcp.example.com", 443, "/a/b"));
        assert_eq!(url.path_and_query(), "/a/b?c=d");
        assert_eq!(url.origin(), "https://mcp.example.com");
        let v6: HttpUrl = "http://[::1]:8080".parse().unwrap();
        assert_eq!((v6.host(), v6.authority().as_str(), v6.path()), ("::1", "[::1]:8080", "/"));
        assert!(v6.is_loopback());
    }

    #[test]
    fn urls_with_secrets_fragments_or_other_schemes_are_refused() {
        for text in [
            "https://a:b@c/",
            "ftp://a",
            "http://a#b",
            "http://",
            "a",
            "http://a:0/",
            "http://a:99999/",
            "http://1.2.3/",
        ] {
            assert!(text.parse::<HttpUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_in_other_spellings_are_no_hosts() {
        for host in [
            "2130706433",
            "0177.0.0.1",
            "127.1",
            "0x7f000001",
            "0x7f.0.0.1",
            "127.0.0.0x1",
            "127.0.0.1.",
            "%31%32%37.0.0.1",
            "１２７.0.0.1",
            "[fe80::1%25eth0]",
            "[::1",
            "a b",
        ] {
            assert!(format!("http://{host}/").parse::<HttpUrl>().is_err(), "{host}");
        }
        for host in ["0xcafe.example.com", "1.example", "a_b.example", "[::ffff:127.0.0.1]", "example.com."] {
            assert!(format!("http://{host}/").parse::<HttpUrl>().is_ok(), "{host}");
        }
    }

    #[test]
    fn patterns_of_urls_match_by_part() {
        let matches =
            |pattern: &str, url: &str| pattern.parse::<UrlPattern>().unwrap().matches(&url.parse().unwrap());
        assert!(matches("https://login.example.com", "https://login.example.com/any/path"));
        assert!(matches("https://*.example.com/", "https://a.b.example.com"));
        assert!(matches("https://example.com/realms/acme/*", "https://example.com/realms/acme/keys"));
        for (pattern, url) in [
            ("https://login.example.com", "http://login.example.com/"),
            ("https://login.example.com", "https://login.example.com:8443/"),
            ("https://login.example.com", "https://login.example.com.evil.com/"),
            ("https://*.example.com", "https://evil.com/.example.com/"),
            ("https://*.example.com", "https://example.com/"),
            ("https://example.com/realms/acme/*", "https://example.com/realms/acme/../other/keys"),
            ("https://example.com/realms/acme/*", "https://example.com/realms/acme/%2e%2e/other/keys"),
            ("https://example.com/realms/acme/*", "https://example.com/realms/acmeother"),
            ("https://example.com/realms/acme/*", "https://example.com/realms/acme/"),
            ("https://example.com/keys", "https://example.com/keys/more"),
        ] {
            assert!(!matches(pattern, url), "{pattern} {url}");
        }
        for bad in [
            "login.example.com",
            "ftp://a",
            "https://a*b.com",
            "https://a/*/b",
            "https://u@a",
            "https://a/../*",
        ] {
            assert!(bad.parse::<UrlPattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_say_how_to_be_spelled() {
        assert_eq!("localhost:80".parse::<Address>().unwrap_err().hint.unwrap(), "write `127.0.0.1:80`");
        assert!("[::1]:80".parse::<Address>().unwrap().is_loopback());
        assert!("[::ffff:127.0.0.1]:80".parse::<Address>().unwrap().is_loopback());
        assert!(!"0.0.0.0:80".parse::<Address>().unwrap().is_loopback());
    }

    #[test]
    fn networks_with_host_bits_are_refused() {
        assert!("10.1.0.0/8".parse::<Cidr>().unwrap_err().hint.unwrap().contains("10.0.0.0/8"));
        assert_eq!("192.0.2.7".parse::<Cidr>().unwrap().to_string(), "192.0.2.7/32");
    }

    #[test]
    fn hosts_may_have_a_port_and_a_wildcard() {
        let host: HostPattern = "*.Example.com:8443".parse().unwrap();
        assert_eq!((host.host(), host.port()), ("*.example.com", Some(8443)));
        assert_eq!("[::1]".parse::<HostPattern>().unwrap().port(), None);
        for text in ["http://a", "a/b", "a..b", "*", "a:0", ""] {
            assert!(text.parse::<HostPattern>().is_err(), "{text}");
        }
    }
}
