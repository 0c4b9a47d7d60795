//! From the `Authorization` header to an [`Actor`].
//!
//! Three kinds of bearer tokens: the one made at first start, the one of the listener's configuration, and API keys.
//! Tokens are compared as digests, in constant time. Keys are looked up where they are kept, on every request, so that
//! a revoked one is refused at once.
//!
//! Failed attempts are counted by address. An address over the bound is not looked up any more, so that guessing costs
//! nobody anything; what verified a moment ago still passes, so that guessing from a shared address locks nobody out.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use parking_lot::RwLock;
use quick_cache::sync::Cache;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::actor::{Actor, Proof};
use super::bootstrap;
use super::failure;
use super::problem::Problem;
use crate::auth::{FailureBounds, FailureLimiter};
use crate::base::{Clock, Secret};

/// Longest bearer token taken, in bytes.
const MAX_TOKEN: usize = 512;
/// Addresses whose failures are remembered.
const ADDRESSES: usize = 4096;
/// Verified credentials that are remembered, to let them pass while their address is over the bound.
const KNOWN: usize = 4096;
/// For how long, in milliseconds.
const KNOWN_FOR: u64 = 10 * 60 * 1000;
/// What an address over the bound is told to wait, in seconds.
const RETRY_AFTER: u64 = 3;

/// Where API keys are kept.
#[async_trait]
pub trait Keys: Send + Sync + 'static {
    /// Who the key stands for. `None`: there is no such key, or it is expired, revoked, disabled, or not for this
    /// address.
    ///
    /// # Errors
    ///
    /// A problem if that cannot be known now.
    async fn actor(&self, key: &str, address: IpAddr) -> Result<Option<Actor>, Problem>;
}

type Digest = [u8; 32];

/// Knows the tokens and where keys are kept.
pub struct Authenticator {
    tokens: RwLock<Vec<(Digest, Arc<Actor>)>>,
    keys: Option<Arc<dyn Keys>>,
    /// The installation's token is not known yet: it is in a store that could not be asked so far.
    awaited: AtomicBool,
    failures: FailureLimiter,
    known: Cache<Digest, u64>,
    clock: Clock,
}

impl Authenticator {
    /// Without tokens: every caller is refused.
    pub fn new(keys: Option<Arc<dyn Keys>>, clock: Clock) -> Self {
        let bounds = FailureBounds { addresses: ADDRESSES, ..FailureBounds::default() };
        Self {
            tokens: RwLock::default(),
            keys,
            awaited: AtomicBool::new(false),
            failures: FailureLimiter::new(bounds, clock.clone()),
            known: Cache::new(KNOWN),
            clock,
        }
    }

    /// Says whether the installation's token is still to be asked for: who shows one that may be it is told to come again,
    /// and not that it is wrong.
    pub fn await_token(&self, awaited: bool) {
        self.awaited.store(awaited, Ordering::Relaxed);
    }

    /// Accepts a token of the installation.
    pub fn accept(&self, token: &Secret<String>, proof: Proof) {
        self.accept_digest(digest(token.expose()), proof);
    }

    /// Accepts the token with this SHA-256, in place of an earlier one of the same kind.
    pub fn accept_digest(&self, digest: Digest, proof: Proof) {
        let mut tokens = self.tokens.write();
        tokens.retain(|(_, actor)| actor.proof != proof);
        tokens.push((digest, Arc::new(Actor::operator(proof))));
    }

    /// Who sends these headers.
    ///
    /// # Errors
    ///
    /// 401 without one good credential, 429 after too many failures from the address, 503 if keys cannot be looked up or
    /// the installation's token is not known yet.
    pub async fn authenticate(&self, headers: &HeaderMap, address: IpAddr) -> Result<Arc<Actor>, Problem> {
        let token = bearer(headers).ok_or_else(Problem::unauthorized)?;
        let digest = digest(token);
        // Every token is compared, whichever matches.
        let own = self.tokens.read().iter().fold(None, |found, (known, actor)| {
            if bool::from(known.ct_eq(&digest)) { Some(actor.clone()) } else { found }
        });
        if let Some(actor) = own {
            return Ok(actor);
        }
        if self.awaited.load(Ordering::Relaxed) && token.starts_with(bootstrap::PREFIX) {
            return Err(failure::store_away());
        }
        let now = self.clock.unix_ms();
        let known = self.known.get(&digest).is_some_and(|until| until > now);
        if !known && !self.failures.allows(address) {
            return Err(Problem::too_many("too many failed attempts from this address", RETRY_AFTER));
        }
        let found = match &self.keys {
            Some(keys) if token.starts_with("tg_") => keys.actor(token, address).await?,
            _ => None,
        };
        match found {
            Some(actor) if actor.expires.is_none_or(|end| end > now) => {
                self.known.insert(digest, now + KNOWN_FOR);
                Ok(Arc::new(actor))
            }
            _ => {
                self.known.remove(&digest);
                self.failures.record(address);
                Err(Problem::unauthorized())
            }
        }
    }
}

