//! What of the audit goes with time: chains out of checkpoints, checkpoints, days that something comes too late for; and
//! what is gone and should not be.

use std::process::Command;
use std::time::{Duration, Instant};

use tollgate::app::{audit_horizon, checkpoint, checkpoint_all};
use tollgate::audit::{AuditKey, Class, Finding, Horizon, Report, Statement, verify};
use tollgate::config::model::Retention;
use tollgate::store::{AuditFilter, DATABASE_FILE, Engine, ExportFormat, Page, StoreError, Time, export};

use super::audit::{Writer, event};
use super::{Fixture, each_engine, tenant};
use crate::support::eventually;
use crate::support::postgres::LOGIN;

each_engine!(
    a_chain_of_which_nothing_is_left_leaves_checkpoints,
    a_chain_that_was_removed_too_early_is_found_for_as_long_as_it_should_be_there,
    old_checkpoints_go_with_the_events,
    what_comes_too_late_is_not_put_back,
    one_tenants_failure_leaves_the_others_their_checkpoints,
);

const DAY: Duration = Duration::from_secs(86_400);
const DAY_US: u64 = 86_400_000_000;
const START_US: u64 = 1_796_000_000_000_000;

/// Data for two days, actions for ever.
fn kept() -> Retention {
    Retention { data_days: 2, control_days: 0, usage_minute_days: 0 }
}

impl Fixture {
    fn now_us(&self) -> u64 {
        u64::try_from(self.store.now().micros()).unwrap()
    }

    fn horizon(&self) -> Horizon {
        audit_horizon(&kept(), self.store.now())
    }

    /// Whatever somebody who has the database does there.
    fn sql(&self, text: &str) {
        if let Some(database) = &self.database {
            database.sql(text);
            return;
        }
        let script = "import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=10)
db.executescript(sys.argv[2])
db.commit()";
        let file = self.settings.data_dir.join(DATABASE_FILE);
        let done = Command::new("python3").args(["-c", script]).arg(file).arg(text).status().unwrap();
        assert!(done.success(), "{text}");
    }

    async fn sign(&self, key: &AuditKey) -> String {
        checkpoint(&self.store, key, &tenant("a"), self.horizon()).await.unwrap()
    }

    async fn drop_old(&self) {
        let before = Time::from_micros(i64::try_from(self.horizon().data_us).unwrap());
        self.store.platform().audit_drop(Class::Data, before).await.unwrap();
    }

    async fn write(&self, writer: &mut Writer, at_us: u64) {
        self.store.platform().audit_day(Time::from_micros(at_us as i64)).await.unwrap();
        let batch = writer.batch(&[event("a", at_us, "ann", "x"), event("a", at_us + 1, "ann", "y")]);
        self.store.platform().audit_write(&batch).await.unwrap();
    }

    async fn exported(&self, key: &AuditKey) -> Vec<u8> {
        let mut file = Vec::new();
        let all = AuditFilter::default();
        let format = ExportFormat::JsonLines;
        export(&self.store, key, &tenant("a"), &all, format, true, &mut file).await.unwrap();
        file
    }

    async fn proved(&self, key: &AuditKey, since: Option<&str>) -> Result<Report, Finding> {
        verify(std::io::Cursor::new(self.exported(key).await), &[key.public()], since)
    }

    /// Chains that the store knows of.
    async fn heads(&self) -> usize {
        let mut tx = self.store.platform().read().await.unwrap();
        tx.audit_chains(&tenant("a")).await.unwrap().len()
    }

    async fn checkpoints(&self) -> Vec<i64> {
        let mut tx = self.store.platform().read().await.unwrap();
        let page = tx.audit_checkpoints(&tenant("a"), 0, Page::of(1000)).await.unwrap();
        page.into_iter().map(|(number, _)| number).collect()
    }
}

fn chains(line: &str, key: &AuditKey) -> usize {
    match Statement::verify(line, &[key.public()]).unwrap().0 {
        Statement::Checkpoint(checkpoint) => checkpoint.chains.len(),
        Statement::Manifest(_) => panic!("no checkpoint"),
    }
}

