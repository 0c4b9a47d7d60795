//! One run that compares: direct, both bare pass-throughs and Tollgate with and without its audit, round after round.
//!
//! Everything is pinned to one core: that gives the steadiest processor times on a machine that is shared, and rates that
//! mean little by themselves. In a round the subjects take turns row by row, in an order that moves from round to round,
//! and ratios are taken within a round; each subject is started afresh for its memory and again for the rest.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::Serialize;

use crate::client::{Call, Connection, Endpoint, Shape};
use crate::drive::{Held, Kind, Outcome, Work};
use crate::gateway::{Gateway, Setup};
use crate::identity::{self, Issuer};
use crate::process::{self, Process};
use crate::report::{self, Figures, Goal, Machine};
use crate::{Result, fixture};

/// How to compare.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The gateway's binary. Default: the one beside this program.
    #[arg(long)]
    pub tollgate: Option<PathBuf>,
    /// Rounds.
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Seconds of one measurement.
    #[arg(long, default_value_t = 4.0)]
    pub seconds: f64,
    /// Core that everything runs on.
    #[arg(long, default_value_t = 1)]
    pub core: usize,
    /// Streams held for the figures of memory.
    #[arg(long, value_delimiter = ',', default_value = "2000,9000")]
    pub streams: Vec<usize>,
    /// Requests per second for the figures of latency.
    #[arg(long, default_value_t = 2000.0)]
    pub rate: f64,
    /// Folder for the figures.
    #[arg(long, default_value = "bench-results")]
    pub out: PathBuf,
    /// Fail when a figure misses what it must be.
    #[arg(long)]
    pub enforce: bool,
    /// One short round that shows that everything works; its figures mean nothing.
    #[arg(long)]
    pub smoke: bool,
}

const DIRECT: &str = "direct";
const MIMALLOC: &str = "bare mimalloc";
const GLIBC: &str = "bare glibc";
const TOLLGATE: &str = "tollgate";
/// The same without an audit: what the bare pass-throughs have none of either.
const UNAUDITED: &str = "tollgate, no audit";
const SUBJECTS: [&str; 5] = [DIRECT, MIMALLOC, GLIBC, TOLLGATE, UNAUDITED];
/// Streams over which the delivery of events is measured, and events per second on all of them.
const DELIVERY_STREAMS: usize = 100;
const DELIVERY_PACE: f64 = 500.0;
/// Sessions that call before memory is looked at, so that what is made once is there.
const SETTLE: Duration = Duration::from_millis(700);

/// Rows of processor time, their names, and where they apply.
const CPU_ROWS: [(&str, &str, Work); 4] = [
    ("json", "CPU µs: tools/call, JSON", Work::Json),
    ("sse", "CPU µs: tools/call, SSE", Work::Sse),
    ("session", "CPU µs: new session (3 requests)", Work::Session),
    ("modern", "CPU µs: tools/call, JSON, without session", Work::Modern),
];

#[derive(Serialize)]
struct Report<'a> {
    machine: Machine,
    rounds: usize,
    figures: &'a Figures,
    goals: &'a [Goal],
    errors: u64,
}

/// A subject that runs.
enum Subject {
    Bare(Process, SocketAddr),
    Direct(SocketAddr),
    Tollgate(Box<Gateway>),
}

impl Subject {
    fn pid(&self) -> Option<u32> {
        match self {
            Subject::Bare(process, _) => Some(process.pid()),
            Subject::Direct(_) => None,
            Subject::Tollgate(gateway) => Some(gateway.process.pid()),
        }
    }

    fn endpoint(&self) -> Endpoint {
        match self {
            Subject::Bare(_, address) | Subject::Direct(address) => {
                Endpoint { address: *address, path: "/mcp".to_owned(), token: None }
            }
            Subject::Tollgate(gateway) => gateway.endpoint(),
        }
    }
}

struct Bench {
    options: Options,
    tollgate: PathBuf,
    issuer: Issuer,
    fixtures: Vec<(Process, SocketAddr)>,
    dir: PathBuf,
    figures: Figures,
    errors: u64,
}

