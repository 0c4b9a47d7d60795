//! Keeps some requests of every minute and route: a fair sample of a bounded size, whatever the load.
//!
//! Reservoir sampling: of the `n` requests of a minute on a route, `per_minute` are kept, each with the same chance. A
//! request that is not kept costs one look-up, one atomic addition and one random number; nothing is allocated and no
//! lock is held for longer than a look-up. Minutes that are over wait to be taken by [`Sampler::take`]; there is room
//! for [`MAX_BATCHES`], and what does not fit is dropped and counted: a sample is never worth a request.
//!
//! State lives as long as the process and is lost with it, at most two minutes' worth.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::RequestSample;

/// Finished minutes of routes that wait for whoever stores them.
pub const MAX_BATCHES: usize = 4_096;
/// Routes that are told apart; requests on others are not sampled.
const MAX_ROUTES: usize = 10_000;
/// A route without requests for so many minutes gives its place up when places run short.
const IDLE_MINUTES: u64 = 60;
/// The longest arguments that are kept, in bytes; longer ones are left out.
pub const MAX_ARGUMENTS: usize = 4 * 1024;

const MINUTE_MS: u64 = 60_000;

/// The samples of one minute and route.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Whose.
    pub tenant: Arc<str>,
    /// The route.
    pub route: Arc<str>,
    /// The beginning of the minute, in milliseconds since the Unix epoch.
    pub minute_ms: u64,
    /// How many requests there were.
    pub requests: u64,
    /// Some of them, each with its weight.
    pub samples: Vec<RequestSample>,
}

/// Decides which requests are kept, and keeps them. One per process.
#[derive(Debug)]
pub struct Sampler {
    per_minute: usize,
    arguments: bool,
    hasher: ahash::RandomState,
    routes: RwLock<HashMap<u64, Arc<Reservoir>>>,
    finished: Mutex<Vec<Batch>>,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Reservoir {
    tenant: Arc<str>,
    route: Arc<str>,
    /// Requests of the even and of the odd minutes: the minute in the upper half, their number in the lower.
    seen: [AtomicU64; 2],
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    minute: u64,
    samples: Vec<RequestSample>,
}

impl Sampler {
    /// Keeps at most `per_minute` requests of each route and minute, with arguments if `arguments`.
    pub fn new(per_minute: usize, arguments: bool) -> Self {
        Self {
            per_minute,
            arguments,
            hasher: ahash::RandomState::new(),
            routes: RwLock::default(),
            finished: Mutex::default(),
            dropped: AtomicU64::new(0),
        }
    }

    /// Whether arguments are kept.
    pub fn keeps_arguments(&self) -> bool {
        self.arguments
    }

    /// Batches that were dropped because nobody took them in time.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// A request has ended. `make` is called only if it is kept.
    pub fn offer(&self, tenant: &str, route: &str, now_ms: u64, make: impl FnOnce() -> RequestSample) {
        let Some(reservoir) = self.reservoir(tenant, route) else { return };
        let minute = now_ms / MINUTE_MS;
        let number = reservoir.count(minute);
        let slot = match number <= self.per_minute as u64 {
            true => usize::MAX,
            false => {
                let chance = rand::random_range(0..number);
                match usize::try_from(chance) {
                    Ok(slot) if slot < self.per_minute => slot,
                    _ => return,
                }
            }
        };
        let sample = make();
        let mut kept = reservoir.kept.lock();
        if kept.minute != minute {
            self.finish(&reservoir, &mut kept);
            kept.minute = minute;
        }
        let held = kept.samples.len();
        match kept.samples.get_mut(slot) {
            Some(place) => *place = sample,
            // Two requests may have been counted in another order than they come here.
            None if held < self.per_minute => kept.samples.push(sample),
            None => {}
        }
    }

    /// What has been finished by `now_ms`, the oldest first.
    pub fn take(&self, now_ms: u64) -> Vec<Batch> {
        let minute = now_ms / MINUTE_MS;
        let reservoirs: Vec<Arc<Reservoir>> = self.routes.read().values().cloned().collect();
        for reservoir in reservoirs {
            let mut kept = reservoir.kept.lock();
            if kept.minute < minute {
                self.finish(&reservoir, &mut kept);
            }
        }
        self.make_room(minute);
        let mut batches = std::mem::take(&mut *self.finished.lock());
        batches.sort_by_key(|batch| batch.minute_ms);
        batches
    }

    /// Forgets routes that nobody asks for any more, before there is no place for others.
    fn make_room(&self, minute: u64) {
        if self.routes.read().len() <= MAX_ROUTES / 2 {
            return;
        }
        self.routes.write().retain(|_, reservoir| {
            let used = || {
                let kept = reservoir.kept.lock();
                !kept.samples.is_empty() || kept.minute + IDLE_MINUTES >= minute
            };
            // Somebody may hold it who has not counted yet.
            Arc::strong_count(reservoir) > 1 || used()
        });
    }

    fn reservoir(&self, tenant: &str, route: &str) -> Option<Arc<Reservoir>> {
        let mut hasher = self.hasher.build_hasher();
        tenant.hash(&mut hasher);
        route.hash(&mut hasher);
        let key = hasher.finish();
        if let Some(known) = self.routes.read().get(&key) {
            return Some(known.clone());
        }
        let mut routes = self.routes.write();
        if routes.len() >= MAX_ROUTES && !routes.contains_key(&key) {
            return None;
        }
        let new = || {
            Arc::new(Reservoir {
                tenant: tenant.into(),
                route: route.into(),
                seen: [AtomicU64::new(0), AtomicU64::new(0)],
                kept: Mutex::default(),
            })
        };
        Some(routes.entry(key).or_insert_with(new).clone())
    }

