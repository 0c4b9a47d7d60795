//! The store: where configuration, identities, audit and usage are kept.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::SecretText;
use super::units::Period;

/// Where configuration, identities, audit and usage are kept. Changes need a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// Which database: `postgres://user:password@host/database?sslmode=verify-full&sslrootcert=/path/ca.pem` or
    /// `sqlite:/path/file.db`. Without it: SQLite in `tollgate.db` in `data_dir`, which serves one process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<SecretText>,
    /// Connections to PostgreSQL at once. A few more, at most eight, are used for notifications and for electing leaders.
    #[schemars(range(min = 2, max = 1000))]
    pub max_connections: u32,
    /// Connections that read SQLite at once. There is always one that writes.
    #[schemars(range(min = 2, max = 64))]
    pub readers: u32,
    /// Longest wait for a free connection, or for a new one to be made.
    pub connect_timeout: Period,
    /// Longest that one statement may run. Migrations and backups are not bound by it.
    pub statement_timeout: Period,
    /// How often documents and identities are looked at without a notification, give or take a fifth; from 250 ms to a
    /// minute. On PostgreSQL a change is notified and this is the fallback.
    pub poll: Period,
    /// Who brings the tables up to date.
    pub migrate: MigrateWhen,
    /// How long what was is kept. What requests and actions were is `audit.retention`.
    pub retention: HistoryRetention,
    /// Where the keys come from that secrets are encrypted with. Without it: `master.key` in `data_dir`, made at the
    /// first start. Replicas that share a database need the same keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            url: None,
            max_connections: 10,
            readers: 4,
            connect_timeout: Period::from_secs(5),
            statement_timeout: Period::from_secs(30),
            poll: Period::from_secs(2),
            migrate: MigrateWhen::default(),
            retention: HistoryRetention::default(),
            encryption: None,
        }
    }
}

/// How long what was is kept in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HistoryRetention {
    /// Days that health by hour and changes of targets' states stay; on PostgreSQL whole months go. `0`: for ever.
    #[schemars(range(min = 0, max = 36_500))]
    pub health_days: u32,
    /// Days that health by minute stays. `0`: for ever.
    #[schemars(range(min = 0, max = 36_500))]
    pub health_minute_days: u32,
    /// Days that usage and performance by hour stay; on PostgreSQL whole months go. Usage by day stays. `0`: for ever.
    #[schemars(range(min = 0, max = 36_500))]
    pub usage_hour_days: u32,
    /// Days that the feed of changes to users, keys and roles goes back. A replica that was away for longer reads all of
    /// them anew. What a live replica has not read yet stays, however old.
    #[schemars(range(min = 1, max = 36_500))]
    pub identity_days: u32,
}

impl Default for HistoryRetention {
    fn default() -> Self {
        Self { health_days: 90, health_minute_days: 14, usage_hour_days: 0, identity_days: 7 }
    }
}

/// Who brings the tables up to date.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MigrateWhen {
    /// Every process at its start; one does it, the others wait.
    #[default]
    AtStart,
    /// An operator with `tollgate migrate up`. A process does not start on older tables.
    Manual,
}

/// Where master keys come from: exactly one of these. Each gives lines of `id base64`, the last of which seals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encryption {
    /// A command and its arguments that prints the keys, such as the client of a key management service. It gets 10 s.
    KeyCommand(Vec<String>),
    /// An environment variable of the gateway with the keys, separated by commas.
    KeyEnv(String),
    /// A file with the keys.
    KeyFile(PathBuf),
}
