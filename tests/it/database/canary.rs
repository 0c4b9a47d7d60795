//! Canaries: a revision beside the head, for some callers or replicas.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tollgate::app::Document;
use tollgate::base::TenantId;
use tollgate::canary::{Kind, Rules};
use tollgate::source::PublishError;
use tollgate::source::canary::{CanaryError, Candidate, GRACE, Start, Wish, figures_of};
use tollgate::store::{Canary, Page, Store, whatever};

use super::events::{Reader, Told};
use super::identities::make_key;
use super::{Replica, document, off_runtime, own, publish, start};
use crate::support::postgres::{Database, Durability, Postgres};
use crate::support::{Caller, Era, Folder, Reply, Upstream, eventually};

/// How soon after the first judged calls a candidate that fails is rolled back.
const ROLLED_BACK_WITHIN: Duration = Duration::from_secs(5);

/// What `${env:ADMIN}` is in [`Replica`]'s file.
const TOKEN: &str = "an-operators-token";

/// Callers by name, with their keys.
type Callers = BTreeMap<String, String>;

async fn callers(store: &Store, count: usize) -> Callers {
    let mut callers = Callers::new();
    for n in 0..count {
        let name = format!("corp|user-{n}");
        let (_, key) = make_key(store, &name).await;
        callers.insert(name, key);
    }
    callers
}

fn keyed(route: &str, target: &str) -> String {
    document(route, target).replace("loopback: { role: developer }", "api_keys: true")
}

fn fast() -> Rules {
    Rules { min_calls: 10, window: 5, hold: 600, ..Rules::default() }
}

fn plan(candidate: &str, kind: Kind, share: &str, rules: Rules) -> Start {
    Start {
        tenant: TenantId::default(),
        candidate: Candidate::Document(candidate.as_bytes().to_vec()),
        kind,
        share: share.parse().unwrap(),
        rules,
        author: "ada".to_owned(),
        reason: "try it".to_owned(),
        if_revision: None,
    }
}

/// Status and revision of a call.
async fn call(replica: &Replica, key: &str) -> (u16, String) {
    let caller = replica.caller("s").bearer(key);
    let answer = caller.ask(&caller.modern("tools/list", json!({}))).await;
    (answer.status(), answer.header("x-tollgate-revision").unwrap_or_default().to_owned())
}

/// The revision that each caller is served; all of these replicas must agree.
async fn sides(replicas: &[&Replica], callers: &Callers) -> BTreeMap<String, String> {
    let mut sides = BTreeMap::new();
    for (name, key) in callers {
        let mut seen = BTreeSet::new();
        for replica in replicas {
            seen.insert(call(replica, key).await.1);
        }
        assert_eq!(seen.len(), 1, "{name} is on two sides: {seen:?}");
        sides.insert(name.clone(), seen.pop_first().unwrap());
    }
    sides
}

fn on(sides: &BTreeMap<String, String>, revision: &str) -> BTreeSet<String> {
    sides.iter().filter(|(_, served)| *served == revision).map(|(name, _)| name.clone()).collect()
}

async fn keys_known(replicas: &[&Replica], callers: &Callers) {
    let (_, last) = callers.last_key_value().unwrap();
    for replica in replicas {
        eventually("keys and head are known", async || (call(replica, last).await.0 == 200).then_some(()))
            .await;
    }
}

/// Waits until a share holds on all replicas.
async fn in_force(canary: &Canary, replicas: &[&Replica]) {
    let now = replicas[0].process().store().unwrap().now();
    tokio::time::sleep(canary.share_at.since(now) + Duration::from_millis(300)).await;
}

async fn latest(replica: &Replica) -> Canary {
    replica.canaries().list(&TenantId::default(), 1).await.unwrap().remove(0)
}

async fn ended(replica: &Replica) -> Canary {
    eventually("the canary ends", async || {
        let canary = latest(replica).await;
        (canary.state != "running").then_some(canary)
    })
    .await
}

