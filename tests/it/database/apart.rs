//! Planes apart: how servers are and what load there is, as the replicas that serve clients know it.

use std::net::TcpListener;

use serde_json::{Value, json};
use tollgate::app::Role;

use super::events::Reader;
use super::planes::{ask, start};
use super::{Replica, document, publish};
use crate::support::postgres::Database;
use crate::support::{Authority, Folder, Upstream, eventually};

const TOKEN: &str = "an-operators-token";
const HEALTH: &str = "/api/v1/tenants/default/health";

/// A document whose server is looked at every second: whether it takes connections.
fn probed(url: &str) -> String {
    format!(
        "version: 1\nservers:\n  - name: s\n    http: {{ targets: [\"{url}\"] }}\n    \
         health: {{ interval: 1s, timeout: 500ms, unhealthy_after: 2, healthy_after: 1, probe: tcp }}\n\
         routes:\n  - {{ name: r, servers: [s], limits: [] }}\nidentity: {{ loopback: {{ role: developer }} }}\n"
    )
}

/// An address that no other test has, and what listens there.
fn target() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.11:0").unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    (listener, url)
}

async fn server(control: &Replica) -> Value {
    ask(control, "GET", HEALTH).await.json()["items"][0].clone()
}

fn sources(server: &Value) -> Vec<String> {
    let replicas = server["replicas"].as_array().cloned().unwrap_or_default();
    replicas.iter().map(|r| r["source"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn a_control_plane_asks_data_planes_how_servers_are_and_tells_when_that_changes() {
    let (database, authority, keys) = (Database::fresh(), Authority::new(), Folder::new());
    let (listener, url) = target();
    let control = start(Role::Control, &database, &authority, &keys).await;
    publish(&control.publisher(), &probed(&url), None).await.unwrap();
    // Nobody serves it yet, so nobody knows.
    let unknown = eventually("it is known", async || {
        let server = server(&control).await;
        server.is_object().then_some(server)
    })
    .await;
    assert_eq!(
        (&unknown["state"], &unknown["available"], &unknown["targets"][0]["healthy"]),
        (&json!("unknown"), &Value::Null, &Value::Null),
        "{unknown}"
    );
    let one = start(Role::Data, &database, &authority, &keys).await;
    let two = start(Role::Data, &database, &authority, &keys).await;
    for replica in [&one, &two] {
        eventually("it is served", async || (replica.routes() == ["r"]).then_some(())).await;
    }
    eventually("both are asked", async || {
        let server = server(&control).await;
        (server["state"] == "up" && sources(&server) == ["asked", "asked"]).then_some(())
    })
    .await;
    let admin = control.process().admin_address();
    let mut told = Reader::open(admin, TOKEN, "?topics=health", None).await;
    let mut load = Reader::open(admin, TOKEN, "?topics=traffic", None).await;
    // The first look at the others is what later ones are compared with.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    drop(listener);
    let mut replicas = Vec::new();
    for _ in 0..2 {
        let down = told.until("a server is down", |t| t.json["data"]["kind"] == "server").await;
        assert_eq!(
            (&down.json["tenant"], &down.json["data"]["server"], &down.json["data"]["state"]),
            (&json!("default"), &json!("s"), &json!("down"))
        );
        replicas.push(down.json["data"]["replica"].clone());
    }
    assert_ne!(replicas[0], replicas[1], "each replica for itself");
    let down = server(&control).await;
    assert_eq!(
        (&down["state"], &down["available"], &down["targets"][0]["healthy"]),
        (&json!("down"), &json!(false), &json!(false)),
        "{down}"
    );
    let known = replicas.contains(&down["replicas"][0]["replica"]);
    assert!(known, "events and answers name replicas alike: {down}");
    let path = "/api/v1/tenants/default/servers/s/health";
    assert_eq!(ask(&control, "GET", path).await.json()["now"]["state"], "down");
    let all = ask(&control, "GET", "/api/v1/health").await.json();
    assert_eq!((&all["servers"][0]["state"], &all["missing"]), (&json!("down"), &json!([])), "{all}");
    assert_eq!(all["status"]["servers"][0]["available"], Value::Null, "itself it calls none");
    let metrics = ask(&control, "GET", "/metrics").await.text();
    assert!(!metrics.contains("tollgate_target_healthy{"), "nor does it count any");

    let caller = one.caller("r");
    let counted = eventually("calls are counted", async || {
        caller.ask(&caller.tool("a")).await;
        let told = load.next().await;
        (told.json["data"]["calls"].as_u64()? > 0).then_some(told)
    })
    .await;
    assert!(replicas.contains(&counted.json["data"]["replica"]), "{counted:?}");
}

#[tokio::test]
async fn of_a_replica_that_cannot_be_asked_it_is_told_what_it_stored_and_how_old_that_is() {
    let database = Database::fresh();
    let (listener, url) = target();
    let control = Replica::start_as(Role::Control, &database.url(), "", "").await;
    publish(&control.publisher(), &probed(&url), None).await.unwrap();
    let one = Replica::start_as(Role::Data, &database.url(), "", "").await;
    eventually("it is served", async || (one.routes() == ["r"]).then_some(())).await;
    let up = eventually("it was stored", async || {
        let server = server(&control).await;
        (server["state"] == "up").then_some(server)
    })
    .await;
    let replica = &up["replicas"][0];
    assert_eq!(sources(&up), ["stored"], "{up}");
    assert!(replica["age_ms"].is_u64(), "{up}");
    assert!(replica["not_asked"].as_str().unwrap().contains("listeners.internal"), "{up}");
    let admin = control.process().admin_address();
    let mut told = Reader::open(admin, TOKEN, "?topics=health", None).await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    drop(listener);
    let down = told.until("it is down", |t| t.json["data"]["kind"] == "server").await;
    assert_eq!(
        (&down.json["data"]["state"], &down.json["data"]["replica"]),
        (&json!("down"), &replica["replica"])
    );
    assert_eq!(server(&control).await["state"], "down");
}

#[tokio::test]
async fn each_of_several_replicas_tells_of_all() {
    let (database, authority, keys) = (Database::fresh(), Authority::new(), Folder::new());
    let up = Upstream::modern().await;
    let one = start(Role::All, &database, &authority, &keys).await;
    let two = start(Role::All, &database, &authority, &keys).await;
    publish(&one.publisher(), &document("s", &up.url()), None).await.unwrap();
    for replica in [&one, &two] {
        eventually("it is served", async || (replica.routes() == ["s"]).then_some(())).await;
    }
    for replica in [&one, &two] {
        eventually("both say so", async || {
            let mut found = sources(&server(replica).await);
            found.sort();
            (found == ["asked", "own"]).then_some(())
        })
        .await;
    }
}
