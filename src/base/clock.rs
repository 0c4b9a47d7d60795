//! Time as a value that tests can turn by hand.
//!
//! Two readings: a monotonic one for intervals (limits, latency, ejection) and wall time for what leaves the process
//! or comes from outside (token expiry, sealed ids, logs). Wall time is not required to be monotonic.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where the time comes from. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Clock(Source);

#[derive(Clone, Debug, Default)]
enum Source {
    Manual(Arc<Manual>),
    #[default]
    System,
}

#[derive(Debug)]
struct Manual {
    mono_ns: AtomicU64,
    unix_ms: AtomicU64,
}

impl Clock {
    /// A clock that stands still until [`Clock::advance`] is called. Starts at `unix_secs` and at one hour of
    /// monotonic time, so that "an hour ago" can be computed.
    pub fn manual(unix_secs: u64) -> Self {
        Self(Source::Manual(Arc::new(Manual {
            mono_ns: AtomicU64::new(3_600_000_000_000),
            unix_ms: AtomicU64::new(unix_secs * 1000),
        })))
    }

    /// Moves a manual clock forward. Does nothing to the system clock.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(m) = &self.0 {
            m.mono_ns.fetch_add(by.as_nanos() as u64, Ordering::SeqCst);
            m.unix_ms.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
        }
    }

    /// Nanoseconds since an arbitrary point in this process's past; never goes back.
    pub fn mono_ns(&self) -> u64 {
        match &self.0 {
            Source::Manual(m) => m.mono_ns.load(Ordering::SeqCst),
            Source::System => system_mono_ns(),
        }
    }

    /// Milliseconds since the Unix epoch.
    pub fn unix_ms(&self) -> u64 {
        match &self.0 {
            Source::Manual(m) => m.unix_ms.load(Ordering::SeqCst),
            Source::System => {
                SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
            }
        }
    }

    /// Seconds since the Unix epoch.
    pub fn unix_secs(&self) -> u64 {
        self.unix_ms() / 1000
    }
}

fn system_mono_ns() -> u64 {
    use std::sync::LazyLock;
    // An hour is added so that subtracting a window never wraps early in the life of the process.
    static START: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);
    START.elapsed().as_nanos() as u64 + 3_600_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manual_clock_moves_only_when_told() {
        let clock = Clock::manual(1_000);
        let before = clock.mono_ns();
        assert_eq!(clock.mono_ns(), before);
        clock.advance(Duration::from_secs(2));
        assert_eq!(clock.mono_ns() - before, 2_000_000_000);
        assert_eq!(clock.unix_secs(), 1_002);
    }

    #[test]
    fn system_clock_never_goes_back() {
        let clock = Clock::default();
        let first = clock.mono_ns();
        assert!(clock.mono_ns() >= first);
    }
}
