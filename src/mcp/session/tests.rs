use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::base::{Clock, PrincipalId, RouteId, TenantId};
use crate::mcp::seal::{KeyRing, Purpose, SealError};
use crate::mcp::version::Version;

const NOW: u64 = 1_800_000_000;
const MAX_AGE: u64 = 3600;

struct Owner {
    tenant: TenantId,
    route: RouteId,
    principal: PrincipalId,
}

fn owner(tenant: &str, route: &str, principal: &str) -> Owner {
    Owner { tenant: tenant.into(), route: route.into(), principal: principal.into() }
}

fn alice() -> Owner {
    owner("acme", "weather", "user:alice")
}

impl Owner {
    fn binding(&self) -> Binding<'_> {
        Binding { tenant: &self.tenant, route: &self.route, principal: &self.principal }
    }
}

fn token() -> SessionToken<'static> {
    SessionToken {
        target: Some("10.0.0.1:9001"),
        upstream: Some("5f0c-upstream"),
        version: Version::V2025_11_25,
        issued_at: NOW,
        home: BootId(7),
        serial: Serial::fresh(),
    }
}

fn ring() -> KeyRing {
    KeyRing::generate(NOW).unwrap()
}

fn open(ring: &KeyRing, owner: &Owner, id: &str, now: u64) -> Result<(), SessionError> {
    let mut buf = TokenBuf::default();
    SessionToken::open(ring, owner.binding(), id, now, MAX_AGE, &mut buf).map(|_| ())
}

mod ids {
    use super::*;

    #[test]
    fn a_session_id_carries_everything_there_and_back() {
        let ring = ring();
        for token in [
            token(),
            SessionToken { target: None, upstream: None, version: Version::V2024_11_05, ..token() },
            SessionToken { upstream: None, ..token() },
        ] {
            let id = token.mint(&ring, alice().binding()).unwrap();
            let mut buf = TokenBuf::default();
            let opened = SessionToken::open(&ring, alice().binding(), &id, NOW, MAX_AGE, &mut buf);
            assert_eq!(opened, Ok(token));
        }
    }

    #[test]
    fn the_longest_session_id_fits_its_header() {
        let (target, upstream) = ("t".repeat(MAX_TARGET_BYTES), "u".repeat(MAX_UPSTREAM_ID_BYTES));
        let long = SessionToken { target: Some(&target), upstream: Some(&upstream), ..token() };
        let ring = ring();
        let id = long.mint(&ring, alice().binding()).unwrap();
        assert!(id.len() <= Purpose::Session.max_token());
        assert!(id.bytes().all(|b| (0x21..=0x7e).contains(&b)), "2025-11-25 §Session Management");
        let mut buf = TokenBuf::default();
        assert_eq!(SessionToken::open(&ring, alice().binding(), &id, NOW, MAX_AGE, &mut buf), Ok(long));
        let over = format!("{target}t");
        let mint = |token: SessionToken<'_>| token.mint(&ring, alice().binding());
        assert_eq!(mint(SessionToken { target: Some(&over), ..token() }), Err(MintError::Target));
        for bad in [&over[..], "", "a b", "é", "a\n"] {
            assert_eq!(
                mint(SessionToken { upstream: Some(bad), ..token() }),
                Err(MintError::Upstream),
                "{bad}"
            );
        }
    }

    #[test]
    fn attack_foreign_tenant_route_or_principal() {
        let ring = ring();
        let id = token().mint(&ring, alice().binding()).unwrap();
        assert_eq!(open(&ring, &alice(), &id, NOW), Ok(()));
        for other in [
            owner("evil", "weather", "user:alice"),
            owner("acme", "files", "user:alice"),
            owner("acme", "weather", "user:bob"),
            owner("acme", "weather", "user:alice2"),
            owner("acm", "eweather", "user:alice"),
        ] {
            let got = open(&ring, &other, &id, NOW);
            assert_eq!(got, Err(SessionError::Sealed(SealError::Forged)), "{:?}", other.binding());
        }
    }

