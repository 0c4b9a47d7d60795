//! An issuer of access tokens whose key is made in this process.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::Folder;

/// Signs with ES256.
pub struct Issuer {
    name: &'static str,
    kid: &'static str,
    key: EncodingKey,
    folder: Folder,
}

impl Issuer {
    pub fn new(name: &'static str) -> Self {
        let issuer = Self { name, kid: name, key: fresh_key(), folder: Folder::new() };
        issuer.publish();
        issuer
    }

    /// Makes another key under the same id; the published set stays as it is.
    pub fn forger(&self) -> Self {
        Self { name: self.name, kid: self.kid, key: fresh_key(), folder: Folder::new() }
    }

    /// Publishes another key in place of the one before.
    pub fn rotate(&mut self, kid: &'static str) {
        (self.kid, self.key) = (kid, fresh_key());
        self.publish();
    }

    fn publish(&self) {
        let mut jwk =
            serde_json::to_value(Jwk::from_encoding_key(&self.key, Algorithm::ES256).unwrap()).unwrap();
        jwk["kid"] = json!(self.kid);
        self.folder.write("jwks.json", json!({ "keys": [jwk] }).to_string());
    }

    pub fn url(&self) -> String {
        format!("https://{}.example", self.name)
    }

    pub fn jwks(&self) -> PathBuf {
        self.folder.path().join("jwks.json")
    }

    /// The issuer's entry in `identity.issuers`: everybody is a viewer, unless the claim `role` says otherwise.
    pub fn yaml(&self) -> String {
        format!(
            "{{ name: {}, issuer: \"{}\", jwks: {{ file: \"{}\" }}, roles: {{ claim: role, map: {{ developer: \
             developer, admin: admin }}, default: viewer }} }}",
            self.name,
            self.url(),
            self.jwks().display()
        )
    }

    /// The usual claims for an audience: valid for ten minutes.
    pub fn claims(&self, subject: &str, audience: &str) -> Value {
        let now = unix_now();
        json!({ "iss": self.url(), "sub": subject, "aud": audience, "iat": now, "exp": now + 600 })
    }

    pub fn token(&self, subject: &str, audience: &str) -> String {
        self.sign(&self.claims(subject, audience))
    }

    pub fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.kid.to_owned()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }

    /// A token that says it needs no signature, and has none.
    pub fn unsigned(&self, claims: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.", encode(&json!({ "alg": "none", "typ": "JWT", "kid": self.kid })), encode(claims))
    }
}

fn fresh_key() -> EncodingKey {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    EncodingKey::from_ec_der(key.to_pkcs8v1().unwrap().as_ref())
}

pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