#[tokio::test]
async fn a_caller_is_on_one_side_on_every_replica_also_after_a_restart_and_only_moves_to_the_candidate() {
    let database = Database::fresh();
    let (old, new) = (Upstream::modern().await, Upstream::modern().await);
    let (one, two) = (Replica::start(&database.url()).await, Replica::start(&database.url()).await);
    publish(&one.publisher(), &keyed("s", &old.url()), None).await.unwrap();
    let callers = callers(one.process().store().unwrap(), 40).await;
    keys_known(&[&one, &two], &callers).await;

    let rules = Rules { min_calls: 100_000, ..fast() };
    let started =
        one.canaries().start(plan(&keyed("s", &new.url()), Kind::Principals, "30%", rules)).await.unwrap();
    assert_eq!((started.base, started.candidate), (1, 2));
    let lead = started.share_at.since(started.started_at).as_millis();
    assert!((900..=1_200).contains(&lead), "a poll of 500 ms, a fifth, and 600 ms: {lead} ms");
    assert_eq!(one.publisher().head(&own()).await.unwrap().unwrap().summary.revision, 1, "the head stays");
    assert_eq!(new.count("tools/list"), 0, "nobody before the share holds");
    in_force(&started, &[&one, &two]).await;

    let before = sides(&[&one, &two], &callers).await;
    let tried = on(&before, "default@2");
    assert!((3..=25).contains(&tried.len()), "{} of 40 at 30%", tried.len());
    assert_eq!(on(&before, "default@1").len(), 40 - tried.len());
    assert!(new.count("tools/list") >= 2 * tried.len(), "the candidate's server has their calls");
    for _ in 0..3 {
        assert_eq!(sides(&[&one, &two], &callers).await, before, "nobody moves between requests");
    }

    let two = two.restart().await;
    for (name, key) in &callers {
        assert_eq!(call(&two, key).await.1, before[name], "{name} right after a restart");
    }

    let grown = two.canaries().share(&started, "60%".parse().unwrap(), None).await.unwrap();
    assert_eq!(sides(&[&one, &two], &callers).await, before, "not before all replicas know");
    in_force(&grown, &[&one, &two]).await;
    let after = on(&sides(&[&one, &two], &callers).await, "default@2");
    assert!(tried.is_subset(&after) && after.len() > tried.len(), "{} then {}", tried.len(), after.len());

    let over = one.canaries().end(&grown, Wish::Abort, "ada", "seen enough", None).await.unwrap();
    assert_eq!((over.state.as_str(), over.end_reason.as_deref()), ("aborted", Some("seen enough")));
    for replica in [&one, &two] {
        eventually("everybody is served the base", async || {
            (on(&sides(&[replica], &callers).await, "default@1").len() == 40).then_some(())
        })
        .await;
    }
    let again = one.canaries().end(&grown, Wish::Abort, "ada", "", None).await.unwrap_err();
    assert!(matches!(again, CanaryError::None), "{again}");
    let late = one.canaries().end(&grown, Wish::Promote, "ada", "", None).await.unwrap_err();
    assert!(matches!(late, CanaryError::None), "what has ended is not promoted: {late}");
    // Numbers go on after a revision that never was the head.
    let published = publish(&one.publisher(), &keyed("s", &new.url()), None).await.unwrap();
    assert_eq!((published.revision, published.parent), (3, 1));
}

