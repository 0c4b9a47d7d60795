//! The pool as a request sees it, with a clock turned by hand.

mod fake;
mod probes;
mod tls;

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use crate::base::{Clock, ServerId, TargetId, TenantId};
use crate::upstream::*;

const SECOND: Duration = Duration::from_secs(1);
const POLICIES: [Balance; 5] =
    [Balance::Hash, Balance::LeastRequest, Balance::PeakEwma, Balance::RoundRobin, Balance::Weighted];

pub(super) fn spec(urls: &[&str]) -> ServerSpec {
    let targets = urls.iter().map(|u| TargetSpec::parse(u, 1).unwrap()).collect();
    ServerSpec::new(TenantId::default(), ServerId::new("s"), targets)
}

/// `n` targets 10.0.0.1, 10.0.0.2, …
fn numbered(n: usize) -> ServerSpec {
    let urls: Vec<String> = (1..=n).map(|i| format!("http://10.0.0.{i}:80/mcp")).collect();
    spec(&urls.iter().map(String::as_str).collect::<Vec<_>>())
}

struct Bench {
    clock: Clock,
    upstreams: Upstreams,
    server: Arc<Server>,
}

impl Bench {
    fn new(spec: ServerSpec) -> Self {
        let clock = Clock::manual(1_000);
        let upstreams = Upstreams::new(clock.clone());
        let server = upstreams.apply(spec).unwrap();
        Self { clock, upstreams, server }
    }

    fn pick(&self) -> Result<Lease, NoTarget> {
        self.server.pick(Pick::default())
    }

    fn status(&self, target: usize) -> TargetStatus {
        self.server.status().targets[target].clone()
    }

    fn reference(&self, target: usize) -> TargetRef {
        TargetRef::from_text(&self.status(target).target_ref)
    }

    /// Picks until the target comes, and ends that request with an outcome.
    fn fail(&self, target: usize, times: usize, outcome: Outcome) {
        for _ in 0..times {
            self.server.pinned(&self.reference(target)).unwrap().finish(outcome);
        }
    }

