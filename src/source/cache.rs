//! The last good document of each scope, on disk, so that a replica starts with the database away.
//!
//! One file per scope in `<data_dir>/cache/documents`: a line of JSON that says which revision it is, and the canonical
//! bytes, under a hash of both ([`durable`]). References are not resolved in it: it holds no secret. A file that does not
//! add up is as good as none: the log says so, and the store has the document.
//!
//! The secrets that a document names are beside it, sealed as they are in the store: without the master keys, which are
//! not in the cache, nobody reads them. The canaries that run are in a file beside the folder, with their candidates.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::base::Scope;
use crate::source::durable;
use crate::source::stored::Stored;

/// Name and version of the file format.
const FORMAT: &str = "tollgate-document-1";
/// The same of sealed secrets.
const SEALED: &str = "tollgate-sealed-1";
/// The same of canaries.
const CANARIES: &str = "tollgate-canaries-1";
/// Largest file with canaries that is read.
const MAX_CANARIES: u64 = 1 << 30;
/// Ending of file names.
const ENDING: &str = "doc";
/// Ending of those with sealed secrets.
const SEALED_ENDING: &str = "sealed";
/// Largest file with sealed secrets that is read.
const MAX_SEALED: u64 = 64 << 20;
/// Largest file that is read: a document has at most 4 MiB.
const MAX_FILE: u64 = 5 << 20;
/// The most files that are read: one per tenant.
const MAX_FILES: usize = 100_000;

/// Keeps documents on disk. Methods block.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Head {
    scope: String,
    revision: i64,
    generation: i64,
}

impl Cache {
    /// The cache in a data folder. Makes its own folder.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        let folder = data_dir.join("cache").join("documents");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(Self { folder })
    }

    /// Every document that is whole, the platform's first.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn load(&self) -> io::Result<Vec<Stored>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder)?.take(MAX_FILES) {
            let path = entry?.path();
            if path.extension().is_none_or(|ending| ending != ENDING) {
                continue;
            }
            match read(&path) {
                Ok(document) => found.push(document),
                Err(error) => {
                    tracing::warn!(event = "cached_document_unusable", path = %path.display(), %error);
                }
            }
        }
        found.sort_by(|a, b| a.scope.cmp(&b.scope));
        Ok(found)
    }

    /// Keeps a document in place of the one of its scope. When this returns it survives a power loss.
    ///
    /// # Errors
    /// The disk; the old file is still there.
    pub fn keep(&self, document: &Stored) -> io::Result<()> {
        durable::write(&self.path(&document.scope), FORMAT, &encode(document)?)
    }

    /// Forgets the documents and secrets of all other scopes. None of them is read for that.
    ///
    /// # Errors
    /// The disk; some may be gone.
    pub(super) fn keep_only(&self, scopes: &[Scope]) -> io::Result<()> {
        let known: HashSet<PathBuf> = scopes.iter().map(|scope| self.path(scope)).collect();
        let mut gone = false;
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let is_ours = path.extension().is_some_and(|ending| ending == ENDING || ending == SEALED_ENDING);
            if !is_ours || known.contains(&path.with_extension(ENDING)) {
                continue;
            }
            match fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => gone = true,
            }
        }
        if gone { durable::sync(&self.folder) } else { Ok(()) }
    }

    /// Keeps the sealed secrets of a scope, unless they are what is there.
    ///
    /// # Errors
    /// The disk.
    pub fn keep_sealed(&self, scope: &Scope, sealed: &[(String, Vec<u8>)]) -> io::Result<()> {
        if self.sealed(scope).is_ok_and(|known| known == sealed) {
            return Ok(());
        }
        let encode = |(name, bytes): &(String, Vec<u8>)| (name.clone(), STANDARD.encode(bytes));
        let lines: Vec<(String, String)> = sealed.iter().map(encode).collect();
        durable::write(&self.sealed_path(scope), SEALED, &serde_json::to_vec(&lines)?)
    }

    /// The sealed secrets of a scope; none if there is no file.
    ///
    /// # Errors
    /// The disk; the file is not whole.
    pub fn sealed(&self, scope: &Scope) -> io::Result<Vec<(String, Vec<u8>)>> {
        let Some(bytes) = durable::read(&self.sealed_path(scope), SEALED, MAX_SEALED)? else {
            return Ok(Vec::new());
        };
        let lines: Vec<(String, String)> = serde_json::from_slice(&bytes)?;
        let decode = |(name, text): (String, String)| {
            let bytes = STANDARD.decode(text).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
            Ok((name, bytes))
        };
        lines.into_iter().map(decode).collect()
    }

    /// Keeps what is known of the canaries that run.
    ///
    /// # Errors
    /// The disk; the old file is still there.
    pub(super) fn keep_canaries(&self, content: &[u8]) -> io::Result<()> {
        durable::write(&self.canaries_path(), CANARIES, content)
    }

    /// What was known of the canaries that ran; `None` if there is no file.
    ///
    /// # Errors
    /// The disk; the file is not whole.
    pub(super) fn canaries(&self) -> io::Result<Option<Vec<u8>>> {
        durable::read(&self.canaries_path(), CANARIES, MAX_CANARIES)
    }

    fn canaries_path(&self) -> PathBuf {
        self.folder.with_file_name("canaries")
    }

    fn sealed_path(&self, scope: &Scope) -> PathBuf {
        self.path(scope).with_extension(SEALED_ENDING)
    }

    fn path(&self, scope: &Scope) -> PathBuf {
        // Names of scopes have no character that means something in a path; a name that came from elsewhere might.
        let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '@');
        let name: String = scope
            .as_str()
            .chars()
            .map(|c| if safe(c) { c.to_string() } else { format!("%{:x}", u32::from(c)) })
            .collect();
        self.folder.join(format!("{name}.{ENDING}"))
    }
}