/// Compares, and prints and writes the figures. `false`: something failed, or a goal that is enforced was missed.
///
/// # Errors
/// Something could not be started or measured.
pub fn bench(options: &Options) -> Result<bool> {
    process::raise_descriptor_limit();
    let mut options = options.clone();
    if options.smoke {
        options = Options { rounds: 1, seconds: 0.3, streams: vec![50], rate: 200.0, ..options };
    }
    let dir = std::env::temp_dir().join(format!("tollgate-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let core = Some(options.core);
    let fixtures = vec![start_fixture("a", core)?, start_fixture("b", core)?];
    let tollgate = gateway_binary(options.tollgate.as_deref())?;
    let mut bench = Bench {
        tollgate,
        issuer: Issuer::new()?,
        fixtures,
        dir,
        figures: Figures::default(),
        errors: 0,
        options,
    };
    let done = bench.run();
    let _ = std::fs::remove_dir_all(&bench.dir);
    done?;
    bench.publish()
}

/// The gateway's binary: as given, or beside this program.
///
/// # Errors
/// There is none.
pub fn gateway_binary(given: Option<&Path>) -> Result<PathBuf> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => sibling("tollgate")?,
    };
    if path.is_file() {
        Ok(path)
    } else {
        Err(format!("{} does not exist: build it first", path.display()).into())
    }
}

/// A program that is built together with this one.
fn sibling(name: &str) -> Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(name))
}

/// Starts a fixture server in a process of its own.
///
/// # Errors
/// It does not start.
pub fn start_fixture(name: &str, core: Option<usize>) -> Result<(Process, SocketAddr)> {
    start_fixture_at(name, core, "127.0.0.1:0")
}

/// The same, at a given address.
///
/// # Errors
/// It does not start.
pub fn start_fixture_at(name: &str, core: Option<usize>, listen: &str) -> Result<(Process, SocketAddr)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["fixture", "--name", name, "--listen", listen]);
    let mut process = Process::start(command, core, None)?;
    let address = process.address()?;
    Ok((process, address))
}

/// Sets how many notifications per second a fixture sends, and returns what it counted so far.
///
/// # Errors
/// It does not answer.
pub fn pace(fixture: SocketAddr, per_second: Option<f64>) -> Result<fixture::Counts> {
    let path =
        per_second.map_or_else(|| "/control/counts".to_owned(), |rate| format!("/control/pace?{rate}"));
    let mut connection = Connection::new(fixture);
    connection
        .exchange(format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").as_bytes())?;
    Ok(serde_json::from_slice(connection.body())?)
}

/// Streams held by a process of their own.
pub struct Holder(Process);

impl Holder {
    /// Opens them; returns when all are open or refused.
    ///
    /// # Errors
    /// The process does not start.
    pub fn start(
        endpoint: &Endpoint,
        streams: usize,
        kind: Kind,
        core: Option<usize>,
    ) -> Result<(Self, Held)> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["hold", "--streams", &streams.to_string(), "--kind", &value_name(kind)]);
        command.args(target(endpoint));
        let mut holder = Self(Process::start(command, core, None)?);
        let held = holder.read()?;
        Ok((holder, held))
    }

    /// What came of the streams so far.
    ///
    /// # Errors
    /// The process has ended.
    pub fn report(&mut self) -> Result<Held> {
        self.0.tell("report")?;
        self.read()
    }

    /// The same, and delivery is measured afresh from now on.
    ///
    /// # Errors
    /// The process has ended.
    pub fn reset(&mut self) -> Result<Held> {
        self.0.tell("reset")?;
        self.read()
    }

    fn read(&mut self) -> Result<Held> {
        Ok(serde_json::from_str(&self.0.line()?)?)
    }
}

/// The word for a value on the command line.
fn value_name(value: impl clap::ValueEnum) -> String {
    value.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default()
}

fn memory_row(streams: usize, kind: Kind) -> String {
    format!("kib {} {streams}", value_name(kind))
}

/// Arguments that say where requests go.
fn target(endpoint: &Endpoint) -> Vec<String> {
    let mut arguments =
        vec!["--target".to_owned(), endpoint.address.to_string(), "--path".to_owned(), endpoint.path.clone()];
    if let Some(token) = &endpoint.token {
        arguments.extend(["--token".to_owned(), token.clone()]);
    }
    arguments
}

/// Starts a run of load in a process of its own. Its end is an [`Outcome`] as JSON.
///
/// # Errors
/// It does not start.
pub fn start_load(endpoint: &Endpoint, arguments: &[String], core: Option<usize>) -> Result<Process> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("run").args(target(endpoint)).args(arguments);
    Process::start(command, core, None)
}

