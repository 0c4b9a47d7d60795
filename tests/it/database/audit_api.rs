//! The audit over the API, and the admin token: on PostgreSQL and on the embedded default.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use tollgate::audit::{AuditKey, PublicKey, Report, verify};
use tollgate::store::{SigningKey, StoreSettings};

use super::events::{request, token};
use super::{Replica, document, publish};
use crate::support::postgres::{Database, Durability, Postgres};
use crate::support::{Caller, Client, Gateway, Response, Upstream, eventually};

const AUDIT: &str = "/api/v1/tenants/default/audit";

async fn get(admin: SocketAddr, token: &str, path: &str) -> Response {
    Client::connect(admin).await.ask(&request(admin, token, "GET", path)).await
}

async fn post(admin: SocketAddr, token: &str, path: &str, body: &Value) -> Response {
    let ask = request(admin, token, "POST", path).with("Content-Type", "application/json");
    Client::connect(admin).await.ask(&ask.body(body.to_string())).await
}

fn proved(file: &[u8], key: PublicKey) -> Report {
    verify(std::io::Cursor::new(file), &[key], None).unwrap()
}

/// What the store signs with, as `tollgate audit key` finds it out.
pub async fn key_of(settings: StoreSettings) -> PublicKey {
    let nowhere = settings.data_dir.join("none");
    let store = crate::store::open(&settings, &tollgate::base::Clock::default());
    store.prepare().await.unwrap();
    let key = SigningKey::stored(store.clone(), nowhere).get().await.unwrap().public();
    store.close().await;
    key
}

async fn calls(admin: SocketAddr, token: &str) -> Vec<Value> {
    let found = get(admin, token, &format!("{AUDIT}?class=data&limit=500")).await;
    assert_eq!(found.status(), 200, "{}", found.text());
    let events = found.json()["items"].as_array().unwrap().clone();
    events.into_iter().filter(|e| e["event"]["method"] == "tools/call").collect()
}

