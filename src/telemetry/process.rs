//! What the operating system says about the process, read from `/proc` at each scrape.
//!
//! Elsewhere than on Linux, and for a file that cannot be read, the series are absent: never zero, never an error.

use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, MetricFamily};

use super::family;
use super::names::{self, Kind, Spec};

/// Clock ticks per second in `/proc`. The kernel reports them in `USER_HZ`, which is 100 on every architecture that
/// Rust's Linux targets run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Shows `tollgate_process_*`.
pub(super) struct ProcessCollector {
    descs: Vec<Desc>,
    /// When the machine booted, in seconds since the Unix epoch.
    boot: Option<f64>,
}

const SPECS: [&Spec; 7] = [
    &names::PROCESS_CPU,
    &names::PROCESS_MAX_FDS,
    &names::PROCESS_OPEN_FDS,
    &names::PROCESS_RESIDENT,
    &names::PROCESS_START,
    &names::PROCESS_THREADS,
    &names::PROCESS_VIRTUAL,
];

impl ProcessCollector {
    pub(super) fn new() -> Self {
        let boot = read("/proc/stat").and_then(|text| field(&text, "btime "));
        Self { descs: SPECS.iter().map(|s| family::desc(s)).collect(), boot }
    }

    fn values(&self) -> [Option<f64>; SPECS.len()] {
        let status = read("/proc/self/status").unwrap_or_default();
        let stat = read("/proc/self/stat").and_then(|text| Stat::parse(&text));
        let max_fds = read("/proc/self/limits").and_then(|text| field(&text, "Max open files"));
        let open_fds =
            std::fs::read_dir("/proc/self/fd").ok().map(|dir| dir.count().saturating_sub(1) as f64);
        [
            stat.as_ref().map(|s| s.cpu_ticks / TICKS_PER_SECOND),
            max_fds,
            open_fds,
            field(&status, "VmRSS:").map(|kib| kib * 1024.0),
            stat.as_ref().and_then(|s| self.boot.map(|boot| boot + s.start_ticks / TICKS_PER_SECOND)),
            field(&status, "Threads:"),
            field(&status, "VmSize:").map(|kib| kib * 1024.0),
        ]
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let values = SPECS.iter().zip(self.values());
        values.filter_map(|(spec, value)| Some(family::family_of(spec, vec![sample(spec, value?)]))).collect()
    }
}

fn sample(spec: &Spec, value: f64) -> proto::Metric {
    let mut sample = proto::Metric::default();
    if spec.kind == Kind::Counter {
        let mut counter = proto::Counter::default();
        counter.set_value(value);
        sample.set_counter(counter);
    } else {
        let mut gauge = proto::Gauge::default();
        gauge.set_value(value);
        sample.set_gauge(gauge);
    }
    sample
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// The first number on the line that starts with `name`.
fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

struct Stat {
    cpu_ticks: f64,
    start_ticks: f64,
}

impl Stat {
    /// Reads `/proc/PID/stat` (proc_pid_stat(5)). The name of the program comes second, in parentheses, and may hold
    /// anything, so fields are counted from the last closing one.
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text[text.rfind(')')? + 1..].split_whitespace();
        // The state is field 3; utime, stime and starttime are 14, 15 and 22.
        let user: f64 = fields.nth(14 - 3)?.parse().ok()?;
        let system: f64 = fields.next()?.parse().ok()?;
        let start_ticks = fields.nth(22 - 16)?.parse().ok()?;
        Some(Self { cpu_ticks: user + system, start_ticks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_survives_a_hostile_program_name() {
        let line = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 3 0 12345 1000 200 1844 1 1 0";
        let stat = Stat::parse(line).expect("parses");
        assert_eq!((stat.cpu_ticks, stat.start_ticks), (300.0, 12345.0));
        assert!(Stat::parse("7 no name").is_none());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn reads_this_process() {
        let collector = ProcessCollector::new();
        let [cpu, max_fds, open_fds, rss, start, threads, vsize] =
            collector.values().map(|v| v.expect("all are there on Linux"));
        assert!(cpu >= 0.0 && threads >= 1.0 && rss > 100_000.0 && vsize >= rss);
        assert!(open_fds >= 3.0 && open_fds < max_fds);
        let age = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("after 1970")
            .as_secs_f64()
            - start;
        assert!((-2.0..86_400.0).contains(&age), "started {age} s ago");
    }
}
