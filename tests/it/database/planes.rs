//! Planes apart: one process for operators, two for clients, one database.

use std::sync::Arc;

use serde_json::{Value, json};
use tollgate::app::{Document, Options, Process, Role};

use super::{Replica, document, off_runtime, publish};
use crate::support::postgres::Database;
use crate::support::{Authority, Client, Folder, Request, Response, Session, Upstream, eventually};

const TOKEN: &str = "an-operators-token";

/// A process with an internal listener.
pub async fn start(role: Role, database: &Database, authority: &Authority, keys: &Folder) -> Replica {
    let (cert, key) = authority.write(role.as_str(), &authority.issue("127.0.0.1"));
    let more = format!(
        "internal: {{ address: 127.0.0.1:0, tls: {{ cert: \"{}\", key: \"{}\", ca: \"{}\" }} }}",
        cert.display(),
        key.display(),
        authority.file().display()
    );
    let sealing = format!("sessions: {{ key_file: \"{}\" }}\n", keys.path().join("session.keys").display());
    Replica::start_as(role, &database.url(), &more, &sealing).await
}

pub async fn ask(replica: &Replica, method: &str, path: &str) -> Response {
    let address = replica.process().admin_address();
    let request = Request::new(method, path)
        .with("Host", &address.to_string())
        .with("Authorization", &format!("Bearer {TOKEN}"))
        .with("Connection", "close");
    Client::connect(address).await.ask(&request).await
}

async fn status(session: &Session) -> u16 {
    session.ask(&session.tool("get_time")).await.status()
}

fn items(page: &Value) -> &Vec<Value> {
    page["items"].as_array().unwrap_or_else(|| panic!("a page: {page}"))
}

