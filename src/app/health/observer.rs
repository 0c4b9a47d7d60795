//! Makes minutes and changes of what is seen of targets. Pure: times and states come from outside.

use std::collections::HashMap;
use std::time::Duration;

use crate::store::{HealthChange, HealthSample, Time};
use crate::upstream::{CircuitState, ServerStatus, TargetStatus};

const MINUTE: Duration = Duration::from_secs(60);
/// Longest text about what is wrong with a target, in characters.
const MAX_ERROR: usize = 300;

/// Tenant, server, target with its address.
type Name = (String, String, String);

/// Sees targets for one replica.
pub(super) struct Observer {
    replica: String,
    /// The beginning of the minute that is under way.
    minute: Option<Time>,
    /// Targets that there are, and the minute so far of each.
    seen: HashMap<Name, Seen>,
}

struct Seen {
    /// Whether it was there at the last look.
    there: bool,
    state: &'static str,
    /// Counts since the target was first seen, as of the last look.
    ejections: u64,
    probed_at: Option<u64>,
    sums: HealthSample,
}

impl Observer {
    pub(super) fn new(replica: String) -> Self {
        Self { replica, minute: None, seen: HashMap::new() }
    }

    /// Takes up how things are. Gives the minutes that are over, and what changed.
    pub(super) fn look(
        &mut self,
        now: Time,
        servers: &[ServerStatus],
    ) -> (Vec<HealthSample>, Vec<HealthChange>) {
        let minute = now.floor(MINUTE);
        let mut minutes = Vec::new();
        if self.minute.is_some_and(|current| current != minute) {
            minutes = self.finish();
        }
        self.minute = Some(minute);
        let mut changes = Vec::new();
        for server in servers {
            for target in &server.targets {
                changes.extend(self.target(now, minute, server, target));
            }
        }
        // What is not there any more keeps what it had of this minute.
        (minutes, changes)
    }

    fn finish(&mut self) -> Vec<HealthSample> {
        let mut minutes = Vec::with_capacity(self.seen.len());
        self.seen.retain(|_, seen| {
            if seen.sums.observed > 0 {
                minutes.push(seen.sums.clone());
            }
            std::mem::replace(&mut seen.there, false)
        });
        // In the order of their keys: writers that lock rows in one order cannot deadlock.
        minutes.sort_by(|a, b| (&a.tenant, &a.server, &a.target).cmp(&(&b.tenant, &b.server, &b.target)));
        for seen in self.seen.values_mut() {
            seen.sums = HealthSample {
                observed: 0,
                available: 0,
                probes: 0,
                probes_failed: 0,
                probe_us: 0,
                latency_count: 0,
                latency_us: 0,
                in_flight_max: 0,
                ejections: 0,
                changes: 0,
                ..seen.sums.clone()
            };
        }
        minutes
    }

    fn target(
        &mut self,
        now: Time,
        minute: Time,
        server: &ServerStatus,
        target: &TargetStatus,
    ) -> Option<HealthChange> {
        let name = (server.tenant.clone(), server.server.clone(), called(target));
        let state = state(target);
        let error = wrong(state, target);
        let change = |was: Option<&str>| HealthChange {
            tenant: name.0.clone(),
            at: now,
            server: name.1.clone(),
            target: name.2.clone(),
            replica: self.replica.clone(),
            was: was.map(str::to_owned),
            state: state.to_owned(),
            error: error.clone(),
        };
        let mut told = None;
        let seen = match self.seen.get_mut(&name) {
            Some(seen) => {
                if seen.state != state {
                    told = Some(change(Some(seen.state)));
                    seen.sums.changes += 1;
                    seen.state = state;
                }
                seen
            }
            None => {
                told = Some(change(None));
                let sums = HealthSample {
                    tenant: name.0.clone(),
                    at: minute,
                    server: name.1.clone(),
                    target: name.2.clone(),
                    replica: self.replica.clone(),
                    observed: 0,
                    available: 0,
                    probes: 0,
                    probes_failed: 0,
                    probe_us: 0,
                    latency_count: 0,
                    latency_us: 0,
                    in_flight_max: 0,
                    ejections: 0,
                    changes: 0,
                    state: state.to_owned(),
                    error: None,
                };
                // What happened before it was first seen is not of this minute.
                let (ejections, probed_at) = (target.ejections, target.last_probe_at);
                self.seen.entry(name).or_insert(Seen { there: true, state, ejections, probed_at, sums })
            }
        };
        seen.there = true;
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let sums = &mut seen.sums;
        sums.at = minute;
        sums.observed += 1;
        sums.available += i64::from(takes_work(state));
        if target.last_probe_at.is_some() && target.last_probe_at != seen.probed_at {
            seen.probed_at = target.last_probe_at;
            sums.probes += 1;
            sums.probes_failed += i64::from(target.last_probe_error.is_some());
            sums.probe_us = sums.probe_us.saturating_add(count(target.last_probe_us.unwrap_or(0)));
        }
        if target.latency_us > 0 {
            sums.latency_count += 1;
            sums.latency_us = sums.latency_us.saturating_add(count(target.latency_us));
        }
        sums.in_flight_max = sums.in_flight_max.max(i64::from(target.in_flight));
        // Fewer than before: the address is another process's now.
        sums.ejections =
            sums.ejections.saturating_add(count(target.ejections.saturating_sub(seen.ejections)));
        seen.ejections = target.ejections;
        state.clone_into(&mut sums.state);
        sums.error = error;
        told
    }
}

