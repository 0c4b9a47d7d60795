//! Objects of a document, one by one and together.

use serde_json::json;

use super::plane::{Plane, server};

const ADMIN: &str = "tg_a_admin";
const AT: &str = "/api/v1/tenants/a/servers/weather";

#[tokio::test]
async fn an_edit_is_a_revision_with_author_and_reason() {
    let plane = Plane::start().await;
    let why = [("if-none-match", "*"), ("x-tollgate-reason", "first server")];
    let made = plane.ask(ADMIN, &format!("PUT {AT}"), &why, Some(server(9001))).await;
    assert_eq!(made.status, 201, "{:?}", made.json());
    assert_eq!((made.etag(), made.json()["revision"].as_i64()), ("\"r1\"".into(), Some(1)));
    assert!(made.json()["changes"][0].as_str().unwrap().contains("server weather"), "{:?}", made.json());
    let shown = plane.ask(ADMIN, &format!("GET {AT}"), &[], None).await;
    assert_eq!((shown.etag(), &shown.json()["name"]), ("\"r1\"".into(), &json!("weather")));
    let revisions = plane.ask(ADMIN, "GET /api/v1/tenants/a/revisions", &[], None).await.json();
    let revision = &revisions["items"][0];
    assert_eq!((&revision["author"], &revision["reason"]), (&json!("key|a-admin"), &json!("first server")));
    let action = plane.ledger.0.lock().iter().find(|a| a.operation.id == "put_server").cloned().unwrap();
    assert_eq!((action.status, action.reason.as_deref()), (201, Some("first server")));
}

#[tokio::test]
async fn nobody_overwrites_what_they_have_not_seen() {
    let plane = Plane::start().await;
    let put = format!("PUT {AT}");
    assert_eq!(plane.ask(ADMIN, &put, &[], Some(server(1))).await.status, 428);
    assert_eq!(
        plane.ask(ADMIN, &put, &[("if-match", "*")], Some(server(1))).await.status,
        412,
        "not there yet"
    );
    assert_eq!(plane.ask(ADMIN, &put, &[("if-none-match", "*")], Some(server(1))).await.status, 201);
    assert_eq!(plane.ask(ADMIN, &put, &[("if-none-match", "*")], Some(server(2))).await.status, 412);
    assert_eq!(plane.ask(ADMIN, &put, &[("if-match", "\"r1\"")], Some(server(2))).await.status, 200);
    assert_eq!(plane.ask(ADMIN, &put, &[("if-match", "\"r1\"")], Some(server(3))).await.status, 412);
    let delete = format!("DELETE {AT}");
    assert_eq!(plane.ask(ADMIN, &delete, &[("if-match", "\"r1\"")], None).await.status, 412);
    assert_eq!(plane.ask(ADMIN, &delete, &[("if-match", "\"r2\"")], None).await.status, 200);
    assert_eq!(plane.ask(ADMIN, &format!("GET {AT}"), &[], None).await.status, 404);
}

#[tokio::test]
async fn concurrent_edits_without_a_revision_all_happen() {
    let plane = Plane::start().await;
    let edits = (0..8).map(|n| {
        let line = format!("PUT /api/v1/tenants/a/servers/s{n}");
        let plane = &plane;
        async move { plane.ask(ADMIN, &line, &[("if-none-match", "*")], Some(server(9000 + n))).await.status }
    });
    let done = futures::future::join_all(edits).await;
    let made = done.iter().filter(|s| **s == 201).count();
    let list = plane.ask(ADMIN, "GET /api/v1/tenants/a/servers?limit=500", &[], None).await.json();
    assert_eq!(list["items"].as_array().unwrap().len(), made, "{done:?}");
    assert!(done.iter().all(|s| matches!(s.as_u16(), 201 | 412)), "{done:?}");
}

#[tokio::test]
async fn findings_point_into_the_object_that_was_sent() {
    let plane = Plane::start().await;
    let wrong = json!({ "http": { "targets": ["http://127.0.0.1:1/mcp"] }, "balanse": "hash" });
    let refused = plane.ask(ADMIN, &format!("PUT {AT}"), &[("if-none-match", "*")], Some(wrong)).await;
    assert_eq!(refused.status, 422);
    let problem = refused.json();
    assert_eq!(problem["errors"][0]["pointer"], "/balanse", "{problem}");
    let renamed = json!({ "name": "other", "http": { "targets": ["http://127.0.0.1:1/mcp"] } });
    let refused = plane.ask(ADMIN, &format!("PUT {AT}"), &[("if-none-match", "*")], Some(renamed)).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["errors"][0]["pointer"]), (422, &json!("/name")));
    assert_eq!(plane.everything_of("a").await["head"], json!(null), "nothing was published");
}

