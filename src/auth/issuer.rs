//! One trusted issuer: its configuration, what follows once from a token's claims, and what is asked each time.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::auth::claims::{CompiledRule, numeric_date, texts, words};
use crate::auth::jwks::{JwksSource, KeyPrint};
use crate::auth::revocation::Claimed;
use crate::auth::roles::CompiledMapping;
use crate::auth::{AlgSet, AuthError, ClaimPath, ClaimRule, Revocations, RoleMapping, SpecError, json};
use crate::base::{Principal, PrincipalId, PrincipalKind, TenantId};

/// The largest leeway for clocks that differ.
pub const MAX_LEEWAY: Duration = Duration::from_secs(300);
/// How far in the future `iat` may be, beyond the leeway.
const MAX_FUTURE_SECS: u64 = 300;
/// The longest principal, in bytes.
const MAX_PRINCIPAL_BYTES: usize = 256;
/// The longest name of an issuer, in bytes.
const MAX_NAME_BYTES: usize = 64;
/// The most required claims, and the most additional audiences.
const MAX_LIST: usize = 64;
/// Names that principals without an issuer use.
const RESERVED: [&str; 4] = ["anonymous", "key", "loopback", "operator"];

/// What kind of caller an issuer's tokens stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum KindRule {
    /// A service if the token looks like one from the client-credentials grant: `sub` equals `client_id` or `azp`,
    /// `gty` is `client-credentials`, or `idtyp` is `app`; a user otherwise.
    #[default]
    Auto,
    /// Always a service.
    Service,
    /// A service if this claim says so; a user otherwise.
    ServiceIf(ClaimRule),
    /// Always a user.
    User,
}

/// A trusted issuer of bearer tokens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IssuerSpec {
    /// The name in this configuration: letters, digits, `-`, `_` and `.`. Principals are called `<name>|<sub>`.
    pub name: Arc<str>,
    /// The exact value of `iss`.
    pub issuer: String,
    /// Where its keys come from.
    pub jwks: Arc<JwksSource>,
    /// What it may sign with.
    pub algorithms: AlgSet,
    /// How far clocks may differ: at most 5 minutes.
    pub leeway: Duration,
    /// Audiences that are accepted on every route, besides the route's own.
    pub audiences: Vec<String>,
    /// The claim that names the caller, a text.
    pub principal_claim: ClaimPath,
    /// What kind of caller it is.
    pub kind: KindRule,
    /// The claim with group names.
    pub groups_claim: ClaimPath,
    /// The claim with scopes. None: `scope`, or else `scp`.
    pub scope_claim: Option<ClaimPath>,
    /// Claims that must all match, for example the tenant of an issuer that serves several.
    pub required: Vec<ClaimRule>,
    /// How roles follow from claims.
    pub roles: RoleMapping,
}

impl IssuerSpec {
    /// An issuer with the defaults: all algorithms, 30 s leeway, `sub`, `groups`, and no roles.
    pub fn new(name: impl Into<Arc<str>>, issuer: impl Into<String>, jwks: Arc<JwksSource>) -> Self {
        let path = |text| ClaimPath::parse(text).expect("a plain name is a path");
        Self {
            name: name.into(),
            issuer: issuer.into(),
            jwks,
            algorithms: AlgSet::all(),
            leeway: Duration::from_secs(30),
            audiences: Vec::new(),
            principal_claim: path("sub"),
            kind: KindRule::Auto,
            groups_claim: path("groups"),
            scope_claim: None,
            required: Vec::new(),
            roles: RoleMapping::default(),
        }
    }
}

/// Identifies an issuer's whole configuration in its tenant, so that what was concluded under another one is not used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct IssuerPrint([u8; 32]);

/// What is known for good about an authentic token under one issuer configuration. Says nothing about now.
pub(crate) struct Verified {
    pub(crate) issuer: IssuerPrint,
    pub(crate) key: KeyPrint,
    expires: u64,
    not_before: Option<u64>,
    issued: Option<u64>,
    audiences: Box<[Box<str>]>,
    subject: Option<Box<str>>,
    /// SHA-256 of the certificate that the bearer must have shown (RFC 8705 §3.1).
    certificate: Option<[u8; 32]>,
    outcome: Outcome,
    /// Roughly, in bytes.
    pub(crate) weight: usize,
}

