//! The rules of the engine as a whole: exactness, all or nothing, keys, reloads, bounds.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::base::{Clock, Principal, PrincipalId, PrincipalKind, Role, RoleSet, TenantId};

const SECOND: u64 = 1_000_000_000;

fn rate(count: u64, per_secs: u64, burst: u64) -> Rate {
    Rate::new(count, Duration::from_secs(per_secs), burst).unwrap()
}

fn spec(name: &str, key: &[KeyPart], rates: Rates) -> LimitSpec {
    LimitSpec {
        scope: "default".into(),
        name: name.into(),
        key: key.to_vec(),
        rates,
        cost: CostSpec::default(),
        backend: Backend::Local,
    }
}

fn limit(name: &str, key: &[KeyPart], rate: Rate) -> Arc<Limit> {
    Arc::new(Limit::compile(&spec(name, key, Rates::One(rate))).unwrap())
}

fn principal(id: &str, kind: PrincipalKind, role: Role) -> Principal {
    let mut principal = Principal::anonymous(TenantId::default(), role);
    principal.id = PrincipalId::new(id);
    principal.kind = kind;
    principal.credential_id = Some(format!("{id}-credential").into());
    principal
}

fn facts<'a>(principal: Option<&'a Principal>, ip: &str) -> Facts<'a> {
    Facts {
        tenant: "default",
        route: "weather",
        server: Some("weather"),
        principal,
        ip: ip.parse().unwrap(),
        method: "tools/call",
        tool: Some("get_forecast"),
    }
}

fn buckets() -> (Clock, Buckets) {
    let clock = Clock::manual(1_000);
    (clock.clone(), Buckets::new(clock, 10_000))
}

fn granted(decision: Decision<'_>) -> bool {
    matches!(decision, Decision::Granted(_))
}

fn count_granted(b: &Buckets, now: u64, limits: &[Arc<Limit>], facts: &Facts<'_>, tries: usize) -> usize {
    (0..tries).filter(|_| granted(b.check(now, limits, facts))).count()
}

#[test]
fn grants_the_burst_then_the_rate() {
    let (clock, buckets) = buckets();
    let limits = [limit("l", &[KeyPart::Ip], rate(10, 1, 5))];
    let who = facts(None, "192.0.2.1");
    assert_eq!(count_granted(&buckets, clock.mono_ns(), &limits, &who, 100), 5);
    clock.advance(Duration::from_millis(99));
    assert!(!granted(buckets.check(clock.mono_ns(), &limits, &who)));
    clock.advance(Duration::from_millis(1));
    assert_eq!(count_granted(&buckets, clock.mono_ns(), &limits, &who, 100), 1);
    clock.advance(Duration::from_secs(3600));
    assert_eq!(count_granted(&buckets, clock.mono_ns(), &limits, &who, 100), 5, "never more than the burst");
}

#[test]
fn slow_rates_last_days_and_fast_rates_count_to_a_million() {
    let (clock, buckets) = buckets();
    let now = clock.mono_ns();
    let who = facts(None, "192.0.2.1");
    let daily = [limit("daily", &[KeyPart::Ip], rate(1, 86_400, 1))];
    assert_eq!(count_granted(&buckets, now, &daily, &who, 3), 1);
    assert!(!granted(buckets.check(now + 86_399 * SECOND, &daily, &who)));
    assert!(granted(buckets.check(now + 86_400 * SECOND, &daily, &who)));
    let fast = [limit("fast", &[KeyPart::Ip], rate(1_000_000, 1, 1_000))];
    assert_eq!(count_granted(&buckets, now, &fast, &who, 2_000), 1_000);
    assert_eq!(count_granted(&buckets, now + 100_000, &fast, &who, 2_000), 100);
}

#[test]
fn a_refusal_of_one_limit_takes_from_none() {
    let (clock, buckets) = buckets();
    let now = clock.mono_ns();
    let limits = [
        limit("wide", &[KeyPart::Tenant], rate(100, 1, 100)),
        limit("narrow", &[KeyPart::Ip], rate(1, 60, 3)),
    ];
    let who = facts(None, "192.0.2.1");
    assert_eq!(count_granted(&buckets, now, &limits, &who, 50), 3);
    let Decision::Refused(refusal) = buckets.check(now, &limits, &who) else { panic!("still empty") };
    assert_eq!((refusal.limit().name(), refusal.retry_after_secs()), ("narrow", 60));
    assert_eq!(count_granted(&buckets, now, &limits[..1], &who, 200), 97, "47 refusals took nothing");
}

