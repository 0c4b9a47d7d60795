//! A replica's part of a bucket that several replicas share: tokens leased ahead, spent without a trip.
//!
//! The bucket itself is one number on the shared server, the theoretical arrival time of GCRA (see [`super::bucket`]),
//! counted on the *server's* clock. Granting `n` tokens moves it from `a` to `b = a + n × token`. The grant **is** that
//! stretch of virtual time, `(a, b]`: a replica may spend from it what still lies in the future, and what the present
//! has passed is lapsed.
//!
//! **Why that never grants too much.** Stretches never overlap, and all end at or before the arrival time. So at any
//! moment `t` all that is leased and not lapsed is at most `arrival − t`, which is exactly the bucket's debt: what the
//! bucket still holds and what replicas hold of it add up to at most the burst. Leased tokens lapse only as fast as the
//! bucket refills, and it refills no faster than the rate. Hence in any stretch of time at most `rate × time + burst` is
//! spent, by any number of replicas, whatever happens to them: nothing has to be given back, and a replica that dies
//! with tokens in hand costs at most those tokens.
//!
//! **Clocks.** A reply carries the server's time; the true time later on lies between two bounds, because the script ran
//! after the request was sent and before the reply was there. Lapsing uses the late bound, "the server would refuse"
//! the early one; the late one runs ahead by a thousandth of the time since, for clocks that drift.
//!
//! **Whoever waited for a trip was admitted by the server**, when its script ran. What they wait for is therefore kept
//! from lapsing for [`GRACE_NS`] after the reply, or a bucket of one token could never be used from afar; it ends as
//! soon as what is left is too little for a request.
//!
//! **How much is leased** follows what was spent: [`HORIZON_NS`] of it, a single token for a slow key, never more than
//! a quarter of the burst. When the server has plenty, a sixteenth of it is granted unasked: there it does not lack.
//!
//! Pure: time comes in as monotonic nanoseconds, replies as values. Failure: a trip that fails leaves what is held.

use super::rate::Rate;

/// How long what was waited for does not lapse: the time in which waiting requests wake up.
const GRACE_NS: u64 = 50_000_000;
/// How much spending is leased ahead.
const HORIZON_NS: u64 = 100_000_000;
/// A lease grows by at most this factor from trip to trip.
const GROWTH: u64 = 4;
/// A lease is at most the burst divided by this.
const BURST_SHARE: u64 = 4;
/// What a server with plenty grants unasked: what it has, divided by this.
const PLENTY_SHARE: u64 = 16;
/// After the server had less than was asked for, it is not asked again for this long: what comes in meanwhile is
/// granted at once then, and many calls share the trip.
const PACE_NS: u64 = 20_000_000;
/// Pauses are at most this part of the time in which the bucket fills, or it could run over meanwhile.
const PACE_SHARE: u64 = 16;
/// Stretches held at a time.
const MAX_STRETCHES: usize = 4;
/// Leases below this are not fetched ahead of need.
const MIN_AHEAD: u64 = 8;
/// The late bound of the server's time runs ahead by one part in this many.
const DRIFT: u64 = 1_000;

/// What to ask the shared server for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Nanoseconds of one token.
    pub token_ns: u64,
    /// Microseconds until an empty bucket is full, rounded up.
    pub fill_us: u64,
    /// Fewer tokens are of no use.
    pub least: u64,
    /// So many would be good.
    pub want: u64,
    /// Of what there is, so much may be granted even if it is more than wanted: one part of this many.
    pub share: u64,
}

/// What the shared server granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The server's time in microseconds.
    pub now_us: u64,
    /// Where the granted stretch begins.
    pub from_us: u64,
    /// Where it ends: the bucket's arrival time now. Equal to the beginning if nothing was granted.
    pub to_us: u64,
}

/// Whether a request may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Enough is held.
    Ready,
    /// The server would refuse for so many nanoseconds.
    Refused(u64),
    /// Only the server knows.
    Starved,
}

