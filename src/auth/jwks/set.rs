//! One JWKS document, parsed: only public signature keys that are strong enough.

use std::collections::HashMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::auth::error::shorten;
use crate::auth::jwks::JwksError;
use crate::auth::{Alg, AlgSet};

/// The largest JWKS document, in bytes.
pub const MAX_JWKS_BYTES: usize = 1024 * 1024;
/// The most keys of one document; later ones are skipped with a warning.
pub(crate) const MAX_KEYS: usize = 64;
/// The most keys that are tried on one token.
pub(crate) const MAX_CANDIDATES: usize = 8;
/// The longest key id, in bytes.
pub(crate) const MAX_KID_BYTES: usize = 256;
const MIN_RSA_BITS: usize = 2048;
const MAX_RSA_BITS: usize = 8192;
/// Larger public exponents only serve to make verification slow.
const MAX_RSA_EXPONENT_BYTES: usize = 4;

/// Identifies a key together with everything that decides where it may be used: SHA-256 over its RFC 7638 thumbprint
/// input, its id and its algorithms. A cached verification counts only as long as the set holds this very print.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct KeyPrint([u8; 32]);

/// A public key that may verify tokens.
pub(crate) struct VerifyKey {
    pub(crate) algs: AlgSet,
    pub(crate) decoding: DecodingKey,
    pub(crate) print: KeyPrint,
    kid: Option<Box<str>>,
}

/// The usable keys of one JWKS document.
#[derive(Default)]
pub struct KeySet {
    keys: Vec<VerifyKey>,
    /// Beside the keys, densely: read on every request.
    prints: Vec<KeyPrint>,
    by_kid: HashMap<Box<str>, Vec<usize>>,
}

impl KeySet {
    /// Parses a JWKS document. Returns the usable keys and one warning for each entry that was skipped. A document
    /// without usable keys is not an error: an issuer may withdraw all its keys.
    pub fn parse(document: &[u8]) -> Result<(KeySet, Vec<String>), JwksError> {
        if document.len() > MAX_JWKS_BYTES {
            return Err(JwksError::TooLarge);
        }
        let document: Document<'_> =
            serde_json::from_slice(document).map_err(|e| JwksError::Malformed(e.to_string()))?;
        let mut set = KeySet::default();
        let mut warnings = Vec::new();
        for (index, raw) in document.keys.iter().enumerate() {
            if index >= MAX_KEYS {
                warnings.push(format!("keys after the first {MAX_KEYS} are ignored"));
                break;
            }
            match VerifyKey::parse(raw.get()) {
                Ok(key) if set.prints.contains(&key.print) => {}
                Ok(key) => set.push(key),
                Err(problem) => warnings.push(format!("key {index} is skipped: {problem}")),
            }
        }
        Ok((set, warnings))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Hot: whether the key is still listed. At most 64 comparisons, typically two or three.
    pub(crate) fn holds(&self, print: &KeyPrint) -> bool {
        self.prints.contains(print)
    }

    /// The keys that may have signed a token with this header, at most [`MAX_CANDIDATES`], and whether the token named
    /// one of them. A token without `kid`, and keys without one, are matched by algorithm alone.
    pub(crate) fn candidates(&self, kid: Option<&str>, alg: Alg) -> (Vec<&VerifyKey>, bool) {
        let fits = |key: &&VerifyKey| key.algs.contains(alg);
        if let Some(kid) = kid {
            let named = self.by_kid.get(kid).map(Vec::as_slice).unwrap_or_default();
            if !named.is_empty() {
                let keys = named.iter().map(|i| &self.keys[*i]).filter(fits).take(MAX_CANDIDATES);
                return (keys.collect(), true);
            }
            let unnamed = self.keys.iter().filter(|k| k.kid.is_none()).filter(fits).take(MAX_CANDIDATES);
            return (unnamed.collect(), false);
        }
        (self.keys.iter().filter(fits).take(MAX_CANDIDATES).collect(), false)
    }

    fn push(&mut self, key: VerifyKey) {
        if let Some(kid) = &key.kid {
            self.by_kid.entry(kid.clone()).or_default().push(self.keys.len());
        }
        self.prints.push(key.print);
        self.keys.push(key);
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|k| (&k.kid, k.algs))).finish()
    }
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct RawKey {
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    kid: Option<String>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<serde::de::IgnoredAny>,
}

