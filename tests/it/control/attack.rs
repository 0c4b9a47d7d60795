//! Attacks on the API, generated from its own description, so that new operations are covered by themselves.

use serde_json::{Value, json};
use tollgate::base::Role;
use tollgate::control::openapi;
use tollgate::control::permission::{Holder, Operation, Target};
use tollgate::store::{PLATFORM_ROLE, StoreSettings, TENANT_ROLE};

use super::plane::{BOOT, Plane, SESSION, server};
use crate::support::Folder;
use crate::support::postgres::Database;

/// Row-level security is not about these: the platform's document has no tenant, and sessions and streams are in the
/// memory of replicas.
const NOT_IN_TABLES: [&str; 7] = [
    "close_session",
    "close_stream",
    "delete_tenant",
    "list_sessions",
    "list_streams",
    "put_tenant",
    "show_tenant",
];

/// Method, path with everything filled in for `tenant`, and the operation.
pub(super) fn operations(tenant: &str) -> Vec<(String, &'static Operation)> {
    openapi::operations(&openapi::described())
        .into_iter()
        .map(|(method, path, id)| {
            let path = path.replace("{tenant}", tenant).replace("{revision}", "1");
            let path = path.replace("{session}", SESSION).replace("{stream}", "1");
            let path = path.replace("{replica}", &BOOT.to_string());
            let path =
                path.split('/').map(|p| if p.starts_with('{') { "weather" } else { p }).collect::<Vec<_>>();
            let query = if id.starts_with("compare_") && method == "GET" { "?from=1" } else { "" };
            (format!("{method} {}{query}", path.join("/")), Operation::find(&id).expect("in the table"))
        })
        .collect()
}

/// A body that would do something.
pub(super) fn body(id: &str) -> Option<Value> {
    let harmful = json!({ "op": "put", "name": "evil", "object": server(6666) });
    if id.starts_with("bulk_") {
        Some(json!({ "items": [harmful] }))
    } else if id == "create_api_key" {
        Some(json!({ "roles": ["admin"] }))
    } else if id == "create_revocation" || id == "erase_audit" {
        Some(json!({ "principal": "corp|alice" }))
    } else if id == "put_user" {
        Some(json!({ "disabled": true }))
    } else if id == "start_canary" {
        Some(json!({ "document": "version: 1\n", "principals": "50%" }))
    } else if id == "share_canary" {
        Some(json!({ "share": "100%" }))
    } else if id == "ask_whatif" {
        Some(json!({ "document": "version: 1\n" }))
    } else if id == "ask_proof" {
        Some(json!({ "question": "unauthenticated" }))
    } else if id == "rotate_api_key" {
        Some(json!({}))
    } else if id == "put_secret" {
        Some(json!({ "value": "stolen" }))
    } else if id == "put_custom_role" {
        Some(json!({ "permissions": ["keys:write"] }))
    } else if id == "apply_documents" {
        Some(json!({ "documents": [{ "scope": "b", "document": "version: 1" }] }))
    } else if id.starts_with("replace_") {
        Some(json!({ "version": 1 }))
    } else if id.starts_with("rollback_") {
        Some(json!({ "revision": 1 }))
    } else if id.starts_with("put_") || id.starts_with("create_") {
        Some(server(6666))
    } else {
        None
    }
}

pub(super) async fn furnished() -> Plane {
    furnish(Plane::start().await).await
}

pub(super) async fn furnish(plane: Plane) -> Plane {
    let operator = "tg_default_super_admin";
    for tenant in ["a", "b"] {
        let make = [
            (format!("PUT /api/v1/tenants/{tenant}"), json!({})),
            (format!("PUT /api/v1/tenants/{tenant}/servers/weather"), server(9001)),
            (format!("PUT /api/v1/tenants/{tenant}/secrets/weather"), json!({ "value": "s3cret" })),
            (format!("PUT /api/v1/tenants/{tenant}/users/weather"), json!({ "email": "s3cret@b.example" })),
        ];
        for (line, body) in make {
            let made = plane.ask(operator, &line, &[("if-none-match", "*")], Some(body)).await;
            assert_eq!(made.status, 201, "{line}: {}", made.json());
        }
    }
    plane
}

