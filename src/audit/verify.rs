//! Proves an export to somebody who has nothing but the file and the public key.
//!
//! Read from the end: the manifest, which must be signed by the trusted key, says what the file must be. Then from the
//! beginning: every byte goes into the digest, every event into its chain. All of these must hold:
//!
//! 1. the digest of everything before the manifest is the one it names; there is nothing behind it;
//! 2. sequences have no gap and times do not go back; each chain leads from its `from` to its `to`;
//! 3. counts fit; a range without an end reaches each chain's head;
//! 4. every checkpoint in the file is signed, follows its predecessor, and names links that the chains really have;
//! 5. with `since`: what that checkpoint, kept elsewhere, says of each chain is still there. A store that was rolled
//!    back, or whose chain was written anew, cannot have it;
//! 6. what a checkpoint has and the file has not any more (a chain, the beginning of one, checkpoints before the first)
//!    is so old that retention may have dropped it. How old that is, checkpoints state ([`super::Horizon`]).
//!
//! 1 finds whatever was done to the file; 2 to 6 what was done to the store before it was exported.

use std::collections::HashMap;
use std::io::{self, BufRead, Seek, SeekFrom};

use ring::digest::{Context, SHA256};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::chain::{Chain, ChainId, Hash, Head, commit};
use super::export::chain_of;
use super::key::PublicKey;
use super::missing::Missing;
use super::statement::{Checkpoint, Manifest, NotSigned, Statement};
use super::{hex, unhex};

/// Longest line that is read.
const MAX_LINE: usize = 16 * 1024 * 1024;

/// What is wrong with an export. Verification ends at the first.
#[derive(Debug, thiserror::Error)]
pub enum Finding {
    /// A chain does not lead where it should.
    #[error("chain {chain}: {what}")]
    Chain {
        /// Which.
        chain: String,
        /// In words.
        what: String,
    },
    /// A checkpoint does not fit.
    #[error("checkpoint {number}: {what}")]
    Checkpoint {
        /// Which.
        number: u64,
        /// In words.
        what: String,
    },
    /// The bytes are not those that were signed.
    #[error("the file is not as it was signed: something was changed, added, removed or moved")]
    Digest,
    /// The file cannot be read.
    #[error("cannot read the export: {0}")]
    Io(#[from] io::Error),
    /// A line is no event.
    #[error("line {line}: not an event of an audit export")]
    Line {
        /// Counted from 1.
        line: u64,
    },
    /// There is no end.
    #[error("{}", no_end(.0))]
    NoEnd(NotSigned),
    /// What was given as `--since` is no checkpoint of the trusted key.
    #[error("--since: {0}")]
    Since(String),
}

fn no_end(why: &NotSigned) -> String {
    match why {
        NotSigned::Key(_) => format!(
            "the manifest is {why}: either the export is not from that installation, or --key is another one's"
        ),
        _ => format!("the export does not end with a signed manifest: it was cut, or is no export; {why}"),
    }
}

/// What was proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whose events.
    pub tenant: String,
    /// Events with payload.
    pub events: u64,
    /// Events that a filter left out.
    pub omitted: u64,
    /// Events whose payload was erased.
    pub erased: u64,
    /// Chains.
    pub chains: usize,
    /// Checkpoints in the file.
    pub checkpoints: u64,
    /// When the export was made.
    pub made_us: u64,
    /// The filter, if there was one.
    pub filter: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    writer: &'a str,
    class: &'a str,
    seq: u64,
    time_us: u64,
    salt: Option<&'a str>,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    commitment: Option<&'a str>,
    omitted: Option<&'a str>,
}

pub(super) struct Follow {
    pub(super) name: String,
    chain: Chain,
    pub(super) from: Head,
    to: (u64, Hash),
    /// Links that checkpoints name: sequence, link, number of the checkpoint.
    expected: Vec<(u64, Hash, u64)>,
    /// How many of `expected` have been passed.
    met: usize,
}

