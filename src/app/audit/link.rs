//! Makes rows of the store of records: renders them, links them into their chains and counts usage.

use std::collections::HashMap;
use std::sync::Arc;

use crate::audit::usage::{Cell, Counted, Key, Metric, MetricKey, Usage};
use crate::audit::{self, Chain, ChainId, Class, Event, Keys, Names, WriterId};
use crate::store::{MovedChain, NewEvent, Time};

/// Chains of one writer, by tenant and class.
pub(super) type Chains = HashMap<(Arc<str>, Class), Chain, ahash::RandomState>;

/// Links the events of one batch. Nothing of what it is given changes: a batch that fails is made again from the same.
pub(super) struct Linker<'a> {
    writer: WriterId,
    known: &'a Chains,
    names: &'a mut Names,
    moved: Chains,
    usage: Usage,
    /// Where payloads are rendered.
    text: String,
}

impl<'a> Linker<'a> {
    /// Goes on from where the chains are.
    pub(super) fn new(writer: WriterId, known: &'a Chains, names: &'a mut Names) -> Self {
        Self { writer, known, names, moved: Chains::default(), usage: Usage::default(), text: String::new() }
    }

    /// The next event.
    pub(super) fn link(&mut self, event: &Event<'_>, salt: [u8; 16]) -> NewEvent {
        self.text.clear();
        audit::render(event, &mut self.text);
        let keys = Keys::of(event, self.names);
        let (writer, known) = (self.writer, self.known);
        let chain = self.moved.entry((keys.tenant.clone(), event.class)).or_insert_with_key(|id| match known
            .get(id)
        {
            Some(chain) => chain.clone(),
            None => {
                let id = ChainId { tenant: id.0.to_string(), writer, class: id.1 };
                Chain::at(&id, id.genesis())
            }
        });
        let linked = chain.append(event.time_us, &salt, self.text.as_bytes());
        self.usage.count(linked.head.time_us, event, &keys);
        NewEvent {
            class: event.class,
            sequence: linked.head.sequence,
            time: Time::from_micros(i64::try_from(linked.head.time_us).unwrap_or(i64::MAX)),
            commitment: linked.commitment,
            link: linked.head.link,
            salt,
            payload: self.text.as_str().into(),
            keys,
        }
    }

    /// Chains that moved, in an order of their own, and what was counted.
    pub(super) fn finish(self) -> Linked {
        let moved = |(key, chain): (&(Arc<str>, Class), &Chain)| {
            let id = ChainId { tenant: key.0.to_string(), writer: self.writer, class: key.1 };
            let from = self.known.get(key).map_or_else(|| id.genesis(), Chain::head);
            MovedChain { id, from, to: chain.head() }
        };
        let mut chains: Vec<_> = self.moved.iter().map(moved).collect();
        chains.sort_by(|a, b| a.id.cmp(&b.id));
        let (usage, metrics) = self.usage.into_parts();
        Linked { moved: self.moved, chains, usage, metrics }
    }
}

/// What a batch comes to.
pub(super) struct Linked {
    /// Chains as they are after the batch.
    pub(super) moved: Chains,
    /// From where to where, in the order of their names: writers that lock rows in one order cannot deadlock.
    pub(super) chains: Vec<MovedChain>,
    /// Usage.
    pub(super) usage: Counted<Key, Cell>,
    /// Metrics.
    pub(super) metrics: Counted<MetricKey, Metric>,
}
