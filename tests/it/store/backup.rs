//! Backups: engine-neutral, complete or refused, compared table by table after a restore.

use std::io::Cursor;

use tollgate::base::{Scope, Secret};
use tollgate::config::model::HistoryRetention;
use tollgate::store::{
    CandidateSource, Engine, NewCanary, NewRevision, NewUser, Page, RestoreInto, Store, StoreError, whatever,
};

use super::{Fixture, tenant};

async fn fill(store: &Store) {
    let platform = store.platform();
    for name in ["acme", "zebra", "Überseehafen", "a_b", "a-b", "aB"] {
        let id = tenant(name);
        platform.put_tenant(&id, "Name with \"quotes\", ü and \u{1f600}\n").await.unwrap();
        for i in 0..3 {
            let content = vec![i; 1 + usize::from(i) * 700];
            let new = NewRevision {
                content: &content,
                schema_version: 1,
                author: "ada",
                reason: "',\\\t",
                if_revision: None,
            };
            platform.publish(&Scope::Tenant(id.clone()), new).await.unwrap();
        }
        let now = store.now();
        let canary = NewCanary {
            id: uuid::Uuid::from_u128(now.micros().unsigned_abs().into()),
            base: 3,
            candidate: CandidateSource::Existing(1),
            kind: "principals",
            share: 1000,
            share_at: now,
            rules: "{\"min_calls\":50}",
            started_by: "ada",
            reason: "Ü",
            deadline: now,
        };
        store.tenant(&id).start_canary(canary).await.unwrap();
        let value = Secret::new(b"hunter2".to_vec());
        store.tenant(&id).put_secret("token", &value, "ada", whatever).await.unwrap();
        // Changes are numbered, on PostgreSQL by a trigger: a restore must not number them anew.
        for (user, disabled) in [("corp|bob", false), ("corp|eve", true)] {
            let user = NewUser { id: user, display_name: "Ü", email: "", disabled };
            store.tenant(&id).put_user(user, whatever).await.unwrap();
        }
    }
    super::history::fill(store).await;
    for i in 0..1200 {
        platform.put_tenant(&tenant(&format!("t{i}")), "").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_either_engine_restores_into_either() {
    for from in [Engine::Sqlite, Engine::Postgres] {
        let source = Fixture::new(from).await;
        fill(&source.store).await;
        let mut file = Vec::new();
        let manifest = source.store.backup(&mut file).await.unwrap();
        assert_eq!(manifest.tables["tenants"].rows, 1206);
        assert_eq!(manifest.tables["config_revisions"].rows, 18);
        assert_eq!((manifest.tables["health_minute"].rows, manifest.tables["health_hour"].rows), (130, 3));
        for table in
            ["health_changes", "metric_minute", "metric_hour", "usage_minute", "usage_hour", "usage_day"]
        {
            assert!(manifest.tables[table].rows > 0, "{table}");
        }
        for into in [Engine::Sqlite, Engine::Postgres] {
            let target = Fixture::unprepared(into);
            // The master keys travel by themselves.
            std::fs::copy(
                source.settings.data_dir.join("master.key"),
                target.settings.data_dir.join("master.key"),
            )
            .unwrap();
            assert_eq!(target.store.restore(Cursor::new(&file), RestoreInto::Empty).await.unwrap(), manifest);
            assert_eq!(target.store.fingerprint().await.unwrap(), manifest.tables, "{from} → {into}");
            target.store.prepare().await.unwrap();
            // What came into no partition moves into one, and stays what it was.
            tollgate::app::upkeep(&target.store, &HistoryRetention::default()).await.unwrap();
            let upkept = target.store.fingerprint().await.unwrap();
            for table in ["health_minute", "health_hour", "metric_minute", "usage_minute", "usage_hour"] {
                assert_eq!(upkept[table], manifest.tables[table], "{from} → {into}: {table}");
            }
            let acme = tenant("acme");
            let scope = target.store.tenant(&acme);
            assert_eq!(scope.secret("token").await.unwrap().unwrap().expose(), b"hunter2");
            assert_eq!(target.store.platform().running_canaries().await.unwrap().len(), 6);
            // And life goes on: the head moves from where it was.
            let new = NewRevision {
                content: b"next",
                schema_version: 1,
                author: "ada",
                reason: "",
                if_revision: Some(3),
            };
            let head = scope.publish(new).await.unwrap();
            let user = NewUser { id: "corp|new", display_name: "", email: "", disabled: true };
            scope.put_user(user, whatever).await.unwrap();
            let seen = source.store.platform().identity_head().await.unwrap();
            assert_eq!(target.store.platform().identity_head().await.unwrap(), seen + 1, "{from} → {into}");
            let before = source.store.platform().heads(0).await.unwrap();
            assert!(before.iter().all(|h| h.generation < head.generation), "{from} → {into}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_in_use_is_restored_into_only_if_told() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let source = Fixture::new(engine).await;
        source.store.platform().put_tenant(&tenant("acme"), "").await.unwrap();
        let mut file = Vec::new();
        source.store.backup(&mut file).await.unwrap();
        let target = Fixture::new(engine).await;
        let new = NewRevision { content: b"x", schema_version: 1, author: "", reason: "", if_revision: None };
        target.store.platform().publish(&Scope::Platform, new).await.unwrap();
        let error = target.store.restore(Cursor::new(&file), RestoreInto::Empty).await.unwrap_err();
        assert!(error.to_string().contains("in use"), "{error}");
        assert_eq!(target.store.platform().heads(0).await.unwrap().len(), 1, "nothing was touched");
        refused_without_erasing(&target, &file).await;
        target.store.restore(Cursor::new(&file), RestoreInto::Erased).await.unwrap();
        assert_eq!(target.store.fingerprint().await.unwrap(), source.store.fingerprint().await.unwrap());
    }
}

/// Whatever is wrong with a file, what it was to replace stays. What a text says of it must not be the database's.
async fn refused_without_erasing(target: &Fixture, file: &[u8]) {
    let before = target.store.fingerprint().await.unwrap();
    let text = String::from_utf8(zstd::decode_all(file).unwrap()).unwrap();
    let packed = |text: String| zstd::encode_all(text.as_bytes(), 3).unwrap();
    let mut flipped = text.clone().into_bytes();
    // In the middle of a row, where JSON ends being JSON.
    let row = text.find("[\"acme\"").unwrap();
    flipped[row + 6] ^= 0x01;
    let files = [
        ("another file", b"not a backup".to_vec()),
        ("nothing", Vec::new()),
        ("cut", file[..file.len() / 2].to_vec()),
        ("without its end", packed(text[..=text.trim_end().rfind('\n').unwrap()].to_owned())),
        ("edited", packed(text.replace("[\"acme\"", "[\"emca\""))),
        ("flipped", zstd::encode_all(&flipped[..], 3).unwrap()),
        ("newer", packed(text.replacen("\"format\":1", "\"format\":2", 1))),
    ];
    for (what, file) in files {
        let error = target.store.restore(Cursor::new(&file), RestoreInto::Erased).await.unwrap_err();
        assert!(matches!(error, StoreError::Backup(_)), "{what}: {error}");
        assert!(error.to_string().starts_with("the backup cannot be used: "), "{what}: {error}");
        assert_eq!(target.store.fingerprint().await.unwrap(), before, "{what}");
    }
    // Whole in itself, but not for these tables: found only when the old ones are gone, and then they come back.
    let lines = text.lines().map(|line| match line.strip_prefix("{\"table\":{\"name\":\"tenants\"") {
        Some(rest) => format!("{{\"table\":{{\"name\":\"tenantz\"{rest}"),
        None => line.to_owned(),
    });
    let mut lines: Vec<String> = lines.collect();
    let mut end: serde_json::Value = serde_json::from_str(&lines.pop().unwrap()).unwrap();
    let tables = end["end"]["tables"].as_object_mut().unwrap();
    let moved = tables.remove("tenants").unwrap();
    tables.insert("tenantz".to_owned(), moved);
    let body = lines.join("\n") + "\n";
    end["end"]["sha256"] = sha256(body.as_bytes()).into();
    let foreign = packed(format!("{body}{end}\n"));
    let error = target.store.restore(Cursor::new(&foreign), RestoreInto::Erased).await.unwrap_err();
    assert!(error.to_string().contains("no table tenantz"), "{error}");
    assert_eq!(target.store.fingerprint().await.unwrap(), before, "rolled back");
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_changed_or_cut_is_refused_and_leaves_nothing() {
    let source = Fixture::new(Engine::Sqlite).await;
    for name in ["a", "b", "c"] {
        source.store.platform().put_tenant(&tenant(name), name).await.unwrap();
    }
    let mut file = Vec::new();
    source.store.backup(&mut file).await.unwrap();
    let text = String::from_utf8(zstd::decode_all(&file[..]).unwrap()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let row = lines.iter().position(|line| line.starts_with("[\"b\"")).unwrap();
    let mut without = lines.clone();
    without.remove(row);
    let mut twice = lines.clone();
    twice.insert(row, lines[row]);
    let mut swapped = lines.clone();
    swapped.swap(row, row + 1);
    let changed = text.replacen("[\"b\",\"b\"", "[\"b\",\"x\"", 1);
    let mut cases: Vec<Vec<u8>> = [without, twice, swapped, lines[..lines.len() - 1].to_vec()]
        .into_iter()
        .map(|lines| (lines.join("\n") + "\n").into_bytes())
        .collect();
    cases.push(changed.into_bytes());
    cases.push(format!("{text}[]\n").into_bytes());
    let mut files: Vec<Vec<u8>> = cases.iter().map(|text| zstd::encode_all(&text[..], 3).unwrap()).collect();
    files.push(file[..file.len() - 5].to_vec());
    files.push(b"not a backup".to_vec());
    for (at, file) in files.iter().enumerate() {
        let target = Fixture::new(Engine::Sqlite).await;
        target.store.restore(Cursor::new(&file), RestoreInto::Empty).await.expect_err(&format!("case {at}"));
        assert!(target.store.platform().tenants(None, Page::of(10)).await.unwrap().is_empty(), "case {at}");
    }
}

/// A new migration that puts rows somewhere has to say so, or its database counts as one in use.
#[tokio::test]
async fn a_fresh_database_counts_as_empty() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let source = Fixture::new(engine).await;
        let mut file = Vec::new();
        source.store.backup(&mut file).await.unwrap();
        let target = Fixture::new(engine).await;
        target.store.restore(Cursor::new(&file), RestoreInto::Empty).await.unwrap();
    }
}
