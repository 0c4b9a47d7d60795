//! Credentials that must not be accepted any more, whatever their signature says. Asked on every request.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::Deserialize;

use crate::auth::LineError;
use crate::auth::records::{self, Timestamp};

/// The most entries of one list.
const MAX_ENTRIES: usize = 1_000_000;

/// What is revoked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RevocationTarget {
    /// One token by its `jti`, or one API key by its id (issuer `key`).
    Id(String),
    /// Every credential of a principal, by its whole id (`corp|alice`).
    Principal(String),
    /// Every token with this `sub`.
    Subject(String),
}

/// One entry of the list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RevocationRecord {
    /// What is revoked.
    pub target: RevocationTarget,
    /// Only credentials of this issuer, by its configured name. None: of any.
    pub issuer: Option<String>,
    /// Only credentials issued at or before this moment; those that do not say when they were issued count as earlier.
    /// Not for [`RevocationTarget::Id`].
    pub before: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRecord {
    jti: Option<String>,
    sub: Option<String>,
    principal: Option<String>,
    issuer: Option<String>,
    before: Option<Timestamp>,
    /// For people.
    #[serde(rename = "note")]
    _note: Option<String>,
}

impl RawRecord {
    fn check(self) -> Result<RevocationRecord, String> {
        let target = match (self.jti, self.sub, self.principal) {
            (Some(id), None, None) => RevocationTarget::Id(id),
            (None, Some(sub), None) => RevocationTarget::Subject(sub),
            (None, None, Some(id)) => RevocationTarget::Principal(id),
            _ => return Err("exactly one of `jti`, `sub` and `principal` is expected".to_owned()),
        };
        let record = RevocationRecord { target, issuer: self.issuer, before: self.before };
        record.check()?;
        Ok(record)
    }
}

impl RevocationRecord {
    /// Reads one record: a JSON object of the form of a revocation file's lines.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str::<RawRecord>(text).map_err(|e| e.to_string())?.check()
    }

    fn check(&self) -> Result<(), String> {
        let name = match &self.target {
            RevocationTarget::Id(_) if self.before.is_some() => {
                return Err("`before` makes no sense with `jti`".to_owned());
            }
            RevocationTarget::Id(name)
            | RevocationTarget::Principal(name)
            | RevocationTarget::Subject(name) => name,
        };
        if name.is_empty() { Err("an empty name revokes nothing".to_owned()) } else { Ok(()) }
    }
}

/// What is asked about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claimed<'a> {
    pub(crate) issuer: &'a str,
    pub(crate) id: Option<&'a str>,
    pub(crate) subject: Option<&'a str>,
    pub(crate) principal: &'a str,
    pub(crate) issued_at: Option<u64>,
}

/// An immutable list of revocations.
#[derive(Clone, Debug, Default)]
pub struct RevocationList {
    ids: Entries,
    principals: Entries,
    subjects: Entries,
}

type Entries = HashMap<Box<str>, Vec<Entry>>;

#[derive(Clone, Debug)]
struct Entry {
    issuer: Option<Box<str>>,
    before: Option<u64>,
}

impl RevocationList {
    /// Parses a list (YAML sequence or JSON lines) of `{jti | sub | principal, issuer?, before?, note?}`. An error
    /// anywhere fails the whole: a skipped line would let somebody in.
    pub fn parse(text: &str) -> Result<Self, Vec<LineError>> {
        Self::compile(records::build(records::parse::<RawRecord>(text)?, RawRecord::check)?)
    }

    /// Builds a list from records; in errors `line` is the position, from 1.
    pub fn build(records: Vec<RevocationRecord>) -> Result<Self, Vec<LineError>> {
        Self::compile(records.into_iter().enumerate().map(|(i, r)| (i + 1, r)).collect())
    }

