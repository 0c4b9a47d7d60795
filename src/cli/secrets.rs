//! `tollgate secrets`: on the store itself, so that the first secrets can be set before anything runs.

use std::io::Read as _;

use super::args::{SecretsArgs, SecretsCommand};
use super::store::{settings, with};
use crate::base::{Secret, TenantId};
use crate::store::{Page, Store, whatever};

/// Longest secret that is read, in bytes.
const MAX_SECRET: u64 = 64 << 10;

pub(super) fn run(args: &SecretsArgs) -> Result<bool, String> {
    // Read before anything is opened: standard input may be a terminal.
    let value = match &args.command {
        SecretsCommand::Set { .. } => Some(read()?),
        _ => None,
    };
    let tenant = TenantId::new(args.tenant.as_str());
    with(settings(&args.store)?, async |store| {
        store.prepare().await.map_err(|e| e.to_string())?;
        work(args, store, &tenant, value).await.map_err(|e| e.to_string())
    })
}

async fn work(
    args: &SecretsArgs,
    store: &Store,
    tenant: &TenantId,
    value: Option<Secret<Vec<u8>>>,
) -> Result<bool, crate::store::StoreError> {
    let scope = store.tenant(tenant);
    match &args.command {
        SecretsCommand::List => {
            let mut after: Option<String> = None;
            loop {
                let page = scope.secrets(after.as_deref(), Page::of(Page::MAX)).await?;
                for secret in &page {
                    println!(
                        "{}  version {}  {}  {}",
                        secret.name, secret.version, secret.updated_at, secret.author
                    );
                }
                match page.last() {
                    Some(last) => after = Some(last.name.clone()),
                    None => return Ok(true),
                }
            }
        }
        SecretsCommand::Remove { name } => scope.remove_secret(name, whatever).await?,
        SecretsCommand::Rotate => {
            let id = store.rotate_master_key().await?;
            let moved = store.platform().rewrap().await?;
            println!("new master key {id}; {moved} values moved to it");
            eprintln!(
                "Give every replica the new keys before the next secret is set, and keep a copy elsewhere."
            );
        }
        SecretsCommand::Rewrap => {
            println!("{} values moved", store.platform().rewrap().await?);
        }
        SecretsCommand::Set { name } => {
            let put =
                scope.put_secret(name, &value.unwrap_or_default(), "tollgate secrets", whatever).await?;
            let info = put.into_row();
            println!("{} version {}", info.name, info.version);
        }
    }
    Ok(true)
}

fn read() -> Result<Secret<Vec<u8>>, String> {
    let mut value = Vec::new();
    std::io::stdin()
        .take(MAX_SECRET + 1)
        .read_to_end(&mut value)
        .map_err(|e| format!("standard input: {e}"))?;
    if value.ends_with(b"\n") {
        value.pop();
    }
    if value.is_empty() || value.len() as u64 > MAX_SECRET {
        return Err("a secret has 1 byte to 64 KiB; give it on standard input".to_owned());
    }
    Ok(Secret::new(value))
}