    #[test]
    fn attack_truncation_and_flips_of_every_byte() {
        let ring = ring();
        let id = token().mint(&ring, alice().binding()).unwrap();
        for at in 0..id.len() {
            assert!(open(&ring, &alice(), &id[..at], NOW).is_err(), "cut at {at}");
            let mut bytes = id.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(open(&ring, &alice(), &changed, NOW).is_err(), "byte {at}");
        }
        for junk in ["", "1", "null", "00000000-0000-0000-0000-000000000000", &"x".repeat(100_000)] {
            assert!(open(&ring, &alice(), junk, NOW).is_err());
        }
    }

    #[test]
    fn attack_expired_or_from_the_future() {
        let ring = ring();
        let id = token().mint(&ring, alice().binding()).unwrap();
        assert_eq!(open(&ring, &alice(), &id, NOW + MAX_AGE), Ok(()));
        assert_eq!(open(&ring, &alice(), &id, NOW + MAX_AGE + 1), Err(SessionError::Expired));
        assert_eq!(open(&ring, &alice(), &id, NOW - 300), Ok(()), "clocks differ a little");
        assert_eq!(open(&ring, &alice(), &id, NOW - 301), Err(SessionError::FromFuture));
    }

    #[test]
    fn attack_a_retired_key() {
        let first = ring();
        let id = token().mint(&first, alice().binding()).unwrap();
        let second = first.rotate(NOW + 1, 0, MAX_AGE).unwrap();
        assert_eq!(open(&second, &alice(), &id, NOW + 1), Ok(()), "retired keys outlive their ids");
        let third = second.rotate(NOW + MAX_AGE + 400, 0, MAX_AGE).unwrap();
        assert_eq!(
            open(&third, &alice(), &id, NOW + 1),
            Err(SessionError::Sealed(SealError::UnknownKey)),
            "but not for ever"
        );
    }

    #[test]
    fn attack_a_token_of_another_purpose() {
        let ring = ring();
        let binding = alice();
        let task = seal_task(&ring, binding.binding(), TaskRef { target: "t", id: "1" }, None).unwrap();
        assert_eq!(open(&ring, &alice(), &task, NOW), Err(SessionError::Sealed(SealError::Forged)));
        let session = token().mint(&ring, binding.binding()).unwrap();
        let mut buf = Vec::new();
        assert_eq!(
            open_task(&ring, binding.binding(), &session, &mut buf),
            Err(WrapError::Sealed(SealError::Forged))
        );
        assert_eq!(
            RequestState::open(&ring, binding.binding(), &session, ("tools/call", None), NOW, &mut buf),
            Err(WrapError::Sealed(SealError::Forged))
        );
    }

    #[test]
    fn an_unknown_layout_is_no_session() {
        let ring = ring();
        let aad = alice();
        for plaintext in [&b""[..], b"\x02", b"\x01\x09", &[1; 60]] {
            let id = ring.seal(Purpose::Session, &aad.binding().aad(), plaintext).unwrap();
            assert_eq!(open(&ring, &alice(), &id, NOW), Err(SessionError::Layout), "{plaintext:?}");
        }
    }

    #[test]
    fn logs_name_an_id_without_giving_it_away() {
        let id = token().mint(&ring(), alice().binding()).unwrap();
        let name = LogHash::of(&id).to_string();
        assert_eq!(name.len(), 16);
        assert_eq!(name, LogHash::of(&id).to_string());
        assert_ne!(name, LogHash::of(&id[1..]).to_string());
        // SHA-256 of the empty text begins with these bytes.
        assert_eq!(LogHash::of("").to_string(), "e3b0c44298fc1c14");
        let serial = Serial::fresh();
        assert_eq!(serial.to_string().parse(), Ok(serial));
    }
}

mod wrapped {
    use super::*;

