//! What nobody makes disappear: the log of who did what. And who nobody becomes: the operator.

use serde_json::{Value, json};
use tollgate::audit::{Class, Event};
use tollgate::store::{AuditFilter, Page, StoreSettings, erased_name};

use super::plane::Plane;
use crate::store::AuditWriter;
use crate::support::Folder;
use crate::support::postgres::Database;

const ADMIN: &str = "tg_a_admin";
const OPERATOR: &str = "tg_default_super_admin";
const ERASE: &str = "POST /api/v1/tenants/a/audit/erase";
const KEYS: &str = "/api/v1/tenants/a/api-keys";

/// One on each engine, the second on this database.
async fn planes(database: &Database) -> [Plane; 2] {
    let folder = Folder::new();
    let settings = StoreSettings::at(&database.url(), folder.path());
    [Plane::start().await, Plane::on(settings, folder).await]
}

/// Events of each of these in the log of `a`: two decisions and one action.
async fn log(plane: &Plane, principals: &[&str]) {
    let mut writer = AuditWriter::new();
    let now = plane.store.now().micros() as u64 - 60_000_000;
    let mut events = Vec::new();
    for &principal in principals {
        let one = |class| Event { principal: Some(principal), ..Event::new(now, "a", class) };
        events.extend([one(Class::Data), one(Class::Data), one(Class::Control)]);
    }
    plane.store.platform().audit_write(&writer.batch(&events)).await.unwrap();
}

/// How many decisions and actions of somebody's can be read.
async fn left(plane: &Plane, principal: &str) -> (usize, usize) {
    let filter = AuditFilter { principal: Some(principal.to_owned()), ..AuditFilter::default() };
    let id = tollgate::base::TenantId::new("a");
    let found = plane.store.tenant(&id).audit_search(&filter, None, Page::of(100)).await.unwrap();
    let of = |class| found.iter().filter(|event| event.class() == class && event.payload.is_some()).count();
    (of(Class::Data), of(Class::Control))
}

async fn key(plane: &Plane, by: &str, body: Value) -> (String, String) {
    let made = plane.ask(by, &format!("POST {KEYS}"), &[], Some(body)).await;
    assert_eq!(made.status, 201, "{}", made.json());
    let made = made.json();
    (made["key"].as_str().unwrap().to_owned(), made["principal"].as_str().unwrap().to_owned())
}

async fn erase(plane: &Plane, by: &str, whose: &str) -> (u16, Value) {
    let done = plane.ask(by, ERASE, &[], Some(json!({ "principal": whose }))).await;
    (done.status.as_u16(), done.json())
}

#[tokio::test]
async fn nobody_erases_the_operators_traces_or_their_own() {
    let database = Database::fresh();
    for plane in planes(&database).await {
        let admin = json!({ "roles": ["admin"] });
        let (first, first_id) = key(&plane, ADMIN, admin.clone()).await;
        let (second, second_id) = key(&plane, &first, admin.clone()).await;
        // By way of somebody else.
        let (third, third_id) =
            key(&plane, &second, json!({ "roles": ["admin"], "principal": "corp|straw" })).await;
        let operators = ["operator|bootstrap_token", "operator|listener_token", "Operator|x"];
        let (first_id, second_id, third_id) = (&*first_id, &*second_id, &*third_id);
        let all: Vec<&str> =
            operators.into_iter().chain([first_id, second_id, third_id, "key|a-admin"]).collect();
        log(&plane, &all).await;
        for (by, whose) in [
            (ADMIN, operators[0]),
            (ADMIN, operators[1]),
            (ADMIN, operators[2]),
            (OPERATOR, operators[0]),
            (ADMIN, "key|a-admin"),
            (&*first, first_id),
            (&*first, "key|a-admin"),
            (&*second, first_id),
            (&*second, "key|a-admin"),
            (&*third, second_id),
            (&*third, first_id),
            (&*third, "key|a-admin"),
        ] {
            let (status, problem) = erase(&plane, by, whose).await;
            assert_eq!(status, 403, "{by} erases {whose}: {problem}");
        }
        for whose in &all {
            assert_eq!(left(&plane, whose).await, (2, 1), "{whose}");
        }
        // The other way it is nobody's own; but what they did to the tenant stays.
        let (status, done) = erase(&plane, &first, second_id).await;
        assert_eq!((status, &done["events"], &done["classes"]), (200, &json!(2), &json!(["data"])), "{done}");
        assert_eq!(left(&plane, second_id).await, (0, 1));
    }
}

