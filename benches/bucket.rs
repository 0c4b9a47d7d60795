//! What a limit costs per request: the claim is at most 100 ns for one warm bucket.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use tollgate::base::{Clock, Principal, PrincipalId, PrincipalKind, Role, RoleSet, TenantId};
use tollgate::limit::{
    Backend, Buckets, CostSpec, Decision, Facts, KeyPart, Limit, LimitSpec, Rate, Rates, default_per_role,
};

fn limit(name: &str, key: &[KeyPart], rates: Rates) -> Arc<Limit> {
    let spec = LimitSpec {
        scope: "default".into(),
        name: name.into(),
        key: key.to_vec(),
        rates,
        cost: CostSpec::default(),
        backend: Backend::Local,
    };
    Arc::new(Limit::compile(&spec).expect("a valid limit"))
}

fn bench(c: &mut Criterion) {
    let clock = Clock::default();
    let buckets = Buckets::new(clock.clone(), 1_000_000);
    let mut principal = Principal::anonymous(TenantId::default(), Role::Developer);
    principal.id = PrincipalId::new("corp:7d0c1a2b-3e4f");
    principal.kind = PrincipalKind::User;
    principal.roles = RoleSet::one(Role::Developer);
    let facts = Facts {
        tenant: "default",
        route: "weather",
        server: Some("weather"),
        principal: Some(&principal),
        ip: Ipv4Addr::LOCALHOST.into(),
        method: "tools/call",
        tool: Some("get_forecast"),
    };
    let fast = Rates::One(Rate::new(1_000_000, Duration::from_millis(1), 1_000_000_000).expect("a rate"));
    let one = [limit("one", &[KeyPart::Principal], fast.clone())];
    let four = [
        limit("tenant", &[KeyPart::Tenant], fast.clone()),
        limit("user", &[KeyPart::User], fast.clone()),
        limit("server", &[KeyPart::Server], fast.clone()),
        limit("tool", &[KeyPart::Tenant, KeyPart::Tool], fast),
    ];
    let empty = [limit("roles", &[KeyPart::Principal], Rates::PerRole(default_per_role()))];
    // Others' buckets, so that the look-up is not of a tiny map.
    for i in 0..100_000u32 {
        let other = Facts { principal: None, ip: Ipv4Addr::from_bits(i).into(), ..facts };
        let _ = buckets.check(clock.mono_ns(), &one, &other);
    }
    c.bench_function("one limit, granted", |b| {
        b.iter(|| black_box(buckets.check(black_box(clock.mono_ns()), &one, &facts)));
    });
    c.bench_function("one limit, granted, time given", |b| {
        let now = clock.mono_ns();
        let mut step = 0;
        b.iter(|| {
            step += 1_000;
            black_box(buckets.check(black_box(now + step), &one, &facts))
        });
    });
    c.bench_function("four limits, granted", |b| {
        b.iter(|| black_box(buckets.check(black_box(clock.mono_ns()), &four, &facts)));
    });
    c.bench_function("one limit, refused", |b| {
        let now = clock.mono_ns();
        while matches!(buckets.check(now, &empty, &facts), Decision::Granted(_)) {}
        b.iter(|| black_box(buckets.check(black_box(now), &empty, &facts)));
    });
    c.bench_function("headers", |b| {
        let Decision::Granted(Some(quota)) = buckets.check(clock.mono_ns(), &one, &facts) else {
            unreachable!("the limit is wide")
        };
        let mut buffer = Vec::new();
        b.iter(|| black_box((quota.policy_header(), quota.header(&mut buffer))));
    });
}

criterion_group!(benches, bench);
criterion_main!(benches);
