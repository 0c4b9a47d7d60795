//! Which target is asked first, and which one next.
//!
//! Round robin, weighted random and the consistent-hash ring are pingora's selections; least request and peak EWMA are
//! ours, on the same trait. A selection is immutable and belongs to one view of the pool; what changes with each
//! request is in the statistics that its backends carry.
//!
//! *Power of two choices*: two different targets are drawn and the better one wins. That needs no scan, no lock and no
//! shared counter, and no herd forms, because no two requests compare the same pair for long. The first is drawn in
//! proportion to the weights and wins ties, so that idle targets share by weight.
//!
//! | policy | score, lowest wins |
//! |---|---|
//! | `least_request` | requests in flight / weight |
//! | `peak_ewma` | latency × (requests in flight + 1) / weight |
//!
//! A selection only proposes: the pool refuses a candidate that is ejected, unhealthy, draining, full, open or tried,
//! and takes the next. Selections may repeat a candidate or miss one; the pool bounds the proposals and scans the rest.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::Arc;

use pingora_load_balancing::Backend;
use pingora_load_balancing::selection::{BackendIter, BackendSelection, Consistent, Random, RoundRobin};

use crate::base::Clock;
use crate::upstream::spec::Balance;
use crate::upstream::target::TargetStats;

/// Steps along the hash ring before the pool scans instead. Neighbouring points often belong to one target.
const RING_STEPS: usize = 256;

/// Most weight on the hash ring, which has 160 points of 8 bytes per unit. Above it, weights are scaled down.
const RING_WEIGHT: usize = 4096;

/// The selection of one view.
pub(crate) enum Selector {
    Hash(Arc<Consistent>),
    LeastRequest(Arc<PowerOfTwo<LeastRequest>>),
    PeakEwma(Arc<PowerOfTwo<PeakLatency>>),
    RoundRobin(Arc<RoundRobin>),
    Weighted(Arc<Random>),
}

/// How two targets are compared.
pub(crate) trait Score: Send + Sync + 'static {
    /// Lower is better. `weight` is at least 1.
    fn score(target: &TargetStats, weight: f64, now: u64) -> f64;
}

/// Scores by load alone.
pub(crate) enum LeastRequest {}

/// Scores by expected waiting time.
pub(crate) enum PeakLatency {}

/// Two candidates, the better one first.
pub(crate) struct PowerOfTwo<S> {
    entries: Box<[Entry]>,
    /// Running sums of the weights.
    sums: Box<[u64]>,
    clock: Clock,
    score: PhantomData<S>,
}

struct Entry {
    backend: Backend,
    stats: Arc<TargetStats>,
}

/// Walks winner, loser, then everyone else from a random place.
pub(crate) struct Duel<S> {
    owner: Arc<PowerOfTwo<S>>,
    entropy: u64,
    first: usize,
    second: usize,
    cursor: usize,
    step: usize,
}

// === impl Selector ===

impl Selector {
    pub(crate) fn build(policy: Balance, backends: &BTreeSet<Backend>, clock: &Clock) -> Self {
        match policy {
            Balance::Hash => Self::Hash(Arc::new(Consistent::build(&on_ring(backends)))),
            Balance::LeastRequest => {
                Self::LeastRequest(Arc::new(PowerOfTwo::build_with_config(backends, clock)))
            }
            Balance::PeakEwma => Self::PeakEwma(Arc::new(PowerOfTwo::build_with_config(backends, clock))),
            Balance::RoundRobin => Self::RoundRobin(Arc::new(RoundRobin::build(&reduced(backends)))),
            Balance::Weighted => Self::Weighted(Arc::new(Random::build(backends))),
        }
    }

    /// Proposes candidates until `accept` takes one. `key` is the hash, or entropy for the other policies.
    pub(crate) fn visit<R>(
        &self,
        key: u64,
        targets: usize,
        accept: impl FnMut(&Arc<TargetStats>) -> Option<R>,
    ) -> Option<R> {
        let bytes = key.to_le_bytes();
        match self {
            Self::Hash(s) => walk(s.iter(&bytes), RING_STEPS, accept),
            Self::LeastRequest(s) => walk(s.iter(&bytes), targets, accept),
            Self::PeakEwma(s) => walk(s.iter(&bytes), targets, accept),
            Self::RoundRobin(s) => walk(s.iter(&bytes), targets, accept),
            Self::Weighted(s) => walk(s.iter(&bytes), targets, accept),
        }
    }
}

