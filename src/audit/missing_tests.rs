use std::io::Cursor;

use super::super::chain::{Chain, Head};
use super::super::export::{Exporter, Range, Stored};
use super::super::key::AuditKey;
use super::super::segment::WriterId;
use super::super::statement::{Mark, Statement, statement_hash};
use super::super::verify::{Report, verify};
use super::super::{Class, hex};
use super::*;

/// A chain with an event at each of these times.
#[derive(Clone)]
struct Events {
    id: ChainId,
    events: Vec<(Head, [u8; 32])>,
    /// So many of them are gone.
    gone: usize,
}

const TEXT: &str = r#"{"x":1}"#;

impl Events {
    fn new(writer: u8, class: Class, times: &[u64]) -> Self {
        let id = ChainId { tenant: "acme".to_owned(), writer: WriterId::from_bytes([writer; 16]), class };
        let mut chain = Chain::at(&id, id.genesis());
        let events = times.iter().map(|time| chain.append(*time, &[7; 16], TEXT.as_bytes()));
        let events = events.map(|linked| (linked.head, linked.commitment)).collect();
        Self { id, events, gone: 0 }
    }

    fn head(&self) -> Head {
        self.events.last().unwrap().0
    }

    fn from(&self) -> Head {
        self.gone.checked_sub(1).map_or(self.id.genesis(), |last| self.events[last].0)
    }
}

/// A checkpoint as it was signed.
struct Point<'a> {
    chains: &'a [Events],
    horizon: Option<(u64, u64)>,
    time_us: u64,
}

/// Signs checkpoints that follow each other.
fn sign(key: &AuditKey, points: &[Point<'_>]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for (i, point) in points.iter().enumerate() {
        let state = |chain: &Events| ChainState {
            writer: chain.id.writer.to_string(),
            class: chain.id.class.as_str().to_owned(),
            from: Mark::new(chain.from().sequence, &chain.from().link),
            to: Mark::new(chain.head().sequence, &chain.head().link),
            head: None,
            // Those of before there were horizons know no times.
            time_us: point.horizon.map(|_| chain.head().time_us),
        };
        let statement = Statement::Checkpoint(Checkpoint {
            tenant: "acme".to_owned(),
            number: i as u64 + 1,
            time_us: point.time_us,
            previous: lines.last().map(|line| hex(&statement_hash(line).unwrap())),
            horizon: point.horizon.map(|(control_us, data_us)| Horizon { control_us, data_us }),
            chains: point.chains.iter().map(state).collect(),
        });
        lines.push(statement.sign(key));
    }
    lines
}

/// An export of these chains with the checkpoints from number `first` on, properly signed.
fn exported(key: &AuditKey, chains: &[Events], lines: &[String], first: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut exporter = Exporter::new("acme", Range::default());
    for (i, line) in lines.iter().enumerate().skip(first - 1) {
        exporter.checkpoint(line, i as u64 + 1, &statement_hash(line).unwrap(), &mut out);
    }
    for chain in chains {
        exporter.chain(&chain.id, chain.from(), chain.head());
        for (head, commitment) in &chain.events[chain.gone..] {
            let stored = Stored {
                sequence: head.sequence,
                time_us: head.time_us,
                commitment: *commitment,
                link: head.link,
                content: Some(([7; 16], TEXT)),
            };
            exporter.event(&stored, true, &mut out);
        }
    }
    exporter.finish(key, 1000, &mut out);
    out
}

fn check(file: &[u8], key: &AuditKey, since: Option<&str>) -> Result<Report, Finding> {
    verify(Cursor::new(file), &[key.public()], since)
}

/// Two writers: the first one ended with an event at 200.
fn two() -> [Events; 2] {
    [Events::new(1, Class::Data, &[100, 150, 200]), Events::new(2, Class::Data, &[300, 400, 500])]
}

