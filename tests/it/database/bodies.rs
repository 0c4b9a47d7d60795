//! Recorded bodies are for auditors: every reader of the log, tried by whoever is none.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tollgate::audit::{PublicKey, Report, verify};
use tollgate::base::{Scope, TenantId};
use tollgate::source::Change;
use tollgate::store::StoreSettings;

use super::audit_api::key_of;
use super::events::{Reader, request, token};
use super::{Replica, document, publish};
use crate::support::postgres::Database;
use crate::support::{Caller, Client, Era, Gateway, Reply, Response, Upstream, eventually};

const TENANT: &str = "/api/v1/tenants/default";
/// In both bodies, and nowhere else.
const SECRET: &str = "s3cret";

async fn ask(admin: SocketAddr, token: &str, method: &str, path: &str, body: Option<Value>) -> Response {
    let mut ask = request(admin, token, method, path);
    if let Some(body) = body {
        ask = ask.with("Content-Type", "application/json").body(body.to_string());
    }
    Client::connect(admin).await.ask(&ask).await
}

async fn get(admin: SocketAddr, token: &str, path: &str) -> Response {
    ask(admin, token, "GET", path, None).await
}

async fn upstream() -> Upstream {
    Upstream::scripted(Era::Modern, |call| {
        let content = json!([{ "type": "text", "text": format!("{SECRET} answer") }]);
        (call.method() == "tools/call").then(|| Reply::result(call, &json!({ "content": content })))
    })
    .await
}

const POLICY: &str = "policies: [ { name: p, default: deny, rules: [ { allow: {}, record: {} } ] } ]\n";

fn proved(file: &Response, key: PublicKey) -> Report {
    verify(std::io::Cursor::new(&file.body), &[key], None).unwrap()
}

/// A key of this principal, and perhaps the add-on.
async fn key(admin: SocketAddr, token: &str, principal: &str, role: &str, auditor: bool) -> String {
    key_in("default", admin, token, principal, role, auditor).await
}

async fn key_in(
    tenant: &str,
    admin: SocketAddr,
    token: &str,
    principal: &str,
    role: &str,
    auditor: bool,
) -> String {
    let base = format!("/api/v1/tenants/{tenant}");
    let body = json!({ "roles": [role], "principal": format!("corp|{principal}") });
    let made = ask(admin, token, "POST", &format!("{base}/api-keys"), Some(body)).await;
    assert_eq!(made.status(), 201, "{}", made.text());
    if auditor {
        let path = format!("{base}/role-bindings/corp%7C{principal}/auditor");
        let bound = ask(admin, token, "PUT", &path, None).await;
        assert_eq!(bound.status(), 204, "{}", bound.text());
    }
    made.json()["key"].as_str().unwrap().to_owned()
}

