//! Many who change one document at once, and do not care about each other.

use futures::future::join_all;
use serde_json::{Value, json};
use tollgate::store::StoreSettings;

use super::plane::{Plane, server};
use crate::support::Folder;
use crate::support::postgres::Database;

const ADMIN: &str = "tg_a_admin";
const AT_ONCE: usize = 24;

fn limit() -> Value {
    json!({ "key": "principal", "rate": "10/s" })
}

/// Each makes a limit of its own, that is not there yet. None is told that something is not as it expected.
async fn all_at_once(planes: &[&Plane]) {
    let edits = (0..AT_ONCE).map(|n| {
        let (plane, line) = (planes[n % planes.len()], format!("PUT /api/v1/tenants/a/limits/r0-{n}"));
        async move { plane.ask(ADMIN, &line, &[("if-none-match", "*")], Some(limit())).await }
    });
    for done in join_all(edits).await {
        assert_eq!(done.status, 201, "{}", done.json());
    }
    let list = planes[0].ask(ADMIN, "GET /api/v1/tenants/a/limits?limit=500", &[], None).await.json();
    assert_eq!(list["items"].as_array().unwrap().len(), AT_ONCE);
    let head = planes[0].everything_of("a").await["head"][0].clone();
    assert_eq!(head, json!(AT_ONCE), "each is a revision");
}

#[tokio::test]
async fn edits_of_different_objects_all_happen() {
    all_at_once(&[&Plane::start().await]).await;
}

#[tokio::test]
async fn edits_of_different_objects_over_two_replicas_all_happen() {
    let database = Database::fresh();
    let on = async || {
        let folder = Folder::new();
        let settings = StoreSettings::at(&database.url(), folder.path());
        Plane::on(settings, folder).await
    };
    let (one, other) = (on().await, on().await);
    all_at_once(&[&one, &other]).await;
}

#[tokio::test]
async fn of_those_who_name_a_revision_one_is_first_and_the_others_are_told() {
    let plane = Plane::start().await;
    let put = |n: usize| format!("PUT /api/v1/tenants/a/limits/l{n}");
    assert_eq!(plane.ask(ADMIN, &put(99), &[("if-none-match", "*")], Some(limit())).await.status, 201);
    let edits = (0..8).map(|n| {
        let (plane, line) = (&plane, put(n));
        async move { plane.ask(ADMIN, &line, &[("if-match", "\"r1\"")], Some(limit())).await }
    });
    let done = join_all(edits).await;
    assert_eq!(done.iter().filter(|a| a.status == 201).count(), 1);
    for late in done.iter().filter(|a| a.status != 201) {
        assert_eq!((late.status.as_u16(), &late.json()["current_etag"]), (412, &json!("\"r2\"")));
    }
}

/// Whole documents, as many as there are places for at once, by whoever takes whatever there is: each replaces the one before, and none fails a condition.
#[tokio::test]
async fn documents_that_replace_whatever_there_is_are_all_published() {
    let plane = Plane::start().await;
    let put = "PUT /api/v1/tenants/a/servers/s";
    assert_eq!(plane.ask(ADMIN, put, &[("if-none-match", "*")], Some(server(1))).await.status, 201);
    let edits = (0..8u16).map(|n| {
        let plane = &plane;
        let text = format!(
            "version: 1\nservers: [{{ name: s{n}, http: {{ targets: [\"http://127.0.0.1:9/mcp\"] }} }}]\n"
        );
        async move {
            let any = [("if-match", "*")];
            let line = "PUT /api/v1/tenants/a/document";
            plane.raw(ADMIN, line, &any, Some(text.as_bytes()), "application/yaml").await.status
        }
    });
    let done = join_all(edits).await;
    assert!(done.iter().all(|status| *status == 200), "{done:?}");
    assert_eq!(plane.everything_of("a").await["head"][0], json!(9));
}
