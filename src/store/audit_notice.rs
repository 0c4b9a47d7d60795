//! Tells whoever follows the audit which events were written, so that they are read by their numbers and not searched for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::audit::{AuditBatch, class_of, number};
use crate::audit::{ChainId, WriterId};

/// Longest payload: PostgreSQL takes less than 8,000 bytes.
const MAX_PAYLOAD: usize = 7_000;

/// Events of one writer that were written in one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditNotice(pub Vec<AuditRange>);

/// Events of one chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRange {
    /// Which chain.
    pub chain: ChainId,
    /// Those after this one …
    pub after: u64,
    /// … up to this one.
    pub to: u64,
}

/// As it is sent: short names, for many chains are to find room.
#[derive(Serialize, Deserialize)]
struct Payload {
    w: String,
    c: Vec<(String, i16, u64, u64)>,
}

impl AuditNotice {
    /// The payloads for a batch.
    pub(super) fn of(batch: &AuditBatch) -> Vec<String> {
        let mut ranges: BTreeMap<(&str, i16), (u64, u64)> = BTreeMap::new();
        for event in &batch.events {
            let before = event.sequence.saturating_sub(1);
            let range = ranges.entry((&*event.keys.tenant, number(event.class))).or_insert((before, before));
            range.1 = event.sequence;
        }
        let writer = batch.writer.to_string();
        let (mut payloads, mut some, mut size) = (Vec::new(), Vec::new(), 0);
        let text = |c| serde_json::to_string(&Payload { w: writer.clone(), c }).unwrap_or_default();
        for ((tenant, class), (after, to)) in ranges {
            // The name twice, should it be all quotation marks; numbers and punctuation.
            let own = 2 * tenant.len() + 60;
            if size + own > MAX_PAYLOAD && !some.is_empty() {
                payloads.push(text(std::mem::take(&mut some)));
                size = 0;
            }
            size += own;
            some.push((tenant.to_owned(), class, after, to));
        }
        if !some.is_empty() {
            payloads.push(text(some));
        }
        payloads
    }

    /// What a payload says; `None` if another version wrote it.
    pub fn parse(payload: &str) -> Option<Self> {
        let payload: Payload = serde_json::from_str(payload).ok()?;
        let writer: WriterId = payload.w.parse().ok()?;
        let range = |(tenant, class, after, to)| AuditRange {
            chain: ChainId { tenant, writer, class: class_of(class) },
            after,
            to,
        };
        Some(Self(payload.c.into_iter().map(range).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Class, Keys, Position};
    use crate::store::{NewEvent, Time};

    fn event(tenant: &str, sequence: u64) -> NewEvent {
        NewEvent {
            class: Class::Data,
            sequence,
            time: Time::from_micros(1),
            commitment: [0; 32],
            link: [0; 32],
            salt: [0; 16],
            payload: "{}".into(),
            keys: Keys { tenant: tenant.into(), ..Keys::default() },
        }
    }

    #[test]
    fn many_chains_are_several_notices_and_none_is_too_long() {
        let writer = WriterId::fresh();
        let name = |n: usize| format!("tenant-{n:03}-{}", "\"".repeat(40));
        let batch = AuditBatch {
            writer,
            from: Position::default(),
            to: Position::default(),
            events: (0..500).flat_map(|n| [event(&name(n), 7), event(&name(n), 8)]).collect(),
            chains: Vec::new(),
            usage: Vec::new(),
            metrics: Vec::new(),
        };
        let payloads = AuditNotice::of(&batch);
        assert!(payloads.len() > 1 && payloads.iter().all(|p| p.len() < 8_000));
        let ranges: Vec<AuditRange> =
            payloads.iter().flat_map(|p| AuditNotice::parse(p).unwrap().0).collect();
        assert_eq!(ranges.len(), 500);
        let chain = ChainId { tenant: name(499), writer, class: Class::Data };
        assert_eq!(ranges[499], AuditRange { chain, after: 6, to: 8 });
        assert_eq!(AuditNotice::parse("{}"), None);
    }
}
