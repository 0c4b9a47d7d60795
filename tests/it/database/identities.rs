//! Keys, revocations and roles of the store on two replicas.

use std::time::Instant;

use serde_json::json;
use tollgate::auth::{KeyHash, generate_api_key};
use tollgate::base::TenantId;
use tollgate::store::{NewApiKey, NewUser, Store, whatever};

use super::{Replica, SOON, document, publish};
use crate::support::postgres::Database;
use crate::support::{Upstream, eventually};

pub async fn make_key(store: &Store, principal: &str) -> (String, String) {
    let key = generate_api_key(&mut rand::rng());
    let text = key.text.expose().clone();
    let hash = KeyHash::of(text.as_bytes(), None).to_string();
    let record =
        json!({ "id": key.id, "hash": hash, "principal": principal, "roles": ["developer"] }).to_string();
    let new = NewApiKey {
        id: &key.id,
        principal,
        record: &record,
        author: "test",
        disabled: false,
        expires_at: None,
    };
    store.tenant(&TenantId::default()).put_api_key(new).await.unwrap();
    (key.id.to_string(), text)
}

async fn status(replica: &Replica, key: &str) -> u16 {
    let caller = replica.caller("s").bearer(key);
    caller.ask(&caller.modern("tools/list", json!({}))).await.status()
}

#[tokio::test]
async fn a_key_is_cut_on_every_replica_within_a_second_however_it_is_taken_away() {
    let database = Database::fresh();
    let up = Upstream::modern().await;
    let (one, two) = (Replica::start(&database.url()).await, Replica::start(&database.url()).await);
    let text = document("s", &up.url()).replace("loopback: { role: developer }", "api_keys: true");
    publish(&one.publisher(), &text, None).await.unwrap();
    let store = one.process().store().unwrap().clone();
    let tenant = TenantId::default();
    for way in ["removed", "revoked", "disabled user"] {
        let principal = format!("corp|{}", way.replace(' ', "-"));
        let (id, key) = make_key(&store, &principal).await;
        for replica in [&one, &two] {
            eventually("the key is accepted", async || (status(replica, &key).await == 200).then_some(()))
                .await;
        }
        let scope = store.tenant(&tenant);
        match way {
            "removed" => scope.remove_api_key(&id).await.unwrap(),
            "revoked" => drop(scope.revoke(&json!({ "jti": id }).to_string(), "test").await.unwrap()),
            _ => {
                let user = NewUser { id: &principal, display_name: "X", email: "", disabled: true };
                drop(scope.put_user(user, whatever).await.unwrap());
            }
        }
        let acknowledged = Instant::now();
        for replica in [&one, &two] {
            eventually(way, async || (status(replica, &key).await == 401).then_some(())).await;
        }
        assert!(acknowledged.elapsed() < SOON, "{way}: {:?}", acknowledged.elapsed());
    }
}

#[tokio::test]
async fn what_was_revoked_stays_revoked_after_a_start_from_disk() {
    let server = std::sync::Arc::new(crate::support::postgres::Postgres::start(
        crate::support::postgres::Durability::None,
    ));
    let database = server.database();
    let up = Upstream::modern().await;
    let one = Replica::start(&database.url()).await;
    let text = document("s", &up.url()).replace("loopback: { role: developer }", "api_keys: true");
    publish(&one.publisher(), &text, None).await.unwrap();
    let store = one.process().store().unwrap().clone();
    let (_, good) = make_key(&store, "corp|good").await;
    let (id, bad) = make_key(&store, "corp|bad").await;
    store.tenant(&TenantId::default()).revoke(&json!({ "jti": id }).to_string(), "test").await.unwrap();
    eventually("one is accepted, one is not", async || {
        (status(&one, &good).await == 200 && status(&one, &bad).await == 401).then_some(())
    })
    .await;
    // The file is written at most once a second.
    tokio::time::sleep(5 * SOON).await;
    server.kill();
    let one = one.restart().await;
    assert_eq!(status(&one, &good).await, 200);
    assert_eq!(status(&one, &bad).await, 401);
}

async fn allowed(replica: &Replica, key: &str) -> bool {
    let caller = replica.caller("s").bearer(key);
    caller.ask(&caller.tool("t")).await.json()["result"].is_object()
}

