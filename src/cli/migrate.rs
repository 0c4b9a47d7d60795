//! `tollgate migrate`.

use super::args::{MigrateArgs, MigrateCommand};
use super::store::{settings, with};
use crate::store::{MigrationState, roles_sql};

pub(super) fn run(args: &MigrateArgs) -> Result<bool, String> {
    if let MigrateCommand::Roles { login, database } = &args.command {
        print!("{}", roles_sql(login, database));
        return Ok(true);
    }
    with(settings(&args.store)?, async |store| {
        let failed = |error: crate::store::StoreError| error.to_string();
        match args.command {
            MigrateCommand::Down { to } => {
                for name in store.migrate_down(to).await.map_err(failed)? {
                    println!("undone {name}");
                }
                Ok(true)
            }
            MigrateCommand::Roles { .. } => Ok(true),
            MigrateCommand::Status => {
                let list = store.migrations().await.map_err(failed)?;
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
            MigrateCommand::Up => {
                for name in store.migrate_up().await.map_err(failed)? {
                    println!("applied {name}");
                }
                Ok(true)
            }
        }
    })
}
