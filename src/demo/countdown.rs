//! The slow tool: counts down, says how far it is, stops when it is told to.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Longest countdown, in steps.
pub(super) const MAX_STEPS: u32 = 60;
/// Shortest and longest step, in milliseconds.
pub(super) const STEP_MS: std::ops::RangeInclusive<u64> = 10..=1000;

/// How a countdown ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    AtZero,
    /// Cancelled with this many steps to go.
    Cancelled(u32),
}

/// Counts `steps` down, one per `step`, and reports after each one how many are done. Ends within a step of `cancelled`.
pub(super) async fn run<F>(
    steps: u32,
    step: Duration,
    cancelled: &CancellationToken,
    mut report: impl FnMut(u32) -> F,
) -> Ended
where
    F: Future<Output = ()>,
{
    for done in 1..=steps {
        tokio::select! {
            () = tokio::time::sleep(step) => {}
            () = cancelled.cancelled() => return Ended::Cancelled(steps + 1 - done),
        }
        report(done).await;
    }
    Ended::AtZero
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn reports_every_step_and_ends_at_zero() {
        let mut seen = Vec::new();
        let token = CancellationToken::new();
        let ended = run(3, Duration::from_secs(1), &token, |done| {
            seen.push(done);
            std::future::ready(())
        })
        .await;
        assert_eq!((ended, seen), (Ended::AtZero, vec![1, 2, 3]));
    }

    #[tokio::test(start_paused = true)]
    async fn stops_when_cancelled() {
        let token = CancellationToken::new();
        let start = tokio::time::Instant::now();
        let counting = run(60, Duration::from_secs(1), &token, |_| std::future::ready(()));
        let (ended, ()) = tokio::join!(counting, async {
            tokio::time::sleep(Duration::from_millis(2500)).await;
            token.cancel();
        });
        assert_eq!(ended, Ended::Cancelled(58));
        assert_eq!(start.elapsed(), Duration::from_millis(2500));
    }
}
