//! What a caller sends keeps nobody's audit from the store, and no question has an answer without end.

use serde_json::{Value, json};

use super::events::{request, token};
use super::{Replica, document, publish};
use crate::support::postgres::Database;
use crate::support::{Client, Gateway, Upstream, eventually};

#[tokio::test]
async fn a_name_that_postgres_takes_in_no_text_holds_nothing_back() {
    let (database, up) = (Database::fresh(), Upstream::legacy().await);
    let one = Replica::start(&database.url()).await;
    let token = one.admin_token().await;
    let text = document("s", &up.url()).replacen("http:", "era: legacy, http:", 1);
    publish(&one.publisher(), &text, None).await.unwrap();
    eventually("it is served", async || (one.routes() == ["s"]).then_some(())).await;
    let session = one.caller("s").initialize().await;
    session.ask(&session.tool("nothing\0here")).await;
    assert_eq!(session.ask(&session.tool("get_time")).await.status(), 200);
    let admin = one.process().admin_address();
    let names = eventually("both calls are in the store", async || {
        let path = "/api/v1/tenants/default/audit?class=data&limit=500";
        let found = Client::connect(admin).await.ask(&request(admin, &token, "GET", path)).await.json();
        let name = |e: &Value| Some(e["event"]["name"].as_str()?.to_owned());
        let names: Vec<String> = found["items"].as_array().unwrap().iter().filter_map(name).collect();
        names.iter().any(|n| n == "get_time").then_some(names)
    })
    .await;
    assert!(names.iter().any(|n| n == "nothing\u{1a}here"), "{names:?}");
}

#[tokio::test]
async fn usage_by_minute_is_asked_for_in_pieces() {
    let gateway = Gateway::relay(&[&Upstream::modern().await]).start().await;
    let token = token(gateway.data_dir(), gateway.admin).await;
    let ask = async |query: &str| {
        let path = format!("/api/v1/tenants/default/usage?{query}");
        Client::connect(gateway.admin).await.ask(&request(gateway.admin, &token, "GET", &path)).await
    };
    let week = "from=2026-01-01T00:00:00Z&to=2026-01-08T00:00:00Z";
    assert_eq!(ask(&format!("grain=minute&{week}")).await.status(), 200);
    let refused = ask("grain=minute&from=2026-01-01T00:00:00Z&to=2026-01-08T00:00:01Z").await;
    assert_eq!((refused.status(), &refused.json()["errors"][0]["pointer"]), (400, &json!("?from")));
    assert_eq!(ask("grain=hour&from=2026-01-01T00:00:00Z&to=2026-11-08T00:00:01Z").await.status(), 200);
}
