use std::path::Path;

use super::super::event::MAX_BODY;
use super::super::leftover::{leftovers, remove_unused};
use super::*;

const SEGMENT: u64 = 1024 * 1024;

fn settings(dir: &Path) -> Settings {
    Settings {
        dir: dir.to_owned(),
        max_size: 4 * SEGMENT,
        segment_size: SEGMENT,
        durability: Durability::Process,
        on_full: OnFull::Refuse,
    }
}

fn open(dir: &Path) -> Spool {
    Spool::open(settings(dir), WriterId::fresh(), 0).unwrap()
}

/// The same where earlier runs left files.
fn open_beside(dir: &Path) -> Spool {
    Spool::open(settings(dir), WriterId::fresh(), size_of(dir).unwrap()).unwrap()
}

fn read_all(spool: &Spool, from: Position) -> (Vec<Vec<u8>>, Position) {
    let mut found = Vec::new();
    let to = spool.read(from, usize::MAX, |_, _, payload| found.push(payload.to_vec()));
    (found, to)
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("{what}");
}

#[test]
fn records_come_out_in_order_over_many_segments_and_files_go_with_release() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let mut at = Position::default();
    let (mut written, mut seen) = (0u32, 0u32);
    for _ in 0..60 {
        for _ in 0..50 {
            let mut record = [0; 3000];
            record[..4].copy_from_slice(&written.to_le_bytes());
            eventually("room", || spool.append(&record, None).is_ok());
            written += 1;
        }
        let (found, to) = read_all(&spool, at);
        for record in found {
            assert_eq!(u32::from_le_bytes(record[..4].try_into().unwrap()), seen);
            seen += 1;
        }
        assert!(to > at);
        at = to;
        spool.release(at);
    }
    assert_eq!((written, seen), (3000, 3000));
    eventually("files", || std::fs::read_dir(dir.path()).unwrap().count() <= 3);
}

/// The promise: whoever has credit finds room, whatever the sizes of the records and however many write.
#[test]
fn credit_always_finds_room_and_no_more_is_given_than_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let threads: Vec<_> = (0..4u64)
        .map(|t| {
            let spool = spool.clone();
            std::thread::spawn(move || {
                let mut sizes = t * 7919 + 1;
                let mut written = 0;
                let mut refused = 0;
                while refused < 200 {
                    let Ok(credit) = spool.admit() else {
                        refused += 1;
                        std::thread::sleep(Duration::from_millis(1));
                        continue;
                    };
                    sizes = sizes.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let record = vec![7; (sizes >> 33) as usize % MAX_PLAIN];
                    spool.append(&record, Some(credit)).expect("credit is a promise");
                    written += 1;
                }
                written
            })
        })
        .collect();
    let written: usize = threads.into_iter().map(|t| t.join().unwrap()).sum();
    assert!(spool.is_full() && spool.size() <= 4 * SEGMENT, "{}", spool.size());
    let (found, to) = read_all(&spool, Position::default());
    assert_eq!(found.len(), written, "every record that was taken is there");
    // And the other way round: room is made, and requests go on.
    spool.release(to);
    eventually("room again", || spool.admit().is_ok());
}

/// A store that lost its last transactions asks for what is gone. What is there must reach it all the same.
#[test]
fn a_place_that_is_gone_is_followed_by_the_first_that_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let (mut records, mut first_kept) = (0u32, 0);
    while spool.end().segment < 2 {
        eventually("room", || spool.append(&records.to_le_bytes().repeat(700), None).is_ok());
        first_kept = if spool.end().segment == 0 { records + 1 } else { first_kept };
        records += 1;
    }
    spool.release(Position { segment: 1, offset: 0 });
    let mut found = Vec::new();
    let to = spool.read(Position { segment: 0, offset: 64 }, usize::MAX, |at, _, record| {
        found.push((at.segment, u32::from_le_bytes(record[..4].try_into().unwrap())));
    });
    assert_eq!(found.first(), Some(&(1, first_kept)));
    assert_eq!((found.last().unwrap().1, to.segment), (records - 1, 2));
    // The same of a run that is over.
    drop(spool);
    let mut left = Vec::new();
    eventually("threads end", || {
        left = leftovers(dir.path(), None).unwrap().0;
        !left.is_empty()
    });
    let mut again = Vec::new();
    left[0].read(Position::default(), usize::MAX, &mut 0, |at, _, record| {
        again.push((at.segment, u32::from_le_bytes(record[..4].try_into().unwrap())));
    });
    assert_eq!(again, found);
}

