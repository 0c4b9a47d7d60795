//! What the record of an action says: which object, what changed, with which credential.

use serde_json::{Value, json};
use tollgate::control::trail::Action;

use super::plane::{Plane, server};

const ADMIN: &str = "tg_a_admin";
const OPERATOR: &str = "tg_default_super_admin";
const AT: &str = "/api/v1/tenants/a";

fn last(plane: &Plane) -> (Action, String) {
    let action = plane.ledger.0.lock().last().cloned().expect("recorded");
    let words = action.notes.words().unwrap_or_default();
    (action, words)
}

#[tokio::test]
async fn edits_and_rollbacks_say_which_revision_and_what_changed() {
    let plane = Plane::start().await;
    let put = format!("PUT {AT}/servers/weather");
    plane.ask(ADMIN, &put, &[("if-none-match", "*")], Some(server(9001))).await;
    let (action, words) = last(&plane);
    assert_eq!(action.notes.revision, Some(1));
    assert!(words.contains("server weather"), "{words}");
    assert_eq!(&*action.actor.as_ref().unwrap().credential, ADMIN, "which credential it was");
    assert_eq!(action.summary()["credential"], ADMIN);
    plane.ask(ADMIN, &format!("{put}?dry_run=true"), &[("if-match", "*")], Some(server(9002))).await;
    let (action, words) = last(&plane);
    assert!(action.notes.revision.is_none() && words.starts_with("tried only; "), "{words}");
    plane.ask(ADMIN, &put, &[("if-match", "*")], Some(server(9002))).await;
    assert_eq!(last(&plane).0.notes.revision, Some(2));
    let back = format!("POST {AT}/rollback");
    plane.ask(ADMIN, &back, &[("if-match", "*")], Some(json!({ "revision": 1 }))).await;
    let (action, words) = last(&plane);
    assert_eq!(action.notes.revision, Some(3));
    assert!(words.contains("rollback to revision 1") && words.contains("weather"), "{words}");
    // An edit that fails says nothing of a revision.
    plane.ask(ADMIN, &put, &[("if-match", "\"r1\"")], Some(server(9003))).await;
    let (action, _) = last(&plane);
    assert_eq!((action.status, action.notes.revision), (412, None));
    let together = json!({ "documents": [{ "scope": "b", "document": "version: 1" }, { "scope": "@platform", "document": "version: 1" }] });
    let done = plane.ask(OPERATOR, "POST /api/v1/platform/apply", &[], Some(together)).await;
    assert_eq!(done.status, 200, "{}", done.json());
    let (_, words) = last(&plane);
    assert!(words.contains("b revision 1") && words.contains("@platform revision 1"), "{words}");
}

#[tokio::test]
async fn identity_says_whom_and_what() {
    let plane = Plane::start().await;
    let made = plane
        .ask(ADMIN, &format!("POST {AT}/api-keys"), &[], Some(json!({ "roles": ["viewer", "admin"] })))
        .await;
    let made = made.json();
    let id = made["id"].as_str().unwrap().to_owned();
    let (action, words) = last(&plane);
    assert_eq!(action.notes.object.as_deref(), Some(&*id));
    assert!(words.contains("viewer, admin") && words.contains(&format!("key|{id}")), "{words}");
    assert!(!words.contains(made["key"].as_str().unwrap()), "{words}");
    let line = format!("POST {AT}/api-keys/{id}/rotate");
    let next = plane.ask(ADMIN, &line, &[], Some(json!({}))).await.json();
    let (action, words) = last(&plane);
    assert_eq!(action.notes.object.as_deref(), next["id"].as_str());
    assert!(words.contains(&format!("in place of {id}")), "{words}");
    plane.ask(ADMIN, &format!("DELETE {AT}/api-keys/{id}"), &[], None).await;
    assert_eq!(last(&plane).0.notes.object.as_deref(), Some(&*id));
    for disabled in [true, false] {
        let line = format!("PUT {AT}/users/corp%7Calice");
        plane.ask(ADMIN, &line, &[], Some(json!({ "disabled": disabled, "email": "a@b.example" }))).await;
        let (action, words) = last(&plane);
        assert_eq!(action.notes.object.as_deref(), Some("corp|alice"));
        assert_eq!(words, format!("disabled: {disabled}"), "and no address");
    }
    let out = plane.ask(ADMIN, &format!("POST {AT}/revocations"), &[], Some(json!({ "sub": "alice" }))).await;
    let (action, words) = last(&plane);
    assert_eq!((action.notes.object.as_deref(), &*words), (out.json()["id"].as_str(), "refused: sub alice"));
    let role = json!({ "permissions": ["keys:read", "audit:read"] });
    plane.ask(ADMIN, &format!("PUT {AT}/roles/clerk"), &[("if-none-match", "*")], Some(role)).await;
    let (_, words) = last(&plane);
    assert!(words.contains("keys:read") && words.contains("audit:read"), "{words}");
}

#[tokio::test]
async fn a_secret_is_named_and_not_told() {
    let plane = Plane::start().await;
    let line = format!("PUT {AT}/secrets/token");
    plane.ask(ADMIN, &line, &[], Some(json!({ "value": "hunter2-hunter2" }))).await;
    let (action, words) = last(&plane);
    assert_eq!((action.notes.object.as_deref(), &*words), (Some("token"), "version: 1"));
    // In a place of a document that is shown: whoever writes it need not know that it is one.
    let put = format!("PUT {AT}/servers/weather");
    let leak = json!({ "http": { "targets": ["http://127.0.0.1:1/hunter2-hunter2"] } });
    let done = plane.ask(ADMIN, &put, &[("if-none-match", "*")], Some(leak)).await;
    assert_eq!(done.status, 201, "{}", done.json());
    let (action, words) = last(&plane);
    assert!(!words.contains("hunter2") && !action.summary().to_string().contains("hunter2"), "{words}");
}

#[tokio::test]
async fn what_is_answered_again_is_no_second_creation() {
    let plane = Plane::start().await;
    let ask = async || -> Value {
        let once = [("idempotency-key", "one")];
        let made = plane
            .ask(ADMIN, &format!("POST {AT}/api-keys"), &once, Some(json!({ "roles": ["viewer"] })))
            .await;
        assert_eq!(made.status, 201);
        made.json()
    };
    let first = ask().await;
    assert!(!last(&plane).0.notes.replayed);
    assert_eq!(ask().await, first);
    let (action, words) = last(&plane);
    assert!(action.notes.replayed && words.starts_with("answered again"), "{words}");
    assert_eq!(action.summary()["replayed"], true);
}
