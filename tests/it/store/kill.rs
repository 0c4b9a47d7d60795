//! `kill -9` of a process that writes to SQLite, at random moments: what it acknowledged is there afterwards.
//!
//! `make prove-control-writes` does it 100 times (`TOLLGATE_KILLS`).

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use tollgate::base::{Clock, Secret};
use tollgate::store::{NewRevision, StoreSettings, whatever};

use super::{open, tenant};
use crate::support::Folder;

/// Kills in an ordinary run.
const KILLS: u32 = 4;
/// The data folder of the process that is killed.
const FOLDER: &str = "TOLLGATE_TEST_FOLDER";

#[allow(clippy::disallowed_methods, reason = "how many times is said by make")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The process that is killed: it says what was committed, one line each, and never ends by itself.
#[tokio::test]
#[ignore = "the other half of a_killed_process_loses_nothing_that_it_acknowledged"]
async fn writer() {
    let Some(folder) = variable(FOLDER) else { return };
    let store = open(&StoreSettings::embedded(folder.as_ref()), &Clock::default());
    store.prepare().await.unwrap();
    let acme = tenant("acme");
    let scope = store.tenant(&acme);
    loop {
        let number = scope.head().await.unwrap().map_or(0, |h| h.revision) + 1;
        let content =
            format!("document {number} {}", "x".repeat(usize::try_from(number % 50).unwrap() * 400));
        let new = NewRevision {
            content: content.as_bytes(),
            schema_version: 1,
            author: "ada",
            reason: "",
            if_revision: Some(number - 1),
        };
        scope.publish(new).await.unwrap();
        acknowledge(&format!("revision {number}"));
        let name = format!("s{}", number % 10);
        let info = scope
            .put_secret(&name, &Secret::new(content.into_bytes()), "ada", whatever)
            .await
            .unwrap()
            .into_row();
        acknowledge(&format!("secret {name} {}", info.version));
    }
}

fn acknowledge(what: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "ack {what}").and_then(|()| out.flush()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_loses_nothing_that_it_acknowledged() {
    let kills = variable("TOLLGATE_KILLS").and_then(|n| n.parse().ok()).unwrap_or(KILLS);
    let folder = Folder::new();
    let acme = tenant("acme");
    let mut total = 0;
    for kill in 0..kills {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::kill::writer", "--ignored", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let reader = std::thread::spawn(move || -> Vec<String> {
            lines
                .map_while(Result::ok)
                .filter_map(|l| l.split_once("ack ").map(|(_, a)| a.to_owned()))
                .collect()
        });
        // From the first migration to the middle of the work.
        let after = 5 + (u64::from(kill) * 7919) % 400 + rand_jitter();
        tokio::time::sleep(Duration::from_millis(after)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        let acknowledged = reader.join().unwrap();
        total += acknowledged.len();
        let store = open(&StoreSettings::embedded(folder.path()), &Clock::default());
        store.prepare().await.unwrap();
        let scope = store.tenant(&acme);
        let head = scope.head().await.unwrap().map_or(0, |h| h.revision);
        for ack in &acknowledged {
            let words: Vec<&str> = ack.split(' ').collect();
            match words[..] {
                ["revision", number] => {
                    let number: i64 = number.parse().unwrap();
                    assert!(number <= head, "kill {kill} after {after} ms: head {head} is behind {ack}");
                    let revision = scope.revision(number).await.unwrap();
                    let revision = revision.unwrap_or_else(|| panic!("kill {kill}: {ack} is lost"));
                    assert!(revision.content.starts_with(format!("document {number} ").as_bytes()));
                }
                ["secret", name, version] => {
                    let secrets = scope.secrets(None, tollgate::store::Page::of(100)).await.unwrap();
                    let found = secrets.iter().find(|s| s.name == name).map_or(0, |s| s.version);
                    assert!(found >= version.parse().unwrap(), "kill {kill}: {ack} is lost, it is {found}");
                }
                _ => panic!("{ack}"),
            }
        }
        // No half of a publication either: each revision up to the head is there, and none after it.
        assert!(scope.revision(head + 1).await.unwrap().is_none(), "a revision without its head");
        if head > 0 {
            assert!(scope.revision(head).await.unwrap().is_some(), "a head without its revision");
        }
        store.close().await;
    }
    println!("{kills} kills, {total} acknowledged writes, none lost");
    assert!(total > 0, "nothing was ever acknowledged, so nothing was tested");
}

fn rand_jitter() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::from(now.subsec_nanos() % 37)
}
