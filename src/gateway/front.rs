//! The front door: an HTTP application on Pingora's listeners that answers every request itself.
//!
//! Pingora's `HttpProxy` is not in the way of MCP traffic: nothing here is passed through natively (the body is read
//! before a target is chosen), and a front door of our own can do what it cannot:
//! - a deadline for the whole request header. Pingora's timeouts are per read: a client that sends one byte every few
//!   seconds holds a connection for ever. A new connection gets 408; a kept-alive one, where the deadline also bounds
//!   idleness, is closed without a word, because nobody asked anything;
//! - caps on connections in total and by address;
//! - a drain that does not cut requests which were accepted but not yet read.
//!
//! An HTTP/1 connection counts from its first byte to its last; the streams of HTTP/2 count one by one.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::ErrorType;
use pingora::apps::{HttpPersistentSettings, HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::H2Options;
use pingora::protocols::{ALPN, Stream};
use pingora::server::ShutdownWatch;
use tokio::sync::Notify;

use crate::base::net::TrustedProxies;
use crate::gateway::driver::InFlight;
use crate::gateway::observe::{Observation, Unread};
use crate::gateway::{After, Gateway};

const SHARDS: usize = 16;
/// To Pingora: the connection may be kept, for as long as we like; [`Times::idle`] is the deadline.
const FOR_EVER: u64 = 0;

/// Caps on connections. Counted, not estimated.
#[derive(Debug)]
pub(crate) struct Connections {
    max: usize,
    max_per_address: usize,
    total: AtomicUsize,
    trusted: TrustedProxies,
    by_address: [Mutex<AHashMap<u128, usize>>; SHARDS],
    refused: AtomicUsize,
}

impl Connections {
    /// `trusted` proxies carry many clients and are exempt from the cap by address.
    pub(crate) fn new(max: usize, max_per_address: usize, trusted: TrustedProxies) -> Arc<Self> {
        Arc::new(Self {
            max,
            max_per_address,
            trusted,
            total: AtomicUsize::new(0),
            by_address: Default::default(),
            refused: AtomicUsize::new(0),
        })
    }

    /// Counts a connection, or refuses it.
    fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> Option<Admitted> {
        let admitted = self.try_admit(address);
        if admitted.is_none() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }

    fn try_admit(self: &Arc<Self>, address: Option<IpAddr>) -> Option<Admitted> {
        if self.total.fetch_add(1, Ordering::AcqRel) >= self.max {
            self.total.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        let network = address.filter(|a| !self.trusted.contains(*a)).map(network);
        if let Some(network) = network {
            let mut shard = self.shard(network).lock();
            let count = shard.entry(network).or_insert(0);
            if *count >= self.max_per_address {
                drop(shard);
                self.total.fetch_sub(1, Ordering::AcqRel);
                return None;
            }
            *count += 1;
        }
        Some(Admitted { connections: self.clone(), network })
    }

    fn shard(&self, network: u128) -> &Mutex<AHashMap<u128, usize>> {
        let folded = (network >> 64) as u64 ^ network as u64;
        &self.by_address[(folded ^ (folded >> 32) ^ (folded >> 8)) as usize % SHARDS]
    }

    /// Open connections.
    pub(crate) fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Connections refused since start.
    pub(crate) fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }
}

/// What counts as one address: an IPv4 address, or an IPv6 /64, which is what one customer is given.
fn network(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a) & !u128::from(u64::MAX),
    }
}

/// A counted connection; uncounts itself.
#[derive(Debug)]
struct Admitted {
    connections: Arc<Connections>,
    network: Option<u128>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(network) = self.network {
            let mut shard = self.connections.shard(network).lock();
            if let Some(count) = shard.get_mut(&network) {
                *count -= 1;
                if *count == 0 {
                    shard.remove(&network);
                }
            }
        }
        self.connections.total.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Times of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// From the first wait for a request to the end of its header.
    pub(crate) header: Duration,
    /// How long a connection may wait for its next request, besides.
    pub(crate) idle: Duration,
}

/// Tells idle kept-alive connections to go, once a drain has given them time to send what was on its way.
#[derive(Debug, Default)]
pub(crate) struct Cleanup {
    now: AtomicBool,
    wake: Notify,
}

impl Cleanup {
    /// Drops connections that wait for a next request.
    pub(crate) fn drop_idle(&self) {
        self.now.store(true, Ordering::Release);
        self.wake.notify_waiters();
    }

    async fn wait(&self) {
        loop {
            let notified = self.wake.notified();
            if self.now.load(Ordering::Acquire) {
                return;
            }
            notified.await;
        }
    }
}

/// What becomes of connections: HTTP/1 in [`Front::http1`], HTTP/2 in Pingora's own loop, which calls back by stream.
pub(crate) struct Front {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) times: Times,
    pub(crate) write_timeout: Duration,
    pub(crate) min_send_rate: Option<usize>,
    pub(crate) cleanup: Arc<Cleanup>,
    pub(crate) options: HttpServerOptions,
    pub(crate) h2: H2Options,
}

