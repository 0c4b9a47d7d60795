//! Where the master keys come from.

use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;

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
    /// Reads the master keys again, as after a rotation. Where the default file is not there yet it is made, unless
    /// something in the store is sealed already.
    ///
    /// # Errors
    /// They cannot be read, or are not keys; [`StoreError::MasterKey`] if what the store has needs other ones.
    pub async fn load_keys(&self) -> Result<(), StoreError> {
        let settings = &self.0.settings;
        let text = match &settings.encryption {
            None => {
                let path = settings.data_dir.join(KEY_FILE);
                match own_file(&path)? {
                    Some(text) => text,
                    None => {
                        self.nothing_is_sealed(&path).await?;
                        make(&path)?
                    }
                }
            }
            Some(Encryption::KeyFile(path)) => from_file(path)?,
            Some(Encryption::KeyEnv(name)) => {
                let text = (self.0.env)(name).ok_or_else(|| {
                    StoreError::Settings(format!("encryption: the environment variable {name} is not set"))
                })?;
                Secret::new(text)
            }
            Some(Encryption::KeyCommand(command)) => from_command(command).await?,
        };
        let keys = self.parse(&text)?;
        if self.0.keys.swap(Some(Arc::new(keys))).is_none() {
            self.tell_of_missing_keys().await;
        }
        Ok(())
    }

    fn parse(&self, text: &Secret<String>) -> Result<MasterKeys, StoreError> {
        MasterKeys::parse(text.expose()).map_err(|source| envelope(&self.keys_place(), source))
    }

    /// Where the master keys come from, for people.
    fn keys_place(&self) -> String {
        let settings = &self.0.settings;
        match &settings.encryption {
            None => format!("the master keys in {}", settings.data_dir.join(KEY_FILE).display()),
            Some(Encryption::KeyFile(path)) => {
                format!("the master keys in {} (store.encryption.key_file)", path.display())
            }
            Some(Encryption::KeyEnv(name)) => {
                format!("the master keys in the environment variable {name} (store.encryption.key_env)")
            }
            Some(Encryption::KeyCommand(_)) => {
                "the master keys that store.encryption.key_command prints".to_owned()
            }
        }
    }

    /// Fails if something in the store is sealed: a new key would open none of it, and hide that the old one is missing.
    async fn nothing_is_sealed(&self, path: &Path) -> Result<(), StoreError> {
        let ids = self.platform().sealing_key_ids().await?;
        if ids.is_empty() {
            return Ok(());
        }
        let keys = if ids.len() == 1 { "the master key" } else { "the master keys" };
        Err(StoreError::MasterKey(format!(
            "what the store has is sealed with {keys} {}, and there is no {}: put a copy of the old file there (mode 0600), \
             or say where the keys are with store.encryption",
            quoted(&ids),
            path.display()
        )))
    }

    /// Once, when the keys are first read: nothing else says so before somebody needs what does not open.
    async fn tell_of_missing_keys(&self) {
        let (Ok(keys), Ok(ids)) = (self.master_keys(), self.platform().sealing_key_ids().await) else {
            return;
        };
        let missing: Vec<String> = ids.into_iter().filter(|id| !keys.has(id)).collect();
        if !missing.is_empty() {
            tracing::error!(
                event = "master_keys_missing",
                missing = quoted(&missing),
                place = self.keys_place(),
                "values in the store are sealed with keys that are not there, and do not open"
            );
        }
    }

    /// Adds a master key that seals from now on, where the keys are in a file. Values are moved to it by
    /// [`super::Platform::rewrap`], and no key is made if one of them could not be.
    ///
    /// # Errors
    /// The keys are not in a file, or it cannot be written; a value that does not open.
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
        // Two that rotate at once would each write a ring without the other's key, and what was sealed with that would be
        // lost.
        let _alone = alone(&path).map_err(|e| StoreError::io(format!("the keys {}", path.display()), e))?;
        let text = match &self.0.settings.encryption {
            None => own_file(&path)?.ok_or_else(|| StoreError::Missing(path.display().to_string()))?,
            Some(_) => from_file(&path)?,
        };
        let keys = self.parse(&text)?;
        let keys = keys.rotate().map_err(|source| envelope(&self.keys_place(), source))?;
        self.platform().can_rewrap(&keys).await?;
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
        let opened = match self.master_keys()?.open(place, sealed) {
            // Somebody may have made a new key since this process read them.
            Err(EnvelopeError::UnknownKey(id)) => match self.read_file_again(&id) {
                Some(keys) => keys.open(place, sealed),
                None => Err(EnvelopeError::UnknownKey(id)),
            },
            opened => opened,
        };
        opened.map_err(|source| match &source {
            EnvelopeError::UnknownKey(_) => {
                envelope(&format!("{}, with {}", place.join("/"), self.keys_place()), source)
            }
            _ => envelope(&place.join("/"), source),
        })
    }

    /// The keys as they are in their file now, if they are in one that can be read and has this one. They count from now on.
    fn read_file_again(&self, id: &str) -> Option<Arc<MasterKeys>> {
        let settings = &self.0.settings;
        let text = match &settings.encryption {
            None => own_file(&settings.data_dir.join(KEY_FILE)).ok()??,
            Some(Encryption::KeyFile(path)) => from_file(path).ok()?,
            Some(Encryption::KeyCommand(_) | Encryption::KeyEnv(_)) => return None,
        };
        let keys = Arc::new(MasterKeys::parse(text.expose()).ok().filter(|keys| keys.has(id))?);
        self.0.keys.store(Some(keys.clone()));
        tracing::info!(event = "master_keys_read_again", sealing = keys.sealing());
        Some(keys)
    }

    pub(super) fn master_keys(&self) -> Result<Arc<MasterKeys>, StoreError> {
        self.0.keys.load_full().ok_or_else(|| envelope(&self.keys_place(), EnvelopeError::NoKeys))
    }
}

