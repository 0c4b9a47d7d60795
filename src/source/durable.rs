//! Files that are whole or are not there: written beside their place, synced, renamed, and checked when they are read.
//!
//! A line with the format and the SHA-256 of everything that follows, and then that. Mode 0600.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};

/// Puts content in the place of the file. When this returns it survives a power loss.
///
/// # Errors
/// The disk; the old file is still there.
pub(super) fn write(path: &Path, format: &str, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let temporary = path.with_extension("tmp");
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let _ = fs::remove_file(&temporary);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(first_line(format, content).as_bytes())?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync(folder)
}

/// What the file holds; `None` if there is none.
///
/// # Errors
/// The disk; the file is not whole, of another format, or larger than `limit`.
pub(super) fn read(path: &Path, format: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let bytes = match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
        Ok(meta) if meta.len() > limit => return Err(io::Error::other("too large")),
        Ok(_) => fs::read(path)?,
    };
    let end = bytes.iter().position(|b| *b == b'\n').map_or(bytes.len(), |at| at + 1);
    let (line, content) = bytes.split_at(end);
    if line != first_line(format, content).as_bytes() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "damaged, or of another version"));
    }
    Ok(Some(content.to_vec()))
}

/// Makes changes of a folder itself permanent.
pub(super) fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn first_line(format: &str, content: &[u8]) -> String {
    let digest: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{format} {digest}\n")
}
