//! Several who have seen the same change it at once: one of them does, and what is there afterwards is theirs.

use std::sync::Arc;

use tokio::sync::Barrier;
use tollgate::base::Secret;
use tollgate::store::{
    CanaryEnd, CandidateSource, CustomRole, NewCanary, NewCustomRole, NewRevision, NewUser, Put, SecretInfo,
    Store, StoreError, User, whatever,
};
use uuid::Uuid;

use super::{Fixture, each_engine, tenant};

each_engine!(
    of_those_who_saw_the_same_one_changes_it,
    of_those_who_saw_nothing_one_creates_it,
    what_was_changed_since_is_not_removed,
    of_those_who_saw_the_same_share_one_changes_it,
);

/// At once, so many times.
const WRITERS: usize = 8;
const ROUNDS: usize = 10;

/// What a writer writes.
#[derive(Clone, Copy)]
enum What {
    Role,
    Secret,
    User,
}

/// A row as a writer has seen it.
#[derive(Clone, Debug, PartialEq)]
enum Row {
    Role(CustomRole),
    Secret(SecretInfo),
    User(User),
}

fn unseen() -> StoreError {
    StoreError::Conflict { expected: 1, found: 2 }
}

fn same<T: PartialEq>(seen: Option<&T>, found: Option<&T>) -> Result<(), StoreError> {
    if seen == found { Ok(()) } else { Err(unseen()) }
}

impl What {
    async fn put(self, store: &Store, writer: &str, seen: Option<Row>) -> Result<Put<Row>, StoreError> {
        let acme = tenant("acme");
        let scope = store.tenant(&acme);
        fn whole<T>(put: Put<T>, row: impl Fn(T) -> Row) -> Put<Row> {
            match put {
                Put::Created(it) => Put::Created(row(it)),
                Put::Replaced(it) => Put::Replaced(row(it)),
            }
        }
        Ok(match self {
            What::Role => {
                let new = NewCustomRole {
                    name: "x",
                    description: writer,
                    permissions: "keys:read",
                    author: writer,
                };
                let put = scope.put_custom_role(new, |found| {
                    same(seen.as_ref(), found.cloned().map(Row::Role).as_ref())
                });
                whole(put.await?, Row::Role)
            }
            What::Secret => {
                let value = Secret::new(writer.as_bytes().to_vec());
                let put = scope.put_secret("x", &value, writer, |found| {
                    same(seen.as_ref(), found.cloned().map(Row::Secret).as_ref())
                });
                whole(put.await?, Row::Secret)
            }
            What::User => {
                let new = NewUser { id: "x", display_name: writer, email: "", disabled: false };
                let put =
                    scope.put_user(new, |found| same(seen.as_ref(), found.cloned().map(Row::User).as_ref()));
                whole(put.await?, Row::User)
            }
        })
    }

    async fn get(self, store: &Store) -> Option<Row> {
        let acme = tenant("acme");
        let scope = store.tenant(&acme);
        match self {
            What::Role => scope.custom_role("x").await.unwrap().map(Row::Role),
            What::Secret => scope.secret_info("x").await.unwrap().map(Row::Secret),
            What::User => scope.user("x").await.unwrap().map(Row::User),
        }
    }

    async fn remove(self, store: &Store, seen: Option<Row>) -> Result<(), StoreError> {
        let acme = tenant("acme");
        let scope = store.tenant(&acme);
        let seen = seen.as_ref();
        match self {
            What::Role => {
                scope
                    .remove_custom_role("x", |found| same(seen, found.cloned().map(Row::Role).as_ref()))
                    .await
            }
            What::Secret => {
                scope.remove_secret("x", |found, _| same(seen, Some(&Row::Secret(found.clone())))).await
            }
            What::User => {
                scope.remove_user("x", |found| same(seen, found.cloned().map(Row::User).as_ref())).await
            }
        }
    }
}

const ALL: [What; 3] = [What::Role, What::Secret, What::User];

/// Puts from all writers at once. Gives what the one who wrote got.
async fn race(fixture: &Fixture, what: What, seen: Option<Row>) -> Put<Row> {
    let gate = Arc::new(Barrier::new(WRITERS));
    let tasks: Vec<_> = (0..WRITERS)
        .map(|i| {
            let (store, gate, seen) = (fixture.store.clone(), gate.clone(), seen.clone());
            tokio::spawn(async move {
                gate.wait().await;
                what.put(&store, &format!("writer {i}"), seen).await
            })
        })
        .collect();
    let mut won = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            Ok(put) => won.push(put),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(won.len(), 1, "{won:?}");
    let put = won.remove(0);
    assert_eq!(what.get(&fixture.store).await.as_ref(), Some(&put.clone().into_row()), "the winner's");
    put
}