#[tokio::test]
async fn a_candidate_that_fails_is_rolled_back_by_itself_and_only_its_callers_notice() {
    let database = Database::fresh();
    let good = Upstream::modern().await;
    let bad = Upstream::scripted(Era::Modern, |_| Some(Reply::status(500))).await;
    let (one, two) = (Replica::start(&database.url()).await, Replica::start(&database.url()).await);
    publish(&one.publisher(), &keyed("s", &good.url()), None).await.unwrap();
    let callers = callers(one.process().store().unwrap(), 20).await;
    keys_known(&[&one, &two], &callers).await;
    let admin = two.process().admin_address();
    let follow = async |topic: &str| Reader::open(admin, TOKEN, &format!("?topics={topic}"), None).await;
    let (mut config, mut audit) = (follow("config").await, follow("audit").await);
    let started =
        one.canaries().start(plan(&keyed("s", &bad.url()), Kind::Principals, "40%", fast())).await.unwrap();
    in_force(&started, &[&one, &two]).await;
    let judged = Instant::now();
    let mut hurt = BTreeSet::new();
    let end = loop {
        for (name, key) in &callers {
            for replica in [&one, &two] {
                let (status, revision) = call(replica, key).await;
                match revision.as_str() {
                    "default@1" => assert_eq!(status, 200, "{name} is on the base"),
                    _ => assert!(
                        status >= 500 && hurt.insert(name.clone()) || hurt.contains(name),
                        "{name}: {status}"
                    ),
                }
            }
        }
        let canary = latest(&two).await;
        if canary.state != "running" {
            break canary;
        }
        assert!(judged.elapsed() < ROLLED_BACK_WITHIN, "still running: {canary:?}");
    };
    let reason = end.end_reason.clone().unwrap();
    assert_eq!((end.state.as_str(), end.ended_by.as_deref()), ("rolled_back", Some("tollgate")));
    assert!(reason.contains("errors 100.0 %"), "{reason}");
    assert!(!hurt.is_empty() && hurt.len() < callers.len(), "{} of {}", hurt.len(), callers.len());
    let figures = figures_of(&end).unwrap();
    assert!(
        figures.candidate.calls >= 10 && figures.candidate.errors == figures.candidate.calls,
        "{figures:?}"
    );
    assert!(figures.base.calls > 0 && figures.base.errors == 0, "{figures:?}");
    for replica in [&one, &two] {
        eventually("everybody is served the base", async || {
            (on(&sides(&[replica], &callers).await, "default@1").len() == callers.len()).then_some(())
        })
        .await;
    }
    // Told by the replica that did not do it, and recorded by the one that did.
    for state in ["running", "rolled_back"] {
        let told = config.until(state, |told| told.json["data"]["kind"] == "canary").await.json;
        assert_eq!((&told["data"]["state"], &told["tenant"]), (&json!(state), &json!("default")), "{told}");
    }
    for action in ["canary.started", "canary.rolled_back"] {
        let wanted = |told: &Told| told.json["data"]["event"]["action"] == action;
        let told = audit.until(action, wanted).await.json;
        let by = if action == "canary.started" { "ada" } else { "tollgate" };
        assert_eq!(told["data"]["event"]["principal"], by, "{told}");
    }
    assert_eq!(one.publisher().head(&own()).await.unwrap().unwrap().summary.revision, 1);
}

#[tokio::test]
async fn a_candidate_that_does_well_is_promoted_and_one_whose_base_is_gone_is_not() {
    let database = Database::fresh();
    let (old, new) = (Upstream::modern().await, Upstream::modern().await);
    let one = Replica::start(&database.url()).await;
    publish(&one.publisher(), &keyed("s", &old.url()), None).await.unwrap();
    let callers = callers(one.process().store().unwrap(), 12).await;
    keys_known(&[&one], &callers).await;
    let rules = Rules { hold: 1, auto_promote: true, max_latency_ratio: None, ..fast() };
    let (candidate, all) = (keyed("s", &new.url()), Kind::Principals);
    one.canaries().start(plan(&candidate, all, "50%", rules.clone())).await.unwrap();
    let second = one.canaries().start(plan(&candidate, all, "50%", rules.clone())).await.unwrap_err();
    assert!(matches!(second, CanaryError::Running(_)), "{second}");
    let end = eventually("it is promoted", async || {
        sides(&[&one], &callers).await;
        let canary = latest(&one).await;
        (canary.state != "running").then_some(canary)
    })
    .await;
    assert_eq!((end.state.as_str(), end.promoted), ("promoted", Some(3)), "{:?}", end.end_reason);
    let head = one.publisher().head(&own()).await.unwrap().unwrap();
    assert_eq!((head.summary.revision, head.summary.parent), (3, 1));
    assert_eq!(head.content, one.publisher().show(&own(), 2).await.unwrap().content);
    assert!(head.summary.reason.starts_with("canary of revision 2 promoted"), "{}", head.summary.reason);
    eventually("everybody is served it", async || {
        (on(&sides(&[&one], &callers).await, "default@3").len() == 12).then_some(())
    })
    .await;

    // Somebody publishes while another is tried.
    one.canaries().start(plan(&keyed("s", &old.url()), all, "50%", rules)).await.unwrap();
    let moved = publish(&one.publisher(), &keyed("s", "http://127.0.0.1:9/mcp"), None).await.unwrap();
    assert_eq!((moved.revision, moved.parent), (5, 3));
    let end = ended(&one).await;
    assert_eq!(end.state, "aborted");
    let reason = end.end_reason.unwrap();
    assert!(reason.contains("the head moved to revision 5"), "{reason}");
}

