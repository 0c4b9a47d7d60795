//! Background work of a process. A part that needs some adds a line to [`spawn`].

use std::sync::Arc;

use crate::app::core::Core;
use crate::app::gauges;
use crate::app::keys::Keys;
use crate::app::runtimes::Runtimes;
use crate::app::{database, health, housekeeping, samples, shared_sessions};
use crate::gateway::Gateway;

/// Starts what runs beside the listeners until the process ends.
pub(super) fn spawn(core: &Core, runtimes: &Runtimes, gateway: Option<&Arc<Gateway>>, keys: Keys) {
    runtimes.control(housekeeping::run(core.clone()));
    // Without a data plane nobody calls servers, so nobody asks how they are either.
    let Some(gateway) = gateway else { return };
    core.state.upstreams.spawn(&runtimes.control, runtimes.stop_upstreams.subscribe());
    jwks(core, runtimes);
    session_keys(core, runtimes, keys);
    runtimes.control(samples::keep(core.clone()));
    runtimes.control(health::keep(core.clone(), database::replica_name(&core.data_dir)));
    runtimes.data(gateway.clone().sweep());
    if let Some(shared) = &core.shared {
        runtimes.data(shared.clone().run(core.buckets.clone()));
    }
    runtimes.control(gauges::sweep(
        core.buckets.clone(),
        core.sessions.clone(),
        core.telemetry.metrics.clone(),
        core.clock.clone(),
    ));
}

/// Keeps the key sets of issuers fresh.
fn jwks(core: &Core, runtimes: &Runtimes) {
    let jwks = core.state.jwks.clone();
    let stop = runtimes.background.clone();
    runtimes.control.spawn(async move {
        match crate::auth::fetch::HttpFetch::new() {
            Ok(fetch) => jwks.run(Arc::new(fetch), stop).await,
            Err(error) => tracing::error!(event = "jwks_client_failed", %error),
        }
    });
}

/// Rotates the keys that seal ids, and shares with other replicas which sessions have ended.
fn session_keys(core: &Core, runtimes: &Runtimes, keys: Keys) {
    let sessions = &core.model.sessions;
    let (store, clock) = (core.store.clone(), core.clock.clone());
    let (rotation, max_age) = (sessions.key_rotation.get().as_secs(), sessions.max_age.get().as_secs());
    if shared_sessions::has_keys(&store, sessions) {
        runtimes.control(shared_sessions::keep_keys(store.clone(), keys, clock, rotation, max_age));
    } else {
        runtimes.control(keys.keep(clock, rotation, max_age));
    }
    let (writer, ended) = tokio::sync::mpsc::channel(shared_sessions::BACKLOG);
    core.sessions.announce_to(writer);
    runtimes.control(shared_sessions::tell(store.clone(), ended));
    runtimes.control(shared_sessions::hear(store, core.sessions.clone(), max_age));
}