/// The application that Pingora's accept loops feed.
///
/// The task that such a loop makes for a connection has room for a TLS handshake and for HTTP/2, 12 KiB of it, and a
/// stream would hold it for hours: HTTP/1 gets a task of its own, and Pingora's ends.
pub(crate) struct Entrance(pub(crate) Arc<Front>);

#[async_trait]
impl ServerApp for Entrance {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        if matches!(stream.selected_alpn_proto(), Some(ALPN::H2)) {
            return self.0.process_new(stream, shutdown).await;
        }
        let (front, in_flight) = (self.0.clone(), self.0.in_flight.enter());
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            let _in_flight = in_flight;
            front.http1(stream, shutdown).await;
        });
        None
    }
}

/// One stream of HTTP/2.
#[async_trait]
impl HttpServerApp for Front {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        _shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let address = address(&session);
        let Some(_admitted) = self.connections.admit(address) else {
            session.shutdown().await;
            return None;
        };
        let _in_flight = self.in_flight.enter();
        self.gateway.serve(&mut session, address).await;
        let _ = session.finish().await;
        None
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }

    fn h2_options(&self) -> Option<H2Options> {
        Some(self.h2.clone())
    }
}

fn address(session: &ServerSession) -> Option<IpAddr> {
    session.client_addr().and_then(|a| a.as_inet()).map(|a| a.ip().to_canonical())
}

impl Front {
    /// Serves the requests of a connection, one after the other.
    async fn http1(&self, stream: Stream, shutdown: ShutdownWatch) {
        let mut session = ServerSession::new_http1(stream);
        let address = address(&session);
        let Some(_admitted) = self.connections.admit(address) else {
            session.shutdown().await;
            return;
        };
        session.set_keepalive(Some(FOR_EVER));
        session.set_keepalive_reuses_remaining(self.options.keepalive_request_limit);
        let mut first = true;
        loop {
            // The deadline below is the real one; Pingora's, per read, must not come first.
            session.set_read_timeout(None);
            if !self.read_header(&mut session, address, first).await {
                return;
            }
            first = false;
            session.set_write_timeout(Some(self.write_timeout));
            session.set_min_send_rate(self.min_send_rate);
            if *shutdown.borrow() {
                session.set_keepalive(None);
            }
            if self.gateway.serve(&mut session, address).await == After::Close {
                session.shutdown().await;
                return;
            }
            // A response that promised keep-alive keeps it, also if a shutdown began meanwhile: the next one says
            // `close`.
            let settings = HttpPersistentSettings::for_session(&session);
            let Ok(Some(stream)) = session.finish().await else { return };
            let (stream, settings) = ReusedHttpStream::from_reusable_stream(stream, settings).consume();
            session = ServerSession::new_http1(stream);
            if let Some(settings) = settings {
                settings.apply_to_session(&mut session);
            }
        }
    }

    /// Reads the request header of an HTTP/1 connection. `false`: there is none, and the connection is over.
    async fn read_header(&self, session: &mut ServerSession, address: Option<IpAddr>, first: bool) -> bool {
        let limit = if first { self.times.header } else { self.times.idle + self.times.header };
        let began = Instant::now();
        let outcome = tokio::select! {
            biased;
            read = session.read_request() => Some(read),
            () = tokio::time::sleep(limit) => None,
            () = self.cleanup.wait() => {
                session.shutdown().await;
                return false;
            }
        };
        let unread = match outcome {
            Some(Ok(true)) => return true,
            Some(Ok(false)) => return false,
            // The error repeats what was sent, and with it perhaps a credential: it is not logged.
            Some(Err(e)) if matches!(e.etype(), ErrorType::InvalidHTTPHeader) => Some(Unread::Malformed),
            Some(Err(_)) => None,
            None => first.then_some(Unread::Slow),
        };
        if let Some(unread) = unread {
            // Recorded before it is answered, as everything is.
            drop(Observation::unread(&self.gateway, address, began, unread));
            session.set_keepalive(None);
            let _ = session.respond_error(unread.status()).await;
        }
        session.shutdown().await;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caps_count_exactly_and_forget_closed_connections() {
        let c = Connections::new(3, 2, TrustedProxies::new(vec!["127.0.0.9/32".parse().unwrap()]));
        let a: IpAddr = "127.0.0.1".parse().unwrap();
        let b: IpAddr = "127.0.0.2".parse().unwrap();
        let first = c.admit(Some(a)).unwrap();
        let second = c.admit(Some(a)).unwrap();
        assert!(c.admit(Some(a)).is_none(), "third from one address");
        let third = c.admit(Some(b)).unwrap();
        assert!(c.admit(Some(b)).is_none(), "fourth in total");
        assert_eq!((c.total(), c.refused()), (3, 2));
        drop((first, second, third));
        assert_eq!(c.total(), 0);
        assert!(c.by_address.iter().all(|s| s.lock().is_empty()), "no entry is left behind");
    }
}
