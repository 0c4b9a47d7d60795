//! The admin listener's sockets: plain, or TLS with a certificate that can be replaced.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use crate::gateway::tls::{ClientAuthorities, ServerCertificate};

/// For a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes at once.
const MAX_HANDSHAKES: usize = 64;

/// A connection to the admin listener.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Accepts connections of either kind.
pub enum AdminSocket {
    Plain(TcpListener),
    Tls { ready: mpsc::Receiver<(Box<dyn Io>, SocketAddr)>, address: SocketAddr },
}

impl AdminSocket {
    /// Wraps a socket. Handshakes run beside each other, so that a slow one holds up nobody.
    pub fn new(
        socket: TcpListener,
        tls: Option<(Arc<ServerCertificate>, Option<Arc<ClientAuthorities>>)>,
    ) -> io::Result<Self> {
        let Some((certificate, authorities)) = tls else { return Ok(AdminSocket::Plain(socket)) };
        let config =
            crate::gateway::tls::server_config(certificate, authorities).map_err(io::Error::other)?;
        let address = socket.local_addr()?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (sender, ready) = mpsc::channel(MAX_HANDSHAKES);
        tokio::spawn(async move {
            let permits = Arc::new(tokio::sync::Semaphore::new(MAX_HANDSHAKES));
            loop {
                let Ok(permit) = permits.clone().acquire_owned().await else { return };
                let (stream, peer) = tokio::select! {
                    accepted = TcpListener::accept(&socket) => match accepted {
                        Ok(accepted) => accepted,
                        Err(_) => {
                            tokio::time::sleep(Duration::from_millis(100)).await;
                            continue;
                        }
                    },
                    () = sender.closed() => return,
                };
                let (acceptor, sender) = (acceptor.clone(), sender.clone());
                tokio::spawn(async move {
                    let _permit = permit;
                    if let Ok(Ok(stream)) =
                        tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await
                    {
                        let _ = sender.send((Box::new(stream) as Box<dyn Io>, peer)).await;
                    }
                });
            }
        });
        Ok(AdminSocket::Tls { ready, address })
    }
}

impl axum::serve::Listener for AdminSocket {
    type Io = Box<dyn Io>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self {
            AdminSocket::Plain(socket) => loop {
                match TcpListener::accept(socket).await {
                    Ok((stream, peer)) => return (boxed(stream), peer),
                    // Out of descriptors, or a connection that is gone already.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            },
            AdminSocket::Tls { ready, .. } => match ready.recv().await {
                Some(accepted) => accepted,
                None => std::future::pending().await,
            },
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        match self {
            AdminSocket::Plain(socket) => socket.local_addr(),
            AdminSocket::Tls { address, .. } => Ok(*address),
        }
    }
}

fn boxed(stream: TcpStream) -> Box<dyn Io> {
    Box::new(stream)
}
