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
        (json!({ "roles": [] }), "/roles"),
        (json!({ "roles": ["viewer"], "principal": "" }), "/principal"),
        (json!({ "roles": ["viewer"], "cidr": ["10.0.0.1", "x"] }), "/cidr/1"),
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

/// Who may make keys, but not everything, would otherwise make one that stands for somebody who may.
#[tokio::test]
async fn nobody_gets_at_who_may_more_through_their_credentials() {
    let plane = Plane::start().await;
    let (operator, admin) = ("tg_default_super_admin", "tg_default_admin");
    let at = "/api/v1/tenants/default";
    let refused = async |by: &str, line: &str, body: Option<Value>| {
        let answer = plane.ask(by, line, &[], body).await;
        assert_eq!(answer.status, 403, "{by}: {line}: {}", answer.json());
    };
    let root = format!("{at}/role-bindings/corp%7Croot/super_admin");
    assert_eq!(plane.ask(operator, &format!("PUT {root}"), &[], None).await.status, 204);
    let standing_for_root = Some(json!({ "roles": ["viewer"], "principal": "corp|root" }));
    let keys = format!("{at}/api-keys");
    refused(admin, &format!("POST {keys}"), standing_for_root.clone()).await;
    let made = plane.ask(operator, &format!("POST {keys}"), &[], standing_for_root).await;
    assert_eq!(made.status, 201);
    let key = made.json();
    assert_eq!(me(&plane, &key).await.1["platform"], true, "as good as the principal");
    let one = format!("{keys}/{}", key["id"].as_str().unwrap());
    refused(admin, &format!("POST {one}/rotate"), Some(json!({}))).await;
    refused(admin, &format!("DELETE {one}"), None).await;
    let revocations = format!("{at}/revocations");
    for what in [json!({ "principal": "corp|root" }), json!({ "jti": key["id"] })] {
        refused(admin, &format!("POST {revocations}"), Some(what)).await;
    }
    let user = format!("{at}/users/corp%7Croot");
    refused(admin, &format!("PUT {user}"), Some(json!({ "disabled": true }))).await;
    let named = plane.ask(admin, &format!("PUT {user}"), &[], Some(json!({ "email": "root@corp" }))).await;
    assert_eq!(named.status, 201, "what people read of them is nothing that they may");
    refused(admin, &format!("DELETE {user}"), None).await;
    assert_eq!(me(&plane, &key).await.0, 200);
    // The other way round: what an operator shut out, a weaker one does not let in again.
    let out =
        plane.ask(operator, &format!("POST {revocations}"), &[], Some(json!({ "jti": key["id"] }))).await;
    let id = out.json()["id"].as_str().unwrap().to_owned();
    refused(admin, &format!("DELETE {revocations}/{id}"), None).await;
    assert_eq!(me(&plane, &key).await.0, 401);
    let rotated = plane.ask(operator, &format!("POST {one}/rotate"), &[], Some(json!({}))).await;
    assert_eq!((rotated.status.as_u16(), &rotated.json()["code"]), (409, &json!("key_not_good")));
    assert_eq!(plane.ask(operator, &format!("DELETE {revocations}/{id}"), &[], None).await.status, 204);
    assert_eq!(plane.ask(operator, &format!("DELETE {one}"), &[], None).await.status, 204);
}

#[tokio::test]
async fn a_role_that_makes_keys_and_binds_roles_is_no_way_to_all_others() {
    let plane = Plane::start().await;
    let bind = |who: &str, role: &str| format!("PUT /api/v1/tenants/a/role-bindings/corp%7C{who}/{role}");
    let holds = Some(json!({ "permissions": ["keys:write", "users:write"] }));
    let role = "PUT /api/v1/tenants/a/roles/clerk";
    assert_eq!(plane.ask(ADMIN, role, &[("if-none-match", "*")], holds).await.status, 201);
    for (who, role) in [("clerk", "clerk"), ("boss", "admin"), ("eve", "auditor")] {
        assert_eq!(plane.ask(ADMIN, &bind(who, role), &[], None).await.status, 204);
    }
    let clerk = key(&plane, ADMIN, json!({ "roles": ["viewer"], "principal": "corp|clerk" })).await;
    let clerk = clerk["key"].as_str().unwrap();
    let make = format!("POST {KEYS}");
    for (principal, status) in [("corp|boss", 403), ("corp|eve", 403), ("corp|clerk", 201), ("corp|new", 201)]
    {
        let body = json!({ "roles": ["viewer"], "principal": principal });
        let made = plane.ask(clerk, &make, &[], Some(body)).await;
        assert_eq!(made.status.as_u16(), status, "{principal}: {}", made.json());
    }
    let added = plane.ask(clerk, &bind("clerk", "auditor"), &[], None).await;
    assert_eq!(added.status, 403, "the add-on is not theirs to give");
    let taken = bind("eve", "auditor").replace("PUT", "DELETE");
    assert_eq!(plane.ask(clerk, &taken, &[], None).await.status, 403, "nor to take");
    assert_eq!(plane.ask("tg_a_auditor", &taken, &[], None).await.status, 403, "auditors do not bind roles");
    assert_eq!(plane.ask(ADMIN, &taken, &[], None).await.status, 204);
}

