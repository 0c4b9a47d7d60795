//! Who the client is behind proxies.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::FORWARDED;

use crate::base::net::TrustedProxies;
use crate::config::model::ForwardedHeader;
use crate::gateway::headers::X_FORWARDED_FOR;

/// The client's address: the connection's peer, unless that is a trusted proxy that says otherwise.
pub(crate) fn address(
    headers: &HeaderMap,
    peer: IpAddr,
    trusted: &TrustedProxies,
    header: ForwardedHeader,
) -> IpAddr {
    if !trusted.contains(peer) {
        return peer;
    }
    match header {
        ForwardedHeader::XForwardedFor => trusted
            .client_address(peer, headers.get_all(X_FORWARDED_FOR).iter().filter_map(|v| v.to_str().ok())),
        ForwardedHeader::XRealIp => {
            let mut values = headers.get_all("x-real-ip").iter();
            let first = values.next().and_then(|v| v.to_str().ok()).and_then(|v| v.trim().parse().ok());
            first.filter(|_| values.next().is_none()).unwrap_or(peer)
        }
        ForwardedHeader::Forwarded => {
            let hops: Vec<&str> = headers
                .get_all(FORWARDED)
                .iter()
                .filter_map(|v| v.to_str().ok())
                .flat_map(|line| line.split(','))
                .map(forwarded_for)
                .collect();
            trusted.client_address(peer, hops.into_iter())
        }
    }
}

/// The `for` parameter of one element of `Forwarded` (RFC 7239 §4); empty, which is no address, if it has none.
fn forwarded_for(element: &str) -> &str {
    element
        .split(';')
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| name.eq_ignore_ascii_case("for"))
        .map_or("", |(_, value)| value.trim().trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn resolve(name: &'static str, value: &'static str, kind: ForwardedHeader) -> IpAddr {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        let trusted = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
        address(&headers, "10.0.0.1".parse().unwrap(), &trusted, kind)
    }

    #[test]
    fn each_header_is_read_by_its_own_rules_and_no_other() {
        let want: IpAddr = "192.0.2.60".parse().unwrap();
        let forwarded = r#"for="[2001:db8::1]", For=192.0.2.60;proto=http;by=203.0.113.43, for=10.2.2.2"#;
        assert_eq!(resolve("forwarded", forwarded, ForwardedHeader::Forwarded), want);
        assert_eq!(resolve("x-forwarded-for", "1.1.1.1, 192.0.2.60", ForwardedHeader::XForwardedFor), want);
        assert_eq!(resolve("x-real-ip", "192.0.2.60", ForwardedHeader::XRealIp), want);
        let peer: IpAddr = "10.0.0.1".parse().unwrap();
        assert_eq!(resolve("x-real-ip", "192.0.2.60", ForwardedHeader::XForwardedFor), peer);
    }
}
