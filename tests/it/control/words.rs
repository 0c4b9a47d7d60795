//! What the API says of mistakes: where they are in what was sent, what is missing, and what helps.

use serde_json::{Value, json};
use tollgate::store::StoreSettings;

use super::plane::{Answer, Plane};
use crate::support::Folder;
use crate::support::postgres::Database;

const ADMIN: &str = "tg_a_admin";
const OPERATOR: &str = "tg_default_super_admin";
const DOCUMENT: &str = "/api/v1/tenants/a/document";
/// In another order than the store keeps it, with comments.
const SENT: &str = "\
# who is reached
routes:
  - server: s
    name: r
    # by whom
version: 1
servers:
  - http: { targets: [nowhere] }
    name: s
";

async fn yaml(plane: &Plane, line: &str, headers: &[(&str, &str)], text: &str) -> Answer {
    plane.raw(ADMIN, line, headers, Some(text.as_bytes()), "application/yaml").await
}

/// Line and pointer of each error.
fn places(answer: &Answer) -> Vec<(u64, String)> {
    let problem = answer.json();
    let errors = problem["errors"].as_array().unwrap_or_else(|| panic!("{problem}"));
    let place = |e: &Value| (e["line"].as_u64().unwrap_or(0), e["pointer"].as_str().unwrap().to_owned());
    errors.iter().map(place).collect()
}

#[tokio::test]
async fn lines_are_those_of_the_text_that_was_sent() {
    let plane = Plane::start().await;
    let wanted = (8, "/servers/0/http/targets/0".to_owned());
    for line in [
        format!("PUT {DOCUMENT}"),
        format!("PUT {DOCUMENT}?dry_run=true"),
        "POST /api/v1/tenants/a/diff".to_owned(),
    ] {
        let headers = [("if-none-match", "*")];
        let headers = if line.starts_with("PUT") { &headers[..] } else { &[] };
        let refused = yaml(&plane, &line, headers, SENT).await;
        assert_eq!(refused.status, 422, "{line}: {}", refused.json());
        assert!(places(&refused).contains(&wanted), "{line}: {}", refused.json());
    }
    let together = json!({ "documents": [{ "scope": "a", "document": SENT }] });
    let refused = plane.ask(OPERATOR, "POST /api/v1/platform/apply", &[], Some(together)).await;
    let wanted = (8, "/documents/0/document/servers/0/http/targets/0".to_owned());
    assert!(places(&refused).contains(&wanted), "{}", refused.json());
    let asked = json!({ "question": "unauthenticated", "document": SENT });
    let refused = plane.ask(ADMIN, "POST /api/v1/tenants/a/prove", &[], Some(asked)).await;
    assert_eq!(refused.status, 422, "{}", refused.json());
    assert!(
        places(&refused).iter().any(|(line, at)| *line == 8 && at.ends_with("/targets/0")),
        "{}",
        refused.json()
    );
}

