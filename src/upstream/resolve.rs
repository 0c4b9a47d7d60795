//! Host names to addresses, in the background.
//!
//! No request waits for DNS: a pool is built from the last answer. A failed lookup keeps the addresses there are
//! (stale if error) and is shown in the status. An address that an answer no longer has gets no new work at once, but
//! serves the sessions bound to it for [`LINGER`]: servers that rotate their answers do not lose sessions, and the
//! processes behind a name can be replaced one by one.
//!
//! Bounds: [`MAX_ADDRESSES`] per name, [`LOOKUP_TIMEOUT`] per lookup, [`LOOKUPS`] at a time.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora_load_balancing::Backend;
use pingora_load_balancing::discovery::ServiceDiscovery;

use crate::base::guard::AddressGuard;
use crate::upstream::outlier::nanos;

/// Most addresses of one name; the rest of an answer is ignored, in address order.
pub const MAX_ADDRESSES: usize = 32;
/// How long sessions of an address that left DNS are still served.
pub const LINGER: Duration = Duration::from_secs(600);
/// For one lookup.
pub(crate) const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Lookups at a time, over all servers: each may occupy a thread.
pub(crate) const LOOKUPS: usize = 16;

/// Where addresses come from. The system's resolver, unless a test says otherwise.
#[async_trait]
pub trait Resolve: Send + Sync + 'static {
    /// All addresses of a host name.
    ///
    /// # Errors
    ///
    /// Whatever the resolver says; the addresses known so far stay in use.
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The resolver of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolve for SystemResolver {
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|addr| addr.ip()).collect())
    }
}

/// What is known about one name.
#[derive(Debug, Default)]
pub(crate) struct Resolution {
    pub(crate) addresses: Vec<IpAddr>,
    /// Addresses that left, and the clock reading until which they serve their sessions.
    pub(crate) lingering: Vec<(IpAddr, u64)>,
    pub(crate) error: Option<String>,
    /// Whether there was an answer of any kind.
    pub(crate) asked: bool,
}

impl Resolution {
    /// Takes an answer in; returns whether the addresses changed.
    pub(crate) fn learn(
        &mut self,
        answer: Result<Vec<IpAddr>, String>,
        guard: &AddressGuard,
        now: u64,
    ) -> bool {
        self.asked = true;
        let before = self.lingering.len();
        self.lingering.retain(|(_, until)| *until > now);
        let expired = self.lingering.len() != before;
        let fresh = match answer.and_then(|found| allowed(found, guard)) {
            Ok(fresh) => fresh,
            Err(error) => {
                self.error = Some(error);
                return expired;
            }
        };
        self.error = None;
        if fresh == self.addresses {
            return expired;
        }
        let left = std::mem::replace(&mut self.addresses, fresh);
        let until = now.saturating_add(nanos(LINGER));
        self.lingering.retain(|(ip, _)| !self.addresses.contains(ip));
        self.lingering
            .extend(left.into_iter().filter(|ip| !self.addresses.contains(ip)).map(|ip| (ip, until)));
        let excess = self.lingering.len().saturating_sub(MAX_ADDRESSES);
        self.lingering.drain(..excess);
        true
    }
}

/// The addresses of an answer that may be dialled, in order and each once.
fn allowed(found: Vec<IpAddr>, guard: &AddressGuard) -> Result<Vec<IpAddr>, String> {
    let mut refused = None;
    let checked: BTreeSet<IpAddr> = found
        .into_iter()
        .map(|ip| ip.to_canonical())
        .filter(|ip| guard.check(*ip).inspect_err(|e| refused = Some(e.to_string())).is_ok())
        .collect();
    if checked.is_empty() {
        return Err(refused.unwrap_or_else(|| "the name has no address".to_owned()));
    }
    Ok(checked.into_iter().take(MAX_ADDRESSES).collect())
}

/// Hands the resolved set to pingora's pool. Never waits: the I/O was done before.
#[derive(Clone, Default)]
pub(crate) struct Resolved(Arc<ArcSwap<BTreeSet<Backend>>>);

impl Resolved {
    pub(crate) fn set(&self, backends: BTreeSet<Backend>) {
        self.0.store(Arc::new(backends));
    }
}

#[async_trait]
impl ServiceDiscovery for Resolved {
    async fn discover(&self) -> pingora::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        // Draining is a flag of our own: enablement is keyed by address and weight, and a weight edit would lose it.
        Ok((BTreeSet::clone(&self.0.load()), HashMap::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Clock;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    #[test]
    fn a_failed_lookup_keeps_what_is_known() {
        let clock = Clock::manual(0);
        let mut r = Resolution::default();
        assert!(r.learn(Ok(ips(&["10.0.0.2", "10.0.0.1"])), &AddressGuard::AllowAll, clock.mono_ns()));
        assert!(!r.learn(Err("SERVFAIL".into()), &AddressGuard::AllowAll, clock.mono_ns()));
        assert!(!r.learn(Ok(vec![]), &AddressGuard::AllowAll, clock.mono_ns()));
        assert_eq!(r.addresses, ips(&["10.0.0.1", "10.0.0.2"]));
        assert_eq!(r.error.as_deref(), Some("the name has no address"));
        assert!(!r.learn(Ok(ips(&["10.0.0.1", "10.0.0.2"])), &AddressGuard::AllowAll, clock.mono_ns()));
        assert_eq!(r.error, None);
    }

    #[test]
    fn an_address_that_left_lingers_for_its_sessions_and_then_goes() {
        let clock = Clock::manual(0);
        let mut r = Resolution::default();
        r.learn(Ok(ips(&["10.0.0.1", "10.0.0.2"])), &AddressGuard::AllowAll, clock.mono_ns());
        assert!(r.learn(Ok(ips(&["10.0.0.2", "10.0.0.3"])), &AddressGuard::AllowAll, clock.mono_ns()));
        assert_eq!(r.lingering.iter().map(|(ip, _)| *ip).collect::<Vec<_>>(), ips(&["10.0.0.1"]));
        assert!(r.learn(Ok(ips(&["10.0.0.1"])), &AddressGuard::AllowAll, clock.mono_ns()));
        assert_eq!(r.lingering.len(), 2, "one came back, two left");
        clock.advance(LINGER);
        assert!(r.learn(Err("SERVFAIL".into()), &AddressGuard::AllowAll, clock.mono_ns()));
        assert!(r.lingering.is_empty());
    }

    #[test]
    fn only_checked_addresses_are_kept() {
        let guard = AddressGuard::PublicOnly { except: Vec::new() };
        let mut r = Resolution::default();
        r.learn(Ok(ips(&["8.8.8.8", "127.0.0.1", "::ffff:169.254.169.254"])), &guard, 1);
        assert_eq!(r.addresses, ips(&["8.8.8.8"]));
        r.learn(Ok(ips(&["127.0.0.1"])), &guard, 1);
        assert_eq!(r.addresses, ips(&["8.8.8.8"]), "a rebound name changes nothing");
        assert!(r.error.clone().is_some_and(|e| e.contains("loopback")));
        let many = (0..100u8).map(|i| IpAddr::from([8, 8, 4, i])).collect();
        r.learn(Ok(many), &guard, 1);
        assert_eq!(r.addresses.len(), MAX_ADDRESSES);
    }
}
