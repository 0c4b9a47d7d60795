//! What the control plane does, as audit events.

use crate::audit::{Auditor, Class, Event};
use crate::base::Clock;
use crate::control::trail::{Action, Ledger};

/// Records the control plane's actions.
pub(crate) struct AuditLedger {
    auditor: Auditor,
    clock: Clock,
}

impl AuditLedger {
    /// Records into `auditor`.
    pub(crate) fn new(auditor: Auditor, clock: Clock) -> Self {
        Self { auditor, clock }
    }
}

impl Ledger for AuditLedger {
    fn ready(&self) -> bool {
        self.auditor.has_room()
    }

    fn record(&self, action: &Action) {
        let actor = action.actor.as_deref();
        let decision = match (action.succeeded(), action.refused()) {
            (true, _) => "allow",
            (false, true) => "deny",
            (false, false) => "error",
        };
        let micros = |d: std::time::Duration| Some(u64::try_from(d.as_micros()).unwrap_or(u64::MAX));
        let event = Event {
            action: Some(action.operation.id),
            object: Some(&action.path),
            principal: actor.map(|a| &*a.id),
            kind: actor.map(|a| a.proof.as_str()),
            role: actor.and_then(|a| a.roles.highest()).map(crate::base::Role::as_str),
            decision: Some(decision),
            outcome: Some(match decision {
                "allow" => "ok",
                "deny" => "refused",
                _ => "failed",
            }),
            reason: action.reason.as_deref(),
            status: Some(u64::from(action.status)),
            duration_us: micros(action.took),
            client_ip: Some(action.address),
            request_id: Some(action.request.to_bytes()),
            // What belongs to no tenant is the operator's.
            ..Event::new(
                self.clock.unix_ms() * 1000,
                action.tenant.as_ref().map_or("default", |t| t.as_str()),
                Class::Control,
            )
        };
        if actor.is_none() {
            // There is no answer that waits for the disk: what nobody known tries has changed nothing.
            drop(self.auditor.record_unidentified(&event, cause(action.status)));
            return;
        }
        if let Err(error) = self.auditor.record(&event, None) {
            tracing::error!(event = "audit_action_not_recorded", operation = action.operation.id, %error);
        }
    }
}

/// Why nobody was let in, in a word.
fn cause(status: u16) -> &'static str {
    match status {
        401 => "unauthenticated",
        404 => "not_found",
        429 => "throttled",
        500.. => "unavailable",
        _ => "other",
    }
}
