//! Live events: of all replicas where the store knows them, and of nobody else's tenant.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tollgate::base::TenantId;

use super::{Replica, document, publish};
use crate::support::postgres::Database;
use crate::support::{Client, Gateway, Request, Upstream, eventually, within};

/// The admin token that the first process on a store left in its data folder, once it is accepted: the file is there first.
pub async fn token(data: PathBuf, admin: SocketAddr) -> String {
    eventually("the admin token", async || {
        let token = std::fs::read_to_string(data.join("admin.token")).ok()?.trim().to_owned();
        let me = request(admin, &token, "GET", "/api/v1/me");
        (Client::connect(admin).await.ask(&me).await.status() == 200).then_some(token)
    })
    .await
}

pub fn request(admin: SocketAddr, token: &str, method: &str, path: &str) -> Request {
    Request::new(method, path)
        .with("Host", &admin.to_string())
        .with("Authorization", &format!("Bearer {token}"))
        .with("Connection", "close")
}

/// A reader of the stream.
pub struct Reader(Client);

/// One event: its topic, its id, and what it says.
#[derive(Debug)]
pub struct Told {
    pub topic: String,
    pub id: String,
    pub json: Value,
}

impl Reader {
    pub async fn open(admin: SocketAddr, token: &str, query: &str, last: Option<&str>) -> Self {
        let mut ask = request(admin, token, "GET", &format!("/api/v1/events{query}"));
        if let Some(last) = last {
            ask = ask.with("Last-Event-ID", last);
        }
        let mut client = Client::connect(admin).await;
        client.send(ask.bytes()).await;
        assert_eq!(client.head().await.status, 200);
        Self(client)
    }

    pub async fn next(&mut self) -> Told {
        loop {
            let text = self.0.event().await.expect("an event, not the end of the stream");
            let field = |name: &str| {
                let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
                line.map(|l| l.trim_start().to_owned()).unwrap_or_default()
            };
            if !field("event").is_empty() {
                let json = serde_json::from_str(&field("data")).unwrap();
                return Told { topic: field("event"), id: field("id"), json };
            }
        }
    }

    /// The first one that this holds of.
    pub async fn until(&mut self, what: &str, wanted: impl Fn(&Told) -> bool) -> Told {
        within(what, async {
            loop {
                let told = self.next().await;
                if wanted(&told) {
                    return told;
                }
            }
        })
        .await
    }

    /// Whether nothing comes for a while.
    pub async fn is_silent(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.next()).await.is_err()
    }
}

#[tokio::test]
async fn calls_and_publications_of_another_replica_are_told_here() {
    let database = Database::fresh();
    let up = Upstream::modern().await;
    let one = Replica::start(&database.url()).await;
    let token = one.admin_token().await;
    let two = Replica::start(&database.url()).await;
    let admin = one.process().admin_address();
    let mut config = Reader::open(admin, &token, "?topics=config", None).await;
    let mut audit = Reader::open(admin, &token, "?topics=audit", None).await;
    // That the database is listened to from now on is a gap before it.
    let published = publish(&two.publisher(), &document("s", &up.url()), None).await.unwrap();
    let told = config.until("the publication", |t| t.json["data"]["kind"] == "published").await;
    assert_eq!(
        (&told.json["tenant"], &told.json["data"]["revision"], &told.json["data"]["author"]),
        (&json!("default"), &json!(published.revision), &json!("test")),
        "{told:?}"
    );
    assert_eq!(told.json["data"]["reason"], "because");
    for _ in 0..2 {
        config.until("a replica serves it", |t| t.json["data"]["kind"] == "served").await;
    }
    let all = config.until("all do", |t| t.json["data"]["kind"] == "converged").await;
    assert_eq!(all.json["data"]["replicas"], 2, "{all:?}");

    let caller = two.caller("s");
    assert_eq!(caller.ask(&caller.tool("from_two")).await.status(), 200);
    let call =
        audit.until("the call on the other replica", |t| t.json["data"]["event"]["name"] == "from_two");
    let call = call.await;
    assert_eq!((&call.json["tenant"], &call.json["data"]["class"]), (&json!("default"), &json!("data")));
    // An action of the API of the other replica, once, although it is recorded there.
    let elsewhere = two.process().admin_address();
    let path = "/api/v1/tenants/default/users/corp%7Cann";
    let put = request(elsewhere, &token, "PUT", path)
        .with("Content-Type", "application/json")
        .with("Content-Length", "2")
        .body("{}");
    assert_eq!(Client::connect(elsewhere).await.ask(&put).await.status(), 201);
    let own = |t: &Told| t.json["data"]["event"]["action"] == "put_user";
    let action = audit.until("the action", own).await;
    // Whoever comes back continues after what they saw.
    let mut again = Reader::open(admin, &token, "?topics=audit", Some(&call.id)).await;
    let repeated = again.until("the action again", own).await;
    assert_eq!(repeated.id, action.id);
}

