//! A database that is gone without a word: its machine died, or the network swallows packets. Nobody resets the connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tollgate::base::{Scope, Secret};
use tollgate::store::{Engine, Notification, StoreError, StoreSettings};

use super::{Fixture, open};

/// Passes bytes on, until it is told to swallow those of the connections that there are.
struct Wire {
    address: SocketAddr,
    silent: Arc<parking_lot::Mutex<Vec<Arc<AtomicBool>>>>,
}

impl Wire {
    async fn to(server: SocketAddr) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let silent = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let flags = silent.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = socket.accept().await {
                let Ok(server) = TcpStream::connect(server).await else { continue };
                let gone = Arc::new(AtomicBool::new(false));
                flags.lock().push(gone.clone());
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(pass(from_client, to_server, gone.clone()));
                tokio::spawn(pass(from_server, to_client, gone));
            }
        });
        Self { address, silent }
    }

    fn swallow(&self) {
        self.silent.lock().iter().for_each(|gone| gone.store(true, Ordering::SeqCst));
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    gone: Arc<AtomicBool>,
) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(n) = from.read(&mut buffer).await {
        if gone.load(Ordering::SeqCst) {
            // Held open: neither side hears of its end.
            std::future::pending::<()>().await;
        }
        if n == 0 || to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_what_does_not_answer() {
    let fixture = Fixture::new(Engine::Postgres).await;
    let url = fixture.settings.url.as_ref().unwrap().expose().clone();
    let at = url.find("127.0.0.1:").unwrap();
    let place = url[at..].split('/').next().unwrap();
    let wire = Wire::to(place.parse().unwrap()).await;
    let settings = StoreSettings {
        url: Some(Secret::new(url.replace(place, &wire.address.to_string()))),
        connect_timeout: Duration::from_secs(1),
        statement_timeout: Duration::from_secs(1),
        ..fixture.settings.clone()
    };
    let store = open(&settings, &fixture.clock);
    let mut listener = store.listen();
    assert_eq!(listener.next().await, Notification::Missed, "it listens");
    let mut tx = store.platform().begin().await.unwrap();
    tx.head(&Scope::Platform).await.unwrap();
    let begun = Instant::now();
    wire.swallow();
    let error = tx.head(&Scope::Platform).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)) && error.retry_is_safe(), "{error}");
    drop(tx);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    // A connection that was given back is tried before it is given out again.
    store.ping().await.unwrap_or_else(|error| assert!(error.retry_is_safe(), "{error}"));
    // Who listens finds out as well, and begins anew.
    let heard = tokio::time::timeout(Duration::from_secs(40), listener.next()).await.expect("it finds out");
    assert_eq!(heard, Notification::Missed);
}