#[tokio::test]
async fn a_control_plane_lists_and_closes_what_is_at_home_in_data_planes() {
    let (database, authority, keys) = (Database::fresh(), Authority::new(), Folder::new());
    let up = Upstream::legacy().await;
    let control = start(Role::Control, &database, &authority, &keys).await;
    assert!(control.process().mcp_address().is_none(), "no client reaches it");
    let text = document("s", &up.url()).replacen("http:", "era: legacy, http:", 1);
    publish(&control.publisher(), &text, None).await.unwrap();
    let one = start(Role::Data, &database, &authority, &keys).await;
    let two = start(Role::Data, &database, &authority, &keys).await;
    for replica in [&one, &two] {
        eventually("it is served", async || (replica.routes() == ["s"]).then_some(())).await;
        let elsewhere = ask(replica, "GET", "/api/v1/tenants/default/sessions").await;
        assert_eq!((elsewhere.status(), elsewhere.json()["code"].clone()), (404, json!("no_api_here")));
        assert_eq!(ask(replica, "GET", "/healthz").await.status(), 200);
        assert_eq!(ask(replica, "GET", "/readyz").await.status(), 200);
        assert!(ask(replica, "GET", "/metrics").await.text().contains("tollgate_build_info"));
    }
    assert_eq!(ask(&control, "GET", "/readyz").await.status(), 200);

    let (at_one, at_two) = (one.caller("s").initialize().await, two.caller("s").initialize().await);
    // A replica that has just started is known by its first beat.
    let listed = eventually("both are known", async || {
        let listed = ask(&control, "GET", "/api/v1/tenants/default/sessions").await.json();
        (items(&listed).len() == 2).then_some(listed)
    })
    .await;
    assert_eq!(listed["missing"], json!([]), "{listed}");
    // Page by page it is the same.
    let first = ask(&control, "GET", "/api/v1/tenants/default/sessions?limit=1").await.json();
    let cursor = first["next_cursor"].as_str().expect("there is more");
    let next = format!("/api/v1/tenants/default/sessions?limit=1&cursor={cursor}");
    let second = ask(&control, "GET", &next).await.json();
    assert_eq!(second["next_cursor"], Value::Null);
    assert_eq!([&items(&first)[0], &items(&second)[0]], [&items(&listed)[0], &items(&listed)[1]]);
    let none = ask(&control, "GET", "/api/v1/tenants/other/sessions").await;
    assert!(none.status() == 404 || items(&none.json()).is_empty(), "of another tenant: {}", none.text());

    // A stream of the first, closed from the control plane: its end is proper, and its session goes on.
    let (mut stream, _) = at_one.caller.stream(&at_one.get()).await;
    let streams = ask(&control, "GET", "/api/v1/tenants/default/streams").await.json();
    let found = &items(&streams)[0];
    let (home, number) = (found["boot"].as_str().unwrap(), found["id"].as_u64().unwrap());
    let listed_replicas = ask(&control, "GET", "/api/v1/replicas").await.json();
    let row = items(&listed_replicas).iter().find(|r| r["boot"] == home).expect("the process is listed");
    assert_eq!(found["replica"], row["replica"], "by the name that is the same everywhere");
    let path = |home: &str, number: u64| format!("/api/v1/tenants/default/streams/{home}/{number}");
    assert_eq!(ask(&control, "DELETE", &path(home, number + 1)).await.status(), 404);
    let other = items(&listed).iter().find(|s| s["boot"] != home).unwrap()["boot"].as_str().unwrap();
    assert_eq!(ask(&control, "DELETE", &path(other, number)).await.status(), 404, "not at that replica");
    assert_eq!(ask(&control, "DELETE", &path(home, number)).await.status(), 204);
    assert!(stream.rest_of_body().await.1, "the response has its proper end");
    assert_eq!(status(&at_one).await, 200);

    // Its session, closed: it is over, and does not come back at the other replica.
    let session = items(&listed).iter().find(|s| s["boot"] == home).unwrap()["id"].as_str().unwrap();
    let path = format!("/api/v1/tenants/default/sessions/{session}");
    assert_eq!(ask(&control, "DELETE", &path).await.status(), 204);
    assert_eq!(status(&at_one).await, 404);
    let moved = at_one.moved_to(two.process().mcp_address().unwrap());
    assert_eq!(status(&moved).await, 404, "at the other replica as well");
    assert_eq!(status(&at_two).await, 200, "nobody else's");
    assert_eq!(ask(&control, "DELETE", &path).await.status(), 404, "only once");

    // A replica that is gone without a word is named, as long as its last beat is fresh.
    let dead = items(&listed).iter().find(|s| s["boot"] == home).unwrap()["replica"].clone();
    drop(one);
    eventually("it is missing", async || {
        let listed = ask(&control, "GET", "/api/v1/tenants/default/sessions").await.json();
        (listed["missing"][0]["replica"] == dead && items(&listed).len() == 1).then_some(())
    })
    .await;
    let unknown = ask(&control, "DELETE", &path).await;
    assert_eq!((unknown.status(), unknown.json()["code"].clone()), (503, json!("replicas_missing")));
}

#[tokio::test]
async fn a_plane_of_its_own_needs_a_database_that_others_reach() {
    for (role, text, lacks) in [
        (Role::Data, "version: 1\nsource: database\n", "store.url"),
        (Role::Control, "version: 1\nsource: database\n", "store.url"),
        (Role::Data, "version: 1\nsource: database\nstore: { url: \"${env:STORE}\" }\n", "PostgreSQL"),
        (Role::Control, "version: 1\n", "source: database"),
        (Role::Data, "version: 1\n", "source: database"),
    ] {
        let folder = Folder::new();
        let options = Options {
            role,
            data_dir: Some(folder.path().join("data")),
            listen: Some("127.0.0.1:0".parse().unwrap()),
            admin: Some("127.0.0.1:0".parse().unwrap()),
            env: Arc::new(|name| (name == "STORE").then(|| "sqlite:/nowhere/x.db".to_owned())),
            ..Options::new(Document::Text(text.to_owned()))
        };
        let error = off_runtime(move || Process::start(options).err()).await.expect("it does not start");
        let error = error.to_string();
        assert!(error.contains(role.as_str()) && error.contains(lacks), "{error}");
    }
}
