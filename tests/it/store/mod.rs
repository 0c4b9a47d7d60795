//! The store, on both engines: `each_engine!` runs a test on SQLite and on a PostgreSQL of the tests' own.

mod audit;
mod audit_retention;
mod backup;
mod canaries;
mod commands;
mod conditional;
mod erasure;
mod fleet;
mod history;
mod identity;
mod isolation;
mod kill;
mod migrations;
mod plans;
mod plans_history;
mod races;
mod revisions;
mod samples;
pub mod secrets;
mod signing_key;
mod silence;
mod tls;
mod usage;
mod words;

use std::sync::Arc;

use tollgate::base::{Clock, TenantId};
use tollgate::store::{Engine, Store, StoreSettings};

use crate::support::Folder;
use crate::support::postgres::Database;

pub use self::audit::Writer as AuditWriter;

/// A prepared store on a database of its own.
pub struct Fixture {
    pub store: Store,
    pub settings: StoreSettings,
    pub database: Option<Database>,
    pub clock: Clock,
    _folder: Folder,
}

impl Fixture {
    /// A store that was not prepared yet.
    pub fn unprepared(engine: Engine) -> Self {
        let folder = Folder::new();
        let database = (engine == Engine::Postgres).then(Database::fresh);
        let settings = match &database {
            Some(database) => StoreSettings::at(&database.url(), folder.path()),
            None => StoreSettings::embedded(folder.path()),
        };
        let clock = Clock::manual(1_796_000_000);
        let store = open(&settings, &clock);
        Self { store, settings, database, clock, _folder: folder }
    }

    pub async fn new(engine: Engine) -> Self {
        let fixture = Self::unprepared(engine);
        fixture.store.prepare().await.unwrap();
        fixture
    }

    /// Another process on the same database.
    pub fn another(&self) -> Store {
        open(&self.settings, &self.clock)
    }
}

pub fn open(settings: &StoreSettings, clock: &Clock) -> Store {
    Store::open(settings.clone(), clock.clone(), Arc::new(|_| None)).unwrap()
}

pub fn tenant(name: &str) -> TenantId {
    TenantId::new(name)
}

/// Makes one test for each engine of a function that takes a [`Fixture`].
macro_rules! each_engine {
    ($($test:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test($crate::store::Fixture::new(tollgate::store::Engine::Sqlite).await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test($crate::store::Fixture::new(tollgate::store::Engine::Postgres).await).await;
            })*
        }
    };
}
pub(crate) use each_engine;
