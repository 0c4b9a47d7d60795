//! Runs a process until it is told to end.

use tokio::signal::unix::{SignalKind, signal};

use crate::app::Process;

/// Why the process ends.
enum End {
    HandedOver,
    Signal(&'static str),
}

/// Serves until SIGTERM, SIGINT, or a successor has taken over; SIGHUP reloads. `true` if the end was clean.
///
/// # Errors
/// Signals cannot be received.
pub fn run(process: Process) -> std::io::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let end = runtime.block_on(async {
        let mut hangup = signal(SignalKind::hangup())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut handed_over = process.handed_over();
        let succeeded = async {
            // Nobody may be able to take over, as where the socket for it cannot be made.
            if handed_over.wait_for(|done| *done).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::pin!(succeeded);
        loop {
            tokio::select! {
                _ = hangup.recv() => process.reload(),
                _ = terminate.recv() => return Ok::<_, std::io::Error>(End::Signal("SIGTERM")),
                _ = interrupt.recv() => return Ok(End::Signal("SIGINT")),
                () = &mut succeeded => return Ok(End::HandedOver),
            }
        }
    })?;
    drop(runtime);
    let successor = match end {
        End::HandedOver => {
            tracing::info!(event = "draining", because = "a successor has taken the sockets over");
            true
        }
        End::Signal(name) => {
            tracing::info!(event = "draining", because = name);
            false
        }
    };
    let clean = process.shutdown(successor);
    tracing::info!(event = "stopped", clean);
    Ok(clean)
}
