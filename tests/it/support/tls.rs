//! Certificates made in this process, and clients that check them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::{Folder, within};

/// A private authority.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: Folder,
}

/// A certificate with its key.
pub struct Leaf {
    pub certificate: rcgen::Certificate,
    pub key: KeyPair,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = Folder::new();
        folder.write("ca.pem", issuer.pem());
        Self { issuer, folder }
    }

    /// The file with the authority's own certificate.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub fn issue(&self, name: &str) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        Leaf { certificate: params.signed_by(&key, &self.issuer).unwrap(), key }
    }

    /// Writes `NAME.pem` and `NAME.key`, in place of what was there.
    pub fn write(&self, file: &str, leaf: &Leaf) -> (PathBuf, PathBuf) {
        let key = self.folder.write(&format!("{file}.key"), leaf.key.serialize_pem());
        (self.folder.write(&format!("{file}.pem"), leaf.certificate.pem()), key)
    }

    /// Puts a file in the place of one that was written.
    pub fn replace(&self, file: &str, content: &[u8]) {
        self.folder.write(file, content);
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        roots
    }

    /// For a server of this authority.
    pub fn server(&self, name: &str) -> Arc<ServerConfig> {
        let leaf = self.issue(name);
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.certificate.der().clone()], leaf.private_key())
            .unwrap();
        Arc::new(config)
    }

    /// For a client that trusts this authority only.
    pub fn client(&self, alpn: &[&str], identity: Option<&Leaf>) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots());
        let mut config = match identity {
            Some(leaf) => builder
                .with_client_auth_cert(vec![leaf.certificate.der().clone()], leaf.private_key())
                .unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

impl Leaf {
    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }

    pub fn der(&self) -> &CertificateDer<'static> {
        self.certificate.der()
    }
}

/// A handshake with a server that must be `name`.
pub async fn dial_tls(
    address: SocketAddr,
    name: &str,
    config: Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = within("connect", TcpStream::connect(address)).await?;
    let name = ServerName::try_from(name.to_owned()).expect("a host name");
    within("a TLS handshake", tokio_rustls::TlsConnector::from(config).connect(name, stream)).await
}
