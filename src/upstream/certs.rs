//! Certificates for connections to servers: PEM text in, checked material out.
//!
//! Pingora panics on a certificate that it cannot parse and on a private key of unknown form, both while it connects.
//! Everything is therefore parsed here, once, with the same parsers, and only values that passed can reach a peer.
//! Owned by: nobody; the types are immutable and shared by `Arc`.

use std::fmt;
use std::sync::Arc;

use pingora::protocols::tls::CaType;
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Most certificates one bundle or chain may hold.
pub const MAX_CERTIFICATES: usize = 512;

/// Why a certificate, chain or key cannot be used. The operator's fault; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// A certificate in the text is not valid X.509.
    #[error("certificate {position} cannot be parsed: {reason}")]
    Certificate {
        /// Counted from one, in the order of the text.
        position: usize,
        /// What the parser said.
        reason: String,
    },
    /// The text holds no certificate at all.
    #[error("no certificate found: expected a block `-----BEGIN CERTIFICATE-----`")]
    Empty,
    /// The private key is missing or of a form that is not supported.
    #[error("private key cannot be used: {0}")]
    Key(String),
    /// The private key belongs to another certificate.
    #[error("the private key does not belong to the first certificate of the chain")]
    Mismatch,
    /// The text is not PEM.
    #[error("not PEM: {0}")]
    Pem(String),
    /// More than [`MAX_CERTIFICATES`].
    #[error("more than {MAX_CERTIFICATES} certificates")]
    TooMany,
}

/// The authorities that may vouch for a server, replacing the system's.
#[derive(Clone)]
pub struct CaBundle {
    wrapped: Arc<CaType>,
    digest: [u8; 32],
}

/// The certificate that the gateway shows to a server (mutual TLS), with its key.
#[derive(Clone)]
pub struct ClientIdentity {
    cert_key: Arc<CertKey>,
    digest: [u8; 32],
}

// === impl CaBundle ===

impl CaBundle {
    /// Reads one or more PEM certificates.
    ///
    /// # Errors
    ///
    /// [`CertError`] if the text is not PEM, holds no certificate, or one is neither valid X.509 nor usable as a
    /// trust anchor.
    pub fn from_pem(pem: &[u8]) -> Result<Self, CertError> {
        let ders = certificates(pem)?;
        let mut store = RootCertStore::empty();
        for (index, der) in ders.iter().enumerate() {
            store
                .add(der.clone())
                .map_err(|e| CertError::Certificate { position: index + 1, reason: e.to_string() })?;
        }
        let digest = digest(ders.iter().map(|d| d.as_ref()));
        let wrapped: Vec<WrappedX509> =
            ders.into_iter().map(|d| WrappedX509::new(d.as_ref().to_vec(), parse_x509)).collect();
        Ok(Self { wrapped: wrapped.into(), digest })
    }

    pub(crate) fn wrapped(&self) -> Arc<CaType> {
        Arc::clone(&self.wrapped)
    }

    /// SHA-256 over the certificates: what tells connections verified by different bundles apart.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

impl PartialEq for CaBundle {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl fmt::Debug for CaBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaBundle").field("certificates", &self.wrapped.len()).finish()
    }
}

// === impl ClientIdentity ===

impl ClientIdentity {
    /// Reads a PEM chain, leaf first, and a PEM private key (PKCS#8, PKCS#1 or SEC1).
    ///
    /// # Errors
    ///
    /// [`CertError`] if either cannot be parsed, the key's kind is not supported, or key and leaf do not match.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CertError> {
        let ders = certificates(chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| CertError::Key(e.to_string()))?;
        // Pingora hands on the bare bytes and guesses the form again: see that the guess works.
        PrivateKeyDer::try_from(key.secret_der()).map_err(|e| CertError::Key(e.to_owned()))?;
        let provider = rustls::crypto::ring::default_provider();
        CertifiedKey::from_der(ders.clone(), key.clone_key(), &provider).map_err(|e| match e {
            rustls::Error::InconsistentKeys(_) => CertError::Mismatch,
            other => CertError::Key(other.to_string()),
        })?;
        let digest = digest(ders.iter().map(|d| d.as_ref()).chain([key.secret_der()]));
        let chain = ders.into_iter().map(|d| d.as_ref().to_vec()).collect();
        Ok(Self { cert_key: Arc::new(CertKey::new(chain, key.secret_der().to_vec())), digest })
    }

    pub(crate) fn cert_key(&self) -> Arc<CertKey> {
        Arc::clone(&self.cert_key)
    }

    /// SHA-256 over chain and key: what tells connections opened with different identities apart.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

impl PartialEq for ClientIdentity {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientIdentity")
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertError> {
    let mut ders = Vec::new();
    for (index, item) in CertificateDer::pem_slice_iter(pem).enumerate() {
        if index == MAX_CERTIFICATES {
            return Err(CertError::TooMany);
        }
        let der = item.map_err(|e| CertError::Pem(e.to_string()))?;
        // The parser pingora uses: what passes here cannot make it panic later.
        match X509Certificate::from_der(der.as_ref()) {
            Ok(_) => ders.push(der),
            Err(e) => return Err(CertError::Certificate { position: index + 1, reason: e.to_string() }),
        }
    }
    if ders.is_empty() { Err(CertError::Empty) } else { Ok(ders) }
}

fn digest<'a>(parts: impl Iterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (String, String) {
        let signed = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
        (signed.cert.pem(), signed.signing_key.serialize_pem())
    }

    #[test]
    fn reads_a_bundle_and_tells_bundles_apart() {
        let (a, _) = pair();
        let (b, _) = pair();
        let one = CaBundle::from_pem(a.as_bytes()).unwrap();
        let both = CaBundle::from_pem(format!("{a}{b}").as_bytes()).unwrap();
        assert_eq!(one, CaBundle::from_pem(a.as_bytes()).unwrap());
        assert_ne!(one, both);
        assert_eq!(both.wrapped().len(), 2);
    }

    #[test]
    fn refuses_what_would_make_the_connector_panic() {
        assert!(matches!(CaBundle::from_pem(b"hello"), Err(CertError::Empty)));
        let junk = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
        assert!(matches!(
            CaBundle::from_pem(junk.as_bytes()),
            Err(CertError::Certificate { position: 1, .. })
        ));
        let broken = "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n";
        assert!(CaBundle::from_pem(broken.as_bytes()).is_err());
    }

    #[test]
    fn refuses_a_key_of_another_certificate() {
        let (cert, key) = pair();
        let (_, other) = pair();
        assert!(ClientIdentity::from_pem(cert.as_bytes(), key.as_bytes()).is_ok());
        assert!(matches!(
            ClientIdentity::from_pem(cert.as_bytes(), other.as_bytes()),
            Err(CertError::Mismatch)
        ));
        assert!(matches!(ClientIdentity::from_pem(cert.as_bytes(), b""), Err(CertError::Key(_))));
    }
}
