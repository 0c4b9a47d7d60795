//! Whole documents over the API.

use serde_json::json;

use super::plane::{Answer, Plane};

const ADMIN: &str = "tg_a_admin";
const OPERATOR: &str = "tg_default_super_admin";
const AT: &str = "/api/v1/tenants/a/document";

async fn yaml(plane: &Plane, key: &str, line: &str, headers: &[(&str, &str)], text: &str) -> Answer {
    plane.raw(key, line, headers, Some(text.as_bytes()), "application/yaml").await
}

fn text(route: &str) -> String {
    format!(
        "version: 1\nservers: [{{ name: s, http: {{ targets: [\"http://127.0.0.1:9/mcp\"] }} }}]\n\
         routes: [{{ name: {route}, servers: [s] }}]\nidentity: {{ loopback: {{ role: developer }} }}\n"
    )
}

#[tokio::test]
async fn a_document_is_replaced_only_by_somebody_who_says_what_they_replace() {
    let plane = Plane::start().await;
    let put = format!("PUT {AT}");
    let blind = yaml(&plane, ADMIN, &put, &[], &text("a")).await;
    assert_eq!((blind.status.as_u16(), &blind.json()["code"]), (428, &json!("precondition_required")));
    let tried = yaml(&plane, ADMIN, &format!("{put}?dry_run=true"), &[], &text("a")).await;
    assert_eq!((tried.status.as_u16(), &tried.json()["revision"]), (200, &json!(0)), "only tried");
    assert_eq!(yaml(&plane, ADMIN, &put, &[("if-match", "*")], &text("a")).await.status, 412, "none yet");
    let first = yaml(&plane, ADMIN, &put, &[("if-none-match", "*")], &text("a")).await;
    assert_eq!((first.status.as_u16(), &first.json()["revision"]), (200, &json!(1)));
    assert_eq!(yaml(&plane, ADMIN, &put, &[("if-none-match", "*")], &text("b")).await.status, 412);
    assert_eq!(yaml(&plane, ADMIN, &put, &[("if-match", "\"r7\"")], &text("b")).await.status, 412);
    assert_eq!(yaml(&plane, ADMIN, &put, &[("if-match", "\"r1\"")], &text("b")).await.status, 200);
    let any = yaml(&plane, ADMIN, &put, &[("if-match", "*")], &text("c")).await;
    assert_eq!(any.json()["revision"], 3);
    let bad = yaml(&plane, ADMIN, &put, &[("if-match", "*")], "version: 1\nruotes: []\n").await;
    assert_eq!(bad.status, 422);
    assert!(bad.json()["errors"][0]["line"].is_number(), "{}", bad.json());
}

