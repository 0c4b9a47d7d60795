//! Follows the feed of identities: users, keys, revocations and roles reach the data plane from here.
//!
//! The whole state is kept in memory, one entry per thing; a batch of changes is applied to the registries of the tenants
//! it names ([`Registries`]). The state is also kept on disk, so that a replica that starts with the store away refuses
//! what was revoked before and accepts the keys there were.
//!
//! - Changes come by notification, and by a poll where notifications are lost. Their numbers are gapless: if the next one
//!   is not there, retention has taken it, and everything is read again.
//! - An entry that cannot be understood is logged and left out; for a revocation that is the one thing that must not be
//!   done silently, so it is logged as an error.
//! - The registries are told when the store was last heard of: with `identity.on_stale: refuse` its keys are not accepted
//!   any more once that is longer ago than `identity.max_staleness`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::auth::{Bindings, KeyRecord, KeyStore, RevocationList, RevocationRecord, Revocations, Standings};
use crate::base::{Clock, Role, TenantId};
use crate::source::durable;
use crate::store::{Channel, IdentityChange, IdentityKind, Notification, Store, StoreError, Time};

/// Changes that are read at once.
const BATCH: i64 = 1_000;
/// How often the file is written, at most.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// How often last uses of keys are written.
const FLOW_BACK: Duration = Duration::from_secs(10);
/// Name and version of the format on disk.
const FORMAT: &str = "tollgate-identity-1";
/// Largest file that is read.
const MAX_FILE: u64 = 1 << 30;

/// Where what the feed says of one tenant takes effect.
#[derive(Clone, Debug)]
pub struct Registries {
    /// API keys.
    pub keys: Arc<KeyStore>,
    /// Revoked credentials.
    pub revocations: Arc<Revocations>,
    /// Disabled users and given roles.
    pub bindings: Arc<Bindings>,
}

/// Finds the registries of a tenant, made if there are none yet.
pub type Find = Arc<dyn Fn(&TenantId) -> Registries + Send + Sync>;

/// How the feed is followed.
#[derive(Clone, Copy, Debug)]
pub struct FeedSettings {
    /// How often it is looked at without a notification.
    pub poll: Duration,
}

/// Follows the feed for one process.
pub struct Feed {
    store: Store,
    find: Find,
    settings: FeedSettings,
    file: PathBuf,
    clock: Clock,
    /// When the store was last heard of, in seconds since the Unix epoch; 0: never.
    heard: AtomicU64,
    /// When this was made.
    began: u64,
    /// The number of the last change that is in force.
    applied: AtomicI64,
    state: tokio::sync::Mutex<State>,
    /// Something changed since the file was written.
    unwritten: AtomicBool,
    /// When it was written, in milliseconds since the Unix epoch.
    written: AtomicU64,
}

/// What changed of one tenant.
#[derive(Debug, Default)]
struct Delta {
    /// Everything may have.
    all: bool,
    keys: BTreeSet<String>,
}

/// Everything that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    seq: i64,
    /// When the store was heard of last, in seconds since the Unix epoch.
    heard: u64,
    tenants: BTreeMap<String, Entries>,
}

/// One tenant's entries by kind and id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Entries {
    keys: BTreeMap<String, String>,
    revocations: BTreeMap<String, String>,
    roles: BTreeSet<String>,
    disabled: BTreeSet<String>,
}

impl State {
    /// Takes one change up. `false`: its kind is not known.
    fn apply(&mut self, change: &IdentityChange) -> bool {
        let entries = self.tenants.entry(change.tenant.clone()).or_default();
        let set = |map: &mut BTreeMap<String, String>| match &change.body {
            Some(body) => drop(map.insert(change.id.clone(), body.clone())),
            None => drop(map.remove(&change.id)),
        };
        match IdentityKind::parse(&change.kind) {
            Some(IdentityKind::Key) => set(&mut entries.keys),
            Some(IdentityKind::Revocation) => set(&mut entries.revocations),
            Some(IdentityKind::Role) if change.body.is_some() => {
                entries.roles.insert(change.id.clone());
            }
            Some(IdentityKind::Role) => {
                entries.roles.remove(&change.id);
            }
            Some(IdentityKind::User) if change.body.as_deref() == Some("disabled") => {
                entries.disabled.insert(change.id.clone());
            }
            Some(IdentityKind::User) => {
                entries.disabled.remove(&change.id);
            }
            None => return false,
        }
        true
    }
}

