//! What a decision costs: twenty rules without expressions, one with, and the most expensive expressions known.

use std::hint::black_box;
use std::net::Ipv4Addr;

use criterion::{Criterion, criterion_group, criterion_main};
use tollgate::base::{Principal, PrincipalId, PrincipalKind, Role, TenantId};
use tollgate::policy::{Effect, Facts, Item, ItemKind, Policy, PolicySpec, RuleSpec};

fn policy(rules: Vec<RuleSpec>) -> Policy {
    let spec = PolicySpec { name: "bench".into(), default: Effect::Deny, explain: false, rules };
    Policy::compile(&spec).expect("a valid policy")
}

fn when(source: &str) -> Vec<RuleSpec> {
    vec![RuleSpec { when: Some(source.into()), tools: vec!["*".into()], ..RuleSpec::new(Effect::Allow) }]
}

fn bench(c: &mut Criterion) {
    let mut principal = Principal::anonymous(TenantId::default(), Role::Developer);
    principal.id = PrincipalId::new("corp:7d0c1a2b-3e4f");
    principal.kind = PrincipalKind::User;
    principal.groups = vec!["staff".into(), "engineering".into(), "oncall".into()];
    let facts = Facts {
        tenant: "default",
        route: "everything",
        server: Some("weather"),
        principal: &principal,
        ip: Ipv4Addr::new(10, 1, 2, 3).into(),
        method: "tools/call",
        item: Item::Tool("get_forecast"),
        arguments: Some(r#"{"city":"Berlin","days":3,"units":"metric"}"#),
    };
    // Nineteen rules that nearly match, then one that does.
    let mut rules: Vec<_> = (0..19)
        .map(|i| RuleSpec {
            roles: vec![Role::Developer],
            tools: vec![format!("delete_{i}_*"), format!("drop_{i}")],
            groups: vec!["admins".into()],
            ..RuleSpec::new(Effect::Deny)
        })
        .collect();
    rules.push(RuleSpec {
        roles: vec![Role::Developer],
        tools: vec!["get_*".into(), "list_*".into()],
        servers: vec!["weather".into()],
        cidrs: vec!["10.0.0.0/8".parse().expect("a network")],
        ..RuleSpec::new(Effect::Allow)
    });
    let native = policy(rules);
    c.bench_function("20 rules", |b| b.iter(|| black_box(native.decide(black_box(&facts)).is_allowed())));
    c.bench_function("20 rules, visible", |b| {
        b.iter(|| black_box(native.visible(black_box(&facts), Item::Tool("get_alerts"))));
    });
    c.bench_function("lists decided", |b| b.iter(|| black_box(native.decides_lists(ItemKind::Tool))));

    let names = policy(when(r#""developer" in principal.roles && tool.startsWith("get_")"#));
    assert!(names.decide(&facts).is_allowed());
    c.bench_function("1 expression, names", |b| {
        b.iter(|| black_box(names.decide(black_box(&facts)).is_allowed()));
    });
    let arguments = policy(when("has(arguments.days) && arguments.days <= 7"));
    assert!(arguments.decide(&facts).is_allowed());
    c.bench_function("1 expression, arguments", |b| {
        b.iter(|| black_box(arguments.decide(black_box(&facts)).is_allowed()));
    });
    let pattern = policy(when(r#"tool.matches("^(get|list)_[a-z]+$")"#));
    assert!(pattern.decide(&facts).is_allowed());
    c.bench_function("1 expression, pattern", |b| {
        b.iter(|| black_box(pattern.decide(black_box(&facts)).is_allowed()));
    });

    let mut group = c.benchmark_group("hostile");
    group.sample_size(10);
    let ones = vec!["1"; 1_000].join(",");
    let list = format!("{{\"a\":[{ones}]}}");
    let rows = format!("{{\"a\":[{}]}}", vec![format!("[{}]", vec!["1"; 60].join(",")); 60].join(","));
    let texts = format!("{{\"a\":[{}],\"b\":\"{}\"}}", vec!["\"x\""; 900].join(","), "a".repeat(50_000));
    let copies = format!("size([{}]) > 0", vec!["arguments.a"; 120].join(","));
    for (name, source, arguments) in [
        ("nested exists", "arguments.a.exists(x, arguments.a.exists(y, x + y > 9))", &list),
        ("copied rows", copies.as_str(), &rows),
        ("nested copies", "arguments.a.map(x, [arguments.a, arguments.a]).size() > 0", &rows),
        ("errors", "arguments.a.exists(x, arguments.a - x == 1)", &rows),
        ("search in loop", "arguments.a.exists(x, arguments.b.contains('aaaaaaaaaaaaaaaaab'))", &texts),
        ("pattern in loop", "arguments.a.exists(x, arguments.b.matches('(a|aa|aaa)*b$'))", &texts),
        ("states", "arguments.b.matches('(a|b)*a(a|b){12}c')", &texts),
        ("conversions", "arguments.a.all(x, string(x) + string(x) != string(x + 1))", &list),
    ] {
        let policy = policy(when(source));
        let facts = Facts { arguments: Some(arguments), ..facts };
        group.bench_function(name, |b| b.iter(|| black_box(policy.decide(black_box(&facts)).is_allowed())));
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
