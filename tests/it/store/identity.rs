//! Who may do what, and what the control API keeps for itself.

use std::time::Duration;

use tollgate::base::Role;
use tollgate::store::{
    ApiKey, Idempotency, IdentityChange, NewApiKey, NewCustomRole, NewUser, Page, StoreError, StoredStanding,
    whatever,
};

use super::{Fixture, each_engine, tenant};

each_engine!(
    keys_users_roles_and_revocations_are_kept_told_and_taken_away,
    a_key_has_one_successor_and_none_once_it_is_gone,
    a_custom_role_is_given_counts_and_goes_from_everybody,
    a_repeated_request_is_answered_once_and_forgotten_in_time,
    one_admin_token_is_made_and_replaced,
    a_secret_is_listed_without_its_value,
);

fn key<'a>(id: &'a str, record: &'a str) -> NewApiKey<'a> {
    NewApiKey { id, principal: "corp|ann", record, author: "ada", disabled: false, expires_at: None }
}

/// What the feed says of a change, without its number.
fn told(change: &IdentityChange) -> (&str, &str, &str, Option<&str>) {
    (&change.tenant, &change.kind, &change.id, change.body.as_deref())
}

async fn keys_users_roles_and_revocations_are_kept_told_and_taken_away(fixture: Fixture) {
    let (platform, acme, other) = (fixture.store.platform(), tenant("acme"), tenant("other"));
    let (scope, theirs) = (fixture.store.tenant(&acme), fixture.store.tenant(&other));
    let made = scope.put_api_key(key("k1", "{\"id\":\"k1\"}")).await.unwrap();
    fixture.clock.advance(Duration::from_secs(5));
    let ends = fixture.store.now().plus(Duration::from_secs(60));
    let again = NewApiKey {
        author: "bob",
        disabled: true,
        expires_at: Some(ends),
        ..key("k1", "{\"id\":\"k1\",\"x\":1}")
    };
    let changed = scope.put_api_key(again).await.unwrap();
    assert_eq!((changed.author.as_str(), changed.disabled, changed.expires_at), ("ada", true, Some(ends)));
    assert!(changed.created_at == made.created_at && changed.updated_at > made.updated_at);
    assert!(
        theirs.api_key("k1").await.unwrap().is_none()
            && theirs.api_keys(None, Page::of(9)).await.unwrap().is_empty()
    );
    assert_eq!(platform.api_keys_with_id("k1").await.unwrap()[0].tenant, "acme");
    // Uses are noted, the latest of them.
    let (early, late) = (made.created_at, fixture.store.now());
    let uses = |at| [("k1".to_owned(), at), ("gone".to_owned(), at)];
    assert_eq!(scope.touch_api_keys(&uses(late)).await.unwrap(), 1);
    assert_eq!(scope.touch_api_keys(&uses(early)).await.unwrap(), 0);
    assert_eq!(scope.api_key("k1").await.unwrap().unwrap().last_used_at, Some(late));

    let ann = NewUser { id: "corp|ann", display_name: "Ann", email: "", disabled: true };
    scope.put_user(ann, whatever).await.unwrap();
    scope.bind_role("corp|ann", Role::Developer, "ada").await.unwrap();
    scope.bind_auditor("corp|ann", "ada").await.unwrap();
    let revoked = scope.revoke("{\"principal\":\"corp|ann\"}", "ada").await.unwrap();
    let standing = scope.standing("corp|ann", "k1").await.unwrap();
    let mut roles = standing.roles.clone();
    roles.sort();
    assert_eq!((standing.disabled, roles), (true, vec!["auditor".to_owned(), "developer".to_owned()]));
    assert_eq!(standing.revocations, ["{\"principal\":\"corp|ann\"}"]);
    assert_eq!(
        theirs.standing("corp|ann", "k1").await.unwrap(),
        StoredStanding::default(),
        "another tenant's"
    );

    let everything = platform.identity_snapshot().await.unwrap();
    assert_eq!(everything.seq, platform.identity_head().await.unwrap());
    let mut entries: Vec<_> = everything.entries.iter().map(told).collect();
    entries.sort_unstable();
    let mut expected = vec![
        ("acme", "key", "k1", Some("{\"id\":\"k1\",\"x\":1}")),
        ("acme", "revocation", &*revoked.id, Some("{\"principal\":\"corp|ann\"}")),
        ("acme", "role", "auditor:corp|ann", Some("auditor:corp|ann")),
        ("acme", "role", "developer:corp|ann", Some("developer:corp|ann")),
        ("acme", "user", "corp|ann", Some("disabled")),
    ];
    expected.sort_unstable();
    assert_eq!(entries, expected);

    // Each goes once, and the feed says so.
    scope.remove_api_key("k1").await.unwrap();
    scope.unbind_role("corp|ann", Role::Developer).await.unwrap();
    scope.unbind_auditor("corp|ann").await.unwrap();
    scope.unrevoke(&revoked.id).await.unwrap();
    scope.remove_user("corp|ann", whatever).await.unwrap();
    let changes = platform.identity_changes(everything.seq, 100).await.unwrap();
    assert!(changes.iter().all(|c| c.body.is_none()) && changes.len() >= 5, "{changes:?}");
    assert!(changes.windows(2).all(|pair| pair[0].seq < pair[1].seq));
    let missing = [
        scope.remove_api_key("k1").await,
        scope.unbind_role("corp|ann", Role::Developer).await,
        scope.unbind_auditor("corp|ann").await,
        scope.unrevoke(&revoked.id).await,
        scope.remove_user("corp|ann", whatever).await,
    ];
    assert!(missing.iter().all(|done| matches!(done, Err(StoreError::Missing(_)))), "{missing:?}");
    assert!(platform.identity_snapshot().await.unwrap().entries.is_empty());
}

