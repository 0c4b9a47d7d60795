//! What is kept of a key.

use std::fmt::{self, Write};
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use ipnet::IpNet;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::auth::api_key::Restriction;
use crate::auth::api_key::format::{is_id, parse};
use crate::auth::records::Timestamp;
use crate::base::{Role, Secret};

/// The most entries in each list of one record.
const MAX_LIST: usize = 256;
/// The longest principal, in bytes.
const MAX_PRINCIPAL_BYTES: usize = 256;
/// The shortest pepper, in bytes.
const MIN_PEPPER_BYTES: usize = 16;

/// A secret of the installation that is mixed into key hashes, so that a stolen list alone verifies no guess.
#[derive(Clone)]
pub struct KeyPepper(Arc<Hmac<Sha256>>);

impl KeyPepper {
    /// Takes a secret of at least 16 bytes; shorter ones give `None`.
    pub fn new(secret: &Secret<Vec<u8>>) -> Option<Self> {
        if secret.expose().len() < MIN_PEPPER_BYTES {
            return None;
        }
        let mac = Hmac::new_from_slice(secret.expose()).expect("HMAC takes keys of any length");
        Some(Self(Arc::new(mac)))
    }

    fn digest(&self, text: &[u8]) -> [u8; 32] {
        let mut mac = (*self.0).clone();
        mac.update(text);
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for KeyPepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The hash of a key's whole text: `sha256:<hex>` or `hmac-sha256:<hex>`.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyHash {
    peppered: bool,
    digest: [u8; 32],
}

impl KeyHash {
    /// Hashes a key: with the pepper if there is one.
    pub fn of(text: &[u8], pepper: Option<&KeyPepper>) -> Self {
        match pepper {
            Some(pepper) => Self { peppered: true, digest: pepper.digest(text) },
            None => Self { peppered: false, digest: Sha256::digest(text).into() },
        }
    }

    /// Parses the stored form.
    pub fn parse(text: &str) -> Option<Self> {
        let (peppered, hex) = match text.strip_prefix("sha256:") {
            Some(hex) => (false, hex),
            None => (true, text.strip_prefix("hmac-sha256:")?),
        };
        let hex = hex.as_bytes();
        if hex.len() != 64 {
            return None;
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(hex.chunks_exact(2)) {
            let digit = |b: u8| char::from(b).to_digit(16);
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Some(Self { peppered, digest })
    }

    pub(super) fn is_peppered(&self) -> bool {
        self.peppered
    }

    /// Compares in constant time.
    pub(super) fn matches(&self, text: &[u8], pepper: Option<&KeyPepper>) -> bool {
        if self.peppered && pepper.is_none() {
            return false;
        }
        let presented = Self::of(text, pepper.filter(|_| self.peppered));
        self.digest.ct_eq(&presented.digest).into()
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.peppered { "hmac-sha256:" } else { "sha256:" })?;
        self.digest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.peppered { "hmac-sha256" } else { "sha256" })?;
        f.write_char('…')
    }
}

/// What a key may be used for, as globs. An empty list does not restrict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyScopes {
    /// Names of routes.
    pub routes: Vec<String>,
    /// Names of servers.
    pub servers: Vec<String>,
    /// Names of tools, as the servers call them.
    pub tools: Vec<String>,
    /// JSON-RPC methods.
    pub methods: Vec<String>,
}

impl KeyScopes {
    pub(super) fn lists(&self) -> [(&'static str, &[String]); 4] {
        [("route", &self.routes), ("server", &self.servers), ("tool", &self.tools), ("method", &self.methods)]
    }
}

/// One key, as the store or a file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// The public id: 12 base62 characters.
    pub id: String,
    /// The hash of the key.
    pub hash: KeyHash,
    /// The whole principal id that the key stands for, for example `corp|alice`. None: the key itself, `key|<id>`.
    pub principal: Option<String>,
    /// At least one.
    pub roles: Vec<Role>,
    /// What the key is restricted to.
    pub scopes: KeyScopes,
    /// Networks that may use it; empty means all.
    pub cidr: Vec<IpNet>,
    /// When it was made: compared with revocations "before".
    pub created: Option<Timestamp>,
    /// From when on it is refused.
    pub expires: Option<Timestamp>,
    /// Refused until switched on again.
    pub disabled: bool,
    /// What people wrote about it. Not used.
    pub note: Option<String>,
}

