//! What the two planes hold to record events.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::event::Event;
use super::segment::Position;
use super::spool::{Credit, Full, OnFull, Spool};

/// How long a request may wait for a segment that is being made.
const PATIENCE: Duration = Duration::from_millis(500);

/// Records events. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Auditor(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    spool: Spool,
    counts: Counts,
}

/// What has become of events since the start.
#[derive(Debug, Default)]
pub struct Counts {
    recorded: AtomicU64,
    dropped: AtomicU64,
    refused: AtomicU64,
}

impl Counts {
    /// Events in the spool.
    pub fn recorded(&self) -> u64 {
        self.recorded.load(Ordering::Relaxed)
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
            None => Ok(()),
            Some((inner, position)) => inner.spool.durable(position).await,
        }
    }
}

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Auditor {
    /// Records into `spool`.
    pub fn new(spool: Spool) -> Self {
        Self(Some(Arc::new(Inner { spool, counts: Counts::default() })))
    }

    /// Records nothing.
    pub fn disabled() -> Self {
        Self(None)
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
            Err(_) => match inner.spool.admit_soon(PATIENCE).await {
                Ok(credit) => Ok(Some(credit)),
                Err(full) => {
                    inner.counts.refused.fetch_add(1, Ordering::Relaxed);
                    Err(full)
                }
            },
        }
    }

    /// Records an event. Never waits: a copy into memory that outlives the process.
    ///
    /// # Errors
    /// There was no credit and there is no room; where events may be lost, it is lost and counted instead.
    pub fn record(&self, event: &Event<'_>, credit: Option<Credit>) -> Result<Receipt, Full> {
        let Some(inner) = &self.0 else { return Ok(Receipt(None)) };
        let done = BUFFER.with_borrow_mut(|buffer| {
            buffer.clear();
            event.encode(buffer);
            inner.spool.append(buffer, credit)
        });
        match done {
            Ok(position) => {
                inner.counts.recorded.fetch_add(1, Ordering::Relaxed);
                Ok(Receipt(Some((inner.clone(), position))))
            }
            Err(full) => {
                inner.counts.dropped.fetch_add(1, Ordering::Relaxed);
                if inner.spool.on_full() == OnFull::Drop { Ok(Receipt(None)) } else { Err(full) }
            }
        }
    }
}
