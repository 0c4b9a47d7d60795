//! The audit of this process: its spool, and what it says about itself.

mod checkpoint;
mod drain;
mod erase;
mod ledger;
mod link;
mod upkeep;

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use checkpoint::{Signed, checkpoint, checkpoint_all, horizon};
pub use erase::{bodies_exported, erase, record};

use crate::app::StartError;
use crate::app::core::Core;
use crate::app::runtimes::Runtimes;
use crate::audit::{self, Allowance, AuditKey, Auditor, KeyError, Mask, Settings, Spool, WriterId};
use crate::base::Clock;
use crate::config::model::{self, MaskedField};
use crate::store::{SigningKey, Store};
use crate::telemetry::Metrics;
use drain::Drainer;
pub(super) use ledger::AuditLedger;
use upkeep::Upkeep;

/// How often it is told how many requests of nobody known have no events of their own; and while the spool has little room,
/// every so many times of that.
const TELL: Duration = Duration::from_secs(1);
const SELDOM: u64 = 60;
/// In how many events at once, at most.
const MOST_TOLD: usize = 64;

/// Where the spool is.
pub(super) fn spool_dir(model: &model::Document) -> PathBuf {
    model.audit.spool.path.clone().unwrap_or_else(|| model.data_dir.join("spool"))
}

/// The signing key of a document: the file that it names, or that of its store.
///
/// # Errors
/// The file cannot be used.
pub fn signing_key(store: &Store, model: &model::Document) -> Result<SigningKey, KeyError> {
    match &model.audit.key_file {
        Some(path) => AuditKey::open(path).map(SigningKey::given),
        None => Ok(SigningKey::stored(store.clone(), model.data_dir.join("audit.key"))),
    }
}

/// Opens the spool, unless the document wants no audit.
pub(super) fn open(model: &model::Document, clock: &Clock) -> Result<Auditor, StartError> {
    let config = &model.audit;
    if !config.enabled {
        return Ok(Auditor::disabled());
    }
    let dir = spool_dir(model);
    make_dir(&dir)?;
    let writer = WriterId::fresh();
    // What earlier runs left takes part of the room. It is only counted here; the drainer opens it.
    audit::remove_unused(&dir).map_err(|source| failed(&dir, source))?;
    let taken = audit::size_of(&dir).map_err(|source| failed(&dir, source))?;
    let settings = Settings {
        dir,
        max_size: config.spool.max_size.bytes(),
        segment_size: config.spool.segment_size.bytes(),
        durability: match config.durability {
            model::Durability::Process => audit::Durability::Process,
            model::Durability::Strict => audit::Durability::Strict,
        },
        on_full: match config.on_full {
            model::OnFull::Drop => audit::OnFull::Drop,
            model::OnFull::Refuse => audit::OnFull::Refuse,
        },
    };
    let spool = Spool::open(settings, writer, taken)?;
    let max_body = usize::try_from(config.max_body.bytes()).unwrap_or(usize::MAX);
    let model::Unidentified { rate, burst } = &config.unidentified;
    let allowance = Allowance { count: rate.count(), per: rate.per(), burst: u64::from(*burst) };
    Ok(Auditor::new(spool, mask(&config.mask), max_body, allowance, clock.clone()))
}

fn make_dir(dir: &Path) -> Result<(), StartError> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|source| failed(dir, source))
}

fn failed(dir: &Path, source: std::io::Error) -> StartError {
    StartError::File { what: "audit.spool.path", path: dir.to_owned(), source }
}

fn mask(fields: &[MaskedField]) -> Mask {
    let has = |field| fields.contains(&field);
    Mask {
        client_ip: has(MaskedField::ClientIp),
        reason: has(MaskedField::Reason),
        name: has(MaskedField::Name),
        principal: has(MaskedField::Principal),
        session: has(MaskedField::Session),
        target: has(MaskedField::Target),
        request_body: has(MaskedField::RequestBody),
        response_body: has(MaskedField::ResponseBody),
    }
}

/// What runs for as long as the process.
pub(super) struct Running {
    /// What checkpoints and exports are signed with.
    pub(super) key: Arc<SigningKey>,
    /// The drainer, which ends a moment after it was told to.
    pub(super) drainer: tokio::task::JoinHandle<()>,
}

/// Starts what brings events into the store and looks after them there. `None` without an audit.
pub(super) fn start(core: &Core, runtimes: &Runtimes) -> Result<Option<Running>, StartError> {
    let Some(spool) = core.audit.spool() else { return Ok(None) };
    let key = Arc::new(signing_key(&core.store, &core.model)?);
    let drained = Arc::new(AtomicU64::new(0));
    let drainer = Drainer {
        store: core.store.clone(),
        auditor: core.audit.clone(),
        dir: spool_dir(&core.model),
        drained: drained.clone(),
    };
    let upkeep = Upkeep {
        store: core.store.clone(),
        key: key.clone(),
        retention: core.model.audit.retention.clone(),
        checkpoint_every: core.model.audit.checkpoint_every.get(),
        boot: *spool.writer().as_bytes(),
    };
    runtimes.control(upkeep.run());
    runtimes.control(tell(core.audit.clone()));
    runtimes.control(report(core.audit.clone(), core.state.metrics.clone(), drained));
    // It is told to end, and not cut off: the last events are still to be written.
    let drainer = runtimes.control.spawn(drainer.run(runtimes.background.clone()));
    Ok(Some(Running { key, drainer }))
}

/// Tells of requests that have no events of their own. Ends with the process, which tells of the last ones.
async fn tell(auditor: Auditor) {
    let Some(spool) = auditor.spool() else { return };
    let mut tick = tokio::time::interval(TELL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for n in 0u64.. {
        tick.tick().await;
        if n.is_multiple_of(SELDOM) || !spool.is_crowded() {
            auditor.tell_unidentified(MOST_TOLD);
        }
    }
}

/// Keeps the metrics. Ends with the process.
async fn report(auditor: Auditor, metrics: Arc<Metrics>, drained: Arc<AtomicU64>) {
    let (Some(spool), Some(counts)) = (auditor.spool(), auditor.counts()) else { return };
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut bodies, mut dropped, mut refused, mut summarised) = (0, 0, 0, 0);
    loop {
        tick.tick().await;
        let now = (counts.bodies_lost(), counts.dropped(), counts.refused(), counts.summarised());
        metrics.audit_bodies_lost().add(now.0 - bodies);
        metrics.audit_dropped().add(now.1 - dropped);
        metrics.audit_refused().add(now.2 - refused);
        metrics.audit_summarised().add(now.3 - summarised);
        (bodies, dropped, refused, summarised) = now;
        metrics.audit_spool_bytes().set(i64::try_from(spool.size()).unwrap_or(i64::MAX));
        let behind = counts.recorded().saturating_sub(drained.load(Ordering::Relaxed));
        metrics.audit_backlog().set(i64::try_from(behind).unwrap_or(i64::MAX));
    }
}
