//! What a legacy request pays for its session id, and a stream for knowing where its events end.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tollgate::base::{Clock, PrincipalId, RouteId, TenantId};
use tollgate::mcp::seal::KeyRing;
use tollgate::mcp::session::{Binding, BootId, Limits, Serial, SessionToken, Sessions, TokenBuf};
use tollgate::mcp::sse::Boundary;
use tollgate::mcp::version::Version;

const NOW: u64 = 1_800_000_000;

fn session_ids(c: &mut Criterion) {
    let ring = KeyRing::generate(NOW).expect("random bytes");
    let (tenant, route) = (TenantId::from("acme"), RouteId::from("weather"));
    let principal = PrincipalId::from("corp|5d9f6a0e-2f3b-4f0e-9d0e-8a1c5a0b7c11");
    let binding = Binding { tenant: &tenant, route: &route, principal: &principal };
    let token = SessionToken {
        target: Some("10.0.0.1:9001"),
        upstream: Some("5d9f6a0e-2f3b-4f0e-9d0e-8a1c5a0b7c11"),
        version: Version::V2025_11_25,
        issued_at: NOW,
        home: BootId::fresh(),
        serial: Serial::fresh(),
    };
    let id = token.mint(&ring, binding).expect("within bounds");
    c.bench_function("session/mint", |b| b.iter(|| black_box(&token).mint(&ring, binding)));
    c.bench_function("session/open", |b| {
        b.iter(|| {
            let mut buf = TokenBuf::default();
            SessionToken::open(&ring, binding, black_box(&id), NOW, 3600, &mut buf).map(|t| t.serial)
        });
    });
    let sessions = Sessions::new(Limits::default(), Clock::manual(NOW));
    c.bench_function("session/touch", |b| b.iter(|| sessions.touch(black_box(&token), binding)));
}

fn boundary(c: &mut Criterion) {
    let event = format!("event: message\ndata: {}\n\n", "x".repeat(1000));
    let whole = event.repeat(64 * 1024 / event.len());
    let cut = &whole.as_bytes()[..whole.len() - 5];
    let mut group = c.benchmark_group("boundary");
    for (name, chunk) in [("whole_events", whole.as_bytes()), ("cut_event", cut)] {
        group.throughput(Throughput::Bytes(chunk.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut boundary = Boundary::new();
                boundary.feed(black_box(chunk));
                boundary.at_event()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, session_ids, boundary);
criterion_main!(benches);
