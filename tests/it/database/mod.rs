//! Replicas that serve from a store: publications, a database that dies, identities, the embedded default.

mod apart;
mod audit_api;
mod bodies;
mod canary;
mod documents;
pub mod events;
mod health;
mod hostile;
mod identities;
mod outage;
mod planes;
mod questions;
mod scopes;
mod tenants;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use tollgate::app::{Document, Options, Process, Role};
use tollgate::base::{Clock, Scope, TenantId};
use tollgate::source::canary::Canaries;
use tollgate::source::{Change, PublishError, Published, Publisher};
use tollgate::store::StoreSettings;

use crate::support::{Caller, Folder, within};

/// How soon every replica serves what was acknowledged.
pub const SOON: Duration = Duration::from_secs(1);

/// The master key of replicas.
const MASTER_KEY: &str = "test BBECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n";

/// One process with a data folder of its own.
pub struct Replica {
    process: Option<Process>,
    folder: Arc<Folder>,
    url: String,
    role: Role,
    /// More listeners, and more sections.
    more: [String; 2],
    clock: Clock,
}

impl Replica {
    pub async fn start(url: &str) -> Self {
        Self::start_as(Role::All, url, "", "").await
    }

    /// One with a role, more listeners and more sections.
    pub async fn start_as(role: Role, url: &str, listeners: &str, sections: &str) -> Self {
        let more = [listeners.to_owned(), sections.to_owned()];
        Self::start_in(Arc::new(Folder::new()), url, role, more, &Clock::default()).await
    }

    /// Another on the same database that has the same master key, and before that what `prepare` puts into its folder.
    pub async fn beside(&self, prepare: impl FnOnce(&std::path::Path)) -> Self {
        let folder = Arc::new(Folder::new());
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::copy(self.data_dir().join("master.key"), data.join("master.key")).unwrap();
        prepare(&data);
        Self::start_in(folder, &self.url, self.role, self.more.clone(), &self.clock).await
    }

    /// With a time that only the test moves.
    pub async fn at(url: &str, clock: &Clock) -> Self {
        Self::start_in(Arc::new(Folder::new()), url, Role::All, [String::new(), String::new()], clock).await
    }

    async fn start_in(folder: Arc<Folder>, url: &str, role: Role, more: [String; 2], clock: &Clock) -> Self {
        // Replicas that share a database have the same keys.
        let key = folder.path().join("data").join("master.key");
        if !key.exists() {
            std::fs::create_dir_all(key.parent().unwrap()).unwrap();
            std::fs::write(&key, MASTER_KEY).unwrap();
            std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        let [listeners, sections] = &more;
        let text = "version: 1\n\
             listeners: { mcp: { address: 127.0.0.1:0 }, admin: { address: 127.0.0.1:0, token: \"${env:ADMIN}\" }, LISTENERS }\n\
             runtime: { data_threads: 1, control_threads: 1 }\n\
             telemetry: { access_log: { enabled: false } }\n\
             shutdown: { announce: 0s, drain: 5s, streams: 1s }\n\
             source: database\n\
             store: { url: \"${env:DB}\", connect_timeout: 1s, max_connections: 4, poll: 500ms }\n";
        let text = text.replace(
            ", LISTENERS",
            &if listeners.is_empty() { String::new() } else { format!(", {listeners}") },
        );
        let process = start_with(role, Document::Text(text + sections), &folder, url, clock).await;
        Self { process: Some(process), folder, url: url.to_owned(), role, more, clock: clock.clone() }
    }

    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("it runs")
    }

    /// Ends it and starts it again on the same data folder.
    pub async fn restart(mut self) -> Self {
        let process = self.process.take().expect("it runs");
        within("shutdown", off_runtime(move || process.shutdown(false))).await;
        Self::start_in(self.folder.clone(), &self.url, self.role, self.more.clone(), &self.clock).await
    }

    /// The admin token of the installation. None is made where the document has one, so this asks for it on the store.
    pub async fn admin_token(&self) -> String {
        let settings = StoreSettings::at(&self.url, &self.data_dir());
        let store = crate::store::open(&settings, &self.clock);
        store.prepare().await.unwrap();
        tollgate::control::bootstrap::reset(&store, &self.data_dir()).await.unwrap();
        store.close().await;
        events::token(self.data_dir(), self.process().admin_address()).await
    }

    /// Where it keeps its files.
    pub fn data_dir(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    pub fn canaries(&self) -> Canaries {
        self.process().canaries().expect("documents come from a store").clone()
    }

    pub fn publisher(&self) -> Publisher {
        self.process().publisher().expect("documents come from a store").clone()
    }

    /// Names of the routes that are served.
    pub fn routes(&self) -> Vec<String> {
        self.process().routes().into_iter().map(|(name, _)| name).collect()
    }

    pub fn caller(&self, route: &str) -> Caller {
        Caller::new(self.process().mcp_address().expect("it has a data plane"), &format!("/mcp/{route}"))
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            // It has runtimes, which must not end on another.
            std::thread::spawn(move || drop(process));
        }
    }
}

pub async fn start(document: Document, folder: &Folder) -> Process {
    start_with(Role::All, document, folder, "", &Clock::default()).await
}

/// `url` is what `${env:DB}` stands for.
async fn start_with(role: Role, document: Document, folder: &Folder, url: &str, clock: &Clock) -> Process {
    let url = url.to_owned();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = Options {
        role,
        clock: clock.clone(),
        listen: Some(any),
        admin: Some(any),
        data_dir: Some(folder.path().join("data")),
        env: Arc::new(move |name| match name {
            "DB" => Some(url.clone()),
            "ADMIN" => Some("an-operators-token".to_owned()),
            _ => None,
        }),
        ..Options::new(document)
    };
    off_runtime(move || Process::start(options)).await.unwrap_or_else(|e| panic!("it does not start: {e}"))
}

pub async fn off_runtime<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = done.send(work());
    });
    result.await.expect("the thread does not panic")
}

pub fn own() -> Scope {
    Scope::Tenant(TenantId::default())
}

/// A document with one route of this name to this server.
pub fn document(route: &str, target: &str) -> String {
    format!(
        "version: 1\nservers:\n  - {{ name: s, http: {{ targets: [\"{target}\"] }}, health: {{ interval: 0s }} }}\n\
         routes:\n  - {{ name: {route}, servers: [s], limits: [] }}\nidentity: {{ loopback: {{ role: developer }} }}\n"
    )
}

pub async fn publish(
    publisher: &Publisher,
    text: &str,
    if_revision: Option<i64>,
) -> Result<Published, PublishError> {
    let change = Change {
        scope: own(),
        content: text.as_bytes().to_vec(),
        author: "test".to_owned(),
        reason: "because".to_owned(),
        if_revision,
    };
    publisher.publish(change).await
}
