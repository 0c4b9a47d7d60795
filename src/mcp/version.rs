//! The revisions of the protocol and the two eras they belong to (MCP.md §0.2, §1).
//!
//! The era, not the revision, decides how a request is served: a *legacy* client opens a session with `initialize`, a
//! *modern* one says its revision in `_meta` of every request. Revisions are dates, so text order is time order.

use std::fmt;

/// Whether revision and capabilities are agreed once per session or stated per request (versioning §Terminology).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Era {
    /// Revisions up to 2025-11-25: `initialize`, sessions, GET and DELETE.
    Legacy,
    /// Revision 2026-07-28 and later: per-request `_meta`, POST only.
    Modern,
}

impl Era {
    /// The name used in logs, metrics and configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Era::Legacy => "legacy",
            Era::Modern => "modern",
        }
    }
}

/// A published revision that the gateway knows, oldest first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Version {
    /// HTTP+SSE.
    V2024_11_05 = 0,
    /// Streamable HTTP, sessions, batches.
    V2025_03_26 = 1,
    /// No batches; the version header is required after `initialize`.
    V2025_06_18 = 2,
    /// Resumable streams by polling; the newest revision with `initialize`.
    V2025_11_25 = 3,
    /// Stateless.
    V2026_07_28 = 4,
}

impl Version {
    /// Every known revision, oldest first.
    pub const ALL: [Version; 5] = [
        Version::V2024_11_05,
        Version::V2025_03_26,
        Version::V2025_06_18,
        Version::V2025_11_25,
        Version::V2026_07_28,
    ];
    /// The newest known revision.
    pub const LATEST: Version = Version::V2026_07_28;
    /// The newest revision that is agreed with `initialize`.
    pub const LATEST_LEGACY: Version = Version::V2025_11_25;
    /// The first revision without `initialize`.
    pub const FIRST_MODERN: Version = Version::V2026_07_28;
    /// What a legacy request without a version header speaks (2025-11-25 transports §Protocol Version Header).
    pub const ASSUMED: Version = Version::V2025_03_26;

    /// The revision of that exact name, if it is known.
    pub fn parse(text: &str) -> Option<Self> {
        Version::ALL.into_iter().find(|v| v.as_str() == text)
    }

    /// The date by which the revision goes on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Version::V2024_11_05 => "2024-11-05",
            Version::V2025_03_26 => "2025-03-26",
            Version::V2025_06_18 => "2025-06-18",
            Version::V2025_11_25 => "2025-11-25",
            Version::V2026_07_28 => "2026-07-28",
        }
    }

    /// The era the revision belongs to.
    pub fn era(self) -> Era {
        if self < Version::FIRST_MODERN { Era::Legacy } else { Era::Modern }
    }

    /// Whether one POST may carry several messages: only 2025-03-26 had batches (2025-06-18 changelog).
    pub fn allows_batches(self) -> bool {
        self == Version::V2025_03_26
    }

    /// The number by which sealed ids carry the revision.
    pub(crate) const fn code(self) -> u8 {
        self as u8
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Version::ALL.get(usize::from(code)).copied()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a revision's name, known or not, sorts into the modern era. The SDKs decide by text order too, so a name
/// that is no date at all (`v999`) counts as modern: its sender owes the modern headers.
pub fn names_modern(text: &str) -> bool {
    text >= Version::FIRST_MODERN.as_str()
}

/// Whether a name is a date later than every revision known here: a client from the future, not noise.
pub fn is_future(text: &str) -> bool {
    let date = text.len() == 10
        && text
            .bytes()
            .enumerate()
            .all(|(i, b)| if i == 4 || i == 7 { b == b'-' } else { b.is_ascii_digit() });
    date && text > Version::LATEST.as_str()
}

/// A set of revisions in one byte: what a route can serve.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Versions(u8);

impl Versions {
    /// Nothing.
    pub const NONE: Versions = Versions(0);
    /// Every known revision: a route that serves both eras.
    pub const ALL: Versions = Versions(0b1_1111);
    /// The revisions with `initialize`.
    pub const LEGACY: Versions = Versions(0b0_1111);
    /// The revisions without.
    pub const MODERN: Versions = Versions(0b1_0000);

    /// Whether the revision is in the set.
    pub fn contains(self, version: Version) -> bool {
        self.0 & (1 << version.code()) != 0
    }

    /// Adds a revision.
    pub fn insert(&mut self, version: Version) {
        self.0 |= 1 << version.code();
    }

    /// The set as a byte.
    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    /// The set that [`Versions::bits`] came from.
    pub(crate) const fn from_bits(bits: u8) -> Self {
        Versions(bits & Versions::ALL.0)
    }

    /// Whether the set has a revision of the era.
    pub fn speaks(self, era: Era) -> bool {
        let of_era = match era {
            Era::Legacy => Versions::LEGACY,
            Era::Modern => Versions::MODERN,
        };
        self.0 & of_era.0 != 0
    }

    /// What both sets have. Clients keep the era per origin, so a route offers what all its targets share (MCP.md §2.1).
    #[must_use]
    pub fn intersection(self, other: Versions) -> Versions {
        Versions(self.0 & other.0)
    }

    /// What either set has.
    #[must_use]
    pub fn union(self, other: Versions) -> Versions {
        Versions(self.0 | other.0)
    }

    /// Whether there is no revision in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The revisions, newest first: the order in which they are offered.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = Version> {
        Version::ALL.into_iter().rev().filter(move |v| self.contains(*v))
    }

    /// The revision to answer `initialize` with: the one asked for if it is legacy and in the set, else the newest
    /// legacy one. `None` if the set has no legacy revision (2025-11-25 lifecycle §Version Negotiation).
    pub fn negotiate(self, requested: &str) -> Option<Version> {
        let legacy = self.intersection(Versions::LEGACY);
        Version::parse(requested).filter(|v| legacy.contains(*v)).or_else(|| legacy.iter().next())
    }
}

