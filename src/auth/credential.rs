//! What a request presents, before anything is believed (RFC 6750 §2.1).

use std::net::IpAddr;

use http::header::{AUTHORIZATION, GetAll, HeaderName};
use http::{HeaderMap, HeaderValue};

use crate::auth::AuthError;
use crate::auth::api_key::PREFIX;

/// The longest credential, in bytes.
pub const MAX_CREDENTIAL_BYTES: usize = 16 * 1024;

static X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// A header that may appear once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderField<'a> {
    /// Not there.
    #[default]
    Absent,
    /// There more than once: which one counts would be a guess, so the request is refused.
    Many,
    /// Its value.
    One(&'a [u8]),
}

impl<'a> HeaderField<'a> {
    /// Reads a header from all its values.
    pub fn from_values(mut values: impl Iterator<Item = &'a [u8]>) -> Self {
        match (values.next(), values.next()) {
            (None, _) => HeaderField::Absent,
            (Some(value), None) => HeaderField::One(value),
            (Some(_), Some(_)) => HeaderField::Many,
        }
    }
}

/// What a request presents, and from where.
#[derive(Clone, Copy, Debug)]
pub struct Credential<'a> {
    /// The `Authorization` header.
    pub authorization: HeaderField<'a>,
    /// The `x-api-key` header.
    pub api_key: HeaderField<'a>,
    /// The real address of the client: behind trusted proxies the forwarded one, else that of the connection.
    pub peer: IpAddr,
    /// Whether the connection itself comes from this machine and nothing was forwarded. Host and Origin must have been
    /// checked before, or a web page in a local browser is on loopback, too.
    pub is_loopback: bool,
    /// SHA-256 of the DER certificate that the client proved to own in the TLS handshake, for tokens bound to one.
    pub client_certificate: Option<[u8; 32]>,
}

impl<'a> Credential<'a> {
    /// Reads the headers of a request. The client certificate is left out.
    pub fn from_headers(headers: &'a HeaderMap, peer: IpAddr, is_loopback: bool) -> Self {
        let field = |values: GetAll<'a, HeaderValue>| {
            HeaderField::from_values(values.into_iter().map(HeaderValue::as_bytes))
        };
        Self {
            authorization: field(headers.get_all(AUTHORIZATION)),
            api_key: field(headers.get_all(&X_API_KEY)),
            peer,
            is_loopback,
            client_certificate: None,
        }
    }

    /// Whether nothing at all is presented.
    pub fn is_absent(&self) -> bool {
        self.authorization == HeaderField::Absent && self.api_key == HeaderField::Absent
    }

    /// Decides what kind of credential it is. Only its outer form is looked at.
    pub(crate) fn presented(&self) -> Result<Presented<'a>, AuthError> {
        let (scheme, rest) = match (self.authorization, self.api_key) {
            (HeaderField::Many, _) => return malformed("more than one Authorization header"),
            (_, HeaderField::Many) => return malformed("more than one x-api-key header"),
            (HeaderField::One(_), HeaderField::One(_)) => return malformed("more than one credential"),
            (HeaderField::Absent, HeaderField::Absent) => return Ok(Presented::Nothing),
            (HeaderField::Absent, HeaderField::One(value)) => {
                return bounded(value.trim_ascii()).map(Presented::ApiKey);
            }
            (HeaderField::One(value), HeaderField::Absent) => {
                let value = value.trim_ascii();
                let end = value.iter().position(|b| *b == b' ').unwrap_or(value.len());
                value.split_at(end)
            }
        };
        if scheme.is_empty() {
            return malformed("an empty Authorization header");
        }
        if !scheme.eq_ignore_ascii_case(b"bearer") {
            return Err(AuthError::Scheme);
        }
        let token = bounded(rest.trim_ascii())?;
        Ok(if token.starts_with(PREFIX) { Presented::ApiKey(token) } else { Presented::Token(token) })
    }
}

/// The kind of credential that was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presented<'a> {
    ApiKey(&'a [u8]),
    Nothing,
    Token(&'a [u8]),
}

fn bounded(credential: &[u8]) -> Result<&[u8], AuthError> {
    match credential.len() {
        0 => malformed("an empty credential"),
        1..=MAX_CREDENTIAL_BYTES => Ok(credential),
        _ => malformed("the credential is too long"),
    }
}

fn malformed<T>(reason: &'static str) -> Result<T, AuthError> {
    Err(AuthError::MalformedRequest { reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presented(headers: &[(&'static str, &[u8])]) -> Result<String, u16> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        let credential = Credential::from_headers(&map, IpAddr::from([127, 0, 0, 1]), false);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match credential.presented() {
            Ok(Presented::ApiKey(key)) => Ok(format!("key {}", text(key))),
            Ok(Presented::Nothing) => Ok("nothing".into()),
            Ok(Presented::Token(token)) => Ok(format!("token {}", text(token))),
            Err(e) => Err(e.status().as_u16()),
        }
    }

    #[test]
    fn the_scheme_is_case_insensitive() {
        for scheme in ["Bearer", "bearer", "BEARER", "bEaReR"] {
            let value = format!("{scheme} abc");
            assert_eq!(presented(&[("authorization", value.as_bytes())]), Ok("token abc".into()));
        }
        assert_eq!(presented(&[("authorization", b"Bearer   abc ")]), Ok("token abc".into()));
    }

    #[test]
    fn keys_come_in_either_header() {
        assert_eq!(presented(&[("authorization", b"Bearer tg_x")]), Ok("key tg_x".into()));
        assert_eq!(presented(&[("x-api-key", b"tg_x")]), Ok("key tg_x".into()));
        assert_eq!(presented(&[("x-api-key", b"anything")]), Ok("key anything".into()));
        assert_eq!(presented(&[]), Ok("nothing".into()));
    }

    #[test]
    fn ambiguous_or_empty_headers_are_malformed() {
        let long = [b"Bearer ".as_slice(), &[b'a'; MAX_CREDENTIAL_BYTES + 1]].concat();
        for headers in [
            &[("authorization", b"Bearer a".as_slice()), ("authorization", b"Bearer a")][..],
            &[("x-api-key", b"tg_a"), ("x-api-key", b"tg_a")],
            &[("authorization", b"Bearer a"), ("x-api-key", b"tg_a")],
            &[("authorization", b"")],
            &[("authorization", b"Bearer")],
            &[("authorization", b"Bearer ")],
            &[("x-api-key", b"")],
            &[("authorization", &long)],
        ] {
            assert_eq!(presented(headers), Err(400), "{headers:?}");
        }
    }

    #[test]
    fn other_schemes_are_unauthorized_not_anonymous() {
        for value in [b"Basic YTpi".as_slice(), b"abc", b"Bearerabc", b"DPoP x", b"Bearer\tabc"] {
            assert_eq!(presented(&[("authorization", value)]), Err(401), "{value:?}");
        }
    }
}