#[tokio::test]
async fn what_callers_did_is_erased_and_the_record_says_whose_it_was_and_how_much() {
    let database = Database::fresh();
    for plane in planes(&database).await {
        log(&plane, &["corp|alice", "corp|bob"]).await;
        let (status, done) = erase(&plane, ADMIN, "corp|alice").await;
        assert_eq!((status, &done["events"]), (200, &json!(2)), "{done}");
        assert_eq!((left(&plane, "corp|alice").await, left(&plane, "corp|bob").await), ((0, 1), (2, 1)));
        let action = plane.ledger.0.lock().last().cloned().unwrap();
        let (words, name) =
            (action.notes.words().unwrap(), erased_name(&tollgate::base::TenantId::new("a"), "corp|alice"));
        assert!(words.contains(&name) && words.contains("2 events") && words.contains("data"), "{words}");
        assert!(!words.contains("alice") && done["erased"] == json!(name), "{words} {done}");
        assert_eq!(action.actor.unwrap().id.as_ref(), "key|a-admin");
        // What comes late is erased as it was asked for, and what stays stays.
        log(&plane, &["corp|alice"]).await;
        plane.store.platform().erase_late(true).await.unwrap();
        assert_eq!(left(&plane, "corp|alice").await, (0, 2));
        // Who runs the platform, and is known to: all of it, and the same of what comes late.
        let line = "POST /api/v1/tenants/default/api-keys";
        let made = plane.ask(OPERATOR, line, &[], Some(json!({ "roles": ["super_admin"] }))).await.json();
        let id = made["id"].as_str().unwrap();
        let platform = made["key"].as_str().unwrap();
        let (_, done) = erase(&plane, platform, "corp|bob").await;
        assert_eq!(done["classes"], json!(["data"]), "a maker of whom nothing is known: {done}");
        let default = tollgate::base::TenantId::default();
        let row = plane.store.tenant(&default).api_key(id).await.unwrap().unwrap();
        plane.store.tenant(&default).remove_api_key(id).await.unwrap();
        let new = tollgate::store::NewApiKey {
            id,
            principal: &row.principal,
            record: &row.record,
            author: "operator|bootstrap_token",
            disabled: false,
            expires_at: None,
        };
        plane.store.tenant(&default).put_api_key(new).await.unwrap();
        let (_, done) = erase(&plane, platform, "corp|bob").await;
        assert_eq!((&done["classes"], &done["events"]), (&json!(["data", "control"]), &json!(1)), "{done}");
        log(&plane, &["corp|bob"]).await;
        plane.store.platform().erase_late(true).await.unwrap();
        assert_eq!(left(&plane, "corp|bob").await, (0, 0));
    }
}

#[tokio::test]
async fn who_was_given_more_by_a_key_is_not_erased_or_shut_out_by_those_below() {
    let plane = Plane::start().await;
    let at = "/api/v1/tenants/default";
    let strong = json!({ "roles": ["super_admin"] });
    let made = plane.ask(OPERATOR, &format!("POST {at}/api-keys"), &[], Some(strong)).await.json();
    let (id, principal) = (made["id"].as_str().unwrap(), made["principal"].as_str().unwrap());
    let user = format!("PUT {at}/users/{}", principal.replace('|', "%7C"));
    for (line, body) in [
        (format!("POST {at}/audit/erase"), json!({ "principal": principal })),
        (user, json!({ "disabled": true })),
        (format!("POST {at}/revocations"), json!({ "principal": principal })),
        (format!("POST {at}/revocations"), json!({ "jti": id })),
        (format!("POST {at}/api-keys"), json!({ "roles": ["viewer"], "principal": principal })),
    ] {
        let refused = plane.ask("tg_default_admin", &line, &[], Some(body.clone())).await;
        assert_eq!(refused.status, 403, "{line} {body}: {}", refused.json());
    }
}