#[tokio::test]
async fn a_revision_that_a_replica_refuses_is_told_with_the_reason() {
    let database = Database::fresh();
    let one = Replica::start(&database.url()).await;
    let token = one.admin_token().await;
    publish(&one.publisher(), &document("s", "http://127.0.0.1:9/mcp"), None).await.unwrap();
    eventually("it is served", async || (one.routes() == ["s"]).then_some(())).await;
    let admin = one.process().admin_address();
    let mut config = Reader::open(admin, &token, "?topics=config", None).await;
    // Past the check of whoever publishes, as a publisher of another version might.
    let bad = b"version: 1\nroutes: [{ name: x, servers: [nobody] }]\n";
    let new = tollgate::store::NewRevision {
        content: bad,
        schema_version: 1,
        author: "elsewhere",
        reason: "",
        if_revision: Some(1),
    };
    one.process().store().unwrap().tenant(&TenantId::default()).publish(new).await.unwrap();
    let refused = config.until("the refusal", |t| t.json["data"]["kind"] == "refused").await;
    let data = &refused.json["data"];
    assert_eq!((&data["revision"], &data["serves"]), (&json!(2), &json!(1)), "{refused:?}");
    assert!(data["reason"].as_str().unwrap().contains("nobody"), "{refused:?}");
    let end = config.until("the end", |t| t.json["data"]["kind"] == "not_converged").await;
    assert_eq!(end.json["data"]["serving"], 0, "{end:?}");
}

#[tokio::test]
async fn servers_that_go_down_and_load_are_told_to_their_tenant_only() {
    let (up, other) = (Upstream::modern().await, Upstream::modern().await);
    let gateway = Gateway::relay(&[&up])
        .server("era: modern, health: { interval: 1s, timeout: 500ms, unhealthy_after: 1, healthy_after: 1 }")
        .more(&format!(
            "tenants:\n  - {{ name: acme, grants: {{ private_targets: [127.0.0.0/8] }}, document: {{ version: 1, \
             servers: [ {{ name: own, http: {{ targets: [\"{}\"] }}, \
             health: {{ interval: 1s, timeout: 500ms, unhealthy_after: 1, healthy_after: 1 }} }} ], \
             routes: [ {{ name: own, servers: [own], limits: [] }} ] }} }}",
            other.url()
        ))
        .start()
        .await;
    let token = token(gateway.data_dir(), gateway.admin).await;
    let mine = Reader::open(gateway.admin, &token, "?topics=health&tenant=default", None);
    let theirs = Reader::open(gateway.admin, &token, "?topics=health&tenant=acme", None);
    let (mut mine, mut theirs) = (mine.await, theirs.await);
    let mut load = Reader::open(gateway.admin, &token, "?topics=traffic&tenant=default", None).await;
    up.kill().await;
    let down = mine.until("it is down", |t| t.json["data"]["kind"] == "server").await;
    assert_eq!(
        (&down.json["tenant"], &down.json["data"]["server"], &down.json["data"]["state"]),
        (&json!("default"), &json!("s"), &json!("down"))
    );
    up.revive().await;
    mine.until("it is up", |t| t.json["data"]["kind"] == "server" && t.json["data"]["state"] == "up").await;
    assert!(theirs.is_silent(Duration::from_millis(2500)).await, "another tenant's server");
    let caller = gateway.caller();
    let told = eventually("calls are counted", async || {
        for _ in 0..3 {
            caller.ask(&caller.tool("a")).await;
        }
        let told = load.next().await;
        (told.json["data"]["calls"].as_u64()? > 0).then_some(told)
    })
    .await;
    assert_eq!(told.json["tenant"], "default", "{told:?}");
    assert_eq!(told.topic, "traffic");
}
