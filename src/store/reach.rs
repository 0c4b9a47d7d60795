//! Whether PostgreSQL can be reached, and why not.
//!
//! A pool waits for a server that refuses connections until `store.connect_timeout`, and then says that it timed out, as it
//! does when all of its connections are in use. So whoever waits for a connection for longer than [`SLOW`] has a look for
//! himself: one connection beside the pool. If that fails, the server is away, and what it failed with is the reason.
//!
//! While the server is known to be away nobody waits for it: every call looks for a moment ([`GLANCE`]) and fails. A
//! background task looks until the server answers.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};
use tokio::time::{Instant, sleep, timeout};

use super::tx::within;

/// From then on a wait for a connection is looked into.
const SLOW: Duration = Duration::from_millis(100);
/// How long a call looks for a server that is known to be away.
const GLANCE: Duration = Duration::from_millis(100);
/// How often the background task looks.
const PROBE_EVERY: Duration = Duration::from_millis(500);
/// So long after a look that succeeded nobody looks again.
const GOOD_FOR: Duration = Duration::from_secs(1);
/// The same of one that failed: those who wait for the same look share it.
const BAD_FOR: Duration = Duration::from_millis(20);
/// How long the end of a connection that only looked may take.
const CLOSE: Duration = Duration::from_secs(1);

/// Knows whether a server can be reached.
pub(super) struct Reach {
    options: PgConnectOptions,
    /// How long a connection may take.
    patience: Duration,
    away: Mutex<Option<Why>>,
    /// The last look. Its lock is held while somebody looks, so that one does for all.
    last: tokio::sync::Mutex<Option<(Instant, Result<(), Why>)>>,
}

/// Why a server cannot be reached.
#[derive(Clone, Debug)]
struct Why {
    kind: std::io::ErrorKind,
    text: String,
}

impl Why {
    fn of(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::Io(error) => Self { kind: error.kind(), text: error.to_string() },
            error => Self { kind: std::io::ErrorKind::NotConnected, text: error.to_string() },
        }
    }

    fn error(self) -> sqlx::Error {
        sqlx::Error::Io(std::io::Error::new(self.kind, self.text))
    }
}

impl Reach {
    pub(super) fn new(options: PgConnectOptions, patience: Duration) -> Arc<Self> {
        Arc::new(Self { options, patience, away: Mutex::default(), last: tokio::sync::Mutex::default() })
    }

    /// Does what begins with waiting for a connection of a pool. Such futures are large, and would be part of those of all
    /// callers: hence the box.
    pub(super) async fn through<T>(
        self: &Arc<Self>,
        work: Pin<Box<impl Future<Output = Result<T, sqlx::Error>>>>,
    ) -> Result<T, sqlx::Error> {
        let away = self.away.lock().clone();
        if let Some(why) = away {
            match timeout(GLANCE, Box::pin(self.look())).await {
                Ok(Ok(())) => {}
                Ok(Err(why)) => return Err(why.error()),
                Err(_) => return Err(why.error()),
            }
        }
        let answers = AtomicBool::new(false);
        let diagnosis = async {
            sleep(SLOW).await;
            loop {
                if let Err(why) = Box::pin(self.look()).await {
                    return why;
                }
                answers.store(true, Ordering::Relaxed);
                sleep(GOOD_FOR).await;
            }
        };
        tokio::select! {
            biased;
            done = work => match done {
                Err(sqlx::Error::PoolTimedOut) => Err(self.timed_out(answers.load(Ordering::Relaxed))),
                done => done,
            },
            why = diagnosis => Err(why.error()),
        }
    }

    fn timed_out(self: &Arc<Self>, answers: bool) -> sqlx::Error {
        let seconds = self.patience.as_secs_f32();
        let kind = std::io::ErrorKind::TimedOut;
        if answers {
            let text = format!(
                "no connection within {seconds} s, although the database answers: all of store.max_connections may be in use"
            );
            return Why { kind, text }.error();
        }
        let why = Why { kind, text: format!("no answer within {seconds} s") };
        self.went(why.clone());
        why.error()
    }

    /// Whether the server takes a connection. Shares the look of whoever is at it.
    async fn look(self: &Arc<Self>) -> Result<(), Why> {
        let mut last = self.last.lock().await;
        if let Some((at, found)) = &*last {
            let good_for = if found.is_ok() { GOOD_FOR } else { BAD_FOR };
            // One that is known to be away since has to answer anew.
            let holds = found.is_err() || self.away.lock().is_none();
            if holds && at.elapsed() < good_for {
                return found.clone();
            }
        }
        let found = match within(self.patience, PgConnection::connect_with(&self.options)).await {
            Ok(connection) => {
                let _ = timeout(CLOSE, connection.close()).await;
                Ok(())
            }
            Err(error) if is_away(&error) => Err(Why::of(&error)),
            // It answers, if only to refuse us: whoever asks is told by the pool.
            Err(_) => Ok(()),
        };
        *last = Some((Instant::now(), found.clone()));
        drop(last);
        match &found {
            Ok(()) => {
                if self.away.lock().take().is_some() {
                    tracing::debug!(event = "store_answers");
                }
            }
            Err(why) => self.went(why.clone()),
        }
        found
    }

    fn went(self: &Arc<Self>, why: Why) {
        let known = self.away.lock().replace(why);
        if known.is_some() {
            return;
        }
        let reach = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                sleep(PROBE_EVERY).await;
                let Some(reach) = reach.upgrade() else { return };
                if reach.away.lock().is_none() || Box::pin(reach.look()).await.is_ok() {
                    return;
                }
            }
        });
    }
}

/// Whether an error of connecting says that nobody is there, or not yet.
fn is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => true,
        // Shutting down, crashed, starting up; connection exceptions.
        sqlx::Error::Database(error) => error
            .code()
            .is_some_and(|code| matches!(&*code, "57P01" | "57P02" | "57P03") || code.starts_with("08")),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(port: u16, patience: Duration) -> Arc<Reach> {
        let options = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(port).username("x");
        Reach::new(options, patience)
    }

    #[tokio::test]
    async fn a_refused_connection_is_told_as_such_and_at_once() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let reach = reach(port, Duration::from_secs(5));
        let began = std::time::Instant::now();
        for _ in 0..10 {
            let waiting = std::future::pending::<Result<(), sqlx::Error>>();
            let error = reach.through(Box::pin(waiting)).await.unwrap_err();
            assert!(error.to_string().contains("Connection refused"), "{error}");
        }
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn one_that_says_nothing_is_waited_for_once() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let reach = reach(silent.local_addr().unwrap().port(), Duration::from_millis(500));
        let wait = async {
            sleep(Duration::from_millis(400)).await;
            Err::<(), _>(sqlx::Error::PoolTimedOut)
        };
        let error = reach.through(Box::pin(wait)).await.unwrap_err();
        assert!(error.to_string().contains("no answer within"), "{error}");
        let began = std::time::Instant::now();
        let waiting = std::future::pending::<Result<(), sqlx::Error>>();
        assert!(reach.through(Box::pin(waiting)).await.is_err());
        assert!(began.elapsed() < Duration::from_millis(300), "{:?}", began.elapsed());
    }
}