    /// How often each target comes in `n` picks that end well at once.
    fn shares(&self, n: usize) -> HashMap<String, usize> {
        let mut shares = HashMap::new();
        for i in 0..n {
            let hash = Some((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let lease = self.server.pick(Pick { hash, tried: &[] }).unwrap();
            *shares.entry(ip(&lease)).or_default() += 1;
            lease.finish(Outcome::Success);
        }
        shares
    }
}

fn ip(lease: &Lease) -> String {
    lease.authority().to_str().unwrap().to_owned()
}

// === policies ===

#[test]
fn weights_are_shares() {
    for (policy, slack) in [(Balance::RoundRobin, 0), (Balance::Weighted, 200), (Balance::LeastRequest, 200)]
    {
        let mut s = numbered(3);
        s.balance = policy;
        s.targets[2].weight = 2;
        let shares = Bench::new(s).shares(4000);
        for (target, expected) in [("10.0.0.1", 1000), ("10.0.0.2", 1000), ("10.0.0.3", 2000)] {
            let got = shares[target];
            assert!(got.abs_diff(expected) <= slack, "{policy:?}: {target} got {got} of {expected}");
        }
    }
}

#[test]
fn equal_weights_take_turns_however_high_they_are() {
    let mut s = numbered(2);
    s.balance = Balance::RoundRobin;
    s.targets.iter_mut().for_each(|t| t.weight = 50);
    let b = Bench::new(s);
    let seen: Vec<_> = (0..6).map(|_| ip(&b.pick().unwrap())).collect();
    assert!(seen.windows(2).all(|w| w[0] != w[1]), "{seen:?}");
}

#[test]
fn least_request_goes_where_less_is_under_way() {
    let mut s = numbered(2);
    s.balance = Balance::LeastRequest;
    let b = Bench::new(s);
    let busy: Vec<_> = (0..5).map(|_| b.server.pinned(&b.reference(0)).unwrap()).collect();
    assert_eq!(b.shares(100)["10.0.0.2"], 100);
    drop(busy);
    assert!(b.shares(1000)["10.0.0.1"] > 300);
}

#[test]
fn peak_ewma_prefers_the_fast_target_and_still_tries_the_slow_one() {
    let b = Bench::new(numbered(2));
    let mut fast = 0;
    for _ in 0..3000 {
        let mut lease = b.pick().unwrap();
        let is_fast = ip(&lease) == "10.0.0.1";
        fast += usize::from(is_fast);
        lease.first_byte(Duration::from_millis(if is_fast { 5 } else { 200 }));
        lease.finish(Outcome::Success);
        b.clock.advance(Duration::from_millis(20));
    }
    assert!(fast > 2900, "{fast} of 3000");
    assert!(fast < 3000, "a slow target is tried again once its estimate has decayed");
}

#[test]
fn a_target_that_fails_fast_does_not_look_fast() {
    let mut s = numbered(2);
    s.outlier = None;
    let b = Bench::new(s);
    let mut to_bad = 0;
    for _ in 0..200 {
        let mut lease = b.pick().unwrap();
        if ip(&lease) == "10.0.0.1" {
            to_bad += 1;
            lease.finish(Outcome::ConnectFailed);
        } else {
            lease.first_byte(Duration::from_millis(50));
            lease.finish(Outcome::Success);
        }
        b.clock.advance(Duration::from_millis(1));
    }
    assert!(to_bad < 10, "{to_bad} of 200 went to a target that refuses connections");
}

#[test]
fn a_hash_stays_with_its_target_when_others_come_and_go() {
    let mut s = numbered(5);
    s.balance = Balance::Hash;
    let b = Bench::new(s);
    let homes = |b: &Bench| -> Vec<String> {
        (0..2000u64).map(|h| ip(&b.server.pick(Pick { hash: Some(h), tried: &[] }).unwrap())).collect()
    };
    let before = homes(&b);
    assert_eq!(before, homes(&b), "the same hash, the same target");
    assert_eq!(b.shares(2000).len(), 5);
    let mut less = numbered(4);
    less.balance = Balance::Hash;
    b.upstreams.apply(less).unwrap();
    for (was, is) in before.iter().zip(homes(&b)) {
        assert!(was == "10.0.0.5" || *was == is, "{was} moved to {is} although it is still there");
    }
}

#[test]
fn an_unhealthy_home_sends_its_hashes_to_one_neighbour_each() {
    let mut s = numbered(4);
    s.balance = Balance::Hash;
    let b = Bench::new(s);
    let home = ip(&b.server.pick(Pick { hash: Some(42), tried: &[] }).unwrap());
    let view = b.server.view();
    let member = view.members.iter().find(|m| m.endpoint.authority.to_str().unwrap() == home).unwrap();
    member.stats.set_healthy(false, b.clock.mono_ns());
    let picks: Vec<_> =
        (0..20).map(|_| ip(&b.server.pick(Pick { hash: Some(42), tried: &[] }).unwrap())).collect();
    assert!(picks.iter().all(|p| *p != home && *p == picks[0]), "{picks:?}");
}

// === leases ===

#[test]
fn every_lease_is_counted_once_whatever_threads_do() {
    for policy in POLICIES {
        let mut s = numbered(3);
        s.balance = policy;
        s.max_in_flight = NonZeroU32::new(2);
        let b = Bench::new(s);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let b = &b;
                scope.spawn(move || {
                    let mut held = Vec::new();
                    for i in 0..2000u64 {
                        if let Ok(lease) = b.server.pick(Pick { hash: Some(i ^ (thread << 32)), tried: &[] })
                        {
                            held.push(lease);
                        }
                        if held.len() > 2 || i % 3 == 0 {
                            match held.pop() {
                                Some(lease) if i % 2 == 0 => lease.finish(Outcome::Success),
                                other => drop(other),
                            }
                        }
                        for t in b.server.view().members.iter() {
                            assert!(t.stats.in_flight() <= 2, "{policy:?}: the cap holds");
                        }
                    }
                });
            }
        });
        assert!(b.server.status().targets.iter().all(|t| t.in_flight == 0), "{policy:?}");
    }
}

#[test]
fn full_targets_are_passed_over_until_none_is_left() {
    for policy in POLICIES {
        let mut s = numbered(3);
        s.balance = policy;
        s.max_in_flight = NonZeroU32::new(1);
        let b = Bench::new(s);
        let held: Vec<_> =
            (0..3).map(|_| b.server.pick(Pick { hash: Some(1), tried: &[] }).unwrap()).collect();
        assert_eq!(b.pick().unwrap_err(), NoTarget::AtCapacity, "{policy:?}");
        assert!(matches!(b.server.pinned(&b.reference(0)), Err(Pinned::Unavailable { .. })));
        drop(held);
        assert!(b.pick().is_ok());
    }
}

