//! How servers are now, as each replica that calls them knows it.
//!
//! This process knows of the servers that it calls itself; one without a data plane calls none. The others are asked over
//! the internal listener. Of one that cannot be asked it is told what it last stored, with its age, if that is not older
//! than [`WINDOW`]; of one that stored nothing either, that nothing is known.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use super::fleet::{Fleet, Home, Missing, not_there};
use super::state::{ServerStatus, TargetStatus};
use crate::store::{HealthState, Replica, Time};

/// What was stored longer ago says nothing of now.
const WINDOW: Duration = Duration::from_secs(180);

/// How it is known what a replica sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// It was asked.
    Asked,
    /// It is this process.
    Own,
    /// It is what it stored last.
    Stored,
}

/// What one replica sees.
#[derive(Clone, Debug)]
pub struct View {
    /// Which.
    pub home: Home,
    /// How that is known.
    pub how: How,
    /// Why it was not asked.
    pub why: Option<String>,
    /// The servers, and how old that is, in milliseconds.
    pub servers: Vec<(ServerStatus, u64)>,
}

/// What replicas see.
#[derive(Clone, Debug)]
pub struct Views {
    /// Servers that are configured here.
    registered: Vec<ServerStatus>,
    /// Of each replica that something is known of.
    pub views: Vec<View>,
    /// The others.
    pub missing: Vec<Missing>,
}

/// A server now.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ServerNow {
    /// All replicas together: a target takes traffic if it does so at one of them.
    #[serde(flatten)]
    pub server: ServerStatus,
    /// `up` or `down` if all replicas that are known say so, `mixed` if they differ, `unknown` if nobody knows.
    pub state: &'static str,
    /// What each replica says.
    pub replicas: Vec<ReplicaNow>,
}

/// A server now, at one replica.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ReplicaNow {
    /// The replica: stays the same over restarts.
    pub replica: String,
    /// The process.
    pub boot: String,
    /// How it is known: `own`, `asked` or `stored`.
    pub source: How,
    /// How old it is, in milliseconds.
    pub age_ms: u64,
    /// Why it was not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_asked: Option<String>,
    /// Whether at least one target takes traffic.
    pub available: Option<bool>,
    /// Its targets.
    pub targets: Vec<TargetStatus>,
}

impl Fleet {
    /// How servers are, of one tenant or all of them.
    pub async fn servers(&self, tenant: Option<&str>) -> Views {
        let registered = self.0.own.servers(tenant);
        let (mut views, missing) = self.servers_of_others(tenant, &registered).await;
        if self.0.serves {
            let servers = registered.iter().map(|server| (server.clone(), 0)).collect();
            views.push(View { home: self.0.home.clone(), how: How::Own, why: None, servers });
        }
        views.sort_by(|a, b| a.home.cmp(&b.home));
        Views { registered, views, missing }
    }

    /// The same without this process.
    pub async fn servers_elsewhere(&self) -> Views {
        let registered = self.0.own.servers(None);
        let (views, missing) = self.servers_of_others(None, &registered).await;
        Views { registered, views, missing }
    }

    async fn servers_of_others(
        &self,
        tenant: Option<&str>,
        registered: &[ServerStatus],
    ) -> (Vec<View>, Vec<Missing>) {
        let rows = match self.rows().await {
            Ok(rows) => rows,
            Err(missing) => return (Vec::new(), vec![missing]),
        };
        let (mut peers, mut silent) = (Vec::new(), Vec::new());
        for row in &rows {
            match self.peer(row) {
                Ok(peer) => peers.push(peer),
                Err(missing) => silent.push(missing),
            }
        }
        let mut views = Vec::new();
        if let Some(asking) = &self.0.peers {
            let asked = asking.servers(&peers, tenant).await;
            for (peer, servers) in asked.answers {
                let servers = servers.into_iter().map(|server| (server, 0)).collect();
                views.push(View { home: Home::from(&peer), how: How::Asked, why: None, servers });
            }
            silent.extend(asked.missing.into_iter().map(not_there));
        }
        let missing = self.told_by_store(&rows, registered, silent, &mut views).await;
        (views, missing)
    }

