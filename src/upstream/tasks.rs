//! The background tasks of one server: resolve, check, examine.
//!
//! Each server has three, on the runtime given to [`crate::upstream::Upstreams::spawn`], so that slow DNS does not delay
//! checks and a slow examination delays neither. They end when the server is removed or the process stops, and the
//! last thing they do is to close the probe sessions they opened.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::base::TargetId;
use crate::upstream::outlier::nanos;
use crate::upstream::probe::Prober;
use crate::upstream::resolve::{LOOKUP_TIMEOUT, Resolve};
use crate::upstream::server::{Server, jittered};
use crate::upstream::spec::EraHint;

/// First wait after a failed lookup; doubles up to the refresh interval.
const LOOKUP_RETRY: Duration = Duration::from_secs(1);
/// Longest wait while some target was never examined.
const EXAMINE_RETRY: Duration = Duration::from_secs(5);
/// For closing all probe sessions of a server at its end.
const FAREWELL: Duration = Duration::from_secs(3);

/// Keeps the addresses of host names fresh.
pub(crate) async fn resolve(
    server: Arc<Server>,
    stop: CancellationToken,
    resolver: Arc<dyn Resolve>,
    lookups: Arc<Semaphore>,
) {
    let mut wake = server.signals.wake.subscribe();
    let mut retry = LOOKUP_RETRY;
    loop {
        let names = server.names();
        let wait = if names.is_empty() {
            None
        } else {
            let answers = tokio::select! {
                () = stop.cancelled() => return,
                answers = look_up(names, &resolver, &lookups) => answers,
            };
            let refresh = server.view().spec.dns_refresh;
            if server.learn(answers) {
                retry = LOOKUP_RETRY;
                Some(refresh)
            } else {
                let wait = retry.min(refresh);
                retry = retry.saturating_mul(2);
                Some(wait)
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = wake.changed() => if changed.is_err() { return },
            () = pause(wait) => {}
        }
    }
}

async fn look_up(
    names: Vec<(TargetId, String)>,
    resolver: &Arc<dyn Resolve>,
    lookups: &Arc<Semaphore>,
) -> Vec<(TargetId, Result<Vec<std::net::IpAddr>, String>)> {
    let mut running = JoinSet::new();
    for (id, host) in names {
        let (resolver, lookups) = (Arc::clone(resolver), Arc::clone(lookups));
        running.spawn(async move {
            // A lookup that is given up still occupies its thread, so it keeps its permit: it runs in a task of its own.
            let lookup = tokio::spawn(async move {
                let _permit = lookups.acquire_owned().await;
                resolver.lookup(&host).await
            });
            let answer = match tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await {
                Ok(Ok(Ok(addresses))) => Ok(addresses),
                Ok(Ok(Err(e))) => Err(e.to_string()),
                Ok(Err(_)) => Err("the lookup failed".to_owned()),
                Err(_) => Err("no answer in time".to_owned()),
            };
            (id, answer)
        });
    }
    collect(running).await
}

/// What finished; a task that the end of its runtime cancelled has nothing to say. (`JoinSet::join_all` would panic.)
async fn collect<T: 'static>(mut tasks: JoinSet<T>) -> Vec<T> {
    let mut done = Vec::with_capacity(tasks.len());
    while let Some(finished) = tasks.join_next().await {
        done.extend(finished.ok());
    }
    done
}

/// Runs the health checks.
pub(crate) async fn check(server: Arc<Server>, stop: CancellationToken) {
    let mut wake = server.signals.wake.subscribe();
    let mut moved = server.signals.moved.subscribe();
    loop {
        // Without a check configured this passes at once and undoes what earlier checks found.
        tokio::select! {
            () = stop.cancelled() => return,
            () = server.backends.run_health_check(true) => {}
        }
        server.sync_health();
        server.summarise();
        let wait = server.view().spec.health.as_ref().map(|h| jittered(h.interval));
        if !next(&stop, &mut wake, &mut moved, wait).await {
            return;
        }
    }
}

/// Keeps eras and catalogue entry fresh, and closes probe sessions that are no longer needed.
pub(crate) async fn examine(server: Arc<Server>, stop: CancellationToken, prober: Arc<Prober>) {
    let mut wake = server.signals.wake.subscribe();
    let mut moved = server.signals.moved.subscribe();
    loop {
        let round = async {
            for stats in server.take_orphans() {
                prober.retire(&stats).await;
            }
            examine_round(&server, &prober).await
        };
        let wait = tokio::select! {
            () = stop.cancelled() => break,
            wait = round => wait,
        };
        if !next(&stop, &mut wake, &mut moved, wait.map(jittered)).await {
            break;
        }
    }
    let farewell = async {
        let mut closing = JoinSet::new();
        for stats in server.all_stats() {
            let prober = Arc::clone(&prober);
            closing.spawn(async move { prober.retire(&stats).await });
        }
        collect(closing).await;
    };
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
}

/// Examines every target that was not examined lately or since somebody asked; returns how long to wait.
async fn examine_round(server: &Arc<Server>, prober: &Arc<Prober>) -> Option<Duration> {
    let view = server.view();
    // A legacy hint leaves nothing to find out, and a session would be opened for nothing.
    if !matches!(view.spec.era, EraHint::Auto | EraHint::Modern) {
        return None;
    }
    let asked = *server.signals.wake.borrow();
    let now = server.clock.mono_ns();
    let fresh = nanos(view.spec.discover_refresh.mul_f64(0.8));
    let mut running = JoinSet::new();
    for member in &view.members {
        let examined = member.stats.findings.lock().examined;
        if examined.is_some_and(|at| at >= asked && now.saturating_sub(at) < fresh) {
            continue;
        }
        let (server, prober, member) = (Arc::clone(server), Arc::clone(prober), Arc::clone(member));
        running.spawn(async move {
            let started = server.clock.mono_ns();
            let error = prober.examine(&server, &member).await.err().map(|e| e.to_string());
            // A health check of another kind has its own word; without one this is all there is to show.
            if member.spec().health.is_none() {
                let took = Duration::from_nanos(server.clock.mono_ns().saturating_sub(started));
                member.stats.note_probe(server.clock.unix_ms(), took, error);
            }
        });
    }
    collect(running).await;
    server.summarise();
    let unknown = view.members.iter().any(|m| m.stats.findings.lock().examined.is_none());
    let refresh = view.spec.discover_refresh;
    Some(if unknown { refresh.min(EXAMINE_RETRY) } else { refresh })
}

/// Waits for the next round; `false` if there is none.
async fn next(
    stop: &CancellationToken,
    wake: &mut watch::Receiver<u64>,
    moved: &mut watch::Receiver<u64>,
    wait: Option<Duration>,
) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        changed = wake.changed() => changed.is_ok(),
        changed = moved.changed() => changed.is_ok(),
        () = pause(wait) => true,
    }
}

async fn pause(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}