/// Verifies an export. `since`: a signed checkpoint that was kept elsewhere.
///
/// # Errors
/// The first [`Finding`].
pub fn verify<R: BufRead + Seek>(
    mut file: R,
    trusted: &[PublicKey],
    since: Option<&str>,
) -> Result<Report, Finding> {
    let (manifest, end) = manifest(&mut file, trusted)?;
    let mut follows = follows(&manifest)?;
    let mut missing = Missing::default();
    let checkpoints = note_checkpoints(&mut file, end, trusted, &manifest, &mut follows, &mut missing)?;
    if let Some(since) = since {
        note_since(since, trusted, &manifest, &mut follows, &mut missing)?;
    }
    missing.excused(manifest.from_us)?;
    for follow in follows.values_mut() {
        follow.expected.sort_by_key(|e| e.0);
        follow.meet()?;
    }
    file.seek(SeekFrom::Start(0))?;
    let mut digest = Context::new(&SHA256);
    let (mut line, mut number, mut at) = (Vec::new(), 0, 0);
    let (mut events, mut omitted, mut erased) = (0, 0, 0);
    let mut last: Option<(String, ChainId)> = None;
    while at < end {
        read_line(&mut file, &mut line)?;
        at += line.len() as u64;
        number += 1;
        digest.update(&line);
        let bad = || Finding::Line { line: number };
        let text = std::str::from_utf8(&line).map_err(|_| bad())?;
        if is_statement(text) {
            continue;
        }
        let event: Line<'_> = serde_json::from_str(text).map_err(|_| bad())?;
        // Lines of a chain come together: the name is looked at once.
        let same = last.as_ref().is_some_and(|(w, id)| w == event.writer && id.class.as_str() == event.class);
        if !same {
            let id = chain_of(&manifest.tenant, event.writer, event.class).ok_or_else(bad)?;
            last = Some((event.writer.to_owned(), id));
        }
        let id = &last.as_ref().ok_or_else(bad)?.1;
        let follow = follows.get_mut(id).ok_or_else(bad)?;
        let commitment = match (event.salt, event.event, event.commitment, event.omitted) {
            (Some(salt), Some(payload), None, None) => {
                events += 1;
                commit(&unhex(salt).ok_or_else(bad)?, payload.get().as_bytes())
            }
            (None, None, Some(commitment), Some(why)) => {
                match why {
                    "erased" => erased += 1,
                    "filter" => omitted += 1,
                    _ => return Err(bad()),
                }
                unhex(commitment).ok_or_else(bad)?
            }
            _ => return Err(bad()),
        };
        follow.event(event.seq, event.time_us, &commitment)?;
    }
    if hex(digest.finish().as_ref()) != manifest.digest {
        return Err(Finding::Digest);
    }
    for follow in follows.values() {
        follow.ended()?;
    }
    if (events, omitted, erased) != (manifest.events, manifest.omitted, manifest.erased) {
        return Err(Finding::Digest);
    }
    Ok(Report {
        tenant: manifest.tenant,
        events,
        omitted,
        erased,
        chains: manifest.chains.len(),
        checkpoints,
        made_us: manifest.time_us,
        filter: manifest.filter,
    })
}

impl Follow {
    fn wrong(&self, what: impl Into<String>) -> Finding {
        Finding::Chain { chain: self.name.clone(), what: what.into() }
    }

    fn event(&mut self, sequence: u64, time_us: u64, commitment: &Hash) -> Result<(), Finding> {
        let head = self.chain.head();
        if sequence != head.sequence + 1 {
            return Err(self.wrong(format!("event {} is followed by {sequence}", head.sequence)));
        }
        if time_us < head.time_us {
            return Err(self.wrong(format!("event {sequence} lies before its predecessor")));
        }
        self.chain.follow(time_us, commitment);
        self.meet()
    }

    /// Compares with what checkpoints say of the place that has been reached.
    fn meet(&mut self) -> Result<(), Finding> {
        let head = self.chain.head();
        while let Some((sequence, link, number)) = self.expected.get(self.met).copied() {
            if sequence > head.sequence {
                break;
            }
            self.met += 1;
            // Of what lies before the export nothing can be said, here or there.
            if sequence == head.sequence && sequence >= self.from.sequence && link != head.link {
                let what = format!("event {sequence} of chain {} is not the one it was", self.name);
                return Err(Finding::Checkpoint { number, what });
            }
        }
        Ok(())
    }

