//! A token in JWS compact form, up to the verified signature (RFC 7515, RFC 7519, RFC 8725).

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::auth::error::shorten;
use crate::auth::jwks::{KeyPrint, KeySet, VerifyKey};
use crate::auth::{Alg, AuthError, json};

/// A token whose form is right. Nothing in it is believed yet.
#[derive(Debug)]
pub(crate) struct Unverified<'a> {
    pub(crate) alg: Alg,
    pub(crate) kid: Option<String>,
    /// As the token says it: used to choose which issuer's keys must have signed, and compared again afterwards.
    pub(crate) issuer: String,
    signed: &'a str,
    signature: &'a str,
    payload: Vec<u8>,
}

/// What became of a signature.
pub(crate) enum Verdict {
    /// The key that made it.
    Good(KeyPrint),
    /// The token names a key that is listed, and that key did not make it.
    Bad,
    /// No listed key made it, but another refresh may bring the right one.
    NoKey,
}

#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow)]
    typ: Option<Cow<'a, str>>,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
    // `jku`, `jwk`, `x5u` and `x5c` are never read: a token does not choose its own key.
}

#[derive(Deserialize)]
struct Peek {
    iss: String,
}

impl<'a> Unverified<'a> {
    /// Parses the form. `token` is at most 16 KiB (checked before).
    pub(crate) fn parse(token: &'a [u8]) -> Result<Self, AuthError> {
        if !token.iter().all(|b| is_token68(*b)) {
            // Not even the grammar of the header (RFC 6750 §2.1), for example two tokens in one value.
            return Err(AuthError::MalformedRequest {
                reason: "the credential has characters that no token has",
            });
        }
        let token = std::str::from_utf8(token).map_err(|_| malformed("not ASCII"))?;
        let (signed, signature) = token.rsplit_once('.').ok_or(malformed("not three parts"))?;
        let (header, payload) = signed.split_once('.').ok_or(malformed("not three parts"))?;
        if payload.contains('.') {
            return Err(malformed("not three parts"));
        }
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed("not base64url"));
        let header = decode(header)?;
        let header: Header<'_> =
            serde_json::from_slice(&header).map_err(|_| malformed("the header is not as it must be"))?;
        if header.crit.is_some() {
            return Err(malformed("a critical extension"));
        }
        if !header.typ.as_deref().is_none_or(is_access_token_type) {
            return Err(malformed("not the type of an access token"));
        }
        let alg =
            header.alg.parse().map_err(|_| AuthError::AlgorithmRefused { alg: shorten(&header.alg) })?;
        let payload = decode(payload)?;
        let peek: Peek = serde_json::from_slice(&payload).map_err(|_| malformed("no issuer"))?;
        Ok(Self { alg, kid: header.kid, issuer: peek.iss, signed, signature, payload })
    }

    /// Looks for the key that made the signature. The caller has checked that the issuer may use the algorithm; here
    /// the key must be of the type, and for the algorithm, too.
    pub(crate) fn verify(&self, keys: &KeySet) -> Verdict {
        let (candidates, named) = keys.candidates(self.kid.as_deref(), self.alg);
        let made_by = |key: &&&VerifyKey| {
            // An error is a signature that cannot be decoded, or a key that turned out to be unusable.
            jsonwebtoken::crypto::verify(
                self.signature,
                self.signed.as_bytes(),
                &key.decoding,
                self.alg.jose(),
            )
            .unwrap_or(false)
        };
        match candidates.iter().find(made_by) {
            Some(key) => Verdict::Good(key.print),
            None if named => Verdict::Bad,
            None => Verdict::NoKey,
        }
    }

    /// The claims; to be called once the signature is known to be good.
    pub(crate) fn into_claims(self) -> Result<Map<String, Value>, AuthError> {
        json::parse_object(&self.payload).map_err(|_| malformed("the claims are not as they must be"))
    }
}

