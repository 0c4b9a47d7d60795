//! Open loop: requests are due at a rate, whatever the answers do.
//!
//! Latency counts from when a request was due, not from when it was sent: a server that stalls also delays the requests
//! that could not be sent meanwhile, and they count (no coordinated omission).

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use super::{Latency, Options, Outcome, Tally, Worker};
use crate::Result;
use crate::process::Cpu;

/// Runs it at `rate` requests per second over all connections.
///
/// # Errors
/// A worker cannot start, or the watched process is gone.
pub fn open(options: &Options, rate: f64) -> Result<Outcome> {
    let interval = Duration::from_secs_f64(options.connections as f64 / rate.max(0.001));
    let barrier = Arc::new(Barrier::new(options.connections + 1));
    let mut threads = Vec::with_capacity(options.connections);
    for at in 0..options.connections {
        let plan = Plan {
            offset: interval.mul_f64(at as f64 / options.connections as f64),
            interval,
            warm: options.warm(),
            duration: options.duration(),
        };
        let (worker, barrier) = (Worker::new(options)?, barrier.clone());
        threads.push(thread::spawn(move || run(worker, plan, &barrier)));
    }
    barrier.wait();
    thread::sleep(options.warm());
    let cpu = options.watch.map(Cpu::of).transpose()?;
    thread::sleep(options.duration());
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
        seconds: options.duration().as_secs_f64(),
        cpu_us: used.map(|used| used.as_secs_f64() * 1e6 / total.done.max(1) as f64),
        latency: Latency::of(&total.latency),
        errors: total.errors,
        misrouted: total.misrouted,
    })
}

/// When one connection's requests are due.
struct Plan {
    offset: Duration,
    interval: Duration,
    warm: Duration,
    duration: Duration,
}

fn run(mut worker: Worker, plan: Plan, barrier: &Barrier) -> Result<Tally> {
    let mut tally = Tally::new()?;
    barrier.wait();
    let started = Instant::now();
    let (measured, end) = (started + plan.warm, started + plan.warm + plan.duration);
    let mut due = started + plan.offset;
    while due < end {
        let wait = due.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            thread::sleep(wait);
        }
        let worked = worker.work(&mut tally);
        if worked && due >= measured {
            tally.done += 1;
            let late = u64::try_from(due.elapsed().as_nanos()).unwrap_or(u64::MAX);
            tally.latency.saturating_record(late);
        }
        due += plan.interval;
    }
    Ok(tally)
}