impl Bench {
    fn run(&mut self) -> Result<()> {
        for round in 0..self.options.rounds {
            eprintln!("round {} of {}", round + 1, self.options.rounds);
            let mut names = SUBJECTS;
            let turn = round % names.len();
            names.rotate_left(turn);
            for name in names {
                self.round_of_memory(name).map_err(|e| format!("{name}: {e}"))?;
            }
            // All run side by side, idle but for the one whose turn it is, so that what is compared is measured within
            // seconds of each other.
            let subjects =
                names.iter().map(|name| Ok((*name, self.start(name)?))).collect::<Result<Vec<_>>>()?;
            self.round(&subjects)?;
        }
        Ok(())
    }

    fn start(&self, name: &str) -> Result<Subject> {
        let upstream = self.fixtures[0].1;
        let core = Some(self.options.core);
        let bare = |program: &str| -> Result<Subject> {
            let mut command = Command::new(sibling(program)?);
            command.args(["--upstream", &upstream.to_string()]);
            let mut process = Process::start(command, core, None)?;
            let address = process.address()?;
            Ok(Subject::Bare(process, address))
        };
        match name {
            MIMALLOC => bare("bare-mimalloc"),
            GLIBC => bare("bare-glibc"),
            TOLLGATE | UNAUDITED => {
                let dir = self.dir.join(name.replace([',', ' '], "-"));
                let _ = std::fs::remove_dir_all(&dir);
                let setup = Setup {
                    binary: self.tollgate.clone(),
                    dir,
                    upstreams: self.fixtures.iter().map(|(_, address)| *address).collect(),
                    data_threads: 1,
                    core,
                    audit: name == TOLLGATE,
                    valkey: None,
                    key_file: None,
                };
                Ok(Subject::Tollgate(Box::new(Gateway::start(setup, &self.issuer)?)))
            }
            _ => Ok(Subject::Direct(upstream)),
        }
    }

    fn round(&mut self, subjects: &[(&str, Subject)]) -> Result<()> {
        for (row, _, work) in CPU_ROWS {
            for (name, subject) in subjects {
                let outcome = self.load(&subject.endpoint(), work, 200, None, subject)?;
                self.note(row, name, &outcome);
                if let Subject::Tollgate(gateway) = subject
                    && row == "json"
                {
                    self.refusals(name, gateway, subject)?;
                }
            }
        }
        for (name, subject) in subjects {
            let outcome =
                self.load(&subject.endpoint(), Work::Json, 200, Some(self.options.rate), subject)?;
            self.figures.add("latency p50", name, outcome.latency.p50);
            self.figures.add("latency p99", name, outcome.latency.p99);
            self.failed(name, "latency", &outcome);
        }
        for (name, subject) in subjects {
            self.delivery(name, &subject.endpoint()).map_err(|e| format!("{name}: {e}"))?;
        }
        Ok(())
    }

    fn refusals(&mut self, name: &str, gateway: &Gateway, subject: &Subject) -> Result<()> {
        let endpoint = gateway.endpoint();
        let tight = gateway.refusing();
        // The one call that the route allows.
        Connection::new(tight.address)
            .exchange(tight.modern_call(Call { bytes: 1, shape: Shape::Json, delay_ms: 0 }).advance())?;
        let forged = endpoint.with_token(endpoint.token.as_deref().map(identity::forged));
        let anonymous = endpoint.with_token(None);
        for (row, endpoint, status) in
            [("401", anonymous, 401), ("401 forged", forged, 401), ("429", tight, 429)]
        {
            let outcome = self.load(&endpoint, Work::Refused, status, None, subject)?;
            self.note(row, name, &outcome);
        }
        Ok(())
    }

    fn load(
        &self,
        endpoint: &Endpoint,
        work: Work,
        expect: u16,
        rate: Option<f64>,
        subject: &Subject,
    ) -> Result<Outcome> {
        let seconds = self.options.seconds;
        let mut arguments: Vec<String> = vec!["--work".to_owned(), value_name(work)];
        let mut add = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        add("--expect", expect.to_string());
        add("--seconds", seconds.to_string());
        add("--warm", (seconds / 4.0).to_string());
        if let Some(rate) = rate {
            add("--rate", rate.to_string());
        }
        if let Some(pid) = subject.pid() {
            add("--watch", pid.to_string());
        }
        let text = start_load(endpoint, &arguments, Some(self.options.core))?.finish()?;
        Ok(serde_json::from_str(&text)?)
    }

    fn note(&mut self, row: &str, subject: &str, outcome: &Outcome) {
        if let Some(cpu) = outcome.cpu_us {
            self.figures.add(&format!("cpu {row}"), subject, cpu);
        }
        self.figures.add(&format!("rate {row}"), subject, outcome.rate());
        self.failed(subject, row, outcome);
    }