    fn state() -> RequestState<'static> {
        RequestState {
            target: Some("10.0.0.1:9001"),
            method: "tools/call",
            name: Some("greet"),
            state: Some("{\"round\":2}\u{0}é"),
            expires_at: NOW + 60,
            parked: None,
        }
    }

    #[test]
    fn a_request_state_comes_back_byte_by_byte() {
        let ring = ring();
        let parked = Parked { home: BootId(3), slot: 9, params: [5; 32] };
        for state in [
            state(),
            RequestState { state: None, name: None, target: None, ..state() },
            RequestState { state: Some(""), parked: Some(parked), ..state() },
        ] {
            let token = state.seal(&ring, alice().binding()).unwrap();
            assert_ne!(token, state.seal(&ring, alice().binding()).unwrap(), "random nonce");
            let mut buf = Vec::new();
            let request = (state.method, state.name);
            let opened = RequestState::open(&ring, alice().binding(), &token, request, NOW, &mut buf);
            assert_eq!(opened.as_ref(), Ok(&state));
        }
    }

    #[test]
    fn a_request_state_is_bound_to_request_time_and_caller() {
        let ring = ring();
        let token = state().seal(&ring, alice().binding()).unwrap();
        let mut buf = Vec::new();
        let mut open = |owner: Owner, request, now| {
            RequestState::open(&ring, owner.binding(), &token, request, now, &mut buf).map(|_| ())
        };
        let good = ("tools/call", Some("greet"));
        assert_eq!(open(alice(), good, NOW), Ok(()));
        assert_eq!(open(alice(), ("prompts/get", Some("greet")), NOW), Err(WrapError::OtherRequest));
        assert_eq!(open(alice(), ("tools/call", Some("rm")), NOW), Err(WrapError::OtherRequest));
        assert_eq!(open(alice(), ("tools/call", None), NOW), Err(WrapError::OtherRequest));
        assert_eq!(open(alice(), good, NOW + 60), Err(WrapError::Expired));
        let bob = owner("acme", "weather", "user:bob");
        assert_eq!(open(bob, good, NOW), Err(WrapError::Sealed(SealError::Forged)));
    }

    #[test]
    fn the_largest_state_fits_and_a_larger_one_does_not() {
        let ring = ring();
        let (name, text) = ("n".repeat(MAX_NAME_BYTES), "s".repeat(MAX_STATE_BYTES));
        let target = "t".repeat(MAX_TARGET_BYTES);
        let largest = RequestState {
            target: Some(&target),
            method: &name,
            name: Some(&name),
            state: Some(&text),
            expires_at: NOW + 1,
            parked: Some(Parked { home: BootId(1), slot: 1, params: [0; 32] }),
        };
        assert!(largest.seal(&ring, alice().binding()).is_ok());
        let over = format!("{text}s");
        let larger = RequestState { state: Some(&over), ..largest };
        assert_eq!(larger.seal(&ring, alice().binding()), Err(WrapError::TooLong));
    }

    #[test]
    fn a_task_has_one_id_for_each_caller() {
        let ring = ring();
        let task = TaskRef { target: "10.0.0.1:9001", id: "task-1" };
        let seal = |owner: &Owner, task| seal_task(&ring, owner.binding(), task, None).unwrap();
        let id = seal(&alice(), task);
        assert_eq!(id, seal(&alice(), task));
        assert_ne!(id, seal(&owner("acme", "weather", "user:bob"), task));
        assert_ne!(id, seal(&alice(), TaskRef { id: "task-2", ..task }));
        // The parts cannot run into each other.
        let (ab, a) = (TaskRef { target: "ab", id: "c" }, TaskRef { target: "a", id: "bc" });
        assert_ne!(seal(&alice(), ab), seal(&alice(), a));
        let mut buf = Vec::new();
        assert_eq!(open_task(&ring, alice().binding(), &id, &mut buf), Ok(task));
        let long = "x".repeat(MAX_TASK_ID_BYTES + 1);
        let long = seal_task(&ring, alice().binding(), TaskRef { target: "t", id: &long }, None);
        assert_eq!(long, Err(WrapError::TooLong));
    }

    #[test]
    fn a_task_keeps_its_id_over_a_key_rotation() {
        let first = ring();
        let task = TaskRef { target: "t", id: "1" };
        let id = seal_task(&first, alice().binding(), task, None).unwrap();
        let second = first.rotate(NOW + 1, 0, MAX_AGE).unwrap();
        let again = seal_task(&second, alice().binding(), task, KeyRing::key_of(&id)).unwrap();
        assert_eq!(again, id);
    }
}

mod registry {
    use super::*;

    fn limits() -> Limits {
        Limits {
            total: 100,
            per_tenant: 10,
            tombstones_per_tenant: 10,
            streams_per_session: 2,
            idle: 600,
            max_age: MAX_AGE,
        }
    }

