//! What may be typed.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::control::extract::MAX_REASON;

/// An enterprise gateway for the Model Context Protocol.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, about, propagate_version = true)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Replace the admin token that the first start made.
    AdminToken(AdminTokenArgs),
    /// Verify, export and sign what the audit recorded.
    Audit(AuditArgs),
    /// Write everything in the store into one file that either database engine can be restored from.
    Backup(BackupArgs),
    /// Check a configuration and print everything that is wrong with it.
    Check(CheckArgs),
    /// Say which rule, limits and targets would apply to a request, and why.
    Explain(Box<ExplainArgs>),
    /// Ask a running gateway whether it is well; exit code 1 if not. For health checks of containers.
    Health(HealthArgs),
    /// Make API keys and their hashes.
    Keys(KeysArgs),
    /// Bring the tables of the store up to date, undo that, or show where they are.
    Migrate(MigrateArgs),
    /// Answer a question about a configuration for every request there could be.
    Prove(ProveArgs),
    /// Put a backup into an empty store. Refused while a gateway uses the store.
    Restore(RestoreArgs),
    /// Print the JSON Schema of the configuration, or another page that is generated from the program.
    Schema(SchemaArgs),
    /// Set, list and remove secrets in the store; rotate the key they are encrypted with.
    Secrets(SecretsArgs),
    #[command(flatten)]
    Remote(super::remote::Remote),
    /// Run the gateway. Without --config: an embedded default on 127.0.0.1 with a demo MCP server behind it.
    Serve(ServeArgs),
    /// Replace the running gateway without refusing a connection: takes its listening sockets over, then it drains.
    Upgrade(ServeArgs),
    /// Replay recorded requests against a configuration and list what would change.
    Whatif(WhatifArgs),
}

/// Which planes a process runs.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum Role {
    /// Both planes.
    All,
    /// The data plane only.
    Data,
    /// The control plane only.
    Control,
}

#[derive(Debug, clap::Args)]
pub(super) struct ProveArgs {
    #[command(subcommand)]
    pub(super) question: Question,
}

