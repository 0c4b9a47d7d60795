//! The only place that builds peers and connectors.
//!
//! Pingora's own constructor resolves names (blocking) and unwraps, and its connections are reused by a hash that
//! leaves out the authorities that vouched for them. Hence: a peer is built from a checked socket address, its SNI is
//! never empty (empty turns verification off), and `group_key` names tenant, authorities, client identity and
//! protocol, so that a connection is reused only by those who would have opened the same one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::Connector;
use pingora::protocols::TcpKeepalive;
use pingora::protocols::tls::ALPN;
use pingora::upstreams::peer::HttpPeer;
use sha2::{Digest, Sha256};

use crate::upstream::spec::{Scheme, ServerSpec, TargetSpec};

/// Idle connections kept for each thread of the data plane.
pub const IDLE_PER_THREAD: usize = 512;
/// Streams in one HTTP/2 connection. Times the stream window this is the connection window, so that a stream nobody
/// reads does not stop the others.
pub const H2_STREAMS: usize = 32;
/// Bytes a server may send on a stream before we read.
pub const H2_STREAM_WINDOW: u32 = 256 * 1024;
/// TCP keep-alive: silent for this long, then probed.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_COUNT: usize = 3;
/// Sent bytes may stay unacknowledged this long.
const KEEPALIVE_USER_TIMEOUT: Duration = Duration::from_secs(60);
const H2_PING: Duration = Duration::from_secs(30);

/// The connector of the data plane. Create one, on the runtime that will use it: its connections belong to that
/// runtime. Loads the system's certificate authorities, which takes a while.
pub fn client_connector(threads: usize) -> Connector {
    Connector::new(Some(ConnectorOptions::new(IDLE_PER_THREAD.saturating_mul(threads.max(1)))))
}

/// The peer of one address of a target.
pub(crate) fn build(spec: &ServerSpec, target: &TargetSpec, addr: SocketAddr) -> Arc<HttpPeer> {
    let tls = target.scheme == Scheme::Https;
    let sni = spec.tls.sni.clone().unwrap_or_else(|| target.host.clone());
    let mut peer = HttpPeer::new(addr, tls, sni);
    peer.group_key = group_key(spec);
    if tls {
        peer.client_cert_key = spec.tls.identity.as_ref().map(|i| i.cert_key());
        peer.options.ca = spec.tls.roots.as_ref().map(|r| r.wrapped());
    }
    let options = &mut peer.options;
    options.connection_timeout = Some(spec.timeouts.connect);
    options.total_connection_timeout = Some(spec.timeouts.connect);
    options.idle_timeout = Some(spec.pool_idle);
    options.tcp_keepalive = Some(TcpKeepalive {
        idle: KEEPALIVE_IDLE,
        interval: KEEPALIVE_INTERVAL,
        count: KEEPALIVE_COUNT,
        #[cfg(target_os = "linux")]
        user_timeout: KEEPALIVE_USER_TIMEOUT,
    });
    options.alpn = match (spec.h2, tls) {
        (false, _) => ALPN::H1,
        (true, true) => ALPN::H2H1,
        // Clear text has no negotiation: the server must speak it.
        (true, false) => ALPN::H2,
    };
    if spec.h2 {
        options.max_h2_streams = H2_STREAMS;
        options.h2_stream_window_size = Some(H2_STREAM_WINDOW);
        options.h2_connection_window_size = Some(H2_STREAM_WINDOW * H2_STREAMS as u32);
        options.h2_ping_interval = Some(H2_PING);
    }
    Arc::new(peer)
}

fn group_key(spec: &ServerSpec) -> u64 {
    let mut hash = Sha256::new();
    let tenant = spec.tenant.as_str().as_bytes();
    hash.update((tenant.len() as u64).to_be_bytes());
    hash.update(tenant);
    for digest in
        [spec.tls.roots.as_ref().map(|r| r.digest()), spec.tls.identity.as_ref().map(|i| i.digest())]
    {
        hash.update([u8::from(digest.is_some())]);
        hash.update(digest.unwrap_or(&[0; 32]));
    }
    hash.update([u8::from(spec.h2)]);
    let bytes: [u8; 32] = hash.finalize().into();
    u64::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ServerId, TenantId};
    use crate::upstream::certs::CaBundle;
    use pingora::upstreams::peer::Peer;

    fn spec(tenant: &str, url: &str) -> ServerSpec {
        ServerSpec::new(TenantId::new(tenant), ServerId::new("s"), vec![TargetSpec::parse(url, 1).unwrap()])
    }

    fn peer(spec: &ServerSpec) -> Arc<HttpPeer> {
        build(spec, &spec.targets[0], ([10, 0, 0, 1], 443).into())
    }

    #[test]
    fn always_names_the_server_and_never_times_reads() {
        let p = peer(&spec("a", "https://mcp.example/"));
        assert_eq!(p.sni, "mcp.example");
        assert!(p.verify_cert() && p.verify_hostname());
        assert_eq!(p.options.read_timeout, None);
        assert_eq!(peer(&spec("a", "https://[2001:db8::1]/")).sni, "2001:db8::1");
        let mut named = spec("a", "https://10.0.0.1/");
        named.tls.sni = Some("mcp.internal".to_owned());
        assert_eq!(peer(&named).sni, "mcp.internal");
    }

    #[test]
    fn connections_are_not_shared_across_tenants_authorities_or_protocols() {
        let plain = spec("a", "https://mcp.example/");
        let mut hashes =
            vec![peer(&plain).reuse_hash(), peer(&spec("b", "https://mcp.example/")).reuse_hash()];
        let mut h2 = plain.clone();
        h2.h2 = true;
        hashes.push(peer(&h2).reuse_hash());
        let mut private = plain.clone();
        let cert = rcgen::generate_simple_self_signed(vec!["mcp.example".to_owned()]).unwrap().cert.pem();
        private.tls.roots = Some(CaBundle::from_pem(cert.as_bytes()).unwrap());
        hashes.push(peer(&private).reuse_hash());
        let distinct: std::collections::HashSet<_> = hashes.iter().collect();
        assert_eq!(distinct.len(), hashes.len());
        assert_eq!(peer(&plain).reuse_hash(), hashes[0], "the same spec reuses");
    }

    #[test]
    fn h2_in_clear_text_has_no_fallback() {
        let mut s = spec("a", "http://mcp.example/");
        assert_eq!(peer(&s).options.alpn, ALPN::H1);
        s.h2 = true;
        assert_eq!(peer(&s).options.alpn, ALPN::H2);
        s.targets[0].scheme = Scheme::Https;
        assert_eq!(peer(&s).options.alpn, ALPN::H2H1);
    }
}