/// The tokens of one key that this replica holds.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Nanoseconds of a token and of a full bucket; zero before the first use.
    token_ns: u64,
    fill_ns: u64,
    stretches: Vec<Stretch>,
    anchor: Option<Anchor>,
    /// The bucket's arrival time when it was last heard of.
    arrival: u64,
    /// Not asked before this time.
    paced_until: u64,
    /// Spent since the last trip, in token time.
    spent: u64,
    since: u64,
    /// Tokens asked for by the last trip.
    want: u64,
    trip: Option<Trip>,
    used: u64,
}

/// A part of the bucket's virtual time, on the server's clock.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    from: u64,
    to: u64,
    /// Until then (monotonic) nothing of it lapses.
    grace: u64,
}

/// A moment of the server's clock, and when it was here.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    server: u64,
    sent: u64,
    received: u64,
}

#[derive(Clone, Copy, Debug)]
struct Trip {
    /// Token time that is waited for.
    waiting: u64,
    want: u64,
}

impl Anchor {
    /// The server's clock is not past this.
    fn latest(&self, now: u64) -> u64 {
        let since = now.saturating_sub(self.sent);
        // It is told in whole microseconds, rounded down.
        self.server.saturating_add(1_000).saturating_add(since).saturating_add(since / DRIFT)
    }

    /// The server's clock is at least here, but for drift, which costs a trip in vain and nothing else.
    fn earliest(&self, now: u64) -> u64 {
        self.server.saturating_add(now.saturating_sub(self.received))
    }
}

impl Stretch {
    fn left(&self, now: u64, latest: u64) -> u64 {
        let from = if now <= self.grace { self.from } else { self.from.max(latest) };
        self.to.saturating_sub(from)
    }
}

impl Held {
    /// Whether a request of this cost may pass. A rate that differs from the one tokens were leased at drops them.
    pub(crate) fn judge(&mut self, now: u64, rate: &Rate, cost_ns: u64) -> Verdict {
        self.shape(rate);
        self.used = now;
        if self.left(now) >= cost_ns {
            return Verdict::Ready;
        }
        // What was kept for those who waited is too little for one of them: kept any longer, it would come on top of
        // what the bucket refills meanwhile.
        for stretch in &mut self.stretches {
            stretch.grace = 0;
        }
        let left = self.left(now);
        match self.refusal(now, cost_ns - left) {
            0 => Verdict::Starved,
            wait => Verdict::Refused(wait),
        }
    }

    /// Spends what [`Held::judge`] has found, under the same lock.
    pub(crate) fn spend(&mut self, now: u64, cost_ns: u64) {
        let latest = self.latest(now);
        let mut open = cost_ns;
        for stretch in &mut self.stretches {
            let left = stretch.left(now, latest);
            let part = left.min(open);
            stretch.from = stretch.to - left + part;
            open -= part;
        }
        debug_assert_eq!(open, 0, "judged before, under the same lock");
        self.spent = self.spent.saturating_add(cost_ns);
    }

    /// The time in which all would be full if nobody else spent: for the headers.
    pub(crate) fn debt(&self, now: u64) -> u64 {
        let Some(anchor) = self.anchor else { return 0 };
        self.arrival.saturating_sub(anchor.earliest(now)).saturating_sub(self.left(now))
    }

    /// Whether to fetch more before the last token is gone.
    pub(crate) fn runs_low(&self, now: u64) -> bool {
        self.trip.is_none()
            && self.want >= MIN_AHEAD
            && self.left(now) < self.want / 4 * self.token_ns
            && self.refusal(now, self.token_ns) == 0
    }

    /// Joins the trip of this key; whoever gets an [`Ask`] has to make it and to report by [`Held::land`] or
    /// [`Held::fail`]. `cost_ns` of zero asks for more without waiting for it.
    pub(crate) fn begin(&mut self, now: u64, rate: &Rate, cost_ns: u64) -> Option<Ask> {
        self.shape(rate);
        if let Some(trip) = &mut self.trip {
            trip.waiting = trip.waiting.saturating_add(cost_ns);
            return None;
        }
        let least = cost_ns.saturating_sub(self.left(now)).div_ceil(self.token_ns).max(1);
        let elapsed = now.saturating_sub(self.since).max(1);
        let pace = u128::from(self.spent) * u128::from(HORIZON_NS) / u128::from(elapsed);
        let pace = u64::try_from(pace / u128::from(self.token_ns)).unwrap_or(u64::MAX);
        let most = (rate.burst() / BURST_SHARE).max(1);
        let ahead = pace.min(self.want.max(1).saturating_mul(GROWTH)).min(most);
        let want = cost_ns.div_ceil(self.token_ns).max(ahead).max(least).min(rate.burst());
        self.trip = Some(Trip { waiting: cost_ns, want });
        self.want = ahead;
        let fill_us = rate.fill_ns().div_ceil(1_000);
        Some(Ask { token_ns: self.token_ns, fill_us, least, want, share: PLENTY_SHARE })
    }