#[test]
fn a_chain_that_ended_before_the_horizon_may_be_gone_and_no_other() {
    let key = AuditKey::ephemeral();
    let [ended, goes_on] = two();
    let both = [ended, goes_on.clone()];
    for (horizon, class, sound) in [
        // Its last event is to be there yet, and is not.
        ((0, 200), Class::Data, false),
        ((0, 0), Class::Data, false),
        ((0, 201), Class::Data, true),
        // Of each class its own.
        ((201, 0), Class::Data, false),
        ((201, 0), Class::Control, true),
    ] {
        let mut both = both.clone();
        if class == Class::Control {
            both[0] = Events::new(1, Class::Control, &[100, 150, 200]);
        }
        let points = [
            Point { chains: &both, horizon: Some((0, 0)), time_us: 510 },
            Point { chains: std::slice::from_ref(&goes_on), horizon: Some(horizon), time_us: 520 },
        ];
        let lines = sign(&key, &points);
        let file = exported(&key, std::slice::from_ref(&goes_on), &lines, 1);
        let by_itself = check(&file, &key, None);
        assert_eq!(by_itself.is_ok(), sound, "{horizon:?} {class:?}: {by_itself:?}");
        let since = check(&file, &key, Some(&lines[0]));
        assert_eq!(since.is_ok(), sound, "{horizon:?} {class:?}: {since:?}");
    }
}

#[test]
fn without_a_checkpoint_that_states_a_horizon_no_chain_may_be_gone() {
    let key = AuditKey::ephemeral();
    let [ended, goes_on] = two();
    let both = [ended, goes_on.clone()];
    let points = [
        Point { chains: &both, horizon: None, time_us: 510 },
        Point { chains: std::slice::from_ref(&goes_on), horizon: None, time_us: 520 },
    ];
    let lines = sign(&key, &points);
    let file = exported(&key, std::slice::from_ref(&goes_on), &lines, 1);
    assert!(matches!(check(&file, &key, None), Err(Finding::Checkpoint { number: 1, .. })));
    // The next one knows of each when it ended, and so what the older one has may be gone later.
    let points = [
        Point { chains: &both, horizon: None, time_us: 510 },
        Point { chains: &both, horizon: Some((0, 201)), time_us: 520 },
        Point { chains: std::slice::from_ref(&goes_on), horizon: Some((0, 201)), time_us: 530 },
    ];
    let lines = sign(&key, &points);
    let file = exported(&key, std::slice::from_ref(&goes_on), &lines, 1);
    check(&file, &key, None).unwrap();
    check(&file, &key, Some(&lines[0])).unwrap();
}

#[test]
fn the_beginning_of_a_chain_is_gone_only_as_far_as_retention_goes() {
    let key = AuditKey::ephemeral();
    let mut chain = Events::new(2, Class::Data, &[300, 400, 500]);
    // Known with its second event, and then whole.
    let mut short = chain.clone();
    short.events.truncate(2);
    for (horizon, sound) in [(399, false), (400, false), (401, true)] {
        let points = [
            Point { chains: std::slice::from_ref(&short), horizon: Some((0, 0)), time_us: 410 },
            Point { chains: std::slice::from_ref(&chain), horizon: Some((0, horizon)), time_us: 520 },
        ];
        let lines = sign(&key, &points);
        chain.gone = 2;
        let file = exported(&key, std::slice::from_ref(&chain), &lines, 1);
        chain.gone = 0;
        assert_eq!(check(&file, &key, None).is_ok(), sound, "{horizon}");
        assert_eq!(check(&file, &key, Some(&lines[0])).is_ok(), sound, "{horizon}");
    }
}

#[test]
fn the_first_checkpoints_are_gone_only_as_far_as_retention_goes() {
    let key = AuditKey::ephemeral();
    let chains = two();
    for (horizon, sound) in
        [((0, 0), false), ((0, 520), false), ((0, 521), true), ((900, 521), true), ((510, 900), false)]
    {
        let points = [
            Point { chains: &chains, horizon: Some((0, 0)), time_us: 510 },
            Point { chains: &chains, horizon: Some((0, 0)), time_us: 520 },
            Point { chains: &chains, horizon: Some(horizon), time_us: 530 },
        ];
        let lines = sign(&key, &points);
        check(&exported(&key, &chains, &lines, 1), &key, None).unwrap();
        let file = exported(&key, &chains, &lines, 2);
        assert_eq!(check(&file, &key, None).is_ok(), sound, "{horizon:?}");
        // What is kept elsewhere may be older than what the store has.
        assert_eq!(check(&file, &key, Some(&lines[0])).is_ok(), sound, "{horizon:?}");
    }
}
