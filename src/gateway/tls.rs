//! TLS towards clients: a certificate and client authorities that can be replaced while connections go on.
//!
//! Nothing here reads files; the caller hands over PEM bytes, at start and again when the files have changed. What does
//! not parse, or a key that does not fit its certificate, replaces nothing.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora::listeners::TlsAccept;
pub use pingora::listeners::tls::TlsSettings as Settings;
use pingora::listeners::tls::TlsSettings;
use pingora::protocols::tls::TlsRef;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Certificate material that cannot be used. The text names what is wrong, never the key itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(String);

impl TlsError {
    fn new(what: &str, why: impl fmt::Display) -> Self {
        Self(format!("{what}: {why}"))
    }
}

/// The listener's certificate. Swapped whole; handshakes under way keep the old one.
#[derive(Debug)]
pub struct ServerCertificate(ArcSwap<CertifiedKey>);

impl ServerCertificate {
    /// Reads a chain and its key from PEM.
    ///
    /// # Errors
    /// No certificate, no key, or a key that belongs to another certificate.
    pub fn new(chain_pem: &[u8], key_pem: &[u8]) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self(ArcSwap::new(parse_pair(chain_pem, key_pem)?))))
    }

    /// Replaces the certificate for handshakes to come.
    ///
    /// # Errors
    /// As [`ServerCertificate::new`]; the old certificate stays.
    pub fn replace(&self, chain_pem: &[u8], key_pem: &[u8]) -> Result<(), TlsError> {
        self.0.store(parse_pair(chain_pem, key_pem)?);
        Ok(())
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

fn parse_pair(chain_pem: &[u8], key_pem: &[u8]) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = parse_chain(chain_pem, "certificate")?;
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|e| TlsError::new("private key", e))?;
    let provider = rustls::crypto::ring::default_provider();
    let key = provider.key_provider.load_private_key(key).map_err(|e| TlsError::new("private key", e))?;
    let pair = CertifiedKey::new(chain, key);
    match pair.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
            Ok(Arc::new(pair))
        }
        Err(e) => Err(TlsError::new("certificate and key do not belong together", e)),
    }
}

fn parse_chain(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|e| TlsError::new(what, e))?;
    if chain.is_empty() {
        return Err(TlsError::new(what, "no CERTIFICATE section in the file"));
    }
    for der in &chain {
        X509Certificate::from_der(der).map_err(|e| TlsError::new(what, e))?;
    }
    Ok(chain)
}

/// The authorities that sign client certificates.
#[derive(Debug)]
pub struct ClientAuthorities {
    verifier: ArcSwap<Box<dyn ClientCertVerifier>>,
    required: bool,
}

impl ClientAuthorities {
    /// `required`: a handshake without a client certificate fails.
    ///
    /// # Errors
    /// The file holds no usable authority.
    pub fn new(ca_pem: &[u8], required: bool) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self { verifier: ArcSwap::from_pointee(verifier(ca_pem, required)?), required }))
    }

    /// Replaces the authorities for handshakes to come.
    ///
    /// # Errors
    /// As [`ClientAuthorities::new`]; the old ones stay.
    pub fn replace(&self, ca_pem: &[u8]) -> Result<(), TlsError> {
        self.verifier.store(Arc::new(verifier(ca_pem, self.required)?));
        Ok(())
    }
}

fn verifier(ca_pem: &[u8], required: bool) -> Result<Box<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for der in parse_chain(ca_pem, "client authority")? {
        roots.add(der).map_err(|e| TlsError::new("client authority", e))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if required { builder } else { builder.allow_unauthenticated() };
    let built = builder.build().map_err(|e| TlsError::new("client authority", e))?;
    Ok(Box::new(Shared(built)))
}

/// `Arc<dyn ClientCertVerifier>` does not itself implement the trait.
#[derive(Debug)]
struct Shared(Arc<dyn ClientCertVerifier>);

