//! Loading, and loading again: from a file, when it changes or somebody asks.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use crate::app::certificates::Certificates;
use crate::app::documents::DocumentServer;
use crate::app::options::{Document, Environment};
use crate::base::Clock;
use crate::config::{self, Hooks, Loaded, MAX_DOCUMENT, SystemSources, Validated, model};
use crate::snapshot::{CompileError, MAX_FILE, Snapshot, SnapshotCell, State};
use crate::source::FileWatch;
use crate::telemetry::ReloadOutcome;

/// Ports of the embedded default.
const MCP_PORT: u16 = 8080;
const ADMIN_PORT: u16 = 9090;
/// Where the embedded default looks for its demo server if it has none of its own (`tollgate check`).
const DEMO_PORT: u16 = 9100;

/// Where the embedded default finds its demo server.
const DEMO_VARIABLE: &str = "TOLLGATE_DEMO";

/// Reads documents.
pub(super) struct Loader {
    document: Document,
    env: Environment,
    places: Places,
    /// Whether documents are looked at and not served.
    looks_only: bool,
}

/// What the command line says instead of the document.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    pub(super) demo: Option<SocketAddr>,
    pub(super) mcp: Option<SocketAddr>,
    pub(super) admin: Option<SocketAddr>,
    pub(super) data_dir: Option<PathBuf>,
}

type ReadFile = dyn Fn(&Path) -> io::Result<Vec<u8>> + Send + Sync;

impl Loader {
    pub(super) fn new(document: Document, env: Environment, places: Places) -> Self {
        Self { document, env, places, looks_only: false }
    }

    /// For looking at documents: what has been exported from a gateway names what only that one has, such as the demo server
    /// of the embedded default, and secrets of its store.
    pub(super) fn looking(self) -> Self {
        Self { looks_only: true, ..self }
    }

    /// Reads and validates the document as it is now.
    pub(super) fn load(&self) -> Loaded {
        let env = self.env.clone();
        let demo = self.places.demo.unwrap_or(SocketAddr::from(([127, 0, 0, 1], DEMO_PORT)));
        let sources = SystemSources::new(move |name: &str| env(name))
            .with_stand_in(self.looks_only.then(|| (DEMO_VARIABLE, demo.to_string())))
            .without_store(self.looks_only);
        let hooks = hooks();
        let mut loaded = match &self.document {
            Document::Embedded => {
                let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
                let data = self.places.data_dir.clone().unwrap_or_else(|| PathBuf::from("./data"));
                config::embedded(
                    self.places.demo.unwrap_or(local(DEMO_PORT)),
                    self.places.mcp.unwrap_or(local(MCP_PORT)),
                    self.places.admin.unwrap_or(local(ADMIN_PORT)),
                    &data,
                    hooks,
                )
            }
            Document::Text(text) => config::load(text.as_bytes(), "document", &sources, hooks),
            Document::File(path) => match read_bounded(path, MAX_DOCUMENT as u64) {
                Ok(bytes) => config::load(&bytes, &path.display().to_string(), &sources, hooks),
                Err(error) => Loaded::unreadable(&path.display().to_string(), &error),
            },
        };
        if let Some(validated) = loaded.validated.take() {
            let places = &self.places;
            loaded.validated = Some(validated.placed(places.mcp, places.admin, places.data_dir.as_deref()));
        }
        loaded
    }

    /// The file to watch, if there is one.
    fn path(&self) -> Option<&Path> {
        match &self.document {
            Document::File(path) => Some(path),
            _ => None,
        }
    }

    /// Reads files that a document names.
    pub(super) fn files(&self) -> Box<ReadFile> {
        Box::new(read_file)
    }

    /// Environment variables as the documents of the store see them: those of the process, and the places that the
    /// embedded default names.
    pub(super) fn environment(&self) -> Environment {
        let env = self.env.clone();
        if !matches!(self.document, Document::Embedded) {
            return env;
        }
        let demo = self.places.demo.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], DEMO_PORT)));
        Arc::new(move |name| if name == DEMO_VARIABLE { Some(demo.to_string()) } else { env(name) })
    }

    /// The document that an empty store begins with.
    pub(super) fn seed(&self) -> Option<&'static str> {
        matches!(self.document, Document::Embedded).then_some(config::EMBEDDED)
    }
}