pub(super) fn envelope(what: &str, source: EnvelopeError) -> StoreError {
    StoreError::Envelope { what: what.to_owned(), source }
}

fn quoted(ids: &[String]) -> String {
    ids.iter().map(|id| format!("`{id}`")).collect::<Vec<_>>().join(", ")
}

/// A file that an operator names. Who may read it is their decision: what is mounted into a container is often readable by
/// all inside.
fn from_file(path: &Path) -> Result<Secret<String>, StoreError> {
    let text = std::fs::read_to_string(path);
    text.map(Secret::new).map_err(|e| StoreError::io(format!("the keys {}", path.display()), e))
}

/// The file that we make ourselves, if it is there; nobody else may read it.
fn own_file(path: &Path) -> Result<Option<Secret<String>>, StoreError> {
    let mode = match std::fs::metadata(path) {
        Ok(meta) => meta.permissions().mode() & 0o777,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io(format!("the keys {}", path.display()), error)),
    };
    if mode & 0o077 != 0 {
        return Err(StoreError::MasterKey(format!(
            "the master keys {} may be read by others (mode {mode:o}): whoever has them can read every secret in the store; \
             chmod 600 it",
            path.display()
        )));
    }
    from_file(path).map(Some)
}

fn make(path: &Path) -> Result<Secret<String>, StoreError> {
    let failed = |source| StoreError::io(format!("the keys {}", path.display()), source);
    let keys = MasterKeys::generate().map_err(|source| envelope("a new master key", source))?;
    match create(path, &keys.print()) {
        Ok(()) => Ok(keys.print()),
        // Another process was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => from_file(path),
        Err(error) => Err(failed(error)),
    }
}

/// Makes a file that nobody else can read, complete or not at all, and never over another.
fn create(path: &Path, text: &Secret<String>) -> io::Result<()> {
    let temporary = beside(path);
    synced(&temporary, text)?;
    let linked = std::fs::hard_link(&temporary, path);
    std::fs::remove_file(&temporary)?;
    linked?;
    sync_folder(path)
}

fn write(path: &Path, text: &Secret<String>) -> io::Result<()> {
    let temporary = beside(path);
    synced(&temporary, text)?;
    std::fs::rename(&temporary, path)?;
    sync_folder(path)
}

/// The name is as durable as the content from here on: what is sealed with a key must not outlive it.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(folder)?.sync_all()
}

/// Keeps other processes from writing the file for as long as what is returned lives. The lock is on a file beside it that
/// stays: the file itself is replaced.
fn alone(path: &Path) -> io::Result<std::fs::File> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".lock");
    let lock = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path.with_file_name(name))?;
    match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(io::Error::other("another process changes them now; try again"))
        }
        Err(error) => Err(error.into()),
    }
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
    let failed = |text: &str| StoreError::io(what(), io::Error::other(text.to_owned()));
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| StoreError::io(what(), source))?;
    let mut text = Vec::new();
    let run = async {
        if let Some(out) = child.stdout.take() {
            out.take(MAX_KEYS_TEXT as u64 + 1).read_to_end(&mut text).await?;
        }
        child.wait().await
    };
    let status = tokio::time::timeout(COMMAND_TIME, run)
        .await
        .map_err(|_| failed("gave no answer within 10 s"))?
        .map_err(|source| StoreError::io(what(), source))?;
    if text.len() > MAX_KEYS_TEXT {
        return Err(failed("printed more than 16 KiB"));
    }
    if !status.success() {
        return Err(failed("failed"));
    }
    String::from_utf8(text).map(Secret::new).map_err(|_| failed("printed something else than text"))
}
