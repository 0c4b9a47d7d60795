//! Servers and targets that go down and come up, as each replica sees them.
//!
//! This process is looked at once a second. The others are asked, or what they stored is read, every [`OTHERS_EVERY`] while
//! somebody listens: what they stored is up to five seconds older.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use crate::app::admin::Admin;
use crate::base::TenantId;
use crate::control::events::{Hub, Topic};
use crate::control::fleet::Fleet;
use crate::control::seen::How;
use crate::control::{ControlState as _, ServerStatus};

/// How often they are looked at.
const EVERY: Duration = Duration::from_secs(1);
/// How often the other replicas are.
const OTHERS_EVERY: Duration = Duration::from_secs(2);

/// Tenant and server.
type Key = (String, String);

/// How a server was when it was last looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    available: bool,
    targets: BTreeMap<String, bool>,
}

impl Seen {
    fn of(server: &ServerStatus) -> Self {
        let mut targets = BTreeMap::new();
        for target in &server.targets {
            // A name with several addresses takes traffic as long as one of them does.
            *targets.entry(target.id.clone()).or_default() |= target.healthy == Some(true);
        }
        Self { available: server.available == Some(true), targets }
    }
}

/// Watches until dropped.
pub(super) async fn watch(shown: Arc<Admin>, hub: Arc<Hub>, replica: Option<String>) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = BTreeMap::new();
    loop {
        tick.tick().await;
        for (tenant, mut data) in changes(&mut seen, &shown.status().servers) {
            data["replica"] = json!(replica);
            hub.publish(Topic::Health, Some(TenantId::new(tenant)), data);
        }
    }
}

/// Watches the others until dropped.
pub(super) async fn watch_others(fleet: Fleet, hub: Arc<Hub>) {
    let mut tick = interval(OTHERS_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen: BTreeMap<String, BTreeMap<Key, Seen>> = BTreeMap::new();
    loop {
        tick.tick().await;
        if hub.wanted(Topic::Health).is_nobody() {
            if !seen.is_empty() {
                seen.clear();
                hub.lose(Topic::Health, None);
            }
            continue;
        }
        let others = fleet.servers_elsewhere().await;
        let there = |boot: &String| {
            let silent = |missing: &crate::control::fleet::Missing| {
                missing.home.as_ref().is_none_or(|home| home.boot == *boot)
            };
            others.views.iter().any(|view| view.home.boot == *boot) || others.missing.iter().any(silent)
        };
        seen.retain(|boot, _| there(boot));
        for view in others.views {
            let servers: Vec<ServerStatus> = view.servers.into_iter().map(|(server, _)| server).collect();
            let known = seen.entry(view.home.boot.clone()).or_default();
            let before = if view.how == How::Stored { known.clone() } else { BTreeMap::new() };
            for (tenant, mut data) in changes(known, &servers) {
                // What a replica did not store in time need not be gone.
                if view.how == How::Stored && data["state"] == "gone" {
                    continue;
                }
                data["replica"] = json!(view.home.replica);
                hub.publish(Topic::Health, Some(TenantId::new(tenant)), data);
            }
            for (key, server) in before {
                known.entry(key).or_insert(server);
            }
        }
    }
}

/// What has changed. A server that is new is told of only if it is down.
fn changes(seen: &mut BTreeMap<Key, Seen>, servers: &[ServerStatus]) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    let mut now = BTreeMap::new();
    for server in servers.iter().filter(|server| server.available.is_some()) {
        let key = (server.tenant.clone(), server.name.clone());
        let current = Seen::of(server);
        let before = seen.get(&key);
        for (target, healthy) in &current.targets {
            if before.and_then(|b| b.targets.get(target)).copied().unwrap_or(true) != *healthy {
                let error =
                    server.targets.iter().filter(|t| t.id == *target).find_map(|t| t.last_error.clone());
                let data = json!({
                    "kind": "target", "server": server.name, "target": target, "state": state(*healthy),
                    "error": error.filter(|_| !healthy),
                });
                found.push((server.tenant.clone(), data));
            }
        }
        if before.is_none_or(|b| b.available) != current.available {
            let data = json!({ "kind": "server", "server": server.name, "state": state(current.available) });
            found.push((server.tenant.clone(), data));
        }
        now.insert(key, current);
    }
    for (tenant, server) in seen.keys().filter(|key| !now.contains_key(*key)) {
        found.push((tenant.clone(), json!({ "kind": "server", "server": server, "state": "gone" })));
    }
    *seen = now;
    found
}

fn state(up: bool) -> &'static str {
    if up { "up" } else { "down" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::TargetStatus;

    fn server(name: &str, targets: &[(&str, bool)]) -> ServerStatus {
        let target = |(id, healthy): &(&str, bool)| TargetStatus {
            id: (*id).to_owned(),
            healthy: Some(*healthy),
            in_flight: 0,
            latency_us: None,
            ejected_until: None,
            last_error: (!*healthy).then(|| "refused".to_owned()),
        };
        ServerStatus {
            tenant: "acme".to_owned(),
            name: name.to_owned(),
            transport: "http".to_owned(),
            era: "unknown".to_owned(),
            available: Some(targets.iter().any(|(_, healthy)| *healthy)),
            tools: None,
            targets: targets.iter().map(target).collect(),
        }
    }

    #[test]
    fn only_what_changes_is_told() {
        let mut seen = BTreeMap::new();
        let mut look = |servers: &[ServerStatus]| -> Vec<String> {
            let found = changes(&mut seen, servers);
            found.iter().map(|(tenant, data)| format!("{tenant} {data}")).collect()
        };
        assert!(look(&[server("a", &[("x", true), ("y", true)])]).is_empty());
        let one = look(&[server("a", &[("x", false), ("y", true)])]);
        assert!(one.len() == 1 && one[0].contains("\"down\"") && one[0].contains("refused"), "{one:?}");
        let both = look(&[server("a", &[("x", false), ("y", false)])]);
        assert_eq!(both.len(), 2, "target and server: {both:?}");
        assert!(look(&[server("a", &[("x", false), ("y", false)])]).is_empty());
        let up = look(&[server("a", &[("x", true), ("y", true)]), server("b", &[("z", false)])]);
        assert_eq!(up.len(), 5, "{up:?}");
        let gone = look(&[server("a", &[("x", true), ("y", true)])]);
        assert!(gone.len() == 1 && gone[0].contains("gone"), "{gone:?}");
    }

    #[test]
    fn a_name_is_up_while_one_of_its_addresses_is() {
        let seen = Seen::of(&server("a", &[("x", false), ("x", true)]));
        assert_eq!(seen.targets, BTreeMap::from([("x".to_owned(), true)]));
    }
}
