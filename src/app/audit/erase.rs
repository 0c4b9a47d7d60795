//! Erasing what events of a principal say, by somebody who works on the store itself.

use std::collections::HashMap;

use crate::audit::usage::Usage;
use crate::audit::{Class, Event, Position, WriterId};
use crate::base::TenantId;
use crate::store::{AuditBatch, Erasure, Store, StoreError};

use super::drain::link;

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
    let event = Event {
        action: Some("erase_audit"),
        principal: Some(author),
        decision: Some("allow"),
        outcome: Some("ok"),
        reason,
        ..Event::new(u64::try_from(store.now().micros()).unwrap_or(0), tenant.as_str(), Class::Control)
    };
    record(store, &event).await?;
    store.platform().audit_erase(tenant, principal).await
}

/// Writes one event, as a writer that writes nothing else.
async fn record(store: &Store, event: &Event<'_>) -> Result<(), StoreError> {
    let writer = WriterId::fresh();
    let (mut moved, mut usage) = (HashMap::new(), Usage::default());
    let new = link(event, rand::random(), writer, &HashMap::new(), &mut moved, &mut usage);
    store.platform().audit_day(new.time).await?;
    let batch = AuditBatch {
        writer,
        from: Position::default(),
        to: Position { segment: 0, offset: 1 },
        events: vec![new],
        heads: moved.iter().map(|(id, chain)| (id.clone(), chain.head())).collect(),
        usage: Vec::new(),
        metrics: Vec::new(),
    };
    store.platform().audit_write(&batch).await
}
