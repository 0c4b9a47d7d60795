//! Events and usage in the store, on both engines.

use std::collections::HashMap;
use std::time::Duration;

use tollgate::app::{checkpoint, checkpoint_all};
use tollgate::audit::usage::Usage;
use tollgate::audit::{
    AuditKey, Chain, ChainId, Class, Event, Finding, Head, Horizon, Keys, Names, Position, Report, WriterId,
    render, verify,
};
use tollgate::store::{
    AuditBatch, AuditFilter, Engine, ExportFormat, Grain, MovedChain, NewEvent, Page, Store, StoreError,
    Time, UsageBy, UsageFilter, export,
};

use super::{Fixture, each_engine, tenant};

each_engine!(
    a_batch_is_written_once_whatever_becomes_of_its_commit,
    events_are_found_by_what_they_say_page_by_page,
    an_export_is_proved_and_what_was_done_to_the_tables_is_found,
    old_days_go_and_the_rest_is_still_proved,
    erased_events_say_nothing_and_the_chain_holds,
    bodies_are_read_event_by_event_and_a_few_megabytes_at_once,
    usage_adds_up_and_roll_ups_may_be_done_again,
    a_batch_of_many_callers_is_as_few_statements_as_one_of_one,
);

const START_US: u64 = 1_796_000_000_000_000;
const DAY_US: u64 = 86_400_000_000;

/// Writes events as the drainer does.
pub struct Writer {
    id: WriterId,
    at: Position,
    chains: HashMap<ChainId, Chain>,
}

impl Writer {
    pub fn new() -> Self {
        Self { id: WriterId::fresh(), at: Position::default(), chains: HashMap::new() }
    }

    pub fn name(&self) -> String {
        self.id.to_string()
    }

    pub fn batch(&mut self, events: &[Event<'_>]) -> AuditBatch {
        let from = self.at;
        let mut usage = Usage::default();
        let mut new = Vec::new();
        let before: HashMap<ChainId, Head> =
            self.chains.iter().map(|(id, chain)| (id.clone(), chain.head())).collect();
        for event in events {
            self.at.offset += 100;
            let id = ChainId { tenant: event.tenant.to_owned(), writer: self.id, class: event.class };
            let chain = self.chains.entry(id.clone()).or_insert_with(|| Chain::at(&id, id.genesis()));
            let mut json = String::new();
            render(event, &mut json);
            let salt = [self.at.offset as u8; 16];
            let linked = chain.append(event.time_us, &salt, json.as_bytes());
            let keys = Keys::of(event, &mut Names::default());
            usage.count(linked.head.time_us, event, &keys);
            new.push(NewEvent {
                class: event.class,
                sequence: linked.head.sequence,
                time: Time::from_micros(linked.head.time_us as i64),
                commitment: linked.commitment,
                link: linked.head.link,
                salt,
                payload: json.into(),
                keys,
            });
        }
        let moved = |(id, chain): (&ChainId, &Chain)| {
            let from = before.get(id).copied().unwrap_or_else(|| id.genesis());
            MovedChain { id: id.clone(), from, to: chain.head() }
        };
        let chains = self.chains.iter().map(moved).filter(|c| c.to.sequence > c.from.sequence).collect();
        let (usage, metrics) = usage.into_parts();
        AuditBatch { writer: self.id, from, to: self.at, events: new, chains, usage, metrics }
    }
}

pub fn event<'a>(tenant: &'a str, at_us: u64, principal: &'a str, tool: &'a str) -> Event<'a> {
    Event {
        principal: Some(principal),
        method: Some("tools/call"),
        name: Some(tool),
        route: Some("weather"),
        server: Some("weather"),
        outcome: Some("ok"),
        duration_us: Some(1500),
        bytes_in: Some(10),
        bytes_out: Some(20),
        ..Event::new(at_us, tenant, Class::Data)
    }
}

async fn exported(store: &Store, key: &AuditKey, filter: &AuditFilter) -> Vec<u8> {
    let mut file = Vec::new();
    export(store, key, &tenant("a"), filter, ExportFormat::JsonLines, true, &mut file).await.unwrap();
    file
}

fn proved(file: &[u8], key: &AuditKey, since: Option<&str>) -> Result<Report, Finding> {
    verify(std::io::Cursor::new(file), &[key.public()], since)
}

