//! Addresses: which networks are trusted, and who the client really is behind proxies.

use std::net::IpAddr;

use ipnet::IpNet;

/// How many hops of `X-Forwarded-For` are looked at; the rest is not believed.
const MAX_FORWARDED_HOPS: usize = 32;

/// An address as text, without the detour of `fmt` for IPv4: every request writes its client's several times.
#[derive(Clone, Copy, Debug)]
pub struct AddressText {
    bytes: [u8; 45],
    length: usize,
}

impl AddressText {
    /// Writes `address`.
    pub fn new(address: IpAddr) -> Self {
        let mut text = Self { bytes: [0; 45], length: 0 };
        match address {
            IpAddr::V4(v4) => {
                for (at, octet) in v4.octets().into_iter().enumerate() {
                    if at > 0 {
                        text.push(b'.');
                    }
                    if octet >= 100 {
                        text.push(b'0' + octet / 100);
                    }
                    if octet >= 10 {
                        text.push(b'0' + octet / 10 % 10);
                    }
                    text.push(b'0' + octet % 10);
                }
            }
            IpAddr::V6(v6) => v6.to_string().bytes().take(45).for_each(|byte| text.push(byte)),
        }
        text
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }
}

/// The networks whose `X-Forwarded-For` is believed.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Wraps a list of networks; an empty one believes nobody.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether `address` belongs to a trusted proxy.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|n| n.contains(&address))
    }

    /// The client's address: the connection's peer, or, if the peer is a trusted proxy, the right-most entry of
    /// `X-Forwarded-For` that is not itself a trusted proxy. A malformed entry ends the search at the last good one,
    /// because what stands left of it may have been written by anyone.
    pub fn client_address<'a>(
        &self,
        peer: IpAddr,
        forwarded_for: impl DoubleEndedIterator<Item = &'a str>,
    ) -> IpAddr {
        let peer = peer.to_canonical();
        if self.0.is_empty() || !self.contains(peer) {
            return peer;
        }
        let mut client = peer;
        let hops = forwarded_for.rev().flat_map(|line| line.rsplit(',')).take(MAX_FORWARDED_HOPS);
        for hop in hops {
            let Some(address) = parse_hop(hop.trim()) else { break };
            client = address;
            if !self.contains(address) {
                break;
            }
        }
        client
    }
}

/// `1.2.3.4`, `1.2.3.4:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let address = match hop.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0.parse().ok()?,
        None => match hop.parse() {
            Ok(address) => address,
            Err(_) => hop.rsplit_once(':')?.0.parse().ok()?,
        },
    };
    Some(IpAddr::to_canonical(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted() -> TrustedProxies {
        TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()])
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_written_as_display_writes_them() {
        for text in [
            "0.0.0.0",
            "127.0.0.1",
            "10.20.30.40",
            "255.100.99.9",
            "::",
            "2001:db8::1",
            "::ffff:192.168.100.200",
        ] {
            assert_eq!(AddressText::new(ip(text)).as_str(), text);
        }
        let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        assert_eq!(AddressText::new(ip(longest)).as_str(), longest);
    }

    #[test]
    fn an_untrusted_peer_cannot_claim_another_address() {
        assert_eq!(trusted().client_address(ip("192.0.2.9"), ["203.0.113.1"].into_iter()), ip("192.0.2.9"));
        assert_eq!(
            TrustedProxies::default().client_address(ip("10.0.0.1"), ["1.1.1.1"].into_iter()),
            ip("10.0.0.1")
        );
    }

    #[test]
    fn the_right_most_untrusted_hop_is_the_client() {
        let lines = ["6.6.6.6, 203.0.113.7", "10.1.1.1"];
        assert_eq!(trusted().client_address(ip("10.0.0.1"), lines.into_iter()), ip("203.0.113.7"));
    }

    #[test]
    fn a_malformed_hop_ends_the_search() {
        let lines = ["203.0.113.7, nonsense, 10.1.1.1"];
        assert_eq!(trusted().client_address(ip("10.0.0.1"), lines.into_iter()), ip("10.1.1.1"));
    }

    #[test]
    fn ports_brackets_and_mapped_addresses_are_understood() {
        for (text, want) in [
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("192.0.2.1:80", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
        ] {
            assert_eq!(trusted().client_address(ip("::1"), [text].into_iter()), ip(want), "{text}");
        }
    }
}
