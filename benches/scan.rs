//! The request scan beside serde_json, on `tools/call` bodies of three sizes.
//!
//! `serde_json borrowed` reads the same envelope in one pass into a borrowed structure. It checks duplicate keys only
//! among the fields it knows, looks neither at case variants nor into `_meta`, and stands for the least that a gateway
//! could do. `serde_json value` builds a tree.

use std::borrow::Cow;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde::Deserialize;
use serde_json::value::RawValue;
use tollgate::mcp::scan;

#[derive(Deserialize)]
#[allow(dead_code, reason = "only the reading is measured")]
struct Request<'a> {
    #[serde(borrow)]
    jsonrpc: Cow<'a, str>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    params: Params<'a>,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "only the reading is measured")]
struct Params<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow, rename = "_meta")]
    meta: Option<&'a RawValue>,
}

const META: &str = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"progressToken":3}"#;

fn call(arguments: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"search_documents","arguments":{arguments},"_meta":{META}}}}}"#
    )
}

/// A call whose arguments are records of a few members each, `length` bytes long give or take a record.
fn records(length: usize) -> String {
    let mut rows = String::new();
    for row in 0.. {
        let next = format!(
            r#"{{"id":{row},"title":"Quarterly report, part {row}","tags":["finance","draft"],"score":{}.25,"owner":{{"name":"Zoë","active":true}}}}"#,
            row * 7
        );
        if !rows.is_empty() && call(&rows).len() + next.len() + 3 > length {
            break;
        }
        if row > 0 {
            rows.push(',');
        }
        rows.push_str(&next);
    }
    call(&format!("[{rows}]"))
}

/// A call with one long text, as when a file is written: lines of 60 characters with escaped ends.
fn text(length: usize) -> String {
    let line = format!("{}\\n", "the quick brown fox jumps ".repeat(3).split_at(60).0);
    let lines = (length - call("").len() - 40) / line.len();
    call(&format!(r#"{{"path":"notes.txt","content":"{}"}}"#, line.repeat(lines)))
}

fn bench(criterion: &mut Criterion) {
    let small = call(
        r#"{"query":"error budget policy for the payments team","limit":10,"filter":{"space":"eng","archived":false},"sort":"-last_updated_at"}"#,
    );
    assert_eq!(small.len(), 359);
    let bodies = [
        ("call_359", small),
        ("records_1k", records(1 << 10)),
        ("records_64k", records(64 << 10)),
        ("text_64k", text(64 << 10)),
    ];
    let mut group = criterion.benchmark_group("scan");
    for (name, body) in &bodies {
        let bytes = body.as_bytes();
        assert!(scan::scan(bytes).is_ok(), "{name} must be a message");
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_with_input(BenchmarkId::new("tollgate", name), bytes, |bencher, bytes| {
            bencher.iter(|| scan::scan(black_box(bytes)).is_ok());
        });
        group.bench_with_input(BenchmarkId::new("serde_json borrowed", name), bytes, |bencher, bytes| {
            bencher.iter(|| serde_json::from_slice::<Request<'_>>(black_box(bytes)).is_ok());
        });
        group.bench_with_input(BenchmarkId::new("serde_json value", name), bytes, |bencher, bytes| {
            bencher.iter(|| serde_json::from_slice::<serde_json::Value>(black_box(bytes)).is_ok());
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