/// Rows of a day that has no partition yet, as a restore leaves them, must not keep it from being made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_rest_has_of_a_day_moves_into_its_partition() {
    let fixture = Fixture::new(Engine::Postgres).await;
    let (platform, database) = (fixture.store.platform(), fixture.database.as_ref().unwrap());
    let mut writer = Writer::new();
    let events: Vec<Event<'_>> =
        [0, 1, DAY_US].iter().map(|at| event("a", START_US + at, "ann", "x")).collect();
    platform.audit_write(&writer.batch(&events)).await.unwrap();
    let rest = || database.sql("SELECT count(*) FROM audit_events_data_rest");
    assert_eq!(rest(), "3");
    let day = Time::from_micros(START_US as i64);
    for _ in 0..2 {
        platform.audit_day(day).await.unwrap();
        assert_eq!(rest(), "1", "the next day's stays");
    }
    platform.audit_write(&Writer::new().batch(&[event("a", START_US + 2, "ann", "x")])).await.unwrap();
    assert_eq!(rest(), "1");
    assert_eq!(database.sql("SELECT count(*) FROM audit_events"), "4");
    let made = database.sql("SELECT relname FROM pg_class WHERE relname ~ '^audit_events_data_[0-9]+$'");
    assert_eq!(database.sql(&format!("SELECT count(*) FROM {made}")), "3");
    let unused = database.sql(&format!(
        "SELECT count(*) FROM pg_index p WHERE p.indrelid = 'audit_events_data'::regclass AND NOT EXISTS
           (SELECT 1 FROM pg_inherits i JOIN pg_index c ON c.indexrelid = i.inhrelid
             WHERE i.inhparent = p.indexrelid AND c.indrelid = '{made}'::regclass)"
    ));
    assert_eq!(unused, "0", "the partition has every index");
}

async fn a_batch_is_written_once_whatever_becomes_of_its_commit(fixture: Fixture) {
    let platform = fixture.store.platform();
    let mut writer = Writer::new();
    assert_eq!(platform.audit_cursor(writer.id).await.unwrap(), Position::default());
    let first = writer.batch(&[event("a", START_US, "ann", "x"), event("b", START_US, "bob", "x")]);
    platform.audit_write(&first).await.unwrap();
    // The commit was done, and nobody heard of it: the same batch again.
    let again = platform.audit_write(&first).await;
    assert!(matches!(again, Err(StoreError::Conflict { .. })), "{again:?}");
    assert_eq!(platform.audit_cursor(writer.id).await.unwrap(), first.to);
    let chains = platform.audit_writer_chains(writer.id).await.unwrap();
    assert_eq!(chains.len(), 2);
    assert!(chains.iter().all(|c| c.head.sequence == 1 && c.head == writer.chains[&c.id].head()));
    // More than one chunk of a statement, and not a whole number of them.
    let many: Vec<String> = (0..333).map(|i| format!("tool_{i}")).collect();
    let events: Vec<Event<'_>> = many.iter().map(|name| event("a", START_US + 5, "ann", name)).collect();
    platform.audit_write(&writer.batch(&events)).await.unwrap();
    let id = tenant("a");
    let found = fixture.store.tenant(&id);
    let page = found.audit_search(&AuditFilter::default(), None, Page::of(1000)).await.unwrap();
    assert_eq!(page.len(), 334);
}

async fn events_are_found_by_what_they_say_page_by_page(fixture: Fixture) {
    let mut writer = Writer::new();
    let mut events = Vec::new();
    for i in 0..50u64 {
        let who = if i % 5 == 0 { "ann" } else { "bob" };
        // Several at the same microsecond: pages must not lose one.
        events.push(event("a", START_US + i / 4, who, if i % 2 == 0 { "x" } else { "y" }));
    }
    events.push(event("b", START_US, "ann", "x"));
    events.push(Event {
        action: Some("route.put"),
        principal: Some("root"),
        ..Event::new(START_US + 100, "a", Class::Control)
    });
    fixture.store.platform().audit_write(&writer.batch(&events)).await.unwrap();
    let id = tenant("a");
    let scope = fixture.store.tenant(&id);
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let page = scope.audit_search(&AuditFilter::default(), before, Page::of(7)).await.unwrap();
        let Some(last) = page.last() else { break };
        before = Some(last.place());
        seen.extend(page.iter().map(|e| (e.time, e.class(), e.sequence())));
    }
    assert_eq!(seen.len(), 51);
    assert!(seen.is_sorted_by(|a, b| a.0 >= b.0), "the newest first");
    let distinct: std::collections::HashSet<_> = seen.iter().collect();
    assert_eq!(distinct.len(), 51);
    let count =
        async |filter: AuditFilter| scope.audit_search(&filter, None, Page::of(100)).await.unwrap().len();
    let text = |t: &str| Some(t.to_owned());
    assert_eq!(count(AuditFilter { principal: text("ann"), ..Default::default() }).await, 10);
    assert_eq!(count(AuditFilter { principal: text("ann"), name: text("y"), ..Default::default() }).await, 5);
    assert_eq!(count(AuditFilter { class: text("control"), ..Default::default() }).await, 1);
    assert_eq!(count(AuditFilter { outcome: text("denied"), ..Default::default() }).await, 0);
    let time = |us: u64| Some(Time::from_micros((START_US + us) as i64));
    assert_eq!(count(AuditFilter { from: time(2), to: time(4), ..Default::default() }).await, 8);
}