    /// A trip has ended: it was sent and its reply received at these times, both monotonic.
    pub(crate) fn land(&mut self, sent: u64, received: u64, asked: &Ask, grant: &Grant) {
        let trip = self.trip.take().unwrap_or(Trip { waiting: 0, want: asked.want });
        self.since = received;
        self.spent = 0;
        if asked.token_ns != self.token_ns {
            // The rate changed meanwhile: what was granted counts in other units. It lapses.
            return;
        }
        let anchor = Anchor { server: grant.now_us.saturating_mul(1_000), sent, received };
        self.anchor = Some(anchor);
        let (from, to) = (grant.from_us.saturating_mul(1_000), grant.to_us.saturating_mul(1_000));
        self.arrival = to;
        let latest = anchor.latest(received);
        self.stretches.retain(|s| s.left(received, latest) > 0);
        let granted = to.saturating_sub(from);
        if granted > 0 {
            let waited = trip.waiting.min(granted);
            self.hold(Stretch { from: from + waited, to, grace: 0 });
            self.hold(Stretch { from, to: from + waited, grace: received.saturating_add(GRACE_NS) });
        }
        let pause = PACE_NS.min(self.fill_ns / PACE_SHARE);
        let short = granted / self.token_ns.max(1) < trip.want;
        self.paced_until = if short { received.saturating_add(pause) } else { 0 };
    }

    /// A trip has failed. What the server may have granted all the same lapses.
    pub(crate) fn fail(&mut self, now: u64) {
        self.trip = None;
        self.since = now;
        self.spent = 0;
    }

    /// Whether nothing is lost if this is forgotten.
    pub(crate) fn is_idle(&self, now: u64, since: u64) -> bool {
        self.trip.is_none() && self.used < since && self.left(now) == 0
    }

    fn shape(&mut self, rate: &Rate) {
        let (token_ns, fill_ns) = (rate.token_ns(), rate.fill_ns().div_ceil(1_000) * 1_000);
        if (self.token_ns, self.fill_ns) != (token_ns, fill_ns) {
            *self = Self { token_ns, fill_ns, trip: self.trip, used: self.used, ..Self::default() };
        }
    }

    fn hold(&mut self, stretch: Stretch) {
        if stretch.from >= stretch.to {
            return;
        }
        if self.stretches.len() == MAX_STRETCHES {
            // The smallest lapses unused; that is safe, and rare: four grants are seldom open at once.
            let smallest =
                self.stretches.iter().enumerate().min_by_key(|(_, s)| s.to - s.from).map(|(i, _)| i);
            if let Some(i) = smallest {
                self.stretches.remove(i);
            }
        }
        // What lapses first is spent first; what is in grace before all else.
        let at =
            self.stretches.partition_point(|s| (s.grace == 0, s.from) < (stretch.grace == 0, stretch.from));
        self.stretches.insert(at, stretch);
    }

    fn latest(&self, now: u64) -> u64 {
        self.anchor.map_or(u64::MAX, |a| a.latest(now))
    }

    fn left(&self, now: u64) -> u64 {
        let latest = self.latest(now);
        self.stretches.iter().map(|s| s.left(now, latest)).sum()
    }

    /// For how long the server would certainly refuse, or must not be asked.
    fn refusal(&self, now: u64, lacking_ns: u64) -> u64 {
        let Some(anchor) = self.anchor else { return 0 };
        let full = anchor.earliest(now).saturating_add(self.fill_ns);
        let wait = self.arrival.saturating_add(lacking_ns).saturating_sub(full);
        wait.max(self.paced_until.saturating_sub(now))
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
