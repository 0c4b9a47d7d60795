//! `tollgate backup` and `tollgate restore`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::args::{BackupArgs, RestoreArgs};
use super::store::{alone, document, existing, record, with};
use crate::base::TenantId;
use crate::store::{Manifest, RestoreInto, Store, StoreError, StoreSettings};

/// Writes beside the file and renames, so that what has the name is complete.
pub(super) fn backup(args: &BackupArgs) -> Result<bool, String> {
    let (_, settings) = existing(&args.store)?;
    // Its own name: another one at the same time would write into it.
    let mut name = args.file.file_name().ok_or("the file needs a name")?.to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = args.file.with_file_name(name);
    let done = with(settings, async |store| written(store, &part).await);
    let renamed = done.and_then(|manifest| match keep(&part, &args.file) {
        Ok(()) => Ok(manifest),
        Err(error) => Err(format!("{}: {error}", args.file.display())),
    });
    let manifest = renamed.inspect_err(|_| drop(fs::remove_file(&part)))?;
    print(&manifest);
    eprintln!(
        "The master keys are not in it: keep them elsewhere, or no secret can be read after a restore."
    );
    Ok(true)
}

async fn written(store: &Store, part: &Path) -> Result<Manifest, String> {
    let cannot = |e: io::Error| format!("{}: {e}", part.display());
    // One of a process that had this id and was killed.
    let _ = fs::remove_file(part);
    // Documents are in it, and who may do what.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(part).map_err(cannot)?;
    let mut out = BufWriter::new(&file);
    let manifest = store.backup(&mut out).await.map_err(|e| e.to_string())?;
    out.flush().map_err(cannot)?;
    file.sync_all().map_err(cannot)?;
    Ok(manifest)
}

/// Gives it its name, for good.
fn keep(part: &Path, file: &Path) -> io::Result<()> {
    fs::rename(part, file)?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

pub(super) fn restore(args: &RestoreArgs) -> Result<bool, String> {
    let file = File::open(&args.file).map_err(|e| format!("{}: {e}", args.file.display()))?;
    let into = if args.erase { RestoreInto::Erased } else { RestoreInto::Empty };
    let document = document(&args.store)?;
    let settings = StoreSettings::new(&document.store, &document.data_dir);
    let name = args.file.file_name().unwrap_or_default().to_string_lossy();
    let manifest = with(settings, async |store| {
        let _held = if args.force { None } else { alone(store, &document.data_dir).await? };
        let manifest = store.restore(BufReader::new(file), into).await.map_err(|e| match e {
            StoreError::CommitUnknown(_) => e.to_string(),
            e => format!("{e}; nothing was changed"),
        })?;
        // Into an empty store it is a copy, equal to the backup and nothing else.
        if args.erase {
            let (command, whose) = ("tollgate restore", TenantId::default());
            record(store, command, &whose, "erase_and_restore", &name)
                .await
                .map_err(|e| format!("it is restored, but {e}"))?;
        }
        Ok(manifest)
    })?;
    print(&manifest);
    Ok(true)
}

fn print(manifest: &Manifest) {
    for (name, table) in &manifest.tables {
        println!("{:>10}  {}  {name}", table.rows, &table.sha256[..16]);
    }
}
