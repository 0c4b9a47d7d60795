//! Several edits as one revision: where one is bad, the others are done or not, and its place in the request is named.

use serde_json::{Value, json};

use super::plane::{Plane, server};

const ADMIN: &str = "tg_a_admin";
const LINE: &str = "POST /api/v1/tenants/a/servers:bulk";
const ANY: [(&str, &str); 1] = [("if-match", "*")];

fn put(name: &str, object: Value) -> Value {
    json!({ "op": "put", "name": name, "object": object })
}

/// Well formed, and no server.
fn bad() -> Value {
    json!({ "http": { "targets": ["http://127.0.0.1:1/mcp", "no address"] } })
}

async fn names(plane: &Plane) -> Vec<String> {
    let list = plane.ask(ADMIN, "GET /api/v1/tenants/a/servers?limit=500", &[], None).await.json();
    list["items"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn each_item_by_itself_is_done_or_told_what_is_wrong_with_it() {
    let plane = Plane::start().await;
    let items = json!([
        put("a", server(1)),
        put("b", bad()),
        put("c", json!({ "balanse": "hash", "http": { "targets": ["http://127.0.0.1:1/mcp"] } })),
        { "op": "delete", "name": "nobody" },
        put("d", server(2)),
        put("e", json!([])),
        put("f", json!({ "name": "other" })),
        put("d", bad()),
    ]);
    let done = plane.ask(ADMIN, LINE, &ANY, Some(json!({ "items": items, "atomic": false }))).await;
    assert_eq!((done.status.as_u16(), done.etag()), (207, "\"r1\"".to_owned()), "{}", done.json());
    let done = done.json();
    let told: Vec<(u64, Option<&str>)> = done["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (r["status"].as_u64().unwrap(), r["problem"]["errors"][0]["pointer"].as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (200, None),
            (422, Some("/items/1/object/http/targets/1")),
            (422, Some("/items/2/object/balanse")),
            (404, None),
            (200, None),
            (422, Some("/items/5/object")),
            (422, Some("/items/6/object/name")),
            (422, Some("/items/7/object/http/targets/1")),
        ],
        "{done}"
    );
    assert_eq!(names(&plane).await, ["a", "d"]);
    assert_eq!(done["edited"]["changes"].as_array().unwrap().len(), 2, "{done}");
}

#[tokio::test]
async fn if_all_are_bad_nothing_is_published() {
    let plane = Plane::start().await;
    let items = json!([put("a", bad()), put("b", bad()), { "op": "delete", "name": "c" }]);
    let done = plane.ask(ADMIN, LINE, &ANY, Some(json!({ "items": items, "atomic": false }))).await;
    assert_eq!(done.status, 207);
    let done = done.json();
    let statuses: Vec<_> = done["results"].as_array().unwrap().iter().map(|r| r["status"].clone()).collect();
    assert_eq!((statuses, &done["edited"]), (vec![json!(422), json!(422), json!(404)], &Value::Null));
    assert_eq!(plane.everything_of("a").await["head"], json!(null));
}

#[tokio::test]
async fn together_a_bad_item_is_named_by_its_place_in_the_request() {
    let plane = Plane::start().await;
    assert_eq!(
        plane
            .ask(ADMIN, "PUT /api/v1/tenants/a/servers/z", &[("if-none-match", "*")], Some(server(1)))
            .await
            .status,
        201
    );
    let items = json!([put("a", server(1)), put("b", bad()), put("z", server(3))]);
    let refused = plane.ask(ADMIN, LINE, &ANY, Some(json!({ "items": items }))).await;
    let problem = refused.json();
    assert_eq!(
        (refused.status.as_u16(), &problem["errors"][0]["pointer"]),
        (422, &json!("/items/1/object/http/targets/1")),
        "{problem}"
    );
    assert_eq!(names(&plane).await, ["z"]);
}

#[tokio::test]
async fn many_items_of_which_few_are_bad_take_few_tries() {
    let plane = Plane::start().await;
    let items: Vec<Value> =
        (0..200).map(|n| put(&format!("s{n}"), if n % 67 == 5 { bad() } else { server(1000 + n) })).collect();
    let line = format!("{LINE}?dry_run=true");
    let tried = plane.ask(ADMIN, &line, &ANY, Some(json!({ "items": items, "atomic": false }))).await.json();
    assert_eq!(plane.everything_of("a").await["head"], json!(null), "only tried");
    let failed: Vec<usize> = (0..200).filter(|n| tried["results"][n]["status"] == 422).collect();
    assert_eq!(failed, [5, 72, 139]);
    let done = plane.ask(ADMIN, LINE, &ANY, Some(json!({ "items": items, "atomic": false }))).await.json();
    assert_eq!(done["edited"]["revision"], 1, "one revision for all of them");
    assert_eq!(names(&plane).await.len(), 197);
}