    fn sessions(limits: Limits) -> (Sessions, Clock) {
        let clock = Clock::manual(NOW);
        (Sessions::new(limits, clock.clone()), clock)
    }

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn touching_twice_gives_the_same_record() {
        let (sessions, clock) = sessions(limits());
        let token = token();
        let first = sessions.touch(&token, alice().binding()).unwrap();
        clock.advance(secs(5));
        let second = sessions.touch(&token, alice().binding()).unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!((first.created(), first.last_seen()), (NOW, NOW + 5));
        assert_eq!((first.tenant().as_str(), first.route().as_str()), ("acme", "weather"));
        assert_eq!((first.principal().as_str(), first.version()), ("user:alice", Version::V2025_11_25));
        assert_eq!(sessions.counts(), Counts { live: 1, tombstones: 0 });
    }

    #[test]
    fn a_record_lost_in_a_restart_is_made_again() {
        let token = token();
        let (before, _) = sessions(limits());
        before.touch(&token, alice().binding()).unwrap();
        let (after, _) = sessions(limits());
        assert_eq!(after.touch(&token, alice().binding()).unwrap().serial(), token.serial);
    }

    #[test]
    fn attack_replay_after_delete() {
        let (sessions, clock) = sessions(limits());
        let token = token();
        let record = sessions.touch(&token, alice().binding()).unwrap();
        let deleted = sessions.delete(&token, alice().binding()).unwrap();
        assert!(Arc::ptr_eq(&record, &deleted) && record.is_closed());
        for _ in 0..5 {
            assert_eq!(sessions.touch(&token, alice().binding()).unwrap_err(), TouchError::Gone);
            clock.advance(secs(MAX_AGE / 5));
            sessions.sweep();
        }
        assert_eq!(sessions.counts(), Counts { live: 0, tombstones: 1 });
        // From here on the id does not open any more.
        clock.advance(secs(302));
        assert_eq!(sessions.sweep().tombstones, 1);
        assert_eq!(sessions.touch(&token, alice().binding()).unwrap_err(), TouchError::Gone);
        assert_eq!(sessions.counts(), Counts::default());
    }

    #[test]
    fn deleting_a_session_without_a_record_counts_too() {
        let (sessions, _) = sessions(limits());
        let token = token();
        assert!(sessions.delete(&token, alice().binding()).is_none());
        assert!(sessions.delete(&token, alice().binding()).is_none(), "twice is harmless");
        assert_eq!(sessions.touch(&token, alice().binding()).unwrap_err(), TouchError::Gone);
        assert_eq!(sessions.counts().tombstones, 1);
    }

    #[test]
    fn tombstones_survive_a_restart_if_they_are_written_down() {
        let (before, _) = sessions(limits());
        let token = token();
        before.delete(&token, alice().binding());
        let (after, _) = sessions(limits());
        before.tombstones().iter().for_each(|t| assert!(after.bury(t).is_none()));
        assert_eq!(after.touch(&token, alice().binding()).unwrap_err(), TouchError::Gone);
    }

    #[test]
    fn a_tombstone_dropped_for_room_still_keeps_the_session_dead() {
        let (sessions, _) = sessions(limits());
        let deleted: Vec<_> = (0..40).map(|i| SessionToken { issued_at: NOW - 100 + i, ..token() }).collect();
        deleted.iter().for_each(|t| assert!(sessions.delete(t, alice().binding()).is_none()));
        assert!(sessions.counts().tombstones <= limits().tombstones_per_tenant);
        for token in &deleted {
            assert_eq!(sessions.touch(token, alice().binding()).unwrap_err(), TouchError::Gone);
        }
        let other = owner("other", "weather", "user:alice");
        let old = SessionToken { issued_at: NOW - 100, ..token() };
        assert!(sessions.touch(&old, other.binding()).is_ok(), "another tenant does not pay for it");
        assert!(sessions.touch(&token(), alice().binding()).is_ok(), "nor do new sessions");
    }

    #[test]
    fn a_serial_of_somebody_else_is_gone() {
        let (sessions, _) = sessions(limits());
        let token = token();
        sessions.touch(&token, alice().binding()).unwrap();
        let bob = owner("acme", "weather", "user:bob");
        assert_eq!(sessions.touch(&token, bob.binding()).unwrap_err(), TouchError::Gone);
    }