    /// Builds a list of what of these records can be taken, and says what cannot, by position from 1. For records that come
    /// one by one from elsewhere: one that makes no sense must not lift the others.
    pub fn sound(records: Vec<RevocationRecord>) -> (Self, Vec<LineError>) {
        let (mut list, mut errors) = (Self::default(), Vec::new());
        for (i, record) in records.into_iter().enumerate() {
            let added = match i < MAX_ENTRIES {
                true => list.add(record),
                false => Err(format!("more than {MAX_ENTRIES} entries")),
            };
            if let Err(problem) = added
                && errors.len() < records::MAX_ERRORS
            {
                errors.push(LineError { line: i + 1, problem });
            }
        }
        (list, errors)
    }

    fn compile(records: Vec<(usize, RevocationRecord)>) -> Result<Self, Vec<LineError>> {
        if records.len() > MAX_ENTRIES {
            return Err(vec![LineError {
                line: MAX_ENTRIES,
                problem: format!("more than {MAX_ENTRIES} entries"),
            }]);
        }
        let mut list = Self::default();
        records::build(records, |record| list.add(record))?;
        Ok(list)
    }

    fn add(&mut self, record: RevocationRecord) -> Result<(), String> {
        record.check()?;
        let before = record.before.map(|at| at.0);
        let (entries, name) = match record.target {
            RevocationTarget::Id(name) => (&mut self.ids, name),
            RevocationTarget::Principal(name) => (&mut self.principals, name),
            RevocationTarget::Subject(name) => (&mut self.subjects, name),
        };
        let issuer = record.issuer.map(String::into_boxed_str);
        let entries = entries.entry(name.into_boxed_str()).or_default();
        // Later entries for the same thing can only revoke more.
        match entries.iter_mut().find(|e| e.issuer == issuer) {
            Some(known) => known.before = known.before.zip(before).map(|(a, b)| a.max(b)),
            None => entries.push(Entry { issuer, before }),
        }
        Ok(())
    }

    /// How many things are revoked.
    pub fn len(&self) -> usize {
        [&self.ids, &self.principals, &self.subjects]
            .iter()
            .map(|e| e.values().map(Vec::len).sum::<usize>())
            .sum()
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.principals.is_empty() && self.subjects.is_empty()
    }

    /// Hot: at most three lookups, no allocation.
    pub(crate) fn revokes(&self, claimed: Claimed<'_>) -> bool {
        let hit = |entries: &Entries, name: Option<&str>| {
            !entries.is_empty()
                && name.and_then(|name| entries.get(name)).is_some_and(|entries| {
                    entries.iter().any(|entry| {
                        entry.issuer.as_deref().is_none_or(|issuer| issuer == claimed.issuer)
                            && entry
                                .before
                                .is_none_or(|at| claimed.issued_at.is_none_or(|issued| issued <= at))
                    })
                })
        };
        hit(&self.ids, claimed.id)
            || hit(&self.subjects, claimed.subject)
            || hit(&self.principals, Some(claimed.principal))
    }
}

/// The current list of a tenant. Lives beside the snapshot.
#[derive(Debug, Default)]
pub struct Revocations(ArcSwap<RevocationList>);

impl Revocations {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the list by that of a text; with an error in it, nothing changes.
    pub fn replace_text(&self, text: &str) -> Result<(), Vec<LineError>> {
        self.replace(RevocationList::parse(text)?);
        Ok(())
    }

    /// Replaces the list.
    pub fn replace(&self, list: RevocationList) {
        self.0.store(Arc::new(list));
    }

    /// Adds entries, as a feed of changes brings them. Costs a copy of the list, so changes should come in batches.
    pub fn add(&self, records: Vec<RevocationRecord>) -> Result<(), Vec<LineError>> {
        RevocationList::build(records.clone())?;
        self.0.rcu(|current| {
            let mut list = (**current).clone();
            for record in records.clone() {
                // Checked above; an entry is either good by itself or not.
                let _ = list.add(record);
            }
            list
        });
        Ok(())
    }

