//! What the two planes hold to record events.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::event::{Event, MAX_BODY};
use super::segment::Position;
use super::settings::{Durability, Full, OnFull};
use super::spool::{Credit, Spool};
use super::unidentified::{Allowance, Unidentified, Untold};
use crate::base::Clock;

/// How long a request may wait for a segment that is being made.
const PATIENCE: Duration = Duration::from_millis(500);
/// Room that is kept for the last counts of requests without events of their own, in bytes, and how many they are at most:
/// each is below 1.4 KiB.
const RESERVE: u64 = 128 * 1024;
const LAST: usize = 64;

/// Fields that are masked before an event is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mask {
    /// The caller's address: its network stays, 24 bits of IPv4 and 48 of IPv6.
    pub client_ip: bool,
    /// Reasons and what went wrong.
    pub reason: bool,
    /// Tools, prompts and resources.
    pub name: bool,
    /// The caller's id.
    pub principal: bool,
    /// The hash of the session id.
    pub session: bool,
    /// The target's address.
    pub target: bool,
    /// Bodies of requests.
    pub request_body: bool,
    /// Bodies of responses.
    pub response_body: bool,
}

/// What stands in place of a masked text.
pub const MASKED: &str = "[masked]";

impl Mask {
    fn apply<'a>(&self, event: &Event<'a>) -> Event<'a> {
        let mut event = *event;
        let hide = |on: bool, field: &mut Option<&'a str>| {
            if on && field.is_some() {
                *field = Some(MASKED);
            }
        };
        hide(self.reason, &mut event.reason);
        hide(self.name, &mut event.name);
        hide(self.principal, &mut event.principal);
        hide(self.target, &mut event.target);
        if self.session {
            event.session = None;
        }
        if self.request_body {
            (event.request_body, event.request_cut) = (None, None);
        }
        if self.response_body {
            (event.response_body, event.response_cut) = (None, None);
        }
        if self.client_ip {
            event.client_ip = event.client_ip.map(network);
        }
        event
    }
}

/// An address without what tells one person from another.
fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() & !0xff).into(),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => network(ip.into()),
            None => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 80)).into(),
        },
    }
}

/// Records events. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Auditor(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    spool: Spool,
    counts: Counts,
    mask: Mask,
    max_body: usize,
    unidentified: Unidentified,
    reserve: Mutex<Option<Credit>>,
}

/// What has become of events since the start.
#[derive(Debug, Default)]
pub struct Counts {
    recorded: AtomicU64,
    bodies_lost: AtomicU64,
    dropped: AtomicU64,
    refused: AtomicU64,
    summarised: AtomicU64,
}

impl Counts {
    /// Events in the spool.
    pub fn recorded(&self) -> u64 {
        self.recorded.load(Ordering::Relaxed)
    }

    /// Events whose bodies were lost because there was no room.
    pub fn bodies_lost(&self) -> u64 {
        self.bodies_lost.load(Ordering::Relaxed)
    }

    /// Events lost because there was no room.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Requests refused because there was no room.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Requests of nobody known that have no events of their own: others tell how many they were.
    pub fn summarised(&self) -> u64 {
        self.summarised.load(Ordering::Relaxed)
    }
}

/// An event has been recorded.
#[derive(Debug)]
#[must_use = "with strict durability the response has to wait for it"]
pub struct Receipt(Option<(Arc<Inner>, Position)>);

