//! `If-Match` and `If-None-Match` between several who ask at once, over the API and on both engines.

use axum::http::StatusCode;
use futures::future::join_all;
use serde_json::{Value, json};
use tollgate::store::StoreSettings;

use super::plane::{Answer, Plane};
use crate::support::Folder;
use crate::support::postgres::Database;

const ADMIN: &str = "tg_a_admin";
/// At once, so many times.
const WRITERS: usize = 6;
const ROUNDS: usize = 5;

type Body = fn(usize) -> Value;

/// What has an ETag of its own: where it is, what a writer puts there, and where that is read again.
const ALL: [(&str, Body, &str); 3] = [
    (
        "/api/v1/tenants/a/users/corp%7Csue",
        |i| json!({ "display_name": format!("writer {i}") }),
        "display_name",
    ),
    (
        "/api/v1/tenants/a/roles/support",
        |i| json!({ "description": format!("writer {i}"), "permissions": ["keys:read"] }),
        "description",
    ),
    ("/api/v1/tenants/a/secrets/token", |i| json!({ "value": format!("writer {i}") }), "value"),
];

/// Asks from all writers at once.
async fn race(plane: &Plane, line: &str, condition: (&str, &str), body: Option<Body>) -> Vec<Answer> {
    let headers = [condition];
    join_all((0..WRITERS).map(|i| plane.ask(ADMIN, line, &headers, body.map(|body| body(i))))).await
}

/// Who got what they asked for. The others learn what there is now.
fn winner(answers: &[Answer], good: StatusCode, current: Option<&str>) -> usize {
    let won: Vec<_> = (0..answers.len()).filter(|i| answers[*i].status == good).collect();
    assert_eq!(won.len(), 1, "{:?}", answers.iter().map(|a| a.status).collect::<Vec<_>>());
    for (i, answer) in answers.iter().enumerate().filter(|(i, _)| *i != won[0]) {
        let problem = answer.json();
        assert_eq!((answer.status.as_u16(), &problem["code"]), (412, &json!("precondition_failed")), "{i}");
        assert_eq!(problem["current_etag"].as_str(), current, "{problem}");
    }
    won[0]
}

async fn one_of_several_wins(plane: Plane) {
    for (at, body, field) in ALL {
        let put = format!("PUT {at}");
        for _ in 0..ROUNDS {
            let made = race(&plane, &put, ("if-none-match", "*"), Some(body)).await;
            let mut tag = plane.ask(ADMIN, &format!("GET {at}"), &[], None).await.etag();
            let won = winner(&made, StatusCode::CREATED, Some(&tag));
            assert_eq!(made[won].etag(), tag);
            for _ in 0..ROUNDS {
                let changed = race(&plane, &put, ("if-match", &tag), Some(body)).await;
                let now = plane.ask(ADMIN, &format!("GET {at}"), &[], None).await;
                let won = winner(&changed, StatusCode::OK, Some(&now.etag()));
                assert_eq!(changed[won].etag(), now.etag());
                if field == "value" {
                    let acme = tollgate::base::TenantId::new("a");
                    let value = plane.store.tenant(&acme).secret("token").await.unwrap().unwrap();
                    assert_eq!(value.expose(), format!("writer {won}").as_bytes());
                } else {
                    assert_eq!(now.json()[field], format!("writer {won}"));
                }
                assert_ne!(now.etag(), tag);
                tag = now.etag();
            }
            // Whoever comes second finds nothing to delete.
            let gone = race(&plane, &format!("DELETE {at}"), ("if-match", &tag), None).await;
            let codes: Vec<_> = gone.iter().map(|a| a.status.as_u16()).collect();
            assert_eq!(codes.iter().filter(|c| **c == 204).count(), 1, "{codes:?}");
            assert!(codes.iter().all(|c| [204, 404].contains(c)), "{codes:?}");
            let late = plane.ask(ADMIN, &put, &[("if-match", &tag)], Some(body(0))).await;
            assert_eq!((late.status.as_u16(), late.json().get("current_etag")), (412, None));
        }
    }
}

#[tokio::test]
async fn of_those_who_saw_the_same_one_wins_on_sqlite() {
    one_of_several_wins(Plane::start().await).await;
}

#[tokio::test]
async fn of_those_who_saw_the_same_one_wins_on_postgresql() {
    let database = Database::fresh();
    let folder = Folder::new();
    one_of_several_wins(Plane::on(StoreSettings::at(&database.url(), folder.path()), folder).await).await;
}

#[tokio::test]
async fn who_changes_a_document_that_moved_is_told_its_revision() {
    let plane = Plane::start().await;
    let at = "PUT /api/v1/tenants/a/document";
    let first =
        plane.raw(ADMIN, at, &[("if-none-match", "*")], Some(b"version: 1\n"), "application/yaml").await;
    assert!(first.status.is_success(), "{}", first.json());
    for condition in [("if-none-match", "*"), ("if-match", "\"r7\"")] {
        let late = plane.raw(ADMIN, at, &[condition], Some(b"version: 1\n"), "application/yaml").await;
        assert_eq!(
            (late.status.as_u16(), &late.json()["current_etag"]),
            (412, &json!("\"r1\"")),
            "{condition:?}"
        );
    }
}