    /// Adds what those who were not asked have stored. Gives those who stored nothing.
    async fn told_by_store(
        &self,
        rows: &[Replica],
        registered: &[ServerStatus],
        silent: Vec<Missing>,
        views: &mut Vec<View>,
    ) -> Vec<Missing> {
        let Some(store) = self.0.store.as_ref().filter(|_| !silent.is_empty()) else { return silent };
        let now = store.now();
        let servers: Vec<(String, String)> =
            registered.iter().map(|s| (s.tenant.clone(), s.name.clone())).collect();
        let states = match store.platform().health_states(&servers, now.minus(WINDOW)).await {
            Ok(states) => states,
            Err(error) => {
                tracing::warn!(event = "health_states_not_read", %error);
                return silent;
            }
        };
        let mut missing = Vec::new();
        for silent in silent {
            let home = silent.home.as_ref().filter(|home| rows.iter().any(|row| row.replica == home.replica));
            let own = |home: &&Home| states.iter().filter(|s| s.replica == home.replica).collect::<Vec<_>>();
            match home.as_ref().map(own) {
                Some(states) if !states.is_empty() => {
                    let (home, why) = (home.expect("it has states").clone(), Some(silent.why));
                    views.push(View { home, how: How::Stored, why, servers: stored(&states, now) });
                }
                _ => missing.push(silent),
            }
        }
        missing
    }
}

/// Servers as the rows of one replica have them.
fn stored(states: &[&HealthState], now: Time) -> Vec<(ServerStatus, u64)> {
    let mut servers: BTreeMap<(&str, &str), (ServerStatus, u64)> = BTreeMap::new();
    for state in states {
        let (server, age) = servers.entry((&state.tenant, &state.server)).or_insert_with(|| {
            let unknown = || "unknown".to_owned();
            let server = ServerStatus {
                tenant: state.tenant.clone(),
                name: state.server.clone(),
                transport: unknown(),
                era: unknown(),
                available: Some(false),
                tools: None,
                targets: Vec::new(),
            };
            (server, 0)
        });
        let healthy = matches!(state.state.as_str(), "draining" | "healthy");
        // A name with several addresses has a row for each, which is named behind it.
        let id = state.target.split_once(" (").map_or(state.target.as_str(), |(id, _)| id);
        server.available = Some(server.available == Some(true) || healthy);
        server.targets.push(TargetStatus {
            id: id.to_owned(),
            healthy: Some(healthy),
            in_flight: 0,
            latency_us: None,
            ejected_until: None,
            last_error: if healthy {
                None
            } else {
                state.error.clone().or_else(|| Some(state.state.clone()))
            },
        });
        *age = (*age).max(u64::try_from(now.since(state.at).as_millis()).unwrap_or(u64::MAX));
    }
    servers.into_values().collect()
}

impl Views {
    /// All servers that are configured here or seen elsewhere, by tenant and name.
    pub fn servers(&self) -> Vec<ServerNow> {
        let mut found: BTreeMap<(&str, &str), ServerNow> = BTreeMap::new();
        for server in &self.registered {
            found.insert((&server.tenant, &server.name), ServerNow::unknown(server));
        }
        for view in &self.views {
            for (server, age_ms) in &view.servers {
                let key = (server.tenant.as_str(), server.name.as_str());
                found.entry(key).or_insert_with(|| ServerNow::unknown(server)).add(view, server, *age_ms);
            }
        }
        found.into_values().collect()
    }
}

impl ServerNow {
    /// One of which no replica has said anything.
    fn unknown(server: &ServerStatus) -> Self {
        let target = |target: &TargetStatus| TargetStatus {
            id: target.id.clone(),
            healthy: None,
            in_flight: 0,
            latency_us: None,
            ejected_until: None,
            last_error: None,
        };
        let mut targets: Vec<TargetStatus> = server.targets.iter().map(target).collect();
        // A name with several addresses is one target.
        targets.dedup_by(|a, b| a.id == b.id);
        let server = ServerStatus {
            available: None,
            tools: None,
            era: "unknown".to_owned(),
            targets,
            ..server.clone()
        };
        Self { server, state: "unknown", replicas: Vec::new() }
    }