/// While one process hands over to another, both have files in the folder, and each counts only at its start.
#[test]
fn files_of_another_process_count_whenever_they_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    eventually("two segments", || spool.size() >= 2 * SEGMENT);
    let name = format!("{}-00000000.seg", WriterId::fresh());
    std::fs::write(dir.path().join(&name), vec![0; SEGMENT as usize + 4096]).unwrap();
    let fill = || while spool.append(&[1; 3000], None).is_ok() {};
    eventually("full", || {
        fill();
        spool.is_full()
    });
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 4, "three of ours and the other's");
    // More than was ever counted.
    std::fs::remove_file(dir.path().join(&name)).unwrap();
    spool.released_elsewhere(100 * SEGMENT);
    eventually("room for one more", || std::fs::read_dir(dir.path()).unwrap().count() == 4);
    eventually("counted", || spool.size() == 4 * SEGMENT);
}

#[test]
fn credit_that_is_not_used_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    eventually("three segments", || spool.0.0.credit.load(Ordering::Relaxed) >= 2 * promised(SEGMENT));
    let before = spool.0.0.credit.load(Ordering::Relaxed);
    for _ in 0..10_000 {
        drop(spool.admit().unwrap());
    }
    let credit = spool.admit().unwrap();
    spool.append(&[1; 84], Some(credit)).unwrap();
    assert_eq!(before - spool.0.0.credit.load(Ordering::Relaxed), footprint(84) as i64);
}

#[test]
fn a_full_disk_is_an_error_that_goes_away_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let inside = dir.path().join("spool");
    std::fs::create_dir(&inside).unwrap();
    let spool = open(&inside);
    // A folder that is gone stands for a disk that takes nothing.
    let aside = dir.path().join("aside");
    std::fs::rename(&inside, &aside).unwrap();
    std::fs::write(&inside, "in the way").unwrap();
    let mut held = Vec::new();
    eventually("credit runs out", || match spool.admit() {
        Ok(credit) => {
            held.push(credit);
            false
        }
        Err(_) => spool.is_full(),
    });
    std::fs::remove_file(&inside).unwrap();
    std::fs::rename(&aside, &inside).unwrap();
    eventually("room again", || spool.admit().is_ok() && !spool.is_full());
}

#[test]
fn a_spool_needs_room_for_itself() {
    let dir = tempfile::tempdir().unwrap();
    let small = Settings { max_size: 2 * SEGMENT, ..settings(dir.path()) };
    assert!(matches!(Spool::open(small, WriterId::fresh(), 0), Err(SpoolError::TooSmall { .. })));
    let gone = Settings { dir: dir.path().join("gone"), ..settings(dir.path()) };
    assert!(matches!(Spool::open(gone, WriterId::fresh(), 0), Err(SpoolError::Create { .. })));
}

#[test]
fn the_next_run_finds_what_the_last_one_left() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let writer = first.writer();
    for i in 0..500u32 {
        eventually("room", || first.append(&[&i.to_le_bytes()[..], &[9; 4000]].concat(), None).is_ok());
    }
    let (mut salts, mut to) = (Vec::new(), Position::default());
    first.read(Position::default(), 200, |_, salt, _| salts.push(salt));
    to = first.read(to, 200, |_, _, _| {});
    let (found, _) = leftovers(dir.path(), None).unwrap();
    assert!(found.is_empty(), "its writer is alive");
    drop(first);
    let mut found = Vec::new();
    eventually("the threads end", || {
        found = leftovers(dir.path(), Some(WriterId::fresh())).unwrap().0;
        !found.is_empty()
    });
    let left = found.pop().unwrap();
    assert_eq!((left.writer(), found.len()), (writer, 0));
    let (mut seen, mut torn, mut again) = (Vec::new(), 0, Vec::new());
    let (end, done) = left.read(to, usize::MAX, &mut torn, |_, _, p| {
        seen.push(u32::from_le_bytes(p[..4].try_into().unwrap()));
    });
    assert!(done && torn == 0);
    assert_eq!(seen, (200..500).collect::<Vec<_>>(), "from where the store is");
    assert_eq!(left.read(end, 10, &mut torn, |_, _, _| panic!("nothing is left")), (end, true));
    left.read(Position::default(), 200, &mut torn, |_, salt, _| again.push(salt));
    assert_eq!(salts, again, "the same salts again");
    assert!(left.remove() > 0);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// What died with a full spool has to start, or nobody would ever drain it.
