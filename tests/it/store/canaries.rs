//! Canaries in the store: one at a time, beside a head that has not moved, by tenant.

use std::time::Duration;

use tollgate::base::Scope;
use tollgate::store::{CanaryEnd, CanaryReport, CandidateSource, NewCanary, NewRevision, Page, StoreError};
use uuid::Uuid;

use super::{Fixture, each_engine, tenant};

each_engine!(
    one_runs_at_a_time_beside_a_head_that_stays,
    shares_follow_each_other_in_time,
    reports_are_running_totals_and_go_with_the_canary,
);

fn revision(content: &[u8]) -> NewRevision<'_> {
    NewRevision { content, schema_version: 1, author: "ada", reason: "", if_revision: None }
}

fn new<'a>(fixture: &Fixture, id: u128, base: i64, candidate: CandidateSource<'a>) -> NewCanary<'a> {
    let now = fixture.store.now();
    NewCanary {
        id: Uuid::from_u128(id),
        base,
        candidate,
        kind: "principals",
        share: 1000,
        share_at: now.plus(Duration::from_secs(3)),
        rules: "{}",
        started_by: "ada",
        reason: "try it",
        deadline: now.plus(Duration::from_secs(60)),
    }
}

fn end(state: &str) -> CanaryEnd<'_> {
    CanaryEnd { state, by: "tollgate", reason: "because", promoted: None, figures: "{}", if_share: None }
}

async fn one_runs_at_a_time_beside_a_head_that_stays(fixture: Fixture) {
    let store = &fixture.store;
    let (acme, other) = (tenant("acme"), tenant("other"));
    let scope = store.tenant(&acme);
    let fresh = CandidateSource::New(revision(b"two"));
    let error = scope.start_canary(new(&fixture, 1, 1, fresh)).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { expected: 1, found: 0 }), "{error}");
    scope.publish(revision(b"one")).await.unwrap();
    let started = scope.start_canary(new(&fixture, 1, 1, fresh)).await.unwrap();
    assert_eq!((started.base, started.candidate, started.state.as_str()), (1, 2, "running"));
    assert_eq!(scope.head().await.unwrap().unwrap().revision, 1);
    assert_eq!(scope.revision(2).await.unwrap().unwrap().content, b"two");
    let error = scope.start_canary(new(&fixture, 2, 1, fresh)).await.unwrap_err();
    assert!(matches!(error, StoreError::Duplicate(_)), "{error}");
    let error = scope.start_canary(new(&fixture, 2, 7, fresh)).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { expected: 7, found: 1 }), "{error}");
    // Whatever is published meanwhile has a number of its own.
    let head = scope.publish(revision(b"three")).await.unwrap();
    assert_eq!(head.revision, 3);
    assert_eq!(store.platform().running_canaries().await.unwrap(), std::slice::from_ref(&started));

    let ended = scope.end_canary(started.id, end("aborted")).await.unwrap().unwrap();
    assert_eq!((ended.state.as_str(), ended.ended_by.as_deref()), ("aborted", Some("tollgate")));
    assert!(scope.end_canary(started.id, end("promoted")).await.unwrap().is_none(), "it has ended");
    let missing = CandidateSource::Existing(9);
    let error = scope.start_canary(new(&fixture, 2, 3, missing)).await.unwrap_err();
    assert!(matches!(error, StoreError::Missing(_)), "{error}");
    let old = scope.start_canary(new(&fixture, 2, 3, CandidateSource::Existing(2))).await.unwrap();
    assert_eq!((old.base, old.candidate), (3, 2));
    assert_eq!(scope.canaries(Page::of(10)).await.unwrap().len(), 2);

    // Another tenant's are not there, and cannot be ended.
    let theirs = store.tenant(&other);
    assert!(theirs.canaries(Page::of(10)).await.unwrap().is_empty());
    assert!(theirs.canary(old.id).await.unwrap().is_none());
    assert!(theirs.end_canary(old.id, end("aborted")).await.unwrap().is_none());
    assert_eq!(store.platform().running_canaries().await.unwrap(), [old]);
    let history = store.platform().history(&Scope::Tenant(acme), None, Page::of(10)).await.unwrap();
    assert_eq!(history.iter().map(|r| (r.revision, r.parent)).collect::<Vec<_>>(), [(3, 1), (2, 1), (1, 0)]);
}

async fn shares_follow_each_other_in_time(fixture: Fixture) {
    let acme = tenant("acme");
    let scope = fixture.store.tenant(&acme);
    scope.publish(revision(b"one")).await.unwrap();
    let started =
        scope.start_canary(new(&fixture, 1, 1, CandidateSource::New(revision(b"two")))).await.unwrap();
    assert_eq!((started.share_before, started.share), (0, 1000));
    // Before the first holds: nobody still is what holds until then.
    let later = fixture.store.now().plus(Duration::from_secs(5));
    let changed = scope.share_canary(started.id, 2000, later, None).await.unwrap();
    assert_eq!((changed.share_before, changed.share, changed.share_at), (0, 2000, later));
    fixture.clock.advance(Duration::from_secs(6));
    let later = fixture.store.now().plus(Duration::from_secs(5));
    let changed = scope.share_canary(started.id, 5000, later, None).await.unwrap();
    assert_eq!((changed.share_before, changed.share), (2000, 5000));
    scope.end_canary(started.id, end("promoted")).await.unwrap();
    let error = scope.share_canary(started.id, 6000, later, None).await.unwrap_err();
    assert!(matches!(error, StoreError::Missing(_)), "{error}");
}

async fn reports_are_running_totals_and_go_with_the_canary(fixture: Fixture) {
    let acme = tenant("acme");
    let (scope, platform) = (fixture.store.tenant(&acme), fixture.store.platform());
    scope.publish(revision(b"one")).await.unwrap();
    let started =
        scope.start_canary(new(&fixture, 1, 1, CandidateSource::New(revision(b"two")))).await.unwrap();
    let report = |boot: u128, figures: &str| CanaryReport {
        tenant: "acme".to_owned(),
        canary: started.id,
        boot: Uuid::from_u128(boot),
        figures: figures.to_owned(),
        refusal: None,
        reported_at: fixture.store.now(),
    };
    platform.report_canaries(&[report(1, "a"), report(2, "b")]).await.unwrap();
    let refused = CanaryReport { refusal: Some("it does not compile".to_owned()), ..report(2, "c") };
    platform.report_canaries(std::slice::from_ref(&refused)).await.unwrap();
    assert_eq!(scope.canary_reports(started.id).await.unwrap(), [report(1, "a"), refused]);
    assert_eq!(platform.forget_canary_reports().await.unwrap(), 0);
    scope.end_canary(started.id, end("rolled_back")).await.unwrap();
    assert_eq!(platform.forget_canary_reports().await.unwrap(), 2);
}
