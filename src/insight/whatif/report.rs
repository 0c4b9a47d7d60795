//! What a replay found, in groups.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::fate::{Fate, Verdict};
use crate::telemetry::RequestSample;

/// Examples per group.
const MAX_EXAMPLES: usize = 3;
/// Groups that are told apart; the rest is counted together.
const MAX_GROUPS: usize = 1_000;

/// The outcome of a replay.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Samples replayed.
    pub samples: u64,
    /// Requests they stand for.
    pub requests: u64,
    /// Whether samples stand for more than themselves: limits then saw too few requests.
    pub thinned: bool,
    /// Samples that the candidate treats as before.
    pub unchanged: u64,
    /// Samples whose answer needs what was not recorded, before or after.
    pub undecided: u64,
    /// Those, in groups, the most frequent first: each side says which rule could not be evaluated.
    pub left_open: Vec<Change>,
    /// Whether there was a baseline; otherwise changes are against what was recorded.
    pub has_baseline: bool,
    /// What changes, the most frequent first.
    pub changes: Vec<Change>,
    /// Samples whose recorded end is not what the baseline says.
    pub disagreeing: u64,
    /// Those, in groups.
    pub disagreements: Vec<Disagreement>,
    #[serde(skip)]
    groups: Groups,
    #[serde(skip)]
    open: Groups,
    #[serde(skip)]
    doubts: BTreeMap<(Fate, Fate), Disagreement>,
}

/// What happens alike, by how it was, how it will be, and the method.
#[derive(Clone, Debug, Default)]
struct Groups(BTreeMap<(Fate, Fate, String), Change>);

impl Groups {
    fn add(&mut self, sample: &RequestSample, change: String, before: Fate, after: Fate) {
        let mut key = (before, after, sample.method.clone());
        if self.0.len() >= MAX_GROUPS && !self.0.contains_key(&key) {
            for fate in [&mut key.0, &mut key.1] {
                *fate = Fate { route: None, server: None, targets: None, by: None, verdict: fate.verdict };
            }
            key.2 = "any".to_owned();
        }
        let group = self.0.entry(key.clone()).or_insert_with(|| Change {
            change,
            method: key.2,
            before: key.0,
            after: key.1,
            samples: 0,
            requests: 0,
            examples: Vec::new(),
        });
        group.samples += 1;
        group.requests += u64::from(sample.weight);
        if group.examples.len() < MAX_EXAMPLES {
            group.examples.push(Example::of(sample));
        }
    }

    /// The most frequent first.
    fn take(&mut self) -> Vec<Change> {
        let mut all: Vec<_> = std::mem::take(&mut self.0).into_values().collect();
        all.sort_by_key(|change| std::cmp::Reverse(change.requests));
        all
    }
}

/// Requests that change alike.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// What changes, such as `allow → deny`, or `server`; `undecided` if that is open.
    pub change: String,
    /// The method.
    pub method: String,
    /// Before.
    pub before: Fate,
    /// After.
    pub after: Fate,
    /// Samples.
    pub samples: u64,
    /// Requests they stand for.
    pub requests: u64,
    /// Some of them.
    pub examples: Vec<Example>,
}

/// Requests whose recorded end is not what the baseline says.
#[derive(Clone, Debug, Serialize)]
pub struct Disagreement {
    /// What was recorded.
    pub recorded: Fate,
    /// What the baseline says.
    pub baseline: Fate,
    /// Samples.
    pub samples: u64,
    /// Some of them.
    pub examples: Vec<Example>,
}

/// A recorded request.
#[derive(Clone, Debug, Serialize)]
pub struct Example {
    /// When, in milliseconds since the Unix epoch.
    pub time: u64,
    /// Who.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// With which roles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// The method.
    pub method: String,
    /// The tool, prompt or resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Example {
    fn of(sample: &RequestSample) -> Self {
        Self {
            time: sample.time,
            principal: sample.principal.as_ref().map(|p| p.id.clone()),
            roles: sample.principal.as_ref().map(|p| p.roles.clone()).unwrap_or_default(),
            method: sample.method.clone(),
            name: sample.name.clone(),
        }
    }
}

impl Report {
    /// Whether the candidate changes anything that is known.
    pub fn changes_anything(&self) -> bool {
        !self.changes.is_empty()
    }

    pub(super) fn count(&mut self, sample: &RequestSample, was: &Fate, will: &Fate) {
        self.samples += 1;
        self.requests += u64::from(sample.weight);
        self.thinned |= sample.weight > 1;
        if was.verdict == Verdict::Undecided || will.verdict == Verdict::Undecided {
            // Undecided on both sides by the same rule is still no known change.
            self.undecided += 1;
            let word = Verdict::Undecided.as_str().to_owned();
            self.open.add(sample, word, shown(was, ""), shown(will, ""));
            return;
        }
        let Some(change) = difference(was, will) else {
            self.unchanged += 1;
            return;
        };
        let (before, after) = (shown(was, &change), shown(will, &change));
        self.groups.add(sample, change, before, after);
    }

    pub(super) fn disagree(&mut self, sample: &RequestSample, recorded: &Fate, baseline: &Fate) {
        self.disagreeing += 1;
        let baseline = Fate { targets: None, ..baseline.clone() };
        let key = (recorded.clone(), baseline.clone());
        if self.doubts.len() >= MAX_GROUPS && !self.doubts.contains_key(&key) {
            return;
        }
        let group = self.doubts.entry(key).or_insert_with(|| Disagreement {
            recorded: recorded.clone(),
            baseline,
            samples: 0,
            examples: Vec::new(),
        });
        group.samples += 1;
        if group.examples.len() < MAX_EXAMPLES {
            group.examples.push(Example::of(sample));
        }
    }

    pub(super) fn finish(&mut self, has_baseline: bool) {
        self.has_baseline = has_baseline;
        self.changes = self.groups.take();
        self.left_open = self.open.take();
        self.disagreements = std::mem::take(&mut self.doubts).into_values().collect();
        self.disagreements.sort_by_key(|one| std::cmp::Reverse(one.samples));
    }
}

/// What differs, in a word; none if nothing does. Another rule with the same effect is no difference.
fn difference(was: &Fate, will: &Fate) -> Option<String> {
    if was.verdict == Verdict::Other {
        return None;
    }
    if was.verdict != will.verdict {
        return Some(format!("{} → {}", was.verdict.as_str(), will.verdict.as_str()));
    }
    if will.verdict != Verdict::Allow {
        return None;
    }
    let differs = |a: &Option<Arc<str>>, b: &Option<Arc<str>>| a.is_some() && b.is_some() && a != b;
    if differs(&was.route, &will.route) {
        return Some("route".to_owned());
    }
    if differs(&was.server, &will.server) {
        return Some("server".to_owned());
    }
    differs(&was.targets, &will.targets).then(|| "targets".to_owned())
}

/// What matters for a change.
fn shown(fate: &Fate, change: &str) -> Fate {
    Fate { targets: fate.targets.clone().filter(|_| change == "targets"), ..fate.clone() }
}