async fn an_export_is_proved_and_what_was_done_to_the_tables_is_found(fixture: Fixture) {
    let (store, platform, key) = (&fixture.store, fixture.store.platform(), AuditKey::ephemeral());
    let mut writer = Writer::new();
    let names: Vec<String> = (0..1200).map(|i| format!("t{i}")).collect();
    for chunk in names.chunks(400) {
        let events: Vec<Event<'_>> =
            chunk.iter().enumerate().map(|(i, n)| event("a", START_US + i as u64, "ann", n)).collect();
        platform.audit_write(&writer.batch(&events)).await.unwrap();
        assert_eq!(checkpoint_all(store, &key, Horizon::default()).await.unwrap().done, 1);
    }
    assert_eq!(checkpoint_all(store, &key, Horizon::default()).await.unwrap().done, 0, "nothing moved");
    let since = checkpoint(store, &key, &tenant("a"), Horizon::default()).await.unwrap();
    let file = exported(store, &key, &AuditFilter::default()).await;
    let report = proved(&file, &key, Some(&since)).unwrap();
    assert_eq!((report.events, report.checkpoints, report.chains), (1200, 4, 1));
    // A filter hides what the others say, and not that they are there.
    let filter = AuditFilter { name: Some("t7".to_owned()), ..Default::default() };
    let file = exported(store, &key, &filter).await;
    let report = proved(&file, &key, Some(&since)).unwrap();
    assert_eq!((report.events, report.omitted), (1, 1199));
    assert!(!String::from_utf8(file).unwrap().contains("\"t8\""));
    // A range of time begins and ends in mid-chain.
    let time = |us: u64| Some(Time::from_micros((START_US + us) as i64));
    let file =
        exported(store, &key, &AuditFilter { from: time(100), to: time(380), ..Default::default() }).await;
    let report = proved(&file, &key, None).unwrap();
    assert!(report.events > 100 && report.events < 1200, "{report:?}");
    let Some(database) = &fixture.database else { return };
    for damage in [
        "UPDATE audit_events SET payload = replace(payload, 'ann', 'bob') WHERE sequence = 600",
        "UPDATE audit_events SET time = time + interval '1 microsecond' WHERE sequence = 600",
        "DELETE FROM audit_events WHERE sequence = 600",
        "DELETE FROM audit_events WHERE sequence > 1000",
        "DELETE FROM audit_events WHERE sequence > 1000;
         UPDATE audit_heads h SET sequence = e.sequence, link = e.link FROM audit_events e WHERE e.sequence = 1000",
        "DELETE FROM audit_checkpoints WHERE number = 1",
        "DELETE FROM audit_checkpoints WHERE number = 2",
        "DELETE FROM audit_checkpoints WHERE number > 2",
    ] {
        database.sql("CREATE TABLE kept AS SELECT * FROM audit_events; CREATE TABLE kept_heads AS SELECT * FROM audit_heads;
                      CREATE TABLE kept_checkpoints AS SELECT * FROM audit_checkpoints");
        database.sql(damage);
        let file = exported(store, &key, &AuditFilter::default()).await;
        assert!(proved(&file, &key, Some(&since)).is_err(), "{damage}");
        database.sql("TRUNCATE audit_events, audit_heads, audit_checkpoints;
                      INSERT INTO audit_events SELECT * FROM kept; INSERT INTO audit_heads SELECT * FROM kept_heads;
                      INSERT INTO audit_checkpoints SELECT * FROM kept_checkpoints;
                      DROP TABLE kept, kept_heads, kept_checkpoints");
    }
    let file = exported(store, &key, &AuditFilter::default()).await;
    proved(&file, &key, Some(&since)).unwrap();
}

async fn old_days_go_and_the_rest_is_still_proved(fixture: Fixture) {
    let (store, platform, key) = (&fixture.store, fixture.store.platform(), AuditKey::ephemeral());
    let mut writer = Writer::new();
    let mut control = Vec::new();
    for day in 0..4u64 {
        let at = START_US + day * DAY_US;
        platform.audit_day(Time::from_micros(at as i64)).await.unwrap();
        let mut events: Vec<Event<'_>> = (0..10).map(|i| event("a", at + i, "ann", "x")).collect();
        events.push(Event { action: Some("apply"), ..Event::new(at + 20, "a", Class::Control) });
        platform.audit_write(&writer.batch(&events)).await.unwrap();
        control.push(at);
    }
    let before = Time::from_micros((START_US + 2 * DAY_US) as i64);
    let horizon = |before: Time| {
        let day = before.floor(Duration::from_secs(86_400));
        Horizon { control_us: 0, data_us: day.micros() as u64 }
    };
    let since = checkpoint(store, &key, &tenant("a"), horizon(before)).await.unwrap();
    assert!(platform.audit_drop(Class::Data, before).await.unwrap() > 0);
    assert_eq!(platform.audit_drop(Class::Data, before).await.unwrap(), 0, "nothing is left to drop");
    let file = exported(store, &key, &AuditFilter::default()).await;
    let report = proved(&file, &key, Some(&since)).unwrap();
    assert_eq!(report.events, 20 + 4, "two days of requests, and every action");
    // Everything, and then more: the chain goes on.
    let all = Time::from_micros((START_US + 10 * DAY_US) as i64);
    platform.audit_drop(Class::Data, all).await.unwrap();
    platform.audit_write(&writer.batch(&[event("a", START_US + 10 * DAY_US, "ann", "x")])).await.unwrap();
    let file = exported(store, &key, &AuditFilter::default()).await;
    assert!(proved(&file, &key, Some(&since)).is_err(), "nobody has said that so much may be gone");
    checkpoint(store, &key, &tenant("a"), horizon(all)).await.unwrap();
    let file = exported(store, &key, &AuditFilter::default()).await;
    assert_eq!(proved(&file, &key, Some(&since)).unwrap().events, 1 + 4);
}

async fn erased_events_say_nothing_and_the_chain_holds(fixture: Fixture) {
    let (store, platform, key) = (&fixture.store, fixture.store.platform(), AuditKey::ephemeral());
    let mut writer = Writer::new();
    let events: Vec<Event<'_>> =
        (0..20).map(|i| event("a", START_US + i, if i % 4 == 0 { "ann" } else { "bob" }, "x")).collect();
    platform.audit_write(&writer.batch(&events)).await.unwrap();
    let since = checkpoint(store, &key, &tenant("a"), Horizon::default()).await.unwrap();
    assert_eq!(platform.audit_erase(&tenant("a"), "ann").await.unwrap().events, 5);
    assert_eq!(platform.audit_erase(&tenant("b"), "bob").await.unwrap().events, 0);
    let file = exported(store, &key, &AuditFilter::default()).await;
    let report = proved(&file, &key, Some(&since)).unwrap();
    assert_eq!((report.events, report.erased), (15, 5));
    assert!(!String::from_utf8(file).unwrap().contains("ann"));
}

async fn usage_adds_up_and_roll_ups_may_be_done_again(fixture: Fixture) {
    let (store, platform) = (&fixture.store, fixture.store.platform());
    let id = tenant("a");
    let scope = store.tenant(&id);
    let mut writers = [Writer::new(), Writer::new()];
    let hour = 3_600_000_000;
    let begin = START_US / DAY_US * DAY_US;
    for (i, writer) in writers.iter_mut().enumerate() {
        for round in 0..3u64 {
            let at = begin + hour * 5 + round;
            let events = [event("a", at, "ann", "x"), event("a", at, "ann", "x")];
            platform.audit_write(&writer.batch(&events)).await.unwrap();
        }
        for round in 0..3u64 {
            let at = begin + hour * 6 + round;
            let events = [Event { outcome: Some("timeout"), ..event("a", at, "bob", "y") }];
            platform.audit_write(&writer.batch(&events)).await.unwrap();
        }
        // Late ones make the hour anew.
        assert_eq!(platform.usage_roll_up().await.unwrap(), 2, "writer {i}");
        assert_eq!(platform.usage_roll_up().await.unwrap(), 0);
    }
    let (from, to) = (Time::from_micros(begin as i64), Time::from_micros((begin + DAY_US) as i64));
    let all = UsageFilter::default();
    for grain in [Grain::Minute, Grain::Hour, Grain::Day] {
        let series = scope.usage_series(grain, from, to, &all).await.unwrap();
        let sum = |f: fn(&tollgate::store::UsagePoint) -> i64| series.iter().map(f).sum::<i64>();
        assert_eq!((sum(|p| p.calls), sum(|p| p.errors)), (18, 6), "{grain:?}");
        assert_eq!((sum(|p| p.bytes_in), sum(|p| p.bytes_out)), (180, 360), "{grain:?}");
        assert_eq!(series.len(), if grain == Grain::Day { 1 } else { 2 });
        let latency = scope.usage_latency(grain, from, to, &all).await.unwrap().unwrap();
        assert_eq!(latency.count(), 18);
        let p50 = latency.quantile_ms(0.5).unwrap();
        assert!((p50 - 1.5).abs() < 0.03, "{p50}");
        let top = scope.usage_top(grain, UsageBy::Principal, from, to, 5).await.unwrap();
        let top: Vec<_> = top.iter().map(|t| (t.name.as_str(), t.calls)).collect();
        assert_eq!(top, [("ann", 12), ("bob", 6)]);
    }
    let ann = UsageFilter { principal: Some("ann".to_owned()), ..Default::default() };
    assert_eq!(scope.usage_series(Grain::Hour, from, to, &ann).await.unwrap().len(), 1);
    let other = tenant("b");
    assert!(store.tenant(&other).usage_series(Grain::Hour, from, to, &all).await.unwrap().is_empty());
    // Hours stay when their minutes go.
    fixture.clock.advance(Duration::from_secs(1));
    // As many of usage as of metrics.
    assert_eq!(platform.usage_forget_minutes(to).await.unwrap(), 8);
    assert_eq!(scope.usage_series(Grain::Hour, from, to, &all).await.unwrap().len(), 2);
}

async fn bodies_are_read_event_by_event_and_a_few_megabytes_at_once(fixture: Fixture) {
    let (store, platform, key) = (&fixture.store, fixture.store.platform(), AuditKey::ephemeral());
    let tricky = r#"x,"request_body":"y"#;
    let body = [br#"{"s3cret":"\u0000","x":""#.as_slice(), &vec![b'z'; 60_000], b"\"}"].concat();
    let mut writer = Writer::new();
    let mut count = 0;
    for chunk in 0..20u64 {
        let events: Vec<Event<'_>> = (0..10)
            .map(|i| {
                let plain = event("a", START_US + chunk * 10 + i, "ann", tricky);
                match i % 4 {
                    0 => plain,
                    1 => Event { request_body: Some(&body), request_cut: Some(7), ..plain },
                    2 => Event { response_body: Some(&body), ..plain },
                    _ => Event { request_body: Some(&body), response_body: Some(b"s3cret"), ..plain },
                }
            })
            .collect();
        count += events.len();
        platform.audit_write(&writer.batch(&events)).await.unwrap();
    }
    let id = tenant("a");
    let scope = store.tenant(&id);
    let listed = scope.audit_search(&AuditFilter::default(), None, Page::of(1000)).await.unwrap();
    assert_eq!(listed.len(), count);
    for event in &listed {
        let payload = event.payload.as_deref().unwrap();
        let json: serde_json::Value = serde_json::from_str(payload).unwrap();
        assert!(payload.len() < 500 && !payload.contains("s3cret") && json["name"] == tricky, "{payload}");
        let whole =
            scope.audit_event(event.class(), event.writer(), event.sequence()).await.unwrap().unwrap();
        let whole: serde_json::Value = serde_json::from_str(whole.payload.as_deref().unwrap()).unwrap();
        assert_eq!(whole["request_body"].is_string(), event.has_request_body);
        assert_eq!(whole["response_body"].is_string(), event.has_response_body);
        assert_eq!(whole["request_cut"], json["request_cut"]);
    }
    assert_eq!(listed.iter().filter(|e| e.has_bodies()).count(), 140);
    let chain = ChainId { tenant: "a".to_owned(), writer: writer.id, class: Class::Data };
    let mut tx = platform.read().await.unwrap();
    let plain = tx.audit_range(&chain, 0, Page::of(1000)).await.unwrap();
    assert!(plain.len() == count && plain.iter().all(|e| !e.payload.as_ref().unwrap().contains("s3cret")));
    let (mut after, mut pages) = (0, 0);
    loop {
        let page = tx.audit_range_whole(&chain, after, Page::of(1000)).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.sequence();
        pages += 1;
        let bytes: usize = page.iter().map(|e| e.payload.as_ref().unwrap().len()).sum();
        assert!(bytes < (4 << 20) + 70_000, "{bytes}");
    }
    assert!(after == count as u64 && pages >= 2, "{after} {pages}");
    drop(tx);
    let every = AuditFilter::default();
    let whole = exported(store, &key, &every).await;
    let report = proved(&whole, &key, None).unwrap();
    assert_eq!((report.events, report.omitted), (count as u64, 0));
    let exported_as = async |format, bodies| {
        let mut file = Vec::new();
        export(store, &key, &id, &every, format, bodies, &mut file).await.unwrap();
        String::from_utf8(file).unwrap()
    };
    let hidden = exported_as(ExportFormat::JsonLines, false).await;
    let report = proved(hidden.as_bytes(), &key, None).unwrap();
    assert_eq!((report.events, report.omitted), (60, 140), "commitments, and still proved");
    assert!(!hidden.contains("s3cret"));
    for (format, bodies) in [
        (ExportFormat::Csv, true),
        (ExportFormat::Csv, false),
        (ExportFormat::Cef, true),
        (ExportFormat::Cef, false),
    ] {
        let table = exported_as(format, bodies).await;
        assert!(table.lines().count() >= count && !table.contains("s3cret"), "{format:?}");
    }
    assert!(platform.audit_erase(&id, "ann").await.unwrap().events >= count as u64);
    let erased = exported(store, &key, &every).await;
    assert_eq!(proved(&erased, &key, None).unwrap().erased, count as u64);
    assert!(!String::from_utf8(erased).unwrap().contains("s3cret"));
    let gone = scope.audit_event(Class::Data, writer.id, 2).await.unwrap().unwrap();
    assert!(gone.payload.is_none() && !gone.has_bodies());
    // Of another tenant there is nothing by the same name.
    let other = tenant("b");
    assert!(store.tenant(&other).audit_event(Class::Data, writer.id, 2).await.unwrap().is_none());
}

async fn a_batch_of_many_callers_is_as_few_statements_as_one_of_one(fixture: Fixture) {
    let (store, platform) = (&fixture.store, fixture.store.platform());
    let names: Vec<String> = (0..300).map(|i| format!("caller-{i}")).collect();
    let mut writer = Writer::new();
    let begin = START_US / DAY_US * DAY_US;
    for at in [0, 1, 2, 60, 61, 62] {
        let at = begin + at * 1_000_000;
        let events: Vec<Event<'_>> = names.iter().map(|name| event("a", at, name, "x")).collect();
        platform.audit_write(&writer.batch(&events)).await.unwrap();
    }
    let (from, to) = (Time::from_micros(begin as i64), Time::from_micros((begin + DAY_US) as i64));
    let id = tenant("a");
    let scope = store.tenant(&id);
    let series = scope.usage_series(Grain::Minute, from, to, &UsageFilter::default()).await.unwrap();
    assert_eq!(series.iter().map(|p| p.calls).collect::<Vec<_>>(), [900, 900]);
    let one = UsageFilter { principal: Some("caller-17".to_owned()), ..Default::default() };
    assert_eq!(scope.usage_latency(Grain::Minute, from, to, &one).await.unwrap().unwrap().count(), 6);
    assert_eq!(
        scope.usage_latency(Grain::Minute, from, to, &UsageFilter::default()).await.unwrap().unwrap().count(),
        1800
    );
    if store.engine() == Engine::Postgres {
        let sent: u64 = store
            .statements()
            .iter()
            .filter(|s| s.statement.contains("usage_minute") || s.statement.contains("metric_minute"))
            .filter(|s| s.statement.contains("UNNEST") || s.statement.contains("VALUES"))
            .map(|s| s.count)
            .sum();
        assert_eq!(sent, 6 * 4, "read and write, of usage and of metrics");
    }
}