#[tokio::test]
async fn no_operation_reaches_another_tenant() {
    let plane = furnished().await;
    let before = plane.everything_of("b").await;
    let mut tries = 0;
    for key in ["tg_a_admin", "tg_a_super_admin", "tg_a_auditor", "tg_default_admin"] {
        for (line, operation) in operations("b") {
            if operation.target == Target::Own {
                continue;
            }
            let tried = plane.ask(key, &line, &[("if-match", "*")], body(operation.id)).await;
            assert!(matches!(tried.status.as_u16(), 403 | 404), "{key}: {line}: {}", tried.status);
            tries += 1;
            let text = String::from_utf8_lossy(&tried.body).into_owned();
            assert!(!text.contains("9001") && !text.contains("s3cret"), "{key}: {line}: {text}");
        }
    }
    assert_eq!(plane.everything_of("b").await, before, "nothing changed");
    let recorded = plane.ledger.0.lock().iter().filter(|a| a.refused()).count();
    assert!(recorded >= 4 * (operations("b").len() - 8), "every refusal is recorded: {recorded}");
    println!("tenants: {tries} tries of operations of the API at another tenant, none reached it");
}

/// Every check of the program lets `b`'s own administrators at `b`'s data, and every statement names `b`; only the
/// database was told that it is `a` who asks. What row-level security is for: a program that got it wrong.
#[tokio::test]
async fn row_level_security_alone_keeps_every_operation_from_another_tenant() {
    let database = Database::fresh();
    let folder = Folder::new();
    let settings = StoreSettings::at(&database.url(), folder.path());
    let honest = furnish(Plane::on(settings, folder).await).await;
    database.sql(
        "INSERT INTO audit_events SELECT 'b', 1, gen_random_uuid(), 1, now(), b, b, decode(repeat('0c', 16), 'hex'),
            '{\"principal\":\"s3cret\"}', 's3cret', '', '', '', 'ok' FROM (SELECT decode(repeat('0b', 32), 'hex')) AS bytes (b)",
    );
    // A login of its own, of which what it names as its tenant becomes `a`.
    let login = format!("crooked_{}", database.name());
    database.sql(&format!(
        "CREATE ROLE {login} LOGIN; GRANT {TENANT_ROLE}, {PLATFORM_ROLE} TO {login};
         CREATE SCHEMA crooked; GRANT USAGE ON SCHEMA crooked TO PUBLIC;
         CREATE FUNCTION crooked.set_config(name text, value text, local boolean) RETURNS text LANGUAGE sql AS $$
           SELECT pg_catalog.set_config(name, CASE WHEN name = 'tollgate.tenant' AND value = 'b' THEN 'a' ELSE value END, local)
         $$;
         ALTER ROLE {login} SET search_path = public, crooked, pg_catalog"
    ));
    let folder = Folder::new();
    // The same keys: a secret that is read must open.
    std::fs::copy(honest.data_dir().join("master.key"), folder.path().join("master.key")).unwrap();
    let settings = StoreSettings::at(&database.url_as(&login), folder.path());
    let crooked = Plane::on(settings, folder).await;
    let mut before = honest.everything_of("b").await;
    let (mut own, mut tries) = (0, 0);
    let mut reached = Vec::new();
    for key in ["tg_b_admin", "tg_b_auditor", "tg_default_super_admin"] {
        for (line, operation) in operations("b") {
            if operation.target != Target::Tenant || NOT_IN_TABLES.contains(&operation.id) {
                continue;
            }
            if line.starts_with("GET ") {
                let shown = honest.ask(key, &line, &[], None).await;
                own += u32::from(tells(&shown));
            }
            tries += 1;
            let tried = crooked.ask(key, &line, &[("if-match", "*")], body(operation.id)).await;
            let after = honest.everything_of("b").await;
            if tells(&tried) || std::mem::replace(&mut before, after.clone()) != after {
                reached.push(format!(
                    "{key}: {line}: {} {}",
                    tried.status,
                    String::from_utf8_lossy(&tried.body)
                ));
            }
        }
    }
    assert!(own >= 10, "asked rightly, {own} operations tell something that is looked for");
    assert_eq!(reached, Vec::<String>::new());
    println!("tenants: {tries} tries with every check of the program passed, none past row-level security");
}

/// Whether an answer has something of a furnished tenant.
fn tells(answer: &super::plane::Answer) -> bool {
    let text = String::from_utf8_lossy(&answer.body);
    answer.status.is_success() && (text.contains("9001") || text.contains("s3cret"))
}