impl Entries {
    /// Puts all of them in force.
    fn install(&self, tenant: &str, registries: &Registries) {
        // An entry that is not understood must not keep the others from taking effect.
        let mut keys = Vec::with_capacity(self.keys.len());
        for (id, record) in &self.keys {
            match KeyRecord::parse(record) {
                Ok(record) => keys.push(record),
                Err(error) => {
                    tracing::warn!(event = "key_not_understood", tenant, key = id, %error);
                }
            }
        }
        for (key, error) in registries.keys.replace_sound(keys) {
            tracing::error!(event = "key_refused", tenant, key, error);
        }
        registries.revocations.replace(self.revocation_list(tenant));
        registries.bindings.replace(self.standings());
    }

    /// Puts in force what changed. A table of many keys is not built anew for one of them.
    fn update(&self, tenant: &str, delta: &Delta, registries: &Registries) {
        if delta.all {
            return self.install(tenant, registries);
        }
        let (mut upsert, mut remove) = (Vec::new(), Vec::new());
        for id in &delta.keys {
            match self.keys.get(id).map(|record| KeyRecord::parse(record)) {
                Some(Ok(record)) => upsert.push(record),
                Some(Err(error)) => {
                    // What it allowed before, it must not go on to allow.
                    tracing::warn!(event = "key_not_understood", tenant, key = id, %error);
                    remove.push(id.clone());
                }
                None => remove.push(id.clone()),
            }
        }
        if !delta.keys.is_empty() {
            for (key, error) in registries.keys.change(upsert, &remove) {
                tracing::error!(event = "key_refused", tenant, key, error);
            }
        }
        registries.revocations.replace(self.revocation_list(tenant));
        registries.bindings.replace(self.standings());
    }

    fn revocation_list(&self, tenant: &str) -> RevocationList {
        let mut records = Vec::with_capacity(self.revocations.len());
        for (id, record) in &self.revocations {
            match RevocationRecord::parse(record) {
                Ok(record) => records.push(record),
                Err(error) => {
                    tracing::error!(event = "revocation_not_understood", tenant, revocation = id, %error);
                }
            }
        }
        let (list, errors) = RevocationList::sound(records);
        for error in errors {
            tracing::error!(event = "revocation_refused", tenant, %error);
        }
        list
    }

    fn standings(&self) -> Standings {
        let mut standings = Standings::new();
        for id in &self.disabled {
            standings.entry(id.as_str().into()).or_default().disabled = true;
        }
        for binding in &self.roles {
            let Some((role, subject)) = binding.split_once(':') else { continue };
            // A role of a later version gives nothing here, and neither does `auditor`, which opens the log and no route.
            let Ok(role) = role.parse::<Role>() else { continue };
            standings.entry(subject.into()).or_default().roles.insert(role);
        }
        standings
    }
}

impl Feed {
    /// A feed of which nothing is known. `data_dir` has the cache.
    pub fn new(store: Store, find: Find, data_dir: &Path, clock: Clock, settings: FeedSettings) -> Self {
        Self {
            store,
            find,
            settings,
            file: data_dir.join("cache").join("identity"),
            began: clock.unix_secs(),
            clock,
            heard: AtomicU64::new(0),
            applied: AtomicI64::new(0),
            state: tokio::sync::Mutex::default(),
            unwritten: AtomicBool::new(false),
            written: AtomicU64::new(0),
        }
    }

    /// For how many seconds the store was not heard of; since the start, if it never was.
    pub fn age(&self) -> u64 {
        let heard = match self.heard.load(Ordering::Relaxed) {
            0 => self.began,
            heard => heard,
        };
        self.clock.unix_secs().saturating_sub(heard)
    }

    /// What [`Feed::seq`] was when the last look ended. Waits for nothing.
    pub fn applied(&self) -> i64 {
        self.applied.load(Ordering::Relaxed)
    }

    /// The number of the last change that is in force.
    pub async fn seq(&self) -> i64 {
        self.state.lock().await.seq
    }

