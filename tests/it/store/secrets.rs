//! Secrets and shared keys: encrypted, bound to their place, rotated.

use std::os::unix::fs::PermissionsExt as _;

use tollgate::base::Secret;
use tollgate::store::{Page, SealingKey, StoreError, whatever};

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
    scope.remove_secret("token", whatever).await.unwrap();
    assert!(matches!(scope.remove_secret("token", whatever).await, Err(StoreError::Missing(_))));
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
                    active_from: now.plus(std::time::Duration::from_secs(60)),
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
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
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
    stranger.tenant(&acme).remove_secret("token", whatever).await.unwrap();
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