/// The target as configured, and behind a host name the address, too.
fn called(target: &TargetStatus) -> String {
    if target.target_ref.contains('~') {
        format!("{} ({})", target.target, target.address.ip())
    } else {
        target.target.clone()
    }
}

/// The one word for a target's state: the first of these that is true.
fn state(target: &TargetStatus) -> &'static str {
    if !target.healthy {
        "unhealthy"
    } else if target.circuit == CircuitState::Open {
        "circuit_open"
    } else if target.ejected_until.is_some() {
        "ejected"
    } else if target.draining || target.lingering {
        "draining"
    } else {
        "healthy"
    }
}

/// Whether a target in this state takes work. Draining is somebody's will, and no fault.
fn takes_work(state: &str) -> bool {
    matches!(state, "draining" | "healthy")
}

fn wrong(state: &str, target: &TargetStatus) -> Option<String> {
    if takes_work(state) {
        return None;
    }
    // A server may say anything, and PostgreSQL takes no NUL.
    let clean = |c: char| if c == '\0' { char::REPLACEMENT_CHARACTER } else { c };
    target.last_probe_error.as_deref().map(|error| error.chars().map(clean).take(MAX_ERROR).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(change: impl FnOnce(&mut TargetStatus)) -> Vec<ServerStatus> {
        let mut target = TargetStatus {
            target_ref: "abc".to_owned(),
            target: "http://127.0.0.1:9001/mcp".to_owned(),
            address: ([127, 0, 0, 1], 9001).into(),
            weight: 1,
            healthy: true,
            draining: false,
            lingering: false,
            ejected_until: None,
            ejections: 0,
            circuit: CircuitState::Closed,
            in_flight: 0,
            latency_us: 0,
            last_probe_at: None,
            last_probe_us: None,
            last_probe_error: None,
            modern: None,
            legacy: None,
        };
        change(&mut target);
        vec![ServerStatus {
            tenant: "acme".to_owned(),
            server: "weather".to_owned(),
            eras: Default::default(),
            discovered_at: None,
            targets: vec![target],
            names: Vec::new(),
        }]
    }

    fn at(secs: i64) -> Time {
        Time::from_micros((1_200 + secs) * 1_000_000)
    }

    #[test]
    fn a_minute_adds_up_what_was_seen_in_it() {
        let mut observer = Observer::new("r1".to_owned());
        let (minutes, changes) = observer.look(at(0), &status(|t| t.ejections = 5));
        assert!(minutes.is_empty());
        assert_eq!((changes[0].was.as_deref(), changes[0].state.as_str()), (None, "healthy"));
        observer.look(at(1), &status(|t| (t.ejections, t.in_flight, t.latency_us) = (5, 9, 400)));
        let failed = |t: &mut TargetStatus| {
            t.healthy = false;
            t.ejections = 7;
            t.latency_us = 600;
            t.last_probe_at = Some(1);
            t.last_probe_us = Some(2_000);
            t.last_probe_error = Some("refused\0".into());
        };
        let (_, changes) = observer.look(at(2), &status(failed));
        assert_eq!((changes[0].was.as_deref(), changes[0].state.as_str()), (Some("healthy"), "unhealthy"));
        assert_eq!(changes[0].error.as_deref(), Some("refused\u{fffd}"));
        // The same probe seen again is one probe.
        assert!(observer.look(at(3), &status(failed)).1.is_empty());
        let (minutes, _) = observer.look(at(60), &status(failed));
        let minute = &minutes[0];
        assert_eq!((minute.at, minute.observed, minute.available), (at(0), 4, 2));
        assert_eq!((minute.probes, minute.probes_failed, minute.probe_us), (1, 1, 2_000));
        assert_eq!((minute.latency_count, minute.latency_us, minute.in_flight_max), (3, 1_600, 9));
        assert_eq!((minute.ejections, minute.changes, minute.state.as_str()), (2, 1, "unhealthy"));
        // The next one begins with nothing.
        let (minutes, _) = observer.look(at(120), &[]);
        assert_eq!((minutes[0].at, minutes[0].observed, minutes[0].ejections), (at(60), 1, 0));
        // What left has said all it had to say, and is forgotten.
        assert!(observer.look(at(180), &[]).0.is_empty());
        assert!(observer.seen.is_empty());
    }

    #[test]
    fn draining_is_no_fault_and_the_worst_is_said_first() {
        assert_eq!(state(&status(|t| t.draining = true)[0].targets[0]), "draining");
        assert!(takes_work("draining"));
        let both = status(|t| (t.ejected_until, t.circuit) = (Some(1), CircuitState::Open));
        assert_eq!(state(&both[0].targets[0]), "circuit_open");
        let half = status(|t| t.circuit = CircuitState::HalfOpen);
        assert_eq!(state(&half[0].targets[0]), "healthy", "some requests pass");
    }

    #[test]
    fn behind_a_name_addresses_are_told_apart() {
        let named = status(|t| t.target_ref = "abc~127.0.0.1".to_owned());
        assert_eq!(called(&named[0].targets[0]), "http://127.0.0.1:9001/mcp (127.0.0.1)");
    }
}