#[tokio::test]
async fn where_nobody_sent_a_document_nothing_points_into_one() {
    let plane = Plane::start().await;
    let good = SENT.replace("nowhere", "\"http://127.0.0.1:9/mcp\"").replace("server: s", "servers: [s]");
    let done = yaml(&plane, &format!("PUT {DOCUMENT}"), &[("if-none-match", "*")], &good).await;
    assert_eq!(done.status, 200, "{}", done.json());
    let used = plane.ask(ADMIN, "DELETE /api/v1/tenants/a/servers/s", &[("if-match", "*")], None).await;
    let problem = used.json();
    assert_eq!(used.status, 422, "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.starts_with("without the server `s`") && !detail.contains("body"), "{problem}");
    assert!(places(&used).iter().all(|(line, _)| *line == 0), "{problem}");
    assert!(places(&used).iter().any(|(_, at)| at.starts_with("/routes/0")), "{problem}");
}

#[tokio::test]
async fn a_revision_that_is_not_there_is_named() {
    let plane = Plane::start().await;
    let good = SENT.replace("nowhere", "\"http://127.0.0.1:9/mcp\"").replace("server: s", "servers: [s]");
    yaml(&plane, &format!("PUT {DOCUMENT}"), &[("if-none-match", "*")], &good).await;
    let at = "/api/v1/tenants/a";
    for (line, body) in [
        (format!("POST {at}/canary"), Some(json!({ "revision": 99, "principals": "1%" }))),
        (format!("POST {at}/rollback"), Some(json!({ "revision": 99 }))),
        (format!("GET {at}/revisions/99"), None),
        (format!("GET {at}/diff?from=1&to=99"), None),
    ] {
        let condition = [("if-match", "*")];
        let conditions = if line.contains("rollback") { &condition[..] } else { &[] };
        let refused = plane.ask(ADMIN, &line, conditions, body).await;
        let problem = refused.json();
        assert_eq!(
            (refused.status.as_u16(), problem["detail"].as_str(), problem["code"].as_str()),
            (404, Some("a has no revision 99"), Some("not_found")),
            "{line}"
        );
    }
}

#[tokio::test]
async fn a_key_that_is_given_twice_is_refused_in_every_body() {
    let plane = Plane::start().await;
    let twice =
        br#"{"http": {"targets": ["http://127.0.0.1:9/mcp"], "targets": ["http://127.0.0.1:8/mcp"]}}"#;
    let line = "PUT /api/v1/tenants/a/servers/x";
    let refused = plane.raw(ADMIN, line, &[("if-none-match", "*")], Some(twice), "application/json").await;
    assert_eq!(refused.status, 422, "{}", refused.json());
    assert_eq!(places(&refused), [(0, "/http/targets".to_owned())]);
    assert_eq!(plane.ask(ADMIN, "GET /api/v1/tenants/a/servers/x", &[], None).await.status, 404);
}

#[tokio::test]
async fn what_helps_is_told_apart_from_what_is_expected() {
    let plane = Plane::start().await;
    let document = "version: 1\nservers: [{ name: s, http: { targets: [\"http://127.0.0.1:9/mcp\"] }, \
                    credential: { bearer: \"${secret:none}\" } }]\nroutes: [{ name: r, servers: [s] }]\n";
    let refused = yaml(&plane, &format!("PUT {DOCUMENT}"), &[("if-none-match", "*")], document).await;
    let problem = refused.json();
    let error = &problem["errors"][0];
    assert!(error["hint"].as_str().unwrap().starts_with("put it into the store"), "{problem}");
    assert!(error.get("expected").is_none(), "{problem}");
}

/// Whoever runs the platform is told that there is no such tenant; what is left of one that was can be read.
#[tokio::test]
async fn a_tenant_that_never_was_is_not_an_empty_one() {
    let database = Database::fresh();
    let folder = Folder::new();
    let settings = StoreSettings::at(&database.url(), folder.path());
    for plane in [Plane::start().await, Plane::on(settings, folder).await] {
        let reads = ["audit", "servers", "users", "usage", "revisions", "secrets"];
        for what in reads {
            let line = format!("GET /api/v1/tenants/neverwas/{what}");
            let refused = plane.ask(OPERATOR, &line, &[], None).await;
            assert_eq!(
                (refused.status.as_u16(), &refused.json()["code"]),
                (404, &json!("no_tenant")),
                "{line}"
            );
            let there = plane.ask(OPERATOR, &line.replace("neverwas", "a"), &[], None).await;
            assert_eq!(there.status, 200, "{line}");
        }
        let events = plane.ask(OPERATOR, "GET /api/v1/events?tenant=neverwas", &[], None).await;
        assert_eq!((events.status.as_u16(), &events.json()["code"]), (404, &json!("no_tenant")));
        assert_eq!(plane.ask(OPERATOR, "GET /api/v1/events?tenant=a", &[], None).await.status, 200);
        let erase = "POST /api/v1/tenants/neverwas/audit/erase";
        let body = Some(json!({ "principal": "corp|x" }));
        assert_eq!(plane.ask(OPERATOR, erase, &[], body).await.status, 404);
        let own = |a: &tollgate::control::trail::Action| {
            a.tenant.as_ref().is_some_and(|tenant| tenant.as_str() == "neverwas")
        };
        assert!(!plane.ledger.0.lock().iter().any(own), "no log is made by naming it");
        // One that was.
        let line = "PUT /api/v1/tenants/gone";
        let made = plane.ask(OPERATOR, line, &[("if-none-match", "*")], Some(json!({}))).await;
        assert_eq!(made.status, 201, "{}", made.json());
        let line = "PUT /api/v1/tenants/gone/users/bob";
        let made = plane.ask(OPERATOR, line, &[("if-none-match", "*")], Some(json!({}))).await;
        assert_eq!(made.status, 201, "{}", made.json());
        let gone = plane.ask(OPERATOR, "DELETE /api/v1/tenants/gone", &[("if-match", "*")], None).await;
        assert_eq!(gone.status, 200, "{}", gone.json());
        for what in reads {
            let line = format!("GET /api/v1/tenants/gone/{what}");
            assert_eq!(plane.ask(OPERATOR, &line, &[], None).await.status, 200, "{line}");
        }
    }
}

#[tokio::test]
async fn a_token_of_the_installation_is_replaced_and_not_revoked() {
    let plane = Plane::start().await;
    let line = "POST /api/v1/tenants/default/revocations";
    for token in ["operator|bootstrap_token", "operator|listener_token"] {
        let refused = plane.ask(OPERATOR, line, &[], Some(json!({ "principal": token }))).await;
        let problem = refused.json();
        assert_eq!((refused.status.as_u16(), &problem["errors"][0]["pointer"]), (422, &json!("/principal")));
        assert!(problem.to_string().contains("admin-token/rotate"), "{problem}");
    }
    let made = plane.ask(OPERATOR, line, &[], Some(json!({ "principal": "corp|alice" }))).await;
    assert_eq!(made.status, 201, "{}", made.json());
}
