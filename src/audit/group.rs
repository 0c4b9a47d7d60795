//! Waits for the disk together: one sync for all that have come since the last one began.

use std::io;

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use super::settings::Full;

/// Who waits for the disk.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    /// The last ticket given out.
    asked: u64,
    /// The first segment that somebody waits for.
    oldest: u64,
}

/// Tickets that have been served: up to which one.
#[derive(Clone, Copy, Debug, Default)]
struct Synced {
    done: u64,
    failed: u64,
}

/// Those who wait, and the one thread that syncs.
#[derive(Debug)]
pub(super) struct Group {
    wanted: Mutex<Wanted>,
    bell: Condvar,
    synced: watch::Sender<Synced>,
}

impl Group {
    pub(super) fn new() -> Self {
        Self {
            wanted: Mutex::new(Wanted { asked: 0, oldest: u64::MAX }),
            bell: Condvar::new(),
            synced: watch::Sender::new(Synced::default()),
        }
    }

    /// Waits until what has been written so far from `segment` on is on the disk.
    pub(super) async fn wait(&self, segment: u64) -> Result<(), Full> {
        let mut synced = self.synced.subscribe();
        let ticket = {
            let mut wanted = self.wanted.lock();
            wanted.asked += 1;
            wanted.oldest = wanted.oldest.min(segment);
            wanted.asked
        };
        self.bell.notify_one();
        let over = synced.wait_for(|s| s.done.max(s.failed) >= ticket).await.map_err(|_| Full)?;
        if over.failed >= ticket { Err(Full) } else { Ok(()) }
    }

    /// Has `sync` write everything from the segment on that it is given, whenever somebody waits, until `ended`.
    pub(super) fn run(&self, ended: impl Fn() -> bool, sync: impl Fn(u64) -> io::Result<()>) {
        let mut served = 0;
        loop {
            let wanted = {
                let mut wanted = self.wanted.lock();
                while wanted.asked == served && !ended() {
                    self.bell.wait(&mut wanted);
                }
                let now = *wanted;
                wanted.oldest = u64::MAX;
                now
            };
            if ended() {
                return;
            }
            served = wanted.asked;
            // Whoever has a ticket has committed its record before, so this covers it.
            match sync(wanted.oldest) {
                Ok(()) => self.synced.send_modify(|s| s.done = served),
                Err(error) => {
                    tracing::error!(event = "audit_sync_failed", %error);
                    // A later success says nothing about pages that this one lost.
                    self.synced.send_modify(|s| s.failed = served);
                }
            }
        }
    }

    /// Up to which ticket syncs were done, and up to which one they failed last.
    #[cfg(test)]
    pub(super) fn served(&self) -> (u64, u64) {
        let synced = self.synced.borrow();
        (synced.done, synced.failed)
    }

    /// Makes [`Group::run`] look whether it has ended.
    pub(super) fn wake(&self) {
        // Under the lock, or it could look just before and sleep just after.
        drop(self.wanted.lock());
        self.bell.notify_one();
    }
}
