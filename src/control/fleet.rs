//! Sessions and streams of all replicas, as if they were of one process.
//!
//! Each is known to its home replica only. The others are found in the store, by their heartbeats, and asked over the
//! internal listener, one hop. A replica that cannot be asked is named in the answer; it is never taken for one that has
//! nothing.

use std::sync::Arc;

use uuid::Uuid;

use super::internal::{InternalState, Listing, SessionView, StreamView};
use super::peers::{Answers, Peer, Peers};
use crate::source::replica::LIVE;
use crate::store::Store;

/// All replicas. Cheap to clone.
#[derive(Clone)]
pub struct Fleet(Arc<Inner>);

struct Inner {
    own: Arc<dyn InternalState>,
    boot: Uuid,
    /// Whether this process serves clients, so that something can be at home here.
    serves: bool,
    store: Option<Store>,
    peers: Option<Peers>,
}

/// A replica that could not be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Its process; `None` if not even that is known.
    pub boot: Option<String>,
    /// Why.
    pub why: String,
}

/// What all of them have.
#[derive(Clone, Debug)]
pub struct Gathered<T> {
    /// By process.
    pub found: Vec<(String, T)>,
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
        boot: Uuid,
        serves: bool,
        store: Option<Store>,
        peers: Option<Peers>,
    ) -> Self {
        Self(Arc::new(Inner { own, boot, serves, store, peers }))
    }

    /// What is at home here.
    pub fn own(&self) -> Arc<dyn InternalState> {
        self.0.own.clone()
    }

    /// Sessions by serial, at most the listing's limit of each replica.
    pub async fn sessions(&self, listing: &Listing) -> Gathered<SessionView> {
        let (others, mut missing) = self.others().await;
        let own = if self.0.serves { self.0.own.sessions(listing) } else { Vec::new() };
        let mut found: Vec<_> = own.into_iter().map(|session| (self.boot(), session)).collect();
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
        let own = self.boot();
        if self.0.serves && !past(&own) {
            found.extend(self.0.own.streams(of(&own)).into_iter().map(|stream| (own.clone(), stream)));
        }
        if let Some(peers) = &self.0.peers {
            let (first, later): (Vec<Peer>, Vec<Peer>) =
                others.into_iter().filter(|peer| !past(&peer.boot)).partition(|peer| begun(&peer.boot));
            let (first, later) = tokio::join!(peers.streams(&first, &rest), peers.streams(&later, listing));
            collect(first, &mut found, &mut missing);
            collect(later, &mut found, &mut missing);
        }
        found.sort_by(|a, b| (&a.0, a.1.id).cmp(&(&b.0, b.1.id)));
        Gathered { found, missing }
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

    /// Ends a stream of one process.
    pub async fn close_stream(&self, boot: &str, tenant: &str, id: u64) -> Closed {
        let done = |closed| if closed { Closed::Done } else { Closed::Unknown };
        if boot == self.boot() {
            return done(self.0.own.close_stream(tenant, id));
        }
        let (others, missing) = self.others().await;
        let of_it = |missing: Vec<Missing>| {
            missing.into_iter().filter(|m| m.boot.as_deref().is_none_or(|b| b == boot)).collect::<Vec<_>>()
        };
        let home = others.into_iter().find(|peer| peer.boot == boot);
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

    fn boot(&self) -> String {
        self.0.boot.to_string()
    }

    /// Who else serves clients, and who of them cannot be asked.
    async fn others(&self) -> (Vec<Peer>, Vec<Missing>) {
        let Some(store) = &self.0.store else { return (Vec::new(), Vec::new()) };
        let rows = match store.platform().replicas(LIVE).await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::warn!(event = "replicas_not_known", %error);
                let why = "who else there is cannot be known while the database is away".to_owned();
                return (Vec::new(), vec![Missing { boot: None, why }]);
            }
        };
        let (mut peers, mut missing) = (Vec::new(), Vec::new());
        for row in rows.into_iter().filter(|row| row.boot != self.0.boot && row.role != "control") {
            let boot = row.boot.to_string();
            let why = match (row.address, &self.0.peers) {
                (Some(address), Some(_)) => {
                    peers.push(Peer { boot, address });
                    continue;
                }
                (None, _) => "it has no internal listener (`listeners.internal`)",
                (Some(_), None) => {
                    "this process has no certificate to show it: it has no internal listener \
                     (`listeners.internal`)"
                }
            };
            missing.push(Missing { boot: Some(boot), why: why.to_owned() });
        }
        (peers, missing)
    }
}

fn not_there((peer, why): (Peer, String)) -> Missing {
    Missing { boot: Some(peer.boot), why }
}

fn collect<T>(answers: Answers<Vec<T>>, found: &mut Vec<(String, T)>, missing: &mut Vec<Missing>) {
    for (peer, items) in answers.answers {
        found.extend(items.into_iter().map(|item| (peer.boot.clone(), item)));
    }
    missing.extend(answers.missing.into_iter().map(not_there));
}
