//! An issuer of RS256 tokens: the key set as a file, and tokens that verify against it.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use crate::Result;

/// What tokens name as their issuer.
pub const ISSUER: &str = "https://issuer.load.test";
/// Whom tokens are for.
pub const AUDIENCE: &str = "api://load";
const KEY_ID: &str = "load-1";
/// How long tokens live, in seconds: longer than any measurement.
const LIFETIME: u64 = 24 * 3600;

/// An issuer with one RSA key of 2048 bits, made for this run.
pub struct Issuer {
    key: KeyPair,
}

impl Issuer {
    /// A new key.
    ///
    /// # Errors
    /// None can be made.
    pub fn new() -> Result<Self> {
        Ok(Self { key: KeyPair::generate(KeySize::Rsa2048).map_err(|_| "cannot make an RSA key")? })
    }

    /// Writes the public key as a key set.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_jwks(&self, path: &Path) -> Result<()> {
        let (n, e) =
            modulus_and_exponent(self.key.public_key().as_ref()).ok_or("an RSA key in unknown form")?;
        let keys = json!({ "keys": [{
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": KEY_ID,
            "n": URL_SAFE_NO_PAD.encode(n), "e": URL_SAFE_NO_PAD.encode(e),
        }]});
        Ok(std::fs::write(path, keys.to_string())?)
    }

    /// A token for `subject`, in the group that the gateway's configuration takes for developers.
    ///
    /// # Errors
    /// Signing failed.
    pub fn token(&self, subject: &str) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let header = json!({ "alg": "RS256", "typ": "at+jwt", "kid": KEY_ID });
        let claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "iat": now, "nbf": now - 5, "exp": now + LIFETIME,
            "jti": format!("{subject}-{now}"), "groups": ["everyone", "mcp-developers"], "scope": "openid mcp:tools",
        });
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .map_err(|_| "cannot sign")?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// `token` with a signature that does not fit.
pub fn forged(token: &str) -> String {
    let Some((signed, signature)) = token.rsplit_once('.') else { return String::new() };
    let swapped: String = signature.chars().rev().collect();
    format!("{signed}.{}A", &swapped[1..])
}

/// The two numbers of a DER `RSAPublicKey` (RFC 8017 A.1.1), without leading zeros.
fn modulus_and_exponent(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (sequence, _) = element(der, 0x30)?;
    let (n, rest) = element(sequence, 0x02)?;
    let (e, _) = element(rest, 0x02)?;
    let strip = |number: &'_ [u8]| number.iter().position(|b| *b != 0).unwrap_or(0);
    Some((&n[strip(n)..], &e[strip(e)..]))
}

/// The content of a DER element and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    if found != tag {
        return None;
    }
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        (bytes.iter().try_fold(0usize, |n, b| n.checked_mul(256)?.checked_add(usize::from(*b)))?, rest)
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_set_and_a_token_come_out() {
        let issuer = Issuer::new().unwrap();
        let path = std::env::temp_dir().join(format!("tollgate-load-jwks-{}", std::process::id()));
        issuer.write_jwks(&path).unwrap();
        let keys: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        std::fs::remove_file(&path).unwrap();
        let modulus = URL_SAFE_NO_PAD.decode(keys["keys"][0]["n"].as_str().unwrap()).unwrap();
        assert_eq!((modulus.len(), keys["keys"][0]["e"].as_str()), (256, Some("AQAB")));
        let token = issuer.token("a").unwrap();
        assert_eq!(token.split('.').count(), 3);
        assert_ne!(forged(&token), token);
        assert_eq!(forged(&token).len(), token.len());
    }
}
