//! Opens the store of a configuration, for commands that work on it directly.

use std::sync::Arc;

use super::args::StoreArgs;
use super::env;
use crate::app::{self, Document, Options};
use crate::base::Clock;
use crate::config::model;
use crate::store::{Store, StoreSettings};

/// The settings of the store that `tollgate serve` would use.
pub(super) fn settings(args: &StoreArgs) -> Result<StoreSettings, String> {
    let document = document(args)?;
    Ok(StoreSettings::new(&document.store, &document.data_dir))
}

/// The document that `tollgate serve` would use.
pub(super) fn document(args: &StoreArgs) -> Result<model::Document, String> {
    let document = match &args.config {
        Some(path) => Document::File(path.clone()),
        None => Document::Embedded,
    };
    let options = Options { env: Arc::new(env), data_dir: args.data_dir.clone(), ..Options::new(document) };
    let document =
        app::preview(&options).ok_or("the configuration has errors: `tollgate check` says which")?;
    std::fs::create_dir_all(&document.data_dir)
        .map_err(|e| format!("data_dir {}: {e}", document.data_dir.display()))?;
    Ok(document)
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
