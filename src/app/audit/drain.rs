//! Brings events from the spool into the store: in order, each exactly once, however long the store is away.
//!
//! The store remembers how far each writer's spool has been drained, in the transaction that wrote the events. After
//! any doubt (an error, a lost connection in mid-commit) the drainer asks the store where it is and goes on from there;
//! salts come from the spool, so that a batch made again is the same batch. Spools of earlier runs come first.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::link::{Chains, Linker};
use crate::audit::{self, Auditor, Chain, Event, Leftover, Most, Names, Position, Spool, WriterId};
use crate::store::{AuditBatch, Store, StoreError, Time};

/// Events of one transaction, and bytes of them in the spool: with bodies, each may have 128 KiB.
const BATCH: Most = Most { records: 1000, bytes: 4 << 20 };
/// How long the drainer waits for company before it writes less than a batch.
const PAUSE: Duration = Duration::from_millis(250);
/// Between attempts while the store is away: doubled each time up to the second one.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// How often the folder is looked through for spools whose writers have gone meanwhile.
const LOOK_AROUND: Duration = Duration::from_secs(2);
/// How long the last events may take when the process ends; what is left then is drained by the next run.
const LAST: Duration = Duration::from_millis(800);
const DAY_US: u64 = 86_400_000_000;

/// The task.
pub(super) struct Drainer {
    pub(super) store: Store,
    pub(super) auditor: Auditor,
    pub(super) dir: PathBuf,
    pub(super) drained: Arc<AtomicU64>,
}

/// Where records come from.
enum Source<'a> {
    Live(&'a Spool),
    Left(&'a Leftover),
}

impl Source<'_> {
    fn writer(&self) -> WriterId {
        match self {
            Source::Live(spool) => spool.writer(),
            Source::Left(left) => left.writer(),
        }
    }

    fn read(&self, from: Position, mut each: impl FnMut([u8; 16], &[u8])) -> Position {
        match self {
            Source::Live(spool) => spool.read(from, BATCH, |_, salt, record| each(salt, record)),
            Source::Left(left) => {
                let mut torn = 0;
                let (to, _) = left.read(from, BATCH, &mut torn, |_, salt, record| each(salt, record));
                if torn > 0 {
                    // Never acknowledged: the process died while writing them.
                    tracing::info!(event = "audit_torn_records", writer = %left.writer(), torn);
                }
                to
            }
        }
    }
}

/// What has been written at once.
#[derive(Clone, Copy, Debug, Default)]
struct Batch {
    events: usize,
    /// There may be more.
    whole: bool,
}

/// Where a writer's draining is.
struct Cursor {
    at: Position,
    chains: Chains,
    names: Names,
    /// Days whose partitions are there.
    days: BTreeSet<u64>,
}

impl Drainer {
    /// Runs until `stop`, and then once more for what is there.
    pub(super) async fn run(self, stop: CancellationToken) {
        let Some(spool) = self.auditor.spool().cloned() else { return };
        let mut wait = RETRY.0;
        while let Err(error) = self.store.prepare().await {
            if stop.is_cancelled() {
                return;
            }
            complain(&error, wait);
            self.pause(&mut wait, &stop).await;
        }
        let mut next_look = tokio::time::Instant::now();
        let mut cursor = None;
        let live = Source::Live(&spool);
        loop {
            if tokio::time::Instant::now() >= next_look && !stop.is_cancelled() {
                if !self.leftovers(&spool, &stop).await {
                    // The store is away: nothing later may overtake what earlier runs left.
                    self.pause(&mut wait, &stop).await;
                    continue;
                }
                next_look = tokio::time::Instant::now() + LOOK_AROUND;
            }
            let last = stop.is_cancelled();
            let step = self.step(&live, &mut cursor);
            let done = if last {
                tokio::time::timeout(LAST, step).await.unwrap_or(Ok(Batch::default()))
            } else {
                tokio::select! {
                    done = step => done,
                    // Dropped in mid-transaction: undone, or done and found out by the cursor.
                    () = stop.cancelled() => { cursor = None; continue }
                }
            };
            match done {
                Ok(Batch { events, whole }) => {
                    wait = RETRY.0;
                    self.drained.fetch_add(events as u64, Ordering::Relaxed);
                    if let Some(cursor) = &cursor {
                        spool.release(cursor.at);
                    }
                    if last && events == 0 {
                        return;
                    }
                    if !whole && !last {
                        tokio::select! {
                            () = tokio::time::sleep(PAUSE) => {}
                            () = stop.cancelled() => {}
                        }
                    }
                }
                Err(error) => {
                    cursor = None;
                    if last {
                        return;
                    }
                    complain(&error, wait);
                    self.pause(&mut wait, &stop).await;
                }
            }
        }
    }

