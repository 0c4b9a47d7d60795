//! `tollgate secrets`: on the store itself, so that the first secrets can be set before anything runs.

use std::io::Read as _;

use clap::CommandFactory as _;
use clap::error::ErrorKind;

use super::args::{Args, SecretsArgs, SecretsCommand};
use super::counted;
use super::store::{author, existing, record, settings, with};
use crate::base::{Secret, TenantId};
use crate::config::model::Name;
use crate::store::{Page, SecretUse, Store, StoreError, whatever};

/// Longest secret that is read, in bytes.
const MAX_SECRET: u64 = 64 << 10;
/// What the audit and the history call this command.
const COMMAND: &str = "tollgate secrets";

pub(super) fn run(args: &SecretsArgs) -> Result<bool, String> {
    // Read before anything is opened: standard input may be a terminal.
    let value = match &args.command {
        SecretsCommand::Set { name } => {
            named("the name", name)?;
            if let Some(tenant) = &args.tenant {
                named("--tenant", tenant)?;
            }
            Some(read()?)
        }
        SecretsCommand::Rewrap | SecretsCommand::Rotate if args.tenant.is_some() => {
            let why = "--tenant is not for `rewrap` and `rotate`: the master key is that of all tenants";
            Args::command().error(ErrorKind::ArgumentConflict, why).exit()
        }
        _ => None,
    };
    let tenant = args.tenant.as_deref().map_or_else(TenantId::default, TenantId::new);
    let settings = match &args.command {
        SecretsCommand::Set { .. } => settings(&args.store)?,
        _ => existing(&args.store)?.1,
    };
    with(settings, async |store| {
        store.prepare().await.map_err(text)?;
        match &args.command {
            SecretsCommand::List => list(store, &tenant).await?,
            SecretsCommand::Remove { name, force } => remove(store, &tenant, name, *force).await?,
            SecretsCommand::Rewrap => {
                let moved = store.platform().rewrap().await.map_err(text)?;
                println!("{} moved", counted(moved, "value"));
                act(store, &TenantId::default(), "rewrap_secrets", "secrets").await?;
            }
            SecretsCommand::Rotate => rotate(store).await?,
            SecretsCommand::Set { name } => set(store, &tenant, name, &value.unwrap_or_default()).await?,
        }
        Ok(true)
    })
}

async fn list(store: &Store, tenant: &TenantId) -> Result<(), String> {
    let scope = store.tenant(tenant);
    let mut after: Option<String> = None;
    loop {
        let page = scope.secrets(after.as_deref(), Page::of(Page::MAX)).await.map_err(text)?;
        for secret in &page {
            println!("{}  version {}  {}  {}", secret.name, secret.version, secret.updated_at, secret.author);
        }
        match page.last() {
            Some(last) => after = Some(last.name.clone()),
            None => return Ok(()),
        }
    }
}

/// Why a secret stays.
enum Kept {
    InUse(SecretUse),
    Store(StoreError),
}

impl From<StoreError> for Kept {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

async fn remove(store: &Store, tenant: &TenantId, name: &str, force: bool) -> Result<(), String> {
    let scope = store.tenant(tenant);
    let removed = scope.remove_secret(name, |_, uses| match uses.first() {
        Some(used) if !force => Err(Kept::InUse(used.clone())),
        _ => Ok(()),
    });
    removed.await.map_err(|kept| match kept {
        Kept::InUse(SecretUse { revision, tried, place }) => {
            let which = if tried { ", which its canary tries," } else { "" };
            format!(
                "secret `{name}` is in use: revision {revision} of the document of tenant `{tenant}`{which} names it at `{place}`. Without it the document does not compile; change the document first, or say --force"
            )
        }
        Kept::Store(StoreError::Missing(_)) => format!("there is no secret `{name}` of tenant `{tenant}`"),
        Kept::Store(error) => text(error),
    })?;
    println!("{name} removed");
    act(store, tenant, "delete_secret", &format!("secrets/{name}")).await
}

async fn rotate(store: &Store) -> Result<(), String> {
    let id = store.rotate_master_key().await.map_err(|e| format!("{e}; no key was made"))?;
    let moved = store.platform().rewrap().await.map_err(|e| {
        format!(
            "{e}; the new master key {id} is there, and `tollgate secrets rewrap` moves what is left to it"
        )
    })?;
    println!("new master key {id}; {} moved to it", counted(moved, "value"));
    eprintln!("Give every replica the new keys before the next secret is set, and keep a copy elsewhere.");
    act(store, &TenantId::default(), "rotate_master_key", &format!("master-keys/{id}")).await
}

async fn set(store: &Store, tenant: &TenantId, name: &str, value: &Secret<Vec<u8>>) -> Result<(), String> {
    // No tenant may have this name.
    let is_one = tenant.as_str() != "platform";
    if !is_one || !store.platform().knows_tenant(tenant).await.map_err(text)? {
        return Err(format!("--tenant: there is no tenant `{tenant}`"));
    }
    let put = store.tenant(tenant).put_secret(name, value, &author(COMMAND), whatever).await.map_err(text)?;
    let info = put.into_row();
    println!("{} version {}", info.name, info.version);
    act(store, tenant, "put_secret", &format!("secrets/{name}")).await
}

async fn act(store: &Store, tenant: &TenantId, action: &str, object: &str) -> Result<(), String> {
    record(store, COMMAND, tenant, action, object).await.map_err(|e| format!("it is done, but {e}"))
}

/// As the API wants names.
fn named(what: &str, name: &str) -> Result<(), String> {
    name.parse::<Name>().map(drop).map_err(|bad| {
        let hint = bad.hint.as_ref().map_or_else(String::new, |hint| format!("; {hint}"));
        format!("{what} `{}`: {bad}{hint}", name.escape_debug())
    })
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

fn text(error: StoreError) -> String {
    error.to_string()
}
