//! Documents that are in the store and cannot be served: their tenant is gone, or they do not compile any more.

use serde_json::{Value, json};
use tollgate::app::Role;
use tollgate::base::{Scope, Secret, TenantId};
use tollgate::config::canonical;
use tollgate::store::{NewRevision, StoreError, whatever};

use super::planes::ask;
use super::tenants::{call, change, own, platform, serves, tenant};
use super::{Replica, publish};
use crate::support::postgres::{Database, Durability, Postgres};
use crate::support::{Client, Request, Upstream, eventually};

/// What `/readyz` says, once it says that requests may come: at first no server's catalogue is there.
async fn ready(replica: &Replica) -> Value {
    eventually("it is ready", async || {
        let answer = ask(replica, "GET", "/readyz").await;
        (answer.status() == 200).then(|| answer.json())
    })
    .await
}

#[tokio::test]
async fn what_is_left_of_a_tenant_that_is_gone_bothers_nobody_until_it_is_back() {
    let database = Database::fresh();
    let up = Upstream::modern().await;
    let one = Replica::start(&database.url()).await;
    let publisher = one.publisher();
    let together = [
        change(Scope::Platform, &platform(&["acme", "delta"])),
        change(tenant("acme"), &own("s", &up.url())),
        change(tenant("delta"), &own("s", &up.url())),
    ];
    publisher.publish_all(&together).await.unwrap();
    serves(&one, "/t/delta/mcp/s", "delta@1").await;
    let file = one.data_dir().join("cache/documents/delta.doc");
    // It is written behind what serves.
    eventually("its document is kept", async || file.exists().then_some(())).await;
    publisher.publish(change(Scope::Platform, &platform(&["acme"]))).await.unwrap();
    eventually("its document is not kept", async || (!file.exists()).then_some(())).await;
    assert_eq!(call(&one, "/t/delta/mcp/s").await.status(), 404);

    // A restart finds the same.
    let one = one.restart().await;
    let publisher = one.publisher();
    let positions = eventually("all is served", async || {
        let found = publisher.positions(0, 100).await.unwrap();
        found.iter().all(|(_, state)| state.is_complete()).then_some(found)
    })
    .await;
    let scopes: Vec<_> = positions.iter().map(|(_, state)| state.scope.as_str()).collect();
    assert!(scopes.contains(&"acme") && !scopes.contains(&"delta"), "{scopes:?}");
    assert_eq!(ready(&one).await["status"], "ready");
    assert!(!file.exists());
    let gone = ask(&one, "GET", "/api/v1/tenants/delta/convergence").await;
    assert_eq!(gone.status(), 404, "{}", gone.text());
    assert_eq!(call(&one, "/t/delta/mcp/s").await.status(), 404);

    publisher.publish(change(Scope::Platform, &platform(&["acme", "delta"]))).await.unwrap();
    serves(&one, "/t/delta/mcp/s", "delta@1").await;
    eventually("its document is kept again", async || file.exists().then_some(())).await;
}

#[tokio::test]
async fn a_tenant_that_goes_with_many_other_changes_leaves_nothing_on_disk() {
    let database = Database::fresh();
    let up = Upstream::modern().await;
    let one = Replica::start(&database.url()).await;
    let both =
        [change(Scope::Platform, &platform(&["delta"])), change(tenant("delta"), &own("s", &up.url()))];
    one.publisher().publish_all(&both).await.unwrap();
    let file = one.data_dir().join("cache/documents/delta.doc");
    eventually("its document is kept", async || file.exists().then_some(())).await;
    // More than are fetched at once, and the platform's is the first of them.
    let others: Vec<Scope> = (0..205).map(|n| tenant(&format!("x{n}"))).collect();
    let content = canonical(platform(&["acme"]).as_bytes()).unwrap();
    let with =
        |content| NewRevision { content, schema_version: 1, author: "test", reason: "", if_revision: None };
    let mut new = vec![(Scope::Platform, with(content.as_bytes()))];
    new.extend(others.into_iter().map(|scope| (scope, with(b"version: 1\n".as_slice()))));
    let (there, gone) = (["acme".to_owned()], ["delta".to_owned()]);
    let store = one.process().store().unwrap().clone();
    store.platform().publish_all(&new, Some((&there, &gone))).await.unwrap();
    eventually("its document is not kept", async || (!file.exists()).then_some(())).await;
}

