//! The load generator's own book: every call, what became of it, and which revision served it. What the gateway reports
//! later, such as its audit, is held against this.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// With the answer that was asked for.
    Answered,
    /// With another answer of the gateway.
    Failed {
        /// Its status.
        status: u16,
        /// The beginning of its body.
        message: String,
    },
    /// Without a whole answer: whether the call ran is not known.
    Broken(String),
}

/// One call.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// `x-request-id` of the answer; a broken call has none.
    pub request_id: Option<String>,
    /// Nanoseconds since the Unix epoch at which it was sent.
    pub sent: u64,
    /// The same, for the end of its answer.
    pub done: u64,
    /// Number of the replica that it was sent to.
    pub replica: usize,
    /// The revision of `x-tollgate-revision`.
    pub revision: Option<u64>,
    /// What the answer shows of the settings in force, if it was looked at.
    pub seen: Option<u64>,
    /// How it ended.
    pub outcome: Outcome,
}

/// A revision that was put in force.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Publish {
    /// Its number.
    pub revision: u64,
    /// The variant of the settings that it has.
    pub variant: u64,
    /// Nanoseconds since the Unix epoch at which it was acknowledged.
    pub acknowledged: u64,
}

/// The book of one caller, in the order of its calls.
pub type Pages = Vec<Entry>;

/// The books of all callers.
#[derive(Debug, Default)]
pub struct Ledger {
    pages: Vec<Pages>,
}

/// What the book says of revisions.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Served {
    /// Answers that name a revision.
    pub named: u64,
    /// Answers that name none.
    pub unnamed: u64,
    /// Revisions seen.
    pub revisions: usize,
    /// Times a caller was served an older revision than before by the same replica.
    pub backwards: u64,
    /// Answers whose settings are not those of the revision that they name.
    pub torn: u64,
    /// Answers whose settings were looked at.
    pub looked_at: u64,
    /// Longest time, in seconds, for which a revision was acknowledged and a call sent later was served an older one.
    pub behind: f64,
}

impl Ledger {
    /// Of these books.
    pub fn new(pages: Vec<Pages>) -> Self {
        Self { pages }
    }

    /// Of several runs.
    pub fn merge(ledgers: impl IntoIterator<Item = Self>) -> Self {
        Self { pages: ledgers.into_iter().flat_map(|ledger| ledger.pages).collect() }
    }

    /// All calls.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.pages.iter().flatten()
    }

    /// How many calls there were.
    pub fn calls(&self) -> u64 {
        self.entries().count() as u64
    }

    /// How many of them ended well.
    pub fn answered(&self) -> u64 {
        self.entries().filter(|e| e.outcome == Outcome::Answered).count() as u64
    }

    /// Those that did not.
    pub fn failures(&self) -> Vec<&Entry> {
        self.entries().filter(|e| e.outcome != Outcome::Answered).collect()
    }

    /// What went wrong, by what it was.
    pub fn reasons(&self) -> BTreeMap<String, u64> {
        let mut reasons = BTreeMap::new();
        for entry in self.failures() {
            let reason = match &entry.outcome {
                Outcome::Answered => continue,
                Outcome::Failed { status, message } => format!("{status}: {message}"),
                Outcome::Broken(why) => format!("broken: {why}"),
            };
            *reasons.entry(reason).or_default() += 1;
        }
        reasons
    }

    /// Ids of the calls that were answered: acknowledged.
    pub fn acknowledged(&self) -> HashSet<&str> {
        let answered = self.entries().filter(|e| e.outcome == Outcome::Answered);
        answered.filter_map(|e| e.request_id.as_deref()).collect()
    }

    /// Calls that may or may not have run: no answer arrived.
    pub fn unknown(&self) -> u64 {
        self.entries().filter(|e| matches!(e.outcome, Outcome::Broken(_))).count() as u64
    }

    /// Holds each answer against what was published; `publishes` in the order of their acknowledgement.
    pub fn served(&self, publishes: &[Publish]) -> Served {
        let variants: HashMap<u64, u64> = publishes.iter().map(|p| (p.revision, p.variant)).collect();
        let mut served = Served::default();
        let mut revisions = HashSet::new();
        for pages in &self.pages {
            let mut last: HashMap<usize, u64> = HashMap::new();
            for entry in pages.iter().filter(|e| e.request_id.is_some()) {
                let Some(revision) = entry.revision else {
                    served.unnamed += 1;
                    continue;
                };
                served.named += 1;
                revisions.insert(revision);
                let before = last.insert(entry.replica, revision);
                served.backwards += u64::from(before.is_some_and(|before| before > revision));
                if let (Some(seen), Some(variant)) = (entry.seen, variants.get(&revision)) {
                    served.looked_at += 1;
                    served.torn += u64::from(seen != *variant);
                }
                // The first newer one: it has been in force for longest.
                let next = publishes.partition_point(|p| p.revision <= revision);
                if let Some(newer) = publishes.get(next) {
                    let behind = entry.sent.saturating_sub(newer.acknowledged) as f64 / 1e9;
                    served.behind = served.behind.max(behind);
                }
            }
        }
        served.revisions = revisions.len();
        served
    }

    /// For each of `publishes` and each of these replicas, how many seconds after the acknowledgement a call was sent
    /// that an older revision served; 0 if none was. In order.
    pub fn lags(&self, publishes: &[Publish], replicas: usize) -> Vec<f64> {
        let mut lags = Vec::with_capacity(publishes.len() * replicas);
        for replica in 0..replicas {
            // When each revision was served last.
            let mut last: BTreeMap<u64, u64> = BTreeMap::new();
            for entry in self.entries().filter(|entry| entry.replica == replica) {
                let Some(revision) = entry.revision else { continue };
                let at = last.entry(revision).or_default();
                *at = entry.sent.max(*at);
            }
            for publish in publishes {
                let older = last.range(..publish.revision).map(|(_, at)| *at).max().unwrap_or(0);
                lags.push(older.saturating_sub(publish.acknowledged) as f64 / 1e9);
            }
        }
        lags.sort_by(f64::total_cmp);
        lags
    }

    /// The newest revision that served a call at a replica; 0 if none did.
    pub fn newest(&self, replica: usize) -> u64 {
        let at = self.entries().filter(|entry| entry.replica == replica);
        at.filter_map(|entry| entry.revision).max().unwrap_or(0)
    }
}

