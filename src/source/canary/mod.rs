//! Canaries: how one is started, what each replica does with it, and who ends it.
//!
//! - [`Canaries`] starts, changes and ends them, for operators.
//! - [`Holder`] is a replica's part: it asks the store which canaries run, compiles the candidate beside the head through
//!   [`Serve`](super::Serve), and reports what it counts.
//! - [`Watcher`] decides: the replica that leads adds the reports up every second and rolls back, promotes or aborts.
//!
//! **Times.** A share holds from a time on that is a poll of the store and [`MARGIN`] ahead when several replicas live
//! ([`LEAD_ALONE`] else), so that all of them know of it before it holds, also one that was not notified, and no caller is on
//! one side here and on the other there. An end takes effect where it is heard of, within
//! the time of a notification (or of a poll).
//!
//! **Failure.** While the store is away a replica goes on with what it has; after the deadline and [`GRACE`] it serves the
//! base to everybody by itself. What runs is kept on disk, so that a replica that starts while the store is away serves what
//! it served before. A candidate that does not compile on one replica aborts the canary: it could not be served to the same
//! callers there.

mod held;
mod start;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

pub use held::Holder;
pub use start::{Canaries, CanaryError, Candidate, Start, Wish};
pub use watch::Watcher;

use crate::base::TenantId;
use crate::canary::{Chooser, Kind, Rules, Share, Sides};
use crate::store::{Canary, Time};

/// How long before it holds a share is known to the last of several replicas: time to read and compile the candidate.
pub const MARGIN: Duration = Duration::from_millis(600);
/// How long before it holds a share is known at least, and if one replica lives: time for the candidate's servers to be
/// resolved.
pub const LEAD_ALONE: Duration = Duration::from_secs(1);
/// How long after its deadline a canary that nobody ended is served.
pub const GRACE: Duration = Duration::from_secs(10);
/// Who ends canaries by themselves.
pub const OURSELVES: &str = "tollgate";

/// What a replica serves beside a head.
#[derive(Clone, Debug)]
pub struct Beside {
    /// The canary.
    pub id: Uuid,
    /// Whose.
    pub tenant: TenantId,
    /// The revision that it stands beside.
    pub base: i64,
    /// The candidate.
    pub document: super::Stored,
    /// Who is served it.
    pub chooser: Chooser,
    /// Where calls are counted.
    pub counts: Arc<crate::canary::Counts>,
}

/// What happened to a canary.
#[derive(Clone, Debug)]
pub struct News {
    /// The canary, as it is now.
    pub canary: Canary,
    /// Whether this process did it, and so has to record it.
    pub ours: bool,
}

/// Hears of what happens to canaries. Does not block.
pub type Tell = Arc<dyn Fn(&News) + Send + Sync>;

/// What is kept of a canary as JSON, read.
pub fn rules_of(canary: &Canary) -> Rules {
    serde_json::from_str(&canary.rules).unwrap_or_default()
}

/// The share that holds at a time.
pub fn share_at(canary: &Canary, now: Time) -> Share {
    let share = if now >= canary.share_at { canary.share } else { canary.share_before };
    share_of(share)
}

/// The figures of a canary that has ended.
pub fn figures_of(canary: &Canary) -> Option<Sides> {
    serde_json::from_str(canary.figures.as_deref()?).ok()
}

pub(super) fn share_of(basis_points: i32) -> Share {
    u32::try_from(basis_points).ok().and_then(Share::from_basis_points).unwrap_or_default()
}

fn tenant_of(canary: &Canary) -> TenantId {
    TenantId::new(canary.tenant.as_str())
}

/// Until when a replica serves a candidate that nobody ends.
fn until(canary: &Canary) -> Time {
    canary.deadline.plus(GRACE)
}

fn ms(time: Time) -> u64 {
    u64::try_from(time.micros() / 1000).unwrap_or(0)
}

/// Who is served the candidate, on the replica of this name.
fn chooser(canary: &Canary, replica: &str) -> Chooser {
    let share = share_of(canary.share);
    let chooser = match Kind::parse(&canary.kind) {
        Some(Kind::Replicas) => Chooser::replica(canary.id, replica, share),
        _ => Chooser::principals(canary.id, &canary.tenant, share),
    };
    chooser.from(ms(canary.share_at), share_of(canary.share_before)).until(ms(until(canary)))
}