#[test]
fn the_longest_wait_is_reported() {
    let (clock, buckets) = buckets();
    let now = clock.mono_ns();
    let limits =
        [limit("second", &[KeyPart::Ip], rate(1, 1, 1)), limit("hour", &[KeyPart::Ip], rate(1, 3600, 1))];
    let who = facts(None, "192.0.2.1");
    assert!(granted(buckets.check(now, &limits, &who)));
    let Decision::Refused(refusal) = buckets.check(now + SECOND / 2, &limits, &who) else { panic!("empty") };
    assert_eq!((refusal.limit().name(), refusal.retry_after()), ("hour", Duration::from_millis(3_599_500)));
    assert_eq!(refusal.retry_after_header(), "3600", "rounded up");
}

#[test]
fn threads_share_exactly_the_burst_and_refusals_take_nothing() {
    let (clock, buckets) = buckets();
    let now = clock.mono_ns();
    let wide = limit("wide", &[KeyPart::Tenant], rate(1, 1, 10_000));
    let narrow = limit("narrow", &[KeyPart::Tenant], rate(1, 1, 700));
    let both = [wide.clone(), narrow.clone()];
    let total = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let who = facts(None, "192.0.2.1");
                let n = count_granted(&buckets, now, &both, &who, 2_000);
                total.fetch_add(n as u64, Ordering::SeqCst);
            });
        }
    });
    // The clock stands still, so a refund is never shortened: at the end everything adds up exactly. While another
    // thread was about to give back, a request may have been refused too early, so what is left is granted now.
    let who = facts(None, "192.0.2.1");
    let rest = count_granted(&buckets, now, &both, &who, 10_000) as u64;
    assert_eq!(total.load(Ordering::SeqCst) + rest, 700);
    assert_eq!(count_granted(&buckets, now, &[wide], &who, 20_000), 10_000 - 700);
}

#[test]
fn threads_never_get_more_than_rate_times_time_plus_burst() {
    let clock = Clock::default();
    let buckets = Buckets::new(clock.clone(), 1_000);
    // The second limit refuses most of the time, so that giving back races with taking.
    let limits = [
        limit("a", &[KeyPart::Tenant], rate(200_000, 1, 50)),
        limit("b", &[KeyPart::Route], rate(100_000, 1, 20)),
    ];
    let total = AtomicU64::new(0);
    let start = clock.mono_ns();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let who = facts(None, "192.0.2.1");
                let mut granted_here = 0;
                while clock.mono_ns() - start < SECOND / 5 {
                    granted_here += u64::from(granted(buckets.check(clock.mono_ns(), &limits, &who)));
                }
                total.fetch_add(granted_here, Ordering::SeqCst);
            });
        }
    });
    let elapsed = clock.mono_ns() - start;
    let most = elapsed / limits[1].rate(|| 0).unwrap().rate.token_ns() + 20;
    let total = total.load(Ordering::SeqCst);
    assert!(total <= most, "{total} > {most}");
    assert!(total > 20, "and it does refill");
}

#[test]
fn costs_are_by_tool_then_method_then_default() {
    let (clock, buckets) = buckets();
    let now = clock.mono_ns();
    let mut spec = spec("l", &[KeyPart::Ip], Rates::One(rate(1, 1, 100)));
    spec.cost = CostSpec {
        default: 2,
        methods: vec![("tools/call".into(), 5), ("tools/list".into(), 0)],
        tools: vec![("get_*".into(), 20), ("get_cheap".into(), 1)],
    };
    let limits = [Arc::new(Limit::compile(&spec).unwrap())];
    let mut left = 100;
    for (method, tool, cost) in [
        ("tools/call", Some("get_forecast"), 20),
        ("tools/call", Some("get_cheap"), 1),
        ("tools/call", Some("GET_cheap"), 5),
        ("prompts/get", None, 2),
    ] {
        let who = Facts { method, tool, ..facts(None, "192.0.2.1") };
        let Decision::Granted(Some(quota)) = buckets.check(now, &limits, &who) else { panic!("{method}") };
        left -= cost;
        assert_eq!(quota.remaining(), left, "{method} {tool:?}");
    }
    let free = Facts { method: "tools/list", tool: None, ..facts(None, "192.0.2.1") };
    assert!(matches!(buckets.check(now, &limits, &free), Decision::Granted(None)));
}