#[test]
fn a_retry_goes_elsewhere() {
    for policy in POLICIES {
        let mut s = numbered(3);
        s.balance = policy;
        let b = Bench::new(s);
        let mut tried = Vec::new();
        for _ in 0..3 {
            let lease = b.server.pick(Pick { hash: Some(7), tried: &tried }).unwrap();
            assert!(!tried.contains(&lease.key()), "{policy:?}");
            tried.push(lease.key());
        }
        assert_eq!(b.server.pick(Pick { hash: Some(7), tried: &tried }).unwrap_err(), NoTarget::Exhausted);
    }
}

// === health, ejection, circuit ===

#[test]
fn a_failing_target_is_ejected_and_comes_back() {
    let b = Bench::new(numbered(2));
    b.fail(0, 4, Outcome::ConnectFailed);
    assert_eq!(b.status(0).ejected_until, None);
    b.fail(0, 1, Outcome::Unavailable);
    assert_eq!(b.status(0).ejected_until, Some(1_010_000));
    assert_eq!(b.shares(50).get("10.0.0.1"), None);
    b.fail(1, 5, Outcome::Timeout);
    assert_eq!(b.status(1).ejected_until, None, "never the last one");
    b.clock.advance(10 * SECOND);
    b.fail(1, 1, Outcome::Success);
    assert!(b.shares(1000).contains_key("10.0.0.1"));
    b.fail(0, 4, Outcome::ConnectFailed);
    assert_eq!(b.status(0).ejected_until, None, "the row begins anew");
}

#[test]
fn breaks_of_streams_and_absent_callers_eject_nobody() {
    let b = Bench::new(numbered(2));
    b.fail(0, 20, Outcome::ClientGone);
    b.fail(0, 20, Outcome::Status5xx);
    for _ in 0..20 {
        let mut lease = b.server.pinned(&b.reference(0)).unwrap();
        lease.first_byte(SECOND);
        lease.finish(Outcome::Reset);
    }
    assert_eq!(b.status(0).ejected_until, None);
    b.fail(0, 5, Outcome::Reset);
    assert!(b.status(0).ejected_until.is_some());
}

#[test]
fn when_nobody_is_healthy_everybody_is_tried() {
    let b = Bench::new(numbered(3));
    for member in b.server.view().members.iter() {
        member.stats.set_healthy(false, b.clock.mono_ns());
    }
    assert_eq!(b.shares(300).len(), 3);
    b.server.view().members[1].stats.set_healthy(true, b.clock.mono_ns());
    assert_eq!(b.shares(100)["10.0.0.2"], 100, "one healthy target ends the panic");
    let tried = [b.pick().unwrap().key()];
    let again = b.server.pick(Pick { hash: None, tried: &tried });
    assert_eq!(again.unwrap_err(), NoTarget::Exhausted, "a retry is not sent to the dead");
}

#[test]
fn an_open_circuit_refuses_even_the_last_target_until_a_trial_succeeds() {
    let mut s = numbered(1);
    s.breaker = Some(BreakerSpec { failures: 3, ..BreakerSpec::default() });
    let b = Bench::new(s);
    b.fail(0, 3, Outcome::Timeout);
    assert_eq!(b.status(0).circuit, CircuitState::Open);
    assert_eq!(b.pick().unwrap_err(), NoTarget::CircuitOpen { retry_after: 5 * SECOND });
    let reference = b.reference(0);
    assert_eq!(b.server.pinned(&reference).unwrap_err(), Pinned::Unavailable { retry_after: 5 * SECOND });
    b.clock.advance(5 * SECOND);
    let trial = b.pick().unwrap();
    assert!(matches!(b.pick(), Err(NoTarget::CircuitOpen { .. })), "one trial at a time");
    drop(trial);
    let trial = b.pick().unwrap();
    trial.finish(Outcome::ConnectFailed);
    assert_eq!(b.pick().unwrap_err(), NoTarget::CircuitOpen { retry_after: 10 * SECOND });
    b.clock.advance(10 * SECOND);
    b.pick().unwrap().finish(Outcome::Status5xx);
    assert_eq!(b.status(0).circuit, CircuitState::Closed, "it answers");
    b.fail(0, 2, Outcome::Timeout);
    assert_eq!(b.status(0).circuit, CircuitState::Closed, "the row begins anew");
    assert_eq!(b.status(0).in_flight, 0);
}

