//! How many of something may be open at once: streams of a principal, connections of an address.
//!
//! A permit is given back when its guard is dropped; a key without permits takes no memory. The number of keys is
//! bounded, and since every key holds at least one open thing, the bound can only be met by that many open things.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// More shards than threads that would meet.
const SHARDS: usize = 32;

/// Counts of open things by key. Clones share the counts.
#[derive(Debug)]
pub struct Permits<K: Hash + Eq>(Arc<Inner<K>>);

#[derive(Debug)]
struct Inner<K> {
    hasher: ahash::RandomState,
    shards: [Mutex<HashMap<K, u32, ahash::RandomState>>; SHARDS],
    keys: AtomicUsize,
    max_keys: usize,
}

/// One open thing; dropping it gives the permit back.
#[derive(Debug)]
pub struct Permit<K: Hash + Eq> {
    inner: Arc<Inner<K>>,
    key: K,
}

/// Why there was no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// The key holds as many as it may.
    #[error("{max} are open already")]
    Key {
        /// The most this key may hold.
        max: u32,
    },
    /// As many different keys hold permits as the map remembers; only keys that already hold one get more.
    #[error("too many different holders")]
    Keys,
}

impl<K: Hash + Eq + Clone> Permits<K> {
    /// Remembers at most `max_keys` different keys at a time.
    pub fn new(max_keys: usize) -> Self {
        Self(Arc::new(Inner {
            hasher: ahash::RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
            keys: AtomicUsize::new(0),
            max_keys,
        }))
    }

    /// Takes a permit of `key`, which may hold `max` at a time. A smaller `max` than before closes nothing that is
    /// open.
    ///
    /// # Errors
    ///
    /// See [`Exhausted`].
    pub fn acquire(&self, key: K, max: u32) -> Result<Permit<K>, Exhausted> {
        let mut shard = self.0.shard(&key).lock();
        match shard.entry(key) {
            Entry::Occupied(mut held) => {
                if *held.get() >= max {
                    return Err(Exhausted::Key { max });
                }
                *held.get_mut() += 1;
                Ok(Permit { inner: self.0.clone(), key: held.key().clone() })
            }
            Entry::Vacant(_) if max == 0 => Err(Exhausted::Key { max }),
            Entry::Vacant(vacant) => {
                let room = |keys: usize| (keys < self.0.max_keys).then_some(keys + 1);
                self.0
                    .keys
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
                    .map_err(|_| Exhausted::Keys)?;
                let key = vacant.key().clone();
                vacant.insert(1);
                Ok(Permit { inner: self.0.clone(), key })
            }
        }
    }

    /// How many permits the key holds.
    pub fn held(&self, key: &K) -> u32 {
        self.0.shard(key).lock().get(key).copied().unwrap_or(0)
    }

    /// How many keys hold a permit.
    pub fn keys(&self) -> usize {
        self.0.keys.load(Ordering::Relaxed)
    }
}

impl<K: Hash + Eq> Clone for Permits<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Hash + Eq> Inner<K> {
    fn shard(&self, key: &K) -> &Mutex<HashMap<K, u32, ahash::RandomState>> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }
}

impl<K: Hash + Eq> Permit<K> {
    /// Whose permit it is.
    pub fn key(&self) -> &K {
        &self.key
    }
}

impl<K: Hash + Eq> Drop for Permit<K> {
    fn drop(&mut self) {
        let mut shard = self.inner.shard(&self.key).lock();
        let Some(held) = shard.get_mut(&self.key) else { return };
        *held -= 1;
        if *held == 0 {
            shard.remove(&self.key);
            self.inner.keys.fetch_sub(1, Ordering::Relaxed);
            if shard.is_empty() {
                shard.shrink_to_fit();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_permit_is_free_again_and_leaves_no_entry() {
        let permits = Permits::new(10);
        let first = permits.acquire("a", 2).unwrap();
        let second = permits.acquire("a", 2).unwrap();
        assert_eq!(permits.acquire("a", 2).unwrap_err(), Exhausted::Key { max: 2 });
        assert_eq!((permits.held(&"a"), permits.keys()), (2, 1));
        drop(first);
        let third = permits.acquire("a", 2).unwrap();
        assert_eq!(third.key(), &"a");
        drop((second, third));
        assert_eq!((permits.held(&"a"), permits.keys()), (0, 0));
        assert!(permits.0.shards.iter().all(|s| s.lock().is_empty()));
    }

    #[test]
    fn a_full_map_still_serves_those_it_knows() {
        let permits = Permits::new(2);
        let _held = (permits.acquire(1, 9).unwrap(), permits.acquire(2, 9).unwrap());
        assert_eq!(permits.acquire(3, 9).unwrap_err(), Exhausted::Keys);
        assert!(permits.acquire(1, 9).is_ok());
        assert_eq!(permits.acquire(4, 0).unwrap_err(), Exhausted::Key { max: 0 });
    }

    #[test]
    fn a_lower_maximum_applies_to_new_permits_only() {
        let permits = Permits::new(2);
        let held: Vec<_> = (0..3).map(|_| permits.acquire("a", 3).unwrap()).collect();
        assert!(permits.acquire("a", 1).is_err());
        assert_eq!(permits.held(&"a"), 3);
        drop(held);
    }

    #[test]
    fn threads_never_hold_more_than_the_maximum() {
        let permits = Permits::new(8);
        let peak = AtomicUsize::new(0);
        let open = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        if let Ok(permit) = permits.acquire("a", 3) {
                            let now = open.fetch_add(1, Ordering::SeqCst) + 1;
                            peak.fetch_max(now, Ordering::SeqCst);
                            open.fetch_sub(1, Ordering::SeqCst);
                            drop(permit);
                        }
                    }
                });
            }
        });
        assert!(peak.load(Ordering::SeqCst) <= 3);
        assert_eq!(permits.keys(), 0);
    }
}