    fn failed(&mut self, subject: &str, row: &str, outcome: &Outcome) {
        self.errors += outcome.failures();
        self.figures.add("errors", subject, outcome.failures() as f64);
        if outcome.failures() > 0 {
            eprintln!("{subject}, {row}: {} misrouted, errors {:?}", outcome.misrouted, outcome.errors);
        }
    }

    fn round_of_memory(&mut self, name: &str) -> Result<()> {
        for (at, streams) in self.options.streams.clone().into_iter().enumerate() {
            self.memory(name, streams, Kind::Get)?;
            if at == 0 {
                self.memory(name, streams, Kind::Listen)?;
            }
        }
        Ok(())
    }

    fn memory(&mut self, name: &str, streams: usize, kind: Kind) -> Result<()> {
        let subject = self.start(name)?;
        let endpoint = subject.endpoint();
        let Some(pid) = subject.pid() else { return Ok(()) };
        let settle = |what: Work| -> Result<()> {
            let arguments =
                ["--work", &value_name(what), "--warm", "0", "--seconds", "0.2", "--connections", "8"];
            let load = start_load(&endpoint, &arguments.map(str::to_owned), Some(self.options.core))?;
            load.finish().map(drop)
        };
        settle(Work::Json)?;
        settle(Work::Session)?;
        settle(Work::Modern)?;
        std::thread::sleep(SETTLE);
        let before = process::pss_kib(pid)?;
        let (mut holder, _) = Holder::start(&endpoint, streams, kind, Some(self.options.core))?;
        // Every stream has carried something, and is silent again, as streams are.
        let held = self.until_all_heard(&mut holder, streams)?;
        std::thread::sleep(SETTLE);
        let after = process::pss_kib(pid)?;
        let lost = held.refused + held.dropped + held.missing;
        self.errors += lost;
        if lost > 0 {
            eprintln!("{name}, {streams} streams: {held:?}");
        }
        let each = after.saturating_sub(before) as f64 / streams as f64;
        self.figures.add(&memory_row(streams, kind), name, each);
        Ok(())
    }

    fn until_all_heard(&self, holder: &mut Holder, streams: usize) -> Result<Held> {
        let quick = (streams as f64).max(100.0);
        for (_, address) in &self.fixtures {
            pace(*address, Some(quick))?;
        }
        let mut held = Held::default();
        let all = process::wait_until("each stream has heard something", Duration::from_secs(30), || {
            held = holder.report().unwrap_or_default();
            held.heard + held.dropped + held.refused >= streams as u64
        });
        for (_, address) in &self.fixtures {
            pace(*address, Some(0.0))?;
        }
        all.map(|()| held)
    }

    fn delivery(&mut self, name: &str, endpoint: &Endpoint) -> Result<()> {
        let streams = if self.options.smoke { 10 } else { DELIVERY_STREAMS };
        let (mut holder, _) = Holder::start(endpoint, streams, Kind::Get, Some(self.options.core))?;
        // Through Tollgate the streams are spread over both.
        let shares = if name == TOLLGATE || name == UNAUDITED { 2.0 } else { 1.0 };
        for (_, address) in &self.fixtures {
            pace(*address, Some(DELIVERY_PACE / shares))?;
        }
        std::thread::sleep(Duration::from_millis(500));
        holder.reset()?;
        std::thread::sleep(Duration::from_secs_f64(self.options.seconds));
        let held = holder.report()?;
        for (_, address) in &self.fixtures {
            pace(*address, Some(0.0))?;
        }
        let lost = held.refused + held.dropped + held.missing;
        self.errors += lost;
        if lost > 0 || held.received == 0 {
            return Err(format!("delivery of events: {held:?}").into());
        }
        self.figures.add("delivery p50", name, held.delivery.p50);
        self.figures.add("delivery p99", name, held.delivery.p99);
        Ok(())
    }

