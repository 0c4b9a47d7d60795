//! What of the audit goes with time, and what is signed before it goes.
//!
//! Events are dropped by whole days. Each chain remembers the last one that it lost and goes on from there. Whoever drops
//! and whoever drains hold the same lock (on PostgreSQL; SQLite has one writer), so that no event gets into a day between
//! the look at what is its last one and its end. An event that comes out of a spool when its day has been dropped is not put
//! back: the chain takes it for dropped, too.

use std::collections::HashMap;

use super::audit::{NewEvent, class_of, number, signed};
use super::tx::q;
use super::{Engine, Platform, StoreError, Time, Tx};
use crate::audit::{Class, Horizon};
use crate::base::TenantId;

const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);
/// For how long a chain of which nothing is left is remembered: its process may be silent, and may have left something in
/// a spool that nobody has drained yet.
pub(super) const REMEMBERED: std::time::Duration = std::time::Duration::from_secs(30 * 86_400);

/// The last event of each chain that came too late, by tenant and class.
pub(super) type Late<'a> = HashMap<(&'a str, Class), &'a NewEvent>;

/// A signed checkpoint on its way into the store.
#[derive(Clone, Copy, Debug)]
pub struct NewCheckpoint<'a> {
    /// Counted from 1, without gaps.
    pub number: u64,
    /// Events of the tenant's chains, those that are gone as well.
    pub events: u64,
    /// Those of them that are gone.
    pub dropped: u64,
    /// What it says may be gone.
    pub horizon: Horizon,
    /// The signed line.
    pub statement: &'a str,
}

impl Tx {
    /// Keeps days from being dropped until the transaction ends, and tells the events whose day is still kept from the last
    /// one of each chain whose day is gone. Those of a chain come in the order of their times: what is late comes first.
    pub(super) async fn audit_late<'a>(
        &mut self,
        events: &'a [NewEvent],
    ) -> Result<(Vec<&'a NewEvent>, Late<'a>), StoreError> {
        q!(
            self, execute,
            pg "SELECT pg_advisory_xact_lock_shared(hashtext('tollgate_audit_drop'))",
            lite "SELECT 1"
        )?;
        let dropped = q!(self, all as (i16, Time), "SELECT class, before FROM audit_dropped")?;
        let is_late = |event: &NewEvent| {
            dropped.iter().any(|(class, before)| class_of(*class) == event.class && event.time < *before)
        };
        let (late, kept): (Vec<_>, Vec<_>) = events.iter().partition(|event| is_late(event));
        Ok((kept, late.into_iter().map(|e| ((&*e.keys.tenant, e.class), e)).collect()))
    }
}

impl Tx {
    /// Forgets chains that ended before a time, have nothing left, and whose writer has written nothing since.
    async fn forget_chains(&mut self, class: Class, before: Time) -> Result<(), StoreError> {
        q!(
            self,
            execute,
            "DELETE FROM audit_heads WHERE class = $1 AND from_sequence = sequence AND time < $2
                AND NOT EXISTS (SELECT 1 FROM audit_writers w
                                 WHERE w.writer = audit_heads.writer AND w.updated_at >= $2)",
            number(class),
            before
        )?;
        if self.store().engine() == Engine::Sqlite {
            // Numbers are given anew when they are needed.
            q!(
                self,
                execute,
                "DELETE FROM audit_event_chains WHERE class = $1
                    AND NOT EXISTS (SELECT 1 FROM audit_event_rows r WHERE r.chain = audit_event_chains.id)",
                number(class)
            )?;
            q!(
                self,
                execute,
                "DELETE FROM audit_event_tenants
                  WHERE NOT EXISTS (SELECT 1 FROM audit_event_chains c WHERE c.tenant = audit_event_tenants.id)"
            )?;
        }
        Ok(())
    }
}

