//! The `tollgate-load` program.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tollgate_load::{Result, bench, drive, fixture, process, prove};

/// Measures Tollgate and proves what it promises under load.
#[derive(Debug, Parser)]
#[command(name = "tollgate-load", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare Tollgate with a bare Pingora pass-through and print one table.
    Bench(bench::Options),
    /// Serve MCP, as fast as one thread can.
    Fixture(fixture::Options),
    /// Hold streams open; print what came on them whenever a line is read from stdin.
    Hold(drive::HoldOptions),
    /// Hold the gateway to a promise.
    Prove {
        #[command(subcommand)]
        promise: prove::Promise,
    },
    /// Make load and print what came of it as JSON.
    Run {
        #[command(flatten)]
        options: drive::Options,
        /// Requests per second, whatever the answers do. Without it each connection sends when it has its answer.
        #[arg(long)]
        rate: Option<f64>,
    },
    /// Start the gateway and its servers as they are measured, for profilers, until stdin ends.
    Stage(prove::StageOptions),
}

fn main() -> ExitCode {
    process::raise_descriptor_limit();
    match run(Args::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// `false`: what was asked for was done and is not good enough.
fn run(command: Command) -> Result<bool> {
    match command {
        Command::Bench(options) => bench::bench(&options),
        Command::Fixture(options) => fixture::serve(&options).map(|()| true),
        Command::Hold(options) => drive::hold(&options).map(|()| true),
        Command::Prove { promise } => prove::prove(&promise),
        Command::Run { options, rate } => {
            process::sharpen_timers();
            let outcome = match rate {
                Some(rate) => drive::open(&options, rate)?,
                None => drive::closed(&options)?,
            };
            println!("{}", serde_json::to_string(&outcome)?);
            Ok(true)
        }
        Command::Stage(options) => prove::stage(&options).map(|()| true),
    }
}