async fn only_auditors_read_them(admin: SocketAddr, settings: StoreSettings, root: &str, caller: Caller) {
    let signed = key_of(settings).await;
    let audit = format!("{TENANT}/audit");
    let mut tail = Reader::open(admin, root, "?topics=audit", None).await;
    let asked = caller.modern("tools/call", json!({ "name": "a", "arguments": { "x": SECRET } }));
    let answer = caller.ask(&asked).await;
    assert!(answer.status() == 200 && answer.text().contains(SECRET), "{}", answer.text());

    // The live tail.
    let told = tail.until("the call", |t| t.json["data"]["event"]["method"] == "tools/call").await;
    assert!(!told.json.to_string().contains(SECRET), "{told:?}");
    assert_eq!(told.json["data"]["bodies"], json!(["request", "response"]));
    let (admin_key, auditor) =
        (key(admin, root, "ann", "admin", false).await, key(admin, root, "aud", "viewer", true).await);
    let mut tail = Reader::open(admin, &auditor, "?topics=audit", None).await;
    caller.ask(&asked).await;
    let told = tail.until("the call", |t| t.json["data"]["event"]["method"] == "tools/call").await;
    assert!(!told.json.to_string().contains(SECRET), "not even for auditors: {told:?}");

    // The list, whoever asks.
    let list = format!("{audit}?class=data&name=a&limit=500");
    let item = eventually("both calls in the list", async || {
        let found = get(admin, root, &list).await.json();
        (found["items"].as_array()?.len() == 2).then(|| found["items"][0].clone())
    })
    .await;
    assert_eq!(item["bodies"], json!(["request", "response"]));
    for token in [root, &admin_key, &auditor] {
        let found = get(admin, token, &list).await;
        assert!(found.status() == 200 && !found.text().contains(SECRET), "{}", found.text());
    }
    for odd in ["q=s3cret", "request_body=s3cret", "bodies=true", "fields=request_body"] {
        assert_eq!(get(admin, &admin_key, &format!("{list}&{odd}")).await.status(), 400, "{odd}");
    }

    // One event.
    let (writer, sequence) = (item["writer"].as_str().unwrap(), item["sequence"].as_u64().unwrap());
    let one = format!("{audit}/data/{writer}/{sequence}/bodies");
    for token in [root, &admin_key] {
        let refused = get(admin, token, &one).await;
        assert!(refused.status() == 403 && !refused.text().contains(SECRET), "{}", refused.text());
    }
    let read = get(admin, &auditor, &one).await;
    assert_eq!(read.status(), 200, "{}", read.text());
    let read = read.json();
    assert_eq!(read["response"], answer.text());
    assert!(read["request"].as_str().unwrap().contains(SECRET) && read.get("request_cut").is_none());
    for nothing in [
        format!("{audit}/data/{writer}/99999/bodies"),
        format!("{audit}/control/{writer}/{sequence}/bodies"),
        format!("{audit}/control/{writer}/1/bodies"),
        format!("{audit}/all/{writer}/{sequence}/bodies"),
        format!("{audit}/data/{}/{sequence}/bodies", "0".repeat(32)),
        format!("/api/v1/tenants/other/audit/data/{writer}/{sequence}/bodies"),
    ] {
        assert_eq!(get(admin, &auditor, &nothing).await.status(), 404, "{nothing}");
    }

    // Exports.
    for token in [root, &admin_key] {
        for query in ["", "&name=a", "&class=data"] {
            let file = get(admin, token, &format!("{audit}/export?format=jsonl{query}")).await;
            let report = proved(&file, signed);
            assert!(report.omitted >= 2 && !file.text().contains(SECRET), "{report:?}");
        }
    }
    for (token, format) in [(root, "csv"), (root, "cef"), (&*auditor, "csv"), (&*auditor, "cef")] {
        let table = get(admin, token, &format!("{audit}/export?format={format}&name=a")).await.text();
        assert!(table.contains("tools/call") && !table.contains(SECRET), "{table}");
    }
    let file = get(admin, &auditor, &format!("{audit}/export?format=jsonl&name=a")).await;
    let report = proved(&file, signed);
    assert!(report.events == 2 && file.text().contains(SECRET), "{report:?}");

    // Each look is in the log, those that were refused, too.
    eventually("the looks are in the log", async || {
        let log = get(admin, root, &format!("{audit}?class=control&limit=500")).await.json();
        let looks = log["items"].as_array()?.iter().filter(|e| e["event"]["action"] == "read_audit_bodies");
        let decisions: Vec<&str> = looks.filter_map(|e| e["event"]["decision"].as_str()).collect();
        let count = |wanted: &str| decisions.iter().filter(|d| **d == wanted).count();
        (count("allow") == 1 && count("deny") >= 2).then_some(())
    })
    .await;

    // What is erased is gone.
    let principal = item["event"]["principal"].as_str().unwrap();
    let erase = format!("{audit}/erase");
    let erased = ask(admin, root, "POST", &erase, Some(json!({ "principal": principal }))).await;
    assert_eq!(erased.status(), 200, "{}", erased.text());
    assert_eq!(get(admin, &auditor, &one).await.status(), 404);
    let file = get(admin, &auditor, &format!("{audit}/export")).await;
    assert!(proved(&file, signed).erased >= 2 && !file.text().contains(SECRET));
}

#[tokio::test]
async fn bodies_are_read_by_auditors_only_on_postgres() {
    let database = Database::fresh();
    let up = upstream().await;
    let one = Replica::start(&database.url()).await;
    let token = one.admin_token().await;
    let text = document("s", &up.url()).replace("limits: []", "limits: [], policy: p") + POLICY;
    publish(&one.publisher(), &text, None).await.unwrap();
    eventually("it is served", async || (one.routes() == ["s"]).then_some(())).await;
    let (admin, data) = (one.process().admin_address(), one.data_dir());
    only_auditors_read_them(admin, StoreSettings::at(&database.url(), &data), &token, one.caller("s")).await;
}

#[tokio::test]
async fn bodies_are_read_by_auditors_only_on_sqlite() {
    let up = upstream().await;
    let gateway = Gateway::relay(&[&up]).server("era: modern").route("policy: p").more(POLICY).start().await;
    let token = token(gateway.data_dir(), gateway.admin).await;
    let settings = StoreSettings::embedded(&gateway.data_dir());
    only_auditors_read_them(gateway.admin, settings, &token, gateway.caller()).await;
}

