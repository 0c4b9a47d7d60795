//! Which addresses a server's targets may have, and an issuer's keys.
//!
//! A tenant that may name hosts freely could point a target at the gateway's own network (SSRF), or at a name that
//! later resolves to it (DNS rebinding). The guard is asked about every address of every resolution, and peers are
//! built from checked addresses only, so there is no moment between the check and the dial.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// What a target may resolve to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum AddressGuard {
    /// Any address. For documents of the platform's owner.
    #[default]
    AllowAll,
    /// Public addresses, and those in the given networks.
    PublicOnly {
        /// Networks that are allowed although they are not public. They cover link-local addresses and those of cloud
        /// metadata services only if they are no wider than what is special about these: `10.0.0.0/8` and `0.0.0.0/0`
        /// say nothing about `169.254.169.254`.
        except: Vec<IpNet>,
    },
}

/// The address is not one that this server may dial. The document's fault; a retry does not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("address {address} is not allowed for this server: it is {kind}")]
pub struct RefusedAddress {
    /// The address as resolved.
    pub address: IpAddr,
    /// What kind of address it is.
    pub kind: &'static str,
}

impl AddressGuard {
    /// Checks one address.
    ///
    /// # Errors
    ///
    /// [`RefusedAddress`] if the address is not public and not excepted.
    pub fn check(&self, address: IpAddr) -> Result<(), RefusedAddress> {
        let AddressGuard::PublicOnly { except } = self else { return Ok(()) };
        let plain = address.to_canonical();
        let Some(kind) = special(plain) else { return Ok(()) };
        let narrow = narrowest(plain);
        if except.iter().any(|net| net.prefix_len() >= narrow && net.contains(&plain)) {
            return Ok(());
        }
        Err(RefusedAddress { address, kind })
    }
}

/// How many bits a network must fix, at least, to be taken as a grant of an address that hands out credentials.
fn narrowest(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(v4) if METADATA_V4.contains(&v4) => 32,
        IpAddr::V4(v4) if v4.is_link_local() => 16,
        IpAddr::V6(v6) if METADATA_V6.contains(&v6) => 128,
        IpAddr::V6(v6) if v6.segments()[0] & 0xffc0 == 0xfe80 => 10,
        // As many as its own address needs, and those before it.
        IpAddr::V6(v6) => carried(v6).map_or(0, |(inner, before)| match narrowest(inner.into()) {
            0 => 0,
            bits => before + bits,
        }),
        IpAddr::V4(_) => 0,
    }
}

/// The IPv4 address that an IPv6 address leads to (6to4, NAT64, the deprecated IPv4-compatible form), and how many bits
/// stand before it.
fn carried(v6: Ipv6Addr) -> Option<(Ipv4Addr, u8)> {
    let s = v6.segments();
    if s[0] == 0x2002 {
        Some((embedded(s[1], s[2]), 16))
    } else if s[..6] == [0x64, 0xff9b, 0, 0, 0, 0] || s[..6] == [0; 6] {
        Some((embedded(s[6], s[7]), 96))
    } else {
        None
    }
}

/// Metadata services of clouds outside of the link-local networks: Alibaba, Oracle.
const METADATA_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];

/// Metadata services of clouds: AWS, Google.
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

/// What is special about an address; `None` for one that is reachable on the public Internet.
fn special(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => special_v4(v4),
        IpAddr::V6(v6) => special_v6(v6),
    }
}

fn special_v4(v4: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = v4.octets();
    if v4.is_loopback() {
        Some("a loopback address")
    } else if a == 0 {
        Some("an unspecified address")
    } else if v4.is_private() {
        Some("a private address")
    } else if v4.is_link_local() {
        Some("a link-local address")
    } else if a == 100 && (64..128).contains(&b) {
        Some("a carrier-grade NAT address")
    } else if (a == 192 && b == 0 && c == 0) || (a == 192 && b == 88 && c == 99) || a >= 240 {
        Some("a reserved address")
    } else if v4.is_documentation() || (a == 198 && (b == 18 || b == 19)) {
        Some("a documentation or benchmark address")
    } else if v4.is_multicast() {
        Some("a multicast address")
    } else {
        None
    }
}

