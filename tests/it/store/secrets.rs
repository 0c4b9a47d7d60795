//! Secrets and shared keys: encrypted, bound to their place, rotated.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Barrier;
use tollgate::base::Secret;
use tollgate::config::canonical;
use tollgate::store::{
    CanaryEnd, CandidateSource, NewCanary, NewRevision, Page, SealingKey, SecretInfo, SecretUse, StoreError,
    whatever,
};
use uuid::Uuid;

use super::{Fixture, each_engine, tenant};

each_engine!(
    secrets_are_kept_encrypted_and_by_tenant,
    rotation_moves_every_value_to_the_new_key,
    of_replicas_that_rotate_at_once_one_does,
    a_process_that_runs_takes_up_a_key_that_another_made,
    no_key_is_lost_when_several_make_one_at_once,
    no_key_is_made_where_another_is_missing,
    a_rotation_that_cannot_move_all_makes_no_key,
    keys_that_others_may_read_are_refused_and_errors_say_where_they_are,
    of_a_removal_and_a_publication_that_needs_the_secret_one_happens,
    the_candidate_of_a_canary_keeps_its_secrets_as_the_head_does,
);

/// A master key that nothing was sealed with.
pub const ANOTHER_KEY: &str = "another AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n";

fn secret(text: &str) -> Secret<Vec<u8>> {
    Secret::new(text.as_bytes().to_vec())
}

async fn secrets_are_kept_encrypted_and_by_tenant(fixture: Fixture) {
    let (acme, other) = (tenant("acme"), tenant("other"));
    let scope = fixture.store.tenant(&acme);
    let info = scope.put_secret("token", &secret("hunter2"), "ada", whatever).await.unwrap().into_row();
    assert_eq!((info.version, info.author.as_str()), (1, "ada"));
    assert_eq!(
        scope.put_secret("token", &secret("hunter3"), "bob", whatever).await.unwrap().into_row().version,
        2
    );
    assert_eq!(scope.secret("token").await.unwrap().unwrap().expose(), b"hunter3");
    assert!(fixture.store.tenant(&other).secret("token").await.unwrap().is_none());
    assert_eq!(scope.secret_values().await.unwrap()[0].1.expose(), b"hunter3");
    assert_eq!(scope.secrets(None, Page::of(10)).await.unwrap().len(), 1);
    assert!(scope.secrets(Some("token"), Page::of(10)).await.unwrap().is_empty());
    scope.remove_secret("token", unless_used).await.unwrap();
    assert!(matches!(scope.remove_secret("token", unless_used).await, Err(StoreError::Missing(_))));
    let key = fixture.settings.data_dir.join("master.key");
    assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    if let Some(database) = &fixture.database {
        scope.put_secret("token", &secret("hunter2"), "ada", whatever).await.unwrap();
        // Another row does not open with it: what is sealed says where it belongs.
        database.sql("INSERT INTO secrets SELECT 'other', name, version, key_id, sealed, author, created_at, updated_at FROM secrets");
        let error = fixture.store.tenant(&other).secret("token").await.unwrap_err();
        assert!(matches!(error, StoreError::Envelope { .. }), "{error}");
        assert_eq!(
            database.sql("SELECT count(*) FROM secrets WHERE sealed::text LIKE '%68756e746572%'"),
            "0"
        );
    }
}