#[tokio::test]
async fn a_foreign_tenant_looks_like_none() {
    let plane = furnished().await;
    for (line, operation) in operations("b") {
        if operation.target != Target::Tenant {
            continue;
        }
        let foreign = plane.ask("tg_a_admin", &line, &[("if-match", "*")], body(operation.id)).await;
        let nobody = line.replace("/tenants/b", "/tenants/nobody");
        let nobody = plane.ask("tg_a_admin", &nobody, &[("if-match", "*")], body(operation.id)).await;
        let plain = |answer: &super::plane::Answer| {
            let mut problem = answer.json();
            problem["instance"].take();
            (answer.status, problem)
        };
        assert_eq!(plain(&foreign), plain(&nobody), "{line}");
    }
}

/// Whatever makes something in a tenant: 404 that names it, and nothing is made. `gone` was one.
#[tokio::test]
async fn nothing_is_made_in_a_tenant_that_is_not_there() {
    let database = Database::fresh();
    let folder = Folder::new();
    let settings = StoreSettings::at(&database.url(), folder.path());
    for plane in [furnished().await, furnish(Plane::on(settings, folder).await).await] {
        let operator = "tg_default_super_admin";
        let gone = plane.ask(operator, "DELETE /api/v1/tenants/b", &[("if-match", "*")], None).await;
        assert_eq!(gone.status, 200, "{}", gone.json());
        for tenant in ["nobody", "b"] {
            let before = plane.everything_of(tenant).await;
            let mut tries = 0;
            for (line, operation) in operations(tenant) {
                let makes = line.starts_with("PUT ") || line.starts_with("POST ");
                if operation.target != Target::Tenant || !makes || operation.id == "erase_audit" {
                    continue;
                }
                for condition in ["if-match", "if-none-match"] {
                    let tried = plane.ask(operator, &line, &[(condition, "*")], body(operation.id)).await;
                    assert_eq!(tried.status, 404, "{line}");
                    let problem = tried.json();
                    assert_eq!(problem["code"], "no_tenant", "{line}: {problem}");
                    let named = problem["detail"].as_str().unwrap().contains(&format!("`{tenant}`"));
                    assert!(named, "{line}: {problem}");
                }
                tries += 1;
            }
            assert!(tries >= 20, "{tries} operations make something");
            assert_eq!(plane.everything_of(tenant).await, before, "nothing was made");
        }
        let own = |a: &tollgate::control::trail::Action| a.status == 404 && a.tenant.is_some();
        assert!(!plane.ledger.0.lock().iter().any(own), "no log is made by naming it");
        // What is left of the one that was taken out.
        let left = plane.ask(operator, "GET /api/v1/tenants/b/users/weather", &[], None).await;
        assert_eq!(left.status, 200);
        let line = "DELETE /api/v1/tenants/b/users/weather";
        assert!(plane.ask(operator, line, &[("if-match", "*")], None).await.status.is_success());
        let line = "DELETE /api/v1/tenants/b/secrets/weather";
        assert!(plane.ask(operator, line, &[("if-match", "*")], None).await.status.is_success());
        let erase = "POST /api/v1/tenants/b/audit/erase";
        assert!(plane.ask(operator, erase, &[], body("erase_audit")).await.status.is_success());
        // And whoever runs the platform still makes things where there is a tenant.
        let line = "PUT /api/v1/tenants/a/users/bob";
        assert_eq!(plane.ask(operator, line, &[("if-none-match", "*")], body("put_user")).await.status, 201);
    }
}

#[tokio::test]
async fn every_role_may_what_the_table_says() {
    let plane = furnished().await;
    let callers = Role::ALL.map(|r| (r.as_str(), Some(r))).into_iter().chain([("auditor", None)]);
    for (name, role) in callers {
        for tenant in ["a", "default"] {
            let platform = role == Some(Role::SuperAdmin) && tenant == "default";
            let role = match role {
                Some(Role::SuperAdmin) if !platform => Some(Role::Admin),
                other => other,
            };
            for (line, operation) in operations("a") {
                let held = match operation.permission.holder() {
                    Holder::From(from) => role.unwrap_or(Role::Anonymous) >= from,
                    Holder::FromOrAuditor(from) => role.is_none() || role >= Some(from),
                    Holder::AuditorOnly => role.is_none(),
                };
                let there = match operation.target {
                    Target::Own => true,
                    Target::Platform => platform,
                    Target::Tenant => platform || tenant == "a",
                };
                // Without a precondition no change gets further than its handler.
                let tried = plane.ask(&format!("tg_{tenant}_{name}"), &line, &[], None).await;
                let refused = matches!(tried.status.as_u16(), 403)
                    || (tried.status == 404 && operation.target == Target::Tenant && !there);
                assert_eq!(!refused, held && there, "{tenant} {name}: {line}: {}", tried.status);
            }
        }
    }
}

