//! The database goes away while replicas serve.

use std::sync::Arc;

use serde_json::json;

use super::{Replica, SOON, document, own, publish};
use crate::support::postgres::{Durability, Postgres};
use crate::support::{Upstream, eventually};

async fn works(replica: &Replica, route: &str) -> bool {
    let caller = replica.caller(route);
    caller.ask(&caller.modern("tools/list", json!({}))).await.status() == 200
}

#[tokio::test]
async fn calls_go_on_replicas_start_from_disk_and_all_converge_when_it_is_back() {
    let server = Arc::new(Postgres::start(Durability::Full));
    let database = server.database();
    let up = Upstream::modern().await;
    let (one, two) = (Replica::start(&database.url()).await, Replica::start(&database.url()).await);
    publish(&one.publisher(), &document("first", &up.url()), None).await.unwrap();
    for replica in [&one, &two] {
        eventually("it is served", async || (replica.routes() == ["first"]).then_some(())).await;
    }
    server.kill();
    for _ in 0..20 {
        assert!(works(&one, "first").await && works(&two, "first").await);
    }
    assert!(publish(&one.publisher(), &document("second", &up.url()), None).await.is_err());
    let two = two.restart().await;
    assert_eq!(two.routes(), ["first"], "from disk");
    assert!(works(&two, "first").await);

    server.restart();
    let publisher = one.publisher();
    let published = eventually("the database takes publications again", async || {
        publish(&publisher, &document("second", &up.url()), None).await.ok()
    })
    .await;
    // The one that started meanwhile is known to the database once its first beat has come through.
    eventually("both serve it", async || {
        let state = publisher.wait(&own(), published.revision, 20 * SOON).await.ok()?;
        let serving = state.positions.iter().filter(|p| p.served == published.revision).count();
        (serving >= 2).then_some(())
    })
    .await;
    assert!(works(&one, "second").await && works(&two, "second").await);
}

#[tokio::test]
async fn a_replica_that_starts_with_the_database_away_has_the_secrets_it_served_with() {
    let server = Arc::new(Postgres::start(Durability::Full));
    let database = server.database();
    let up = Upstream::modern().await;
    let one = Replica::start(&database.url()).await;
    let store = one.process().store().unwrap().clone();
    let tenant = tollgate::base::TenantId::default();
    let secret = |text: &str| tollgate::base::Secret::new(text.as_bytes().to_vec());
    store
        .tenant(&tenant)
        .put_secret("upstream", &secret("s3cr3t-before"), "test", tollgate::store::whatever)
        .await
        .unwrap();
    let text = document("s", &up.url())
        .replace("health:", "era: modern, credential: { bearer: \"${secret:upstream}\" }, health:");
    publish(&one.publisher(), &text, None).await.unwrap();
    let authorized = async |replica: &Replica, by: &str| {
        let caller = replica.caller("s");
        caller.ask(&caller.tool("t")).await.status() == 200
            && up.calls().last().unwrap().header("authorization") == Some(&format!("Bearer {by}"))
    };
    eventually("it is served", async || authorized(&one, "s3cr3t-before").await.then_some(())).await;
    // The newest value is what is kept.
    store
        .tenant(&tenant)
        .put_secret("upstream", &secret("s3cr3t-after"), "test", tollgate::store::whatever)
        .await
        .unwrap();
    eventually("the new one is served", async || authorized(&one, "s3cr3t-after").await.then_some(())).await;
    server.kill();
    let one = one.restart().await;
    assert_eq!(one.routes(), ["s"], "from disk");
    assert!(authorized(&one, "s3cr3t-after").await, "opened with the master key");
    // Sealed: nobody finds it in the cache.
    let cache = one.data_dir().join("cache");
    let mut files = 0;
    for folder in [cache.clone(), cache.join("documents")] {
        for file in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if let Ok(bytes) = std::fs::read(&file) {
                files += 1;
                assert!(!String::from_utf8_lossy(&bytes).contains("s3cr3t"), "{}", file.display());
            }
        }
    }
    assert!(files >= 2, "{files}");
}
