//! What somebody who works on the store itself does to a log, and that it is recorded in it: erasing what events of a
//! principal say, and taking recorded bodies away.

use crate::audit::{Class, Event, Names, Position, WriterId};
use crate::base::TenantId;
use crate::store::{AuditBatch, Erasure, Store, StoreError, erased_name};

use super::link::{Chains, Linker};

/// Erases, and records in the tenant's audit before it that it is done, and after it of how many. Returns what was erased.
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
    let whose = format!("principal: {}", erased_name(tenant, principal));
    write(store, tenant, ["erase_audit", ""], Some(&whose), author, reason).await?;
    let done = store.platform().audit_erase(tenant, principal).await?;
    let much = format!(
        "{whose}; erased: {} events, {} samples, {} rows of usage; classes: data, control",
        done.events, done.samples, done.usage
    );
    write(store, tenant, ["erase_audit", ""], Some(&much), author, reason).await?;
    Ok(done)
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
    write(store, tenant, [action, object.unwrap_or_default()], None, author, reason).await
}

/// The same, with what it did in words. An object without a name is none.
async fn write(
    store: &Store,
    tenant: &TenantId,
    [action, object]: [&str; 2],
    detail: Option<&str>,
    author: &str,
    reason: Option<&str>,
) -> Result<(), StoreError> {
    let object = Some(object).filter(|object| !object.is_empty());
    let event = &Event {
        action: Some(action),
        object,
        principal: Some(author),
        decision: Some("allow"),
        outcome: Some("ok"),
        reason,
        detail,
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
        chains: linker.finish().chains,
        usage: Vec::new(),
        metrics: Vec::new(),
    };
    store.platform().audit_write(&batch).await
}