#[tokio::test]
async fn a_dry_run_says_what_would_change_and_changes_nothing() {
    let plane = Plane::start().await;
    let line = format!("PUT {AT}?dry_run=true");
    let tried = plane.ask(ADMIN, &line, &[("if-none-match", "*")], Some(server(9001))).await;
    assert_eq!((tried.status.as_u16(), &tried.json()["dry_run"]), (200, &json!(true)));
    assert_eq!(tried.json()["changes"].as_array().unwrap().len(), 1);
    assert_eq!(plane.everything_of("a").await["head"], json!(null));
}

#[tokio::test]
async fn several_edits_are_one_revision_or_none() {
    let plane = Plane::start().await;
    let any = [("if-match", "*")];
    let line = "POST /api/v1/tenants/a/servers:bulk";
    let put = |name: &str, port| json!({ "op": "put", "name": name, "object": server(port) });
    let good = json!({ "items": [put("one", 1), put("two", 2)] });
    let done = plane.ask(ADMIN, line, &any, Some(good)).await;
    assert_eq!((done.status.as_u16(), &done.json()["edited"]["revision"]), (207, &json!(1)));
    let mixed = json!({ "items": [put("three", 3), { "op": "delete", "name": "nobody" }] });
    let none = plane.ask(ADMIN, line, &any, Some(mixed.clone())).await.json();
    assert!(none["edited"].is_null());
    assert_eq!((&none["results"][0]["status"], &none["results"][1]["status"]), (&json!(424), &json!(404)));
    let mut some = mixed;
    some["atomic"] = json!(false);
    let some = plane.ask(ADMIN, line, &any, Some(some)).await.json();
    assert_eq!((&some["edited"]["revision"], &some["results"][0]["status"]), (&json!(2), &json!(200)));
    let empty = plane.ask(ADMIN, line, &any, Some(json!({ "items": [] }))).await;
    assert_eq!((empty.status.as_u16(), &empty.json()["errors"][0]["pointer"]), (422, &json!("/items")));
}

