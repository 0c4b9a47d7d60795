//! Tollgate as it is measured: with identity, limits, policy, metrics and access log, as an operator would have it.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::client::{Connection, Endpoint, Session};
use crate::identity::{AUDIENCE, ISSUER, Issuer};
use crate::process::{self, Process};
use crate::prove::shared_limits::{BURST, PER_MINUTE};
use crate::{Result, http};

/// How long it may take until the gateway serves.
const START: Duration = Duration::from_secs(30);

/// What the configuration says besides what it always says.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The binary.
    pub binary: PathBuf,
    /// For its files; made if it is not there.
    pub dir: PathBuf,
    /// The servers behind it.
    pub upstreams: Vec<SocketAddr>,
    /// Threads of the data plane; 0 = one per core.
    pub data_threads: usize,
    /// Core it is pinned to.
    pub core: Option<usize>,
    /// Whether it records what it decides. It does by default, and so in everything but a comparison of the two.
    pub audit: bool,
    /// The server of shared limits. With one there are routes more: `shared`, which refuses most calls of many, and
    /// `wide_shared` and `wide_local`, which refuse none.
    pub valkey: Option<SocketAddr>,
    /// Sealing keys that several gateways share.
    pub key_file: Option<PathBuf>,
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    /// Its process.
    pub process: Process,
    setup: Setup,
    mcp: SocketAddr,
    admin: SocketAddr,
    token: String,
}

impl Gateway {
    /// Writes the configuration, starts the gateway and waits until it serves.
    ///
    /// # Errors
    /// It does not come up; what it wrote is part of the error.
    pub fn start(setup: Setup, issuer: &Issuer) -> Result<Self> {
        let dir = fs::canonicalize(&setup.dir).or_else(|_| {
            fs::create_dir_all(&setup.dir)?;
            fs::canonicalize(&setup.dir)
        })?;
        let setup = Setup { dir, binary: fs::canonicalize(&setup.binary)?, ..setup };
        issuer.write_jwks(&setup.dir.join("jwks.json"))?;
        let mcp = SocketAddr::from(([127, 0, 0, 1], process::free_port()?));
        let admin = SocketAddr::from(([127, 0, 0, 1], process::free_port()?));
        let text = configuration(&setup, mcp, admin, 0);
        fs::write(setup.dir.join("tollgate.yaml"), text)?;
        let process = launch(&setup, "serve", "tollgate.log")?;
        let mut gateway = Self { process, setup, mcp, admin, token: issuer.token("load")? };
        if let Err(error) = gateway.await_ready() {
            let log = fs::read_to_string(gateway.setup.dir.join("tollgate.log")).unwrap_or_default();
            return Err(format!("{error}\n{log}").into());
        }
        Ok(gateway)
    }

    fn await_ready(&mut self) -> Result<()> {
        let endpoint = self.endpoint();
        let ready = || Session::open(&endpoint).and_then(|mut session| session.delete()).is_ok();
        process::wait_until("the gateway serves", START, ready)
    }

