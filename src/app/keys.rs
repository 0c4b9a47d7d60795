//! The file with the keys that seal ids: made if missing, mode 0600, rotated by age.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::base::Clock;
use crate::mcp::seal::KeyRing;

/// How often the file is looked at.
const CHECK_EVERY: Duration = Duration::from_secs(60);
/// A new key seals this long after it was written, so that others that read the file have it by then.
const LEAD: u64 = 120;
/// Largest key file.
const MAX_FILE: u64 = 64 * 1024;

/// The key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// Reading or writing failed.
    #[error("cannot use the key file {path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read it.
    #[error(
        "the key file {path} may be read by others (mode {mode:o}): whoever has it can make session ids; chmod 600 it"
    )]
    Open {
        /// Which.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Its text is not a key file.
    #[error("the key file {path} is damaged: {reason}; restore it, or remove it and every open session ends")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// The keys in force, and where they are kept.
pub(super) struct Keys {
    path: PathBuf,
    pub(super) ring: Arc<ArcSwap<KeyRing>>,
}

impl Keys {
    /// Reads the file, or makes it.
    pub(super) fn open(path: PathBuf, clock: &Clock) -> Result<Self, KeyFileError> {
        let now = clock.unix_secs();
        let ring = match read(&path, now)? {
            Some(ring) => ring,
            None => {
                let ring = generate(&path, now)?;
                match write_new(&path, &ring) {
                    Ok(()) => ring,
                    // Another process was faster: its keys count.
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => match read(&path, now)? {
                        Some(ring) => ring,
                        None => return Err(KeyFileError::Io { path, source: e }),
                    },
                    Err(source) => return Err(KeyFileError::Io { path, source }),
                }
            }
        };
        Ok(Self { path, ring: Arc::new(ArcSwap::from_pointee(ring)) })
    }

    /// Puts keys of elsewhere in force. The file keeps a copy, for a start without them.
    pub(super) fn adopt(&self, ring: KeyRing) {
        if ring.ids().eq(self.ring.load().ids()) && ring.sealing() == self.ring.load().sealing() {
            return;
        }
        if let Err(error) = write_over(&self.path, &ring) {
            tracing::warn!(event = "session_keys_not_kept", path = %self.path.display(), %error);
        }
        self.ring.store(Arc::new(ring));
    }

    /// Rotates by age, and takes up what others wrote. Runs until dropped.
    pub(super) async fn keep(self, clock: Clock, rotation: u64, max_age: u64) {
        let mut tick = tokio::time::interval(CHECK_EVERY);
        tick.tick().await;
        loop {
            tick.tick().await;
            let now = clock.unix_secs();
            match self.refresh(now, rotation, max_age) {
                Ok(ring) => self.ring.store(Arc::new(ring)),
                // The keys in memory go on working.
                Err(error) => tracing::error!(event = "session_keys_not_refreshed", %error),
            }
        }
    }

    fn refresh(&self, now: u64, rotation: u64, max_age: u64) -> Result<KeyRing, KeyFileError> {
        let Some(ring) = read(&self.path, now)? else {
            let ring = self.ring.load_full();
            write_over(&self.path, &ring)
                .map_err(|source| KeyFileError::Io { path: self.path.clone(), source })?;
            return Ok(ring.at(now));
        };
        if now.saturating_sub(ring.newest()) < rotation {
            return Ok(ring);
        }
        let damaged = |e: crate::mcp::seal::NoEntropy| KeyFileError::Damaged {
            path: self.path.clone(),
            reason: e.to_string(),
        };
        let ring = ring.rotate(now, LEAD, max_age).map_err(damaged)?;
        write_over(&self.path, &ring)
            .map_err(|source| KeyFileError::Io { path: self.path.clone(), source })?;
        tracing::info!(event = "session_keys_rotated", path = %self.path.display());
        Ok(ring)
    }
}

fn generate(path: &Path, now: u64) -> Result<KeyRing, KeyFileError> {
    KeyRing::generate(now).map_err(|e| KeyFileError::Damaged { path: path.to_owned(), reason: e.to_string() })
}

fn read(path: &Path, now: u64) -> Result<Option<KeyRing>, KeyFileError> {
    let failed = |source| KeyFileError::Io { path: path.to_owned(), source };
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Open { path: path.to_owned(), mode });
    }
    if meta.len() > MAX_FILE {
        return Err(KeyFileError::Damaged {
            path: path.to_owned(),
            reason: format!("over {MAX_FILE} bytes"),
        });
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    let ring = KeyRing::parse(&text, now)
        .map_err(|e| KeyFileError::Damaged { path: path.to_owned(), reason: e.to_string() })?;
    Ok(Some(ring))
}

/// Fails if the file exists: two processes that start at once must not both make keys.
fn write_new(path: &Path, ring: &KeyRing) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(ring.print().expose().as_bytes())?;
    file.sync_all()
}

/// By rename, so that a reader sees the old file or the new one.
fn write_over(path: &Path, ring: &KeyRing) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let _ = fs::remove_file(&temporary);
    write_new(&temporary, ring)?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    #[test]
    fn keys_are_made_once_and_only_for_us() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("session.keys");
        let clock = Clock::manual(1_000_000);
        let first = Keys::open(path.clone(), &clock).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let second = Keys::open(path, &clock).unwrap();
        assert_eq!(first.ring.load().sealing(), second.ring.load().sealing());
    }

    #[test]
    fn a_file_that_others_may_read_or_that_is_damaged_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("session.keys");
        let clock = Clock::manual(1_000_000);
        Keys::open(path.clone(), &clock).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Keys::open(path.clone(), &clock), Err(KeyFileError::Open { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "nonsense").unwrap();
        assert!(matches!(Keys::open(path, &clock), Err(KeyFileError::Damaged { .. })));
    }

    #[test]
    fn rotation_adds_a_key_that_seals_later_and_keeps_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual(1_000_000);
        let keys = Keys::open(dir.path().join("k"), &clock).unwrap();
        let old = keys.ring.load().sealing();
        let later = 1_000_000 + 8 * DAY;
        let ring = keys.refresh(later, 7 * DAY, DAY).unwrap();
        assert_eq!(ring.ids().count(), 2);
        assert_eq!(ring.sealing(), old, "others may not have the new key yet");
        assert_ne!(keys.refresh(later + LEAD + 1, 7 * DAY, DAY).unwrap().sealing(), old);
    }
}