#[test]
fn a_cost_that_could_never_be_granted_does_not_compile() {
    let mut spec = spec("l", &[], Rates::One(rate(10, 1, 10)));
    spec.cost.tools.push(("big".into(), 11));
    assert_eq!(Limit::compile(&spec).unwrap_err(), LimitError::CostAboveBurst { cost: 11, burst: 10 });
    spec.cost.tools[0] = ("a[b]".into(), 1);
    assert!(matches!(Limit::compile(&spec).unwrap_err(), LimitError::Pattern { .. }));
    spec.cost.tools.clear();
    for name in ["", "a\nb", "ä", &"x".repeat(65)] {
        spec.name = name.into();
        assert_eq!(Limit::compile(&spec).unwrap_err(), LimitError::Name, "{name:?}");
    }
    spec.name = "l".into();
    spec.key = vec![KeyPart::Ip, KeyPart::Ip];
    assert_eq!(Limit::compile(&spec).unwrap_err(), LimitError::DuplicateKeyPart(KeyPart::Ip));
}

#[test]
fn roles_have_their_own_rates_and_none_means_unlimited() {
    let (clock, buckets) = buckets();
    let mut rates = default_per_role();
    rates[Role::SuperAdmin as usize] = None;
    let limits =
        [Arc::new(Limit::compile(&spec("l", &[KeyPart::Principal], Rates::PerRole(rates))).unwrap())];
    for (role, want) in [(Role::Viewer, 90), (Role::Developer, 300), (Role::SuperAdmin, 2_000)] {
        let who = principal(role.as_str(), PrincipalKind::User, role);
        let got = count_granted(&buckets, clock.mono_ns(), &limits, &facts(Some(&who), "::1"), 2_000);
        assert_eq!(got, want, "{role}");
    }
}

#[test]
fn the_highest_role_counts_and_switching_roles_gains_nothing() {
    let (clock, buckets) = buckets();
    let now = clock.mono_ns();
    let limits = [Arc::new(
        Limit::compile(&spec("l", &[KeyPart::Principal], Rates::PerRole(default_per_role()))).unwrap(),
    )];
    let mut who = principal("bob", PrincipalKind::User, Role::Viewer);
    who.roles.insert(Role::Admin);
    assert_eq!(count_granted(&buckets, now, &limits, &facts(Some(&who), "::1"), 3_000), 1_500);
    // The same person with a weaker credential has the same, empty bucket.
    who.roles = RoleSet::one(Role::Viewer);
    assert_eq!(count_granted(&buckets, now, &limits, &facts(Some(&who), "::1"), 3_000), 0);
}

#[test]
fn keys_separate_and_ambiguous_names_do_not_meet() {
    let (clock, buckets) = buckets();
    let now = clock.mono_ns();
    let limits = [limit("l", &[KeyPart::Route, KeyPart::Server], rate(1, 60, 1))];
    for (route, server) in [("ab", "c"), ("a", "bc"), ("abc", ""), ("", "abc")] {
        let who = Facts { route, server: Some(server), ..facts(None, "::1") };
        assert_eq!(count_granted(&buckets, now, &limits, &who, 2), 1, "{route} {server}");
    }
    let other = Facts { tenant: "other", route: "ab", server: Some("c"), ..facts(None, "::1") };
    assert_eq!(count_granted(&buckets, now, &limits, &other, 2), 1, "another tenant's route");
}