#[tokio::test]
async fn a_document_that_would_not_compile_any_more_is_shown_and_one_that_never_did_is_503() {
    let database = Database::fresh();
    let up = Upstream::modern().await;
    let one = Replica::start(&database.url()).await;
    let (publisher, store) = (one.publisher(), one.process().store().unwrap().clone());
    let acme = TenantId::new("acme");
    let text =
        own("s", &up.url()).replacen("http: {", "credential: { bearer: \"${secret:upstream}\" }, http: {", 1);
    publisher.publish(change(Scope::Platform, &platform(&["acme"]))).await.unwrap();
    let secret = Secret::new(b"s3cr3t".to_vec());
    store.tenant(&acme).put_secret("upstream", &secret, "test", whatever).await.unwrap();
    publisher.publish(change(tenant("acme"), &text)).await.unwrap();
    serves(&one, "/t/acme/mcp/s", "acme@1").await;
    assert_eq!(ready(&one).await["status"], "ready");
    store.tenant(&acme).remove_secret("upstream", |_, _| Ok::<_, StoreError>(())).await.unwrap();
    // Any change of the platform's document that concerns the tenant compiles it again.
    let more = platform(&["acme"]).replace("127.0.0.0/8", "127.0.0.0/8, 10.0.0.0/8");
    publisher.publish(change(Scope::Platform, &more)).await.unwrap();
    let state = eventually("it is refused", async || {
        let state = publisher.wait(&tenant("acme"), 1, std::time::Duration::ZERO).await.unwrap();
        state.positions.iter().any(|p| p.refused.is_some()).then_some(state)
    })
    .await;
    assert_eq!((state.serving(), state.failing().count(), state.is_complete()), (1, 1, false), "{state:?}");
    assert!(state.positions[0].refused.as_ref().unwrap().1.contains("upstream"), "{state:?}");
    serves(&one, "/t/acme/mcp/s", "acme@1").await;
    let degraded = ready(&one).await;
    assert_eq!(
        (&degraded["status"], &degraded["refused"]),
        (&json!("degraded"), &json!([{ "scope": "acme", "revision": 1, "served": 1 }]))
    );
    let metrics = ask(&one, "GET", "/metrics").await.text();
    assert!(metrics.contains("\ntollgate_config_refused 1"), "a metric says so");

    // Another replica has never had it: it cannot say that there is nothing.
    let two = one.beside(|_| {}).await;
    let answer = call(&two, "/t/acme/mcp/s").await;
    assert_eq!((answer.status(), answer.header("retry-after")), (503, Some("30")), "{}", answer.text());
    assert!(answer.text().contains("configuration of the tenant"), "{}", answer.text());
    assert_eq!(call(&two, "/t/nobody/mcp/s").await.status(), 404);
    store.tenant(&acme).put_secret("upstream", &secret, "test", whatever).await.unwrap();
    for replica in [&one, &two] {
        serves(replica, "/t/acme/mcp/s", "acme@1").await;
        eventually("all is well", async || (ready(replica).await["status"] == "ready").then_some(())).await;
    }
}

#[tokio::test]
async fn a_control_plane_that_starts_with_the_database_away_says_so_at_once() {
    let server = std::sync::Arc::new(Postgres::start(Durability::Full));
    let database = server.database();
    let control = Replica::start_as(Role::Control, &database.url(), "", "").await;
    publish(&control.publisher(), &super::document("s", "http://127.0.0.1:9/mcp"), None).await.unwrap();
    eventually("it is on disk", async || {
        control.data_dir().join("cache/documents/default.doc").exists().then_some(())
    })
    .await;
    server.kill();
    let control = control.restart().await;
    let address = control.process().admin_address();
    let began = std::time::Instant::now();
    // It may be the installation's: nobody can say, so nobody says that it is wrong.
    let request = Request::new("GET", "/api/v1/me")
        .with("Host", &address.to_string())
        .with("Authorization", "Bearer tga_0123456789")
        .with("Connection", "close");
    let answer = Client::connect(address).await.ask(&request).await;
    assert_eq!((answer.status(), &answer.json()["code"]), (503, &json!("store_unavailable")));
    assert!(answer.header("retry-after").is_some());
    // Nor does anybody wait for the database.
    for _ in 0..5 {
        let answer = ask(&control, "GET", "/api/v1/replicas").await;
        assert_eq!((answer.status(), &answer.json()["code"]), (503, &json!("store_unavailable")));
        assert_eq!(ask(&control, "GET", "/readyz").await.status(), 200);
    }
    let took = began.elapsed();
    assert!(took < std::time::Duration::from_secs(3), "eleven answers took {took:?}");
    server.restart();
    eventually("it is back", async || {
        (ask(&control, "GET", "/api/v1/replicas").await.status() == 200).then_some(())
    })
    .await;
}