    fn goals(&self) -> Vec<Goal> {
        let f = &self.figures;
        let over_direct = |row: &str| f.compare((row, TOLLGATE), (row, DIRECT), |a, b| a - b);
        let goal = |what: &str, measured: f64, must: f64, stretch: f64, unit: &'static str| Goal {
            what: what.to_owned(),
            measured,
            must,
            stretch,
            unit,
        };
        let mut goals = Vec::new();
        // What is compared has no audit: the first figures are of the same work, the others of what is there by default.
        for (subject, note) in [(UNAUDITED, ""), (TOLLGATE, ", audited")] {
            for (what, row, must, stretch) in [
                ("CPU per call, JSON", "cpu json", 1.25, 0.85),
                ("CPU per call, SSE", "cpu sse", 1.25, 0.85),
                ("CPU per call, no session", "cpu modern", 1.25, 0.85),
                ("CPU per new session", "cpu session", 1.3, 0.95),
            ] {
                let measured = f.compare((row, subject), (row, MIMALLOC), |a, b| a / b);
                goals.push(goal(&format!("{what}, to bare mimalloc{note}"), measured, must, stretch, ""));
            }
            for (what, row) in [("no token", "cpu 401"), ("a forged token", "cpu 401 forged")] {
                let measured = f.compare((row, subject), ("cpu json", subject), |a, b| a / b);
                goals.push(goal(&format!("CPU of a 401, {what}, to a call{note}"), measured, 0.5, 0.3, ""));
            }
            let measured = f.compare(("cpu 429", subject), ("cpu json", subject), |a, b| a / b);
            goals.push(goal(&format!("CPU of a 429, to a call{note}"), measured, 0.5, 0.3, ""));
        }
        goals.extend([
            goal("added p50", over_direct("latency p50"), 100.0, 75.0, "µs"),
            goal("event delivery over direct, p50", over_direct("delivery p50"), 100.0, 50.0, "µs"),
            goal("event delivery over direct, p99", over_direct("delivery p99"), 1000.0, 500.0, "µs"),
        ]);
        for (streams, kind, what) in self.memory_rows() {
            let row = memory_row(streams, kind);
            goals.push(goal(&what, f.median(&row, TOLLGATE), 60.0, 20.0, "KiB"));
            goals.push(goal(
                &format!("{what}, to bare glibc"),
                f.compare((&row, TOLLGATE), (&row, GLIBC), |a, b| a / b),
                1.0,
                0.34,
                "",
            ));
        }
        goals
    }

    fn memory_rows(&self) -> Vec<(usize, Kind, String)> {
        let get = self.options.streams.iter().map(|n| (*n, Kind::Get, format!("KiB per stream of {n}, GET")));
        let listen = self
            .options
            .streams
            .first()
            .map(|n| (*n, Kind::Listen, format!("KiB per stream of {n}, listen")));
        get.chain(listen).collect()
    }

    fn publish(&self) -> Result<bool> {
        let goals = self.goals();
        let machine = Machine::this();
        let labels: Vec<(String, String)> = CPU_ROWS
            .iter()
            .map(|(row, label, _)| (format!("cpu {row}"), (*label).to_owned()))
            .chain([
                ("cpu 401".to_owned(), "CPU µs: 401, no token".to_owned()),
                ("cpu 401 forged".to_owned(), "CPU µs: 401, forged token".to_owned()),
                ("cpu 429".to_owned(), "CPU µs: 429".to_owned()),
                ("rate json".to_owned(), "requests/s: tools/call, JSON".to_owned()),
                ("rate sse".to_owned(), "requests/s: tools/call, SSE".to_owned()),
                ("latency p50".to_owned(), format!("p50 µs at {} requests/s", self.options.rate)),
                ("latency p99".to_owned(), format!("p99 µs at {} requests/s", self.options.rate)),
                ("delivery p50".to_owned(), "event delivery, p50 µs".to_owned()),
                ("delivery p99".to_owned(), "event delivery, p99 µs".to_owned()),
            ])
            .chain(self.memory_rows().into_iter().map(|(n, kind, label)| (memory_row(n, kind), label)))
            .collect();
        let labels: Vec<(&str, &str)> =
            labels.iter().map(|(row, label)| (row.as_str(), label.as_str())).collect();
        let text = format!(
            "{}; {} rounds; everything on core {}\n\n{}\n{}\nerrors: {}\n",
            machine.text(),
            self.options.rounds,
            self.options.core,
            report::samples(&self.figures, &labels, &SUBJECTS),
            report::goals(&goals),
            self.errors
        );
        let report = Report {
            machine,
            rounds: self.options.rounds,
            figures: &self.figures,
            goals: &goals,
            errors: self.errors,
        };
        let name = if self.options.smoke { "bench-smoke" } else { "bench" };
        report::publish(&self.options.out, name, &text, &report)?;
        let kept = !self.options.enforce || goals.iter().all(Goal::is_met);
        Ok(self.errors == 0 && kept)
    }
}