    #[test]
    fn the_least_recently_used_idle_session_makes_room() {
        let (sessions, clock) = sessions(limits());
        let tokens: Vec<_> = (0..10).map(|_| token()).collect();
        let records: Vec<_> = tokens
            .iter()
            .map(|t| {
                clock.advance(secs(1));
                sessions.touch(t, alice().binding()).unwrap()
            })
            .collect();
        let stream = records[0].open_stream().unwrap();
        clock.advance(secs(1));
        sessions.touch(&token(), alice().binding()).unwrap();
        assert_eq!(sessions.counts().live, 10);
        let there = |i: usize| sessions.list(100, |r| r.serial() == tokens[i].serial).len() == 1;
        assert!(there(0), "it has a stream");
        assert!(!there(1), "it was used least recently");
        assert!((2..10).all(there));
        assert_eq!(records[1].open_stream().unwrap_err(), StreamRefused::Retired);
        assert!(!records[1].is_closed(), "the session itself goes on");
        drop(stream);
        let again = sessions.touch(&tokens[1], alice().binding()).unwrap();
        assert!(!Arc::ptr_eq(&again, &records[1]));
    }

    #[test]
    fn a_tenant_full_of_streams_gets_no_more_sessions_but_others_do() {
        let (sessions, clock) = sessions(limits());
        let streams: Vec<_> = (0..10)
            .map(|_| sessions.touch(&token(), alice().binding()).unwrap().open_stream().unwrap())
            .collect();
        assert_eq!(sessions.touch(&token(), alice().binding()).unwrap_err(), TouchError::TenantFull);
        let other = owner("other", "weather", "user:alice");
        sessions.touch(&token(), other.binding()).unwrap();
        drop(streams);
        clock.advance(secs(1));
        assert!(sessions.touch(&token(), alice().binding()).is_ok());
    }

    #[test]
    fn the_total_is_capped_over_all_tenants() {
        let (sessions, clock) = sessions(Limits { total: 3, ..limits() });
        let owners: Vec<_> = (0..4).map(|i| owner(&format!("t{i}"), "r", "p")).collect();
        let streams: Vec<_> = owners[..3]
            .iter()
            .map(|o| sessions.touch(&token(), o.binding()).unwrap().open_stream().unwrap())
            .collect();
        assert_eq!(sessions.touch(&token(), owners[3].binding()).unwrap_err(), TouchError::TotalFull);
        assert!(
            sessions
                .counts_by_tenant()
                .iter()
                .all(|t| t.counts.live == usize::from(t.tenant.as_str() != "t3"))
        );
        drop(streams);
        clock.advance(secs(1));
        assert!(sessions.touch(&token(), owners[3].binding()).is_ok());
        assert_eq!(sessions.counts().live, 3);
    }

    #[test]
    fn a_sweep_drops_idle_records_and_ends_old_sessions() {
        let (sessions, clock) = sessions(limits());
        let (idle, busy) = (token(), token());
        sessions.touch(&idle, alice().binding()).unwrap();
        let record = sessions.touch(&busy, alice().binding()).unwrap();
        let stream = record.open_stream().unwrap();
        clock.advance(secs(600));
        let swept = sessions.sweep();
        assert_eq!((swept.idle.len(), swept.expired.len()), (1, 0));
        assert_eq!(swept.idle[0].serial(), idle.serial);
        assert!(sessions.touch(&idle, alice().binding()).is_ok(), "its session goes on");
        clock.advance(secs(MAX_AGE - 600 + 1));
        let swept = sessions.sweep();
        assert_eq!(swept.expired.len(), 2);
        assert!(stream.record().is_closed(), "its stream ends");
        assert_eq!(sessions.counts(), Counts::default());
        assert!(sessions.counts_by_tenant().is_empty(), "nothing is left of the tenant");
        drop(stream);
        assert_eq!(record.streams(), 0);
    }

