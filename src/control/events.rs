//! Live events: what `/api/v1/events` streams.
//!
//! A [`Hub`] numbers events, keeps the last ones for readers that come back, and hands them to whoever listens. Publishing
//! never waits: a reader that is too slow is told that it missed something, and reads the rest of the API again. Numbers
//! belong to one process; a reader that comes back to another one is told so, too.
//!
//! Events that cost something to find are found only for whoever listens ([`Hub::wanted`]); that others were not looked
//! for is remembered ([`Hub::lose`]), so that a reader that comes back learns of the gap. Load is a figure of the moment
//! and is not kept at all.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::broadcast;

use crate::base::TenantId;

/// Events kept for readers that come back, and the most that a reader may be behind.
const KEPT: usize = 1024;
/// Tenants of which it is remembered that something was lost; past them it counts for all.
const LOST: usize = 4096;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Who did what.
    Audit,
    /// Documents and who serves them.
    Config,
    /// Servers and targets.
    Health,
    /// Load.
    Traffic,
}

impl Topic {
    /// All topics.
    pub const ALL: [Topic; 4] = [Topic::Audit, Topic::Config, Topic::Health, Topic::Traffic];

    /// The name in `topics` and in the stream.
    pub fn as_str(self) -> &'static str {
        match self {
            Topic::Audit => "audit",
            Topic::Config => "config",
            Topic::Health => "health",
            Topic::Traffic => "traffic",
        }
    }
}

/// Something that happened.
#[derive(Debug)]
pub struct Event {
    /// Counted up by the hub.
    pub number: u64,
    /// What it is about.
    pub topic: Topic,
    /// Whose; `None`: the platform's.
    pub tenant: Option<TenantId>,
    /// What happened; `None`: events of the topic are gone, whoever's if there is no tenant.
    pub data: Option<Value>,
}

/// Hands events from where they happen to who listens.
pub struct Hub {
    /// Tells this process from others.
    boot: String,
    inner: Mutex<Inner>,
    sender: broadcast::Sender<Arc<Event>>,
}

struct Inner {
    next: u64,
    kept: VecDeque<Arc<Event>>,
    /// The last event that is not kept any more.
    forgotten: u64,
    /// Who listens to what.
    listening: HashMap<(Topic, Option<TenantId>), usize>,
    /// For each topic and tenant, the last event before something was not looked for.
    lost: HashMap<(Topic, Option<TenantId>), u64>,
}

/// Of whom events of a topic are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Everybody.
    All,
    /// These tenants; nobody if there are none.
    Of(HashSet<TenantId>),
}

impl Wanted {
    /// Whether nobody listens.
    pub fn is_nobody(&self) -> bool {
        matches!(self, Wanted::Of(tenants) if tenants.is_empty())
    }

    /// Whether somebody listens to this tenant's.
    pub fn includes(&self, tenant: &TenantId) -> bool {
        match self {
            Wanted::All => true,
            Wanted::Of(tenants) => tenants.contains(tenant),
        }
    }
}

/// What a reader gets first, and where it goes on.
pub struct Joined {
    /// Events since the one that the reader saw last.
    pub missed: Vec<Arc<Event>>,
    /// Whether some are gone.
    pub gap: bool,
    /// What happens from now on.
    pub receiver: broadcast::Receiver<Arc<Event>>,
    /// Makes it known that somebody listens, until it is dropped.
    pub listening: Listening,
}

/// Somebody listens.
pub struct Listening {
    hub: Arc<Hub>,
    topics: Vec<Topic>,
    tenant: Option<TenantId>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut inner = self.hub.inner.lock();
        for topic in &self.topics {
            let key = (*topic, self.tenant.clone());
            if let Some(count) = inner.listening.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    inner.listening.remove(&key);
                }
            }
        }
    }
}

impl Default for Hub {
    fn default() -> Self {
        Self::new()
    }
}

