use super::super::event::MAX_LONG;
use super::super::{Class, Position, Settings, WriterId};
use super::*;

#[test]
fn masked_fields_never_reach_the_spool() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        dir: dir.path().to_owned(),
        max_size: 4 << 20,
        segment_size: 1 << 20,
        durability: Durability::Process,
        on_full: OnFull::Refuse,
    };
    let spool = Spool::open(settings, WriterId::fresh(), 0).unwrap();
    let mask = Mask {
        client_ip: true,
        reason: true,
        name: true,
        principal: true,
        session: true,
        target: true,
        request_body: true,
        response_body: true,
    };
    let auditor = Auditor::new(spool.clone(), mask, MAX_BODY, allowance(5), Clock::default());
    assert_eq!(auditor.most_of_bodies(), (0, 0));
    let event = Event {
        principal: Some("ann@example.com"),
        name: Some("secret_tool"),
        reason: Some("because"),
        target: Some("10.0.0.7"),
        session: Some(77),
        request_body: Some(b"ann's secret"),
        response_body: Some(b"ann's secret"),
        request_cut: Some(5),
        route: Some("weather"),
        client_ip: Some("203.0.113.77".parse().unwrap()),
        ..Event::new(1, "acme", Class::Data)
    };
    drop(auditor.record(&event, None).unwrap());
    let mut seen = 0;
    spool.read(Position::default(), 10, |_, _, record| {
        let event = Event::decode(record).unwrap();
        assert_eq!(
            (event.principal, event.name, event.reason, event.target),
            (Some(MASKED), Some(MASKED), Some(MASKED), Some(MASKED))
        );
        assert_eq!((event.session, event.route), (None, Some("weather")));
        assert_eq!((event.request_body, event.response_body, event.request_cut), (None, None, None));
        assert_eq!(event.client_ip, Some("203.0.113.0".parse().unwrap()));
        assert!(!record.windows(3).any(|w| w == b"ann"));
        seen += 1;
    });
    assert_eq!(seen, 1);
    assert_eq!(network("2001:db8:1:2::3".parse().unwrap()), "2001:db8:1::".parse::<IpAddr>().unwrap());
}

fn allowance(burst: u64) -> Allowance {
    Allowance { count: 1, per: Duration::from_secs(3600), burst }
}

/// A spool with room for a few thousand events, and what records into it.
fn small(burst: u64, on_full: OnFull) -> (tempfile::TempDir, Spool, Auditor) {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        dir: dir.path().to_owned(),
        max_size: 3 << 20,
        segment_size: 1 << 20,
        durability: Durability::Process,
        on_full,
    };
    let spool = Spool::open(settings, WriterId::fresh(), 0).unwrap();
    let auditor = Auditor::new(spool.clone(), Mask::default(), MAX_BODY, allowance(burst), Clock::default());
    (dir, spool, auditor)
}

fn refusal(tenant: &str) -> Event<'_> {
    Event {
        decision: Some("deny"),
        outcome: Some("unauthenticated"),
        status: Some(401),
        ..Event::new(1_796_000_000_000_000, tenant, Class::Data)
    }
}

/// How many refusals are told one by one, how many in sums, and in how many of those.
fn told(spool: &Spool) -> (u64, u64, u64) {
    let (mut single, mut summed, mut sums) = (0, 0, 0);
    spool.read(Position::default(), usize::MAX, |_, _, record| {
        let event = Event::decode(record).unwrap();
        match (event.outcome, event.count) {
            (Some("unauthenticated"), None) => single += 1,
            (Some("unauthenticated"), Some(count)) => (summed, sums) = (summed + count, sums + 1),
            _ => {}
        }
    });
    (single, summed, sums)
}

#[test]
fn a_flood_of_strangers_takes_little_room_and_each_is_counted() {
    let (_dir, spool, auditor) = small(100, OnFull::Refuse);
    let before = spool.end();
    for n in 0..200_000u64 {
        drop(auditor.record_unidentified(&refusal("acme"), if n % 2 == 0 { "expired" } else { "missing" }));
        if n % 20_000 == 0 {
            auditor.tell_unidentified(64);
        }
    }
    auditor.tell_unidentified(64);
    let (single, summed, sums) = told(&spool);
    assert_eq!((single, single + summed), (100, 200_000));
    assert!(sums <= 22, "one for each cause and interval: {sums}");
    assert_eq!(auditor.counts().unwrap().summarised(), summed);
    assert_eq!(spool.end().segment, before.segment, "a megabyte is far from full");
    assert!(spool.admit().is_ok(), "and calls find room");
}

#[test]
fn with_a_full_spool_strangers_are_counted_and_told_when_there_is_room_or_at_the_end() {
    for on_full in [OnFull::Refuse, OnFull::Drop] {
        let (_dir, spool, auditor) = small(1_000_000, on_full);
        let long = "x".repeat(MAX_LONG);
        let filler = Event { reason: Some(&long), detail: Some(&long), ..Event::new(1, "t", Class::Data) };
        for _ in 0..200 {
            while spool.append(&encoded(&filler), None).is_ok() {}
            // A segment may still be on its way.
            std::thread::sleep(Duration::from_millis(2));
        }
        while spool.append(&encoded(&refusal("none")), None).is_ok() {}
        let (before, ..) = told(&spool);
        for n in 0..500 {
            let tenant = format!("tenant-{n}");
            for _ in 0..10 {
                assert!(auditor.record_unidentified(&refusal(&tenant), "missing").0.is_none());
            }
        }
        auditor.tell_unidentified(usize::MAX);
        assert_eq!(told(&spool), (before, 0, 0), "no room");
        auditor.tell_last_unidentified();
        let (single, summed, sums) = told(&spool);
        assert_eq!((single, summed), (before, 5000), "{on_full:?}");
        assert!(sums <= LAST as u64 + 1, "{sums}");
        auditor.tell_last_unidentified();
        assert_eq!(told(&spool).1, 5000, "each once");
        let counts = auditor.counts().unwrap();
        assert_eq!((counts.summarised(), counts.dropped()), (5000, 0));
    }
}

fn encoded(event: &Event<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    event.encode(&mut bytes);
    bytes
}
