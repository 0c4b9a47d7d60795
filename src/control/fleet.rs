//! What replicas have, of all of them together: sessions, streams, load, and how servers are.
//!
//! A session or stream is known to its home replica only. The others are found in the store, by their heartbeats, and asked over the
//! internal listener, one hop. A replica that cannot be asked is named in the answer; it is never taken for one that has
//! nothing.

use std::sync::Arc;

use uuid::Uuid;

use super::internal::{InternalState, Listing, SessionView, StreamView, TrafficView};
use super::peers::{Answers, Peer, Peers};
use crate::source::replica::LIVE;
use crate::store::{Replica, Store};

/// All replicas. Cheap to clone.
#[derive(Clone)]
pub struct Fleet(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) own: Arc<dyn InternalState>,
    pub(super) home: Home,
    /// Whether this process serves clients, so that something can be at home here.
    pub(super) serves: bool,
    pub(super) store: Option<Store>,
    pub(super) peers: Option<Peers>,
}

/// A process, and the replica that it is a run of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Home {
    /// The process, from its start to its end.
    pub boot: String,
    /// The replica: stays the same over restarts.
    pub replica: String,
}

impl Home {
    /// A run of a replica.
    pub fn new(boot: Uuid, replica: impl Into<String>) -> Self {
        Self { boot: boot.to_string(), replica: replica.into() }
    }

    /// Whether somebody who writes this means it.
    fn is(&self, name: &str) -> bool {
        self.boot == name || self.replica == name
    }
}

impl From<&Peer> for Home {
    fn from(peer: &Peer) -> Self {
        Self { boot: peer.boot.clone(), replica: peer.replica.clone() }
    }
}

impl From<&Replica> for Home {
    fn from(row: &Replica) -> Self {
        Self::new(row.boot, row.replica.as_str())
    }
}

/// A replica that could not be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Which; `None` if not even that is known.
    pub home: Option<Home>,
    /// Why.
    pub why: String,
}

/// What all of them have.
#[derive(Clone, Debug)]
pub struct Gathered<T> {
    /// By process.
    pub found: Vec<(Home, T)>,
    /// Who is not in it.
    pub missing: Vec<Missing>,
}

/// What came of ending something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// It has ended.
    Done,
    /// Nobody has it.
    Unknown,
    /// Nobody who was asked has it, but these were not.
    Unreachable(Vec<Missing>),
}

impl Fleet {
    /// This process and, with a store and certificates, the others.
    pub fn new(
        own: Arc<dyn InternalState>,
        home: Home,
        serves: bool,
        store: Option<Store>,
        peers: Option<Peers>,
    ) -> Self {
        Self(Arc::new(Inner { own, home, serves, store, peers }))
    }

    /// What is at home here.
    pub fn own(&self) -> Arc<dyn InternalState> {
        self.0.own.clone()
    }

    /// Sessions by serial, at most the listing's limit of each replica.
    pub async fn sessions(&self, listing: &Listing) -> Gathered<SessionView> {
        let (others, mut missing) = self.others().await;
        let own = if self.0.serves { self.0.own.sessions(listing) } else { Vec::new() };
        let mut found: Vec<_> = own.into_iter().map(|session| (self.home(), session)).collect();
        if let Some(peers) = &self.0.peers {
            collect(peers.sessions(&others, listing).await, &mut found, &mut missing);
        }
        // One that went to another replica is known to both: it is where it was used last.
        found.sort_by(|a, b| (&a.1.serial, b.1.last_seen).cmp(&(&b.1.serial, a.1.last_seen)));
        found.dedup_by(|later, first| later.1.serial == first.1.serial);
        Gathered { found, missing }
    }

    /// Streams by process and number, after the one given, at most the listing's limit of each replica.
    pub async fn streams(&self, listing: &Listing, after: Option<(&str, u64)>) -> Gathered<StreamView> {
        let (others, mut missing) = self.others().await;
        let begun = |boot: &str| after.is_some_and(|(last, _)| boot == last);
        let past = |boot: &str| after.is_some_and(|(last, _)| boot < last);
        let rest = Listing { after: after.map(|(_, id)| id.to_string()), ..listing.clone() };
        let of = |boot: &str| if begun(boot) { &rest } else { listing };
        let mut found = Vec::new();
        let own = self.home();
        if self.0.serves && !past(&own.boot) {
            found.extend(self.0.own.streams(of(&own.boot)).into_iter().map(|stream| (own.clone(), stream)));
        }
        if let Some(peers) = &self.0.peers {
            let (first, later): (Vec<Peer>, Vec<Peer>) =
                others.into_iter().filter(|peer| !past(&peer.boot)).partition(|peer| begun(&peer.boot));
            let (first, later) = tokio::join!(peers.streams(&first, &rest), peers.streams(&later, listing));
            collect(first, &mut found, &mut missing);
            collect(later, &mut found, &mut missing);
        }
        found.sort_by(|a, b| (&a.0.boot, a.1.id).cmp(&(&b.0.boot, b.1.id)));
        Gathered { found, missing }
    }