impl Hub {
    /// Nobody listens yet.
    pub fn new() -> Self {
        Self {
            boot: format!("{:08x}", rand::random::<u32>()),
            inner: Mutex::new(Inner {
                next: 1,
                kept: VecDeque::with_capacity(KEPT),
                forgotten: 0,
                listening: HashMap::new(),
                lost: HashMap::new(),
            }),
            sender: broadcast::channel(KEPT).0,
        }
    }

    /// Publishes an event.
    pub fn publish(&self, topic: Topic, tenant: Option<TenantId>, data: Value) {
        self.send(&mut self.inner.lock(), topic, tenant, Some(data));
    }

    /// Of whom events of this topic are wanted now.
    pub fn wanted(&self, topic: Topic) -> Wanted {
        let inner = self.inner.lock();
        let mut tenants = HashSet::new();
        for (_, tenant) in inner.listening.keys().filter(|(of, _)| *of == topic) {
            match tenant {
                None => return Wanted::All,
                Some(tenant) => drop(tenants.insert(tenant.clone())),
            }
        }
        Wanted::Of(tenants)
    }

    /// Events were not looked for, or lost: of one tenant, or of everybody. Whoever listens to them is told, and whoever
    /// comes back later is, too.
    pub fn lose(&self, topic: Topic, tenant: Option<TenantId>) {
        let mut inner = self.inner.lock();
        let last = inner.next - 1;
        let heard = |(of, whose): &(Topic, Option<TenantId>)| {
            *of == topic && (tenant.is_none() || whose.is_none() || *whose == tenant)
        };
        if inner.listening.keys().any(heard) {
            self.send(&mut inner, topic, tenant.clone(), None);
        }
        let known = inner.lost.contains_key(&(topic, tenant.clone()));
        let whose = if known || inner.lost.len() < LOST { tenant } else { None };
        inner.lost.insert((topic, whose), last);
    }

    fn send(&self, inner: &mut Inner, topic: Topic, tenant: Option<TenantId>, data: Option<Value>) {
        let event = Arc::new(Event { number: inner.next, topic, tenant, data });
        inner.next += 1;
        if topic != Topic::Traffic {
            if inner.kept.len() == KEPT
                && let Some(oldest) = inner.kept.pop_front()
            {
                inner.forgotten = oldest.number;
            }
            inner.kept.push_back(event.clone());
        }
        // Under the lock, so that readers get them in order. Nobody listens: nobody to tell.
        let _ = self.sender.send(event);
    }

    /// The id of an event in the stream.
    pub fn id(&self, event: &Event) -> String {
        format!("{}-{}", self.boot, event.number)
    }

