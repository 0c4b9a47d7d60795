//! `tollgate admin-token`.

use super::args::{AdminTokenArgs, AdminTokenCommand};
use super::remote;
use super::store::{document, record, with};
use crate::base::TenantId;
use crate::control::bootstrap;
use crate::store::StoreSettings;

pub(super) fn run(args: &AdminTokenArgs) -> Result<bool, String> {
    match &args.command {
        AdminTokenCommand::Rotate { api } => remote::rotate_admin_token(api),
        AdminTokenCommand::Reset { store } => {
            let document = document(store)?;
            let settings = StoreSettings::new(&document.store, &document.data_dir);
            let made = with(settings, async |store| {
                store.prepare().await.map_err(|e| e.to_string())?;
                let made = bootstrap::reset(store, &document.data_dir).await.map_err(|e| e.to_string())?;
                let (command, whose) = ("tollgate admin-token", TenantId::default());
                record(store, command, &whose, "reset_admin_token", "admin-token")
                    .await
                    .map_err(|e| format!("the new admin token is in {}, but {e}", made.path.display()))?;
                Ok(made)
            })?;
            println!("the new admin token is in {}", made.path.display());
            Ok(true)
        }
    }
}