#[test]
fn a_new_target_gets_its_share_slowly() {
    for policy in [Balance::Hash, Balance::LeastRequest, Balance::RoundRobin, Balance::Weighted] {
        let with = |n: usize| {
            let mut s = numbered(n);
            s.balance = policy;
            s.slow_start = Some(10 * SECOND);
            s
        };
        let b = Bench::new(with(1));
        assert_eq!(b.shares(10)["10.0.0.1"], 10, "the first target needs no slow start");
        b.upstreams.apply(with(2)).unwrap();
        let full = 2000.0;
        let mut last = 0.0;
        for (advance, low, high) in [(0, 0.02, 0.25), (5, 0.3, 0.7), (5, 0.6, 1.4)] {
            b.clock.advance(advance * SECOND);
            let share = b.shares(4000)["10.0.0.2"] as f64 / full;
            assert!((low..high).contains(&share) && share > last, "{policy:?}: {share} of its share");
            last = share;
        }
    }
}

// === changes ===

#[test]
fn a_changed_spec_keeps_what_is_known_about_unchanged_targets() {
    let mut s = numbered(3);
    s.breaker = Some(BreakerSpec { failures: 7, ..BreakerSpec::default() });
    let b = Bench::new(s.clone());
    let lease = b.server.pinned(&b.reference(0)).unwrap();
    let mut slow = b.server.pinned(&b.reference(1)).unwrap();
    slow.first_byte(3 * SECOND);
    slow.finish(Outcome::Success);
    b.fail(2, 7, Outcome::ConnectFailed);
    b.server.drain(&TargetId::new("http://10.0.0.2:80/mcp"), true);
    b.server.view().members[1].stats.set_healthy(false, b.clock.mono_ns());
    let before = b.server.status();
    let (key, reference) = (lease.key(), lease.target_ref().clone());

    s.targets.iter_mut().for_each(|t| t.weight = 9);
    s.balance = Balance::Weighted;
    s.credentials = vec![(http::header::AUTHORIZATION, "Bearer new".parse().unwrap())];
    let same = b.upstreams.apply(s.clone()).unwrap();
    assert!(Arc::ptr_eq(&same, &b.server), "changed in place");
    for (old, new) in before.targets.iter().zip(&b.server.status().targets) {
        assert_eq!(new.weight, 9);
        assert_eq!(
            (&old.target_ref, old.in_flight, old.latency_us, old.draining, old.ejected_until, old.circuit),
            (&new.target_ref, new.in_flight, new.latency_us, new.draining, new.ejected_until, new.circuit),
        );
    }
    assert_eq!(b.server.pinned(&reference).unwrap().key(), key);
    assert!(b.server.pinned(&reference).unwrap().credentials()[0].1.is_sensitive());
    assert!(lease.credentials().is_empty(), "a request under way goes on as it began");
    drop(lease);

    s.targets.remove(0);
    b.upstreams.apply(s.clone()).unwrap();
    assert_eq!(b.server.pinned(&reference).unwrap_err(), Pinned::Gone);
    b.upstreams.apply(numbered(3)).unwrap();
    let back = b.server.pinned(&reference).unwrap();
    assert_ne!(back.key(), key, "what was forgotten does not come back");
}

#[tokio::test]
async fn the_health_that_requests_read_follows_pingoras_registry() {
    let mut s = numbered(2);
    s.health = Some(HealthSpec::new(ProbeKind::Tcp));
    let b = Bench::new(s.clone());
    // No prober is set, so checks pass.
    b.server.view().members[0].stats.set_healthy(false, b.clock.mono_ns());
    b.server.backends.run_health_check(false).await;
    s.targets[1].weight = 5;
    b.upstreams.apply(s).unwrap();
    assert!(b.status(0).healthy);
    assert_eq!(b.server.backends.get_backend().len(), 2);
}

