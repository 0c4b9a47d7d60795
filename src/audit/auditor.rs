//! What the two planes hold to record events.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::event::{Event, MAX_BODY};
use super::segment::Position;
use super::settings::{Durability, Full, OnFull};
use super::spool::{Credit, Spool};

/// How long a request may wait for a segment that is being made.
const PATIENCE: Duration = Duration::from_millis(500);

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
}

/// What has become of events since the start.
#[derive(Debug, Default)]
pub struct Counts {
    recorded: AtomicU64,
    bodies_lost: AtomicU64,
    dropped: AtomicU64,
    refused: AtomicU64,
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
    /// Records into `spool`; of each body `max_body` bytes at most.
    pub fn new(spool: Spool, mask: Mask, max_body: usize) -> Self {
        let max_body = max_body.min(MAX_BODY);
        Self(Some(Arc::new(Inner { spool, counts: Counts::default(), mask, max_body })))
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
        let done = BUFFER.with_borrow_mut(|buffer| {
            buffer.clear();
            if inner.mask == Mask::default() {
                event.encode(buffer);
            } else {
                inner.mask.apply(event).encode(buffer);
            }
            inner.spool.append(buffer, credit)
        });
        match done {
            Ok(position) => {
                inner.counts.recorded.fetch_add(1, Ordering::Relaxed);
                Ok(Receipt(Some((inner.clone(), position))))
            }
            Err(_) if inner.spool.on_full() == OnFull::Drop => {
                inner.counts.dropped.fetch_add(1, Ordering::Relaxed);
                Ok(Receipt(None))
            }
            Err(full) => Err(full),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Class, Position, Settings, WriterId};
    use super::*;

    #[test]
    fn masked_fields_never_reach_the_spool() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            dir: dir.path().to_owned(),
            max_size: 4 << 20,
            segment_size: 1 << 20,
            durability: Durability::Process,
            on_full: OnFull::Refuse,
        };
        let spool = Spool::open(settings, WriterId::fresh(), 0).unwrap();
        let mask = Mask {
            client_ip: true,
            reason: true,
            name: true,
            principal: true,
            session: true,
            target: true,
            request_body: true,
            response_body: true,
        };
        let auditor = Auditor::new(spool.clone(), mask, MAX_BODY);
        assert_eq!(auditor.most_of_bodies(), (0, 0));
        let event = Event {
            principal: Some("ann@example.com"),
            name: Some("secret_tool"),
            reason: Some("because"),
            target: Some("10.0.0.7"),
            session: Some(77),
            request_body: Some(b"ann's secret"),
            response_body: Some(b"ann's secret"),
            request_cut: Some(5),
            route: Some("weather"),
            client_ip: Some("203.0.113.77".parse().unwrap()),
            ..Event::new(1, "acme", Class::Data)
        };
        drop(auditor.record(&event, None).unwrap());
        let mut seen = 0;
        spool.read(Position::default(), 10, |_, _, record| {
            let event = Event::decode(record).unwrap();
            assert_eq!(
                (event.principal, event.name, event.reason, event.target),
                (Some(MASKED), Some(MASKED), Some(MASKED), Some(MASKED))
            );
            assert_eq!((event.session, event.route), (None, Some("weather")));
            assert_eq!((event.request_body, event.response_body, event.request_cut), (None, None, None));
            assert_eq!(event.client_ip, Some("203.0.113.0".parse().unwrap()));
            assert!(!record.windows(3).any(|w| w == b"ann"));
            seen += 1;
        });
        assert_eq!(seen, 1);
        assert_eq!(network("2001:db8:1:2::3".parse().unwrap()), "2001:db8:1::".parse::<IpAddr>().unwrap());
    }
}