async fn rotation_moves_every_value_to_the_new_key(fixture: Fixture) {
    let acme = tenant("acme");
    let scope = fixture.store.tenant(&acme);
    for i in 0..250 {
        scope.put_secret(&format!("s{i}"), &secret(&format!("value {i}")), "ada", whatever).await.unwrap();
    }
    let key = SealingKey { id: "k1".into(), secret: secret("shared"), active_from: fixture.store.now() };
    fixture.store.platform().add_sealing_key("sessions", &key).await.unwrap();
    let id = fixture.store.rotate_master_key().await.unwrap();
    assert_eq!(fixture.store.platform().rewrap().await.unwrap(), 251);
    assert_eq!(fixture.store.platform().rewrap().await.unwrap(), 0);
    // The old key is not needed any more.
    let path = fixture.settings.data_dir.join("master.key");
    let ring = std::fs::read_to_string(&path).unwrap();
    let newest: String =
        ring.lines().filter(|line| line.starts_with(&id)).map(|l| format!("{l}\n")).collect();
    std::fs::write(&path, newest).unwrap();
    let fresh = fixture.another();
    fresh.prepare().await.unwrap();
    let values = fresh.tenant(&acme).secret_values().await.unwrap();
    assert_eq!(values.len(), 250);
    assert!(values.iter().all(|(name, value)| *value.expose() == name.replace('s', "value ").into_bytes()));
    assert_eq!(fresh.platform().sealing_keys("sessions").await.unwrap()[0].secret.expose(), b"shared");
}

async fn of_replicas_that_rotate_at_once_one_does(fixture: Fixture) {
    let tasks: Vec<_> = (0..8)
        .map(|i| {
            let store = fixture.store.clone();
            tokio::spawn(async move {
                let now = store.now();
                let key = SealingKey {
                    id: format!("k{i}"),
                    secret: secret("shared"),
                    active_from: now.plus(Duration::from_secs(60)),
                };
                store.platform().add_first_sealing_key("sessions", &key, Some(now)).await.unwrap()
            })
        })
        .collect();
    let mut added = 0;
    for task in tasks {
        added += usize::from(task.await.unwrap());
    }
    assert_eq!(added, 1);
    assert_eq!(fixture.store.platform().sealing_keys("sessions").await.unwrap().len(), 1);
}

/// As `tollgate secrets rotate` does beside a gateway that runs.
async fn a_process_that_runs_takes_up_a_key_that_another_made(fixture: Fixture) {
    let acme = tenant("acme");
    let scope = fixture.store.tenant(&acme);
    scope.put_secret("token", &secret("hunter2"), "ada", whatever).await.unwrap();
    let other = fixture.another();
    other.prepare().await.unwrap();
    other.rotate_master_key().await.unwrap();
    assert_eq!(other.platform().rewrap().await.unwrap(), 1);
    assert_eq!(scope.secret("token").await.unwrap().unwrap().expose(), b"hunter2");
    assert_eq!(scope.put_secret("next", &secret("x"), "ada", whatever).await.unwrap().into_row().key_id, {
        let list = scope.secrets(None, Page::of(10)).await.unwrap();
        list.into_iter().find(|info| info.name == "token").unwrap().key_id
    });
}