#[test]
fn a_limit_does_not_apply_to_requests_without_a_part_of_its_key() {
    let (clock, buckets) = buckets();
    let now = clock.mono_ns();
    let user = principal("bob", PrincipalKind::User, Role::Viewer);
    let key = principal("bob", PrincipalKind::Key, Role::Viewer);
    for (part, with, without) in [
        (KeyPart::Tool, facts(None, "::1"), Facts { tool: None, ..facts(None, "::1") }),
        (KeyPart::Server, facts(None, "::1"), Facts { server: None, ..facts(None, "::1") }),
        (KeyPart::User, facts(Some(&user), "::1"), facts(Some(&key), "::1")),
        (KeyPart::Key, facts(Some(&key), "::1"), facts(Some(&user), "::1")),
    ] {
        let limits = [limit(&format!("{part:?}"), &[part], rate(1, 60, 1))];
        assert_eq!(count_granted(&buckets, now, &limits, &with, 9), 1, "{part:?}");
        assert_eq!(count_granted(&buckets, now, &limits, &without, 9), 9, "{part:?}");
    }
}

#[test]
fn anonymous_callers_are_told_apart_by_address() {
    let (clock, buckets) = buckets();
    let now = clock.mono_ns();
    let limits = [limit("l", &[KeyPart::Principal], rate(1, 60, 1))];
    let anonymous = Principal::anonymous(TenantId::default(), Role::Anonymous);
    assert_eq!(count_granted(&buckets, now, &limits, &facts(Some(&anonymous), "192.0.2.1"), 5), 1);
    assert_eq!(count_granted(&buckets, now, &limits, &facts(Some(&anonymous), "192.0.2.2"), 5), 1);
    assert_eq!(count_granted(&buckets, now, &limits, &facts(Some(&anonymous), "::ffff:192.0.2.1"), 5), 0);
    assert_eq!(count_granted(&buckets, now, &limits, &facts(None, "2001:db8::1"), 5), 1);
    assert_eq!(count_granted(&buckets, now, &limits, &facts(None, "2001:db8::ffff:1"), 5), 0, "the same /64");
    assert_eq!(count_granted(&buckets, now, &limits, &facts(None, "2001:db8:0:1::1"), 5), 1);
    // A user who is called like an address has a key of their own.
    let user = principal("192.0.2.1", PrincipalKind::User, Role::Viewer);
    assert_eq!(count_granted(&buckets, now, &limits, &facts(Some(&user), "192.0.2.1"), 5), 1);
}

#[test]
fn a_new_rate_keeps_how_empty_the_bucket_is() {
    let (clock, buckets) = buckets();
    let now = clock.mono_ns();
    let who = facts(None, "192.0.2.1");
    let daily = [limit("l", &[KeyPart::Ip], rate(1_000, 86_400, 1_000))];
    assert_eq!(count_granted(&buckets, now, &daily, &who, 750), 750);
    let faster = [limit("l", &[KeyPart::Ip], rate(100, 60, 200))];
    assert_eq!(count_granted(&buckets, now, &faster, &who, 500), 50, "a quarter is left of either");
    clock.advance(Duration::from_secs(120));
    assert_eq!(count_granted(&buckets, clock.mono_ns(), &faster, &who, 500), 200, "no debt of days is left");
    // Going back and forth, as with an old snapshot still in use, wins nothing.
    for _ in 0..10 {
        assert_eq!(count_granted(&buckets, clock.mono_ns(), &daily, &who, 1), 0);
        assert_eq!(count_granted(&buckets, clock.mono_ns(), &faster, &who, 1), 0);
    }
}

#[test]
fn the_same_limit_compiled_again_finds_its_buckets() {
    let (clock, buckets) = buckets();
    let now = clock.mono_ns();
    let who = facts(None, "192.0.2.1");
    assert_eq!(count_granted(&buckets, now, &[limit("l", &[KeyPart::Ip], rate(1, 60, 4))], &who, 3), 3);
    assert_eq!(count_granted(&buckets, now, &[limit("l", &[KeyPart::Ip], rate(1, 60, 4))], &who, 3), 1);
    let mut other = spec("l", &[KeyPart::Ip], Rates::One(rate(1, 60, 4)));
    other.scope = "tenant-b".into();
    assert_eq!(count_granted(&buckets, now, &[Arc::new(Limit::compile(&other).unwrap())], &who, 9), 4);
}

