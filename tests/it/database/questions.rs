//! What-if and proof through the API of a gateway that serves.

use serde_json::{Value, json};
use tollgate::telemetry::{RequestSample, Sampler};

use super::{Replica, publish};
use crate::support::postgres::Database;
use crate::support::{Client, Request, Response, eventually};

/// What `${env:ADMIN}` is in [`Replica`]'s file.
const TOKEN: &str = "an-operators-token";

const BEFORE: &str = r#"
version: 1
servers: [{ name: weather, http: { targets: ["http://127.0.0.1:9/mcp"] }, health: { interval: 0s } }]
routes: [{ name: weather, servers: [weather], policy: staff, limits: [] }]
policies:
  - name: staff
    rules:
      - { allow: { roles: [developer] } }
      - { allow: { roles: [viewer], tools: ["get_*"] } }
identity: { api_keys: true }
"#;

async fn ask(replica: &Replica, what: &str, body: &Value) -> Response {
    let address = replica.process().admin_address();
    let request = Request::new("POST", &format!("/api/v1/tenants/default/{what}"))
        .with("Host", &address.to_string())
        .with("Authorization", &format!("Bearer {TOKEN}"))
        .with("Content-Type", "application/json")
        .with("Connection", "close")
        .body(body.to_string());
    Client::connect(address).await.ask(&request).await
}

fn sample(role: &str, tool: &str, outcome: &str, time: u64) -> RequestSample {
    let line = json!({
        "time": time, "tenant": "default", "route": "weather", "path": "/mcp/weather", "method": "tools/call",
        "name": tool, "ip": "10.0.0.1", "outcome": outcome,
        "principal": { "id": format!("key|{role}"), "kind": "key", "roles": [role] },
    });
    serde_json::from_value(line).unwrap()
}

#[tokio::test]
async fn a_candidate_is_asked_about_before_it_is_published_and_nothing_that_serves_changes() {
    let database = Database::fresh();
    let one = Replica::start(&database.url()).await;
    publish(&one.publisher(), BEFORE, None).await.unwrap();
    eventually("it is served", async || (one.routes() == ["weather"]).then_some(())).await;
    let store = one.process().store().unwrap();
    let hour_ago = u64::try_from(store.now().micros() / 1000).unwrap() - 3_600_000;
    let sampler = Sampler::new(100, false);
    for (at, role, tool, outcome) in [
        (0, "developer", "get_time", "ok"),
        (1, "viewer", "get_time", "ok"),
        (2, "viewer", "list_dir", "denied"),
        (3, "viewer", "get_file", "ok"),
    ] {
        sampler.offer("default", "weather", hour_ago + at, || sample(role, tool, outcome, hour_ago + at));
    }
    let batches = sampler.take(hour_ago + 300_000);
    store.platform().put_samples(uuid::Uuid::from_u128(1), &batches).await.unwrap();

    let after = BEFORE.replace("tools: [\"get_*\"]", "tools: [\"list_*\"]");
    let report = ask(&one, "whatif", &json!({ "document": after })).await.json();
    assert_eq!((&report["samples"], &report["unchanged"]), (&json!(4), &json!(1)), "{report}");
    assert_eq!((&report["kinds_of_change"], &report["samples_cut"]), (&json!(2), &json!(false)), "{report}");
    assert_eq!(report["changes"][0]["change"], "allow → deny");
    assert_eq!(report["changes"][0]["samples"], 2);
    let cut = ask(&one, "whatif", &json!({ "document": after, "max_changes": 1, "baseline": "recorded" }))
        .await
        .json();
    assert_eq!((cut["changes"].as_array().unwrap().len(), &cut["kinds_of_change"]), (1, &json!(2)), "{cut}");
    assert_eq!((&cut["has_baseline"], &report["has_baseline"]), (&json!(false), &json!(true)));

    let newly = ask(&one, "prove", &json!({ "question": "newly_allowed", "document": after })).await.json();
    assert_eq!(newly["verdict"], "always", "{newly}");
    assert!(newly["routes"][0]["classes"].to_string().contains("list_"), "{newly}");
    let same = ask(&one, "prove", &json!({ "question": "newly_allowed", "revision": 1 })).await.json();
    assert_eq!((&same["verdict"], &same["classes_found"]), (&json!("never"), &json!(0)), "{same}");
    let who = json!({ "question": "who_can_call", "tools": "write_*", "route": "weather" });
    let who = ask(&one, "prove", &who).await.json();
    let classes = who["routes"][0]["classes"].as_array().unwrap();
    assert!(!classes.is_empty() && who["classes_found"] == classes.len(), "{who}");
    let none =
        ask(&one, "prove", &json!({ "question": "who_can_call", "tools": "write_*", "max_classes": 0 }))
            .await
            .json();
    assert_eq!((&none["routes"][0]["classes"], &none["classes_found"]), (&json!([]), &who["classes_found"]));
    let open = ask(&one, "prove", &json!({ "question": "unauthenticated" })).await.json();
    assert_eq!(open["verdict"], "never", "{open}");
    let public = BEFORE.replace("api_keys: true", "anonymous: { role: developer }");
    let open = ask(&one, "prove", &json!({ "question": "unauthenticated", "document": public })).await.json();
    assert_eq!(open["verdict"], "always", "{open}");

    let wrong =
        ask(&one, "whatif", &json!({ "document": "version: 1\nroutes: [{ name: x, servers: [nobody] }]\n" }))
            .await;
    assert_eq!(wrong.status(), 422, "{}", wrong.text());
    assert_eq!(one.routes(), ["weather"]);
    assert_eq!(one.publisher().head(&super::own()).await.unwrap().unwrap().summary.revision, 1);
}