#[test]
fn a_start_beyond_the_bound_promises_nothing_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    while !(first.is_full() && first.append(&[9; 4000], None).is_err()) {
        let _ = first.append(&[9; 4000], None);
    }
    drop(first);
    let mut left = Vec::new();
    eventually("the threads end", || {
        left = leftovers(dir.path(), Some(WriterId::fresh())).unwrap().0;
        !left.is_empty()
    });
    // Starts that come to nothing leave nothing behind.
    drop(left);
    for _ in 0..3 {
        let second = open_beside(dir.path());
        eventually("it knows", || second.is_full());
        assert!(second.admit().is_err() && second.append(&[9; 40], None).is_err());
        assert_eq!(second.size(), 5 * SEGMENT, "one segment more than the bound");
        drop(second);
        eventually("its files go", || {
            remove_unused(dir.path()).unwrap();
            size_of(dir.path()).unwrap() == 4 * SEGMENT
        });
    }
    let second = open_beside(dir.path());
    let left = leftovers(dir.path(), Some(second.writer())).unwrap().0.pop().unwrap();
    let mut found = 0;
    left.read(Position::default(), usize::MAX, &mut 0, |_, _, _| found += 1);
    assert!(found > 700, "{found}");
    second.released_elsewhere(left.remove());
    eventually("room", || second.admit().is_ok());
    second.append(&[9; 4000], None).unwrap();
    eventually("no more than the bound", || !second.is_full() && second.size() <= 4 * SEGMENT);
    // What has been written to is not taken away.
    drop(second);
    eventually("the threads end", || !leftovers(dir.path(), None).unwrap().0.is_empty());
    remove_unused(dir.path()).unwrap();
    assert!(!leftovers(dir.path(), None).unwrap().0.is_empty());
}

#[test]
fn what_is_no_segment_is_put_aside_once() {
    let dir = tempfile::tempdir().unwrap();
    let name = format!("{}-00000000.seg", WriterId::fresh());
    std::fs::write(dir.path().join(&name), vec![0; 4096 * 300]).unwrap();
    assert!(leftovers(dir.path(), None).unwrap().0.is_empty());
    assert!(dir.path().join(name.replace(".seg", ".damaged")).exists());
    assert_eq!(leftovers(dir.path(), None).unwrap().1, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_waits_for_the_disk_together() {
    let dir = tempfile::tempdir().unwrap();
    let strict = Settings { durability: Durability::Strict, ..settings(dir.path()) };
    let spool = Spool::open(strict, WriterId::fresh(), 0).unwrap();
    let mut tasks = Vec::new();
    for i in 0..200u32 {
        let spool = spool.clone();
        tasks.push(tokio::spawn(async move {
            let at = spool.append(&i.to_le_bytes(), None).unwrap();
            spool.durable(at).await.unwrap();
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(spool.0.0.group.served(), (200, 0));
}

#[test]
fn a_promise_grows_with_the_bodies_or_stays_what_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    eventually("three segments", || spool.0.0.credit.load(Ordering::Relaxed) >= 2 * promised(SEGMENT));
    let before = spool.0.0.credit.load(Ordering::Relaxed);
    let mut credit = Some(spool.admit().unwrap());
    spool.extend(&mut credit, 1000).unwrap();
    let held = before - spool.0.0.credit.load(Ordering::Relaxed);
    assert!(held >= REQUEST + 1000, "{held}");
    spool.extend(&mut credit, 500).unwrap();
    assert_eq!(before - spool.0.0.credit.load(Ordering::Relaxed), held, "it has that much");
    assert!(spool.extend(&mut credit, 1 << 30).is_err());
    assert_eq!(before - spool.0.0.credit.load(Ordering::Relaxed), held, "still promised, and nothing more");
    let mut none = None;
    spool.extend(&mut none, 1000).unwrap();
    drop((credit, none));
    assert_eq!(spool.0.0.credit.load(Ordering::Relaxed), before);
}

/// The promise holds for events with bodies, too: none that has its room fails, and no segment is overrun.
#[test]
fn long_records_that_were_promised_find_room_beside_short_ones() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let threads: Vec<_> = (0..4u64)
        .map(|t| {
            let spool = spool.clone();
            std::thread::spawn(move || {
                let (mut seed, mut written, mut refused) = (t * 7919 + 1, 0, 0);
                while refused < 100 {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let bodies = if seed >> 40 & 3 == 0 { (seed >> 33) as usize % (2 * MAX_BODY) } else { 0 };
                    let mut credit = spool.admit().ok();
                    if credit.is_none() || spool.extend(&mut credit, bodies).is_err() {
                        refused += 1;
                        std::thread::sleep(Duration::from_millis(1));
                        continue;
                    }
                    spool.append(&vec![7; MAX_PLAIN + bodies], credit).expect("credit is a promise");
                    written += 1;
                }
                written
            })
        })
        .collect();
    let written: usize = threads.into_iter().map(|t| t.join().unwrap()).sum();
    assert!(written > 20 && spool.size() <= 4 * SEGMENT, "{written} {}", spool.size());
    assert_eq!(read_all(&spool, Position::default()).0.len(), written);
}

#[test]
fn what_is_read_at_once_is_bounded_in_bytes_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    for length in [10, 5000, 20, 30, 9000, 40] {
        spool.append(&vec![1; length], None).unwrap();
    }
    let (mut at, mut pages) = (Position::default(), Vec::new());
    loop {
        let mut page = Vec::new();
        at = spool.read(at, Most { records: 3, bytes: 5000 }, |_, _, record| page.push(record.len()));
        if page.is_empty() {
            break;
        }
        pages.push(page);
    }
    assert_eq!(pages, [vec![10, 5000], vec![20, 30, 9000], vec![40]]);
}
