//! Keys, users, roles and revocations as credentials for the API itself.

use serde_json::{Value, json};

use super::plane::Plane;

const ADMIN: &str = "tg_a_admin";
const KEYS: &str = "/api/v1/tenants/a/api-keys";

async fn key(plane: &Plane, by: &str, body: Value) -> Value {
    let made = plane.ask(by, &format!("POST {KEYS}"), &[], Some(body)).await;
    assert_eq!(made.status, 201, "{}", made.json());
    made.json()
}

async fn me(plane: &Plane, key: &Value) -> (u16, Value) {
    let answer = plane.ask(key["key"].as_str().unwrap(), "GET /api/v1/me", &[], None).await;
    (answer.status.as_u16(), answer.json())
}

#[tokio::test]
async fn a_key_is_shown_once_and_works_until_it_is_revoked() {
    let plane = Plane::start().await;
    let made =
        key(&plane, ADMIN, json!({ "roles": ["viewer"], "principal": "corp|alice", "note": "ci" })).await;
    let (status, who) = me(&plane, &made).await;
    assert_eq!((status, &who["id"], &who["tenant"]), (200, &json!("corp|alice"), &json!("a")), "{who}");
    let at = format!("{KEYS}/{}", made["id"].as_str().unwrap());
    for line in [format!("GET {at}"), format!("GET {KEYS}")] {
        let shown = plane.ask(ADMIN, &line, &[], None).await;
        let text = String::from_utf8_lossy(&shown.body).into_owned();
        assert!(shown.status == 200 && text.contains("corp|alice"), "{text}");
        assert!(!text.contains("sha256") && !text.contains(made["key"].as_str().unwrap()), "{text}");
    }
    assert_eq!(plane.ask(ADMIN, &format!("DELETE {at}"), &[], None).await.status, 204);
    assert_eq!(me(&plane, &made).await.0, 401);
    let mut wrong = made.clone();
    wrong["key"] = json!(format!("{}x", made["key"].as_str().unwrap()));
    assert_eq!(me(&plane, &wrong).await.0, 401);
}

#[tokio::test]
async fn nobody_gives_what_they_do_not_have() {
    let plane = Plane::start().await;
    for (by, role, status) in [
        ("tg_a_admin", "admin", 201),
        ("tg_a_admin", "super_admin", 403),
        ("tg_a_super_admin", "super_admin", 403),
        ("tg_a_server_owner", "viewer", 403),
        ("tg_default_super_admin", "super_admin", 403),
        ("tg_default_super_admin", "admin", 201),
    ] {
        let made = plane.ask(by, &format!("POST {KEYS}"), &[], Some(json!({ "roles": [role] }))).await;
        assert_eq!(made.status.as_u16(), status, "{by} gives {role}: {}", made.json());
        let line = format!("PUT /api/v1/tenants/a/role-bindings/corp%7Cbob/{role}");
        let bound = plane.ask(by, &line, &[], None).await;
        assert_eq!(bound.status.is_success(), status == 201, "{by} binds {role}");
    }
    let own = "POST /api/v1/tenants/default/api-keys";
    let strong = Some(json!({ "roles": ["super_admin"] }));
    assert_eq!(plane.ask("tg_default_admin", own, &[], strong.clone()).await.status, 403);
    assert_eq!(plane.ask("tg_default_super_admin", own, &[], strong).await.status, 201);
}

