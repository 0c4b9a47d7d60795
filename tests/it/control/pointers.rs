//! Where problems point: into what was sent, and at errors only.

use serde_json::json;

use super::plane::Plane;

const ADMIN: &str = "tg_a_admin";
const OPERATOR: &str = "tg_default_super_admin";

#[tokio::test]
async fn a_tenant_with_a_bad_grant_is_told_which() {
    let plane = Plane::start().await;
    for tenant in ["acme", "corp"] {
        let line = format!("PUT /api/v1/tenants/{tenant}");
        assert_eq!(plane.ask(OPERATOR, &line, &[("if-none-match", "*")], Some(json!({}))).await.status, 201);
    }
    for tenant in ["corp", "new"] {
        let bad = json!({ "grants": { "env": "yes", "private_targets": ["10.0.0.0/8", "nowhere"] } });
        let line = format!("PUT /api/v1/tenants/{tenant}");
        let condition = if tenant == "new" { "if-none-match" } else { "if-match" };
        let refused = plane.ask(OPERATOR, &line, &[(condition, "*")], Some(bad)).await;
        let problem = refused.json();
        assert_eq!(refused.status, 422, "{problem}");
        let pointers: Vec<_> =
            problem["errors"].as_array().unwrap().iter().map(|e| e["pointer"].as_str().unwrap()).collect();
        assert!(pointers.contains(&"/grants/env"), "{problem}");
        assert!(pointers.iter().all(|p| p.starts_with("/grants/")), "{problem}");
    }
}

#[tokio::test]
async fn warnings_are_no_reason_of_a_refusal() {
    let plane = Plane::start().await;
    let put = "PUT /api/v1/tenants/a/document";
    let unused = "version: 1\nlimits: [{ name: unused, key: principal, rate: 10/s }]\n";
    let new = [("if-none-match", "*")];
    let tried = format!("{put}?dry_run=true");
    let good = plane.raw(ADMIN, &tried, &new, Some(unused.as_bytes()), "application/yaml").await;
    assert!(good.status.is_success(), "a warning alone refuses nothing");
    let both = format!("{unused}ruotes: []\n");
    let refused = plane.raw(ADMIN, put, &new, Some(both.as_bytes()), "application/yaml").await;
    let problem = refused.json();
    assert_eq!(refused.status, 422);
    let errors = problem["errors"].as_array().unwrap();
    assert_eq!((errors.len(), &errors[0]["pointer"]), (1, &json!("/ruotes")), "{problem}");
}

#[tokio::test]
async fn a_tenant_is_told_to_put_secrets_where_it_may() {
    let plane = Plane::start().await;
    let server = json!({
        "http": { "targets": ["http://127.0.0.1:1/mcp"] }, "credential": { "bearer": "hunter2-hunter2" },
    });
    let line = "PUT /api/v1/tenants/a/servers/weather";
    let refused = plane.ask(ADMIN, line, &[("if-none-match", "*")], Some(server)).await;
    let problem = refused.json();
    assert_eq!(
        (&problem["errors"][0]["pointer"], &problem["errors"][0]["expected"]),
        (&json!("/credential/bearer"), &json!("`${secret:name}`")),
        "{problem}"
    );
    assert!(!problem.to_string().contains("hunter2"), "{problem}");
}