impl Platform<'_> {
    /// Tenants whose chains moved, at their end or their beginning, after their last checkpoint, or are fewer now.
    ///
    /// # Errors
    /// The database.
    pub async fn audit_unsigned(&self) -> Result<Vec<TenantId>, StoreError> {
        let mut tx = self.read().await?;
        let names = q!(
            tx,
            scalar_all as String,
            // Fewer than before: chains have ended.
            "SELECT h.tenant FROM audit_heads h
               LEFT JOIN (SELECT p.tenant, p.events, p.dropped FROM audit_checkpoints p
                            JOIN (SELECT tenant, max(number) AS number FROM audit_checkpoints GROUP BY tenant) l
                              ON l.tenant = p.tenant AND l.number = p.number) c
                 ON c.tenant = h.tenant
              GROUP BY h.tenant, c.events, c.dropped
             HAVING sum(h.sequence) <> coalesce(c.events, 0) OR sum(h.from_sequence) <> coalesce(c.dropped, 0)
              ORDER BY h.tenant"
        )?;
        Ok(names.into_iter().map(TenantId::new).collect())
    }

    /// Tenants that have events of a class from before the day of `before`.
    ///
    /// # Errors
    /// The database.
    pub async fn audit_droppable(&self, class: Class, before: Time) -> Result<Vec<TenantId>, StoreError> {
        let mut tx = self.read().await?;
        // Times of a chain never go back: the first event that is left is the oldest.
        let names = q!(
            tx,
            scalar_all as String,
            "SELECT DISTINCT h.tenant FROM audit_heads h
              WHERE h.class = $1 AND h.from_sequence < h.sequence
                AND EXISTS (SELECT 1 FROM audit_events e
                             WHERE e.tenant = h.tenant AND e.class = $1 AND e.writer = h.writer
                               AND e.sequence = h.from_sequence + 1 AND e.time < $2)
              ORDER BY h.tenant",
            number(class),
            before.floor(DAY)
        )?;
        Ok(names.into_iter().map(TenantId::new).collect())
    }

    /// Keeps a signed checkpoint. Another one of that number refuses it. Those before its horizon go, but the last one of
    /// them.
    ///
    /// # Errors
    /// The database.
    pub async fn audit_checkpoint(
        &self,
        tenant: &TenantId,
        new: NewCheckpoint<'_>,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let now = tx.now();
        q!(
            tx,
            execute,
            "INSERT INTO audit_checkpoints (tenant, number, time, events, dropped, statement)
             VALUES ($1, $2, $3, $4, $5, $6)",
            tenant.as_str(),
            signed(new.number),
            now,
            signed(new.events),
            signed(new.dropped),
            new.statement
        )?;
        q!(
            tx,
            execute,
            "DELETE FROM audit_checkpoints WHERE tenant = $1 AND number <
                (SELECT max(number) FROM audit_checkpoints WHERE tenant = $1 AND time < $2)",
            tenant.as_str(),
            Time::from_micros(signed(new.horizon.of_checkpoints()))
        )?;
        tx.commit().await
    }

    /// Drops the events of a class that are older than the day of `before`. Chains go on from the last one dropped. Returns how
    /// many events went, or on PostgreSQL partitions.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while an export or a backup reads them, and then nothing has gone; the database.
    pub async fn audit_drop(&self, class: Class, before: Time) -> Result<u64, StoreError> {
        let before = before.floor(DAY);
        let mut tx = self.begin().await?;
        tx.without_queue().await?;
        // Until everybody who writes events has done so; whoever comes later sees what is written here.
        q!(
            tx, execute,
            pg "SELECT pg_advisory_xact_lock(hashtext('tollgate_audit_drop'))",
            lite "SELECT 1"
        )?;
        q!(
            tx,
            execute,
            "INSERT INTO audit_dropped (class, before) VALUES ($1, $2)
             ON CONFLICT (class) DO UPDATE SET before =
                CASE WHEN excluded.before > audit_dropped.before THEN excluded.before ELSE audit_dropped.before END",
            number(class),
            before
        )?;
        // The last event of each chain that goes, before it goes.
        q!(
            tx, execute,
            // One row by an index for each chain, or a day with many events would be sorted whole.
            pg "UPDATE audit_heads h SET from_sequence = e.sequence, from_link = e.link
                  FROM audit_heads g CROSS JOIN LATERAL
                       (SELECT a.sequence, a.link FROM audit_events a
                         WHERE a.tenant = g.tenant AND a.class = $1 AND a.writer = g.writer AND a.time < $2
                         ORDER BY a.sequence DESC LIMIT 1) e
                 WHERE g.class = $1 AND h.class = $1 AND h.tenant = g.tenant AND h.writer = g.writer",
            // Tenants one by one, or the index by tenant and time would be of no use; the pluses keep it from that of chains.
            lite "UPDATE audit_heads AS h SET from_sequence = e.sequence, from_link = e.link
                    FROM (SELECT t.tenant, c.writer, max(r.sequence) AS sequence, r.link
                            FROM audit_event_rows r
                            JOIN audit_event_chains c ON c.id = +r.chain AND +c.class = $1
                            JOIN audit_event_tenants t ON t.id = +r.tenant
                           WHERE r.tenant IN (SELECT id FROM audit_event_tenants) AND r.time < $2
                           GROUP BY r.chain) e
                   WHERE h.class = $1 AND h.tenant = e.tenant AND h.writer = e.writer",
            number(class),
            before
        )?;
        let gone = match tx.store().engine() {
            Engine::Postgres => {
                // What lies in no day's partition goes row by row.
                q!(
                    tx, execute,
                    pg "DELETE FROM audit_events WHERE class = $1 AND time < $2
                           AND tableoid = format('audit_events_%s_rest', CASE $1 WHEN 1 THEN 'control' ELSE 'data' END)::regclass",
                    lite "SELECT $1, $2",
                    number(class),
                    before
                )?;
                let dropped = q!(
                    tx, scalar as i32,
                    pg "SELECT tollgate_audit_drop($1, ($2 AT TIME ZONE 'UTC')::date)",
                    lite "SELECT 0",
                    class.as_str(),
                    before
                )?;
                u64::try_from(dropped).unwrap_or(0)
            }
            Engine::Sqlite => q!(
                tx,
                execute,
                "DELETE FROM audit_event_rows
                  WHERE tenant IN (SELECT id FROM audit_event_tenants) AND time < $2
                    AND +chain IN (SELECT id FROM audit_event_chains WHERE class = $1)",
                number(class),
                before
            )?,
        };
        tx.forget_chains(class, before.minus(REMEMBERED)).await?;
        tx.commit().await?;
        Ok(gone)
    }
}