/// Every operation that names a principal, by whoever does not run the platform.
#[tokio::test]
async fn nobody_becomes_the_operator() {
    let database = Database::fresh();
    for plane in planes(&database).await {
        for (tenant, admin) in [("a", ADMIN), ("default", "tg_default_admin")] {
            let at = format!("/api/v1/tenants/{tenant}");
            let tries = |name: &str| {
                let encoded = name.replace('|', "%7C").replace(' ', "%20");
                let (principal, user) = (json!({ "principal": name }), format!("{at}/users/{encoded}"));
                let binding = format!("{at}/role-bindings/{encoded}");
                [
                    (format!("POST {at}/api-keys"), Some(json!({ "roles": ["admin"], "principal": name }))),
                    (format!("POST {at}/revocations"), Some(principal.clone())),
                    (format!("POST {at}/audit/erase"), Some(principal)),
                    (format!("PUT {user}"), Some(json!({ "disabled": true }))),
                    (format!("PUT {user}"), Some(json!({ "email": "x@y.example" }))),
                    (format!("DELETE {user}"), None),
                    (format!("PUT {binding}/admin"), None),
                    (format!("PUT {binding}/auditor"), None),
                    (format!("DELETE {binding}/admin"), None),
                ]
            };
            // So that there is something to take away.
            for line in tries("operator|bootstrap_token").iter().filter(|(line, _)| line.starts_with("PUT")) {
                let made = plane.ask(OPERATOR, &line.0, &[], line.1.clone()).await;
                assert!(made.status.is_success(), "{}: {}", line.0, made.status);
            }
            let before = plane.everything_of(tenant).await;
            for name in
                ["operator|bootstrap_token", "operator|listener_token", "operator|anybody", " OPERATOR|x"]
            {
                for (line, body) in tries(name) {
                    let tried = plane.ask(admin, &line, &[("if-match", "*")], body).await;
                    assert_eq!(tried.status, 403, "{line} {name}: {}", String::from_utf8_lossy(&tried.body));
                }
            }
            assert_eq!(plane.everything_of(tenant).await, before);
            // Not even by whoever runs the platform: what the key does would look like what the token did.
            let own = Some(json!({ "roles": ["viewer"], "principal": "operator|bootstrap_token" }));
            let made = plane.ask(OPERATOR, &format!("POST {at}/api-keys"), &[], own).await;
            assert_eq!(
                (made.status.as_u16(), &made.json()["errors"][0]["pointer"]),
                (422, &json!("/principal"))
            );
        }
    }
}

/// As an earlier version let somebody make it.
#[tokio::test]
async fn a_key_that_stands_for_the_operator_opens_nothing_and_has_no_successor() {
    let plane = Plane::start().await;
    let (text, _) = key(&plane, ADMIN, json!({ "roles": ["admin"], "principal": "corp|x" })).await;
    let id = text.split('_').nth(1).unwrap().to_owned();
    let a = tollgate::base::TenantId::new("a");
    let scope = plane.store.tenant(&a);
    let row = scope.api_key(&id).await.unwrap().unwrap();
    assert_eq!(plane.ask(&text, "GET /api/v1/me", &[], None).await.status, 200);
    let record = row.record.replace("corp|x", "operator|bootstrap_token");
    let new = tollgate::store::NewApiKey {
        id: &id,
        principal: "operator|bootstrap_token",
        record: &record,
        author: &row.author,
        disabled: false,
        expires_at: None,
    };
    scope.put_api_key(new).await.unwrap();
    assert_eq!(plane.ask(&text, "GET /api/v1/me", &[], None).await.status, 401);
    let rotate = format!("POST {KEYS}/{id}/rotate");
    assert_eq!(plane.ask(OPERATOR, &rotate, &[], Some(json!({}))).await.status, 409);
    assert_eq!(plane.ask(OPERATOR, &format!("DELETE {KEYS}/{id}"), &[], None).await.status, 204);
}