#[tokio::test]
async fn how_far_replicas_are_is_told_of_every_document_page_by_page() {
    let plane = Plane::start().await;
    for tenant in ["a", "b", "default"] {
        let line = format!("PUT /api/v1/tenants/{tenant}/document");
        assert_eq!(yaml(&plane, OPERATOR, &line, &[("if-none-match", "*")], &text("r")).await.status, 200);
    }
    let (mut scopes, mut line) = (Vec::new(), "GET /api/v1/convergence?limit=2".to_owned());
    loop {
        let page = plane.ask(OPERATOR, &line, &[], None).await.json();
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        scopes.extend(items.iter().map(|item| item["scope"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(cursor) => line = format!("GET /api/v1/convergence?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(scopes, ["a", "b", "default"]);
    assert_eq!(plane.ask(OPERATOR, "GET /api/v1/convergence?limit=0", &[], None).await.status, 400);
}

#[tokio::test]
async fn documents_may_be_as_large_over_the_api_as_anywhere_and_nothing_else_may() {
    const MAX: usize = tollgate::config::MAX_DOCUMENT;
    let plane = Plane::start().await;
    let put = format!("PUT {AT}");
    let large = |size: usize| {
        let document = text("a");
        // Comments are kept, and count.
        format!("{document}{}\n", format!("# {}\n", "x".repeat(97)).repeat(size / 100 - 10))
    };
    let three = large(3 << 20);
    for headers in [vec![("if-none-match", "*")], vec![("if-match", "*"), ("content-length", "3145728")]] {
        let done = yaml(&plane, ADMIN, &put, &headers, &three).await;
        assert_eq!(done.status, 200, "{}", done.json());
    }
    let diff = yaml(&plane, ADMIN, "POST /api/v1/tenants/a/diff", &[], &large(MAX)).await;
    assert_eq!(diff.status, 200, "{}", diff.json());
    let over = large(MAX + 4096);
    for headers in [vec![("if-match", "*")], vec![("if-match", "*"), ("content-length", "9999999")]] {
        let refused = yaml(&plane, ADMIN, &put, &headers, &over).await;
        assert_eq!((refused.status.as_u16(), &refused.json()["code"]), (413, &json!("too_large")));
    }
    // As text in JSON, where each line break takes two bytes.
    let body = json!({ "documents": [{ "scope": "a", "document": large(MAX) }] });
    assert!(body.to_string().len() > MAX);
    let applied = plane.ask(OPERATOR, "POST /api/v1/platform/apply?dry_run=true", &[], Some(body)).await;
    assert_eq!(applied.status, 200, "{}", applied.json());
    // Everything else has the listener's bound, said or not.
    let note = json!({ "roles": ["developer"], "note": "x".repeat(1 << 20) });
    for headers in [vec![], vec![("content-length", "1048700")]] {
        let refused = plane.ask(ADMIN, "POST /api/v1/tenants/a/api-keys", &headers, Some(note.clone())).await;
        assert_eq!((refused.status.as_u16(), &refused.json()["code"]), (413, &json!("too_large")));
    }
}

#[tokio::test]
async fn a_wait_that_is_too_long_is_refused_and_not_cut() {
    let plane = Plane::start().await;
    yaml(&plane, ADMIN, &format!("PUT {AT}"), &[("if-none-match", "*")], &text("a")).await;
    let line = "GET /api/v1/tenants/a/convergence?wait=";
    let long = plane.ask(ADMIN, &format!("{line}26"), &[], None).await;
    assert_eq!((long.status.as_u16(), &long.json()["errors"][0]["pointer"]), (400, &json!("?wait")));
    assert_eq!(plane.ask(ADMIN, &format!("{line}0"), &[], None).await.status, 200);
}

#[tokio::test]
async fn a_document_is_compared_with_the_head_or_a_revision() {
    let plane = Plane::start().await;
    let put = format!("PUT {AT}");
    yaml(&plane, ADMIN, &put, &[("if-none-match", "*")], &text("a")).await;
    yaml(&plane, ADMIN, &put, &[("if-match", "*")], &text("b")).await;
    let line = "POST /api/v1/tenants/a/diff";
    let same = yaml(&plane, ADMIN, line, &[], &text("b")).await;
    assert_eq!((same.status.as_u16(), same.json()), (200, json!({ "items": [] })));
    let other = yaml(&plane, ADMIN, &format!("{line}?with=1"), &[], &text("b")).await.json();
    assert!(other["items"].to_string().contains("route b"), "{other}");
    assert_eq!(yaml(&plane, ADMIN, &format!("{line}?with=9"), &[], &text("b")).await.status, 404);
    assert_eq!(yaml(&plane, ADMIN, line, &[], "version: 1\nruotes: []\n").await.status, 422);
    let head = plane.ask(ADMIN, &format!("GET {AT}"), &[], None).await;
    assert_eq!(head.etag(), "\"r2\"", "nothing was published");
}

#[tokio::test]
async fn several_documents_are_published_together_or_not_at_all() {
    let plane = Plane::start().await;
    let apply = "POST /api/v1/platform/apply";
    let one = |scope: &str, text: &str| json!({ "scope": scope, "document": text });
    let platform = "version: 1\ntenants: [{ name: a }, { name: b }]\n";
    let body = |last: &str| json!({ "documents": [one("@platform", platform), one("a", &text("x")), one("b", last)] });
    let bad = plane.ask(OPERATOR, apply, &[], Some(body("version: 1\nruotes: []\n"))).await;
    let problem = bad.json();
    assert_eq!(bad.status, 422, "{problem}");
    assert!(
        problem["errors"][0]["pointer"].as_str().unwrap().starts_with("/documents/2/document"),
        "{problem}"
    );
    assert!(problem["detail"].as_str().unwrap().starts_with("b: "), "{problem}");
    assert_eq!(plane.ask(ADMIN, &format!("GET {AT}"), &[], None).await.status, 404, "nothing was published");
    let good = plane.ask(OPERATOR, apply, &[("x-tollgate-reason", "both")], Some(body(&text("y")))).await;
    assert_eq!(good.status, 200, "{}", good.json());
    let revisions: Vec<_> =
        good.json()["items"].as_array().unwrap().iter().map(|p| p["revision"].as_i64().unwrap()).collect();
    assert_eq!(revisions, [1, 1, 1]);
    assert_eq!(plane.ask(ADMIN, &format!("GET {AT}"), &[], None).await.status, 200);
    let late = json!({ "documents": [{ "scope": "a", "document": text("z"), "if_revision": 0 }] });
    assert_eq!(plane.ask(OPERATOR, apply, &[], Some(late)).await.status, 412);
    let condition = [("if-match", "\"r1\"")];
    let vague = plane.ask(OPERATOR, apply, &condition, Some(body(&text("z")))).await;
    assert_eq!(vague.status, 400, "of which document? {}", vague.json());
    assert_eq!(plane.ask(ADMIN, &format!("GET {AT}"), &[], None).await.etag(), "\"r1\"");
    for (documents, pointer) in [
        (json!([]), "/documents"),
        (json!([one("a", ""), one("a", "")]), "/documents/1/scope"),
        (json!([one("../x", "")]), "/documents/0/scope"),
        (json!([one("@other", "")]), "/documents/0/scope"),
    ] {
        let refused = plane.ask(OPERATOR, apply, &[], Some(json!({ "documents": documents }))).await;
        assert_eq!(
            (refused.status.as_u16(), &refused.json()["errors"][0]["pointer"]),
            (422, &json!(pointer))
        );
    }
    assert_eq!(plane.ask(ADMIN, apply, &[], Some(body(&text("y")))).await.status, 403);
}
