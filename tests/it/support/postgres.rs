//! Private PostgreSQL servers: made from a template cluster, on a free port of 127.0.0.1, stopped with their value.
//!
//! PostgreSQL refuses to run as root, so as root it runs as `postgres` or `nobody`. A thread per server starts it and
//! waits for its end: the kernel is told to end the server with the thread that started it, so that a test run that is
//! killed leaves nothing behind.

#![allow(dead_code, reason = "a set of tools: not all of them are in use at all times")]

use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Weak, mpsc};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The role that Tollgate logs in with.
pub const LOGIN: &str = "tollgate";

/// Folders of test runs in the temporary folder: this and the process's id.
const PREFIX: &str = "tollgate-postgres-";

/// Longest that a server may take to start or stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a server of a test differs from one for everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Loses what it was told if it is killed: fast.
    None,
    /// As in production.
    Full,
}

/// A PostgreSQL server of the tests' own.
pub struct Postgres {
    folder: PathBuf,
    port: u16,
    durability: Durability,
    tls: bool,
    running: Mutex<Option<Running>>,
    _template: Arc<Template>,
}

struct Running {
    pid: u32,
    stop: mpsc::Sender<Signal>,
    thread: std::thread::JoinHandle<()>,
}

#[derive(Clone, Copy)]
enum Signal {
    Kill,
    Stop,
}

/// An empty database with its own name, on a server that other tests use as well.
pub struct Database {
    server: Arc<Postgres>,
    name: String,
}

impl Database {
    /// A fresh database; the server is started if no test uses it yet.
    pub fn fresh() -> Self {
        static SHARED: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock();
        let server = shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Postgres::start(Durability::None));
            *shared = Arc::downgrade(&server);
            server
        });
        drop(shared);
        server.database()
    }

    /// Its address for the role [`LOGIN`].
    pub fn url(&self) -> String {
        self.server.url(LOGIN, &self.name)
    }

    /// Its address for a superuser.
    pub fn admin_url(&self) -> String {
        self.server.url("postgres", &self.name)
    }

    /// Its address for another role.
    pub fn url_as(&self, role: &str) -> String {
        self.server.url(role, &self.name)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs SQL as a superuser, and gives what it printed.
    pub fn sql(&self, text: &str) -> String {
        self.server.sql(&self.name, text)
    }

    /// The same; what PostgreSQL says if it fails.
    pub fn try_sql(&self, text: &str) -> Result<String, String> {
        self.try_sql_as("postgres", text)
    }

    /// The same as another role.
    pub fn try_sql_as(&self, role: &str, text: &str) -> Result<String, String> {
        self.server.psql(role, &self.name, text)
    }

    /// The server it is on.
    pub fn server(&self) -> &Postgres {
        &self.server
    }
}

impl Postgres {
    /// Starts a server with the roles that `tollgate migrate roles` prints, and no database.
    pub fn start(durability: Durability) -> Self {
        Self::start_with(durability, None)
    }

    /// Starts a server that speaks TLS, too, with a certificate and its key (PEM).
    pub fn start_tls(certificate: &str, key: &str) -> Self {
        Self::start_with(Durability::None, Some((certificate, key)))
    }

