//! The key that signs the audit: one for all replicas, encrypted in the store.

use std::io::Cursor;
use std::path::PathBuf;

use tollgate::audit::{AuditKey, KeyError, PublicKey};
use tollgate::base::envelope::EnvelopeError;
use tollgate::store::{SigningKey, SigningKeyError, Store, StoreError};

use super::{Fixture, each_engine};

each_engine!(
    replicas_that_start_at_once_sign_with_one_key,
    a_key_from_before_is_taken_up_once,
    a_damaged_key_from_before_is_not_replaced,
    the_key_needs_the_master_key_and_its_place,
    the_key_moves_with_the_master_key_and_with_a_backup,
);

async fn public(store: &Store, adopt: PathBuf) -> Result<PublicKey, SigningKeyError> {
    SigningKey::stored(store.clone(), adopt).get().await.map(AuditKey::public)
}

async fn replicas_that_start_at_once_sign_with_one_key(fixture: Fixture) {
    let folder = fixture.settings.data_dir.clone();
    let tasks: Vec<_> = (0..8)
        .map(|i| {
            let (store, adopt) = (fixture.another(), folder.join(format!("{i}.key")));
            if i % 2 == 1 {
                AuditKey::open(&adopt).unwrap();
            }
            tokio::spawn(async move {
                store.prepare().await.unwrap();
                public(&store, adopt).await.unwrap()
            })
        })
        .collect();
    let mut found = std::collections::HashSet::new();
    for task in tasks {
        found.insert(task.await.unwrap());
    }
    assert_eq!(found.len(), 1);
    let keys = fixture.store.platform().sealing_keys("audit").await.unwrap();
    assert_eq!(keys.len(), 1);
    assert_eq!(
        AuditKey::from_pkcs8(keys[0].secret.expose()).unwrap().public(),
        found.into_iter().next().unwrap()
    );
}

async fn a_key_from_before_is_taken_up_once(fixture: Fixture) {
    let folder = &fixture.settings.data_dir;
    let (first, second) = (folder.join("first.key"), folder.join("second.key"));
    let old = AuditKey::open(&first).unwrap().public();
    AuditKey::open(&second).unwrap();
    assert_eq!(public(&fixture.store, first.clone()).await.unwrap(), old);
    assert_eq!(public(&fixture.store, second).await.unwrap(), old, "the store's counts, not that of a file");
    std::fs::write(&first, "nonsense").unwrap();
    assert_eq!(public(&fixture.store, first).await.unwrap(), old, "the file is not needed any more");
}

async fn a_damaged_key_from_before_is_not_replaced(fixture: Fixture) {
    let path = fixture.settings.data_dir.join("audit.key");
    let old = AuditKey::open(&path).unwrap().public();
    let good = std::fs::read(&path).unwrap();
    std::fs::write(&path, "nonsense").unwrap();
    let signing = SigningKey::stored(fixture.store.clone(), path.clone());
    let error = signing.get().await.unwrap_err();
    assert!(matches!(error, SigningKeyError::File(KeyError::Damaged { .. })), "{error}");
    assert!(fixture.store.platform().sealing_keys("audit").await.unwrap().is_empty());
    std::fs::write(&path, good).unwrap();
    assert_eq!(signing.get().await.unwrap().public(), old, "asked again, when it was restored");
}

async fn the_key_needs_the_master_key_and_its_place(fixture: Fixture) {
    let none = fixture.settings.data_dir.join("none");
    let key = public(&fixture.store, none.clone()).await.unwrap();
    if let Some(database) = &fixture.database {
        let hex = "SELECT count(*) FROM sealing_keys WHERE position('\\x302e0201'::bytea in sealed) > 0";
        assert_eq!(database.sql(hex), "0", "nothing of PKCS #8 is to be seen");
        // Who can write to the table puts another sealed value in its place: it is for another place, and does not open.
        let session = tollgate::store::SealingKey {
            id: "s1".into(),
            secret: AuditKey::generate().unwrap(),
            active_from: fixture.store.now(),
        };
        fixture.store.platform().add_sealing_key("sessions", &session).await.unwrap();
        let sealed = database.sql("SELECT encode(sealed, 'hex') FROM sealing_keys WHERE purpose = 'audit'");
        database.sql("UPDATE sealing_keys SET sealed = (SELECT sealed FROM sealing_keys WHERE purpose = 'sessions') WHERE purpose = 'audit'");
        let forged = public(&fixture.store, none.clone()).await.unwrap_err();
        let SigningKeyError::Store(StoreError::Envelope { source, .. }) = &forged else { panic!("{forged}") };
        assert_eq!(*source, EnvelopeError::Forged);
        database.sql(&format!(
            "UPDATE sealing_keys SET sealed = decode('{sealed}', 'hex') WHERE purpose = 'audit'"
        ));
        assert_eq!(public(&fixture.store, none.clone()).await.unwrap(), key);
    }
    // Another master key.
    std::fs::write(fixture.settings.data_dir.join("master.key"), super::secrets::ANOTHER_KEY).unwrap();
    let stranger = fixture.another();
    stranger.prepare().await.unwrap();
    let error = public(&stranger, none).await.unwrap_err();
    let SigningKeyError::Store(StoreError::Envelope { source, .. }) = &error else { panic!("{error}") };
    assert!(matches!(source, EnvelopeError::UnknownKey(_)), "{source}");
    assert!(error.to_string().contains("which is not among those configured"), "{error}");
    assert!(error.to_string().starts_with("the key that signs the audit: "), "{error}");
}

async fn the_key_moves_with_the_master_key_and_with_a_backup(fixture: Fixture) {
    let none = fixture.settings.data_dir.join("none");
    let key = public(&fixture.store, none.clone()).await.unwrap();
    fixture.store.rotate_master_key().await.unwrap();
    assert_eq!(fixture.store.platform().rewrap().await.unwrap(), 1);
    assert_eq!(public(&fixture.store, none.clone()).await.unwrap(), key);
    let mut backup = Vec::new();
    fixture.store.backup(&mut backup).await.unwrap();
    let other = Fixture::new(fixture.store.engine()).await;
    let master = "master.key";
    std::fs::copy(fixture.settings.data_dir.join(master), other.settings.data_dir.join(master)).unwrap();
    other.store.load_keys().await.unwrap();
    other.store.restore(Cursor::new(&backup), tollgate::store::RestoreInto::Empty).await.unwrap();
    assert_eq!(public(&other.store, none).await.unwrap(), key);
}