impl Receipt {
    /// Waits until the event is as durable as the configuration asks. Comes back at once unless it is `strict`.
    ///
    /// # Errors
    /// The disk failed.
    pub async fn durable(self) -> Result<(), Full> {
        match self.0 {
            Some((inner, position)) if inner.spool.durability() == Durability::Strict => {
                // Boxed: the future of every request would have the room for it.
                Box::pin(async move { inner.spool.durable(position).await }).await
            }
            _ => Ok(()),
        }
    }
}

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Auditor {
    /// Records into `spool`; of each body `max_body` bytes at most, and of requests that end before it is known who asks
    /// what is allowed one by one.
    pub fn new(spool: Spool, mask: Mask, max_body: usize, allowance: Allowance, clock: Clock) -> Self {
        Self(Some(Arc::new(Inner {
            // A spool that has just been opened has room for it.
            reserve: Mutex::new(spool.reserve(RESERVE).ok()),
            spool,
            counts: Counts::default(),
            mask,
            max_body: max_body.min(MAX_BODY),
            unidentified: Unidentified::new(allowance, clock),
        })))
    }

    /// Records nothing.
    pub fn disabled() -> Self {
        Self(None)
    }

    /// Whether events are recorded at all.
    pub fn is_enabled(&self) -> bool {
        self.0.is_some()
    }

    /// Whether an event would find room now, or may be lost.
    pub fn has_room(&self) -> bool {
        self.0
            .as_ref()
            .is_none_or(|inner| inner.spool.on_full() == OnFull::Drop || inner.spool.admit().is_ok())
    }

    /// The spool.
    pub fn spool(&self) -> Option<&Spool> {
        self.0.as_ref().map(|inner| &inner.spool)
    }

    /// What has become of events.
    pub fn counts(&self) -> Option<&Counts> {
        self.0.as_ref().map(|inner| &inner.counts)
    }

    /// Promises room for the event of a request that is about to be worked on. `None`: none is needed, or events may be lost.
    ///
    /// # Errors
    /// There is no room, and requests are to be refused then.
    pub async fn admit(&self) -> Result<Option<Credit>, Full> {
        let Some(inner) = &self.0 else { return Ok(None) };
        match inner.spool.admit() {
            Ok(credit) => Ok(Some(credit)),
            Err(_) if inner.spool.on_full() == OnFull::Drop => Ok(None),
            // Boxed: rare, and the future of every request would have the room for it.
            Err(_) => match Box::pin(inner.spool.admit_soon(PATIENCE)).await {
                Ok(credit) => Ok(Some(credit)),
                Err(full) => {
                    inner.counts.refused.fetch_add(1, Ordering::Relaxed);
                    Err(full)
                }
            },
        }
    }

    /// Most bytes that are recorded of a request's body and of a response's, whatever a policy says.
    pub fn most_of_bodies(&self) -> (usize, usize) {
        let Some(inner) = &self.0 else { return (0, 0) };
        let most = |masked: bool| if masked { 0 } else { inner.max_body };
        (most(inner.mask.request_body), most(inner.mask.response_body))
    }

    /// Promises room for so many bytes of bodies as well, if there is some now. If not, they are lost.
    pub fn try_admit_bodies(&self, credit: &mut Option<Credit>, bytes: usize) -> bool {
        let Some(inner) = &self.0 else { return false };
        let done = inner.spool.extend(credit, bytes).is_ok();
        if !done {
            inner.counts.bodies_lost.fetch_add(1, Ordering::Relaxed);
        }
        done
    }

    /// The same for a request that is to be refused without, unless events may be lost: waits a moment for the room.
    ///
    /// # Errors
    /// There is none, and requests are to be refused then.
    pub async fn admit_bodies(&self, credit: &mut Option<Credit>, bytes: usize) -> Result<bool, Full> {
        let Some(inner) = &self.0 else { return Ok(false) };
        if inner.spool.on_full() == OnFull::Drop {
            return Ok(self.try_admit_bodies(credit, bytes));
        }
        if inner.spool.extend(credit, bytes).is_ok() {
            return Ok(true);
        }
        // Boxed: rare, and the future of every request would have the room for it.
        let waited = Box::pin(inner.spool.extend_soon(credit, bytes, PATIENCE)).await;
        if waited.is_err() {
            inner.counts.refused.fetch_add(1, Ordering::Relaxed);
        }
        waited.map(|()| true)
    }

    /// Records an event. Never waits: a copy into memory that outlives the process.
    ///
    /// # Errors
    /// There was no credit and there is no room; where events may be lost, it is lost and counted instead.
    pub fn record(&self, event: &Event<'_>, credit: Option<Credit>) -> Result<Receipt, Full> {
        let Some(inner) = &self.0 else { return Ok(Receipt(None)) };
        match inner.append(event, credit) {
            Ok(position) => Ok(Receipt(Some((inner.clone(), position)))),
            Err(_) if inner.spool.on_full() == OnFull::Drop => {
                inner.counts.dropped.fetch_add(1, Ordering::Relaxed);
                Ok(Receipt(None))
            }
            Err(full) => Err(full),
        }
    }

    /// Records the end of a request before it was known who asks, or only counts it: beyond what is allowed, or while the
    /// spool has little room. `cause` is one of few words.
    pub fn record_unidentified(&self, event: &Event<'_>, cause: &str) -> Receipt {
        let Some(inner) = &self.0 else { return Receipt(None) };
        if !inner.spool.is_crowded()
            && inner.unidentified.take()
            && let Ok(position) = inner.append(event, None)
        {
            return Receipt(Some((inner.clone(), position)));
        }
        inner.unidentified.count(event, cause);
        inner.counts.summarised.fetch_add(1, Ordering::Relaxed);
        Receipt(None)
    }

    /// Records how many requests were only counted, in up to `most` events. What finds no room is told later.
    pub fn tell_unidentified(&self, most: usize) {
        if let Some(inner) = &self.0 {
            let left = inner.tell(inner.unidentified.untold(most));
            left.into_iter().for_each(|untold| inner.unidentified.put(untold));
        }
    }

    /// The same when nothing is recorded after it: also with a spool that is full nothing stays untold. If they are too many for the
    /// room that was kept for this, the rest is told without tenants and routes.
    pub fn tell_last_unidentified(&self) {
        let Some(inner) = &self.0 else { return };
        let mut left = inner.tell(inner.unidentified.untold(usize::MAX));
        if left.is_empty() {
            return;
        }
        drop(inner.reserve.lock().take());
        left.sort_by_key(|untold| std::cmp::Reverse(untold.requests()));
        let rest = left.split_off(left.len().min(LAST));
        left.extend(Untold::crowded(rest));
        let lost: u64 = inner.tell(left).iter().map(Untold::requests).sum();
        if lost > 0 {
            tracing::error!(event = "audit_unidentified_not_recorded", requests = lost);
        }
    }
}

impl Inner {
    fn append(&self, event: &Event<'_>, credit: Option<Credit>) -> Result<Position, Full> {
        let position = BUFFER.with_borrow_mut(|buffer| {
            buffer.clear();
            if self.mask == Mask::default() {
                event.encode(buffer);
            } else {
                self.mask.apply(event).encode(buffer);
            }
            self.spool.append(buffer, credit)
        })?;
        self.counts.recorded.fetch_add(1, Ordering::Relaxed);
        Ok(position)
    }

    /// Records these counts; returns those for which there is no room.
    fn tell(&self, all: Vec<Untold>) -> Vec<Untold> {
        let mut all = all.into_iter();
        while let Some(untold) = all.next() {
            if self.append(&untold.event(), None).is_err() {
                return std::iter::once(untold).chain(all).collect();
            }
        }
        Vec::new()
    }
}

#[cfg(test)]
#[path = "auditor_tests.rs"]
mod tests;
