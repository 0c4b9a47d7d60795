//! Roles of a tenant's own.

use serde_json::{Value, json};

use super::plane::Plane;

const ADMIN: &str = "tg_a_admin";
const ROLES: &str = "/api/v1/tenants/a/roles";

async fn key(plane: &Plane, principal: &str) -> String {
    let body = json!({ "roles": ["viewer"], "principal": principal });
    let made = plane.ask(ADMIN, "POST /api/v1/tenants/a/api-keys", &[], Some(body)).await;
    made.json()["key"].as_str().unwrap().to_owned()
}

fn holds(permissions: &[&str]) -> Option<Value> {
    Some(json!({ "description": "for support", "permissions": permissions }))
}

#[tokio::test]
async fn a_role_gives_what_it_names_to_whoever_has_it_until_it_is_gone() {
    let plane = Plane::start().await;
    let token = key(&plane, "corp|sue").await;
    let put = format!("PUT {ROLES}/support");
    assert_eq!(plane.ask(ADMIN, &put, &[], holds(&["keys:read"])).await.status, 428);
    let new = [("if-none-match", "*")];
    let made = plane.ask(ADMIN, &put, &new, holds(&["sessions:read", "keys:read", "keys:read"])).await;
    assert_eq!(made.status, 201, "{}", made.json());
    assert_eq!(made.json()["permissions"], json!(["keys:read", "sessions:read"]));
    let keys = "GET /api/v1/tenants/a/api-keys";
    assert_eq!(plane.ask(&token, keys, &[], None).await.status, 403, "nobody has it yet");
    let binding = "/api/v1/tenants/a/role-bindings/corp%7Csue";
    assert_eq!(plane.ask(ADMIN, &format!("PUT {binding}/support"), &[], None).await.status, 204);
    assert_eq!(plane.ask(&token, keys, &[], None).await.status, 200);
    let elsewhere = plane.ask(&token, &keys.replace("/a/", "/b/"), &[], None).await;
    assert_eq!(elsewhere.status, 404, "in its tenant only");
    let me = plane.ask(&token, "GET /api/v1/me", &[], None).await.json();
    assert!(me["permissions"].as_array().unwrap().contains(&json!("keys:read")), "{me}");
    let write =
        plane.ask(&token, "POST /api/v1/tenants/a/api-keys", &[], Some(json!({ "roles": ["viewer"] })));
    assert_eq!(write.await.status, 403, "not named");
    // A change counts at once, and so does its end.
    let tag = made.etag();
    assert_eq!(plane.ask(ADMIN, &put, &[("if-match", "\"x\"")], holds(&["users:read"])).await.status, 412);
    assert_eq!(plane.ask(ADMIN, &put, &[("if-match", &tag)], holds(&["users:read"])).await.status, 200);
    assert_eq!(plane.ask(&token, keys, &[], None).await.status, 403);
    assert_eq!(plane.ask(&token, "GET /api/v1/tenants/a/users", &[], None).await.status, 200);
    let list = plane.ask(ADMIN, &format!("GET {ROLES}"), &[], None).await.json();
    assert_eq!(list["items"][0]["name"], "support");
    assert_eq!(plane.ask(ADMIN, &format!("DELETE {ROLES}/support"), &[], None).await.status, 204);
    assert_eq!(plane.ask(&token, "GET /api/v1/tenants/a/users", &[], None).await.status, 403);
    let bindings = plane.ask(ADMIN, "GET /api/v1/tenants/a/role-bindings", &[], None).await.json();
    assert_eq!(bindings["items"], json!([]), "it was taken from everybody");
}

#[tokio::test]
async fn nobody_makes_or_gives_a_role_that_holds_more_than_they_do() {
    let plane = Plane::start().await;
    let new = [("if-none-match", "*")];
    let put = |name: &str| format!("PUT {ROLES}/{name}");
    for (permissions, pointer) in [
        (&["audit:bodies"][..], "/permissions/0"),
        (&["keys:read", "platform:write"], "/permissions/1"),
        (&["keys:everything"], "/permissions/0"),
        (&[], "/permissions"),
    ] {
        let refused = plane.ask("tg_default_super_admin", &put("x"), &new, holds(permissions)).await;
        assert_eq!(
            (refused.status.as_u16(), &refused.json()["errors"][0]["pointer"]),
            (422, &json!(pointer))
        );
    }
    for name in ["admin", "auditor", "viewer"] {
        assert_eq!(plane.ask(ADMIN, &put(name), &new, holds(&["keys:read"])).await.status, 409, "{name}");
    }
    // Somebody who may make roles, and little else.
    assert_eq!(
        plane.ask(ADMIN, &put("delegate"), &new, holds(&["roles:write", "users:write"])).await.status,
        201
    );
    assert_eq!(plane.ask(ADMIN, &put("strong"), &new, holds(&["config:write"])).await.status, 201);
    let token = key(&plane, "corp|dan").await;
    let bind = |who: &str, role: &str| format!("PUT /api/v1/tenants/a/role-bindings/corp%7C{who}/{role}");
    assert_eq!(plane.ask(ADMIN, &bind("dan", "delegate"), &[], None).await.status, 204);
    assert_eq!(plane.ask(&token, &put("mine"), &new, holds(&["config:write"])).await.status, 403);
    assert_eq!(plane.ask(&token, &put("mine"), &new, holds(&["users:write"])).await.status, 201);
    assert_eq!(
        plane.ask(&token, &put("strong"), &[("if-match", "*")], holds(&["users:write"])).await.status,
        403
    );
    assert_eq!(plane.ask(&token, &format!("DELETE {ROLES}/strong"), &[], None).await.status, 403);
    assert_eq!(plane.ask(&token, &bind("dan", "strong"), &[], None).await.status, 403, "to themselves");
    assert_eq!(plane.ask(&token, &bind("dan", "admin"), &[], None).await.status, 403);
    assert_eq!(plane.ask(&token, &bind("dan", "mine"), &[], None).await.status, 204);
    assert_eq!(
        plane.ask(&token, &bind("dan", "nothing"), &[], None).await.status,
        400,
        "there is no such role"
    );
}