macro_rules! delegate {
    ($type:ty, |$self:ident| $inner:expr, hints: $hints:expr) => {
        impl ClientCertVerifier for $type {
            fn root_hint_subjects(&self) -> &[DistinguishedName] {
                let $self = self;
                let _ = $self;
                $hints
            }

            fn offer_client_auth(&self) -> bool {
                let $self = self;
                $inner.offer_client_auth()
            }

            fn client_auth_mandatory(&self) -> bool {
                let $self = self;
                $inner.client_auth_mandatory()
            }

            fn verify_client_cert(
                &self,
                end_entity: &CertificateDer<'_>,
                intermediates: &[CertificateDer<'_>],
                now: UnixTime,
            ) -> Result<ClientCertVerified, rustls::Error> {
                let $self = self;
                $inner.verify_client_cert(end_entity, intermediates, now)
            }

            fn verify_tls12_signature(
                &self,
                message: &[u8],
                cert: &CertificateDer<'_>,
                dss: &DigitallySignedStruct,
            ) -> Result<HandshakeSignatureValid, rustls::Error> {
                let $self = self;
                $inner.verify_tls12_signature(message, cert, dss)
            }

            fn verify_tls13_signature(
                &self,
                message: &[u8],
                cert: &CertificateDer<'_>,
                dss: &DigitallySignedStruct,
            ) -> Result<HandshakeSignatureValid, rustls::Error> {
                let $self = self;
                $inner.verify_tls13_signature(message, cert, dss)
            }

            fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
                let $self = self;
                $inner.supported_verify_schemes()
            }
        }
    };
}

delegate!(Shared, |this| this.0, hints: this.0.root_hint_subjects());
// The hints would have to outlive a swap; clients cope without them.
delegate!(ClientAuthorities, |this| this.verifier.load(), hints: &[]);

/// The certificate a client has shown: set once per connection, by the handshake. Tokens can be bound to it (RFC 8705).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientCertificate {
    /// SHA-256 of the certificate's DER form.
    pub(crate) sha256: [u8; 32],
}

struct Identify;

#[async_trait]
impl TlsAccept for Identify {
    async fn handshake_complete_callback(&self, tls: &TlsRef) -> Option<Arc<dyn Any + Send + Sync>> {
        let sha256 = Sha256::digest(tls.peer_certificate_der()?).into();
        Some(Arc::new(ClientCertificate { sha256 }))
    }
}

/// Pingora's settings for a listener with this certificate.
///
/// # Errors
/// Pingora refuses the settings.
pub fn settings(
    certificate: Arc<ServerCertificate>,
    authorities: Option<Arc<ClientAuthorities>>,
    h2: bool,
) -> Result<TlsSettings, TlsError> {
    let mut settings =
        TlsSettings::with_callbacks(Box::new(Identify)).map_err(|e| TlsError::new("TLS settings", e))?;
    settings.set_cert_resolver(certificate);
    if let Some(authorities) = authorities {
        settings.set_client_cert_verifier(authorities);
    }
    if h2 {
        settings.enable_h2();
    }
    Ok(settings)
}

/// The same for a listener that is not Pingora's, HTTP/1.1 only.
///
/// # Errors
/// The provider lacks a protocol version.
pub fn server_config(
    certificate: Arc<ServerCertificate>,
    authorities: Option<Arc<ClientAuthorities>>,
) -> Result<rustls::ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| TlsError::new("TLS settings", e))?;
    let builder = match authorities {
        Some(authorities) => builder.with_client_cert_verifier(authorities),
        None => builder.with_no_client_auth(),
    };
    Ok(builder.with_cert_resolver(certificate))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn pair(name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
        (cert.pem(), key.serialize_pem())
    }

    #[test]
    fn a_key_of_another_certificate_replaces_nothing() {
        let (cert, key) = pair("a.example");
        let (other, _) = pair("b.example");
        let held = ServerCertificate::new(cert.as_bytes(), key.as_bytes()).unwrap();
        let before = held.0.load_full();
        let err = held.replace(other.as_bytes(), key.as_bytes()).unwrap_err();
        assert!(err.to_string().contains("do not belong together"), "{err}");
        assert!(held.replace(b"", key.as_bytes()).is_err());
        assert!(held.replace(cert.as_bytes(), b"nonsense").is_err());
        assert!(Arc::ptr_eq(&before, &held.0.load_full()));
    }
}
