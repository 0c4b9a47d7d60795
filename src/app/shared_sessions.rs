//! Sessions as all replicas know them: sealing keys and ended sessions, through the store.
//!
//! **Keys.** Every replica reads the keys of the store each [`CHECK_EVERY`]; the one that finds the newest too old adds one,
//! under the store's lock, so that of several only one does. A new key seals [`LEAD`] seconds later: by then all have it.
//! While the store is away the keys in memory go on working.
//!
//! **Ended sessions** are written to the store and announced there; each replica buries what it hears of, and reads all of
//! them when it may have missed some, and before it serves. What cannot be written yet is kept, bounded, and tried again.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::mpsc;

use crate::app::keys::Keys;
use crate::base::{Clock, Secret, TenantId};
use crate::config::model;
use crate::mcp::seal::KeyRing;
use crate::mcp::session::{Sessions, Tombstone};
use crate::store::{Channel, Engine, Notification, SealingKey, SessionTombstone, Store, StoreError, Time};

/// What the keys are for, among the store's shared keys.
const PURPOSE: &str = "sessions";
/// How often the keys are looked at.
const CHECK_EVERY: Duration = Duration::from_secs(30);
/// A new key seals this long after it was written.
const LEAD: u64 = 120;
/// How long the start may wait for the store.
const BEGIN: Duration = Duration::from_secs(5);
/// Ended sessions that wait to be written.
pub(super) const BACKLOG: usize = 65_536;
/// Of those, so many go into one transaction.
const BATCH: usize = 500;
/// How long the first waits for others, so that they share a transaction, which costs more than they do.
const GATHER: Duration = Duration::from_millis(100);
/// Wait between attempts while the store is away.
const AGAIN: Duration = Duration::from_secs(1);
/// How often tombstones that nobody needs are removed.
const FORGET_EVERY: Duration = Duration::from_secs(600);
/// How far clocks of replicas may differ, in seconds.
const SKEW: u64 = 300;

/// Whether the sealing keys are in the store: replicas share PostgreSQL, and a file of their own was not asked for.
pub(super) fn has_keys(store: &Store, sessions: &model::Sessions) -> bool {
    store.engine() == Engine::Postgres && sessions.key_file.is_none()
}

/// Takes up the store's keys and ended sessions before anything is served. Without the store those of the last time
/// are used, as long as they last; what was missed is made up for when it is back.
///
/// # Errors
/// Only [`StoreError::MasterKey`]: nothing but an operator can help, and what the store has would not be served.
pub(super) async fn begin(
    store: &Store,
    keys: &Keys,
    sessions: &Sessions,
    clock: &Clock,
    share_keys: bool,
) -> Result<(), StoreError> {
    let begun = async {
        store.prepare().await?;
        if share_keys {
            keys.adopt(shared_keys(store, clock).await?);
        }
        bury(sessions, &store.platform().session_tombstones().await?);
        Ok::<_, StoreError>(())
    };
    match tokio::time::timeout(BEGIN, begun).await {
        Ok(Ok(())) => {}
        Ok(Err(error @ StoreError::MasterKey(_))) => return Err(error),
        Ok(Err(error)) => tracing::warn!(event = "shared_sessions_not_read", %error),
        Err(_) => tracing::warn!(event = "shared_sessions_not_read", error = "no answer in time"),
    }
    Ok(())
}

/// The keys of the store; made if there are none.
async fn shared_keys(store: &Store, clock: &Clock) -> Result<KeyRing, StoreError> {
    loop {
        let now = clock.unix_secs();
        if let Some(ring) = read(store, now).await? {
            return Ok(ring);
        }
        let ring = KeyRing::generate(now).map_err(|e| StoreError::Schema(e.to_string()))?;
        for key in entries(&ring) {
            // Of several replicas that start at once, the first wins: nobody has a key from before the epoch.
            store.platform().add_first_sealing_key(PURPOSE, &key, Some(Time::from_micros(0))).await?;
        }
    }
}

/// Takes up new keys, and rotates by age. Ends with the process.
pub(super) async fn keep_keys(store: Store, keys: Keys, clock: Clock, rotation: u64, max_age: u64) {
    let mut tick = tokio::time::interval(CHECK_EVERY);
    tick.tick().await;
    loop {
        tick.tick().await;
        match refresh(&store, clock.unix_secs(), rotation, max_age).await {
            Ok(Some(fresh)) => keys.adopt(fresh),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(event = "session_keys_not_refreshed", %error);
                // A key whose time has come seals all the same.
                keys.adopt(keys.ring.load().at(clock.unix_secs()));
            }
        }
    }
}