/// How an account of calls differs from the ledger.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Difference {
    /// Records of the account.
    pub records: u64,
    /// Calls acknowledged by the gateway.
    pub acknowledged: u64,
    /// Acknowledged calls that the account lacks.
    pub lost: u64,
    /// Calls that it has more than once.
    pub duplicated: u64,
    /// Calls that it has and that were not answered: more than there were of those would be invented ones.
    pub unacknowledged: u64,
    /// Some of the lost.
    pub examples: Vec<String>,
}

impl Difference {
    /// Between the ledger and the request ids of an account, one per record.
    pub fn between<'a>(ledger: &Ledger, account: impl IntoIterator<Item = &'a str>) -> Self {
        let acknowledged = ledger.acknowledged();
        let mut difference = Self { acknowledged: acknowledged.len() as u64, ..Self::default() };
        let mut counted: HashMap<&str, u64> = HashMap::new();
        for id in account {
            difference.records += 1;
            *counted.entry(id).or_default() += 1;
        }
        for (id, count) in &counted {
            difference.duplicated += u64::from(*count > 1);
            difference.unacknowledged += u64::from(!acknowledged.contains(id));
        }
        for id in acknowledged.iter().filter(|id| !counted.contains_key(*id)) {
            difference.lost += 1;
            if difference.examples.len() < 10 {
                difference.examples.push((*id).to_owned());
            }
        }
        difference
    }

    /// In one line.
    pub fn text(&self) -> String {
        format!(
            "{} lost, {} twice of {} acknowledged; {} records, {} of calls without an answer",
            self.lost, self.duplicated, self.acknowledged, self.records, self.unacknowledged
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn entry(id: &str, sent: u64, revision: u64, seen: u64) -> Entry {
        Entry {
            request_id: Some(id.to_owned()),
            sent: sent * SECOND,
            done: sent * SECOND + 1,
            replica: 0,
            revision: Some(revision),
            seen: Some(seen),
            outcome: Outcome::Answered,
        }
    }

    fn publish(revision: u64, acknowledged: u64) -> Publish {
        Publish { revision, variant: revision * 10, acknowledged: acknowledged * SECOND }
    }

    #[test]
    fn staleness_torn_settings_and_steps_back_are_found() {
        let publishes = [publish(1, 0), publish(2, 10), publish(3, 20)];
        let good =
            vec![entry("a", 1, 1, 10), entry("b", 10, 1, 10), entry("c", 11, 2, 20), entry("d", 21, 3, 30)];
        let served = Ledger::new(vec![good]).served(&publishes);
        assert_eq!((served.named, served.backwards, served.torn, served.revisions), (4, 0, 0, 3));
        assert_eq!(served.behind, 0.0);
        let bad = vec![entry("a", 25, 3, 30), entry("b", 26, 2, 30), entry("c", 27, 1, 10)];
        let served = Ledger::new(vec![bad]).served(&publishes);
        assert_eq!((served.backwards, served.torn), (2, 1));
        assert_eq!(served.behind, 17.0, "revision 2 was in force since 10, and at 27 the first was served");
    }

    #[test]
    fn lags_are_of_each_publication_at_each_replica() {
        let publishes = [publish(1, 0), publish(2, 10), publish(3, 20)];
        let mut other = entry("c", 14, 1, 10);
        other.replica = 1;
        let pages = vec![entry("a", 11, 1, 10), entry("b", 20, 2, 20), entry("d", 21, 3, 30), other];
        let ledger = Ledger::new(vec![pages]);
        assert_eq!(ledger.lags(&publishes, 2), [0.0, 0.0, 0.0, 0.0, 1.0, 4.0]);
        assert_eq!((ledger.newest(0), ledger.newest(1), ledger.newest(2)), (3, 1, 0));
    }

    #[test]
    fn two_replicas_need_not_move_together() {
        let publishes = [publish(1, 0), publish(2, 10)];
        let mut other = entry("b", 10, 1, 10);
        other.replica = 1;
        let served = Ledger::new(vec![vec![entry("a", 10, 2, 20), other]]).served(&publishes);
        assert_eq!(served.backwards, 0);
    }

    #[test]
    fn lost_duplicated_and_unacknowledged_records_are_found() {
        let ledger = Ledger::new(vec![vec![entry("a", 1, 1, 1), entry("b", 2, 1, 1), entry("c", 3, 1, 1)]]);
        let difference = Difference::between(&ledger, ["a", "a", "b", "x"]);
        assert_eq!((difference.lost, difference.duplicated, difference.unacknowledged), (1, 1, 1));
        assert_eq!(difference.examples, ["c"]);
    }
}
