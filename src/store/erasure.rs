//! Erasing what is known of a principal: what their events say, their samples, and their name in usage.
//!
//! Events reach the store late: a spool outlives its process and waits while the store is away. So who was erased is
//! remembered, sealed with the master key, for [`REMEMBERED`]; what arrives meanwhile and happened before the erasure was
//! asked for is erased by [`Platform::erase_late`], again and again.

use std::time::Duration;

use sha2::{Digest as _, Sha256};
use sqlx::FromRow;
use sqlx::types::Uuid;

use super::keys::envelope;
use super::tx::q;
use super::{Platform, StoreError, Time, Tx};
use crate::audit::{Class, hex};
use crate::base::TenantId;
use crate::base::envelope::{MasterKeys, key_id};

/// How long somebody who was erased is remembered. A spool that comes back later needs another erasure.
pub const REMEMBERED: Duration = Duration::from_secs(90 * 86_400);
/// Erasures of one tenant that are remembered; beyond that the oldest is forgotten early.
pub const MAX_REMEMBERED: usize = 1000;
/// Erasures younger than this are gone after each time; older ones when all are.
const RECENT: Duration = Duration::from_secs(3600);
/// So much before an erasure was asked for is what is gone after each time; what is older, when all is.
const A_LITTLE: Duration = Duration::from_secs(86_400);
/// Events that one transaction erases.
const AT_ONCE: i64 = 2_000;

/// What comes before the name of somebody of whom only decisions about requests were erased, where they are remembered.
/// No principal begins so.
const DATA_ONLY: &str = "\u{1f}data\u{1f}";

/// Whose events are erased, and which.
#[derive(Clone, Copy)]
struct Whose<'a> {
    tenant: &'a str,
    principal: &'a str,
    /// The class from whose number on: that of control actions is the lower one.
    from_class: i16,
}

impl<'a> Whose<'a> {
    fn of(tenant: &'a str, principal: &'a str, least: Class) -> Self {
        Self { tenant, principal, from_class: super::audit::number(least) }
    }

    /// As they are remembered.
    fn remembered(tenant: &'a str, text: &'a str) -> Self {
        match text.strip_prefix(DATA_ONLY) {
            Some(principal) => Self::of(tenant, principal, Class::Data),
            None => Self::of(tenant, text, Class::Control),
        }
    }

    fn to_remember(self) -> String {
        let prefix = if self.from_class == super::audit::number(Class::Data) { DATA_ONLY } else { "" };
        format!("{prefix}{}", self.principal)
    }
}

/// What the record of an erasure calls the one whose events were erased: whoever knows the id can tell that it was theirs,
/// and nobody reads it there. `sha256:` and the hash of `tollgate erased`, the tenant and the id, with a NUL between them.
pub fn erased_name(tenant: &TenantId, principal: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(b"tollgate erased\0");
    hash.update(tenant.as_str());
    hash.update(b"\0");
    hash.update(principal);
    let digest: [u8; 32] = hash.finalize().into();
    format!("sha256:{}", hex(&digest))
}

/// What was erased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erasure {
    /// Events that say nothing any more.
    pub events: u64,
    /// Samples of requests that are gone.
    pub samples: u64,
    /// Rows of usage that name nobody any more.
    pub usage: u64,
}

impl Erasure {
    fn add(&mut self, other: Self) {
        self.events += other.events;
        self.samples += other.samples;
        self.usage += other.usage;
    }
}

#[derive(FromRow)]
struct Remembered {
    tenant: String,
    id: Uuid,
    sealed: Vec<u8>,
    asked_at: Time,
}

fn place<'a>(tenant: &'a str, id: &'a str) -> [&'a str; 3] {
    ["audit_erasures", tenant, id]
}

/// All who are remembered with their places, as they are sealed.
pub(super) async fn sealed(tx: &mut Tx) -> Result<Vec<([String; 3], Vec<u8>)>, StoreError> {
    let rows = q!(tx, all as Remembered, "SELECT tenant, id, sealed, asked_at FROM audit_erasures")?;
    let with_place = |row: Remembered| {
        let id = row.id.to_string();
        (place(&row.tenant, &id).map(ToOwned::to_owned), row.sealed)
    };
    Ok(rows.into_iter().map(with_place).collect())
}

impl Tx {
    /// One erasure at a time; whoever holds this is the only one who gives rows of usage away.
    async fn lock_erasures(&mut self) -> Result<(), StoreError> {
        q!(
            self, execute,
            pg "LOCK TABLE audit_erasures IN SHARE ROW EXCLUSIVE MODE",
            lite "SELECT 1"
        )
        .map(drop)
    }

