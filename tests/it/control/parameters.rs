//! Parameters of the query: what is not understood is refused, everywhere, before anything is done.

use serde_json::json;
use tollgate::control::permission::Trail;
use tollgate::store::StoreSettings;

use super::attack::{body, furnish, furnished, operations};
use super::plane::{Plane, server};
use crate::support::Folder;
use crate::support::postgres::Database;

const ADMIN: &str = "tg_a_admin";
const OPERATOR: &str = "tg_default_super_admin";

#[tokio::test]
async fn an_unknown_parameter_is_refused_by_every_operation_and_changes_nothing() {
    let (database, folder) = (Database::fresh(), Folder::new());
    let settings = StoreSettings::at(&database.url(), folder.path());
    for plane in [furnished().await, furnish(Plane::on(settings, folder).await).await] {
        let before = plane.everything_of("a").await;
        let mut tries = 0;
        for (line, operation) in operations("a") {
            let joint = if line.contains('?') { '&' } else { '?' };
            // What an operation may have is not unknown; what does not exist at all is, everywhere.
            for name in ["dry_runn", "dry-run", "Dry_Run", "confirm"] {
                let line = format!("{line}{joint}{name}=true");
                for condition in ["if-match", "if-none-match"] {
                    let key = if operation.id == "read_audit_bodies" { "tg_a_auditor" } else { OPERATOR };
                    let tried = plane.ask(key, &line, &[(condition, "*")], body(operation.id)).await;
                    let problem = tried.json();
                    assert_eq!(tried.status, 400, "{line}: {problem}");
                    let error = &problem["errors"][0];
                    assert_eq!(error["pointer"], format!("?{name}"), "{line}: {problem}");
                    assert!(problem["detail"].as_str().unwrap().contains(name), "{line}: {problem}");
                    assert!(error["expected"].is_string(), "{line}: which there are: {problem}");
                    tries += 1;
                }
            }
        }
        assert!(tries > 700, "{tries}");
        assert_eq!(plane.everything_of("a").await, before, "nothing changed");
    }
}

/// `dry_run` is understood, or refused: there is no operation that changes something all the same.
#[tokio::test]
async fn whatever_is_only_tried_changes_nothing() {
    let plane = furnished().await;
    let before = plane.everything_of("a").await;
    let (mut understood, mut refused) = (0, 0);
    for (line, operation) in operations("a") {
        if line.starts_with("GET ") {
            continue;
        }
        let joint = if line.contains('?') { '&' } else { '?' };
        let line = format!("{line}{joint}dry_run=true");
        let tried = plane.ask(OPERATOR, &line, &[("if-match", "*")], body(operation.id)).await;
        match tried.status.as_u16() {
            400 if tried.json()["errors"][0]["pointer"] == "?dry_run" => refused += 1,
            _ => understood += 1,
        }
        assert_eq!(plane.everything_of("a").await, before, "{line}: {}", tried.status);
    }
    assert!(understood >= 20 && refused >= 15, "{understood} understood, {refused} refused");
}

#[tokio::test]
async fn a_rollback_can_be_tried() {
    let plane = Plane::start().await;
    let put = "PUT /api/v1/tenants/a/servers/weather";
    assert_eq!(plane.ask(ADMIN, put, &[("if-none-match", "*")], Some(server(1))).await.status, 201);
    assert_eq!(plane.ask(ADMIN, put, &[("if-match", "*")], Some(server(2))).await.status, 200);
    let line = "POST /api/v1/tenants/a/rollback";
    let to = || Some(json!({ "revision": 1 }));
    let tried = plane.ask(ADMIN, &format!("{line}?dry_run=true"), &[], to()).await;
    assert_eq!((tried.status.as_u16(), tried.etag()), (200, "\"r2\"".to_owned()), "{}", tried.json());
    assert!(tried.json()["changes"][0].as_str().unwrap().contains("weather"), "{}", tried.json());
    assert_eq!(plane.ask(ADMIN, line, &[], to()).await.status, 428);
    let missing = Some(json!({ "revision": 9 }));
    assert_eq!(plane.ask(ADMIN, &format!("{line}?dry_run=true"), &[], missing).await.status, 404);
    let stale = [("if-match", "\"r1\"")];
    assert_eq!(plane.ask(ADMIN, &format!("{line}?dry_run=true"), &stale, to()).await.status, 412);
    let done = plane.ask(ADMIN, line, &[("if-match", "\"r2\"")], to()).await;
    assert_eq!((done.status.as_u16(), done.etag()), (200, "\"r3\"".to_owned()), "{}", done.json());
    assert_eq!(done.json()["changes"], tried.json()["changes"]);
}

#[tokio::test]
async fn bad_parameters_are_named() {
    let plane = furnished().await;
    for (query, pointer) in [
        ("GET /api/v1/tenants/a/diff?from=x", "?from"),
        ("GET /api/v1/tenants/a/diff", "?from"),
        ("GET /api/v1/tenants/a/diff?from=1&from=2", "?from"),
        ("GET /api/v1/tenants/a/users?limit=-1", "?limit"),
        ("DELETE /api/v1/tenants/a/servers/weather?dry_run=maybe", "?dry_run"),
    ] {
        let refused = plane.ask(OPERATOR, query, &[("if-match", "*")], None).await;
        let problem = refused.json();
        assert_eq!(
            (refused.status.as_u16(), &problem["errors"][0]["pointer"]),
            (400, &json!(pointer)),
            "{query}"
        );
        assert!(!problem.to_string().contains("deserialize"), "{problem}");
    }
}

/// The reason is a parameter of whatever is recorded, and is in the record.
#[tokio::test]
async fn a_reason_may_be_given_for_whatever_is_recorded() {
    let plane = furnished().await;
    for (line, operation) in operations("a") {
        if operation.trail != Trail::Always {
            continue;
        }
        let joint = if line.contains('?') { '&' } else { '?' };
        let line = format!("{line}{joint}reason=ticket%204711");
        let key = if operation.id == "read_audit_bodies" { "tg_a_auditor" } else { OPERATOR };
        let tried = plane.ask(key, &line, &[("if-match", "\"r99\"")], body(operation.id)).await;
        let text = String::from_utf8_lossy(&tried.body).into_owned();
        assert!(!text.contains("bad_parameter"), "{line}: {text}");
        let recorded = plane.ledger.0.lock().last().cloned().unwrap();
        assert_eq!((recorded.operation.id, recorded.reason.as_deref()), (operation.id, Some("ticket 4711")));
    }
}