impl VerifyKey {
    fn parse(text: &str) -> Result<Self, String> {
        let raw: RawKey = serde_json::from_str(text).map_err(|e| format!("not a key: {e}"))?;
        if raw.d.is_some() {
            return Err("it contains the private part; the issuer must replace it".to_owned());
        }
        if raw.usage.as_deref().is_some_and(|u| u != "sig") {
            return Err("it is not for signatures (`use`)".to_owned());
        }
        if raw.key_ops.as_ref().is_some_and(|ops| !ops.iter().any(|op| op == "verify")) {
            return Err("it is not for signatures (`key_ops`)".to_owned());
        }
        if raw.kid.as_ref().is_some_and(|kid| kid.len() > MAX_KID_BYTES) {
            return Err(format!("its id is longer than {MAX_KID_BYTES} bytes"));
        }
        let (decoding, able, material) = match raw.kty.as_str() {
            "RSA" => rsa(&raw)?,
            "EC" => ec(&raw)?,
            "OKP" => okp(&raw)?,
            other => return Err(format!("key type {:?} is not supported", shorten(other))),
        };
        let algs = match &raw.alg {
            None => able,
            Some(name) => {
                let alg: Alg =
                    name.parse().map_err(|_| format!("algorithm {:?} is not supported", shorten(name)))?;
                if !able.contains(alg) {
                    return Err(format!("algorithm {alg} does not fit its key type"));
                }
                AlgSet::one(alg)
            }
        };
        let mut print = Sha256::new();
        print.update(material.as_bytes());
        print.update([0]);
        print.update(algs.bits().to_be_bytes());
        // Present but empty differs from absent.
        print.update(raw.kid.as_ref().map_or([0], |_| [1]));
        print.update(raw.kid.as_deref().unwrap_or_default().as_bytes());
        Ok(Self {
            algs,
            decoding,
            print: KeyPrint(print.finalize().into()),
            kid: raw.kid.map(String::into_boxed_str),
        })
    }
}

/// The key, what it is able to do, and its canonical members (RFC 7638 §3.2).
type Material = (DecodingKey, AlgSet, String);

fn rsa(raw: &RawKey) -> Result<Material, String> {
    let n = strip_zeros(decode(raw.n.as_deref(), "n")?);
    let e = strip_zeros(decode(raw.e.as_deref(), "e")?);
    let bits = n.len() * 8 - n.first().map_or(0, |top| top.leading_zeros() as usize);
    if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
        return Err(format!("an RSA key of {bits} bits; {MIN_RSA_BITS} to {MAX_RSA_BITS} are allowed"));
    }
    if e.len() > MAX_RSA_EXPONENT_BYTES || e.last().is_none_or(|low| low % 2 == 0) || e == [1] {
        return Err("its public exponent is not acceptable".to_owned());
    }
    let canonical = format!(
        r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#,
        URL_SAFE_NO_PAD.encode(&e),
        URL_SAFE_NO_PAD.encode(&n)
    );
    Ok((DecodingKey::from_rsa_raw_components(&n, &e), AlgSet::RSA, canonical))
}

