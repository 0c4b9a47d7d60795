//! Where references lead in a running gateway: the environment it was given and the files of this machine.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::expand::{MAX_REFERENCED_FILE, SourceError, Sources};

/// The environment, as a closure that only the command line may hand in, and the disk.
///
/// The one place of this module that reads files. Documents are loaded by the control plane, never on the request path.
pub struct SystemSources<E> {
    env: E,
    stand_in: Option<(&'static str, String)>,
    without_store: bool,
}

impl<E: Fn(&str) -> Option<String>> SystemSources<E> {
    /// Sources over a look-up of environment variables.
    pub fn new(env: E) -> Self {
        Self { env, stand_in: None, without_store: false }
    }

    /// With what stands for a variable that only a running gateway sets.
    pub fn with_stand_in(self, stand_in: Option<(&'static str, String)>) -> Self {
        Self { stand_in, ..self }
    }

    /// Whether the document is for a store that is not asked here: the name of each of its secrets stands for it.
    pub fn without_store(self, without_store: bool) -> Self {
        Self { without_store, ..self }
    }
}

impl<E: Fn(&str) -> Option<String>> Sources for SystemSources<E> {
    fn env(&self, name: &str) -> Result<String, SourceError> {
        (self.env)(name).ok_or(SourceError::Missing)
    }

    fn stand_in(&self, name: &str) -> Option<String> {
        self.stand_in.as_ref().filter(|(own, _)| *own == name).map(|(_, value)| value.clone())
    }

    fn secret_stand_in(&self, name: &str) -> Option<String> {
        self.without_store.then(|| name.to_owned())
    }

    fn file(&self, path: &Path) -> Result<Vec<u8>, SourceError> {
        let unreadable = |error: std::io::Error| match error.kind() {
            ErrorKind::NotFound => SourceError::Missing,
            kind => SourceError::Unreadable(kind.to_string()),
        };
        // Asked before opening: a pipe would block, a device never ends.
        if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(SourceError::Unreadable("not a regular file".to_owned()));
        }
        let mut bytes = Vec::new();
        let limit = MAX_REFERENCED_FILE as u64 + 1;
        File::open(path).map_err(unreadable)?.take(limit).read_to_end(&mut bytes).map_err(unreadable)?;
        Ok(bytes)
    }
}

/// Sources with fixed content: for tests, and for documents built by the program itself.
#[derive(Clone, Debug, Default)]
pub struct FixedSources {
    env: BTreeMap<String, String>,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl FixedSources {
    /// Adds an environment variable.
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Adds a file.
    pub fn with_file(mut self, path: &str, content: &[u8]) -> Self {
        self.files.insert(path.into(), content.to_owned());
        self
    }
}

impl Sources for FixedSources {
    fn env(&self, name: &str) -> Result<String, SourceError> {
        self.env.get(name).cloned().ok_or(SourceError::Missing)
    }

    fn file(&self, path: &Path) -> Result<Vec<u8>, SourceError> {
        self.files.get(path).cloned().ok_or(SourceError::Missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_files_are_read_up_to_the_bound_and_only_if_regular() {
        let sources = SystemSources::new(|_: &str| None);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        assert_eq!(sources.file(&path), Err(SourceError::Missing));
        std::fs::write(&path, vec![b'x'; MAX_REFERENCED_FILE + 10]).unwrap();
        assert_eq!(sources.file(&path).unwrap().len(), MAX_REFERENCED_FILE + 1);
        assert!(matches!(sources.file(folder.path()), Err(SourceError::Unreadable(_))));
        assert_eq!(sources.env("NOPE"), Err(SourceError::Missing));
    }
}