#[tokio::test]
async fn a_share_of_replicas_is_some_and_not_all_of_them() {
    let database = Database::fresh();
    let (old, new) = (Upstream::modern().await, Upstream::modern().await);
    let one = Replica::start(&database.url()).await;
    publish(&one.publisher(), &keyed("s", &old.url()), None).await.unwrap();
    let callers = callers(one.process().store().unwrap(), 4).await;
    let alone = plan(&keyed("s", &new.url()), Kind::Replicas, "50%", fast());
    eventually("it is heard of", async || {
        let live = one.process().store().unwrap().platform().replicas(Duration::from_secs(10)).await.unwrap();
        (live.len() == 1).then_some(())
    })
    .await;
    let error = one.canaries().start(alone.clone()).await.unwrap_err();
    assert!(matches!(error, CanaryError::Replicas(1)), "{error}");
    let two = Replica::start(&database.url()).await;
    keys_known(&[&one, &two], &callers).await;
    let started = eventually("both live", async || one.canaries().start(alone.clone()).await.ok()).await;
    in_force(&started, &[&one, &two]).await;
    let (here, there) = (sides(&[&one], &callers).await, sides(&[&two], &callers).await);
    let tried = [on(&here, "default@2").len(), on(&there, "default@2").len()];
    assert!(tried == [0, 4] || tried == [4, 0], "{tried:?}");
    let fixed = one.canaries().share(&started, "60%".parse().unwrap(), None).await.unwrap_err();
    assert!(matches!(fixed, CanaryError::Fixed), "{fixed}");
    let two = two.restart().await;
    assert_eq!(sides(&[&two], &callers).await, there, "the replica is known by its name, not by its process");
}

#[tokio::test]
async fn a_replica_that_starts_with_the_database_away_moves_nobody_to_the_other_side() {
    let server = Arc::new(Postgres::start(Durability::Full));
    let database = server.database();
    let (old, new) = (Upstream::modern().await, Upstream::modern().await);
    let one = Replica::start(&database.url()).await;
    let store = one.process().store().unwrap().clone();
    let secret = tollgate::base::Secret::new(b"s3cr3t".to_vec());
    store.tenant(&TenantId::default()).put_secret("upstream", &secret, "test", whatever).await.unwrap();
    publish(&one.publisher(), &keyed("s", &old.url()), None).await.unwrap();
    let callers = callers(&store, 12).await;
    keys_known(&[&one], &callers).await;
    // Only the candidate names a secret.
    let candidate =
        keyed("s", &new.url()).replace("health:", "credential: { bearer: \"${secret:upstream}\" }, health:");
    let rules = Rules { min_calls: 100_000, ..fast() };
    let started = one.canaries().start(plan(&candidate, Kind::Principals, "50%", rules)).await.unwrap();
    in_force(&started, &[&one]).await;
    let before = sides(&[&one], &callers).await;
    let tried = on(&before, "default@2").len();
    assert!((1..12).contains(&tried), "{tried} of 12 at 50%");

    server.kill();
    let one = one.restart().await;
    assert_eq!(sides(&[&one], &callers).await, before, "as it was, from disk");
    assert_eq!(new.calls().last().unwrap().header("authorization"), Some("Bearer s3cr3t"));

    server.restart();
    let store = one.process().store().unwrap().clone();
    let running = eventually("the database is back", async || {
        store.tenant(&TenantId::default()).canary(started.id).await.ok().flatten()
    })
    .await;
    assert_eq!(running.state, "running");
    one.canaries().end(&running, Wish::Abort, "ada", "", None).await.unwrap();
    eventually("everybody is served the base", async || {
        (on(&sides(&[&one], &callers).await, "default@1").len() == 12).then_some(())
    })
    .await;
    // And what has ended is not begun again.
    eventually("the end is on disk", async || {
        let kept = std::fs::read(one.data_dir().join("cache/canaries")).unwrap();
        kept.ends_with(b"\n[]").then_some(())
    })
    .await;
    server.kill();
    let one = one.restart().await;
    assert_eq!(on(&sides(&[&one], &callers).await, "default@1").len(), 12);
}

