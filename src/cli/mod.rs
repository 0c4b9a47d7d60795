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
    if !matches!(args.command, Command::Serve(_) | Command::Upgrade(_)) {
        end_with_the_pipe();
    }
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

/// A command whose output nobody reads any more ends like other programs do (`tollgate schema | head -1`), with the exit
/// code that a shell gives for SIGPIPE. The runtime ignores that signal, and printing panics instead; to take the signal
/// itself back needs `unsafe`. A gateway goes on: its log is not its purpose.
fn end_with_the_pipe() {
    const CLOSED: i32 = 128 + 13;
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let said = panic.payload().downcast_ref::<String>().map_or("", String::as_str);
        if said.starts_with("failed printing to std") && said.contains("Broken pipe") {
            std::process::exit(CLOSED);
        }
        others(panic);
    }));
}

/// So many of something: "1 event", "2 events".
fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
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