/// What the claims lead to.
enum Outcome {
    NoRole,
    Principal(Arc<Principal>),
    Refused(&'static str),
}

/// An issuer ready for use.
#[derive(Debug)]
pub(crate) struct Issuer {
    pub(crate) spec: IssuerSpec,
    pub(crate) print: IssuerPrint,
    leeway: u64,
    roles: CompiledMapping,
    required: Vec<CompiledRule>,
    service_if: Option<CompiledRule>,
}

impl Issuer {
    pub(crate) fn compile(spec: IssuerSpec, tenant: &TenantId) -> Result<Self, SpecError> {
        let field = |name: &str| format!("issuers.{}.{name}", spec.name);
        let named = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if spec.name.is_empty() || spec.name.len() > MAX_NAME_BYTES || !spec.name.bytes().all(named) {
            return Err(SpecError::new(
                field("name"),
                "must be letters, digits, `-`, `_` and `.`, at most 64",
            ));
        }
        if RESERVED.contains(&&*spec.name) {
            return Err(SpecError::new(field("name"), "is reserved"));
        }
        if spec.issuer.is_empty() {
            return Err(SpecError::new(field("issuer"), "must be the exact value of `iss`"));
        }
        if spec.algorithms.is_empty() {
            return Err(SpecError::new(field("algorithms"), "must allow at least one"));
        }
        if spec.leeway > MAX_LEEWAY {
            return Err(SpecError::new(field("leeway"), "must be at most 5m"));
        }
        if spec.audiences.iter().any(String::is_empty) {
            return Err(SpecError::new(field("audiences"), "must not be empty texts"));
        }
        if spec.audiences.len().max(spec.required.len()) > MAX_LIST {
            return Err(SpecError::new(
                field("audiences"),
                format!("at most {MAX_LIST} audiences and required claims"),
            ));
        }
        let required = spec.required.iter().map(|rule| CompiledRule::compile(rule, &field("required")));
        let service_if = match &spec.kind {
            KindRule::ServiceIf(rule) => Some(CompiledRule::compile(rule, &field("kind"))?),
            _ => None,
        };
        Ok(Self {
            print: IssuerPrint::of(&spec, tenant),
            leeway: spec.leeway.as_secs(),
            roles: CompiledMapping::compile(&spec.roles, &field("roles"))?,
            required: required.collect::<Result<_, _>>()?,
            service_if,
            spec,
        })
    }

    /// Concludes what follows from the claims of a token that this issuer has signed.
    pub(crate) fn conclude(
        &self,
        claims: Map<String, Value>,
        key: KeyPrint,
        tenant: &TenantId,
    ) -> Result<Verified, AuthError> {
        let refuse = |reason| AuthError::Claim { issuer: self.spec.name.clone(), reason };
        if claims.get("iss").and_then(Value::as_str) != Some(&self.spec.issuer) {
            return Err(AuthError::IssuerUnknown);
        }
        let date = |name, reason| match claims.get(name) {
            None => Ok(None),
            Some(value) => numeric_date(value).map(Some).ok_or_else(|| refuse(reason)),
        };
        let text = |name, reason| match claims.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(refuse(reason)),
        };
        let expires = date("exp", "`exp` is not a time")?.ok_or_else(|| refuse("`exp` is missing"))?;
        let not_before = date("nbf", "`nbf` is not a time")?;
        let issued = date("iat", "`iat` is not a time")?;
        let subject = text("sub", "`sub` is not a text")?.map(Into::into);
        let id: Option<Arc<str>> = text("jti", "`jti` is not a text")?.map(Into::into);
        let audiences: Box<[Box<str>]> = match claims.get("aud") {
            Some(Value::String(one)) => [one.as_str().into()].into(),
            Some(Value::Array(many)) => {
                let texts = many.iter().map(|v| v.as_str().map(Into::into));
                texts.collect::<Option<_>>().ok_or_else(|| refuse("`aud` is not a list of texts"))?
            }
            Some(_) => return Err(refuse("`aud` is neither a text nor a list")),
            None => return Err(refuse("`aud` is missing")),
        };
        let certificate = match claims.get("cnf") {
            None => None,
            // Accepting it without the proof would make a stolen token as good as the client's own.
            Some(cnf) => Some(
                bound_certificate(cnf).ok_or_else(|| refuse("`cnf` asks for a proof not supported here"))?,
            ),
        };
        let claims = Value::Object(claims);
        let weight = size_of::<Verified>() + size_of::<Principal>() + 2 * json::footprint(&claims);
        let outcome = match self.principal(claims, id, expires, tenant) {
            Ok(Some(principal)) => Outcome::Principal(Arc::new(principal)),
            Ok(None) => Outcome::NoRole,
            Err(reason) => Outcome::Refused(reason),
        };
        Ok(Verified {
            issuer: self.print,
            key,
            expires,
            not_before,
            issued,
            audiences,
            subject,
            certificate,
            outcome,
            weight,
        })
    }