async fn exported_proved_and_erased(admin: SocketAddr, settings: StoreSettings, token: &str, caller: Caller) {
    let key = key_of(settings).await;
    for _ in 0..5 {
        assert_eq!(caller.ask(&caller.tool("kept_quiet")).await.status(), 200);
    }
    let found = eventually("the calls are in the store", async || {
        let found = calls(admin, token).await;
        (found.len() == 5).then_some(found)
    })
    .await;
    let principal = found[0]["event"]["principal"].as_str().unwrap().to_owned();
    let whole = get(admin, token, &format!("{AUDIT}/export")).await;
    assert_eq!((whole.status(), whole.header("content-type")), (200, Some("application/jsonl")));
    let report = proved(&whole.body, key);
    assert!(report.events >= 5 && report.erased == 0 && whole.whole, "{report:?}");
    assert!(whole.text().contains("kept_quiet"));
    let cut = &whole.body[..whole.body.len() - 400];
    assert!(verify(std::io::Cursor::new(cut), &[key], None).is_err(), "one that breaks off");
    let none = get(admin, token, &format!("{AUDIT}/export?principal=nobody")).await;
    let report = proved(&none.body, key);
    assert!(report.events == 0 && report.omitted >= 5, "{report:?}");
    assert!(!none.text().contains("kept_quiet"));
    let csv = get(admin, token, &format!("{AUDIT}/export?format=csv&name=kept_quiet")).await.text();
    assert!(csv.starts_with("time,tenant,class,") && csv.lines().count() == 6, "{csv}");
    let cef = get(admin, token, &format!("{AUDIT}/export?format=cef&name=kept_quiet")).await.text();
    assert!(cef.lines().count() == 5 && cef.lines().all(|l| l.starts_with("CEF:0|")), "{cef}");
    for (query, at) in [("format=xml", "?format"), ("class=x", "?class"), ("from=yesterday", "?from")] {
        let refused = get(admin, token, &format!("{AUDIT}/export?{query}")).await;
        assert_eq!((refused.status(), &refused.json()["errors"][0]["pointer"]), (400, &json!(at)));
    }

    let erase = format!("{AUDIT}/erase");
    let me = get(admin, token, "/api/v1/me").await.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(post(admin, token, &erase, &json!({ "principal": me })).await.status(), 403, "their own");
    assert_eq!(post(admin, token, &erase, &json!({ "principal": "" })).await.status(), 422);
    let erased = post(admin, token, &erase, &json!({ "principal": principal })).await;
    assert_eq!(erased.status(), 200, "{}", erased.text());
    assert!(erased.json()["events"].as_u64().unwrap() >= 5, "{}", erased.text());
    assert!(calls(admin, token).await.is_empty());
    let after = get(admin, token, &format!("{AUDIT}/export")).await;
    let report = proved(&after.body, key);
    assert!(report.erased >= 5, "{report:?}");
    assert!(!after.text().contains("kept_quiet"));
    let actions = eventually("the actions are in the log", async || {
        let log = get(admin, token, &format!("{AUDIT}?class=control&limit=500")).await.json();
        let action = |e: &Value| Some(e["event"]["action"].as_str()?.to_owned());
        let actions: Vec<String> = log["items"].as_array().unwrap().iter().filter_map(action).collect();
        actions.iter().any(|a| a == "erase_audit").then_some(actions)
    })
    .await;
    assert!(actions.iter().any(|a| a == "export_audit"), "{actions:?}");
    let told = eventually("the record of the erasure", async || {
        let log = get(admin, token, &format!("{AUDIT}?class=control&outcome=ok&limit=500")).await.json();
        let items = log["items"].as_array().unwrap().clone();
        items.into_iter().map(|e| e["event"].clone()).find(|e| e["action"] == "erase_audit")
    })
    .await;
    let (detail, erased) = (told["detail"].as_str().unwrap(), erased.json());
    assert!(detail.contains(erased["erased"].as_str().unwrap()) && !detail.contains(&principal), "{told}");
    assert!(detail.contains(&format!("{} events", erased["events"])), "{told}");
    assert_eq!((&told["credential"], &told["principal"]), (&json!("bootstrap_token"), &json!(me)), "{told}");
}

#[tokio::test]
async fn the_log_is_exported_proved_and_erased_on_postgres() {
    let database = Database::fresh();
    let up = Upstream::modern().await;
    let one = Replica::start(&database.url()).await;
    let token = one.admin_token().await;
    publish(&one.publisher(), &document("s", &up.url()), None).await.unwrap();
    eventually("it is served", async || (one.routes() == ["s"]).then_some(())).await;
    let (admin, data) = (one.process().admin_address(), one.data_dir());
    let settings = StoreSettings::at(&database.url(), &data);
    exported_proved_and_erased(admin, settings, &token, one.caller("s")).await;
}

#[tokio::test]
async fn replicas_sign_with_one_key_that_the_first_one_brought() {
    let database = Database::fresh();
    let first = Replica::start(&database.url()).await;
    let token = first.admin_token().await;
    // What earlier versions left: a key for each replica. The first that comes to this store finds none there.
    let key = key_of(StoreSettings::at(&database.url(), &first.data_dir())).await;
    let own = |data: &Path| {
        AuditKey::open(&data.join("audit.key")).unwrap();
    };
    let second = first.beside(own).await;
    let brought = AuditKey::read(&second.data_dir().join("audit.key")).unwrap().public();
    assert_ne!(brought, key, "its own key is not that of all");
    for replica in [&first, &second] {
        let export = eventually("the token is known there", async || {
            let export = get(replica.process().admin_address(), &token, &format!("{AUDIT}/export")).await;
            (export.status() == 200).then_some(export)
        })
        .await;
        proved(&export.body, key);
        assert!(verify(std::io::Cursor::new(&export.body[..]), &[brought], None).is_err());
    }
    // With another master key it cannot be opened, and is not replaced by another.
    let another =
        |data: &Path| std::fs::write(data.join("master.key"), crate::store::secrets::ANOTHER_KEY).unwrap();
    let stranger = first.beside(another).await;
    let admin = stranger.process().admin_address();
    let refused = get(admin, "an-operators-token", &format!("{AUDIT}/export")).await;
    assert_eq!(refused.status(), 503, "{}", refused.text());
    assert!(refused.text().contains("audit_key_unusable"), "{}", refused.text());
    assert_eq!(key_of(StoreSettings::at(&database.url(), &first.data_dir())).await, key);
}