fn ec(raw: &RawKey) -> Result<Material, String> {
    let (curve, alg, size) = match raw.crv.as_deref() {
        Some("P-256") => ("P-256", Alg::Es256, 32),
        Some("P-384") => ("P-384", Alg::Es384, 48),
        other => return Err(format!("curve {:?} is not supported", other.map(shorten))),
    };
    let (x, y) = (decode(raw.x.as_deref(), "x")?, decode(raw.y.as_deref(), "y")?);
    if x.len() != size || y.len() != size {
        return Err(format!("a coordinate of {curve} has {size} bytes"));
    }
    let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
    let key =
        DecodingKey::from_ec_components(&x, &y).map_err(|_| "the point cannot be decoded".to_owned())?;
    Ok((key, AlgSet::one(alg), format!(r#"{{"crv":"{curve}","kty":"EC","x":"{x}","y":"{y}"}}"#)))
}

fn okp(raw: &RawKey) -> Result<Material, String> {
    if raw.crv.as_deref() != Some("Ed25519") {
        return Err(format!("curve {:?} is not supported", raw.crv.as_deref().map(shorten)));
    }
    let x = decode(raw.x.as_deref(), "x")?;
    if x.len() != 32 {
        return Err("an Ed25519 key has 32 bytes".to_owned());
    }
    let x = URL_SAFE_NO_PAD.encode(x);
    let key = DecodingKey::from_ed_components(&x).map_err(|_| "the key cannot be decoded".to_owned())?;
    Ok((key, AlgSet::one(Alg::EdDsa), format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#)))
}

fn decode(value: Option<&str>, name: &str) -> Result<Vec<u8>, String> {
    let text = value.ok_or_else(|| format!("`{name}` is missing"))?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| format!("`{name}` is not base64url"))
}

fn strip_zeros(bytes: Vec<u8>) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|b| **b == 0).count();
    bytes[zeros..].to_vec()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::testing::{Signer, jwks};

    fn parse(document: serde_json::Value) -> (KeySet, Vec<String>) {
        KeySet::parse(document.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn keys_of_each_type_are_read() {
        let signers = [Signer::rsa("r"), Signer::es256("e"), Signer::es384("e3"), Signer::ed25519("d")];
        let (set, warnings) = KeySet::parse(jwks(&signers).as_bytes()).unwrap();
        assert_eq!((set.len(), warnings), (4, vec![]));
        for (kid, alg) in [("r", Alg::Ps512), ("e", Alg::Es256), ("e3", Alg::Es384), ("d", Alg::EdDsa)] {
            let (keys, named) = set.candidates(Some(kid), alg);
            assert_eq!((keys.len(), named), (1, true), "{kid}");
        }
        let (keys, named) = set.candidates(Some("r"), Alg::Es256);
        assert!(keys.is_empty() && named, "an RSA key never verifies ES256");
        let (keys, named) = set.candidates(Some("nope"), Alg::Es256);
        assert!(keys.is_empty() && !named);
        assert_eq!(set.candidates(None, Alg::Rs256).0.len(), 1, "without kid the type decides");
    }

    #[test]
    fn unusable_keys_are_skipped_with_a_warning() {
        let good = Signer::rsa("r").jwk();
        let with = |changes: serde_json::Value| {
            let mut key = good.clone();
            for (name, value) in changes.as_object().unwrap() {
                key[name] = value.clone();
            }
            key
        };
        let short = URL_SAFE_NO_PAD.encode([0xff; 128]);
        let padded = URL_SAFE_NO_PAD.encode([&[0; 128][..], &[0xff; 128][..]].concat());
        for (what, key) in [
            ("enc", with(json!({"use": "enc"}))),
            ("key_ops", with(json!({"key_ops": ["encrypt"]}))),
            ("alg of another type", with(json!({"alg": "ES256"}))),
            ("encryption alg", with(json!({"alg": "RSA-OAEP"}))),
            ("symmetric alg", with(json!({"alg": "HS256"}))),
            ("1024 bits", with(json!({ "n": short }))),
            ("1024 bits with zeros in front", with(json!({ "n": padded }))),
            ("exponent 1", with(json!({"e": "AQ"}))),
            ("even exponent", with(json!({"e": "AQAA"}))),
            ("empty exponent", with(json!({"e": ""}))),
            ("empty modulus", with(json!({"n": ""}))),
            ("private", with(json!({"d": "AQAB"}))),
            ("long kid", with(json!({"kid": "k".repeat(MAX_KID_BYTES + 1)}))),
            ("standard base64", with(json!({"n": "+/+/"}))),
            ("oct", json!({"kty": "oct", "k": "AAAA", "alg": "HS256"})),
            ("off-size point", json!({"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"})),
            ("P-521", json!({"kty": "EC", "crv": "P-521", "x": "AAAA", "y": "AAAA"})),
            ("X25519", json!({"kty": "OKP", "crv": "X25519", "x": "AAAA"})),
            ("not an object", json!("RSA")),
        ] {
            let (set, warnings) = parse(json!({"keys": [key, good]}));
            assert_eq!((set.len(), warnings.len()), (1, 1), "{what}: {warnings:?}");
        }
    }

    #[test]
    fn the_number_and_size_of_keys_is_bounded() {
        let key = |i: usize| {
            let x = URL_SAFE_NO_PAD.encode([i as u8; 32]);
            json!({"kty": "OKP", "crv": "Ed25519", "kid": "same", "x": x})
        };
        let (set, warnings) = parse(json!({"keys": (0..100).map(key).collect::<Vec<_>>()}));
        assert_eq!((set.len(), warnings.len()), (MAX_KEYS, 1));
        assert_eq!(set.candidates(Some("same"), Alg::EdDsa).0.len(), MAX_CANDIDATES);
        assert!(matches!(KeySet::parse(&vec![b' '; MAX_JWKS_BYTES + 1]), Err(JwksError::TooLarge)));
    }

    #[test]
    fn documents_that_are_not_jwks_are_errors() {
        for text in ["", "{}", "[]", "<html>", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#] {
            assert!(matches!(KeySet::parse(text.as_bytes()), Err(JwksError::Malformed(_))), "{text}");
        }
        assert!(parse(json!({"keys": []})).0.is_empty());
    }

    #[test]
    fn the_print_covers_id_and_algorithms() {
        let key = Signer::rsa("r").jwk();
        let print = |key: &serde_json::Value| parse(json!({ "keys": [key] })).0.prints[0];
        let mut other = key.clone();
        other["kid"] = json!("s");
        assert!(print(&key) != print(&other));
        let mut other = key.clone();
        other["alg"] = json!("RS256");
        assert!(print(&key) != print(&other));
        let mut zeros = key.clone();
        let n = URL_SAFE_NO_PAD.decode(key["n"].as_str().unwrap()).unwrap();
        zeros["n"] = json!(URL_SAFE_NO_PAD.encode([&[0][..], &n].concat()));
        assert!(print(&key) == print(&zeros), "leading zeros do not make another key");
    }
}
