//! A TCP balancer: each connection goes to the next backend that accepts one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Connections at a time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 256;

/// Listens until it is dropped; its connections are cut then.
pub struct Balancer {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Balancer {
    pub async fn start(backends: Vec<SocketAddr>) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = socket.local_addr().expect("it is bound");
        let permits = Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
        let next = AtomicUsize::new(0);
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok(permit) = permits.clone().acquire_owned().await {
                let Ok((mut client, _)) = socket.accept().await else { return };
                while open.try_join_next().is_some() {}
                let (first, backends) = (next.fetch_add(1, Ordering::Relaxed), backends.clone());
                open.spawn(async move {
                    let _permit = permit;
                    for i in 0..backends.len() {
                        if let Ok(mut server) =
                            TcpStream::connect(backends[(first + i) % backends.len()]).await
                        {
                            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                            return;
                        }
                    }
                });
            }
        });
        Self { address, task }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