    /// Begins to listen to these topics, of one tenant or of everybody, after the event with this id if there is one.
    pub fn join(self: &Arc<Self>, topics: &[Topic], tenant: Option<&TenantId>, last: Option<&str>) -> Joined {
        let mut inner = self.inner.lock();
        for topic in topics {
            *inner.listening.entry((*topic, tenant.cloned())).or_default() += 1;
        }
        let listening = Listening { hub: self.clone(), topics: topics.to_vec(), tenant: tenant.cloned() };
        let receiver = self.sender.subscribe();
        let Some(last) = last else { return Joined { missed: Vec::new(), gap: false, receiver, listening } };
        let number = last
            .split_once('-')
            .filter(|(boot, _)| *boot == self.boot)
            .and_then(|(_, number)| number.parse::<u64>().ok())
            .filter(|number| *number < inner.next);
        let Some(number) = number else {
            return Joined { missed: Vec::new(), gap: true, receiver, listening };
        };
        let mine = |whose: &Option<TenantId>| tenant.is_none() || whose.is_none() || whose.as_ref() == tenant;
        let lost = inner
            .lost
            .iter()
            .any(|((topic, whose), after)| topics.contains(topic) && mine(whose) && *after >= number);
        Joined {
            missed: inner.kept.iter().filter(|e| e.number > number).cloned().collect(),
            gap: lost || number < inner.forgotten,
            receiver,
            listening,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn join(hub: &Arc<Hub>, last: Option<&str>) -> Joined {
        hub.join(&[Topic::Config], None, last)
    }

    #[test]
    fn who_comes_back_gets_what_they_missed_or_learns_of_the_gap() {
        let hub = Arc::new(Hub::new());
        let mut first = join(&hub, None);
        for n in 0..3 {
            hub.publish(Topic::Config, None, json!(n));
        }
        let seen = first.receiver.try_recv().unwrap();
        let again = join(&hub, Some(&hub.id(&seen)));
        assert!(!again.gap);
        let data: Vec<_> = again.missed.iter().map(|e| e.data.clone().unwrap()).collect();
        assert_eq!(data, [json!(1), json!(2)]);
        for n in 0..KEPT {
            hub.publish(Topic::Config, None, json!(n));
        }
        let late = join(&hub, Some(&hub.id(&seen)));
        assert!(late.gap && late.missed.len() == KEPT);
        for foreign in ["00000000-1", "x", "", &format!("{}-99999", hub.boot)] {
            let joined = join(&hub, Some(foreign));
            assert!(joined.gap && joined.missed.is_empty(), "{foreign}");
        }
    }

    #[test]
    fn load_is_not_kept_and_takes_no_room_of_what_is() {
        let hub = Arc::new(Hub::new());
        hub.publish(Topic::Config, None, json!("first"));
        let mut first = join(&hub, None);
        hub.publish(Topic::Config, None, json!("second"));
        let seen = first.receiver.try_recv().unwrap();
        (0..2 * KEPT).for_each(|n| hub.publish(Topic::Traffic, None, json!(n)));
        hub.publish(Topic::Config, None, json!("third"));
        let again = join(&hub, Some(&hub.id(&seen)));
        assert_eq!((again.gap, again.missed.len()), (false, 1));
    }

    #[test]
    fn what_is_wanted_is_what_somebody_listens_to() {
        let hub = Arc::new(Hub::new());
        assert!(hub.wanted(Topic::Audit).is_nobody());
        let (a, b) = (TenantId::new("a"), TenantId::new("b"));
        let one = hub.join(&[Topic::Audit], Some(&a), None);
        let wanted = hub.wanted(Topic::Audit);
        assert!(wanted.includes(&a) && !wanted.includes(&b));
        assert!(hub.wanted(Topic::Config).is_nobody());
        let all = hub.join(&[Topic::Audit, Topic::Config], None, None);
        assert_eq!(hub.wanted(Topic::Audit), Wanted::All);
        drop(all);
        assert!(!hub.wanted(Topic::Audit).includes(&b));
        drop(one);
        assert!(hub.wanted(Topic::Audit).is_nobody());
    }

    #[test]
    fn what_was_not_looked_for_is_a_gap_for_those_whom_it_concerns() {
        let hub = Arc::new(Hub::new());
        let (a, b) = (TenantId::new("a"), TenantId::new("b"));
        let mut own = hub.join(&[Topic::Audit], Some(&a), None);
        hub.publish(Topic::Audit, Some(a.clone()), json!(1));
        let seen = hub.id(&own.receiver.try_recv().unwrap());
        hub.lose(Topic::Audit, Some(b.clone()));
        assert!(own.receiver.try_recv().is_err(), "another tenant's");
        assert!(!hub.join(&[Topic::Audit], Some(&a), Some(&seen)).gap);
        assert!(hub.join(&[Topic::Audit], Some(&b), Some(&seen)).gap);
        assert!(hub.join(&[Topic::Audit], None, Some(&seen)).gap);
        assert!(!hub.join(&[Topic::Config], None, Some(&seen)).gap);
        hub.lose(Topic::Audit, None);
        assert_eq!(own.receiver.try_recv().unwrap().data, None, "told at once");
        assert!(hub.join(&[Topic::Audit], Some(&a), Some(&seen)).gap);
    }
}
