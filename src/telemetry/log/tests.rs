use std::sync::Arc;

use log::Log as _;
use parking_lot::Mutex;
use tracing::{debug, error, info};

use super::*;

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl io::Write for Buffer {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Fixture {
    log: Log,
    buffer: Buffer,
    suppressed: Counter,
}

fn fixture(format: Format, filter: &str) -> Fixture {
    let (buffer, suppressed) = (Buffer::default(), Counter::detached());
    let output = Output::Writer(Box::new(buffer.clone()));
    let config = LogConfig { format, filter: filter.to_owned(), output };
    let log = Log::new(config, suppressed.clone(), Clock::manual(0)).expect("a log");
    Fixture { log, buffer, suppressed }
}

impl Fixture {
    fn run(&self, f: impl FnOnce()) -> String {
        tracing::dispatcher::with_default(&self.log.dispatch, f);
        assert!(self.log.handle.flush(Duration::from_secs(10)));
        String::from_utf8(std::mem::take(&mut self.buffer.0.lock())).expect("UTF-8")
    }

    fn foreign(&self, target: &str, level: log::Level, line: u32, message: &str) {
        let args = format_args!("{message}");
        let mut record = log::Record::builder();
        record.level(level).target(target).module_path_static(Some("pingora_x")).line(Some(line));
        self.log.bridge.log(&record.args(args).build());
    }
}

#[test]
fn json_lines_have_their_fields_at_the_top() {
    let fixture = fixture(Format::Json, "info");
    let text = fixture.run(|| info!(event = "reload_applied", revision = 7, "configuration applied"));
    let line: serde_json::Value = serde_json::from_str(&text).expect("one JSON line");
    assert_eq!(line["event"], "reload_applied");
    assert_eq!(line["revision"], 7);
    assert_eq!(line["message"], "configuration applied");
    assert_eq!(line["level"], "INFO");
    assert!(line["timestamp"].is_string() && line["target"].is_string());
}

#[test]
fn text_lines_have_no_colours_in_a_file() {
    let text = fixture(Format::Text, "info").run(|| error!(code = 1, "broken"));
    assert!(text.contains("ERROR") && text.contains("broken") && text.contains("code=1"), "{text}");
    assert!(!text.contains('\u{1b}'));
}

#[test]
fn the_level_changes_while_running() {
    let fixture = fixture(Format::Text, "info");
    assert_eq!(fixture.run(|| debug!("hidden")), "");
    fixture.log.handle.set_level("debug").expect("a filter");
    assert!(fixture.run(|| debug!("shown")).contains("shown"));
    assert!(fixture.log.handle.level().contains("debug"));
    let error = fixture.log.handle.set_level("tollgate=nonsense=7").expect_err("not a filter");
    assert!(error.to_string().contains("tollgate=nonsense=7"));
    assert!(fixture.run(|| debug!("still shown")).contains("still shown"));
}

#[test]
fn other_crates_never_log_details() {
    let fixture = fixture(Format::Text, "trace");
    let text = fixture.run(|| {
        tracing::debug!(target: "hyper::proto", "authorization: Bearer secret");
        tracing::trace!(target: "tollgatekeeper", "secret");
        fixture.foreign("pingora_core", log::Level::Debug, 1, "secret");
        fixture.foreign("someone", log::Level::Trace, 1, "secret");
        tracing::debug!(target: "tollgate::gateway", "own detail");
        fixture.foreign("someone", log::Level::Info, 1, "their news");
    });
    assert!(!text.contains("secret"), "{text}");
    assert!(text.contains("own detail") && text.contains("their news"), "{text}");
}

#[test]
fn foreign_lines_keep_their_target() {
    let fixture = fixture(Format::Json, "info");
    let text = fixture.run(|| fixture.foreign("pingora_core::x", log::Level::Error, 1, "Accept() failed"));
    let line: serde_json::Value = serde_json::from_str(&text).expect("one JSON line");
    assert_eq!(line["target"], "pingora_core::x");
    assert_eq!(line["message"], "Accept() failed");
}

#[test]
fn clients_that_go_away_are_no_errors() {
    let gone = "Fail to proxy:  Downstream ConnectionClosed, status: 0";
    let default = fixture(Format::Text, "info");
    assert_eq!(default.run(|| default.foreign("pingora_proxy", log::Level::Error, 1, gone)), "");
    assert_eq!(default.suppressed.get(), 1);
    let asked = fixture(Format::Text, "info,pingora=info");
    let text = asked.run(|| asked.foreign("pingora_proxy", log::Level::Error, 1, gone));
    assert!(text.contains("INFO") && text.contains(gone), "{text}");
}

#[test]
fn floods_are_cut() {
    let fixture = fixture(Format::Text, "info");
    let text = fixture.run(|| {
        for _ in 0..100 {
            fixture.foreign("pingora_core", log::Level::Error, 1, "Accept() failed");
        }
    });
    assert_eq!(text.lines().count(), BURST as usize);
    assert_eq!(fixture.suppressed.get(), 100 - u64::from(BURST));
}

#[test]
fn quiet_directives_only_take_away() {
    for (filter, shown) in
        [("info", true), ("warn", true), ("error", false), ("off", false), ("tollgate=info", false)]
    {
        let fixture = fixture(Format::Text, filter);
        let text = fixture.run(|| fixture.foreign("pingora_core", log::Level::Warn, 1, "their warning"));
        assert_eq!(!text.is_empty(), shown, "{filter}");
    }
    let fixture = fixture(Format::Text, "info");
    assert_eq!(fixture.run(|| fixture.foreign("pingora_core", log::Level::Info, 1, "their news")), "");
}
