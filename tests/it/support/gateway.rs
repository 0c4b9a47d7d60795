//! A gateway in this process, put together from pieces of YAML.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tollgate::app::{self, Document, Options, Process, StartError};
use tollgate::base::Clock;

use super::{AT_ONCE, Caller, Client, Folder, Request, Response, Upstream, eventually, within};

/// A document in the making: one server `s` behind the route `/mcp/s`, for callers from this machine, without limits.
#[derive(Clone, Debug)]
pub struct Builder {
    targets: Vec<String>,
    server: String,
    http: String,
    route: String,
    routes: String,
    listener: String,
    listeners: String,
    identity: String,
    more: String,
    access_log: String,
    env: Vec<(String, String)>,
    watched: bool,
    clock: Clock,
}

impl Builder {
    /// More keys of the server, in flow style: `era: legacy, timeouts: { first_byte: 1s }`.
    pub fn server(mut self, keys: &str) -> Self {
        self.server = format!("{}, {keys}", self.server);
        self
    }

    /// More keys of the server's `http`.
    pub fn http(mut self, keys: &str) -> Self {
        self.http = format!(", {keys}");
        self
    }

    /// More keys of the route.
    pub fn route(mut self, keys: &str) -> Self {
        self.route = format!("{}, {keys}", self.route);
        self
    }

    /// The keys of the MCP listener.
    pub fn listener(mut self, keys: &str) -> Self {
        self.listener = format!("{}, {keys}", self.listener);
        self
    }

    /// More listeners: `metrics: { address: "127.0.0.1:0" }`.
    pub fn listeners(mut self, keys: &str) -> Self {
        self.listeners = format!("{}, {keys}", self.listeners);
        self
    }

    /// In place of the loopback identity: the keys of `identity`.
    pub fn identity(mut self, keys: &str) -> Self {
        self.identity = keys.to_owned();
        self
    }

    /// Lines of further routes, as they stand in a file.
    pub fn routes(mut self, lines: &str) -> Self {
        self.routes = format!("{}{lines}\n", self.routes);
        self
    }

    /// Lines of the top level, as they stand in a file.
    pub fn more(mut self, lines: &str) -> Self {
        self.more = format!("{}{lines}\n", self.more);
        self
    }

    /// Writes the access log, to this file.
    pub fn access_log(mut self, path: &std::path::Path) -> Self {
        self.access_log = format!("{{ enabled: true, path: \"{}\" }}", path.display());
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Reads the document from a file, which [`Gateway::rewrite`] changes.
    pub fn watched(mut self) -> Self {
        self.watched = true;
        self
    }

    /// Time that only the test moves.
    pub fn clock(mut self, clock: &Clock) -> Self {
        self.clock = clock.clone();
        self
    }

    pub fn text(&self) -> String {
        let limits = if self.route.contains("limits:") { "" } else { ", limits: []" };
        let health = if self.server.contains("health:") { "" } else { ", health: { interval: 0s }" };
        let ramp = if self.server.contains("slow_start:") { "" } else { ", slow_start: 0s" };
        let shutdown = if self.more.contains("shutdown:") {
            ""
        } else {
            "shutdown: { announce: 0s, drain: 5s, streams: 1s }\n"
        };
        format!(
            "version: 1\n\
             listeners: {{ mcp: {{ address: 127.0.0.1:0{} }}, admin: {{ address: 127.0.0.1:0 }}{} }}\n\
             runtime: {{ data_threads: 2, control_threads: 1 }}\n\
             telemetry: {{ access_log: {} }}\n\
             {shutdown}\
             identity: {{ {} }}\n\
             servers:\n  - {{ name: s, http: {{ targets: [{}]{} }}{health}{ramp}{} }}\n\
             routes:\n  - {{ name: s, servers: [s]{limits}{} }}\n{}\
             {}",
            self.listener,
            self.listeners,
            self.access_log,
            self.identity,
            self.targets.join(", "),
            self.http,
            self.server,
            self.route,
            self.routes,
            self.more,
        )
    }

    pub async fn start(self) -> Gateway {
        self.try_start().await.unwrap_or_else(|e| panic!("the gateway does not start: {e}"))
    }

    pub async fn try_start(self) -> Result<Gateway, StartError> {
        Gateway::launch(self.text(), &self).await
    }
}

/// A running gateway.
pub struct Gateway {
    process: Option<Process>,
    folder: Arc<Folder>,
    env: Vec<(String, String)>,
    pub mcp: SocketAddr,
    pub admin: SocketAddr,
    /// Keeps two rewrites of the file from having the same size and time.
    rewrites: Mutex<u64>,
}

/// A gateway that has taken the sockets of another over, and the line by which it says so.
pub struct Successor {
    pub gateway: Gateway,
    serving: Box<dyn FnOnce() -> std::io::Result<()> + Send>,
}

impl Gateway {
    /// A document with these targets behind one route.
    pub fn relay(upstreams: &[&Upstream]) -> Builder {
        Self::targets(upstreams.iter().map(|u| format!("\"{}\"", u.url())))
    }

