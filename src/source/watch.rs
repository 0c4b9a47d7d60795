//! Tells when any of a set of files may have changed.
//!
//! Editors replace files by rename, and Kubernetes swaps a symbolic link in the folder above; so folders are watched,
//! never the files themselves: the folder of each path as it was given, and that of the file behind its links. Bursts
//! are gathered for [`DEBOUNCE`]. Where the kernel offers no notification (some network file systems) a poll of sizes
//! and times every [`POLL`] finds the change, too. What changed, and whether it matters, is for the reader to find out:
//! a wake-up too many costs one comparison of hashes.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

/// How long the files must be quiet before a change is reported.
pub const DEBOUNCE: Duration = Duration::from_millis(200);
/// Longest wait for quiet.
const DEBOUNCE_LIMIT: Duration = Duration::from_secs(2);
/// How often sizes and times are compared.
const POLL: Duration = Duration::from_secs(5);
/// File systems stamp with a coarser clock than the one we read.
const CLOCK_GRAIN: Duration = Duration::from_millis(50);
/// Notifications waiting to be looked at; more are the same as one.
const QUEUE: usize = 16;

/// Watches files from one task.
pub struct FileWatch {
    watcher: Option<RecommendedWatcher>,
    wakes: mpsc::Receiver<()>,
    folders: BTreeSet<PathBuf>,
    /// The files, and how each was when its change was last reported; `None` = a change is to be reported.
    seen: BTreeMap<PathBuf, Option<Stamp>>,
    poll: tokio::time::Interval,
}

type Stamp = Option<(PathBuf, u64, Option<SystemTime>)>;

impl FileWatch {
    /// Begins to watch. Files need not exist yet. The caller read them after `read_since`: one that changed later than
    /// that may not be the one that was read, and is reported.
    pub fn new(files: impl IntoIterator<Item = PathBuf>, read_since: SystemTime) -> Self {
        let (wake, wakes) = mpsc::channel(QUEUE);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.as_ref().is_ok_and(|e| e.kind.is_access()) {
                return;
            }
            // A full queue already holds a wake-up.
            let _ = wake.try_send(());
        });
        let watcher = match watcher {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::warn!(event = "file_watch_unavailable", %error, poll_seconds = POLL.as_secs());
                None
            }
        };
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut this = Self { watcher, wakes, folders: BTreeSet::new(), seen: BTreeMap::new(), poll };
        this.set_files(files, read_since);
        this
    }

    /// Watches these files from now on. What was reported about those that were watched before still counts: a change
    /// while the caller read them is reported next. For the others see [`FileWatch::new`].
    pub fn set_files(&mut self, files: impl IntoIterator<Item = PathBuf>, read_since: SystemTime) {
        let mut known = std::mem::take(&mut self.seen);
        let unread = |file: &Path| (!changed_since(file, read_since)).then(|| stamp(file));
        self.seen = files
            .into_iter()
            .map(|file| {
                let seen = known.remove(&file).unwrap_or_else(|| unread(&file));
                (file, seen)
            })
            .collect();
        let folders: BTreeSet<PathBuf> = self.seen.keys().flat_map(|f| folders_of(f)).collect();
        if let Some(watcher) = &mut self.watcher {
            for gone in self.folders.difference(&folders) {
                let _ = watcher.unwatch(gone);
            }
            for new in folders.difference(&self.folders) {
                if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
                    tracing::warn!(event = "file_watch_failed", folder = %new.display(), %error);
                }
            }
        }
        self.folders = folders;
    }

    /// Waits until something may have changed and has been quiet since. May be dropped while pending.
    pub async fn changed(&mut self) {
        loop {
            tokio::select! {
                wake = self.wakes.recv() => {
                    if wake.is_none() {
                        self.poll.tick().await;
                    }
                    self.settle().await;
                }
                _ = self.poll.tick() => {}
            }
            let now = self.stamps();
            if now != self.seen {
                self.seen = now;
                return;
            }
        }
    }

    async fn settle(&mut self) {
        let limit = Instant::now() + DEBOUNCE_LIMIT;
        while let Ok(Some(())) = timeout_at((Instant::now() + DEBOUNCE).min(limit), self.wakes.recv()).await {
            if Instant::now() >= limit {
                break;
            }
        }
    }

    fn stamps(&self) -> BTreeMap<PathBuf, Option<Stamp>> {
        self.seen.keys().map(|f| (f.clone(), Some(stamp(f)))).collect()
    }
}