    fn finish(&self, reservoir: &Reservoir, kept: &mut Kept) {
        let mut samples = std::mem::take(&mut kept.samples);
        if samples.is_empty() {
            return;
        }
        let requests = reservoir.seen_in(kept.minute).max(samples.len() as u64);
        let weight = u32::try_from(requests / samples.len() as u64).unwrap_or(u32::MAX);
        // So that the weights add up to what there was.
        let more = (requests % samples.len() as u64) as usize;
        for (at, sample) in samples.iter_mut().enumerate() {
            sample.weight = weight.saturating_add(u32::from(at < more));
        }
        samples.sort_by_key(|sample| sample.time);
        let mut finished = self.finished.lock();
        if finished.len() >= MAX_BATCHES {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        finished.push(Batch {
            tenant: reservoir.tenant.clone(),
            route: reservoir.route.clone(),
            minute_ms: kept.minute * MINUTE_MS,
            requests,
            samples,
        });
    }
}

impl Reservoir {
    /// Counts a request; its number in the minute, from one.
    fn count(&self, minute: u64) -> u64 {
        let seen = &self.seen[(minute % 2) as usize];
        let begin = minute << 32;
        let counted = seen.fetch_add(1, Ordering::Relaxed) + 1;
        if counted >> 32 == minute & 0xffff_ffff {
            return counted & 0xffff_ffff;
        }
        // The first of its minute; whoever comes in between counts on from there.
        let mut current = seen.load(Ordering::Relaxed);
        while current >> 32 != minute & 0xffff_ffff {
            match seen.compare_exchange_weak(current, begin | 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return 1,
                Err(now) => current = now,
            }
        }
        (seen.fetch_add(1, Ordering::Relaxed) + 1) & 0xffff_ffff
    }

    fn seen_in(&self, minute: u64) -> u64 {
        let seen = self.seen[(minute % 2) as usize].load(Ordering::Relaxed);
        if seen >> 32 == minute & 0xffff_ffff { seen & 0xffff_ffff } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 28_333_333 * MINUTE_MS;

    fn sample(time: u64) -> RequestSample {
        let text = format!(r#"{{"time":{time},"method":"tools/call","ip":"10.0.0.1","outcome":"ok"}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn all_are_kept_while_there_are_few() {
        let sampler = Sampler::new(10, false);
        (0..7).for_each(|at| sampler.offer("t", "r", START + at, || sample(at)));
        assert!(sampler.take(START + 59_999).is_empty(), "the minute is not over");
        let batches = sampler.take(START + 60_000);
        assert_eq!((batches.len(), batches[0].requests, batches[0].samples.len()), (1, 7, 7));
        assert!(batches[0].samples.iter().all(|s| s.weight == 1));
        assert!(sampler.take(START + 120_000).is_empty());
    }

    #[test]
    fn many_are_thinned_fairly_and_weights_add_up() {
        let sampler = Sampler::new(50, false);
        let mut made = 0u64;
        for minute in 0..40 {
            for at in 0..1_000 {
                sampler.offer("t", "r", START + minute * MINUTE_MS + at, || {
                    made += 1;
                    sample(at)
                });
            }
        }
        let batches = sampler.take(START + 60 * MINUTE_MS);
        assert_eq!(batches.len(), 40);
        for batch in &batches {
            assert_eq!((batch.requests, batch.samples.len()), (1_000, 50));
            assert_eq!(batch.samples.iter().map(|s| u64::from(s.weight)).sum::<u64>(), 1_000);
        }
        // 50 × (1 + ln 20) a minute are ever made, not a thousand.
        assert!(made < 40 * 300, "{made}");
        // The later half of a minute is as likely as the first: 1,000 ± 5 standard deviations.
        let late = batches.iter().flat_map(|b| &b.samples).filter(|s| s.time >= 500).count();
        assert!((840..=1_160).contains(&late), "{late} of 2000");
    }

    #[test]
    fn routes_that_are_gone_give_their_places_up() {
        let sampler = Sampler::new(1, false);
        for n in 0..MAX_ROUTES {
            sampler.offer("t", &n.to_string(), START, || sample(1));
        }
        assert_eq!(sampler.take(START + 2 * MINUTE_MS).len(), MAX_BATCHES);
        sampler.offer("t", "new", START + 3 * MINUTE_MS, || sample(1));
        sampler.offer("t", "0", START + 90 * MINUTE_MS, || sample(1));
        assert_eq!(sampler.take(START + 100 * MINUTE_MS).len(), 1, "no place for another");
        for route in ["new", "0"] {
            sampler.offer("t", route, START + 101 * MINUTE_MS, || sample(1));
        }
        assert_eq!(sampler.take(START + 102 * MINUTE_MS).len(), 2);
    }

    #[test]
    fn routes_and_minutes_are_apart_and_room_is_bounded() {
        let sampler = Sampler::new(1, false);
        sampler.offer("t", "a", START, || sample(1));
        sampler.offer("u", "a", START, || sample(2));
        sampler.offer("t", "a", START + MINUTE_MS, || sample(3));
        let batches = sampler.take(START + 2 * MINUTE_MS);
        assert_eq!(batches.len(), 3);
        for minute in 0..=MAX_BATCHES as u64 + 1 {
            sampler.offer("t", "a", START + (5 + minute) * MINUTE_MS, || sample(1));
        }
        assert_eq!(sampler.take(u64::MAX).len(), MAX_BATCHES);
        assert_eq!(sampler.dropped(), 2);
    }
}
