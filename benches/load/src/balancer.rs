//! A TCP balancer for tests: each connection goes to the next backend that accepts one, and ends when either side does.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::Result;

/// Connections at a time; more are closed at once.
const MAX_CONNECTIONS: usize = 512;
/// For connecting to a backend.
const CONNECT: Duration = Duration::from_secs(1);

/// Listens until it is dropped.
pub struct Balancer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Balancer {
    /// Starts to listen on a free port.
    ///
    /// # Errors
    /// There is none.
    pub fn start(backends: Vec<SocketAddr>) -> Result<Self> {
        let socket = TcpListener::bind("127.0.0.1:0")?;
        let address = socket.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        thread::spawn(move || {
            let open = Arc::new(AtomicUsize::new(0));
            for (n, client) in socket.incoming().enumerate() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                let Ok(client) = client else { continue };
                if open.fetch_add(1, Ordering::AcqRel) >= MAX_CONNECTIONS {
                    open.fetch_sub(1, Ordering::AcqRel);
                    continue;
                }
                let (backends, open) = (backends.clone(), open.clone());
                thread::spawn(move || {
                    let mut order = (0..backends.len()).map(|i| backends[(n + i) % backends.len()]);
                    let server = order.find_map(|b| TcpStream::connect_timeout(&b, CONNECT).ok());
                    if let Some(server) = server {
                        let _ = join(&client, &server);
                    }
                    open.fetch_sub(1, Ordering::AcqRel);
                });
            }
        });
        Ok(Self { address, stop })
    }

    /// Where clients dial.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

/// Copies both ways until one side ends, then ends the other.
fn join(client: &TcpStream, server: &TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_server) = (client.try_clone()?, server.try_clone()?);
    let upward = thread::spawn(move || copy(&from_client, &to_server));
    copy(server, client);
    let _ = upward.join();
    Ok(())
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
