//! Idle connections, by address.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use parking_lot::{Mutex, RwLock};
use tokio::net::TcpStream;

/// Idle connections to all servers. Taking one out is a read lock on the map and a lock on one list.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    lists: RwLock<AHashMap<SocketAddr, Mutex<Vec<Idle>>>>,
}

#[derive(Debug)]
struct Idle {
    stream: TcpStream,
    until: Instant,
}

impl Pool {
    /// The connection that was used last, if one is left that its server has not closed.
    pub(crate) fn take(&self, address: SocketAddr) -> Option<TcpStream> {
        let lists = self.lists.read();
        let mut list = lists.get(&address)?.lock();
        let now = Instant::now();
        while let Some(idle) = list.pop() {
            if idle.until > now && is_quiet(&idle.stream) {
                return Some(idle.stream);
            }
        }
        None
    }

    /// Keeps a connection for `idle_timeout`, unless `max` are kept already.
    pub(crate) fn put(&self, address: SocketAddr, stream: TcpStream, idle_timeout: Duration, max: usize) {
        let idle = Idle { stream, until: Instant::now() + idle_timeout };
        {
            let lists = self.lists.read();
            if let Some(list) = lists.get(&address) {
                let mut list = list.lock();
                if list.len() < max {
                    list.push(idle);
                }
                return;
            }
        }
        if max > 0 {
            self.lists.write().entry(address).or_default().get_mut().push(idle);
        }
    }

    /// Closes connections that waited too long, and forgets addresses without any.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        let mut empty = false;
        for list in self.lists.read().values() {
            let mut list = list.lock();
            list.retain(|idle| idle.until > now && is_quiet(&idle.stream));
            empty |= list.is_empty();
        }
        if empty {
            self.lists.write().retain(|_, list| !list.get_mut().is_empty());
        }
    }
}

/// An idle server has nothing to say: bytes, an end or an error all mean that the connection is of no use.
fn is_quiet(stream: &TcpStream) -> bool {
    let mut byte = [0u8; 1];
    matches!(stream.try_read(&mut byte), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (SocketAddr, TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
        (address, client.unwrap(), server.unwrap().0)
    }

    #[tokio::test]
    async fn a_connection_comes_back_until_its_server_closes_it() {
        let pool = Pool::default();
        let (address, client, server) = pair().await;
        pool.put(address, client, Duration::from_secs(60), 8);
        let client = pool.take(address).unwrap();
        assert!(pool.take(address).is_none());
        pool.put(address, client, Duration::from_secs(60), 8);
        drop(server);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(pool.take(address).is_none(), "closed by the server");
    }

    #[tokio::test]
    async fn no_more_than_max_are_kept_and_none_past_its_time() {
        let pool = Pool::default();
        let (address, a, _sa) = pair().await;
        let (_, b, _sb) = pair().await;
        pool.put(address, a, Duration::from_millis(1), 1);
        pool.put(address, b, Duration::from_secs(60), 1);
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(pool.take(address).is_none(), "the one kept is past its time");
        pool.sweep();
        assert!(pool.lists.read().is_empty());
    }
}
