//! Two at once, on PostgreSQL, where transactions run beside each other.

use std::time::Duration;

use tollgate::base::{Scope, Secret};
use tollgate::store::{Engine, Fault, NewCustomRole, NewRevision, NewUser, Page, StoreError, whatever};

use super::{Fixture, tenant};

/// A role that is being taken away is given to nobody: they would have what another role of its name says later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_is_being_removed_is_not_given() {
    let fixture = Fixture::new(Engine::Postgres).await;
    let database = fixture.database.as_ref().unwrap();
    let acme = tenant("acme");
    let scope = fixture.store.tenant(&acme);
    let role = NewCustomRole { name: "reader", description: "", permissions: "audit:read", author: "ada" };
    scope.put_custom_role(role, whatever).await.unwrap();
    let given = std::thread::scope(|threads| {
        let removal = threads.spawn(|| {
            database.sql(
                "BEGIN; DELETE FROM custom_roles; SELECT pg_sleep(1.5);
                 DELETE FROM role_bindings WHERE role = 'reader'; COMMIT",
            )
        });
        std::thread::sleep(Duration::from_millis(500));
        let given = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(scope.bind_custom_role("bob", "reader", "ada"))
        });
        removal.join().unwrap();
        given
    });
    assert!(matches!(given, Err(StoreError::Missing(_))), "{given:?}");
    assert!(scope.role_bindings(None, Page::of(10)).await.unwrap().is_empty());
}

/// A publication waits for who is removing a secret that it names, and is refused then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_is_being_removed_is_not_published() {
    let fixture = Fixture::new(Engine::Postgres).await;
    let database = fixture.database.as_ref().unwrap();
    let acme = tenant("acme");
    let scope = fixture.store.tenant(&acme);
    scope.put_secret("token", &Secret::new(b"v".to_vec()), "ada", whatever).await.unwrap();
    let new = NewRevision {
        content: b"version: 1\nx: ${secret:token}\n",
        schema_version: 1,
        author: "ada",
        reason: "",
        if_revision: Some(0),
    };
    let published = std::thread::scope(|threads| {
        let removal = threads.spawn(|| {
            database.sql(
                "BEGIN; SELECT 1 FROM secrets FOR UPDATE; SELECT pg_sleep(1.5); DELETE FROM secrets; COMMIT",
            )
        });
        std::thread::sleep(Duration::from_millis(500));
        let published =
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(scope.publish(new)));
        removal.join().unwrap();
        published
    });
    assert!(matches!(published, Err(StoreError::Unresolved(_))), "{published:?}");
    assert!(scope.head().await.unwrap().is_none());
}

/// Whoever publishes several documents and whoever publishes one of these do not wait for each other in a circle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publications_of_several_and_of_one_never_deadlock() {
    let fixture = Fixture::new(Engine::Postgres).await;
    let new = NewRevision {
        content: b"{}",
        schema_version: 1,
        author: "ada",
        reason: "because",
        if_revision: None,
    };
    let all: Vec<_> = ["d", "b", "c", "a"]
        .map(|name| (Scope::Tenant(tenant(name)), new))
        .into_iter()
        .chain([(Scope::Platform, new)])
        .collect();
    let reversed: Vec<_> = all.iter().cloned().rev().collect();
    let platform = fixture.store.platform();
    for _ in 0..40 {
        let (first, second) = (tenant("a"), tenant("b"));
        let (one, other) = (fixture.store.tenant(&first), fixture.store.tenant(&second));
        let (a, b, c, d) = tokio::join!(
            platform.publish_all(&all, None),
            platform.publish_all(&reversed, None),
            one.publish(new),
            other.publish(new),
        );
        a.map_err(|(_, e)| e).unwrap();
        b.map_err(|(_, e)| e).unwrap();
        c.unwrap();
        d.unwrap();
    }
}

/// What PostgreSQL takes in no text is the fault of whoever sent it.
#[tokio::test]
async fn a_text_that_cannot_be_stored_is_refused() {
    let fixture = Fixture::new(Engine::Postgres).await;
    let acme = tenant("acme");
    let user = NewUser { id: "ann", display_name: "a\0", email: "", disabled: false };
    let error = fixture.store.tenant(&acme).put_user(user, whatever).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Caller, "{error}");
}

/// After a failover the old primary only reads: that passes, and nobody has to put anything right.
#[tokio::test]
async fn a_server_that_only_reads_is_one_that_is_away() {
    let fixture = Fixture::new(Engine::Postgres).await;
    let database = fixture.database.as_ref().unwrap();
    let name = database.name();
    database.sql(&format!("ALTER DATABASE \"{name}\" SET default_transaction_read_only = on"));
    let acme = tenant("acme");
    let user = NewUser { id: "ann", display_name: "", email: "", disabled: false };
    let error = fixture.another().tenant(&acme).put_user(user, whatever).await.unwrap_err();
    assert!(error.retry_is_safe() && error.fault() == Fault::Store, "{error}");
}