async fn no_key_is_lost_when_several_make_one_at_once(fixture: Fixture) {
    let tasks: Vec<_> = (0..6)
        .map(|i| {
            let store = fixture.another();
            tokio::spawn(async move {
                store.prepare().await.unwrap();
                while let Err(error) = store.rotate_master_key().await {
                    assert!(error.to_string().contains("try again"), "{error}");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                let acme = tenant("acme");
                store
                    .tenant(&acme)
                    .put_secret(&format!("s{i}"), &secret("x"), "ada", whatever)
                    .await
                    .unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let fresh = fixture.another();
    fresh.prepare().await.unwrap();
    assert_eq!(fresh.tenant(&tenant("acme")).secret_values().await.unwrap().len(), 6);
}

/// As on a store that was restored without the keys that it was sealed with.
async fn no_key_is_made_where_another_is_missing(fixture: Fixture) {
    let acme = tenant("acme");
    let scope = fixture.store.tenant(&acme);
    let info = scope.put_secret("token", &secret("hunter2"), "ada", whatever).await.unwrap().into_row();
    let path = fixture.settings.data_dir.join("master.key");
    let kept = fixture.settings.data_dir.join("kept");
    std::fs::rename(&path, &kept).unwrap();
    let stranger = fixture.another();
    let error = stranger.prepare().await.unwrap_err();
    assert!(matches!(error, StoreError::MasterKey(_)), "{error}");
    let text = error.to_string();
    assert!(text.contains(&info.key_id) && text.contains(path.to_str().unwrap()), "{text}");
    assert!(!path.exists(), "no key was made");
    std::fs::rename(&kept, &path).unwrap();
    stranger.prepare().await.unwrap();
    assert_eq!(stranger.tenant(&acme).secret("token").await.unwrap().unwrap().expose(), b"hunter2");
}

async fn a_rotation_that_cannot_move_all_makes_no_key(fixture: Fixture) {
    let acme = tenant("acme");
    let scope = fixture.store.tenant(&acme);
    scope.put_secret("token", &secret("hunter2"), "ada", whatever).await.unwrap();
    let path = fixture.settings.data_dir.join("master.key");
    std::fs::write(&path, ANOTHER_KEY).unwrap();
    let stranger = fixture.another();
    stranger.prepare().await.unwrap();
    let error = stranger.rotate_master_key().await.unwrap_err();
    assert!(error.to_string().contains("secret `token` of tenant `acme`"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), ANOTHER_KEY, "the file is as it was");
    stranger.tenant(&acme).remove_secret("token", unless_used).await.unwrap();
    stranger.rotate_master_key().await.unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().filter(|l| !l.starts_with('#')).count(), 2);
}

async fn keys_that_others_may_read_are_refused_and_errors_say_where_they_are(fixture: Fixture) {
    let path = fixture.settings.data_dir.join("master.key");
    let place = path.to_str().unwrap();
    let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    for open in [0o644, 0o640, 0o604] {
        mode(open);
        let text = fixture.another().prepare().await.unwrap_err().to_string();
        assert!(text.contains(place) && text.contains("chmod 600"), "{text}");
        let text = fixture.store.rotate_master_key().await.unwrap_err().to_string();
        assert!(text.contains("chmod 600"), "{text}");
    }
    mode(0o600);
    fixture.another().prepare().await.unwrap();
    std::fs::write(&path, "nonsense").unwrap();
    let text = fixture.another().prepare().await.unwrap_err().to_string();
    assert!(text.contains(place) && text.contains("line 1"), "{text}");
    std::fs::write(&path, ANOTHER_KEY).unwrap();
    let acme = tenant("acme");
    let scope = fixture.store.tenant(&acme);
    scope.put_secret("token", &secret("hunter2"), "ada", whatever).await.unwrap();
    let stranger = fixture.another();
    stranger.prepare().await.unwrap();
    let text = stranger.tenant(&acme).secret("token").await.unwrap_err().to_string();
    assert!(text.contains(place) && text.contains("secrets/acme/token"), "{text}");
}

/// Names the secret, and only looks so.
const NAMES: &str = "version: 1\nx: a ${secret:token}\n";
const LOOKS_SO: &str = "version: 1\nx: a $${secret:token}\n\"${secret:token}\": 1\n";

fn unless_used(_: &SecretInfo, uses: &[SecretUse]) -> Result<(), StoreError> {
    if uses.is_empty() { Ok(()) } else { Err(StoreError::Refused("in use".to_owned())) }
}

fn revision(content: &[u8]) -> NewRevision<'_> {
    NewRevision { content, schema_version: 1, author: "ada", reason: "", if_revision: None }
}

async fn of_a_removal_and_a_publication_that_needs_the_secret_one_happens(fixture: Fixture) {
    let acme = tenant("acme");
    let scope = fixture.store.tenant(&acme);
    let [names, looks_so] = [NAMES, LOOKS_SO].map(|text| canonical(text.as_bytes()).unwrap());
    let (mut kept, mut gone) = (0, 0);
    for round in 0..30 {
        scope.put_secret("token", &secret("v"), "ada", whatever).await.unwrap();
        scope.publish(revision(looks_so.as_bytes())).await.unwrap();
        let gate = Arc::new(Barrier::new(2));
        let (store, theirs) = (fixture.another(), gate.clone());
        let removal = tokio::spawn(async move {
            // Each is first in half of the rounds, if a transaction takes as long as the other.
            theirs.wait().await;
            tokio::time::sleep(Duration::from_micros(200 * (round % 10))).await;
            store.tenant(&tenant("acme")).remove_secret("token", unless_used).await
        });
        gate.wait().await;
        let published = scope.publish(revision(names.as_bytes())).await;
        let there = scope.secret("token").await;
        match (published, removal.await.unwrap()) {
            (Ok(_), Err(StoreError::Refused(_))) => {
                assert!(there.unwrap().is_some());
                kept += 1;
            }
            (Err(StoreError::Unresolved(what)), Ok(())) => {
                assert_eq!(what, "secret `token` of tenant `acme`");
                assert!(there.unwrap().is_none());
                gone += 1;
            }
            both => panic!("round {round}: both or neither, {both:?}"),
        }
    }
    assert_eq!(kept + gone, 30);
    // Another tenant's is none, and who wants it all the same may.
    scope.publish(revision(looks_so.as_bytes())).await.unwrap();
    scope.put_secret("token", &secret("v"), "ada", whatever).await.unwrap();
    scope.publish(revision(names.as_bytes())).await.unwrap();
    let other = tenant("other");
    let late = fixture.store.tenant(&other).publish(revision(names.as_bytes())).await;
    assert!(matches!(late, Err(StoreError::Unresolved(_))), "{late:?}");
    let mut places = 0;
    let forced = scope.remove_secret("token", |_, uses| {
        places = uses.len();
        Ok::<_, StoreError>(())
    });
    forced.await.unwrap();
    assert_eq!(places, 1);
    scope.publish(revision(looks_so.as_bytes())).await.unwrap();
}

async fn the_candidate_of_a_canary_keeps_its_secrets_as_the_head_does(fixture: Fixture) {
    let acme = tenant("acme");
    let scope = fixture.store.tenant(&acme);
    let [names, looks_so] = [NAMES, LOOKS_SO].map(|text| canonical(text.as_bytes()).unwrap());
    let base = scope.publish(revision(looks_so.as_bytes())).await.unwrap().revision;
    let now = fixture.store.now();
    let new = |id, candidate| NewCanary {
        id: Uuid::from_u128(id),
        base,
        candidate,
        kind: "principals",
        share: 1000,
        share_at: now,
        rules: "{}",
        started_by: "ada",
        reason: "",
        deadline: now.plus(Duration::from_secs(60)),
    };
    let early = scope.start_canary(new(1, CandidateSource::New(revision(names.as_bytes())))).await;
    assert!(matches!(early, Err(StoreError::Unresolved(_))), "{early:?}");
    scope.put_secret("token", &secret("v"), "ada", whatever).await.unwrap();
    let canary = scope.start_canary(new(1, CandidateSource::New(revision(names.as_bytes())))).await.unwrap();
    let mut seen = Vec::new();
    let kept = scope.remove_secret("token", |found, uses| {
        seen = uses.to_vec();
        unless_used(found, uses)
    });
    assert!(matches!(kept.await, Err(StoreError::Refused(_))));
    assert_eq!(seen, [SecretUse { revision: canary.candidate, tried: true, place: "x".to_owned() }]);
    let end =
        CanaryEnd { state: "aborted", by: "ada", reason: "", promoted: None, figures: "{}", if_share: None };
    scope.end_canary(canary.id, end).await.unwrap();
    scope.remove_secret("token", unless_used).await.unwrap();
    let late = scope.start_canary(new(2, CandidateSource::Existing(canary.candidate))).await;
    assert!(matches!(late, Err(StoreError::Unresolved(_))), "{late:?}");
    assert!(scope.canary(Uuid::from_u128(2)).await.unwrap().is_none());
}