    /// A document with these targets, as YAML has them.
    pub fn targets(targets: impl IntoIterator<Item = String>) -> Builder {
        Builder {
            targets: targets.into_iter().collect(),
            server: String::new(),
            http: String::new(),
            route: String::new(),
            routes: String::new(),
            listener: String::new(),
            listeners: String::new(),
            identity: "loopback: { role: developer }".to_owned(),
            more: String::new(),
            access_log: "{ enabled: false }".to_owned(),
            env: Vec::new(),
            watched: false,
            clock: Clock::default(),
        }
    }

    async fn launch(text: String, builder: &Builder) -> Result<Self, StartError> {
        Self::launch_in(Arc::new(Folder::new()), text, builder).await
    }

    async fn launch_in(folder: Arc<Folder>, text: String, builder: &Builder) -> Result<Self, StartError> {
        let document = if builder.watched {
            let path = folder.write("tollgate.yaml", text);
            // A file that is younger than the process counts as changed since it was read.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            Document::File(path)
        } else {
            Document::Text(text)
        };
        let options = Options { clock: builder.clock.clone(), ..options(document, &folder, &builder.env) };
        let process = off_runtime(move || Process::start(options)).await?;
        Ok(Self::of(process, folder, builder.env.clone()))
    }

    fn of(process: Process, folder: Arc<Folder>, env: Vec<(String, String)>) -> Self {
        let (mcp, admin) = (process.mcp_address().expect("it has a data plane"), process.admin_address());
        Self { process: Some(process), folder, env, mcp, admin, rewrites: Mutex::new(0) }
    }

    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("the process runs until shutdown")
    }

    /// The base of all URLs that clients dial.
    pub fn origin(&self) -> String {
        self.process().origin().to_owned()
    }

    /// The URL of the route `s`: the audience of tokens for it.
    pub fn url(&self) -> String {
        format!("{}/mcp/s", self.origin())
    }

    /// Somebody who calls the route `s`.
    pub fn caller(&self) -> Caller {
        Caller::new(self.mcp, "/mcp/s")
    }

    pub async fn connect(&self) -> Client {
        Client::connect(self.mcp).await
    }

    /// Waits until the background has found out what each server speaks and offers.
    pub async fn settled(&self) {
        eventually("every server has been examined", async || {
            let servers = self.process().reloader().state().upstreams.servers();
            let known = |s: &Arc<tollgate::upstream::Server>| {
                let eras = s.eras();
                (eras.modern.is_some() && eras.legacy.is_some()).then_some(())?;
                (eras.modern == Some(false) || s.discover().is_some()).then_some(())
            };
            servers.iter().all(|s| known(s).is_some()).then_some(())
        })
        .await;
    }

    /// GET on the admin listener.
    pub async fn admin(&self, path: &str) -> Response {
        let request =
            Request::new("GET", path).with("Host", &self.admin.to_string()).with("Connection", "close");
        Client::connect(self.admin).await.ask(&request).await
    }

    pub async fn readyz(&self) -> (u16, Value) {
        let response = self.admin("/readyz").await;
        (response.status(), response.json())
    }

