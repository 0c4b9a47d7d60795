//! The fixture MCP server: everything the official conformance suite asks a server for, over streamable HTTP.
//!
//! It speaks both eras (or one of them, with `--era`), listens on loopback only and ends by itself, so that a test
//! that dies leaves nothing behind. It is test equipment: the gateway is measured against it, it is never shipped.

#![expect(
    deprecated,
    reason = "sampling, roots and logging are deprecated since 2026-07-28, and what legacy clients use"
)]

mod catalog;
mod changes;
mod content;
mod inputs;
mod rounds;
mod serve;
mod server;
mod sessions;
mod tasks;
mod tools;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Which revisions of the protocol the server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Era {
    /// Revisions up to 2025-11-25 and 2026-07-28.
    Both,
    /// Revisions up to 2025-11-25.
    Legacy,
    /// 2026-07-28.
    Modern,
}

/// Fixture MCP server for the conformance suite.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Loopback address to listen on; port 0 takes a free one. The real address is printed on standard output.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// Which revisions to speak.
    #[arg(long, value_enum, default_value = "both")]
    era: Era,

    /// Name in `serverInfo`: tells replicas apart.
    #[arg(long, default_value = "conformance-server")]
    name: String,

    /// Let `test_reconnection` close its stream in mid-call and answer after the client has resumed it.
    #[arg(long)]
    close_streams: bool,

    /// Seconds after which the server ends by itself; 0 = never.
    #[arg(long, default_value_t = 3600)]
    stop_after: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    if !args.listen.ip().is_loopback() {
        eprintln!("conformance-server: --listen {} is not a loopback address", args.listen);
        return ExitCode::from(2);
    }
    let options = serve::Options {
        listen: args.listen,
        era: args.era,
        name: args.name,
        close_streams: args.close_streams,
        stop_after: (args.stop_after > 0).then(|| Duration::from_secs(args.stop_after)),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("conformance-server: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(serve::run(options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("conformance-server: {error}");
            ExitCode::FAILURE
        }
    }
}
