//! From a presented credential to a principal.

use std::sync::Arc;
use std::time::Duration;

use crate::auth::cache::TenantPrefix;
use crate::auth::credential::Presented;
use crate::auth::error::shorten;
use crate::auth::issuer::{Issuer, Verified};
use crate::auth::revocation::Claimed;
use crate::auth::token::{Unverified, Verdict};
use crate::auth::{
    AuthError, Bindings, CacheBounds, Credential, FailureBounds, FailureLimiter, IssuerSpec, KeyRefusal,
    KeyStore, Restriction, Revocations, Source, SpecError, TokenCache,
};
use crate::base::{Clock, Principal, PrincipalId, Role, TenantId};

/// The most issuers of one tenant.
const MAX_ISSUERS: usize = 32;

/// Who may call, and as what. Plain data; [`Authenticator::compile`] checks it.
#[derive(Clone, Debug)]
pub struct AuthSpec {
    /// The tenant that every principal will belong to.
    pub tenant: TenantId,
    /// The issuers whose tokens are accepted.
    pub issuers: Vec<IssuerSpec>,
    /// The tenant's API keys. None: keys are refused.
    pub api_keys: Option<Arc<KeyStore>>,
    /// The role of callers who present nothing. None: they are refused.
    pub anonymous: Option<Role>,
    /// The role of callers who present nothing and connect from this machine. None: they are like all others.
    pub loopback: Option<Role>,
    /// What has been revoked.
    pub revocations: Arc<Revocations>,
    /// Who is shut out, and roles that were given.
    pub bindings: Arc<Bindings>,
    /// API keys are refused if the store was not heard of for longer. None: never for that.
    pub max_staleness: Option<Duration>,
}

/// What all authenticators share and what survives their replacement.
#[derive(Clone, Debug)]
pub struct AuthState {
    /// The verified tokens.
    pub tokens: Arc<TokenCache>,
    /// The failed attempts.
    pub failures: Arc<FailureLimiter>,
}

impl AuthState {
    /// Empty tables.
    pub fn new(tokens: CacheBounds, failures: FailureBounds, clock: Clock) -> Self {
        Self {
            tokens: Arc::new(TokenCache::new(tokens)),
            failures: Arc::new(FailureLimiter::new(failures, clock)),
        }
    }
}

/// A caller who was let in.
#[derive(Clone, Debug)]
#[must_use]
pub struct Identity {
    /// Who it is.
    pub principal: Arc<Principal>,
    /// What an API key is restricted to, on top of roles and policies. None: nothing.
    pub restriction: Option<Arc<Restriction>>,
}

/// Decides who calls one tenant. Immutable; part of the snapshot.
#[derive(Debug)]
pub struct Authenticator {
    tenant: TenantId,
    prefix: Prefix,
    issuers: Box<[Issuer]>,
    api_keys: Option<Arc<KeyStore>>,
    anonymous: Option<Arc<Principal>>,
    loopback: Option<Arc<Principal>>,
    revocations: Arc<Revocations>,
    bindings: Arc<Bindings>,
    max_staleness: Option<u64>,
    state: AuthState,
}

struct Prefix(TenantPrefix);

impl std::fmt::Debug for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Prefix")
    }
}

impl Authenticator {
    /// Checks a spec and makes it ready for use.
    pub fn compile(spec: AuthSpec, state: AuthState) -> Result<Self, SpecError> {
        if spec.issuers.len() > MAX_ISSUERS {
            return Err(SpecError::new("issuers", format!("at most {MAX_ISSUERS} are allowed")));
        }
        for (i, issuer) in spec.issuers.iter().enumerate() {
            let earlier = &spec.issuers[..i];
            if earlier.iter().any(|other| other.name == issuer.name) {
                return Err(SpecError::new(format!("issuers.{}.name", issuer.name), "is used twice"));
            }
            if earlier.iter().any(|other| other.issuer == issuer.issuer) {
                // Which of the two decides would depend on their order.
                return Err(SpecError::new(format!("issuers.{}.issuer", issuer.name), "is configured twice"));
            }
        }
        if spec.api_keys.as_ref().is_some_and(|keys| *keys.tenant() != spec.tenant) {
            return Err(SpecError::new("api_keys", "belong to another tenant"));
        }
        let nobody = |role: Option<Role>, id: &str| {
            role.map(|role| {
                let anonymous = Principal::anonymous(spec.tenant.clone(), role);
                Arc::new(Principal { id: PrincipalId::new(id), ..anonymous })
            })
        };
        let issuers = spec.issuers.into_iter().map(|issuer| Issuer::compile(issuer, &spec.tenant));
        Ok(Self {
            prefix: Prefix(TenantPrefix::new(&spec.tenant)),
            anonymous: nobody(spec.anonymous, "anonymous"),
            loopback: nobody(spec.loopback, "loopback"),
            issuers: issuers.collect::<Result<_, _>>()?,
            api_keys: spec.api_keys,
            revocations: spec.revocations,
            bindings: spec.bindings,
            max_staleness: spec.max_staleness.map(|max| max.as_secs()),
            tenant: spec.tenant,
            state,
        })
    }

