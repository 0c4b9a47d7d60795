//! Which addresses a server's targets may have.
//!
//! A tenant that may name hosts freely could point a target at the gateway's own network (SSRF), or at a name that
//! later resolves to it (DNS rebinding). The guard is asked about every address of every resolution, and peers are
//! built from checked addresses only, so there is no moment between the check and the dial.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// What a target may resolve to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AddressGuard {
    /// Any address. For documents of the platform's owner.
    #[default]
    AllowAll,
    /// Public addresses, and those in the given networks.
    PublicOnly {
        /// Networks that are allowed although they are not public.
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
        if except.iter().any(|net| net.contains(&plain)) {
            return Ok(());
        }
        Err(RefusedAddress { address, kind })
    }
}

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
    } else if (a == 192 && b == 0 && c == 0) || a >= 240 {
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
    } else if v6.is_multicast() {
        Some("a multicast address")
    } else if s[0] == 0x2001 && s[1] == 0xdb8 {
        Some("a documentation or benchmark address")
    } else if s[0] == 0x2001 && s[1] == 0 {
        // Teredo carries an obfuscated IPv4 address; nobody serves MCP over it.
        Some("a tunnel address")
    } else if s[0] == 0x2002 {
        special_v4(embedded(s[1], s[2]))
    } else if s[..6] == [0x64, 0xff9b, 0, 0, 0, 0] || s[..6] == [0; 6] {
        // NAT64, and the deprecated IPv4-compatible form: what counts is the address inside.
        special_v4(embedded(s[6], s[7]))
    } else {
        None
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
        ] {
            assert!(refused(text), "{text} must be refused");
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
