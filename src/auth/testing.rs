//! Signers and fakes for tests. Keys are made in the process; nothing secret is checked in.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::auth::{FetchError, JwksFetch, JwksSpec, KeyHash, KeyRecord, KeyScopes, generate_api_key};
use crate::base::Role;

/// A key pair that signs tokens.
#[derive(Clone)]
pub(crate) struct Signer {
    pub(crate) kid: &'static str,
    alg: Algorithm,
    key: EncodingKey,
}

impl Signer {
    /// RS256. Making a key takes long, so all of these share one of two keys, chosen by the id.
    pub(crate) fn rsa(kid: &'static str) -> Self {
        static KEYS: LazyLock<[EncodingKey; 2]> = LazyLock::new(|| {
            [(); 2].map(|()| {
                let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
                let pkcs8: aws_lc_rs::encoding::Pkcs8V1Der<'_> = key.as_der().unwrap();
                // The PKCS#1 key inside PKCS#8 is what the signer takes.
                EncodingKey::from_rsa_der(pkcs1(pkcs8.as_ref()))
            })
        });
        Self { kid, alg: Algorithm::RS256, key: KEYS[usize::from(kid == "other")].clone() }
    }

    pub(crate) fn es256(kid: &'static str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let der = key.to_pkcs8v1().unwrap();
        Self { kid, alg: Algorithm::ES256, key: EncodingKey::from_ec_der(der.as_ref()) }
    }

    pub(crate) fn es384(kid: &'static str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let der = key.to_pkcs8v1().unwrap();
        Self { kid, alg: Algorithm::ES384, key: EncodingKey::from_ec_der(der.as_ref()) }
    }

    pub(crate) fn ed25519(kid: &'static str) -> Self {
        let key = Ed25519KeyPair::generate().unwrap();
        let der = key.to_pkcs8v1().unwrap();
        Self { kid, alg: Algorithm::EdDSA, key: EncodingKey::from_ed_der(der.as_ref()) }
    }

    /// The same key, under another algorithm of its family.
    pub(crate) fn with_alg(mut self, alg: Algorithm) -> Self {
        self.alg = alg;
        self
    }

    /// The public key, without `alg`.
    pub(crate) fn jwk(&self) -> Value {
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&self.key, self.alg).unwrap()).unwrap();
        jwk.as_object_mut().unwrap().remove("alg");
        jwk["kid"] = json!(self.kid);
        jwk["use"] = json!("sig");
        jwk
    }

    /// A token with these claims and the key's id.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.kid.to_owned()), ..Header::new(self.alg) };
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }

    /// A token with any header and payload, signed with this key whatever the header says.
    pub(crate) fn sign_raw(&self, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &self.key, self.alg).unwrap();
        format!("{signed}.{signature}")
    }
}

/// Strips the PKCS#8 wrapping of an RSA key: SEQUENCE { version, algorithm, OCTET STRING { key } }.
fn pkcs1(pkcs8: &[u8]) -> &[u8] {
    let content =
        |at: usize| at + 2 + if pkcs8[at + 1] < 0x80 { 0 } else { usize::from(pkcs8[at + 1] & 0x7f) };
    let version = content(0);
    let algorithm = version + 3;
    let octets = algorithm + 2 + usize::from(pkcs8[algorithm + 1]);
    assert_eq!(pkcs8[octets], 0x04, "an octet string");
    &pkcs8[content(octets)..]
}

/// The JWKS document of these signers.
pub(crate) fn jwks(signers: &[Signer]) -> String {
    json!({ "keys": signers.iter().map(Signer::jwk).collect::<Vec<_>>() }).to_string()
}

/// A fresh API key and its record.
pub(crate) fn key_record(role: Role) -> (String, KeyRecord) {
    let key = generate_api_key(&mut rand::rng());
    let text = key.text.expose().clone();
    let record = KeyRecord {
        id: key.id,
        hash: KeyHash::of(text.as_bytes(), None),
        principal: None,
        roles: vec![role],
        scopes: KeyScopes::default(),
        cidr: Vec::new(),
        created: None,
        expires: None,
        disabled: false,
        note: None,
    };
    (text, record)
}

/// Serves what it is told to, and counts.
pub(crate) struct FakeFetch {
    answer: Mutex<Result<String, FetchError>>,
    calls: AtomicUsize,
}

impl FakeFetch {
    pub(crate) fn new(document: String) -> Self {
        Self { answer: Mutex::new(Ok(document)), calls: AtomicUsize::new(0) }
    }

    pub(crate) fn serve(&self, document: String) {
        *self.answer.lock() = Ok(document);
    }

    pub(crate) fn fail(&self, problem: &str) {
        *self.answer.lock() = Err(FetchError(problem.to_owned()));
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl JwksFetch for FakeFetch {
    async fn fetch(&self, _: &JwksSpec) -> Result<Vec<u8>, FetchError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.answer.lock().clone().map(String::into_bytes)
    }
}