async fn a_chain_of_which_nothing_is_left_leaves_checkpoints(fixture: Fixture) {
    let key = AuditKey::ephemeral();
    let mut kept = Vec::new();
    // A restart each day, for ten days.
    for day in 0..10u64 {
        let mut writer = Writer::new();
        fixture.write(&mut writer, START_US + day * DAY_US).await;
        kept.push(fixture.sign(&key).await);
        fixture.drop_old().await;
        fixture.clock.advance(DAY);
    }
    let sizes: Vec<usize> = kept.iter().map(|line| chains(line, &key)).collect();
    assert_eq!(sizes, [1, 2, 3, 4, 4, 4, 4, 4, 4, 4], "those of two days, today's, and those that go today");
    // Every checkpoint that was ever kept is still as good as on its first day.
    fixture.sign(&key).await;
    for line in &kept {
        fixture.proved(&key, Some(line)).await.unwrap();
    }
    // A process that was silent for so long goes on with its chain.
    let mut quiet = Writer::new();
    fixture.write(&mut quiet, fixture.now_us()).await;
    let listed = fixture.sign(&key).await;
    for _ in 0..5 {
        fixture.clock.advance(DAY);
        fixture.sign(&key).await;
        fixture.drop_old().await;
    }
    assert_eq!(chains(&fixture.sign(&key).await, &key), 0);
    fixture.write(&mut quiet, fixture.now_us()).await;
    assert_eq!(chains(&fixture.sign(&key).await, &key), 1);
    assert_eq!(fixture.proved(&key, Some(&listed)).await.unwrap().events, 2);
    // In the end nothing is known of any of them.
    assert_eq!(fixture.heads().await, 11);
    let moved = async || {
        let signed = checkpoint_all(&fixture.store, &key, fixture.horizon()).await.unwrap();
        assert_eq!(signed.failed, 0);
        signed.done
    };
    assert_eq!(moved().await, 0);
    for (days, heads) in [(31, 1), (31, 0)] {
        fixture.clock.advance(DAY * days);
        fixture.drop_old().await;
        assert_eq!(fixture.heads().await, heads);
    }
    // Also then one of them may go on, and is signed again.
    fixture.write(&mut quiet, fixture.now_us()).await;
    assert_eq!((fixture.heads().await, moved().await, moved().await), (1, 1, 0));
    for since in [None, Some(listed.as_str()), Some(kept[0].as_str())] {
        assert_eq!(fixture.proved(&key, since).await.unwrap().events, 2);
    }
    let mut other = Writer::new();
    fixture.write(&mut other, fixture.now_us()).await;
    assert_eq!((fixture.heads().await, moved().await, moved().await), (2, 1, 0));
    // One that was not silent is not forgotten, but was taken away: also if no checkpoint knows of it.
    let mut robbed = Writer::new();
    fixture.write(&mut robbed, fixture.now_us()).await;
    let (events, id) = match fixture.store.engine() {
        Engine::Postgres => ("audit_events WHERE writer =", format!("'{}'", robbed.name())),
        Engine::Sqlite => {
            let id = format!("x'{}'", robbed.name().replace('-', ""));
            ("audit_event_rows WHERE chain IN (SELECT id FROM audit_event_chains WHERE writer =", id)
        }
    };
    let close = if events.contains('(') { ")" } else { "" };
    fixture.sql(&format!("DELETE FROM {events} {id}{close}; DELETE FROM audit_heads WHERE writer = {id};"));
    fixture.write(&mut robbed, fixture.now_us()).await;
    assert!(matches!(fixture.proved(&key, None).await, Err(Finding::Chain { .. })));
}