/// The one bearer token of a request.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && (1..=MAX_TOKEN).contains(&token.len())).then_some(token)
}

fn digest(token: &str) -> Digest {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::http::HeaderValue;

    use super::*;

    #[derive(Default)]
    struct One(AtomicUsize);

    #[async_trait]
    impl Keys for One {
        async fn actor(&self, key: &str, _: IpAddr) -> Result<Option<Actor>, Problem> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok((key == "tg_good").then(|| Actor { proof: Proof::Key, ..Actor::operator(Proof::Key) }))
        }
    }

    fn with(token: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::try_from(format!("Bearer {token}")).unwrap());
        headers
    }

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn each_kind_of_token_is_its_actor() {
        let authn = Authenticator::new(Some(Arc::new(One::default())), Clock::manual(0));
        authn.accept(&Secret::new("boot".to_owned()), Proof::Bootstrap);
        authn.accept(&Secret::new("conf".to_owned()), Proof::Listener);
        for (token, proof) in [("boot", Proof::Bootstrap), ("conf", Proof::Listener), ("tg_good", Proof::Key)]
        {
            assert_eq!(authn.authenticate(&with(token), HERE).await.unwrap().proof, proof);
        }
        for bad in ["boo", "boots", "tg_bad", "x", &"tg_".repeat(300)] {
            assert_eq!(authn.authenticate(&with(bad), HERE).await.unwrap_err().status(), 401, "{bad}");
        }
        let mut twice = with("boot");
        twice.append(AUTHORIZATION, HeaderValue::from_static("Bearer boot"));
        assert!(authn.authenticate(&twice, HERE).await.is_err());
        authn.accept(&Secret::new("next".to_owned()), Proof::Bootstrap);
        assert!(authn.authenticate(&with("boot"), HERE).await.is_err(), "replaced");
    }

    #[tokio::test]
    async fn a_token_that_cannot_be_known_yet_is_not_called_wrong() {
        let authn = Authenticator::new(None, Clock::manual(0));
        authn.await_token(true);
        let problem = authn.authenticate(&with("tga_good"), HERE).await.unwrap_err();
        assert_eq!((problem.status().as_u16(), problem.code()), (503, "store_unavailable"));
        assert_eq!(authn.authenticate(&with("else"), HERE).await.unwrap_err().status(), 401);
        authn.accept(&Secret::new("tga_good".to_owned()), Proof::Bootstrap);
        assert!(authn.authenticate(&with("tga_good"), HERE).await.is_ok());
        authn.await_token(false);
        assert_eq!(authn.authenticate(&with("tga_bad"), HERE).await.unwrap_err().status(), 401);
    }

    #[tokio::test]
    async fn guessing_stops_being_looked_up_and_locks_nobody_out() {
        let keys = Arc::new(One::default());
        let authn = Authenticator::new(Some(keys.clone()), Clock::manual(0));
        authn.accept(&Secret::new("boot".to_owned()), Proof::Bootstrap);
        assert!(authn.authenticate(&with("tg_good"), HERE).await.is_ok());
        let mut refused = 0;
        for n in 0..100 {
            let problem = authn.authenticate(&with(&format!("tg_{n}")), HERE).await.unwrap_err();
            refused += usize::from(problem.status() == 429);
        }
        assert_eq!(refused, 80);
        assert_eq!(keys.0.load(Ordering::Relaxed), 21, "looked up no more");
        for good in ["tg_good", "boot"] {
            assert!(authn.authenticate(&with(good), HERE).await.is_ok(), "{good}");
        }
    }
}