    /// Puts in force what is on disk, and then what the store has, if it can be asked.
    pub async fn begin(&self) {
        match self.read_file() {
            Ok(Some(state)) => {
                self.heard.store(state.heard, Ordering::Relaxed);
                for (tenant, entries) in &state.tenants {
                    entries.install(tenant, &(self.find)(&TenantId::new(tenant.as_str())));
                }
                *self.state.lock().await = state;
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(event = "identity_cache_unusable", path = %self.file.display(), %error);
            }
        }
        if let Err(error) = self.catch_up().await {
            tracing::warn!(event = "identity_from_cache", %error);
        }
        self.judge().await;
    }

    /// Follows until dropped.
    pub async fn run(&self) {
        let mut listener = self.store.listen();
        let mut flow_back = tokio::time::interval(FLOW_BACK);
        flow_back.tick().await;
        let mut noted = self.clock.unix_secs();
        let later = || Instant::now() + self.settings.poll.mul_f64(rand::random_range(0.8..1.2));
        let mut next_look = later();
        loop {
            tokio::select! {
                // Not moved by what else is heard: events of the audit come without end while anybody calls.
                () = tokio::time::sleep_until(next_look) => {}
                heard = listener.next() => match heard {
                    Notification::Message { channel: Channel::Identity, .. } | Notification::Missed => {}
                    Notification::Message { .. } => continue,
                },
                _ = flow_back.tick() => {
                    noted = self.flow_back(noted).await;
                    continue;
                }
            }
            if let Err(error) = self.catch_up().await {
                tracing::debug!(event = "identity_feed_unavailable", %error);
            }
            self.judge().await;
            next_look = later();
        }
    }

    /// Takes up what is new.
    ///
    /// # Errors
    /// The store; what was taken up before that stays.
    pub async fn catch_up(&self) -> Result<(), StoreError> {
        let mut state = self.state.lock().await;
        let mut changed = BTreeMap::new();
        let outcome = self.read_changes(&mut state, &mut changed).await;
        if outcome.is_ok() {
            state.heard = self.clock.unix_secs();
            self.heard.store(state.heard, Ordering::Relaxed);
        }
        let seq = state.seq;
        let none = Entries::default();
        for (tenant, delta) in &changed {
            let registries = (self.find)(&TenantId::new(tenant.as_str()));
            state.tenants.get(tenant).unwrap_or(&none).update(tenant, delta, &registries);
        }
        self.applied.store(seq, Ordering::Relaxed);
        let dirty = self.unwritten.fetch_or(!changed.is_empty(), Ordering::Relaxed) || !changed.is_empty();
        if dirty && self.may_write() {
            self.write_file(&state).await;
        }
        outcome
    }

    async fn read_changes(
        &self,
        state: &mut State,
        changed: &mut BTreeMap<String, Delta>,
    ) -> Result<(), StoreError> {
        loop {
            let changes = self.store.platform().identity_changes(state.seq, BATCH).await?;
            let gap = match changes.first() {
                Some(first) => first.seq != state.seq + 1,
                // Nothing newer: or retention took it, or the store is an older one.
                None => self.store.platform().identity_head().await? != state.seq,
            };
            if gap {
                let snapshot = self.store.platform().identity_snapshot().await?;
                for tenant in state.tenants.keys().chain(snapshot.entries.iter().map(|e| &e.tenant)) {
                    changed.entry(tenant.clone()).or_default().all = true;
                }
                *state = State { seq: snapshot.seq, ..State::default() };
                for entry in &snapshot.entries {
                    state.apply(entry);
                }
                continue;
            }
            let Some(last) = changes.last().map(|c| c.seq) else { return Ok(()) };
            for change in &changes {
                if !state.apply(change) {
                    tracing::warn!(event = "identity_kind_unknown", kind = change.kind, seq = change.seq);
                }
                let delta = changed.entry(change.tenant.clone()).or_default();
                if change.kind == IdentityKind::Key.as_str() {
                    delta.keys.insert(change.id.clone());
                }
            }
            state.seq = last;
        }
    }

    /// Tells the registries how old what they know is.
    async fn judge(&self) {
        let heard = self.heard.load(Ordering::Relaxed);
        for tenant in self.state.lock().await.tenants.keys() {
            (self.find)(&TenantId::new(tenant.as_str())).bindings.set_heard(heard);
        }
        (self.find)(&TenantId::default()).bindings.set_heard(heard);
    }

