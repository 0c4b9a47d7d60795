//! Opens the store of a configuration, for commands that work on it directly.

use std::path::Path;
use std::sync::Arc;

use super::args::StoreArgs;
use super::env;
use crate::app::{self, Document, Occupied, Options, StartError};
use crate::base::{Clock, TenantId};
use crate::config::model;
use crate::source::replica::LIVE;
use crate::store::{MigrationState, Store, StoreSettings};

/// The migration that makes the table of replicas.
const REPLICAS: &str = "0004_replicas";

/// The settings of the store that `tollgate serve` would use, which it may not have made yet.
pub(super) fn settings(args: &StoreArgs) -> Result<StoreSettings, String> {
    let document = document(args)?;
    Ok(StoreSettings::new(&document.store, &document.data_dir))
}

/// The same for a command that reads what is there: it makes nothing, and no store is an error.
pub(super) fn existing(args: &StoreArgs) -> Result<(model::Document, StoreSettings), String> {
    let document = look(args)?;
    let settings = StoreSettings::new(&document.store, &document.data_dir);
    match settings.missing() {
        Some(path) => {
            Err(format!("there is no store yet: {} is made when Tollgate first starts", path.display()))
        }
        None => Ok((document, settings)),
    }
}

/// The document that `tollgate serve` would use, whose data folder is made if it is not there.
pub(super) fn document(args: &StoreArgs) -> Result<model::Document, String> {
    let document = look(args)?;
    app::make_data_dir(&document.data_dir).map_err(|e| e.to_string())?;
    Ok(document)
}

/// The document that `tollgate serve` would use. Makes nothing.
pub(super) fn look(args: &StoreArgs) -> Result<model::Document, String> {
    let document = match &args.config {
        Some(path) => Document::File(path.clone()),
        None => Document::Embedded,
    };
    let options = Options { env: Arc::new(env), data_dir: args.data_dir.clone(), ..Options::new(document) };
    app::preview(&options).map_err(|found| found.to_string())
}

/// Fails while a gateway uses the store. What is given keeps one from starting on the data folder meanwhile.
pub(super) async fn alone(store: &Store, data_dir: &Path) -> Result<Option<Occupied>, String> {
    const HOW: &str = "end it first, or say --force";
    // Where there is none, as with PostgreSQL before the first start, nobody runs on it.
    let folder = data_dir.exists().then(|| Occupied::new(data_dir)).transpose().map_err(|e| match e {
        StartError::Occupied { path, process } => {
            format!("a gateway runs on the data folder {} (process {process}): {HOW}", path.display())
        }
        other => other.to_string(),
    })?;
    let list = store.migrations().await.map_err(|e| e.to_string())?;
    let has_table = |m: &crate::store::MigrationStatus| m.name == REPLICAS && m.applied_at.is_some();
    if !list.iter().any(has_table) {
        return Ok(folder);
    }
    let live = store.platform().replicas(LIVE).await.map_err(|e| e.to_string())?;
    if live.is_empty() {
        return Ok(folder);
    }
    let now = store.now();
    let list: Vec<String> = live
        .iter()
        .map(|r| {
            let ago = now.since(r.seen_at).as_secs();
            format!("replica `{}` (role {}, version {}, heard of {ago} s ago)", r.replica, r.role, r.version)
        })
        .collect();
    Err(format!("the store is in use by {}: {HOW}", list.join(", ")))
}

/// Records in the operator's audit what a command did to the store.
pub(super) async fn record(
    store: &Store,
    command: &str,
    tenant: &TenantId,
    action: &str,
    object: &str,
) -> Result<(), String> {
    let done = app::audit_record(store, tenant, action, Some(object), &author(command), None).await;
    done.map_err(|e| format!("it is not recorded in the audit: {e}"))
}

/// Whether something can be recorded: the tables of the audit are there, and those of this program.
pub(super) async fn records(store: &Store) -> Result<bool, String> {
    let list = store.migrations().await.map_err(|e| e.to_string())?;
    let known = |state| matches!(state, MigrationState::Applied | MigrationState::Changed);
    Ok(list.iter().all(|m| known(m.state)))
}

/// Who works on the store with a command, for its audit and history.
pub(super) fn author(command: &str) -> String {
    format!("{command} ({})", user())
}

/// The user of the operating system that runs the command.
fn user() -> String {
    let id = rustix::process::getuid().as_raw();
    let named = |line: &str| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(id)).then(|| name.to_owned())
    };
    let list = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    list.lines().find_map(named).unwrap_or_else(|| format!("user {id}"))
}

/// Runs `work` on a store that connects when it is first used.
pub(super) fn with<T>(
    settings: StoreSettings,
    work: impl AsyncFnOnce(&Store) -> Result<T, String>,
) -> Result<T, String> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start threads: {e}"))?;
    runtime.block_on(async {
        let store = Store::open(settings, Clock::default(), Arc::new(env)).map_err(|e| e.to_string())?;
        let done = work(&store).await;
        store.close().await;
        done
    })
}