#[test]
fn peek_takes_nothing() {
    let (clock, buckets) = buckets();
    let now = clock.mono_ns();
    let limits = [limit("attempts", &[KeyPart::Ip], rate(1, 60, 2))];
    let who = facts(None, "192.0.2.1");
    for _ in 0..10 {
        let Decision::Granted(Some(quota)) = buckets.peek(now, &limits, &who) else { panic!("still full") };
        assert_eq!(quota.remaining(), 1, "after the request, if it were made");
    }
    assert!(buckets.is_empty());
    assert_eq!(count_granted(&buckets, now, &limits, &who, 5), 2);
    assert!(!granted(buckets.peek(now, &limits, &who)));
}

#[test]
fn sweep_removes_full_buckets_only() {
    let (clock, buckets) = buckets();
    let limits = [limit("l", &[KeyPart::Ip], rate(1, 1, 100))];
    for i in 0..500u32 {
        let ip: IpAddr = std::net::Ipv4Addr::from_bits(i).into();
        let who = Facts { ip, ..facts(None, "::1") };
        // Every other one owes 50 seconds, the rest one.
        let tries = if i % 2 == 0 { 50 } else { 1 };
        count_granted(&buckets, clock.mono_ns(), &limits, &who, tries);
    }
    let sweep_all = || (0..16).map(|_| buckets.sweep(clock.mono_ns())).sum::<usize>();
    assert_eq!((sweep_all(), buckets.len()), (0, 500));
    clock.advance(Duration::from_secs(3));
    assert_eq!((sweep_all(), buckets.len()), (250, 250));
    clock.advance(Duration::from_secs(60));
    assert_eq!((sweep_all(), buckets.len()), (250, 0));
}

#[test]
fn a_flood_of_keys_neither_resets_a_bucket_nor_grows_the_map() {
    let clock = Clock::manual(1_000);
    let buckets = Buckets::new(clock.clone(), 512);
    let limits = [limit("l", &[KeyPart::Ip], rate(1, 3_600, 5))];
    let victim = facts(None, "203.0.113.9");
    assert_eq!(count_granted(&buckets, clock.mono_ns(), &limits, &victim, 9), 5);
    let mut flood = 0;
    for i in 0..20_000u32 {
        let ip: IpAddr = std::net::Ipv4Addr::from_bits(0x0a00_0000 | i).into();
        flood += count_granted(&buckets, clock.mono_ns(), &limits, &Facts { ip, ..facts(None, "::1") }, 1);
        clock.advance(Duration::from_micros(100));
    }
    assert!(buckets.len() <= 512, "{}", buckets.len());
    assert!(buckets.without_room() > 0);
    assert!(flood <= 512 + 5, "newcomers without room share one bucket: {flood}");
    assert!(!granted(buckets.check(clock.mono_ns(), &limits, &victim)), "the victim's bucket was not reset");
    // When the flood's buckets are full again they make room without any sweep.
    clock.advance(Duration::from_secs(2 * 3_600));
    let newcomer = facts(None, "198.51.100.1");
    assert_eq!(count_granted(&buckets, clock.mono_ns(), &limits, &newcomer, 9), 5);
}

#[test]
fn more_limits_than_fit_inline_are_checked_too() {
    let (clock, buckets) = buckets();
    let mut limits: Vec<_> =
        (0..MAX_LIMITS + 3).map(|i| limit(&format!("l{i}"), &[KeyPart::Ip], rate(1, 1, 50))).collect();
    limits.push(limit("last", &[KeyPart::Ip], rate(1, 60, 2)));
    assert_eq!(count_granted(&buckets, clock.mono_ns(), &limits, &facts(None, "::1"), 9), 2);
}

