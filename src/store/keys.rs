//! Where the master keys come from.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{Store, StoreError};
use crate::base::Secret;
use crate::base::envelope::{EnvelopeError, MasterKeys};
use crate::config::model::Encryption;

/// The file in the data folder, if nothing else is configured.
const KEY_FILE: &str = "master.key";
/// How long a command that prints the keys may take.
const COMMAND_TIME: Duration = Duration::from_secs(10);
/// The most that a command may print, in bytes.
const MAX_KEYS_TEXT: usize = 16 << 10;

impl Store {
    /// Reads the master keys again, as after a rotation.
    ///
    /// # Errors
    /// They cannot be read, or are not keys.
    pub async fn load_keys(&self) -> Result<(), StoreError> {
        let settings = &self.0.settings;
        let text = match &settings.encryption {
            None => from_file(&settings.data_dir.join(KEY_FILE), true)?,
            Some(Encryption::KeyFile(path)) => from_file(path, false)?,
            Some(Encryption::KeyEnv(name)) => {
                let text = (self.0.env)(name).ok_or_else(|| {
                    StoreError::Settings(format!("encryption: the environment variable {name} is not set"))
                })?;
                Secret::new(text)
            }
            Some(Encryption::KeyCommand(command)) => from_command(command).await?,
        };
        let keys = MasterKeys::parse(text.expose()).map_err(|source| envelope("store.encryption", source))?;
        self.0.keys.store(Some(Arc::new(keys)));
        Ok(())
    }

    /// Adds a master key that seals from now on, where the keys are in a file. Values are moved to it by
    /// [`super::Platform::rewrap`].
    ///
    /// # Errors
    /// The keys are not in a file, or it cannot be written.
    pub async fn rotate_master_key(&self) -> Result<String, StoreError> {
        let path = match &self.0.settings.encryption {
            None => self.0.settings.data_dir.join(KEY_FILE),
            Some(Encryption::KeyFile(path)) => path.clone(),
            Some(_) => {
                return Err(StoreError::Settings(
                    "encryption: the keys are not in a file; add one where they are kept".to_owned(),
                ));
            }
        };
        let keys = MasterKeys::parse(from_file(&path, false)?.expose())
            .and_then(MasterKeys::rotate)
            .map_err(|source| envelope("store.encryption", source))?;
        let id = keys.sealing().to_owned();
        write(&path, &keys.print()).map_err(|e| StoreError::io(format!("the keys {}", path.display()), e))?;
        self.0.keys.store(Some(Arc::new(keys)));
        Ok(id)
    }

    /// Seals a value for its place in the store.
    ///
    /// # Errors
    /// The store is not prepared yet.
    pub fn seal(&self, place: &[&str], plaintext: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.master_keys()?.seal(place, plaintext).map_err(|source| envelope(&place.join("/"), source))
    }

    /// Opens a value that was sealed for its place in the store.
    ///
    /// # Errors
    /// The value was changed or moved, or its key is not there.
    pub fn unseal(&self, place: &[&str], sealed: &[u8]) -> Result<Secret<Vec<u8>>, StoreError> {
        self.master_keys()?.open(place, sealed).map_err(|source| envelope(&place.join("/"), source))
    }

    pub(super) fn master_keys(&self) -> Result<Arc<MasterKeys>, StoreError> {
        self.0.keys.load_full().ok_or_else(|| envelope("store.encryption", EnvelopeError::NoKeys))
    }
}

pub(super) fn envelope(what: &str, source: EnvelopeError) -> StoreError {
    StoreError::Envelope { what: what.to_owned(), source }
}

fn from_file(path: &Path, make: bool) -> Result<Secret<String>, StoreError> {
    let failed = |source| StoreError::io(format!("the keys {}", path.display()), source);
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Secret::new(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound && make => {
            let keys = MasterKeys::generate().map_err(|source| envelope("store.encryption", source))?;
            match create(path, &keys.print()) {
                Ok(()) => Ok(keys.print()),
                // Another process was faster.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => from_file(path, false),
                Err(error) => Err(failed(error)),
            }
        }
        Err(error) => Err(failed(error)),
    }
}

/// Makes a file that nobody else can read, complete or not at all, and never over another.
fn create(path: &Path, text: &Secret<String>) -> io::Result<()> {
    let temporary = beside(path);
    synced(&temporary, text)?;
    let linked = std::fs::hard_link(&temporary, path);
    std::fs::remove_file(&temporary)?;
    linked
}

fn write(path: &Path, text: &Secret<String>) -> io::Result<()> {
    let temporary = beside(path);
    synced(&temporary, text)?;
    std::fs::rename(&temporary, path)
}

/// A name that nobody else uses, in this process or another.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", uuid::Uuid::now_v7().simple()));
    path.with_file_name(name)
}

fn synced(path: &Path, text: &Secret<String>) -> io::Result<()> {
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.expose().as_bytes())?;
    file.sync_all()
}

async fn from_command(command: &[String]) -> Result<Secret<String>, StoreError> {
    let what = || "the command in store.encryption.key_command".to_owned();
    let [program, arguments @ ..] = command else {
        return Err(StoreError::Settings("encryption: the command is empty".to_owned()));
    };
    let run = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::inherit())
        .kill_on_drop(true)
        .output();
    let failed = |text: &str| StoreError::io(what(), io::Error::other(text.to_owned()));
    let output = tokio::time::timeout(COMMAND_TIME, run)
        .await
        .map_err(|_| failed("gave no answer within 10 s"))?
        .map_err(|source| StoreError::io(what(), source))?;
    if !output.status.success() {
        return Err(failed("failed"));
    }
    if output.stdout.len() > MAX_KEYS_TEXT {
        return Err(failed("printed more than 16 KiB"));
    }
    String::from_utf8(output.stdout).map(Secret::new).map_err(|_| failed("printed something else than text"))
}
