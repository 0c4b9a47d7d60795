//! Load: what each tenant's requests came to in the last moments, on this process and on the others that can be asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::base::TenantId;
use crate::control::events::{Hub, Topic, Wanted};
use crate::control::fleet::{Fleet, Home};
use crate::control::internal::TrafficView;
use crate::telemetry::names::OTHER;
use crate::telemetry::{Metrics, Traffic};

/// How often it is told.
const EVERY: Duration = Duration::from_secs(2);
/// Tenants that are told of at once, those with the most calls.
const MAX_TENANTS: usize = 200;

/// By tenant.
type Load = HashMap<Box<str>, Traffic>;

/// Watches until dropped. Nothing is counted while nobody listens.
pub(super) async fn watch(metrics: Arc<Metrics>, hub: Arc<Hub>, replica: Option<String>) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last: Option<(Instant, Load)> = None;
    loop {
        tick.tick().await;
        let wanted = hub.wanted(Topic::Traffic);
        if wanted.is_nobody() {
            last = None;
            continue;
        }
        let now: Load = metrics.traffic().into_iter().collect();
        let at = Instant::now();
        if let Some((since, before)) = last.replace((at, now.clone())) {
            tell(&hub, &wanted, moved(&before, &now), at - since, replica.as_deref());
        }
    }
}

/// Asks the others until dropped, while somebody listens.
pub(super) async fn watch_others(fleet: Fleet, hub: Arc<Hub>) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last: HashMap<Home, (Instant, Load)> = HashMap::new();
    loop {
        tick.tick().await;
        let wanted = hub.wanted(Topic::Traffic);
        if wanted.is_nobody() {
            last.clear();
            continue;
        }
        let answers = fleet.traffic_of_others().await;
        last.retain(|home, _| answers.iter().any(|(answered, _)| answered == home));
        for (home, load) in answers {
            let of = |load: TrafficView| {
                let sum = Traffic { calls: load.calls, errors: load.errors, streams: load.streams };
                (load.tenant.into_boxed_str(), sum)
            };
            let (now, at): (Load, _) = (load.into_iter().map(of).collect(), Instant::now());
            if let Some((since, before)) = last.insert(home.clone(), (at, now.clone())) {
                tell(&hub, &wanted, moved(&before, &now), at - since, Some(&home.replica));
            }
        }
    }
}

fn tell(hub: &Hub, wanted: &Wanted, mut moved: Vec<(&str, Traffic)>, time: Duration, replica: Option<&str>) {
    moved.retain(|(tenant, _)| wanted.includes(&TenantId::new(*tenant)));
    moved.truncate(MAX_TENANTS);
    for (tenant, traffic) in moved {
        let data = json!({
            "seconds": time.as_secs_f64(),
            "calls": traffic.calls,
            "errors": traffic.errors,
            "streams": traffic.streams,
            "replica": replica,
        });
        // Requests that no route takes are nobody's, and so are those of tenants that are not told apart.
        let nobody = tenant.is_empty() || tenant == OTHER;
        hub.publish(Topic::Traffic, (!nobody).then(|| TenantId::new(tenant)), data);
    }
}

/// Tenants with calls or streams, or whose last stream has ended; those with the most calls first.
fn moved<'a>(
    before: &HashMap<Box<str>, Traffic>,
    now: &'a HashMap<Box<str>, Traffic>,
) -> Vec<(&'a str, Traffic)> {
    let mut moved: Vec<(&str, Traffic)> = now
        .iter()
        .filter_map(|(tenant, traffic)| {
            let old = before.get(tenant).copied().unwrap_or_default();
            // Counters begin anew when a tenant comes back.
            let since = Traffic {
                calls: traffic.calls.saturating_sub(old.calls),
                errors: traffic.errors.saturating_sub(old.errors),
                streams: traffic.streams,
            };
            (since != Traffic::default() || old.streams > 0).then_some((&**tenant, since))
        })
        .collect();
    moved.sort_by(|a, b| b.1.calls.cmp(&a.1.calls).then(a.0.cmp(b.0)));
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_still_is_not_told() {
        let of = |calls, streams| Traffic { calls, errors: calls / 10, streams };
        let map = |list: &[(&str, Traffic)]| list.iter().map(|(n, t)| (Box::from(*n), *t)).collect();
        let before: HashMap<Box<str>, Traffic> =
            map(&[("a", of(100, 0)), ("b", of(50, 1)), ("c", of(10, 2))]);
        let now = map(&[("a", of(100, 0)), ("b", of(50, 0)), ("c", of(40, 2)), ("d", of(70, 0))]);
        let moved = moved(&before, &now);
        let told: Vec<_> = moved.iter().map(|(n, t)| (*n, t.calls, t.errors, t.streams)).collect();
        assert_eq!(told, [("d", 70, 7, 0), ("c", 30, 3, 2), ("b", 0, 0, 0)]);
    }
}
