//! What recording one event costs the data plane, what draining it costs, and how fast a million are verified.
//!
//! Claims: recording an event of a tool call takes under 1 µs; 10⁶ events are verified in under 10 s. The second one is
//! timed once and fails the run when it is missed.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use tollgate::audit::usage::Sketch;
use tollgate::audit::{
    Allowance, AuditKey, Auditor, Chain, ChainId, Class, Durability, Event, Exporter, MAX_BODY, Mask, Merged,
    OnFull, Position, Range, Settings, Spool, Stored, WriterId, render, verify,
};
use tollgate::base::Clock;

/// Events of the verification.
const EVENTS: u64 = 1_000_000;

fn event() -> Event<'static> {
    Event {
        principal: Some("https://login.example.com|248289761001"),
        kind: Some("user"),
        role: Some("developer"),
        http_method: Some("POST"),
        method: Some("tools/call"),
        route: Some("weather"),
        server: Some("weather"),
        target: Some("http://127.0.0.1:9001/mcp"),
        name: Some("get_forecast"),
        decision: Some("allow"),
        outcome: Some("ok"),
        status: Some(200),
        bytes_in: Some(312),
        bytes_out: Some(1024),
        duration_us: Some(1480),
        upstream_us: Some(1400),
        session: Some(0x1234_5678_9abc_def0),
        client_ip: Some([203, 0, 113, 7].into()),
        request_id: Some([7; 16]),
        trace_id: Some([8; 16]),
        ..Event::new(1_796_000_000_000_000, "default", Class::Data)
    }
}

fn record(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a folder");
    let settings = Settings {
        dir: dir.path().to_owned(),
        max_size: 512 << 20,
        segment_size: 8 << 20,
        durability: Durability::Process,
        on_full: OnFull::Refuse,
    };
    let spool = Spool::open(settings, WriterId::fresh(), 0).expect("a spool");
    let allowance = Allowance { count: 50, per: Duration::from_secs(1), burst: 500 };
    let auditor = Auditor::new(spool.clone(), Mask::default(), MAX_BODY, allowance, Clock::default());
    let mut at = Position::default();
    let mut n = 0u32;
    c.bench_function("audit/record", |b| {
        b.iter(|| {
            let credit = spool.admit().ok();
            black_box(auditor.record(black_box(&event()), credit).is_ok());
            n += 1;
            if n.is_multiple_of(10_000) {
                // What a drainer does, or the spool would be full soon.
                at = spool.read(at, usize::MAX, |_, _, _| {});
                spool.release(at);
            }
        });
    });
    let (mut bytes, mut text) = (Vec::new(), String::new());
    c.bench_function("audit/encode_binary", |b| {
        b.iter(|| {
            bytes.clear();
            black_box(&event()).encode(&mut bytes);
            black_box(bytes.len())
        });
    });
    c.bench_function("audit/encode_json", |b| {
        b.iter(|| {
            text.clear();
            render(black_box(&event()), &mut text);
            black_box(text.len())
        });
    });
    let id = ChainId { tenant: "default".to_owned(), writer: WriterId::fresh(), class: Class::Data };
    let mut chain = Chain::at(&id, id.genesis());
    let mut record = Vec::new();
    event().encode(&mut record);
    c.bench_function("audit/drain_one", |b| {
        b.iter(|| {
            let event = Event::decode(black_box(&record)).expect("an event");
            text.clear();
            render(&event, &mut text);
            black_box(chain.append(event.time_us, &[1; 16], text.as_bytes()))
        });
    });
}

/// A question about latency over a thousand rows: their sketches together, and the same one by one.
fn latency(c: &mut Criterion) {
    let rows: Vec<Vec<u8>> = (0..1000u64)
        .map(|row| {
            let mut sketch = Sketch::new();
            (0..30).for_each(|call| sketch.add_us(100 * ((row * 31 + call * 7919) % 100_000)));
            sketch.to_bytes()
        })
        .collect();
    c.bench_function("audit/latency_of_1000_rows", |b| {
        b.iter(|| {
            let mut all = Merged::default();
            rows.iter().for_each(|row| all.add(black_box(row)));
            black_box(all.finish().quantile_ms(0.99))
        });
    });
    c.bench_function("audit/latency_of_1000_rows_one_by_one", |b| {
        b.iter(|| {
            let mut all = Sketch::new();
            let read = rows.iter().filter_map(|row| Sketch::from_bytes(black_box(row)));
            read.for_each(|sketch| all.merge(&sketch));
            black_box(all.quantile_ms(0.99))
        });
    });
}

fn million(_: &mut Criterion) {
    let key = AuditKey::ephemeral();
    let id = ChainId { tenant: "default".to_owned(), writer: WriterId::fresh(), class: Class::Data };
    let mut chain = Chain::at(&id, id.genesis());
    let mut exporter = Exporter::new("default", Range::default());
    let mut payload = String::new();
    render(&event(), &mut payload);
    let mut rows = Vec::new();
    for i in 0..EVENTS {
        let salt = u128::from(i).to_be_bytes();
        rows.push((salt, chain.append(1_796_000_000_000_000 + i, &salt, payload.as_bytes())));
    }
    let mut file = Vec::new();
    exporter.chain(&id, id.genesis(), chain.head());
    for (salt, linked) in rows {
        let stored = Stored {
            sequence: linked.head.sequence,
            time_us: linked.head.time_us,
            commitment: linked.commitment,
            link: linked.head.link,
            content: Some((salt, payload.as_str())),
        };
        exporter.event(&stored, true, &mut file);
    }
    exporter.finish(&key, 0, &mut file);
    let started = Instant::now();
    let report = verify(std::io::Cursor::new(&file), &[key.public()], None).expect("a sound export");
    let took = started.elapsed();
    println!("audit/verify: {} events ({} MB) in {took:.2?}", report.events, file.len() / 1_000_000);
    assert!(report.events == EVENTS && took < Duration::from_secs(10), "10⁶ events in under 10 s");
}

criterion_group! {
    name = audit;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = record, latency, million
}
criterion_main!(audit);
