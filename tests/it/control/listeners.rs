//! Who answers what, where.

use crate::support::{Client, Gateway, Request, Upstream};

#[tokio::test]
async fn metrics_move_to_a_listener_of_their_own() {
    let upstream = Upstream::modern().await;
    let gateway = Gateway::relay(&[&upstream])
        .listeners("metrics: { address: \"127.0.0.1:0\", token: \"${env:SCRAPE}\" }")
        .env("SCRAPE", "scr4pe")
        .start()
        .await;
    let address = gateway.process().metrics_address().expect("it listens");
    let ask = async |path: &str, token: Option<&str>| {
        let mut request = Request::new("GET", path).with("Host", &address.to_string());
        if let Some(token) = token {
            request = request.with("Authorization", &format!("Bearer {token}"));
        }
        Client::connect(address).await.ask(&request.with("Connection", "close")).await
    };
    assert_eq!(ask("/metrics", None).await.status(), 401);
    assert!(ask("/metrics", Some("scr4pe")).await.text().contains("tollgate_build_info"));
    assert_eq!(ask("/healthz", None).await.status(), 200);
    for path in ["/readyz", "/api/v1/status", "/api/v1/me", "/api/docs/"] {
        assert_eq!(ask(path, Some("scr4pe")).await.status(), 404, "{path}");
    }
    assert_eq!(gateway.admin("/metrics").await.status(), 404, "not on the admin listener any more");
    assert_eq!(gateway.readyz().await.0, 200);
}

#[tokio::test]
async fn the_api_asks_for_a_credential_on_loopback_too() {
    let upstream = Upstream::modern().await;
    let gateway = Gateway::relay(&[&upstream]).start().await;
    assert_eq!(gateway.admin("/api/v1/status").await.status(), 200);
    for path in ["/api/v1/me", "/api/v1/roles", "/api/v1/health", "/api/v1/openapi.json", "/api/v1/events"] {
        let refused = gateway.admin(path).await;
        assert_eq!(
            (refused.status(), refused.json()["code"].as_str()),
            (401, Some("unauthorized")),
            "{path}"
        );
    }
}
