use std::io::Cursor;

use super::super::chain::Linked;
use super::super::event::{Class, Event};
use super::super::export::{Exporter, Range, Stored};
use super::super::key::AuditKey;
use super::super::payload;
use super::super::segment::WriterId;
use super::super::statement::{ChainState, Mark};
use super::*;

/// A store as small as a test needs it.
#[derive(Clone)]
struct Rows {
    id: ChainId,
    rows: Vec<Row>,
}

#[derive(Clone)]
struct Row {
    linked: Linked,
    content: Option<([u8; 16], String)>,
}

fn rows(writer: u8, class: Class, count: u64) -> Rows {
    let id = ChainId { tenant: "acme".to_owned(), writer: WriterId::from_bytes([writer; 16]), class };
    let mut chain = Chain::at(&id, id.genesis());
    let rows = (0..count)
        .map(|i| {
            let name = format!("tool_{}", i % 7);
            let event = Event {
                name: Some(&name),
                principal: Some("ann"),
                status: Some(200),
                ..Event::new(0, "acme", class)
            };
            let mut text = String::new();
            payload::render(&event, &mut text);
            let salt = [i as u8 ^ writer; 16];
            let linked = chain.append(1_000_000 * (i + 1), &salt, text.as_bytes());
            Row { linked, content: Some((salt, text)) }
        })
        .collect();
    Rows { id, rows }
}

fn store() -> Vec<Rows> {
    vec![rows(1, Class::Control, 12), rows(1, Class::Data, 40), rows(2, Class::Data, 25)]
}

fn checkpoint(store: &[Rows], upto: usize, number: u64, previous: Option<&str>) -> Statement {
    Statement::Checkpoint(Checkpoint {
        tenant: "acme".to_owned(),
        number,
        time_us: 1,
        horizon: None,
        previous: previous.map(|line| hex(&super::super::statement::statement_hash(line).unwrap())),
        chains: store
            .iter()
            .map(|c| {
                let head = c
                    .rows
                    .get(upto.wrapping_sub(1))
                    .or(c.rows.last())
                    .map_or(c.id.genesis(), |r| r.linked.head);
                ChainState {
                    writer: c.id.writer.to_string(),
                    class: c.id.class.as_str().to_owned(),
                    from: Mark::new(0, &c.id.genesis().link),
                    to: Mark::new(head.sequence, &head.link),
                    head: None,
                    time_us: None,
                }
            })
            .collect(),
    })
}

/// Exports what a store says, whether it is sound or not. Heads are a table of their own and stay as they were.
fn export(
    store: &[Rows],
    heads: &[Head],
    checkpoints: &[String],
    key: &AuditKey,
    shown: impl Fn(&str) -> bool,
) -> Vec<u8> {
    let mut out = Vec::new();
    let mut exporter = Exporter::new("acme", Range::default());
    for (i, line) in checkpoints.iter().enumerate() {
        let hash = super::super::statement::statement_hash(line).unwrap();
        exporter.checkpoint(line, i as u64 + 1, &hash, &mut out);
    }
    for (chain, head) in store.iter().zip(heads) {
        exporter.chain(&chain.id, chain.id.genesis(), *head);
        for row in &chain.rows {
            let stored = Stored {
                sequence: row.linked.head.sequence,
                time_us: row.linked.head.time_us,
                commitment: row.linked.commitment,
                link: row.linked.head.link,
                content: row.content.as_ref().map(|(salt, text)| (*salt, text.as_str())),
            };
            let shown = row.content.as_ref().is_some_and(|(_, text)| shown(text));
            exporter.event(&stored, shown, &mut out);
        }
    }
    exporter.finish(key, 5, &mut out);
    out
}

fn heads(store: &[Rows]) -> Vec<Head> {
    store.iter().map(|c| c.rows.last().unwrap().linked.head).collect()
}

fn check(file: &[u8], key: &AuditKey, since: Option<&str>) -> Result<Report, Finding> {
    verify(Cursor::new(file), &[key.public()], since)
}

