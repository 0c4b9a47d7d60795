//! Documents: append-only, compare-and-swap, what changed since.

use tollgate::base::Scope;
use tollgate::store::{Channel, NewRevision, Notification, Page, StoreError};

use super::{Fixture, each_engine, tenant};
use crate::support::within;

fn new(content: &str, if_revision: Option<i64>) -> NewRevision<'_> {
    NewRevision {
        content: content.as_bytes(),
        schema_version: 1,
        author: "ada",
        reason: "because",
        if_revision,
    }
}

each_engine!(
    a_head_moves_only_from_where_it_was_expected,
    of_publications_at_once_each_gets_a_revision_of_its_own,
    a_failed_transaction_leaves_neither_revision_nor_head,
    history_is_paged_from_the_newest,
    heads_tell_what_moved_since,
    listeners_hear_of_publications_when_they_commit,
);

async fn a_head_moves_only_from_where_it_was_expected(fixture: Fixture) {
    let acme = tenant("acme");
    let scope = fixture.store.tenant(&acme);
    assert_eq!(scope.head().await.unwrap(), None);
    let first = scope.publish(new("one", Some(0))).await.unwrap();
    assert_eq!((first.revision, first.scope.as_str()), (1, "acme"));
    let refused = scope.publish(new("two", Some(0))).await.unwrap_err();
    assert!(matches!(refused, StoreError::Conflict { expected: 0, found: 1 }), "{refused}");
    assert_eq!(scope.publish(new("two", Some(1))).await.unwrap().revision, 2);
    assert_eq!(scope.publish(new("three", None)).await.unwrap().revision, 3);
    let two = scope.revision(2).await.unwrap().unwrap();
    assert_eq!((two.content.as_slice(), two.summary.parent), (&b"two"[..], 1));
    assert_eq!(two.summary.created_at, fixture.store.now(), "times are kept to the microsecond");
    assert_eq!(scope.head().await.unwrap().unwrap().revision, 3);
    assert_eq!(scope.revision(4).await.unwrap(), None);
}

async fn of_publications_at_once_each_gets_a_revision_of_its_own(fixture: Fixture) {
    let other = fixture.another();
    let tasks: Vec<_> = (0..20)
        .map(|i| {
            let store = if i % 2 == 0 { fixture.store.clone() } else { other.clone() };
            tokio::spawn(async move {
                let acme = tenant("acme");
                store.tenant(&acme).publish(new(&format!("document {i}"), None)).await.unwrap()
            })
        })
        .collect();
    let mut heads = Vec::new();
    for task in tasks {
        heads.push(task.await.unwrap());
    }
    heads.sort_by_key(|h| h.revision);
    let revisions: Vec<i64> = heads.iter().map(|h| h.revision).collect();
    assert_eq!(revisions, (1..=20).collect::<Vec<_>>());
    assert!(heads.windows(2).all(|pair| pair[0].generation < pair[1].generation));
}

async fn a_failed_transaction_leaves_neither_revision_nor_head(fixture: Fixture) {
    let scope = Scope::Tenant(tenant("acme"));
    let mut tx = fixture.store.platform().begin().await.unwrap();
    tx.publish(&scope, new("one", None)).await.unwrap();
    drop(tx);
    let heads = fixture.store.platform().heads(0).await.unwrap();
    assert!(heads.is_empty(), "{heads:?}");
    assert_eq!(fixture.store.platform().revision(&scope, 1).await.unwrap(), None);
}

async fn history_is_paged_from_the_newest(fixture: Fixture) {
    let acme = tenant("acme");
    let scope = fixture.store.tenant(&acme);
    for i in 1..=5 {
        scope.publish(new(&format!("document {i}"), None)).await.unwrap();
    }
    let first = scope.history(None, Page::of(2)).await.unwrap();
    assert_eq!(first.iter().map(|r| r.revision).collect::<Vec<_>>(), [5, 4]);
    let rest = scope.history(Some(4), Page::of(10)).await.unwrap();
    assert_eq!(rest.iter().map(|r| r.revision).collect::<Vec<_>>(), [3, 2, 1]);
    assert_eq!((rest[0].size, rest[0].author.as_str(), rest[0].reason.as_str()), (10, "ada", "because"));
}

async fn heads_tell_what_moved_since(fixture: Fixture) {
    let platform = fixture.store.platform();
    for name in ["a", "b", "c"] {
        platform.publish(&Scope::Tenant(tenant(name)), new(name, None)).await.unwrap();
    }
    platform.publish(&Scope::Platform, new("platform", None)).await.unwrap();
    let all = platform.heads(0).await.unwrap();
    assert_eq!(all.iter().map(|h| h.scope.as_str()).collect::<Vec<_>>(), ["a", "b", "c", "@platform"]);
    let seen = all[1].generation;
    platform.publish(&Scope::Tenant(tenant("a")), new("again", None)).await.unwrap();
    let moved = platform.heads(seen).await.unwrap();
    assert_eq!(moved.iter().map(|h| h.scope.as_str()).collect::<Vec<_>>(), ["c", "@platform", "a"]);
    let documents = platform.head_revisions(seen, Page::of(2)).await.unwrap();
    let documents: Vec<_> = documents.iter().map(|(h, r)| (h.scope.as_str(), r.content.as_slice())).collect();
    assert_eq!(documents, [("c", &b"c"[..]), ("@platform", &b"platform"[..])]);
}

async fn listeners_hear_of_publications_when_they_commit(fixture: Fixture) {
    let mut listener = fixture.store.listen();
    if fixture.database.is_some() {
        assert_eq!(within("listening", listener.next()).await, Notification::Missed);
    }
    let scope = Scope::Tenant(tenant("acme"));
    let mut tx = fixture.store.platform().begin().await.unwrap();
    tx.publish(&scope, new("one", None)).await.unwrap();
    drop(tx);
    fixture.store.platform().publish(&Scope::Platform, new("two", None)).await.unwrap();
    let heard = within("a notification", listener.next()).await;
    let expected = Notification::Message { channel: Channel::Config, payload: "@platform".to_owned() };
    assert_eq!(heard, expected, "what was undone is not announced");
}

mod append_only {
    use super::*;

    #[tokio::test]
    async fn not_even_a_superuser_changes_a_revision_by_mistake() {
        let fixture = Fixture::new(tollgate::store::Engine::Postgres).await;
        let acme = tenant("acme");
        fixture.store.tenant(&acme).publish(new("one", None)).await.unwrap();
        let database = fixture.database.as_ref().unwrap();
        for change in [
            "UPDATE config_revisions SET author = 'mallory'",
            "DELETE FROM config_revisions",
            "TRUNCATE config_revisions",
        ] {
            let error = database.try_sql(change).unwrap_err();
            assert!(error.contains("append-only"), "{change}: {error}");
        }
    }
}
