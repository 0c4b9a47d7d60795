//! Starts and stops the MCP listener: sockets, TLS, the accept loops, and the wait for what was accepted.
//!
//! Pingora's `Server` is not used: its services run on our own runtime, over sockets that we bound, so that a bad
//! address is an error at start and a socket can be handed to a successor (PINGORA §4.2). `start_service` returns when
//! accepting ends; requests that were accepted go on, and [`Running::drain`] waits for them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pingora::apps::{HttpServerOptions, ServerApp};
use pingora::listeners::tls::TlsSettings;
use pingora::listeners::{ListenerConfig, TcpSocketOptions};
use pingora::protocols::TcpKeepalive;
use pingora::protocols::l4::stream::L4BufferSettings;
use pingora::server::Fds;
use pingora::services::Service as _;
use pingora::services::listening::Service;
use tokio::sync::{Notify, watch};

/// Read and write buffers of a client connection. Small, because most connections are idle streams; and none for reading,
/// because what reads has a buffer of its own.
const CLIENT_READ_BUFFER: usize = 0;
const CLIENT_WRITE_BUFFER: usize = 1460;

/// Counts connections from accept to close, so that a drain knows when it is done.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    count: AtomicUsize,
    zero: Notify,
}

impl InFlight {
    pub(crate) fn enter(self: &Arc<Self>) -> InFlightGuard {
        self.count.fetch_add(1, Ordering::AcqRel);
        InFlightGuard(self.clone())
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    async fn wait_zero(&self) {
        loop {
            let notified = self.zero.notified();
            if self.count() == 0 {
                return;
            }
            notified.await;
        }
    }
}

/// One connection or request being served.
#[derive(Debug)]
pub(crate) struct InFlightGuard(Arc<InFlight>);

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.zero.notify_waiters();
        }
    }
}

/// How a listener takes connections.
pub(crate) struct ListenerPlan {
    pub(crate) socket: TcpListener,
    pub(crate) tls: Option<TlsSettings>,
    pub(crate) accept_loops: usize,
}

/// A listener at work.
pub struct Running {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    accepting: tokio::task::JoinHandle<()>,
    in_flight: Arc<InFlight>,
}

/// Starts accepting on the runtime `data`.
///
/// # Errors
/// The socket cannot be used.
pub(crate) fn start<A>(
    data: &tokio::runtime::Handle,
    name: &str,
    plan: ListenerPlan,
    app: A,
    in_flight: Arc<InFlight>,
) -> io::Result<Running>
where
    A: ServerApp + Send + Sync + 'static,
{
    plan.socket.set_nonblocking(true)?;
    let address = plan.socket.local_addr()?;
    // The table is keyed by the very string the listener is given.
    let key = address.to_string();
    let mut fds = Fds::new();
    fds.add(key.clone(), plan.socket.into_raw_fd());
    let mut options = TcpSocketOptions::default();
    options.tcp_keepalive = Some(keepalive());
    let mut endpoint = ListenerConfig::tcp(key)
        .tcp_socket_options(options)
        .l4_buffer(L4BufferSettings::new(CLIENT_READ_BUFFER, CLIENT_WRITE_BUFFER));
    if let Some(tls) = plan.tls {
        endpoint = endpoint.tls(tls);
    }
    let mut service = Service::new(name.to_owned(), app);
    service.add_listener(endpoint);
    let (stop, stopped) = watch::channel(false);
    let loops = plan.accept_loops.max(1);
    let accepting = data.spawn(async move {
        service.start_service(Some(Arc::new(Mutex::new(fds))), stopped, loops).await;
    });
    Ok(Running { address, stop, accepting, in_flight })
}

/// Finds peers that vanished without a word within about a minute and a half.
pub(crate) fn keepalive() -> TcpKeepalive {
    TcpKeepalive {
        idle: Duration::from_secs(45),
        interval: Duration::from_secs(15),
        count: 3,
        #[cfg(target_os = "linux")]
        user_timeout: Duration::from_secs(0),
    }
}

/// Options of every HTTP/1 and HTTP/2 connection.
pub(crate) fn server_options(keepalive_requests: u32, h2_idle: Duration) -> HttpServerOptions {
    let mut options = HttpServerOptions::default();
    // Pingora counts how often a connection is used again.
    options.keepalive_request_limit = Some(keepalive_requests.saturating_sub(1));
    options.h2_idle_timeout = Some(h2_idle);
    options
}

impl Running {
    /// Where it listens: with port 0 configured, the port that was given.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections and requests that are being served.
    pub fn in_flight(&self) -> usize {
        self.in_flight.count()
    }

    /// Stops accepting. What was accepted goes on.
    pub fn stop_accepting(&self) {
        let _ = self.stop.send(true);
    }

    /// Waits until everything accepted is done, at most for `deadline`. `true` if all was done.
    pub async fn drain(&self, deadline: Duration) -> bool {
        tokio::time::timeout(deadline, self.in_flight.wait_zero()).await.is_ok()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop_accepting();
        self.accepting.abort();
    }
}