    /// The ordinary route, with a valid token.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint { address: self.mcp, path: "/mcp/load".to_owned(), token: Some(self.token.clone()) }
    }

    /// A route whose limit refuses everything after the first call.
    pub fn refusing(&self) -> Endpoint {
        self.endpoint().at("/mcp/tight")
    }

    /// Puts a changed configuration in place, as editors do it: a new file, renamed over the old one. Each `variant`
    /// changes a limit, a policy and the server.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn rewrite(&self, variant: u64) -> Result<()> {
        let new = self.setup.dir.join("tollgate.yaml.new");
        fs::write(&new, configuration(&self.setup, self.mcp, self.admin, variant))?;
        Ok(fs::rename(new, self.setup.dir.join("tollgate.yaml"))?)
    }

    /// Starts a successor on the same configuration, which takes the sockets over. Returns the old process.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn upgrade(&mut self, number: usize) -> Result<Process> {
        let successor = launch(&self.setup, "upgrade", &format!("tollgate-{number}.log"))?;
        Ok(std::mem::replace(&mut self.process, successor))
    }

    /// A figure of `/metrics`: the sum of the samples of that name.
    ///
    /// # Errors
    /// The admin listener does not answer.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let text = self.admin_get("/metrics")?;
        let samples = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with([' ', '{']).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
        });
        Ok(samples.sum())
    }

    fn admin_get(&self, path: &str) -> Result<String> {
        let mut connection = Connection::new(self.admin);
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.admin);
        let answer: http::ResponseHead = connection.exchange(request.as_bytes())?;
        if answer.status != 200 {
            return Err(format!("{path}: {}", answer.status).into());
        }
        Ok(String::from_utf8_lossy(connection.body()).into_owned())
    }

    /// The last lines it wrote.
    pub fn log(&self, name: &str) -> String {
        let text = fs::read_to_string(self.setup.dir.join(name)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

fn launch(setup: &Setup, command: &str, log: &str) -> Result<Process> {
    let mut program = Command::new(&setup.binary);
    program.args([command, "--config", "tollgate.yaml"]).current_dir(&setup.dir);
    Process::start(program, setup.core, Some(&setup.dir.join(log)))
}

/// The document. Limits are high enough never to refuse on the ordinary route, and are checked all the same.
fn configuration(setup: &Setup, mcp: SocketAddr, admin: SocketAddr, variant: u64) -> String {
    let mut targets = String::new();
    for upstream in &setup.upstreams {
        let _ = write!(targets, "\"http://{upstream}/mcp\", ");
    }
    let dir = quoted(&setup.dir);
    let (threads, burst, refresh) = (setup.data_threads, 1_000_000 + variant, 300 + variant % 60);
    let tool = format!("tool_{variant}");
    let (shared_routes, shared_limits, valkey) = shared(setup.valkey);
    let audit = setup.audit;
    let key_file = setup.key_file.as_ref();
    let sessions =
        key_file.map_or_else(String::new, |path| format!("sessions: {{ key_file: \"{}\" }}\n", quoted(path)));
    format!(
        r#"version: 1
listeners:
  mcp:
    address: {mcp}
    limits: {{ max_connections: 100000, max_connections_per_address: 100000, max_streams_per_principal: 100000 }}
  admin: {{ address: {admin} }}
runtime: {{ data_threads: {threads}, control_threads: 1 }}
data_dir: "{dir}/data"
audit: {{ enabled: {audit} }}
servers:
  - name: fixture
    http: {{ targets: [{targets}] }}
    max_in_flight: 1000000
    catalogue: {{ refresh: {refresh}s }}
routes:
  - {{ name: load, servers: [fixture], limits: [by_role, by_tool], policy: staff }}
  - {{ name: tight, servers: [fixture], limits: [tight], policy: staff }}
{shared_routes}limits:
{shared_limits}  - name: by_role
    key: principal
    per_role: {{ admin: 1000000/s, developer: 1000000/s, viewer: 60/m, anonymous: 20/m }}
    burst: {{ tokens: {burst} }}
  - name: by_tool
    key: [tenant, tool]
    rate: 1000000/s
    burst: {{ tokens: 1000000 }}
    cost: {{ default: 0, methods: {{ tools/call: 1 }}, tools: {{ "search_*": 5 }} }}
  - {{ name: tight, key: principal, rate: 1/d, burst: {{ tokens: 1 }} }}
policies:
  - name: staff
    default: deny
    rules:
      - {{ deny: {{ tools: ["delete_*", "{tool}"] }} }}
      - {{ allow: {{ roles: [admin] }} }}
      - {{ allow: {{ roles: [developer], groups: ["mcp-*"], tools: ["fill", "get_*", "list_*"] }} }}
      - {{ allow: {{ roles: [developer], methods: ["initialize", "subscriptions/listen", "notifications/*", "ping"] }} }}
identity:
  issuers:
    - name: load
      issuer: {ISSUER}
      audiences: ["{AUDIENCE}"]
      jwks: {{ file: "{dir}/jwks.json" }}
      algorithms: [RS256]
      groups_claim: groups
      scopes_claim: scope
      roles: {{ claim: groups, map: {{ mcp-admins: admin, mcp-developers: developer }}, default: viewer }}
telemetry:
  log: {{ level: warn }}
  access_log: {{ enabled: true, path: "{dir}/access.log" }}
shutdown: {{ announce: 1s, drain: 30s, streams: 5s }}
{sessions}{valkey}"#
    )
}

/// Routes, limits and section of a shared server.
fn shared(valkey: Option<SocketAddr>) -> (String, String, String) {
    let Some(address) = valkey else { return Default::default() };
    let names = ["shared", "wide_shared", "wide_local"];
    let routes = names
        .iter()
        .map(|n| format!("  - {{ name: {n}, servers: [fixture], limits: [{n}], policy: staff }}\n"))
        .collect();
    let limits = format!(
        "  - {{ name: shared, key: principal, rate: {PER_MINUTE}/m, burst: {{ tokens: {BURST} }}, backend: valkey, fail: closed }}
  - {{ name: wide_shared, key: principal, rate: 1000000/s, backend: valkey, fail: closed }}
  - {{ name: wide_local, key: principal, rate: 1000000/s }}\n"
    );
    (routes, limits, format!("valkey: {{ urls: [\"redis://{address}\"] }}\n"))
}

/// A path inside double quotes.
fn quoted(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\"")
}
