//! Live events: what `/api/v1/events` streams.
//!
//! A [`Hub`] numbers events, keeps the last ones for readers that come back, and hands them to whoever listens. Publishing
//! never waits: a reader that is too slow is told that it missed something, and reads the rest of the API again. Numbers
//! belong to one process; a reader that comes back to another one is told so, too.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::broadcast;

use crate::base::TenantId;

/// Events kept for readers that come back, and the most that a reader may be behind.
const KEPT: usize = 1024;

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
    /// What happened.
    pub data: Value,
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
}

/// What a reader gets first, and where it goes on.
pub struct Joined {
    /// Events since the one that the reader saw last.
    pub missed: Vec<Arc<Event>>,
    /// Whether some are gone.
    pub gap: bool,
    /// What happens from now on.
    pub receiver: broadcast::Receiver<Arc<Event>>,
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
            inner: Mutex::new(Inner { next: 1, kept: VecDeque::with_capacity(KEPT) }),
            sender: broadcast::channel(KEPT).0,
        }
    }

    /// Publishes an event.
    pub fn publish(&self, topic: Topic, tenant: Option<TenantId>, data: Value) {
        let mut inner = self.inner.lock();
        let event = Arc::new(Event { number: inner.next, topic, tenant, data });
        inner.next += 1;
        if inner.kept.len() == KEPT {
            inner.kept.pop_front();
        }
        inner.kept.push_back(event.clone());
        // Under the lock, so that readers get them in order. Nobody listens: nobody to tell.
        let _ = self.sender.send(event);
    }

    /// The id of an event in the stream.
    pub fn id(&self, event: &Event) -> String {
        format!("{}-{}", self.boot, event.number)
    }

    /// Begins to listen, after the event with this id if there is one.
    pub fn join(&self, last: Option<&str>) -> Joined {
        let inner = self.inner.lock();
        let receiver = self.sender.subscribe();
        let Some(last) = last else { return Joined { missed: Vec::new(), gap: false, receiver } };
        let number = last
            .split_once('-')
            .filter(|(boot, _)| *boot == self.boot)
            .and_then(|(_, number)| number.parse::<u64>().ok())
            .filter(|number| *number < inner.next);
        let first = inner.kept.front().map_or(inner.next, |e| e.number);
        match number {
            Some(number) => Joined {
                missed: inner.kept.iter().filter(|e| e.number > number).cloned().collect(),
                gap: number + 1 < first,
                receiver,
            },
            None => Joined { missed: Vec::new(), gap: true, receiver },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_comes_back_gets_what_they_missed_or_learns_of_the_gap() {
        let hub = Hub::new();
        let mut first = hub.join(None);
        for n in 0..3 {
            hub.publish(Topic::Config, None, json!(n));
        }
        let seen = first.receiver.try_recv().unwrap();
        let again = hub.join(Some(&hub.id(&seen)));
        assert!(!again.gap);
        assert_eq!(again.missed.iter().map(|e| e.data.clone()).collect::<Vec<_>>(), [json!(1), json!(2)]);
        for n in 0..KEPT {
            hub.publish(Topic::Config, None, json!(n));
        }
        let late = hub.join(Some(&hub.id(&seen)));
        assert!(late.gap && late.missed.len() == KEPT);
        for foreign in ["00000000-1", "x", "", &format!("{}-99999", hub.boot)] {
            let joined = hub.join(Some(foreign));
            assert!(joined.gap && joined.missed.is_empty(), "{foreign}");
        }
    }
}
