//! Several tenants in one database, and documents that are published together.

use tollgate::base::{Scope, TenantId};
use tollgate::source::replica::{Convergence, Position};
use tollgate::source::{Change, PublishError};
use tollgate::store::Page;

use super::{Replica, SOON, publish};
use crate::support::postgres::Database;
use crate::support::{Caller, Response, Upstream, eventually};

const REVISION: &str = "x-tollgate-revision";

pub fn platform(tenants: &[&str]) -> String {
    let grants = "grants: { private_targets: [127.0.0.0/8], anonymous: true }";
    let tenants: String = tenants.iter().map(|t| format!("  - {{ name: {t}, {grants} }}\n")).collect();
    format!("version: 1\ntenants:\n{tenants}")
}

pub fn own(route: &str, target: &str) -> String {
    format!(
        "version: 1\nservers:\n  - {{ name: s, era: modern, http: {{ targets: [\"{target}\"] }}, \
         health: {{ interval: 0s }} }}\nroutes:\n  - {{ name: {route}, servers: [s], limits: [] }}\n\
         identity: {{ anonymous: {{}} }}\n"
    )
}

pub fn change(scope: Scope, text: &str) -> Change {
    Change {
        scope,
        content: text.as_bytes().to_vec(),
        author: "test".to_owned(),
        reason: String::new(),
        if_revision: None,
    }
}

pub fn tenant(name: &str) -> Scope {
    Scope::Tenant(TenantId::new(name))
}

pub async fn call(replica: &Replica, path: &str) -> Response {
    let caller = Caller::new(replica.process().mcp_address().expect("a data plane"), path);
    caller.ask(&caller.tool("t")).await
}