/// Whoever reads for long, as an export and a backup do, may keep old days from being dropped, but nobody from reading
/// and writing meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn days_that_cannot_be_dropped_keep_nobody_waiting() {
    let fixture = Fixture::new(Engine::Postgres).await;
    let (id, mut writer) = (tenant("a"), Writer::new());
    fixture.write(&mut writer, START_US).await;
    let mut long = fixture.store.tenant(&id).read().await.unwrap();
    let chain = long.audit_chains(&id).await.unwrap().remove(0).id;
    assert_eq!(long.audit_range(&chain, 0, Page::of(1)).await.unwrap().len(), 1);
    fixture.clock.advance(DAY * 5);
    fixture.store.platform().audit_day(fixture.store.now()).await.unwrap_err();
    let before = Time::from_micros(i64::try_from(fixture.horizon().data_us).unwrap());
    let began = Instant::now();
    let dropping = async {
        let failed = fixture.store.platform().audit_drop(Class::Data, before).await;
        assert!(matches!(failed, Err(StoreError::Busy(_))), "{failed:?}");
    };
    let others = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let batch = writer.batch(&[event("a", START_US + 10, "ann", "x")]);
        fixture.store.platform().audit_write(&batch).await.unwrap();
        let filter = AuditFilter::default();
        fixture.store.tenant(&id).audit_search(&filter, None, Page::of(10)).await.unwrap().len()
    };
    let ((), found) = tokio::join!(dropping, others);
    assert_eq!(found, 3);
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}: half of what a statement may take",
        began.elapsed()
    );
    assert_eq!(long.audit_range(&chain, 0, Page::of(10)).await.unwrap().len(), 2, "as it was");
    drop(long);
    eventually("the day goes", async || {
        fixture.store.platform().audit_drop(Class::Data, before).await.ok().filter(|gone| *gone == 1)
    })
    .await;
}

async fn a_chain_that_was_removed_too_early_is_found_for_as_long_as_it_should_be_there(fixture: Fixture) {
    let key = AuditKey::ephemeral();
    // On SQLite events are seen through a view, which takes rows and gives none away.
    let (events, within) = match fixture.store.engine() {
        Engine::Postgres => ("audit_events", ""),
        Engine::Sqlite => ("audit_event_rows", "chain IN (SELECT id FROM audit_event_chains WHERE "),
    };
    let save = "CREATE TABLE kept_events AS SELECT * FROM audit_events;
                CREATE TABLE kept_heads AS SELECT * FROM audit_heads;
                CREATE TABLE kept_points AS SELECT * FROM audit_checkpoints;";
    let restore = format!(
        "DELETE FROM {events}; DELETE FROM audit_heads; DELETE FROM audit_checkpoints;
         INSERT INTO audit_events SELECT * FROM kept_events;
         INSERT INTO audit_heads SELECT * FROM kept_heads;
         INSERT INTO audit_checkpoints SELECT * FROM kept_points;
         DELETE FROM audit_dropped; DROP TABLE kept_events; DROP TABLE kept_heads; DROP TABLE kept_points;"
    );
    let mut writers = [Writer::new(), Writer::new()];
    for writer in &mut writers {
        fixture.write(writer, START_US).await;
    }
    let since = fixture.sign(&key).await;
    fixture.proved(&key, Some(&since)).await.unwrap();
    let victim = match fixture.store.engine() {
        Engine::Postgres => format!("writer = '{}'", writers[0].name()),
        Engine::Sqlite => format!("hex(writer) = '{}'", writers[0].name().replace('-', "").to_uppercase()),
    };
    let close = if within.is_empty() { "" } else { ")" };
    let gone = format!("DELETE FROM {events} WHERE {within}{victim}{close}");
    let epoch = match fixture.store.engine() {
        Engine::Postgres => "'epoch'::timestamptz",
        Engine::Sqlite => "0",
    };
    let future = match fixture.store.engine() {
        Engine::Postgres => "'2100-01-01T00:00:00Z'::timestamptz",
        Engine::Sqlite => "4102444800000000",
    };
    for damage in [
        // Every trace of it.
        format!("{gone}; DELETE FROM audit_heads WHERE {victim};"),
        // As if retention had done it.
        format!(
            "{gone};
             UPDATE audit_heads SET from_sequence = sequence, from_link = link, time = {epoch} WHERE {victim};
             INSERT INTO audit_dropped VALUES (2, {future});"
        ),
        format!(
            "{gone};
             UPDATE audit_heads SET from_sequence = sequence, from_link = link WHERE {victim};"
        ),
        // Its end.
        format!(
            "{gone} AND sequence = 2;
             UPDATE audit_heads SET sequence = 1, link = (SELECT link FROM audit_events WHERE {victim}) WHERE {victim};"
        ),
    ] {
        fixture.sql(save);
        fixture.sql(&damage);
        // The gateway goes on, and signs what it sees.
        let later = fixture.sign(&key).await;
        let found = fixture.proved(&key, Some(&since)).await;
        assert!(found.is_err(), "{damage}");
        assert_eq!(chains(&later, &key), 2, "{damage}: it is listed on");
        // Not only by who kept a checkpoint, and not only for as long as the first one is there.
        fixture.sign(&key).await;
        fixture.sql("DELETE FROM audit_checkpoints WHERE number < 2;");
        assert!(fixture.proved(&key, None).await.is_err(), "{damage}");
        fixture.sql(&restore);
        fixture.proved(&key, Some(&since)).await.unwrap();
    }
    // When it is old enough it may be gone.
    fixture.clock.advance(DAY * 4);
    fixture.sign(&key).await;
    fixture.sql(&format!("{gone}; DELETE FROM audit_heads WHERE {victim};"));
    fixture.drop_old().await;
    fixture.sign(&key).await;
    fixture.proved(&key, Some(&since)).await.unwrap();
}

