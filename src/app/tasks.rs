//! Background work of a process. A part that needs some adds a line to [`spawn`].

use std::sync::Arc;

use crate::app::core::Core;
use crate::app::gauges;
use crate::app::keys::Keys;
use crate::app::runtimes::Runtimes;
use crate::app::samples;
use crate::gateway::Gateway;

/// Starts what runs beside the listeners until the process ends.
pub(super) fn spawn(core: &Core, runtimes: &Runtimes, gateway: &Arc<Gateway>, keys: Keys) {
    core.state.upstreams.spawn(&runtimes.control, runtimes.stop_upstreams.subscribe());
    jwks(core, runtimes);
    session_keys(core, runtimes, keys);
    runtimes.control(samples::keep(core.clone()));
    runtimes.data(gateway.clone().sweep());
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

/// Rotates the keys that seal ids.
fn session_keys(core: &Core, runtimes: &Runtimes, keys: Keys) {
    let sessions = &core.model.sessions;
    let (rotation, max_age) = (sessions.key_rotation.get().as_secs(), sessions.max_age.get().as_secs());
    runtimes.control(keys.keep(core.clock.clone(), rotation, max_age));
}