#[test]
fn headers_follow_the_draft() {
    let (clock, buckets) = buckets();
    let now = clock.mono_ns();
    let limits = [limit(r#"by "role" \"#, &[KeyPart::Ip], rate(60, 60, 90))];
    let who = facts(None, "::1");
    let mut buffer = Vec::new();
    let Decision::Granted(Some(quota)) = buckets.check(now, &limits, &who) else { panic!("full") };
    assert_eq!(quota.policy_header(), r#""by \"role\" \\";q=60;w=60"#);
    assert_eq!(quota.header(&mut buffer), r#""by \"role\" \\";r=60;t=1"#, "no more than q is promised");
    assert_eq!((quota.remaining(), quota.window_secs(), quota.reset_secs()), (89, 60, 1));
    count_granted(&buckets, now, &limits, &who, 100);
    let Decision::Refused(refusal) = buckets.check(now, &limits, &who) else { panic!("empty") };
    assert_eq!(refusal.quota().header(&mut buffer), r#""by \"role\" \\";r=0;t=90"#);
    assert_eq!(refusal.retry_after_header(), "1");
}

#[test]
fn the_tightest_bucket_is_reported() {
    let (clock, buckets) = buckets();
    let now = clock.mono_ns();
    let limits = [limit("a", &[KeyPart::Ip], rate(9, 1, 9)), limit("b", &[KeyPart::Ip], rate(5, 1, 5))];
    let Decision::Granted(Some(quota)) = buckets.check(now, &limits, &facts(None, "::1")) else { panic!() };
    assert_eq!((quota.limit().name(), quota.remaining()), ("b", 4));
    assert!(matches!(buckets.check(now, &[], &facts(None, "::1")), Decision::Granted(None)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// For every stretch between two requests: what was granted in it is at most `rate × time + burst`, and a request
    /// that a full reference model would grant is granted.
    #[test]
    fn no_stretch_of_time_gets_more_than_rate_and_burst(
        count in 1u64..50,
        per_ms in 1u64..2_000,
        burst in 1u64..20,
        steps in prop::collection::vec((0u64..400, 1u32..6), 1..60),
    ) {
        let rate = Rate::new(count, Duration::from_millis(per_ms), burst).unwrap();
        let (clock, buckets) = buckets();
        let mut spec = spec("l", &[KeyPart::Ip], Rates::One(rate));
        spec.cost = CostSpec {
            default: 1,
            methods: (1..=5u32).filter(|c| u64::from(*c) <= burst).map(|c| (format!("m{c}"), c)).collect(),
            tools: Vec::new(),
        };
        let limits = [Arc::new(Limit::compile(&spec).unwrap())];
        let mut history: Vec<(u64, u64)> = Vec::new();
        // A leaky bucket in exact fractions: level × token_ns.
        let (mut level, mut last) = (0u64, clock.mono_ns());
        for (ms, cost) in steps {
            clock.advance(Duration::from_millis(ms));
            let now = clock.mono_ns();
            let method = format!("m{cost}");
            let real_cost = if u64::from(cost) <= burst { u64::from(cost) } else { 1 };
            let who = Facts { method: &method, tool: None, ..facts(None, "::1") };
            let got = granted(buckets.check(now, &limits, &who));
            level = level.saturating_sub(now - last);
            last = now;
            let fits = level + real_cost * rate.token_ns() <= burst * rate.token_ns();
            prop_assert_eq!(got, fits);
            if got {
                level += real_cost * rate.token_ns();
                history.push((now, real_cost));
            }
        }
        for from in 0..history.len() {
            let mut sum = 0;
            for (at, cost) in &history[from..] {
                sum += cost;
                let stretch = Duration::from_nanos(at - history[from].0);
                let most = burst as f64 + count as f64 * stretch.as_secs_f64() / rate.per().as_secs_f64();
                prop_assert!(sum as f64 <= most + 1e-6, "{sum} > {most}");
            }
        }
    }

    /// With several limits, what one refuses costs the others nothing.
    #[test]
    fn all_or_none_for_any_mix(
        bursts in prop::collection::vec(1u64..10, 1..5),
        tries in 1usize..30,
    ) {
        let (clock, buckets) = buckets();
        let limits: Vec<_> = bursts
            .iter()
            .enumerate()
            .map(|(i, burst)| limit(&format!("l{i}"), &[KeyPart::Ip], rate(1, 3_600, *burst)))
            .collect();
        let who = facts(None, "::1");
        let now = clock.mono_ns();
        let got = count_granted(&buckets, now, &limits, &who, tries) as u64;
        let smallest = *bursts.iter().min().unwrap();
        prop_assert_eq!(got, smallest.min(tries as u64));
        for (limit, burst) in limits.iter().zip(&bursts) {
            let rest = count_granted(&buckets, now, std::slice::from_ref(limit), &who, 100) as u64;
            prop_assert_eq!(rest, burst - got);
        }
    }
}
