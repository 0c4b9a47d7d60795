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