async fn refresh(
    store: &Store,
    now: u64,
    rotation: u64,
    max_age: u64,
) -> Result<Option<KeyRing>, StoreError> {
    let Some(ring) = read(store, now).await? else { return Ok(None) };
    if now.saturating_sub(ring.newest()) < rotation {
        return Ok(Some(ring));
    }
    let Ok(rotated) = ring.rotate(now, LEAD, max_age) else { return Ok(Some(ring)) };
    let known: Vec<String> = ring.ids().map(|id| id.to_string()).collect();
    let kept: Vec<String> = rotated.ids().map(|id| id.to_string()).collect();
    let newest = Time::from_micros(micros(ring.newest()));
    for key in entries(&rotated).into_iter().filter(|key| !known.contains(&key.id)) {
        if store.platform().add_first_sealing_key(PURPOSE, &key, Some(newest)).await? {
            tracing::info!(event = "session_keys_rotated", key = key.id);
        }
    }
    for id in known.iter().filter(|id| !kept.contains(id)) {
        store.platform().remove_sealing_key(PURPOSE, id).await?;
    }
    read(store, now).await
}

async fn read(store: &Store, now: u64) -> Result<Option<KeyRing>, StoreError> {
    let keys = store.platform().sealing_keys(PURPOSE).await?;
    let line = |key: &SealingKey| {
        format!("{} {} {}\n", key.id, STANDARD.encode(key.secret.expose()), key.active_from.secs())
    };
    let text = Secret::new(keys.iter().map(line).collect::<String>());
    if keys.is_empty() {
        return Ok(None);
    }
    let damaged = |e| StoreError::Schema(format!("the sealing keys of sessions are damaged: {e}"));
    KeyRing::parse(text.expose(), now).map(Some).map_err(damaged)
}

/// The keys of a ring as the store has them.
fn entries(ring: &KeyRing) -> Vec<SealingKey> {
    let text = ring.print();
    let lines = text.expose().lines().filter(|line| !line.starts_with('#'));
    let entry = |line: &str| {
        let mut parts = line.split(' ');
        let (id, secret, from) = (parts.next()?, parts.next()?, parts.next()?);
        Some(SealingKey {
            id: id.to_owned(),
            secret: Secret::new(STANDARD.decode(secret).ok()?),
            active_from: Time::from_micros(micros(from.parse().ok()?)),
        })
    };
    lines.filter_map(entry).collect()
}

fn micros(secs: u64) -> i64 {
    i64::try_from(secs).unwrap_or(i64::MAX / 1_000_000).saturating_mul(1_000_000)
}

/// Buries what other replicas ended. Ends with the process.
pub(super) async fn hear(store: Store, sessions: Arc<Sessions>, max_age: u64) {
    let mut listener = store.listen();
    bury_all(&store, &sessions).await;
    let mut forget = tokio::time::interval(FORGET_EVERY);
    loop {
        tokio::select! {
            heard = listener.next() => match heard {
                Notification::Message { channel: Channel::Sessions, payload } => {
                    match serde_json::from_str::<Vec<SessionTombstone>>(&payload) {
                        Ok(ended) => bury(&sessions, &ended),
                        Err(error) => tracing::warn!(event = "session_notice_unreadable", %error),
                    }
                }
                Notification::Message { .. } => {}
                Notification::Missed => bury_all(&store, &sessions).await,
            },
            _ = forget.tick() => {
                let age = Duration::from_secs(max_age.saturating_add(SKEW));
                let most = sessions.limits().tombstones_per_tenant;
                if let Err(error) = store.platform().forget_session_tombstones(age, most).await {
                    tracing::debug!(event = "session_tombstones_not_forgotten", %error);
                }
            }
        }
    }
}

/// Buries all that the store knows. Tries again until it could be read.
async fn bury_all(store: &Store, sessions: &Sessions) {
    loop {
        match store.platform().session_tombstones().await {
            Ok(ended) => return bury(sessions, &ended),
            Err(error) => {
                tracing::debug!(event = "session_tombstones_not_read", %error);
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

fn bury(sessions: &Sessions, ended: &[SessionTombstone]) {
    for tomb in ended {
        let (Ok(serial), Ok(issued_at)) = (tomb.serial.parse(), u64::try_from(tomb.issued_at)) else {
            continue;
        };
        sessions.bury(&Tombstone { tenant: TenantId::new(tomb.tenant.as_str()), serial, issued_at });
    }
}

/// Writes down what ended here. Ends with the process.
pub(super) async fn tell(store: Store, mut ended: mpsc::Receiver<Tombstone>) {
    let mut batch = Vec::new();
    while ended.recv_many(&mut batch, BATCH).await > 0 {
        if batch.len() < BATCH {
            tokio::time::sleep(GATHER).await;
            while batch.len() < BATCH
                && let Ok(tomb) = ended.try_recv()
            {
                batch.push(tomb);
            }
        }
        let rows: Vec<SessionTombstone> = batch
            .drain(..)
            .map(|tomb| SessionTombstone {
                tenant: tomb.tenant.to_string(),
                serial: tomb.serial.to_string(),
                issued_at: i64::try_from(tomb.issued_at).unwrap_or(i64::MAX),
            })
            .collect();
        while let Err(error) = store.platform().bury_sessions(&rows).await {
            tracing::debug!(event = "session_tombstones_not_written", %error);
            tokio::time::sleep(AGAIN).await;
        }
    }
}
