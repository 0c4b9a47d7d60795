//! What somebody who works on the store itself does to a log, and that it is recorded in it: erasing what events of a
//! principal say, and taking recorded bodies away.

use crate::audit::{Class, Event, Names, Position, WriterId};
use crate::base::TenantId;
use crate::store::{AuditBatch, Erasure, Store, StoreError};

use super::link::{Chains, Linker};

/// Erases, after recording in the tenant's audit that it is done. Returns what was erased.
///
/// # Errors
/// The store; what was erased before it failed stays erased, and the rest is erased by a running gateway or another call.
pub async fn erase(
    store: &Store,
    tenant: &TenantId,
    principal: &str,
    author: &str,
    reason: Option<&str>,
) -> Result<Erasure, StoreError> {
    record(store, tenant, "erase_audit", None, author, reason).await?;
    store.platform().audit_erase(tenant, principal).await
}

/// Records in the tenant's audit that recorded bodies are about to be exported.
///
/// # Errors
/// The store.
pub async fn bodies_exported(
    store: &Store,
    tenant: &TenantId,
    author: &str,
    reason: Option<&str>,
) -> Result<(), StoreError> {
    record(store, tenant, "read_audit_bodies", None, author, reason).await
}

/// Writes one event of the control plane, as a writer that writes nothing else: what was done on the store itself, and to
/// what.
///
/// # Errors
/// The store.
pub async fn record(
    store: &Store,
    tenant: &TenantId,
    action: &str,
    object: Option<&str>,
    author: &str,
    reason: Option<&str>,
) -> Result<(), StoreError> {
    let event = &Event {
        action: Some(action),
        object,
        principal: Some(author),
        decision: Some("allow"),
        outcome: Some("ok"),
        reason,
        ..Event::new(u64::try_from(store.now().micros()).unwrap_or(0), tenant.as_str(), Class::Control)
    };
    let writer = WriterId::fresh();
    let (chains, mut names) = (Chains::default(), Names::default());
    let mut linker = Linker::new(writer, &chains, &mut names);
    let new = linker.link(event, rand::random());
    store.platform().audit_day(new.time).await?;
    let batch = AuditBatch {
        writer,
        from: Position::default(),
        to: Position { segment: 0, offset: 1 },
        events: vec![new],
        heads: linker.finish().heads,
        usage: Vec::new(),
        metrics: Vec::new(),
    };
    store.platform().audit_write(&batch).await
}
