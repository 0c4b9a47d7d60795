//! What is asked for is bounded, and what is out of bounds is refused and not cut.

use serde_json::json;
use tollgate::audit::{Chain, ChainId, Class, Keys, Position, WriterId};
use tollgate::store::{AuditBatch, MovedChain, NewEvent};

use super::plane::Plane;
use crate::support::eventually;

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

/// More events of `a` than an export may keep for a reader that does not read.
async fn with_a_long_log(plane: &Plane) {
    let writer = WriterId::fresh();
    let id = ChainId { tenant: "a".to_owned(), writer, class: Class::Data };
    let mut chain = Chain::at(&id, id.genesis());
    let now = plane.store.now();
    let payload = json!({ "reason": "x".repeat(900) }).to_string();
    let events: Vec<NewEvent> = (0..4000)
        .map(|_| {
            let linked = chain.append(now.micros().unsigned_abs(), &[0; 16], payload.as_bytes());
            NewEvent {
                class: Class::Data,
                sequence: linked.head.sequence,
                time: now,
                commitment: linked.commitment,
                link: linked.head.link,
                salt: [0; 16],
                payload: payload.as_str().into(),
                keys: Keys { tenant: "a".into(), ..Keys::default() },
            }
        })
        .collect();
    let batch = AuditBatch {
        writer,
        from: Position::default(),
        to: Position { segment: 0, offset: 8 },
        events,
        chains: vec![MovedChain { from: id.genesis(), to: chain.head(), id }],
        usage: Vec::new(),
        metrics: Vec::new(),
    };
    plane.store.platform().audit_day(now).await.unwrap();
    plane.store.platform().audit_write(&batch).await.unwrap();
}

#[tokio::test]
async fn one_tenants_exports_leave_places_to_others() {
    let plane = Plane::start().await;
    with_a_long_log(&plane).await;
    let line = |tenant: &str| format!("GET /api/v1/tenants/{tenant}/audit/export");
    let begin = async |tenant: &str| {
        let key = format!("tg_{tenant}_admin");
        plane.begin(&key, &line(tenant), &[], None, "application/json").await
    };
    let unread = begin("a").await;
    assert_eq!(unread.status(), 200);
    for _ in 0..10 {
        let more = plane.ask("tg_a_admin", &line("a"), &[], None).await;
        assert_eq!((more.status.as_u16(), &more.headers["retry-after"]), (429, &"30".parse().unwrap()));
        assert_eq!(more.json()["code"], "too_many_requests");
    }
    // However many more `a` asked for, others have theirs, and it has its own again when its reader is gone.
    for tenant in ["b", "c", "d", "e"] {
        assert_eq!(plane.ask(&format!("tg_{tenant}_admin"), &line(tenant), &[], None).await.status, 200);
    }
    drop(unread);
    eventually("the place is free again", async || (begin("a").await.status() == 200).then_some(())).await;
}