/// What data planes could not take would be stored, and keep the rest from reaching them.
#[tokio::test]
async fn what_makes_no_sense_of_a_credential_is_refused_where_it_is_said() {
    let plane = Plane::start().await;
    for (line, body) in [
        (KEYS, json!({ "roles": ["viewer"], "scopes": { "tools": ["[a"] } })),
        (KEYS, json!({ "roles": ["viewer"], "scopes": { "routes": [""] } })),
        ("/api/v1/tenants/a/revocations", json!({ "jti": "x", "before": "2026-01-01T00:00:00Z" })),
        ("/api/v1/tenants/a/revocations", json!({ "principal": "" })),
        ("/api/v1/tenants/a/revocations", json!({ "sub": "" })),
    ] {
        let refused = plane.ask(ADMIN, &format!("POST {line}"), &[], Some(body.clone())).await;
        assert_eq!(refused.status, 422, "{body}");
        assert!(refused.json()["errors"][0]["detail"].is_string(), "{body}");
    }
}

#[tokio::test]
async fn a_refusal_is_in_a_log_that_is_the_callers_business() {
    let plane = Plane::start().await;
    let last =
        || plane.ledger.0.lock().last().map(|a| (a.status, a.tenant.as_ref().map(ToString::to_string)));
    let users = |tenant: &str| format!("GET /api/v1/tenants/{tenant}/users");
    plane.ask("tg_a_admin", &users("b"), &[], None).await;
    assert_eq!(last(), Some((404, Some("a".to_owned()))), "nobody writes into another tenant's");
    plane.ask("tg_a_viewer", &users("a"), &[], None).await;
    assert_eq!(last(), Some((403, Some("a".to_owned()))));
    plane.ask("nobody", &users("made-up"), &[], None).await;
    assert_eq!(last(), Some((401, None)), "or makes one by naming it");
    plane.ask("tg_default_super_admin", &users("b").replace("GET", "POST"), &[], None).await;
    plane.ask("tg_default_super_admin", &format!("{}/x", users("b")), &[], None).await;
    assert_eq!(last(), Some((404, Some("b".to_owned()))), "who runs the platform is everybody's business");
}

#[tokio::test]
async fn keys_of_a_tenant_that_was_taken_out_open_nothing() {
    let plane = Plane::start().await;
    let operator = "tg_default_super_admin";
    let tenant = "/api/v1/tenants/a";
    let new = [("if-none-match", "*")];
    assert_eq!(plane.ask(operator, &format!("PUT {tenant}"), &new, Some(json!({}))).await.status, 201);
    let made = key(&plane, ADMIN, json!({ "roles": ["admin"] })).await;
    assert_eq!(me(&plane, &made).await.0, 200);
    let any = [("if-match", "*")];
    assert_eq!(plane.ask(operator, &format!("DELETE {tenant}"), &any, None).await.status, 200);
    assert_eq!(me(&plane, &made).await.0, 401);
    assert_eq!(plane.ask(operator, &format!("PUT {tenant}"), &new, Some(json!({}))).await.status, 201);
    assert_eq!(me(&plane, &made).await.0, 200, "it is there again, with its keys");
}

#[tokio::test]
async fn nobody_follows_what_they_may_not_read() {
    let plane = Plane::start().await;
    for (by, topic, permission) in [
        ("tg_a_viewer", "config", "config:read"),
        ("tg_a_developer", "config", "config:read"),
        ("tg_a_server_owner", "audit", "audit:read"),
        ("tg_a_anonymous", "health", "events:read"),
    ] {
        let line = format!("GET /api/v1/events?topics={topic}");
        let refused = plane.ask(by, &line, &[], None).await;
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        assert!(refused.status == 403 && detail.contains(permission), "{by} {topic}: {detail}");
    }
}