    /// Remembers somebody, in place of what was remembered of them before.
    async fn remember_erasure(&mut self, whose: Whose<'_>) -> Result<(), StoreError> {
        let (tenant, text) = (whose.tenant, whose.to_remember());
        let known = q!(
            self,
            all as Remembered,
            "SELECT tenant, id, sealed, asked_at FROM audit_erasures WHERE tenant = $1 ORDER BY asked_at DESC, id",
            tenant
        )?;
        let store = self.store().clone();
        let too_many = MAX_REMEMBERED - 1;
        let mut kept = 0;
        for row in known {
            let id = row.id.to_string();
            // What does not open is somebody else's as far as anybody knows, and no reason not to erase.
            let opened = store.unseal(&place(tenant, &id), &row.sealed);
            let same = opened.is_ok_and(|opened| opened.expose() == text.as_bytes());
            if same || kept >= too_many {
                if !same {
                    tracing::warn!(event = "audit_erasure_forgotten_early", tenant, asked_at = %row.asked_at);
                }
                q!(
                    self,
                    execute,
                    "DELETE FROM audit_erasures WHERE tenant = $1 AND id = $2",
                    tenant,
                    row.id
                )?;
            } else {
                kept += 1;
            }
        }
        let id = Uuid::now_v7();
        let sealed = store.seal(&place(tenant, &id.to_string()), text.as_bytes())?;
        let key = key_id(&sealed).map_err(|e| envelope("audit_erasures", e))?.to_owned();
        let now = self.now();
        q!(
            self,
            execute,
            "INSERT INTO audit_erasures (tenant, id, key_id, sealed, asked_at) VALUES ($1, $2, $3, $4, $5)",
            tenant,
            id,
            &key,
            &sealed,
            now
        )?;
        Ok(())
    }

    /// Erases what some events of a time say.
    async fn erase_events(&mut self, whose: Whose<'_>, from: Time, before: Time) -> Result<u64, StoreError> {
        q!(
            self,
            execute,
            pg "UPDATE audit_events SET salt = NULL, payload = NULL, principal = '', route = '', server = '',
                       name = '', outcome = ''
                 WHERE (tenant, class, writer, sequence, time) IN
                       (SELECT tenant, class, writer, sequence, time FROM audit_events
                         WHERE tenant = $1 AND principal = $2 AND time >= $3 AND time < $4 AND class >= $6 LIMIT $5)",
            lite "UPDATE audit_event_rows SET salt = NULL, payload = NULL, principal = '', route = '', server = '',
                         name = '', outcome = ''
                   WHERE rowid IN
                         (SELECT r.rowid FROM audit_event_tenants t JOIN audit_event_rows r ON r.tenant = t.id
                           WHERE t.tenant = $1 AND r.principal = $2 AND r.time >= $3 AND r.time < $4
                             AND (SELECT c.class FROM audit_event_chains c WHERE c.id = r.chain) >= $6 LIMIT $5)",
            whose.tenant,
            whose.principal,
            from,
            before,
            AT_ONCE,
            whose.from_class
        )
    }
}