async fn of_those_who_saw_the_same_one_changes_it(fixture: Fixture) {
    for what in ALL {
        let mut seen = what.put(&fixture.store, "first", None).await.unwrap().into_row();
        for _ in 0..ROUNDS {
            fixture.clock.advance(std::time::Duration::from_secs(1));
            let put = race(&fixture, what, Some(seen)).await;
            assert!(!put.is_new());
            seen = put.into_row();
        }
    }
    let acme = tenant("acme");
    let secret = fixture.store.tenant(&acme).secret("x").await.unwrap().unwrap();
    let info = fixture.store.tenant(&acme).secret_info("x").await.unwrap().unwrap();
    assert_eq!(secret.expose(), info.author.as_bytes(), "value and author are of the same writer");
    assert_eq!(info.version, 1 + ROUNDS as i64);
}

async fn of_those_who_saw_nothing_one_creates_it(fixture: Fixture) {
    for what in ALL {
        for _ in 0..ROUNDS {
            let put = race(&fixture, what, None).await;
            assert!(put.is_new());
            what.remove(&fixture.store, Some(put.into_row())).await.unwrap();
        }
    }
}

async fn what_was_changed_since_is_not_removed(fixture: Fixture) {
    for what in ALL {
        for _ in 0..ROUNDS {
            let first = what.put(&fixture.store, "first", None).await.unwrap().into_row();
            fixture.clock.advance(std::time::Duration::from_secs(1));
            let gate = Arc::new(Barrier::new(2));
            let (store, theirs, seen) = (fixture.store.clone(), gate.clone(), first.clone());
            let change = tokio::spawn(async move {
                theirs.wait().await;
                what.put(&store, "second", Some(seen)).await
            });
            gate.wait().await;
            let removed = what.remove(&fixture.store, Some(first)).await;
            match (change.await.unwrap(), removed) {
                (Ok(put), Err(StoreError::Conflict { .. })) => {
                    assert_eq!(what.get(&fixture.store).await, Some(put.clone().into_row()));
                    what.remove(&fixture.store, Some(put.into_row())).await.unwrap();
                }
                (Err(StoreError::Conflict { .. }), Ok(())) => {
                    assert_eq!(what.get(&fixture.store).await, None);
                }
                both => panic!("both did it, or neither: {both:?}"),
            }
        }
        let gone = what.remove(&fixture.store, None).await;
        assert!(matches!(gone, Err(StoreError::Missing(_))), "{gone:?}");
    }
    let acme = tenant("acme");
    let nobody = NewUser { id: "y", display_name: "", email: "", disabled: false };
    let scope = fixture.store.tenant(&acme);
    assert!(scope.put_user(nobody, whatever).await.unwrap().is_new());
    assert!(!scope.put_user(nobody, whatever).await.unwrap().is_new());
}

async fn of_those_who_saw_the_same_share_one_changes_it(fixture: Fixture) {
    let acme = tenant("acme");
    let scope = fixture.store.tenant(&acme);
    let revision =
        |content| NewRevision { content, schema_version: 1, author: "ada", reason: "", if_revision: None };
    scope.publish(revision(b"one")).await.unwrap();
    let now = fixture.store.now();
    let id = Uuid::from_u128(1);
    let new = NewCanary {
        id,
        base: 1,
        candidate: CandidateSource::New(revision(b"two")),
        kind: "principals",
        share: 1000,
        share_at: now,
        rules: "{}",
        started_by: "ada",
        reason: "",
        deadline: now.plus(std::time::Duration::from_secs(60)),
    };
    let mut seen = scope.start_canary(new).await.unwrap().share;
    for _ in 0..ROUNDS {
        let tasks: Vec<_> = (1..=WRITERS as i32)
            .map(|i| {
                let (store, share) = (fixture.store.clone(), seen + i);
                tokio::spawn(async move {
                    store.tenant(&tenant("acme")).share_canary(id, share, now, Some(seen)).await
                })
            })
            .collect();
        let mut won = Vec::new();
        for task in tasks {
            match task.await.unwrap() {
                Ok(canary) => won.push(canary.share),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(won.len(), 1);
        assert_eq!(scope.canary(id).await.unwrap().unwrap().share, won[0]);
        let end = CanaryEnd {
            state: "aborted",
            by: "ada",
            reason: "",
            promoted: None,
            figures: "{}",
            if_share: Some(seen),
        };
        let late = scope.end_canary(id, end).await;
        assert!(matches!(late, Err(StoreError::Conflict { .. })), "{late:?}");
        seen = won[0];
    }
}