#[derive(Debug, Subcommand)]
pub(super) enum Question {
    /// What does a configuration allow that another did not?
    NewlyAllowed {
        /// Configuration file before.
        old: PathBuf,
        /// Configuration file after.
        new: PathBuf,
        /// Fail unless the answer is this: `nothing`.
        #[arg(long, value_parser = ["nothing"])]
        expect: Option<String>,
        /// How the answer is printed.
        #[arg(long, value_enum, default_value_t = Output::Text)]
        format: Output,
    },
    /// Which tools can be called by callers who prove nothing?
    Unauthenticated {
        /// Configuration file. Without it: the embedded default.
        #[arg(long, short, env = "TOLLGATE_CONFIG")]
        config: Option<PathBuf>,
        /// Only this route.
        #[arg(long)]
        route: Option<String>,
        /// Fail unless the answer is this: `nothing`.
        #[arg(long, value_parser = ["nothing"])]
        expect: Option<String>,
        /// How the answer is printed.
        #[arg(long, value_enum, default_value_t = Output::Text)]
        format: Output,
    },
    /// Who can call the tools that a pattern matches?
    WhoCanCall {
        /// Pattern of the tools' own names; `*` stands for any text.
        tools: String,
        /// Configuration file. Without it: the embedded default.
        #[arg(long, short, env = "TOLLGATE_CONFIG")]
        config: Option<PathBuf>,
        /// Only this route.
        #[arg(long)]
        route: Option<String>,
        /// Fail unless it is so: `nobody` can, `somebody` can (whatever expressions say), only `authenticated` callers
        /// can, or only callers with one of these roles: `roles:admin,super_admin`.
        #[arg(long)]
        expect: Option<String>,
        /// How the answer is printed.
        #[arg(long, value_enum, default_value_t = Output::Text)]
        format: Output,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct WhatifArgs {
    /// Configuration file to try.
    pub(super) candidate: PathBuf,
    /// Recorded requests, one JSON object a line. Without it: those that the store keeps (see `samples`).
    #[arg(long, value_name = "FILE")]
    pub(super) samples: Option<PathBuf>,
    /// From the store: requests of this tenant.
    #[arg(long, default_value = "default", conflicts_with = "samples")]
    pub(super) tenant: String,
    /// From the store: requests of so many hours before now.
    #[arg(long, default_value_t = 24, conflicts_with = "samples", value_parser = clap::value_parser!(u32).range(1..=8784))]
    pub(super) hours: u32,
    #[command(flatten)]
    pub(super) store: StoreArgs,
    /// Configuration file to compare with. Without it: what was recorded.
    #[arg(long, value_name = "FILE")]
    pub(super) baseline: Option<PathBuf>,
    /// Fail unless the answer is this: `nothing` changes.
    #[arg(long, value_parser = ["nothing"])]
    pub(super) expect: Option<String>,
    /// How the answer is printed.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(super) format: Output,
}

#[derive(Debug, clap::Args)]
#[group(multiple = false)]
pub(super) struct SchemaArgs {
    /// Print the reference page (Markdown) instead.
    #[arg(long)]
    pub(super) reference: bool,
    /// Print the OpenAPI description of the control API instead.
    #[arg(long)]
    pub(super) openapi: bool,
    /// Print the table of permissions (Markdown) instead.
    #[arg(long)]
    pub(super) permissions: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    /// Configuration file (YAML). Watched; SIGHUP reloads it, too.
    #[arg(long, short, env = "TOLLGATE_CONFIG")]
    pub(super) config: Option<PathBuf>,
    /// Which planes this process runs. `data` serves MCP clients, `control` the API; apart they need `source: database` on
    /// PostgreSQL.
    #[arg(long, value_enum, default_value_t = Role::All, env = "TOLLGATE_ROLE")]
    pub(super) role: Role,
    /// Listen here for MCP clients, whatever the configuration says. Port 0 takes any free one.
    #[arg(long, value_name = "ADDRESS")]
    pub(super) listen: Option<SocketAddr>,
    /// Listen here for operators, whatever the configuration says.
    #[arg(long, value_name = "ADDRESS")]
    pub(super) admin: Option<SocketAddr>,
    /// Keep keys and state here, whatever the configuration says.
    #[arg(long, value_name = "FOLDER", env = "TOLLGATE_DATA_DIR")]
    pub(super) data_dir: Option<PathBuf>,
    /// Take the sockets of the gateway that runs on the same data folder over, as `tollgate upgrade` does.
    #[arg(long, hide = true)]
    pub(super) upgrade: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// Configuration file. Without it: the embedded default.
    #[arg(env = "TOLLGATE_CONFIG")]
    pub(super) config: Option<PathBuf>,
    /// How findings are printed.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(super) format: Output,
    /// Fail on warnings, too.
    #[arg(long)]
    pub(super) strict: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    Json,
    Text,
}

#[derive(Debug, clap::Args)]
pub(super) struct ExplainArgs {
    /// Name of the route; `<tenant>/<route>` for those of tenants.
    pub(super) route: String,
    /// Configuration file. Without it: the embedded default.
    #[arg(long, short, env = "TOLLGATE_CONFIG")]
    pub(super) config: Option<PathBuf>,
    /// Role of the caller (super_admin, admin, server_owner, developer, viewer, anonymous); may be given several times.
    #[arg(long = "as", value_name = "ROLE", required = true)]
    pub(super) roles: Vec<String>,
    /// Stable id of the caller, such as `corp|alice`.
    #[arg(long, default_value = "someone")]
    pub(super) principal: String,
    /// Kind of the caller: user, service, key or anonymous.
    #[arg(long, default_value = "user")]
    pub(super) kind: String,
    /// Group of the caller; may be given several times.
    #[arg(long = "group")]
    pub(super) groups: Vec<String>,
    /// Scope of the caller's token; may be given several times.
    #[arg(long = "scope")]
    pub(super) scopes: Vec<String>,
    /// Claims of the caller's token, as JSON.
    #[arg(long)]
    pub(super) claims: Option<String>,
    /// Address of the caller.
    #[arg(long, default_value = "127.0.0.1")]
    pub(super) ip: IpAddr,
    /// Tool that is called.
    #[arg(long, conflicts_with_all = ["prompt", "resource"])]
    pub(super) tool: Option<String>,
    /// Prompt that is asked for.
    #[arg(long, conflicts_with = "resource")]
    pub(super) prompt: Option<String>,
    /// Resource (URI) that is read.
    #[arg(long)]
    pub(super) resource: Option<String>,
    /// JSON-RPC method. Default: the one that reaches the tool, prompt or resource; otherwise `tools/list`.
    #[arg(long)]
    pub(super) method: Option<String>,
    /// Arguments of the call, as JSON.
    #[arg(long)]
    pub(super) arguments: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct HealthArgs {
    /// What to ask: `/healthz` or `/readyz` of the admin listener, or `/healthz` of the MCP listener. Without `http://` or
    /// `https://` it is asked as the listener speaks.
    #[arg(default_value = "127.0.0.1:9090/healthz")]
    pub(super) url: String,
    /// Authorities for https (PEM); default: those of the system. A listener on this machine itself (a loopback address) need
    /// not show a certificate that is for that address.
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// Seconds to wait for the answer.
    #[arg(long, default_value_t = 3)]
    pub(super) timeout: u64,
}

#[derive(Debug, clap::Args)]
pub(super) struct KeysArgs {
    #[command(subcommand)]
    pub(super) command: KeysCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Make an API key. Prints it once, and the record to add to the file of `identity.api_keys`.
    New {
        /// Role of the key; may be given several times.
        #[arg(long = "role", required = true)]
        roles: Vec<String>,
        /// Stable id of whoever uses the key. Default: `key|<id>`.
        #[arg(long)]
        principal: Option<String>,
        /// Note for people.
        #[arg(long)]
        note: Option<String>,
        /// Environment variable with the pepper of `identity.api_keys.pepper`, if there is one.
        #[arg(long, value_name = "VARIABLE")]
        pepper_env: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct MigrateArgs {
    #[command(subcommand)]
    pub(super) command: MigrateCommand,
    #[command(flatten)]
    pub(super) store: StoreArgs,
}

/// Which store.
#[derive(Debug, clap::Args)]
pub(super) struct StoreArgs {
    /// Configuration file. Without it: the embedded default.
    #[arg(long, short, env = "TOLLGATE_CONFIG", global = true)]
    pub(super) config: Option<PathBuf>,
    /// The data folder, whatever the configuration says.
    #[arg(long, value_name = "FOLDER", env = "TOLLGATE_DATA_DIR", global = true)]
    pub(super) data_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum MigrateCommand {
    /// Undo every migration after this one. Data in the tables that go is lost. Refused while a gateway uses the store.
    Down {
        /// Number of the last migration to keep; 0 for none.
        #[arg(long)]
        to: i64,
        /// Even while a gateway uses the store, whose statements fail then.
        #[arg(long)]
        force: bool,
    },
    /// Print the SQL that a DBA runs once on PostgreSQL, before anything else.
    Roles {
        /// The role that Tollgate logs in with.
        #[arg(long, default_value = "tollgate")]
        login: String,
        /// The database.
        #[arg(long, default_value = "tollgate")]
        database: String,
    },
    /// Show each migration and when it was applied. Changes nothing. Exit code 1 if there is no store yet, or if not every
    /// migration is `applied`: one is `pending`, `changed` (applied with another text) or `unknown` (of a newer version).
    Status,
    /// Apply what is missing.
    Up,
}

#[derive(Debug, clap::Args)]
pub(super) struct AuditArgs {
    #[command(subcommand)]
    pub(super) command: AuditCommand,
    #[command(flatten)]
    pub(super) store: StoreArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct AdminTokenArgs {
    #[command(subcommand)]
    pub(super) command: AdminTokenCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum AdminTokenCommand {
    /// Make another one on the store itself, for when the old one is lost. Written to `admin.token` in the data folder. A
    /// running gateway accepts it within two seconds, and the old one no more.
    Reset {
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Ask a running gateway for another one. The old one is refused at once. The new one replaces the file that the old
    /// one was read from, and is printed if it came from elsewhere.
    Rotate {
        #[command(flatten)]
        api: super::remote::ApiArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Sign a checkpoint over all chains of a tenant, and print it. Keep it elsewhere, for `verify --since`.
    Checkpoint {
        /// Whose chains.
        #[arg(long, default_value = "default")]
        tenant: String,
    },
    /// Erase what events of a principal say, in the store. The log can still be verified; that it was done is recorded.
    Erase {
        /// Whose log.
        #[arg(long, default_value = "default")]
        tenant: String,
        /// Whose events: the whole principal id, such as `corp|alice`.
        #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
        principal: String,
        /// Why. Recorded.
        #[arg(long, value_parser = reason)]
        reason: Option<String>,
    },
    /// Write a tenant's events to standard output.
    Export {
        /// Whose events.
        #[arg(long, default_value = "default")]
        tenant: String,
        /// `jsonl`, which can be verified, `csv` or `cef`.
        #[arg(long, default_value = "jsonl")]
        format: String,
        /// From this time on, such as 2026-01-31T00:00:00Z.
        #[arg(long)]
        from: Option<String>,
        /// Before this time.
        #[arg(long)]
        to: Option<String>,
        /// Only what this caller did; of other events the export has the commitment.
        #[arg(long)]
        principal: Option<String>,
        /// With recorded bodies (JSON lines only), which over the API only auditors read. That it was done is recorded.
        /// Without this, of events that have some the export has the commitment.
        #[arg(long)]
        bodies: bool,
        /// Why bodies are exported. Recorded.
        #[arg(long, requires = "bodies", value_parser = reason)]
        reason: Option<String>,
    },
    /// Print the public key that checkpoints and exports are verified with; makes the key if there is none.
    Key,
    /// Prove an export (JSON lines): finds any edit, removal, insertion, reordering and truncation. Needs no store.
    Verify {
        /// The export.
        file: PathBuf,
        /// The trusted public key, as `tollgate audit key` prints it. May be repeated.
        #[arg(long, required = true)]
        key: Vec<String>,
        /// A checkpoint that was kept elsewhere: finds a store that was rolled back.
        #[arg(long, value_name = "FILE")]
        since: Option<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct BackupArgs {
    /// Where to write it.
    pub(super) file: PathBuf,
    #[command(flatten)]
    pub(super) store: StoreArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct RestoreArgs {
    /// A file that `tollgate backup` wrote.
    pub(super) file: PathBuf,
    /// Remove everything that is in the store first, in the same transaction: if it fails, nothing was removed.
    #[arg(long)]
    pub(super) erase: bool,
    /// Even while a gateway uses the store.
    #[arg(long)]
    pub(super) force: bool,
    #[command(flatten)]
    pub(super) store: StoreArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct SecretsArgs {
    #[command(subcommand)]
    pub(super) command: SecretsCommand,
    /// Whose secrets; `default` if not said. Not for `rewrap` and `rotate`, which are for the whole store.
    #[arg(long, global = true)]
    pub(super) tenant: Option<String>,
    #[command(flatten)]
    pub(super) store: StoreArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum SecretsCommand {
    /// Show names and versions, never values.
    List,
    /// Forget a secret. Refused while the tenant's document names it, or the candidate of its canary.
    Remove {
        /// Its name.
        name: String,
        /// Even if the document names it, which then does not compile any more.
        #[arg(long)]
        force: bool,
    },
    /// Move every value to the newest master key, as after adding one by hand.
    Rewrap,
    /// Make a new master key in the key file, and move every value to it.
    Rotate,
    /// Set a secret to what is on standard input, without the line break at its end.
    Set {
        /// Its name, as in `${secret:name}`.
        name: String,
    },
}

/// Why something is done, as it can be kept: one line of bounded length, as the API takes it.
pub(super) fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.chars().count() > MAX_REASON || text.chars().any(char::is_control) {
        return Err(format!(
            "a reason is one line of at most {MAX_REASON} characters, without line breaks and other control characters"
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line() {
        assert_eq!(reason(" öffnet um 9 \n").as_deref(), Ok("öffnet um 9"));
        assert_eq!(reason("").as_deref(), Ok(""));
        for bad in ["subject\n\nbody".to_owned(), "a\tb".to_owned(), "x".repeat(MAX_REASON + 1)] {
            let refused = reason(&bad).unwrap_err();
            assert!(refused.contains("one line") && refused.contains("500"), "{refused}");
        }
    }
}