impl Platform<'_> {
    /// Erases what events of one caller say, removes their samples, and takes their name out of usage, where their calls
    /// go on counting for nobody. The chain stays whole: what it commits to remains.
    ///
    /// One transaction does all of it, but for events beyond the first 2,000: those follow in more, and if one fails
    /// [`Platform::erase_late`] does the rest.
    ///
    /// # Errors
    /// The store is not prepared; the database.
    pub async fn audit_erase(&self, tenant: &TenantId, principal: &str) -> Result<Erasure, StoreError> {
        self.erase(Whose::of(tenant.as_str(), principal, Class::Control)).await
    }

    /// The same, but for what they did to the configuration, to credentials and to the log: that stays, as evidence.
    ///
    /// # Errors
    /// As [`Platform::audit_erase`].
    pub async fn audit_erase_data(&self, tenant: &TenantId, principal: &str) -> Result<Erasure, StoreError> {
        self.erase(Whose::of(tenant.as_str(), principal, Class::Data)).await
    }

    async fn erase(&self, whose: Whose<'_>) -> Result<Erasure, StoreError> {
        let Whose { tenant, principal, .. } = whose;
        // Events without a caller are those of strangers, which nobody asks for by name.
        if principal.is_empty() {
            return Err(StoreError::Missing("caller without a name".to_owned()));
        }
        let mut tx = self.begin().await?;
        // Clocks of replicas differ, and what is in the store already is meant.
        let (from, before) = (Time::from_micros(0), tx.now().plus(REMEMBERED));
        tx.lock_erasures().await?;
        tx.remember_erasure(whose).await?;
        // Events first: a batch that comes in between has its usage erased now, or its events found later.
        let mut done = Erasure {
            events: tx.erase_events(whose, from, before).await?,
            samples: tx.erase_samples(tenant, principal, from, before).await?,
            usage: tx.erase_usage(tenant, principal, before, true).await?,
        };
        tx.commit().await?;
        done.add(self.erase_rest(whose, [from, before], true, done.events).await?);
        Ok(done)
    }

    /// Erases what has arrived late of those who are remembered: of the last hour, or of all, whose time to be remembered
    /// may then end. For one process at a time.
    ///
    /// # Errors
    /// One of them does not open, and the others were done; the database.
    pub async fn erase_late(&self, all: bool) -> Result<Erasure, StoreError> {
        let now = self.0.now();
        if all {
            let mut tx = self.begin().await?;
            q!(tx, execute, "DELETE FROM audit_erasures WHERE asked_at < $1", now.minus(REMEMBERED))?;
            tx.commit().await?;
        }
        let since = if all { Time::from_micros(0) } else { now.minus(RECENT) };
        let mut tx = self.read().await?;
        let rows = q!(
            tx,
            all as Remembered,
            "SELECT tenant, id, sealed, asked_at FROM audit_erasures WHERE asked_at >= $1",
            since
        )?;
        drop(tx);
        let (mut done, mut failed) = (Erasure::default(), None);
        for row in rows {
            match self.erase_late_of(&row, all).await {
                Ok(erased) => done.add(erased),
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(done), Err)
    }

    async fn erase_late_of(&self, row: &Remembered, all: bool) -> Result<Erasure, StoreError> {
        let opened = self.0.unseal(&place(&row.tenant, &row.id.to_string()), &row.sealed)?;
        let text = String::from_utf8_lossy(opened.expose());
        let whose = Whose::remembered(&row.tenant, &text);
        let (Whose { tenant, principal, .. }, before) = (whose, row.asked_at);
        // What is often looked for is what comes a little late: not every index has principals.
        let from = if all { Time::from_micros(0) } else { before.minus(A_LITTLE) };
        if !self.has_late(whose, from, before).await? {
            return Ok(Erasure::default());
        }
        let mut tx = self.begin().await?;
        tx.lock_erasures().await?;
        let events = tx.erase_events(whose, from, before).await?;
        // Usage comes with its events, in one transaction.
        let usage = if events > 0 { tx.erase_usage(tenant, principal, before, false).await? } else { 0 };
        let samples = tx.erase_samples(tenant, principal, from, before).await?;
        tx.commit().await?;
        let mut done = Erasure { events, samples, usage };
        done.add(self.erase_rest(whose, [from, before], false, events).await?);
        Ok(done)
    }

    /// Whether there is something to erase. Nobody who writes has to wait for the answer.
    async fn has_late(&self, whose: Whose<'_>, from: Time, before: Time) -> Result<bool, StoreError> {
        let Whose { tenant, principal, from_class } = whose;
        let mut tx = self.read().await?;
        let event = q!(
            tx,
            scalar_optional as i64,
            "SELECT sequence FROM audit_events
              WHERE tenant = $1 AND principal = $2 AND time >= $3 AND time < $4 AND class >= $5 LIMIT 1",
            tenant,
            principal,
            from,
            before,
            from_class
        )?;
        if event.is_some() {
            return Ok(true);
        }
        tx.has_samples(tenant, principal, from, before).await
    }

    /// Goes on erasing events until a transaction finds fewer than it may take, and the usage of what came meanwhile.
    async fn erase_rest(
        &self,
        whose: Whose<'_>,
        [from, before]: [Time; 2],
        whole: bool,
        mut last: u64,
    ) -> Result<Erasure, StoreError> {
        let mut more = Erasure::default();
        while last >= AT_ONCE as u64 {
            let mut tx = self.begin().await?;
            tx.lock_erasures().await?;
            last = tx.erase_events(whose, from, before).await?;
            more.events += last;
            more.usage += tx.erase_usage(whose.tenant, whose.principal, before, whole).await?;
            tx.commit().await?;
        }
        Ok(more)
    }

    pub(super) async fn rewrap_erasures(&self, keys: &MasterKeys) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let rows = q!(
            tx,
            all as Remembered,
            "SELECT tenant, id, sealed, asked_at FROM audit_erasures WHERE key_id <> $1",
            keys.sealing()
        )?;
        let mut moved = 0;
        for row in rows {
            let wrapped = keys
                .rewrap(&place(&row.tenant, &row.id.to_string()), &row.sealed)
                .map_err(|e| envelope("audit_erasures", e))?;
            moved += q!(
                tx,
                execute,
                "UPDATE audit_erasures SET sealed = $3, key_id = $4 WHERE tenant = $1 AND id = $2",
                &row.tenant,
                row.id,
                wrapped.as_ref().unwrap_or(&row.sealed),
                keys.sealing()
            )?;
        }
        tx.commit().await?;
        Ok(moved)
    }
}
