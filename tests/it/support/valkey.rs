//! A private server for shared limits: the real program, on a port of its own, gone with its value.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{Authority, Folder, PATIENCE, eventually};

/// A running server, or the place of one that was killed.
pub struct Valkey {
    child: Option<Child>,
    folder: Folder,
    port: u16,
    clustered: bool,
    guard: Option<Guard>,
}

/// TLS only, and a login.
struct Guard {
    settings: String,
    password: String,
    ca: Vec<u8>,
}

impl Valkey {
    pub async fn start() -> Self {
        Self::launch(false, None).await
    }

    /// One that speaks TLS only, with a certificate of this authority, and knows the user `gate` alone.
    pub async fn guarded(authority: &Authority, password: &str) -> Self {
        let (cert, key) = authority.write("valkey", &authority.issue("127.0.0.1"));
        let settings = format!(
            "tls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\ntls-auth-clients no\n\
             user default off\nuser gate on >{password} ~tollgate:* +@all\n",
            cert.display(),
            key.display(),
            authority.file().display()
        );
        let ca = std::fs::read(authority.file()).expect("the authority has a file");
        Self::launch(false, Some(Guard { settings, password: password.to_owned(), ca })).await
    }

    /// Three nodes that share the slots.
    pub async fn cluster() -> Vec<Self> {
        let mut nodes = Vec::new();
        for _ in 0..3 {
            nodes.push(Self::launch(true, None).await);
        }
        let slots = [(0, 5460), (5461, 10922), (10923, 16383)];
        for (node, (from, to)) in nodes.iter().zip(slots) {
            node.command(&["CLUSTER", "ADDSLOTSRANGE", &from.to_string(), &to.to_string()]).await;
        }
        for node in &nodes[1..] {
            let (port, bus) = (node.port.to_string(), node.bus().to_string());
            nodes[0].command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await;
        }
        for node in &nodes {
            eventually("the cluster", async || {
                let info = node.command(&["CLUSTER", "INFO"]).await;
                let info = format!("{info:?}");
                (info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")).then_some(())
            })
            .await;
        }
        nodes
    }

    pub fn url(&self) -> String {
        let scheme = if self.guard.is_some() { "rediss" } else { "redis" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// The section of a document.
    pub fn section(&self) -> String {
        format!("valkey: {{ urls: [\"{}\"] }}", self.url())
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts again on the same port, with nothing remembered.
    pub async fn restart(&mut self) {
        self.kill();
        self.child = Some(self.spawn());
        self.answers().await;
    }

    async fn launch(clustered: bool, guard: Option<Guard>) -> Self {
        let folder = Folder::new();
        let mut server = Self { child: None, folder, port: 0, clustered, guard };
        let mut tries = 0;
        loop {
            // The program cannot take any free port by itself; another may take this one meanwhile, so try again.
            server.port = free_port();
            let mut child = server.spawn();
            std::thread::sleep(Duration::from_millis(50));
            match child.try_wait().expect("a child can be asked") {
                None => {
                    server.child = Some(child);
                    break;
                }
                Some(status) => {
                    tries += 1;
                    assert!(tries < 10, "redis-server ends at once: {status}");
                }
            }
        }
        server.answers().await;
        server
    }

    fn bus(&self) -> u16 {
        // The ports are from the upper half: the other bit is free most of the time, and launching tries again.
        self.port ^ 0x4000
    }

    fn spawn(&self) -> Child {
        let mut command = Command::new("redis-server");
        if let Some(guard) = &self.guard {
            command.arg(self.folder.write("valkey.conf", &guard.settings));
        }
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no"]);
        command.arg("--dir").arg(self.folder.path());
        match &self.guard {
            None => command.arg("--port").arg(self.port.to_string()),
            Some(_) => command.args(["--port", "0", "--tls-port"]).arg(self.port.to_string()),
        };
        if self.clustered {
            command.args(["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"]);
            command.arg("--cluster-port").arg(self.bus().to_string());
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("redis-server is installed: scripts/bootstrap.sh")
    }

    async fn answers(&self) {
        eventually("redis-server", async || self.try_command(&["PING"]).await).await;
    }

    pub async fn command(&self, words: &[&str]) -> redis::Value {
        self.try_command(words).await.unwrap_or_else(|| panic!("{words:?} fails"))
    }

    async fn try_command(&self, words: &[&str]) -> Option<redis::Value> {
        let client = match &self.guard {
            None => redis::Client::open(self.url()).ok()?,
            Some(guard) => {
                use redis::IntoConnectionInfo as _;
                let info = self.url().into_connection_info().ok()?;
                let login =
                    info.redis_settings().clone().set_username("gate").set_password(guard.password.as_str());
                let tls = redis::TlsCertificates { client_tls: None, root_cert: Some(guard.ca.clone()) };
                redis::Client::build_with_tls(info.set_redis_settings(login), tls).ok()?
            }
        };
        let mut connection = client.get_multiplexed_async_connection().await.ok()?;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        tokio::time::timeout(PATIENCE, command.query_async(&mut connection)).await.ok()?.ok()
    }
}

impl Drop for Valkey {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> u16 {
    loop {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = socket.local_addr().expect("it is bound").port();
        if TcpListener::bind(("127.0.0.1", port ^ 0x4000)).is_ok() {
            return port;
        }
    }
}
