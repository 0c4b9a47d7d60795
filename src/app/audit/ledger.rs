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
        let (words, revision) = (action.notes.words(), action.notes.revision.map(|n| n.to_string()));
        let event = told(action, self.clock.unix_ms() * 1000, words.as_deref(), revision.as_deref());
        if action.actor.is_none() {
            // There is no answer that waits for the disk: what nobody known tries has changed nothing.
            drop(self.auditor.record_unidentified(&event, cause(action.status)));
            return;
        }
        if let Err(error) = self.auditor.record(&event, None) {
            tracing::error!(event = "audit_action_not_recorded", operation = action.operation.id, %error);
        }
    }
}

/// What the log has of an action.
fn told<'a>(
    action: &'a Action,
    time_us: u64,
    words: Option<&'a str>,
    revision: Option<&'a str>,
) -> Event<'a> {
    let actor = action.actor.as_deref();
    let decision = match (action.succeeded(), action.refused()) {
        (true, _) => "allow",
        (false, true) => "deny",
        (false, false) => "error",
    };
    let micros = |d: std::time::Duration| Some(u64::try_from(d.as_micros()).unwrap_or(u64::MAX));
    Event {
        action: Some(action.operation.id),
        object: Some(&action.path),
        name: action.notes.object.as_deref(),
        revision,
        detail: words,
        principal: actor.map(|a| &*a.id),
        credential: actor.map(|a| &*a.credential),
        kind: actor.map(|a| a.proof.as_str()),
        role: actor.and_then(|a| a.roles.highest()).map(crate::base::Role::as_str),
        decision: Some(decision),
        outcome: Some(match decision {
            // Nothing was done.
            "allow" if action.notes.replayed => "replayed",
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
        ..Event::new(time_us, action.tenant.as_ref().map_or("default", |t| t.as_str()), Class::Control)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::audit::render;
    use crate::base::{RequestId, TenantId};
    use crate::control::actor::{Actor, Proof};
    use crate::control::permission::Operation;
    use crate::control::trail::Notes;

    #[test]
    fn an_event_says_what_was_done_with_which_credential_and_whether_at_all() {
        let mut action = Action {
            operation: Operation::find("create_api_key").unwrap(),
            actor: Some(Arc::new(Actor { credential: "k1".into(), ..Actor::operator(Proof::Key) })),
            tenant: Some(TenantId::new("acme")),
            path: "/api/v1/tenants/acme/api-keys".to_owned(),
            reason: Some("ci".to_owned()),
            address: [127, 0, 0, 1].into(),
            status: 201,
            request: RequestId::fresh(),
            took: Duration::from_millis(2),
            notes: Notes {
                object: Some("k2".to_owned()),
                revision: Some(7),
                changes: vec!["roles: viewer".to_owned()],
                ..Notes::default()
            },
        };
        let json = |action: &Action| -> serde_json::Value {
            let (words, revision) = (action.notes.words(), action.notes.revision.map(|n| n.to_string()));
            let mut text = String::new();
            render(&told(action, 1, words.as_deref(), revision.as_deref()), &mut text);
            serde_json::from_str(&text).unwrap()
        };
        let said = json(&action);
        for (field, value) in [
            ("name", "k2"),
            ("credential", "k1"),
            ("revision", "7"),
            ("detail", "roles: viewer"),
            ("outcome", "ok"),
            ("reason", "ci"),
        ] {
            assert_eq!(said[field], value, "{said}");
        }
        action.notes.replayed = true;
        assert_eq!(json(&action)["outcome"], "replayed");
        action.status = 403;
        assert_eq!(json(&action)["outcome"], "refused");
    }
}
