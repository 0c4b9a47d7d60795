//! The age of each token issuer's keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, LabelPair, MetricFamily};

use super::family::{self, Counter};
use super::names;
use crate::base::Clock;

/// When each issuer's keys were fetched; the age is computed at the scrape, so that it grows while nothing happens.
pub(super) struct JwksAges {
    clock: Clock,
    cap: usize,
    overflow: Counter,
    desc: Desc,
    at: Mutex<BTreeMap<Box<str>, u64>>,
}

impl JwksAges {
    pub(super) fn new(clock: Clock, cap: usize, overflow: Counter) -> Self {
        Self { clock, cap, overflow, desc: family::desc(&names::JWKS_AGE), at: Mutex::default() }
    }

    pub(super) fn fetched(&self, issuer: &str) {
        let now = self.clock.mono_ns();
        let mut at = self.at.lock();
        if let Some(last) = at.get_mut(issuer) {
            *last = now;
        } else if at.len() < self.cap {
            at.insert(issuer.into(), now);
        } else {
            self.overflow.inc();
        }
    }

    pub(super) fn forgotten(&self, issuer: &str) {
        self.at.lock().remove(issuer);
    }
}

/// Shows the ages.
pub(super) struct JwksCollector(pub(super) Arc<JwksAges>);

impl Collector for JwksCollector {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let now = self.0.clock.mono_ns();
        let ages = self.0.at.lock();
        let samples = ages.iter().map(|(issuer, at)| {
            let mut label = LabelPair::default();
            label.set_name("issuer".to_owned());
            label.set_value(issuer.to_string());
            let mut value = proto::Gauge::default();
            value.set_value(now.saturating_sub(*at) as f64 / 1e9);
            let mut sample = proto::Metric::from_gauge(value);
            sample.set_label(vec![label]);
            sample
        });
        vec![family::family_of(&names::JWKS_AGE, samples.collect())]
    }
}
