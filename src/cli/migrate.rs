//! `tollgate migrate`.

use super::args::{MigrateArgs, MigrateCommand};
use super::store::{alone, document, look, record, records, with};
use crate::base::TenantId;
use crate::store::{MigrationState, Store, StoreError, StoreSettings, roles_sql};

pub(super) fn run(args: &MigrateArgs) -> Result<bool, String> {
    if let MigrateCommand::Roles { login, database } = &args.command {
        print!("{}", roles_sql(login, database));
        return Ok(true);
    }
    let applies = matches!(args.command, MigrateCommand::Up);
    let document = if applies { document(&args.store)? } else { look(&args.store)? };
    let settings = StoreSettings::new(&document.store, &document.data_dir);
    if let Some(path) = settings.missing().filter(|_| !applies) {
        println!("there is no store yet: {} is made when Tollgate first starts", path.display());
        return Ok(false);
    }
    with(settings, async |store| match args.command {
        MigrateCommand::Down { to, force } => {
            let held = if force { None } else { alone(store, &document.data_dir).await? };
            let done = down(store, to).await;
            drop(held);
            done
        }
        MigrateCommand::Roles { .. } => Ok(true),
        MigrateCommand::Status => status(store).await,
        MigrateCommand::Up => up(store).await,
    })
}

async fn down(store: &Store, to: i64) -> Result<bool, String> {
    let list = store.migrations().await.map_err(text)?;
    if to != 0 && list.iter().all(|m| m.version != to) {
        return Err(format!("--to {to}: there is no such migration; `tollgate migrate status` lists all"));
    }
    if !list.iter().any(|m| m.version > to && m.applied_at.is_some()) {
        println!("nothing to undo: no later migration is applied");
        return Ok(true);
    }
    // Before: where the audit is undone with the rest, it has been said at least.
    if records(store).await? {
        act(store, "migrate_down", &format!("migrations after {to}")).await?;
    } else {
        eprintln!("This is not recorded in the audit: its tables are not those of this version.");
    }
    for name in store.migrate_down(to).await.map_err(text)? {
        println!("undone {name}");
    }
    Ok(true)
}

async fn status(store: &Store) -> Result<bool, String> {
    let list = store.migrations().await.map_err(text)?;
    for migration in &list {
        let state = match migration.state {
            MigrationState::Applied => "applied",
            MigrationState::Changed => "changed",
            MigrationState::Pending => "pending",
            MigrationState::Unknown => "unknown",
        };
        let at = migration.applied_at.map(|at| at.to_string()).unwrap_or_default();
        println!("{state:<8} {:<40} {at}", migration.name);
    }
    Ok(list.iter().all(|m| m.state == MigrationState::Applied))
}

async fn up(store: &Store) -> Result<bool, String> {
    let list = store.migrations().await.map_err(text)?;
    // One that is empty stays so: a backup may be to come.
    let is_new = list.iter().all(|m| m.applied_at.is_none());
    let done = store.migrate_up().await.map_err(text)?;
    for name in &done {
        println!("applied {name}");
    }
    if done.is_empty() {
        println!("nothing to do: every migration is applied");
    } else if !is_new {
        act(store, "migrate_up", &done.join(" ")).await?;
    }
    Ok(true)
}

async fn act(store: &Store, action: &str, object: &str) -> Result<(), String> {
    record(store, "tollgate migrate", &TenantId::default(), action, object).await
}

fn text(error: StoreError) -> String {
    error.to_string()
}
