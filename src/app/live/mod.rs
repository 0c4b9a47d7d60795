//! Live events: watches what `/api/v1/events` streams, and publishes it.
//!
//! `config` and `audit` come from the store, and so from all replicas; of `health` and `traffic` those of this process are
//! at hand, and the other replicas are asked, or for health read in the store, while somebody listens.

mod audit;
mod config;
mod health;
mod traffic;

use std::sync::Arc;

use crate::app::admin::Admin;
use crate::app::core::Core;
use crate::app::database::Database;
use crate::app::runtimes::Runtimes;
use crate::control::events::Hub;
use crate::control::fleet::Fleet;

/// Starts everything. Ends with the process.
pub(super) fn start(
    core: &Core,
    runtimes: &Runtimes,
    shown: &Arc<Admin>,
    database: Option<&Database>,
    fleet: &Fleet,
) -> Arc<Hub> {
    let hub = Arc::new(Hub::new());
    let replica = database.map(|d| d.member.identity().replica.clone());
    if core.audit.is_enabled() {
        runtimes.control(audit::follow(core.store.clone(), hub.clone()));
    }
    match database {
        Some(_) => runtimes.control(config::follow(core.store.clone(), hub.clone())),
        None => runtimes.control(config::reloads(shown.clone(), hub.clone())),
    }
    runtimes.control(health::watch(shown.clone(), hub.clone(), replica.clone()));
    runtimes.control(traffic::watch(core.state.metrics.clone(), hub.clone(), replica));
    if database.is_some() {
        runtimes.control(health::watch_others(fleet.clone(), hub.clone()));
        runtimes.control(traffic::watch_others(fleet.clone(), hub.clone()));
    }
    hub
}