    fn ended(&self) -> Result<(), Finding> {
        let head = self.chain.head();
        if (head.sequence, head.link) != self.to {
            return Err(self.wrong(format!(
                "ends at {} where {} is due, or with other events",
                head.sequence, self.to.0
            )));
        }
        match self.expected.get(self.met) {
            None => Ok(()),
            Some((sequence, _, number)) => Err(Finding::Checkpoint {
                number: *number,
                what: format!(
                    "it has event {sequence} of chain {}, which ends at {}",
                    self.name, head.sequence
                ),
            }),
        }
    }
}

/// The last line, and where it begins.
fn manifest<R: BufRead + Seek>(file: &mut R, trusted: &[PublicKey]) -> Result<(Manifest, u64), Finding> {
    let length = file.seek(SeekFrom::End(0))?;
    let malformed = || Finding::NoEnd(NotSigned::Malformed);
    let mut window = 64 * 1024;
    loop {
        let begin = length.saturating_sub(window);
        file.seek(SeekFrom::Start(begin))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        let body = tail.strip_suffix(b"\n").ok_or_else(malformed)?;
        let start = match memchr::memrchr(b'\n', body) {
            Some(at) => at + 1,
            None if begin == 0 => 0,
            None if window > MAX_LINE as u64 => return Err(malformed()),
            None => {
                window *= 8;
                continue;
            }
        };
        let line = std::str::from_utf8(&body[start..]).map_err(|_| malformed())?;
        return match Statement::verify(line, trusted).map_err(Finding::NoEnd)?.0 {
            Statement::Manifest(manifest) => Ok((manifest, begin + start as u64)),
            // Says what was there at its moment, and nothing about what this file has left out.
            Statement::Checkpoint(_) => Err(malformed()),
        };
    }
}

fn follows(manifest: &Manifest) -> Result<HashMap<ChainId, Follow>, Finding> {
    let mut follows = HashMap::new();
    for state in &manifest.chains {
        let name = format!("{}/{}", state.writer, state.class);
        let wrong = |what: &str| Finding::Chain { chain: name.clone(), what: what.to_owned() };
        let id =
            chain_of(&manifest.tenant, &state.writer, &state.class).ok_or_else(|| wrong("no such chain"))?;
        let (Some(from), Some(to)) = (state.from.hash(), state.to.hash()) else {
            return Err(wrong("the manifest names no link"));
        };
        let begin = Head { sequence: state.from.sequence, link: from, time_us: 0 };
        if begin.sequence == 0 && begin.link != id.genesis().link {
            return Err(wrong("does not begin at its beginning"));
        }
        if manifest.to_us.is_none() && state.head.as_ref().is_some_and(|head| *head != state.to) {
            return Err(wrong("events at its end are missing from the store"));
        }
        let follow = Follow {
            chain: Chain::at(&id, begin),
            from: begin,
            to: (state.to.sequence, to),
            expected: Vec::new(),
            met: 0,
            name: name.clone(),
        };
        if follows.insert(id, follow).is_some() {
            return Err(wrong("is there twice"));
        }
    }
    Ok(follows)
}