/// RFC 9068 access tokens, and the plain type that most issuers use. Refuses ID-token siblings such as `logout+jwt`,
/// proofs (`dpop+jwt`) and events.
fn is_access_token_type(typ: &str) -> bool {
    let typ = typ.get(..12).filter(|p| p.eq_ignore_ascii_case("application/")).map_or(typ, |_| &typ[12..]);
    ["jwt", "at+jwt"].iter().any(|known| typ.eq_ignore_ascii_case(known))
}

fn is_token68(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=')
}

fn malformed(reason: &'static str) -> AuthError {
    AuthError::MalformedToken { reason }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(header: &str, payload: &str) -> String {
        format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload))
    }

    fn parse(header: &str, payload: &str) -> Result<(Alg, Option<String>, String), AuthError> {
        let token = token(header, payload);
        Unverified::parse(token.as_bytes()).map(|t| (t.alg, t.kid, t.issuer))
    }

    #[test]
    fn a_plain_token_parses() {
        let parsed =
            parse(r#"{"alg":"RS256","kid":"k","typ":"at+JWT","x":1}"#, r#"{"iss":"i","a":1}"#).unwrap();
        assert_eq!(parsed, (Alg::Rs256, Some("k".into()), "i".into()));
    }

    #[test]
    fn algorithms_without_a_public_key_are_refused() {
        for alg in ["none", "None", "nOnE", "", "HS256", "HS512", "RS1", "RSA-OAEP"] {
            let parsed = parse(&format!(r#"{{"alg":"{alg}"}}"#), r#"{"iss":"i"}"#);
            assert!(matches!(parsed, Err(AuthError::AlgorithmRefused { .. })), "{alg}");
        }
    }

    #[test]
    fn odd_headers_are_refused() {
        for header in [
            r#"{}"#,
            r#"{"alg":1}"#,
            r#"{"alg":["RS256"]}"#,
            r#"{"alg":"RS256","alg":"none"}"#,
            r#"{"alg":"RS256","kid":1}"#,
            r#"{"alg":"RS256","kid":{"a":1}}"#,
            r#"{"alg":"RS256","crit":["exp"]}"#,
            r#"{"alg":"RS256","crit":[]}"#,
            r#"{"alg":"RS256","typ":"logout+jwt"}"#,
            r#"{"alg":"RS256","typ":"dpop+jwt"}"#,
            r#"{"alg":"RS256","typ":1}"#,
            r#"["RS256"]x"#,
            "",
        ] {
            let parsed = parse(header, r#"{"iss":"i"}"#);
            assert!(matches!(parsed, Err(AuthError::MalformedToken { .. })), "{header}: {parsed:?}");
        }
        for typ in ["JWT", "jwt", "at+jwt", "application/at+jwt", "APPLICATION/JWT"] {
            assert!(parse(&format!(r#"{{"alg":"RS256","typ":"{typ}"}}"#), r#"{"iss":"i"}"#).is_ok(), "{typ}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        let good = token(r#"{"alg":"RS256"}"#, r#"{"iss":"i"}"#);
        for (text, status) in [
            ("a", 401),
            ("a.b", 401),
            ("..", 401),
            ("a.b.c.d", 401),
            ("a.b.c.d.e", 401),
            (&format!("{good}.x"), 401),
            (&format!(".{good}"), 401),
            (&format!("{good}, {good}"), 400),
            (&format!("{good}\u{e9}"), 400),
            (&good.replace('.', "=."), 401),
        ] {
            assert_eq!(Unverified::parse(text.as_bytes()).unwrap_err().status(), status, "{text}");
        }
        for payload in ["", "{}", r#"{"iss":1}"#, r#"{"iss":"a","iss":"b"}"#, r#"["i"]x"#, "\u{feff}{}"] {
            assert_eq!(parse(r#"{"alg":"RS256"}"#, payload).unwrap_err().status(), 401, "{payload}");
        }
    }

    proptest! {
        #[test]
        fn anything_may_be_parsed(bytes: Vec<u8>) {
            prop_assert!(Unverified::parse(&bytes).is_err());
        }

        #[test]
        fn any_parts_may_be_parsed(header: String, payload: String) {
            let _ = Unverified::parse(token(&header, &payload).as_bytes());
        }
    }
}