/// The real file, its size and its time: a swapped link shows in the first.
fn stamp(file: &Path) -> Stamp {
    let real = std::fs::canonicalize(file).ok()?;
    let meta = std::fs::metadata(&real).ok()?;
    Some((real, meta.len(), meta.modified().ok()))
}

/// Whether the file, or the link by which it is named, was made, written or put there after `since`.
fn changed_since(file: &Path, since: SystemTime) -> bool {
    let since = since.checked_sub(CLOCK_GRAIN).and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok());
    let changed = |meta: std::io::Result<std::fs::Metadata>| {
        let meta = meta.ok()?;
        Some(Duration::new(u64::try_from(meta.ctime()).ok()?, u32::try_from(meta.ctime_nsec()).ok()?))
    };
    let last = changed(std::fs::metadata(file)).max(changed(std::fs::symlink_metadata(file)));
    last.is_some_and(|last| Some(last) >= since)
}

fn folders_of(file: &Path) -> Vec<PathBuf> {
    let folder = |path: &Path| match path.parent() {
        Some(p) if p.as_os_str().is_empty() => Some(PathBuf::from(".")),
        Some(p) => Some(p.to_owned()),
        None => None,
    };
    let real = std::fs::canonicalize(file).ok().and_then(|real| folder(&real));
    folder(file).into_iter().chain(real).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn fires(watch: &mut FileWatch) -> bool {
        tokio::time::timeout(Duration::from_secs(8), watch.changed()).await.is_ok()
    }

    /// Files that were read long after they were written.
    fn settled(files: impl IntoIterator<Item = PathBuf>) -> FileWatch {
        std::thread::sleep(2 * CLOCK_GRAIN);
        FileWatch::new(files, SystemTime::now())
    }

    #[tokio::test]
    async fn a_change_between_reading_and_watching_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.yaml");
        std::fs::write(&file, "a").unwrap();
        std::thread::sleep(2 * CLOCK_GRAIN);
        let read = SystemTime::now();
        std::fs::write(&file, "b").unwrap();
        let mut watch = FileWatch::new([file.clone()], read);
        assert!(fires(&mut watch).await);
        // And one while the caller reads what was just reported.
        let read = SystemTime::now();
        std::fs::write(&file, "cc").unwrap();
        watch.set_files([file], read);
        assert!(fires(&mut watch).await);
    }

    #[tokio::test]
    async fn a_rename_over_the_file_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tollgate.yaml");
        std::fs::write(&file, "a").unwrap();
        let mut watch = settled([file.clone()]);
        let new = dir.path().join(".tollgate.yaml.tmp");
        std::fs::write(&new, "bb").unwrap();
        std::fs::rename(&new, &file).unwrap();
        assert!(fires(&mut watch).await);
    }

    #[tokio::test]
    async fn a_symlink_swap_as_kubernetes_does_it_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        for (version, text) in [("..v1", "one"), ("..v2", "two")] {
            std::fs::create_dir(dir.path().join(version)).unwrap();
            std::fs::write(dir.path().join(version).join("c.yaml"), text).unwrap();
        }
        let data = dir.path().join("..data");
        std::os::unix::fs::symlink("..v1", &data).unwrap();
        let file = dir.path().join("c.yaml");
        std::os::unix::fs::symlink("..data/c.yaml", &file).unwrap();
        let mut watch = settled([file]);
        let swap = dir.path().join("..data_tmp");
        std::os::unix::fs::symlink("..v2", &swap).unwrap();
        std::fs::rename(&swap, &data).unwrap();
        assert!(fires(&mut watch).await);
    }

    #[tokio::test]
    async fn an_unrelated_file_beside_it_wakes_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.yaml");
        std::fs::write(&file, "a").unwrap();
        let mut watch = settled([file]);
        std::fs::write(dir.path().join("other"), "x").unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(600), watch.changed()).await.is_err());
    }
}