async fn old_checkpoints_go_with_the_events(fixture: Fixture) {
    let key = AuditKey::ephemeral();
    let mut writer = Writer::new();
    let mut since = String::new();
    for day in 0..8u64 {
        fixture.write(&mut writer, START_US + day * DAY_US).await;
        let line = fixture.sign(&key).await;
        if day == 0 {
            since = line;
        }
        fixture.drop_old().await;
        fixture.clock.advance(DAY);
    }
    assert_eq!(fixture.checkpoints().await, [5, 6, 7, 8], "of two days, today's, and the last one before");
    fixture.proved(&key, None).await.unwrap();
    fixture.proved(&key, Some(&since)).await.unwrap();
    // Another one than the oldest cannot go, and neither can more of them.
    for gone in ["number = 6", "number = 8", "number < 7"] {
        fixture.sql(&format!(
            "CREATE TABLE kept_points AS SELECT * FROM audit_checkpoints; DELETE FROM audit_checkpoints WHERE {gone};"
        ));
        // Without the last one nobody has said that what it says may be gone.
        assert!(fixture.proved(&key, Some(&since)).await.is_err(), "{gone}");
        fixture.sql(
            "DELETE FROM audit_checkpoints; INSERT INTO audit_checkpoints SELECT * FROM kept_points;
             DROP TABLE kept_points;",
        );
    }
    // Nothing happens for long: the last one stays.
    fixture.clock.advance(DAY * 30);
    fixture.drop_old().await;
    fixture.sign(&key).await;
    fixture.sign(&key).await;
    assert_eq!(fixture.checkpoints().await, [8, 9, 10]);
    fixture.proved(&key, Some(&since)).await.unwrap();
}

async fn what_comes_too_late_is_not_put_back(fixture: Fixture) {
    let (key, platform) = (AuditKey::ephemeral(), fixture.store.platform());
    // One that had drained something before it was cut off, and one that had not.
    let (mut known, mut fresh) = (Writer::new(), Writer::new());
    fixture.write(&mut known, START_US).await;
    fixture.clock.advance(DAY * 5);
    let since = fixture.sign(&key).await;
    fixture.drop_old().await;
    for writer in [&mut known, &mut fresh] {
        let batch = writer.batch(&[
            event("a", START_US + 10, "ann", "x"),
            event("a", START_US + DAY_US, "ann", "x"),
            event("a", fixture.now_us(), "ann", "x"),
            event("b", START_US + 11, "ann", "x"),
        ]);
        platform.audit_write(&batch).await.unwrap();
    }
    let filter = AuditFilter::default();
    for (name, events) in [("a", 2), ("b", 0)] {
        let id = tenant(name);
        let found = fixture.store.tenant(&id).audit_search(&filter, None, Page::of(100)).await.unwrap();
        assert_eq!(found.len(), events, "{name}: what is past retention stays out");
    }
    assert_eq!(fixture.proved(&key, Some(&since)).await.unwrap().events, 2);
    // The chains go on, also where everything was late, and retention finds nothing more to do.
    let late = fixture.sign(&key).await;
    fixture.write(&mut known, fixture.now_us()).await;
    fixture.drop_old().await;
    assert_eq!(fixture.proved(&key, Some(&late)).await.unwrap().events, 4);
    let mut tx = platform.read().await.unwrap();
    let begun = tx.audit_chains(&tenant("b")).await.unwrap();
    assert!(begun.len() == 2 && begun.iter().all(|c| c.from.sequence == 1 && c.from.link == c.head.link));
}