#[tokio::test]
async fn hostile_input_is_the_callers_fault() {
    let plane = furnished().await;
    let key = "tg_default_super_admin";
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let long = "x".repeat(5000);
    let bodies: Vec<Vec<u8>> = [
        "",
        "null",
        "true",
        "0",
        "\"x\"",
        "[]",
        "{}",
        "{\"",
        "{\"name\":\"\\u0000\"}",
        "{\"value\":1}",
        "{\"value\":\"\\u0000\"}",
        "{\"items\":[{\"op\":\"x\"}]}",
        "{\"items\":{}}",
        "{\"name\":{\"$ne\":1}}",
        "{\"http\":{\"targets\":[\"'; DROP TABLE secrets;--\"]}}",
        "{\"__proto__\":{}}",
        "1e999",
        "{\"a\":1,\"a\":2}",
        &deep,
        &format!("{{\"name\":\"{long}\"}}"),
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .chain([vec![0xff, 0xfe], vec![0; 64], b"{\"x\":\"\xc3\x28\"}".to_vec()])
    .collect();
    let queries = [
        "limit=-1",
        "limit=99999999999999999999",
        "cursor=%00",
        "cursor=..%2f..",
        "filter=name%3D%3D%27%20OR%201%3D1--",
        "filter=%25%25%25",
        "sort=name;drop",
        "limit=1&limit=2",
        "dry_run=maybe",
        "from=0&to=-1",
        "from=x",
        "wait=99999",
        "%00=%00",
        "topics=x",
        "reason=%00",
    ];
    let names =
        ["..", "%2e%2e%2f%2e%2e", "a%00b", "'%3B--", "%F0%9F%92%A9", "a%2Fb", &"n".repeat(300), "-", "%ff"];
    for (line, operation) in operations("a") {
        // What is closed takes no body and has no version that could differ, and neither has the token.
        let changes = !line.starts_with("GET")
            && !operation.id.starts_with("close_")
            && operation.id != "rotate_admin_token";
        if changes {
            for body in &bodies {
                // As a document this says nothing, and may be compared.
                if body == b"{}" && operation.id.starts_with("compare_") {
                    continue;
                }
                for kind in ["application/json", "application/yaml", "text/plain"] {
                    let got = plane.raw(key, &line, &[("if-match", "\"r99\"")], Some(body), kind).await;
                    assert!(
                        got.status.is_client_error(),
                        "{line}: {}: {:?}",
                        got.status,
                        String::from_utf8_lossy(body)
                    );
                    problem(&got, &line);
                }
            }
        }
        for query in queries {
            let joint = if line.contains('?') { '&' } else { '?' };
            let got = plane
                .ask(key, &format!("{line}{joint}{query}"), &[("if-match", "\"r99\"")], body(operation.id))
                .await;
            assert!(!got.status.is_server_error(), "{line} {query}: {}", got.status);
        }
        for name in names {
            let line = line
                .replace("weather", name)
                .replace("/a/", &format!("/{name}/"))
                .replace("/1", &format!("/{name}"));
            let got = plane.ask(key, &line, &[("if-match", "\"r99\"")], body(operation.id)).await;
            assert!(!got.status.is_server_error(), "{line}: {}", got.status);
        }
        for header in ["", "\"", "r1", "W/\"r1\"", "\"r1\",", "\"r99999999999999999999999\""] {
            let got = plane.ask(key, &line, &[("if-match", header)], body(operation.id)).await;
            assert!(!got.status.is_server_error(), "{line} {header}: {}", got.status);
        }
    }
}

fn problem(answer: &super::plane::Answer, line: &str) {
    assert_eq!(answer.headers["content-type"], "application/problem+json", "{line}");
    let problem = answer.json();
    assert_eq!(problem["status"], answer.status.as_u16(), "{line}");
    assert!(problem["code"].is_string() && problem["detail"].is_string(), "{line}: {problem}");
}