/// A tenant's document says it of the tenant's own calls, and the tenant's own auditors read them: nobody else's.
#[tokio::test]
async fn bodies_of_a_tenant_are_read_by_its_own_auditors() {
    let database = Database::fresh();
    let up = upstream().await;
    let one = Replica::start(&database.url()).await;
    let admin = one.process().admin_address();
    let root = one.admin_token().await;
    let grants = "grants: { private_targets: [127.0.0.0/8], anonymous: true }";
    let platform =
        format!("version: 1\ntenants: [ {{ name: acme, {grants} }}, {{ name: globex, {grants} }} ]\n");
    let acme = document("s", &up.url())
        .replace("limits: []", "limits: [], policy: p")
        .replace("loopback: { role: developer }", "anonymous: {}")
        + POLICY;
    for (scope, text) in [(Scope::Platform, platform), (Scope::Tenant(TenantId::new("acme")), acme)] {
        let content = text.into_bytes();
        let (author, reason) = ("test".to_owned(), String::new());
        one.publisher().publish(Change { scope, content, author, reason, if_revision: None }).await.unwrap();
    }
    let caller = Caller::new(one.process().mcp_address().unwrap(), "/t/acme/mcp/s");
    eventually("it is served", async || (caller.ask(&caller.tool("a")).await.status() == 200).then_some(()))
        .await;
    let audit = "/api/v1/tenants/acme/audit";
    let item = eventually("a call in the list", async || {
        let found = get(admin, &root, &format!("{audit}?class=data&name=a")).await.json();
        found["items"].as_array()?.iter().find(|e| e["bodies"] == json!(["request", "response"])).cloned()
    })
    .await;
    let at = format!("data/{}/{}/bodies", item["writer"].as_str().unwrap(), item["sequence"]);
    let own = key_in("acme", admin, &root, "aud", "viewer", true).await;
    let read = get(admin, &own, &format!("{audit}/{at}")).await;
    assert!(read.status() == 200 && read.text().contains(SECRET), "{}", read.text());
    let others = [
        key_in("globex", admin, &root, "aud", "admin", true).await,
        key_in("default", admin, &root, "aud", "admin", true).await,
    ];
    for other in &others {
        for path in [format!("{audit}/{at}"), format!("{audit}/export"), format!("{audit}?class=data")] {
            let refused = get(admin, other, &path).await;
            assert!(refused.status() == 404 && !refused.text().contains(SECRET), "{path} {}", refused.text());
        }
    }
    for (tenant, token) in [("globex", &others[0]), ("default", &others[1])] {
        let elsewhere = get(admin, token, &format!("/api/v1/tenants/{tenant}/audit/{at}")).await;
        assert_eq!(elsewhere.status(), 404, "by the same place in their own log");
    }
    assert_eq!(get(admin, &root, &format!("{audit}/{at}")).await.status(), 403, "nor the operator");
}

fn tollgate(arguments: &[&str]) -> (bool, String, String) {
    let done = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate")).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (done.status.success(), text(done.stdout), text(done.stderr))
}

#[tokio::test]
async fn the_command_line_exports_them_only_when_told_to_and_says_so_in_the_log() {
    let up = upstream().await;
    let gateway = Gateway::relay(&[&up]).server("era: modern").route("policy: p").more(POLICY).start().await;
    let caller = gateway.caller();
    caller.ask(&caller.modern("tools/call", json!({ "name": "a", "arguments": { "x": SECRET } }))).await;
    let data = gateway.data_dir();
    let base = ["audit", "export", "--data-dir", data.to_str().unwrap()];
    let export = |more: &[&str]| tollgate(&[&base[..], more].concat());
    let whole = eventually("the call in the export", async || {
        let (ok, text, _) = export(&[]);
        assert!(ok && !text.contains(SECRET), "{text}");
        text.contains("\"omitted\":\"filter\"").then_some(())
    });
    whole.await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    let (ok, text, said) = export(&["--bodies", "--reason", "request 4711"]);
    assert!(ok && text.contains(SECRET), "{said}");
    let (_, text, _) = export(&[]);
    assert!(text.contains("\"action\":\"read_audit_bodies\"") && text.contains("request 4711"), "{text}");
    let (ok, text, said) = export(&["--bodies", "--format", "csv"]);
    assert!(!ok && text.is_empty() && said.contains("only JSON lines have bodies"), "{said}");
    assert!(!export(&["--reason", "x"]).0, "a reason for what is not done");
}