    /// How many things are revoked.
    pub fn len(&self) -> usize {
        self.0.load().len()
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.0.load().is_empty()
    }

    pub(crate) fn revokes(&self, claimed: Claimed<'_>) -> bool {
        self.0.load().revokes(claimed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: Claimed<'static> = Claimed {
        issuer: "corp",
        id: Some("t1"),
        subject: Some("alice"),
        principal: "corp|alice",
        issued_at: Some(100),
    };

    fn revokes(text: &str, claimed: Claimed<'_>) -> bool {
        RevocationList::parse(text).unwrap().revokes(claimed)
    }

    #[test]
    fn an_entry_that_makes_no_sense_is_refused_and_lifts_no_other() {
        for bad in [
            r#"{"jti":"t1","before":"2026-01-01T00:00:00Z"}"#,
            r#"{"jti":""}"#,
            r#"{"principal":""}"#,
            r#"{"sub":""}"#,
        ] {
            assert!(RevocationRecord::parse(bad).is_err(), "{bad}");
        }
        let good = RevocationRecord::parse(r#"{"principal":"corp|alice"}"#).unwrap();
        let odd = RevocationRecord { target: RevocationTarget::Principal(String::new()), ..good.clone() };
        let (list, errors) = RevocationList::sound(vec![odd, good]);
        assert!(list.revokes(ALICE));
        assert_eq!((list.len(), errors.len(), errors[0].line), (1, 1, 1));
    }

    #[test]
    fn each_target_is_found() {
        for (text, expected) in [
            ("- jti: t1", true),
            ("- jti: t2", false),
            ("- jti: alice", false),
            ("- sub: alice", true),
            ("- sub: t1", false),
            ("- principal: corp|alice", true),
            ("- principal: alice", false),
            ("- { jti: t1, issuer: corp }", true),
            ("- { jti: t1, issuer: other }", false),
            ("- { sub: alice, before: 99 }", false),
            ("- { sub: alice, before: 100, note: laptop stolen }", true),
            ("- { sub: alice, before: \"1970-01-01T00:02:00Z\" }", true),
            ("", false),
        ] {
            assert_eq!(revokes(text, ALICE), expected, "{text}");
        }
    }

    #[test]
    fn a_credential_that_hides_its_age_counts_as_old() {
        assert!(revokes("- { sub: alice, before: 5 }", Claimed { issued_at: None, ..ALICE }));
    }

    #[test]
    fn entries_for_the_same_thing_only_revoke_more() {
        assert!(revokes("- { sub: alice, before: 100 }\n- { sub: alice, before: 5 }", ALICE));
        assert!(revokes("- { sub: alice }\n- { sub: alice, before: 5 }", ALICE));
        assert!(revokes("- { sub: alice, before: 5 }\n- { sub: alice }", ALICE));
        assert!(revokes("- { sub: alice, issuer: corp }\n- { sub: alice, issuer: x, before: 5 }", ALICE));
    }

    #[test]
    fn a_broken_list_replaces_nothing() {
        let revocations = Revocations::new();
        revocations.replace_text("{\"jti\":\"t1\"}").unwrap();
        for bad in ["- jit: t1", "- {}", "- { jti: a, sub: b }", "- { jti: a, before: 5 }", "- jti: \"\""] {
            assert!(revocations.replace_text(bad).is_err(), "{bad}");
        }
        assert!(revocations.revokes(ALICE));
    }

    #[test]
    fn additions_keep_what_is_there() {
        let revocations = Revocations::new();
        revocations.replace_text("- jti: t0").unwrap();
        assert!(!revocations.revokes(ALICE));
        let target = RevocationTarget::Subject("alice".into());
        revocations.add(vec![RevocationRecord { target, issuer: None, before: None }]).unwrap();
        assert!(revocations.revokes(ALICE));
        assert_eq!(revocations.len(), 2);
    }
}