#[tokio::test]
async fn roles_users_and_revocations_count_at_once() {
    let plane = Plane::start().await;
    let made = key(&plane, ADMIN, json!({ "roles": ["viewer"], "principal": "corp|bob" })).await;
    let list = format!("GET {KEYS}");
    let token = made["key"].as_str().unwrap();
    assert_eq!(plane.ask(token, &list, &[], None).await.status, 403);
    let binding = "/api/v1/tenants/a/role-bindings/corp%7Cbob";
    assert_eq!(plane.ask(ADMIN, &format!("PUT {binding}/admin"), &[], None).await.status, 204);
    assert_eq!(plane.ask(token, &list, &[], None).await.status, 200, "the binding counts");
    assert_eq!(plane.ask(ADMIN, &format!("DELETE {binding}/admin"), &[], None).await.status, 204);
    assert_eq!(plane.ask(token, &list, &[], None).await.status, 403);
    assert_eq!(plane.ask(ADMIN, &format!("PUT {binding}/auditor"), &[], None).await.status, 204);
    assert_eq!(me(&plane, &made).await.1["auditor"], true);
    let user = "/api/v1/tenants/a/users/corp%7Cbob";
    let off = plane.ask(ADMIN, &format!("PUT {user}"), &[], Some(json!({ "disabled": true }))).await;
    assert_eq!(off.status, 201);
    assert_eq!(me(&plane, &made).await.0, 401, "shut out");
    assert_eq!(plane.ask(ADMIN, &format!("DELETE {user}"), &[("if-match", "\"x\"")], None).await.status, 412);
    assert_eq!(
        plane.ask(ADMIN, &format!("DELETE {user}"), &[("if-match", &off.etag())], None).await.status,
        204
    );
    assert_eq!(me(&plane, &made).await.0, 200);
    let revocations = "/api/v1/tenants/a/revocations";
    for what in [json!({ "principal": "corp|bob" }), json!({ "jti": made["id"] })] {
        let revoked = plane.ask(ADMIN, &format!("POST {revocations}"), &[], Some(what)).await;
        assert_eq!(revoked.status, 201, "{}", revoked.json());
        assert_eq!(me(&plane, &made).await.0, 401);
        let id = revoked.json()["id"].as_str().unwrap().to_owned();
        assert_eq!(plane.ask(ADMIN, &format!("DELETE {revocations}/{id}"), &[], None).await.status, 204);
        assert_eq!(me(&plane, &made).await.0, 200);
    }
    let other = Some(json!({ "principal": "corp|bobby" }));
    assert_eq!(plane.ask(ADMIN, &format!("POST {revocations}"), &[], other).await.status, 201);
    assert_eq!(me(&plane, &made).await.0, 200, "somebody else");
}

#[tokio::test]
async fn a_rotated_key_overlaps_and_a_restricted_one_opens_nothing() {
    let plane = Plane::start().await;
    let old = key(&plane, ADMIN, json!({ "roles": ["developer"] })).await;
    let at = format!("{KEYS}/{}", old["id"].as_str().unwrap());
    let line = format!("POST {at}/rotate");
    let new = plane.ask(ADMIN, &line, &[], Some(json!({ "overlap_seconds": 600 }))).await.json();
    let (first, second) = (me(&plane, &old).await, me(&plane, &new).await);
    assert_eq!((first.0, second.0), (200, 200), "both are good");
    assert_eq!(first.1["id"], second.1["id"], "the same principal");
    assert!(first.1["expires"].is_number() && second.1["expires"].is_null());
    assert_eq!(plane.ask(ADMIN, &line, &[], Some(json!({}))).await.status, 201);
    assert_eq!(me(&plane, &old).await.0, 401, "no overlap");
    let narrow = key(&plane, ADMIN, json!({ "roles": ["admin"], "scopes": { "tools": ["get_*"] } })).await;
    let (status, who) = me(&plane, &narrow).await;
    assert_eq!((status, &who["permissions"]), (200, &json!(["self:read"])));
    for (body, pointer) in [
        (json!({ "roles": ["king"] }), "/roles/0"),
        (json!({ "roles": ["viewer"], "expires": "2020-01-01T00:00:00Z" }), "/expires"),
        (json!({ "roles": [] }), ""),
        (json!({ "roles": ["viewer"], "cidr": ["x"] }), ""),
    ] {
        let refused = plane.ask(ADMIN, &format!("POST {KEYS}"), &[], Some(body)).await;
        assert_eq!(
            (refused.status.as_u16(), &refused.json()["errors"][0]["pointer"]),
            (422, &json!(pointer))
        );
    }
    let elsewhere = key(&plane, ADMIN, json!({ "roles": ["viewer"], "cidr": ["10.0.0.0/8"] })).await;
    assert_eq!(me(&plane, &elsewhere).await.0, 401, "not from this address");
}

#[tokio::test]
async fn a_key_that_is_made_twice_is_made_once() {
    let plane = Plane::start().await;
    let line = format!("POST {KEYS}");
    let once = [("idempotency-key", "make-ci-key")];
    let body = Some(json!({ "roles": ["viewer"] }));
    let first = plane.ask(ADMIN, &line, &once, body.clone()).await;
    let again = plane.ask(ADMIN, &line, &once, body).await;
    assert_eq!(first.json()["key"], again.json()["key"]);
    let list = plane.ask(ADMIN, &format!("GET {KEYS}"), &[], None).await.json();
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
}