async fn one_tenants_failure_leaves_the_others_their_checkpoints(fixture: Fixture) {
    let (key, platform) = (AuditKey::ephemeral(), fixture.store.platform());
    let mut writer = Writer::new();
    let events = ["a", "b", "c"].map(|name| event(name, START_US, "ann", "x"));
    platform.audit_write(&writer.batch(&events)).await.unwrap();
    fixture.sql(match fixture.store.engine() {
        Engine::Postgres => "ALTER TABLE audit_checkpoints ADD CONSTRAINT trouble CHECK (tenant <> 'a')",
        Engine::Sqlite => {
            "CREATE TRIGGER trouble BEFORE INSERT ON audit_checkpoints WHEN NEW.tenant = 'a'
             BEGIN SELECT RAISE(ABORT, 'trouble'); END"
        }
    });
    let signed = checkpoint_all(&fixture.store, &key, fixture.horizon()).await.unwrap();
    assert_eq!((signed.done, signed.failed), (2, 1));
    fixture.sql(match fixture.store.engine() {
        Engine::Postgres => "ALTER TABLE audit_checkpoints DROP CONSTRAINT trouble",
        Engine::Sqlite => "DROP TRIGGER trouble",
    });
    let signed = checkpoint_all(&fixture.store, &key, fixture.horizon()).await.unwrap();
    assert_eq!((signed.done, signed.failed), (1, 0), "of whom it failed is still to be signed");
}

/// An event gets into a day after retention has looked which the day's last one is, and before the day is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_day_is_not_dropped_from_under_who_writes_into_it() {
    let fixture = Fixture::new(Engine::Postgres).await;
    let found = dropped_while_written(&fixture).await;
    assert_eq!(found.unwrap().events, 2);
    // The same where the lock does nothing: the chain is torn.
    let mut without = Fixture::new(Engine::Postgres).await;
    let database = without.database.as_ref().unwrap();
    database.sql(&format!(
        "CREATE SCHEMA crooked; GRANT USAGE ON SCHEMA crooked TO PUBLIC;
         CREATE FUNCTION crooked.pg_advisory_xact_lock_shared(bigint) RETURNS void LANGUAGE sql AS 'SELECT 1';
         ALTER ROLE {LOGIN} IN DATABASE \"{}\" SET search_path = public, crooked, pg_catalog",
        database.name()
    ));
    without.store = without.another();
    without.store.prepare().await.unwrap();
    let found = dropped_while_written(&without).await;
    assert!(matches!(found, Err(Finding::Chain { .. })), "{found:?}");
}

async fn dropped_while_written(fixture: &Fixture) -> Result<Report, Finding> {
    let (key, platform) = (AuditKey::ephemeral(), fixture.store.platform());
    let mut writer = Writer::new();
    fixture.write(&mut writer, START_US).await;
    fixture.clock.advance(DAY * 5);
    let since = fixture.sign(&key).await;
    let late = writer.batch(&[event("a", START_US + 10, "ann", "x")]);
    let database = fixture.database.as_ref().unwrap();
    std::thread::scope(|threads| {
        // Whoever writes has written the event, and waits before it can commit.
        threads.spawn(|| database.sql("BEGIN; LOCK TABLE usage_minute; SELECT pg_sleep(2); COMMIT"));
        std::thread::sleep(Duration::from_millis(500));
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                let drop = async {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    fixture.drop_old().await;
                };
                let (written, ()) = tokio::join!(platform.audit_write(&late), drop);
                written.unwrap();
            });
        });
    });
    fixture.sign(&key).await;
    fixture.write(&mut writer, fixture.now_us()).await;
    fixture.proved(&key, Some(&since)).await
}
