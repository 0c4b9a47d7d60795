//! What the store is opened with.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::{Engine, StoreError};
use crate::base::Secret;
use crate::config::model::{self, Encryption, MigrateWhen};

/// The database's file in the data folder, if nothing else is configured.
pub const DATABASE_FILE: &str = "tollgate.db";

/// What the store is opened with.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// Which database; none: SQLite in the data folder.
    pub url: Option<Secret<String>>,
    /// The data folder. Must exist.
    pub data_dir: PathBuf,
    /// Connections to PostgreSQL.
    pub max_connections: u32,
    /// Connections that read SQLite.
    pub readers: u32,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest that a statement may run.
    pub statement_timeout: Duration,
    /// Who brings the tables up to date.
    pub migrate: MigrateWhen,
    /// Where master keys come from.
    pub encryption: Option<Encryption>,
}

impl StoreSettings {
    /// Settings as configured.
    pub fn new(store: &model::Store, data_dir: &Path) -> Self {
        Self {
            url: store.url.as_ref().map(|url| url.secret().clone()),
            data_dir: data_dir.to_owned(),
            max_connections: store.max_connections,
            readers: store.readers,
            connect_timeout: store.connect_timeout.get(),
            statement_timeout: store.statement_timeout.get(),
            migrate: store.migrate,
            encryption: store.encryption.clone(),
        }
    }

    /// SQLite in a folder, everything else by default.
    pub fn embedded(data_dir: &Path) -> Self {
        Self::new(&model::Store::default(), data_dir)
    }

    /// A database by its address, everything else by default.
    pub fn at(url: &str, data_dir: &Path) -> Self {
        Self { url: Some(Secret::new(url.to_owned())), ..Self::embedded(data_dir) }
    }

    /// Which engine the address leads to.
    pub fn engine(&self) -> Engine {
        match &self.url {
            Some(url) if !url.expose().starts_with("sqlite:") => Engine::Postgres,
            _ => Engine::Sqlite,
        }
    }

    /// The file of an SQLite database that is not there yet.
    pub fn missing(&self) -> Option<PathBuf> {
        let path = (self.engine() == Engine::Sqlite).then(|| self.sqlite_path());
        path.filter(|path| !path.exists())
    }

    /// The file of an SQLite database.
    pub(super) fn sqlite_path(&self) -> PathBuf {
        let named = self.url.as_ref().and_then(|url| url.expose().strip_prefix("sqlite:"));
        let named = named.map(|path| path.strip_prefix("//").unwrap_or(path));
        match named.filter(|path| !path.is_empty()) {
            Some(path) => PathBuf::from(path),
            None => self.data_dir.join(DATABASE_FILE),
        }
    }

    /// How to connect to PostgreSQL. The address never gets into an error: it has the password.
    pub(super) fn postgres(&self) -> Result<PgConnectOptions, StoreError> {
        let url = self.url.as_ref().map_or("", |url| url.expose());
        let options: PgConnectOptions = url.parse().map_err(|_| {
            StoreError::Settings(
                "url is not the address of a PostgreSQL database (postgres://user:password@host/database?sslmode=verify-full)"
                    .to_owned(),
            )
        })?;
        let local = options.get_socket().is_some()
            || matches!(options.get_host(), "localhost" | "127.0.0.1" | "::1" | "[::1]")
            || options.get_host().starts_with('/');
        let checked = matches!(options.get_ssl_mode(), PgSslMode::VerifyCa | PgSslMode::VerifyFull);
        if !local && !checked {
            tracing::warn!(
                event = "store_without_verified_tls",
                "the connection to PostgreSQL does not check who answers: add sslmode=verify-full to store.url"
            );
        }
        Ok(options.application_name("tollgate"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_decides_about_the_engine() {
        let folder = Path::new("/data");
        assert_eq!(StoreSettings::embedded(folder).engine(), Engine::Sqlite);
        assert_eq!(StoreSettings::embedded(folder).sqlite_path(), folder.join("tollgate.db"));
        for url in ["sqlite:/x/y.db", "sqlite:///x/y.db"] {
            assert_eq!(StoreSettings::at(url, folder).sqlite_path(), Path::new("/x/y.db"));
        }
        assert_eq!(StoreSettings::at("postgres://u:p@db/x", folder).engine(), Engine::Postgres);
    }

    #[test]
    fn a_bad_address_is_not_repeated() {
        let error = StoreSettings::at("postgres://u:hunter2@:::/x", Path::new("/")).postgres().unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
