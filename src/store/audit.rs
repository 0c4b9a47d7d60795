//! Events on their way into the store: what the drainer writes.
//!
//! A batch is one transaction: events, heads of their chains, usage, and how far the writer's spool is drained. The row of
//! the writer is locked first and must be where the batch begins, so that a batch whose commit got lost on the way back is
//! never written twice.

use std::sync::Arc;

use sqlx::types::Uuid;

use super::audit_lite as lite;
use super::audit_notice::AuditNotice;
use super::audit_read::{ChainRow, StoredChain};
use super::audit_retention::REMEMBERED;
use super::tx::{Conn, q, within};
use super::{Channel, Platform, StoreError, Time, Tx};
use crate::audit::{ChainId, Class, Hash, Head, Keys, Position, WriterId, usage};

/// One event on its way into the store.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// Which plane.
    pub class: Class,
    /// Its number in its chain.
    pub sequence: u64,
    /// Its time in its chain.
    pub time: Time,
    /// What the chain commits to.
    pub commitment: Hash,
    /// Its link.
    pub link: Hash,
    /// The salt of the commitment.
    pub salt: [u8; 16],
    /// The canonical JSON.
    pub payload: Arc<str>,
    /// Whose it is, and copies of fields of the payload that are searched by.
    pub keys: Keys,
}

/// A chain that went on.
#[derive(Clone, Debug)]
pub struct MovedChain {
    /// Which.
    pub id: ChainId,
    /// Where it was. It may be so long ago that the store has forgotten it.
    pub from: Head,
    /// Where it is.
    pub to: Head,
}

/// What one transaction of the drainer writes.
#[derive(Debug)]
pub struct AuditBatch {
    /// Whose spool.
    pub writer: WriterId,
    /// Where the batch begins.
    pub from: Position,
    /// Where the next one begins.
    pub to: Position,
    /// Events, in the order of the spool.
    pub events: Vec<NewEvent>,
    /// The chains that moved.
    pub chains: Vec<MovedChain>,
    /// Usage of the events.
    pub usage: Vec<(usage::Key, usage::Cell)>,
    /// Metrics of the events.
    pub metrics: Vec<(usage::MetricKey, usage::Metric)>,
}

impl Tx {
    async fn insert_events(&mut self, writer: Uuid, events: &[&NewEvent]) -> Result<(), StoreError> {
        let started = std::time::Instant::now();
        let patience = self.patience();
        let done = match self.conn() {
            Conn::Postgres(conn) => {
                let column = |f: fn(&NewEvent) -> &str| events.iter().map(|e| f(e)).collect::<Vec<&str>>();
                let insert = sqlx::query(
                    "INSERT INTO audit_events (tenant, class, writer, sequence, time, commitment, link, salt, payload,
                                               principal, route, server, name, outcome)
                     SELECT e.tenant, e.class, $1, e.sequence, e.time, e.commitment, e.link, e.salt, e.payload,
                            e.principal, e.route, e.server, e.name, e.outcome
                       FROM UNNEST($2::text[], $3::smallint[], $4::bigint[], $5::timestamptz[], $6::bytea[],
                                   $7::bytea[], $8::bytea[], $9::text[], $10::text[], $11::text[], $12::text[],
                                   $13::text[], $14::text[])
                         AS e(tenant, class, sequence, time, commitment, link, salt, payload, principal, route,
                              server, name, outcome)",
                )
                .bind(writer)
                .bind(column(|e| &e.keys.tenant))
                .bind(events.iter().map(|e| number(e.class)).collect::<Vec<i16>>())
                .bind(events.iter().map(|e| signed(e.sequence)).collect::<Vec<i64>>())
                .bind(events.iter().map(|e| e.time).collect::<Vec<Time>>())
                .bind(events.iter().map(|e| &e.commitment[..]).collect::<Vec<&[u8]>>())
                .bind(events.iter().map(|e| &e.link[..]).collect::<Vec<&[u8]>>())
                .bind(events.iter().map(|e| &e.salt[..]).collect::<Vec<&[u8]>>())
                .bind(column(|e| &e.payload))
                .bind(column(|e| &e.keys.principal))
                .bind(column(|e| &e.keys.route))
                .bind(column(|e| &e.keys.server))
                .bind(column(|e| &e.keys.name))
                .bind(column(|e| &e.keys.outcome));
                within(patience, insert.execute(&mut **conn)).await.map(drop)
            }
            Conn::Sqlite(conn) => lite::insert(conn, writer, events).await,
        };
        self.timed("INSERT INTO audit_events …", started.elapsed(), done.is_ok());
        done.map_err(StoreError::from)
    }
}

