//! What the parts of a running process share.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::app::{samples, settings};
use crate::audit::Auditor;
use crate::base::Clock;
use crate::config::{Validated, model};
use crate::gateway::{Parts, Phase};
use crate::limit::{Buckets, DEFAULT_MAX_BUCKETS};
use crate::mcp::seal::KeyRing;
use crate::mcp::session::{BootId, Sessions, Streams};
use crate::shared::{self, Shared};
use crate::snapshot::{SnapshotCell, State};
use crate::store::Store;
use crate::telemetry::{Sampler, Telemetry};

/// Shared handles. Cheap to clone.
#[derive(Clone)]
pub(super) struct Core {
    /// Time.
    pub(super) clock: Clock,
    /// The document that the process started with; its static sections hold until it ends.
    pub(super) model: Arc<model::Document>,
    /// Where the process keeps its files.
    pub(super) data_dir: PathBuf,
    /// Tells this process from the one before it.
    pub(super) boot_id: BootId,
    /// What outlives snapshots.
    pub(super) state: State,
    /// What requests are served from.
    pub(super) cell: Arc<SnapshotCell>,
    /// Keys that seal ids.
    pub(super) keys: Arc<ArcSwap<KeyRing>>,
    /// Legacy sessions.
    pub(super) sessions: Arc<Sessions>,
    /// Long-lived streams.
    pub(super) streams: Streams,
    /// Token buckets.
    pub(super) buckets: Arc<Buckets>,
    /// The server of shared limits, if there is one.
    pub(super) shared: Option<Arc<Shared>>,
    /// Metrics, access log, spans.
    pub(super) telemetry: Telemetry,
    /// Records events.
    pub(super) audit: Auditor,
    /// Where events and everything else of the control plane are kept.
    pub(super) store: Store,
    /// Keeps some requests for what-if; `None` if none are wanted.
    pub(super) sampler: Option<Arc<Sampler>>,
}

impl Core {
    #[allow(clippy::too_many_arguments, reason = "each is made by another part of the start")]
    pub(super) fn new(
        document: &Validated,
        state: State,
        cell: Arc<SnapshotCell>,
        keys: Arc<ArcSwap<KeyRing>>,
        telemetry: Telemetry,
        boot_id: BootId,
        audit: Auditor,
        store: Store,
        valkey: Option<shared::Settings>,
    ) -> Self {
        let model = Arc::new(document.document().clone());
        let clock = state.clock.clone();
        Self {
            data_dir: model.data_dir.clone(),
            boot_id,
            sampler: samples::sampler(&model.samples),
            sessions: Arc::new(Sessions::new(settings::sessions(document), clock.clone())),
            streams: Streams::default(),
            buckets: Arc::new(Buckets::new(clock.clone(), DEFAULT_MAX_BUCKETS)),
            shared: valkey.map(|settings| Shared::new(settings, clock.clone(), &telemetry.metrics)),
            model,
            state,
            cell,
            keys,
            telemetry,
            audit,
            store,
            clock,
        }
    }

    /// What the data plane takes of it.
    pub(super) fn gateway(&self, phase: tokio::sync::watch::Receiver<Phase>) -> Parts {
        Parts {
            snapshot: self.cell.clone(),
            keys: self.keys.clone(),
            sessions: self.sessions.clone(),
            streams: self.streams.clone(),
            buckets: self.buckets.clone(),
            shared: self.shared.clone(),
            telemetry: self.telemetry.clone(),
            audit: self.audit.clone(),
            sampler: self.sampler.clone(),
            clock: self.clock.clone(),
            phase,
            session_max_age: self.model.sessions.max_age.get().as_secs(),
            boot_id: self.boot_id,
        }
    }
}
