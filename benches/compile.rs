//! What one publish costs among 2,000 tenants: the changed document is read, compiled and put into a snapshot that shares
//! the 1,999 others. Beside it, all of them, as at a start.

use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use tollgate::auth::{AuthState, CacheBounds, FailureBounds, JwksStore};
use tollgate::base::Clock;
use tollgate::config::model::{Document, Tenant};
use tollgate::config::{FixedSources, Terms, Validated, load_tenant};
use tollgate::snapshot::{Identities, Snapshot, SnapshotCell, State, TenantSnapshot, compile_tenant};
use tollgate::telemetry::{Caps, Metrics};
use tollgate::upstream::Upstreams;

const TENANTS: usize = 2_000;

fn document(change: usize) -> String {
    let mut text = String::from("version: 1\nservers:\n");
    for i in 0..4 {
        text += &format!("  - {{ name: s{i}, http: {{ targets: [\"https://s{i}.example.com/mcp\"] }} }}\n");
    }
    text += "routes:\n";
    for i in 0..4 {
        text += &format!("  - {{ name: r{i}, servers: [s{i}], policy: p }}\n");
    }
    text += &format!(
        "policies: [{{ name: p, default: deny, rules: [{{ allow: {{ tools: [\"get_{change}*\"] }} }}] }}]\n"
    );
    text + "identity: { api_keys: true }\n"
}

fn terms(i: usize) -> Terms {
    let tenant: Tenant = serde_json::from_str(&format!("{{ \"name\": \"t{i}\" }}")).expect("a tenant");
    Terms::of(&tenant)
}

fn load(i: usize, change: usize, settings: &Document) -> Validated {
    let text = document(change);
    let loaded = load_tenant(
        text.as_bytes(),
        "t",
        &terms(i),
        settings,
        &FixedSources::default(),
        tollgate::app::hooks(),
    );
    loaded.into_result().expect("a valid document")
}

fn compile(i: usize, change: usize, settings: &Document, state: &State) -> Arc<TenantSnapshot> {
    let validated = load(i, change, settings);
    let none = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
    compile_tenant(&validated, change as u64, "https://mcp.example.com", state, &none)
        .expect("it compiles")
        .snapshot
}

fn bench(c: &mut Criterion) {
    let clock = Clock::default();
    let state = State {
        upstreams: Arc::new(Upstreams::new(clock.clone())),
        metrics: Metrics::new(Caps::default(), clock.clone(), "bench"),
        jwks: Arc::new(JwksStore::new(clock.clone())),
        identities: Arc::new(Identities::new(true)),
        auth: AuthState::new(CacheBounds::default(), FailureBounds::default(), clock.clone()),
        clock,
    };
    let settings = Document::default();
    let started = std::time::Instant::now();
    let all = (0..TENANTS).map(|i| compile(i, 0, &settings, &state));
    let cell = SnapshotCell::new(Snapshot::new(all));
    println!("{TENANTS} tenants of 4 routes from nothing: {:?}", started.elapsed());
    let mut change = 0;
    c.bench_function("publish one of 2,000 tenants", |b| {
        b.iter(|| {
            change += 1;
            let tenant = compile(change % TENANTS, change, &settings, &state);
            let next = cell.load().with(tenant);
            cell.publish(next);
        });
    });
}

criterion_group!(benches, bench);
criterion_main!(benches);