    /// The `iss` values of the issuers, for the protected-resource metadata.
    pub fn authorization_servers(&self) -> impl Iterator<Item = &str> {
        self.issuers.iter().map(|issuer| issuer.spec.issuer.as_str())
    }

    /// What kinds of caller there can be, over all credentials that anybody might hold.
    pub fn sources(&self) -> Vec<Source> {
        let mut sources = Vec::new();
        let local = self.loopback.as_deref().or(self.anonymous.as_deref());
        sources.extend(local.map(|nobody| Source::nobody(nobody, true)));
        sources.extend(self.anonymous.as_deref().map(|nobody| Source::nobody(nobody, false)));
        if self.api_keys.is_some() {
            sources.push(Source::keys());
        }
        sources.extend(self.issuers.iter().map(|issuer| Source::issuer(&issuer.spec)));
        sources
    }

    /// Decides who calls. `audiences` are the URLs the called route goes by; a token must be for one of them, or for an
    /// additional one of its issuer. `now_unix` is in seconds.
    ///
    /// Hot: a token that was verified before costs one SHA-256, one lookup and comparisons, and allocates nothing.
    /// Never waits; see [`Authenticator::authenticate_waiting`] for keys that have to be fetched first.
    pub fn authenticate(
        &self,
        credential: &Credential<'_>,
        audiences: &[impl AsRef<str> + Sync],
        now_unix: u64,
    ) -> Result<Identity, AuthError> {
        let result = self.decide(credential, audiences, now_unix);
        if let Err(error) = &result
            && error.counts_as_failure()
        {
            self.state.failures.record(credential.peer);
        }
        result
    }

    /// Like [`Authenticator::authenticate`], but if the issuer's keys lack the one that is needed, waits once for the
    /// refresh that was triggered, at most `wait` (capped at 2 s), and tries again. All waiting requests share one
    /// refresh, and an unknown key triggers at most one in 30 s; in between the answer is immediate.
    pub async fn authenticate_waiting(
        &self,
        credential: &Credential<'_>,
        audiences: &[impl AsRef<str> + Sync],
        clock: &Clock,
        wait: Duration,
    ) -> Result<Identity, AuthError> {
        let mut error = match self.authenticate(credential, audiences, clock.unix_secs()) {
            Ok(identity) => return Ok(identity),
            Err(error) => error,
        };
        let Some(ticket) = error.take_refresh() else { return Err(error) };
        if ticket.wait(wait).await {
            error = match self.authenticate(credential, audiences, clock.unix_secs()) {
                Ok(identity) => return Ok(identity),
                Err(error) if error.counts_as_failure() => return Err(error),
                Err(error) => error,
            };
        }
        // The key was waited for and did not come: now it is a failed attempt like any other.
        drop(error.take_refresh());
        if error.counts_as_failure() {
            self.state.failures.record(credential.peer);
        }
        Err(error)
    }

    fn decide(
        &self,
        credential: &Credential<'_>,
        audiences: &[impl AsRef<str> + Sync],
        now_unix: u64,
    ) -> Result<Identity, AuthError> {
        match credential.presented()? {
            Presented::ApiKey(text) => self.api_key(credential, text, now_unix),
            Presented::Nothing => {
                let nobody =
                    self.loopback.as_ref().filter(|_| credential.is_loopback).or(self.anonymous.as_ref());
                nobody.cloned().map(unrestricted).ok_or(AuthError::Missing)
            }
            Presented::Token(token) => {
                let principal = self.token(credential, token, audiences, now_unix)?;
                self.admit(principal).map(unrestricted)
            }
        }
    }