    /// Takes up what one replica says.
    fn add(&mut self, view: &View, seen: &ServerStatus, age_ms: u64) {
        let all = &mut self.server;
        all.available = either(all.available, seen.available);
        all.tools = all.tools.max(seen.tools);
        for (known, said) in [(&mut all.era, &seen.era), (&mut all.transport, &seen.transport)] {
            if known == "unknown" {
                known.clone_from(said);
            }
        }
        for target in &seen.targets {
            match all.targets.iter_mut().find(|known| known.id == target.id) {
                Some(known) => join(known, target),
                None => all.targets.push(target.clone()),
            }
        }
        self.state = match (self.state, seen.available) {
            (state, None) => state,
            ("unknown" | "up", Some(true)) => "up",
            ("unknown" | "down", Some(false)) => "down",
            _ => "mixed",
        };
        self.replicas.push(ReplicaNow {
            replica: view.home.replica.clone(),
            boot: view.home.boot.clone(),
            source: view.how,
            age_ms,
            not_asked: view.why.clone(),
            available: seen.available,
            targets: seen.targets.clone(),
        });
    }
}

fn join(known: &mut TargetStatus, said: &TargetStatus) {
    known.healthy = either(known.healthy, said.healthy);
    known.in_flight = known.in_flight.saturating_add(said.in_flight);
    known.latency_us = known.latency_us.max(said.latency_us);
    known.ejected_until = known.ejected_until.max(said.ejected_until);
    if known.last_error.is_none() {
        known.last_error.clone_from(&said.last_error);
    }
}

/// Whether one of them says yes; `None` if both do not know.
fn either(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a || b),
        (known, None) | (None, known) => known,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(target: &str, replica: &str, state: &str, secs: i64) -> HealthState {
        HealthState {
            tenant: "acme".to_owned(),
            at: Time::from_micros(secs * 1_000_000),
            server: "w".to_owned(),
            target: target.to_owned(),
            replica: replica.to_owned(),
            state: state.to_owned(),
            error: None,
        }
    }

    fn view(replica: &str, how: How, servers: Vec<(ServerStatus, u64)>) -> View {
        let home = Home { boot: format!("boot-{replica}"), replica: replica.to_owned() };
        View { home, how, why: None, servers }
    }

    #[test]
    fn what_was_stored_is_as_old_as_its_oldest_row_and_a_name_is_well_while_one_address_is() {
        let rows = [
            state("http://a (10.0.0.1)", "r", "ejected", 90),
            state("http://a (10.0.0.2)", "r", "healthy", 100),
            state("http://b", "r", "unhealthy", 95),
        ];
        let rows: Vec<&HealthState> = rows.iter().collect();
        let servers = stored(&rows, Time::from_micros(100_000_000));
        let (server, age) = &servers[0];
        assert_eq!((servers.len(), *age, server.available), (1, 10_000, Some(true)));
        let views = Views {
            registered: Vec::new(),
            views: vec![view("r", How::Stored, servers.clone())],
            missing: Vec::new(),
        };
        let now = views.servers().remove(0);
        let targets: Vec<_> = now.server.targets.iter().map(|t| (t.id.as_str(), t.healthy)).collect();
        assert_eq!(targets, [("http://a", Some(true)), ("http://b", Some(false))]);
        assert_eq!(now.state, "up");
    }

    #[test]
    fn replicas_that_differ_are_told_apart_and_nobody_knows_what_nobody_saw() {
        let rows = |word| vec![state("http://a", "r", word, 100)];
        let of = |word| {
            let rows = rows(word);
            stored(&rows.iter().collect::<Vec<_>>(), Time::from_micros(100_000_000))
        };
        let registered = vec![
            ServerStatus { available: Some(true), ..of("healthy").remove(0).0 },
            ServerStatus { name: "x".to_owned(), ..of("healthy").remove(0).0 },
        ];
        let views = vec![view("one", How::Asked, of("healthy")), view("two", How::Stored, of("unhealthy"))];
        let servers = Views { registered, views, missing: Vec::new() }.servers();
        assert_eq!((servers[0].state, servers[0].server.available), ("mixed", Some(true)));
        let each: Vec<_> = servers[0].replicas.iter().map(|r| (r.replica.as_str(), r.available)).collect();
        assert_eq!(each, [("one", Some(true)), ("two", Some(false))]);
        assert_eq!((servers[1].state, servers[1].server.available), ("unknown", None));
        assert_eq!(servers[1].server.targets[0].healthy, None);
        assert!(servers[1].replicas.is_empty());
    }
}