pub async fn serves(replica: &Replica, path: &str, revision: &str) {
    eventually(&format!("{path} is served by {revision}"), async || {
        let answer = call(replica, path).await;
        (answer.status() == 200 && answer.header(REVISION) == Some(revision)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn tenants_of_one_database_are_served_side_by_side_and_none_touches_another() {
    let database = Database::fresh();
    let (acme, globex) = (Upstream::modern().await, Upstream::modern().await);
    let (one, two) = (Replica::start(&database.url()).await, Replica::start(&database.url()).await);
    let publisher = one.publisher();
    // None of them is there yet: each compiles on the terms of the one beside it.
    let together = [
        change(tenant("acme"), &own("s", &acme.url())),
        change(Scope::Platform, &platform(&["acme", "globex"])),
        change(tenant("globex"), &own("s", &globex.url())),
    ];
    let done = publisher.publish_all(&together).await.unwrap();
    let told: Vec<_> = done.iter().map(|p| (p.scope.as_str().to_owned(), p.revision)).collect();
    assert_eq!(told, [("acme".into(), 1), ("@platform".into(), 1), ("globex".into(), 1)]);
    for replica in [&one, &two] {
        serves(replica, "/t/acme/mcp/s", "acme@1").await;
        serves(replica, "/t/globex/mcp/s", "globex@1").await;
    }
    let before = globex.calls().len();
    assert_eq!(call(&one, "/t/acme/mcp/s").await.status(), 200);
    assert_eq!(globex.calls().len(), before, "the other tenant's server");

    // A change of one is no change of the other, and neither is a document that is refused.
    publisher.publish(change(tenant("acme"), &own("t", &acme.url()))).await.unwrap();
    for replica in [&one, &two] {
        serves(replica, "/t/acme/mcp/t", "acme@2").await;
        assert_eq!(call(replica, "/t/acme/mcp/s").await.status(), 404);
        serves(replica, "/t/globex/mcp/s", "globex@1").await;
    }
    let refused =
        publisher.publish(change(tenant("acme"), "version: 1\nroutes: [{ name: x, servers: [y] }]\n"));
    assert!(matches!(refused.await, Err(PublishError::Refused(_))));
    let stranger = publisher.publish(change(tenant("initech"), &own("s", &acme.url()))).await;
    assert!(matches!(stranger, Err(PublishError::Refused(_))), "{stranger:?}");
    publish(
        &publisher,
        &own("own", &acme.url()).replace("anonymous: {}", "loopback: { role: developer }"),
        None,
    )
    .await
    .unwrap();
    serves(&two, "/mcp/own", "default@1").await;
    serves(&two, "/t/globex/mcp/s", "globex@1").await;

    // A tenant that goes takes its place along, and no other's.
    publisher.publish(change(Scope::Platform, &platform(&["globex"]))).await.unwrap();
    for replica in [&one, &two] {
        eventually("the tenant is gone", async || {
            (call(replica, "/t/acme/mcp/t").await.status() == 404).then_some(())
        })
        .await;
        serves(replica, "/t/globex/mcp/s", "globex@1").await;
    }
    let rows = one.process().store().unwrap().platform().tenants(None, Page::of(10)).await.unwrap();
    let rows: Vec<_> = rows.iter().map(|row| row.tenant.as_str()).collect();
    assert_eq!(rows, ["globex"], "the rows go with the document");
}

#[tokio::test]
async fn what_the_platform_takes_back_is_taken_back_at_once() {
    let database = Database::fresh();
    let (acme, globex) = (Upstream::modern().await, Upstream::modern().await);
    let (one, two) = (Replica::start(&database.url()).await, Replica::start(&database.url()).await);
    let publisher = one.publisher();
    let together = [
        change(Scope::Platform, &platform(&["acme", "globex"])),
        change(tenant("acme"), &own("s", &acme.url())),
        change(tenant("globex"), &own("s", &globex.url())),
    ];
    publisher.publish_all(&together).await.unwrap();
    for replica in [&one, &two] {
        serves(replica, "/t/acme/mcp/s", "acme@1").await;
        serves(replica, "/t/globex/mcp/s", "globex@1").await;
    }
    // Its document names a private target, which is not granted any more.
    let less = platform(&["acme", "globex"]).replacen("private_targets: [127.0.0.0/8], ", "", 1);
    publisher.publish(change(Scope::Platform, &less)).await.unwrap();
    for replica in [&one, &two] {
        eventually("the tenant is served no more", async || {
            (call(replica, "/t/acme/mcp/s").await.status() == 503).then_some(())
        })
        .await;
        serves(replica, "/t/globex/mcp/s", "globex@1").await;
    }
    // Nor does anybody say that it is.
    eventually("it is told", async || {
        let state = publisher.wait(&tenant("acme"), 1, SOON).await.ok()?;
        let refused = |p: &Position| p.served == 0 && p.refused.as_ref().is_some_and(|(n, _)| *n == 1);
        (state.positions.len() == 2 && state.positions.iter().all(refused)).then_some(())
    })
    .await;
    let calls = acme.calls().len();
    assert_eq!(call(&one, "/t/acme/mcp/s").await.status(), 503);
    assert_eq!(acme.calls().len(), calls);
    // Nor after a restart, and it is there again when it may be.
    let two = two.restart().await;
    assert_eq!(call(&two, "/t/acme/mcp/s").await.status(), 503);
    publisher.publish(change(Scope::Platform, &platform(&["acme", "globex"]))).await.unwrap();
    for replica in [&one, &two] {
        serves(replica, "/t/acme/mcp/s", "acme@1").await;
    }
    eventually("it is told", async || {
        publisher.wait(&tenant("acme"), 1, SOON).await.ok().filter(Convergence::is_complete).map(drop)
    })
    .await;
}

#[tokio::test]
async fn of_documents_that_are_published_together_all_or_none_are() {
    let database = Database::fresh();
    let up = Upstream::modern().await;
    let one = Replica::start(&database.url()).await;
    let publisher = one.publisher();
    let bad = [
        change(Scope::Platform, &platform(&["acme", "globex"])),
        change(tenant("acme"), &own("s", &up.url())),
        change(tenant("globex"), "version: 1\nroutes: [{ name: x, servers: [nobody] }]\n"),
    ];
    let failed = publisher.publish_all(&bad).await.unwrap_err();
    assert!(failed.scope == tenant("globex") && matches!(failed.error, PublishError::Refused(_)), "{failed}");
    let late = Change { if_revision: Some(7), ..change(tenant("acme"), &own("s", &up.url())) };
    let conflict = publisher.publish_all(&[change(Scope::Platform, &platform(&["acme"])), late]).await;
    let conflict = conflict.unwrap_err();
    assert!(matches!(conflict.error, PublishError::Conflict { expected: 7, found: 0 }), "{conflict}");
    for scope in [Scope::Platform, tenant("acme"), tenant("globex")] {
        assert!(publisher.head(&scope).await.unwrap().is_none(), "{scope}");
    }
    let rows = one.process().store().unwrap().platform().tenants(None, Page::of(10)).await.unwrap();
    assert!(rows.is_empty());
    let tried = publisher.dry_run_all(&bad[..2]).await.unwrap();
    assert!(tried.iter().all(|p| p.changed && p.revision == 0));
    assert!(publisher.head(&Scope::Platform).await.unwrap().is_none(), "only tried");
}

#[tokio::test]
async fn a_document_is_compared_with_a_revision_without_being_published() {
    let database = Database::fresh();
    let one = Replica::start(&database.url()).await;
    let publisher = one.publisher();
    let text = |route: &str| own(route, "http://127.0.0.1:9/mcp");
    publish(&publisher, &text("a"), None).await.unwrap();
    publish(&publisher, &text("b"), None).await.unwrap();
    let default = tenant("default");
    let with_head = publisher.diff_with(&default, 2, text("c").as_bytes()).await.unwrap();
    assert!(
        with_head.iter().any(|c| c.contains("route b")) && with_head.iter().any(|c| c.contains("route c"))
    );
    let with_first = publisher.diff_with(&default, 1, text("a").as_bytes()).await.unwrap();
    assert_eq!(with_first, Vec::<String>::new());
    assert!(publisher.diff_with(&default, 1, b"version: 1\nruotes: []\n").await.is_err());
    assert_eq!(publisher.head(&default).await.unwrap().unwrap().summary.revision, 2);
}
