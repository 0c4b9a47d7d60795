//! A Pingora proxy that passes requests on to one server and does nothing else: what Tollgate is measured against.
//!
//! Its listener has the buffers of Tollgate's, it has one worker thread, and it neither logs nor counts.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd as _;
use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use clap::Parser;
use parking_lot::Mutex;
use pingora::listeners::{L4BufferSettings, ListenerConfig};
use pingora::proxy::{ProxyHttp, ProxyServiceBuilder, Session};
use pingora::server::Fds;
use pingora::server::configuration::ServerConf;
use pingora::services::Service as _;
use pingora::upstreams::peer::HttpPeer;

use crate::{Result, process};

/// As in Tollgate's listener.
const READ_BUFFER: usize = 0;
const WRITE_BUFFER: usize = 1460;
/// Idle connections kept to the server: as many as the most connections any measurement has at once.
const POOL: usize = 1024;

#[derive(Debug, Parser)]
#[command(about = "Bare Pingora pass-through to one server")]
struct Args {
    /// Where to listen; port 0 takes any free one. The address is printed.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The server.
    #[arg(long)]
    upstream: SocketAddr,
}

struct PassThrough(SocketAddr);

#[async_trait]
impl ProxyHttp for PassThrough {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.0, false, String::new())))
    }
}

/// Runs the pass-through until it is killed.
pub fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    process::raise_descriptor_limit();
    process::end_with_parent();
    let socket = TcpListener::bind(args.listen)?;
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?;
    let key = address.to_string();
    let mut fds = Fds::new();
    fds.add(key.clone(), socket.into_raw_fd());
    let conf = Arc::new(ServerConf { upstream_keepalive_pool_size: POOL, ..ServerConf::default() });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let _entered = runtime.enter();
    let mut service = ProxyServiceBuilder::new(&conf, PassThrough(args.upstream)).build();
    service
        .add_listener(ListenerConfig::tcp(key).l4_buffer(L4BufferSettings::new(READ_BUFFER, WRITE_BUFFER)));
    println!("listening {address}");
    std::io::stdout().flush()?;
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let serving = runtime.spawn(async move {
        service.start_service(Some(Arc::new(Mutex::new(fds))), stopped, 1).await;
    });
    runtime.block_on(serving)?;
    Ok(())
}
