//! What a server speaks, from what each of its targets was found to speak.
//!
//! Clients cache the era of an origin, so a server must show one stable set even while its replicas differ during a
//! rolling upgrade (MCP.md §2.1): a server speaks what *all* its examined targets speak. A target that is down keeps
//! what was last found about it, so that a flapping replica does not make an era come and go; a target never examined
//! does not count until it is.

use std::sync::Arc;

use bytes::Bytes;

use crate::mcp::version::{Version, Versions};
use crate::upstream::spec::EraHint;
use crate::upstream::target::Member;

/// First revision of the modern era. Revisions are dates, so text order is time order.
pub const FIRST_MODERN: &str = "2026-07-28";
/// Newest revision that a legacy session is opened with.
pub const LATEST_LEGACY: &str = "2025-11-25";

/// What was found about one target.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Findings {
    pub(crate) modern: Option<bool>,
    pub(crate) legacy: Option<bool>,
    /// Revisions, newest first.
    pub(crate) versions: Vec<Arc<str>>,
    pub(crate) discover: Option<Arc<DiscoverEntry>>,
    /// Clock reading of the last complete examination.
    pub(crate) examined: Option<u64>,
    /// Clock reading of the last time the era itself was asked about.
    pub(crate) detected: Option<u64>,
}

/// Which eras a server speaks. `None` is "not known yet".
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Eras {
    /// From 2026-07-28.
    pub modern: Option<bool>,
    /// Up to 2025-11-25.
    pub legacy: Option<bool>,
    /// Revisions that every examined target speaks, newest first.
    pub versions: Vec<Arc<str>>,
}

impl Eras {
    /// The revisions that can be served. An era that was not asked about yet counts as spoken, so that the server
    /// answers for itself; so does every legacy revision of a server of that era, because it negotiates.
    pub fn served(&self) -> Versions {
        let known: Versions = self.versions.iter().filter_map(|v| Version::parse(v)).collect();
        let modern = known.intersection(Versions::MODERN);
        let served = match self.modern {
            Some(false) => Versions::NONE,
            Some(true) if !modern.is_empty() => modern,
            _ => Versions::MODERN,
        };
        let served = if self.legacy == Some(false) { served } else { served.union(Versions::LEGACY) };
        if served.is_empty() { Versions::ALL } else { served }
    }
}

/// A server's own answer to `server/discover`.
#[derive(Clone, Debug, PartialEq)]
pub struct DiscoverEntry {
    /// The JSON of `result`, byte for byte.
    pub result: Bytes,
    /// When it was fetched, in Unix milliseconds.
    pub fetched_at: u64,
}

/// Whether a revision is of the modern era.
pub(crate) fn is_modern(version: &str) -> bool {
    version >= FIRST_MODERN
}

impl Findings {
    /// Records the revisions a target named, newest first and each once.
    pub(crate) fn set_versions<'a>(&mut self, versions: impl Iterator<Item = &'a str>) {
        let mut list: Vec<Arc<str>> = versions.map(Arc::from).collect();
        list.sort_unstable_by(|a, b| b.cmp(a));
        list.dedup();
        self.versions = list;
    }
}

/// The intersection over a server's targets. An explicit hint decides the eras; only the revisions are found out.
pub(crate) fn summarise(hint: EraHint, members: &[Arc<Member>]) -> Eras {
    let mut eras = Eras::default();
    let mut versions: Option<Vec<Arc<str>>> = None;
    for member in members {
        let findings = member.stats.findings.lock();
        eras.modern = both(eras.modern, findings.modern);
        eras.legacy = both(eras.legacy, findings.legacy);
        if findings.versions.is_empty() {
            continue;
        }
        match &mut versions {
            None => versions = Some(findings.versions.clone()),
            Some(common) => common.retain(|v| findings.versions.contains(v)),
        }
    }
    match hint {
        EraHint::Auto => {}
        EraHint::Foreign => (eras.modern, eras.legacy) = (Some(false), Some(false)),
        EraHint::Legacy => (eras.modern, eras.legacy) = (Some(false), Some(true)),
        EraHint::Modern => (eras.modern, eras.legacy) = (Some(true), Some(false)),
    }
    eras.versions = versions.unwrap_or_default();
    eras.versions
        .retain(|v| if is_modern(v) { eras.modern != Some(false) } else { eras.legacy != Some(false) });
    eras
}

/// One "no" is a no; unknown does not count.
fn both(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a && b),
        (known, None) | (None, known) => known,
    }
}

/// The catalogue entry to serve: of the first healthy target that has one, else of the first that has one. The order
/// is that of the spec, so that replicas with different answers do not alternate.
pub(crate) fn entry(members: &[Arc<Member>]) -> Option<Arc<DiscoverEntry>> {
    let found = |healthy: bool| {
        members
            .iter()
            .filter(|m| m.stats.healthy() || !healthy)
            .filter_map(|m| Some((m.rank, m.stats.addr, m.stats.findings.lock().discover.clone()?)))
            .min_by_key(|(rank, addr, _)| (*rank, *addr))
            .map(|(_, _, entry)| entry)
    };
    found(true).or_else(|| found(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_no_is_a_no_and_unknown_does_not_count() {
        assert_eq!(both(None, None), None);
        assert_eq!(both(Some(true), None), Some(true));
        assert_eq!(both(None, Some(false)), Some(false));
        assert_eq!(both(Some(true), Some(false)), Some(false));
        assert_eq!(both(Some(true), Some(true)), Some(true));
    }

    #[test]
    fn versions_are_listed_newest_first_and_once() {
        let mut f = Findings::default();
        f.set_versions(["2025-06-18", "2026-07-28", "2025-06-18"].into_iter());
        assert_eq!(f.versions.iter().map(|v| &**v).collect::<Vec<_>>(), ["2026-07-28", "2025-06-18"]);
        assert!(is_modern("2026-07-28") && !is_modern("2025-11-25"));
    }
}
