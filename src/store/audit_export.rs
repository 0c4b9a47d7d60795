//! A tenant's events on their way out, from one state of the store.

use super::audit_read::{AuditFilter, StoredChain};
use super::{Page, Store, StoreError, Time};
use crate::audit::{
    AuditKey, Exporter, Head, Range, Row, Stored, cef, csv, csv_header, horizon_of, statement_hash,
};
use crate::base::TenantId;

/// How an export looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// ArcSight's Common Event Format.
    Cef,
    /// Comma-separated values.
    Csv,
    /// JSON lines that end with a signed manifest: the only one that can be verified.
    JsonLines,
}

impl ExportFormat {
    /// The format of that name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "cef" => Some(Self::Cef),
            "csv" => Some(Self::Csv),
            "jsonl" => Some(Self::JsonLines),
            _ => None,
        }
    }

    /// What a response with it is called.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Cef => "text/plain; charset=utf-8",
            Self::Csv => "text/csv; charset=utf-8",
            Self::JsonLines => "application/jsonl",
        }
    }
}

/// Takes an export, piece by piece.
pub trait ExportSink: Send {
    /// Why a piece is not taken.
    type Error;

    /// The next piece, which may be empty.
    ///
    /// # Errors
    /// It is not taken; the export ends.
    fn take(&mut self, piece: Vec<u8>) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Writes go on blocking whoever exports: for the command line.
impl<W: std::io::Write + Send> ExportSink for W {
    type Error = std::io::Error;

    async fn take(&mut self, piece: Vec<u8>) -> Result<(), std::io::Error> {
        self.write_all(&piece)
    }
}

/// Why an export ended early.
#[derive(Debug, thiserror::Error)]
pub enum ExportError<E> {
    /// Whoever takes it does not.
    #[error("the export was not taken: {0}")]
    Sink(E),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Bytes of a piece, from which on it is handed over.
const PIECE: usize = 256 << 10;

/// Writes a tenant's events to `sink`, piece by piece. JSON lines are in the order of the chains and hold every event of
/// the time asked for: those that the filter leaves out as commitments, and so those with bodies unless `bodies`. The
/// others hold what the filter lets through, without bodies.
///
/// # Errors
/// [`ExportError`].
pub async fn export<S: ExportSink>(
    store: &Store,
    key: &AuditKey,
    tenant: &TenantId,
    filter: &AuditFilter,
    format: ExportFormat,
    bodies: bool,
    sink: &mut S,
) -> Result<(), ExportError<S::Error>> {
    // What is not shown is not read either; a table has no bodies.
    let bodies = bodies && format == ExportFormat::JsonLines;
    let mut tx = store.tenant(tenant).read().await?;
    let chains = tx.audit_chains(tenant).await?;
    let micros = |time: Time| u64::try_from(time.micros()).unwrap_or(0);
    let range = Range {
        filter: (!filter.shows_all()).then(|| serde_json::to_string(filter).unwrap_or_default()),
        from_us: filter.from.map(micros),
        to_us: filter.to.map(micros),
    };
    let mut exporter = Exporter::new(tenant.as_str(), range);
    let mut out = Vec::new();
    // What the last checkpoint says may be gone.
    let mut horizon = None;
    if format == ExportFormat::JsonLines {
        let mut after = 0;
        loop {
            let page = tx.audit_checkpoints(tenant, after, Page::of(Page::MAX)).await?;
            let Some(last) = page.last() else { break };
            after = last.0;
            horizon = horizon_of(&last.1);
            for (number, line) in &page {
                let hash = statement_hash(line).unwrap_or_default();
                exporter.checkpoint(line, u64::try_from(*number).unwrap_or(0), &hash, &mut out);
            }
            sink.take(std::mem::take(&mut out)).await.map_err(ExportError::Sink)?;
        }
    }
    if format == ExportFormat::Csv {
        out.extend_from_slice(csv_header().as_bytes());
    }
    let horizon = horizon.unwrap_or_default();
    for StoredChain { id, from, head } in chains {
        if from.sequence == head.sequence && head.time_us < horizon.of(id.class) {
            continue;
        }
        let mut from = from;
        if let Some(time) = filter.from
            && let Some(before) = tx.audit_before(&id, time).await?
        {
            from = Head { sequence: before.sequence(), link: before.link(), time_us: 0 };
        }
        exporter.chain(&id, from, head);
        let mut after = from.sequence;
        'chain: loop {
            let page = if bodies {
                tx.audit_range_whole(&id, after, Page::of(Page::MAX)).await?
            } else {
                tx.audit_range(&id, after, Page::of(Page::MAX)).await?
            };
            let Some(last) = page.last() else { break };
            after = last.sequence();
            for event in &page {
                if filter.to.is_some_and(|to| event.time >= to) {
                    break 'chain;
                }
                let payload = event.payload.as_deref();
                // A verifiable line has all that was committed to or nothing.
                let readable = bodies || format != ExportFormat::JsonLines || !event.has_bodies();
                let shown = readable
                    && (filter.shows_all()
                        || payload
                            .and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok())
                            .is_some_and(|json| filter.shows(id.class, &json)));
                if format == ExportFormat::JsonLines {
                    let stored = Stored {
                        sequence: event.sequence(),
                        time_us: micros(event.time),
                        commitment: event.commitment(),
                        link: event.link(),
                        content: event.salt().zip(payload),
                    };
                    exporter.event(&stored, shown, &mut out);
                } else if shown {
                    let (writer, time) = (event.writer().to_string(), event.time.to_string());
                    let row = Row {
                        tenant: tenant.as_str(),
                        class: id.class,
                        writer: &writer,
                        sequence: event.sequence(),
                        time: &time,
                        time_ms: micros(event.time) / 1000,
                        payload,
                    };
                    let line = if format == ExportFormat::Csv { csv(&row) } else { cef(&row) };
                    out.extend_from_slice(line.as_bytes());
                }
                if out.len() >= PIECE {
                    sink.take(std::mem::take(&mut out)).await.map_err(ExportError::Sink)?;
                }
            }
            sink.take(std::mem::take(&mut out)).await.map_err(ExportError::Sink)?;
        }
        if !out.is_empty() {
            sink.take(std::mem::take(&mut out)).await.map_err(ExportError::Sink)?;
        }
    }
    if format == ExportFormat::JsonLines {
        exporter.finish(key, micros(store.now()), &mut out);
    }
    sink.take(out).await.map_err(ExportError::Sink)
}