fn walk<I: BackendIter, R>(
    mut iter: I,
    steps: usize,
    mut accept: impl FnMut(&Arc<TargetStats>) -> Option<R>,
) -> Option<R> {
    let mut last = None;
    for _ in 0..steps {
        let stats = stats_of(iter.next()?)?;
        // The ring gives many points in a row to one target: ask once.
        if last == Some(stats.key) {
            continue;
        }
        last = Some(stats.key);
        if let Some(taken) = accept(stats) {
            return Some(taken);
        }
    }
    None
}

/// The statistics that every backend of a pool carries.
pub(crate) fn stats_of(backend: &Backend) -> Option<&Arc<TargetStats>> {
    backend.ext.get::<Arc<TargetStats>>()
}

/// Weights divided by what they have in common: pingora gives weight 50 fifty turns in a row.
fn reduced(backends: &BTreeSet<Backend>) -> BTreeSet<Backend> {
    let common = backends.iter().fold(0, |divisor, b| gcd(divisor, b.weight)).max(1);
    backends.iter().map(|b| Backend { weight: b.weight / common, ..b.clone() }).collect()
}

/// Weights that fit on the ring. Not reduced otherwise: a ring with other numbers of points is another ring, and
/// nearly every key would move with an edit of one weight.
fn on_ring(backends: &BTreeSet<Backend>) -> BTreeSet<Backend> {
    let total: usize = backends.iter().map(|b| b.weight).sum();
    let fit =
        |weight: usize| if total > RING_WEIGHT { (weight * RING_WEIGHT / total).max(1) } else { weight };
    backends.iter().map(|b| Backend { weight: fit(b.weight), ..b.clone() }).collect()
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

// === impl PowerOfTwo ===

impl<S: Score> BackendSelection for PowerOfTwo<S> {
    type Iter = Duel<S>;
    type Config = Clock;

    fn build_with_config(backends: &BTreeSet<Backend>, clock: &Clock) -> Self {
        let entries: Box<[Entry]> = backends
            .iter()
            .filter_map(|b| {
                let stats = Arc::clone(stats_of(b)?);
                Some(Entry { backend: b.clone(), stats })
            })
            .collect();
        let sums = entries
            .iter()
            .scan(0u64, |sum, e| {
                *sum += e.backend.weight as u64;
                Some(*sum)
            })
            .collect();
        Self { entries, sums, clock: clock.clone(), score: PhantomData }
    }

    fn build(backends: &BTreeSet<Backend>) -> Self {
        Self::build_with_config(backends, &Clock::default())
    }

    fn iter(self: &Arc<Self>, key: &[u8]) -> Duel<S> {
        let mut bytes = [0; 8];
        let len = key.len().min(8);
        bytes[..len].copy_from_slice(&key[..len]);
        Duel {
            owner: Arc::clone(self),
            entropy: u64::from_le_bytes(bytes),
            first: 0,
            second: 0,
            cursor: 0,
            step: 0,
        }
    }
}

impl<S: Score> PowerOfTwo<S> {
    /// Draws two different targets, the better one first.
    fn draw(&self, entropy: u64) -> (usize, usize) {
        let n = self.entries.len();
        if n == 1 {
            return (0, 0);
        }
        let total = self.sums.last().copied().unwrap_or(0).max(1);
        let point = scale(mix(entropy), total);
        let a = self.sums.partition_point(|sum| *sum <= point).min(n - 1);
        let other = scale(mix(entropy ^ 0x9e37_79b9_7f4a_7c15), n as u64 - 1) as usize;
        let b = other + usize::from(other >= a);
        let now = self.clock.mono_ns();
        if self.score(b, now) < self.score(a, now) { (b, a) } else { (a, b) }
    }

    fn score(&self, index: usize, now: u64) -> f64 {
        let entry = &self.entries[index];
        S::score(&entry.stats, entry.backend.weight.max(1) as f64, now)
    }
}

impl<S: Score> BackendIter for Duel<S> {
    fn next(&mut self) -> Option<&Backend> {
        let n = self.owner.entries.len();
        if self.step >= n {
            return None;
        }
        let index = match self.step {
            0 => {
                (self.first, self.second) = self.owner.draw(self.entropy);
                self.first
            }
            1 => {
                self.cursor = self.second;
                self.second
            }
            // The rest in order, after the loser; the two already proposed are stepped over.
            _ => loop {
                self.cursor = (self.cursor + 1) % n;
                if self.cursor != self.first && self.cursor != self.second {
                    break self.cursor;
                }
            },
        };
        self.step += 1;
        Some(&self.owner.entries[index].backend)
    }
}

impl Score for LeastRequest {
    fn score(target: &TargetStats, weight: f64, _now: u64) -> f64 {
        f64::from(target.in_flight()) / weight
    }
}

impl Score for PeakLatency {
    fn score(target: &TargetStats, weight: f64, now: u64) -> f64 {
        // One microsecond is added so that load still counts when every estimate has decayed to nothing.
        (target.latency.micros(now) + 1.0) * (f64::from(target.in_flight()) + 1.0) / weight
    }
}

/// Spreads the bits of a number (the finalizer of splitmix64).
pub(crate) fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Maps 64 random bits to `0..below` without division.
pub(crate) fn scale(bits: u64, below: u64) -> u64 {
    ((u128::from(bits) * u128::from(below)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn backends(weights: &[usize]) -> BTreeSet<Backend> {
        let mut set = BTreeSet::new();
        for (i, weight) in weights.iter().enumerate() {
            let addr = format!("10.0.{}.{}:80", i / 250, i % 250 + 1);
            let mut backend = Backend::new_with_weight(&addr, *weight).unwrap();
            backend.ext.insert(TargetStats::new(addr.parse().unwrap(), 0, 0));
            set.insert(backend);
        }
        set
    }

    proptest! {
        #[test]
        fn a_duel_proposes_every_target_once(n in 1usize..40, entropy: u64) {
            let set = backends(&vec![1; n]);
            let s = Arc::new(PowerOfTwo::<LeastRequest>::build(&set));
            let mut iter = s.iter(&entropy.to_le_bytes());
            let mut seen = Vec::new();
            while let Some(b) = iter.next() {
                seen.push(b.addr.clone());
            }
            prop_assert_eq!(seen.len(), n);
            prop_assert_eq!(seen.into_iter().collect::<HashSet<_>>().len(), n);
        }

        #[test]
        fn a_scaled_number_stays_below_its_bound(bits: u64, below in 1u64..1000) {
            prop_assert!(scale(bits, below) < below);
        }
    }

    #[test]
    fn weights_are_reduced_before_they_become_turns() {
        let weights: Vec<_> = reduced(&backends(&[50, 50, 25])).iter().map(|b| b.weight).collect();
        assert_eq!(weights, [2, 2, 1]);
    }

    #[test]
    fn the_ring_stays_small_whatever_the_weights() {
        let weights = |set| on_ring(&set).iter().map(|b| b.weight).collect::<Vec<_>>();
        assert_eq!(weights(backends(&[100, 1])), [100, 1]);
        let scaled = weights(backends(&vec![100; 500]));
        assert!(scaled.iter().sum::<usize>() <= RING_WEIGHT && scaled.iter().all(|w| *w >= 1));
    }

    #[test]
    fn an_empty_pool_proposes_nothing() {
        let clock = Clock::manual(0);
        for policy in
            [Balance::Hash, Balance::LeastRequest, Balance::PeakEwma, Balance::RoundRobin, Balance::Weighted]
        {
            let selector = Selector::build(policy, &BTreeSet::new(), &clock);
            assert_eq!(selector.visit(7, 0, |_| Some(())), None, "{policy:?}");
            assert_eq!(selector.visit(7, 8, |_| Some(())), None, "{policy:?}");
        }
    }
}
