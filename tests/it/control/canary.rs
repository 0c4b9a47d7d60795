//! Canaries, what-if and proof through the API.

use serde_json::{Value, json};
use tollgate::base::TenantId;
use tollgate::store::Page;

use super::plane::{Plane, server};

const OPERATOR: &str = "tg_default_super_admin";
const ADMIN: &str = "tg_a_admin";
const CANARY: &str = "/api/v1/tenants/a/canary";

/// A document with this many servers.
fn document(servers: u16) -> String {
    let servers: Vec<Value> = (0..servers)
        .map(|n| {
            let mut server = server(9001 + n);
            server["name"] = format!("s{n}").into();
            server
        })
        .collect();
    json!({ "version": 1, "servers": servers }).to_string()
}

async fn furnished() -> Plane {
    let plane = Plane::start().await;
    let made = plane.ask(OPERATOR, "PUT /api/v1/tenants/a", &[("if-none-match", "*")], Some(json!({}))).await;
    assert_eq!(made.status, 201);
    let path = "PUT /api/v1/tenants/a/document";
    let new = [("if-none-match", "*")];
    let made = plane.raw(ADMIN, path, &new, Some(document(1).as_bytes()), "application/json").await;
    assert_eq!(made.status, 200, "{}", made.json());
    plane
}

fn start(servers: u16) -> Value {
    json!({ "document": document(servers), "principals": "10%" })
}

