//! The admin token: made when an installation starts for the first time, so that somebody can do the rest. Whoever wrote
//! `listeners.admin.token` can already, and gets no second one unless they ask for it.
//!
//! The store has its digest, the data folder of the process that made it has the token (`admin.token`, mode 0600), and
//! the log of that start shows it once. Every replica accepts it. The file is written before the store knows the digest,
//! so a start that dies in between leaves a file that the next start replaces, and never a token that nobody has.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use sha2::{Digest as _, Sha256};

use super::actor::Proof;
use super::authn::Authenticator;
use crate::base::Secret;
use crate::store::{ADMIN_TOKEN_REPLACED, Channel, Listener, Notification, Store, StoreError};

/// The file in the data folder.
pub const FILE: &str = "admin.token";
/// The name in the store.
const NAME: &str = "bootstrap";
/// What every such token begins with.
pub(super) const PREFIX: &str = "tga_";
/// Base62 characters of a token: 256 bits.
const LENGTH: usize = 43;
/// How often a replica looks whether the token was replaced, unless it is told, and tries again while the store is away.
const REFRESH: Duration = Duration::from_secs(2);

/// Why there is no admin token.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The file cannot be written.
    #[error("cannot write {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A token that was made now.
#[derive(Debug)]
pub struct Made {
    /// The token. Shown once.
    pub token: Secret<String>,
    /// Where it is kept.
    pub path: PathBuf,
}

/// Has the authenticator accept the installation's token, after making one if there is none and `make` says so.
///
/// # Errors
///
/// See [`BootstrapError`].
pub async fn ensure(
    store: &Store,
    data_dir: &Path,
    authenticator: &Authenticator,
    make: bool,
) -> Result<Option<Made>, BootstrapError> {
    if let Some(digest) = store.platform().admin_token(NAME).await? {
        authenticator.accept_digest(digest, Proof::Bootstrap);
        return Ok(None);
    }
    if !make {
        return Ok(None);
    }
    let made = write(data_dir)?;
    let digest: [u8; 32] = Sha256::digest(made.token.expose()).into();
    if store.platform().add_admin_token(NAME, &digest).await? {
        authenticator.accept_digest(digest, Proof::Bootstrap);
        return Ok(Some(made));
    }
    // Another replica was faster; its token is the one.
    let _ = std::fs::remove_file(&made.path);
    if let Some(digest) = store.platform().admin_token(NAME).await? {
        authenticator.accept_digest(digest, Proof::Bootstrap);
    }
    Ok(None)
}

/// Makes another token in place of the one there is.
///
/// # Errors
///
/// The store.
pub async fn replace(store: &Store, authenticator: &Authenticator) -> Result<Secret<String>, StoreError> {
    let token = fresh();
    let digest: [u8; 32] = Sha256::digest(token.expose()).into();
    store.platform().replace_admin_token(NAME, &digest).await?;
    authenticator.accept_digest(digest, Proof::Bootstrap);
    Ok(token)
}

/// Runs [`ensure`] until it succeeds, then keeps up with replacements. `made` is told of a token that was made.
pub async fn keep(
    store: Store,
    data_dir: PathBuf,
    authenticator: Arc<Authenticator>,
    make: bool,
    made: impl Fn(Made) + Send + Sync,
) {
    let (mut failing, mut prepared) = (false, false);
    let mut listener = store.listen();
    authenticator.await_token(true);
    loop {
        let outcome = async {
            // Whoever is first makes the tables.
            if !prepared {
                store.prepare().await?;
            }
            ensure(&store, &data_dir, &authenticator, make).await
        };
        match outcome.await {
            Ok(fresh) => {
                (failing, prepared) = (false, true);
                authenticator.await_token(false);
                if let Some(fresh) = fresh {
                    made(fresh);
                }
            }
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(event = "admin_token_unknown", %error, "the admin token cannot be looked up");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(REFRESH) => {}
            () = replaced(&mut listener) => {}
        }
    }
}

/// Waits for word that the token was replaced.
async fn replaced(listener: &mut Listener) {
    loop {
        if let Notification::Message { channel: Channel::Identity, payload } = listener.next().await
            && payload == ADMIN_TOKEN_REPLACED
        {
            return;
        }
    }
}

/// Makes another token in place of the one there is, by somebody who works on the store itself, and writes the file.
///
/// # Errors
///
/// See [`BootstrapError`]. If the store fails, the file has a token that is not in force.
pub async fn reset(store: &Store, data_dir: &Path) -> Result<Made, BootstrapError> {
    let made = write(data_dir)?;
    let digest: [u8; 32] = Sha256::digest(made.token.expose()).into();
    store.platform().replace_admin_token(NAME, &digest).await?;
    Ok(made)
}

fn fresh() -> Secret<String> {
    const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut rng = rand::rng();
    let text = (0..LENGTH).map(|_| char::from(BASE62[rng.random_range(0..BASE62.len())]));
    Secret::new(PREFIX.chars().chain(text).collect())
}

/// Writes a fresh token, replacing the file at once.
fn write(data_dir: &Path) -> Result<Made, BootstrapError> {
    keep_in(&data_dir.join(FILE), fresh())
}

/// Writes a token to a file, replacing it at once.
///
/// # Errors
///
/// The file cannot be written.
pub fn keep_in(path: &Path, token: Secret<String>) -> Result<Made, BootstrapError> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = path.to_owned();
    let draft = path.with_extension("token.new");
    let write = || {
        let _ = std::fs::remove_file(&draft);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(token.expose().as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        std::fs::rename(&draft, &path)
    };
    write().map_err(|source| BootstrapError::File { path: path.clone(), source })?;
    Ok(Made { token, path })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_file_is_its_owners_and_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let first = write(folder.path()).unwrap();
        let second = write(folder.path()).unwrap();
        assert_ne!(first.token.expose(), second.token.expose());
        let text = std::fs::read_to_string(&second.path).unwrap();
        assert_eq!(text.trim_end(), second.token.expose());
        assert_eq!(std::fs::metadata(&second.path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(second.token.expose().len() == 47 && second.token.expose().starts_with("tga_"));
    }
}
