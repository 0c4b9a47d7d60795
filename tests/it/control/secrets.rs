//! Secrets that documents refer to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tollgate::base::{Scope, TenantId};
use tollgate::config::canonical;
use tollgate::snapshot::Snapshot;
use tollgate::source::canary::Beside;
use tollgate::source::{Change, PublishError, Publisher, Refusal, SecretValues, Serve, Stored};
use tollgate::store::{NewRevision, Store, StoreError, StoreSettings};
use uuid::Uuid;

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

/// Compiles what names the secret while it is there. Somebody removes it when that was done for the first time.
struct Removing {
    store: Store,
    compiled: AtomicUsize,
}

impl Serve for Removing {
    fn serve(&self, document: &Stored, secrets: &SecretValues) -> Result<Vec<TenantId>, Refusal> {
        self.check(&document.scope, &document.content, secrets).map(|_| Vec::new())
    }

    fn check(&self, scope: &Scope, _: &[u8], secrets: &SecretValues) -> Result<Vec<String>, Refusal> {
        let first = self.compiled.fetch_add(1, Ordering::Relaxed) == 0;
        if !secrets.contains_key("token") {
            return Err(Refusal::Compile(vec![("servers[0]".to_owned(), "there is no token".to_owned())]));
        }
        if let (true, Scope::Tenant(tenant)) = (first, scope) {
            let scope = self.store.tenant(tenant);
            let removed = scope.remove_secret("token", |_, _| Ok::<_, StoreError>(()));
            tokio::runtime::Handle::current().block_on(removed).unwrap();
        }
        Ok(Vec::new())
    }

    fn serve_beside(&self, _: &Beside, _: &SecretValues) -> Result<(), Refusal> {
        Ok(())
    }

    fn end_beside(&self, _: &TenantId, _: Uuid) {}

    fn trial(&self, _: &TenantId, _: &[u8], _: &SecretValues) -> Result<Snapshot, Refusal> {
        Ok(Snapshot::new([]))
    }

    fn diff(&self, _: &Scope, _: &[u8], _: &[u8], _: &SecretValues) -> Vec<String> {
        Vec::new()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_goes_while_its_document_is_compiled_is_missed_where_it_is_named() {
    let plane = Plane::start().await;
    let made = plane.ask(ADMIN, &format!("PUT {AT}/token"), &[], Some(json!({ "value": "v" }))).await;
    assert_eq!(made.status, 201);
    let serve = Arc::new(Removing { store: plane.store.clone(), compiled: AtomicUsize::new(0) });
    let publisher = Publisher::new(plane.store.clone(), serve.clone());
    let change = Change {
        scope: Scope::Tenant(TenantId::new("a")),
        content: b"version: 1\nx: ${secret:token}\n".to_vec(),
        author: "ada".to_owned(),
        reason: String::new(),
        if_revision: Some(0),
    };
    let refused = publisher.publish(change).await;
    let Err(PublishError::Refused(Refusal::Compile(found))) = refused else { panic!("{refused:?}") };
    assert_eq!(found[0].0, "servers[0]");
    assert_eq!(serve.compiled.load(Ordering::Relaxed), 2);
    assert_eq!(plane.everything_of("a").await["head"], json!(null), "nothing was published");
}
