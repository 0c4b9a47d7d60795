//! Small periodic work: forget what is over, and say how much there is.

use std::sync::Arc;
use std::time::Duration;

use crate::base::Clock;
use crate::limit::Buckets;
use crate::mcp::session::Sessions;
use crate::telemetry::Metrics;

/// Ends with the process.
pub(super) async fn sweep(
    buckets: Arc<Buckets>,
    sessions: Arc<Sessions>,
    metrics: Arc<Metrics>,
    clock: Clock,
) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        buckets.sweep(clock.mono_ns());
        sessions.sweep();
        metrics.sweep();
    }
}