    /// Writes when keys were used since `since`. Gives the time from which on the next call has to look.
    async fn flow_back(&self, since: u64) -> u64 {
        let now = self.clock.unix_secs();
        let tenants: Vec<String> = self.state.lock().await.tenants.keys().cloned().collect();
        for tenant in tenants {
            let tenant = TenantId::new(tenant);
            let uses: Vec<(String, Time)> = (self.find)(&tenant)
                .keys
                .used_since(since)
                .into_iter()
                .filter_map(|u| Some((u.id, Time::from_micros(i64::try_from(u.last_used).ok()? * 1_000_000))))
                .collect();
            if let Err(error) = self.store.tenant(&tenant).touch_api_keys(&uses).await {
                // They are looked at again from the same time on.
                tracing::debug!(event = "key_uses_not_written", %error);
                return since;
            }
        }
        now
    }

    /// The whole state is written, so not for each of many changes; what is left waits for the next look.
    fn may_write(&self) -> bool {
        let now = self.clock.unix_ms();
        now.saturating_sub(self.written.load(Ordering::Relaxed)) >= WRITE_EVERY.as_millis() as u64
    }

    async fn write_file(&self, state: &State) {
        self.written.store(self.clock.unix_ms(), Ordering::Relaxed);
        let (state, file) = (state.clone(), self.file.clone());
        let work = move || {
            let bytes = serde_json::to_vec(&state)?;
            durable::write(&file, FORMAT, &bytes)
        };
        match tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(()) => self.unwritten.store(false, Ordering::Relaxed),
            Err(error) => {
                tracing::error!(event = "identity_not_cached", path = %self.file.display(), %error);
            }
        }
    }

    fn read_file(&self) -> io::Result<Option<State>> {
        let Some(bytes) = durable::read(&self.file, FORMAT, MAX_FILE)? else { return Ok(None) };
        Ok(Some(serde_json::from_slice(&bytes)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(kind: IdentityKind, id: &str, body: Option<&str>) -> IdentityChange {
        IdentityChange {
            seq: 1,
            tenant: "acme".to_owned(),
            kind: kind.as_str().to_owned(),
            id: id.to_owned(),
            body: body.map(ToOwned::to_owned),
        }
    }

    #[test]
    fn changes_add_replace_and_take_away() {
        let mut state = State::default();
        let mut apply = |kind, id, body| assert!(state.apply(&change(kind, id, body)));
        apply(IdentityKind::User, "corp|alice", Some("disabled"));
        apply(IdentityKind::User, "corp|bob", Some("disabled"));
        apply(IdentityKind::User, "corp|bob", Some("active"));
        apply(IdentityKind::Role, "admin:corp|carol", Some("admin:corp|carol"));
        apply(IdentityKind::Role, "viewer:corp|carol", Some("viewer:corp|carol"));
        apply(IdentityKind::Role, "viewer:corp|carol", None);
        let standings = state.tenants["acme"].standings();
        assert_eq!(standings.len(), 2);
        assert!(standings["corp|alice"].disabled);
        assert_eq!(standings["corp|carol"].roles.iter().collect::<Vec<_>>(), [Role::Admin]);
        let odd = IdentityChange { kind: "badge".to_owned(), ..change(IdentityKind::User, "x", None) };
        assert!(!state.apply(&odd));
    }

    #[test]
    fn an_entry_that_is_not_understood_lifts_no_other() {
        let mut state = State::default();
        for (id, record) in [
            ("a", r#"{"principal":"corp|alice"}"#),
            ("b", r#"{"jti":""}"#),
            ("c", r#"{"jti":"t1","before":"2026-01-01T00:00:00Z"}"#),
            ("d", r#"{"of":"a later version"}"#),
            ("e", r#"{"jti":"t2"}"#),
        ] {
            state.apply(&change(IdentityKind::Revocation, id, Some(record)));
        }
        assert_eq!(state.tenants["acme"].revocation_list("acme").len(), 2, "those of alice and of t2");
    }

    #[test]
    fn what_is_on_disk_is_what_was_known() {
        let mut state = State { seq: 7, heard: 5, ..State::default() };
        state.apply(&change(IdentityKind::Revocation, "r", Some("{\"jti\":\"t1\"}")));
        let bytes = serde_json::to_vec(&state).unwrap();
        assert_eq!(serde_json::from_slice::<State>(&bytes).unwrap(), state);
    }
}