    /// The sum of a metric's series whose line has all of these parts.
    pub async fn metric(&self, name: &str, parts: &[&str]) -> f64 {
        let text = self.admin("/metrics").await.text();
        let own = |line: &&str| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && parts.iter().all(|part| line.contains(part))
        };
        text.lines().filter(own).filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Replaces the watched file.
    pub fn rewrite(&self, text: &str) {
        let mut count = self.rewrites.lock();
        *count += 1;
        self.folder.write("tollgate.yaml", format!("{text}# {}\n", "x".repeat(*count as usize)));
    }

    /// Replaces the watched file and waits until the reload has come to this outcome.
    pub async fn reload(&self, text: &str, outcome: &str) {
        let before = self.metric("tollgate_config_reloads_total", &[outcome]).await;
        self.rewrite(text);
        eventually(&format!("a reload that is {outcome}"), async || {
            let now = self.metric("tollgate_config_reloads_total", &[outcome]).await;
            (now > before).then_some(())
        })
        .await;
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Ends politely. `true` if nothing had to be cut.
    pub async fn shutdown(mut self) -> bool {
        let process = self.process.take().expect("only one shutdown");
        within("shutdown", off_runtime(move || process.shutdown(false))).await
    }

    /// Ends, and starts again on the same data folder. The address is another one.
    pub async fn restart(self, builder: &Builder) -> Self {
        let folder = self.folder.clone();
        assert!(self.shutdown().await, "nothing was cut");
        Self::launch_in(folder, builder.text(), builder)
            .await
            .unwrap_or_else(|e| panic!("it does not start: {e}"))
    }

    /// Ends at once, with nothing finished, and starts again on the same data folder.
    pub async fn crash(mut self, builder: &Builder) -> Self {
        let folder = self.folder.clone();
        let process = self.process.take().expect("only one end");
        off_runtime(move || drop(process)).await;
        Self::launch_in(folder, builder.text(), builder)
            .await
            .unwrap_or_else(|e| panic!("it does not start: {e}"))
    }

    /// Starts a process on the sockets of this one, with the same document unless another is given.
    pub async fn succeed(&self, builder: &Builder) -> Successor {
        let (data, folder, env) = (self.data_dir(), self.folder.clone(), self.env.clone());
        let document = Document::Text(builder.text());
        let (process, line) = within(
            "the handover",
            off_runtime({
                let folder = folder.clone();
                let env = env.clone();
                move || {
                    let began = std::time::Instant::now();
                    let inherited = loop {
                        match app::take_over(&data) {
                            Ok(inherited) => break inherited,
                            // The door opens shortly after the start.
                            Err(e) if began.elapsed() > AT_ONCE => panic!("{e}"),
                            Err(_) => std::thread::sleep(std::time::Duration::from_millis(10)),
                        }
                    };
                    let line = inherited.successor().expect("the line can be cloned");
                    let options = Options { inherited: Some(inherited), ..options(document, &folder, &env) };
                    (Process::start(options).expect("the successor starts"), line)
                }
            }),
        )
        .await;
        Successor { gateway: Self::of(process, folder, env), serving: Box::new(move || line.serving()) }
    }

    /// Waits until a successor serves, then ends as `tollgate serve` does.
    pub async fn yield_to_successor(mut self) -> bool {
        let mut handed = self.process().handed_over();
        within("the successor's word", handed.wait_for(|handed| *handed)).await.expect("the process lives");
        let process = self.process.take().expect("only one shutdown");
        within("shutdown", off_runtime(move || process.shutdown(true))).await
    }
}

impl Successor {
    /// Tells the old process to go.
    pub fn serving(self) -> Gateway {
        (self.serving)().expect("the old process listens");
        self.gateway
    }
}

fn options(document: Document, folder: &Folder, env: &[(String, String)]) -> Options {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let env = env.to_vec();
    Options {
        env: Arc::new(move |name| env.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone())),
        listen: Some(any),
        admin: Some(any),
        data_dir: Some(folder.path().join("data")),
        ..Options::new(document)
    }
}

/// Processes have runtimes of their own, which are made and ended outside of any other.
async fn off_runtime<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = done.send(work());
    });
    result.await.expect("the thread does not panic")
}