#[tokio::test]
async fn the_log_is_exported_proved_and_erased_on_sqlite() {
    let up = Upstream::modern().await;
    let gateway = Gateway::relay(&[&up]).server("era: modern").start().await;
    let token = token(gateway.data_dir(), gateway.admin).await;
    let settings = StoreSettings::embedded(&gateway.data_dir());
    exported_proved_and_erased(gateway.admin, settings, &token, gateway.caller()).await;
}

#[tokio::test]
async fn a_replica_that_starts_with_the_database_away_signs_when_it_is_back() {
    let server = std::sync::Arc::new(Postgres::start(Durability::Full));
    let database = server.database();
    let up = Upstream::modern().await;
    let one = Replica::start(&database.url()).await;
    publish(&one.publisher(), &document("s", &up.url()), None).await.unwrap();
    eventually("it is served", async || (one.routes() == ["s"]).then_some(())).await;
    let key = key_of(StoreSettings::at(&database.url(), &one.data_dir())).await;
    server.kill();
    let one = one.restart().await;
    let caller = one.caller("s");
    assert_eq!(caller.ask(&caller.tool("meanwhile")).await.status(), 200, "it serves");
    let (admin, export) = (one.process().admin_address(), format!("{AUDIT}/export"));
    assert_eq!(get(admin, "an-operators-token", &export).await.status(), 503);
    server.restart();
    let signed = eventually("it signs", async || {
        let signed = get(admin, "an-operators-token", &export).await;
        (signed.status() == 200 && signed.text().contains("meanwhile")).then_some(signed)
    })
    .await;
    proved(&signed.body, key);
}

#[tokio::test]
async fn no_admin_token_is_made_where_the_document_has_one() {
    let database = Database::fresh();
    let replica = Replica::start(&database.url()).await;
    let (admin, data) = (replica.process().admin_address(), replica.data_dir());
    assert_eq!(get(admin, "an-operators-token", "/api/v1/me").await.status(), 200);
    // It would be made within moments of the start, and is looked for every two seconds.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let made = database.sql("SELECT count(*) FROM admin_tokens");
    assert_eq!((made.as_str(), data.join("admin.token").exists()), ("0", false));
    // It can be asked for, and is then accepted beside the other.
    let asked = replica.admin_token().await;
    assert_eq!(get(admin, &asked, "/api/v1/me").await.json()["proof"], "bootstrap_token");
    assert_eq!(get(admin, "an-operators-token", "/api/v1/me").await.status(), 200);
}

#[tokio::test]
async fn a_replaced_admin_token_opens_nothing_on_any_replica() {
    let database = Database::fresh();
    let one = Replica::start(&database.url()).await;
    let old = one.admin_token().await;
    let two = Replica::start(&database.url()).await;
    let (here, there) = (one.process().admin_address(), two.process().admin_address());
    eventually("both know it", async || (get(there, &old, "/api/v1/me").await.status() == 200).then_some(()))
        .await;
    let rotate = "/api/v1/platform/admin-token/rotate";
    let rotated = post(here, &old, rotate, &json!({})).await;
    assert_eq!(rotated.status(), 200, "{}", rotated.text());
    let new = rotated.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(get(here, &old, "/api/v1/me").await.status(), 401, "at once");
    assert_eq!(get(here, &new, "/api/v1/me").await.status(), 200);
    eventually("the other replica, too", async || {
        let (old, new) =
            (get(there, &old, "/api/v1/me").await.status(), get(there, &new, "/api/v1/me").await.status());
        (old == 401 && new == 200).then_some(())
    })
    .await;
    assert_eq!(post(here, &old, rotate, &json!({})).await.status(), 401);
}