#[tokio::test]
async fn a_canary_that_nobody_can_end_ends_by_itself_soon_after_its_deadline() {
    let server = Arc::new(Postgres::start(Durability::Full));
    let database = server.database();
    let (old, new) = (Upstream::modern().await, Upstream::modern().await);
    let one = Replica::start(&database.url()).await;
    publish(&one.publisher(), &keyed("s", &old.url()), None).await.unwrap();
    let callers = callers(one.process().store().unwrap(), 1).await;
    keys_known(&[&one], &callers).await;
    let rules = Rules { hold: 1, deadline: 2, ..fast() };
    let started =
        one.canaries().start(plan(&keyed("s", &new.url()), Kind::Principals, "100%", rules)).await.unwrap();
    in_force(&started, &[&one]).await;
    assert_eq!(on(&sides(&[&one], &callers).await, "default@2").len(), 1);
    server.kill();
    let clock = one.process().store().unwrap().clone();
    let over = started.deadline.plus(GRACE);
    loop {
        let before = clock.now();
        let served = sides(&[&one], &callers).await;
        let after = clock.now();
        match served.values().next().unwrap().as_str() {
            "default@2" => assert!(before < over, "still tried {:?} after its end", before.since(over)),
            _ => {
                assert!(after >= over, "ended {:?} before its time", over.since(after));
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.restart();
    let end = ended(&one).await;
    assert_eq!(end.state, "rolled_back");
    assert!(end.end_reason.unwrap().contains("the deadline has passed"));
}

#[tokio::test]
async fn the_embedded_store_tries_on_callers_and_says_why_not_on_replicas() {
    let folder = Folder::new();
    let process = start(Document::Embedded, &folder).await;
    let up = Upstream::modern().await;
    let (publisher, canaries) = (process.publisher().unwrap().clone(), process.canaries().unwrap().clone());
    let store = process.store().unwrap().clone();
    publish(&publisher, &keyed("s", &up.url()), None).await.unwrap();
    let callers = callers(&store, 16).await;
    let revision = async |key: &str| {
        let caller = Caller::new(process.mcp_address().unwrap(), "/mcp/s").bearer(key);
        let answer = caller.ask(&caller.modern("tools/list", json!({}))).await;
        (answer.status(), answer.header("x-tollgate-revision").unwrap_or_default().to_owned())
    };
    let (_, last) = callers.last_key_value().unwrap();
    eventually("it is served", async || (revision(last).await.0 == 200).then_some(())).await;
    let candidate =
        keyed("s", &up.url()).replace("limits: []", "limits: [], methods: [\"tools/*\", \"server/*\"]");
    for (text, kind, wrong) in [
        (candidate.as_str(), Kind::Replicas, "the embedded store has one"),
        ("version: 1\nroutes: [{ name: x, servers: [nobody] }]\n", Kind::Principals, "nobody"),
        (keyed("s", &up.url()).as_str(), Kind::Principals, "nothing to try"),
    ] {
        let error = canaries.start(plan(text, kind, "50%", fast())).await.unwrap_err().to_string();
        assert!(error.contains(wrong), "{error}");
    }
    let stale = Start { if_revision: Some(1), ..plan(&candidate, Kind::Principals, "50%", fast()) };
    let error = canaries.start(stale).await.unwrap_err();
    assert!(
        matches!(error, CanaryError::Publish(PublishError::Conflict { expected: 1, found: 2 })),
        "{error}"
    );
    let history = publisher.history(&own(), None, Page::of(10)).await.unwrap();
    assert_eq!(history.len(), 2, "nothing was stored");

    canaries.start(plan(&candidate, Kind::Principals, "50%", fast())).await.unwrap();
    let served = eventually("some are served the candidate", async || {
        let mut served = BTreeSet::new();
        for key in callers.values() {
            served.insert(revision(key).await.1);
        }
        (served.len() == 2).then_some(served)
    })
    .await;
    assert_eq!(served, BTreeSet::from(["default@2".to_owned(), "default@3".to_owned()]));
    let figures = eventually("calls are counted", async || {
        let running = canaries.running(&TenantId::default()).await.unwrap();
        let figures = canaries.figures(&running).await.unwrap();
        (figures.candidate.calls > 0 && figures.base.calls > 0).then_some(figures)
    })
    .await;
    assert_eq!(figures.candidate.errors, 0);
    let running = canaries.running(&TenantId::default()).await.unwrap();
    let promoted = canaries.end(&running, Wish::Promote, "ada", "good", None).await.unwrap();
    assert_eq!((promoted.state.as_str(), promoted.promoted), ("promoted", Some(4)));
    off_runtime(move || drop(process)).await;
}
