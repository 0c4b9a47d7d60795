//! As many streams as a process can hold, each with notifications, and calls beside them.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Checks, Stage};
use crate::bench::{Holder, pace, start_load};
use crate::drive::{Held, Kind, Outcome};
use crate::{Result, process, report};

/// How streams are put to the test.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The gateway's binary. Default: the one beside this program.
    #[arg(long)]
    pub tollgate: Option<PathBuf>,
    /// Streams for each gateway.
    #[arg(long, default_value_t = 9_500)]
    pub streams: usize,
    /// Which streams.
    #[arg(long, value_enum, default_value = "get")]
    pub kind: Kind,
    /// Gateways, each with streams of its own. Default: first one, then two.
    #[arg(long)]
    pub gateways: Option<usize>,
    /// Seconds for which they are held.
    #[arg(long, default_value_t = 120)]
    pub seconds: u64,
    /// Seconds in which each stream gets a notification.
    #[arg(long, default_value_t = 10.0)]
    pub every: f64,
    /// Calls per second beside them, to each gateway.
    #[arg(long, default_value_t = 200.0)]
    pub rate: f64,
    /// Growth of the gateway's memory that is still none: a share, on top of 1 MiB.
    #[arg(long, default_value_t = 0.02)]
    pub growth: f64,
    /// Folder for the figures.
    #[arg(long, default_value = "bench-results")]
    pub out: PathBuf,
    /// A few seconds and streams only.
    #[arg(long)]
    pub smoke: bool,
}

/// Descriptors a gateway needs besides two per stream.
const SPARE_DESCRIPTORS: u64 = 500;
/// Connections of the calls beside the streams.
const CALLERS: usize = 16;

/// What one gateway did.
#[derive(Clone, Debug, Serialize)]
struct One {
    streams: usize,
    held: Held,
    /// Notifications that the server sent.
    sent: u64,
    /// PSS in KiB: before the streams, when all were open and had carried something, and at the end.
    empty: u64,
    start: u64,
    end: u64,
    highest: u64,
    descriptors: usize,
    calls: Outcome,
}

impl One {
    fn growth(&self) -> f64 {
        self.end as f64 - self.start as f64
    }

    fn each(&self) -> f64 {
        self.start.saturating_sub(self.empty) as f64 / self.streams as f64
    }
}

pub(super) fn prove(options: &Options) -> Result<bool> {
    let limit = process::raise_descriptor_limit();
    let mut options = options.clone();
    if options.smoke {
        options = Options { streams: 100, seconds: 2, every: 0.5, rate: 50.0, gateways: Some(1), ..options };
    }
    if limit < options.streams as u64 * 2 + SPARE_DESCRIPTORS {
        return Err(
            format!("{} streams need more than the {limit} descriptors there are", options.streams).into()
        );
    }
    let mut kept = true;
    for gateways in options.gateways.map_or_else(|| vec![1, 2], |n| vec![n]) {
        kept &= with(gateways, &options)?;
    }
    Ok(kept)
}

fn with(gateways: usize, options: &Options) -> Result<bool> {
    eprintln!("{gateways} × {} streams for {} s", options.streams, options.seconds);
    let threads: Vec<_> = (0..gateways)
        .map(|number| {
            let options = options.clone();
            thread::spawn(move || one(number, &options))
        })
        .collect();
    let ones = threads
        .into_iter()
        .map(|t| t.join().map_err(|_| "a thread panicked")?)
        .collect::<Result<Vec<_>>>()?;
    let mut checks = Checks::default();
    for (number, one) in ones.iter().enumerate() {
        let of = if gateways > 1 { format!("gateway {}: ", number + 1) } else { String::new() };
        let held = &one.held;
        let found = format!("{} open, {} refused, {} dropped", held.open, held.refused, held.dropped);
        let all = held.open == one.streams as u64 && held.refused + held.dropped == 0;
        checks.add(&format!("{of}{} streams are held for {} s", one.streams, options.seconds), found, all);
        let found =
            format!("{} of {}, on {} streams, {} missing", held.received, one.sent, held.heard, held.missing);
        let heard = held.received == one.sent && held.missing == 0 && held.heard == one.streams as u64;
        checks.add(&format!("{of}each notification arrives, in order, on each stream"), found, heard);
        let found = format!(
            "p50 {} ms, p99 {} ms",
            report::number(held.delivery.p50 / 1e3),
            report::number(held.delivery.p99 / 1e3)
        );
        checks.add(&format!("{of}delivery, for the record"), found, true);
        let calls = &one.calls;
        let found = format!(
            "{} of {} failed, p99 {} ms",
            calls.failures(),
            calls.done,
            report::number(calls.latency.p99 / 1e3)
        );
        checks.add(
            &format!("{of}{} calls/s beside them", options.rate),
            found,
            calls.failures() == 0 && calls.done > 0,
        );
        let allowed = one.start as f64 * options.growth + 1024.0;
        let found = format!(
            "{} → {} KiB, at most {}; {} KiB by stream",
            one.start,
            one.end,
            one.highest,
            report::number(one.each())
        );
        checks.add(&format!("{of}memory does not grow"), found, one.growth() <= allowed);
    }
    let name = format!("prove-streams-{}", gateways * options.streams);
    let name = if options.smoke { "prove-streams" } else { &name };
    checks.publish(&options.out, name, options.smoke, &ones)
}

fn one(number: usize, options: &Options) -> Result<One> {
    let stage = Stage::new(&format!("streams-{number}"), options.tollgate.as_deref(), 1, None)?;
    let (gateway, server) = (&stage.gateway, stage.servers[0].1);
    let endpoint = gateway.endpoint();
    let pid = gateway.process.pid();
    thread::sleep(Duration::from_millis(500));
    let empty = process::pss_kib(pid)?;
    let (mut holder, opened) = Holder::start(&endpoint, options.streams, options.kind, None)?;
    eprintln!("gateway {}: {} streams open, {} refused", number + 1, opened.open, opened.refused);
    pace(server, Some(options.streams as f64 / options.every))?;
    let mut arguments = vec!["--rate".to_owned(), options.rate.to_string()];
    arguments.extend([
        "--connections".to_owned(),
        CALLERS.to_string(),
        "--warm".to_owned(),
        "0.5".to_owned(),
    ]);
    arguments.extend(["--seconds".to_owned(), options.seconds.to_string()]);
    let calls = start_load(&endpoint, &arguments, None)?;
    let patience = Duration::from_secs_f64(options.every * 3.0 + 10.0);
    process::wait_until("each stream has heard something", patience, || {
        holder.report().is_ok_and(|held| held.heard + held.refused + held.dropped >= options.streams as u64)
    })?;
    let start = process::pss_kib(pid)?;
    let descriptors = process::descriptors(pid)?;
    let mut highest = start;
    let until = Instant::now() + Duration::from_secs(options.seconds);
    while Instant::now() < until {
        thread::sleep(Duration::from_secs(1).min(until.saturating_duration_since(Instant::now())));
        highest = highest.max(process::pss_kib(pid)?);
    }
    let end = process::pss_kib(pid)?;
    let calls: Outcome = serde_json::from_str(&calls.finish()?)?;
    pace(server, Some(0.0))?;
    // What was sent last is on its way.
    thread::sleep(Duration::from_secs(1));
    let sent = pace(server, None)?.sent;
    let held = holder.report()?;
    Ok(One { streams: options.streams, held, sent, empty, start, end, highest, descriptors, calls })
}