impl Platform<'_> {
    /// How far a writer's spool has been drained; the beginning if nothing was.
    ///
    /// # Errors
    /// The database.
    pub async fn audit_cursor(&self, writer: WriterId) -> Result<Position, StoreError> {
        let mut tx = self.read().await?;
        let found = q!(
            tx,
            optional as (i64, i64),
            "SELECT segment, place FROM audit_writers WHERE writer = $1",
            uuid(writer)
        )?;
        Ok(found.map_or_else(Position::default, position))
    }

    /// The chains of a writer, for going on with them.
    ///
    /// # Errors
    /// The database.
    pub async fn audit_writer_chains(&self, writer: WriterId) -> Result<Vec<StoredChain>, StoreError> {
        let mut tx = self.read().await?;
        let rows = q!(
            tx,
            all as ChainRow,
            "SELECT tenant, class, writer, sequence, link, time, from_sequence, from_link FROM audit_heads
              WHERE writer = $1",
            uuid(writer)
        )?;
        Ok(rows.into_iter().map(StoredChain::from).collect())
    }

    /// Makes the partitions of a day, if there are such things here.
    ///
    /// # Errors
    /// The database.
    pub async fn audit_day(&self, day: Time) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        tx.without_queue().await?;
        q!(
            tx, execute,
            pg "SELECT tollgate_audit_day(($1 AT TIME ZONE 'UTC')::date)",
            lite "SELECT $1",
            day
        )?;
        tx.commit().await
    }

    /// Writes one batch, all of it or nothing.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the writer's spool is not drained to where the batch begins; the database.
    pub async fn audit_write(&self, batch: &AuditBatch) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let (now, writer) = (tx.now(), uuid(batch.writer));
        q!(
            tx,
            execute,
            "INSERT INTO audit_writers (writer, segment, place, updated_at) VALUES ($1, 0, 0, $2)
             ON CONFLICT (writer) DO NOTHING",
            writer,
            now
        )?;
        let at = q!(
            tx, one as (i64, i64),
            pg "SELECT segment, place FROM audit_writers WHERE writer = $1 FOR UPDATE",
            lite "SELECT segment, place FROM audit_writers WHERE writer = $1",
            writer
        )?;
        if position(at) != batch.from {
            return Err(StoreError::Conflict { expected: signed(batch.from.offset), found: at.1 });
        }
        let (kept, late) = tx.audit_late(&batch.events).await?;
        tx.insert_events(writer, &kept).await?;
        for MovedChain { id, from, to } in &batch.chains {
            // Behind what came too late the chain goes on as behind what was dropped.
            let late = late.get(&(&*id.tenant, id.class)).map(|last| (last.sequence, &last.link));
            // One that is not there any more may have been forgotten if it was silent for so long. If not, somebody took it
            // away, and what it has from now on shall not look whole.
            let silent = Time::from_micros(signed(from.time_us)) < now.minus(REMEMBERED);
            let genesis = id.genesis();
            let before = if silent { from } else { &genesis };
            let (new, new_link) = late.unwrap_or((before.sequence, &before.link));
            let (late, late_link) = late.unwrap_or((0, &genesis.link));
            q!(
                tx,
                execute,
                "INSERT INTO audit_heads (tenant, class, writer, sequence, link, time, from_sequence, from_link)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                 ON CONFLICT (tenant, class, writer) DO UPDATE
                    SET sequence = excluded.sequence, link = excluded.link, time = excluded.time,
                        from_link = CASE WHEN $9 > audit_heads.from_sequence THEN $10 ELSE audit_heads.from_link END,
                        from_sequence = CASE WHEN $9 > audit_heads.from_sequence
                                             THEN $9 ELSE audit_heads.from_sequence END",
                &*id.tenant,
                number(id.class),
                writer,
                signed(to.sequence),
                &to.link[..],
                Time::from_micros(signed(to.time_us)),
                signed(new),
                &new_link[..],
                signed(late),
                &late_link[..]
            )?;
        }
        tx.write_usage(writer, &batch.usage).await?;
        tx.write_metrics(writer, &batch.metrics).await?;
        q!(
            tx,
            execute,
            "UPDATE audit_writers SET segment = $2, place = $3, updated_at = $4 WHERE writer = $1",
            writer,
            signed(batch.to.segment),
            signed(batch.to.offset),
            now
        )?;
        for notice in AuditNotice::of(batch) {
            tx.notify(Channel::Audit, &notice).await?;
        }
        tx.commit().await
    }
}

pub(super) fn uuid(writer: WriterId) -> Uuid {
    Uuid::from_bytes(*writer.as_bytes())
}

pub(super) fn number(class: Class) -> i16 {
    match class {
        Class::Control => 1,
        Class::Data => 2,
    }
}

pub(super) fn class_of(number: i16) -> Class {
    if number == 1 { Class::Control } else { Class::Data }
}

fn position((segment, place): (i64, i64)) -> Position {
    Position { segment: unsigned(segment), offset: unsigned(place) }
}

pub(super) fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

pub(super) fn hash(bytes: &[u8]) -> Hash {
    bytes.try_into().unwrap_or([0; 32])
}
