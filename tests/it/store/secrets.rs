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
);

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