    /// What the store says of a principal, on top of the credential.
    fn admit(&self, principal: Arc<Principal>) -> Result<Arc<Principal>, AuthError> {
        let issuer = principal.issuer.clone();
        let admitted = self.bindings.admit(principal);
        admitted.ok_or_else(|| AuthError::Revoked { issuer: issuer.unwrap_or_else(|| "store".into()) })
    }

    fn token(
        &self,
        credential: &Credential<'_>,
        token: &[u8],
        audiences: &[impl AsRef<str> + Sync],
        now_unix: u64,
    ) -> Result<Arc<Principal>, AuthError> {
        let id = self.prefix.0.token(token);
        if let Some(verified) = self.state.tokens.get(&id) {
            let issuer = self.issuers.iter().find(|issuer| issuer.print == verified.issuer);
            if let Some(issuer) = issuer.filter(|issuer| issuer.spec.jwks.holds(&verified.key, now_unix)) {
                return self.judge(issuer, &verified, credential, audiences, now_unix);
            }
            // The issuer's configuration or its keys have changed since: begin again.
            self.state.tokens.remove(&id);
        }
        if !self.state.failures.allows(credential.peer) {
            return Err(AuthError::TooManyFailures);
        }
        let (issuer, verified) = self.verify(token, now_unix)?;
        let verified = Arc::new(verified);
        // Kept also if it is refused below: it is authentic, and saying so again should be cheap.
        self.state.tokens.insert(id, verified.clone());
        self.judge(issuer, &verified, credential, audiences, now_unix)
    }

    fn judge(
        &self,
        issuer: &Issuer,
        verified: &Verified,
        credential: &Credential<'_>,
        audiences: &[impl AsRef<str> + Sync],
        now_unix: u64,
    ) -> Result<Arc<Principal>, AuthError> {
        issuer.judge(verified, credential.client_certificate, audiences, now_unix, &self.revocations)
    }

    /// Cold: everything about a token that does not depend on the request.
    fn verify(&self, token: &[u8], now_unix: u64) -> Result<(&Issuer, Verified), AuthError> {
        let token = Unverified::parse(token)?;
        let issuer = self.issuers.iter().find(|issuer| issuer.spec.issuer == token.issuer);
        let issuer = issuer.ok_or(AuthError::IssuerUnknown)?;
        if !issuer.spec.algorithms.contains(token.alg) {
            return Err(AuthError::AlgorithmRefused { alg: token.alg.as_str().to_owned() });
        }
        let jwks = &issuer.spec.jwks;
        let name = || issuer.spec.name.clone();
        let Some(keys) = jwks.current(now_unix) else {
            return Err(AuthError::KeysUnavailable { issuer: name(), refresh: jwks.request_refresh() });
        };
        let key = match token.verify(&keys) {
            Verdict::Good(key) => key,
            Verdict::Bad => return Err(AuthError::Signature { issuer: name() }),
            Verdict::NoKey => {
                let kid = token.kid.as_deref().map(shorten);
                return Err(AuthError::KeyUnknown { issuer: name(), kid, refresh: jwks.request_refresh() });
            }
        };
        let verified = issuer.conclude(token.into_claims()?, key, &self.tenant)?;
        Ok((issuer, verified))
    }

    fn api_key(
        &self,
        credential: &Credential<'_>,
        text: &[u8],
        now_unix: u64,
    ) -> Result<Identity, AuthError> {
        let keys = self.api_keys.as_ref().ok_or(KeyRefusal::NotAccepted)?;
        if self.max_staleness.is_some_and(|max| self.bindings.age(now_unix) > max) {
            return Err(AuthError::Stale);
        }
        let may_guess = || self.state.failures.allows(credential.peer);
        let key = keys.verify(text, credential.peer, now_unix, may_guess)?;
        let key = key.ok_or(AuthError::TooManyFailures)?;
        let issuer = key.principal.issuer.as_deref().unwrap_or_default();
        if self.revocations.revokes(Claimed {
            issuer,
            id: key.principal.credential_id.as_deref(),
            subject: None,
            principal: key.principal.id.as_str(),
            issued_at: key.created,
        }) {
            return Err(AuthError::Revoked { issuer: issuer.into() });
        }
        let principal = self.admit(key.principal.clone())?;
        Ok(Identity { principal, restriction: key.restriction.clone() })
    }
}

fn unrestricted(principal: Arc<Principal>) -> Identity {
    Identity { principal, restriction: None }
}
