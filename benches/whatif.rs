//! What replaying 100,000 recorded requests costs, and what a proof does.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use tollgate::app::{Document, Options, compile_only};
use tollgate::insight::proof::{Gate, newly_allowed, who_can_call};
use tollgate::insight::whatif;
use tollgate::snapshot::Snapshot;

/// What the issue promises for this many requests is five seconds.
const REQUESTS: usize = 100_000;

fn document(rules: usize, last: &str) -> String {
    let rules: String = (0..rules)
        .map(|at| {
            format!(
                "      - {{ deny: {{ roles: [viewer], tools: [\"drop_{at}_*\"], groups: [\"g{at}\"] }} }}\n"
            )
        })
        .collect();
    format!(
        r#"
version: 1
servers: [{{ name: weather, http: {{ targets: ["http://127.0.0.1:9001/mcp"] }} }}]
routes: [{{ name: weather, servers: [weather], policy: staff, limits: [by_role] }}]
limits: [{{ name: by_role, key: principal, per_role: {{ developer: 200/m, viewer: 60/m }} }}]
policies:
  - name: staff
    rules:
{rules}      - {{ allow: {{ tools: ["{last}"] }} }}
identity: {{ issuers: [{{ name: corp, issuer: "https://login.example.com", jwks: {{ url: "https://login.example.com/keys" }} }}] }}
"#
    )
}

fn compiled(text: String) -> Snapshot {
    compile_only(&Options::new(Document::Text(text))).expect("a valid document")
}

fn bench(c: &mut Criterion) {
    let lines: String = (0..REQUESTS)
        .map(|at| {
            let role = if at % 3 == 0 { "developer" } else { "viewer" };
            format!(
                "{{\"time\":{},\"tenant\":\"default\",\"route\":\"weather\",\"path\":\"/mcp/weather\",\"method\":\"tools/call\",\"name\":\"get_{}\",\"ip\":\"10.0.0.1\",\"outcome\":\"ok\",\"principal\":{{\"id\":\"corp|{}\",\"kind\":\"user\",\"roles\":[\"{role}\"]}}}}\n",
                1_700_000_000_000u64 + at as u64,
                at % 977,
                at % 251,
            )
        })
        .collect();
    let (before, after) = (compiled(document(20, "*")), compiled(document(20, "get_1*")));
    let mut group = c.benchmark_group("insight");
    group.sample_size(10);
    group.bench_function("what-if, 100,000 requests from text", |b| {
        b.iter(|| {
            let samples = whatif::read(black_box(&lines)).expect("valid lines");
            let report = whatif::replay(&samples, Some(&before), &after).expect("valid samples");
            assert_eq!(report.samples, REQUESTS as u64);
            black_box(report.changes.len())
        });
    });
    let gates =
        |snapshot: &Snapshot| -> Vec<Gate> { snapshot.routes().iter().map(|r| Gate::of(r)).collect() };
    let (old, new) = (gates(&before), gates(&after));
    group.bench_function("who can call, 21 rules", |b| {
        b.iter(|| black_box(who_can_call(&new, "get_*").expect("an answer").verdict));
    });
    group.bench_function("newly allowed, 21 rules", |b| {
        b.iter(|| black_box(newly_allowed(&new, &old).expect("an answer").verdict));
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
