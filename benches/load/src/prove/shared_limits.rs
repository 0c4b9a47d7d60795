//! Two gateways share one limit through a Valkey or Redis server of their own, and both are called as fast as they answer.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Checks, Options, Scratch};
use crate::bench::{gateway_binary, start_fixture};
use crate::client::{Call, Connection, Endpoint, Shape};
use crate::drive::{self, Work};
use crate::gateway::{Gateway, Setup};
use crate::identity::Issuer;
use crate::process::{self, Process};
use crate::{Result, report};

/// Tokens per minute of the shared limit, and its burst: the gateway's configuration says the same.
pub(crate) const PER_MINUTE: f64 = 1_000.0;
pub(crate) const BURST: f64 = 100.0;
/// Connections that call each gateway.
const CALLERS: usize = 4;
/// Wait between two calls: hundreds per second all the same.
const THINK: Duration = Duration::from_millis(5);
/// How long the server may take to start.
const START: Duration = Duration::from_secs(10);

#[derive(Serialize)]
struct Details {
    seconds: f64,
    granted: u64,
    refused: u64,
    bound: f64,
    /// Of the rate, without the burst.
    share: f64,
    trips: f64,
    cpu_us_local: f64,
    cpu_us_shared: f64,
    rounds: Vec<(f64, f64)>,
}

#[derive(Default)]
struct Counted {
    granted: u64,
    refused: u64,
    others: u64,
}

pub(super) fn prove(options: &Options) -> Result<bool> {
    let seconds = if options.smoke { 10 } else { 300 };
    let scratch = Scratch::new("shared-limits")?;
    let (_server, valkey) = server(&scratch)?;
    let (_fixture, upstream) = start_fixture("a", None)?;
    let issuer = Issuer::new()?;
    let gateways = ["one", "two"].map(|name| {
        let setup = Setup {
            binary: gateway_binary(options.tollgate.as_deref())?,
            dir: scratch.0.join(name),
            upstreams: vec![upstream],
            data_threads: 0,
            core: None,
            audit: true,
            valkey: Some(valkey),
            key_file: None,
        };
        Gateway::start(setup, &issuer)
    });
    let gateways = gateways.into_iter().collect::<Result<Vec<_>>>()?;
    for gateway in &gateways {
        process::wait_until("a connection to the shared server", START, || {
            gateway.metric("tollgate_limit_server_up").is_ok_and(|up| up > 0.0)
        })?;
    }

    let (counted, elapsed) = hammer(&gateways, Duration::from_secs(seconds))?;
    let trips: f64 = gateways.iter().map(|g| g.metric("tollgate_limit_trips_total")).sum::<Result<f64>>()?;
    let (granted, expected) = (counted.granted as f64, PER_MINUTE / 60.0 * elapsed);
    let bound = expected + BURST;
    let share = (granted - BURST) / expected;
    let (rounds, local, shared) = cpu(&gateways[0], options.smoke)?;

    let mut checks = Checks::default();
    let found = format!("{granted} of {bound:.0} in {elapsed:.1} s, {} refused", counted.refused);
    checks.add("admitted at most rate × time + burst", found, granted <= bound);
    // A token takes 60 ms: of ten seconds, one that is on its way is more than half a per cent.
    let least = if options.smoke { 0.95 } else { 0.98 };
    checks.add(
        &format!("and at least {:.0} % of rate × time beside the burst", least * 100.0),
        format!("{:.2} %", share * 100.0),
        share >= least,
    );
    checks.add("every answer is 200 or 429", format!("{} others", counted.others), counted.others == 0);
    let calls = (counted.granted + counted.refused) as f64;
    checks.add(
        "refusals make no trips: at most three for each token",
        format!("{trips} for {calls} calls"),
        trips <= 3.0 * granted + 20.0,
    );
    // On a busy machine a few seconds say little: the smoke form only shows them.
    checks.add(
        "a warm shared limit costs at most 5 µs of processor time more than a local one",
        format!("{local:.1} µs local, {shared:.1} µs shared"),
        options.smoke || shared - local <= 5.0,
    );
    let details = Details {
        seconds: elapsed,
        granted: counted.granted,
        refused: counted.refused,
        bound,
        share,
        trips,
        cpu_us_local: local,
        cpu_us_shared: shared,
        rounds,
    };
    checks.publish(&options.out, "prove-shared-limits", options.smoke, &details)
}