    /// Hot: whether an authentic token is good for this request, now. No allocation unless it is refused.
    pub(crate) fn judge(
        &self,
        token: &Verified,
        certificate: Option<[u8; 32]>,
        audiences: &[impl AsRef<str>],
        now_unix: u64,
        revocations: &Revocations,
    ) -> Result<Arc<Principal>, AuthError> {
        let issuer = || self.spec.name.clone();
        if now_unix >= token.expires.saturating_add(self.leeway) {
            return Err(AuthError::Expired { issuer: issuer() });
        }
        let latest = now_unix.saturating_add(self.leeway);
        if token.not_before.is_some_and(|at| at > latest) {
            return Err(AuthError::NotYetValid { issuer: issuer() });
        }
        if token.issued.is_some_and(|at| at > latest.saturating_add(MAX_FUTURE_SECS)) {
            return Err(AuthError::IssuedInFuture { issuer: issuer() });
        }
        let is_for = |audience: &str| token.audiences.iter().any(|a| &**a == audience);
        if !audiences.iter().any(|a| is_for(a.as_ref())) && !self.spec.audiences.iter().any(|a| is_for(a)) {
            return Err(AuthError::Audience { issuer: issuer() });
        }
        if token.certificate.is_some() && token.certificate != certificate {
            return Err(AuthError::Binding { issuer: issuer() });
        }
        let principal = match &token.outcome {
            Outcome::NoRole => return Err(AuthError::NoRole { issuer: issuer() }),
            Outcome::Principal(principal) => principal,
            Outcome::Refused(reason) => return Err(AuthError::Claim { issuer: issuer(), reason }),
        };
        if revocations.revokes(Claimed {
            issuer: &self.spec.name,
            id: principal.credential_id.as_deref(),
            subject: token.subject.as_deref(),
            principal: principal.id.as_str(),
            issued_at: token.issued,
        }) {
            return Err(AuthError::Revoked { issuer: issuer() });
        }
        Ok(principal.clone())
    }

    /// `None` if no role follows.
    fn principal(
        &self,
        claims: Value,
        credential_id: Option<Arc<str>>,
        expires: u64,
        tenant: &TenantId,
    ) -> Result<Option<Principal>, &'static str> {
        let Value::Object(map) = &claims else { return Err("the claims are not an object") };
        if !self.required.iter().all(|rule| rule.matches(map)) {
            return Err("a required claim does not match");
        }
        let name = self.spec.principal_claim.get(map).and_then(Value::as_str);
        let name = name.ok_or("the claim that names the caller is missing or not a text")?;
        if name.is_empty() || name.len() > MAX_PRINCIPAL_BYTES || name.chars().any(char::is_control) {
            return Err("the claim that names the caller is empty, too long or has control characters");
        }
        let roles = self.roles.roles(map);
        if roles.is_empty() {
            return Ok(None);
        }
        let list = |path: &ClaimPath, split: bool| -> Option<Vec<Arc<str>>> {
            let value = path.get(map)?;
            Some(if split {
                words(value).map(Into::into).collect()
            } else {
                texts(value).map(Into::into).collect()
            })
        };
        let scopes = match &self.spec.scope_claim {
            Some(path) => list(path, true),
            None => ["scope", "scp"]
                .iter()
                .find_map(|name| map.get(*name))
                .map(|v| words(v).map(Into::into).collect()),
        };
        Ok(Some(Principal {
            tenant: tenant.clone(),
            id: PrincipalId::new(format!("{}|{name}", self.spec.name)),
            kind: self.kind(map),
            roles,
            groups: list(&self.spec.groups_claim, false).unwrap_or_default(),
            scopes: scopes.unwrap_or_default(),
            issuer: Some(self.spec.name.clone()),
            credential_id,
            expires_at: Some(expires),
            claims,
        }))
    }

    fn kind(&self, claims: &Map<String, Value>) -> PrincipalKind {
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let service = match &self.spec.kind {
            KindRule::Auto => {
                let subject = text("sub");
                (subject.is_some() && (subject == text("client_id") || subject == text("azp")))
                    || text("gty") == Some("client-credentials")
                    || text("idtyp") == Some("app")
            }
            KindRule::Service => true,
            KindRule::ServiceIf(_) => self.service_if.as_ref().is_some_and(|rule| rule.matches(claims)),
            KindRule::User => false,
        };
        if service { PrincipalKind::Service } else { PrincipalKind::User }
    }
}

/// The one confirmation method that can be checked here: the thumbprint of a client certificate, alone.
fn bound_certificate(cnf: &Value) -> Option<[u8; 32]> {
    let cnf = cnf.as_object().filter(|methods| methods.len() == 1)?;
    URL_SAFE_NO_PAD.decode(cnf.get("x5t#S256")?.as_str()?).ok()?.try_into().ok()
}

impl IssuerPrint {
    /// Through `Hash`, so that a field that is added later cannot be forgotten here.
    fn of(spec: &IssuerSpec, tenant: &TenantId) -> Self {
        struct Sha(Sha256);
        impl Hasher for Sha {
            fn write(&mut self, bytes: &[u8]) {
                self.0.update(bytes);
            }

            fn finish(&self) -> u64 {
                0
            }
        }
        let mut sha = Sha(Sha256::new());
        tenant.hash(&mut sha);
        spec.hash(&mut sha);
        Self(sha.0.finalize().into())
    }
}

impl std::fmt::Debug for IssuerPrint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02x}{:02x}…", self.0[0], self.0[1])
    }
}
