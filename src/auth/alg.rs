//! Signature algorithms: asymmetric ones only (RFC 8725 §3.1, §3.2).
//!
//! `none` and the HMAC family have no value here, so that no later check can let them through by mistake.

use std::fmt;
use std::str::FromStr;

use jsonwebtoken::Algorithm;

/// A signature algorithm that a token may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Alg {
    /// Ed25519 (RFC 8037; also under its RFC 9864 name `Ed25519`).
    EdDsa = 0,
    /// ECDSA, P-256, SHA-256.
    Es256 = 1,
    /// ECDSA, P-384, SHA-384.
    Es384 = 2,
    /// RSASSA-PSS, SHA-256.
    Ps256 = 3,
    /// RSASSA-PSS, SHA-384.
    Ps384 = 4,
    /// RSASSA-PSS, SHA-512.
    Ps512 = 5,
    /// RSASSA-PKCS1-v1_5, SHA-256.
    Rs256 = 6,
    /// RSASSA-PKCS1-v1_5, SHA-384.
    Rs384 = 7,
    /// RSASSA-PKCS1-v1_5, SHA-512.
    Rs512 = 8,
}

impl Alg {
    /// Every algorithm.
    pub const ALL: [Alg; 9] = [
        Alg::EdDsa,
        Alg::Es256,
        Alg::Es384,
        Alg::Ps256,
        Alg::Ps384,
        Alg::Ps512,
        Alg::Rs256,
        Alg::Rs384,
        Alg::Rs512,
    ];

    /// The name in JOSE headers and configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Alg::EdDsa => "EdDSA",
            Alg::Es256 => "ES256",
            Alg::Es384 => "ES384",
            Alg::Ps256 => "PS256",
            Alg::Ps384 => "PS384",
            Alg::Ps512 => "PS512",
            Alg::Rs256 => "RS256",
            Alg::Rs384 => "RS384",
            Alg::Rs512 => "RS512",
        }
    }

    pub(crate) fn jose(self) -> Algorithm {
        match self {
            Alg::EdDsa => Algorithm::EdDSA,
            Alg::Es256 => Algorithm::ES256,
            Alg::Es384 => Algorithm::ES384,
            Alg::Ps256 => Algorithm::PS256,
            Alg::Ps384 => Algorithm::PS384,
            Alg::Ps512 => Algorithm::PS512,
            Alg::Rs256 => Algorithm::RS256,
            Alg::Rs384 => Algorithm::RS384,
            Alg::Rs512 => Algorithm::RS512,
        }
    }
}

impl fmt::Display for Alg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name is none of the supported algorithms.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unsupported algorithm {0:?}: expected RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA"
)]
pub struct UnknownAlg(pub String);

impl FromStr for Alg {
    type Err = UnknownAlg;

    fn from_str(name: &str) -> Result<Self, UnknownAlg> {
        if name == "Ed25519" {
            return Ok(Alg::EdDsa);
        }
        Alg::ALL.into_iter().find(|a| a.as_str() == name).ok_or_else(|| UnknownAlg(name.to_owned()))
    }
}

/// A set of algorithms.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct AlgSet(u16);

impl AlgSet {
    /// What an RSA key can do.
    pub const RSA: AlgSet = AlgSet(
        1 << Alg::Ps256 as u8
            | 1 << Alg::Ps384 as u8
            | 1 << Alg::Ps512 as u8
            | 1 << Alg::Rs256 as u8
            | 1 << Alg::Rs384 as u8
            | 1 << Alg::Rs512 as u8,
    );

    /// Every supported algorithm: the default of an issuer.
    pub fn all() -> Self {
        Alg::ALL.into_iter().collect()
    }

    /// The set with one algorithm.
    pub fn one(alg: Alg) -> Self {
        Self(1 << alg as u8)
    }

    /// Whether the algorithm is in the set.
    pub fn contains(self, alg: Alg) -> bool {
        self.0 & (1 << alg as u8) != 0
    }

    /// Whether there is none in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn bits(self) -> u16 {
        self.0
    }
}

impl FromIterator<Alg> for AlgSet {
    fn from_iter<I: IntoIterator<Item = Alg>>(algs: I) -> Self {
        Self(algs.into_iter().fold(0, |bits, a| bits | 1 << a as u8))
    }
}

impl fmt::Debug for AlgSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(Alg::ALL.iter().filter(|a| self.contains(**a))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for alg in Alg::ALL {
            assert_eq!(alg.as_str().parse(), Ok(alg));
        }
    }

    #[test]
    fn none_and_hmac_have_no_value() {
        for name in ["none", "None", "NONE", "", "HS256", "HS384", "HS512", "rs256", "RS256 ", "ES512"] {
            assert!(name.parse::<Alg>().is_err(), "{name}");
        }
    }

    #[test]
    fn sets_hold_what_was_put_in() {
        let set: AlgSet = [Alg::Es256, Alg::EdDsa].into_iter().collect();
        assert!(set.contains(Alg::Es256) && set.contains(Alg::EdDsa) && !set.contains(Alg::Rs256));
        assert!(AlgSet::RSA.contains(Alg::Ps384) && !AlgSet::RSA.contains(Alg::Es384));
        assert!(AlgSet::default().is_empty());
    }
}
