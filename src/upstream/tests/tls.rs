//! Probes over TLS: private authorities, names other than the host, client certificates.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, Stream};
use rustls_pki_types::PrivateKeyDer;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::spec;
use crate::base::Clock;
use crate::upstream::*;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    fn bundle(&self) -> CaBundle {
        CaBundle::from_pem(self.0.pem().as_bytes()).unwrap()
    }
}

/// A server for `mcp.internal` that wants a client certificate of the same authority. Answers 200 to anything.
fn serve(authority: &Authority) -> SocketAddr {
    let (cert, key) = authority.issue("mcp.internal");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.0.der().clone()).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![cert.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let mut tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = Stream::new(&mut tls, &mut socket);
            if stream.read(&mut [0; 4096]).is_ok() {
                let _ =
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        }
    });
    addr
}

#[tokio::test]
async fn private_authorities_names_and_client_certificates_are_heeded() {
    let authority = Authority::new();
    let addr = serve(&authority);
    let (cert, key) = authority.issue("tollgate");
    let identity = ClientIdentity::from_pem(cert.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    let good = TlsSpec {
        roots: Some(authority.bundle()),
        identity: Some(identity),
        sni: Some("mcp.internal".to_owned()),
    };
    let cases = [
        ("good", good.clone(), true),
        ("no client certificate", TlsSpec { identity: None, ..good.clone() }, false),
        ("another authority", TlsSpec { roots: Some(Authority::new().bundle()), ..good.clone() }, false),
        ("the system's authorities", TlsSpec { roots: None, ..good.clone() }, false),
        ("another name", TlsSpec { sni: Some("other.internal".to_owned()), ..good.clone() }, false),
        ("the address as name", TlsSpec { sni: None, ..good }, false),
    ];
    let upstreams = Arc::new(Upstreams::new(Clock::default()));
    let (_stop, stopped) = watch::channel(false);
    upstreams.spawn(&Handle::current(), stopped);
    let mut servers = Vec::new();
    for (index, (name, tls, expected)) in cases.into_iter().enumerate() {
        let mut s = spec(&[&format!("https://{addr}/")]);
        s.id = format!("s{index}").as_str().into();
        s.era = EraHint::Foreign;
        s.tls = tls;
        s.health = Some(HealthSpec {
            unhealthy_after: 1,
            ..HealthSpec::new(ProbeKind::Http { path: "/".parse().unwrap(), expect: (200, 200) })
        });
        servers.push((name, upstreams.apply(s).unwrap(), expected));
    }
    for (name, server, expected) in servers {
        let mut status = server.status();
        for _ in 0..300 {
            status = server.status();
            if status.targets[0].last_probe_at.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let target = &status.targets[0];
        assert!(target.last_probe_at.is_some(), "{name}: not probed");
        assert_eq!(target.last_probe_error.is_none(), expected, "{name}: {:?}", target.last_probe_error);
    }
}