fn special_v6(v6: Ipv6Addr) -> Option<&'static str> {
    let s = v6.segments();
    if v6.is_loopback() {
        Some("a loopback address")
    } else if v6.is_unspecified() {
        Some("an unspecified address")
    } else if s[0] & 0xfe00 == 0xfc00 {
        Some("a private address")
    } else if s[0] & 0xffc0 == 0xfe80 {
        Some("a link-local address")
    } else if s[0] & 0xffc0 == 0xfec0 {
        Some("a site-local address")
    } else if v6.is_multicast() {
        Some("a multicast address")
    } else if s[..4] == [0x100, 0, 0, 0] || s[0] == 0x5f00 || s[..3] == [0x64, 0xff9b, 1] {
        Some("a reserved address")
    } else if (s[0] == 0x2001 && s[1] == 0xdb8) || s[..3] == [0x2001, 2, 0] || s[0] & 0xfff0 == 0x3ff0 {
        Some("a documentation or benchmark address")
    } else if s[0] == 0x2001 && s[1] == 0 {
        // Teredo carries an obfuscated IPv4 address; nobody serves MCP over it.
        Some("a tunnel address")
    } else {
        // What counts is the address inside.
        carried(v6).and_then(|(inner, _)| special_v4(inner))
    }
}

fn embedded(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> bool {
        AddressGuard::PublicOnly { except: Vec::new() }.check(text.parse().unwrap()).is_err()
    }

    #[test]
    fn refuses_what_is_not_public_in_every_spelling() {
        for text in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "::7f00:1",
            "fd00:ec2::254",
            "100.100.100.200",
            "192.0.0.192",
            "fec0::1",
            "64:ff9b:1::1",
            "64:ff9b::a9fe:a9fe",
            "3fff::1",
        ] {
            assert!(refused(text), "{text} must be refused");
        }
    }

    #[test]
    fn a_wide_network_is_no_grant_of_metadata_or_link_local_addresses() {
        let allows = |net: &str, address: &str| {
            let guard = AddressGuard::PublicOnly { except: vec![net.parse().unwrap()] };
            guard.check(address.parse().unwrap()).is_ok()
        };
        for (net, address) in [
            ("0.0.0.0/0", "169.254.169.254"),
            ("169.0.0.0/8", "169.254.169.254"),
            ("0.0.0.0/0", "::ffff:169.254.169.254"),
            ("100.64.0.0/10", "100.100.100.200"),
            ("192.0.0.0/24", "192.0.0.192"),
            ("fd00::/8", "fd00:ec2::254"),
            ("::/0", "fe80::1"),
            ("::/0", "64:ff9b::a9fe:a9fe"),
            ("64:ff9b::/96", "64:ff9b::a9fe:a9fe"),
            ("::/0", "2002:a9fe:a9fe::1"),
            ("::/0", "::169.254.169.254"),
        ] {
            assert!(!allows(net, address), "{net} {address}");
        }
        for (net, address) in [
            ("169.254.0.0/16", "169.254.169.254"),
            ("169.254.169.254/32", "::ffff:169.254.169.254"),
            ("fe80::/10", "fe80::1"),
            ("fd00:ec2::254/128", "fd00:ec2::254"),
            ("fd00::/8", "fd00:ec2::1"),
            ("100.64.0.0/10", "100.64.0.1"),
            ("64:ff9b::a9fe:0/112", "64:ff9b::a9fe:a9fe"),
            ("64:ff9b::/96", "64:ff9b::a00:1"),
        ] {
            assert!(allows(net, address), "{net} {address}");
        }
    }

    #[test]
    fn allows_public_addresses_and_exceptions() {
        for text in ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"] {
            assert!(!refused(text), "{text} must be allowed");
        }
        let guard = AddressGuard::PublicOnly { except: vec!["10.1.0.0/16".parse().unwrap()] };
        assert!(guard.check("10.1.9.9".parse().unwrap()).is_ok());
        assert!(guard.check("::ffff:10.1.9.9".parse().unwrap()).is_ok());
        assert!(guard.check("10.2.0.1".parse().unwrap()).is_err());
        assert!(AddressGuard::AllowAll.check("127.0.0.1".parse().unwrap()).is_ok());
    }
}
