//! What replicas saw of servers is in the store, and their API tells it.

use serde_json::Value;

use super::{Replica, publish};
use crate::support::postgres::{Durability, Postgres};
use crate::support::{Client, Request, eventually};

async fn ask(replica: &Replica, path: &str) -> Value {
    let address = replica.process().admin_address();
    let request = Request::new("GET", path)
        .with("Host", &address.to_string())
        .with("Authorization", "Bearer an-operators-token")
        .with("Connection", "close");
    let answer = Client::connect(address).await.ask(&request).await;
    assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
    answer.json()
}

#[tokio::test]
async fn each_replica_tells_what_became_of_a_target_even_if_the_database_was_away() {
    let server = std::sync::Arc::new(Postgres::start(Durability::Full));
    let database = server.database();
    let (one, two) = (Replica::start(&database.url()).await, Replica::start(&database.url()).await);
    // It takes connections, which is all that the probe asks for. An address that no other test has.
    let target = std::net::TcpListener::bind("127.0.0.9:0").unwrap();
    let url = format!("http://{}/mcp", target.local_addr().unwrap());
    let text = format!(
        "version: 1\nservers:\n  - name: s\n    http: {{ targets: [\"{url}\"] }}\n    \
         health: {{ interval: 1s, timeout: 500ms, unhealthy_after: 2, probe: tcp }}\n\
         routes:\n  - {{ name: r, servers: [s], limits: [] }}\nidentity: {{ loopback: {{ role: developer }} }}\n"
    );
    publish(&one.publisher(), &text, None).await.unwrap();
    for replica in [&one, &two] {
        eventually("it is served", async || (replica.routes() == ["r"]).then_some(())).await;
    }
    let path = "/api/v1/tenants/default/servers/s/health";
    eventually("both have looked at it", async || {
        let page = ask(&one, &format!("{path}/changes?limit=10")).await;
        let well = page["items"].as_array()?.iter().filter(|c| c["state"] == "healthy").count();
        (well == 2).then_some(())
    })
    .await;
    server.kill();
    drop(target);
    eventually("both found out", async || {
        let mut out = true;
        for replica in [&one, &two] {
            out &= ask(replica, "/api/v1/tenants/default/health").await["items"][0]["available"] == false;
        }
        out.then_some(())
    })
    .await;
    server.restart();
    let changes = eventually("what both saw is in the store", async || {
        let page = ask(&one, &format!("{path}/changes?limit=10")).await;
        let items = page["items"].as_array()?.clone();
        let down: Vec<Value> = items.into_iter().filter(|c| c["state"] == "unhealthy").collect();
        (down.len() == 2).then_some(down)
    })
    .await;
    assert_ne!(changes[0]["replica"], changes[1]["replica"], "rows name the replica");
    assert!(changes.iter().all(|c| c["was"] == "healthy" && c["target"] == url.as_str()));
    assert!(changes.iter().all(|c| c["error"].as_str().is_some_and(|e| !e.is_empty())), "{changes:?}");
    let now = ask(&two, path).await;
    assert_eq!((&now["now"]["available"], &now["over"]["server"]), (&false.into(), &"s".into()));
    // The figures of the database are those of PostgreSQL.
    let shown = ask(&one, "/api/v1/database?statements=5").await;
    assert_eq!(
        (shown["engine"].as_str(), shown["statements"].as_array().unwrap().len()),
        (Some("postgres"), 5)
    );
    assert!(shown["bytes"].as_u64().unwrap() > 1_000_000);
    let has = |list: &str, name: &str| shown[list].as_array().unwrap().iter().any(|row| row["name"] == name);
    assert!(has("tables", "audit_events") && has("indexes", "health_changes_pkey"));
}