#[tokio::test]
async fn a_canary_is_started_changed_and_ended_by_who_saw_it() {
    let plane = furnished().await;
    let ask =
        async |line: String, headers: &[(&str, &str)], body| plane.ask(ADMIN, &line, headers, body).await;
    assert_eq!(ask(format!("GET {CANARY}"), &[], None).await.status, 404);
    let none = ask(format!("DELETE {CANARY}"), &[], None).await;
    assert_eq!((none.status.as_u16(), &none.json()["code"]), (409, &json!("no_canary")));

    let stale = ask(format!("POST {CANARY}"), &[("if-match", "\"r9\"")], Some(start(2))).await;
    assert_eq!(stale.status, 412, "{}", stale.json());
    let headers = [("if-match", "\"r1\""), ("x-tollgate-reason", "try it"), ("idempotency-key", "c1")];
    let started = ask(format!("POST {CANARY}"), &headers, Some(start(2))).await;
    let shown = started.json();
    assert_eq!(started.status, 201, "{shown}");
    assert_eq!(
        (&shown["state"], &shown["base"], &shown["candidate"]),
        (&json!("running"), &json!(1), &json!(2))
    );
    assert_eq!((&shown["next_share"]["share"], &shown["reason"]), (&json!("10%"), &json!("try it")));
    assert_eq!(shown["rules"]["max_error_rise"], "2%");
    let again = ask(format!("POST {CANARY}"), &headers, Some(start(2))).await;
    assert_eq!((again.status.as_u16(), &again.json()["id"]), (201, &shown["id"]), "the same answer");
    let second = ask(format!("POST {CANARY}"), &[], Some(start(3))).await;
    assert_eq!((second.status.as_u16(), &second.json()["code"]), (409, &json!("canary_running")));

    let tag = started.etag();
    let grown = ask(format!("PATCH {CANARY}"), &[("if-match", &tag)], Some(json!({ "share": "50%" }))).await;
    assert_eq!((grown.status.as_u16(), &grown.json()["next_share"]["share"]), (200, &json!("50%")));
    let old = ask(format!("PATCH {CANARY}"), &[("if-match", &tag)], Some(json!({ "share": "60%" }))).await;
    assert_eq!(old.status, 412, "it was changed since");
    let ended = ask(format!("DELETE {CANARY}?reason=enough"), &[("if-match", &grown.etag())], None).await;
    let shown = ended.json();
    assert_eq!(
        (ended.status.as_u16(), &shown["state"], &shown["end_reason"]),
        (200, &json!("aborted"), &json!("enough"))
    );
    assert_eq!(shown["ended_by"], "key|a-admin");

    // An earlier revision, promoted: published in place of the head that it was compared with.
    let body = json!({ "revision": 2, "principals": "100%", "hold_seconds": 1, "deadline_seconds": 60 });
    let started = ask(format!("POST {CANARY}"), &[], Some(body)).await;
    assert_eq!(started.status, 201, "{}", started.json());
    let promoted = ask(format!("POST {CANARY}/promote"), &[], None).await.json();
    assert_eq!((&promoted["state"], &promoted["promoted"]), (&json!("promoted"), &json!(3)));
    let list = ask("GET /api/v1/tenants/a/canaries".to_owned(), &[], None).await.json();
    let states: Vec<&Value> = list["items"].as_array().unwrap().iter().map(|c| &c["state"]).collect();
    assert_eq!(states, ["promoted", "aborted"]);
    let tenant = TenantId::new("a");
    assert_eq!(plane.store.tenant(&tenant).history(None, Page::of(9)).await.unwrap().len(), 3);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_its_place_and_stores_nothing() {
    let plane = furnished().await;
    for (body, pointer) in [
        (json!({ "document": document(2) }), "/principals"),
        (json!({ "document": document(2), "principals": "1%", "replicas": "1%" }), "/principals"),
        (json!({ "principals": "1%" }), "/document"),
        (json!({ "document": document(2), "revision": 1, "principals": "1%" }), "/document"),
        (json!({ "document": document(2), "principals": "ten" }), "/principals"),
        (json!({ "document": document(2), "principals": "0%" }), "/principals"),
        (json!({ "document": document(2), "principals": "1%", "max_error_rise": "x" }), "/max_error_rise"),
        (json!({ "document": document(2), "principals": "1%", "max_latency_ratio": 0.5 }), ""),
        (
            json!({ "document": document(2), "principals": "1%", "hold_seconds": 5, "deadline_seconds": 5 }),
            "",
        ),
        (json!({ "document": "version: 1\nruotes: []\n", "principals": "1%" }), "/ruotes"),
    ] {
        let refused = plane.ask(ADMIN, &format!("POST {CANARY}"), &[], Some(body.clone())).await;
        let problem = refused.json();
        assert_eq!(
            (refused.status.as_u16(), &problem["errors"][0]["pointer"]),
            (422, &json!(pointer)),
            "{body}: {problem}"
        );
    }
    for (body, code) in [
        (json!({ "document": document(2), "replicas": "50%" }), "too_few_replicas"),
        (json!({ "document": document(1), "principals": "1%" }), "nothing_to_try"),
    ] {
        let refused = plane.ask(ADMIN, &format!("POST {CANARY}"), &[], Some(body)).await;
        assert_eq!((refused.status.as_u16(), &refused.json()["code"]), (409, &json!(code)));
    }
    let missing = json!({ "revision": 99, "principals": "1%" });
    assert_eq!(plane.ask(ADMIN, &format!("POST {CANARY}"), &[], Some(missing)).await.status, 404);
    let tenant = TenantId::new("a");
    assert_eq!(plane.store.tenant(&tenant).history(None, Page::of(9)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn questions_are_bounded_and_only_so_many_are_worked_on() {
    let plane = furnished().await;
    let (whatif, prove) = ("POST /api/v1/tenants/a/whatif", "POST /api/v1/tenants/a/prove");
    for (line, body, pointer) in [
        (whatif, json!({ "document": document(1), "hours": 0 }), "/hours"),
        (whatif, json!({ "document": document(1), "hours": 9999 }), "/hours"),
        (whatif, json!({ "document": document(1), "max_changes": 1001 }), "/max_changes"),
        (prove, json!({ "question": "who_can_call" }), "/tools"),
        (prove, json!({ "question": "unauthenticated", "tools": "x" }), "/tools"),
        (prove, json!({ "question": "who_can_call", "tools": "x", "route": "nobody" }), "/route"),
        (
            prove,
            json!({ "question": "unauthenticated", "document": "version: 1\n", "revision": 1 }),
            "/revision",
        ),
        (prove, json!({ "question": "unauthenticated", "document": "version: 1\nruotes: []\n" }), "/ruotes"),
    ] {
        let refused = plane.ask(ADMIN, line, &[], Some(body.clone())).await;
        let problem = refused.json();
        assert_eq!(
            (refused.status.as_u16(), &problem["errors"][0]["pointer"]),
            (422, &json!(pointer)),
            "{body}: {problem}"
        );
    }
    let many = (0..32).map(|_| plane.ask(ADMIN, whatif, &[], Some(json!({ "document": document(1) }))));
    let answers = futures::future::join_all(many).await;
    let with = |status: u16| answers.iter().filter(|a| a.status == status).count();
    assert!(with(200) >= 1 && with(429) >= 1 && with(200) + with(429) == 32, "{} {}", with(200), with(429));
    assert!(answers.iter().filter(|a| a.status == 429).all(|a| a.headers.contains_key("retry-after")));
    let later = plane.ask(ADMIN, whatif, &[], Some(json!({ "document": document(1) }))).await;
    assert_eq!(later.status, 200, "a place is given back");
}