/// What validation asks of the policy engine.
pub fn hooks() -> Hooks<'static> {
    Hooks {
        expression: &|text| crate::policy::cel::check(text),
        pattern: &|text| crate::base::glob::Glob::new(text).map(drop).map_err(|e| e.to_string()),
        policy: &crate::snapshot::policy_findings,
    }
}

/// Sections that differ and that a running process does not take up.
fn read_at_start(old: &model::Document, new: &model::Document) -> Vec<&'static str> {
    let sections = [
        ("audit", old.audit != new.audit),
        ("data_dir", old.data_dir != new.data_dir),
        ("identity.failed_attempts", old.identity.failed_attempts != new.identity.failed_attempts),
        ("listeners", old.listeners != new.listeners),
        ("runtime", old.runtime != new.runtime),
        ("samples", old.samples != new.samples),
        ("sessions", old.sessions != new.sessions),
        ("source", old.source != new.source),
        ("store", old.store != new.store),
        ("shutdown", old.shutdown != new.shutdown),
        ("telemetry", old.telemetry != new.telemetry),
        ("valkey", old.valkey != new.valkey),
    ];
    sections.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

fn warn_of_restart(old: &Validated, new: &Validated) {
    let late = read_at_start(old.document(), new.document());
    if !late.is_empty() {
        tracing::warn!(
            event = "restart_needed",
            changed = late.join(", "),
            "what changed takes effect with a restart (`tollgate upgrade` keeps connections)"
        );
    }
}

/// Reads a file that a document names.
pub(super) fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    read_bounded(path, MAX_FILE)
}

fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("larger than {limit} bytes")));
    }
    Ok(bytes)
}

/// The last attempt to load.
#[derive(Clone, Debug)]
pub struct LastReload {
    /// Milliseconds since the Unix epoch.
    pub at: u64,
    /// How it ended.
    pub outcome: ReloadOutcome,
    /// What was wrong.
    pub error: Option<String>,
}

/// Puts new documents in force, one at a time. A bad one changes nothing and says so in log, metrics and readiness.
pub struct Reloader {
    loader: Loader,
    state: State,
    cell: Arc<SnapshotCell>,
    origin: String,
    certificates: Certificates,
    clock: Clock,
    current: Mutex<Current>,
    /// Where documents come from instead, if the file has the static sections only.
    documents: Option<Arc<DocumentServer>>,
}

struct Current {
    document: Validated,
    since: u64,
    last: Option<LastReload>,
    files: Vec<PathBuf>,
}

impl Reloader {
    #[allow(clippy::too_many_arguments, reason = "each is made by another part of the start")]
    pub(super) fn new(
        loader: Loader,
        state: State,
        cell: Arc<SnapshotCell>,
        origin: String,
        document: Validated,
        certificates: Certificates,
        clock: Clock,
        documents: Option<Arc<DocumentServer>>,
    ) -> Self {
        if documents.is_none() {
            state.metrics.config_revision(cell.load().generation);
        }
        state.metrics.config_reloaded(ReloadOutcome::Applied);
        let since = clock.unix_ms();
        let current = Mutex::new(Current { document, since, last: None, files: Vec::new() });
        Self { loader, state, cell, origin, certificates, clock, current, documents }
    }