async fn a_key_has_one_successor_and_none_once_it_is_gone(fixture: Fixture) {
    let acme = tenant("acme");
    let scope = fixture.store.tenant(&acme);
    let old = scope.put_api_key(key("k0", "{\"id\":\"k0\"}")).await.unwrap();
    let unseen = || StoreError::Refused("changed".to_owned());
    let succeed = async |id: &str| {
        let scope = fixture.store.tenant(&acme);
        let (record, ends) =
            (format!("{{\"id\":\"{id}\"}}"), fixture.store.now().plus(Duration::from_secs(60)));
        let retired = NewApiKey { expires_at: Some(ends), ..key("k0", "{\"id\":\"k0\",\"expires\":1}") };
        let as_seen = |found: &ApiKey| (found.record == old.record).then_some(()).ok_or_else(unseen);
        scope.succeed_api_key(retired, key(id, &record), as_seen).await
    };
    let (one, other) = tokio::join!(succeed("k1"), succeed("k2"));
    let (won, lost) = if one.is_ok() { (one, other) } else { (other, one) };
    assert!(matches!(lost, Err(StoreError::Refused(_))), "{lost:?}");
    let ids = async || -> Vec<String> {
        scope.api_keys(None, Page::of(9)).await.unwrap().into_iter().map(|k| k.id).collect()
    };
    assert_eq!(ids().await, ["k0".to_owned(), won.unwrap().id]);
    assert!(scope.api_key("k0").await.unwrap().unwrap().expires_at.is_some());
    let told = fixture.store.platform().identity_snapshot().await.unwrap().entries;
    assert_eq!(told.len(), 2);
    // Whoever takes it away while it is replaced has taken it away.
    scope.remove_api_key("k0").await.unwrap();
    let before = (ids().await, fixture.store.platform().identity_head().await.unwrap());
    let late = succeed("k3").await;
    assert!(matches!(late, Err(StoreError::Missing(_))), "{late:?}");
    assert_eq!((ids().await, fixture.store.platform().identity_head().await.unwrap()), before);
}

async fn a_custom_role_is_given_counts_and_goes_from_everybody(fixture: Fixture) {
    let (acme, other) = (tenant("acme"), tenant("other"));
    let (scope, theirs) = (fixture.store.tenant(&acme), fixture.store.tenant(&other));
    let role =
        |permissions| NewCustomRole { name: "ops", description: "on call", permissions, author: "ada" };
    let missing = scope.bind_custom_role("corp|ann", "ops", "ada").await;
    assert!(matches!(missing, Err(StoreError::Missing(_))), "{missing:?}");
    scope.put_custom_role(role("audit:read"), whatever).await.unwrap();
    scope.put_custom_role(role("audit:read config:read"), whatever).await.unwrap();
    scope.put_custom_role(NewCustomRole { name: "zero", ..role("") }, whatever).await.unwrap();
    let names = scope.custom_roles(Some("ops"), Page::of(9)).await.unwrap();
    assert_eq!(names.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["zero"]);
    assert!(theirs.custom_role("ops").await.unwrap().is_none());
    let foreign = theirs.bind_custom_role("corp|ann", "ops", "ada").await;
    assert!(matches!(foreign, Err(StoreError::Missing(_))), "another tenant's role: {foreign:?}");
    for subject in ["corp|ann", "corp|bob", "corp|bob"] {
        scope.bind_custom_role(subject, "ops", "ada").await.unwrap();
    }
    assert_eq!(scope.standing("corp|ann", "k").await.unwrap().custom, ["audit:read config:read"]);
    scope.unbind_custom_role("corp|ann", "ops").await.unwrap();
    assert!(scope.standing("corp|ann", "k").await.unwrap().custom.is_empty());
    let head = fixture.store.platform().identity_head().await.unwrap();
    scope.remove_custom_role("ops", whatever).await.unwrap();
    assert_eq!(scope.standing("corp|bob", "k").await.unwrap(), StoredStanding::default());
    let told = fixture.store.platform().identity_changes(head, 9).await.unwrap();
    assert_eq!(
        told.iter().map(|c| (c.id.as_str(), c.body.is_none())).collect::<Vec<_>>(),
        [("ops:corp|bob", true)]
    );
    let again = scope.remove_custom_role("ops", whatever).await;
    assert!(matches!(again, Err(StoreError::Missing(_))), "{again:?}");
}

