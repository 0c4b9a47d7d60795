//! Metric families whose children are told apart by their label values.
//!
//! The vectors of the `prometheus` crate key a child by a hash of its label values written one after the other,
//! so `("a", "bc")` and `("ab", "c")` are one child there. Tenants choose such names, so this module keys by the
//! values themselves.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use prometheus::core::{Collector, Desc, Metric};
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Opts};

use super::names::{Kind, Spec};

/// Only grows. Cheap to clone; clones share the value.
#[derive(Clone, Debug)]
pub struct Counter(IntCounter);

impl Counter {
    /// A counter that no registry shows, for tests and for parts that run without metrics.
    pub fn detached() -> Self {
        Self(IntCounter::new("detached", "Not exported.").expect("the name is valid"))
    }

    /// Adds one.
    pub fn inc(&self) {
        self.0.inc();
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.inc_by(n);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// Goes both ways. Cheap to clone; clones share the value.
#[derive(Clone, Debug)]
pub struct Gauge(IntGauge);

impl Gauge {
    /// A gauge that no registry shows.
    pub fn detached() -> Self {
        Self(IntGauge::new("detached", "Not exported.").expect("the name is valid"))
    }

    /// Replaces the value.
    pub fn set(&self, value: i64) {
        self.0.set(value);
    }

    /// Adds `by`, which may be negative.
    pub fn add(&self, by: i64) {
        self.0.add(by);
    }

    /// The value now.
    pub fn get(&self) -> i64 {
        self.0.get()
    }

    /// Adds one until the guard is dropped.
    pub fn hold(&self) -> Held {
        self.0.inc();
        Held(self.clone())
    }
}

/// One unit of a [`Gauge`], given back on drop.
#[derive(Debug)]
#[must_use = "the unit is given back when this is dropped"]
pub struct Held(Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.dec();
    }
}

/// What a family is made of.
pub(super) trait Child: Clone + Send + Sync + 'static {
    fn build(spec: &Spec, labels: HashMap<String, String>) -> Self;
    fn sample(&self) -> prometheus::proto::Metric;
}

/// Names and labels come from the table of `names`, which a test registers as a whole.
const VALID: &str = "names and labels of the table are valid";

impl Child for Counter {
    fn build(spec: &Spec, labels: HashMap<String, String>) -> Self {
        Self(IntCounter::with_opts(Opts::new(spec.name, spec.help).const_labels(labels)).expect(VALID))
    }

    fn sample(&self) -> prometheus::proto::Metric {
        self.0.metric()
    }
}

impl Child for Gauge {
    fn build(spec: &Spec, labels: HashMap<String, String>) -> Self {
        Self(IntGauge::with_opts(Opts::new(spec.name, spec.help).const_labels(labels)).expect(VALID))
    }

    fn sample(&self) -> prometheus::proto::Metric {
        self.0.metric()
    }
}

impl Child for Histogram {
    fn build(spec: &Spec, labels: HashMap<String, String>) -> Self {
        let Kind::Histogram(buckets) = spec.kind else {
            unreachable!("histograms are built from histogram specs")
        };
        let opts = HistogramOpts::new(spec.name, spec.help).const_labels(labels).buckets(buckets.to_vec());
        Histogram::with_opts(opts).expect(VALID)
    }

    fn sample(&self) -> prometheus::proto::Metric {
        self.metric()
    }
}

type Key = Box<[Box<str>]>;

/// All children of one family, keyed by their label values. Asking for a child is cold: callers keep what they get.
#[derive(Debug)]
pub(super) struct Family<C> {
    spec: &'static Spec,
    desc: Desc,
    children: RwLock<HashMap<Key, C>>,
}

impl<C: Child> Family<C> {
    /// Makes the family and registers it.
    pub(super) fn register(spec: &'static Spec, registry: &prometheus::Registry) -> Arc<Self> {
        let family = Arc::new(Self { spec, desc: desc(spec), children: RwLock::default() });
        registry.register(Box::new(Registered(family.clone()))).expect("no name is in the table twice");
        family
    }

    /// The child with these label values, in the order of the spec; made when first asked for.
    pub(super) fn child(&self, values: &[&str]) -> C {
        debug_assert_eq!(values.len(), self.spec.labels.len(), "{}", self.spec.name);
        let key: Key = values.iter().map(|v| Box::from(*v)).collect();
        if let Some(child) = self.children.read().get(&key) {
            return child.clone();
        }
        self.children.write().entry(key).or_insert_with(|| self.unregistered(values)).clone()
    }

    /// A child that works but is not shown.
    pub(super) fn unregistered(&self, values: &[&str]) -> C {
        let labels = self.spec.labels.iter().zip(values).map(|(l, v)| ((*l).to_owned(), (*v).to_owned()));
        C::build(self.spec, labels.collect())
    }

    /// Forgets the children whose first `n` label values are in the set.
    pub(super) fn forget(&self, prefixes: &HashSet<Key>, n: usize) {
        if !prefixes.is_empty() {
            self.children.write().retain(|key, _| !prefixes.contains(&key[..n]));
        }
    }
}