    /// What tenants' requests come to at each of the others that can be asked.
    pub async fn traffic_of_others(&self) -> Vec<(Home, Vec<TrafficView>)> {
        let Some(peers) = &self.0.peers else { return Vec::new() };
        let (others, _) = self.others().await;
        let answers = peers.traffic(&others).await.answers;
        answers.into_iter().map(|(peer, load)| (Home::from(&peer), load)).collect()
    }

    /// Ends a session wherever it is at home, and has the others remember that.
    pub async fn close_session(&self, tenant: &str, serial: &str) -> Closed {
        let (others, mut missing) = self.others().await;
        let Some(peers) = &self.0.peers else { return self.close_own(tenant, serial, missing) };
        if let Some(tombstone) = self.0.own.close_session(tenant, serial) {
            // They hear of it from the store as well; this is faster, and does without it.
            let _ = peers.bury(&others, &[tombstone]).await;
            return Closed::Done;
        }
        let asked = peers.close_session(&others, tenant, serial).await;
        if let Some(tombstone) = asked.answers.iter().find_map(|(_, closed)| closed.clone()) {
            self.0.own.bury(&[tombstone]);
            return Closed::Done;
        }
        missing.extend(asked.missing.into_iter().map(not_there));
        if missing.is_empty() { Closed::Unknown } else { Closed::Unreachable(missing) }
    }

    fn close_own(&self, tenant: &str, serial: &str, missing: Vec<Missing>) -> Closed {
        match self.0.own.close_session(tenant, serial) {
            Some(_) => Closed::Done,
            None if missing.is_empty() => Closed::Unknown,
            None => Closed::Unreachable(missing),
        }
    }

    /// Ends a stream of one process, which is named by its boot id or its replica's.
    pub async fn close_stream(&self, name: &str, tenant: &str, id: u64) -> Closed {
        let done = |closed| if closed { Closed::Done } else { Closed::Unknown };
        if self.0.home.is(name) {
            return done(self.0.own.close_stream(tenant, id));
        }
        let (others, missing) = self.others().await;
        let of_it = |missing: Vec<Missing>| {
            missing.into_iter().filter(|m| m.home.as_ref().is_none_or(|h| h.is(name))).collect::<Vec<_>>()
        };
        let home = others.into_iter().find(|peer| Home::from(peer).is(name));
        let (Some(home), Some(peers)) = (home, &self.0.peers) else {
            let missing = of_it(missing);
            return if missing.is_empty() { Closed::Unknown } else { Closed::Unreachable(missing) };
        };
        let asked = peers.close_stream(&home, tenant, id).await;
        match asked.missing.is_empty() {
            true => done(asked.answers.iter().any(|(_, closed)| *closed)),
            false => Closed::Unreachable(asked.missing.into_iter().map(not_there).collect()),
        }
    }

    fn home(&self) -> Home {
        self.0.home.clone()
    }

    /// Who else serves clients, by their last beats.
    pub(super) async fn rows(&self) -> Result<Vec<Replica>, Missing> {
        let Some(store) = &self.0.store else { return Ok(Vec::new()) };
        match store.platform().replicas(LIVE).await {
            Ok(mut rows) => {
                rows.retain(|row| row.boot.to_string() != self.0.home.boot && row.role != "control");
                Ok(rows)
            }
            Err(error) => {
                tracing::warn!(event = "replicas_not_known", %error);
                let why = "who else there is cannot be known while the database is away".to_owned();
                Err(Missing { home: None, why })
            }
        }
    }

    /// Where another process is asked, or why it cannot be.
    pub(super) fn peer(&self, row: &Replica) -> Result<Peer, Missing> {
        let why = match (&row.address, &self.0.peers) {
            (Some(address), Some(_)) => {
                let home = Home::from(row);
                return Ok(Peer { boot: home.boot, replica: home.replica, address: address.clone() });
            }
            (None, _) => "it has no internal listener (`listeners.internal`)",
            (Some(_), None) => {
                "this process has no certificate to show it: it has no internal listener (`listeners.internal`)"
            }
        };
        Err(Missing { home: Some(Home::from(row)), why: why.to_owned() })
    }

    /// Who else serves clients, and who of them cannot be asked.
    async fn others(&self) -> (Vec<Peer>, Vec<Missing>) {
        let rows = match self.rows().await {
            Ok(rows) => rows,
            Err(missing) => return (Vec::new(), vec![missing]),
        };
        let (mut peers, mut missing) = (Vec::new(), Vec::new());
        for row in &rows {
            match self.peer(row) {
                Ok(peer) => peers.push(peer),
                Err(why) => missing.push(why),
            }
        }
        (peers, missing)
    }
}

pub(super) fn not_there((peer, why): (Peer, String)) -> Missing {
    Missing { home: Some(Home::from(&peer)), why }
}

fn collect<T>(answers: Answers<Vec<T>>, found: &mut Vec<(Home, T)>, missing: &mut Vec<Missing>) {
    for (peer, items) in answers.answers {
        found.extend(items.into_iter().map(|item| (Home::from(&peer), item)));
    }
    missing.extend(answers.missing.into_iter().map(not_there));
}