/// The shared server, whichever of the two is installed.
fn server(scratch: &Scratch) -> Result<(Process, std::net::SocketAddr)> {
    let port = process::free_port()?;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let start = |program: &str| {
        let mut command = Command::new(program);
        command.args([
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--port",
            &port.to_string(),
        ]);
        command.arg("--dir").arg(&scratch.0);
        Process::start(command, None, None)
    };
    let server = start("valkey-server").or_else(|_| start("redis-server"))?;
    process::wait_until("the shared server", START, || std::net::TcpStream::connect(address).is_ok())?;
    Ok((server, address))
}

fn hammer(gateways: &[Gateway], time: Duration) -> Result<(Counted, f64)> {
    let stop = Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    let mut threads = Vec::new();
    for endpoint in gateways.iter().map(|g| g.endpoint().at("/mcp/shared")) {
        for _ in 0..CALLERS {
            let (endpoint, stop) = (endpoint.clone(), stop.clone());
            threads.push(thread::spawn(move || call(&endpoint, &stop)));
        }
    }
    thread::sleep(time);
    stop.store(true, Ordering::Release);
    let mut all = Counted::default();
    for thread in threads {
        let counted = thread.join().map_err(|_| "a caller panicked")?;
        all.granted += counted.granted;
        all.refused += counted.refused;
        all.others += counted.others;
    }
    Ok((all, began.elapsed().as_secs_f64()))
}

fn call(endpoint: &Endpoint, stop: &AtomicBool) -> Counted {
    let mut connection = Connection::new(endpoint.address);
    let mut request = endpoint.modern_call(Call { bytes: 16, shape: Shape::Json, delay_ms: 0 });
    let mut counted = Counted::default();
    while !stop.load(Ordering::Acquire) {
        match connection.exchange(request.advance()).map(|answer| answer.status) {
            Ok(200) => counted.granted += 1,
            Ok(429) => counted.refused += 1,
            _ => counted.others += 1,
        }
        thread::sleep(THINK);
    }
    counted
}

/// All rounds, and the medians, in microseconds: local and shared.
type Cpu = (Vec<(f64, f64)>, f64, f64);

/// Processor time per call behind a local and a shared limit, by turns.
fn cpu(gateway: &Gateway, smoke: bool) -> Result<Cpu> {
    let mut rounds = Vec::new();
    let mut figures = report::Figures::default();
    for number in 0..if smoke { 1 } else { 21 } {
        let measure = |path: &str| -> Result<f64> {
            let endpoint = gateway.endpoint().at(path);
            let outcome = drive::closed(&drive::Options {
                work: Work::Modern,
                target: endpoint.address,
                path: endpoint.path,
                token: endpoint.token,
                connections: 16,
                bytes: 256,
                delay_ms: 0,
                expect: 200,
                warm: 0.5,
                seconds: if smoke { 1.0 } else { 1.5 },
                watch: Some(gateway.process.pid()),
            })?;
            if !outcome.errors.is_empty() {
                return Err(format!("{path}: {:?}", outcome.errors).into());
            }
            outcome.cpu_us.ok_or_else(|| "no accounting".into())
        };
        // Whoever comes second pays for what the first has left to be drained.
        let (local, shared) = ("/mcp/wide_local", "/mcp/wide_shared");
        let round = if number % 2 == 0 {
            let before = measure(local)?;
            (before, measure(shared)?)
        } else {
            let before = measure(shared)?;
            (measure(local)?, before)
        };
        figures.add("cpu", "local", round.0);
        figures.add("cpu", "shared", round.1);
        rounds.push(round);
    }
    Ok((rounds, figures.median("cpu", "local"), figures.median("cpu", "shared")))
}
