//! Keys, revocations and roles of the store on two replicas.

use std::time::Instant;

use serde_json::json;
use tollgate::auth::{KeyHash, generate_api_key};
use tollgate::base::TenantId;
use tollgate::store::{NewApiKey, NewUser, Store};

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
                drop(scope.put_user(user).await.unwrap());
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
