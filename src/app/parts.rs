//! Sockets and threads.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::runtime::{Builder, Runtime};

use crate::app::StartError;

/// Connections that the kernel may hold before they are accepted; it caps this by `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;

pub(super) fn bind(listener: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    let failed = |source| StartError::Listen { listener, address, source };
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).map_err(failed)?;
    // A restart must not wait for the last connections' TIME_WAIT.
    socket.set_reuse_address(true).map_err(failed)?;
    socket.bind(&address.into()).map_err(failed)?;
    socket.listen(BACKLOG).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    Ok(socket.into())
}

pub(super) fn listen_async(socket: TcpListener) -> io::Result<tokio::net::TcpListener> {
    socket.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(socket)
}

pub(super) fn local(socket: &TcpListener, asked: SocketAddr) -> SocketAddr {
    socket.local_addr().unwrap_or(asked)
}

pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

pub(super) fn threads(configured: u32, default: usize) -> usize {
    if configured == 0 { default } else { configured as usize }
}

pub(super) fn runtime(name: &'static str, threads: usize) -> Result<Runtime, StartError> {
    Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name(format!("tollgate-{name}"))
        .enable_all()
        .build()
        .map_err(StartError::Runtime)
}