fn two_checkpoints(store: &[Rows], key: &AuditKey) -> Vec<String> {
    let first = checkpoint(store, 5, 1, None).sign(key);
    let second = checkpoint(store, 20, 2, Some(&first)).sign(key);
    vec![first, second]
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

#[test]
fn an_export_is_proved_also_with_a_filter_and_after_an_erasure() {
    let key = AuditKey::ephemeral();
    let mut store = store();
    let checkpoints = two_checkpoints(&store, &key);
    let before = heads(&store);
    store[1].rows[3].content = None;
    let file = export(&store, &before, &checkpoints, &key, |text| !text.contains("tool_1"));
    let report = check(&file, &key, Some(&checkpoints[0])).unwrap();
    assert_eq!(report.events + report.omitted + report.erased, 77);
    assert_eq!((report.erased, report.chains, report.checkpoints), (1, 3, 2));
    assert!(report.omitted > 5);
    let text = String::from_utf8(file).unwrap();
    assert!(!text.contains("tool_1\""), "what the filter left out says nothing");
}

#[test]
fn clocks_alone_do_not_tell_whether_an_export_has_a_checkpoint() {
    let key = AuditKey::ephemeral();
    let store = store();
    let first = checkpoint(&store, 5, 1, None).sign(&key);
    // Whoever signed it has a clock that is ahead of the exporter's, which says 5.
    let Statement::Checkpoint(later) = checkpoint(&store, 20, 2, Some(&first)) else { unreachable!() };
    let second = Statement::Checkpoint(Checkpoint { time_us: 9, ..later }).sign(&key);
    let with = export(&store, &heads(&store), &[first.clone(), second.clone()], &key, |_| true);
    check(&with, &key, Some(&second)).unwrap();
    let without = export(&store, &heads(&store), std::slice::from_ref(&first), &key, |_| true);
    assert!(matches!(check(&without, &key, Some(&second)), Err(Finding::Since(_))));
}

/// Whatever is done to the file by somebody without the key.
#[test]
fn a_thousand_tamperings_with_the_file_are_found() {
    let key = AuditKey::ephemeral();
    let stranger = AuditKey::ephemeral();
    let store = store();
    let checkpoints = two_checkpoints(&store, &key);
    let sound = export(&store, &heads(&store), &checkpoints, &key, |_| true);
    check(&sound, &key, None).unwrap();
    let lines: Vec<&[u8]> = sound.split_inclusive(|b| *b == b'\n').collect();
    let mut random = Random(42);
    let mut done = [0; 9];
    while done.iter().sum::<usize>() < 1000 {
        let what = random.below(9);
        let mut changed = lines.clone();
        let at = random.below(lines.len());
        let other = random.below(lines.len());
        let mut made: Vec<u8>;
        match what {
            // One bit anywhere.
            0 => {
                made = sound.clone();
                let byte = random.below(made.len());
                made[byte] ^= 1 << random.below(8);
            }
            // A whole line, gone, twice, moved, or exchanged.
            1 => {
                changed.remove(at);
                made = changed.concat();
            }
            2 => {
                changed.insert(other, lines[at]);
                made = changed.concat();
            }
            3 => {
                changed.swap(at, other);
                made = changed.concat();
            }
            // Cut anywhere, or at a line.
            4 => made = sound[..random.below(sound.len())].to_vec(),
            5 => made = lines[..at].concat(),
            // A value that keeps the file well-formed.
            6 => {
                let text = std::str::from_utf8(lines[at]).unwrap();
                made = lines[..at].concat();
                made.extend_from_slice(text.replace("ann", "bob").replace("200", "403").as_bytes());
                made.extend_from_slice(&lines[at + 1..].concat());
            }
            // Ended by a checkpoint, which is no end.
            7 => {
                made = lines[..at].concat();
                made.extend_from_slice(checkpoints[1].as_bytes());
                made.push(b'\n');
            }
            // Signed anew with another key, with or without a change.
            _ => {
                let mut forged = store.clone();
                if at.is_multiple_of(2) {
                    forged[1].rows.truncate(20 + at % 20);
                }
                made = export(&forged, &heads(&forged), &checkpoints, &stranger, |_| true);
            }
        }
        if made == sound {
            continue;
        }
        done[what] += 1;
        assert!(check(&made, &key, None).is_err(), "tampering {what} at {at}, {other} was not found");
    }
    assert!(done.iter().all(|n| *n > 50), "{done:?}");
    println!(
        "audit: {} tamperings with an export, {done:?} of each kind, all found",
        done.iter().sum::<usize>()
    );
}

/// Whatever is done to the store by somebody who can write to its tables, before an export that is signed properly.
#[test]
fn a_thousand_tamperings_with_the_store_are_found() {
    let key = AuditKey::ephemeral();
    let store = store();
    let checkpoints = two_checkpoints(&store, &key);
    let heads = heads(&store);
    let mut random = Random(7);
    for round in 0..1000 {
        let mut forged = store.clone();
        let mut kept = checkpoints.clone();
        let mut told = heads.clone();
        let chain = random.below(3);
        let rows = &mut forged[chain].rows;
        let (at, other) = (random.below(rows.len()), random.below(rows.len()));
        match random.below(8) {
            0 => rows[at].content.as_mut().unwrap().1 = r#"{"principal":"bob"}"#.to_owned(),
            1 => rows[at].content.as_mut().unwrap().0[3] ^= 1,
            2 => {
                rows.remove(at);
            }
            3 => {
                let row = rows[at].clone();
                rows.insert(at, row);
            }
            4 if at != other => rows.swap(at, other),
            5 => rows[at].linked.head.time_us += 1,
            // Erased without keeping what was committed to.
            6 => {
                rows[at].content = None;
                rows[at].linked.commitment[5] ^= 1;
            }
            // Everything computed anew from here on, head included; the checkpoints stay, or go with it.
            _ => {
                let at = at.min(4);
                rows[at].content.as_mut().unwrap().1 = r#"{"principal":"bob"}"#.to_owned();
                let id = forged[chain].id.clone();
                let mut again = Chain::at(&id, id.genesis());
                for row in &mut forged[chain].rows {
                    let (salt, text) = row.content.clone().unwrap();
                    row.linked = again.append(row.linked.head.time_us, &salt, text.as_bytes());
                }
                told[chain] = again.head();
                if other % 2 == 0 {
                    kept.clear();
                }
            }
        }
        let file = export(&forged, &told, &kept, &key, |_| true);
        // The checkpoint was kept elsewhere.
        assert!(check(&file, &key, Some(&checkpoints[1])).is_err(), "round {round}");
    }
    println!("audit: 1000 tamperings with the store before an export, all found");
}

#[test]
fn a_store_that_was_rolled_back_is_found_by_the_checkpoint_that_was_kept() {
    let key = AuditKey::ephemeral();
    let store = store();
    let checkpoints = two_checkpoints(&store, &key);
    let mut old = store.clone();
    for chain in &mut old {
        chain.rows.truncate(8);
    }
    // By itself a backup is sound.
    let file = export(&old, &heads(&old), &checkpoints[..1], &key, |_| true);
    check(&file, &key, None).unwrap();
    check(&file, &key, Some(&checkpoints[0])).unwrap();
    assert!(matches!(check(&file, &key, Some(&checkpoints[1])), Err(Finding::Checkpoint { number: 2, .. })));
    // And one that went on differently since.
    let mut other = store.clone();
    other[1] = rows(1, Class::Data, 60);
    other[1].rows[10].content.as_mut().unwrap().1 = "{}".to_owned();
    let id = other[1].id.clone();
    let mut chain = Chain::at(&id, id.genesis());
    for row in &mut other[1].rows {
        let (salt, text) = row.content.clone().unwrap();
        row.linked = chain.append(row.linked.head.time_us, &salt, text.as_bytes());
    }
    let again = two_checkpoints(&other, &key);
    let file = export(&other, &heads(&other), &again, &key, |_| true);
    check(&file, &key, None).unwrap();
    let found = check(&file, &key, Some(&checkpoints[1]));
    assert!(matches!(found, Err(Finding::Checkpoint { .. })), "{found:?}");
    assert!(matches!(check(&file, &key, Some("{}")), Err(Finding::Since(_))));
}

#[test]
fn a_chain_whose_beginning_was_dropped_is_proved_from_where_it_goes_on() {
    let key = AuditKey::ephemeral();
    let store = store();
    let checkpoints = two_checkpoints(&store, &key);
    let mut out = Vec::new();
    let mut exporter = Exporter::new("acme", Range { from_us: Some(11_000_000), ..Range::default() });
    for (i, line) in checkpoints.iter().enumerate() {
        let hash = super::super::statement::statement_hash(line).unwrap();
        exporter.checkpoint(line, i as u64 + 1, &hash, &mut out);
    }
    for chain in &store {
        exporter.chain(&chain.id, chain.rows[9].linked.head, chain.rows.last().unwrap().linked.head);
        for row in &chain.rows[10..] {
            let (salt, text) = row.content.as_ref().unwrap();
            let head = row.linked.head;
            let stored = Stored {
                sequence: head.sequence,
                time_us: head.time_us,
                commitment: row.linked.commitment,
                link: head.link,
                content: Some((*salt, text)),
            };
            exporter.event(&stored, true, &mut out);
        }
    }
    exporter.finish(&key, 5, &mut out);
    let report = check(&out, &key, Some(&checkpoints[1])).unwrap();
    assert_eq!(report.events, 47);
}
