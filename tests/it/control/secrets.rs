//! Secrets that documents refer to.

use serde_json::json;
use tollgate::base::TenantId;
use tollgate::config::canonical;
use tollgate::store::{NewRevision, StoreSettings};

use super::plane::Plane;
use crate::support::Folder;
use crate::support::postgres::Database;

const ADMIN: &str = "tg_a_admin";
const AT: &str = "/api/v1/tenants/a/secrets";

#[tokio::test]
async fn a_secret_that_is_in_use_goes_only_if_that_is_said() {
    let (database, folder) = (Database::fresh(), Folder::new());
    let settings = StoreSettings::at(&database.url(), folder.path());
    for plane in [Plane::start().await, Plane::on(settings, folder).await] {
        for name in ["token", "spare"] {
            let made =
                plane.ask(ADMIN, &format!("PUT {AT}/{name}"), &[], Some(json!({ "value": "v" }))).await;
            assert_eq!(made.status, 201);
        }
        let text = "version: 1\nservers: [{ name: s, http: { targets: [\"http://127.0.0.1:9/mcp\"] }, \
                    credential: { bearer: \"${secret:token}\" } }]\n";
        let content = canonical(text.as_bytes()).unwrap();
        let new = NewRevision {
            content: content.as_bytes(),
            schema_version: 1,
            author: "test",
            reason: "",
            if_revision: Some(0),
        };
        plane.store.tenant(&TenantId::new("a")).publish(new).await.unwrap();
        assert_eq!(
            plane.ask(ADMIN, &format!("DELETE {AT}/spare"), &[], None).await.status,
            204,
            "not in use"
        );
        let delete = format!("DELETE {AT}/token");
        let refused = plane.ask(ADMIN, &delete, &[], None).await;
        let problem = refused.json();
        assert_eq!((refused.status.as_u16(), &problem["code"]), (409, &json!("secret_in_use")), "{problem}");
        let place = problem["errors"][0]["detail"].as_str().unwrap();
        assert!(place.contains("servers[0].credential.bearer") && place.contains("revision 1"), "{problem}");
        assert_eq!(plane.ask(ADMIN, &format!("GET {AT}/token"), &[], None).await.status, 200, "still there");
        let stale = [("if-match", "\"x\"")];
        assert_eq!(plane.ask(ADMIN, &delete, &stale, None).await.status, 412, "what was seen counts first");
        assert_eq!(plane.ask(ADMIN, &format!("{delete}?force=true"), &stale, None).await.status, 412);
        assert_eq!(plane.ask(ADMIN, &format!("{delete}?force=true"), &[], None).await.status, 204);
        assert_eq!(plane.ask(ADMIN, &format!("GET {AT}/token"), &[], None).await.status, 404);
        assert_eq!(plane.ask(ADMIN, &delete, &[], None).await.status, 404);
        let action = plane.ledger.0.lock().iter().rfind(|a| a.status == 204).cloned().unwrap();
        assert!(action.notes.words().unwrap().contains("in use: "), "{:?}", action.notes);
    }
}