    /// The snapshot in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.cell.load()
    }

    /// What outlives snapshots.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Since when the snapshot is in force (milliseconds since the Unix epoch), and the last attempt to load.
    pub fn status(&self) -> (u64, Option<LastReload>) {
        let current = self.current.lock();
        (current.since, current.last.clone())
    }

    pub(super) fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// Loads again. `reason` is for the log.
    pub fn reload(&self, reason: &'static str) -> ReloadOutcome {
        // One at a time; the lock is never taken on the request path.
        let mut current = self.current.lock();
        let (outcome, error) = self.attempt(&mut current);
        self.state.metrics.config_reloaded(outcome);
        let generation = self.cell.load().generation;
        match (&error, outcome) {
            (Some(error), _) => {
                tracing::error!(event = "reload_refused", reason, serving = generation, error = %error);
            }
            (None, ReloadOutcome::Unchanged) => tracing::debug!(event = "reload_unchanged", reason),
            (None, _) => tracing::info!(event = "reloaded", reason, revision = generation),
        }
        current.last = Some(LastReload { at: self.clock.unix_ms(), outcome, error });
        outcome
    }

    fn attempt(&self, current: &mut Current) -> (ReloadOutcome, Option<String>) {
        let loaded = self.loader.load();
        let mut files = loaded.files.clone();
        let warnings: Vec<String> = loaded.diagnostics.iter().map(|d| d.message.clone()).collect();
        let Some(document) = loaded.validated else {
            files.extend(std::mem::take(&mut current.files));
            current.files = files;
            return (ReloadOutcome::Rejected, Some(loaded.diagnostics.to_string()));
        };
        for warning in warnings {
            tracing::warn!(event = "configuration_warning", warning);
        }
        let read = self.loader.files();
        let broken = self.certificates.reload(&*read);
        if self.documents.is_some() {
            return self.take_static(current, document, files, &broken);
        }
        let serving = self.cell.load();
        let text =
            |errors: Vec<CompileError>| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let compiled = crate::snapshot::recompile(&serving, &document, &self.origin, &self.state, &*read);
        let (compiled, kept) = match compiled {
            Ok(compiled) => compiled,
            Err(errors) => return (ReloadOutcome::Rejected, Some(text(errors))),
        };
        files.extend(compiled.files);
        current.files = files;
        if !broken.is_empty() {
            return (ReloadOutcome::Rejected, Some(broken.join("; ")));
        }
        // Files behind the document may have changed though it has not, so the snapshot is published in any case.
        let changes = config::diff(&current.document, &document);
        for change in &changes {
            tracing::info!(event = "configuration_changed", change = change.place());
        }
        warn_of_restart(&current.document, &document);
        let unchanged = document == current.document;
        self.state.metrics.config_revision(compiled.snapshot.generation);
        self.cell.publish(compiled.snapshot);
        current.document = document;
        current.since = self.clock.unix_ms();
        if !kept.is_empty() {
            // These tenants serve what they had; everybody else serves what the document says.
            return (ReloadOutcome::Rejected, Some(text(kept)));
        }
        (if unchanged { ReloadOutcome::Unchanged } else { ReloadOutcome::Applied }, None)
    }

    /// What a file says that is not where documents come from: certificates are taken up, the rest needs a restart.
    fn take_static(
        &self,
        current: &mut Current,
        document: Validated,
        files: Vec<PathBuf>,
        broken: &[String],
    ) -> (ReloadOutcome, Option<String>) {
        current.files = files;
        if !broken.is_empty() {
            return (ReloadOutcome::Rejected, Some(broken.join("; ")));
        }
        warn_of_restart(&current.document, &document);
        let unchanged = document == current.document;
        current.document = document;
        (if unchanged { ReloadOutcome::Unchanged } else { ReloadOutcome::Applied }, None)
    }

    /// Where documents come from, and since when what is in force is.
    pub(super) fn source(&self) -> (&'static str, u64) {
        match &self.documents {
            Some(documents) => ("database", documents.since()),
            None => ("file", self.current.lock().since),
        }
    }

    /// Reloads when the document or a file it names changes; they were read after `read_since`. Runs until dropped.
    pub(super) async fn watch(self: Arc<Self>, named: Vec<PathBuf>, read_since: SystemTime) {
        self.current.lock().files = named;
        let mut watch = FileWatch::new(self.watched(), read_since);
        loop {
            watch.changed().await;
            let read_since = SystemTime::now();
            let this = self.clone();
            // Reading files and compiling are not for an async thread.
            let _ = tokio::task::spawn_blocking(move || this.reload("file")).await;
            watch.set_files(self.watched(), read_since);
        }
    }

    fn watched(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = self.loader.path().map(Path::to_owned).into_iter().collect();
        files.extend(self.certificates.files());
        files.extend(self.current.lock().files.iter().cloned());
        files
    }
}
