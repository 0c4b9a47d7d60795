//! Limits that replicas share: the trips to a Valkey or Redis server for batches of tokens.
//!
//! What is exact about it is in [`crate::limit`]; here is only the I/O. All who need tokens of one key wait for the same
//! trip; how many may wait is bounded, and for how long. A trip belongs to nobody: it goes on if its requests are gone.
//!
//! **Failure.** Without a connection a trip fails at once; after a failed trip a key is not tried again for
//! [`crate::limit::FAILED_FOR`]. Requests then do what their limit's `fail` says. The connection comes back by itself.

mod link;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use self::link::Link;
use crate::base::{Clock, Secret};
use crate::limit::{Buckets, Errand, Starved};
use crate::telemetry::{Counter, Metrics};

/// Requests that may wait for trips at the same time; more do as if the server did not answer.
const MAX_WAITING: usize = 16_384;

/// Where the server is and how to speak to it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `redis://host:port`, or `rediss://` for TLS.
    pub urls: Vec<String>,
    /// Whether it is a cluster.
    pub cluster: bool,
    /// PEM of the authorities that may have signed its certificate.
    pub ca: Option<Vec<u8>>,
    /// User.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Secret<String>>,
    /// For one trip, and for all that one request waits for.
    pub timeout: Duration,
    /// Begins every key.
    pub prefix: String,
}

/// The server does not answer, or too many wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server of shared limits does not answer")]
pub struct Unavailable;

/// The means to fetch tokens. One per process.
pub struct Shared {
    link: Arc<Link>,
    clock: Clock,
    waiting: Semaphore,
    timeout: Duration,
    trips: [Counter; 2],
}

impl Shared {
    /// No connection yet: [`Shared::run`] makes it.
    pub fn new(settings: Settings, clock: Clock, metrics: &Metrics) -> Arc<Self> {
        Arc::new(Self {
            timeout: settings.timeout,
            link: Arc::new(Link::new(settings, metrics.limit_server_up().clone())),
            clock,
            waiting: Semaphore::new(MAX_WAITING),
            trips: [metrics.limit_trips("failed"), metrics.limit_trips("ok")],
        })
    }

    /// Keeps the connection, and fetches what runs low. Ends with the process; belongs on the runtime of the requests.
    pub async fn run(self: Arc<Self>, buckets: Arc<Buckets>) {
        let ahead = async {
            loop {
                for starved in buckets.running_low().await {
                    if self.link.is_up() && !starved.has_failed(&self.clock) {
                        let (_, errand) = starved.begin(&self.clock);
                        self.make(errand);
                    }
                }
            }
        };
        tokio::join!(self.link.clone().keep(), ahead);
    }

    /// When a request that begins to wait now has waited long enough.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// Has tokens of all these keys fetched, and waits until the trips are over.
    ///
    /// # Errors
    /// Some could not be.
    pub async fn fetch(&self, starved: &[Starved], deadline: Instant) -> Result<(), Unavailable> {
        if !self.link.is_up() || starved.iter().any(|s| s.has_failed(&self.clock)) {
            return Err(Unavailable);
        }
        let _place = self.waiting.try_acquire().map_err(|_| Unavailable)?;
        let mut landings = Vec::with_capacity(starved.len());
        for one in starved {
            let (landed, errand) = one.begin(&self.clock);
            self.make(errand);
            landings.push(landed);
        }
        let all = async {
            for landed in landings {
                landed.await;
            }
        };
        tokio::time::timeout_at(deadline, all).await.map_err(|_| Unavailable)?;
        match starved.iter().any(|s| s.has_failed(&self.clock)) {
            true => Err(Unavailable),
            false => Ok(()),
        }
    }

    fn make(&self, errand: Option<Errand>) {
        let Some(errand) = errand else { return };
        let (link, clock) = (self.link.clone(), self.clock.clone());
        let [failed, ok] = self.trips.clone();
        tokio::spawn(async move {
            let sent = clock.mono_ns();
            match link.ask(errand.key(), errand.ask()).await {
                Ok(grant) => {
                    errand.land(sent, &grant);
                    ok.inc();
                }
                Err(error) => {
                    drop(errand);
                    link.doubt(&error);
                    failed.inc();
                }
            }
        });
    }
}
