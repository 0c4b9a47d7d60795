//! Events of the audit, of all replicas: whoever writes some into the store notifies, and they are read from there.
//!
//! Only those are read that somebody listens to, and at most [`PER_SECOND`]; of the others the hub remembers that they
//! were not looked for.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::audit::BODIES;
use crate::base::TenantId;
use crate::control::events::{Hub, Topic};
use crate::store::{AuditEvent, AuditNotice, AuditRange, Channel, Notification, Page, Store, StoreError};

/// Events that are read in a second, at most.
const PER_SECOND: u32 = 2_000;

/// Follows until dropped.
pub(super) async fn follow(store: Store, hub: Arc<Hub>) {
    let mut listener = store.listen();
    let mut budget = Budget { left: PER_SECOND, since: Instant::now() };
    loop {
        match listener.next().await {
            Notification::Message { channel: Channel::Audit, payload } => {
                match AuditNotice::parse(&payload) {
                    Some(AuditNotice(ranges)) => take(&store, &hub, ranges, &mut budget).await,
                    None => hub.lose(Topic::Audit, None),
                }
            }
            Notification::Message { .. } => {}
            Notification::Missed => hub.lose(Topic::Audit, None),
        }
    }
}

struct Budget {
    left: u32,
    since: Instant,
}

impl Budget {
    /// How many of `wanted` may be read now.
    fn take(&mut self, wanted: u64) -> u32 {
        let now = Instant::now();
        if now - self.since >= Duration::from_secs(1) {
            *self = Self { left: PER_SECOND, since: now };
        }
        let some = u32::try_from(wanted).unwrap_or(u32::MAX).min(self.left).min(Page::MAX);
        self.left -= some;
        some
    }
}

async fn take(store: &Store, hub: &Hub, ranges: Vec<AuditRange>, budget: &mut Budget) {
    let wanted = hub.wanted(Topic::Audit);
    for range in ranges {
        let tenant = TenantId::new(range.chain.tenant.as_str());
        let count = range.to.saturating_sub(range.after);
        let some = if wanted.includes(&tenant) { budget.take(count) } else { 0 };
        if some == 0 {
            hub.lose(Topic::Audit, Some(tenant));
            continue;
        }
        match read(store, &tenant, &range, some).await {
            Ok(events) => {
                for event in events.iter().filter(|e| e.sequence() <= range.to) {
                    hub.publish(Topic::Audit, Some(tenant.clone()), shown(event));
                }
                if u64::from(some) < count {
                    hub.lose(Topic::Audit, Some(tenant));
                }
            }
            Err(error) => {
                tracing::debug!(event = "audit_not_followed", %error);
                hub.lose(Topic::Audit, Some(tenant));
            }
        }
    }
}

async fn read(
    store: &Store,
    tenant: &TenantId,
    range: &AuditRange,
    some: u32,
) -> Result<Vec<AuditEvent>, StoreError> {
    let mut tx = store.tenant(tenant).read().await?;
    tx.audit_range(&range.chain, range.after, Page::of(some)).await
}

/// Bodies are not read for this: who may see them asks the log.
fn shown(event: &AuditEvent) -> Value {
    let mut payload: Option<Value> =
        event.payload.as_deref().and_then(|text| serde_json::from_str(text).ok());
    if let Some(Value::Object(fields)) = &mut payload {
        BODIES.iter().for_each(|field| drop(fields.remove(*field)));
    }
    json!({
        "time": event.time.to_string(),
        "class": event.class().as_str(),
        "writer": event.writer().to_string(),
        "sequence": event.sequence(),
        "event": payload,
        "bodies": event.bodies(),
    })
}
