//! What may be typed for the commands that speak to a running gateway.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::args::reason;

/// Where the API is and by what it is asked.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct ApiArgs {
    /// Address of the admin listener.
    #[arg(long, env = "TOLLGATE_API", default_value = "http://127.0.0.1:9090", value_name = "URL")]
    pub(super) api: String,
    /// PEM of the authorities that may have signed its certificate, if it speaks TLS. Default: those of the system.
    #[arg(long, value_name = "FILE", env = "TOLLGATE_API_CA")]
    pub(super) ca: Option<PathBuf>,
    /// File with the token. Without it: TOLLGATE_TOKEN, or the token that the first start left in the data folder.
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// Data folder of the gateway, where its token is looked for.
    #[arg(long, value_name = "FOLDER", env = "TOLLGATE_DATA_DIR", default_value = "./data")]
    pub(super) data_dir: PathBuf,
}

/// Whose document.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct ScopeArgs {
    /// The tenant whose document is meant.
    #[arg(long, default_value = "default", conflicts_with = "platform")]
    pub(super) tenant: String,
    /// The platform's document: which tenants there are and what they may do.
    #[arg(long)]
    pub(super) platform: bool,
    #[command(flatten)]
    pub(super) api: ApiArgs,
}

/// Commands about documents of the store.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Remote {
    /// Bring a file's documents into the store, as new revisions: all of them or none. Exit codes: 0 done or nothing to do,
    /// 1 refused, 3 the head was not at --if-revision, 4 not every replica took it up while --wait lasted.
    Apply(ApplyArgs),
    /// Try a revision on a share of callers or replicas before it becomes the head; it is rolled back by itself if it fails.
    Canary(super::canary::CanaryArgs),
    /// Say what differs: between two revisions, between a revision and the head, or between a file's document and the head.
    Diff {
        /// The older revision; 0 is the document that says nothing. Or a file with one document, or a whole configuration;
        /// `-` reads standard input.
        from: String,
        /// The newer revision. Default: the head.
        to: Option<i64>,
        /// Compare the file with this revision instead of the head.
        #[arg(long, value_name = "N", conflicts_with = "to")]
        with: Option<i64>,
        /// Make the exit code the answer: 0 no difference, 1 some. Without this it is 0 in both cases.
        #[arg(long)]
        exit_code: bool,
        #[command(flatten)]
        scope: ScopeArgs,
    },
    /// Compare a file's documents with those of the store, without changing anything. Exit codes: 0 no difference, 1 some.
    Drift {
        /// The file.
        file: PathBuf,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Print the document that is at the head: exactly the bytes of the store.
    Export {
        #[command(flatten)]
        scope: ScopeArgs,
    },
    /// List revisions, the newest first.
    History {
        /// How many.
        #[arg(long, default_value_t = 20)]
        limit: u32,
        #[command(flatten)]
        scope: ScopeArgs,
    },
    /// Publish an earlier revision's document again. Exit codes as those of `apply`.
    Rollback {
        /// The revision.
        revision: i64,
        #[command(flatten)]
        how: PublishArgs,
        #[command(flatten)]
        scope: ScopeArgs,
    },
    /// Print one revision's document.
    Show {
        /// The revision.
        revision: i64,
        #[command(flatten)]
        scope: ScopeArgs,
    },
    /// Show the replicas, the revision each serves and what it refused. Exit codes: 0 all serve the heads, 4 some do not.
    Status {
        /// Show the database instead: its size, its largest tables, and the statements that cost most.
        #[arg(long)]
        database: bool,
        #[command(flatten)]
        api: ApiArgs,
    },
}

/// How something is published.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct PublishArgs {
    /// Only if the head is at this revision; 0: if nothing was published yet.
    #[arg(long, value_name = "N")]
    pub(super) if_revision: Option<i64>,
    /// Why. Kept with the revision.
    #[arg(long, default_value = "", value_parser = reason)]
    pub(super) reason: String,
    /// Wait until every live replica serves it, at most so many seconds (10 if no number is given).
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "10")]
    pub(super) wait: Option<u64>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ApplyArgs {
    /// The file: a whole configuration, or with --tenant the document of one tenant. `-` reads standard input.
    pub(super) file: PathBuf,
    /// Only say what would happen.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// The file is the document of this tenant.
    #[arg(long, conflicts_with = "platform")]
    pub(super) tenant: Option<String>,
    /// The file is the document of the platform.
    #[arg(long)]
    pub(super) platform: bool,
    #[command(flatten)]
    pub(super) how: PublishArgs,
    #[command(flatten)]
    pub(super) api: ApiArgs,
}
