//! Places for work that takes long, shared out among tenants.
//!
//! There are few places in a process, and each tenant has a share of them: whoever has used it up is told to come again,
//! however many places are free. Who has not, and finds all taken, waits in line: places are given in the order in which they were
//! asked for, so that no number of others can keep a tenant out for ever.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;
use crate::base::TenantId;
use crate::limit::{Exhausted, Permit, Permits};

/// Tenants that have places or wait for one, at most.
const MAX_TENANTS: usize = 256;
/// How long one waits in line.
const PATIENCE: Duration = Duration::from_secs(5);

/// Places for one kind of work.
#[derive(Clone)]
pub(super) struct Shares {
    /// What it is called in refusals.
    work: &'static str,
    places: Arc<Semaphore>,
    held: Permits<TenantId>,
    share: u32,
    /// When to come again, in seconds.
    again: u64,
}

/// A place. Dropping it gives it back.
pub(super) struct Place {
    _share: Permit<TenantId>,
    _place: OwnedSemaphorePermit,
}

impl Shares {
    /// So many places, of which a tenant has up to `share`.
    pub(super) fn new(work: &'static str, places: usize, share: u32, again: u64) -> Self {
        let places = Arc::new(Semaphore::new(places));
        Self { work, places, held: Permits::new(MAX_TENANTS), share, again }
    }

    /// A place for the work of a tenant.
    ///
    /// # Errors
    /// 429 with the time to wait.
    pub(super) async fn place(&self, tenant: &TenantId) -> Result<Place, Problem> {
        let share = self.held.acquire(tenant.clone(), self.share).map_err(|full| match full {
            Exhausted::Key { max } => self.busy(format!("{max} of this tenant, which is its share,")),
            Exhausted::Keys => self.all_busy(),
        })?;
        match tokio::time::timeout(PATIENCE, self.places.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(Place { _share: share, _place: place }),
            _ => Err(self.all_busy()),
        }
    }

    fn all_busy(&self) -> Problem {
        self.busy("as many as can be at the same time".to_owned())
    }

    fn busy(&self, how_many: String) -> Problem {
        Problem::too_many(format!("{}: {how_many} are under way", self.work), self.again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name)
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_has_its_share_and_takes_nobody_elses() {
        let shares = Shares::new("questions", 2, 1, 5);
        let first = shares.place(&tenant("a")).await.unwrap();
        for _ in 0..100 {
            let refused = shares.place(&tenant("a")).await.err().unwrap();
            assert_eq!((refused.status().as_u16(), refused.code()), (429, "too_many_requests"));
        }
        let other = shares.place(&tenant("b")).await.unwrap();
        // All are taken: a third waits for its turn, and not for ever.
        let began = tokio::time::Instant::now();
        assert!(shares.place(&tenant("c")).await.is_err());
        assert_eq!(began.elapsed(), PATIENCE);
        drop(first);
        assert!(shares.place(&tenant("c")).await.is_ok());
        drop(other);
        assert_eq!(shares.held.keys(), 0, "nothing is left behind");
    }

    #[tokio::test(start_paused = true)]
    async fn places_are_given_in_the_order_in_which_they_were_asked_for() {
        let shares = Shares::new("questions", 1, 1, 5);
        let held = shares.place(&tenant("a")).await.unwrap();
        let mut waiting = Box::pin({
            let shares = shares.clone();
            async move { shares.place(&tenant("b")).await }
        });
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(held);
        // Who asks again at once comes after who has waited.
        let mut again = Box::pin({
            let shares = shares.clone();
            async move { shares.place(&tenant("a")).await }
        });
        assert!(futures::poll!(&mut again).is_pending());
        let second = waiting.await.unwrap();
        drop(second);
        assert!(again.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_leaves_no_trace() {
        let shares = Shares::new("exports", 1, 1, 30);
        let held = shares.place(&tenant("a")).await.unwrap();
        let gave_up = tokio::time::timeout(Duration::from_secs(1), shares.place(&tenant("b"))).await;
        assert!(gave_up.is_err());
        assert_eq!(shares.held.keys(), 1);
        drop(held);
        assert!(shares.place(&tenant("b")).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn tenants_that_wait_are_bounded() {
        let shares = Shares::new("exports", MAX_TENANTS, 1, 30);
        let mut places = Vec::new();
        for n in 0..MAX_TENANTS {
            places.push(shares.place(&tenant(&format!("t{n}"))).await.unwrap());
        }
        let began = tokio::time::Instant::now();
        assert!(shares.place(&tenant("one-more")).await.is_err());
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