#[test]
fn a_spec_that_is_not_valid_changes_nothing() {
    let b = Bench::new(numbered(2));
    let mut bad = numbered(3);
    bad.targets[0].weight = 0;
    assert!(b.upstreams.apply(bad).is_err());
    assert_eq!(b.server.status().targets.len(), 2);
    let mut other = numbered(1);
    other.id = ServerId::new("other");
    other.targets.clear();
    assert!(b.upstreams.apply(other).is_err());
    assert_eq!(b.upstreams.servers().len(), 1);
}

#[test]
fn draining_serves_sessions_but_takes_nothing_new() {
    let b = Bench::new(numbered(2));
    let first = TargetId::new("http://10.0.0.1:80/mcp");
    assert!(b.server.drain(&first, true));
    assert!(!b.server.drain(&TargetId::new("nope"), true));
    assert_eq!(b.shares(50)["10.0.0.2"], 50);
    assert!(b.server.pinned(&b.reference(0)).is_ok());
    b.server.drain(&TargetId::new("http://10.0.0.2:80/mcp"), true);
    assert_eq!(b.pick().unwrap_err(), NoTarget::Draining);
    b.server.drain(&first, false);
    assert_eq!(b.shares(50)["10.0.0.1"], 50);
}

#[test]
fn sessions_reach_unhealthy_and_ejected_targets() {
    let b = Bench::new(numbered(2));
    b.fail(0, 5, Outcome::ConnectFailed);
    b.server.view().members[0].stats.set_healthy(false, b.clock.mono_ns());
    assert!(b.server.pinned(&b.reference(0)).is_ok());
}

#[test]
fn retained_servers_stay_and_others_go() {
    let b = Bench::new(numbered(1));
    let mut other = numbered(1);
    other.id = ServerId::new("other");
    b.upstreams.apply(other).unwrap();
    b.upstreams.retain(|_, id| id.as_str() == "other");
    assert!(b.upstreams.get(&TenantId::default(), &ServerId::new("s")).is_none());
    assert!(b.upstreams.get(&TenantId::default(), &ServerId::new("other")).is_some());
    assert!(b.pick().is_ok(), "a snapshot that still holds it goes on");
}

// === names ===

fn answer(b: &Bench, url: &str, ips: &[&str]) {
    let ips = ips.iter().map(|i| i.parse().unwrap()).collect();
    b.server.learn(vec![(TargetId::new(url), Ok(ips))]);
}

#[test]
fn each_address_of_a_name_is_a_target_of_its_own() {
    let url = "http://mcp.internal:9001/mcp";
    let b = Bench::new(spec(&[url]));
    assert_eq!(b.pick().unwrap_err(), NoTarget::Unresolved);
    answer(&b, url, &["10.0.0.1", "10.0.0.2"]);
    let mut keys = std::collections::HashSet::new();
    for _ in 0..100 {
        let lease = b.pick().unwrap();
        assert_eq!(ip(&lease), "mcp.internal:9001", "the host is the name, whatever the address");
        assert_eq!(b.server.pinned(lease.target_ref()).unwrap().key(), lease.key());
        keys.insert(lease.key());
    }
    assert_eq!(keys.len(), 2);
    assert!(b.reference(0).as_str().ends_with("~10.0.0.1"), "{}", b.reference(0));
}

#[test]
fn an_address_that_leaves_dns_keeps_its_sessions_for_a_while() {
    let url = "http://mcp.internal:9001/mcp";
    let b = Bench::new(spec(&[url]));
    answer(&b, url, &["10.0.0.1", "10.0.0.2"]);
    let (gone, key) = (b.reference(0), b.server.pinned(&b.reference(0)).unwrap().key());
    answer(&b, url, &["10.0.0.2"]);
    assert!((0..50).all(|_| b.pick().unwrap().key() != key));
    assert_eq!(b.server.pinned(&gone).unwrap().key(), key);
    assert!(b.status(1).lingering);
    answer(&b, url, &["10.0.0.1", "10.0.0.2"]);
    assert_eq!(b.server.pinned(&gone).unwrap().key(), key, "back before it was forgotten");
    assert!((0..50).any(|_| b.pick().unwrap().key() == key));
    answer(&b, url, &["10.0.0.2"]);
    b.clock.advance(LINGER);
    answer(&b, url, &["10.0.0.2"]);
    assert_eq!(b.server.pinned(&gone).unwrap_err(), Pinned::Gone);
}