#[tokio::test]
async fn a_role_that_is_given_counts_on_every_replica_until_it_is_taken() {
    let database = Database::fresh();
    let up = Upstream::modern().await;
    let (one, two) = (Replica::start(&database.url()).await, Replica::start(&database.url()).await);
    let text = document("s", &up.url())
        .replace("loopback: { role: developer }", "api_keys: true")
        .replace("limits: []", "limits: [], policy: admins")
        .replace("health:", "era: modern, health:")
        + "policies:\n  - { name: admins, rules: [ { allow: { roles: [admin] } } ] }\n";
    publish(&one.publisher(), &text, None).await.unwrap();
    let store = one.process().store().unwrap().clone();
    let (id, key) = make_key(&store, "corp|dora").await;
    for replica in [&one, &two] {
        eventually("the key is known", async || (status(replica, &key).await != 401).then_some(())).await;
        assert!(!allowed(replica, &key).await, "a developer");
    }
    let tenant = TenantId::default();
    let scope = store.tenant(&tenant);
    scope.bind_role("corp|dora", tollgate::base::Role::Admin, "test").await.unwrap();
    let acknowledged = Instant::now();
    for replica in [&one, &two] {
        eventually("the role counts", async || allowed(replica, &key).await.then_some(())).await;
    }
    assert!(acknowledged.elapsed() < SOON, "{:?}", acknowledged.elapsed());
    // The add-on is in the feed, too, and gives nothing here.
    scope.bind_auditor("corp|dora", "test").await.unwrap();
    scope.unbind_role("corp|dora", tollgate::base::Role::Admin).await.unwrap();
    for replica in [&one, &two] {
        eventually("it counts no more", async || (!allowed(replica, &key).await).then_some(())).await;
    }
    let feed = store.platform().identity_changes(0, 100).await.unwrap();
    assert!(feed.iter().any(|c| c.id == "auditor:corp|dora" && c.body.is_some()), "{feed:?}");
    // When it was used comes back, whichever replica saw it.
    eventually("the last use is written", async || {
        scope.api_key(&id).await.unwrap().unwrap().last_used_at.map(|_| ())
    })
    .await;
}

#[tokio::test]
async fn keys_beyond_max_staleness_are_refused_or_go_on_as_on_stale_says() {
    let server = std::sync::Arc::new(crate::support::postgres::Postgres::start(
        crate::support::postgres::Durability::Full,
    ));
    let up = Upstream::modern().await;
    let databases = [("refuse", server.database()), ("serve", server.database())];
    let clock = tollgate::base::Clock::manual(1_796_000_000);
    let mut replicas = Vec::new();
    for (on_stale, database) in &databases {
        let one = Replica::at(&database.url(), &clock).await;
        let identity = format!("api_keys: true, max_staleness: 1h, on_stale: {on_stale}");
        let text = document("s", &up.url()).replace("loopback: { role: developer }", &identity);
        publish(&one.publisher(), &text, None).await.unwrap();
        let (_, key) = make_key(one.process().store().unwrap(), "corp|eve").await;
        eventually("the key is accepted", async || (status(&one, &key).await == 200).then_some(())).await;
        replicas.push((*on_stale, one, key));
    }
    server.kill();
    clock.advance(std::time::Duration::from_secs(3_590));
    for (on_stale, one, key) in &replicas {
        assert_eq!(status(one, key).await, 200, "{on_stale}: not yet");
    }
    clock.advance(std::time::Duration::from_secs(60));
    for (on_stale, one, key) in &replicas {
        let expected = if *on_stale == "refuse" { 503 } else { 200 };
        assert_eq!(status(one, key).await, expected, "{on_stale}");
        let admin = one.process().admin_address();
        let ask = async |path: &str| {
            let request = crate::support::Request::new("GET", path)
                .with("Host", &admin.to_string())
                .with("Authorization", "Bearer an-operators-token")
                .with("Connection", "close");
            crate::support::Client::connect(admin).await.ask(&request).await
        };
        let ready = ask("/readyz").await;
        let identity = ready.json()["identity"].clone();
        assert_eq!(identity["late"], true, "{identity}");
        // The jump of time makes catalogues stale; that the feed is late is no reason to take traffic away.
        assert!(!ready.json()["problems"].to_string().contains("identity"), "{}", ready.text());
        assert!(identity["staleness_seconds"].as_u64().unwrap() >= 3_600, "{identity}");
        let metrics = ask("/metrics").await.text();
        let line = metrics.lines().find(|l| l.starts_with("tollgate_identity_staleness_seconds ")).unwrap();
        assert!(line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() >= 3_600.0, "{line}");
    }
    server.restart();
    for (on_stale, one, key) in &replicas {
        eventually(on_stale, async || (status(one, key).await == 200).then_some(())).await;
    }
}

/// While anybody calls, word of new events of the audit comes without end. It must not put off the look for what was not told.
#[tokio::test]
async fn what_else_is_told_does_not_put_off_the_look() {
    let database = Database::fresh();
    let one = Replica::start(&database.url()).await;
    let began = Instant::now();
    // Polls are half a second apart.
    while began.elapsed().as_secs() < 4 {
        database.sql("SELECT pg_notify('tollgate_audit', 'x')");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let answer = super::planes::ask(&one, "GET", "/readyz").await.json();
    assert!(answer["identity"]["staleness_seconds"].as_u64().unwrap() <= 2, "{answer}");
}