async fn a_repeated_request_is_answered_once_and_forgotten_in_time(fixture: Fixture) {
    let (acme, other) = (tenant("acme"), tenant("other"));
    let (scope, keep) = (fixture.store.tenant(&acme), Duration::from_secs(3600));
    let (one, two) = ([1; 32], [2; 32]);
    let begin = async |request: &[u8; 32]| scope.begin_idempotent(&one, request, keep).await.unwrap();
    assert_eq!(begin(&one).await, Idempotency::Fresh);
    assert_eq!(begin(&one).await, Idempotency::Running);
    assert_eq!(begin(&two).await, Idempotency::Mismatch);
    let theirs = fixture.store.tenant(&other);
    assert_eq!(
        theirs.begin_idempotent(&one, &two, keep).await.unwrap(),
        Idempotency::Fresh,
        "another tenant's"
    );
    scope.finish_idempotent(&one, 201, b"sealed").await.unwrap();
    scope.finish_idempotent(&one, 500, b"too late").await.unwrap();
    let answered = Idempotency::Answered { status: 201, sealed: b"sealed".to_vec() };
    assert_eq!(begin(&one).await, answered);
    scope.forget_idempotent(&one).await.unwrap();
    assert_eq!(begin(&one).await, answered, "what was answered stays");
    // One that did nothing, and one whose replica died.
    theirs.forget_idempotent(&one).await.unwrap();
    assert_eq!(theirs.begin_idempotent(&one, &one, keep).await.unwrap(), Idempotency::Fresh);
    fixture.clock.advance(Duration::from_secs(121));
    assert_eq!(theirs.begin_idempotent(&one, &two, keep).await.unwrap(), Idempotency::Fresh);
    fixture.clock.advance(keep - Duration::from_secs(60));
    assert_eq!(fixture.store.platform().expire_idempotency().await.unwrap(), 1, "the other is younger");
    assert_eq!(begin(&two).await, Idempotency::Fresh);
}

async fn one_admin_token_is_made_and_replaced(fixture: Fixture) {
    let tasks: Vec<_> = (0..8_u8)
        .map(|i| {
            let store = fixture.store.clone();
            tokio::spawn(
                async move { store.platform().add_admin_token("bootstrap", &[i; 32]).await.unwrap() },
            )
        })
        .collect();
    let mut added = Vec::new();
    for (i, task) in tasks.into_iter().enumerate() {
        if task.await.unwrap() {
            added.push(u8::try_from(i).unwrap());
        }
    }
    assert_eq!(added.len(), 1);
    let platform = fixture.store.platform();
    assert_eq!(platform.admin_token("bootstrap").await.unwrap(), Some([added[0]; 32]));
    platform.replace_admin_token("bootstrap", &[99; 32]).await.unwrap();
    assert_eq!(platform.admin_token("bootstrap").await.unwrap(), Some([99; 32]));
    assert_eq!(platform.admin_token("another").await.unwrap(), None);
    platform.replace_admin_token("another", &[7; 32]).await.unwrap();
    assert_eq!(platform.admin_token("another").await.unwrap(), Some([7; 32]), "also where there was none");
}

async fn a_secret_is_listed_without_its_value(fixture: Fixture) {
    let (acme, other) = (tenant("acme"), tenant("other"));
    let scope = fixture.store.tenant(&acme);
    assert!(scope.secret_info("token").await.unwrap().is_none());
    let value = tollgate::base::Secret::new(b"hunter2".to_vec());
    let put = scope.put_secret("token", &value, "ada", whatever).await.unwrap().into_row();
    assert_eq!(scope.secret_info("token").await.unwrap(), Some(put));
    assert!(fixture.store.tenant(&other).secret_info("token").await.unwrap().is_none());
}
