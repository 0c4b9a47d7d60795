//! The two runtimes of a process, and how what runs on them ends.
//!
//! *data* carries MCP traffic and nothing else; *control* everything beside it. Whatever is spawned here ends when
//! [`Runtimes::background`] is cancelled, or with the process. Dropping this stops everything at once.

use std::time::Duration;

use tokio::runtime::{Handle, Runtime};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::app::StartError;
use crate::app::parts::{cores, runtime, threads};
use crate::config::model;
use crate::gateway::Phase;

/// Threads of the control runtime if the document leaves it open.
const CONTROL_THREADS: usize = 2;

/// Runtimes, and the signals that end what runs on them.
pub(super) struct Runtimes {
    owned: Option<(Runtime, Runtime)>,
    pub(super) control: Handle,
    pub(super) data: Handle,
    /// Threads of the data runtime.
    pub(super) data_threads: usize,
    /// Cancelled when background work is to end.
    pub(super) background: CancellationToken,
    /// How far the process is on its way out.
    pub(super) phase: watch::Sender<Phase>,
    /// Ends probes and refreshes of servers.
    pub(super) stop_upstreams: watch::Sender<bool>,
}

impl Runtimes {
    pub(super) fn start(model: &model::Runtime) -> Result<Self, StartError> {
        let data_threads = threads(model.data_threads, cores());
        let control = runtime("control", threads(model.control_threads, CONTROL_THREADS))?;
        let data = runtime("data", data_threads)?;
        Ok(Self {
            control: control.handle().clone(),
            data: data.handle().clone(),
            owned: Some((control, data)),
            data_threads,
            background: CancellationToken::new(),
            phase: watch::channel(Phase::Running).0,
            stop_upstreams: watch::channel(false).0,
        })
    }

    /// Runs work on the control runtime until background work ends.
    pub(super) fn control(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.spawn(&self.control, work);
    }

    /// Runs work on the data runtime until background work ends.
    pub(super) fn data(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.spawn(&self.data, work);
    }

    fn spawn(&self, on: &Handle, work: impl Future<Output = ()> + Send + 'static) {
        let until = self.background.clone();
        on.spawn(async move {
            until.run_until_cancelled(work).await;
        });
    }

    /// Ends everything; what is left gets a moment.
    pub(super) fn end(mut self) {
        self.end_background();
        if let Some((control, data)) = self.owned.take() {
            data.shutdown_timeout(Duration::from_millis(500));
            control.shutdown_timeout(Duration::from_secs(1));
        }
    }

    /// Ends background work.
    pub(super) fn end_background(&self) {
        let _ = self.stop_upstreams.send(true);
        self.background.cancel();
    }
}

impl Drop for Runtimes {
    fn drop(&mut self) {
        self.end_background();
        if let Some((control, data)) = self.owned.take() {
            data.shutdown_background();
            control.shutdown_background();
        }
    }
}