#[tokio::test]
async fn documents_roll_back_and_round_trip() {
    let plane = Plane::start().await;
    for (n, condition) in [("1", ("if-none-match", "*")), ("2", ("if-match", "*"))] {
        let port = 9000 + n.parse::<u16>().unwrap();
        assert!(
            plane
                .ask(ADMIN, &format!("PUT {AT}"), &[condition], Some(server(port)))
                .await
                .status
                .is_success()
        );
    }
    let document = "/api/v1/tenants/a/document";
    let shown = plane.ask(ADMIN, &format!("GET {document}"), &[], None).await;
    assert_eq!(
        (shown.etag(), &shown.headers["content-type"]),
        ("\"r2\"".into(), &"application/yaml".parse().unwrap())
    );
    let same = plane
        .raw(
            ADMIN,
            &format!("PUT {document}"),
            &[("if-match", "\"r2\"")],
            Some(&shown.body),
            "application/yaml",
        )
        .await;
    assert_eq!(
        (same.status.as_u16(), &same.json()["revision"]),
        (200, &json!(2)),
        "the same again is no revision"
    );
    let diff = plane.ask(ADMIN, "GET /api/v1/tenants/a/diff?from=1&to=2", &[], None).await.json();
    assert!(diff["items"].to_string().contains("9002"), "{diff}");
    let line = "POST /api/v1/tenants/a/rollback";
    let to = Some(json!({ "revision": 1 }));
    assert_eq!(plane.ask(ADMIN, line, &[], to.clone()).await.status, 428, "what it replaces has to be said");
    assert_eq!(plane.ask(ADMIN, line, &[("if-none-match", "*")], to.clone()).await.status, 412);
    assert_eq!(plane.ask(ADMIN, line, &[("if-match", "\"r1\"")], to.clone()).await.status, 412);
    let back = plane.ask(ADMIN, line, &[("if-match", "\"r2\"")], to).await;
    assert_eq!((back.status.as_u16(), &back.json()["revision"]), (200, &json!(3)));
    let shown = plane.ask(ADMIN, &format!("GET {AT}"), &[], None).await.json();
    assert!(shown.to_string().contains("9001"), "{shown}");
    let list = plane.ask(ADMIN, "GET /api/v1/tenants/a/revisions?limit=2", &[], None).await.json();
    assert_eq!((&list["items"][0]["revision"], &list["items"][0]["parent"]), (&json!(3), &json!(2)));
    let line = format!("GET /api/v1/tenants/a/revisions?limit=2&before={}", list["next"]);
    assert_eq!(plane.ask(ADMIN, &line, &[], None).await.json()["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_sent_twice_is_done_once() {
    let plane = Plane::start().await;
    let headers = [("if-none-match", "*"), ("idempotency-key", "k1")];
    let line = format!("PUT {AT}");
    let first = plane.ask(ADMIN, &line, &headers, Some(server(1))).await;
    let again = plane.ask(ADMIN, &line, &headers, Some(server(1))).await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (201, 201), "without the key it would be 412");
    assert_eq!(first.body, again.body);
    assert_eq!(again.headers["idempotency-replayed"], "true");
    let other = plane.ask(ADMIN, &line, &headers, Some(server(2))).await;
    assert_eq!((other.status.as_u16(), &other.json()["code"]), (422, &json!("idempotency_key_reused")));
    let condition = [("if-match", "\"r1\""), ("idempotency-key", "k1")];
    let later = plane.ask(ADMIN, &line, &condition, Some(server(1))).await;
    assert_eq!((later.status.as_u16(), &later.json()["code"]), (422, &json!("idempotency_key_reused")));
    let somebody = plane.ask("tg_a_server_owner", &line, &headers, Some(server(1))).await;
    assert_eq!(somebody.status, 412, "keys belong to one caller");
}

#[tokio::test]
async fn secrets_go_in_and_never_come_out() {
    let plane = Plane::start().await;
    let at = "/api/v1/tenants/a/secrets/token";
    let made = plane.ask(ADMIN, &format!("PUT {at}"), &[], Some(json!({ "value": "hunter2" }))).await;
    assert_eq!((made.status.as_u16(), &made.json()["version"]), (201, &json!(1)));
    let first = made.etag();
    let again =
        plane.ask(ADMIN, &format!("PUT {at}"), &[("if-match", &first)], Some(json!({ "value": "x" }))).await;
    assert_eq!((again.status.as_u16(), &again.json()["version"]), (200, &json!(2)));
    assert_ne!(again.etag(), first);
    for line in [format!("GET {at}"), "GET /api/v1/tenants/a/secrets".to_owned()] {
        let shown = plane.ask(ADMIN, &line, &[], None).await;
        let text = String::from_utf8_lossy(&shown.body).into_owned();
        assert!(shown.status == 200 && !text.contains("hunter2") && !text.contains("value"), "{text}");
    }
    assert_eq!(plane.ask(ADMIN, &format!("DELETE {at}"), &[("if-match", &first)], None).await.status, 412);
    assert_eq!(plane.ask(ADMIN, &format!("DELETE {at}"), &[], None).await.status, 204);
    assert_eq!(plane.ask(ADMIN, &format!("GET {at}"), &[], None).await.status, 404);
    // One that is set again is not the one that was there before.
    assert_eq!(
        plane.ask(ADMIN, &format!("PUT {at}"), &[], Some(json!({ "value": "y" }))).await.json()["version"],
        1
    );
    assert_eq!(plane.ask(ADMIN, &format!("DELETE {at}"), &[("if-match", &first)], None).await.status, 412);
}

#[tokio::test]
async fn tenants_are_part_of_the_platform_document() {
    let plane = Plane::start().await;
    let operator = "tg_default_super_admin";
    let acme = json!({ "hosts": ["acme.example.com"], "grants": { "env": true } });
    let at = "/api/v1/tenants/acme";
    let made = plane.ask(operator, &format!("PUT {at}"), &[("if-none-match", "*")], Some(acme)).await;
    assert_eq!((made.status.as_u16(), &made.json()["scope"]), (201, &json!("@platform")), "{}", made.json());
    let shown = plane.ask("tg_acme_admin", &format!("GET {at}"), &[], None).await.json();
    assert_eq!(shown["grants"]["env"], true);
    assert_eq!(
        plane.ask("tg_acme_admin", &format!("DELETE {at}"), &[("if-match", "*")], None).await.status,
        403
    );
    let list = plane.ask(operator, "GET /api/v1/tenants", &[], None).await.json();
    assert_eq!(list["items"][0]["name"], "acme");
    assert_eq!(
        plane.ask(operator, &format!("DELETE {at}"), &[("if-match", "\"r1\"")], None).await.status,
        200
    );
    assert_eq!(plane.ask(operator, &format!("GET {at}"), &[], None).await.status, 404);
}
