//! What is asked for is bounded, and what is out of bounds is refused and not cut.

use serde_json::json;

use super::plane::Plane;

#[tokio::test]
async fn what_is_out_of_bounds_is_refused_by_name() {
    let plane = Plane::start().await;
    for (path, parameter) in [
        ("usage?grain=minute&from=2020-01-01T00:00:00Z", "?from"),
        ("usage/top?by=tool&grain=minute&from=2020-01-01T00:00:00Z", "?from"),
        ("usage?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "?from"),
        ("usage/top?by=tool&limit=501", "?limit"),
        ("revisions?limit=0", "?limit"),
        ("revisions?limit=501", "?limit"),
        ("canaries?limit=0", "?limit"),
        ("canaries?limit=101", "?limit"),
    ] {
        let refused = plane.ask("tg_a_admin", &format!("GET /api/v1/tenants/a/{path}"), &[], None).await;
        assert_eq!(
            (refused.status.as_u16(), &refused.json()["errors"][0]["pointer"]),
            (400, &json!(parameter)),
            "{path}"
        );
    }
    let long = "GET /api/v1/tenants/a/usage?grain=day&from=2020-01-01T00:00:00Z";
    assert_eq!(plane.ask("tg_a_admin", long, &[], None).await.status, 200);
}
