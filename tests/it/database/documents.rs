//! Publications and what becomes of them on two replicas.

use std::time::Instant;

use tollgate::app::Document;
use tollgate::source::PublishError;
use tollgate::store::{Page, whatever};

use super::{Replica, SOON, document, off_runtime, own, publish, start};
use crate::support::postgres::Database;
use crate::support::{Caller, Folder, Upstream, eventually};

const NOWHERE: &str = "http://127.0.0.1:9/mcp";

#[tokio::test]
async fn what_is_published_is_served_by_every_replica_within_a_second_and_never_goes_back() {
    let database = Database::fresh();
    let (one, two) = (Replica::start(&database.url()).await, Replica::start(&database.url()).await);
    let publisher = one.publisher();
    assert!(one.routes().is_empty(), "nothing was published yet");
    let mut seen = [0i64; 2];
    for n in 1..=10 {
        let published = publish(&publisher, &document(&format!("r{n}"), NOWHERE), None).await.unwrap();
        assert_eq!((published.revision, published.parent), (n, n - 1));
        let acknowledged = Instant::now();
        for (replica, seen) in [&one, &two].into_iter().zip(&mut seen) {
            let before = *seen;
            eventually("the revision is served", async || {
                let routes = replica.routes();
                let now: i64 = routes.first().map_or(0, |r| r[1..].parse().unwrap());
                assert!(now == n || now == before, "{now} while {before} gives way to {n}");
                (now == n).then_some(())
            })
            .await;
            *seen = n;
        }
        assert!(acknowledged.elapsed() < SOON, "{:?}", acknowledged.elapsed());
    }
    let state = publisher.wait(&own(), 10, 5 * SOON).await.unwrap();
    assert!(state.is_complete(), "{state:?}");
    assert_eq!(state.positions.len(), 2);
}

#[tokio::test]
async fn a_document_that_does_not_compile_is_refused_and_nothing_changes() {
    let database = Database::fresh();
    let one = Replica::start(&database.url()).await;
    let publisher = one.publisher();
    publish(&publisher, &document("good", NOWHERE), Some(0)).await.unwrap();
    eventually("it is served", async || (one.routes() == ["good"]).then_some(())).await;
    for bad in
        ["routes: [", "version: 1\nroutes: [{ name: x, servers: [nobody] }]\n", "version: 1\nruotes: []\n"]
    {
        let error = publish(&publisher, bad, None).await.unwrap_err();
        assert!(matches!(error, PublishError::Malformed(_) | PublishError::Refused(_)), "{bad}: {error}");
    }
    assert_eq!(publisher.head(&own()).await.unwrap().unwrap().summary.revision, 1);
    assert_eq!(one.routes(), ["good"]);
}

#[tokio::test]
async fn the_same_bytes_are_no_revision_and_export_gives_them_back() {
    let database = Database::fresh();
    let one = Replica::start(&database.url()).await;
    let publisher = one.publisher();
    let first = publish(&publisher, &document("a", NOWHERE), None).await.unwrap();
    assert!(first.changed);
    let exported = publisher.head(&own()).await.unwrap().unwrap().content;
    let again = publish(&publisher, std::str::from_utf8(&exported).unwrap(), None).await.unwrap();
    assert_eq!((again.changed, again.revision, again.changes), (false, 1, vec![]));
    let written_otherwise = format!("# a comment\n{}", document("a", NOWHERE));
    assert!(!publish(&publisher, &written_otherwise, None).await.unwrap().changed);
}