impl FromIterator<Version> for Versions {
    fn from_iter<I: IntoIterator<Item = Version>>(versions: I) -> Self {
        let mut set = Versions::NONE;
        versions.into_iter().for_each(|v| set.insert(v));
        set
    }
}

impl fmt::Debug for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_round_trip() {
        for v in Version::ALL {
            assert_eq!(Version::parse(v.as_str()), Some(v));
            assert_eq!(Version::from_code(v.code()), Some(v));
        }
        for wrong in ["", "2025-3-26", "2025-11-25 ", "DRAFT", "2027-01-01"] {
            assert_eq!(Version::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Version::from_code(5), None);
    }

    #[test]
    fn the_era_changes_with_2026_07_28() {
        let eras: Vec<_> = Version::ALL.iter().map(|v| v.era()).collect();
        assert_eq!(eras, [Era::Legacy, Era::Legacy, Era::Legacy, Era::Legacy, Era::Modern]);
        for v in Version::ALL {
            assert_eq!(names_modern(v.as_str()), v.era() == Era::Modern, "{v}");
        }
        assert!(names_modern("v999.0.0") && !names_modern("1900-01-01"));
    }

    #[test]
    fn a_future_revision_is_a_later_date() {
        assert!(is_future("2027-01-31") && is_future("2026-07-29"));
        for no in ["2026-07-28", "2025-11-25", "v999.0.0", "2027-1-31", "2027_01_31", "9999", "２０２７"]
        {
            assert!(!is_future(no), "{no}");
        }
    }

    #[test]
    fn sets_hold_what_was_put_in_and_list_newest_first() {
        let set: Versions = [Version::V2025_03_26, Version::V2026_07_28].into_iter().collect();
        assert_eq!(set.iter().map(Version::as_str).collect::<Vec<_>>(), ["2026-07-28", "2025-03-26"]);
        assert!(set.speaks(Era::Legacy) && set.speaks(Era::Modern));
        assert!(!set.intersection(Versions::MODERN).speaks(Era::Legacy));
        assert_eq!(Versions::LEGACY.union(Versions::MODERN), Versions::ALL);
        assert_eq!(Version::ALL.into_iter().collect::<Versions>(), Versions::ALL);
        for v in Version::ALL {
            assert_eq!(Versions::LEGACY.contains(v), v.era() == Era::Legacy);
        }
    }

    #[test]
    fn initialize_is_never_answered_with_a_modern_revision() {
        let cases = [
            (Versions::ALL, "2025-06-18", Some(Version::V2025_06_18)),
            (Versions::ALL, "2026-07-28", Some(Version::V2025_11_25)),
            (Versions::ALL, "1999-01-01", Some(Version::V2025_11_25)),
            (Versions::MODERN, "2025-06-18", None),
        ];
        for (set, requested, expected) in cases {
            assert_eq!(set.negotiate(requested), expected, "{requested}");
        }
    }
}
