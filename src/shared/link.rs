//! The connection to the shared server: made in the background, watched, made again.
//!
//! A request never waits for a connection: there is one, or there is none. A trip that fails has the connection
//! examined; if it does not answer a ping either, it is given up, and trips fail at once until there is a new one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, IntoConnectionInfo, RedisResult, Script, TlsCertificates,
};
use tokio::sync::Notify;

use super::Settings;
use crate::limit::{Ask, Grant, SharedKey};
use crate::telemetry::Gauge;

/// The first and the longest pause between attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(2);
/// The connection is looked at this often when nothing is wrong.
const PING_EVERY: Duration = Duration::from_secs(1);
/// An outage is logged at most this often.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Why a trip failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum TripError {
    /// There is no connection.
    #[error("no connection")]
    Down,
    /// The server answered with an error, or the connection broke.
    #[error(transparent)]
    Server(#[from] redis::RedisError),
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
}

/// The connection, and what makes it.
pub(super) struct Link {
    settings: Settings,
    script: Script,
    current: ArcSwapOption<Connection>,
    suspect: Notify,
    up: Gauge,
    /// Trips that failed since the last line about it.
    failures: AtomicU64,
}

#[derive(Clone)]
enum Connection {
    Cluster(ClusterConnection),
    One(MultiplexedConnection),
}

impl Link {
    pub(super) fn new(settings: Settings, up: Gauge) -> Self {
        Self {
            settings,
            script: Script::new(include_str!("lease.lua")),
            current: ArcSwapOption::empty(),
            suspect: Notify::new(),
            up,
            failures: AtomicU64::new(0),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.current.load().is_some()
    }

    /// One trip.
    pub(super) async fn ask(&self, key: &SharedKey, ask: &Ask) -> Result<Grant, TripError> {
        let Some(connection) = self.current.load_full() else { return Err(TripError::Down) };
        let mut invocation = self.script.prepare_invoke();
        invocation.key(self.name(key)).arg(ask.token_ns).arg(ask.fill_us);
        invocation.arg(ask.least).arg(ask.want).arg(ask.share);
        let answer: RedisResult<(u64, u64, u64)> = tokio::time::timeout(self.settings.timeout, async {
            match (*connection).clone() {
                Connection::Cluster(mut c) => invocation.invoke_async(&mut c).await,
                Connection::One(mut c) => invocation.invoke_async(&mut c).await,
            }
        })
        .await
        .map_err(|_| TripError::Timeout)?;
        let (now_us, from_us, to_us) = answer?;
        Ok(Grant { now_us, from_us, to_us })
    }

    /// A trip has failed: look whether the connection is any good.
    pub(super) fn doubt(&self, error: &TripError) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed);
        if failures == 0 {
            tracing::warn!(event = "shared_limits_trip_failed", %error);
        }
        self.suspect.notify_one();
    }

    /// Connects, watches, connects again. Ends with the process.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut pause = BACKOFF.0;
        let mut logged: Option<tokio::time::Instant> = None;
        self.up.set(0);
        loop {
            let attempt = tokio::time::timeout(CONNECT, self.connect()).await;
            match attempt.map_err(|_| TripError::Timeout).and_then(|made| made.map_err(TripError::from)) {
                Ok(connection) => {
                    self.current.store(Some(Arc::new(connection.clone())));
                    self.up.set(1);
                    tracing::info!(event = "shared_limits_connected");
                    (pause, logged) = (BACKOFF.0, None);
                    let error = self.watch(connection).await;
                    self.current.store(None);
                    self.up.set(0);
                    tracing::error!(event = "shared_limits_server_lost", %error);
                }
                Err(error) => {
                    if logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
                        tracing::error!(event = "shared_limits_server_unreachable", %error);
                        logged = Some(tokio::time::Instant::now());
                    }
                    // Replicas that lost it together should not come back together.
                    tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
                    pause = (pause * 2).min(BACKOFF.1);
                }
            }
        }
    }

    /// Returns when the connection is of no use any more.
    async fn watch(&self, connection: Connection) -> TripError {
        loop {
            let _ = tokio::time::timeout(PING_EVERY, self.suspect.notified()).await;
            let pinged =
                tokio::time::timeout(self.settings.timeout.max(BACKOFF.0), ping(connection.clone())).await;
            match pinged {
                Ok(Ok(())) => self.failures.store(0, Ordering::Relaxed),
                Ok(Err(error)) => return error.into(),
                Err(_) => return TripError::Timeout,
            }
        }
    }

    async fn connect(&self) -> RedisResult<Connection> {
        let infos: Vec<ConnectionInfo> = self.settings.infos()?;
        let tls = TlsCertificates { client_tls: None, root_cert: self.settings.ca.clone() };
        let connection = if self.settings.cluster {
            let mut builder = ClusterClient::builder(infos)
                .connection_timeout(CONNECT)
                .response_timeout(self.settings.timeout)
                .retries(2);
            if self.settings.ca.is_some() {
                builder = builder.certs(tls);
            }
            Connection::Cluster(builder.build()?.get_async_connection().await?)
        } else {
            let Some(info) = infos.into_iter().next() else {
                return Err(redis::RedisError::from((redis::ErrorKind::InvalidClientConfig, "no URL")));
            };
            let client = if self.settings.ca.is_some() {
                Client::build_with_tls(info, tls)?
            } else {
                Client::open(info)?
            };
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(CONNECT))
                .set_response_timeout(Some(self.settings.timeout));
            Connection::One(client.get_multiplexed_async_connection_with_config(&config).await?)
        };
        ping(connection.clone()).await?;
        Ok(connection)
    }

    /// The braces make one slot of it in a cluster, whatever the prefix.
    fn name(&self, key: &SharedKey) -> String {
        format!("{}:limit:{{{:032x}}}", self.settings.prefix, u128::from_be_bytes(*key.bytes()))
    }
}

impl Settings {
    fn infos(&self) -> RedisResult<Vec<ConnectionInfo>> {
        let with_login = |url: &String| {
            let info = url.as_str().into_connection_info()?;
            let mut login = info.redis_settings().clone();
            if let Some(username) = &self.username {
                login = login.set_username(username);
            }
            if let Some(password) = &self.password {
                login = login.set_password(password.expose());
            }
            Ok(info.set_redis_settings(login))
        };
        self.urls.iter().map(with_login).collect()
    }
}

async fn ping(connection: Connection) -> RedisResult<()> {
    async fn on(mut connection: impl ConnectionLike) -> RedisResult<()> {
        redis::cmd("PING").query_async::<()>(&mut connection).await
    }
    match connection {
        Connection::Cluster(c) => on(c).await,
        Connection::One(c) => on(c).await,
    }
}