    #[test]
    fn operators_close_only_what_belongs_to_the_tenant() {
        let (sessions, _) = sessions(limits());
        let token = token();
        sessions.touch(&token, alice().binding()).unwrap();
        assert!(sessions.close(&"evil".into(), token.serial).is_none());
        assert!(sessions.close(&"acme".into(), Serial::fresh()).is_none());
        assert!(sessions.close(&"acme".into(), token.serial).unwrap().is_closed());
        assert_eq!(sessions.touch(&token, alice().binding()).unwrap_err(), TouchError::Gone);
    }

    #[test]
    fn closing_a_principal_leaves_the_others() {
        let (sessions, _) = sessions(limits());
        let bob = owner("acme", "weather", "user:bob");
        for _ in 0..3 {
            sessions.touch(&token(), alice().binding()).unwrap();
            sessions.touch(&token(), bob.binding()).unwrap();
        }
        assert_eq!(sessions.close_where(|r| r.principal().as_str() == "user:bob").len(), 3);
        assert_eq!(sessions.list(100, |_| true).len(), 3);
        assert_eq!(sessions.list(2, |_| true).len(), 2);
        assert_eq!(sessions.counts(), Counts { live: 3, tombstones: 3 });
    }

    #[tokio::test]
    async fn streams_of_a_closed_session_learn_of_it() {
        let (sessions, _) = sessions(limits());
        let token = token();
        let record = sessions.touch(&token, alice().binding()).unwrap();
        let stream = record.open_stream().unwrap();
        let waiting = tokio::spawn(async move { stream.record().closed().await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        sessions.delete(&token, alice().binding());
        waiting.await.unwrap();
        record.closed().await;
        assert_eq!(record.open_stream().unwrap_err(), StreamRefused::Retired);
    }

    #[test]
    fn parallel_touches_agree_on_one_record() {
        let (sessions, _) = sessions(limits());
        let token = token();
        let records: Vec<_> = std::thread::scope(|s| {
            let touch = || s.spawn(|| sessions.touch(&token, alice().binding()).unwrap());
            let threads: Vec<_> = (0..8).map(|_| touch()).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(records.iter().all(|r| Arc::ptr_eq(r, &records[0])));
        assert_eq!(sessions.counts().live, 1);
    }

    #[test]
    fn parallel_churn_keeps_counts_and_caps() {
        let (sessions, _) = sessions(limits());
        std::thread::scope(|s| {
            for i in 0..8 {
                let sessions = &sessions;
                s.spawn(move || {
                    let mine = owner(&format!("t{}", i % 2), "r", "p");
                    for n in 0..200 {
                        let token = token();
                        let Ok(record) = sessions.touch(&token, mine.binding()) else { continue };
                        let stream = record.open_stream();
                        assert!(sessions.counts_by_tenant().iter().all(|t| t.counts.live <= 10));
                        if n % 3 == 0 {
                            sessions.delete(&token, mine.binding());
                        }
                        drop(stream);
                        if n % 50 == 0 {
                            sessions.sweep();
                        }
                    }
                });
            }
        });
        let live = sessions.list(usize::MAX, |_| true);
        assert_eq!(sessions.counts().live, live.len());
        assert_eq!(sessions.counts_by_tenant().iter().map(|t| t.counts.live).sum::<usize>(), live.len());
        assert_eq!(sessions.counts().tombstones, sessions.tombstones().len());
        assert!(live.iter().all(|r| r.streams() == 0));
    }

    proptest! {
        #[test]
        fn a_deleted_session_never_comes_back(ops in proptest::collection::vec((0usize..12, 0u8..4, 0u64..200), 1..120)) {
            let (sessions, clock) = sessions(Limits { per_tenant: 4, tombstones_per_tenant: 3, ..limits() });
            let tokens: Vec<_> = (0..12).map(|i| SessionToken { issued_at: NOW + i * 3, ..token() }).collect();
            let mut deleted = std::collections::HashSet::new();
            for (which, op, wait) in ops {
                let token = &tokens[which];
                match op {
                    0 => {
                        sessions.delete(token, alice().binding());
                        deleted.insert(which);
                    }
                    1 => drop(sessions.sweep()),
                    _ => {
                        let got = sessions.touch(token, alice().binding());
                        if deleted.contains(&which) {
                            prop_assert_eq!(got.err(), Some(TouchError::Gone));
                        }
                    }
                }
                clock.advance(secs(wait));
                prop_assert!(sessions.counts().live <= 4 && sessions.counts().tombstones <= 3);
            }
        }
    }
}

mod records {
    use super::*;

    fn record() -> Arc<Record> {
        let limits = Limits { streams_per_session: 2, ..Limits::default() };
        let sessions = Sessions::new(limits, Clock::manual(NOW));
        sessions.touch(&token(), alice().binding()).unwrap()
    }

    fn upstream(server: &str, session: &str) -> Upstream {
        Upstream { server: server.into(), target: "t".into(), session: Some(session.into()) }
    }

    fn reply(id: &str) -> PendingReply {
        PendingReply { server: "files".into(), upstream_id: id.into() }
    }

    #[test]
    fn a_record_takes_little_memory() {
        assert!(size_of::<Record>() <= 144, "{}", size_of::<Record>());
    }

    #[test]
    fn streams_are_counted_and_capped() {
        let record = record();
        let (first, second) = (record.open_stream().unwrap(), record.open_stream().unwrap());
        assert_eq!(record.open_stream().unwrap_err(), StreamRefused::TooMany);
        drop(first);
        assert_eq!(record.streams(), 1);
        let third = record.open_stream().unwrap();
        drop((second, third));
        assert_eq!(record.streams(), 0);
    }

    #[test]
    fn only_the_first_recovery_of_a_generation_succeeds() {
        let record = record();
        let (seen, none) = record.upstream("files");
        assert_eq!((seen, none), (0, None));
        assert_eq!(record.set_upstream(seen, upstream("files", "a")), Ok(1));
        assert_eq!(record.set_upstream(seen, upstream("files", "b")), Err(StateError::Stale));
        assert_eq!(record.upstream("files"), (1, Some(upstream("files", "a"))));
        assert_eq!(record.set_upstream(1, upstream("files", "b")), Ok(2));
        assert_eq!(record.upstreams(), [upstream("files", "b")]);
        assert_eq!(record.generation(), 2);
    }

    #[test]
    fn subscriptions_are_a_bounded_set() {
        let record = record();
        assert_eq!(record.subscribe("test://a"), Ok(true));
        assert_eq!(record.subscribe("test://a"), Ok(false));
        assert!(record.unsubscribe("test://a") && !record.unsubscribe("test://a"));
        for i in 0..MAX_SUBSCRIPTIONS {
            assert_eq!(record.subscribe(&format!("test://{i}")), Ok(true));
        }
        assert_eq!(record.subscribe("test://more"), Err(StateError::Full("subscriptions")));
        assert_eq!(record.subscriptions().len(), MAX_SUBSCRIPTIONS);
        let record = self::record();
        let long = "x".repeat(MAX_SUBSCRIPTION_BYTES + 1);
        assert_eq!(record.subscribe(&long), Err(StateError::Full("subscriptions")));
        assert_eq!(record.subscribe(&long[1..]), Ok(true));
    }

    #[test]
    fn each_pending_request_is_answered_once() {
        let record = record();
        record.expect_reply("1", reply("7")).unwrap();
        record.expect_reply("\"1\"", reply("8")).unwrap();
        assert_eq!(record.expect_reply("1", reply("9")), Err(StateError::Duplicate));
        assert_eq!(record.take_reply("1"), Some(reply("7")));
        assert_eq!(record.take_reply("1"), None);
        assert_eq!(record.pending(), 1);
        for i in 1..MAX_PENDING {
            record.expect_reply(&format!("x{i}"), reply("1")).unwrap();
        }
        assert_eq!(record.expect_reply("more", reply("1")), Err(StateError::Full("pending requests")));
        let long = "x".repeat(MAX_PENDING_BYTES);
        assert_eq!(self::record().expect_reply("1", reply(&long)), Err(StateError::Full("pending requests")));
    }

    #[test]
    fn the_log_level_is_remembered() {
        let record = record();
        assert_eq!(record.log_level(), None);
        record.set_log_level(LogLevel::parse("warning").unwrap());
        assert_eq!(record.log_level(), Some(LogLevel::Warning));
        assert_eq!(LogLevel::parse("WARNING"), None);
        assert!(LogLevel::Debug < LogLevel::Emergency);
    }
}
