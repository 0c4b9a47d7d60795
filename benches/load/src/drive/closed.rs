//! Closed loop: each connection sends its next request when it has its last answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{Latency, Options, Outcome, Tally, Worker};
use crate::Result;
use crate::process::Cpu;

const WARMING: u8 = 0;
const MEASURING: u8 = 1;
const STOPPED: u8 = 2;
/// Wait after a failure, so that a dead target is not hammered.
const AFTER_FAILURE: Duration = Duration::from_millis(5);

/// Runs it.
///
/// # Errors
/// A worker cannot start, or the watched process is gone.
pub fn closed(options: &Options) -> Result<Outcome> {
    let phase = Arc::new(AtomicU8::new(WARMING));
    let mut threads = Vec::with_capacity(options.connections);
    for _ in 0..options.connections {
        // One after the other: all at once would be a test of something else.
        let worker = Worker::new(options)?;
        let phase = phase.clone();
        threads.push(thread::spawn(move || run(worker, &phase)));
    }
    thread::sleep(options.warm());
    let cpu = options.watch.map(Cpu::of).transpose()?;
    let started = Instant::now();
    phase.store(MEASURING, Ordering::Release);
    thread::sleep(options.duration());
    phase.store(STOPPED, Ordering::Release);
    let elapsed = started.elapsed();
    let used = match (&cpu, options.watch) {
        (Some(before), Some(pid)) => Some(Cpu::of(pid)?.since(before)),
        _ => None,
    };
    let mut total = Tally::new()?;
    for thread in threads {
        total.add(&thread.join().map_err(|_| "a worker panicked")??)?;
    }
    Ok(Outcome {
        done: total.done,
        seconds: elapsed.as_secs_f64(),
        cpu_us: used.map(|used| used.as_secs_f64() * 1e6 / total.done.max(1) as f64),
        latency: Latency::of(&total.latency),
        errors: total.errors,
        misrouted: total.misrouted,
    })
}

fn run(mut worker: Worker, phase: &AtomicU8) -> Result<Tally> {
    let mut tally = Tally::new()?;
    loop {
        let sent = Instant::now();
        let worked = worker.work(&mut tally);
        match (phase.load(Ordering::Acquire), worked) {
            (STOPPED, _) => return Ok(tally),
            (MEASURING, true) => {
                tally.done += 1;
                let took = u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX);
                tally.latency.saturating_record(took);
            }
            (_, true) => {}
            (_, false) => thread::sleep(AFTER_FAILURE),
        }
    }
}
