//! What choosing a target costs: pick and finish, for each policy and pool size.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tollgate::base::{Clock, ServerId, TenantId};
use tollgate::upstream::{Balance, Outcome, Pick, ServerSpec, TargetSpec, Upstreams};

fn spec(targets: usize, balance: Balance) -> ServerSpec {
    let target = |i: usize| {
        let url = format!("http://10.0.{}.{}:9000/mcp", i / 250, i % 250 + 1);
        TargetSpec::parse(&url, 1).expect("a well-formed URL")
    };
    let mut spec =
        ServerSpec::new(TenantId::default(), ServerId::new("bench"), (0..targets).map(target).collect());
    spec.balance = balance;
    spec
}

fn pick(c: &mut Criterion) {
    let mut group = c.benchmark_group("pick");
    for balance in
        [Balance::Hash, Balance::LeastRequest, Balance::PeakEwma, Balance::RoundRobin, Balance::Weighted]
    {
        for targets in [2, 16, 256] {
            let upstreams = Upstreams::new(Clock::default());
            let server = upstreams.apply(spec(targets, balance)).expect("a valid spec");
            let mut hash = 0u64;
            group.bench_function(BenchmarkId::new(format!("{balance:?}"), targets), |b| {
                b.iter(|| {
                    hash = hash.wrapping_add(0x9e37_79b9_7f4a_7c15);
                    let lease = server.pick(black_box(Pick { hash: Some(hash), tried: &[] }));
                    lease.expect("every target is available").finish(Outcome::Success);
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, pick);
criterion_main!(benches);
