//! TLS to PostgreSQL: `sslmode=verify-full` connects to the right server only, and says what is wrong otherwise.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate::base::Clock;
use tollgate::store::{Fault, StoreError, StoreSettings};

use super::open;
use crate::support::Authority;
use crate::support::Folder;
use crate::support::postgres::{Database, Postgres};

/// A database of a server whose certificate is for `name`.
fn server(authority: &Authority, name: &str) -> Database {
    let leaf = authority.issue(name);
    Arc::new(Postgres::start_tls(&leaf.certificate.pem(), &leaf.key.serialize_pem())).database()
}

fn settings(database: &Database, authority: &Authority, folder: &Folder) -> StoreSettings {
    let url = database.url().replace("sslmode=disable", "sslmode=verify-full");
    StoreSettings::at(&format!("{url}&sslrootcert={}", authority.file().display()), folder.path())
}

async fn refused(settings: StoreSettings) -> String {
    let store = open(&settings, &Clock::default());
    let began = Instant::now();
    let error = store.prepare().await.unwrap_err();
    assert!(matches!(error, StoreError::Untrusted(_)), "{error:?}");
    assert_eq!(error.fault(), Fault::Operator, "waiting does not help");
    assert!(!error.retry_is_safe());
    assert!(began.elapsed() < Duration::from_secs(4), "at once, and not after store.connect_timeout");
    let text = error.to_string();
    assert!(text.contains("sslrootcert"), "{text}");
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_full_takes_the_right_server_and_no_other() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (ours, theirs, folder) = (Authority::new(), Authority::new(), Folder::new());
    let database = server(&ours, "127.0.0.1");
    let good = settings(&database, &ours, &folder);
    let store = open(&good, &Clock::default());
    store.prepare().await.unwrap();
    store.platform().history_day(store.now()).await.unwrap();
    let encrypted =
        "SELECT count(*) > 0 AND bool_and(s.ssl) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)
                      WHERE a.application_name = 'tollgate'";
    assert_eq!(database.sql(encrypted), "t", "and no connection without");
    store.close().await;
    // Signed by somebody else.
    let text = refused(settings(&database, &theirs, &folder)).await;
    // Authorities of tests have one name, so this one seems to have signed, and has not.
    assert!(text.contains("invalid peer certificate"), "{text}");
    // By the right one, for another name.
    let elsewhere = server(&ours, "db.example");
    let text = refused(settings(&elsewhere, &ours, &folder)).await;
    assert!(text.contains("not valid for name") || text.contains("NotValidForName"), "{text}");
}

/// A server that does not speak TLS is not spoken to without.
#[tokio::test]
async fn verify_full_never_falls_back() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let database = Database::fresh();
    let store = open(&settings(&database, &authority, &folder), &Clock::default());
    let error = store.prepare().await.unwrap_err();
    assert!(error.to_string().contains("TLS"), "{error}");
}