fn encode(document: &Stored) -> io::Result<Vec<u8>> {
    let head = Head {
        scope: document.scope.as_str().to_owned(),
        revision: document.revision,
        generation: document.generation,
    };
    let mut bytes = serde_json::to_vec(&head)?;
    bytes.push(b'\n');
    bytes.extend_from_slice(&document.content);
    Ok(bytes)
}

fn read(path: &Path) -> io::Result<Stored> {
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "damaged");
    let bytes = durable::read(path, FORMAT, MAX_FILE)?.ok_or_else(damaged)?;
    let end = bytes.iter().position(|b| *b == b'\n').ok_or_else(damaged)?;
    let head: Head = serde_json::from_slice(&bytes[..end])?;
    Ok(Stored {
        scope: Scope::parse(&head.scope),
        revision: head.revision,
        generation: head.generation,
        content: Arc::from(&bytes[end + 1..]),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::base::TenantId;

    fn document(scope: Scope, revision: i64, text: &str) -> Stored {
        Stored { scope, revision, generation: revision * 10, content: Arc::from(text.as_bytes()) }
    }

    #[test]
    fn documents_come_back_as_they_were_the_platform_first() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let acme = document(Scope::Tenant(TenantId::new("acme")), 3, "version: 1\nroutes: []\n");
        let platform = document(Scope::Platform, 1, "version: 1\n");
        cache.keep(&document(acme.scope.clone(), 2, "old")).unwrap();
        cache.keep(&acme).unwrap();
        cache.keep(&platform).unwrap();
        let loaded = Cache::open(dir.path()).unwrap().load().unwrap();
        assert_eq!(loaded, [platform.clone(), acme.clone()]);
        for _ in 0..2 {
            cache.keep_only(std::slice::from_ref(&platform.scope)).unwrap();
            assert_eq!(cache.load().unwrap(), std::slice::from_ref(&platform));
        }
    }

    #[test]
    fn a_file_with_any_byte_changed_or_cut_off_is_as_good_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let acme = document(Scope::Tenant(TenantId::new("acme")), 3, "version: 1\n");
        cache.keep(&acme).unwrap();
        let path = cache.path(&acme.scope);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            assert_eq!(cache.load().unwrap(), [], "byte {at}");
            fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(cache.load().unwrap(), [], "cut at {at}");
        }
        fs::write(&path, &whole).unwrap();
        assert_eq!(cache.load().unwrap(), [acme]);
    }

    #[test]
    fn sealed_secrets_come_back_and_go_with_their_document() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let acme = document(Scope::Tenant(TenantId::new("acme")), 3, "version: 1\n");
        assert_eq!(cache.sealed(&acme.scope).unwrap(), []);
        let sealed = vec![("token".to_owned(), vec![0, 255, 7]), ("x".to_owned(), vec![])];
        cache.keep(&acme).unwrap();
        cache.keep_sealed(&acme.scope, &sealed).unwrap();
        assert_eq!(Cache::open(dir.path()).unwrap().sealed(&acme.scope).unwrap(), sealed);
        assert_eq!(cache.load().unwrap(), std::slice::from_ref(&acme), "only documents are documents");
        let path = cache.sealed_path(&acme.scope);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(cache.sealed(&acme.scope).is_err());
        cache.keep_only(std::slice::from_ref(&acme.scope)).unwrap();
        assert!(path.exists());
        cache.keep_only(&[]).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn names_that_are_paths_stay_in_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let odd = document(Scope::Tenant(TenantId::new("../../etc/x")), 1, "v");
        cache.keep(&odd).unwrap();
        assert_eq!(cache.path(&odd.scope).parent(), Some(cache.folder.as_path()));
        assert_eq!(cache.load().unwrap(), [odd]);
    }
}