    async fn pause(&self, wait: &mut Duration, stop: &CancellationToken) {
        tokio::select! {
            () = tokio::time::sleep(*wait) => {}
            () = stop.cancelled() => {}
        }
        *wait = (*wait * 2).min(RETRY.1);
    }

    /// Drains what earlier runs left. `false` if the store is away.
    async fn leftovers(&self, spool: &Spool, stop: &CancellationToken) -> bool {
        let dir = self.dir.clone();
        let own = spool.writer();
        let found = tokio::task::spawn_blocking(move || audit::leftovers(&dir, Some(own))).await;
        let found = match found {
            Ok(Ok((found, _))) => found,
            Ok(Err(error)) => {
                tracing::error!(event = "audit_spool_unreadable", %error);
                return true;
            }
            Err(_) => return true,
        };
        for left in found {
            let mut cursor = None;
            let mut events = 0;
            loop {
                match self.step(&Source::Left(&left), &mut cursor).await {
                    Ok(Batch { events: 0, .. }) => break,
                    Ok(batch) => events += batch.events,
                    Err(error) => {
                        complain(&error, RETRY.0);
                        return false;
                    }
                }
                if stop.is_cancelled() {
                    return false;
                }
            }
            if events > 0 {
                tracing::info!(event = "audit_recovered", writer = %left.writer(), events);
            }
            spool.released_elsewhere(left.remove());
        }
        true
    }

    /// Writes one batch.
    async fn step(&self, source: &Source<'_>, cursor: &mut Option<Cursor>) -> Result<Batch, StoreError> {
        let writer = source.writer();
        let now = match cursor {
            Some(cursor) => cursor,
            None => cursor.insert(self.load(writer).await?),
        };
        let mut linker = Linker::new(writer, &now.chains, &mut now.names);
        let mut events = Vec::with_capacity(BATCH.records);
        let (mut unreadable, mut left) = (0, BATCH);
        let to = source.read(now.at, |salt, record| {
            left = left.after(record);
            match Event::decode(record) {
                Ok(event) => events.push(linker.link(&event, salt)),
                Err(error) => {
                    tracing::error!(event = "audit_record_unreadable", %writer, %error);
                    unreadable += 1;
                }
            }
        });
        if events.is_empty() && unreadable == 0 {
            return Ok(Batch::default());
        }
        let linked = linker.finish();
        let count = events.len() + unreadable;
        for day in events.iter().map(|e| day_of(e.time)).collect::<BTreeSet<_>>() {
            if !now.days.contains(&day) {
                self.store.platform().audit_day(Time::from_micros((day * DAY_US) as i64)).await?;
                now.days.insert(day);
            }
        }
        let batch = AuditBatch {
            writer,
            from: now.at,
            to,
            events,
            chains: linked.chains,
            usage: linked.usage,
            metrics: linked.metrics,
        };
        self.store.platform().audit_write(&batch).await?;
        now.at = to;
        now.chains.extend(linked.moved);
        Ok(Batch { events: count, whole: left.records == 0 })
    }

    async fn load(&self, writer: WriterId) -> Result<Cursor, StoreError> {
        let platform = self.store.platform();
        let at = platform.audit_cursor(writer).await?;
        let chains = platform.audit_writer_chains(writer).await?;
        let chains = chains
            .into_iter()
            .map(|c| ((c.id.tenant.as_str().into(), c.id.class), Chain::at(&c.id, c.head)))
            .collect();
        Ok(Cursor { at, chains, names: Names::default(), days: BTreeSet::new() })
    }
}

fn day_of(time: Time) -> u64 {
    u64::try_from(time.micros()).unwrap_or(0) / DAY_US
}

fn complain(error: &StoreError, wait: Duration) {
    tracing::warn!(event = "audit_not_drained", %error, retry_ms = wait.as_millis());
}