fn is_statement(line: &str) -> bool {
    line.starts_with(r#"{"statement":"#)
}

/// Reads the checkpoints of the file, and notes what they say.
fn note_checkpoints<R: BufRead + Seek>(
    file: &mut R,
    end: u64,
    trusted: &[PublicKey],
    manifest: &Manifest,
    follows: &mut HashMap<ChainId, Follow>,
    missing: &mut Missing,
) -> Result<u64, Finding> {
    let Some(named) = &manifest.checkpoint else { return Ok(0) };
    file.seek(SeekFrom::Start(0))?;
    let (mut line, mut at, mut count) = (Vec::new(), 0, 0);
    let mut last: Option<(u64, Hash)> = None;
    while at < end {
        read_line(file, &mut line)?;
        at += line.len() as u64;
        let Some(text) = std::str::from_utf8(&line).ok().filter(|text| is_statement(text)) else {
            // Checkpoints come first: one look at the file is enough.
            break;
        };
        let number = last.map_or(0, |l| l.0) + 1;
        let wrong = |number, what: &str| Finding::Checkpoint { number, what: what.to_owned() };
        let (statement, hash) =
            Statement::verify(text.trim_end(), trusted).map_err(|e| wrong(number, &e.to_string()))?;
        let Statement::Checkpoint(checkpoint) = statement else {
            return Err(wrong(number, "not a checkpoint"));
        };
        let number = checkpoint.number;
        if checkpoint.tenant != manifest.tenant {
            return Err(wrong(number, "it is another tenant's"));
        }
        if let Some((before, hash)) = last
            && (number != before + 1 || checkpoint.previous.as_deref() != Some(&*hex(&hash)))
        {
            return Err(wrong(number, "does not follow the one before it"));
        }
        if last.is_none() {
            missing.first(number, checkpoint.time_us);
        }
        note(&checkpoint, manifest.to_us.is_some(), follows, missing)?;
        last = Some((number, hash));
        count += 1;
    }
    match last {
        Some((number, hash)) if number == named.number && hex(&hash) == named.hash => Ok(count),
        _ => Err(Finding::Checkpoint {
            number: named.number,
            what: "the manifest names it, and it is not there".to_owned(),
        }),
    }
}

fn note_since(
    since: &str,
    trusted: &[PublicKey],
    manifest: &Manifest,
    follows: &mut HashMap<ChainId, Follow>,
    missing: &mut Missing,
) -> Result<(), Finding> {
    let wrong = |what: String| Finding::Since(what);
    let (statement, hash) = Statement::verify(since.trim(), trusted).map_err(|e| wrong(e.to_string()))?;
    let Statement::Checkpoint(checkpoint) = statement else {
        return Err(wrong("not a checkpoint".to_owned()));
    };
    if checkpoint.tenant != manifest.tenant {
        return Err(wrong("it is another tenant's".to_owned()));
    }
    // Clocks of whoever signs and whoever exports differ: an export that has the checkpoint was made after it.
    let has_it = manifest.checkpoint.as_ref().is_some_and(|last| last.number >= checkpoint.number);
    if !has_it && manifest.time_us < checkpoint.time_us {
        return Err(wrong(
            "the export was made before the checkpoint, and can say nothing of it: make another export, or give an \
             earlier checkpoint"
                .to_owned(),
        ));
    }
    // The store must still have it, or a later one: checkpoints are numbered without gaps.
    match &manifest.checkpoint {
        Some(last) if last.number < checkpoint.number => {
            return Err(Finding::Checkpoint {
                number: checkpoint.number,
                what: format!("the store knows only {}: it was rolled back", last.number),
            });
        }
        Some(last) if last.number == checkpoint.number && last.hash != hex(&hash) => {
            return Err(Finding::Checkpoint {
                number: checkpoint.number,
                what: "the store has another one of that number: it was rolled back".to_owned(),
            });
        }
        Some(_) => {}
        None => {
            return Err(Finding::Checkpoint {
                number: checkpoint.number,
                what: "the store has none: it was rolled back".to_owned(),
            });
        }
    }
    note(&checkpoint, false, follows, missing)
}

/// Notes the heads that a checkpoint names. `open`: the export ends early, and may know less than the checkpoint.
fn note(
    checkpoint: &Checkpoint,
    open: bool,
    follows: &mut HashMap<ChainId, Follow>,
    missing: &mut Missing,
) -> Result<(), Finding> {
    missing.states(checkpoint.horizon);
    for state in &checkpoint.chains {
        let name = format!("{}/{}", state.writer, state.class);
        let wrong = |what: String| Finding::Checkpoint { number: checkpoint.number, what };
        let id = chain_of(&checkpoint.tenant, &state.writer, &state.class);
        let (Some(id), Some(link)) = (id, state.to.hash()) else {
            return Err(wrong(format!("chain {name} has no link")));
        };
        let Some(follow) = follows.get_mut(&id) else {
            missing.chain(id, name, state, checkpoint);
            continue;
        };
        missing.beginning(&id, follow, state, checkpoint.number);
        if open && state.to.sequence > follow.to.0 {
            continue;
        }
        follow.expected.push((state.to.sequence, link, checkpoint.number));
    }
    Ok(())
}

fn read_line<R: BufRead>(file: &mut R, line: &mut Vec<u8>) -> Result<(), Finding> {
    line.clear();
    let n = io::Read::take(&mut *file, MAX_LINE as u64).read_until(b'\n', line)?;
    if n == 0 || line.last() != Some(&b'\n') {
        return Err(Finding::Digest);
    }
    Ok(())
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
