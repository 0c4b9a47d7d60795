//! The command line. The only place that reads the environment.

mod admin_token;
mod args;
mod audit;
mod backup;
mod check;
mod explain;
mod health;
mod keys;
mod migrate;
mod prove;
mod remote;
mod secrets;
mod serve;
mod store;
mod whatif;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Args, Command, SchemaArgs};

/// Runs the command that the process was started with. Exit codes: 0 done, 1 failed or found errors, 2 wrong usage.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let done = match args.command {
        Command::AdminToken(args) => admin_token::run(&args),
        Command::Audit(audit) => audit::run(&audit),
        Command::Backup(args) => backup::backup(&args),
        Command::Check(check) => check::run(&check),
        Command::Explain(explain) => explain::run(&explain),
        Command::Health(health) => health::run(&health),
        Command::Keys(keys) => keys::run(&keys),
        Command::Migrate(migrate) => migrate::run(&migrate),
        Command::Prove(prove) => prove::run(&prove),
        Command::Restore(args) => backup::restore(&args),
        Command::Remote(command) => return remote::run(&command),
        Command::Schema(asked) => schema(&asked),
        Command::Secrets(secrets) => secrets::run(&secrets),
        Command::Serve(serve) => serve::run(&serve, serve.upgrade),
        Command::Upgrade(serve) => serve::run(&serve, true),
        Command::Whatif(whatif) => whatif::run(&whatif),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            // What was found in a document says so itself.
            let prefix =
                if message.starts_with("error[") || message.starts_with("warning[") { "" } else { "error: " };
            eprintln!("{prefix}{message}");
            ExitCode::FAILURE
        }
    }
}

fn schema(asked: &SchemaArgs) -> Result<bool, String> {
    use crate::control::{openapi, permission};
    if asked.reference {
        print!("{}", crate::config::reference());
    } else if asked.permissions {
        print!("{}", permission::page(&openapi::described()));
    } else if asked.openapi {
        print!("{}", String::from_utf8_lossy(openapi::text()));
    } else {
        let text = serde_json::to_string_pretty(crate::config::schema()).map_err(|e| e.to_string())?;
        println!("{text}");
    }
    Ok(true)
}

/// An environment variable.
fn env(name: &str) -> Option<String> {
    #[allow(clippy::disallowed_methods, reason = "this is the command line")]
    std::env::var(name).ok()
}
