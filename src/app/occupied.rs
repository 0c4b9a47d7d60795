//! One process for a data folder: a second one would take the door for successors from the first, and share its keys,
//! spools and embedded store with it.
//!
//! A lock of the kernel's on a file there, which ends with the process however that ends. A successor gets it when its
//! predecessor has gone.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::app::error::StartError;

/// The file's name in the data folder; the process id is in it.
const FILE: &str = "serve.lock";
/// How often a successor looks whether its predecessor has gone.
const LOOK: Duration = Duration::from_secs(1);

/// Keeps others away for as long as it is kept. `None` if the file system has no locks.
pub struct Occupied(#[expect(dead_code, reason = "the lock ends with the file")] Option<File>);

impl Occupied {
    /// Takes the folder.
    ///
    /// # Errors
    /// Another process runs on it; the file cannot be made.
    pub fn new(data_dir: &Path) -> Result<Self, StartError> {
        match lock(data_dir)? {
            Lock::Ours(file) => Ok(Self(Some(file))),
            Lock::Theirs(process) => {
                Err(StartError::Occupied { path: data_dir.to_owned(), process: process.trim().to_owned() })
            }
            Lock::Unknown(error) => {
                tracing::warn!(event = "data_dir_not_locked", path = %data_dir.display(), %error);
                Ok(Self(None))
            }
        }
    }

    /// Takes it when the process that has it is gone, and keeps it until dropped.
    pub(super) async fn later(data_dir: PathBuf) {
        loop {
            match lock(&data_dir) {
                Ok(Lock::Ours(_file)) => return std::future::pending().await,
                Ok(Lock::Unknown(_)) => return,
                Ok(Lock::Theirs(_)) | Err(_) => tokio::time::sleep(LOOK).await,
            }
        }
    }
}

enum Lock {
    Ours(File),
    /// Whose, as the file says.
    Theirs(String),
    Unknown(std::io::Error),
}

fn lock(data_dir: &Path) -> Result<Lock, StartError> {
    let path = data_dir.join(FILE);
    let failed = |source| StartError::File { what: "data_dir", path: path.clone(), source };
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {
            let written = file.set_len(0).and_then(|()| file.rewind());
            written.and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
            Ok(Lock::Ours(file))
        }
        Err(TryLockError::WouldBlock) => {
            let mut process = String::new();
            file.take(32).read_to_string(&mut process).map_err(failed)?;
            Ok(Lock::Theirs(process))
        }
        Err(TryLockError::Error(error)) => Ok(Lock::Unknown(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_has_one_process_and_then_its_successor() {
        let folder = tempfile::tempdir().unwrap();
        let first = Occupied::new(folder.path()).unwrap();
        let Err(error) = Occupied::new(folder.path()) else { panic!("two on one folder") };
        let text = error.to_string();
        assert!(
            text.contains(&std::process::id().to_string()) && text.contains("tollgate upgrade"),
            "{text}"
        );
        let successor = tokio::spawn(Occupied::later(folder.path().to_owned()));
        tokio::task::yield_now().await;
        drop(first);
        tokio::time::timeout(Duration::from_secs(10), async {
            while Occupied::new(folder.path()).is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("the successor has it");
        successor.abort();
        assert!(successor.await.unwrap_err().is_cancelled());
        assert!(Occupied::new(folder.path()).is_ok(), "and gives it back");
    }
}