/// The description under which a family is registered.
pub(super) fn desc(spec: &Spec) -> Desc {
    let labels = spec.labels.iter().map(|l| (*l).to_owned()).collect();
    Desc::new(spec.name.to_owned(), spec.help.to_owned(), labels, HashMap::new()).expect(VALID)
}

/// A family with these samples.
pub(super) fn family_of(spec: &Spec, samples: Vec<prometheus::proto::Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(spec.name.to_owned());
    family.set_help(spec.help.to_owned());
    family.set_field_type(match spec.kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge => MetricType::GAUGE,
        Kind::Histogram(_) => MetricType::HISTOGRAM,
    });
    family.set_metric(samples);
    family
}

struct Registered<C>(Arc<Family<C>>);

impl<C: Child> Collector for Registered<C> {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let samples = self.0.children.read().values().map(Child::sample).collect();
        vec![family_of(self.0.spec, samples)]
    }
}

/// Children by one label value that arrives with requests. Reading is one atomic load and one hash; growing copies
/// the map, so it is bounded and rare.
pub(super) struct LabelMap<C> {
    map: ArcSwap<HashMap<Box<str>, C, ahash::RandomState>>,
    grow: Mutex<()>,
    cap: usize,
    other: std::sync::OnceLock<C>,
    make: Box<dyn Fn(&str) -> C + Send + Sync>,
    overflow: Counter,
}

impl<C: Clone> LabelMap<C> {
    pub(super) fn new(
        cap: usize,
        overflow: Counter,
        make: impl Fn(&str) -> C + Send + Sync + 'static,
    ) -> Self {
        Self {
            map: ArcSwap::default(),
            grow: Mutex::new(()),
            cap,
            other: std::sync::OnceLock::new(),
            make: Box::new(make),
            overflow,
        }
    }

    /// Runs `f` on the child of `name`. A name that has none gets one if `admit` and the cap allow, else it counts
    /// as `other`.
    pub(super) fn with<R>(&self, name: &str, admit: bool, f: impl FnOnce(&C) -> R) -> R {
        if let Some(child) = self.map.load().get(name) {
            return f(child);
        }
        match admit.then(|| self.insert(name)).flatten() {
            Some(child) => f(&child),
            None => f(self.other.get_or_init(|| (self.make)(super::names::OTHER))),
        }
    }

    fn insert(&self, name: &str) -> Option<C> {
        if self.map.load().len() >= self.cap {
            self.overflow.inc();
            return None;
        }
        let _one_writer = self.grow.lock();
        let current = self.map.load_full();
        if let Some(child) = current.get(name) {
            return Some(child.clone());
        }
        if current.len() >= self.cap {
            self.overflow.inc();
            return None;
        }
        let child = (self.make)(name);
        let mut next = HashMap::clone(&current);
        next.insert(name.into(), child.clone());
        self.map.store(Arc::new(next));
        Some(child)
    }
}

impl<C> std::fmt::Debug for LabelMap<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LabelMap").field("len", &self.map.load().len()).field("cap", &self.cap).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::names;

    #[test]
    fn children_with_the_same_letters_in_other_places_are_different() {
        let family: Arc<Family<Counter>> = Family::register(&names::RETRIES, &prometheus::Registry::new());
        family.child(&["a", "bc"]).inc();
        assert_eq!(family.child(&["ab", "c"]).get(), 0);
        assert_eq!(family.child(&["a", "bc"]).get(), 1);
    }

    #[test]
    fn forgets_by_prefix_only() {
        let family: Arc<Family<Counter>> =
            Family::register(&names::LIMIT_REFUSALS, &prometheus::Registry::new());
        family.child(&["t", "r1", "a"]).inc();
        family.child(&["t", "r2", "a"]).inc();
        let gone: Key = Box::new(["t".into(), "r1".into()]);
        family.forget(&HashSet::from([gone]), 2);
        assert_eq!(family.child(&["t", "r1", "a"]).get(), 0);
        assert_eq!(family.child(&["t", "r2", "a"]).get(), 1);
    }

    #[test]
    fn map_past_its_cap_counts_as_other() {
        let overflow = Counter::detached();
        let map = LabelMap::new(2, overflow.clone(), |_: &str| Counter::detached());
        for name in ["a", "b", "c", "d", "a"] {
            map.with(name, true, Counter::inc);
        }
        map.with("e", false, Counter::inc);
        assert_eq!(map.with("a", true, Counter::get), 2);
        assert_eq!(map.with("x", false, Counter::get), 3, "c, d and e share one child");
        assert_eq!(overflow.get(), 2, "a name that is not admitted is not an overflow");
    }

    #[test]
    fn map_growing_from_many_threads_loses_no_count() {
        let map = LabelMap::new(64, Counter::detached(), |_: &str| Counter::detached());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for i in 0..640 {
                        map.with(&format!("tool{}", i % 64), true, Counter::inc);
                    }
                });
            }
        });
        for i in 0..64 {
            assert_eq!(map.with(&format!("tool{i}"), false, Counter::get), 80);
        }
    }

    #[test]
    fn guard_gives_back_its_unit() {
        let gauge = Gauge::detached();
        let held = gauge.hold();
        assert_eq!(gauge.get(), 1);
        drop(held);
        assert_eq!(gauge.get(), 0);
    }
}