/// The form in files.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRecord {
    id: String,
    hash: String,
    principal: Option<String>,
    roles: Vec<String>,
    #[serde(default)]
    scopes: KeyScopes,
    #[serde(default)]
    cidr: Vec<String>,
    created: Option<Timestamp>,
    expires: Option<Timestamp>,
    #[serde(default)]
    disabled: bool,
    note: Option<String>,
}

impl RawRecord {
    pub(super) fn check(self) -> Result<KeyRecord, String> {
        if parse(self.hash.as_bytes()).is_some() {
            return Err("`hash` holds the key itself; replace the key, it must not be stored".to_owned());
        }
        let hash = KeyHash::parse(&self.hash)
            .ok_or("`hash` must be `sha256:` or `hmac-sha256:` and 64 hexadecimal digits")?;
        let roles = self.roles.iter().map(|name| name.parse::<Role>().map_err(|e| e.to_string()));
        let cidr = self.cidr.iter().map(|text| parse_net(text));
        let record = KeyRecord {
            id: self.id,
            hash,
            principal: self.principal,
            roles: roles.collect::<Result<_, _>>()?,
            scopes: self.scopes,
            cidr: cidr.collect::<Result<_, _>>()?,
            created: self.created,
            expires: self.expires,
            disabled: self.disabled,
            note: self.note,
        };
        record.check()?;
        Ok(record)
    }
}

impl KeyRecord {
    /// Reads one record: a JSON object of the form of a key file's lines.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str::<RawRecord>(text).map_err(|e| e.to_string())?.check()
    }

    pub(super) fn check(&self) -> Result<(), String> {
        if !is_id(&self.id) {
            return Err("`id` must be the 12 letters and digits between `tg_` and `_`".to_owned());
        }
        if self.roles.is_empty() {
            return Err("`roles` must name at least one role".to_owned());
        }
        if let Some(principal) = &self.principal
            && (principal.is_empty()
                || principal.len() > MAX_PRINCIPAL_BYTES
                || principal.chars().any(char::is_control))
        {
            return Err(format!(
                "`principal` must have 1 to {MAX_PRINCIPAL_BYTES} bytes and no control characters"
            ));
        }
        let longest = self.scopes.lists().iter().map(|(_, list)| list.len()).max().unwrap_or(0);
        if longest.max(self.cidr.len()) > MAX_LIST {
            return Err(format!("a list has more than {MAX_LIST} entries"));
        }
        Restriction::compile(&self.scopes).map(drop)
    }
}

fn parse_net(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_| format!("{text:?} is not a network like 10.0.0.0/8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_round_trip_and_match_only_their_key() {
        let pepper = KeyPepper::new(&Secret::new(vec![7; 32])).unwrap();
        for pepper in [None, Some(&pepper)] {
            let hash = KeyHash::of(b"key", pepper);
            assert_eq!(KeyHash::parse(&hash.to_string()), Some(hash.clone()));
            assert!(hash.matches(b"key", pepper));
            assert!(!hash.matches(b"kez", pepper));
        }
        assert!(!KeyHash::of(b"key", Some(&pepper)).matches(b"key", None));
        let other = KeyPepper::new(&Secret::new(vec![8; 32])).unwrap();
        assert!(!KeyHash::of(b"key", Some(&pepper)).matches(b"key", Some(&other)));
        assert!(KeyHash::of(b"key", None).matches(b"key", Some(&pepper)), "older keys survive a new pepper");
        assert!(KeyPepper::new(&Secret::new(vec![7; 15])).is_none());
    }

    #[test]
    fn hashes_are_the_standard_functions() {
        // SHA-256 of "abc" (FIPS 180-2), HMAC-SHA-256 of RFC 4231 case 4's data under a key of ours.
        assert_eq!(
            KeyHash::of(b"abc", None).to_string(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let pepper = KeyPepper::new(&Secret::new((1..=25).collect())).unwrap();
        assert_eq!(
            KeyHash::of(&[0xcd; 50], Some(&pepper)).to_string(),
            "hmac-sha256:82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"
        );
        for bad in ["", "sha256:", "md5:00", "sha256:zz", &format!("sha256:+{}", "0".repeat(63))] {
            assert!(KeyHash::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn debug_shows_neither_hash_nor_pepper() {
        let pepper = KeyPepper::new(&Secret::new(vec![7; 32])).unwrap();
        assert_eq!(format!("{:?} {pepper:?}", KeyHash::of(b"abc", None)), "sha256… [redacted]");
    }
}