#[test]
fn an_address_belongs_to_the_first_target_that_has_it() {
    let (a, z) = ("http://a.internal:80/", "http://z.internal:80/");
    let b = Bench::new(spec(&[a, z]));
    answer(&b, z, &["10.0.0.1", "10.0.0.9"]);
    answer(&b, a, &["10.0.0.1"]);
    let owners: Vec<_> =
        b.server.status().targets.iter().map(|t| (t.target.clone(), t.address.ip())).collect();
    assert_eq!(owners, [(a.to_owned(), [10, 0, 0, 1].into()), (z.to_owned(), [10, 0, 0, 9].into())]);
}

#[test]
fn a_stricter_guard_takes_resolved_addresses_away() {
    let url = "http://mcp.internal:9001/mcp";
    let mut s = spec(&[url]);
    let b = Bench::new(s.clone());
    answer(&b, url, &["10.0.0.1"]);
    assert!(b.pick().is_ok());
    s.guard = AddressGuard::PublicOnly { except: Vec::new() };
    b.upstreams.apply(s).unwrap();
    assert_eq!(b.pick().unwrap_err(), NoTarget::Unresolved);
}

// === invariants ===

#[derive(Clone, Debug)]
enum Step {
    Advance(u8),
    Drain(u8, bool),
    End(u8, u8),
    Health(u8, bool),
    Pick(u64),
    Pin(u8),
    Weight(u8, u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<u64>().prop_map(Step::Pick),
        2 => any::<u8>().prop_map(Step::Pin),
        5 => (any::<u8>(), 0u8..8).prop_map(|(i, o)| Step::End(i, o)),
        1 => (0u8..20).prop_map(Step::Advance),
        1 => (0u8..4, any::<bool>()).prop_map(|(t, d)| Step::Drain(t, d)),
        1 => (0u8..4, any::<bool>()).prop_map(|(t, h)| Step::Health(t, h)),
        1 => (0u8..4, 1u32..10).prop_map(|(t, w)| Step::Weight(t, w)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_happens_places_are_kept_and_drained_targets_left_alone(
        policy in 0usize..5,
        steps in prop::collection::vec(step(), 0..200),
    ) {
        let mut s = numbered(4);
        s.balance = POLICIES[policy];
        s.max_in_flight = NonZeroU32::new(5);
        s.slow_start = Some(3 * SECOND);
        s.breaker = Some(BreakerSpec { failures: 8, ..BreakerSpec::default() });
        let b = Bench::new(s.clone());
        let mut held: Vec<Lease> = Vec::new();
        for step in steps {
            match step {
                Step::Advance(secs) => b.clock.advance(u32::from(secs) * SECOND),
                Step::Drain(t, draining) => { b.server.drain(&s.targets[t as usize].id, draining); }
                Step::End(index, outcome) => if !held.is_empty() {
                    let lease = held.swap_remove(index as usize % held.len());
                    match outcome {
                        0 => drop(lease),
                        1 => lease.finish(Outcome::Success),
                        2 => lease.finish(Outcome::Status5xx),
                        _ => lease.finish(Outcome::ConnectFailed),
                    }
                },
                Step::Health(t, healthy) => {
                    b.server.view().members[t as usize].stats.set_healthy(healthy, b.clock.mono_ns());
                }
                Step::Pick(hash) => if let Ok(lease) = b.server.pick(Pick { hash: Some(hash), tried: &[] }) {
                    let view = b.server.view();
                    let member = view.members.iter().find(|m| m.stats.key == lease.key()).unwrap();
                    prop_assert!(!member.stats.draining());
                    held.push(lease);
                },
                Step::Pin(t) => held.extend(b.server.pinned(&b.reference(t as usize % 4)).ok()),
                Step::Weight(t, weight) => {
                    s.targets[t as usize].weight = weight;
                    b.upstreams.apply(s.clone()).unwrap();
                }
            }
            let targets = b.server.status().targets;
            prop_assert_eq!(targets.iter().map(|t| t.in_flight as usize).sum::<usize>(), held.len());
            prop_assert!(targets.iter().all(|t| t.in_flight <= 5));
            prop_assert!(targets.iter().filter(|t| t.ejected_until.is_some()).count() <= 2);
        }
    }
}