#[tokio::test]
async fn of_concurrent_publishers_that_expect_the_same_revision_exactly_one_wins() {
    let database = Database::fresh();
    let one = Replica::start(&database.url()).await;
    let publisher = one.publisher();
    publish(&publisher, &document("base", NOWHERE), Some(0)).await.unwrap();
    let attempts = (0..8).map(|n| {
        let publisher = publisher.clone();
        tokio::spawn(async move { publish(&publisher, &document(&format!("c{n}"), NOWHERE), Some(1)).await })
    });
    let attempts: Vec<_> = attempts.collect();
    let mut won = 0;
    for attempt in attempts {
        match attempt.await.unwrap() {
            Ok(published) => {
                assert_eq!(published.revision, 2);
                won += 1;
            }
            Err(PublishError::Conflict { expected, found }) => assert_eq!((expected, found), (1, 2)),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn a_rollback_publishes_the_old_document_as_a_new_revision() {
    let database = Database::fresh();
    let one = Replica::start(&database.url()).await;
    let publisher = one.publisher();
    publish(&publisher, &document("old", NOWHERE), None).await.unwrap();
    let second = publish(&publisher, &document("new", NOWHERE), None).await.unwrap();
    assert!(!second.changes.is_empty(), "the change is put in words");
    assert_eq!(publisher.diff(&own(), 1, 2).await.unwrap(), second.changes);
    let back = publisher.rollback(&own(), 1, "test", None, Some(2)).await.unwrap();
    assert_eq!((back.revision, back.parent), (3, 2));
    eventually("the old route is back", async || (one.routes() == ["old"]).then_some(())).await;
    let history = publisher.history(&own(), None, Page::of(10)).await.unwrap();
    let told: Vec<_> = history.iter().map(|r| (r.revision, r.reason.as_str())).collect();
    assert_eq!(told, [(3, "rollback to revision 1"), (2, "because"), (1, "because")]);
    let (first, third) = (publisher.show(&own(), 1).await.unwrap(), publisher.show(&own(), 3).await.unwrap());
    assert_eq!(first.content, third.content);
    assert!(matches!(
        publisher.rollback(&own(), 9, "test", None, None).await,
        Err(PublishError::Missing { revision: 9, .. })
    ));
}

#[tokio::test]
async fn the_embedded_default_is_a_first_revision_and_changes_outlive_a_crash() {
    let folder = Folder::new();
    let process = start(Document::Embedded, &folder).await;
    let caller = Caller::new(process.mcp_address().expect("it has a data plane"), "/mcp/demo");
    assert_eq!(caller.ask(&caller.modern("tools/list", serde_json::json!({}))).await.status(), 200);
    let publisher = process.publisher().unwrap().clone();
    let first = publisher.head(&own()).await.unwrap().unwrap().summary;
    assert_eq!((first.revision, &*first.author, &*first.reason), (1, "tollgate", "embedded default"));
    let up = Upstream::modern().await;
    publish(&publisher, &document("mine", &up.url()), Some(1)).await.unwrap();
    // Nothing is ended politely: what was acknowledged is all there is.
    off_runtime(move || drop(process)).await;
    let process = start(Document::Embedded, &folder).await;
    assert_eq!(process.routes().len(), 1);
    assert_eq!(process.routes()[0].0, "mine");
    let caller = Caller::new(process.mcp_address().expect("it has a data plane"), "/mcp/mine");
    assert_eq!(caller.ask(&caller.modern("tools/list", serde_json::json!({}))).await.status(), 200);
    let publisher = process.publisher().unwrap().clone();
    assert_eq!(publisher.head(&own()).await.unwrap().unwrap().summary.revision, 2);
    off_runtime(move || drop(process)).await;
}

#[tokio::test]
async fn what_is_told_of_a_document_never_holds_a_secrets_value() {
    let database = Database::fresh();
    let up = Upstream::modern().await;
    let one = Replica::start(&database.url()).await;
    let store = one.process().store().unwrap();
    let value = tollgate::base::Secret::new(b"hunter2-and-more".to_vec());
    store
        .tenant(&tollgate::base::TenantId::default())
        .put_secret("token", &value, "test", whatever)
        .await
        .unwrap();
    let publisher = one.publisher();
    publish(&publisher, &document("r", &up.url()), None).await.unwrap();
    let with =
        |path: &str| document("r", &up.url()).replace("limits: []", &format!("limits: [], path: \"{path}\""));
    // In a place that is shown, where it changes something and where it is wrong.
    let told = publisher.diff_with(&own(), 1, with("/mcp/${secret:token}").as_bytes()).await.unwrap();
    assert!(told.iter().any(|line| line.contains("/mcp/${secret:token}")), "{told:?}");
    assert!(!format!("{told:?}").contains("hunter2"), "{told:?}");
    let refused = publisher.diff_with(&own(), 1, with("${secret:token}").as_bytes()).await.unwrap_err();
    assert!(!refused.to_string().contains("hunter2"), "{refused}");
    let trial =
        publisher.trial(&tollgate::base::TenantId::default(), with("${secret:token}").as_bytes()).await;
    assert!(!format!("{:?}", trial.err()).contains("hunter2"));
}

/// `tollgate secrets` beside an embedded store is another process: nobody tells the gateway of it.
#[tokio::test]
async fn a_secret_that_another_process_sets_is_used() {
    let folder = Folder::new();
    let process = start(Document::Embedded, &folder).await;
    let data = folder.path().join("data");
    let set = |value: &str| {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(["secrets", "set", "upstream", "--data-dir"])
            .arg(&data)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), value.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    };
    set("first");
    let up = Upstream::modern().await;
    let text = document("mine", &up.url())
        .replace("health:", "era: modern, credential: { bearer: \"${secret:upstream}\" }, health:");
    let publisher = process.publisher().unwrap().clone();
    publish(&publisher, &text, Some(1)).await.unwrap();
    let caller = Caller::new(process.mcp_address().expect("it has a data plane"), "/mcp/mine");
    let authorized = async |by: &str| {
        caller.ask(&caller.tool("t")).await.status() == 200
            && up.calls().last().unwrap().header("authorization") == Some(&format!("Bearer {by}"))
    };
    eventually("it is served", async || authorized("first").await.then_some(())).await;
    set("second");
    eventually("the new one is used", async || authorized("second").await.then_some(())).await;
    off_runtime(move || drop(process)).await;
}