    fn start_with(durability: Durability, tls: Option<(&str, &str)>) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let template = Template::get();
        let folder = template.root.join(format!("server-{number}"));
        let copied =
            Command::new("cp").arg("-a").arg(template.root.join("template")).arg(&folder).status().unwrap();
        assert!(copied.success(), "the template cluster can be copied");
        if let Some((certificate, key)) = tls {
            for (file, text) in [("server.crt", certificate), ("server.key", key)] {
                let file = folder.join(file);
                fs::write(&file, text).unwrap();
                // The server insists: nobody else reads its key.
                fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
                if let Some((uid, gid)) = server_user() {
                    std::os::unix::fs::chown(&file, Some(uid), Some(gid)).unwrap();
                }
            }
        }
        for _ in 0..5 {
            let port = free_port();
            let running = Mutex::new(None);
            let (folder, _template) = (folder.clone(), template.clone());
            let server = Self { folder, port, durability, tls: tls.is_some(), running, _template };
            if server.run() {
                server.sql("postgres", &roles());
                return server;
            }
        }
        let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
        panic!("PostgreSQL does not start:\n{log}");
    }

    /// An empty database that belongs to [`LOGIN`].
    pub fn database(self: &Arc<Self>) -> Database {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name} OWNER {LOGIN}"));
        Database { server: self.clone(), name }
    }

    /// The address of a database on this server.
    pub fn url(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// Runs SQL as a superuser, and gives what it printed: rows by line, columns by `|`.
    pub fn sql(&self, database: &str, text: &str) -> String {
        self.psql("postgres", database, text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn psql(&self, role: &str, database: &str, text: &str) -> Result<String, String> {
        let output = Command::new(program("psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", role])
            .args(["-p", &self.port.to_string(), "-d", database, "-c", text])
            .output()
            .unwrap();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// Kills it at once, as a crash does.
    pub fn kill(&self) {
        self.end(Signal::Kill);
    }

    /// Stops it politely.
    pub fn stop(&self) {
        self.end(Signal::Stop);
    }

    /// Starts it again, on the same port and data.
    pub fn restart(&self) {
        let started = Instant::now();
        while !self.run() {
            assert!(started.elapsed() < PATIENCE, "PostgreSQL does not start again");
        }
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.running.lock().as_ref().map(|r| r.pid)
    }

    fn end(&self, signal: Signal) {
        if let Some(running) = self.running.lock().take() {
            let _ = running.stop.send(signal);
            running.thread.join().unwrap();
        }
    }

    /// Starts it; `false` if it ends at once, as when somebody else took the port.
    fn run(&self) -> bool {
        let (stop, commands) = mpsc::channel();
        let (started, pid) = mpsc::channel();
        let mut command = as_server(&program("postgres"));
        command.arg("-D").arg(&self.folder).arg("-k").arg(&self.folder);
        command.args(["-p", &self.port.to_string()]);
        for setting in ["listen_addresses=127.0.0.1", "max_connections=200", "shared_buffers=64MB"] {
            command.args(["-c", setting]);
        }
        if self.tls {
            command.args(["-c", "ssl=on"]);
        }
        if self.durability == Durability::None {
            for setting in ["fsync=off", "synchronous_commit=off", "full_page_writes=off"] {
                command.args(["-c", setting]);
            }
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).current_dir(&self.folder);
        let thread = std::thread::spawn(move || {
            let mut child = command.spawn().expect("PostgreSQL can be started");
            started.send(child.id()).unwrap();
            supervise(&mut child, &commands);
        });
        let pid = pid.recv().unwrap();
        *self.running.lock() = Some(Running { pid, stop, thread });
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            let ready = Command::new(program("pg_isready"))
                .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()])
                .status()
                .unwrap();
            // Ready by the port alone could be somebody else's server.
            if ready.success() && self.folder.join("postmaster.pid").exists() {
                return true;
            }
            if self.running.lock().as_ref().is_none_or(|r| r.thread.is_finished()) {
                self.end(Signal::Stop);
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.end(Signal::Kill);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn supervise(child: &mut Child, commands: &mpsc::Receiver<Signal>) {
    loop {
        match commands.recv_timeout(Duration::from_millis(50)) {
            Ok(Signal::Kill) => {
                // The postmaster's children notice by themselves and end at once.
                let _ = child.kill();
                let _ = child.wait();
                return;
            }
            Ok(Signal::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => {
                let _ = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
                let _ = child.wait();
                return;
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                if child.try_wait().ok().flatten().is_some() {
                    return;
                }
            }
        }
    }
}

/// A cluster that others are copied from. Made for the first server, gone with the last one.
struct Template {
    root: PathBuf,
}

impl Template {
    fn get() -> Arc<Self> {
        static SHARED: Mutex<Weak<Template>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock();
        shared.upgrade().unwrap_or_else(|| {
            let made = Arc::new(Self::make());
            *shared = Arc::downgrade(&made);
            made
        })
    }

    fn make() -> Self {
        forget_the_dead();
        // A number of its own: one that goes and one that comes may overlap.
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("{PREFIX}{}-{number}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        if let Some((uid, gid)) = server_user() {
            std::os::unix::fs::chown(&root, Some(uid), Some(gid)).unwrap();
        }
        let mut initdb = as_server(&program("initdb"));
        initdb.arg("-D").arg(root.join("template"));
        initdb.args(["-U", "postgres", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]);
        let output = initdb.current_dir(&root).output().unwrap();
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        Self { root }
    }
}

impl Drop for Template {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// Removes what test runs that were killed left behind.
fn forget_the_dead() {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let ids = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let pid = ids.and_then(|ids| ids.split('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The statements of `tollgate migrate roles`, without the database.
fn roles() -> String {
    let sql = tollgate::store::roles_sql(LOGIN, "unused");
    sql.lines().filter(|line| !line.starts_with("CREATE DATABASE")).collect::<Vec<_>>().join("\n")
}

/// A program of PostgreSQL.
fn program(name: &str) -> PathBuf {
    static BIN: LazyLock<PathBuf> = LazyLock::new(|| {
        let mut found: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
            .filter(|(_, bin)| bin.join("initdb").exists())
            .collect();
        found.sort();
        let in_path = || {
            let path = std::env::var_os("PATH")?;
            std::env::split_paths(&path).find(|folder| folder.join("initdb").exists())
        };
        found
            .pop()
            .map(|(_, bin)| bin)
            .or_else(in_path)
            .expect("PostgreSQL is installed (scripts/bootstrap.sh test)")
    });
    BIN.join(name)
}

/// A command that runs as a user that PostgreSQL accepts, and ends with the thread that started it.
fn as_server(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if let Some((uid, gid)) = server_user() {
        command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).arg("--clear-groups");
    }
    command.arg(program).env_remove("PGDATA").process_group(0);
    command
}

/// Whom the server runs as, if this is root.
fn server_user() -> Option<(u32, u32)> {
    let mut status = String::new();
    fs::File::open("/proc/self/status").unwrap().read_to_string(&mut status).unwrap();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    if uid.split_whitespace().next() != Some("0") {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let find = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut ids = line.split(':').skip(2);
        Some((ids.next()?.parse().ok()?, ids.next()?.parse().ok()?))
    };
    find("postgres").or_else(|| find("nobody"))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
